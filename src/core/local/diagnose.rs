//! `SLOWLOG`, `LATENCY` and `MEMORY`, about the proxy itself.
//!
//! Must not know: how slow commands are found.

use super::super::Core;
use super::{Refusal, integer, is, push_double, push_map_header, push_text, unsupported};
use crate::command::{self, Command};
use crate::metrics::Usage;
use crate::metrics::worker::{WorkerStats, command_latency, route_latency};
use crate::resp::{Args, push_array_header, push_bulk, push_integer, push_simple};

const NO_EVENTS: &str = "dsproxy keeps no latency events. Latencies by route, node and query are on its metrics page; \
                         slow commands are in SLOWLOG.\n";

impl Core {
    pub(super) fn diagnose(
        &mut self,
        command: &Command,
        args: &Args<'_>,
        protocol: u8,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        match command.name {
            "slowlog|get" => return self.slowlog_get(args, reply),
            "slowlog|len" => push_integer(reply, self.process.slow.len() as i64),
            "slowlog|reset" => {
                self.process.slow.clear();
                push_simple(reply, "OK");
            }
            "latency|latest" | "latency|history" => push_array_header(reply, 0),
            "latency|histogram" => self.histograms(args, protocol, reply),
            "latency|reset" => push_integer(reply, 0),
            "latency|graph" => {
                let event = args.get(2).unwrap_or_default().escape_ascii();
                return Err(format!("ERR No samples available for event '{event}'"));
            }
            "latency|doctor" => push_text(reply, NO_EVENTS, protocol),
            "memory|doctor" => {
                let usage = Usage::now();
                let text = format!(
                    "dsproxy holds no keys. Resident memory is {} bytes, {} at most so far; buffers are bounded by [limits].\n",
                    usage.resident, usage.peak
                );
                push_text(reply, &text, protocol);
            }
            "memory|malloc-stats" => {
                push_text(reply, "dsproxy uses the system's allocator, which keeps no statistics", protocol);
            }
            "memory|purge" => push_simple(reply, "OK"),
            "memory|stats" => self.memory_stats(protocol, reply),
            _ => return Err(unsupported(command)),
        }
        Ok(())
    }

    /// `LATENCY HISTOGRAM [name ...]`: of commands that went to a node; and, asked for by name, of the ways that commands
    /// take.
    fn histograms(&self, args: &Args<'_>, protocol: u8, reply: &mut Vec<u8>) {
        let asks = |name: &str| args.iter().skip(2).any(|arg| is(arg, name));
        // A container stands for its subcommands.
        let is_asked = |name: &str| {
            args.len() == 2
                || asks(name)
                || name.split_once('|').is_some_and(|(container, _)| asks(container))
        };
        let workers = &self.process.stats;
        let routes = (0..).zip(WorkerStats::ROUTES).filter(|(_, name)| asks(name));
        let routes = routes.map(|(route, name)| (name, route_latency(workers, route)));
        let commands = command::all().filter(|command| is_asked(command.name));
        let commands = commands.map(|command| (command.name, command_latency(workers, command.id.into())));
        let shown: Vec<_> = routes.chain(commands).filter(|(_, buckets)| !buckets.is_empty()).collect();
        push_map_header(reply, shown.len(), protocol);
        for (name, buckets) in shown {
            push_bulk(reply, name.as_bytes());
            push_map_header(reply, 2, protocol);
            push_bulk(reply, b"calls");
            push_integer(reply, buckets.last().map_or(0, |(_, calls)| *calls as i64));
            push_bulk(reply, b"histogram_usec");
            push_map_header(reply, buckets.len(), protocol);
            for (bound, count) in buckets {
                push_integer(reply, bound as i64);
                push_integer(reply, count as i64);
            }
        }
    }

    /// `SLOWLOG GET [count]`
    fn slowlog_get(&self, args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let count = slow_count(args, "SLOWLOG")?;
        let newest = self.process.slow.newest(count);
        push_array_header(reply, newest.len());
        for slow in newest {
            push_array_header(reply, 6);
            push_integer(reply, slow.id as i64);
            push_integer(reply, slow.at as i64);
            push_integer(reply, slow.us as i64);
            push_array_header(reply, slow.args.len());
            slow.args.iter().for_each(|arg| push_bulk(reply, arg));
            push_bulk(reply, slow.peer.as_bytes());
            push_bulk(reply, &slow.name);
        }
        Ok(())
    }

    /// `PROXY SLOWLOG [count]`: the same entries, with where the time went.
    pub(super) fn show_slow(
        &self,
        args: &Args<'_>,
        protocol: u8,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let newest = self.process.slow.newest(slow_count(args, "PROXY")?);
        push_array_header(reply, newest.len());
        for slow in newest {
            push_map_header(reply, 9, protocol);
            for (name, number) in [
                ("id", slow.id),
                ("time", slow.at),
                ("microseconds", slow.us),
                ("at_node", slow.us.saturating_sub(slow.held_back_us)),
                ("in_proxy", slow.held_back_us),
                ("retries", slow.attempts.into()),
            ] {
                push_bulk(reply, name.as_bytes());
                push_integer(reply, number as i64);
            }
            push_bulk(reply, b"node");
            push_bulk(reply, slow.node.as_bytes());
            push_bulk(reply, b"client");
            push_bulk(reply, slow.peer.as_bytes());
            push_bulk(reply, b"command");
            push_array_header(reply, slow.args.len());
            slow.args.iter().for_each(|arg| push_bulk(reply, arg));
        }
        Ok(())
    }

    /// `MEMORY STATS`: what has a meaning without keys. Buffers are those of this worker's clients.
    fn memory_stats(&self, protocol: u8, reply: &mut Vec<u8>) {
        let usage = Usage::now();
        let buffers: usize =
            self.clients.iter().map(|(_, client)| client.out.capacity() + client.tail.capacity()).sum();
        let percentage =
            if usage.peak == 0 { 0.0 } else { usage.resident as f64 * 100.0 / usage.peak as f64 };
        let numbers = [
            ("peak.allocated", usage.peak),
            ("total.allocated", usage.resident),
            ("replication.backlog", 0),
            ("clients.slaves", 0),
            ("clients.normal", buffers as u64),
            ("cluster.links", 0),
            ("aof.buffer", 0),
            ("keys.count", 0),
            ("keys.bytes-per-key", 0),
            ("dataset.bytes", 0),
        ];
        push_map_header(reply, numbers.len() + 1, protocol);
        for (name, value) in numbers {
            push_bulk(reply, name.as_bytes());
            push_integer(reply, value as i64);
        }
        push_bulk(reply, b"peak.percentage");
        push_double(reply, percentage, protocol);
    }
}

/// How many entries of the slow log are asked for.
fn slow_count(args: &Args<'_>, container: &str) -> Result<usize, Refusal> {
    match (args.get(2), args.len()) {
        (None, _) => Ok(10),
        (Some(count), 3) => match integer(count) {
            Some(-1) => Ok(usize::MAX),
            Some(count) if count >= 0 => Ok(count as usize),
            _ => Err("ERR count should be greater than or equal to -1".into()),
        },
        _ => {
            let word = args.get(1).unwrap_or_default().escape_ascii();
            Err(format!(
                "ERR unknown subcommand or wrong number of arguments for '{word}'. Try {container} HELP."
            ))
        }
    }
}
