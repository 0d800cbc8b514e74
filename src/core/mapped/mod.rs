//! Commands on mapped keys: which of them are treated as more than plain Redis, and what the floors below are handed.
//!
//! Must not know: the database; `read.rs` and `write.rs` hand over to the floors that do. A key that matches no mapping
//! costs one look-up by its first byte.

mod admin;
mod cache_only;
mod computing;
mod degrade;
mod evaluate;
mod flush;
mod list;
mod modify;
mod read;
mod reserved;
mod trial;
mod unit;
mod unit_reply;
mod verify;
mod watch;
mod write;
mod writing;

use super::dedicated::WatchLoaded;
use super::gather::MappedKey;
use super::run::Hook;
use super::{ClientKey, Core, Kind};
use crate::cache::{Answer, ReadThrough};
use crate::cluster::{Entry, Served};
use crate::command::Command;
use crate::mapping::{Bound, Format, Match, WriteMode};
use crate::modify::Modifier;
use crate::resp::Args;
use crate::source::Source;
use crate::writeback::WriteBehind;
pub use admin::{Admin, Question};
use bytes::Bytes;
pub(in crate::core) use cache_only::CacheOnly;
pub(in crate::core) use computing::Computing;
pub(in crate::core) use evaluate::may_be_absent;
pub(in crate::core) use flush::Flushes;
use modify::Modified;
pub(in crate::core) use reserved::{push_random_key, push_visible};
use std::sync::Arc;
use tokio::sync::mpsc;
pub(in crate::core) use unit::{Queued, Unit, Whole, Writes};
use writing::Written;
pub(in crate::core) use writing::{Writing, WritingKey};

/// What a core needs of the floors that own mapped data.
#[derive(Clone)]
pub struct DataSide {
    /// The mappings, each held against its table.
    pub source: Arc<Source>,
    /// Loads missing rows.
    pub reads: ReadThrough,
    /// Queues written rows.
    pub writes: WriteBehind,
    /// Runs commands that compute a value from the one that is there.
    pub modify: Modifier,
    /// Answers what is asked of the proxy itself.
    pub admin: Arc<dyn Admin>,
    /// Where answers come back to this core's driver.
    pub told: mpsc::UnboundedSender<Told>,
    /// So long a node may be silent before the database is asked instead, in microseconds.
    pub degrade_us: u64,
}

/// What the floors below tell a core.
#[derive(Debug)]
pub enum Told {
    /// A load has ended.
    Loads(Loads),
    /// Writes are durable, or cannot be.
    Written(Written),
    /// A command was computed.
    Modified(Modified),
    /// What was written before is in the database, or the time is over.
    Flushed(flush::Flushed),
    /// The keys of a `WATCH` are loaded.
    Watchable(WatchLoaded),
    /// How far a transaction is that watches keys.
    Tried(trial::Tried),
    /// How far one is whose commands compute.
    Computing(computing::Progress),
}

/// The result of one [`Miss`], on its way back to the client that waits.
#[derive(Debug)]
pub struct Loads {
    client: ClientKey,
    seq: u32,
    /// By key: the mapping and the answer.
    results: Vec<(u16, Answer)>,
    /// The command, where it is not a plain GET.
    ask: Option<Box<read::Ask>>,
    /// The whole reply, where it needs nothing more.
    said: Option<Vec<u8>>,
}

/// How a split command treats its mapped keys.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::core) enum Split {
    /// None of its keys is mapped, or it does not matter.
    Plain,
    /// Reads: these keys are looked at once all parts are here.
    Reads(Vec<MappedKey>),
    /// Counts: these keys have parts of their own, so that it is known which of them count.
    Counts(Vec<MappedKey>),
}

impl Split {
    /// Whether two keys (slot, position) may be in one part: only those of one slot, and a counted mapped key is alone.
    pub fn may_share(&self, a: &(u16, u32), b: &(u16, u32)) -> bool {
        let alone = |position: u32| match self {
            Self::Counts(keys) => keys.binary_search_by_key(&position, |key| key.position).is_ok(),
            Self::Plain | Self::Reads(_) => false,
        };
        a.0 == b.0 && !alone(a.1) && !alone(b.1)
    }
}

impl Core {
    /// One of the floors below has something to tell.
    pub fn told(&mut self, told: Told) {
        match told {
            Told::Loads(loads) => self.loaded(loads),
            Told::Written(written) => self.written(written),
            Told::Modified(modified) => self.modified(modified),
            Told::Flushed(flushed) => self.flushed(flushed),
            Told::Watchable(loaded) => self.watch_loaded(loaded),
            Told::Tried(tried) => self.tried(tried),
            Told::Computing(progress) => self.progress(progress),
        }
    }

    /// Looks at the keys of a command that goes to one slot.
    #[inline]
    pub(in crate::core) fn mapping_of(
        &mut self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
    ) -> Hook {
        let Some(data) = &self.data else { return Hook::Plain(Entry::UNMAPPED) };
        if command.name == "get" {
            let key = args.get(1).unwrap_or_default();
            let mapping = data.source.mappings().find_id(key);
            let Some(mapping) = mapping else { return Hook::Plain(Entry::UNMAPPED) };
            let indirect = data.source.mappings().is_indirect(mapping);
            if data.writes.has_doubts() && self.read_doubtful(index, command, mapping, key) {
                return Hook::Done;
            }
            return match self.reads_through(index) {
                true if indirect => self.read_indirect(index, command, mapping, args),
                true => Hook::Plain(mapping),
                false => Hook::Plain(Entry::UNMAPPED),
            };
        }
        if command.is_readonly() {
            return self.hook_read(index, command, args);
        }
        if command.name == "getex" {
            return self.hook_getex(index, command, args);
        }
        if command.is_write() && !self.is_internal(index) {
            return self.hook_write(index, command, args);
        }
        Hook::Plain(Entry::UNMAPPED)
    }

    fn is_internal(&self, index: usize) -> bool {
        self.clients.get(index).is_some_and(|client| client.kind == Kind::Internal)
    }

    /// The mapping of the first mapped key of a command.
    fn mapped_key(&self, command: &Command, args: &Args<'_>) -> Option<crate::mapping::MappingId> {
        let mappings = self.data.as_ref()?.source.mappings();
        match command.first_key(args) {
            Some(first) => mappings.find_id(args.get(first)?),
            None => {
                let mut keys = Vec::new();
                let _ = command.keys(args, &mut keys);
                keys.iter().find_map(|at| mappings.find_id(args.get(*at as usize)?))
            }
        }
    }

    /// A reading command other than GET.
    fn hook_read(&mut self, index: usize, command: &'static Command, args: &Args<'_>) -> Hook {
        let mapped = self.mapped_key(command, args);
        Hook::Plain(mapped.filter(|_| self.reads_through(index)).unwrap_or(Entry::UNMAPPED))
    }

    /// `GETEX` reads; its options change how long the cached entry lives, which has to wait where it holds what the database
    /// has not got yet.
    fn hook_getex(&mut self, index: usize, command: &'static Command, args: &Args<'_>) -> Hook {
        let Some(data) = &self.data else { return Hook::Plain(Entry::UNMAPPED) };
        let mappings = data.source.mappings();
        let mapped = mappings.find_id(args.get(1).unwrap_or_default()).and_then(|id| mappings.get(id));
        let Some(mapping) = mapped else { return Hook::Plain(Entry::UNMAPPED) };
        let (id, writes) = (mapping.id, mapping.write != WriteMode::None);
        if writes && args.len() > 2 && !self.is_internal(index) {
            if let Err(text) = self.modify(index, command, id, args) {
                self.answer_error(index, Some(command), text.as_bytes());
            }
            return Hook::Done;
        }
        Hook::Plain(if self.reads_through(index) { id } else { Entry::UNMAPPED })
    }

    /// False for the proxy's own commands. For a call, its answer is a hit until something else becomes of it.
    fn reads_through(&mut self, index: usize) -> bool {
        let Some(client) = self.clients.get_mut(index) else { return false };
        if client.kind == Kind::Call {
            client.note_served(Served::Hit);
        }
        client.kind != Kind::Internal
    }

    fn mapping_name(&self, mapping: u16) -> String {
        let data = self.data.as_ref();
        data.and_then(|data| data.source.mappings().get(mapping)).map(|m| m.name.clone()).unwrap_or_default()
    }

    fn find<'k>(&self, key: &'k [u8]) -> Result<(u16, Arc<Bound>, Match<'k>), String> {
        let data = self.data.as_ref().ok_or("ERR no mapping is configured")?;
        let (mapping, found) = data.source.mappings().find(key).ok_or("ERR the key belongs to no mapping")?;
        let bound = data.source.bound(mapping).cloned().ok_or("ERR the mapping has no table")?;
        Ok((mapping, bound, found))
    }

    /// Looks at the keys of MGET, MSET, DEL, UNLINK, EXISTS, TOUCH. `None` when the command is answered already.
    pub(in crate::core) fn mapped_split(
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
        if matches!(command.name, "mget" | "exists" | "touch")
            && let Some(client) = self.clients.get_mut(index)
        {
            client.note_served(Served::Hit);
        }
        let Some(data) = &self.data else { return Some(Split::Plain) };
        let mappings = data.source.mappings();
        let keys = || (1..args.len()).step_by(step).map(|at| args.get(at).unwrap_or_default());
        let indirect = || keys().filter_map(|key| mappings.find_id(key)).find(|id| mappings.is_indirect(*id));
        if command.name == "mget"
            && let Some(mapping) = indirect()
        {
            let name = self.mapping_name(mapping);
            let text = format!("ERR keys of mapping '{name}' are read one by one, with GET");
            self.answer_error(index, Some(command), text.as_bytes());
            return None;
        }
        let verdict = match command.name {
            "mget" | "exists" | "touch" => {
                let found: Vec<_> = keys()
                    .enumerate()
                    .filter_map(|(at, key)| {
                        let mapping = mappings.find_id(key)?;
                        // To MGET a hash is nothing, whether it is there or not.
                        let hash = mappings.get(mapping).is_some_and(|m| m.format == Format::Hash);
                        if hash && command.name == "mget" {
                            return None;
                        }
                        Some(MappedKey { position: at as u32, mapping, key: Bytes::copy_from_slice(key) })
                    })
                    .collect();
                Ok(Some(if command.name == "mget" { Split::Reads(found) } else { Split::Counts(found) }))
            }
            "mset" | "del" | "unlink" => self.write_many(index, command, args).map(|()| None),
            _ => Ok(Some(Split::Plain)),
        };
        match verdict {
            Ok(split) => split,
            Err(text) => {
                self.answer_error(index, Some(command), text.as_bytes());
                None
            }
        }
    }
}
