//! The metric families of everything but the data threads, with the registry that all metrics are gathered from.
//!
//! Must not know: who counts, who scrapes.
//!
//! Names follow Prometheus' conventions: base units (seconds, bytes), `_total` for counters. Handles are resolved once
//! per mapping or route ([`MappingMetrics`]), so that counting is one atomic addition.

mod cell;
mod database;
mod http;
mod journal;
mod mapping;
mod process;
mod queue;
mod security;
mod served;
mod tally;
mod versions;
pub mod worker;

use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, PullingGauge, Registry,
    TextEncoder,
};

pub use database::{DatabaseCollector, DatabaseGauges, PoolGauge};
pub use http::{CacheOperations, HttpMetrics, RouteCounter};
pub use journal::{JournalCollector, JournalDepth, JournalMetrics};
pub use mapping::{LeaseEvent, MappingMetrics, QueryKind};
pub use process::Usage;
pub use queue::{QueueCollector, QueueDepth};
pub use security::SecurityMetrics;
pub use served::Served;
pub use tally::Tally;
pub use versions::VersionMetrics;

use mapping::DatabaseFamilies;
use process::ProcessCollector;

/// Content type of [`Metrics::render`]: Prometheus' text format 0.0.4.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Buckets for times of queries and requests: 100 us to 30 s.
const SECONDS: [f64; 17] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];

/// All families, in a registry of their own. Nothing is static: whoever counts is given this, or a part of it.
pub struct Metrics {
    registry: Registry,
    database: DatabaseFamilies,
    /// HTTP requests and connections.
    pub http: HttpMetrics,
    /// What was refused, and to whom.
    pub security: std::sync::Arc<SecurityMetrics>,
    /// The journal.
    pub journal: JournalMetrics,
    /// The table of versions.
    pub versions: VersionMetrics,
    /// Redis nodes that may evict what is not in the database yet.
    pub evicting_nodes: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every family.
    pub fn new() -> Self {
        // Registration fails on a malformed or doubled name only, and all names are constants below: the first test
        // would fail.
        Self::build().expect("the families' names are constants, each used once")
    }

    fn build() -> prometheus::Result<Self> {
        let registry = Registry::new();
        register(&registry, ProcessCollector::new()?)?;
        let build = IntGaugeVec::new(
            Opts::new("dsproxy_build_info", "Always 1; the labels say which build this is."),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        register(&registry, build)?;
        let start = Instant::now();
        let uptime = move || start.elapsed().as_secs_f64();
        register(
            &registry,
            PullingGauge::new(
                "dsproxy_uptime_seconds",
                "Seconds since the proxy was started.",
                Box::new(uptime),
            )?,
        )?;
        Ok(Self {
            database: DatabaseFamilies::build(&registry)?,
            http: HttpMetrics::build(&registry)?,
            security: std::sync::Arc::new(SecurityMetrics::build(&registry)?),
            journal: JournalMetrics::build(&registry)?,
            versions: VersionMetrics::build(&registry)?,
            evicting_nodes: gauge(
                &registry,
                "dsproxy_evicting_nodes",
                "Redis nodes with maxmemory-policy allkeys-*, where mappings are written.",
            )?,
            registry,
        })
    }

    /// The registry: for collectors that are not built here.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The counters of the mapping `name`.
    pub fn mapping(&self, name: &str) -> MappingMetrics {
        MappingMetrics::new(&self.database, name)
    }

    /// Everything in Prometheus' text format, see [`CONTENT_TYPE`].
    pub fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn register(registry: &Registry, collector: impl Collector + 'static) -> prometheus::Result<()> {
    registry.register(Box::new(collector))
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let family = IntCounterVec::new(Opts::new(name, help), labels)?;
    register(registry, family.clone())?;
    Ok(family)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> prometheus::Result<HistogramVec> {
    let family = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
    register(registry, family.clone())?;
    Ok(family)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(name, help)?;
    register(registry, gauge.clone())?;
    Ok(gauge)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::worker::{MappingLabels, WorkerCollector, WorkerStats};
    use super::*;

    fn line(metrics: &Metrics, start: &str) -> String {
        let text = metrics.render().unwrap();
        let found = text.lines().find(|line| line.starts_with(start)).map(str::to_owned);
        found.unwrap_or_else(|| format!("no {start} in\n{text}"))
    }

    #[test]
    fn one_hit_is_counted_under_both_names() {
        let metrics = Metrics::new();
        let stats = Arc::new(WorkerStats::new(0, 1));
        stats.mappings[0].hits.add(2);
        stats.mappings[0].misses.add(1);
        let labels = vec![MappingLabels { name: "user".into(), key: "user:{id}".into() }];
        let collector = WorkerCollector::new(vec![stats], Vec::new(), labels).unwrap();
        register(metrics.registry(), collector).unwrap();
        let both = "{key=\"user:{id}\",mapping=\"user\"}";
        assert_eq!(line(&metrics, "cache_hits_total"), format!("cache_hits_total{both} 2"));
        assert_eq!(line(&metrics, "cache_misses_total"), format!("cache_misses_total{both} 1"));
        let family = "dsproxy_cache_requests_total{mapping=\"user\",result=";
        assert_eq!(line(&metrics, &format!("{family}\"hit")), format!("{family}\"hit\"}} 2"));
    }

    #[test]
    fn queries_flushes_and_rejects_are_counted_by_mapping() {
        let metrics = Metrics::new();
        let user = metrics.mapping("user");
        user.query(QueryKind::Load, true, Duration::from_millis(3));
        user.query(QueryKind::Flush, false, Duration::from_millis(3));
        user.rejected("type", 2);
        user.flush_rows.observe(50.0);
        let text = metrics.render().unwrap();
        for expected in [
            "dsproxy_queries_total{kind=\"load\",mapping=\"user\",outcome=\"ok\"} 1",
            "dsproxy_queries_total{kind=\"flush\",mapping=\"user\",outcome=\"error\"} 1",
            "dsproxy_query_duration_seconds_count{kind=\"load\",mapping=\"user\"} 1",
            "dsproxy_flush_batch_rows_bucket{mapping=\"user\",le=\"50\"} 1",
            "dsproxy_rejected_rows_total{mapping=\"user\",reason=\"type\"} 2",
        ] {
            assert!(text.lines().any(|line| line == expected), "no {expected} in\n{text}");
        }
    }

    #[test]
    fn queues_are_asked_at_every_scrape() {
        let metrics = Metrics::new();
        let depth =
            QueueDepth { rows: 3, bytes: 700, oldest: Duration::from_millis(1500), untold: 5, retold: 4 };
        let collector = QueueCollector::new(move || vec![("user".into(), depth)]).unwrap();
        register(metrics.registry(), collector).unwrap();
        let shown = [
            ("queue_rows", "3"),
            ("queue_bytes", "700"),
            ("oldest_seconds", "1.5"),
            ("untold_keys", "5"),
            ("retold_keys", "4"),
        ];
        for (name, value) in shown {
            let family = format!("dsproxy_write_behind_{name}{{mapping=\"user\"}}");
            assert_eq!(line(&metrics, &family), format!("{family} {value}"));
        }
    }

    #[test]
    fn the_process_and_the_build_are_described() {
        let metrics = Metrics::new();
        let text = metrics.render().unwrap();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_threads",
        ] {
            assert!(text.contains(&format!("\n{name} ")), "no {name} in\n{text}");
        }
        assert!(text.contains(&format!("dsproxy_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))));
    }

    #[test]
    fn names_follow_the_conventions() {
        let metrics = Metrics::new();
        metrics.mapping("m").query(QueryKind::Load, true, Duration::ZERO);
        metrics.http.route("/ping").observe(200, Duration::ZERO);
        for family in metrics.registry().gather() {
            let (name, counter) =
                (family.name(), family.get_field_type() == prometheus::proto::MetricType::COUNTER);
            assert_eq!(counter, name.ends_with("_total"), "{name}");
            assert!(family.help().ends_with('.'), "{name}");
        }
    }
}
