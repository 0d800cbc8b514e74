//! How much waits in the write-behind queues, and for how long, asked for at every scrape.
//!
//! Must not know: what a row is.

use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::worker::{family, gauge};

/// What waits in the queue of one mapping.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueDepth {
    /// Rows, those being flushed included.
    pub rows: usize,
    /// Approximate bytes.
    pub bytes: usize,
    /// Age of the oldest row.
    pub oldest: Duration,
}

type Ask = dyn Fn() -> Vec<(String, QueueDepth)> + Send + Sync;

/// Shows the depth of every queue, by mapping.
pub struct QueueCollector(Box<Ask>);

impl QueueCollector {
    /// `ask` gives the name and depth of every queue.
    pub fn new(ask: impl Fn() -> Vec<(String, QueueDepth)> + Send + Sync + 'static) -> Self {
        Self(Box::new(ask))
    }
}

impl Collector for QueueCollector {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let depths = (self.0)();
        if depths.is_empty() {
            return Vec::new();
        }
        let samples = |value: fn(&QueueDepth) -> f64| {
            depths.iter().map(|(mapping, depth)| gauge(&[("mapping", mapping)], value(depth))).collect()
        };
        vec![
            family(
                "dsproxy_write_behind_queue_rows",
                "Rows that wait to be flushed.",
                samples(|depth| depth.rows as f64),
                MetricType::GAUGE,
            ),
            family(
                "dsproxy_write_behind_queue_bytes",
                "Approximate bytes that wait to be flushed.",
                samples(|depth| depth.bytes as f64),
                MetricType::GAUGE,
            ),
            family(
                "dsproxy_write_behind_oldest_seconds",
                "Age of the oldest row that waits to be flushed; 0 when none waits.",
                samples(|depth| depth.oldest.as_secs_f64()),
                MetricType::GAUGE,
            ),
        ]
    }
}
