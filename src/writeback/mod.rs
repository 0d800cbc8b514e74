//! Write-behind: takes writes at once and brings them to the database in batches.
//!
//! Must not know: Redis, clients, which command caused a write.
//!
//! A write is queued per mapping, in order, and stays visible through `pending` until its commit: a reader never sees
//! the older row meanwhile. The queue is memory only; a journal will stand before `Queue::push` and acknowledge there.

mod batcher;
mod overlay;
mod queue;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::mapping::{MappingId, Row, WriteMode};
use crate::source::{Source, SourceError};
use queue::{Arrival, Budget, Queue};

pub use overlay::Pending;

/// Triggers and limits of write-behind.
#[derive(Debug, Clone)]
pub struct WriteBehindOptions {
    /// So many waiting rows of a mapping are flushed at once.
    pub batch_rows: usize,
    /// A row waits at most this long before it is flushed.
    pub batch_interval: Duration,
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
}

impl Default for WriteBehindOptions {
    fn default() -> Self {
        Self {
            batch_rows: 50,
            batch_interval: Duration::from_secs(2),
            max_batch_rows: 1000,
            max_rows: 1_000_000,
            max_bytes: 512 << 20,
            retry_first: Duration::from_millis(50),
            retry_most: Duration::from_secs(5),
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
    /// The proxy shuts down.
    #[error("BUSY the proxy is shutting down and takes no more writes")]
    Closed,
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

/// Told about every flush. Called on the back runtime; must not block.
pub trait Observer: Send + Sync {
    /// A transaction with so many rows was committed.
    fn flushed(&self, _mapping: MappingId, _rows: usize, _took: Duration) {}
    /// A batch failed and will be tried again after `wait`.
    fn retrying(&self, _mapping: MappingId, _error: &SourceError, _wait: Duration) {}
    /// Nothing of these keys waits any more, and the cache may hold another value than the database: several writers wrote
    /// them at about the same time, or the cluster did not take a write.
    fn contended(&self, _mapping: MappingId, _keys: Vec<Bytes>) {}
    /// A row was refused by the database and dropped; what the cache holds for `key` is not true.
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
}

/// The write-behind queues. Cheap to clone.
#[derive(Clone)]
pub struct WriteBehind {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Who writes through this handle.
    writer: u16,
}

struct Shared {
    source: Arc<Source>,
    options: WriteBehindOptions,
    observer: Arc<dyn Observer>,
    /// By mapping; `None` for mappings that take no writes.
    queues: Vec<Option<Queue>>,
    budget: Budget,
}

impl WriteBehind {
    /// Starts one batcher per writable mapping on `runtime`. End them with `shutdown`.
    pub fn start(
        source: Arc<Source>,
        options: WriteBehindOptions,
        observer: Arc<dyn Observer>,
        runtime: &Handle,
    ) -> Self {
        let writable = |id| source.bound(id).filter(|b| b.mapping.write == WriteMode::Behind).cloned();
        let queues = source.mappings().iter().map(|m| writable(m.id).map(Queue::new)).collect();
        let budget = Budget::new(options.max_rows, options.max_bytes);
        let shared = Arc::new(Shared { source, options, observer, queues, budget });
        let ids = (0..shared.queues.len()).filter(|at| shared.queues[*at].is_some());
        let tasks = ids.map(|id| runtime.spawn(batcher::run(shared.clone(), id as MappingId))).collect();
        Self { shared, tasks: Arc::new(Mutex::new(tasks)), writer: u16::MAX }
    }

    /// A handle for one of several writers, each of which changes the cache in the order of its own writes.
    pub fn for_writer(&self, writer: u16) -> Self {
        Self { writer, ..self.clone() }
    }

    /// Queues a write. Never blocks and may be called from any thread; when it returns Ok, `pending` shows the write.
    ///
    /// Writes of one key reach the database in the order of these calls.
    pub fn enqueue(&self, mapping: MappingId, key: Bytes, write: Write) -> Result<(), WriteError> {
        let queue = self.shared.queue(mapping).ok_or(WriteError::ReadOnly)?;
        self.shared.push([(queue, Arrival::new(key, write, self.writer))])
    }

    /// Queues the writes of one command in their order: all of them, or none when one is refused.
    pub fn enqueue_all(
        &self,
        writes: impl IntoIterator<Item = (MappingId, Bytes, Write)>,
    ) -> Result<(), WriteError> {
        let arrival = |(mapping, key, write)| {
            let queue = self.shared.queue(mapping).ok_or(WriteError::ReadOnly)?;
            Ok((queue, Arrival::new(key, write, self.writer)))
        };
        self.shared.push(writes.into_iter().map(arrival).collect::<Result<Vec<_>, WriteError>>()?)
    }

    /// Whether the cache took a write of `key` is not known: its entry goes once nothing of the key waits.
    pub fn doubt(&self, mapping: MappingId, key: &[u8]) {
        if let Some(queue) = self.shared.queue(mapping)
            && !queue.doubt(key)
        {
            self.shared.observer.contended(mapping, vec![Bytes::copy_from_slice(key)]);
        }
    }

    /// What readers of `key` must see while a write of it waits; `None` when nothing does.
    pub fn pending(&self, mapping: MappingId, key: &[u8]) -> Option<Pending> {
        self.shared.queue(mapping)?.pending(key)
    }

    /// Flushes what was queued before this call and waits until all of it is committed or rejected.
    pub async fn flush_now(&self) {
        let waits: Vec<_> = self.shared.queues.iter().flatten().map(Queue::request_flush).collect();
        for wait in waits {
            wait.await;
        }
    }

    /// What waits in one mapping's queue.
    pub fn depth(&self, mapping: MappingId) -> Depth {
        self.shared.queue(mapping).map(|queue| queue.depth(Instant::now())).unwrap_or_default()
    }

    /// Takes no more writes, flushes what waits, and stops. Answers what could not be written within `deadline`, which
    /// is lost when the process ends.
    pub async fn shutdown(&self, deadline: Duration) -> Depth {
        self.shared.queues.iter().flatten().for_each(Queue::close);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let until = tokio::time::Instant::now() + deadline;
        for mut task in tasks {
            if tokio::time::timeout_at(until, &mut task).await.is_err() {
                task.abort();
                let _ = task.await;
            }
        }
        let depths = self.shared.queues.iter().flatten().map(|queue| queue.depth(Instant::now()));
        depths.fold(Depth::default(), |sum, d| Depth {
            rows: sum.rows + d.rows,
            bytes: sum.bytes + d.bytes,
            oldest: sum.oldest.max(d.oldest),
        })
    }
}

impl Shared {
    fn push<'s>(
        &'s self,
        arrivals: impl IntoIterator<Item = (&'s Queue, Arrival)> + AsRef<[(&'s Queue, Arrival)]>,
    ) -> Result<(), WriteError> {
        let sizes = || arrivals.as_ref().iter().map(|(_, arrival)| arrival.size);
        let (mut rows, mut bytes) = (sizes().count(), sizes().sum());
        self.budget.take(rows, bytes)?;
        for (queue, arrival) in arrivals {
            let size = arrival.size;
            if let Err(closed) = queue.push(arrival, self.options.batch_rows) {
                self.budget.give_back(rows, bytes);
                return Err(closed);
            }
            (rows, bytes) = (rows - 1, bytes - size);
        }
        Ok(())
    }

    fn queue(&self, mapping: MappingId) -> Option<&Queue> {
        self.queues.get(usize::from(mapping))?.as_ref()
    }
}
