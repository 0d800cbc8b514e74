//! The journal's thread: numbers, writes, syncs, hands on.
//!
//! Must not know: what an item is, beyond that it can be encoded.
//!
//! Group commit: whatever came while the last sync ran is one batch, with one sync. The longer a sync takes, the more come
//! with the next one, so no timer is needed. This thread alone decides the order of items.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::error::JournalError;
use super::format::{self, FRAME, Kind, MOST_ENTRIES};
use super::segment::{Segment, Unmade};
use super::{Durable, Item, JournalOptions, Shared, Sink};
use crate::failpoint::{self, Safeguard};

/// Encoded frames are written in pieces of about this size, bytes.
const PIECE: usize = 4 << 20;
/// Time between two looks for room on a full disk.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A buffer that has grown beyond this, for a large record, is given back, bytes.
const KEEP: usize = 16 << 20;

/// An older segment, kept until it is trimmed.
pub(super) struct Old {
    pub path: PathBuf,
    /// Sequence after its last record.
    pub next: u64,
}

/// A segment that is not needed any more, but kept for a while.
struct Lingering {
    path: PathBuf,
    bytes: u64,
    since: Instant,
}

pub(super) struct Writer<I, S> {
    shared: Arc<Shared<I>>,
    sink: S,
    old: VecDeque<Old>,
    /// Before those of `old`.
    lingering: VecDeque<Lingering>,
    active: Option<Segment>,
    /// The sequence that the next entry gets.
    next: u64,
    /// The last sequence that was written.
    written: u64,
    /// Frames that are encoded and not written.
    buffer: Vec<u8>,
    /// Encoded items that no sync has covered yet.
    pending: Vec<Durable<I>>,
}

impl<I: Item, S: Sink<I>> Writer<I, S> {
    pub fn new(shared: Arc<Shared<I>>, sink: S, old: VecDeque<Old>, next: u64) -> Self {
        let (written, buffer, pending) = (next - 1, Vec::new(), Vec::new());
        Self { shared, sink, old, lingering: VecDeque::new(), active: None, next, written, buffer, pending }
    }

    /// The first segment, so that the directory tells the next sequence from the start.
    pub fn prepare(&mut self) -> Result<(), io::Error> {
        match Segment::create(&self.shared.directory, self.next, self.shared.options.segment_bytes, now()) {
            Ok(segment) => {
                self.old.retain(|old| old.path != segment.path); // an empty one of the same name was replaced
                self.active = Some(segment);
                Ok(())
            }
            Err(Unmade::NoSpace(error) | Unmade::Failed(error)) => Err(error),
        }
    }

    pub fn run(mut self) {
        // A panic in an item's encoder must not leave callers waiting for a thread that is gone.
        let _fallen = Fallen(self.shared.clone());
        let mut items = Vec::new();
        let mut trimmed = 0;
        loop {
            self.shared.inbox.look(self.shared.options.busy_poll);
            let turn =
                self.shared.inbox.take(&mut items, trimmed, self.active.is_none().then_some(LOOK_AGAIN));
            if turn.trim > trimmed {
                trimmed = turn.trim;
                self.trim(trimmed);
            }
            if !items.is_empty() {
                self.batch(&mut items);
            } else if self.active.is_none() && self.shared.poison().is_none() {
                // Nobody may be writing any more, because the proxy says that it cannot: it says so until there is room.
                let _ = self.begin(0);
            }
            if turn.closed && self.shared.inbox.is_empty() {
                break;
            }
        }
        self.close();
    }

    /// Writes and syncs `items`, and tells the sink of each of them.
    fn batch(&mut self, items: &mut Vec<I>) {
        let count = items.len();
        let mut waiting = std::mem::take(items).into_iter();
        let result = match self.shared.poison() {
            Some(reason) => Err(JournalError::Poisoned(reason)),
            None => self.append(&mut waiting),
        };
        if let Err(error) = result {
            let unwritten = self.pending.drain(..).map(|durable| durable.item);
            let failed: Vec<I> = unwritten.chain(waiting).collect();
            self.buffer.clear();
            tracing::error!(%error, writes = failed.len(), "the journal refuses writes");
            self.shared.options.metrics.failed.inc_by(failed.len() as u64);
            self.sink.failed(failed, &error);
            return;
        }
        self.shared.options.metrics.batch_records.observe(count as f64);
        self.mark();
    }

    fn append(&mut self, items: &mut impl Iterator<Item = I>) -> Result<(), JournalError> {
        for item in items {
            self.encode(item)?;
            if self.buffer.len() >= PIECE {
                self.write()?;
            }
        }
        self.write()?;
        self.sync()
    }

    /// Appends the frame of `item` to the buffer; a full segment is ended before it.
    fn encode(&mut self, mut item: I) -> Result<(), JournalError> {
        let start = format::begin(&mut self.buffer);
        let count = item.encode(self.next, &mut self.buffer).clamp(1, MOST_ENTRIES);
        let synced = self.shared.synced();
        format::finish(&mut self.buffer, start, Kind::Record(count), self.next, synced, now());
        let first = self.next;
        let fits = self.active.as_ref().is_some_and(|segment| segment.fits(self.buffer.len()));
        if !fits {
            let frame = self.buffer.split_off(start);
            if let Err(error) = self.roll(frame.len()) {
                self.pending.push(Durable { first, item }); // to be failed with the others
                return Err(error);
            }
            self.buffer = frame;
        }
        self.pending.push(Durable { first, item });
        self.next = first + u64::from(count);
        Ok(())
    }

    fn write(&mut self) -> Result<(), JournalError> {
        let Some(segment) = self.active.as_mut().filter(|_| !self.buffer.is_empty()) else { return Ok(()) };
        if let Err(error) = segment.write(&self.buffer) {
            return Err(self.poisoned("write", &error));
        }
        self.shared.options.metrics.bytes.inc_by(self.buffer.len() as u64);
        let entries = self.next - 1 - self.written;
        self.written = self.next - 1;
        self.shared.written(self.written, self.buffer.len() as u64, entries);
        self.buffer.clear();
        self.buffer.shrink_to(KEEP);
        failpoint::hit("journal.written");
        Ok(())
    }

    /// Makes what was written durable, and hands it on.
    fn sync(&mut self) -> Result<(), JournalError> {
        if failpoint::leaves_out(Safeguard::Sync) {
            self.hand_on();
            return Ok(());
        }
        let Some(segment) = &mut self.active else { return Ok(()) };
        let started = Instant::now();
        if let Err(error) = segment.sync() {
            return Err(self.poisoned("sync", &error));
        }
        self.shared.options.metrics.fsync.observe(started.elapsed().as_secs_f64());
        self.hand_on();
        Ok(())
    }

    fn hand_on(&mut self) {
        self.shared.set_synced(self.next - 1);
        failpoint::hit("journal.durable");
        if !self.pending.is_empty() {
            self.sink.durable(&mut self.pending);
            self.pending.clear();
        }
    }

    /// Ends the active segment, and begins the next one.
    fn roll(&mut self, bytes: usize) -> Result<(), JournalError> {
        self.write()?;
        if let Some(segment) = self.active.take() {
            let (path, next) = (segment.path.clone(), self.next);
            if let Err(error) = segment.seal(next, now()) {
                return Err(self.poisoned("close", &error));
            }
            self.old.push_back(Old { path, next });
            failpoint::hit("journal.sealed");
            self.hand_on();
        }
        self.begin(bytes)
    }

    /// Begins a segment with room for at least `bytes` at the sequence `next`.
    fn begin(&mut self, bytes: usize) -> Result<(), JournalError> {
        let capacity = self.shared.options.segment_bytes.max(bytes as u64);
        match Segment::create(&self.shared.directory, self.next, capacity, now()) {
            Ok(segment) => {
                self.active = Some(segment);
                self.count_segments();
                self.shared.set_no_space(None);
                Ok(())
            }
            // What is only kept for a while makes room.
            Err(Unmade::NoSpace(_)) if !self.lingering.is_empty() => {
                self.remove(usize::MAX);
                self.begin(bytes)
            }
            Err(Unmade::NoSpace(error)) => {
                let error: Arc<str> = error.to_string().into();
                self.shared.set_no_space(Some(error.clone()));
                Err(JournalError::NoSpace(error))
            }
            Err(Unmade::Failed(error)) => Err(self.poisoned("begin", &error)),
        }
    }

    /// Says that everything before is on the disk: a flipped bit in it is then seen as damage, not as a torn end. Needs no
    /// sync, and only when nothing else follows that says so.
    fn mark(&mut self) {
        if !self.shared.inbox.is_empty() {
            return;
        }
        let mark = format::bare(Kind::Mark, self.next, now());
        let Some(segment) = self.active.as_mut().filter(|segment| segment.fits(FRAME)) else { return };
        if let Err(error) = segment.write(&mark) {
            self.poisoned("write", &error);
        }
    }

    /// Segments that hold nothing from `below` on are not needed, and go when their time is over.
    fn trim(&mut self, below: u64) {
        self.shared.trimmed(below);
        let now = Instant::now();
        while let Some(Old { path, .. }) = self.old.pop_front_if(|old| old.next <= below) {
            let bytes = fs::metadata(&path).map_or(0, |file| file.len());
            self.lingering.push_back(Lingering { path, bytes, since: now });
        }
        let JournalOptions { linger, linger_bytes, .. } = self.shared.options;
        let mut left: u64 = self.lingering.iter().map(|segment| segment.bytes).sum();
        let over = self.lingering.iter().take_while(|segment| {
            left -= segment.bytes;
            left >= linger_bytes || now.duration_since(segment.since) >= linger
        });
        let over = over.count();
        self.remove(over);
    }

    /// Removes the first of the segments that are not needed.
    fn remove(&mut self, count: usize) {
        let over: Vec<Lingering> = self.lingering.drain(..count.min(self.lingering.len())).collect();
        for Lingering { path, .. } in &over {
            if let Err(error) = fs::remove_file(path) {
                // Harmless but for its space: a replay skips what was applied.
                tracing::warn!(%error, file = %path.display(), "cannot remove a segment of the journal");
            }
        }
        if !over.is_empty() {
            failpoint::hit("journal.trimmed");
            self.count_segments();
            if let Err(error) = self.shared.directory.sync() {
                tracing::warn!(%error, "cannot sync the journal's directory");
            }
        }
    }

    fn count_segments(&self) {
        self.shared.count_segments((self.lingering.len() + self.old.len()) as u64 + 1);
    }

    fn poisoned(&self, doing: &str, error: &io::Error) -> JournalError {
        let file = self.active.as_ref().map_or_else(|| self.shared.directory.path(), |s| s.path.as_path());
        let reason: Arc<str> = format!("cannot {doing} {}: {error}", file.display()).into();
        self.shared.set_poison(&reason);
        self.sink.poisoned(&reason);
        JournalError::Poisoned(reason)
    }

    fn close(&mut self) {
        let Some(segment) = self.active.take().filter(|_| self.shared.poison().is_none()) else { return };
        if let Err(error) = segment.seal(self.next, now()) {
            // The next start finds it as after a crash.
            tracing::warn!(%error, "cannot close the journal");
        }
    }
}

/// Poisons the journal when its thread ends by a panic.
struct Fallen<I>(Arc<Shared<I>>);

impl<I> Drop for Fallen<I> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set_poison(&"its thread ended by a bug".into());
        }
    }
}

/// Unix time in ms.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
