//! Writing commands on mapped keys: checked against the table before anything happens, then under way (`writing.rs`).
//!
//! Must not know: when or how the rows reach the database.

use super::super::Core;
use super::super::run::Hook;
use super::modify::looks_first;
use super::writing::Step;
use crate::cluster::Entry;
use crate::command::{Command, Merge};
use crate::mapping::{Format, Row, StoreMode, WriteMode};
use crate::modify::options::{expiry_of, set_options, unix_seconds};
use crate::resp::{Args, push_array_header, push_bulk};
use crate::slot;
use crate::writeback::{KeyWrite, Write};
use bytes::Bytes;

impl Core {
    /// A writing command with one key, or with several of one slot.
    pub(super) fn hook_write(&mut self, index: usize, command: &'static Command, args: &Args<'_>) -> Hook {
        let Some(data) = &self.data else { return Hook::Plain(Entry::UNMAPPED) };
        let mappings = data.source.mappings();
        let mapped = match command.first_key(args) {
            Some(first) => mappings.find_id(args.get(first).unwrap_or_default()),
            None => {
                let mut keys = Vec::new();
                // A malformed key list touches no key: Redis will say what is wrong with it.
                let _ = command.keys(args, &mut keys);
                keys.iter().find_map(|at| mappings.find_id(args.get(*at as usize).unwrap_or_default()))
            }
        };
        let Some(mapping) = mapped else { return Hook::Plain(Entry::UNMAPPED) };
        let verdict = match command.name {
            name if looks_first(name, args) => {
                if let Err(text) = self.modify(index, command, mapping, args) {
                    self.answer_error(index, Some(command), text.as_bytes());
                }
                return Hook::Done;
            }
            "set" | "setex" | "psetex" => self.write_one(command, args),
            name => Err(format!(
                "ERR '{name}' is not supported on keys of mapping '{}' yet; use SET, MSET, DEL or UNLINK",
                self.mapping_name(mapping)
            )),
        };
        match verdict {
            Ok(step) => self.begin(index, command, None, vec![step]),
            Err(text) => self.answer_error(index, Some(command), text.as_bytes()),
        }
        Hook::Done
    }

    /// `SET key value [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`, `SETEX`, `PSETEX` on a mapped key.
    pub(super) fn write_one(&self, command: &'static Command, args: &Args<'_>) -> Result<Step, String> {
        let value_at = if command.name == "set" { 2 } else { 3 };
        let expires_at = match command.name {
            "set" if args.len() == 3 => None,
            "set" => set_options(args.iter())?.expires_at,
            name => {
                let unit = if name == "setex" { 1000 } else { 1 };
                Some(expiry_of(args.get(2).unwrap_or_default(), unit, false, name)?)
            }
        };
        self.put(args.get(1).unwrap_or_default(), args.get(value_at).unwrap_or_default(), expires_at)
    }

    /// Checks that `value` can become the row of `key`.
    pub(super) fn put(&self, key: &[u8], value: &[u8], expires_at: Option<u64>) -> Result<Step, String> {
        let (mapping, bound, found) = self.find(key)?;
        if bound.mapping.format == Format::Hash {
            return Err(format!(
                "ERR mapping '{}' holds hashes, which a string cannot replace; use HSET, or DEL and HSET",
                bound.mapping.name
            ));
        }
        let row = Row::parse_at(&bound, found.ids(), value, unix_seconds())
            .map_err(|error| format!("ERR {error}"))?;
        // One piece of memory for both: they live as long as each other.
        let mut both = Bytes::from([key, value].concat());
        let (key, applies) = (both.split_to(key.len()), bound.mapping.cache);
        let write = Write::Put { row, value: both };
        Ok(Step::Write(KeyWrite { mapping, key, write, base: None, expires_at, applies }, 0))
    }

    /// `MSET`, `DEL` and `UNLINK` with mapped keys: everything is checked before anything happens.
    pub(super) fn write_many(
        &mut self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
    ) -> Result<(), String> {
        let (merge, steps) = self.steps_of(command, args)?;
        self.begin(index, command, Some(merge), steps);
        Ok(())
    }

    /// The steps of such a command, and how their replies become one.
    pub(super) fn steps_of(
        &self,
        command: &'static Command,
        args: &Args<'_>,
    ) -> Result<(Merge, Vec<Step>), String> {
        let (step, merge) = if command.name == "mset" { (2, Merge::AllOk) } else { (1, Merge::Sum) };
        let (mut steps, mut plain) = (Vec::new(), Vec::new());
        for at in (1..args.len()).step_by(step) {
            let key = args.get(at).unwrap_or_default();
            match (self.is_mapped(key), command.name) {
                (false, _) => plain.push((slot::slot(key), at)),
                (true, "mset") => steps.push(self.put(key, args.get(at + 1).unwrap_or_default(), None)?),
                (true, _) => steps.push(self.deletion(key)?),
            }
        }
        plain.sort_by_key(|(slot, _)| *slot);
        for group in plain.chunk_by(|a, b| a.0 == b.0) {
            let Some((slot, _)) = group.first() else { continue };
            let mut request = Vec::new();
            push_array_header(&mut request, 1 + group.len() * step);
            push_bulk(&mut request, args.get(0).unwrap_or_default());
            for arg in group.iter().flat_map(|(_, at)| *at..*at + step) {
                request.extend_from_slice(args.encoded(arg).unwrap_or_default());
            }
            steps.push(Step::Plain(*slot, request));
        }
        Ok((merge, steps))
    }

    pub(super) fn is_mapped(&self, key: &[u8]) -> bool {
        self.data.as_ref().is_some_and(|data| data.source.mappings().find_id(key).is_some())
    }

    /// On a read-only mapping the cached entry is dropped; on a written one the row is deleted.
    fn deletion(&self, key: &[u8]) -> Result<Step, String> {
        let (mapping, bound, found) = self.find(key)?;
        if bound.mapping.write == WriteMode::None {
            if let Some(data) = &self.data {
                data.reads.note_write(mapping, key);
            }
            return Ok(Step::Drop(key.to_vec()));
        }
        if bound.mapping.mode == StoreMode::Append {
            return Err(format!(
                "ERR mapping '{}' appends rows; they cannot be deleted through the proxy",
                bound.mapping.name
            ));
        }
        let ids = found.ids().iter().map(|id| Box::from(*id)).collect();
        let (key, applies) = (Bytes::copy_from_slice(key), bound.mapping.cache);
        let write = Write::Delete { ids };
        Ok(Step::Write(KeyWrite { mapping, key, write, base: None, expires_at: None, applies }, 0))
    }
}
