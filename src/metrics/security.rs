//! What was refused: commands by their rules, connections by where they come from or how they begin.
//!
//! Must not know: the rules.

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::{counters, gauge};

/// Refusals, and handshakes.
pub struct SecurityMetrics {
    denied: IntCounterVec,
    rejected: IntCounterVec,
    reloads: IntCounterVec,
    /// TLS handshakes that are not finished.
    pub handshakes: IntGauge,
}

impl std::fmt::Debug for SecurityMetrics {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("SecurityMetrics")
    }
}

impl Default for SecurityMetrics {
    /// Counters that no page shows: for tests of a core.
    fn default() -> Self {
        Self::build(&Registry::new()).expect("the families' names are constants, each used once")
    }
}

impl SecurityMetrics {
    pub(super) fn build(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            denied: counters(
                registry,
                "dsproxy_denied_total",
                "Commands and logins that were refused by their rules, by reason.",
                &["reason"],
            )?,
            rejected: counters(
                registry,
                "dsproxy_rejected_connections_total",
                "Connections that were turned away, by reason.",
                &["reason"],
            )?,
            reloads: counters(
                registry,
                "dsproxy_tls_reloads_total",
                "Times that certificates were read again, by outcome.",
                &["outcome"],
            )?,
            handshakes: gauge(registry, "dsproxy_tls_handshakes", "TLS handshakes that are not finished.")?,
        })
    }

    /// Counts a refused command or login.
    pub fn denied(&self, reason: &'static str) {
        self.denied.with_label_values(&[reason]).inc();
    }

    /// Counts a connection that was turned away.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected.with_label_values(&[reason]).inc();
    }

    /// Counts an attempt to read certificates again.
    pub fn reloaded(&self, worked: bool) {
        self.reloads.with_label_values(&[if worked { "ok" } else { "error" }]).inc();
    }
}
