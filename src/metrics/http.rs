//! What is counted of the HTTP side server.
//!
//! Must not know: which routes there are.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, Registry};

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

/// Times of the commands that routes run.
#[derive(Clone)]
pub struct CacheOperations(HistogramVec);

impl CacheOperations {
    /// Counts one. Only the few commands that routes use have a label of their own.
    pub fn observe(&self, command: &[u8], elapsed: Duration) {
        let label = match command {
            b"GET" => "get",
            b"SET" => "set",
            b"DEL" => "delete",
            _ => "other",
        };
        self.0.with_label_values(&[label]).observe(elapsed.as_secs_f64() * 1000.0);
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
            operations: CacheOperations(histograms(
                registry,
                "cache_operation_duration_ms",
                "Milliseconds of a cache operation of a route, database included where it was asked, by operation.",
                &["operation"],
                &MILLISECONDS,
            )?),
            connections: gauge(registry, "dsproxy_http_connections", "Open HTTP connections.")?,
        })
    }

    /// Counts a request. `route` is the path of a route as it is declared, never a path that a client made up.
    pub fn request(&self, route: &str, status: u16, elapsed: Duration) {
        self.requests.with_label_values(&[route, status.to_string().as_str()]).inc();
        self.duration.with_label_values(&[route]).observe(elapsed.as_secs_f64());
    }
}
