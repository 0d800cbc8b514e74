//! How writing goes, by mapping: what waits, and whether more is taken.
//!
//! Must not know: Redis, clients, who asks.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::handle::WriteBehind;
use super::queue::Queue;
use super::{Depth, WriteError};
use crate::journal::{Journal, JournalError};
use crate::mapping::{Durability, MappingId};
use crate::source::Touched;

/// How writes of a mapping are taken. What is further down is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Condition {
    /// At once.
    #[default]
    Healthy,
    /// Acknowledgements are slowed down, above `journal.high_water`.
    Slow,
    /// Not, until something passes.
    Refusing,
    /// Not, until the journal's disk is mended and the proxy restarted.
    Poisoned,
}

impl Condition {
    /// All of them, the best first.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Slow, Self::Refusing, Self::Poisoned];

    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Slow => "slow",
            Self::Refusing => "refusing",
            Self::Poisoned => "poisoned",
        }
    }
}

impl WriteBehind {
    /// What waits in each lane of a mapping's queue; none for a mapping that takes no writes.
    pub fn lane_depths(&self, mapping: MappingId) -> Vec<Depth> {
        self.shared.queue(mapping).map(|queue| queue.lane_depths(Instant::now())).unwrap_or_default()
    }

    /// How writes of a mapping are taken, and why, where that is not at once.
    pub fn condition(&self, mapping: MappingId) -> (Condition, Option<String>) {
        let shared = &self.shared;
        let Some(queue) = shared.queue(mapping) else { return (Condition::Healthy, None) };
        if shared.is_closed() {
            return (Condition::Refusing, Some(WriteError::Closed.to_string()));
        }
        if let Some(reason) = self.fenced() {
            return (Condition::Refusing, Some(reason.to_owned()));
        }
        let journaled = queue.bound.mapping.durability == Durability::Journal;
        let journal = shared.journal.get().filter(|_| journaled);
        let stats = journal.map(Journal::stats).unwrap_or_default();
        if let Some(reason) = stats.poisoned {
            return (Condition::Poisoned, Some(JournalError::Poisoned(reason).to_string()));
        }
        if let Some(reason) = stats.no_space {
            return (Condition::Refusing, Some(JournalError::NoSpace(reason).to_string()));
        }
        let used = [
            (journal.map_or(0.0, Journal::pressure), "the journal (journal.max_bytes or journal.max_age)"),
            (shared.budget.fill(), "the queue (write_behind.queue_rows or write_behind.queue_bytes)"),
        ];
        let (share, what) = if used[0].0 >= used[1].0 { used[0] } else { used[1] };
        let reason = || Some(format!("{what} is {:.0} % full", share * 100.0));
        match share {
            share if share >= 1.0 => (Condition::Refusing, reason()),
            share if share >= shared.options.high_water && journaled => (Condition::Slow, reason()),
            _ => (Condition::Healthy, None),
        }
    }

    /// Rows that were changed through `mapping` by somebody else, of which the cache could not be told: it is, once it can.
    pub fn keep_touched(&self, mapping: MappingId, touched: Touched) {
        if let Some(queue) = self.shared.queue(mapping) {
            queue.keep_untouched(touched, 0);
        }
    }

    /// Why the batches of a mapping are being tried again, as long as they are.
    pub fn retrying(&self, mapping: MappingId) -> Option<String> {
        self.shared.queue(mapping)?.retrying()
    }
}

impl super::shared::Shared {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Queue {
    /// The last batch failed for this reason; `None`: it was committed.
    pub(super) fn note_retry(&self, reason: Option<String>) {
        *self.retrying.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn retrying(&self) -> Option<String> {
        self.retrying.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
