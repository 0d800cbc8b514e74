//! A write that waits, from its arrival to its commit.
//!
//! Must not know: lanes, the database.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use bytes::Bytes;

use super::overlay::{Overlay, Pending};
use super::{KeyWrite, Race, Write};
use crate::clock::Clock;
use crate::source::Change;

/// What one write takes beside its texts, bytes: its entry; its place in the line; its key's place in the overlays, a map that
/// is between half and almost full, and holds the old and the new places while it grows; the counts of who shares its texts.
const OVERHEAD: usize =
    size_of::<Entry>() + 16 + 2 * size_of::<usize>() + 2 * size_of::<(Bytes, Overlay)>() + 32;

/// It may be flushed.
pub(super) const READY: u8 = 0;
/// A conditional write whose race is not decided.
pub(super) const UNDECIDED: u8 = 1;
/// A conditional write that has lost: it is no write.
const WITHDRAWN: u8 = 2;
/// A conditional write of which nobody knows whether the cache took it: it is no write, and the cache is told so.
const UNKNOWN: u8 = 3;

/// One waiting write.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Bytes,
    /// CRC32C of the key.
    pub(super) sum: u32,
    pub(super) change: Change,
    /// What readers see until its commit; `None` for a deletion.
    pub(super) value: Option<Bytes>,
    pub(super) expires_at: Option<u64>,
    pub(super) version: u64,
    /// Its record in the journal; 0 when it is not journaled.
    pub(super) sequence: u64,
    pub(super) at: Instant,
    pub(super) size: usize,
    pub(super) state: AtomicU8,
}

impl Entry {
    /// Whether it is a write at all.
    pub(super) fn counts(&self) -> bool {
        self.state.load(Ordering::Acquire) == READY
    }

    /// Whether the cache may hold it though it is no write.
    pub(super) fn is_unknown(&self) -> bool {
        self.state.load(Ordering::Acquire) == UNKNOWN
    }

    /// Whether it is decided that it is a write, or none.
    pub(super) fn is_decided(&self) -> bool {
        self.state.load(Ordering::Acquire) != UNDECIDED
    }

    /// It is decided.
    pub(super) fn decide(&self, race: Race) {
        let state = match race {
            Race::Won => READY,
            Race::Lost => WITHDRAWN,
            Race::Unknown => UNKNOWN,
        };
        self.state.store(state, Ordering::Release);
    }

    /// Whether the cache is to be told what became of it.
    pub(super) fn concerns_cache(&self) -> bool {
        self.counts() || self.is_unknown()
    }
}

/// A write that is about to be queued.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) key: Bytes,
    /// CRC32C of the key.
    pub(super) sum: u32,
    pub(super) change: Change,
    /// What readers see until its commit; `None` for a deletion.
    pub(super) value: Option<Bytes>,
    /// The version it was computed from, when it counts only if that is the newest.
    pub(super) base: Option<u64>,
    /// The unit that is tried as a whole, if it belongs to one.
    pub(super) unit: Option<u64>,
    /// See [`KeyWrite::expires_at`].
    pub(super) expires_at: Option<u64>,
    /// Somebody brings it to the cache.
    pub(super) applies: bool,
    /// Approximate bytes.
    pub(super) size: usize,
}

impl Arrival {
    pub(super) fn new(write: KeyWrite) -> Self {
        let KeyWrite { key, write, base, expires_at, applies, .. } = write;
        let (change, value) = match write {
            Write::Put { row, value } => (Change::Put(row), Some(value)),
            Write::Delete { ids } => (Change::Delete(ids), None),
        };
        let size = OVERHEAD + key.len() + change.size() + value.as_ref().map_or(0, Bytes::len);
        let sum = crc32c::crc32c(&key);
        Self { key, sum, change, value, base, unit: None, expires_at, applies, size }
    }

    /// Whether it belongs to a unit that is tried as a whole.
    pub(super) fn in_trial(&self) -> bool {
        self.unit.is_some()
    }

    /// It belongs to this unit, which is tried as a whole.
    pub(super) fn of_unit(self, unit: Option<u64>) -> Self {
        Self { unit, ..self }
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
    /// Its record in the journal; 0 when it is not journaled.
    pub sequence: u64,
    /// What readers are shown until the cache is told; `None`: it is not known here what the database holds (it has refused
    /// the write, or an earlier process wrote on a condition).
    pub shown: Option<Pending>,
    /// When the cached entry expires, ms since 1970; `None`: as the mapping says.
    pub expires_at: Option<u64>,
    /// It was refused: the database has something else.
    pub rejected: bool,
    /// What the database holds, where that is known.
    pub held: Option<crate::source::Committed>,
}
