//! Blocking commands through a running proxy: timeouts, order, cancelling, and nodes that change meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::time::{Duration, Instant};

use dsproxy::embedded::keeper::KeeperOptions;
use dsproxy::slot::slot;
use rustix::process::Signal;
use support::{PrivateStack, Proxy, Resp, SharedStack, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

fn private(replicas: usize) -> PrivateStack {
    let stack = PrivateStack::start(KeeperOptions {
        replicas,
        with_postgres: false,
        node_timeout_ms: 1000,
        ..Default::default()
    });
    for node in stack.redis_nodes() {
        Resp::connect(node.as_str()).cmd(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    stack
}

fn proxy(nodes: &[String], more: &str) -> Proxy {
    Proxy::start(&format!(
        "[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 2\n[upstream]\nnodes = {nodes:?}\n{more}\n"
    ))
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Clients that wait at the nodes in blocking commands.
fn blocked(nodes: &[String]) -> u64 {
    let count = |addr: &String| {
        let info = Resp::try_connect(addr.as_str()).ok()?.cmd(&["INFO", "clients"]).text();
        let line = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"))?;
        line.trim().parse::<u64>().ok()
    };
    nodes.iter().filter_map(count).sum()
}

/// A tag whose slot the first primary of three owns.
const TAG: &str = "{t2}";

#[test]
fn every_blocking_command_waits_as_long_as_it_says_and_wakes_up() {
    let stack = SharedStack::get();
    let proxy = proxy(stack.redis_nodes(), "");
    let key = format!("{{{}}}", stack.key_prefix());
    let mut other = proxy.connect();
    other.cmd(&words(&format!("XGROUP CREATE {key}g group $ MKSTREAM")));
    // The command without and with its timeout in the place of T, the unit in ms, what wakes it up.
    let cases = [
        ("BLPOP L T", 1000, "LPUSH L x"),
        ("BRPOP L M T", 1000, "LPUSH L x"),
        ("BLMOVE L M LEFT RIGHT T", 1000, "LPUSH L x"),
        ("BRPOPLPUSH L M T", 1000, "LPUSH L x"),
        ("BLMPOP T 2 L M LEFT", 1000, "LPUSH L x"),
        ("BZPOPMIN Z T", 1000, "ZADD Z 1 x"),
        ("BZPOPMAX Z T", 1000, "ZADD Z 1 x"),
        ("BZMPOP T 1 Z MAX COUNT 2", 1000, "ZADD Z 1 x"),
        ("XREAD BLOCK T STREAMS X $", 1, "XADD X * a b"),
        ("XREADGROUP GROUP group c BLOCK T STREAMS G >", 1, "XADD G * a b"),
    ];
    for resp3 in [false, true] {
        let clients = || {
            let mut client = proxy.connect();
            if resp3 {
                client.cmd(&["HELLO", "3"]);
            }
            client
        };
        let fill = |line: &str, timeout: &str| {
            words(line)
                .into_iter()
                .map(|word| match word.as_str() {
                    "T" => timeout.to_owned(),
                    "L" | "M" | "Z" | "X" => format!("{key}{word}"),
                    "G" => format!("{key}g"),
                    _ => word,
                })
                .collect::<Vec<_>>()
        };
        other.cmd(&["DEL", &format!("{key}L"), &format!("{key}M"), &format!("{key}Z")]);
        // All of them at once, each by a client of its own: nil after 200 ms.
        let begin = Instant::now();
        let mut waiting: Vec<Resp> = cases.iter().map(|_| clients()).collect();
        for (client, (line, unit, _)) in waiting.iter_mut().zip(cases) {
            client.send(&fill(line, if unit == 1 { "200" } else { "0.2" }));
        }
        for (client, (line, ..)) in waiting.iter_mut().zip(cases) {
            assert_eq!(client.recv(), Value::Nil, "{line}");
            assert!(begin.elapsed() >= Duration::from_millis(195), "{line}: {:?}", begin.elapsed());
        }
        assert!(begin.elapsed() < Duration::from_millis(1500), "{:?}", begin.elapsed());
        // Without end, until something comes.
        for (line, _, wake) in cases {
            let mut client = clients();
            other.cmd(&["DEL", &format!("{key}L"), &format!("{key}M")]);
            client.send(&fill(line, "0"));
            eventually(PATIENCE, line, || blocked(stack.redis_nodes()) > 0);
            other.cmd(&fill(wake, ""));
            assert!(!matches!(client.recv(), Value::Nil | Value::Error(_)), "{line}");
        }
        // What is no timeout, and what is ready already, is answered at once.
        let mut client = clients();
        for (line, _, wake) in cases {
            assert!(matches!(client.cmd(&fill(line, "-1")), Value::Error(_)), "{line}");
            assert!(matches!(client.cmd(&fill(line, "soon")), Value::Error(_)), "{line}");
            other.cmd(&fill(wake, ""));
            if !line.contains('$') {
                assert!(!matches!(client.cmd(&fill(line, "0")), Value::Nil | Value::Error(_)), "{line}");
            }
        }
    }
}

#[test]
fn two_hundred_blocked_clients_hold_nobody_and_what_stands_behind_runs_in_order() {
    let stack = SharedStack::get();
    let proxy = proxy(stack.redis_nodes(), "command_timeout = \"500ms\"");
    let key = |n: usize| format!("{}{n}", stack.key_prefix());
    let mut waiting: Vec<Resp> = (0..200).map(|_| proxy.connect()).collect();
    let begin = Instant::now();
    for (n, client) in waiting.iter_mut().enumerate() {
        let script = format!("SET s:{0} 1|BLPOP {0} 0|INCR s:{0}|APPEND s:{0} x|GET s:{0}", key(n));
        for line in script.split('|') {
            client.send(&words(line));
        }
        assert_eq!(client.recv(), Value::Simple("OK".into()));
    }
    let mut other = proxy.connect();
    let mut slowest = Duration::ZERO;
    // Longer than the command timeout.
    while begin.elapsed() < Duration::from_millis(1000) {
        let asked = Instant::now();
        assert_eq!(other.cmd(&["GET", &format!("s:{}", key(7))]), "1".into());
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < Duration::from_millis(400), "{slowest:?}");
    for n in 0..200 {
        assert_eq!(other.cmd(&["RPUSH", &key(n), "v"]), Value::Int(1));
    }
    for (n, client) in waiting.iter_mut().enumerate() {
        assert_eq!(client.recv(), Value::Array(vec![key(n).as_str().into(), "v".into()]));
        assert_eq!([client.recv(), client.recv()], [Value::Int(2), Value::Int(2)]);
        assert_eq!(client.recv(), "2x".into());
    }
}

#[test]
fn a_client_that_goes_takes_nothing_with_it() {
    let stack = private(0);
    let nodes = stack.redis_nodes();
    let proxy = proxy(&nodes, "");
    let mut other = proxy.connect();
    let block = || words(&format!("BLPOP {TAG}q 0"));
    // Blocked; behind a command whose reply it waits for; half-closed; with more behind.
    let leave: [&dyn Fn() -> Option<Resp>; 4] = [
        &|| {
            let mut client = proxy.connect();
            client.send(&block());
            eventually(PATIENCE, "it blocks", || blocked(&nodes) == 1);
            None
        },
        &|| {
            let mut client = proxy.connect();
            client.send(&block());
            client.send(&words(&format!("SET {TAG}ran yes")));
            eventually(PATIENCE, "it blocks", || blocked(&nodes) == 1);
            None
        },
        &|| {
            let mut client = proxy.connect();
            let mut request = Vec::new();
            for line in [format!("INCR {TAG}n"), format!("BLPOP {TAG}q 0")] {
                dsproxy::resp::push_command(&mut request, words(&line).iter().map(String::as_bytes));
            }
            client.send_raw(&request);
            client.shutdown_write();
            assert_eq!(client.recv(), Value::Int(1));
            assert_eq!(client.recv_to_end(), b"");
            Some(client)
        },
        &|| {
            let mut client = proxy.connect();
            client.send(&block());
            eventually(PATIENCE, "it blocks", || blocked(&nodes) == 1);
            client.shutdown_write();
            assert_eq!(client.recv_to_end(), b"");
            Some(client)
        },
    ];
    for (n, leave) in leave.iter().enumerate() {
        let kept = leave();
        eventually(PATIENCE, "nobody waits any more", || blocked(&nodes) == 0);
        other.cmd(&["RPUSH", &format!("{TAG}q"), "x"]);
        assert_eq!(other.cmd(&["LPOP", &format!("{TAG}q")]), "x".into(), "way {n}");
        drop(kept);
    }
    assert_eq!(other.cmd(&["GET", &format!("{TAG}ran")]), Value::Nil);
}

fn move_slot(nodes: &mut [Resp], ids: &[String], slot: u16, from: usize, to: usize) {
    let slot = slot.to_string();
    let ok = Value::Simple("OK".into());
    assert_eq!(nodes[to].cmd(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]]), ok);
    assert_eq!(nodes[from].cmd(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]), ok);
    for node in [to, from, 3 - to - from] {
        assert_eq!(nodes[node].cmd(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]), ok);
    }
}

#[test]
fn a_blocked_client_moves_with_its_slot_and_keeps_its_timeout() {
    let stack = private(0);
    let addrs = stack.redis_nodes();
    let proxy = proxy(&addrs, "command_timeout = \"500ms\"");
    let mut nodes: Vec<Resp> = addrs.iter().map(|addr| Resp::connect(addr.as_str())).collect();
    let ids: Vec<String> = nodes.iter_mut().map(|node| node.cmd(&["CLUSTER", "MYID"]).text()).collect();
    let (mut patient, mut hasty) = (proxy.connect(), proxy.connect());
    patient.send(&words(&format!("BLPOP {TAG}q 0")));
    let begin = Instant::now();
    hasty.send(&words(&format!("BLPOP {TAG}r 2")));
    eventually(PATIENCE, "they block", || blocked(&addrs[..1]) == 2);
    // Half of the timeout has to pass before the move, or a timeout that starts anew would not show.
    std::thread::sleep(Duration::from_millis(1000));
    move_slot(&mut nodes, &ids, slot(b"t2"), 0, 1);
    eventually(PATIENCE, "they block elsewhere", || blocked(&addrs[1..2]) == 2);
    assert_eq!(hasty.recv(), Value::Nil);
    assert!((1950..2700).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    let mut other = proxy.connect();
    assert_eq!(other.cmd(&["RPUSH", &format!("{TAG}q"), "x"]), Value::Int(1));
    assert_eq!(patient.recv().items()[1], "x".into());
}

#[test]
fn a_blocked_client_learns_of_the_end_of_its_node() {
    let stack = private(1);
    let addrs = stack.redis_nodes();
    let proxy = proxy(&addrs, "command_timeout = \"700ms\"");
    // Frozen: the time that the client gave ends its wait, or the new owner of the slot does.
    let (mut hasty, mut patient) = (proxy.connect(), proxy.connect());
    hasty.send(&words(&format!("BLPOP {TAG}q 0.5")));
    patient.send(&words(&format!("BLPOP {TAG}q 0")));
    eventually(PATIENCE, "they block", || blocked(&addrs) == 2);
    let begin = Instant::now();
    stack.pause("redis-0");
    assert!(hasty.recv().error().contains("did not answer"));
    assert!(begin.elapsed() < Duration::from_millis(2500), "{:?}", begin.elapsed());
    assert!(patient.recv().error().contains("did not answer"));
    stack.cont("redis-0");
    // Killed.
    let mut client = proxy.connect();
    eventually(PATIENCE, "the shard serves again", || {
        client.send(&words(&format!("BLPOP {TAG}q 0.01")));
        client.recv() == Value::Nil
    });
    client.send(&words(&format!("BLPOP {TAG}q 0")));
    eventually(PATIENCE, "it blocks", || blocked(&addrs) == 1);
    stack.kill("redis-3");
    assert!(client.recv().error().contains("was lost"));
    assert_eq!(client.cmd(&["PING"]), Value::Simple("PONG".into()));
}

#[test]
fn a_blocked_client_follows_a_planned_failover() {
    let stack = private(1);
    let addrs = stack.redis_nodes();
    let proxy = proxy(&addrs, "");
    let mut client = proxy.connect();
    client.send(&words(&format!("BLPOP {TAG}q 0")));
    eventually(PATIENCE, "it blocks", || blocked(&addrs[..1]) == 1);
    let mut replica = Resp::connect(addrs[3].as_str());
    eventually(PATIENCE, "the replica takes over", || {
        replica.cmd(&["CLUSTER", "FAILOVER"]) == Value::Simple("OK".into())
    });
    eventually(PATIENCE, "it blocks at the new primary", || blocked(&addrs[3..4]) == 1);
    let mut other = proxy.connect();
    assert_eq!(other.cmd(&["RPUSH", &format!("{TAG}q"), "x"]), Value::Int(1));
    assert_eq!(client.recv().items()[1], "x".into());
}

#[test]
fn the_proxy_ends_at_once_though_clients_block() {
    let stack = SharedStack::get();
    let mut proxy = proxy(stack.redis_nodes(), "");
    let mut waiting: Vec<Resp> = (0..20).map(|_| proxy.connect()).collect();
    for (n, client) in waiting.iter_mut().enumerate() {
        client.send(&words(&format!("BLPOP {}{n} 0", stack.key_prefix())));
    }
    eventually(PATIENCE, "all block", || blocked(stack.redis_nodes()) >= 20);
    let begin = Instant::now();
    proxy.signal(Signal::TERM);
    for client in &mut waiting {
        assert_eq!(client.recv_to_end(), b"");
    }
    assert!(proxy.wait_exit().success());
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[test]
fn the_limit_on_connections_is_an_error_and_not_a_wait() {
    let stack = SharedStack::get();
    let proxy = proxy(stack.redis_nodes(), "[limits]\ndedicated_connections = 2");
    let mut clients: Vec<Resp> = (0..5).map(|_| proxy.connect()).collect();
    let key = format!("{}q", stack.key_prefix());
    for client in &mut clients {
        client.send(&["BLPOP", &key, "1"]);
    }
    let told: Vec<Value> = clients.iter_mut().map(Resp::recv).collect();
    let refused = told.iter().filter(|value| **value != Value::Nil).map(Value::error);
    assert!(refused.clone().all(|text| text.contains("limits.dedicated_connections")), "{told:?}");
    assert_eq!(refused.count(), 1, "{told:?}");
}

#[test]
fn a_blocked_client_is_unblocked_by_its_id_from_any_thread() {
    let stack = private(0);
    let addrs = stack.redis_nodes();
    let proxy = proxy(&addrs, "");
    let id = |client: &mut Resp| client.cmd(&["CLIENT", "ID"]).int().to_string();
    let mut askers: Vec<Resp> = (0..4).map(|_| proxy.connect()).collect();
    for (n, line) in ["BLPOP {t2}q 0", "BLMOVE {t2}q {t2}r LEFT LEFT 0", "XREAD BLOCK 0 STREAMS {t2}x $"]
        .iter()
        .enumerate()
    {
        for (protocol, way) in [("2", "TIMEOUT"), ("3", "ERROR"), ("3", ""), ("2", "error")] {
            let mut client = proxy.connect();
            client.cmd(&["HELLO", protocol]);
            let id = id(&mut client);
            let asker = &mut askers[n];
            let mut unblock = vec!["CLIENT", "UNBLOCK", &id];
            unblock.extend([way].into_iter().filter(|way| !way.is_empty()));
            assert_eq!(asker.cmd(&unblock), Value::Int(0), "it does not block yet");
            client.send(&words(line));
            eventually(PATIENCE, "it blocks", || blocked(&addrs) == 1);
            let counted = || asker_info(&proxy, "blocked_clients:1");
            eventually(PATIENCE, "it is counted", counted);
            // The node may not have said yet what it calls the connection.
            eventually(PATIENCE, "it is unblocked", || asker.cmd(&unblock) == Value::Int(1));
            let reply = client.recv();
            match way.eq_ignore_ascii_case("error") {
                true => assert_eq!(reply.error(), "UNBLOCKED client unblocked via CLIENT UNBLOCK"),
                false => assert_eq!(reply, Value::Nil),
            }
            // It goes on as any other, and so does the connection.
            assert_eq!(client.cmd(&["PING"]), Value::Simple("PONG".into()));
            eventually(PATIENCE, "nobody blocks", || blocked(&addrs) == 0);
            eventually(PATIENCE, "nobody is counted", || asker_info(&proxy, "blocked_clients:0"));
        }
    }
    assert_eq!(proxy.metric("dsproxy_dedicated_connections"), 0.0);
}

fn asker_info(proxy: &Proxy, line: &str) -> bool {
    proxy.connect().cmd(&["INFO", "clients"]).text().lines().any(|known| known == line)
}
