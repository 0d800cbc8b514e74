//! A write on its way: durable first, then in the cache, then acknowledged.
//!
//! Must not know: how writes become durable, which command caused one.
//!
//! 1. `begin`: the command takes its place in its client's order; its writes go to [`crate::writeback`], which gives them
//!    their versions. What the client asks later for the same slots waits (`parking.rs`).
//! 2. `written`: they are durable. Each is sent to the owner of its slot as an `apply` script ([`crate::sidecar`]).
//! 3. `write_answered`: the script has run. A cache that knows a newer version of somebody else's has the write made
//!    again with a higher one. A node that cannot be reached does not hold the client up: the write is durable, readers of
//!    this proxy see it (`WriteBehind::is_doubtful`), and the cache is put right with the flush.
//! 4. When all of its writes are that far, the command is answered.

use super::super::client::{Begun, Slot};
use super::super::gather::Join;
use super::super::{ClientKey, Core, Route};
use super::Told;
use crate::cluster::{Entry, Owner};
use crate::command::{Command, Merge};
use crate::failpoint;
use crate::mapping::{Durability, Format, fields_of};
use crate::resp::push_error;
use crate::sidecar::{self, Applied, Change, Value};
use crate::slot;
use crate::writeback::{Done, InCache, KeyWrite, Write, WriteError};
use tokio::sync::mpsc::UnboundedSender;

/// Which command of which client: index, serial number, sequence number.
pub(in crate::core) type WritingKey = (u32, u32, u32);

/// A command whose writes are under way.
#[derive(Debug)]
pub(in crate::core) struct Writing {
    command: u16,
    /// Whether its steps are parts of a gathered reply.
    parts: bool,
    steps: Vec<Step>,
    /// Steps that are not over.
    left: usize,
    /// The reply, where it is known already.
    said: Option<Vec<u8>>,
}

impl Writing {
    /// Steps after which a command is answered with this.
    pub(super) fn after_all(command: u16, steps: Vec<Step>, said: Vec<u8>) -> Self {
        let left = steps.len();
        Self { command, parts: false, steps, left, said: Some(said) }
    }
}

/// One thing to do when the writes are durable; its number is the part of the reply that it makes.
#[derive(Clone, Debug)]
pub(in crate::core) enum Step {
    /// A request for plain keys of this slot.
    Plain(u16, Vec<u8>),
    /// A write, with its version once it has one.
    Write(KeyWrite, u64),
    /// The cached entry of this key is dropped.
    Drop(Vec<u8>),
    /// Nothing any more.
    Over,
}

impl Step {
    fn slot(&self) -> Option<u16> {
        match self {
            Self::Plain(slot, _) => Some(*slot),
            Self::Write(write, _) => Some(slot::slot(&write.key)),
            Self::Drop(key) => Some(slot::slot(key)),
            Self::Over => None,
        }
    }
}

/// What has become of writes that were to be made durable.
#[derive(Debug)]
pub struct Written {
    pub(super) key: WritingKey,
    /// The steps that they belong to, in the order of the versions.
    pub(super) steps: Vec<usize>,
    pub(super) outcome: Result<Vec<u64>, WriteError>,
}

/// What tells this core that the writes of these steps are durable, or are not.
pub(super) fn teller(told: UnboundedSender<Told>, key: WritingKey, steps: Vec<usize>) -> Done {
    Box::new(move |outcome| {
        // The receiver is gone only when the worker has stopped: then nobody waits.
        let _ = told.send(Told::Written(Written { key, steps, outcome }));
    })
}

impl Core {
    /// Begins a command with these steps. `merge`: how the replies to several of them become one.
    pub(super) fn begin(
        &mut self,
        index: usize,
        command: &'static Command,
        merge: Option<Merge>,
        steps: Vec<Step>,
    ) {
        let begun = Begun { at: self.now, command: command.id };
        let place = match merge {
            None => Slot::Waiting(begun),
            Some(merge) => {
                let mut gather = self.spare_gather();
                gather.reset(Join::Keys(merge), steps.len());
                for _ in &steps {
                    gather.add_part(std::iter::empty());
                }
                Slot::Gathering(begun, gather)
            }
        };
        let Some(client) = self.clients.get_mut(index) else { return };
        let key = (index as u32, client.serial, client.open(place));
        self.stats.inflight.add(1);
        steps.iter().filter_map(Step::slot).for_each(|slot| self.parking.hold_client(key, slot));
        let left = steps.len();
        let all = (0..left).collect();
        self.writing
            .insert(key, Writing { command: command.id, parts: merge.is_some(), steps, left, said: None });
        self.make_durable(key, all);
    }

    /// Hands the writes among these steps over; the others wait for them.
    pub(super) fn make_durable(&mut self, key: WritingKey, steps: Vec<usize>) {
        let (Some(data), Some(writing)) = (&self.data, self.writing.get(&key)) else { return };
        let writes = steps.iter().filter_map(|at| match writing.steps.get(*at) {
            Some(Step::Write(write, _)) => Some(write.clone()),
            _ => None,
        });
        let writes: Vec<KeyWrite> = writes.collect();
        let told = data.told.clone();
        let again = steps.clone();
        let done = teller(told, key, again);
        let outcome = match writes.is_empty() {
            true => Ok(Some(Vec::new())),
            false => data.writes.submit(writes, done),
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(versions)) => self.written(Written { key, steps, outcome: Ok(versions) }),
            Err(error) => self.written(Written { key, steps, outcome: Err(error) }),
        }
    }

    /// Writes are durable, or are not: sends what follows from them.
    pub fn written(&mut self, written: Written) {
        let Written { key, steps, outcome } = written;
        if self.units.contains_key(&key) {
            return self.unit_written(key, outcome);
        }
        let versions = match outcome {
            Ok(versions) => versions,
            Err(error) => return self.not_written(key, &error),
        };
        failpoint::hit("write.durable");
        let mut versions = versions.into_iter();
        for at in steps {
            if let Some(Step::Write(_, version)) =
                self.writing.get_mut(&key).and_then(|writing| writing.steps.get_mut(at))
                && let Some(given) = versions.next()
            {
                *version = given;
            }
            self.send_step(key, at);
        }
    }

    /// Nothing has happened (or, if the disk failed, nobody knows): the whole command fails.
    fn not_written(&mut self, key: WritingKey, error: &WriteError) {
        let Some(writing) = self.writing.remove(&key) else { return };
        let mut reply = self.spare.pop().unwrap_or_default();
        push_error(&mut reply, error.to_string());
        let (index, serial, seq) = key;
        if self.client(ClientKey { index, serial }).is_some() {
            self.complete(index as usize, seq, &reply, Route::Single);
        }
        super::super::recycle(reply, &mut self.spare);
        writing.steps.iter().filter_map(Step::slot).for_each(|slot| self.let_go(key, slot));
    }

    /// Sends one step to the owner of its slot; what its client has asked after it may follow.
    fn send_step(&mut self, key: WritingKey, at: usize) {
        let Some(writing) = self.writing.get_mut(&key) else { return };
        let Some(step) = writing.steps.get_mut(at) else { return };
        let Some(slot) = step.slot() else { return };
        let command = writing.command;
        let (index, serial, seq) = key;
        let mut entry = Entry {
            owner: Owner::Client { index, serial, seq, part: at as u32 },
            len: 0,
            at: self.now,
            command,
            mapping: Entry::WRITE,
            // A script that is run again finds its own version, and changes nothing.
            readonly: true,
            attempts: 0,
            more: 0,
        };
        let mut found = false;
        let request = match step {
            Step::Plain(_, request) => {
                (entry.mapping, entry.readonly) = (Entry::UNMAPPED, false);
                let request = std::mem::take(request);
                *step = Step::Over;
                self.step_over(key);
                Some(request)
            }
            Step::Drop(key) => Some(sidecar::invalidate(key, std::time::Duration::ZERO)),
            Step::Write(write, version) => {
                let (mapping, version) = (write.mapping, *version);
                // Taken out for a moment: a copy of a row is dear.
                let taken = std::mem::replace(step, Step::Over);
                let Step::Write(write, _) = &taken else { return };
                let request = self.apply_request(write, version);
                found = version > 0 && self.is_through(mapping);
                if let Some(step) = self.writing.get_mut(&key).and_then(|writing| writing.steps.get_mut(at)) {
                    *step = taken;
                }
                request
            }
            Step::Over => None,
        };
        match request {
            Some(request) => self.send_write(slot, entry, &request),
            None => self.end_step(key, at, found),
        }
        self.let_go(key, slot);
    }

    pub(super) fn is_through(&self, mapping: u16) -> bool {
        let data = self.data.as_ref();
        let mapping = data.and_then(|data| data.source.mappings().get(mapping));
        mapping.is_some_and(|mapping| mapping.durability == Durability::Database)
    }

    /// The `apply` script of a write; `None` when its mapping is not cached.
    pub(super) fn apply_request(&self, write: &KeyWrite, version: u64) -> Option<Vec<u8>> {
        let data = self.data.as_ref()?;
        data.reads.note_write(write.mapping, &write.key);
        let mapping = data.source.mappings().get(write.mapping)?;
        // What is written through was brought to the cache already.
        if !write.applies || self.is_through(write.mapping) {
            return None;
        }
        let append = mapping.mode == crate::mapping::StoreMode::Append;
        let value = match &write.write {
            Write::Delete { .. } => None,
            // It was made as a document of fields, so it can be read.
            Write::Put { value, .. } if mapping.format == Format::Hash => {
                Some(Value::Hash(fields_of(value).unwrap_or_default()))
            }
            Write::Put { value, .. } => Some(Value::Text(value.clone())),
        };
        let change = match &value {
            None => Change::Delete,
            Some(_) if append => Change::Append,
            Some(value) => Change::Put(value),
        };
        Some(sidecar::apply_after(&write.key, version, change, None, write.base))
    }

    /// Whether the client of a read has a write of its key under way that it has asked for after it.
    pub(super) fn writes_later(&self, entry: &Entry, key: &[u8]) -> bool {
        let Owner::Client { index, serial, seq, .. } = entry.owner else { return false };
        let Some(client) = self.client(ClientKey { index, serial }) else { return false };
        let later = (1..=client.inflight() as u32).map(|after| (index, serial, seq.wrapping_add(after)));
        let is_of_key = |step: &Step| matches!(step, Step::Write(write, _) if write.key == key);
        later.filter_map(|later| self.writing.get(&later)).any(|writing| writing.steps.iter().any(is_of_key))
    }

    /// What the client has asked for this slot after this command may be sent.
    pub(super) fn let_go(&mut self, key: WritingKey, slot: u16) {
        for parked in self.parking.let_go(key, slot) {
            self.send(parked.slot, parked.entry, &parked.request);
        }
    }

    /// As `send`, but for the hold that the write itself is behind; and it is sent even when its client is gone.
    pub(super) fn send_write(&mut self, slot: u16, entry: Entry, request: &[u8]) {
        if self.parking.holds(slot) {
            return self.parking.park(slot, entry, request.to_vec());
        }
        let Owner::Client { index, serial, .. } = entry.owner else { return };
        let protocol = self.client(ClientKey { index, serial }).map_or(2, |client| client.session.protocol);
        match self.routes.upstream(slot, protocol, &mut self.upstreams) {
            Some(upstream) => self.send_to(upstream, entry, request),
            None => self.fail(&entry, "CLUSTERDOWN Hash slot not served"),
        }
    }

    /// A script has answered, or will not.
    #[cold]
    pub(in crate::core) fn write_answered(&mut self, entry: &Entry, reply: &[u8]) {
        let Owner::Client { index, serial, seq, part } = entry.owner else { return };
        let (key, at) = ((index, serial, seq), part as usize);
        if self.unit_answered(key, reply) {
            return;
        }
        let Some(step) = self.writing.get(&key).and_then(|writing| writing.steps.get(at)) else { return };
        let (mapping, written, version) = match step {
            Step::Write(write, version) => (write.mapping, write.key.clone(), *version),
            Step::Drop(_) => {
                return match sidecar::parse_invalidated(reply) {
                    Ok((found, _)) => self.end_step(key, at, found.dropped),
                    // Nobody else will drop the entry: its client has to know.
                    Err(fault) => {
                        let mut said = Vec::new();
                        push_error(
                            &mut said,
                            match fault {
                                sidecar::Fault::Error(text) => text,
                                fault @ sidecar::Fault::Strange => format!("ERR {fault}"),
                            },
                        );
                        self.say_step(key, at, &said);
                    }
                };
            }
            Step::Plain(..) | Step::Over => return,
        };
        let Some(data) = &self.data else { return };
        failpoint::hit("write.applied");
        match sidecar::parse_applied(reply) {
            Ok(Applied::Behind(newer)) => {
                data.writes.clock().observe(newer);
                let superseded = data.writes.is_superseded(mapping, &written, version);
                data.writes.resolve(mapping, &written, InCache::Stored);
                if !superseded {
                    // An acknowledged write may never lose to one that was acknowledged before it began.
                    return self.make_durable(key, vec![at]);
                }
                self.end_step(key, at, true);
            }
            Ok(Applied::Applied) => {
                data.writes.resolve(mapping, &written, InCache::Stored);
                self.end_step(key, at, sidecar::had_entry(reply));
            }
            Err(_) => {
                data.writes.resolve(mapping, &written, InCache::Unknown);
                self.end_step(key, at, false);
            }
        }
    }

    /// A step is over: its part of the reply is known. `found`: there was an entry.
    fn end_step(&mut self, key: WritingKey, at: usize, found: bool) {
        let step = self.writing.get(&key).and_then(|writing| writing.steps.get(at));
        let Some(step) = step else { return };
        let counts = match step {
            Step::Drop(_) => true,
            Step::Write(write, _) => matches!(write.write, Write::Delete { .. }),
            Step::Plain(..) | Step::Over => return,
        };
        let reply: &[u8] = match (counts, found) {
            (false, _) => b"+OK\r\n",
            (true, true) => b":1\r\n",
            (true, false) => b":0\r\n",
        };
        self.say_step(key, at, reply);
    }

    /// A step is over, and this is its reply.
    fn say_step(&mut self, key: WritingKey, at: usize, reply: &[u8]) {
        let Some(writing) = self.writing.get_mut(&key) else { return };
        let Some(step) = writing.steps.get_mut(at) else { return };
        *step = Step::Over;
        let (parts, said) = (writing.parts, writing.said.is_some());
        self.step_over(key);
        let (index, serial, seq) = key;
        if said {
            // The last step answers.
        } else if parts {
            let owner = Owner::Client { index, serial, seq, part: at as u32 };
            self.deliver(&Entry { owner, mapping: Entry::UNMAPPED, ..Entry::NONE }, reply);
        } else if self.client(ClientKey { index, serial }).is_some() {
            self.complete(index as usize, seq, reply, Route::Single);
        }
    }

    fn step_over(&mut self, key: WritingKey) {
        if let Some(writing) = self.writing.get_mut(&key) {
            writing.left -= 1;
            if writing.left == 0
                && let Some(Writing { said: Some(said), .. }) = self.writing.remove(&key)
            {
                let (index, serial, seq) = key;
                if self.client(ClientKey { index, serial }).is_some() {
                    self.complete(index as usize, seq, &said, Route::Single);
                }
            }
        }
    }
}
