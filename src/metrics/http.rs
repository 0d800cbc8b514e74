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
}

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
            connections: gauge(registry, "dsproxy_http_connections", "Open HTTP connections.")?,
        })
    }

    /// Counts a request. `route` is the path of a route as it is declared, never a path that a client made up.
    pub fn request(&self, route: &str, status: u16, elapsed: Duration) {
        self.requests.with_label_values(&[route, status.to_string().as_str()]).inc();
        self.duration.with_label_values(&[route]).observe(elapsed.as_secs_f64());
    }
}
