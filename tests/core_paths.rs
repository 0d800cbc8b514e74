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
        dedicated_connections: 8,
        dedicated_idle_us: u64::MAX,
        max_retries: 16,
        subscriptions_per_client: 8,
        request_timeout_us: u64::MAX,
        login_timeout_us: u64::MAX,
        command_timeout_us: TIMEOUT_US,
        backoff_us: (1000, 50_000),
        upstream_auth: None,
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

    /// The node gets `expected` and answers.
    fn serve(&mut self, addr: &str, expected: &str, reply: &str) {
        assert_eq!(self.node_gets(addr), expected);
        self.node_says(addr, reply.as_bytes());
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

#[test]
fn a_later_command_does_not_overtake_an_earlier_one_when_a_slot_moves() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(client, "SET {a}1 old");
    assert_eq!(rig.node_gets(A), "SET {a}1 old");
    rig.core.set_topology(all_on_b());
    rig.send(client, "SET {a}1 new\nGET {b}1");
    assert_eq!(rig.node_gets(B), "GET {b}1", "what did not move does not wait");
    assert_eq!(rig.core.parked(), 1);
    rig.node_says(A, format!("-MOVED {SLOT_A} {B}\r\n").as_bytes());
    assert_eq!(rig.node_gets(B), "SET {a}1 old\nSET {a}1 new");
    rig.node_says(B, b"$-1\r\n+OK\r\n+OK\r\n");
    assert_eq!(rig.told(client), "+OK\r\n+OK\r\n$-1\r\n");
    assert_eq!(rig.core.parked(), 0);
}

#[test]
fn a_slot_that_moved_does_not_wait_for_nodes_that_have_nothing_to_do_with_it() {
    let mut rig = Rig::new(options());
    let (slow, client) = (rig.client(), rig.client());
    rig.send(slow, "GET {b}1");
    assert_eq!(rig.node_gets(B), "GET {b}1");
    // Everything moves to A but {b}, whose node hangs.
    rig.core.set_topology(nodes(&format!(
        "b {B}@1 master - 0 0 2 connected 3300\na {A}@1 master - 0 0 3 connected 0-3299 3301-16383"
    )));
    rig.send(client, "GET {c}1");
    rig.serve(A, "GET {c}1", "$-1\r\n");
    assert_eq!(rig.told(client), "$-1\r\n");
}

#[test]
fn a_redirected_request_whose_connection_is_lost_stays_before_later_ones() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(client, "GET {b}1");
    rig.serve(B, "GET {b}1", "$-1\r\n");
    rig.send(client, "SET {a}1 old\nSET {a}1 new");
    assert_eq!(rig.node_gets(A), "SET {a}1 old\nSET {a}1 new");
    rig.node_says(A, format!("-ASK {SLOT_A} {B}\r\n").as_bytes());
    rig.node_is_lost(B);
    rig.node_says(A, format!("-ASK {SLOT_A} {B}\r\n").as_bytes());
    assert_eq!(rig.node_gets(A), "SET {a}1 old\nSET {a}1 new");
}

#[test]
fn a_redirect_does_not_overtake_what_waits_to_be_tried_again() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(client, "MGET {a}1 {a}2\nGET {a}1\nSET {a}3 x");
    assert_eq!(rig.node_gets(A), "MGET {a}1 {a}2\nGET {a}1\nSET {a}3 x");
    // The write behind it forbids to try the MGET again; the GET may wait for nobody.
    rig.node_says(A, b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n$1\r\nv\r\n+OK\r\n");
    assert_eq!(
        rig.told(client),
        "-TRYAGAIN Multiple keys request during rehashing of slot\r\n$1\r\nv\r\n+OK\r\n"
    );
    rig.send(client, "MGET {a}1 {a}2\nGET {a}1");
    assert_eq!(rig.node_gets(A), "MGET {a}1 {a}2\nGET {a}1");
    rig.node_says(A, format!("-TRYAGAIN x\r\n-MOVED {SLOT_A} {B}\r\n").as_bytes());
    rig.send(client, "SET {a}1 new");
    rig.core.set_topology(all_on_b());
    rig.later(20_000);
    assert_eq!(rig.node_gets(B), "MGET {a}1 {a}2\nGET {a}1\nSET {a}1 new");
}

#[test]
fn redirects_never_reach_the_client() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(client, "GET {b}1");
    rig.serve(B, "GET {b}1", "$-1\r\n");
    rig.told(client);
    // A long migration: tried again more often than redirects would be followed, then moved.
    rig.send(client, "MGET {a}1 {a}2");
    for _ in 0..40 {
        rig.serve(A, "MGET {a}1 {a}2", &format!("-ASK {SLOT_A} {B}\r\n"));
        rig.serve(
            B,
            "ASKING\nMGET {a}1 {a}2",
            "+OK\r\n-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        );
        rig.later(20_000);
    }
    rig.serve(A, "MGET {a}1 {a}2", &format!("-MOVED {SLOT_A} {B}\r\n"));
    rig.serve(B, "MGET {a}1 {a}2", "*2\r\n$-1\r\n$-1\r\n");
    assert_eq!(rig.told(client), "*2\r\n$-1\r\n$-1\r\n");
    // Two nodes that each believe the other is the owner.
    rig.send(client, "INCR {a}1");
    let mut told = String::new();
    for _ in 0..2 * TIMEOUT_US / 1000 {
        for (node, other) in [(A, B), (B, A)] {
            if !rig.node_gets(node).is_empty() {
                rig.node_says(node, format!("-MOVED {SLOT_A} {other}\r\n").as_bytes());
            }
        }
        rig.later(1000);
        told += &rig.told(client);
    }
    assert!(
        told.starts_with("-ERR dsproxy: no node could serve") || told.starts_with("-CLUSTERDOWN"),
        "{told}"
    );
}

#[test]
fn an_asking_never_travels_without_its_request() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(client, "SET {a}1 x");
    assert_eq!(rig.node_gets(A), "SET {a}1 x");
    rig.connects = false;
    rig.node_says(A, format!("-ASK {SLOT_A} {B}\r\n").as_bytes());
    rig.core.set_topology(all_on_b());
    rig.settle();
    rig.connects = true;
    rig.settle();
    assert_eq!(rig.node_gets(B), "SET {a}1 x");
}

#[test]
fn redirects_without_a_host_or_with_an_ipv6_one_are_understood() {
    for (redirect, expected) in
        [(":7009", "10.0.0.1:7009"), ("::1:7009", "[::1]:7009"), ("node.example:1", "node.example:1")]
    {
        let mut rig = Rig::new(options());
        let client = rig.client();
        rig.send(client, "GET {a}1");
        rig.serve(A, "GET {a}1", &format!("-MOVED {SLOT_A} {redirect}\r\n"));
        rig.serve(expected, "GET {a}1", "$-1\r\n");
        assert_eq!(rig.told(client), "$-1\r\n");
    }
}

#[test]
fn a_lost_connection_is_answered_as_what_is_known() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(client, "INCR {a}2\nGET {a}1");
    assert_eq!(rig.node_gets(A), "INCR {a}2\nGET {a}1");
    rig.send(client, "INCR {a}3\nGET {b}1");
    rig.serve(B, "GET {b}1", "$1\r\nb\r\n");
    rig.node_is_lost(A);
    rig.later(20_000);
    rig.serve(A, "GET {a}1\nINCR {a}3", "$1\r\na\r\n:1\r\n");
    let told = rig.told(client);
    let lines: Vec<&str> = told.split("\r\n").collect();
    assert_eq!(&lines[1..], &["$1", "a", ":1", "$1", "b", ""], "{told}");
    assert!(
        lines[0]
            .starts_with("-ERR dsproxy: the connection to 10.0.0.1:7000 was lost after the command was sent")
    );
    assert!(lines[0].contains("whether it ran is unknown"), "{told}");
}

#[test]
fn a_read_is_not_sent_again_when_a_later_write_of_its_client_may_have_run() {
    let mut rig = Rig::new(options());
    let (client, other) = (rig.client(), rig.client());
    rig.send(client, "GET {a}1\nSET {a}1 new\nGET {a}1");
    rig.send(other, "GET {a}1");
    assert_eq!(rig.node_gets(A), "GET {a}1\nSET {a}1 new\nGET {a}1\nGET {a}1");
    rig.node_is_lost(A);
    rig.later(20_000);
    // The last read of the one client, and the only one of the other.
    rig.serve(A, "GET {a}1\nGET {a}1", "$3\r\nnew\r\n$3\r\nnew\r\n");
    let told = rig.told(client);
    let lines: Vec<&str> = told.split("\r\n").collect();
    assert!(lines[..2].iter().all(|line| line.contains("whether it ran is unknown")), "{told}");
    assert_eq!(&lines[2..], &["$3", "new", ""], "{told}");
    assert_eq!(rig.told(other), "$3\r\nnew\r\n");
}

#[test]
fn mget_merges_in_order_with_duplicates_and_missing_keys() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(
        client,
        "MGET {a}1 {b}1 {a}2 {b}1 {a}1\nMSET {a}1 x {b}1 y\nDEL {a}1 {b}1 {a}2\nMSET {a}1 x {b}1",
    );
    assert_eq!(rig.node_gets(A), "MGET {a}1 {a}2 {a}1\nMSET {a}1 x\nDEL {a}1 {a}2");
    assert_eq!(rig.node_gets(B), "MGET {b}1 {b}1\nMSET {b}1 y\nDEL {b}1");
    rig.node_says(B, b"*2\r\n$1\r\nB\r\n$1\r\nB\r\n+OK\r\n:1\r\n");
    rig.node_says(A, b"*3\r\n$1\r\nA\r\n$-1\r\n$1\r\nA\r\n+OK\r\n:2\r\n");
    assert_eq!(
        rig.told(client),
        "*5\r\n$1\r\nA\r\n$1\r\nB\r\n$-1\r\n$1\r\nB\r\n$1\r\nA\r\n+OK\r\n:3\r\n-ERR wrong number of arguments for 'mset' command\r\n"
    );
}

#[test]
fn bytes_may_be_cut_anywhere() {
    let request =
        b"*2\r\n$3\r\nGET\r\n$4\r\n{a}1\r\nGET {a}2\r\n*3\r\n$4\r\nMGET\r\n$4\r\n{a}3\r\n$4\r\n{b}1\r\n";
    let (from_a, from_b) = ("$3\r\none\r\n-ERR two\r\n*1\r\n$5\r\nth\r\ne\r\n", "*1\r\n$-1\r\n");
    for cut in 0..request.len() {
        let mut rig = Rig::new(options());
        let client = rig.client();
        rig.send_raw(client, &request[..cut]);
        rig.send_raw(client, &request[cut..]);
        rig.serve(A, "GET {a}1\nGET {a}2\nMGET {a}3", "");
        rig.serve(B, "MGET {b}1", from_b);
        let at = cut.min(from_a.len());
        rig.node_says(A, &from_a.as_bytes()[..at]);
        for byte in &from_a.as_bytes()[at..] {
            rig.node_says(A, &[*byte]);
        }
        let mut told = rig.told(client);
        told += &rig.told(client);
        assert_eq!(told, "$3\r\none\r\n-ERR two\r\n*2\r\n$5\r\nth\r\ne\r\n$-1\r\n", "cut at {cut}");
    }
}

#[test]
fn hello_waits_for_earlier_replies_and_later_commands_for_hello() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(client, "GET {a}1\nHELLO 3\nGET {a}1");
    rig.serve(A, "GET {a}1", "$-1\r\n");
    let resp3 = (0..8).filter(|index| rig.core.upstream_addr(*index) == A).nth(1).unwrap();
    assert_eq!(words(rig.core.upstream_output(resp3)), "HELLO 3\nGET {a}1");
    let sent = rig.core.upstream_output(resp3).len();
    rig.core.upstream_wrote(resp3, sent);
    rig.core.upstream_data(resp3, b"%1\r\n$5\r\nproto\r\n:3\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n_\r\n");
    let told = rig.told(client);
    assert!(told.starts_with("$-1\r\n%7\r\n") && told.ends_with("*0\r\n_\r\n"), "{told}");
}

#[test]
fn quit_and_protocol_errors_come_after_earlier_replies() {
    for (last, expected) in [
        (&b"*1\r\n$4\r\nQUIT\r\nGET {a}2\r\n"[..], "+OK\r\n"),
        (b"*1\r\nx", "-ERR Protocol error: expected '$', got 'x'\r\n"),
    ] {
        let mut rig = Rig::new(options());
        let client = rig.client();
        rig.send(client, "GET {a}1\nPING");
        rig.send_raw(client, last);
        assert!(!rig.core.wants_read(client));
        rig.told(client);
        assert!(!rig.is_closed(client));
        rig.serve(A, "GET {a}1", "$1\r\nv\r\n");
        assert_eq!(rig.told(client), format!("$1\r\nv\r\n+PONG\r\n{expected}"));
        assert!(rig.is_closed(client));
    }
}

#[test]
fn a_node_that_breaks_the_protocol_loses_only_its_own_connection() {
    // The last one is a reply too many: it is noticed with nothing in flight.
    for nonsense in ["what?\r\n", "$3\r\nabcdef", "*1\r\n+a\r\n+b\r\n"] {
        let mut rig = Rig::new(options());
        let (one, other) = (rig.client(), rig.client());
        rig.send(one, "INCR {a}1");
        rig.send(other, "INCR {b}1");
        assert_eq!((rig.node_gets(A), rig.node_gets(B)), ("INCR {a}1".into(), "INCR {b}1".into()));
        rig.node_says(A, nonsense.as_bytes());
        assert_eq!(rig.closed, [rig.upstream(A)], "{nonsense:?}");
        rig.node_says(B, b":1\r\n");
        assert_eq!(rig.told(other), ":1\r\n");
        let told = rig.told(one);
        assert!(told.contains("unknown") || told == "*1\r\n+a\r\n", "{told}");
        rig.later(20_000);
        rig.send(one, "GET {a}1");
        rig.serve(A, "GET {a}1", "$1\r\n1\r\n");
        assert_eq!(rig.told(one), "$1\r\n1\r\n");
    }
}

#[test]
fn keys_of_several_slots_are_refused_where_redis_refuses_them() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(client, "SINTER {a}1 {b}1\nSINTER {a}1 {a}2");
    rig.serve(A, "SINTER {a}1 {a}2", "*0\r\n");
    assert_eq!(rig.told(client), "-CROSSSLOT Keys in request don't hash to the same slot\r\n*0\r\n");
}

#[test]
fn a_paused_client_always_goes_on() {
    let limits = [1, 2, 7];
    for (inflight_per_client, upstream_inflight) in limits.into_iter().flat_map(|a| limits.map(|b| (a, b))) {
        let mut rig =
            Rig::new(CoreOptions { inflight_per_client, upstream_inflight, output_pause: 10, ..options() });
        let clients = [rig.client(), rig.client()];
        for client in clients {
            rig.send_raw(client, "GET {a}1\r\nPING\r\nMGET {a}1 {b}1\r\n".repeat(20).as_bytes());
        }
        let mut told = [String::new(), String::new()];
        for _ in 0..200 {
            for node in [A, B] {
                if (0..8).all(|index| rig.core.upstream_addr(index) != node) {
                    continue;
                }
                for request in rig.node_gets(node).lines() {
                    rig.node_says(
                        node,
                        if request.starts_with("GET") { b"$1\r\nv\r\n" } else { b"*1\r\n$1\r\nv\r\n" },
                    );
                }
            }
            for (client, told) in clients.into_iter().zip(&mut told) {
                *told += &rig.told(client);
            }
        }
        let expected = "$1\r\nv\r\n+PONG\r\n*2\r\n$1\r\nv\r\n$1\r\nv\r\n".repeat(20);
        assert!(told.iter().all(|told| *told == expected), "{inflight_per_client} {upstream_inflight}");
        assert!(clients.into_iter().all(|client| rig.core.wants_read(client)));
        assert_eq!(rig.stats.inflight.get(), 0);
    }
}

#[test]
fn both_dialects_of_a_node_count_in_its_gauge() {
    let mut rig = Rig::new(options());
    let (old, new) = (rig.client(), rig.client());
    rig.send(new, "HELLO 3");
    rig.send(old, "GET {a}1");
    rig.send(new, "GET {a}1\nGET {a}1");
    rig.later(1);
    let node = rig.stats.node(A);
    assert_eq!(node.inflight.get(), 1 + 2 + 1, "requests and a handshake");
    rig.node_gets(A);
    rig.node_says(A, b"$-1\r\n");
    rig.later(1);
    assert_eq!(node.inflight.get(), 2 + 1);
}

#[test]
fn a_node_that_refuses_the_handshake_is_tried_with_growing_pauses() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(client, "HELLO 3\nGET {a}1");
    let mut tries = 0;
    for _ in 0..TIMEOUT_US / 1000 {
        if rig.core.upstream_output(0).starts_with(b"*2\r\n$5\r\nHELLO") {
            tries += 1;
            rig.core.upstream_wrote(0, 1000);
            rig.core.upstream_data(0, b"-NOAUTH Authentication required.\r\n");
            rig.settle();
        }
        rig.later(1000);
    }
    assert!((10..40).contains(&tries), "{tries} tries in a second");
}

#[test]
fn a_part_for_every_node_is_never_sent_to_another_node() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(client, "DBSIZE");
    rig.serve(A, "DBSIZE", ":1\r\n");
    rig.serve(B, "DBSIZE", "-LOADING Redis is loading the dataset in memory\r\n");
    let told = rig.told(client);
    assert!(told.contains("LOADING") && told.contains(B), "{told}");
    assert_eq!(rig.core.parked(), 0);
}

#[test]
fn without_any_node_everything_is_answered() {
    let mut rig = Rig::new(options());
    rig.core.set_topology(nodes(""));
    let client = rig.client();
    rig.send(client, "DBSIZE\nGET {a}1\nMGET {a}1 {b}1\nSCAN 0\nPING");
    let told = rig.told(client);
    assert_eq!(told.matches("-CLUSTERDOWN").count(), 4, "{told}");
    assert!(told.ends_with("+PONG\r\n"), "{told}");
}

/// What a server says of a command of a module, in RESP2.
fn learned(entries: &[&str]) -> dsproxy::command::Learned {
    let reply = format!("*{}\r\n{}", entries.len(), entries.concat());
    dsproxy::command::Learned::new(&dsproxy::resp::decode_reply(reply.as_bytes()).unwrap())
}

/// `name arity flag first last step`, without anything that newer servers add.
fn entry(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let mut entry = format!("*6\r\n${}\r\n{}\r\n:{}\r\n", words[0].len(), words[0], words[1]);
    entry.push_str(&format!("*1\r\n+{}\r\n", words[2]));
    words[3..].iter().for_each(|number| entry.push_str(&format!(":{number}\r\n")));
    entry
}

/// The same with a key spec: a count at argument 2 and that many keys.
fn entry_with_counted_keys(name: &str) -> String {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let spec = format!(
        "*6\r\n{}*1\r\n+RO\r\n{}*4\r\n{}{}{}*2\r\n{}:2\r\n{}*4\r\n{}{}{}*6\r\n{}:0\r\n{}:1\r\n{}:1\r\n",
        bulk("flags"),
        bulk("begin_search"),
        bulk("type"),
        bulk("index"),
        bulk("spec"),
        bulk("index"),
        bulk("find_keys"),
        bulk("type"),
        bulk("keynum"),
        bulk("spec"),
        bulk("keynumidx"),
        bulk("firstkey"),
        bulk("keystep"),
    );
    let head = format!("*10\r\n{}:-4\r\n*2\r\n+readonly\r\n+movablekeys\r\n:0\r\n:0\r\n:0\r\n", bulk(name));
    format!("{head}*0\r\n*0\r\n*1\r\n{spec}*0\r\n")
}

#[test]
fn commands_of_modules_are_routed_by_what_the_server_says_of_them() {
    let entries = [
        entry("Json.Get -2 readonly 1 1 1"),
        entry("bf.copy 3 write 1 2 1"),
        entry_with_counted_keys("ts.mread"),
        entry("mod.config 2 admin 0 0 0"),
        entry("mod.odd -2 movablekeys 0 0 0"),
        entry("mod.ping 1 fast 0 0 0"),
        entry("get 7 write 0 0 0"),
    ];
    let learned = learned(&entries.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(learned.len(), 6, "what the table knows is not learned");
    let config = dsproxy::config::Config::default();
    let live = Arc::new(dsproxy::config::Live::new(&config));
    let mut rig = Rig::new(options());
    let stats = vec![rig.stats.clone()];
    let access = Arc::new(dsproxy::core::Access::default().with_learned(learned));
    rig.core.join(Arc::new(dsproxy::core::Process::new(&config, live, access, stats, Vec::new())));
    let client = rig.client();

    rig.send(client, "JSON.GET {a}1 .x");
    rig.serve(A, "JSON.GET {a}1 .x", "$1\r\n1\r\n");
    rig.send(client, "json.get {b}1");
    rig.serve(B, "json.get {b}1", "$1\r\n2\r\n");
    rig.send(client, "TS.MREAD x 2 {b}1 {b}2");
    rig.serve(B, "TS.MREAD x 2 {b}1 {b}2", "*0\r\n");
    rig.send(client, "MOD.PING");
    assert_eq!(rig.told(client), "$1\r\n1\r\n$1\r\n2\r\n*0\r\n");
    // Any node will do.
    let node = if rig.node_gets_some(A) == 1 { A } else { B };
    rig.node_says(node, b"+PONG\r\n");
    assert_eq!(rig.told(client), "+PONG\r\n");

    rig.send(client, "BF.COPY {a}1 {b}1\nBF.COPY {a}1\nMOD.CONFIG x\nMOD.ODD x\nMOD.NONE x\nGET {a}1 x");
    let told = rig.told(client);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "-CROSSSLOT Keys in request don't hash to the same slot");
    assert_eq!(lines[1], "-ERR wrong number of arguments for 'bf.copy' command");
    assert!(lines[2].contains("'mod.config' is refused"), "{told}");
    assert!(lines[3].contains("'mod.odd' is refused"), "{told}");
    assert!(lines[4].starts_with("-ERR unknown command 'MOD.NONE'"), "{told}");
    assert_eq!(lines[5], "-ERR wrong number of arguments for 'get' command");

    // It is known again when it is redirected.
    rig.send(client, "JSON.GET {a}1");
    rig.serve(A, "JSON.GET {a}1", &format!("-MOVED {} {B}\r\n", dsproxy::slot::slot(b"{a}1")));
    rig.serve(B, "JSON.GET {a}1", "$1\r\n3\r\n");
    assert_eq!(rig.told(client), "$1\r\n3\r\n");
}

#[test]
fn a_redirected_transaction_is_sent_and_answered_whole() {
    for redirect in ["MOVED", "ASK"] {
        let mut rig = Rig::new(options());
        let client = rig.client();
        rig.send(client, "MULTI\nINCR {a}1\nINCR {a}2\nEXEC\nGET {b}1");
        assert_eq!(rig.told(client), "+OK\r\n+QUEUED\r\n+QUEUED\r\n");
        let whole = "MULTI\nINCR {a}1\nINCR {a}2\nEXEC";
        rig.serve(B, "GET {b}1", "$1\r\nb\r\n");
        let refused = format!("-{redirect} {SLOT_A} {B}\r\n");
        rig.serve(
            A,
            whole,
            &format!(
                "+OK\r\n{refused}{refused}-EXECABORT Transaction discarded because of previous errors.\r\n"
            ),
        );
        let (asking, ok) = if redirect == "ASK" { ("ASKING\n", "+OK\r\n") } else { ("", "") };
        rig.serve(
            B,
            &format!("{asking}{whole}"),
            &format!("{ok}+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:1\r\n"),
        );
        assert_eq!(rig.told(client), "*2\r\n:1\r\n:1\r\n$1\r\nb\r\n", "{redirect}");
        rig.send(client, "GET {b}2");
        rig.serve(B, "GET {b}2", "$1\r\nc\r\n");
        assert_eq!(rig.told(client), "$1\r\nc\r\n");
    }
}

#[test]
fn a_connection_that_is_being_made_for_a_client_that_has_gone_serves_the_next_one() {
    let mut rig = Rig::new(options());
    rig.connects = false;
    let first = rig.client();
    rig.send(first, "BLPOP {a}1 0");
    assert_eq!(rig.wanted.len(), 1);
    rig.core.remove_client(first);
    rig.settle();
    let second = rig.client();
    rig.send(second, "BLPOP {a}2 0");
    assert_eq!(rig.wanted.len(), 1, "the attempt of the first is the second's");
    rig.connects = true;
    rig.settle();
    rig.serve(A, "CLIENT ID\nBLPOP {a}2 0", ":7\r\n*2\r\n$4\r\n{a}2\r\n$1\r\nx\r\n");
    assert_eq!(rig.told(second), "*2\r\n$4\r\n{a}2\r\n$1\r\nx\r\n");
}

#[test]
fn what_has_a_connection_of_its_own_is_tried_again_while_its_slot_moves() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    let try_again = "-TRYAGAIN Multiple keys request during rehashing of slot\r\n";
    rig.send(client, "BLPOP {a}1 {a}2 0");
    rig.serve(A, "CLIENT ID\nBLPOP {a}1 {a}2 0", &format!(":7\r\n{try_again}"));
    rig.later(20_000);
    for _ in 0..5 {
        rig.serve(A, "BLPOP {a}1 {a}2 0", try_again);
        rig.later(20_000);
    }
    rig.serve(A, "BLPOP {a}1 {a}2 0", "*-1\r\n");
    assert_eq!(rig.told(client), "*-1\r\n");
    // For as long as the command timeout, not for ever; a watch ends as if a key had changed.
    rig.send(client, "WATCH {a}1 {a}2");
    rig.serve(A, "WATCH {a}1 {a}2", try_again);
    rig.later(20_000);
    rig.serve(A, "WATCH {a}1 {a}2", "+OK\r\n");
    rig.send(client, "MULTI\nMGET {a}1 {a}2\nEXEC");
    rig.serve(A, "MULTI\nMGET {a}1 {a}2\nEXEC", &format!("+OK\r\n{try_again}-EXECABORT x\r\n"));
    assert_eq!(rig.told(client), "+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n");
    rig.send(client, "BLPOP {a}1 0");
    let mut told = String::new();
    for _ in 0..2 * TIMEOUT_US / 20_000 {
        if rig.node_gets_some(A) > 0 {
            rig.node_says(A, b"-LOADING Redis is loading the dataset in memory\r\n");
        }
        rig.later(20_000);
        told += &rig.told(client);
    }
    assert!(told.starts_with("-LOADING"), "{told}");
}

#[test]
fn who_blocks_is_unblocked_by_the_node_or_here_while_no_node_is_asked() {
    let mut rig = Rig::new(options());
    let (client, asker) = (rig.client(), rig.client());
    rig.send(client, "CLIENT ID");
    let id = rig.told(client).trim_start_matches(':').trim().to_owned();
    let unblock = format!("CLIENT UNBLOCK {id}");
    // The node is to be asked again in a moment: nothing is on its way.
    rig.send(client, "BLPOP {a}1 {a}2 0");
    rig.serve(A, "CLIENT ID\nBLPOP {a}1 {a}2 0", ":7\r\n-TRYAGAIN x\r\n");
    rig.send(asker, &unblock);
    assert_eq!((rig.told(asker).as_str(), rig.told(client).as_str()), (":1\r\n", "*-1\r\n"));
    rig.later(100_000);
    assert_eq!(rig.node_gets_some(A), 0, "it is not asked after all");
    // It waits at the node, which alone can tell.
    rig.send(client, "BLPOP {a}1 0");
    rig.serve(A, "BLPOP {a}1 0", "");
    rig.send(asker, &format!("{unblock} ERROR\n{unblock}0"));
    assert_eq!(rig.told(asker), ":1\r\n:0\r\n");
    assert_eq!(rig.told(client), "");
    let asked = (0..8).filter(|index| words(rig.core.upstream_output(*index)) == "CLIENT UNBLOCK 7 ERROR");
    assert_eq!(asked.count(), 1);
    rig.node_says(A, b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
    assert_eq!(rig.told(client), "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
}

#[test]
fn connections_to_a_node_that_left_are_closed_once_they_owe_nothing() {
    let mut rig = Rig::new(options());
    let client = rig.client();
    rig.send(client, "GET {a}1\nGET {b}1");
    rig.serve(B, "GET {b}1", "$-1\r\n");
    assert_eq!(rig.node_gets(A), "GET {a}1");
    rig.core.set_topology(all_on_b());
    let a = rig.upstream(A);
    rig.core.outbox.close.clear();
    rig.core.tick();
    assert!(rig.core.outbox.close.is_empty(), "A still owes a reply");
    rig.node_says(A, b"$1\r\na\r\n");
    rig.core.tick();
    assert_eq!(rig.core.outbox.close, [a]);
    rig.core.outbox.close.clear();
    rig.core.tick();
    assert!(rig.core.outbox.close.is_empty(), "once");
    assert_eq!(rig.told(client), "$1\r\na\r\n$-1\r\n");
    // It comes back, and is connected to again.
    rig.send(client, "GET {b}1");
    rig.serve(B, "GET {b}1", &format!("-MOVED {SLOT_A} {A}\r\n"));
    rig.settle();
    rig.serve(A, "GET {b}1", "$1\r\nb\r\n");
    assert_eq!(rig.told(client), "$1\r\nb\r\n");
}
