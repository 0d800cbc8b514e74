//! Write-behind: takes writes at once and brings them to the database in batches.
//!
//! Must not know: Redis, clients, which command caused a write.
//!
//! A write gets its version and is queued in the lane of its key (`lane.rs`), where it stays visible through `pending` until
//! its commit: a reader never sees the older row meanwhile. The lanes of a mapping (`queue.rs`) are flushed by its batcher
//! (`batcher.rs`). What must survive a crash goes through the journal first (`log.rs`): how it stands there is in `record.rs`,
//! how it comes back in `replay.rs`.

mod alone;
mod ask;
mod batcher;
mod entry;
mod handle;
mod lane;
mod log;
mod overlay;
mod queue;
mod recent;
pub mod record;
mod replay;
mod shared;
mod state;
mod through;
mod unit;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use crate::mapping::{MappingId, Row};
use crate::sidecar::Token;
use crate::source::{SourceError, Touched};

pub use entry::Committed;
pub use handle::WriteBehind;
pub use log::{Done, Staged};
pub use overlay::Pending;
pub use recent::LATELY;
pub use replay::{RestoreError, Restored, Tried, Verdicts, Written, record_of, written};
pub use state::Condition;
pub use through::{Begun, ThroughEnd};
pub use unit::Settled;

/// Triggers and limits of write-behind.
#[derive(Debug, Clone)]
pub struct WriteBehindOptions {
    /// So many waiting rows of a mapping are flushed at once.
    pub batch_rows: usize,
    /// A row waits at most this long before it is flushed.
    pub batch_interval: Duration,
    /// Time between the beginnings of two batches of a mapping, unless the second one is as large as it may be.
    pub batch_pause: Duration,
    /// Largest batch; under a backlog batches grow to this size.
    pub max_batch_rows: usize,
    /// Rows that may wait, over all mappings.
    pub max_rows: usize,
    /// Bytes that may wait, over all mappings (approximate memory).
    pub max_bytes: usize,
    /// First wait after a failure that may pass.
    pub retry_first: Duration,
    /// Longest wait after a failure that may pass.
    pub retry_most: Duration,
    /// Share of any limit, from 0 to 1, above which acknowledgements are slowed down.
    pub high_water: f64,
    /// Keys that the cache could not be told of after their commit; beyond it the oldest are forgotten.
    pub max_untold: usize,
    /// Commits kept after the cache was told of them, to be told again after a failover.
    pub max_recent: usize,
    /// Bytes of these (approximate memory).
    pub max_recent_bytes: usize,
    /// Longest time that a read may wait for its node.
    pub longest_read: Duration,
    /// Longest time that a write-through may take in the database.
    pub through_timeout: Duration,
    /// What single mappings have of their own, by name.
    pub by_mapping: HashMap<String, MappingOptions>,
}

/// Settings of one mapping; what it does not have is as for all.
#[derive(Debug, Clone, Default)]
pub struct MappingOptions {
    /// So many waiting rows are flushed at once.
    pub batch_rows: Option<usize>,
    /// A row waits at most this long before it is flushed.
    pub batch_interval: Option<Duration>,
}

impl Default for WriteBehindOptions {
    fn default() -> Self {
        Self {
            batch_rows: 50,
            batch_interval: Duration::from_secs(2),
            batch_pause: Duration::from_millis(10),
            max_batch_rows: 1000,
            max_rows: 1_000_000,
            max_bytes: 512 << 20,
            retry_first: Duration::from_millis(50),
            retry_most: Duration::from_secs(5),
            high_water: 0.8,
            max_untold: 100_000,
            max_recent: 50_000,
            max_recent_bytes: 16 << 20,
            longest_read: Duration::from_secs(5),
            through_timeout: Duration::from_secs(10),
            by_mapping: HashMap::new(),
        }
    }
}

/// Why a write is not taken. Nothing has happened then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The limit of waiting rows or bytes is reached.
    #[error(
        "BUSY write-behind queue is full: {rows} rows ({bytes} bytes) wait for the database; try again later"
    )]
    Full {
        /// Rows waiting.
        rows: usize,
        /// Bytes waiting.
        bytes: usize,
    },
    /// The journal does not take it.
    #[error("BUSY {0}")]
    Journal(crate::journal::JournalError),
    /// Another process writes for this proxy's instance.
    #[error("BUSY {0}")]
    Fenced(String),
    /// The proxy shuts down.
    #[error("BUSY the proxy is shutting down and takes no more writes")]
    Closed,
    /// Another write of the key came before one that counts only if none did.
    #[error("ERR another write of this key came first")]
    Outrun,
    /// A write-through failed; the text says whether anything was written.
    #[error("{0}")]
    Through(String),
    /// The mapping takes no writes.
    #[error("ERR this mapping is read-only (write = \"none\")")]
    ReadOnly,
}

/// One write of a mapped key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Stores a row (upserted or appended, as the mapping says).
    Put {
        /// The checked row.
        row: Row,
        /// The value as readers see it until the row is in the database.
        value: Bytes,
    },
    /// Deletes the row.
    Delete {
        /// Id values of the key.
        ids: Box<[Box<str>]>,
    },
}

/// One write of a unit.
#[derive(Debug, Clone)]
pub struct KeyWrite {
    /// Mapping of the key.
    pub mapping: MappingId,
    /// The key.
    pub key: Bytes,
    /// What happens to it.
    pub write: Write,
    /// It counts only if no write newer than this version was queued; its outcome is said with [`WriteBehind::decide`].
    pub base: Option<u64>,
    /// When the cached entry expires, ms since 1970; `None`: as the mapping says. It does not before the write is in the
    /// database.
    pub expires_at: Option<u64>,
    /// The caller brings it to the cache, and says with [`WriteBehind::resolve`] what became of it there.
    pub applies: bool,
}

/// What became of a write in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InCache {
    /// The cache holds it, or a newer one.
    Stored,
    /// That is not known: the cache may hold something older.
    Unknown,
}

/// What became of a write that counts only if none came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Race {
    /// None did.
    Won,
    /// Another one did.
    Lost,
    /// The cache did not say.
    Unknown,
}

/// The newest write of a key that this process has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its version.
    pub version: u64,
    /// A write of the key is on its way to the cache.
    pub applying: bool,
    /// What readers see until the database has it, `Some(None)` for a deletion; `None`: the database has it.
    pub value: Option<Option<Bytes>>,
}

/// A boxed future.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Told about every flush. Called on the back runtime; must not block.
pub trait Observer: Send + Sync {
    /// A transaction with so many rows was committed.
    fn flushed(&self, _mapping: MappingId, _rows: usize, _took: Duration) {}
    /// A batch failed and will be tried again after `wait`.
    fn retrying(&self, _mapping: MappingId, _error: &SourceError, _wait: Duration) {}
    /// These writes are committed (or were rejected): the cache is to be told. Answers those it could not be told of.
    fn committed(&self, _mapping: MappingId, _keys: Vec<Committed>) -> BoxFuture<Vec<Committed>> {
        Box::pin(std::future::ready(Vec::new()))
    }
    /// A committed batch has touched rows that values of other mappings depend on: these are to be outdated. Answers
    /// whether they are; if not, it is asked again.
    fn touched(&self, _mapping: MappingId, _touched: Touched) -> BoxFuture<bool> {
        Box::pin(std::future::ready(true))
    }
    /// A write-through of these keys begins: the cache drops what it has, and marks them with their tokens for so long.
    fn through_begins(
        &self,
        _mapping: MappingId,
        keys: Vec<(Bytes, Token)>,
        _life: Duration,
    ) -> BoxFuture<Vec<Begun>> {
        let begun = Begun::Yes { version: 0, found: false, contested: false };
        Box::pin(std::future::ready(vec![begun; keys.len()]))
    }
    /// It has ended. Answers the keys of which the cache could not be told.
    fn through_ends(&self, _mapping: MappingId, _keys: Vec<ThroughEnd>) -> BoxFuture<Vec<ThroughEnd>> {
        Box::pin(std::future::ready(Vec::new()))
    }
    /// Slots have another owner, which may not know of so many commits: it is told again.
    fn retold(&self, _mapping: MappingId, _keys: usize) {}
    /// The journal takes nothing any more.
    fn poisoned(&self, _reason: &str) {}
    /// Later writes of these keys were applied, of which earlier ones are dead letters; each such letter is told of once.
    fn passed(&self, _mapping: MappingId, _keys: &[String]) {}
    /// So many writes wait behind dead letters, those of these keys as the first ones.
    fn held(&self, _mapping: MappingId, _writes: usize, _keys: &[String]) {}
    /// A row was refused by the database; it becomes a dead letter.
    fn rejected(&self, _mapping: MappingId, _key: &[u8], _error: &SourceError) {}
}

impl Observer for () {}

/// What waits in one mapping's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Rows, those being flushed included.
    pub rows: usize,
    /// Approximate bytes.
    pub bytes: usize,
    /// How long the oldest row has been waiting.
    pub oldest: Option<Duration>,
    /// Keys of which the cache could not be told that they are committed.
    pub untold: usize,
    /// Keys of which it was told at last, so lately that answers from before may be on their way.
    pub retold: usize,
}

impl Depth {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            bytes: self.bytes + other.bytes,
            oldest: self.oldest.max(other.oldest),
            untold: self.untold + other.untold,
            retold: self.retold + other.retold,
        }
    }
}
