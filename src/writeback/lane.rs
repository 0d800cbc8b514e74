//! The waiting writes of one lane of a mapping, by version, with what readers see of them.
//!
//! Must not know: the other lanes, the database.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::overlay::Overlay;
use super::{InCache, KeyWrite, Write, WriteError};
use crate::clock::Clock;
use crate::mapping::Bound;
use crate::source::Change;

/// Map entry, Arc and bookkeeping of one write, bytes (approximate).
const OVERHEAD: usize = 256;

/// It may be flushed.
const READY: u8 = 0;
/// A conditional write whose race is not decided.
const UNDECIDED: u8 = 1;
/// A conditional write that has lost: it is no write.
const WITHDRAWN: u8 = 2;

/// One waiting write.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Bytes,
    pub(super) change: Change,
    pub(super) version: u64,
    /// Its record in the journal; 0 when it is not journaled.
    pub(super) sequence: u64,
    pub(super) at: Instant,
    pub(super) size: usize,
    state: AtomicU8,
}

impl Entry {
    /// Whether it is a write at all.
    pub(super) fn counts(&self) -> bool {
        self.state.load(Ordering::Acquire) == READY
    }
}

/// A write that is about to be queued.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) key: Bytes,
    change: Change,
    /// What readers see until its commit; `None` for a deletion.
    value: Option<Bytes>,
    /// The version it was computed from, when it counts only if that is the newest.
    base: Option<u64>,
    /// Somebody brings it to the cache.
    applies: bool,
    writer: u16,
    /// Approximate bytes.
    pub(super) size: usize,
}

impl Arrival {
    pub(super) fn new(write: KeyWrite, writer: u16) -> Self {
        let KeyWrite { key, write, base, applies, .. } = write;
        let (change, value) = match write {
            Write::Put { row, value } => (Change::Put(row), Some(value)),
            Write::Delete { ids } => (Change::Delete(ids), None),
        };
        let size = OVERHEAD + key.len() + change.size() + value.as_ref().map_or(0, Bytes::len);
        Self { key, change, value, base, applies, writer, size }
    }
}

/// Where a write stands among others.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stamp<'c> {
    /// It gets its version as it is queued.
    Now(&'c Clock),
    /// It got its version with its record in the journal.
    Journaled {
        /// Its version.
        version: u64,
        /// Its record.
        sequence: u64,
    },
}

/// A key whose newest queued write is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The key.
    pub key: Bytes,
    /// Version of that write.
    pub version: u64,
    /// It deleted the row.
    pub deleted: bool,
    /// The cache may hold something else.
    pub doubtful: bool,
}

/// One lane, to be kept behind a lock.
#[derive(Default)]
pub(super) struct Lane {
    /// Oldest first. A batch stays here until it is settled, so a batcher that dies loses nothing.
    pub(super) waiting: VecDeque<Arc<Entry>>,
    pub(super) overlays: FxHashMap<Bytes, Overlay>,
    pub(super) bytes: usize,
    last_version: u64,
    /// Takes no more writes; flushes what waits.
    pub(super) closed: bool,
}

impl Lane {
    /// Puts a write at the end, for which there is room in the budget; its version.
    pub(super) fn push(
        &mut self,
        bound: &Bound,
        arrival: Arrival,
        stamp: Stamp<'_>,
    ) -> Result<u64, WriteError> {
        let Arrival { key, change, value, base, applies, writer, size } = arrival;
        let order = match &change {
            Change::Put(row) if bound.is_append() => row.order_key(bound),
            _ => None,
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
            Some(base) if !overlay.propose(version, base, value.clone()) => {
                if overlay.is_over() {
                    self.overlays.remove(&key);
                }
                return Err(WriteError::Outrun);
            }
            Some(_) => UNDECIDED,
            None => {
                overlay.written_by(writer);
                match value {
                    Some(value) if bound.is_append() => overlay.append(version, order, value),
                    Some(value) => overlay.replace(version, value),
                    None => overlay.delete(version),
                }
                READY
            }
        };
        if applies {
            overlay.begin_apply();
        }
        self.bytes += size;
        let (at, state) = (Instant::now(), AtomicU8::new(state));
        self.waiting.push_back(Arc::new(Entry { key, change, version, sequence, at, size, state }));
        Ok(version)
    }

    /// The race of the conditional write of `key` with this version is decided.
    pub(super) fn decide(&mut self, key: &[u8], version: u64, won: bool) {
        if let Ok(at) = self.waiting.binary_search_by_key(&version, |entry| entry.version)
            && let Some(entry) = self.waiting.get(at)
        {
            entry.state.store(if won { READY } else { WITHDRAWN }, Ordering::Release);
        }
        if let Some(overlay) = self.overlays.get_mut(key) {
            overlay.decide(version, won);
            if overlay.is_over() {
                self.overlays.remove(key);
            }
        }
    }

    /// A write of `key` has reached the cache, or nobody knows. The key, when nothing of it is left and the cache may hold
    /// something else than the database.
    pub(super) fn resolve(&mut self, key: &[u8], outcome: InCache) -> Option<Bytes> {
        let overlay = self.overlays.get_mut(key)?;
        overlay.end_apply();
        if outcome == InCache::Unknown {
            overlay.doubt();
        }
        let doubtful = overlay.is_doubtful();
        if !overlay.is_over() {
            return None;
        }
        self.overlays.remove_entry(key).filter(|_| doubtful).map(|(key, _)| key)
    }

    /// The oldest writes that may be flushed. They stay queued until they are settled.
    pub(super) fn batch(&self, most: usize) -> impl Iterator<Item = Arc<Entry>> {
        let decided = |entry: &&Arc<Entry>| entry.state.load(Ordering::Acquire) != UNDECIDED;
        self.waiting.iter().take_while(decided).take(most).cloned()
    }

    /// The oldest write is in the database, or was rejected. The key, when nothing of it waits any more.
    pub(super) fn settle(&mut self, entry: &Entry) -> Option<Committed> {
        self.waiting.pop_front();
        self.bytes -= entry.size;
        let overlay = self.overlays.get_mut(&entry.key)?;
        overlay.settle(entry.version);
        let committed = (!overlay.waits() && entry.counts()).then(|| Committed {
            key: entry.key.clone(),
            version: entry.version,
            deleted: matches!(entry.change, Change::Delete(_)),
            doubtful: overlay.is_doubtful(),
        });
        if overlay.is_over() {
            self.overlays.remove(&entry.key);
        }
        committed
    }
}
