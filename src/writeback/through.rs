//! Write-through: the database first, then the cache, then the client.
//!
//! Must not know: Redis, clients, SQL.
//!
//! 1. The cache drops what it has of the keys, and is told that a write of them is under way: what is loaded meanwhile is
//!    answered, but not stored.
//! 2. The writes of one mapping are committed in one transaction. What the database refuses has changed nothing.
//! 3. The cache is told what is committed, and stores it, unless somebody else wrote the key meanwhile.
//!
//! Whoever dies after the first step leaves a mark that ends by itself, and no entry. So the cache is never ahead of the
//! database, and never behind it for longer than the mark lives.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::watch;

use super::handle::WriteBehind;
use super::log::Done;
use super::shared::Shared;
use super::{KeyWrite, Write, WriteError};
use crate::failpoint;
use crate::mapping::{Durability, MappingId};
use crate::sidecar::Token;
use crate::source::{Batch, Change, Commit, Committed, Once, SourceError, Versioned};

/// What the cache says to a write-through that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Its mark is there.
    Yes {
        /// The newest version that the cache knows of.
        version: u64,
        /// There was an entry.
        found: bool,
        /// Another write-through of the key is under way.
        contested: bool,
    },
    /// A write of the key waits for the database, from when its mapping was written behind.
    Dirty,
    /// It could not be told.
    Failed(String),
}

/// What the cache is told of a key at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThroughEnd {
    /// The key.
    pub key: Bytes,
    /// As at the beginning.
    pub token: Token,
    /// Version of the write.
    pub version: u64,
    /// What the database holds now; `None`: what it held before.
    pub held: Option<Committed>,
    /// When the entry expires, ms since 1970; `None`: as the mapping says.
    pub expires_at: Option<u64>,
}

/// Time between two looks whether a write from before is in the database.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(20);
/// How often the cache is told of a commit at most; after that its mark runs out.
const TELL: u32 = 3;

/// Write-throughs of one key take place one after the other, in the order in which they came.
#[derive(Default)]
pub(super) struct Turns {
    /// By key, the end of the last one.
    last: Mutex<FxHashMap<Bytes, watch::Receiver<()>>>,
}

/// The turn of one unit.
pub(super) struct Turn {
    keys: Vec<Bytes>,
    before: Vec<watch::Receiver<()>>,
    /// Dropped at its end.
    own: watch::Sender<()>,
}

impl Turns {
    fn queue<'k>(&self, keys: impl Iterator<Item = &'k Bytes>) -> Turn {
        let own = watch::Sender::new(());
        let mut keys: Vec<Bytes> = keys.cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = keys.iter().filter_map(|key| last.insert(key.clone(), own.subscribe())).collect();
        Turn { keys, before, own }
    }

    fn end(&self, turn: Turn) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let own = turn.own.subscribe();
        for key in &turn.keys {
            if last.get(key).is_some_and(|known| known.same_channel(&own)) {
                last.remove(key);
            }
        }
    }
}

impl Turn {
    /// Ends when those before it have ended, however that was.
    async fn come(&self) {
        for before in &self.before {
            while before.clone().changed().await.is_ok() {}
        }
    }
}

impl WriteBehind {
    /// Takes writes of which some are of mappings that are written through. `done` is told when all of them are where they
    /// belong; of a deletion that found no entry, the version is 0.
    pub(super) fn submit_through(&self, unit: Vec<KeyWrite>, done: Done) -> Result<(), WriteError> {
        let size = |write: &KeyWrite| match &write.write {
            Write::Put { row, value } => row.size() + value.len() + write.key.len(),
            Write::Delete { .. } => 2 * write.key.len(),
        };
        let (rows, bytes) = (unit.len(), unit.iter().map(size).sum());
        self.shared.budget.take(rows, bytes)?;
        let turn = self.shared.turns.queue(unit.iter().map(|write| &write.key));
        let writes = self.clone();
        self.shared.throughs.spawn_on(
            async move {
                turn.come().await;
                let outcome = writes.through(unit).await;
                writes.shared.turns.end(turn);
                writes.shared.budget.give_back(rows, bytes);
                done(outcome);
            },
            &self.shared.runtime,
        );
        Ok(())
    }

    async fn through(&self, unit: Vec<KeyWrite>) -> Result<Vec<u64>, WriteError> {
        let mut versions = vec![0; unit.len()];
        let mut groups: Vec<(MappingId, Vec<usize>)> = Vec::new();
        let mut behind = Vec::new();
        for (at, write) in unit.iter().enumerate() {
            match groups.iter_mut().find(|(mapping, _)| *mapping == write.mapping) {
                _ if !self.shared.is_through(write.mapping) => behind.push(at),
                Some((_, group)) => group.push(at),
                None => groups.push((write.mapping, vec![at])),
            }
        }
        let mut give = |places: &[usize], given: Vec<u64>| {
            for (at, version) in places.iter().zip(given) {
                if let Some(place) = versions.get_mut(*at) {
                    *place = version;
                }
            }
        };
        for (mapping, places) in groups {
            let writes: Vec<&KeyWrite> = places.iter().filter_map(|at| unit.get(*at)).collect();
            give(&places, Group::new(&self.shared, mapping, writes).write().await?);
        }
        if !behind.is_empty() {
            let writes = behind.iter().filter_map(|at| unit.get(*at).cloned()).collect();
            give(&behind, Box::pin(self.write(writes)).await?);
        }
        Ok(versions)
    }
}

impl WriteBehind {
    /// Whether writes of this mapping are in the database before they are acknowledged.
    pub fn is_through(&self, mapping: MappingId) -> bool {
        self.shared.is_through(mapping)
    }
}

impl Shared {
    pub(super) fn is_through(&self, mapping: MappingId) -> bool {
        self.queue(mapping).is_some_and(|queue| queue.bound.mapping.durability == Durability::Database)
    }
}

/// The writes of one mapping.
struct Group<'w> {
    shared: &'w Arc<Shared>,
    mapping: MappingId,
    writes: Vec<&'w KeyWrite>,
    tokens: FxHashMap<Bytes, Token>,
    /// Keys that had an entry.
    found: FxHashMap<Bytes, bool>,
}

impl<'w> Group<'w> {
    fn new(shared: &'w Arc<Shared>, mapping: MappingId, writes: Vec<&'w KeyWrite>) -> Self {
        let tokens = writes.iter().map(|write| (write.key.clone(), Token::random())).collect();
        Self { shared, mapping, writes, tokens, found: FxHashMap::default() }
    }

    async fn write(mut self) -> Result<Vec<u64>, WriteError> {
        let begun = self.begin().await;
        failpoint::hit("through.begun");
        if let Err(error) = begun {
            self.end(0, |_| None).await;
            return Err(error);
        }
        let first = self.shared.clock.take(self.writes.len() as u64);
        let versions: Vec<u64> =
            (0..).zip(&self.writes).map(|(at, _): (u64, _)| first + at * crate::clock::STEP).collect();
        let last = versions.last().copied().unwrap_or_default();
        match self.commit(&versions).await {
            Ok(commit) => {
                failpoint::hit("through.committed");
                self.tell(last, commit).await?;
                failpoint::hit("through.told");
                Ok(self.answers(versions))
            }
            Err(error) => {
                let unknown = is_unknown(&error);
                self.end(last, |_| unknown.then_some(Committed::Unknown)).await;
                self.writes.iter().for_each(|w| self.shared.observer.rejected(self.mapping, &w.key, &error));
                let text = match unknown {
                    _ if matches!(error, SourceError::Waits { .. }) => {
                        format!("BUSY {error}; nothing was written")
                    }
                    true => format!("ERR {error}; it is not known whether the write was done"),
                    false => format!("ERR {error}; nothing was written"),
                };
                Err(WriteError::Through(text))
            }
        }
    }

    /// Until the cache has dropped what it has of the keys.
    async fn begin(&mut self) -> Result<(), WriteError> {
        let life = self.shared.options.through_timeout;
        let until = Instant::now() + life;
        loop {
            let keys: Vec<(Bytes, Token)> =
                self.tokens.iter().map(|(key, token)| (key.clone(), *token)).collect();
            let answers = self.shared.observer.through_begins(self.mapping, keys.clone(), 2 * life).await;
            let mut dirty = false;
            for ((key, _), begun) in keys.into_iter().zip(answers) {
                match begun {
                    Begun::Yes { version, found, contested } => {
                        self.shared.clock.observe(version);
                        self.found.entry(key.clone()).and_modify(|before| *before |= found).or_insert(found);
                        let outruns = |write: &&&KeyWrite| {
                            write.key == key && write.base.is_some_and(|base| version > base || contested)
                        };
                        if self.writes.iter().any(|write| outruns(&write)) {
                            return Err(WriteError::Outrun);
                        }
                    }
                    Begun::Dirty => dirty = true,
                    Begun::Failed(fault) => {
                        let text = format!(
                            "ERR the cache cannot be told of the write, so nothing was written: {fault}"
                        );
                        return Err(WriteError::Through(text));
                    }
                }
            }
            if !dirty {
                return Ok(());
            }
            if Instant::now() > until {
                let text = "BUSY an earlier write of this key, from before its mapping was written through, waits for the database";
                return Err(WriteError::Through(text.to_owned()));
            }
            // It may wait in this process, for its batch to be due.
            let flush = async {
                if let Some(queue) = self.shared.queue(self.mapping) {
                    queue.flush_to(self.shared.clock.last()).await;
                }
            };
            let _ = tokio::time::timeout(LOOK_AGAIN, flush).await;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn commit(&self, versions: &[u64]) -> Result<Commit, SourceError> {
        let started = Instant::now();
        let changes: Vec<Change> = self.writes.iter().map(|write| change_of(&write.write)).collect();
        let writes: Vec<Versioned<'_>> = changes
            .iter()
            .zip(versions)
            .map(|(change, version)| Versioned { change, version: *version, value: None })
            .collect();
        // A write that was computed from a version counts only if nothing newer came; any other one is the newest.
        let once = match self.writes.iter().any(|write| write.base.is_some()) {
            true => Once::Nothing,
            false => Once::Newest,
        };
        let batch = Batch { writes: &writes, refused: &[], once, through: true, alone: None };
        let limit = self.shared.options.through_timeout;
        let commit = match tokio::time::timeout(limit, self.shared.source.commit(self.mapping, &batch)).await
        {
            Ok(commit) => commit?,
            Err(_) => {
                let message = format!("no answer within {limit:?}");
                return Err(SourceError::Unavailable { message, code: None });
            }
        };
        self.shared.observer.flushed(self.mapping, self.writes.len(), started.elapsed());
        Ok(commit)
    }

    /// It is committed: the cache may have it.
    async fn tell(&self, version: u64, commit: Commit) -> Result<(), WriteError> {
        let keys = self.writes.iter().map(|write| &write.key);
        let held: FxHashMap<&Bytes, Committed> = keys.zip(commit.held).collect();
        let outrun =
            |write: &&&KeyWrite| write.base.is_some() && held.get(&write.key) == Some(&Committed::Unknown);
        let outrun = self.writes.iter().any(|write| outrun(&write));
        self.end(version, |key| Some(held.get(key).cloned().unwrap_or(Committed::Unknown))).await;
        let touched = commit.touched;
        if !touched.is_nothing()
            && !self.shared.observer.touched(self.mapping, touched.clone()).await
            && let Some(queue) = self.shared.queue(self.mapping)
        {
            queue.keep_untouched(touched, 0);
        }
        if outrun { Err(WriteError::Outrun) } else { Ok(()) }
    }

    async fn end(&self, version: u64, held: impl Fn(&Bytes) -> Option<Committed>) {
        let end = |(key, token): (&Bytes, &Token)| {
            let expires_at =
                self.writes.iter().rev().find(|write| write.key == *key).and_then(|w| w.expires_at);
            ThroughEnd { key: key.clone(), token: *token, version, held: held(key), expires_at }
        };
        let mut ends: Vec<ThroughEnd> = self.tokens.iter().map(end).collect();
        for attempt in 1..=TELL {
            ends = self.shared.observer.through_ends(self.mapping, ends).await;
            if ends.is_empty() {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN * attempt).await;
        }
        tracing::warn!(
            keys = ends.len(),
            "the cache could not be told of a write-through; it stores nothing for these keys until its marks run out"
        );
    }

    /// The versions; 0 for a deletion of what was not there.
    fn answers(&self, versions: Vec<u64>) -> Vec<u64> {
        let mut found = self.found.clone();
        let answer = |(write, version): (&&KeyWrite, u64)| match &write.write {
            Write::Put { .. } => version,
            // The second deletion of a key finds nothing.
            Write::Delete { .. } => match found.insert(write.key.clone(), false) {
                Some(true) => version,
                _ => 0,
            },
        };
        self.writes.iter().zip(versions).map(answer).collect()
    }
}

fn change_of(write: &Write) -> Change {
    match write {
        Write::Put { row, .. } => Change::Put(row.clone()),
        Write::Delete { ids } => Change::Delete(ids.clone()),
    }
}

/// Whether the commit may have happened all the same: the connection was lost, or the database went down.
fn is_unknown(error: &SourceError) -> bool {
    matches!(error, SourceError::Unavailable { code, .. }
        if code.as_deref().is_none_or(|code| ["08", "57P", "58", "XX"].iter().any(|class| code.starts_with(class))))
}
