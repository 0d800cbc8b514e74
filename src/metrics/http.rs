//! What is counted of the HTTP side server.
//!
//! Must not know: which routes there are.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

use super::{SECONDS, counters, gauge, histograms};

/// The HTTP side server.
pub struct HttpMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    /// Open connections.
    pub connections: IntGauge,
    /// Commands that routes run.
    pub operations: CacheOperations,
}

/// Times of the commands that routes run, by operation. Only the few that routes use have a label of their own.
#[derive(Clone)]
pub struct CacheOperations {
    get: Histogram,
    set: Histogram,
    delete: Histogram,
    other: Histogram,
}

impl CacheOperations {
    fn new(family: &HistogramVec) -> Self {
        let of = |operation: &str| family.with_label_values(&[operation]);
        Self { get: of("get"), set: of("set"), delete: of("delete"), other: of("other") }
    }

    /// Counts one.
    pub fn observe(&self, command: &[u8], elapsed: Duration) {
        let histogram = match command {
            b"GET" => &self.get,
            b"SET" => &self.set,
            b"DEL" => &self.delete,
            _ => &self.other,
        };
        histogram.observe(elapsed.as_secs_f64() * 1000.0);
    }
}

/// The requests of one route.
pub struct RouteCounter {
    label: String,
    /// Answers with 200, once there is one: most are, and to look a label up takes a lock.
    ok: OnceLock<IntCounter>,
    requests: IntCounterVec,
    duration: OnceLock<Histogram>,
    durations: HistogramVec,
}

impl RouteCounter {
    /// Counts a request.
    pub fn observe(&self, status: u16, elapsed: Duration) {
        let by = |status: u16| self.requests.with_label_values(&[&self.label, &status.to_string()]);
        match status {
            200 => self.ok.get_or_init(|| by(200)).inc(),
            _ => by(status).inc(),
        }
        let duration = self.duration.get_or_init(|| self.durations.with_label_values(&[&self.label]));
        duration.observe(elapsed.as_secs_f64());
    }
}

/// Buckets for milliseconds: 0.1 ms to 5 s.
const MILLISECONDS: [f64; 15] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0];

impl HttpMetrics {
    pub(super) fn build(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            requests: counters(
                registry,
                "dsproxy_http_requests_total",
                "HTTP requests, by route and status.",
                &["route", "status"],
            )?,
            duration: histograms(
                registry,
                "dsproxy_http_request_duration_seconds",
                "Time from a request's head to its answer, by route.",
                &["route"],
                &SECONDS,
            )?,
            operations: CacheOperations::new(&histograms(
                registry,
                "cache_operation_duration_ms",
                "Milliseconds of a cache operation of a route, database included where it was asked, by operation.",
                &["operation"],
                &MILLISECONDS,
            )?),
            connections: gauge(registry, "dsproxy_http_connections", "Open HTTP connections.")?,
        })
    }

    /// What is counted of a route; `route` is its path as it is declared, never a path that a client made up. Nothing is
    /// shown before the first request.
    pub fn route(&self, route: &str) -> RouteCounter {
        RouteCounter {
            label: route.to_owned(),
            ok: OnceLock::new(),
            requests: self.requests.clone(),
            duration: OnceLock::new(),
            durations: self.duration.clone(),
        }
    }
}
