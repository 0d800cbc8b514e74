//! Writes of mapped keys inside `MULTI`: journaled as one unit at `EXEC`, then applied inside the transaction.
//!
//! Must not know: how writes become durable, the database.
//!
//! At `EXEC` the writes of all commands go to [`crate::writeback`] together: all of them are durable, or none is. Then the
//! transaction is sent, with the `apply` scripts in the places of the commands that write; so whatever reads inside of it
//! sees them. In the node's reply what the scripts say becomes what Redis says (`unit_reply.rs`). Where keys are watched, or commands
//! compute from the value of a key, it goes another way (`trial.rs`, `computing.rs`).

use super::super::client::{Begun, Slot};
use super::super::{ClientKey, Core, Kind, Route};
use super::modify::looks_first;
use super::trial::Trial;
use super::unit_reply::elements;
use super::writing::{Step, Writing, WritingKey};
use crate::cluster::{Entry, Owner};
use crate::command::{Command, Merge};
use crate::failpoint;
use crate::mapping::{MappingId, WriteMode};
use crate::modify::Asked;
use crate::resp::{Args, push_error};
use crate::sidecar;
use crate::writeback::{InCache, KeyWrite, WriteError};
use bytes::Bytes;
use std::ops::Range;

/// A queued command that writes mapped keys.
#[derive(Clone, Debug)]
pub(in crate::core) struct Queued {
    /// Where its bytes stand among those of the transaction.
    pub place: Range<usize>,
    /// Its number among the commands.
    pub position: u32,
    /// What it does.
    pub writes: Writes,
}

/// What a queued command does.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Writes {
    /// How the replies of its steps become one, where there may be several.
    pub(super) merge: Option<Merge>,
    pub(super) steps: Vec<Step>,
    /// It computes from the value of this key: its steps are not known before `EXEC`.
    pub(super) asks: Option<(MappingId, Bytes, Asked)>,
    /// What it answers, and the version that its steps were computed from.
    pub(super) computed: Option<(Vec<u8>, u64)>,
}

/// A transaction whose writes are under way.
#[derive(Debug)]
pub(in crate::core) struct Unit {
    command: u16,
    slot: u16,
    requests: Vec<u8>,
    pub(super) count: u32,
    pub(super) queued: Vec<Queued>,
    /// It depends on watched keys.
    pub(super) trial: Option<Trial>,
}

/// What a transaction is, apart from its writes.
#[derive(Clone, Debug)]
pub(in crate::core) struct Whole {
    /// Its requests, one after the other.
    pub requests: Vec<u8>,
    /// How many they are.
    pub count: u32,
    /// The slot of its keys.
    pub slot: u16,
}

impl Core {
    /// What a command between `MULTI` and `EXEC` does to mapped keys; `None` when it writes none.
    pub(in crate::core) fn queued_writes(
        &self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
        keys: &[&[u8]],
    ) -> Result<Option<Writes>, String> {
        let (Some(data), Some(client)) = (&self.data, self.clients.get(index)) else { return Ok(None) };
        let mapping = keys.iter().find_map(|key| data.source.mappings().find_id(key));
        let Some(mapping) = mapping.filter(|_| command.is_write() && client.kind != Kind::Internal) else {
            return Ok(None);
        };
        let settings = data.source.mappings().get(mapping);
        if command.name == "getex"
            && (args.len() == 2 || settings.is_some_and(|m| m.write == WriteMode::None))
        {
            return Ok(None);
        }
        let name = self.mapping_name(mapping);
        if keys.iter().filter_map(|key| data.source.mappings().find_id(key)).any(|id| self.is_through(id)) {
            return Err(format!(
                "ERR keys of mapping '{name}' are written through (durability = \"database\"), which a transaction cannot do"
            ));
        }
        match command.name {
            name_of if looks_first(name_of, args) => {
                if name_of == "getex" || name_of == "msetnx" && args.len() > 3 {
                    return Err(format!(
                        "ERR '{name_of}' is not supported on keys of mapping '{name}' inside of MULTI; use it outside"
                    ));
                }
                data.modify.check(mapping, name_of)?;
                let (key, protocol) = (args.get(1).unwrap_or_default(), client.session.protocol);
                let asked = Asked {
                    name: name_of,
                    args: args.iter().map(Bytes::copy_from_slice).collect(),
                    protocol,
                };
                let asks = Some((mapping, Bytes::copy_from_slice(key), asked));
                Ok(Some(Writes { asks, ..Writes::default() }))
            }
            "set" | "setex" | "psetex" => {
                let steps = vec![self.write_one(command, args)?];
                Ok(Some(Writes { steps, ..Writes::default() }))
            }
            "mset" | "del" | "unlink" => {
                let (merge, steps) = self.steps_of(command, args)?;
                Ok(Some(Writes { merge: Some(merge), steps, ..Writes::default() }))
            }
            other => Err(format!("ERR '{other}' is not supported on keys of mapping '{name}'")),
        }
    }

    /// `EXEC` of a transaction that writes mapped keys.
    pub(in crate::core) fn exec_mapped(
        &mut self,
        index: usize,
        command: &'static Command,
        whole: Whole,
        queued: Vec<Queued>,
    ) {
        let (Some(data), Some(client)) = (&self.data, self.clients.get_mut(index)) else { return };
        let seq = client.open(Slot::Waiting(Begun { at: self.now, command: command.id }));
        let key = (index as u32, client.serial, seq);
        self.stats.inflight.add(1);
        self.parking.hold_client(key, whole.slot);
        let unit = Unit::new(command, whole, queued);
        let writes = unit.writes();
        self.units.insert(key, unit);
        let done = super::writing::teller(data.told.clone(), key, Vec::new());
        let outcome = match writes.is_empty() {
            true => Ok(Some(Vec::new())),
            false => data.writes.submit(writes, done),
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(versions)) => self.unit_written(key, Ok(versions)),
            Err(error) => self.unit_written(key, Err(error)),
        }
    }

    /// The writes of a transaction are durable, or are not.
    pub(super) fn unit_written(&mut self, key: WritingKey, outcome: Result<Vec<u64>, WriteError>) {
        let Some(mut unit) = self.units.remove(&key) else { return };
        let slot = unit.slot;
        match outcome {
            Err(error) => self.answer_unit(key, &aborted(&error)),
            Ok(versions) => {
                failpoint::hit("unit.durable");
                unit.give(versions);
                let (entry, request) = self.spell_unit(key, &mut unit);
                self.units.insert(key, unit);
                self.send_write(slot, entry, &request);
            }
        }
        self.let_go(key, slot);
    }

    /// The transaction as it is sent.
    pub(super) fn spell_unit(&self, key: WritingKey, unit: &mut Unit) -> (Entry, Vec<u8>) {
        let mut request = Vec::with_capacity(unit.requests.len() + 4096);
        request.extend_from_slice(super::super::transaction::MULTI);
        let (mut at, mut replies) = (0, unit.count as usize);
        for queued in &mut unit.queued {
            request.extend_from_slice(unit.requests.get(at..queued.place.start).unwrap_or_default());
            at = queued.place.end;
            for step in &mut queued.writes.steps {
                match self.request_of(step) {
                    Some(part) => request.extend_from_slice(&part),
                    None => *step = Step::Over,
                }
            }
            replies = replies + queued.writes.sent() - 1;
        }
        request.extend_from_slice(unit.requests.get(at..).unwrap_or_default());
        request.extend_from_slice(super::super::transaction::EXEC);
        let (index, serial, seq) = key;
        let entry = Entry {
            owner: Owner::Client { index, serial, seq, part: 0 },
            len: 0,
            at: self.now,
            command: unit.command,
            mapping: Entry::WRITE,
            readonly: false,
            attempts: 0,
            // `OK` for MULTI, `QUEUED` for each command.
            more: 1 + replies as u32,
        };
        (entry, request)
    }

    /// What is sent for a step. Scripts with their text: nothing can heal `NOSCRIPT` inside of `MULTI`.
    fn request_of(&self, step: &mut Step) -> Option<Vec<u8>> {
        let script = match step {
            Step::Plain(_, request) => return Some(std::mem::take(request)),
            Step::Drop(key) => sidecar::invalidate(key, std::time::Duration::ZERO),
            Step::Write(write, version) => self.apply_request(write, *version)?,
            Step::Over => return None,
        };
        Some(self.scripts.spell_out(&script).unwrap_or(script))
    }

    /// The node has answered a transaction with writes, or will not. False when the reply is none of those.
    pub(super) fn unit_answered(&mut self, key: WritingKey, reply: &[u8]) -> bool {
        if self.watch_answered(key, reply) || self.trial_answered(key, reply) {
            return true;
        }
        let Some(unit) = self.units.remove(&key) else { return false };
        failpoint::hit("unit.applied");
        let Some(elements) = elements(reply) else {
            self.unit_refused(key, &unit, reply);
            return true;
        };
        let command = unit.command;
        let (said, again) = self.read_unit(unit, elements);
        self.end_unit(key, command, again, said);
        true
    }

    pub(super) fn end_unit(&mut self, key: WritingKey, command: u16, again: Vec<Step>, said: Vec<u8>) {
        if again.is_empty() {
            return self.answer_unit(key, &said);
        }
        // Somebody's clock is ahead: written once more, with higher versions, before the client is answered.
        let steps = (0..again.len()).collect();
        self.writing.insert(key, Writing::after_all(command, again, said));
        self.make_durable(key, steps);
    }

    /// The node has refused the transaction, or nobody knows; its writes are durable all the same.
    fn unit_refused(&mut self, key: WritingKey, unit: &Unit, reply: &[u8]) {
        if let Some(data) = &self.data {
            for write in unit.queued.iter().flat_map(|queued| &queued.writes.steps).filter_map(write_of) {
                data.writes.resolve(write.mapping, &write.key, InCache::Unknown);
            }
        }
        let text = String::from_utf8_lossy(reply.strip_prefix(b"-").unwrap_or(b"ERR no reply")).into_owned();
        let mut said = Vec::new();
        push_error(
            &mut said,
            format!(
                "{} (the transaction's writes of mapped keys are journaled and will be stored)",
                text.trim_end()
            ),
        );
        self.answer_unit(key, &said);
    }

    pub(super) fn answer_unit(&mut self, (index, serial, seq): WritingKey, reply: &[u8]) {
        if self.client(ClientKey { index, serial }).is_some() {
            self.complete(index as usize, seq, reply, Route::Single);
        }
    }
}

impl Unit {
    pub(super) fn new(command: &'static Command, whole: Whole, queued: Vec<Queued>) -> Self {
        let Whole { requests, count, slot } = whole;
        Self { command: command.id, slot, requests, count, queued, trial: None }
    }

    /// It depends on watched keys.
    pub(super) fn on_trial(self, trial: Trial) -> Self {
        Self { trial: Some(trial), ..self }
    }

    /// The same when everything in it is over.
    pub(super) fn over(&self) -> Self {
        Self {
            command: self.command,
            slot: self.slot,
            requests: Vec::new(),
            count: self.count,
            queued: Vec::new(),
            trial: None,
        }
    }

    pub(super) fn command(&self) -> u16 {
        self.command
    }

    pub(super) fn writes(&self) -> Vec<KeyWrite> {
        self.writes_and_bases().map(|(write, _)| write).collect()
    }

    /// The same, each with the version that it was computed from, if it was.
    pub(super) fn writes_and_bases(&self) -> impl Iterator<Item = (KeyWrite, Option<u64>)> {
        let each = |queued: &'_ Queued| {
            let base = queued.writes.computed.as_ref().map(|(_, base)| *base);
            let writes: Vec<_> = queued.writes.steps.iter().filter_map(write_of).collect();
            writes.into_iter().map(move |write| (write, base))
        };
        self.queued.iter().flat_map(each)
    }

    /// Gives the writes their versions.
    pub(super) fn give(&mut self, versions: Vec<u64>) {
        let steps = self.queued.iter_mut().flat_map(|queued| &mut queued.writes.steps);
        let versions = &mut versions.into_iter();
        for version in steps.filter_map(version_of) {
            *version = versions.next().unwrap_or_default();
        }
    }
}

/// Nothing of a transaction has happened.
pub(super) fn aborted(error: &WriteError) -> Vec<u8> {
    aborted_for(&error.to_string())
}

/// The same, with the reason in words.
pub(super) fn aborted_for(reason: &str) -> Vec<u8> {
    let mut reply = Vec::new();
    push_error(&mut reply, format!("EXECABORT Transaction discarded because of: {reason}"));
    reply
}

impl Writes {
    /// Whether it computes from the value of a key.
    pub fn asks(&self) -> bool {
        self.asks.is_some()
    }

    /// Requests that it has become.
    fn sent(&self) -> usize {
        self.steps.iter().filter(|step| !matches!(step, Step::Over)).count()
    }
}

pub(super) fn write_of(step: &Step) -> Option<KeyWrite> {
    match step {
        Step::Write(write, _) => Some(write.clone()),
        _ => None,
    }
}

fn version_of(step: &mut Step) -> Option<&mut u64> {
    match step {
        Step::Write(_, version) => Some(version),
        _ => None,
    }
}
