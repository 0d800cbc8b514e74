//! Single paths through a core, step by step: what goes to which node, what the client is told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use dsproxy::cluster::Topology;
use dsproxy::command::ID_COUNT;
use dsproxy::core::{About, ClientKey, Core, CoreOptions, Kind};
use dsproxy::metrics::worker::WorkerStats;
use dsproxy::resp::RequestLimits;
use std::sync::Arc;

const A: &str = "10.0.0.1:7000";
const B: &str = "10.0.0.2:7000";
/// Slot of `{a}`, owned by node A at first.
const SLOT_A: u16 = 15495;
const TIMEOUT_US: u64 = 1_000_000;

/// Slot 0-8191 (tag `{b}`) on B, the rest (tag `{a}`) on A.
fn topology() -> Arc<Topology> {
    nodes(&format!("a {A}@1 master - 0 0 1 connected 8192-16383\nb {B}@1 master - 0 0 2 connected 0-8191"))
}

/// Everything on B.
fn all_on_b() -> Arc<Topology> {
    nodes(&format!("b {B}@1 master - 0 0 2 connected 0-16383"))
}

fn nodes(text: &str) -> Arc<Topology> {
    Arc::new(Topology::from_views([(A, text)]).unwrap())
}

fn options() -> CoreOptions {
    CoreOptions {
        request: RequestLimits::default(),
        inflight_per_client: 100,
        output_pause: 1 << 20,
        output_max: 1 << 30,
        upstream_inflight: 1000,
        upstream_buffer: 1 << 20,
        command_timeout_us: TIMEOUT_US,
        backoff_us: (1000, 50_000),
        upstream_auth: None,
        password: None,
        about: About { redis_version: "7.0.0".into(), port: 6380, workers: 1, worker: 0 },
    }
}

/// A core, and a driver that does at once what it asks for, save for connecting when told not to.
struct Rig {
    core: Core,
    stats: Arc<WorkerStats>,
    /// Connections that the core wants and that are not made.
    wanted: Vec<usize>,
    closed: Vec<usize>,
    connects: bool,
}

impl Rig {
    fn new(options: CoreOptions) -> Self {
        let stats = Arc::new(WorkerStats::new(ID_COUNT, 0));
        let mut core = Core::new(options, topology(), None, stats.clone());
        core.now = 10_000_000;
        Self { core, stats, wanted: Vec::new(), closed: Vec::new(), connects: true }
    }

    fn client(&mut self) -> ClientKey {
        self.core.add_client(Kind::Socket, None)
    }

    /// The client sends these lines, as inline commands.
    fn send(&mut self, client: ClientKey, lines: &str) {
        for line in lines.lines() {
            let mut bytes = Vec::new();
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            dsproxy::resp::push_command(&mut bytes, args.iter().copied());
            self.send_raw(client, &bytes);
        }
    }

    fn send_raw(&mut self, client: ClientKey, bytes: &[u8]) {
        self.core.client_data(client, bytes);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(key) = self.core.outbox.resume.pop() {
            self.core.resume(key);
        }
        while let Some(index) = self.core.outbox.close.pop() {
            self.closed.push(index);
        }
        self.wanted.append(&mut self.core.outbox.connect);
        if self.connects {
            for index in std::mem::take(&mut self.wanted) {
                self.core.upstream_connected(index);
            }
        }
        self.core.outbox.dirty.clear();
    }

    /// The connection to a node in RESP2, which must have been asked for.
    fn upstream(&self, addr: &str) -> usize {
        (0..8).find(|index| self.core.upstream_addr(*index) == addr).unwrap()
    }

    /// What a node is sent, as lines of words.
    fn node_gets(&mut self, addr: &str) -> String {
        let index = self.upstream(addr);
        self.core.clean(index);
        let bytes = self.core.upstream_output(index).to_vec();
        self.core.upstream_wrote(index, bytes.len());
        words(&bytes)
    }

    /// How many requests a node is sent, if it was ever spoken to.
    fn node_gets_some(&mut self, addr: &str) -> usize {
        if (0..8).any(|index| self.core.upstream_addr(index) == addr) {
            self.node_gets(addr).lines().count()
        } else {
            0
        }
    }

    fn node_says(&mut self, addr: &str, reply: &[u8]) {
        let index = self.upstream(addr);
        self.core.upstream_data(index, reply);
        self.settle();
    }

    fn node_is_lost(&mut self, addr: &str) {
        let index = self.upstream(addr);
        self.core.upstream_lost(index, "reset");
        self.settle();
    }

    /// What the client is told and takes off its socket, if the core says that there is something to do for it. As the
    /// driver does, closes it right after if the core says so.
    fn told(&mut self, client: ClientKey) -> String {
        if !self.core.outbox.touched.contains(&client) {
            return String::new();
        }
        self.core.outbox.touched.retain(|key| *key != client);
        self.core.untouch(client);
        let bytes = self.core.client_output(client).to_vec();
        self.core.client_wrote(client, bytes.len());
        if self.core.is_finished(client) {
            self.core.remove_client(client);
        }
        self.settle();
        String::from_utf8(bytes).unwrap()
    }

    fn later(&mut self, us: u64) {
        self.core.now += us;
        self.core.tick();
        self.settle();
    }

    fn is_closed(&self, client: ClientKey) -> bool {
        !self.core.socket_clients().contains(&client)
    }
}

/// RESP requests as lines of words.
fn words(mut bytes: &[u8]) -> String {
    let mut lines = Vec::new();
    let mut scanner = dsproxy::resp::RequestScanner::default();
    while let Ok(dsproxy::resp::Scan::Complete(length)) = scanner.scan(bytes, &RequestLimits::default()) {
        let args = dsproxy::resp::Args::new(bytes, scanner.spans());
        lines.push(args.iter().map(|arg| String::from_utf8_lossy(arg)).collect::<Vec<_>>().join(" "));
        scanner.reset();
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty(), "an unfinished request was sent");
    lines.join("\n")
}

#[test]
fn a_get_is_forwarded_and_answered() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(client, "GET {a}1\nGET {b}1");
    assert_eq!((rig.node_gets(A), rig.node_gets(B)), ("GET {a}1".into(), "GET {b}1".into()));
    rig.node_says(B, b"$1\r\n2\r\n");
    assert_eq!(rig.told(client), "");
    rig.node_says(A, b"$1\r\n1\r\n");
    assert_eq!(rig.told(client), "$1\r\n1\r\n$1\r\n2\r\n");
    assert_eq!(rig.stats.inflight.get(), 0);
}

#[test]
fn a_request_that_timed_out_before_it_was_sent_is_never_sent() {
    let mut rig = Rig::new(options());
    rig.connects = false;
    let client = rig.client();
    rig.send(client, "INCR {a}early");
    rig.later(TIMEOUT_US - 1);
    rig.send(client, "GET {a}late");
    rig.later(2);
    assert!(rig.told(client).contains("the command was not run"));
    rig.connects = true;
    rig.settle();
    assert_eq!(rig.node_gets(A), "GET {a}late");
    rig.node_says(A, b"$4\r\nlate\r\n");
    assert_eq!(rig.told(client), "$4\r\nlate\r\n");
}

#[test]
fn a_node_that_does_not_finish_the_handshake_holds_nobody_longer_than_the_timeout() {
    let mut rig = Rig::new(options());
    rig.connects = false;
    let client = rig.client();
    rig.send(client, "HELLO 3\nSET {a}1 x");
    rig.told(client);
    rig.later(TIMEOUT_US / 2);
    rig.connects = true;
    rig.settle();
    assert_eq!(rig.node_gets(A), "HELLO 3\nSET {a}1 x");
    rig.later(TIMEOUT_US / 2 + 1);
    assert!(rig.told(client).contains("whether the command ran is unknown"));
}

#[test]
fn a_client_is_not_paused_for_an_earlier_one_at_its_index() {
    let mut rig = Rig::new(CoreOptions { upstream_inflight: 1, ..options() });
    rig.connects = false;
    let first = rig.client();
    rig.send(first, "SET {a}1 x");
    rig.core.remove_client(first);
    let second = rig.client();
    assert_eq!(first.index, second.index);
    // The request of the first client moves to another connection, which is at its limit then.
    rig.core.set_topology(all_on_b());
    rig.settle();
    assert!(rig.core.wants_read(second), "nothing will ever resume it");
}

#[test]
fn a_half_closed_client_at_its_limits_gets_all_replies() {
    for inflight_per_client in [1, 2, 100] {
        for output_pause in [1, 20, 1 << 20] {
            let mut rig = Rig::new(CoreOptions { inflight_per_client, output_pause, ..options() });
            let client = rig.client();
            rig.send_raw(
                client,
                b"GET {a}1\r\nECHO one\r\nHELLO 2\r\nGET {a}2\r\nECHO two\r\nGET {a}unfinis",
            );
            rig.core.client_eof(client);
            let mut told = String::new();
            for _ in 0..10 {
                told += &rig.told(client);
                for _ in 0..rig.node_gets_some(A) {
                    rig.node_says(A, b"$1\r\nv\r\n");
                }
            }
            assert_eq!(told.matches("$1\r\nv\r\n").count(), 2, "{told:?}");
            assert!(told.contains("one") && told.contains("two"), "{told:?}");
            assert!(rig.is_closed(client), "{inflight_per_client} {output_pause}");
        }
    }
}

#[test]
fn a_pause_in_a_long_request_does_not_disturb_other_clients() {
    let mut rig = Rig::new(CoreOptions { output_pause: 100, ..options() });
    let (long, other) = (rig.client(), rig.client());
    let mut request = Vec::new();
    dsproxy::resp::push_command(&mut request, (0..31).map(|n| if n == 0 { &b"DEL"[..] } else { b"{a}key" }));
    rig.send(long, "GET {a}big");
    rig.send_raw(long, &request[..request.len() / 2 + 100]);
    assert_eq!(rig.node_gets(A), "GET {a}big");
    rig.node_says(A, format!("$200\r\n{:200}\r\n", "").as_bytes());
    rig.send_raw(long, &request[request.len() / 2 + 100..]);
    rig.send(other, "GET {a}1\nGET {a}2");
    assert_eq!(rig.node_gets(A), "GET {a}1\nGET {a}2");
    rig.told(long);
    assert_eq!(rig.node_gets(A), format!("DEL{}", " {a}key".repeat(30)));
}
