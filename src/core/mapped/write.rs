//! Writes of mapped keys: checked against the table, queued for the database, then stored in the cluster.
//!
//! Must not know: when or how the rows reach the database.

use super::super::run::Hook;
use super::super::{Core, recycle};
use super::Split;
use super::set_options::{check_set_options, unix_seconds};
use crate::cluster::Entry;
use crate::command::Command;
use crate::mapping::{Bound, Row, StoreMode, WriteMode};
use crate::resp::{Args, RequestLimits, RequestScanner, push_command};
use crate::slot;
use crate::writeback::{KeyWrite, Write};
use bytes::Bytes;

/// What becomes of the cached entry of a key that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum Keep {
    /// It holds the written value for so long (ms; 0 = for ever).
    Value(u64),
    /// It goes: of the rows behind the key another one may be the newest, which the next read finds out.
    Nothing,
}

impl Keep {
    pub(super) fn of(bound: &Bound) -> Self {
        match bound.is_append() {
            true => Self::Nothing,
            false => Self::Value(bound.mapping.ttl.map_or(0, |ttl| (ttl.as_millis() as u64).max(1))),
        }
    }
}

/// A write that is checked, but not queued yet.
struct Prepared {
    mapping: u16,
    key: Bytes,
    write: Write,
}

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
            "set" | "setex" | "psetex" => self.write_one(index, command, args),
            name => Err(format!(
                "ERR '{name}' is not supported on keys of mapping '{}' yet; use SET, MSET, DEL or UNLINK",
                self.mapping_name(mapping)
            )),
        };
        if let Err(text) = verdict {
            self.answer_error(index, Some(command), text.as_bytes());
        }
        Hook::Done
    }

    /// `SET key value [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`, `SETEX`, `PSETEX` on a mapped key: queued for the
    /// database, then stored in the cluster.
    fn write_one(&mut self, index: usize, command: &'static Command, args: &Args<'_>) -> Result<(), String> {
        let key = args.get(1).unwrap_or_default();
        let value_at = if command.name == "set" { 2 } else { 3 };
        let value = args.get(value_at).unwrap_or_default();
        check_set_options(args, command)?;
        let prepared = self.prepare(key, value)?;
        let Some(bound) = self.bound(prepared.mapping) else { return Ok(()) };
        let (keep, cached) = (Keep::of(&bound), bound.mapping.cache);
        self.commit(vec![prepared])?;
        if !cached {
            self.answer_now(index, Some(command), b"+OK\r\n");
        } else if keep == Keep::Nothing || command.name == "set" && args.len() == 3 {
            let mut request = self.spare.pop().unwrap_or_default();
            push_set(&mut request, key, value, keep);
            self.forward(index, command, slot::slot(key), Entry::UNMAPPED, &request);
            recycle(request, &mut self.spare);
        } else {
            self.forward(index, command, slot::slot(key), Entry::UNMAPPED, args.frame());
        }
        Ok(())
    }

    /// Checks that `value` can become the row of `key`.
    fn prepare(&self, key: &[u8], value: &[u8]) -> Result<Prepared, String> {
        let (mapping, bound, found) = self.find(key)?;
        let row = Row::parse_at(&bound, found.ids(), value, unix_seconds())
            .map_err(|error| format!("ERR {error}"))?;
        let write = Write::Put { row, value: Bytes::copy_from_slice(value) };
        Ok(Prepared { mapping, key: Bytes::copy_from_slice(key), write })
    }

    /// Queues checked writes: all of them, or none when there is no room.
    fn commit(&self, prepared: Vec<Prepared>) -> Result<(), String> {
        let Some(data) = &self.data else { return Ok(()) };
        let keys: Vec<_> = prepared.iter().map(|write| (write.mapping, write.key.clone())).collect();
        let unit = prepared.into_iter().map(|Prepared { mapping, key, write }| KeyWrite {
            mapping,
            key,
            write,
            base: None,
            applies: false,
        });
        data.writes.submit(unit.collect()).map_err(|error| error.to_string())?;
        keys.iter().for_each(|(mapping, key)| data.reads.note_write(*mapping, key));
        Ok(())
    }

    /// `MSET` with mapped keys: all values are checked before anything happens.
    pub(super) fn write_many(&self, args: &Args<'_>) -> Result<Split, String> {
        let mut keeps = Vec::new();
        let mut prepared = Vec::new();
        for at in (1..args.len()).step_by(2) {
            let (key, value) = (args.get(at).unwrap_or_default(), args.get(at + 1).unwrap_or_default());
            let Ok((_, bound, _)) = self.find(key) else {
                keeps.push(None);
                continue;
            };
            if !bound.mapping.cache {
                return Err(format!(
                    "ERR mapping '{}' is not cached: write its keys with SET",
                    bound.mapping.name
                ));
            }
            prepared.push(self.prepare(key, value)?);
            keeps.push(Some(Keep::of(&bound)));
        }
        self.commit(prepared)?;
        Ok(Split::Writes(keeps))
    }

    /// `DEL` and `UNLINK`: on a read-only mapping they drop the cached entry; on a written one they delete the row.
    pub(super) fn delete_many<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<Split, String> {
        let (mut prepared, mut drops) = (Vec::new(), Vec::new());
        for (at, key) in keys.enumerate() {
            let Ok((mapping, bound, found)) = self.find(key) else { continue };
            if bound.mapping.write == WriteMode::None {
                if let Some(data) = &self.data {
                    data.reads.note_write(mapping, key);
                }
                drops.push(at as u32);
            } else if bound.mapping.mode == StoreMode::Append {
                return Err(format!(
                    "ERR mapping '{}' appends rows; they cannot be deleted through the proxy",
                    bound.mapping.name
                ));
            } else {
                let ids = found.ids().iter().map(|id| Box::from(*id)).collect();
                prepared.push(Prepared {
                    mapping,
                    key: Bytes::copy_from_slice(key),
                    write: Write::Delete { ids },
                });
            }
        }
        self.commit(prepared)?;
        Ok(if drops.is_empty() { Split::Plain } else { Split::Drops(drops) })
    }

    /// A request failed that may have been a write of mapped keys: its rows are queued, so the cache may now hold older
    /// values than the database will. Their entries go once the rows are written.
    pub(in crate::core) fn doubt(&self, entry: &Entry, request: &[u8]) {
        let Some(data) = self.data.as_ref().filter(|_| !entry.readonly) else { return };
        let mut scanner = RequestScanner::default();
        if scanner.scan(request, &RequestLimits::default()).is_err() {
            return;
        }
        let (args, mut keys) = (Args::new(request, scanner.spans()), Vec::new());
        let Some(command) = crate::command::lookup(args.name()).filter(|command| command.is_write()) else {
            return;
        };
        let _ = command.keys(&args, &mut keys);
        for key in keys.iter().filter_map(|at| args.get(*at as usize)) {
            if let Some(mapping) = data.source.mappings().find_id(key) {
                data.writes.doubt(mapping, key);
            }
        }
    }
}

/// `SET key value PX ttl`, without `PX` where there is no ttl. An entry that is to go is stored as one that has expired
/// already: that is answered with `OK`, as the write of a value is.
pub(super) fn push_set(out: &mut Vec<u8>, key: &[u8], value: &[u8], keep: Keep) {
    match keep {
        Keep::Value(0) => push_command(out, [b"SET", key, value]),
        Keep::Value(ttl) => push_command(out, [b"SET", key, value, b"PX", ttl.to_string().as_bytes()]),
        Keep::Nothing => push_command(out, [b"SET", key, b"", b"PXAT", b"1"]),
    }
}
