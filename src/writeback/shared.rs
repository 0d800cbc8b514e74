//! What the handle, the batchers and the journal's thread share: the queues, their limits, and how far everything is.
//!
//! Must not know: Redis, clients.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::alone::Solitude;
use super::entry::{Arrival, Stamp};
use super::log::{Pace, Staged};
use super::queue::{Budget, Queue};
use super::through::Turns;
use super::{Observer, WriteBehindOptions, WriteError};
use crate::clock::Clock;
use crate::journal::Journal;
use crate::mapping::{Durability, MappingId};
use crate::source::{Source, SourceError};

/// Share of the journal beyond which it does not wait for the cache.
const UNTOLD_PRESSURE: f64 = 0.5;

pub(super) struct Shared {
    pub(super) source: Arc<Source>,
    pub(super) options: WriteBehindOptions,
    pub(super) observer: Arc<dyn Observer>,
    /// By mapping; `None` for mappings that take no writes.
    pub(super) queues: Vec<Option<Queue>>,
    pub(super) budget: Budget,
    pub(super) clock: Arc<Clock>,
    pub(super) runtime: Handle,
    pub(super) pace: Pace,
    pub(super) journal: OnceLock<Journal<Staged>>,
    /// The instance whose journal it is, and the epoch in which it is ours.
    pub(super) claim: OnceLock<(String, i64)>,
    pub(super) fenced: OnceLock<String>,
    /// The last record of the journal whose writes are in the queues.
    pub(super) taken_in: AtomicU64,
    /// The version of the last write of such a record.
    pub(super) taken_in_version: AtomicU64,
    /// Units that were handed to the journal and are not in the queues yet.
    pub(super) in_flight: AtomicUsize,
    /// Keys that may be older in the cache than they should be.
    pub(super) doubts: Arc<AtomicUsize>,
    pub(super) closed: AtomicBool,
    /// Write-throughs under way.
    pub(super) throughs: TaskTracker,
    pub(super) turns: Turns,
    pub(super) solitude: Solitude,
    /// Nothing is trimmed: the cache is still to be told of what an earlier process applied.
    pub(super) kept: AtomicBool,
    /// Units that were tried as a whole.
    pub(super) trials: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        source: Arc<Source>,
        options: WriteBehindOptions,
        observer: Arc<dyn Observer>,
        runtime: &Handle,
    ) -> Self {
        let doubts = Arc::default();
        let queues = source.mappings().iter().map(|m| Queue::of(&source, &options, m.id, &doubts)).collect();
        let budget = Budget::new(options.max_rows, options.max_bytes);
        Self {
            source,
            options,
            observer,
            queues,
            budget,
            clock: Arc::default(),
            runtime: runtime.clone(),
            pace: Pace::default(),
            journal: OnceLock::new(),
            claim: OnceLock::new(),
            fenced: OnceLock::new(),
            taken_in: AtomicU64::new(0),
            taken_in_version: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            doubts,
            closed: AtomicBool::new(false),
            throughs: TaskTracker::new(),
            turns: Turns::default(),
            solitude: Solitude::default(),
            kept: AtomicBool::new(false),
            trials: AtomicU64::new(0),
        }
    }

    /// Queues writes that need no journal.
    pub(super) fn push(&self, arrivals: Vec<(&Queue, Arrival)>) -> Result<Vec<u64>, WriteError> {
        let sizes = || arrivals.iter().map(|(_, arrival)| arrival.size);
        let (mut rows, mut bytes) = (sizes().count(), sizes().sum());
        self.budget.take(rows, bytes)?;
        let mut versions = Vec::with_capacity(rows);
        let mut taken = Vec::new();
        for (queue, arrival) in arrivals {
            let size = arrival.size;
            let one = arrival.in_trial().then(|| arrival.key.clone());
            match queue.push(arrival, Stamp::Now(&self.clock)) {
                Ok(version) => {
                    taken.extend(one.map(|key| (queue.bound.mapping.id, key, version)));
                    versions.push(version);
                }
                Err(error) => {
                    self.budget.give_back(rows, bytes);
                    self.take_back(&taken);
                    return Err(error);
                }
            }
            (rows, bytes) = (rows - 1, bytes - size);
        }
        Ok(versions)
    }

    /// Whether there is anything in the database that the cache is still to be told.
    pub(super) fn is_untold(&self) -> bool {
        let untold = |queue: &Queue| queue.is_untold() || queue.untouched().is_some();
        self.kept.load(Ordering::Acquire) || self.queues.iter().flatten().any(untold)
    }

    pub(super) fn queue(&self, mapping: MappingId) -> Option<&Queue> {
        self.queues.get(usize::from(mapping))?.as_ref()
    }

    pub(super) fn is_journaled(&self, mapping: MappingId) -> bool {
        self.queue(mapping).is_some_and(|queue| queue.bound.mapping.durability == Durability::Journal)
    }

    pub(super) fn claim(&self) -> Option<(String, i64)> {
        self.claim.get().cloned()
    }

    /// Another process has taken over: nothing more is written from here.
    pub(super) fn fence(&self, error: &SourceError) {
        if self.fenced.set(error.to_string()).is_ok() {
            tracing::error!(%error, "writes are refused from now on");
            self.observer.poisoned(&error.to_string());
        }
    }

    pub(super) fn pressure(&self) -> f64 {
        self.journal.get().map_or(0.0, Journal::pressure).max(self.budget.fill())
    }

    /// Records up to `sequence`, whose last write has this version, are in the queues.
    pub(super) fn taken_in(&self, sequence: u64, version: u64) {
        self.taken_in.store(sequence, Ordering::Release);
        self.taken_in_version.store(version, Ordering::Release);
    }

    /// A unit has left the journal's inbox for the queues, or for good.
    pub(super) fn landed(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// Has the journal forget the conditional write with this version; nobody waits for that.
    pub(super) fn withdraw(&self, version: u64) {
        let Some(journal) = self.journal.get() else { return };
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        if let Err(refused) = journal.append(Staged::withdraw(self, version)) {
            self.landed();
            tracing::warn!(error = %refused.error, "the journal keeps a write that lost its race until it is trimmed");
        }
    }

    pub(super) fn oldest_sequence(&self, untold: bool) -> Option<u64> {
        self.queues.iter().flatten().filter_map(|queue| queue.oldest_sequence(untold)).min()
    }

    /// The journal may forget what no queue needs any more. Keys that the cache could not be told of keep their records,
    /// unless the journal would fill up for their sake.
    pub(super) fn trim(&self) {
        let Some(journal) = self.journal.get() else { return };
        let patient = journal.pressure() < UNTOLD_PRESSURE;
        if patient && self.kept.load(Ordering::Acquire) {
            return;
        }
        // In this order: what is taken in meanwhile has later sequences.
        let next = self.taken_in.load(Ordering::Acquire) + 1;
        let oldest = self.oldest_sequence(patient);
        journal.trim(oldest.map_or(next, |oldest| oldest.min(next)));
    }
}
