//! The waiting writes of one lane of a mapping, by version, with what readers see of them.
//!
//! Must not know: the other lanes, the database.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::entry::{Arrival, Committed, Entry, READY, Stamp, UNDECIDED};
use super::overlay::{Overlay, Pending, Shown};
use super::recent::Recent;
use super::{InCache, Race, Standing, WriteError};
use crate::mapping::Bound;
use crate::source::Change;

/// One lane, to be kept behind a lock.
#[derive(Default)]
pub(super) struct Lane {
    /// Oldest first. A batch stays here until it is settled, so a batcher that dies loses nothing.
    pub(super) waiting: VecDeque<Arc<Entry>>,
    /// So many of them, the oldest, are in the database, but the cache is not told yet.
    pub(super) applied: usize,
    pub(super) overlays: FxHashMap<Bytes, Overlay>,
    pub(super) bytes: usize,
    last_version: u64,
    /// Takes no more writes; flushes what waits.
    pub(super) closed: bool,
    /// Keys whose newest write is in the database, but the cache could not be told.
    pub(super) untold: FxHashMap<Bytes, Committed>,
    /// What the cache was told of at last, and when: who asked it before may still get the answer.
    pub(super) retold: FxHashMap<Bytes, (Instant, Committed)>,
    /// What the cache was told lately.
    pub(super) recent: Recent,
    /// Keys of all lanes of the process that may be older in the cache.
    doubts: Arc<AtomicUsize>,
}

impl Lane {
    pub(super) fn new(doubts: Arc<AtomicUsize>) -> Self {
        Self { doubts, ..Self::default() }
    }

    /// Puts a write at the end, for which there is room in the budget; its version.
    pub(super) fn push(
        &mut self,
        bound: &Bound,
        arrival: Arrival,
        stamp: Stamp<'_>,
    ) -> Result<u64, WriteError> {
        let Arrival { key, sum, change, value, base, unit, expires_at, applies, size } = arrival;
        let shown = match (&change, value.clone()) {
            (Change::Put(row), Some(value)) if bound.is_append() => Shown::Row(row.order_key(bound), value),
            (_, Some(value)) => Shown::Value(value),
            (_, None) => Shown::Nothing,
        };
        // Under the lock: after the batcher has seen an empty closed queue, nothing may follow but what is journaled.
        let (version, sequence) = match stamp {
            Stamp::Now(_) if self.closed => return Err(WriteError::Closed),
            Stamp::Now(clock) => (clock.take(1), 0),
            Stamp::Journaled { version, sequence } => (version, sequence),
        };
        debug_assert!(version > self.last_version, "versions of a lane rise");
        self.last_version = version;
        let overlay = self.overlays.entry(key.clone()).or_default();
        let state = match base {
            Some(base) if !overlay.propose(version, base, unit, shown.clone()) => {
                self.forget_if_over(&key);
                return Err(WriteError::Outrun);
            }
            Some(_) => UNDECIDED,
            None => {
                overlay.show(version, shown);
                READY
            }
        };
        if applies {
            overlay.begin_apply();
        }
        self.bytes += size;
        let (at, state) = (Instant::now(), AtomicU8::new(state));
        self.waiting.push_back(Arc::new(Entry {
            key,
            sum,
            change,
            value,
            expires_at,
            version,
            sequence,
            at,
            size,
            state,
        }));
        Ok(version)
    }

    /// The race of the conditional write of `key` with this version is decided.
    pub(super) fn decide(&mut self, key: &[u8], version: u64, race: Race) {
        if let Ok(at) = self.waiting.binary_search_by_key(&version, |entry| entry.version)
            && let Some(entry) = self.waiting.get(at)
        {
            entry.decide(race);
        }
        if let Some(overlay) = self.overlays.get_mut(key) {
            overlay.decide(version, race == Race::Won);
        }
        self.forget_if_over(key);
    }

    /// A write of `key` has reached the cache, or nobody knows.
    pub(super) fn resolve(&mut self, key: &[u8], outcome: InCache) {
        let Some(overlay) = self.overlays.get_mut(key) else { return };
        overlay.end_apply();
        if outcome == InCache::Unknown && overlay.waits() && overlay.doubt() {
            self.doubts.fetch_add(1, Ordering::AcqRel);
        }
        self.forget_if_over(key);
    }

    /// The cache could not be told of a commit: readers see what was committed until it is.
    pub(super) fn keep_untold(&mut self, committed: Committed, most: usize) {
        if self.untold.len() >= most {
            tracing::error!(
                "write_behind.max_untold is reached: the cache may keep an outdated entry that does not expire"
            );
            return;
        }
        if self.untold.insert(committed.key.clone(), committed).is_none() {
            self.doubts.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// What the cache was told lately of these keys it may not know any more; answers of how many commits that is.
    pub(super) fn doubt_recent(&mut self, most: usize, meant: impl Fn(&[u8]) -> bool) -> usize {
        let again = self.recent.of(meant);
        let count = again.len();
        for committed in again {
            if self.untold.get(&committed.key).is_none_or(|untold| untold.version < committed.version) {
                self.keep_untold(committed, most);
            }
        }
        count
    }

    /// The cache knows this commit. Where `most` have been told of so lately that answers from before are on their way, it
    /// stays among the untold, as what readers see, and is told again.
    pub(super) fn told(&mut self, committed: &Committed, most: usize) {
        let Some(untold) = self.untold.get_mut(&committed.key) else { return };
        if untold.version > committed.version {
            return;
        }
        if self.retold.len() >= most && !self.retold.contains_key(&committed.key) {
            *untold = committed.clone();
            return;
        }
        self.untold.remove(&committed.key);
        // The doubt stays for those whose answers are on their way.
        let retold = (Instant::now(), Committed { held: None, ..committed.clone() });
        if self.retold.insert(committed.key.clone(), retold).is_some() {
            self.doubts.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Some of the keys that the cache could not be told of, as many as it may be told of now.
    pub(super) fn to_retell(&self, count: usize, most: usize) -> impl Iterator<Item = Committed> {
        self.untold.values().take(count.min(most.saturating_sub(self.retold.len()))).cloned()
    }

    /// Nobody gets an answer any more that he has asked for this long ago.
    pub(super) fn forget_retold(&mut self, ago: Duration) {
        let before = self.retold.len();
        self.retold.retain(|_, (at, _)| at.elapsed() < ago);
        self.doubts.fetch_sub(before - self.retold.len(), Ordering::AcqRel);
    }

    /// What the cache was told of `key` at last, and its version: an answer that differs may be from before.
    pub(super) fn retold(&self, key: &[u8], append: bool) -> Option<(Pending, u64)> {
        let (_, retold) = self.retold.get(key).filter(|_| !append)?;
        Some((retold.shown.clone()?, retold.version))
    }

    /// What readers of `key` must see instead of what the cache holds.
    pub(super) fn pending(&self, key: &[u8], append: bool) -> Option<Pending> {
        if let Some(pending) = self.overlays.get(key).and_then(|overlay| overlay.pending(append)) {
            return Some(pending);
        }
        self.untold.get(key).filter(|_| !append)?.shown.clone()
    }

    /// The same with the version that it has.
    pub(super) fn unflushed(&self, key: &[u8], append: bool) -> Option<(Pending, u64)> {
        let untold = || self.untold.get(key).map_or(0, |untold| untold.version);
        let newest = self.overlays.get(key).map(Overlay::newest).filter(|newest| *newest > 0);
        Some((self.pending(key, append)?, newest.unwrap_or_else(untold)))
    }

    /// The versions of writes of `key` whose race is not decided, and whether they are of a unit.
    pub(super) fn undecided(&self, key: &[u8]) -> (Vec<u64>, bool) {
        self.overlays.get(key).map(Overlay::undecided).unwrap_or_default()
    }

    /// The newest write of `key` that this process has made, as long as it is known.
    pub(super) fn standing(&self, key: &[u8], append: bool) -> Option<Standing> {
        let value = |pending: Option<Pending>| match pending {
            Some(Pending::Value(value) | Pending::Newest(value, _)) => Some(Some(value)),
            Some(Pending::Deleted) => Some(None),
            Some(Pending::Fields(_)) | None => None,
        };
        if let Some(overlay) = self.overlays.get(key).filter(|overlay| overlay.newest() > 0) {
            let (version, applying) = (overlay.newest(), overlay.is_applying());
            return Some(Standing { version, applying, value: value(overlay.pending(append)) });
        }
        let untold = self.untold.get(key)?;
        Some(Standing { version: untold.version, applying: false, value: Some(value(untold.shown.clone())?) })
    }

    /// Whether the cache may hold something older than what is waiting or committed.
    pub(super) fn is_doubtful(&self, key: &[u8]) -> bool {
        self.untold.contains_key(key) || self.overlays.get(key).is_some_and(Overlay::is_doubtful)
    }

    fn forget_if_over(&mut self, key: &[u8]) {
        if self.overlays.get(key).is_some_and(Overlay::is_over)
            && self.overlays.remove(key).is_some_and(|overlay| overlay.is_doubtful())
        {
            self.doubts.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The oldest writes that may be flushed. They stay queued until they are settled.
    pub(super) fn batch(&self, most: usize) -> impl Iterator<Item = Arc<Entry>> {
        self.waiting.iter().skip(self.applied).take_while(|entry| entry.is_decided()).take(most).cloned()
    }

    /// Whether this write, the newest of its key, may not have reached the cache yet.
    pub(super) fn is_on_its_way(&self, entry: &Entry) -> bool {
        let overlay = self.overlays.get(&entry.key);
        !self.closed && overlay.is_some_and(|it| it.is_applying() && it.newest() <= entry.version)
    }

    /// What the cache is to be told once this write is in the database (or was rejected); nothing when a newer one waits.
    pub(super) fn to_tell(&self, entry: &Entry, rejected: bool) -> Option<Committed> {
        let newer = self.overlays.get(&entry.key).is_some_and(|overlay| overlay.newest() > entry.version);
        let rejected = rejected || entry.is_unknown();
        (entry.concerns_cache() && !newer).then(|| Committed {
            key: entry.key.clone(),
            version: entry.version,
            sequence: entry.sequence,
            shown: (!rejected).then(|| entry.value.clone().map_or(Pending::Deleted, Pending::Value)),
            expires_at: entry.expires_at,
            rejected,
            held: None,
        })
    }

    /// The oldest write is in the database, or was rejected.
    pub(super) fn settle(&mut self, entry: &Entry) {
        self.waiting.pop_front();
        self.applied = self.applied.saturating_sub(1);
        self.bytes -= entry.size;
        if let Some(overlay) = self.overlays.get_mut(&entry.key) {
            overlay.settle(entry.version);
        }
        self.forget_if_over(&entry.key);
    }
}
