//! The handle by which writes come in, readers look at what waits, and everything is ended.
//!
//! Must not know: Redis, clients.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::entry::Arrival;
use super::log::{Done, Intake, Staged};
use super::queue::Queue;
use super::shared::Shared;
use super::unit::Trial;
use super::{
    Depth, InCache, KeyWrite, Observer, Pending, Race, Standing, Write, WriteBehindOptions, WriteError,
    batcher,
};
use crate::clock::Clock;
use crate::failpoint;
use crate::journal::{Journal, JournalError, JournalStats, OpenError, Opened};
use crate::mapping::MappingId;
use crate::source::{Source, Touched};

/// How long an end waits for the cache to be told of what is in the database.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The write-behind queues. Cheap to clone.
#[derive(Clone)]
pub struct WriteBehind {
    pub(super) shared: Arc<Shared>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
    retelling: Arc<Mutex<JoinSet<()>>>,
}

impl WriteBehind {
    /// Starts one batcher per writable mapping on `runtime`. End them with `shutdown`.
    pub fn start(
        source: Arc<Source>,
        options: WriteBehindOptions,
        observer: Arc<dyn Observer>,
        runtime: &Handle,
    ) -> Self {
        let shared = Arc::new(Shared::new(source, options, observer, runtime));
        let ids = || (0..shared.queues.len()).filter(|at| shared.queues[*at].is_some());
        let tasks = ids().map(|id| runtime.spawn(batcher::run(shared.clone(), id as MappingId))).collect();
        let mut retelling = JoinSet::new();
        for id in ids() {
            retelling.spawn_on(batcher::retell(shared.clone(), id as MappingId), runtime);
        }
        Self { shared, tasks: Arc::new(Mutex::new(tasks)), retelling: Arc::new(Mutex::new(retelling)) }
    }

    /// What is journaled is applied for the instance `id`, in this epoch. Said before anything is flushed.
    pub fn claimed(&self, id: String, epoch: i64) {
        let _ = self.shared.claim.set((id, epoch));
    }

    /// Why this proxy may not write to the database any more, if so.
    pub fn fenced(&self) -> Option<&str> {
        self.shared.fenced.get().map(String::as_str)
    }

    /// Writes go through this journal from now on, where their mapping wants it. What an earlier process left in it has been
    /// restored before.
    ///
    /// # Errors
    /// The journal cannot be started.
    pub fn attach(&self, journal: Opened) -> Result<(), OpenError> {
        self.shared.taken_in.store(journal.last(), Ordering::Release);
        let journal = journal.start(Intake(Arc::downgrade(&self.shared)))?;
        let _ = self.shared.journal.set(journal);
        self.shared.trim();
        Ok(())
    }

    /// Has the journal forget nothing, as long as it is not half full; until this is said again with `false`.
    pub fn keep_journal(&self, kept: bool) {
        self.shared.kept.store(kept, Ordering::Release);
        self.shared.trim();
    }

    /// How the journal stands, where there is one.
    pub fn journal(&self) -> Option<JournalStats> {
        self.shared.journal.get().map(Journal::stats)
    }

    /// Why writes are refused, where that has another reason than how much waits: this proxy was taken over, or its journal
    /// cannot be written.
    pub fn trouble(&self) -> Option<String> {
        let journal = self.journal().unwrap_or_default();
        let disk =
            journal.poisoned.map(JournalError::Poisoned).or(journal.no_space.map(JournalError::NoSpace));
        self.fenced().map(str::to_owned).or_else(|| disk.map(|error| error.to_string()))
    }

    /// The clock that gives versions: whoever sees a version elsewhere tells it.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Takes the writes of one command in their order: all of them, or none when one is refused. Never blocks and may be
    /// called from any thread. Answers their versions when they are as durable as their mappings want it at once; `None`
    /// when `done` will be told so. From then on `pending` shows them.
    ///
    /// # Errors
    /// [`WriteError`]; nothing has happened then, and `done` is not called.
    pub fn submit(&self, unit: Vec<KeyWrite>, done: Done) -> Result<Option<Vec<u64>>, WriteError> {
        self.take(unit, None, done)
    }

    /// The same; `trial`: of a unit that counts only once it is confirmed.
    pub(super) fn take(
        &self,
        unit: Vec<KeyWrite>,
        trial: Option<Trial>,
        done: Done,
    ) -> Result<Option<Vec<u64>>, WriteError> {
        let shared = &self.shared;
        if shared.closed.load(Ordering::Acquire) {
            return Err(WriteError::Closed);
        }
        if let Some(reason) = shared.fenced.get() {
            return Err(WriteError::Fenced(reason.clone()));
        }
        if unit.iter().any(|write| shared.is_through(write.mapping)) {
            return self.submit_through(unit, done).map(|()| None);
        }
        let journal =
            shared.journal.get().filter(|_| unit.iter().any(|write| shared.is_journaled(write.mapping)));
        let Some(journal) = journal else {
            let arrival = |write: KeyWrite| {
                let queue = shared.queue(write.mapping).ok_or(WriteError::ReadOnly)?;
                Ok((queue, Arrival::new(write).of_unit(trial.map(|trial| trial.unit))))
            };
            let arrivals = unit.into_iter().map(arrival).collect::<Result<Vec<_>, WriteError>>()?;
            return shared.push(arrivals).map(Some);
        };
        let staged = Staged::new(shared, unit, trial, done)?;
        let (rows, bytes) = staged.size_of_rows();
        shared.budget.take(rows, bytes)?;
        failpoint::hit("write.before_journal");
        shared.in_flight.fetch_add(1, Ordering::AcqRel);
        journal.append(staged).map(|()| None).map_err(|refused| {
            shared.landed();
            shared.budget.give_back(rows, bytes);
            WriteError::Journal(refused.error)
        })
    }

    /// The same for who can wait: the versions, once the writes are durable.
    ///
    /// # Errors
    /// [`WriteError`]; only after a failure of the journal's disk it is not known whether something has happened.
    pub async fn write(&self, unit: Vec<KeyWrite>) -> Result<Vec<u64>, WriteError> {
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |outcome| {
            let _ = tell.send(outcome);
        });
        match self.submit(unit, done)? {
            Some(versions) => Ok(versions),
            None => told.await.unwrap_or(Err(WriteError::Closed)),
        }
    }

    /// Takes one write that is brought to no cache, and waits for nothing.
    ///
    /// # Errors
    /// As [`WriteBehind::submit`].
    pub fn enqueue(&self, mapping: MappingId, key: Bytes, write: Write) -> Result<(), WriteError> {
        let write = KeyWrite { mapping, key, write, base: None, expires_at: None, applies: false };
        self.submit(vec![write], Box::new(drop)).map(drop)
    }

    /// Whether a write of `key` that is newer than `version` was queued by this process.
    pub fn is_superseded(&self, mapping: MappingId, key: &[u8], version: u64) -> bool {
        let newest = |queue: &Queue| queue.lane(key).overlays.get(key).map_or(0, |overlay| overlay.newest());
        self.shared.queue(mapping).is_some_and(|queue| newest(queue) > version)
    }

    /// Says what became of a write in the cache that was submitted with `applies`.
    pub fn resolve(&self, mapping: MappingId, key: &[u8], outcome: InCache) {
        if let Some(queue) = self.shared.queue(mapping) {
            queue.resolve(key, outcome);
        }
    }

    /// The newest write of `key` that this process has made and still knows; a cache that is behind it has lost it, or has
    /// not got it yet.
    pub fn standing(&self, mapping: MappingId, key: &[u8]) -> Option<Standing> {
        let queue = self.shared.queue(mapping)?;
        queue.lane(key).standing(key, queue.bound.is_append())
    }

    /// Says what became of a write that was submitted with a `base`: once it has won readers see it and it will be flushed,
    /// otherwise it never was. Where that is unknown the cache is told when what was written before is in the database.
    pub fn decide(&self, mapping: MappingId, key: &[u8], version: u64, race: Race) {
        if let Some(queue) = self.shared.queue(mapping) {
            queue.decide(key, version, race);
            if race == Race::Lost {
                self.shared.withdraw(version);
            }
        }
    }

    /// Whether there is any key for which [`WriteBehind::is_doubtful`]. Costs a load of an atomic.
    #[inline]
    pub fn has_doubts(&self) -> bool {
        self.shared.doubts.load(Ordering::Acquire) > 0
    }

    /// Whether the cache may hold something older than what was written last: then [`WriteBehind::pending`] counts.
    pub fn is_doubtful(&self, mapping: MappingId, key: &[u8]) -> bool {
        self.shared.queue(mapping).is_some_and(|queue| queue.lane(key).is_doubtful(key))
    }

    /// What readers of `key` must see while a write of it waits; `None` when nothing does.
    pub fn pending(&self, mapping: MappingId, key: &[u8]) -> Option<Pending> {
        self.shared.queue(mapping)?.pending(key)
    }

    /// Nothing is known of the rows that were changed through `mapping` in the past: has all that depends on them outdated.
    pub fn touch_all(&self, mapping: MappingId) {
        let watched = |queue: &&Queue| queue.bound.mapping.watched.is_some();
        if let Some(queue) = self.shared.queue(mapping).filter(watched) {
            queue.keep_untouched(Touched::everything(), 1);
        }
    }

    /// What waits in one mapping's queue.
    pub fn depth(&self, mapping: MappingId) -> Depth {
        self.shared.queue(mapping).map(|queue| queue.depth(Instant::now())).unwrap_or_default()
    }

    /// The share of the fullest limit (waiting rows, bytes, the journal's) that is used, from 0 to 1.
    pub fn pressure(&self) -> f64 {
        self.shared.pressure()
    }

    /// The oldest record of the journal that is still needed; `None` when nothing that was journaled waits.
    pub fn oldest_sequence(&self) -> Option<u64> {
        self.shared.oldest_sequence(true)
    }

    /// Takes no more writes, flushes what waits, and stops. Answers what could not be written within `deadline`: what is
    /// not journaled of it is lost when the process ends.
    pub async fn shutdown(&self, deadline: Duration) -> Depth {
        self.shared.closed.store(true, Ordering::Release);
        let until = tokio::time::Instant::now() + deadline;
        let journal = self.shared.journal.get().cloned();
        self.shared.throughs.close();
        let _ = tokio::time::timeout_at(until, self.shared.throughs.wait()).await;
        // Whatever the journal has taken reaches the queues before they are closed.
        while let Some(journal) = &journal
            && journal.stats().inbox > 0
            && tokio::time::Instant::now() < until
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.shared.queues.iter().flatten().for_each(Queue::close);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for mut task in tasks {
            if tokio::time::timeout_at(until, &mut task).await.is_err() {
                task.abort();
                let _ = task.await;
            }
        }
        // What is not journaled would never be told, nor would what is adopted.
        let patience = until.min(tokio::time::Instant::now() + LAST_WORDS);
        while self.shared.is_untold() && tokio::time::Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.retelling.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        if let Some(journal) = journal {
            // It is trimmed of what was flushed, so that the next start does none of it again.
            self.shared.trim();
            let _ = tokio::task::spawn_blocking(move || journal.close()).await;
        }
        let depths = self.shared.queues.iter().flatten().map(|queue| queue.depth(Instant::now()));
        depths.fold(Depth::default(), Depth::and)
    }
}
