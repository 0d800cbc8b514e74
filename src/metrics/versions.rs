//! What is shown of the table of versions.
//!
//! Must not know: tables.

use std::time::Duration;

use prometheus::{IntCounter, IntGauge, Registry};

use super::{gauge, register};

/// Counters of the pruning of versions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct VersionMetrics {
    /// Rows removed.
    pub pruned: IntCounter,
    bound: IntGauge,
}

impl VersionMetrics {
    pub(super) fn build(registry: &Registry) -> prometheus::Result<Self> {
        let pruned = IntCounter::new(
            "dsproxy_versions_pruned_total",
            "Versions of keys that this proxy removed from dsproxy_versions, because no proxy needs them any more.",
        )?;
        register(registry, pruned.clone())?;
        let bound = gauge(
            registry,
            "dsproxy_versions_bound_timestamp_seconds",
            "The time before which every proxy has applied its writes; what is older is pruned. If it stands still, a proxy \
             is gone whose journal was neither replayed nor adopted.",
        )?;
        Ok(Self { pruned, bound })
    }

    /// Shows the bound, a time since 1970.
    pub fn bound(&self, time: Duration) {
        self.bound.set(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    }
}
