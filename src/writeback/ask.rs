//! What can be asked of the queues: whether a key waits, what is left to be flushed, what this process still needs.
//!
//! Must not know: Redis, clients.

use std::sync::atomic::Ordering;

use tokio::task::JoinSet;

use super::handle::WriteBehind;
use super::queue::Queue;
use super::record::LANES;
use super::{Committed, Pending};
use crate::mapping::MappingId;
use crate::slot;

impl WriteBehind {
    /// Whether anything may be known here that the database, or the cache, has not got: see [`WriteBehind::unflushed`].
    /// Costs the load of two atomics.
    #[inline]
    pub fn has_unflushed(&self) -> bool {
        self.shared.budget.is_used() || self.has_doubts()
    }

    /// What readers of `key` must see instead of anything that is older than this version. Also what the cache has been told of by
    /// now, for a while: a reader may have asked it before.
    pub fn unflushed(&self, mapping: MappingId, key: &[u8]) -> Option<(Pending, u64)> {
        let queue = self.shared.queue(mapping)?;
        if !queue.may_wait(key) && !self.has_doubts() {
            return None;
        }
        queue.unflushed(key).or_else(|| queue.retold(key))
    }

    /// These slots are about to have another owner, which may not know what the one before was told: until it is told again,
    /// readers of this process see what was committed.
    pub fn doubt_slots(&self, moved: &[u16]) {
        let mut is_moved = vec![false; usize::from(slot::SLOTS)];
        moved.iter().for_each(|slot| is_moved[usize::from(*slot)] = true);
        for (id, queue) in (0..).zip(&self.shared.queues) {
            let Some(queue) = queue else { continue };
            let most = self.shared.options.max_untold / LANES;
            let count = queue.doubt_slots(|slot| is_moved.get(usize::from(slot)) == Some(&true), most);
            if count > 0 {
                self.shared.observer.retold(id, count);
            }
        }
    }

    /// The cache is about to know these commits of an earlier process: see [`WriteBehind::doubt_slots`].
    pub fn keep_recent(&self, mapping: MappingId, told: &[Committed]) {
        if let Some(queue) = self.shared.queue(mapping) {
            queue.keep_recent(told, &self.shared.options);
        }
    }

    /// The same of one key, whose reader was sent to another node.
    #[cold]
    pub fn doubt_key(&self, mapping: MappingId, key: &[u8]) {
        if let Some(queue) = self.shared.queue(mapping)
            && queue.lane(key).doubt_recent(self.shared.options.max_untold / LANES, |it| it == key) > 0
        {
            self.shared.observer.retold(mapping, 1);
        }
    }

    /// Nothing below this version will be applied by this process any more, whatever is written from now on. `None` when
    /// that is not known: after a failure of the journal's disk.
    pub fn needed(&self) -> Option<u64> {
        let shared = &self.shared;
        // In this order: what is given a version from here on has a greater one than this.
        let now = shared.clock.take(1);
        if shared.journal.get().is_some_and(|journal| journal.stats().poisoned.is_some()) {
            return None;
        }
        // Versions rise in the order in which units are taken in: what is on its way to a queue is newer than the last.
        let ceiling = match shared.in_flight.load(Ordering::Acquire) {
            0 => now,
            _ => now.min(shared.taken_in_version.load(Ordering::Acquire)),
        };
        let oldest = shared.queues.iter().flatten().filter_map(Queue::oldest_version).min();
        Some(oldest.map_or(ceiling, |oldest| oldest.min(ceiling)))
    }

    /// Flushes what was queued before this call and waits until all of it is committed or rejected.
    pub async fn flush_now(&self) {
        let version = self.shared.clock.last();
        let mut waits = JoinSet::new();
        for id in 0..self.shared.queues.len() {
            let shared = self.shared.clone();
            waits.spawn(async move {
                if let Some(queue) = shared.queue(id as MappingId) {
                    queue.flush_to(version).await;
                }
            });
        }
        waits.join_all().await;
    }

    /// Flushes what was written before this call, of one mapping or of all, and waits until it is committed or rejected, or
    /// `until` completes. Answers how many writes are left.
    pub async fn flush(&self, mapping: Option<MappingId>, until: impl Future<Output = ()>) -> usize {
        let version = self.shared.clock.last();
        let queues = self.shared.queues.iter().enumerate();
        let is_meant = |(at, _): &(usize, _)| mapping.is_none_or(|mapping| usize::from(mapping) == *at);
        let meant: Vec<&Queue> = queues.filter(is_meant).filter_map(|(_, queue)| queue.as_ref()).collect();
        meant.iter().for_each(|queue| queue.hurry(version));
        let all = async {
            for queue in &meant {
                queue.flush_to(version).await;
            }
        };
        tokio::select! {
            () = all => {}
            () = until => {}
        }
        meant.iter().map(|queue| queue.left(version)).sum()
    }
}
