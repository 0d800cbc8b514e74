//! How much waits in the write-behind queues, and for how long, asked for at every scrape.
//!
//! Must not know: what a row is.

use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::worker::{family, gauge, identity};

/// What waits in the queue of one mapping.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueDepth {
    /// Rows, those being flushed included.
    pub rows: usize,
    /// Approximate bytes.
    pub bytes: usize,
    /// Age of the oldest row.
    pub oldest: Duration,
    /// Keys of which the cache could not be told that they are committed.
    pub untold: usize,
    /// Keys of which it was told at last, a moment ago.
    pub retold: usize,
}

type Ask = dyn Fn() -> Vec<(String, QueueDepth)> + Send + Sync;

/// Shows the depth of every queue, by mapping.
pub struct QueueCollector {
    ask: Box<Ask>,
    first: Desc,
}

impl QueueCollector {
    /// `ask` gives the name and depth of every queue.
    ///
    /// # Errors
    /// Never in practice: the name of the first family is a valid one.
    pub fn new(
        ask: impl Fn() -> Vec<(String, QueueDepth)> + Send + Sync + 'static,
    ) -> prometheus::Result<Self> {
        Ok(Self { ask: Box::new(ask), first: identity("dsproxy_write_behind_queue_rows")? })
    }
}

impl Collector for QueueCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.first]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let depths = (self.ask)();
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
            family(
                "dsproxy_write_behind_untold_keys",
                "Keys with a commit that the cache could not be told of yet; at write_behind.max_untold further ones are given up.",
                samples(|depth| depth.untold as f64),
                MetricType::GAUGE,
            ),
            family(
                "dsproxy_write_behind_retold_keys",
                "Keys with a commit that the cache was told of at last, and so lately that answers from before may come.",
                samples(|depth| depth.retold as f64),
                MetricType::GAUGE,
            ),
        ]
    }
}
