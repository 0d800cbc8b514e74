//! Reads of mapped keys: what an answer means that says "there is nothing".
//!
//! Must not know: the database, how a row is loaded.
//!
//! A read goes to the cluster as it came. Only when the reply may mean that the key is absent is the row loaded, and the
//! command evaluated on it (`evaluate.rs`), or asked again where only a node can answer.

use super::super::client::{Begun, Slot};
use super::super::{ClientKey, Core, Kind, Route, recycle};
use super::evaluate::{Verdict, WRONG_TYPE, evaluate};
use super::verify::{differs, load_of};
use super::{Loads, Told};
use crate::cache::{Answer, Loaded, Miss, ReadThrough, Until};
use crate::cluster::{Entry, Owner, Served};
use crate::command::{self, Command};
use crate::resp::{Args, RequestLimits, RequestScanner, push_bulk, push_error, push_integer, push_nil};
use crate::slot;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// A command other than GET that waits for the rows of its keys.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) command: &'static Command,
    pub(super) request: Vec<u8>,
    /// What the cluster has said, which is right when there is no row.
    pub(super) reply: Vec<u8>,
    pub(super) slot: u16,
    /// Whether the cluster stores the rows, so that it can be asked again.
    pub(super) stored: bool,
}

/// How a waiting command is answered.
enum Reply {
    /// By what is in the buffer.
    Said,
    /// By a node, now that the row is there.
    Again(Box<Ask>),
}

impl Core {
    /// Counts a read of a mapped key that the cluster answered.
    pub(in crate::core) fn count_hit(&self, entry: &Entry, reply: &[u8]) {
        if reply.first() != Some(&b'-')
            && let Some(cells) = self.stats.mappings.get(usize::from(entry.mapping))
        {
            cells.hits.add(1);
        }
    }

    /// A read of a mapped key was answered as if there were no such key: loads it. False when it is answered as it came.
    pub(in crate::core) fn load_missing(&mut self, entry: &Entry, request: &[u8], reply: &[u8]) -> bool {
        let Owner::Client { index, serial, seq, .. } = entry.owner else { return false };
        let mut scanner = RequestScanner::default();
        if scanner.scan(request, &RequestLimits::default()).is_err() {
            return false;
        }
        let args = Args::new(request, scanner.spans());
        let (Ok(command), Some(data)) = (command::resolve(&args), &self.data) else { return false };
        let mappings = data.source.mappings();
        if command.name == "get" {
            let Some(key) = args.get(1).map(Bytes::copy_from_slice) else { return false };
            let load = load_of(&data.writes, &[(entry.mapping, key.clone())]);
            let client = ClientKey { index, serial };
            return self.load_from(client, seq, entry.at, vec![(entry.mapping, key)], None, load);
        }
        let mut at = Vec::new();
        let _ = command.keys(&args, &mut at);
        let named = || at.iter().filter_map(|at| args.get(*at as usize));
        let mapped: Vec<_> =
            named().filter_map(|key| Some((mappings.find_id(key)?, Bytes::copy_from_slice(key)))).collect();
        let Some((_, first)) = mapped.first() else { return false };
        let stored = mapped.iter().all(|(mapping, _)| mappings.get(*mapping).is_some_and(|m| m.cache));
        let slot = slot::slot(first);
        let ask = Ask { command, request: request.to_vec(), reply: reply.to_vec(), slot, stored };
        let load = load_of(&data.writes, &mapped);
        self.load_from(ClientKey { index, serial }, seq, entry.at, mapped, Some(Box::new(ask)), load)
    }

    /// What the cache holds for `key` may be older than what was written: then the read is answered without it. False when
    /// the cache may be asked.
    #[cold]
    pub(super) fn read_doubtful(
        &mut self,
        index: usize,
        command: &'static Command,
        mapping: u16,
        key: &[u8],
    ) -> bool {
        let doubtful = self.data.as_ref().is_some_and(|data| {
            data.writes.is_doubtful(mapping, key) && data.writes.pending(mapping, key).is_some()
        });
        let Some(client) = self.clients.get_mut(index).filter(|c| doubtful && c.kind != Kind::Internal)
        else {
            return false;
        };
        // Its own writes of the key are in their places in the order: what waits is what it has to see.
        let (at, serial) = (self.now, client.serial);
        let seq = client.open(Slot::Waiting(Begun { at, command: command.id }));
        self.stats.inflight.add(1);
        let key = Bytes::copy_from_slice(key);
        self.load(ClientKey { index: index as u32, serial }, seq, at, vec![(mapping, key)], None)
    }

    /// All parts of a split command are here: loads the mapped keys that it did not find. False when there are none.
    pub(in crate::core) fn load_missing_parts(&mut self, key: ClientKey, seq: u32) -> bool {
        let Some(client) = self.clients.get_mut(key.index as usize).filter(|c| c.serial == key.serial) else {
            return false;
        };
        let Some(Slot::Gathering(begun, gather)) = client.slot_mut(seq) else { return false };
        let asked = begun.at;
        let mut distrusted = false;
        if let Some(data) = self.data.as_ref().filter(|data| data.writes.has_unflushed()) {
            distrusted =
                gather.distrust(|mapping, key, element| differs(&data.writes, mapping, key, element));
        }
        if gather.mapped.is_empty() || gather.failed() {
            return false;
        }
        let (hits, missing) = gather.split_mapped();
        for (mapping, hit) in hits {
            if let Some(cells) = self.stats.mappings.get(usize::from(mapping)) {
                cells.hits.add(1);
            }
            if self.watches {
                self.watch_for(key, mapping, hit);
            }
        }
        let Some(data) = self.data.as_ref().filter(|_| !missing.is_empty()) else { return false };
        match distrusted {
            true => self.load_from(key, seq, asked, missing, None, ReadThrough::recheck),
            false => {
                let load = load_of(&data.writes, &missing);
                self.load_from(key, seq, asked, missing, None, load)
            }
        }
    }

    /// `asked`: when the cluster was asked for them, in microseconds of the core's clock.
    pub(super) fn load(
        &mut self,
        client: ClientKey,
        seq: u32,
        asked: u64,
        keys: Vec<(u16, Bytes)>,
        ask: Option<Box<Ask>>,
    ) -> bool {
        self.load_from(client, seq, asked, keys, ask, ReadThrough::load)
    }

    /// The same for keys whose node is away.
    pub(super) fn load_past_cache(
        &mut self,
        client: ClientKey,
        seq: u32,
        asked: u64,
        keys: Vec<(u16, Bytes)>,
    ) -> bool {
        self.load_from(client, seq, asked, keys, None, ReadThrough::load_past_cache)
    }

    pub(super) fn load_from(
        &mut self,
        client: ClientKey,
        seq: u32,
        asked: u64,
        keys: Vec<(u16, Bytes)>,
        ask: Option<Box<Ask>>,
        load: impl Fn(&ReadThrough, Miss),
    ) -> bool {
        // Many keys are answered when they are known. With one key, whoever has read it finds it in the cluster from then on.
        let slot = self.client_mut(client).and_then(|client| client.slot_mut(seq));
        let until = if matches!(slot, Some(Slot::Gathering(..))) { Until::Known } else { Until::Stored };
        let Some(data) = &self.data else { return false };
        for (mapping, _) in &keys {
            if let Some(cells) = self.stats.mappings.get(usize::from(*mapping)) {
                cells.misses.add(1);
            }
        }
        let told = data.told.clone();
        let mappings: Vec<u16> = keys.iter().map(|(mapping, _)| *mapping).collect();
        let now = Instant::now();
        let age = Duration::from_micros(self.now.saturating_sub(asked));
        let miss = Miss {
            keys,
            asked: now.checked_sub(age).unwrap_or(now),
            until,
            // The receiver is gone only when the worker has stopped: then nobody waits.
            reply: Box::new(move |answers| {
                let results = mappings.into_iter().zip(answers).collect();
                let _ = told.send(Told::Loads(Loads { client, seq, results, ask, said: None }));
            }),
        };
        load(&data.reads, miss);
        true
    }

    /// Counts where the answers of a load came from.
    fn count_served(&self, results: &[(u16, Answer)]) {
        for (mapping, answer) in results {
            if let Some(cells) = self.stats.mappings.get(usize::from(*mapping)) {
                cells.served[answer.served as usize].add(1);
            }
        }
    }

    /// A load has ended: answers the client that waits for it.
    pub(super) fn loaded(&mut self, loads: Loads) {
        let Loads { client: key, seq, results, ask, said } = loads;
        if let Some(reply) = said {
            if self.client(key).is_some() {
                self.complete(key.index as usize, seq, &reply, Route::Local);
            }
            return;
        }
        self.count_served(&results);
        let Some(client) = self.clients.get_mut(key.index as usize).filter(|c| c.serial == key.serial) else {
            return;
        };
        if client.kind == Kind::Call {
            results.iter().for_each(|(_, answer)| client.note_served(answer.served));
        }
        let protocol = client.session.protocol;
        let mut reply = self.spare.pop().unwrap_or_default();
        match (client.slot_mut(seq), ask) {
            (Some(Slot::Waiting(_)), None) => {
                if let Some((mapping, Answer { loaded: Loaded::Value(ids), .. })) = results.first()
                    && let Some(of) = self.listed_by(*mapping)
                {
                    recycle(reply, &mut self.spare);
                    return self.answer_list(key, seq, of, ids);
                }
                if let Some((_, answer)) = results.first() {
                    push_loaded(&mut reply, &answer.loaded, protocol);
                }
            }
            (Some(Slot::Waiting(_)), Some(ask)) => {
                if let Reply::Again(ask) = ask.answer(&results, protocol, &mut reply) {
                    recycle(reply, &mut self.spare);
                    return self.reread(key, seq, &ask);
                }
            }
            (Some(Slot::Gathering(_, gather)), _) => {
                gather.fill(&results, |out, (_, answer)| push_element(out, &answer.loaded, protocol));
                gather.finish(&mut reply, protocol);
            }
            (Some(Slot::Ready(_)) | None, _) => return,
        }
        self.complete(key.index as usize, seq, &reply, Route::Load);
        recycle(reply, &mut self.spare);
    }

    /// The ids of a list are here: answers with its objects, or with an error when they are no ids.
    fn answer_list(&mut self, client: ClientKey, seq: u32, of: u16, ids: &Bytes) {
        if !self.fetch_objects(client, seq, of, ids) {
            let mut reply = Vec::new();
            push_error(
                &mut reply,
                "ERR the list's entry holds no ids of its objects; DEL the key to load it anew",
            );
            self.complete(client.index as usize, seq, &reply, Route::Load);
        }
    }

    /// The rows of a command are in the cluster now: sends it once more, and takes its reply as it comes.
    fn reread(&mut self, client: ClientKey, seq: u32, ask: &Ask) {
        let entry = Entry {
            owner: Owner::Client { index: client.index, serial: client.serial, seq, part: 0 },
            len: 0,
            at: self.now,
            command: ask.command.id,
            mapping: Entry::UNMAPPED,
            readonly: ask.command.is_readonly(),
            attempts: 0,
            more: 0,
        };
        self.send(ask.slot, entry, &ask.request);
    }
}

impl Ask {
    /// Answers from what was loaded for its keys.
    fn answer(self: Box<Self>, results: &[(u16, Answer)], protocol: u8, out: &mut Vec<u8>) -> Reply {
        let failed = results.iter().find_map(|(_, answer)| match &answer.loaded {
            Loaded::Failed(text) => Some(text),
            _ => None,
        });
        if let Some(text) = failed {
            push_error(out, text);
            return Reply::Said;
        }
        let (true, Some((_, first))) =
            (results.iter().any(|(_, answer)| answer.loaded != Loaded::Absent), results.first())
        else {
            out.extend_from_slice(&self.reply);
            return Reply::Said;
        };
        let in_cluster = self.stored && !matches!(first.served, Served::Dirty | Served::Bypass);
        let mut scanner = RequestScanner::default();
        if results.len() == 1 && scanner.scan(&self.request, &RequestLimits::default()).is_ok() {
            let args = Args::new(&self.request, scanner.spans());
            // What changes the entry, or tells something of it that is not its value, is for the node.
            let of_entry = self.command.is_write() && args.len() > 2;
            let name = self.command.name;
            if !(of_entry && in_cluster)
                && evaluate(name, &args, &first.loaded, protocol, out) == Verdict::Said
            {
                return Reply::Said;
            }
            if !in_cluster && matches!(name, "ttl" | "pttl" | "expiretime" | "pexpiretime") {
                // It is there for as long as its row is.
                push_integer(out, -1);
                return Reply::Said;
            }
        }
        match self.stored {
            true => Reply::Again(self),
            false => {
                out.extend_from_slice(&self.reply);
                Reply::Said
            }
        }
    }
}

/// One loaded value as the reply to a GET.
fn push_loaded(out: &mut Vec<u8>, result: &Loaded, protocol: u8) {
    match result {
        Loaded::Value(value) => push_bulk(out, value),
        Loaded::Hash(_) => push_error(out, WRONG_TYPE),
        Loaded::Absent => push_nil(out, protocol),
        Loaded::Failed(text) => push_error(out, text),
    }
}

/// One loaded value as an element of the reply to an MGET, for which a hash is nothing.
fn push_element(out: &mut Vec<u8>, result: &Loaded, protocol: u8) {
    match result {
        Loaded::Hash(_) => push_nil(out, protocol),
        other => push_loaded(out, other, protocol),
    }
}
