//! Wires the floors that own mapped data: source, write-behind, read-through.
//!
//! Must not know: clients, HTTP.

use super::StartErrors;
use super::admin::Desk;
use super::database::{self, open_source};
use super::eviction;
use super::versions::Place;
use super::warm::Warming;
use crate::cache::{BoxFuture, Observer as ReadObserver, ReadThrough, ReadThroughOptions, Store};
use crate::cluster::{Gateway, Origin};
use crate::config::Config;
use crate::core::{DataSide, Told};
use crate::health::{Condition, Dependency, Health};
use crate::mapping::{MappingId, WriteMode};
use crate::metrics::worker::MappingLabels;
use crate::metrics::{
    JournalCollector, JournalDepth, LeaseEvent, MappingMetrics, Metrics, QueryKind, QueueCollector,
    QueueDepth,
};
use crate::modify::{Modifier, ModifyOptions};
use crate::sidecar;
use crate::source::{Source, SourceError};
use crate::writeback::{Depth, WriteBehind};
use bytes::Bytes;
use prometheus::IntGauge;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time between two counts of the dead letters.
const LETTERS: Duration = Duration::from_secs(10);
/// Share of the waiting rows at which write-behind is called unhealthy.
const QUEUE_ALARM: f64 = 0.9;

/// The floors that own mapped data, running.
pub(super) struct Data {
    pub source: Arc<Source>,
    pub reads: ReadThrough,
    pub writes: WriteBehind,
    modify: Modifier,
    desk: Arc<Desk>,
    queue_rows: usize,
    degrade_us: u64,
    /// Among the writers of the database.
    place: Option<Place>,
    prune_interval: Duration,
    /// By mapping.
    metrics: Vec<MappingMetrics>,
}

impl Data {
    /// Connects, checks the mappings against their tables, starts the services. `None` without mappings.
    pub async fn open(
        config: &Config,
        gateway: &Gateway,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>, StartErrors> {
        let Some(source) = open_source(config).await? else { return Ok(None) };
        let source = Arc::new(source);
        let runtime = Handle::current();
        let mappings: Vec<_> =
            source.mappings().iter().map(|mapping| metrics.mapping(&mapping.name)).collect();
        let observer = Arc::new(Observer { mappings: mappings.clone() });
        let started = Arc::<OnceLock<ReadThrough>>::default();
        let (writes, place) = super::writes::open(config, &source, gateway, metrics, &started).await?;
        let store = Arc::new(GatewayStore(gateway.clone()));
        let reads = ReadThrough::start(
            source.clone(),
            Some(writes.clone()),
            store,
            observer,
            read_options(config),
            &runtime,
        );
        let _ = started.set(reads.clone());
        let waiting = IntGauge::new(
            "dsproxy_modify_waiting",
            "Commands that compute a value from the one that is there, not answered yet.",
        )?;
        metrics.registry().register(Box::new(waiting.clone()))?;
        let modify = Modifier::new(
            source.clone(),
            reads.clone(),
            writes.clone(),
            gateway.clone(),
            mappings.clone(),
            ModifyOptions {
                max_waiting: config.write_behind.modify_queue,
                timeout: config.write_behind.modify_timeout,
                waiting,
            },
            &runtime,
        );
        let desk = Arc::new(Desk {
            source: source.clone(),
            reads: reads.clone(),
            writes: writes.clone(),
            gateway: gateway.clone(),
            runtime: runtime.clone(),
            patience: config.write_behind.shutdown_timeout,
        });
        let data = Self {
            source,
            reads,
            writes,
            modify,
            desk,
            queue_rows: config.write_behind.queue_rows,
            degrade_us: config.read_through.cache_timeout.as_micros() as u64,
            place,
            prune_interval: config.write_behind.prune_interval,
            metrics: mappings,
        };
        metrics.registry().register(Box::new(QueueCollector::new(data.depths())?))?;
        if data.writes.journal().is_some() {
            let ask = data.journal_depth(config.journal.max_bytes as u64);
            metrics.registry().register(Box::new(JournalCollector::new(ask)?))?;
        }
        database::show(metrics, &data.source)?;
        Ok(Some(data))
    }

    /// What the HTTP side asks of the queues and the dead letters.
    pub fn writeback(&self) -> crate::http::Writeback {
        crate::http::Writeback { source: self.source.clone(), writes: self.writes.clone() }
    }

    /// The queues of written keys.
    pub fn writes(&self) -> WriteBehind {
        self.writes.clone()
    }

    /// What the core of a worker is handed.
    pub fn side(&self, told: mpsc::UnboundedSender<Told>) -> DataSide {
        let (source, reads, writes) = (self.source.clone(), self.reads.clone(), self.writes.clone());
        let (modify, admin) = (self.modify.clone(), self.desk.clone());
        DataSide { source, reads, writes, modify, admin, told, degrade_us: self.degrade_us }
    }

    /// Names and key templates, by index.
    pub fn labels(&self) -> Vec<MappingLabels> {
        let labels = |mapping: &crate::mapping::Mapping| MappingLabels {
            name: mapping.name.clone(),
            key: mapping.template.source().to_owned(),
        };
        self.source.mappings().iter().map(labels).collect()
    }

    /// Asks for the depth of every queue that can be written to.
    fn depths(&self) -> impl Fn() -> Vec<(String, QueueDepth)> + Send + Sync + 'static {
        let (source, writes) = (self.source.clone(), self.writes.clone());
        move || {
            let written = source.mappings().iter().filter(|mapping| mapping.write == WriteMode::Behind);
            written
                .map(|mapping| {
                    let depth = writes.depth(mapping.id);
                    let oldest = depth.oldest.unwrap_or_default();
                    let Depth { rows, bytes, untold, retold, .. } = depth;
                    (mapping.name.clone(), QueueDepth { rows, bytes, oldest, untold, retold })
                })
                .collect()
        }
    }

    /// Asks how the journal stands, which refuses writes at `limit` bytes.
    fn journal_depth(&self, limit: u64) -> impl Fn() -> JournalDepth + Send + Sync + 'static {
        let writes = self.writes.clone();
        move || {
            let stats = writes.journal().unwrap_or_default();
            JournalDepth {
                entries: stats.entries,
                bytes: stats.bytes,
                limit,
                oldest: stats.oldest.unwrap_or_default(),
                segments: stats.segments,
                poisoned: stats.poisoned.is_some(),
            }
        }
    }

    /// Loads the rows of the mappings that are to be warm, in the background, until `stop`.
    pub fn warm(&self, config: &Config, tasks: &TaskTracker, stop: &CancellationToken) {
        for mapping in &config.mappings {
            let known = self.source.mappings().by_name(&mapping.name);
            let (Some(wanted), Some(known)) = (mapping.warm.clone(), known) else { continue };
            let (source, reads) = (self.source.clone(), self.reads.clone());
            let warming = Warming { source, reads, mapping: known.id, wanted };
            tasks.spawn(warming.run(stop.clone()));
        }
    }

    /// Looks after the health of the database and of the queue until `stop`.
    pub fn watch(&self, config: &Config, tasks: &TaskTracker, health: Arc<Health>, stop: CancellationToken) {
        let interval = config.database.health_interval;
        let (source, depths, limit) = (self.source.clone(), self.depths(), self.queue_rows);
        let (reads, writes) = (self.reads.clone(), self.writes.clone());
        health.set(Dependency::Database, Condition::Up);
        health.set(Dependency::WriteBehind, Condition::Up);
        if let Some(place) = self.place.clone() {
            tasks.spawn(place.keep(self.prune_interval, stop.clone()));
        }
        let (metrics, mut counted) = (self.metrics.clone(), None::<Instant>);
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(interval) => {}
                }
                if counted.is_none_or(|at| at.elapsed() >= LETTERS) {
                    count_letters(&source, &metrics).await;
                    release(&source, &reads).await;
                    counted = Some(Instant::now());
                }
                let ping = source.ping().await;
                if let Err(error) = &ping {
                    tracing::debug!(%error, "the database does not answer");
                }
                let condition =
                    ping.map_or_else(|error| Condition::Down(error.to_string()), |()| Condition::Up);
                health.set(Dependency::Database, condition);
                let rows: usize = depths().iter().map(|(_, depth)| depth.rows).sum();
                let full = rows as f64 > limit as f64 * QUEUE_ALARM;
                let condition = match writes.trouble() {
                    Some(trouble) => Condition::Down(trouble),
                    None if full => Condition::Down(format!("{rows} of {limit} rows wait for the database")),
                    None => Condition::Up,
                };
                health.set(Dependency::WriteBehind, condition);
            }
        });
    }

    /// Looks after nodes that may evict what is not in the database yet, until `stop`.
    pub fn watch_eviction(&self, watch: eviction::Watch, tasks: &TaskTracker, stop: CancellationToken) {
        if self.source.mappings().iter().any(|mapping| mapping.write != WriteMode::None) {
            tasks.spawn(watch.run(stop));
        }
    }

    /// Ends loads, writes what is queued; the number of rows that could not be written in time.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        self.modify.shutdown(Duration::from_secs(1)).await;
        self.reads.shutdown(Duration::from_secs(1)).await;
        let left = self.writes.shutdown(deadline).await.rows;
        if let Some(place) = &self.place {
            place.leave(left).await;
        }
        left
    }
}

/// Shows how many dead letters there are.
async fn count_letters(source: &Source, metrics: &[MappingMetrics]) {
    if source.mappings().iter().all(|mapping| mapping.write == WriteMode::None) {
        return; // the tables may not be there
    }
    if let Err(error) = source.count_dead_letters().await {
        return tracing::debug!(%error, "cannot count the dead letters");
    }
    for (mapping, metrics) in source.mappings().iter().zip(metrics) {
        let count = source.known_dead_letters(mapping.id).unwrap_or_default();
        metrics.dead_letters.set(i64::try_from(count).unwrap_or(i64::MAX));
        metrics.held_letters.set(i64::try_from(source.known_held(mapping.id)).unwrap_or(i64::MAX));
    }
}

/// Applies what waited behind dead letters that are gone: whoever replayed or dropped them may not have come to it.
async fn release(source: &Source, reads: &ReadThrough) {
    if source.mappings().iter().all(|mapping| source.known_held(mapping.id) == 0) {
        return;
    }
    match reads.release_all().await {
        Ok(released) if released.is_empty() => {}
        Ok(released) => {
            tracing::info!(writes = released.len(), "writes that had waited behind dead letters are applied")
        }
        Err(error) => {
            tracing::warn!(%error, "cannot apply what waited behind dead letters; it is tried again")
        }
    }
}

/// Says that there is no data side.
pub(super) fn absent(health: &Health) {
    health.set(Dependency::Database, Condition::Off);
    health.set(Dependency::WriteBehind, Condition::Off);
}

fn read_options(config: &Config) -> ReadThroughOptions {
    let reads = &config.read_through;
    ReadThroughOptions {
        max_batch: reads.max_batch,
        concurrency: reads.concurrency,
        timeout: reads.timeout,
        max_waiting: reads.queue,
        ttl_jitter: reads.ttl_jitter,
        cache_timeout: reads.cache_timeout,
        // What the proxy waits for a query, with time to store what it found.
        lease: config.database.statement_timeout + Duration::from_secs(1),
        ..ReadThroughOptions::default()
    }
}

/// Counts what the services tell, by mapping.
struct Observer {
    mappings: Vec<MappingMetrics>,
}

impl Observer {
    fn of(&self, mapping: MappingId) -> Option<&MappingMetrics> {
        self.mappings.get(usize::from(mapping))
    }
}

impl ReadObserver for Observer {
    fn lease(&self, mapping: MappingId, event: LeaseEvent) {
        if let Some(metrics) = self.of(mapping) {
            metrics.lease(event);
        }
    }

    fn filled(&self, mapping: MappingId, stored: usize, _: usize) {
        if let Some(metrics) = self.of(mapping) {
            metrics.sets.inc_by(stored as u64);
        }
    }

    fn queried(&self, mapping: MappingId, keys: usize, took: Duration, error: Option<&SourceError>) {
        let Some(metrics) = self.of(mapping) else { return };
        metrics.query(QueryKind::Load, error.is_none(), took);
        metrics.load_keys.observe(keys as f64);
    }
}

/// Drops the entry of a mapped key, and cancels what is being loaded for it.
pub(super) async fn drop_entry(gateway: &Gateway, key: &[u8]) {
    let reply = gateway.call(Origin::Internal, sidecar::invalidate(key, Duration::ZERO)).await;
    let fault = match reply.as_deref().map(sidecar::parse_invalidated) {
        Ok(Ok(_)) => return,
        Ok(Err(fault)) => fault.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(fault, "cannot remove an outdated entry from the cache; it goes with its time to live");
}

/// Reaches the cluster through the data path of the workers.
struct GatewayStore(Gateway);

impl Store for GatewayStore {
    fn run(&self, requests: Vec<Vec<u8>>) -> BoxFuture<Vec<Option<Bytes>>> {
        let gateway = self.0.clone();
        Box::pin(async move {
            let replies = gateway.run_scripts(requests).await;
            replies.into_iter().map(Result::ok).collect()
        })
    }
}
