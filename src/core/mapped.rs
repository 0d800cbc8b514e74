//! Commands on mapped keys: what a nil means, what a write means.
//!
//! Must not know: the database; it hands over to the floors that do. A key that matches no mapping costs one look-up by
//! its first byte.

use super::client::Slot;
use super::gather::MappedKey;
use super::run::Hook;
use super::set_options::{check_set_options, unix_seconds};
use super::{ClientKey, Core, Kind, Route, recycle};
use crate::cache::{Loaded, Miss, ReadThrough};
use crate::cluster::{Entry, Owner};
use crate::command::Command;
use crate::mapping::{Bound, Match, Row, StoreMode, WriteMode};
use crate::resp::{Args, RequestLimits, RequestScanner, push_bulk, push_command, push_error, push_nil};
use crate::slot;
use crate::source::Source;
use crate::writeback::{Write, WriteBehind};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What a core needs of the floors that own mapped data.
#[derive(Clone)]
pub struct DataSide {
    /// The mappings, each held against its table.
    pub source: Arc<Source>,
    /// Loads missing rows.
    pub reads: ReadThrough,
    /// Queues written rows.
    pub writes: WriteBehind,
    /// Where the results of loads come back to this core's driver.
    pub loads: mpsc::UnboundedSender<Loads>,
}

/// The result of one [`Miss`], on its way back to the client that waits.
#[derive(Debug)]
pub struct Loads {
    client: ClientKey,
    seq: u32,
    results: Vec<Loaded>,
}

/// How a split command treats its mapped keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// None of its keys is mapped, or it does not matter.
    Plain,
    /// Reads: these keys are looked at once all parts are here.
    Reads(Vec<MappedKey>),
    /// `MSET`: per key, `Some` when it is mapped.
    Writes(Vec<Option<Keep>>),
}

impl Split {
    /// Whether two keys (slot, position) may be in one part: only those of one slot, and a mapped write is alone.
    pub fn may_share(&self, a: &(u16, u32), b: &(u16, u32)) -> bool {
        let alone = |position: u32| match self {
            Self::Writes(keeps) => keeps.get(position as usize).is_some_and(Option::is_some),
            Self::Plain | Self::Reads(_) => false,
        };
        a.0 == b.0 && !alone(a.1) && !alone(b.1)
    }

    /// Encodes the part that holds the mapped write at `position`; false when it is none.
    pub fn encode(&self, args: &Args<'_>, position: u32, out: &mut Vec<u8>) -> bool {
        let Self::Writes(keeps) = self else { return false };
        let Some(Some(keep)) = keeps.get(position as usize) else { return false };
        let key = args.get(1 + position as usize * 2).unwrap_or_default();
        let value = args.get(2 + position as usize * 2).unwrap_or_default();
        push_set(out, key, value, *keep);
        true
    }
}

/// What becomes of the cached entry of a key that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// It holds the written value for so long (ms; 0 = for ever).
    Value(u64),
    /// It goes: of the rows behind the key another one may be the newest, which the next read finds out.
    Nothing,
}

impl Keep {
    fn of(bound: &Bound) -> Self {
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
    /// Looks at the keys of a command that goes to one slot.
    #[inline]
    pub(super) fn mapping_of(&mut self, index: usize, command: &'static Command, args: &Args<'_>) -> Hook {
        let Some(data) = &self.data else { return Hook::Plain(Entry::UNMAPPED) };
        if command.name == "get" {
            let mapping = data.source.mappings().find_id(args.get(1).unwrap_or_default());
            return Hook::Plain(match mapping {
                Some(mapping) if !self.is_internal(index) => mapping,
                _ => Entry::UNMAPPED,
            });
        }
        if command.is_write() && !self.is_internal(index) {
            return self.hook_write(index, command, args);
        }
        Hook::Plain(Entry::UNMAPPED)
    }

    fn is_internal(&self, index: usize) -> bool {
        self.clients.get(index).is_some_and(|client| client.kind == Kind::Internal)
    }

    /// A writing command with one key, or with several of one slot.
    fn hook_write(&mut self, index: usize, command: &'static Command, args: &Args<'_>) -> Hook {
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

    fn mapping_name(&self, mapping: u16) -> String {
        let data = self.data.as_ref();
        data.and_then(|data| data.source.mappings().get(mapping)).map(|m| m.name.clone()).unwrap_or_default()
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

    fn bound(&self, mapping: u16) -> Option<Arc<Bound>> {
        self.data.as_ref()?.source.bound(mapping).cloned()
    }

    /// Checks that `value` can become the row of `key`.
    fn prepare(&self, key: &[u8], value: &[u8]) -> Result<Prepared, String> {
        let (mapping, bound, found) = self.find(key)?;
        let row = Row::parse_at(&bound, found.ids(), value, unix_seconds())
            .map_err(|error| format!("ERR {error}"))?;
        let write = Write::Put { row, value: Bytes::copy_from_slice(value) };
        Ok(Prepared { mapping, key: Bytes::copy_from_slice(key), write })
    }

    fn find<'k>(&self, key: &'k [u8]) -> Result<(u16, Arc<Bound>, Match<'k>), String> {
        let data = self.data.as_ref().ok_or("ERR no mapping is configured")?;
        let (mapping, found) = data.source.mappings().find(key).ok_or("ERR the key belongs to no mapping")?;
        let bound = data.source.bound(mapping).cloned().ok_or("ERR the mapping has no table")?;
        Ok((mapping, bound, found))
    }

    /// Queues checked writes: all of them, or none when there is no room.
    fn commit(&self, prepared: Vec<Prepared>) -> Result<(), String> {
        let Some(data) = &self.data else { return Ok(()) };
        let keys: Vec<_> = prepared.iter().map(|write| (write.mapping, write.key.clone())).collect();
        let writes = prepared.into_iter().map(|Prepared { mapping, key, write }| (mapping, key, write));
        data.writes.enqueue_all(writes).map_err(|error| error.to_string())?;
        keys.iter().for_each(|(mapping, key)| data.reads.note_write(*mapping, key));
        Ok(())
    }

    /// Looks at the keys of MGET, MSET, DEL, UNLINK, EXISTS, TOUCH. `None` when the command is answered already.
    pub(super) fn mapped_split(
        &mut self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
        step: usize,
    ) -> Option<Split> {
        let Some(data) = &self.data else { return Some(Split::Plain) };
        let mappings = data.source.mappings();
        let keys = || (1..args.len()).step_by(step).map(|at| args.get(at).unwrap_or_default());
        if self.is_internal(index) || keys().all(|key| mappings.find_id(key).is_none()) {
            return Some(Split::Plain);
        }
        let verdict = match command.name {
            "mget" => Ok(Split::Reads(
                keys()
                    .enumerate()
                    .filter_map(|(at, key)| {
                        let mapping = mappings.find_id(key)?;
                        Some(MappedKey { position: at as u32, mapping, key: Bytes::copy_from_slice(key) })
                    })
                    .collect(),
            )),
            "mset" => self.write_many(args),
            "del" | "unlink" => self.delete_many(keys()).map(|()| Split::Plain),
            _ => Ok(Split::Plain),
        };
        match verdict {
            Ok(split) => Some(split),
            Err(text) => {
                self.answer_error(index, Some(command), text.as_bytes());
                None
            }
        }
    }

    /// `MSET` with mapped keys: all values are checked before anything happens.
    fn write_many(&self, args: &Args<'_>) -> Result<Split, String> {
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
    fn delete_many<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<(), String> {
        let mut prepared = Vec::new();
        for key in keys {
            let Ok((mapping, bound, found)) = self.find(key) else { continue };
            if bound.mapping.write == WriteMode::None {
                if let Some(data) = &self.data {
                    data.reads.note_write(mapping, key);
                }
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
        self.commit(prepared)
    }

    /// A request failed that may have been a write of mapped keys: its rows are queued, so the cache may now hold older
    /// values than the database will. Their entries go once the rows are written.
    pub(super) fn doubt(&self, entry: &Entry, request: &[u8]) {
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

    /// Counts a read of a mapped key that the cluster answered.
    pub(super) fn count_hit(&self, entry: &Entry, reply: &[u8]) {
        if reply.first() != Some(&b'-')
            && let Some(cells) = self.stats.mappings.get(usize::from(entry.mapping))
        {
            cells.hits.add(1);
        }
    }

    /// A GET of a mapped key came back nil: loads it. False when it is answered as it came.
    pub(super) fn load_missing(&mut self, entry: &Entry, request: &[u8]) -> bool {
        let Owner::Client { index, serial, seq, .. } = entry.owner else { return false };
        let mut scanner = RequestScanner::default();
        if scanner.scan(request, &RequestLimits::default()).is_err() {
            return false;
        }
        let Some(key) = Args::new(request, scanner.spans()).get(1).map(Bytes::copy_from_slice) else {
            return false;
        };
        self.load(ClientKey { index, serial }, seq, entry.at, vec![(entry.mapping, key)])
    }

    /// All parts of a split command are here: loads the mapped keys among its nils. False when there are none.
    pub(super) fn load_missing_parts(&mut self, key: ClientKey, seq: u32) -> bool {
        let Some(client) = self.clients.get_mut(key.index as usize).filter(|c| c.serial == key.serial) else {
            return false;
        };
        let Some(Slot::Gathering(begun, gather)) = client.slot_mut(seq) else { return false };
        let asked = begun.at;
        if gather.mapped.is_empty() || gather.failed() {
            return false;
        }
        let (hits, missing) = gather.split_mapped();
        for mapping in hits {
            if let Some(cells) = self.stats.mappings.get(usize::from(mapping)) {
                cells.hits.add(1);
            }
        }
        !missing.is_empty() && self.load(key, seq, asked, missing)
    }

    /// `asked`: when the cluster was asked for them, in microseconds of the core's clock.
    fn load(&mut self, client: ClientKey, seq: u32, asked: u64, keys: Vec<(u16, Bytes)>) -> bool {
        let Some(data) = &self.data else { return false };
        for (mapping, _) in &keys {
            if let Some(cells) = self.stats.mappings.get(usize::from(*mapping)) {
                cells.misses.add(1);
            }
        }
        let loads = data.loads.clone();
        let now = Instant::now();
        let age = Duration::from_micros(self.now.saturating_sub(asked));
        data.reads.load(Miss {
            keys,
            asked: now.checked_sub(age).unwrap_or(now),
            // The receiver is gone only when the worker has stopped: then nobody waits.
            reply: Box::new(move |results| {
                let _ = loads.send(Loads { client, seq, results });
            }),
        });
        true
    }

    /// A load has ended: answers the client that waits for it.
    pub fn loaded(&mut self, loads: Loads) {
        let Loads { client: key, seq, results } = loads;
        let Some(client) = self.clients.get_mut(key.index as usize).filter(|c| c.serial == key.serial) else {
            return;
        };
        let protocol = client.session.protocol;
        let mut reply = self.spare.pop().unwrap_or_default();
        match client.slot_mut(seq) {
            Some(Slot::Waiting(_)) => {
                if let Some(result) = results.first() {
                    push_loaded(&mut reply, result, protocol);
                }
            }
            Some(Slot::Gathering(_, gather)) => {
                gather.fill(&results, |out, result| push_loaded(out, result, protocol));
                gather.finish(&mut reply, protocol);
            }
            Some(Slot::Ready(_)) | None => return,
        }
        self.complete(key.index as usize, seq, &reply, Route::Load);
        recycle(reply, &mut self.spare);
    }
}

/// One loaded value as a reply.
fn push_loaded(out: &mut Vec<u8>, result: &Loaded, protocol: u8) {
    match result {
        Loaded::Value(value) => push_bulk(out, value),
        Loaded::Absent => push_nil(out, protocol),
        Loaded::Failed(text) => push_error(out, text),
    }
}

/// `SET key value PX ttl`, without `PX` where there is no ttl. An entry that is to go is stored as one that has expired
/// already: that is answered with `OK`, as the write of a value is.
fn push_set(out: &mut Vec<u8>, key: &[u8], value: &[u8], keep: Keep) {
    match keep {
        Keep::Value(0) => push_command(out, [b"SET", key, value]),
        Keep::Value(ttl) => push_command(out, [b"SET", key, value, b"PX", ttl.to_string().as_bytes()]),
        Keep::Nothing => push_command(out, [b"SET", key, b"", b"PXAT", b"1"]),
    }
}
