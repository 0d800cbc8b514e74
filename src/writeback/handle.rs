//! The handle by which writes come in, readers look at what waits, and everything is ended.
//!
//! Must not know: Redis, clients.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use super::lane::{Arrival, Stamp};
use super::queue::{Budget, Queue};
use super::{
    Depth, InCache, KeyWrite, Observer, Pending, Write, WriteBehindOptions, WriteError, batcher, queue_of,
};
use crate::clock::Clock;
use crate::mapping::MappingId;
use crate::source::Source;

/// The write-behind queues. Cheap to clone.
#[derive(Clone)]
pub struct WriteBehind {
    pub(super) shared: Arc<Shared>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Who writes through this handle.
    writer: u16,
}

pub(super) struct Shared {
    pub(super) source: Arc<Source>,
    pub(super) options: WriteBehindOptions,
    pub(super) observer: Arc<dyn Observer>,
    /// By mapping; `None` for mappings that take no writes.
    queues: Vec<Option<Queue>>,
    pub(super) budget: Budget,
    pub(super) clock: Arc<Clock>,
}

impl WriteBehind {
    /// Starts one batcher per writable mapping on `runtime`. End them with `shutdown`.
    pub fn start(
        source: Arc<Source>,
        options: WriteBehindOptions,
        observer: Arc<dyn Observer>,
        runtime: &Handle,
    ) -> Self {
        let queues =
            source.mappings().iter().map(|mapping| queue_of(&source, &options, mapping.id)).collect();
        let budget = Budget::new(options.max_rows, options.max_bytes);
        let shared = Arc::new(Shared { source, options, observer, queues, budget, clock: Arc::default() });
        let ids = (0..shared.queues.len()).filter(|at| shared.queues[*at].is_some());
        let tasks = ids.map(|id| runtime.spawn(batcher::run(shared.clone(), id as MappingId))).collect();
        Self { shared, tasks: Arc::new(Mutex::new(tasks)), writer: u16::MAX }
    }

    /// A handle for one of several writers, each of which changes the cache in the order of its own writes.
    pub fn for_writer(&self, writer: u16) -> Self {
        Self { writer, ..self.clone() }
    }

    /// The clock that gives versions: whoever sees a version elsewhere tells it.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Takes the writes of one command in their order: all of them, or none when one is refused. Never blocks and may be
    /// called from any thread; when it returns Ok, `pending` shows them. Answers their versions.
    ///
    /// # Errors
    /// [`WriteError`]; nothing has happened then.
    pub fn submit(&self, unit: Vec<KeyWrite>) -> Result<Vec<u64>, WriteError> {
        let arrival = |write: KeyWrite| {
            let queue = self.shared.queue(write.mapping).ok_or(WriteError::ReadOnly)?;
            Ok((queue, Arrival::new(write, self.writer)))
        };
        self.shared.push(unit.into_iter().map(arrival).collect::<Result<Vec<_>, WriteError>>()?)
    }

    /// Queues one write that is brought to no cache.
    ///
    /// # Errors
    /// [`WriteError`]; nothing has happened then.
    pub fn enqueue(&self, mapping: MappingId, key: Bytes, write: Write) -> Result<(), WriteError> {
        self.submit(vec![KeyWrite { mapping, key, write, base: None, applies: false }]).map(drop)
    }

    /// Whether a write of `key` that is newer than `version` was queued by this process.
    pub fn is_superseded(&self, mapping: MappingId, key: &[u8], version: u64) -> bool {
        let newest = |queue: &Queue| queue.lane(key).overlays.get(key).map_or(0, |overlay| overlay.newest());
        self.shared.queue(mapping).is_some_and(|queue| newest(queue) > version)
    }

    /// Says what became of a write in the cache that was submitted with `applies`.
    pub fn resolve(&self, mapping: MappingId, key: &[u8], outcome: InCache) {
        let Some(queue) = self.shared.queue(mapping) else { return };
        if let Some(committed) = queue.lane(key).resolve(key, outcome) {
            self.shared.observer.contended(mapping, vec![committed]);
        }
    }

    /// Says whether a write that was submitted with a `base` has won its race: then readers see it and it will be flushed,
    /// otherwise it never was.
    pub fn decide(&self, mapping: MappingId, key: &[u8], version: u64, won: bool) {
        if let Some(queue) = self.shared.queue(mapping) {
            queue.decide(key, version, won);
        }
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
        let version = self.shared.clock.last();
        let mut waits = JoinSet::new();
        for id in 0..self.shared.queues.len() {
            let shared = self.shared.clone();
            waits.spawn(async move {
                if let Some(queue) = shared.queue(id as MappingId) {
                    queue.flush_to(version).await;
                }
            });
        }
        waits.join_all().await;
    }

    /// What waits in one mapping's queue.
    pub fn depth(&self, mapping: MappingId) -> Depth {
        self.shared.queue(mapping).map(|queue| queue.depth(Instant::now())).unwrap_or_default()
    }

    /// The share of the limits of waiting rows and bytes that is used, from 0 to 1.
    pub fn fill(&self) -> f64 {
        self.shared.budget.fill()
    }

    /// The oldest record of the journal that is still needed; `None` when nothing that was journaled waits.
    pub fn oldest_sequence(&self) -> Option<u64> {
        self.shared.queues.iter().flatten().filter_map(Queue::oldest_sequence).min()
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
        depths.fold(Depth::default(), Depth::and)
    }
}

impl Shared {
    /// Queues writes that need no journal.
    fn push(&self, arrivals: Vec<(&Queue, Arrival)>) -> Result<Vec<u64>, WriteError> {
        let sizes = || arrivals.iter().map(|(_, arrival)| arrival.size);
        let (mut rows, mut bytes) = (sizes().count(), sizes().sum());
        self.budget.take(rows, bytes)?;
        let mut versions = Vec::with_capacity(rows);
        for (queue, arrival) in arrivals {
            let size = arrival.size;
            match queue.push(arrival, Stamp::Now(&self.clock)) {
                Ok(version) => versions.push(version),
                Err(error) => {
                    self.budget.give_back(rows, bytes);
                    return Err(error);
                }
            }
            (rows, bytes) = (rows - 1, bytes - size);
        }
        Ok(versions)
    }

    pub(super) fn queue(&self, mapping: MappingId) -> Option<&Queue> {
        self.queues.get(usize::from(mapping))?.as_ref()
    }
}
