//! Read-through: answers misses of mapped keys from the database and fills the cache.
//!
//! Must not know: clients, the cluster (filling goes through `Store`), SQL.
//!
//! One flight per key and process, one lease per key over all processes (`board.rs`), one query per mapping for all flights
//! that wait together (`loader.rs`). A key with a write on its way to the database is answered from that write. A write or
//! an invalidation that happens during a load cancels the lease, and so keeps the loaded row out of the cache (`land.rs`):
//! the readers that asked before it get their answer, the cache does not.

mod board;
mod flight;
mod fresh;
mod generation;
mod invalidate;
mod land;
mod landed;
mod loader;
mod recheck;
mod refresh;
mod replay;
mod store;
mod ticket;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::Served;
use crate::mapping::MappingId;
use crate::metrics::LeaseEvent;
use crate::sidecar::{Fault, Value, Version};
use crate::source::{Source, SourceError};
use crate::writeback::WriteBehind;
use flight::{Flights, Lease};
use fresh::Fresh;
pub use invalidate::Invalidation;
pub use replay::{Outcome, Released, Replayed};
pub use store::Store;
use ticket::{Tickets, Waiting};

/// The answer for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// Its value.
    Value(Bytes),
    /// Its fields and their values, of a `hash` mapping; never empty.
    Hash(Vec<(Bytes, Bytes)>),
    /// There is no row.
    Absent,
    /// It is not known whether there is one; an error text with its code (`ERR ...`).
    Failed(String),
}

/// The answer for one key, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What there is to say.
    pub loaded: Loaded,
    /// Where that was found.
    pub served: Served,
}

impl Answer {
    /// It is not known what there is; `text` begins with an error's code.
    pub fn failed(text: impl Into<String>) -> Self {
        Self { loaded: Loaded::Failed(text.into()), served: Served::Miss }
    }
}

impl From<Value> for Loaded {
    fn from(value: Value) -> Self {
        match value {
            Value::Text(text) => Self::Value(text),
            Value::Hash(fields) => Self::Hash(fields),
        }
    }
}

impl Loaded {
    /// The answer of which it is known where it was found.
    pub fn served(self, served: Served) -> Answer {
        Answer { loaded: self, served }
    }
}

/// What the answer to a miss waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The rows are known. The cache is filled in the background.
    Known,
    /// The cache has been filled, or refused: whoever asks a node again finds the values there.
    Stored,
}

/// Keys that a client asked for and the cache did not have.
pub struct Miss {
    /// The keys, each with the mapping that `MappingSet::find` gave for it.
    pub keys: Vec<(MappingId, Bytes)>,
    /// When the cache was asked for them.
    pub asked: Instant,
    /// What the answer waits for.
    pub until: Until,
    /// Called once, with an answer per key in their order: at the latest after the timeout, from any thread, possibly
    /// before `load` returns. Must not block.
    pub reply: Box<dyn FnOnce(Vec<Answer>) + Send>,
}

/// A boxed future.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Told about loads. May be called from any thread; must not block.
pub trait Observer: Send + Sync {
    /// So many keys were asked for.
    fn requested(&self, _mapping: MappingId, _keys: usize) {}
    /// So many keys were answered by a write that waits for the database.
    fn pending(&self, _mapping: MappingId, _keys: usize) {}
    /// One query for so many keys has ended.
    fn queried(&self, _mapping: MappingId, _keys: usize, _took: Duration, _error: Option<&SourceError>) {}
    /// Of the loaded rows so many were stored, and so many not (a newer value was there, or a write came in between).
    fn filled(&self, _mapping: MappingId, _stored: usize, _refused: usize) {}
    /// What became of the right to load a key.
    fn lease(&self, _mapping: MappingId, _event: LeaseEvent) {}
    /// A reply of the cluster named this version of a write.
    fn version(&self, _version: Version) {}
    /// The cluster did not run a script.
    fn fault(&self, _fault: &Fault) {}
}

impl Observer for () {}

/// Limits of read-through.
#[derive(Debug, Clone)]
pub struct ReadThroughOptions {
    /// Keys per query. The keys of one `Miss` are never split, so a larger `Miss` makes a larger query.
    pub max_batch: usize,
    /// Queries under way per mapping. A second one starts only when a full batch waits.
    pub concurrency: usize,
    /// Longest time until a `Miss` is answered.
    pub timeout: Duration,
    /// Longest time a reply waits for the cache to be filled, where it does.
    pub fill_timeout: Duration,
    /// Longest time the cluster may take to grant leases; after it rows are loaded without, and not stored.
    pub cache_timeout: Duration,
    /// Life of a lease, where the mapping does not say: longer than a query may take.
    pub lease: Duration,
    /// Keys that may wait for an answer, over all mappings.
    pub max_waiting: usize,
    /// TTLs vary by this share in both directions (0.1 = +-10 %).
    pub ttl_jitter: f64,
}

impl Default for ReadThroughOptions {
    fn default() -> Self {
        Self {
            max_batch: 1000,
            concurrency: 4,
            timeout: Duration::from_secs(2),
            fill_timeout: Duration::from_millis(200),
            cache_timeout: Duration::from_millis(500),
            lease: Duration::from_secs(3),
            max_waiting: 100_000,
            ttl_jitter: 0.1,
        }
    }
}

/// Read-through for all mappings of a source. Cheap to clone.
#[derive(Clone)]
pub struct ReadThrough {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<Source>,
    writes: Option<WriteBehind>,
    store: Arc<dyn Store>,
    observer: Arc<dyn Observer>,
    options: ReadThroughOptions,
    flights: Vec<Flights>,
    /// By mapping: the ages of entries, where they matter.
    fresh: Vec<Fresh>,
    /// Places for loads of entries that are refreshed.
    refreshes: Semaphore,
    waiting: Arc<Waiting>,
    tickets: Arc<Tickets>,
    runtime: Handle,
    tasks: TaskTracker,
    /// Fills: awaited at the end, so that no lease is left behind.
    fills: TaskTracker,
    stop: CancellationToken,
}

impl Shared {
    /// Keys per query.
    fn max_batch(&self, mapping: MappingId) -> usize {
        let settings = self.source.mappings().get(mapping);
        settings.and_then(|mapping| mapping.fill.max_batch).unwrap_or(self.options.max_batch)
    }
}

impl ReadThrough {
    /// Loads run on `runtime`. End with `shutdown`.
    pub fn start(
        source: Arc<Source>,
        writes: Option<WriteBehind>,
        store: Arc<dyn Store>,
        observer: Arc<dyn Observer>,
        options: ReadThroughOptions,
        runtime: &Handle,
    ) -> Self {
        let flights = source.mappings().iter().map(|_| Flights::default()).collect();
        let fresh = source.mappings().iter().map(|_| Fresh::default()).collect();
        let tickets = Arc::new(Tickets::new(options.timeout));
        let shared = Shared {
            source,
            writes,
            store,
            observer,
            flights,
            fresh,
            refreshes: Semaphore::new(options.concurrency),
            waiting: Arc::new(Waiting::new(options.max_waiting)),
            tickets: tickets.clone(),
            options,
            runtime: runtime.clone(),
            tasks: TaskTracker::new(),
            fills: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let stop = shared.stop.clone();
        shared.tasks.spawn_on(async move { stop.run_until_cancelled(tickets.expire()).await }, runtime);
        Self { shared: Arc::new(shared) }
    }

    /// Answers a miss. Never blocks and may be called from any thread.
    pub fn load(&self, miss: Miss) {
        self.load_with(miss, Lease::Wanted);
    }

    /// Has these keys loaded and stored, where they are not. The error says why the first one could not be loaded.
    pub async fn warm(&self, keys: Vec<(MappingId, Bytes)>) -> Result<(), String> {
        if keys.is_empty() {
            return Ok(());
        }
        let (send, answers) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |answers: Vec<Answer>| drop(send.send(answers)));
        self.load(Miss { keys, asked: Instant::now(), until: Until::Stored, reply });
        let answers = answers.await.map_err(|_| "the proxy is shutting down".to_owned())?;
        let failed = answers.into_iter().find_map(|answer| match answer.loaded {
            Loaded::Failed(text) => Some(text),
            _ => None,
        });
        failed.map_or(Ok(()), Err)
    }

    /// The same where the cluster does not serve the keys: what is loaded is not stored.
    pub fn load_past_cache(&self, miss: Miss) {
        self.load_with(miss, Lease::Without);
    }

    fn load_with(&self, miss: Miss, lease: Lease) {
        let shared = &self.shared;
        if shared.stop.is_cancelled() {
            let text = Answer::failed("ERR the proxy is shutting down");
            return (miss.reply)(vec![text; miss.keys.len()]);
        }
        let Some(places) = shared.waiting.take(miss.keys.len()) else {
            let text =
                format!("ERR read-through is overloaded: {} keys wait already", shared.waiting.limit());
            return (miss.reply)(vec![Answer::failed(text); miss.keys.len()]);
        };
        let ticket = shared.tickets.issue(miss.keys.len(), miss.reply, places);
        // One visit per mapping, with all its keys, so that they land in one query. Mostly there is one mapping.
        let mut seen: Vec<MappingId> = Vec::with_capacity(1);
        for (mapping, _) in &miss.keys {
            if !seen.contains(mapping) {
                seen.push(*mapping);
                let of_mapping = miss.keys.iter().enumerate().filter(|(_, (m, _))| m == mapping);
                let keys = of_mapping.map(|(at, (_, key))| (at, key));
                loader::join(shared, *mapping, keys, (miss.asked, miss.until), lease, &ticket);
            }
        }
    }

    /// Says that `key` was written or deleted. Call it after `WriteBehind::enqueue` (or after the database took the write)
    /// and before the cache is changed: then no load that began earlier leaves its row in the cache.
    pub fn note_write(&self, mapping: MappingId, key: &[u8]) {
        if let Some(flights) = self.shared.flights.get(usize::from(mapping)) {
            flights.outdate(key);
            self.shared.fresh[usize::from(mapping)].forget(key);
        }
    }

    /// Keys waiting for an answer.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.count()
    }

    /// Waits for the loads under way, at most `deadline`; what is left is answered with an error.
    pub async fn shutdown(&self, deadline: Duration) {
        self.shared.tasks.close();
        let until = tokio::time::Instant::now() + deadline;
        while self.shared.waiting.count() > 0 && tokio::time::Instant::now() < until {
            let _ = tokio::time::timeout_at(until, self.shared.waiting.changed()).await;
        }
        self.shared.fills.close();
        let _ = tokio::time::timeout_at(until, self.shared.fills.wait()).await;
        self.shared.stop.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.shared.tasks.wait()).await;
        self.shared.tickets.fail_all();
    }
}
