//! Writes of mapped keys inside `MULTI`: journaled as one unit at `EXEC`, then applied inside the transaction.
//!
//! Must not know: how writes become durable, the database.
//!
//! At `EXEC` the writes of all commands go to [`crate::writeback`] together: all of them are durable, or none is. Then the
//! transaction is sent, with the `apply` scripts in the places of the commands that write; so whatever reads inside of it
//! sees them. In the node's reply what the scripts say becomes what Redis says.

use super::super::client::{Begun, Slot};
use super::super::{ClientKey, Core, Kind, Route};
use super::modify::looks_first;
use super::writing::{Step, Writing, WritingKey};
use crate::cluster::{Entry, Owner};
use crate::command::{Command, Merge};
use crate::failpoint;
use crate::mapping::WriteMode;
use crate::resp::{Args, ReplyScanner, Scan, push_array_header, push_error, push_integer};
use crate::sidecar::{self, Applied};
use crate::writeback::{InCache, KeyWrite, WriteError};
use std::ops::Range;

/// A queued command that writes mapped keys.
#[derive(Debug)]
pub(in crate::core) struct Queued {
    /// Where its bytes stand among those of the transaction.
    pub place: Range<usize>,
    /// Its number among the commands.
    pub position: u32,
    /// What it does.
    pub writes: Writes,
}

/// What a queued command does.
#[derive(Debug)]
pub(in crate::core) struct Writes {
    /// How the replies of its steps become one, where there may be several.
    merge: Option<Merge>,
    steps: Vec<Step>,
}

/// A transaction whose writes are under way.
#[derive(Debug)]
pub(in crate::core) struct Unit {
    command: u16,
    slot: u16,
    requests: Vec<u8>,
    count: u32,
    queued: Vec<Queued>,
}

/// What a transaction is, apart from its writes.
#[derive(Debug)]
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
        if client.watch.is_some() {
            return Err(format!(
                "ERR keys of mapping '{name}' cannot be written by a transaction that watches keys: it is journaled before \
                 its node knows whether they have changed"
            ));
        }
        if keys.iter().filter_map(|key| data.source.mappings().find_id(key)).any(|id| self.is_through(id)) {
            return Err(format!(
                "ERR keys of mapping '{name}' are written through (durability = \"database\"), which a transaction cannot do"
            ));
        }
        match command.name {
            name_of if looks_first(name_of, args) => Err(format!(
                "ERR '{name_of}' computes from the value of a key of mapping '{name}', for which a transaction cannot wait; use it \
                 outside of MULTI"
            )),
            "set" | "setex" | "psetex" => {
                Ok(Some(Writes { merge: None, steps: vec![self.write_one(command, args)?] }))
            }
            "mset" | "del" | "unlink" => {
                let (merge, steps) = self.steps_of(command, args)?;
                Ok(Some(Writes { merge: Some(merge), steps }))
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
        let Whole { requests, count, slot } = whole;
        let seq = client.open(Slot::Waiting(Begun { at: self.now, command: command.id }));
        let key = (index as u32, client.serial, seq);
        self.stats.inflight.add(1);
        self.parking.hold_client(key, slot);
        let writes: Vec<KeyWrite> =
            queued.iter().flat_map(|queued| &queued.writes.steps).filter_map(write_of).collect();
        self.units.insert(key, Unit { command: command.id, slot, requests, count, queued });
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
            Err(error) => {
                let mut reply = Vec::new();
                push_error(&mut reply, format!("EXECABORT Transaction discarded because of: {error}"));
                self.answer_unit(key, &reply);
            }
            Ok(versions) => {
                failpoint::hit("unit.durable");
                let steps = unit.queued.iter_mut().flat_map(|queued| &mut queued.writes.steps);
                let versions = &mut versions.into_iter();
                for version in steps.filter_map(version_of) {
                    *version = versions.next().unwrap_or_default();
                }
                self.send_unit(key, unit);
            }
        }
        self.let_go(key, slot);
    }

    fn send_unit(&mut self, key: WritingKey, mut unit: Unit) {
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
        let slot = unit.slot;
        self.units.insert(key, unit);
        self.send_write(slot, entry, &request);
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
        let Some(unit) = self.units.remove(&key) else { return false };
        failpoint::hit("unit.applied");
        let Some(elements) = elements(reply) else {
            self.unit_refused(key, &unit, reply);
            return true;
        };
        let (mut said, mut again) = (Vec::with_capacity(reply.len()), Vec::new());
        push_array_header(&mut said, unit.count as usize);
        let (mut elements, mut queued) = (elements.into_iter(), unit.queued.into_iter().peekable());
        for position in 0..unit.count {
            match queued.next_if(|queued| queued.position == position) {
                None => said.extend_from_slice(elements.next().unwrap_or_default()),
                Some(queued) => {
                    let merge = queued.writes.merge;
                    let mut sum = Sum::default();
                    for step in queued.writes.steps {
                        let element = if matches!(step, Step::Over) { None } else { elements.next() };
                        self.step_answered(step, element, &mut sum, &mut again);
                    }
                    sum.say(merge, &mut said);
                }
            }
        }
        if again.is_empty() {
            self.answer_unit(key, &said);
        } else {
            // Somebody's clock is ahead: written once more, with higher versions, before the client is answered.
            let steps = (0..again.len()).collect();
            self.writing.insert(key, Writing::after_all(unit.command, again, said));
            self.make_durable(key, steps);
        }
        true
    }

    fn step_answered(&self, step: Step, element: Option<&[u8]>, sum: &mut Sum, again: &mut Vec<Step>) {
        match (step, element) {
            (Step::Plain(..), Some(element)) => sum.add(element),
            (Step::Drop(_), Some(element)) => match sidecar::parse_invalidated(element) {
                Ok((found, _)) => sum.found += i64::from(found.dropped),
                Err(_) => sum.add(element),
            },
            (Step::Write(write, version), Some(element)) => {
                let Some(data) = &self.data else { return };
                let applied = sidecar::parse_applied(element);
                let known = if applied.is_ok() { InCache::Stored } else { InCache::Unknown };
                sum.found += i64::from(sidecar::had_entry(element));
                if let Ok(Applied::Behind(newer)) = applied {
                    data.writes.clock().observe(newer);
                    if !data.writes.is_superseded(write.mapping, &write.key, version) {
                        data.writes.resolve(write.mapping, &write.key, known);
                        return again.push(Step::Write(write, 0));
                    }
                }
                data.writes.resolve(write.mapping, &write.key, known);
            }
            (Step::Over, _) | (_, None) => {}
        }
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

    fn answer_unit(&mut self, (index, serial, seq): WritingKey, reply: &[u8]) {
        if self.client(ClientKey { index, serial }).is_some() {
            self.complete(index as usize, seq, reply, Route::Single);
        }
    }
}

impl Writes {
    /// Requests that it has become.
    fn sent(&self) -> usize {
        self.steps.iter().filter(|step| !matches!(step, Step::Over)).count()
    }
}

fn write_of(step: &Step) -> Option<KeyWrite> {
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

/// The replies of the steps of a command.
#[derive(Default)]
struct Sum {
    found: i64,
    error: Option<Vec<u8>>,
}

impl Sum {
    fn add(&mut self, element: &[u8]) {
        let number =
            element.strip_prefix(b":").and_then(|rest| std::str::from_utf8(rest.trim_ascii_end()).ok());
        self.found += number.and_then(|number| number.parse::<i64>().ok()).unwrap_or_default();
        if element.first() == Some(&b'-') {
            self.error = Some(element.to_vec());
        }
    }

    fn say(self, merge: Option<Merge>, out: &mut Vec<u8>) {
        match (self.error, merge) {
            (Some(error), _) => out.extend_from_slice(&error),
            (None, Some(Merge::Sum)) => push_integer(out, self.found),
            (None, _) => out.extend_from_slice(b"+OK\r\n"),
        }
    }
}

/// The elements of an array; `None` when it is none.
fn elements(reply: &[u8]) -> Option<Vec<&[u8]>> {
    let end = memchr::memchr(b'\n', reply)? + 1;
    let count = std::str::from_utf8(reply.get(1..end)?).ok()?.trim_end().parse::<usize>().ok()?;
    if reply.first() != Some(&b'*') {
        return None;
    }
    let (mut rest, mut elements) = (reply.get(end..)?, Vec::new());
    for _ in 0..count {
        let Ok(Scan::Complete(length)) = ReplyScanner::default().scan(rest) else { return None };
        elements.push(rest.get(..length)?);
        rest = rest.get(length..)?;
    }
    Some(elements)
}
