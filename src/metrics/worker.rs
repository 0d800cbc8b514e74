//! What a data worker counts: written by one thread without locks, read by the scraper.
//!
//! Must not know: commands, nodes or mappings beyond their labels.

mod buckets;
mod codes;
mod family;
mod mapped;
mod plain;

pub use super::cell::Cell;
pub use buckets::{command_latency, route_latency};
pub use codes::{ErrorCells, error_codes};
pub(super) use family::{count, family, gauge, identity};
pub use mapped::MappingCells;

use family::{counter, histogram};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Upper bounds are 64 us, doubling, up to 8.4 s; the last bucket is everything above.
const BUCKETS: usize = 19;
const FIRST_BOUND_US: u64 = 64;

/// A latency histogram with power-of-two buckets.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [Cell; BUCKETS],
    sum_us: Cell,
}

impl Latency {
    /// Counts one latency, in microseconds.
    #[inline]
    pub fn record(&self, us: u64) {
        let bucket = (u64::BITS - (us.saturating_sub(1) / FIRST_BOUND_US).leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].add(1);
        self.sum_us.add(us);
    }

    /// All of it, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }

    fn merge_into(&self, total: &mut Merged) {
        for (to, from) in total.buckets.iter_mut().zip(&self.buckets) {
            *to += from.get();
        }
        total.sum_us += self.sum_us.get();
    }
}

#[derive(Clone, Debug, Default)]
struct Merged {
    buckets: [u64; BUCKETS],
    sum_us: u64,
}

/// How a command ended, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Any reply but an error.
    Ok,
    /// An error from Redis, or one of our own.
    Error,
}

/// Counters of one command.
#[derive(Debug, Default)]
pub struct CommandCells {
    /// Replies that were no error.
    pub ok: Cell,
    /// Errors.
    pub error: Cell,
    /// From dispatch to reply; of commands that were not answered at once.
    pub latency: Latency,
}

/// Counters of one upstream node.
#[derive(Debug)]
pub struct NodeCells {
    /// `host:port`.
    pub addr: Box<str>,
    /// From dispatch to reply.
    pub latency: Latency,
    /// Requests without a reply.
    pub inflight: Cell,
    /// Connections established.
    pub connects: Cell,
    /// Connections lost or refused.
    pub losses: Cell,
}

/// Everything one worker counts.
#[derive(Debug)]
pub struct WorkerStats {
    /// By index in the command table; the last one is for unknown commands.
    pub commands: Box<[CommandCells]>,
    /// Error replies.
    pub errors: ErrorCells,
    /// Client-seen latency of commands that took another way than the plain one: [`WorkerStats::ROUTES`] but the first,
    /// which is what is left of [`Self::commands`].
    pub detours: [Latency; WorkerStats::ROUTES.len() - 1],
    /// By index of the mapping.
    pub mappings: Box<[MappingCells]>,
    /// Connected clients.
    pub clients: Cell,
    /// Clients accepted so far.
    pub accepted: Cell,
    /// Clients that are gone.
    pub closed: Cell,
    /// Bytes read from clients.
    pub bytes_in: Cell,
    /// Bytes written to clients.
    pub bytes_out: Cell,
    /// Client commands that wait for a reply.
    pub inflight: Cell,
    /// Requests that were no RESP.
    pub protocol_errors: Cell,
    /// `MOVED` and `ASK` followed.
    pub redirects: Cell,
    /// Requests sent again after a lost connection or a `TRYAGAIN`-like error.
    pub retries: Cell,
    /// Requests answered by the timeout.
    pub timeouts: Cell,
    /// Times a client was not read because it was at a limit.
    pub pauses: Cell,
    /// Clients closed because they did not read their replies.
    pub slow_clients: Cell,
    /// Subscriptions of clients: channels, patterns, sharded channels.
    pub subscriptions: Cell,
    /// Messages handed to clients that subscribe.
    pub messages: Cell,
    /// Clients that wait in a blocking command.
    pub blocked: Cell,
    /// Clients whose next command waits for the end of a `CLIENT PAUSE`.
    pub held: Cell,
    /// Scripts of clients that are kept; one worker tells it for all.
    pub scripts: Cell,
    /// Connections that one client has for itself, to watch or to wait; bounded by `limits.dedicated_connections`.
    pub dedicated: Cell,
    /// Clients that look on (`MONITOR`).
    pub monitors: Cell,
    /// Lines that they were not shown.
    pub monitor_dropped: Cell,
    nodes: Mutex<Vec<Arc<NodeCells>>>,
}

impl WorkerStats {
    /// Ways that commands take: forwarded whole, split over slots, answered here, loaded from the database.
    pub const ROUTES: [&'static str; 4] = ["single", "split", "local", "load"];

    /// Counters for `commands` commands and `mappings` mappings.
    pub fn new(commands: usize, mappings: usize) -> Self {
        Self {
            commands: (0..=commands).map(|_| CommandCells::default()).collect(),
            errors: ErrorCells::default(),
            detours: Default::default(),
            mappings: (0..mappings).map(|_| MappingCells::default()).collect(),
            clients: Cell::default(),
            accepted: Cell::default(),
            closed: Cell::default(),
            bytes_in: Cell::default(),
            bytes_out: Cell::default(),
            inflight: Cell::default(),
            protocol_errors: Cell::default(),
            redirects: Cell::default(),
            retries: Cell::default(),
            timeouts: Cell::default(),
            pauses: Cell::default(),
            slow_clients: Cell::default(),
            subscriptions: Cell::default(),
            messages: Cell::default(),
            blocked: Cell::default(),
            held: Cell::default(),
            scripts: Cell::default(),
            dedicated: Cell::default(),
            monitors: Cell::default(),
            monitor_dropped: Cell::default(),
            nodes: Mutex::default(),
        }
    }

    /// The counters of the node at `addr`, made when first asked for.
    pub fn node(&self, addr: &str) -> Arc<NodeCells> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = nodes.iter().find(|node| &*node.addr == addr) {
            return known.clone();
        }
        let node = Arc::new(NodeCells {
            addr: addr.into(),
            latency: Latency::default(),
            inflight: Cell::default(),
            connects: Cell::default(),
            losses: Cell::default(),
        });
        nodes.push(node.clone());
        node
    }

    fn nodes(&self) -> Vec<Arc<NodeCells>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Shows the sum over all workers to Prometheus.
#[derive(Debug)]
pub struct WorkerCollector {
    workers: Vec<Arc<WorkerStats>>,
    commands: Vec<&'static str>,
    mappings: Vec<MappingLabels>,
    first: Desc,
}

/// How a mapping is labelled.
#[derive(Clone, Debug)]
pub struct MappingLabels {
    /// Its name.
    pub name: String,
    /// Its key template: the `key` label of the counters that the seed systems know.
    pub key: String,
}

impl WorkerCollector {
    /// A collector over `workers`; `commands` and `mappings` name the indexes.
    ///
    /// # Errors
    /// Never in practice: the name of the first family is a valid one.
    pub fn new(
        workers: Vec<Arc<WorkerStats>>,
        commands: Vec<&'static str>,
        mappings: Vec<MappingLabels>,
    ) -> prometheus::Result<Self> {
        Ok(Self { workers, commands, mappings, first: identity("dsproxy_commands_total")? })
    }

    fn sum(&self, cell: impl Fn(&WorkerStats) -> u64) -> u64 {
        self.workers.iter().map(|worker| cell(worker)).sum()
    }

    fn commands(&self) -> MetricFamily {
        let mut samples = Vec::new();
        for index in 0..=self.commands.len() {
            let name = self.commands.get(index).copied().unwrap_or("unknown");
            let cells =
                |f: fn(&CommandCells) -> &Cell| self.sum(|w| w.commands.get(index).map_or(0, |c| f(c).get()));
            for (outcome, count) in [("ok", cells(|c| &c.ok)), ("error", cells(|c| &c.error))] {
                if count > 0 {
                    samples.push(counter(&[("command", name), ("outcome", outcome)], count));
                }
            }
        }
        family(
            "dsproxy_commands_total",
            "Client commands answered, by name and outcome.",
            samples,
            proto::MetricType::COUNTER,
        )
    }

    fn latencies(&self) -> MetricFamily {
        let samples = WorkerStats::ROUTES
            .iter()
            .enumerate()
            .map(|(index, route)| histogram(&[("route", route)], &buckets::of_route(&self.workers, index)));
        family(
            "dsproxy_command_duration_seconds",
            "From a client's request to its reply, by the way the command took.",
            samples.collect(),
            proto::MetricType::HISTOGRAM,
        )
    }

    /// One histogram per command that was called: their number is that of the commands.
    fn latencies_by_name(&self) -> MetricFamily {
        let all = (0..=self.commands.len()).map(|index| (index, buckets::of_command(&self.workers, index)));
        let called = all.filter(|(_, merged)| merged.buckets.iter().any(|count| *count > 0));
        let samples = called.map(|(index, merged)| {
            histogram(&[("command", self.commands.get(index).copied().unwrap_or("unknown"))], &merged)
        });
        family(
            "dsproxy_command_latency_seconds",
            "From a client's request to its reply, by command; of those that were not answered at once.",
            samples.collect(),
            proto::MetricType::HISTOGRAM,
        )
    }

    fn nodes(&self, families: &mut Vec<MetricFamily>) {
        let mut nodes: HashMap<Box<str>, (Merged, u64, u64, u64)> = HashMap::new();
        for node in self.workers.iter().flat_map(|worker| worker.nodes()) {
            let total = nodes.entry(node.addr.clone()).or_default();
            node.latency.merge_into(&mut total.0);
            total.1 += node.inflight.get();
            total.2 += node.connects.get();
            total.3 += node.losses.get();
        }
        let mut latency = Vec::new();
        let mut inflight = Vec::new();
        let mut connects = Vec::new();
        let mut losses = Vec::new();
        for (addr, (merged, waiting, made, lost)) in &nodes {
            let labels = [("node", &**addr)];
            latency.push(histogram(&labels, merged));
            inflight.push(gauge(&labels, *waiting as f64));
            connects.push(counter(&labels, *made));
            losses.push(counter(&labels, *lost));
        }
        families.push(family(
            "dsproxy_upstream_duration_seconds",
            "From dispatch to a node to its reply.",
            latency,
            proto::MetricType::HISTOGRAM,
        ));
        families.push(family(
            "dsproxy_upstream_inflight_requests",
            "Requests that a node has not answered.",
            inflight,
            proto::MetricType::GAUGE,
        ));
        families.push(family(
            "dsproxy_upstream_connects_total",
            "Connections made to a node.",
            connects,
            proto::MetricType::COUNTER,
        ));
        families.push(family(
            "dsproxy_upstream_losses_total",
            "Connections to a node lost or refused.",
            losses,
            proto::MetricType::COUNTER,
        ));
    }
}

impl Collector for WorkerCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.first]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = vec![self.commands(), self.errors(), self.latencies(), self.latencies_by_name()];
        self.hits_and_misses(&mut families);
        self.nodes(&mut families);
        self.plain(&mut families);
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_the_bucket_whose_bound_covers_them() {
        let latency = Latency::default();
        for us in [0, 64, 65, 128, 129, 10_000_000, u64::MAX / 2] {
            latency.record(us);
        }
        let counts: Vec<u64> = latency.buckets.iter().map(Cell::get).collect();
        assert_eq!(counts[..4], [2, 2, 1, 0]);
        assert_eq!(counts[BUCKETS - 1], 2);
    }
}
