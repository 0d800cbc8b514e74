//! The waiting writes of one mapping: its lanes, when the next batch is due, who waits for a flush.
//!
//! Must not know: the database.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::entry::{Arrival, Committed, Entry, Stamp};
use super::lane::Lane;
use super::overlay::Pending;
use super::record::{LANES, lane_of_sum};
use super::{Depth, InCache, Race, WriteBehindOptions, WriteError};
use crate::failpoint::{self, Safeguard};
use crate::mapping::{Bound, Format, MappingId, WriteMode, fields_of};
use crate::slot;
use crate::source::{Source, Touched};

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

    /// Takes room whether there is any or not: what was promised before has its place.
    pub(super) fn take_anyway(&self, count: usize, size: usize) {
        self.rows.fetch_add(count, Ordering::Relaxed);
        self.bytes.fetch_add(size, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, rows: usize, size: usize) {
        self.rows.fetch_sub(rows, Ordering::Relaxed);
        self.bytes.fetch_sub(size, Ordering::Relaxed);
    }

    /// Whether anything waits.
    #[inline]
    pub(super) fn is_used(&self) -> bool {
        self.rows.load(Ordering::Relaxed) > 0
    }

    /// The fuller of rows and bytes, from 0 to 1.
    pub(super) fn fill(&self) -> f64 {
        let share =
            |used: &AtomicUsize, most: usize| used.load(Ordering::Relaxed) as f64 / most.max(1) as f64;
        share(&self.rows, self.max_rows).max(share(&self.bytes, self.max_bytes))
    }
}

/// Counters by which it is known that no write of a key waits.
const MARKS: usize = 1 << 12;

/// Longest wait for writes that are on their way to the cache; a node that takes longer is one that hangs.
const ARRIVAL: Duration = Duration::from_secs(2);

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

pub(super) struct Queue {
    pub(super) bound: Arc<Bound>,
    lanes: [Mutex<Lane>; LANES],
    /// What has been touched while the values that depend on it could not be outdated, and the record of the journal that
    /// would tell of it after a crash.
    untouched: Mutex<Option<(Touched, u64)>>,
    rows: AtomicUsize,
    /// Why batches are tried again, as long as they are.
    pub(super) retrying: Mutex<Option<String>>,
    /// Waiting rows by a hash of their keys: what says without a lock that no write of a key waits.
    marks: Box<[AtomicU32]>,
    /// Flush everything up to this version without waiting for a trigger.
    flush_to: AtomicU64,
    wake: Notify,
    /// Tells the batcher that a write has reached the cache, if it waits for one.
    resolved: Notify,
    /// Changes whenever writes were settled.
    settled: watch::Sender<()>,
    /// Waiting rows that start a flush.
    pub(super) batch_rows: usize,
    /// Longest wait before a flush is started.
    pub(super) batch_interval: Duration,
}

impl Queue {
    /// The queue of a mapping that takes writes.
    pub(super) fn of(
        source: &Source,
        options: &WriteBehindOptions,
        mapping: MappingId,
        doubts: &Arc<AtomicUsize>,
    ) -> Option<Self> {
        let bound = source.bound(mapping).filter(|bound| bound.mapping.write == WriteMode::Behind)?;
        let own = options.by_mapping.get(&bound.mapping.name).cloned().unwrap_or_default();
        let rows = own.batch_rows.unwrap_or(options.batch_rows);
        Some(Self::new(bound.clone(), rows, own.batch_interval.unwrap_or(options.batch_interval), doubts))
    }

    fn new(
        bound: Arc<Bound>,
        batch_rows: usize,
        batch_interval: Duration,
        doubts: &Arc<AtomicUsize>,
    ) -> Self {
        Self {
            bound,
            lanes: std::array::from_fn(|_| Mutex::new(Lane::new(doubts.clone()))),
            untouched: Mutex::default(),
            rows: AtomicUsize::new(0),
            retrying: Mutex::default(),
            marks: (0..MARKS).map(|_| AtomicU32::new(0)).collect(),
            flush_to: AtomicU64::new(0),
            wake: Notify::new(),
            resolved: Notify::new(),
            settled: watch::Sender::new(()),
            batch_rows: batch_rows.max(1),
            batch_interval,
        }
    }

    /// The lane of `key`.
    pub(super) fn lane(&self, key: &[u8]) -> MutexGuard<'_, Lane> {
        self.lane_of_sum(crc32c::crc32c(key))
    }

    /// The same, by the key's CRC32C.
    fn lane_of_sum(&self, sum: u32) -> MutexGuard<'_, Lane> {
        // `lane_of_sum` answers below LANES, and that is how many there are.
        self.lanes[lane_of_sum(sum)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked(&self) -> impl Iterator<Item = MutexGuard<'_, Lane>> {
        self.lanes.iter().map(|lane| lane.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a write at the end of its lane, for which there is room in the budget; its version.
    pub(super) fn push(&self, arrival: Arrival, stamp: Stamp<'_>) -> Result<u64, WriteError> {
        let sum = arrival.sum;
        let mut lane = self.lane_of_sum(sum);
        let version = lane.push(&self.bound, arrival, stamp)?;
        self.mark(sum).fetch_add(1, Ordering::AcqRel);
        // Under the lock: the batcher may have it in the database, and counted off, the moment after.
        let waiting = self.rows.fetch_add(1, Ordering::AcqRel) + 1;
        drop(lane);
        // The batcher needs to hear of the first row (to set its clock) and of a full batch; of others it need not.
        if waiting == 1 || waiting == self.batch_rows {
            self.wake.notify_one();
        }
        Ok(version)
    }

    /// Of a key with this CRC32C.
    fn mark(&self, sum: u32) -> &AtomicU32 {
        // The remainder is below MARKS, and that is how many there are.
        &self.marks[sum as usize % MARKS]
    }

    /// False when no write of `key` waits; mostly only then.
    pub(super) fn may_wait(&self, key: &[u8]) -> bool {
        self.mark(crc32c::crc32c(key)).load(Ordering::Acquire) > 0
    }

    pub(super) fn pending(&self, key: &[u8]) -> Option<Pending> {
        self.unflushed(key).map(|(pending, _)| pending)
    }

    /// What waits for `key`, with its version.
    pub(super) fn unflushed(&self, key: &[u8]) -> Option<(Pending, u64)> {
        let unflushed = self.lane(key).unflushed(key, self.bound.is_append());
        let (pending, version) = unflushed.filter(|_| !failpoint::leaves_out(Safeguard::Overlay))?;
        Some((self.shown(pending), version))
    }

    /// The same of what the cache was told at last.
    pub(super) fn retold(&self, key: &[u8]) -> Option<(Pending, u64)> {
        let (pending, version) = self.lane(key).retold(key, self.bound.is_append())?;
        Some((self.shown(pending), version))
    }

    pub(super) fn forget_retold(&self, ago: Duration) {
        self.locked().for_each(|mut lane| lane.forget_retold(ago));
    }

    /// Hashes wait as documents.
    fn shown(&self, pending: Pending) -> Pending {
        match pending {
            Pending::Value(value) if self.bound.mapping.format == Format::Hash => {
                // It was made by `document_of`, so it can be read.
                Pending::Fields(fields_of(&value).unwrap_or_default())
            }
            pending => pending,
        }
    }

    /// When the next batch is due; one of fewer rows than `full` is not before `pause`, unless somebody waits for it.
    pub(super) fn due(&self, full: usize, pause: Instant) -> Due {
        let flush_to = self.flush_to.load(Ordering::Acquire);
        let (mut oldest, mut closed, mut hurry) = (None, true, false);
        let mut rows = 0;
        for lane in self.locked() {
            closed &= lane.closed;
            rows += lane.waiting.len() - lane.applied;
            // Behind an undecided write the lane waits until it is decided, which wakes the batcher.
            let Some(first) = lane.batch(1).next() else { continue };
            hurry |= first.version <= flush_to;
            oldest = Some(oldest.map_or(first.at, |oldest: Instant| oldest.min(first.at)));
        }
        match oldest {
            None if closed && rows == 0 => Due::Never,
            None => Due::Idle,
            Some(_) if closed || hurry || rows >= full => Due::Now,
            Some(_) if rows >= self.batch_rows && pause > Instant::now() => Due::At(pause),
            Some(at) if rows >= self.batch_rows || at.elapsed() >= self.batch_interval => Due::Now,
            Some(at) => Due::At(at + self.batch_interval),
        }
    }

    /// The race of a conditional write is decided.
    pub(super) fn decide(&self, key: &[u8], version: u64, race: Race) {
        self.lane(key).decide(key, version, race);
        self.wake.notify_one();
    }

    /// A write of `key` has reached the cache, or nobody knows.
    pub(super) fn resolve(&self, key: &[u8], outcome: InCache) {
        self.lane(key).resolve(key, outcome);
        self.resolved.notify_waiters();
    }

    /// Ends when what is to be said of these writes would not overtake one of them on its way to the cache: a client that
    /// reads between two of its writes must not see the second one.
    pub(super) async fn arrived(&self, entries: &[Arc<Entry>]) {
        let all = async {
            for entry in entries.iter().filter(|entry| entry.concerns_cache()) {
                loop {
                    let resolved = self.resolved.notified();
                    if !self.lane_of_sum(entry.sum).is_on_its_way(entry) {
                        break;
                    }
                    resolved.await;
                }
            }
        };
        let _ = timeout(ARRIVAL, all).await;
    }

    /// The next batches, which may be flushed at the same time: one of all lanes together while that is small enough,
    /// otherwise one per lane. The writes stay queued until they are settled.
    pub(super) fn batches(&self, most: usize) -> Vec<Vec<Arc<Entry>>> {
        let batches: Vec<Vec<_>> = self.locked().map(|lane| lane.batch(most).collect()).collect();
        if batches.iter().map(Vec::len).sum::<usize>() > most {
            return batches.into_iter().filter(|batch| !batch.is_empty()).collect();
        }
        let mut all: Vec<_> = batches.into_iter().flatten().collect();
        all.sort_unstable_by_key(|entry| entry.version);
        vec![all]
    }

    /// What the cache is to be told once `entries` are committed (or rejected), each key once.
    pub(super) fn to_tell(&self, entries: &[Arc<Entry>], rejected: bool) -> Vec<Committed> {
        let mut newest: FxHashMap<&[u8], &Entry> = FxHashMap::default();
        entries.iter().filter(|entry| entry.concerns_cache()).for_each(|entry| {
            newest.insert(&entry.key, entry);
        });
        newest
            .into_values()
            .filter_map(|entry| self.lane_of_sum(entry.sum).to_tell(entry, rejected))
            .collect()
    }

    /// The oldest `entries` of their lanes that are not in the database are now, or were rejected: no batch has them again.
    pub(super) fn applied(&self, entries: &[Arc<Entry>]) {
        entries.iter().for_each(|entry| self.lane_of_sum(entry.sum).applied += 1);
        self.rows.fetch_sub(entries.len(), Ordering::AcqRel);
    }

    /// The oldest `entries` of their lanes are in the database, or were rejected; the cache was told, but for `untold`.
    /// At most `most` of these are kept per lane.
    pub(super) fn settle(
        &self,
        entries: &[Arc<Entry>],
        told: &[Committed],
        untold: Vec<Committed>,
        most: usize,
        budget: &Budget,
    ) {
        // What is known of an older commit of the key does not count any more.
        told.iter().for_each(|committed| self.lane(&committed.key).told(committed, most));
        untold.into_iter().for_each(|committed| self.lane(&committed.key).keep_untold(committed, most));
        for entry in entries {
            self.lane_of_sum(entry.sum).settle(entry);
            self.mark(entry.sum).fetch_sub(1, Ordering::AcqRel);
            budget.give_back(1, entry.size);
        }
        self.settled.send_replace(());
    }

    /// The cache is about to know these commits: they are kept for a while, in case that it forgets them.
    pub(super) fn keep_recent(&self, told: &[Committed], options: &WriteBehindOptions) {
        if options.max_recent < LANES {
            return;
        }
        let (most, bytes) = (options.max_recent / LANES, options.max_recent_bytes / LANES);
        for committed in told {
            let committed = Committed { held: None, ..committed.clone() };
            self.lane(&committed.key).recent.keep(committed, most, bytes);
        }
    }

    /// These slots have another owner, which may not know what the one before was told.
    pub(super) fn doubt_slots(&self, moved: impl Fn(u16) -> bool, most: usize) -> usize {
        let doubt = |mut lane: MutexGuard<'_, Lane>| lane.doubt_recent(most, |key| moved(slot::slot(key)));
        self.locked().map(doubt).sum()
    }

    /// Some of the keys that the cache could not be told of. Of a lane at most `most` are told at a time.
    pub(super) fn untold(&self, count: usize, most: usize) -> Vec<Committed> {
        self.locked().flat_map(|lane| lane.to_retell(count, most).collect::<Vec<_>>()).collect()
    }

    pub(super) fn is_untold(&self) -> bool {
        self.locked().any(|lane| !lane.untold.is_empty())
    }

    /// Values that depend on these rows are still to be outdated; `oldest` is the first record of the journal that tells so.
    pub(super) fn keep_untouched(&self, touched: Touched, oldest: u64) {
        let mut kept = self.untouched.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, sequence) = kept.get_or_insert_with(|| (Touched::default(), u64::MAX));
        all.merge(touched);
        if oldest > 0 {
            *sequence = oldest.min(*sequence);
        }
    }

    /// What has been kept so.
    pub(super) fn untouched(&self) -> Option<Touched> {
        let kept = self.untouched.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().map(|(touched, _)| touched.clone())
    }

    /// It is done, unless more has come meanwhile.
    pub(super) fn forget_untouched(&self, done: &Touched) {
        let mut kept = self.untouched.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|(touched, _)| touched == done);
    }

    /// Everything up to `version` is flushed without waiting for a trigger.
    pub(super) fn hurry(&self, version: u64) {
        self.flush_to.fetch_max(version, Ordering::AcqRel);
        self.wake.notify_one();
    }

    /// Asks for a flush of everything up to `version`; the future ends when it is settled.
    pub(super) async fn flush_to(&self, version: u64) {
        let mut settled = self.settled.subscribe();
        self.hurry(version);
        while self.locked().any(|lane| lane.waiting.front().is_some_and(|first| first.version <= version)) {
            if settled.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waiting writes up to `version`.
    pub(super) fn left(&self, version: u64) -> usize {
        self.locked()
            .map(|lane| lane.waiting.iter().take_while(|entry| entry.version <= version).count())
            .sum()
    }

    /// Takes no more writes; what waits is flushed at once.
    pub(super) fn close(&self) {
        self.locked().for_each(|mut lane| lane.closed = true);
        self.resolved.notify_waiters();
        self.wake.notify_one();
    }

    /// Ends when there is a reason to look again.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn depth(&self, now: Instant) -> Depth {
        self.lane_depths(now).into_iter().fold(Depth::default(), Depth::and)
    }

    /// The same by lane.
    pub(super) fn lane_depths(&self, now: Instant) -> Vec<Depth> {
        let depths = self.locked().map(|lane| {
            let oldest = lane.waiting.front().map(|first| now.saturating_duration_since(first.at));
            let (untold, retold) = (lane.untold.len(), lane.retold.len());
            Depth { rows: lane.waiting.len(), bytes: lane.bytes, oldest, untold, retold }
        });
        depths.collect()
    }

    /// The oldest version that waits.
    pub(super) fn oldest_version(&self) -> Option<u64> {
        self.locked().filter_map(|lane| lane.waiting.front().map(|first| first.version)).min()
    }

    /// The oldest record of the journal that is still needed. `untold`: also by keys that the cache is to be told of.
    pub(super) fn oldest_sequence(&self, untold: bool) -> Option<u64> {
        let journaled = |sequence: &u64| *sequence > 0;
        let oldest = |lane: MutexGuard<'_, Lane>| {
            let waiting = lane.waiting.iter().map(|entry| entry.sequence).find(journaled);
            let kept = lane.untold.values().map(|committed| committed.sequence).filter(journaled);
            kept.filter(|_| untold).chain(waiting).min()
        };
        let kept = self.untouched.lock().unwrap_or_else(PoisonError::into_inner);
        let untouched = kept.as_ref().map(|(_, sequence)| *sequence).filter(|_| untold);
        self.locked().filter_map(oldest).chain(untouched).min()
    }
}
