//! What the back side counts by mapping: queries, loads, flushes.
//!
//! Must not know: what a mapping is, but for its name.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{SECONDS, counters, histograms, register};

/// Buckets for rows or keys of a batch.
const ROWS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

/// Queries, loads and flushes.
pub(super) struct DatabaseFamilies {
    queries: IntCounterVec,
    duration: HistogramVec,
    load_keys: HistogramVec,
    flush_rows: HistogramVec,
    flush_duration: HistogramVec,
    flush_errors: IntCounterVec,
    flush_retries: IntCounterVec,
    retold: IntCounterVec,
    conflicts: IntCounterVec,
    rejected: IntCounterVec,
    passed: IntCounterVec,
    held: IntCounterVec,
    dead_letters: IntGaugeVec,
    held_letters: IntGaugeVec,
    sets: IntCounterVec,
    deletes: IntCounterVec,
    leases: IntCounterVec,
}

/// What becomes of the right to load a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// This proxy got it.
    Granted,
    /// Another one had it, and was waited for.
    Waited,
    /// It was granted after such a wait: the other one's ran out, or it has stored nothing.
    TakenOver,
    /// What was loaded may not be stored any more: it ran out, or the key was written or invalidated meanwhile.
    Lost,
}

impl LeaseEvent {
    const ALL: [Self; 4] = [Self::Granted, Self::Waited, Self::TakenOver, Self::Lost];

    const fn label(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Waited => "waited",
            Self::TakenOver => "taken_over",
            Self::Lost => "lost",
        }
    }
}

/// Why a query is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// Rows are loaded into the cache.
    Load,
    /// Written rows are flushed.
    Flush,
}

impl QueryKind {
    const fn label(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Flush => "flush",
        }
    }
}

impl DatabaseFamilies {
    pub(super) fn build(registry: &Registry) -> prometheus::Result<Self> {
        let mapping = ["mapping"];
        let count = |name, help, labels: &[&str]| counters(registry, name, help, labels);
        let gauge = |name, help| {
            let family = IntGaugeVec::new(Opts::new(name, help), &mapping)?;
            register(registry, family.clone())?;
            Ok::<_, prometheus::Error>(family)
        };
        let spread =
            |name, help, labels: &[&str], buckets: &[f64]| histograms(registry, name, help, labels, buckets);
        Ok(Self {
            queries: count(
                "dsproxy_queries_total",
                "Queries sent to the database, by mapping, kind (load, flush) and outcome (ok, error).",
                &["mapping", "kind", "outcome"],
            )?,
            duration: spread(
                "dsproxy_query_duration_seconds",
                "Time of a query, by mapping and kind (load, flush).",
                &["mapping", "kind"],
                &SECONDS,
            )?,
            load_keys: spread("dsproxy_load_batch_keys", "Keys that one query loaded.", &mapping, &ROWS)?,
            flush_rows: spread("dsproxy_flush_batch_rows", "Rows that one flush wrote.", &mapping, &ROWS)?,
            flush_duration: spread(
                "dsproxy_flush_duration_seconds",
                "Time of a flush from taking its rows to their commit, retries included.",
                &mapping,
                &SECONDS,
            )?,
            flush_errors: count("dsproxy_flush_errors_total", "Attempts to flush that failed.", &mapping)?,
            flush_retries: count(
                "dsproxy_flush_retries_total",
                "Attempts to flush after a failure.",
                &mapping,
            )?,
            retold: count(
                "dsproxy_retold_commits_total",
                "Commits that the cache was told again since their slots got another owner.",
                &mapping,
            )?,
            conflicts: count(
                "dsproxy_modify_conflicts_total",
                "Writes computed anew since another one of the key came first.",
                &mapping,
            )?,
            rejected: count(
                "dsproxy_rejected_rows_total",
                "Written rows that the database will never take, by reason.",
                &["mapping", "reason"],
            )?,
            passed: count(
                "dsproxy_dead_letters_passed_total",
                "Dead letters whose key was written again, so that a replay of them changes nothing.",
                &mapping,
            )?,
            held: count(
                "dsproxy_held_writes_total",
                "Writes that wait behind a dead letter of their key (on_poison = \"wait\").",
                &mapping,
            )?,
            dead_letters: gauge(
                "dsproxy_dead_letters",
                "Writes that the database refused, or that wait behind such a one, and that are kept.",
            )?,
            held_letters: gauge(
                "dsproxy_dead_letters_held",
                "Those of them that only wait; at most write_behind.max_held.",
            )?,
            sets: count(
                "dsproxy_cache_sets_total",
                "Loaded values that were stored in the cache.",
                &mapping,
            )?,
            deletes: count(
                "dsproxy_cache_deletes_total",
                "Entries dropped since a statement of a route made them untrue.",
                &mapping,
            )?,
            leases: count(
                "dsproxy_leases_total",
                "Rights to load a key, by mapping and event: granted; waited (another proxy had it); taken_over (granted after \
                 such a wait); lost (written, invalidated or run out before the row could be stored).",
                &["mapping", "event"],
            )?,
        })
    }
}

/// The counters of one mapping.
#[derive(Clone)]
pub struct MappingMetrics {
    name: String,
    load: QueryMetrics,
    flush: QueryMetrics,
    /// Keys that one query loaded.
    pub load_keys: Histogram,
    /// Rows that one flush wrote.
    pub flush_rows: Histogram,
    /// Seconds of a flush, retries included.
    pub flush_duration: Histogram,
    /// Attempts to flush that failed.
    pub flush_errors: IntCounter,
    /// Attempts to flush after a failure.
    pub flush_retries: IntCounter,
    /// Commits that were told again after a failover.
    pub retold: IntCounter,
    /// Writes that were computed anew since another one of the key came first.
    pub conflicts: IntCounter,
    rejected: IntCounterVec,
    /// Dead letters whose key was written again.
    pub passed: IntCounter,
    /// Writes that wait behind a dead letter of their key.
    pub held: IntCounter,
    /// Dead letters.
    pub dead_letters: IntGauge,
    /// Those of them that only wait.
    pub held_letters: IntGauge,
    /// Loaded values that were stored.
    pub sets: IntCounter,
    /// Entries that a statement of a route made untrue.
    pub deletes: IntCounter,
    leases: [IntCounter; 4],
}

#[derive(Clone)]
struct QueryMetrics {
    ok: IntCounter,
    error: IntCounter,
    duration: Histogram,
}

/// The family with this mapping's count shown from the start: an alert on an increase needs to have seen the zero.
fn rejected_rows(family: &IntCounterVec, name: &str) -> IntCounterVec {
    family.with_label_values(&[name, "refused"]);
    family.clone()
}

impl MappingMetrics {
    /// Resolves the counters of the mapping `name`.
    pub(super) fn new(database: &DatabaseFamilies, name: &str) -> Self {
        let query = |kind: QueryKind| QueryMetrics {
            ok: database.queries.with_label_values(&[name, kind.label(), "ok"]),
            error: database.queries.with_label_values(&[name, kind.label(), "error"]),
            duration: database.duration.with_label_values(&[name, kind.label()]),
        };
        Self {
            name: name.to_owned(),
            load: query(QueryKind::Load),
            flush: query(QueryKind::Flush),
            load_keys: database.load_keys.with_label_values(&[name]),
            flush_rows: database.flush_rows.with_label_values(&[name]),
            flush_duration: database.flush_duration.with_label_values(&[name]),
            flush_errors: database.flush_errors.with_label_values(&[name]),
            flush_retries: database.flush_retries.with_label_values(&[name]),
            retold: database.retold.with_label_values(&[name]),
            conflicts: database.conflicts.with_label_values(&[name]),
            rejected: rejected_rows(&database.rejected, name),
            passed: database.passed.with_label_values(&[name]),
            held: database.held.with_label_values(&[name]),
            dead_letters: database.dead_letters.with_label_values(&[name]),
            held_letters: database.held_letters.with_label_values(&[name]),
            sets: database.sets.with_label_values(&[name]),
            deletes: database.deletes.with_label_values(&[name]),
            leases: LeaseEvent::ALL.map(|event| database.leases.with_label_values(&[name, event.label()])),
        }
    }

    /// Counts what became of a lease.
    pub fn lease(&self, event: LeaseEvent) {
        self.leases[event as usize].inc();
    }

    /// Counts a query that took `elapsed`.
    pub fn query(&self, kind: QueryKind, ok: bool, elapsed: Duration) {
        let query = match kind {
            QueryKind::Load => &self.load,
            QueryKind::Flush => &self.flush,
        };
        if ok {
            query.ok.inc()
        } else {
            query.error.inc()
        }
        query.duration.observe(elapsed.as_secs_f64());
    }

    /// Queries for loads that failed.
    pub fn load_errors(&self) -> u64 {
        self.load.error.get()
    }

    /// Counts rows that the database will never take. `reason` is one of a few constants: it is a label.
    pub fn rejected(&self, reason: &'static str, rows: u64) {
        self.rejected.with_label_values(&[self.name.as_str(), reason]).inc_by(rows);
    }
}
