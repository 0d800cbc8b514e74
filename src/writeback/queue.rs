//! The waiting writes of one mapping, in order, and what readers see of them.
//!
//! Must not know: the database.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, watch};

use super::overlay::{Overlay, Pending};
use super::{Depth, Write, WriteError};
use crate::mapping::Bound;
use crate::source::Change;

/// Room for waiting rows, shared by all queues.
pub(super) struct Budget {
    rows: AtomicUsize,
    bytes: AtomicUsize,
    max_rows: usize,
    max_bytes: usize,
}

impl Budget {
    pub(super) fn new(max_rows: usize, max_bytes: usize) -> Self {
        Self { rows: AtomicUsize::new(0), bytes: AtomicUsize::new(0), max_rows, max_bytes }
    }

    /// Room for all of it, or none is taken.
    pub(super) fn take(&self, count: usize, size: usize) -> Result<(), WriteError> {
        let rows = self.rows.fetch_add(count, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(size, Ordering::Relaxed);
        if rows.saturating_add(count) <= self.max_rows && bytes.saturating_add(size) <= self.max_bytes {
            return Ok(());
        }
        self.give_back(count, size);
        Err(WriteError::Full { rows, bytes })
    }

    pub(super) fn give_back(&self, rows: usize, size: usize) {
        self.rows.fetch_sub(rows, Ordering::Relaxed);
        self.bytes.fetch_sub(size, Ordering::Relaxed);
    }
}

/// One waiting write.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Bytes,
    pub(super) change: Change,
    seq: u64,
    at: Instant,
    size: usize,
}

/// A write that is about to be queued.
pub(super) struct Arrival {
    key: Bytes,
    change: Change,
    /// What readers see until its commit; `None` for a deletion.
    value: Option<Bytes>,
    writer: u16,
    /// Approximate bytes.
    pub(super) size: usize,
}

impl Arrival {
    pub(super) fn new(key: Bytes, write: Write, writer: u16) -> Self {
        let (change, value) = match write {
            Write::Put { row, value } => (Change::Put(row), Some(value)),
            Write::Delete { ids } => (Change::Delete(ids), None),
        };
        let size = OVERHEAD + key.len() + change.size() + value.as_ref().map_or(0, Bytes::len);
        Self { key, change, value, writer, size }
    }
}

/// When the next batch is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    At(Instant),
    /// Nothing waits.
    Idle,
    /// Nothing waits and nothing will come.
    Never,
}

#[derive(Default)]
struct Inner {
    /// Oldest first. A batch stays here until it is settled, so a batcher that dies loses nothing.
    waiting: VecDeque<Arc<Entry>>,
    overlays: FxHashMap<Bytes, Overlay>,
    bytes: usize,
    last_seq: u64,
    /// Flush everything up to here without waiting for a trigger.
    flush_to: u64,
    /// Takes no more writes; flushes what waits.
    closed: bool,
}

pub(super) struct Queue {
    bound: Arc<Bound>,
    inner: Mutex<Inner>,
    wake: Notify,
    settled: watch::Sender<u64>,
}

/// Map entry, Arc and bookkeeping of one write, bytes (approximate).
const OVERHEAD: usize = 256;

impl Queue {
    pub(super) fn new(bound: Arc<Bound>) -> Self {
        Self { bound, inner: Mutex::default(), wake: Notify::new(), settled: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a write at the end, for which there is room in the budget.
    pub(super) fn push(&self, arrival: Arrival, batch_rows: usize) -> Result<(), WriteError> {
        let Arrival { key, change, value, writer, size } = arrival;
        let order = match &change {
            Change::Put(row) if self.bound.is_append() => row.order_key(&self.bound),
            _ => None,
        };
        let mut inner = self.lock();
        // Under the lock: after the batcher has seen an empty closed queue, nothing may follow.
        if inner.closed {
            return Err(WriteError::Closed);
        }
        inner.last_seq += 1;
        let seq = inner.last_seq;
        let overlay = inner.overlays.entry(key.clone()).or_default();
        overlay.written_by(writer);
        match value {
            Some(value) if self.bound.is_append() => overlay.append(seq, order, value),
            Some(value) => overlay.replace(seq, value),
            None => overlay.delete(seq),
        }
        inner.bytes += size;
        inner.waiting.push_back(Arc::new(Entry { key, change, seq, at: Instant::now(), size }));
        let waiting = inner.waiting.len();
        drop(inner);
        // The batcher needs to hear of the first row (to set its clock) and of a full batch; of others it need not.
        if waiting == 1 || waiting == batch_rows {
            self.wake.notify_one();
        }
        Ok(())
    }

    pub(super) fn pending(&self, key: &[u8]) -> Option<Pending> {
        self.lock().overlays.get(key).map(|overlay| overlay.pending(self.bound.is_append()))
    }

    /// When the next batch is due, given the triggers.
    pub(super) fn due(&self, batch_rows: usize, interval: Duration) -> Due {
        let inner = self.lock();
        match inner.waiting.front() {
            None if inner.closed => Due::Never,
            None => Due::Idle,
            Some(first)
                if inner.closed || first.seq <= inner.flush_to || inner.waiting.len() >= batch_rows =>
            {
                Due::Now
            }
            Some(first) if first.at.elapsed() >= interval => Due::Now,
            Some(first) => Due::At(first.at + interval),
        }
    }

    /// Has the cached entry of `key` dropped with its last waiting write; false when none waits.
    pub(super) fn doubt(&self, key: &[u8]) -> bool {
        let mut inner = self.lock();
        let overlay = inner.overlays.get_mut(key);
        overlay.map(Overlay::doubt).is_some()
    }

    /// The oldest writes. They stay queued until they are settled.
    pub(super) fn batch(&self, most: usize) -> Vec<Arc<Entry>> {
        self.lock().waiting.iter().take(most).cloned().collect()
    }

    /// The oldest `entries` are in the database, or were rejected. Answers the keys for which nothing waits any more and
    /// that had several writers.
    pub(super) fn settle(&self, entries: &[Arc<Entry>], budget: &Budget) -> Vec<Bytes> {
        let mut contended = Vec::new();
        let Some(last) = entries.last().map(|entry| entry.seq) else { return contended };
        let mut inner = self.lock();
        for entry in entries {
            inner.waiting.pop_front();
            inner.bytes -= entry.size;
            budget.give_back(1, entry.size);
            if inner.overlays.get_mut(&entry.key).is_some_and(|overlay| overlay.settle(last)) {
                let settled = inner.overlays.remove(&entry.key);
                contended.extend(settled.filter(Overlay::is_contended).map(|_| entry.key.clone()));
            }
        }
        drop(inner);
        self.settled.send_replace(last);
        contended
    }

    /// Asks for a flush of everything queued so far; the future ends when it is settled.
    pub(super) fn request_flush(&self) -> impl Future<Output = ()> {
        let mut inner = self.lock();
        let target = inner.last_seq;
        inner.flush_to = target;
        drop(inner);
        self.wake.notify_one();
        let mut settled = self.settled.subscribe();
        async move {
            let _ = settled.wait_for(|seq| *seq >= target).await;
        }
    }

    /// Takes no more writes; what waits is flushed at once.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Ends when there is a reason to look again.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn depth(&self, now: Instant) -> Depth {
        let inner = self.lock();
        let oldest = inner.waiting.front().map(|first| now.saturating_duration_since(first.at));
        Depth { rows: inner.waiting.len(), bytes: inner.bytes, oldest }
    }
}
