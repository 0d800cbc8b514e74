//! What a worker counts in one number each.
//!
//! Must not know: who counts.

use super::{Cell, WorkerCollector, WorkerStats, counter, family, gauge};
use prometheus::proto::{self, MetricFamily};

impl WorkerCollector {
    pub(super) fn plain(&self, families: &mut Vec<MetricFamily>) {
        type Plain = (&'static str, &'static str, proto::MetricType, fn(&WorkerStats) -> &Cell);
        let plain: [Plain; 19] = [
            ("dsproxy_connected_clients", "Connected RESP clients.", proto::MetricType::GAUGE, |w| {
                &w.clients
            }),
            ("dsproxy_client_connections_total", "RESP clients accepted.", proto::MetricType::COUNTER, |w| {
                &w.accepted
            }),
            (
                "dsproxy_client_read_bytes_total",
                "Bytes read from clients.",
                proto::MetricType::COUNTER,
                |w| &w.bytes_in,
            ),
            (
                "dsproxy_client_written_bytes_total",
                "Bytes written to clients.",
                proto::MetricType::COUNTER,
                |w| &w.bytes_out,
            ),
            (
                "dsproxy_inflight_commands",
                "Client commands that wait for a reply.",
                proto::MetricType::GAUGE,
                |w| &w.inflight,
            ),
            (
                "dsproxy_protocol_errors_total",
                "Requests that were no RESP.",
                proto::MetricType::COUNTER,
                |w| &w.protocol_errors,
            ),
            (
                "dsproxy_redirects_total",
                "MOVED and ASK redirects followed.",
                proto::MetricType::COUNTER,
                |w| &w.redirects,
            ),
            ("dsproxy_retries_total", "Requests sent again.", proto::MetricType::COUNTER, |w| &w.retries),
            (
                "dsproxy_command_timeouts_total",
                "Requests answered by the timeout.",
                proto::MetricType::COUNTER,
                |w| &w.timeouts,
            ),
            (
                "dsproxy_client_pauses_total",
                "Times a client at a limit was not read.",
                proto::MetricType::COUNTER,
                |w| &w.pauses,
            ),
            (
                "dsproxy_slow_clients_closed_total",
                "Clients closed for not reading their replies.",
                proto::MetricType::COUNTER,
                |w| &w.slow_clients,
            ),
            ("dsproxy_subscriptions", "Subscriptions of clients.", proto::MetricType::GAUGE, |w| {
                &w.subscriptions
            }),
            (
                "dsproxy_blocked_clients",
                "Clients that wait in a blocking command.",
                proto::MetricType::GAUGE,
                |w| &w.blocked,
            ),
            (
                "dsproxy_held_clients",
                "Clients whose next command waits for the end of a CLIENT PAUSE.",
                proto::MetricType::GAUGE,
                |w| &w.held,
            ),
            (
                "dsproxy_kept_scripts",
                "Scripts of clients that are kept for nodes that lack them, bounded by limits.script_store.",
                proto::MetricType::GAUGE,
                |w| &w.scripts,
            ),
            (
                "dsproxy_dedicated_connections",
                "Upstream connections that one client has for itself, to watch keys or to wait.",
                proto::MetricType::GAUGE,
                |w| &w.dedicated,
            ),
            ("dsproxy_monitoring_clients", "Clients that look on.", proto::MetricType::GAUGE, |w| {
                &w.monitors
            }),
            (
                "dsproxy_monitor_dropped_lines_total",
                "Lines that looking clients were not shown, because there were too many.",
                proto::MetricType::COUNTER,
                |w| &w.monitor_dropped,
            ),
            (
                "dsproxy_messages_delivered_total",
                "Pub/sub messages handed to clients.",
                proto::MetricType::COUNTER,
                |w| &w.messages,
            ),
        ];
        for (name, help, kind, cell) in plain {
            let total = self.sum(|w| cell(w).get());
            let sample =
                if kind == proto::MetricType::GAUGE { gauge(&[], total as f64) } else { counter(&[], total) };
            families.push(family(name, help, vec![sample], kind));
        }
    }
}
