//! `WAIT`: how many replicas have what a client wrote.
//!
//! Must not know: which nodes a client wrote to.
//!
//! A node answers `WAIT` for the connection that asks, and a client's writes went over connections that it shares with
//! others. So each primary is asked how far its replication stream is (`INFO replication`), over one connection per node and
//! worker, whoever waits: what the client wrote is answered, so it lies before that point. Then, round after round, which
//! replicas have acknowledged that point. By themselves they do so once a second; a `WAIT` for more replicas than there can
//! be makes the node ask them at once, and is the pause between two rounds.
//!
//! The answer is the least over all primaries. A write may be gone with the connection that it went over, or with the
//! primary that took it; then replicas would be counted for other data. Whoever was connected before that is told so, once.

use super::client::{Begun, Slot};
use super::{ClientKey, Core, Route};
use crate::cluster::{Entry, Topology, Upstream};
use crate::command::{Command, lookup};
use crate::resp::{Args, push_command, push_error, push_integer};

/// The shortest and the longest pause between two rounds, in milliseconds.
const PAUSE_MS: (u64, u64) = (2, 64);
/// So much longer than its own time a client waits for the first word of every node, in microseconds.
const GRACE_US: u64 = 1_000_000;
/// More replicas than a node can have.
const TOO_MANY: &[u8] = b"2147483647";
const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// The clients that wait, and the connections that ask for them.
#[derive(Debug, Default)]
pub(super) struct Waits {
    waiters: Vec<Waiter>,
    probes: Vec<Probe>,
    /// When writes may have been lost last, by the clock of the core, and how.
    broken: Option<(u64, String)>,
}

/// The connection that asks one node.
#[derive(Debug)]
struct Probe {
    upstream: usize,
    addr: Box<str>,
    pause_ms: u64,
}

/// One client that waits.
#[derive(Debug)]
struct Waiter {
    client: ClientKey,
    seq: u32,
    wanted: i64,
    /// In microseconds of the core's clock.
    until: u64,
    nodes: Vec<Node>,
}

/// What is known of one primary for one client.
#[derive(Debug)]
struct Node {
    /// Position of its probe.
    probe: usize,
    /// Requests that the probe had sent before the client waited: what they tell is older than its writes.
    asked_before: u64,
    /// The point of the stream that covers what the client wrote.
    target: Option<u64>,
    /// Replicas that have acknowledged it.
    replicas: i64,
}

impl Waiter {
    /// The least over all primaries, once each has told something.
    fn least(&self) -> Option<i64> {
        let told = self.nodes.iter().all(|node| node.target.is_some());
        told.then(|| self.nodes.iter().map(|node| node.replicas).min().unwrap_or(0))
    }

    /// True when it is to be answered. Every node is heard once, however short the client's time is.
    fn is_over(&self, now: u64) -> bool {
        match self.least() {
            Some(least) => least >= self.wanted || self.until <= now,
            None => self.until.saturating_add(GRACE_US) <= now,
        }
    }
}

impl Waits {
    /// How many clients wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// True for a client that waits.
    pub fn has(&self, key: ClientKey) -> bool {
        self.waiters.iter().any(|waiter| waiter.client == key)
    }

    fn probe_of(&self, upstream: usize) -> Option<usize> {
        self.probes.iter().position(|probe| probe.upstream == upstream)
    }
}

impl Core {
    /// `WAIT numreplicas timeout`, when the client has nothing in flight.
    pub(super) fn run_wait(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        let now = self.now;
        let number = |at: usize| args.get(at).and_then(super::local::integer);
        let (wanted, timeout) = match (number(1), number(2)) {
            (None, _) => return self.answer_error(index, Some(command), super::local::NO_INTEGER.as_bytes()),
            (_, None) => {
                return self.answer_error(
                    index,
                    Some(command),
                    b"ERR timeout is not an integer or out of range",
                );
            }
            (_, Some(..0)) => return self.answer_error(index, Some(command), b"ERR timeout is negative"),
            (Some(wanted), Some(timeout)) => (wanted, timeout as u64),
        };
        let Some(client) = self.clients.get_mut(index) else { return };
        let since = client.session.since.max(std::mem::replace(&mut client.waited_at, now));
        if let Some((_, how)) = self.waits.broken.as_ref().filter(|(at, _)| *at >= since) {
            let text = format!(
                "ERR dsproxy: {how}; how many replicas have what this client wrote before is unknown, the next WAIT is about what follows"
            );
            return self.answer_error(index, Some(command), text.as_bytes());
        }
        let Some(client) = self.clients.get_mut(index) else { return };
        let key = ClientKey { index: index as u32, serial: client.serial };
        let seq = client.open(Slot::Waiting(Begun { at: now, command: command.id }));
        self.stats.inflight.add(1);
        let until = if timeout == 0 { u64::MAX } else { now.saturating_add(timeout.saturating_mul(1000)) };
        let addrs: Vec<Box<str>> =
            self.routes.topology().nodes().iter().map(|node| node.addr.clone()).collect();
        let nodes = addrs.iter().map(|addr| self.begin_probe(addr)).collect();
        self.waits.waiters.push(Waiter { client: key, seq, wanted, until, nodes });
        self.wait_alone(index);
    }

    /// Asks a node from now on.
    fn begin_probe(&mut self, addr: &str) -> Node {
        let known = self.waits.probes.iter().position(|probe| *probe.addr == *addr);
        let probe = known.unwrap_or_else(|| {
            let upstream = self.upstreams.insert(Upstream::new(addr, 2));
            self.waits.probes.push(Probe { upstream, addr: addr.into(), pause_ms: PAUSE_MS.0 });
            self.waits.probes.len() - 1
        });
        let upstream = self.waits.probes.get_mut(probe).map_or(usize::MAX, |probe| {
            probe.pause_ms = PAUSE_MS.0;
            probe.upstream
        });
        let asked_before = self.upstreams.get(upstream).map_or(0, Upstream::mark);
        self.ask_how_far(upstream);
        Node { probe, asked_before, target: None, replicas: 0 }
    }

    fn ask_how_far(&mut self, upstream: usize) {
        self.send_probe(upstream, &[b"INFO", b"replication"]);
    }

    fn send_probe(&mut self, upstream: usize, words: &[&[u8]]) {
        let command = lookup(b"wait").map_or(super::NO_COMMAND, |command| command.id);
        let entry = Entry { at: self.now, command, readonly: true, ..Entry::NONE };
        let mut request = Vec::new();
        push_command(&mut request, words.iter().copied());
        self.send_to(upstream, entry, &request);
    }

    /// A node has told how far it is.
    #[cold]
    pub(super) fn probe_told(&mut self, upstream: usize, reply: &[u8]) {
        let Some(probe) = self.waits.probe_of(upstream) else { return };
        let Some(told) = Told::read(&String::from_utf8_lossy(reply)) else {
            return self.fail_waiters(probe, "is no primary any more");
        };
        let Some(up) = self.upstreams.get(upstream) else { return };
        for waiter in &mut self.waits.waiters {
            for node in waiter.nodes.iter_mut().filter(|node| node.probe == probe) {
                if up.answered_up_to(node.asked_before + 1) {
                    let target = *node.target.get_or_insert(told.offset);
                    node.replicas = told.acknowledged.iter().filter(|at| **at >= target).count() as i64;
                }
            }
        }
        let asks_more = up.inflight() == 0;
        self.end_waiters();
        if asks_more && self.is_waited_for(probe) {
            self.next_round(probe);
        }
    }

    fn next_round(&mut self, probe: usize) {
        let Some(probe) = self.waits.probes.get_mut(probe) else { return };
        let (upstream, pause) = (probe.upstream, probe.pause_ms.to_string());
        probe.pause_ms = (probe.pause_ms * 2).min(PAUSE_MS.1);
        self.send_probe(upstream, &[b"WAIT", TOO_MANY, pause.as_bytes()]);
        self.ask_how_far(upstream);
    }

    fn is_waited_for(&self, probe: usize) -> bool {
        self.waits.waiters.iter().any(|waiter| waiter.nodes.iter().any(|node| node.probe == probe))
    }

    /// A node has refused to tell.
    pub(super) fn probe_refused(&mut self, upstream: usize, error: &[u8]) -> bool {
        let Some(probe) = self.waits.probe_of(upstream) else { return false };
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.answer();
        }
        let text = String::from_utf8_lossy(error.get(1..).unwrap_or_default()).trim_end().to_owned();
        self.fail_waiters(probe, &format!("said: {text}"));
        true
    }

    /// A connection is gone: nobody can be told about the node behind it, or about writes that went over it.
    pub(super) fn wait_lost(&mut self, upstream: usize, addr: &str, was_up: bool) {
        if let Some(probe) = self.waits.probe_of(upstream) {
            return self.fail_waiters(probe, "cannot be reached");
        }
        if was_up && !self.dedicated.owns(upstream) && !self.is_hub(upstream) {
            self.waits.broken = Some((self.now, format!("a connection to {addr} was lost")));
        }
    }

    /// A primary that has left may have taken writes with it.
    pub(super) fn wait_topology(&mut self, old: &Topology) {
        let now = self.routes.topology();
        let gone = |addr: &str| !now.nodes().iter().any(|node| *node.addr == *addr);
        let Some(left) = old.nodes().iter().find(|node| gone(&node.addr)).map(|node| node.addr.clone())
        else {
            return;
        };
        self.waits.broken = Some((self.now, format!("{left} is no primary any more")));
        let probe = self.waits.probes.iter().position(|probe| probe.addr == left);
        if let Some(probe) = probe {
            self.fail_waiters(probe, "is no primary any more");
        }
    }

    /// What the clock makes due. A probe that lost its question, whatever took it, asks again.
    pub(super) fn waits_tick(&mut self) {
        if self.waits.waiters.is_empty() {
            return;
        }
        self.end_waiters();
        for probe in 0..self.waits.probes.len() {
            let upstream = self.waits.probes.get(probe).map_or(usize::MAX, |probe| probe.upstream);
            let is_idle = self.upstreams.get(upstream).is_some_and(|upstream| upstream.inflight() == 0);
            if is_idle && self.is_waited_for(probe) {
                self.ask_how_far(upstream);
            }
        }
    }

    /// `CLIENT UNBLOCK` of a client that waits; false when it does not.
    pub(super) fn unblock_wait(&mut self, key: ClientKey, error: bool) -> bool {
        let Some(at) = self.waits.waiters.iter().position(|waiter| waiter.client == key) else {
            return false;
        };
        let waiter = self.waits.waiters.swap_remove(at);
        let text = error.then(|| UNBLOCKED.to_owned());
        self.answer_waiter(&waiter, text);
        true
    }

    /// The program ends.
    pub(super) fn stop_waits(&mut self) {
        for waiter in std::mem::take(&mut self.waits.waiters) {
            if let Some(client) = self.client_mut(waiter.client) {
                client.gone = true;
                self.touch(waiter.client.index as usize);
            }
        }
    }

    /// Answers those for whom it is time, and forgets those that have gone.
    fn end_waiters(&mut self) {
        let now = self.now;
        for waiter in std::mem::take(&mut self.waits.waiters) {
            if self.client(waiter.client).is_none() {
                continue;
            }
            if waiter.is_over(now) {
                self.answer_waiter(&waiter, None);
            } else {
                self.waits.waiters.push(waiter);
            }
        }
    }

    fn fail_waiters(&mut self, probe: usize, why: &str) {
        let addr = self.waits.probes.get(probe).map_or_else(String::new, |probe| probe.addr.to_string());
        let text = format!("ERR dsproxy: {addr} {why}; how many replicas have the writes is unknown");
        for waiter in std::mem::take(&mut self.waits.waiters) {
            if waiter.nodes.iter().any(|node| node.probe == probe) {
                self.answer_waiter(&waiter, Some(text.clone()));
            } else {
                self.waits.waiters.push(waiter);
            }
        }
    }

    /// Answers with an error, or with what is known: a node that has told nothing is named.
    fn answer_waiter(&mut self, waiter: &Waiter, error: Option<String>) {
        let mut reply = Vec::new();
        match (error, waiter.least()) {
            (Some(text), _) => push_error(&mut reply, text),
            (None, Some(least)) => push_integer(&mut reply, least),
            (None, None) => {
                let silent = waiter.nodes.iter().filter(|node| node.target.is_none());
                let addrs: Vec<&str> =
                    silent.filter_map(|node| self.waits.probes.get(node.probe)).map(|p| &*p.addr).collect();
                let addrs = addrs.join(", ");
                push_error(
                    &mut reply,
                    format!(
                        "ERR dsproxy: {addrs} did not answer in time; how many replicas have the writes is unknown"
                    ),
                );
            }
        }
        let index = waiter.client.index as usize;
        if self.client(waiter.client).is_some() {
            self.complete(index, waiter.seq, &reply, Route::Single);
            self.check_resume(index);
        }
    }
}

/// What `INFO replication` of a primary says.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    offset: u64,
    /// How far each replica that is online has acknowledged.
    acknowledged: Vec<u64>,
}

impl Told {
    /// `None` when it is no primary.
    fn read(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        if field("role")?.trim() != "master" {
            return None;
        }
        let replicas = text.lines().filter(|line| {
            let number = line.strip_prefix("slave").and_then(|rest| rest.split(':').next());
            number.is_some_and(|number| number.parse::<u32>().is_ok()) && line.contains("state=online")
        });
        let acknowledged = replicas.filter_map(|line| {
            line.trim().split(',').find_map(|pair| pair.strip_prefix("offset="))?.parse().ok()
        });
        Some(Self {
            offset: field("master_repl_offset")?.trim().parse().ok()?,
            acknowledged: acknowledged.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_replicas_that_are_online_count() {
        let text = "# Replication\r\nrole:master\r\nconnected_slaves:3\r\n\
                    slave0:ip=127.0.0.1,port=1,state=online,offset=140,lag=0\r\n\
                    slave1:ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0\r\n\
                    slave2:ip=127.0.0.1,port=3,state=online,offset=154,lag=1\r\n\
                    master_repl_offset:154\r\nsecond_repl_offset:-1\r\n";
        assert_eq!(Told::read(text), Some(Told { offset: 154, acknowledged: vec![140, 154] }));
        assert_eq!(Told::read(&text.replace("role:master", "role:slave")), None);
        assert_eq!(Told::read("role:master\r\n"), None);
    }
}
