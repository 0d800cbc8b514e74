//! `INFO`: the proxy's state under the names that monitoring agents know.
//!
//! Must not know: clients.
//!
//! Every number is the proxy's own; a name of Redis that has no meaning here is left out, unless agents insist on it.

use super::super::Core;
use super::super::pause::Held;
use super::super::process::Totals;
use super::is;
use crate::command;
use crate::metrics::Usage;
use crate::metrics::worker::command_latency;
use crate::resp::Args;
use std::fmt::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One section: its name, whether it is shown unasked, and what writes it.
type Section = (&'static str, bool, fn(&Core, &Totals, &mut String));

const SECTIONS: [Section; 13] = [
    ("Server", true, Core::info_server),
    ("Clients", true, Core::info_clients),
    ("Memory", true, Core::info_memory),
    ("Persistence", true, Core::info_persistence),
    ("Stats", true, Core::info_stats),
    ("Replication", true, Core::info_replication),
    ("CPU", true, Core::info_cpu),
    ("Modules", true, |_, _, _| {}),
    ("Errorstats", true, Core::info_errorstats),
    ("Commandstats", false, Core::info_commandstats),
    ("Latencystats", false, Core::info_latencystats),
    ("Cluster", true, Core::info_cluster),
    ("Proxy", true, Core::info_proxy),
];

/// A line of a section.
macro_rules! line {
    ($out:expr, $($text:tt)*) => {{
        // Writing to a string does not fail.
        let _ = write!($out, $($text)*);
        $out.push_str("\r\n");
    }};
}

/// What an `INFO` asks for, as far as it is known here.
#[derive(Debug)]
pub(in super::super) struct Sections {
    /// Sections before that of the keyspace.
    pub before: String,
    /// Sections after it.
    pub after: String,
    /// Whether that of the keyspace is asked for, which nodes have to be asked about.
    pub keyspace: bool,
    /// By its name.
    pub insists: bool,
}

impl Core {
    /// The sections that `args` ask for.
    pub(in super::super) fn info(&self, args: &Args<'_>) -> Sections {
        let asked: Vec<&[u8]> = args.iter().skip(1).collect();
        let asks = |word: &str| asked.iter().any(|arg| is(arg, word));
        let (default, all) = (asked.is_empty() || asks("default"), asks("all") || asks("everything"));
        let totals = self.process.totals();
        let mut sections = Sections {
            before: String::new(),
            after: String::new(),
            keyspace: default || all || asks("keyspace"),
            insists: asks("keyspace") && !default && !all,
        };
        for (name, shown, write) in SECTIONS {
            if all || shown && default || asks(name) {
                // Only that of the proxy comes after the keyspace.
                let is_last = sections.keyspace && name == "Proxy";
                let text = if is_last { &mut sections.after } else { &mut sections.before };
                if !text.is_empty() {
                    text.push_str("\r\n");
                }
                line!(text, "# {name}");
                write(self, &totals, text);
            }
        }
        sections
    }

    fn info_server(&self, _: &Totals, out: &mut String) {
        let (about, uptime) = (&self.options.about, self.process.started.elapsed().as_secs());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        line!(out, "redis_version:{}", about.redis_version);
        line!(out, "redis_mode:standalone");
        line!(out, "os:{}", std::env::consts::OS);
        line!(out, "arch_bits:{}", usize::BITS);
        line!(out, "process_id:{}", std::process::id());
        line!(out, "run_id:{}", self.process.run_id);
        line!(out, "tcp_port:{}", about.port);
        line!(out, "server_time_usec:{}", now.as_micros());
        line!(out, "uptime_in_seconds:{uptime}");
        line!(out, "uptime_in_days:{}", uptime / 86_400);
        line!(out, "io_threads_active:{}", u8::from(about.workers > 1));
    }

    fn info_clients(&self, _: &Totals, out: &mut String) {
        let clients: u64 = self.process.stats.iter().map(|worker| worker.clients.get()).sum();
        line!(out, "connected_clients:{clients}");
        line!(out, "cluster_connections:0");
        line!(out, "maxclients:{}", self.process.live.max_clients.get());
        let blocked: u64 =
            self.process.stats.iter().map(|worker| worker.blocked.get() + worker.held.get()).sum();
        line!(out, "blocked_clients:{blocked}");
        line!(out, "tracking_clients:0");
        let pause = self.process.pause.state();
        let (reason, held) = pause.map_or(("none", Held::Nothing), |(held, _)| ("client_pause", held));
        let left = pause.map_or(0, |(_, until)| until.saturating_duration_since(Instant::now()).as_millis());
        line!(out, "paused_reason:{reason}");
        line!(out, "paused_actions:{}", held.name());
        line!(out, "paused_timeout_milliseconds:{left}");
    }

    fn info_memory(&self, _: &Totals, out: &mut String) {
        let usage = Usage::now();
        for (name, bytes) in [
            ("used_memory", usage.resident),
            ("used_memory_rss", usage.resident),
            ("used_memory_peak", usage.peak),
            ("total_system_memory", usage.machine),
            ("maxmemory", 0),
        ] {
            line!(out, "{name}:{bytes}");
            line!(out, "{name}_human:{}", human(bytes));
        }
        line!(out, "maxmemory_policy:noeviction");
        line!(out, "mem_fragmentation_ratio:1.00");
        line!(out, "mem_allocator:libc");
    }

    /// Nothing is stored here; agents look at these to see that nothing is wrong.
    fn info_persistence(&self, _: &Totals, out: &mut String) {
        line!(out, "loading:0");
        line!(out, "async_loading:0");
        line!(out, "rdb_changes_since_last_save:0");
        line!(out, "rdb_bgsave_in_progress:0");
        line!(out, "rdb_last_save_time:{}", self.process.started_at);
        line!(out, "rdb_last_bgsave_status:ok");
        line!(out, "aof_enabled:0");
        line!(out, "aof_rewrite_in_progress:0");
        line!(out, "aof_last_bgrewrite_status:ok");
        line!(out, "aof_last_write_status:ok");
    }

    fn info_stats(&self, totals: &Totals, out: &mut String) {
        line!(out, "total_connections_received:{}", totals.accepted);
        line!(out, "total_commands_processed:{}", totals.calls());
        let [commands, input, output] = self.process.rates();
        line!(out, "instantaneous_ops_per_sec:{commands}");
        line!(out, "total_net_input_bytes:{}", totals.bytes.0);
        line!(out, "total_net_output_bytes:{}", totals.bytes.1);
        line!(out, "instantaneous_input_kbps:{:.2}", input as f64 / 1024.0);
        line!(out, "instantaneous_output_kbps:{:.2}", output as f64 / 1024.0);
        line!(out, "rejected_connections:{}", totals.refused);
        line!(out, "expired_keys:0");
        line!(out, "evicted_keys:0");
        line!(out, "keyspace_hits:{}", totals.reads.0);
        line!(out, "keyspace_misses:{}", totals.reads.1);
        for (name, count) in self.pubsub.subscribed() {
            line!(out, "{name}:{count}");
        }
        line!(out, "total_error_replies:{}", totals.errors());
    }

    fn info_errorstats(&self, totals: &Totals, out: &mut String) {
        for (code, count) in totals.codes.iter().filter(|(_, count)| *count > 0) {
            line!(out, "errorstat_{code}:count={count}");
        }
    }

    fn info_replication(&self, _: &Totals, out: &mut String) {
        line!(out, "role:master");
        line!(out, "connected_slaves:0");
        line!(out, "master_failover_state:no-failover");
        line!(out, "master_replid:{}", self.process.run_id);
        line!(out, "master_repl_offset:0");
    }

    fn info_cpu(&self, _: &Totals, out: &mut String) {
        let (user, system) = Usage::now().cpu_seconds;
        line!(out, "used_cpu_sys:{system:.6}");
        line!(out, "used_cpu_user:{user:.6}");
    }

    /// `usec` is the time from dispatch to reply as clients see it, zero for what is answered here.
    fn info_commandstats(&self, totals: &Totals, out: &mut String) {
        for command in command::all() {
            let Some((calls, errors, us)) = totals.commands.get(usize::from(command.id)) else { continue };
            if *calls > 0 {
                line!(
                    out,
                    "cmdstat_{}:calls={calls},usec={us},usec_per_call={:.2},rejected_calls=0,failed_calls={errors}",
                    command.name,
                    *us as f64 / *calls as f64,
                );
            }
        }
    }

    /// Percentiles are upper bounds, from histograms whose bounds double.
    fn info_latencystats(&self, _: &Totals, out: &mut String) {
        for command in command::all() {
            let buckets = command_latency(&self.process.stats, command.id.into());
            let Some((_, calls)) = buckets.last() else { continue };
            let bound = |part: f64| {
                let found = buckets.iter().find(|(_, count)| *count as f64 >= *calls as f64 * part);
                found.map_or(0, |(bound, _)| *bound)
            };
            let (p50, p99, p999) = (bound(0.5), bound(0.99), bound(0.999));
            line!(
                out,
                "latency_percentiles_usec_{}:p50={p50}.000,p99={p99}.000,p99.9={p999}.000",
                command.name
            );
        }
    }

    /// To clients this is one server. Those for clusters ask `CLUSTER SLOTS` and are served, too; a client that reads 1
    /// here would refuse what a cluster cannot do, and the proxy can.
    fn info_cluster(&self, _: &Totals, out: &mut String) {
        line!(out, "cluster_enabled:0");
    }

    fn info_proxy(&self, totals: &Totals, out: &mut String) {
        let sum = |cell: fn(&crate::metrics::worker::WorkerStats) -> u64| -> u64 {
            self.process.stats.iter().map(|worker| cell(worker)).sum()
        };
        line!(out, "dsproxy_version:{}", env!("CARGO_PKG_VERSION"));
        line!(out, "workers:{}", self.options.about.workers);
        line!(out, "upstream_nodes:{}", self.routes.topology().nodes().len());
        line!(out, "inflight_commands:{}", sum(|worker| worker.inflight.get()));
        line!(out, "redirects:{}", sum(|worker| worker.redirects.get()));
        line!(out, "retries:{}", sum(|worker| worker.retries.get()));
        line!(out, "command_timeouts:{}", sum(|worker| worker.timeouts.get()));
        line!(out, "client_pauses:{}", sum(|worker| worker.pauses.get()));
        line!(out, "slow_clients_closed:{}", sum(|worker| worker.slow_clients.get()));
        line!(out, "protocol_errors:{}", sum(|worker| worker.protocol_errors.get()));
        line!(out, "mapped_hits:{}", totals.reads.0);
        line!(out, "mapped_misses:{}", totals.reads.1);
        line!(out, "slowlog_entries:{}", self.process.slow.len());
    }
}

/// Bytes as Redis prints them for people.
fn human(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match UNITS.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.2}{unit}", bytes as f64 / *size as f64),
        None => format!("{bytes}B"),
    }
}
