//! How much waits in the write-behind queue, and for how long.
//!
//! Must not know: what a row is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::{IntGauge, PullingGauge, Registry};

use super::{gauge, register};

/// The write-behind queue as its owner reports it.
pub struct QueueMetrics {
    /// Rows that wait to be flushed.
    pub rows: IntGauge,
    /// Bytes that wait to be flushed.
    pub bytes: IntGauge,
    oldest: Arc<Mutex<Option<Instant>>>,
}

impl QueueMetrics {
    pub(super) fn build(registry: &Registry) -> prometheus::Result<Self> {
        let oldest = Arc::new(Mutex::new(None::<Instant>));
        let shared = Arc::clone(&oldest);
        let age = move || {
            let oldest = *shared.lock().unwrap_or_else(PoisonError::into_inner);
            oldest.map_or(0.0, |since| since.elapsed().as_secs_f64())
        };
        register(
            registry,
            PullingGauge::new(
                "dsproxy_write_behind_oldest_seconds",
                "Age of the oldest row that waits to be flushed; 0 when none waits.",
                Box::new(age),
            )?,
        )?;
        Ok(Self {
            rows: gauge(registry, "dsproxy_write_behind_queue_rows", "Rows that wait to be flushed.")?,
            bytes: gauge(registry, "dsproxy_write_behind_queue_bytes", "Bytes that wait to be flushed.")?,
            oldest,
        })
    }

    /// Says when the oldest waiting row was written. Its age is worked out at every scrape.
    pub fn set_oldest(&self, written: Option<Instant>) {
        *self.oldest.lock().unwrap_or_else(PoisonError::into_inner) = written;
    }
}
