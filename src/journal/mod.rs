//! The journal: an append-only log of records, on the disk before anybody is told of them.
//!
//! Must not know: mappings, keys, the database; what a record means.
//!
//! One thread (`writer.rs`) numbers records, writes and syncs them in batches, and hands them on in their order. Records are
//! kept in segments (`segment.rs`, `format.rs`) until they are trimmed. [`open`](Opened) finds what an earlier process left
//! (`reader.rs`): a write that was torn by a crash is the last one, and nobody was told of it; anything else that cannot be
//! read is damage, and is not passed over.

mod backlog;
mod directory;
mod error;
mod format;
mod inbox;
mod open;
mod reader;
mod report;
mod segment;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::metrics::JournalMetrics;
use backlog::Backlog;
use directory::Directory;
use inbox::{Inbox, NotTaken};

pub use error::{JournalError, OpenError};
pub use open::Opened;
pub use reader::{End, Record};
pub use report::{Summary, inspect, verify};

/// The largest record, bytes.
const MOST_BYTES: u64 = 1 << 30;

/// Limits of a journal.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Bytes of a segment, reserved when it is begun.
    pub segment_bytes: u64,
    /// Bytes that may wait to be trimmed. On the disk it is up to two segments more, and those that linger.
    pub max_bytes: u64,
    /// How long a segment stays when everything in it was trimmed.
    pub linger: Duration,
    /// Bytes of such segments that may stay, up to a segment more.
    pub linger_bytes: u64,
    /// How long a record may wait to be trimmed before no more are taken; `Duration::MAX`: for ever.
    pub max_age: Duration,
    /// Records that may wait for the disk.
    pub inbox_records: usize,
    /// Bytes that may wait for the disk.
    pub inbox_bytes: u64,
    /// How long its thread looks for further records before it sleeps.
    pub busy_poll: Duration,
    /// Counters.
    pub metrics: JournalMetrics,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            max_bytes: 1 << 30,
            linger: Duration::ZERO,
            linger_bytes: 0,
            max_age: Duration::MAX,
            inbox_records: 65_536,
            inbox_bytes: 64 << 20,
            busy_poll: Duration::ZERO,
            metrics: JournalMetrics::default(),
        }
    }
}

/// Something that becomes a record.
pub trait Item: Send + 'static {
    /// About how many bytes it will be encoded to, for the limits.
    fn size(&self) -> usize;

    /// Appends its payload to `out` (which holds other bytes, too), and answers how many entries it has (1 or more): they get
    /// the sequences `first`, `first + 1`, and so on. Called once, on the journal's thread, in the order of sequences: a
    /// version taken from a clock in here rises with the sequence.
    fn encode(&mut self, first: u64, out: &mut Vec<u8>) -> u32;
}

/// Who is told what became of the items. Called on the journal's thread, which waits meanwhile: it must not block.
pub trait Sink<I>: Send + 'static {
    /// These are on the disk, in their order. All of them are to be taken out.
    fn durable(&mut self, items: &mut Vec<Durable<I>>);

    /// These are not, and nobody may be told that they are. After [`JournalError::Poisoned`] they may turn up after a restart.
    fn failed(&mut self, items: Vec<I>, error: &JournalError);

    /// From here on everything is refused, for this reason.
    fn poisoned(&self, reason: &str);
}

/// An item that is on the disk.
#[derive(Debug)]
pub struct Durable<I> {
    /// Sequence of its first entry.
    pub first: u64,
    /// The item.
    pub item: I,
}

/// An item that was not taken; nothing has happened.
#[derive(Debug)]
pub struct Refused<I> {
    /// The item.
    pub item: I,
    /// Why.
    pub error: JournalError,
}

/// How a journal stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Entries that are written and not trimmed.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Age of the oldest; of one that an earlier process wrote, since this one was started.
    pub oldest: Option<Duration>,
    /// Records that wait for the disk.
    pub inbox: usize,
    /// Sequence of the last entry that is on the disk (0: none ever was).
    pub synced: u64,
    /// Segments on the disk.
    pub segments: u64,
    /// Why everything is refused, if it is.
    pub poisoned: Option<Arc<str>>,
    /// Why there is no room on the disk, as long as that is so.
    pub no_space: Option<Arc<str>>,
}

/// A running journal. Cheap to clone; `close` ends its thread.
pub struct Journal<I> {
    shared: Arc<Shared<I>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl<I> Clone for Journal<I> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), thread: self.thread.clone() }
    }
}

impl<I> std::fmt::Debug for Journal<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Journal").field(&self.shared.directory.path()).finish()
    }
}

/// What callers and the thread share.
struct Shared<I> {
    options: JournalOptions,
    directory: Directory,
    inbox: Inbox<I>,
    backlog: Mutex<Backlog>,
    synced: AtomicU64,
    segments: AtomicU64,
    poison: OnceLock<Arc<str>>,
    no_space: Mutex<Option<Arc<str>>>,
}

impl Journal<()> {
    /// Locks `directory` (made where it is missing) and checks everything in it.
    ///
    /// # Errors
    /// [`OpenError`]: another process has it, it cannot be read or written, it is damaged or of a newer version.
    pub fn open(directory: &Path, options: JournalOptions) -> Result<Opened, OpenError> {
        Opened::new(directory, options)
    }
}

impl<I: Item> Journal<I> {
    /// Has `item` written. Never blocks and may be called from any thread. The sink is told when it is durable.
    ///
    /// # Errors
    /// The item comes back, with the limit that is reached or the reason why nothing is taken any more.
    pub fn append(&self, item: I) -> Result<(), Refused<I>> {
        let bytes = item.size() as u64;
        let refused = match self
            .shared
            .inbox
            .put(item, bytes, |items, waiting| self.shared.check(bytes, items, waiting))
        {
            Ok(()) => return Ok(()),
            Err(NotTaken::Closed(item)) => Refused { item, error: JournalError::Closed },
            Err(NotTaken::Refused(item, error)) => Refused { item, error },
        };
        self.shared.options.metrics.refused.inc();
        Err(refused)
    }

    /// Entries with sequences below are not needed any more. Never blocks.
    pub fn trim(&self, below: u64) {
        self.shared.inbox.trim(below);
    }

    /// How it stands.
    pub fn stats(&self) -> JournalStats {
        let (inbox, _) = self.shared.inbox.depth();
        let backlog = self.shared.backlog();
        JournalStats {
            entries: backlog.entries,
            bytes: backlog.bytes,
            oldest: backlog.oldest().map(|since| since.elapsed()),
            inbox,
            synced: self.shared.synced(),
            segments: self.shared.segments.load(Ordering::Relaxed),
            poisoned: self.shared.poison(),
            no_space: self.shared.no_space.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Which part of its limits is used, from 0 to 1: what a caller slows down by.
    pub fn pressure(&self) -> f64 {
        let options = &self.shared.options;
        let backlog = self.shared.backlog();
        let bytes = backlog.bytes as f64 / options.max_bytes.max(1) as f64;
        let age = backlog.oldest().map_or(0.0, |since| {
            since.elapsed().as_secs_f64() / options.max_age.as_secs_f64().max(f64::MIN_POSITIVE)
        });
        bytes.max(age).min(1.0)
    }

    /// Takes no more, writes what was taken, and ends the thread; the directory can be
    /// opened again. Blocks until then.
    pub fn close(&self) {
        self.shared.inbox.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        if thread.join().is_err() {
            tracing::error!("the journal's thread ended by a bug");
        }
        self.shared.directory.release();
    }
}

impl<I> Shared<I> {
    /// Whether another item of `bytes` may join `waiting` bytes of `items`.
    fn check(&self, bytes: u64, items: usize, waiting: u64) -> Result<(), JournalError> {
        let options = &self.options;
        if let Some(reason) = self.poison() {
            return Err(JournalError::Poisoned(reason));
        }
        let limit = MOST_BYTES.min(options.max_bytes);
        if bytes > limit {
            return Err(JournalError::TooLarge { bytes, limit });
        }
        // An empty inbox takes any record: one that is larger than the bound must pass, too.
        if items >= options.inbox_records || (items > 0 && waiting + bytes > options.inbox_bytes) {
            return Err(JournalError::Busy { waiting: items });
        }
        let (kept, oldest) = {
            let backlog = self.backlog();
            (backlog.bytes, backlog.oldest())
        };
        if kept + waiting + bytes > options.max_bytes {
            return Err(JournalError::Full { bytes: kept + waiting, limit: options.max_bytes });
        }
        match oldest.map(|since| since.elapsed()) {
            Some(age) if age > options.max_age => Err(JournalError::TooOld { age, limit: options.max_age }),
            _ => Ok(()),
        }
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poison(&self) -> Option<Arc<str>> {
        self.poison.get().cloned()
    }

    fn set_poison(&self, reason: &Arc<str>) {
        if self.poison.set(reason.clone()).is_ok() {
            tracing::error!(%reason, "the journal is poisoned: writes are refused until the disk is mended and the proxy restarted");
        }
    }

    fn set_no_space(&self, reason: Option<Arc<str>>) {
        *self.no_space.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    fn set_synced(&self, last: u64) {
        self.synced.store(last, Ordering::Release);
    }

    fn count_segments(&self, segments: u64) {
        self.segments.store(segments, Ordering::Relaxed);
    }

    fn written(&self, last: u64, bytes: u64, entries: u64) {
        self.backlog().add(Instant::now(), last, bytes, entries);
    }

    fn trimmed(&self, below: u64) {
        self.backlog().trim(below);
    }
}
