//! Wires the writing of mapped keys: queues, journal, what an earlier process left in it, what the cache is told.
//!
//! Must not know: clients, HTTP.

use super::applied;
use super::tried;
use super::versions::Place;
use super::{StartError, StartErrors, instance};
use crate::cache::ReadThrough;
use crate::cluster::Gateway;
use crate::config::Config;
use crate::failpoint::{self, Safeguard};
use crate::journal::{Journal, JournalOptions, Opened};
use crate::mapping::{Durability, Format, Mapping, MappingId, StoreMode, WriteMode, fields_of};
use crate::metrics::{MappingMetrics, Metrics, QueryKind};
use crate::sidecar::{self, Applied, Change, Token, Value};
use crate::source::{Claim, Committed as Held, Source, SourceError, Touched, Writer, spread};
use crate::writeback::{
    Begun, BoxFuture, Committed, LATELY, MappingOptions, Observer, Race, Restored, ThroughEnd, Verdicts,
    WriteBehind, WriteBehindOptions,
};
use bytes::Bytes;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;

/// Time of a write-through beside its statements.
const THROUGH: Duration = Duration::from_secs(1);
/// Restored writes that the cache is told of at a time.
pub(super) const AT_ONCE: usize = 1000;

/// Starts the queues and brings back what an earlier process left in the journal: from then on readers see it.
pub(super) async fn open(
    config: &Config,
    source: &Arc<Source>,
    gateway: &Gateway,
    metrics: &Arc<Metrics>,
    reads: &Arc<OnceLock<ReadThrough>>,
) -> Result<(WriteBehind, Option<Place>), StartErrors> {
    let told = source.mappings().iter().map(|mapping| metrics.mapping(&mapping.name)).collect();
    let cache =
        Cache { source: source.clone(), gateway: gateway.clone(), jitter: config.read_through.ttl_jitter };
    let observer = Arc::new(Told { mappings: told, cache: cache.clone(), reads: reads.clone() });
    let writes = WriteBehind::start(source.clone(), options(config), observer, &Handle::current());
    let written = |durability| {
        let mappings = source.mappings().iter();
        mappings.filter(move |m| m.write == WriteMode::Behind && m.durability == durability)
    };
    for mapping in written(Durability::Memory) {
        tracing::warn!(
            mapping = mapping.name,
            "durability = \"memory\": writes that wait for the database are lost when the proxy crashes"
        );
    }
    if source.mappings().iter().all(|mapping| mapping.write == WriteMode::None) {
        return Ok((writes, None));
    }
    source.prepare_ledger().await?;
    // Whatever the mappings say now: readers see what waits.
    source.count_dead_letters().await?;
    let place = async |id, epoch, journaled| {
        let writer = Writer { id, epoch, journaled };
        Place::take(source, &writes, writer, metrics.versions.clone()).await
    };
    let mut seat = None;
    // Mappings may have been journaled before, and what is left of that is not lost.
    let left = Path::new(&config.journal.data_dir).join(instance::FILE).exists();
    if left || written(Durability::Journal).next().is_some() {
        let opened = open_journal(config, metrics).await?;
        let (id, claim) = instance::claim(Path::new(&config.journal.data_dir), source, opened.last()).await?;
        seat = Some(place(id.clone(), claim.epoch, true).await?);
        writes.claimed(id, claim.epoch);
        failpoint::hit("start.claimed");
        let verdicts = tried::verdicts(&opened)?;
        let restored = restore(&writes, &opened, &claim, &verdicts)?;
        let applied = applied::read(source, &opened, &claim, &verdicts)?;
        failpoint::hit("start.restored");
        writes.keep_journal(!applied.is_empty());
        writes.attach(opened).map_err(StartError::from)?;
        applied.keys().for_each(|mapping| writes.touch_all(*mapping));
        tokio::spawn(applied::tell(cache.clone(), writes.clone(), applied));
        if !restored.is_empty() {
            tracing::info!(writes = restored.len(), "writes of an earlier process are back from the journal");
            tokio::spawn(cache.bring_back(writes.clone(), restored));
        }
    }
    let seat = match seat {
        Some(seat) => seat,
        // Without a journal nothing outlives the process, so it is somebody new every time.
        None => place(instance::passing(), 0, false).await?,
    };
    seat.begin();
    Ok((writes, Some(seat)))
}

async fn open_journal(config: &Config, metrics: &Arc<Metrics>) -> Result<Opened, StartErrors> {
    let settings = &config.journal;
    let options = JournalOptions {
        segment_bytes: settings.segment_size as u64,
        max_bytes: settings.max_bytes as u64,
        linger: LATELY,
        linger_bytes: settings.recent_bytes as u64,
        max_age: if settings.max_age.is_zero() { Duration::MAX } else { settings.max_age },
        inbox_records: settings.inbox,
        inbox_bytes: settings.inbox_bytes as u64,
        busy_poll: config.server.busy_poll,
        metrics: metrics.journal.clone(),
    };
    let directory = settings.data_dir.clone();
    let opening = tokio::task::spawn_blocking(move || Journal::open(Path::new(&directory), options));
    let opened = opening.await.map_err(|error| StartError::System(std::io::Error::other(error)))?;
    Ok(opened.map_err(StartError::from)?)
}

/// Queues what the journal holds, in its order.
fn restore(
    writes: &WriteBehind,
    opened: &Opened,
    claim: &Claim,
    verdicts: &Verdicts,
) -> Result<Vec<Restored>, StartErrors> {
    let mut problem = None;
    let mut restored = Vec::new();
    opened
        .replay(|record| {
            let payload = Bytes::copy_from_slice(record.payload);
            match writes.restore(record.first, &payload, verdicts, |mapping, lane, sequence| {
                sequence > claim.offset(mapping, lane) && !failpoint::leaves_out(Safeguard::Replay)
            }) {
                Ok(some) => restored.extend(some),
                Err(error) => problem = Some(error),
            }
        })
        .map_err(StartError::from)?;
    match problem {
        None => Ok(restored),
        Some(error) => Err(StartError::Restore(error).into()),
    }
}

fn options(config: &Config) -> WriteBehindOptions {
    let queue = &config.write_behind;
    let own = |mapping: &crate::config::MappingConfig| MappingOptions {
        batch_rows: mapping.batch_rows,
        batch_interval: mapping.batch_interval,
    };
    WriteBehindOptions {
        batch_rows: queue.batch_rows,
        batch_interval: queue.batch_interval,
        batch_pause: queue.batch_pause,
        max_batch_rows: queue.max_batch_rows,
        max_rows: queue.queue_rows,
        max_bytes: queue.queue_bytes,
        retry_first: queue.retry_min,
        retry_most: queue.retry_max,
        high_water: config.journal.high_water,
        max_untold: queue.max_untold,
        max_recent: queue.recent_rows,
        max_recent_bytes: queue.recent_bytes,
        // A second for the thread that is to see the answer.
        longest_read: config.upstream.command_timeout + Duration::from_secs(1),
        // Room for a connection, and for what begins and ends the transaction.
        through_timeout: 2 * config.database.statement_timeout + THROUGH,
        by_mapping: config.mappings.iter().map(|mapping| (mapping.name.clone(), own(mapping))).collect(),
    }
}

/// A value as rows are loaded and writes are queued, as the cache keeps it; `None` where it is not kept as one.
pub(super) fn value_of(mapping: &Mapping, value: &Bytes) -> Option<Value> {
    match mapping.format {
        Format::Json | Format::Text => Some(Value::Text(value.clone())),
        Format::Hash => fields_of(value).ok().map(Value::Hash),
        Format::List => None,
    }
}

/// Counts what the queues tell, by mapping, and passes on what is committed.
struct Told {
    mappings: Vec<MappingMetrics>,
    cache: Cache,
    /// There from shortly after the start on.
    reads: Arc<OnceLock<ReadThrough>>,
}

impl Told {
    fn of(&self, mapping: MappingId) -> Option<&MappingMetrics> {
        self.mappings.get(usize::from(mapping))
    }
}

impl Observer for Told {
    fn flushed(&self, mapping: MappingId, rows: usize, took: Duration) {
        let Some(metrics) = self.of(mapping) else { return };
        metrics.query(QueryKind::Flush, true, took);
        metrics.flush_rows.observe(rows as f64);
        metrics.flush_duration.observe(took.as_secs_f64());
    }

    fn retrying(&self, mapping: MappingId, _: &SourceError, _: Duration) {
        let Some(metrics) = self.of(mapping) else { return };
        metrics.flush_errors.inc();
        metrics.flush_retries.inc();
    }

    fn rejected(&self, mapping: MappingId, _: &[u8], _: &SourceError) {
        if let Some(metrics) = self.of(mapping) {
            metrics.rejected("refused", 1);
        }
    }

    fn retold(&self, mapping: MappingId, keys: usize) {
        if let Some(metrics) = self.of(mapping) {
            metrics.retold.inc_by(keys as u64);
        }
    }

    fn held(&self, mapping: MappingId, writes: usize, keys: &[String]) {
        let name = self.cache.mapping(mapping).map_or("?", |mapping| &mapping.name);
        for key in keys {
            tracing::warn!(
                mapping = name,
                key,
                "a write waits behind a dead letter of its key, and so will later ones (`dsproxy dlq`)"
            );
        }
        if let Some(metrics) = self.of(mapping) {
            metrics.held.inc_by(writes as u64);
        }
    }

    fn passed(&self, mapping: MappingId, keys: &[String]) {
        let settings = self.cache.mapping(mapping);
        let name = settings.map_or("?", |mapping| &mapping.name);
        let replay = match settings.is_some_and(|mapping| mapping.mode == StoreMode::Append) {
            true => "a replay of that would still add its row",
            false => "a replay of that would change nothing",
        };
        for key in keys {
            tracing::warn!(
                mapping = name,
                key,
                "a write was applied whose key has a dead letter: {replay} (`dsproxy dlq`)"
            );
        }
        if let Some(metrics) = self.of(mapping) {
            metrics.passed.inc_by(keys.len() as u64);
        }
    }

    fn committed(&self, mapping: MappingId, keys: Vec<Committed>) -> BoxFuture<Vec<Committed>> {
        Box::pin(self.cache.clone().committed(mapping, keys))
    }

    fn through_begins(
        &self,
        mapping: MappingId,
        keys: Vec<(Bytes, Token)>,
        life: Duration,
    ) -> BoxFuture<Vec<Begun>> {
        Box::pin(self.cache.clone().begin_through(mapping, keys, life))
    }

    fn through_ends(&self, mapping: MappingId, keys: Vec<ThroughEnd>) -> BoxFuture<Vec<ThroughEnd>> {
        Box::pin(self.cache.clone().end_through(mapping, keys))
    }

    fn touched(&self, mapping: MappingId, touched: Touched) -> BoxFuture<bool> {
        let reads = self.reads.get().cloned();
        Box::pin(async move {
            match reads {
                Some(reads) => reads.touch(mapping, &touched).await,
                None => false,
            }
        })
    }
}

/// The cache, past all mappings.
#[derive(Clone)]
pub(super) struct Cache {
    pub(super) source: Arc<Source>,
    pub(super) gateway: Gateway,
    jitter: f64,
}

impl Cache {
    pub(super) fn mapping(&self, mapping: MappingId) -> Option<&Mapping> {
        self.source.mappings().get(mapping)
    }

    /// How long an entry lives from now on that is to expire at `expires_at` (ms since 1970), or as its mapping says.
    pub(super) fn life(&self, mapping: &Mapping, expires_at: Option<u64>) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        match expires_at {
            Some(at) => Some(Duration::from_millis(at.saturating_sub(now).max(1))),
            None => mapping.ttl.map(|ttl| spread(ttl, self.jitter)),
        }
    }

    /// Says that these writes are in the database; answers those of which it could not be said.
    pub(super) async fn committed(self, mapping: MappingId, keys: Vec<Committed>) -> Vec<Committed> {
        let Some(settings) = self.mapping(mapping).filter(|mapping| mapping.cache) else { return Vec::new() };
        let request = |committed: &Committed| {
            let value = match &committed.held {
                Some(Held::Value(value)) => value_of(settings, value),
                _ => None,
            };
            let row = match (&committed.held, &value) {
                _ if committed.rejected => sidecar::Committed::Absent,
                (_, Some(value)) => sidecar::Committed::Row(value),
                (Some(Held::Gone | Held::Unknown), _) => sidecar::Committed::Absent,
                // It is said once more. Where it was not heard the entry may have a part of the row, or what was refused.
                (None, _) => sidecar::Committed::Unknown,
                _ => sidecar::Committed::AsApplied,
            };
            let ttl = self.life(settings, committed.expires_at);
            sidecar::flushed(&committed.key, committed.version, row, ttl)
        };
        let requests = keys.iter().map(request).collect();
        let replies = self.gateway.run_scripts(requests).await;
        let told = |reply: &Result<Bytes, _>| {
            reply.as_ref().is_ok_and(|reply| sidecar::parse_flushed(reply).is_ok())
        };
        let untold: Vec<_> =
            keys.into_iter().zip(&replies).filter(|(_, reply)| !told(reply)).map(|(key, _)| key).collect();
        if !untold.is_empty() {
            tracing::warn!(
                mapping = settings.name,
                keys = untold.len(),
                "the cache could not be told of a commit; readers of this proxy get the committed values until it is"
            );
        }
        untold
    }

    /// Goes on with restored writes: their process died before it could.
    async fn bring_back(self, writes: WriteBehind, restored: Vec<Restored>) {
        let (tried, restored): (Vec<_>, Vec<_>) =
            restored.into_iter().partition(|write| write.tried.is_some());
        tokio::join!(self.decide_again(&writes, tried), self.apply_again(&writes, restored));
    }

    /// Brings restored writes to the cache again.
    async fn apply_again(&self, writes: &WriteBehind, restored: Vec<Restored>) {
        let mut newest: HashMap<Bytes, Restored> = HashMap::new();
        restored.into_iter().for_each(|write| drop(newest.insert(write.key.clone(), write)));
        let newest: Vec<Restored> = newest.into_values().collect();
        for some in newest.chunks(AT_ONCE) {
            let requests = some.iter().map(|write| self.apply(write)).collect();
            let replies = self.gateway.run_scripts(requests).await;
            for (write, reply) in some.iter().zip(replies) {
                let applied = reply.map(|reply| sidecar::parse_applied(&reply));
                if let Ok(Ok(Applied::Behind(newer))) = applied {
                    writes.clock().observe(newer);
                }
                if write.base.is_some() {
                    // It may have been acknowledged, so only a newer write shows that it has lost its race.
                    let lost = matches!(applied, Ok(Ok(Applied::Behind(_))));
                    let race = if lost { Race::Lost } else { Race::Won };
                    writes.decide(write.mapping, &write.key, write.version, race);
                }
            }
        }
    }

    fn apply(&self, write: &Restored) -> Vec<u8> {
        let mapping = self.mapping(write.mapping);
        let append = mapping.is_some_and(|mapping| mapping.mode == StoreMode::Append);
        let value = write.value.as_ref().and_then(|value| value_of(mapping?, value));
        let change = match &value {
            None => Change::Delete,
            Some(_) if append => Change::Append,
            Some(value) => Change::Put(value),
        };
        sidecar::apply_after(&write.key, write.version, change, None, write.base)
    }
}
