//! Commands on mapped keys that compute a value from the one that is there.
//!
//! Must not know: how they are computed, what they come to.
//!
//! They run beside the data path ([`crate::modify`]), in the order in which they come. So that nothing of their client
//! overtakes them, and they overtake nothing of it, such a command waits until everything else that its client has asked
//! for is answered, and what follows it waits for it.
//!
//! Other writes wait for the reads before them: a read whose key is not cached is answered from the database and from what
//! waits for it, where the write would be seen.

use super::super::client::{Begun, Slot};
use super::super::{ClientKey, Core, Kind, Route};
use super::Told;
use crate::command::{Class, Command};
use crate::mapping::MappingId;
use crate::modify::{Asked, Several};
use crate::resp::Args;
use bytes::Bytes;

/// A command that was computed.
#[derive(Debug)]
pub struct Modified {
    client: ClientKey,
    seq: u32,
    reply: Vec<u8>,
}

/// Whether what this command does depends on the value that its key has.
pub(super) fn looks_first(name: &str, args: &Args<'_>) -> bool {
    match name {
        "set" => {
            let looks = |option: &[u8]| {
                [&b"nx"[..], b"xx", b"get"].iter().any(|word| option.eq_ignore_ascii_case(word))
            };
            args.len() > 3 && args.iter().skip(3).any(looks)
        }
        "getex" => args.len() > 2,
        "setnx" | "msetnx" | "getset" | "getdel" | "append" | "setrange" | "incr" | "decr" | "incrby"
        | "decrby" | "incrbyfloat" | "hset" | "hmset" | "hsetnx" | "hdel" | "hincrby" | "hincrbyfloat" => {
            true
        }
        _ => false,
    }
}

impl Core {
    /// Whether a command must wait since its client has such commands under way, or since it is one itself and its client
    /// has others, or since it writes and its client has reads under way.
    #[inline]
    pub(in crate::core) fn waits_to_modify(
        &self,
        index: usize,
        command: &'static Command,
        class: Class,
        args: &Args<'_>,
    ) -> bool {
        let may_write = command.is_write() || class == Class::Transaction;
        if self.modifying.is_empty() && !(may_write && self.data.is_some()) {
            return false;
        }
        self.is_apart(index, command, args)
    }

    #[cold]
    fn is_apart(&self, index: usize, command: &'static Command, args: &Args<'_>) -> bool {
        let Some(client) = self.clients.get(index) else { return false };
        let under_way = self.modifying.get(&(index as u32, client.serial)).copied().unwrap_or_default();
        match looks_first(command.name, args) && self.mapped_key(command, args).is_some() {
            true => client.inflight() > under_way,
            false => {
                under_way > 0
                    || client.inflight() > 0
                        && self.writes_mapped(index, command, args)
                        && client.reads_under_way()
            }
        }
    }

    /// Whether a command writes mapped keys now.
    fn writes_mapped(&self, index: usize, command: &'static Command, args: &Args<'_>) -> bool {
        let client = self.clients.get(index).filter(|client| client.kind != Kind::Internal);
        match client.map(|client| &client.transaction) {
            None => false,
            Some(Some(transaction)) => command.name == "exec" && transaction.writes_mapped(),
            Some(None) => command.is_write() && self.mapped_key(command, args).is_some(),
        }
    }

    /// Begins such a command; `mapping` is the one of its key.
    pub(super) fn modify(
        &mut self,
        index: usize,
        command: &'static Command,
        mapping: MappingId,
        args: &Args<'_>,
    ) -> Result<(), String> {
        let Some(data) = &self.data else { return Ok(()) };
        data.modify.check(mapping, command.name)?;
        let several = (command.name == "msetnx" && args.len() > 3).then(|| self.several(args)).transpose()?;
        let Some(data) = &self.data else { return Ok(()) };
        if let Some(several) = &several {
            data.modify.check_several(several, command.name)?;
        }
        let (told, modify) = (data.told.clone(), data.modify.clone());
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        let protocol = client.session.protocol;
        let seq = client.open(Slot::Waiting(Begun { at: self.now, command: command.id }));
        let client = ClientKey { index: index as u32, serial: client.serial };
        self.stats.inflight.add(1);
        *self.modifying.entry((client.index, client.serial)).or_default() += 1;
        let key = Bytes::copy_from_slice(args.get(1).unwrap_or_default());
        let asked =
            Asked { name: command.name, args: args.iter().map(Bytes::copy_from_slice).collect(), protocol };
        // The receiver is gone only when the worker has stopped: then nobody waits.
        let done = Box::new(move |reply| drop(told.send(Told::Modified(Modified { client, seq, reply }))));
        match several {
            Some(several) => modify.submit_several(several, asked, done),
            None => modify.submit(mapping, key, asked, done),
        }
        Ok(())
    }

    /// What `MSETNX` of several keys is to set.
    fn several(&self, args: &Args<'_>) -> Result<Several, String> {
        if args.len().is_multiple_of(2) {
            return Err("ERR wrong number of arguments for 'msetnx' command".to_owned());
        }
        let mappings = self.data.as_ref().map(|data| data.source.mappings());
        let mut several = Several::default();
        for at in (1..args.len()).step_by(2) {
            let [key, value] =
                [at, at + 1].map(|at| Bytes::copy_from_slice(args.get(at).unwrap_or_default()));
            match mappings.and_then(|mappings| mappings.find_id(&key)) {
                None => several.plain.push((key, value)),
                Some(mapping) => match several.mapped.iter_mut().find(|(_, known, _)| *known == key) {
                    Some((.., values)) => values.push(value),
                    None => several.mapped.push((mapping, key, vec![value])),
                },
            }
        }
        Ok(several)
    }

    /// It is computed.
    pub(super) fn modified(&mut self, modified: Modified) {
        let Modified { client, seq, reply } = modified;
        let key = (client.index, client.serial);
        match self.modifying.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.modifying.remove(&key)),
        }
        if self.client(client).is_some() {
            self.complete(client.index as usize, seq, &reply, Route::Load);
        }
    }
}
