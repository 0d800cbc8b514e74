//! `WAIT`: replicas that have what a client wrote, counted honestly while they stop, go and take over.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

mod support;

use dsproxy::embedded::keeper::KeeperOptions;
use support::{PrivateStack, Proxy, Resp, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

fn stack() -> PrivateStack {
    let options = KeeperOptions {
        replicas: 1,
        node_timeout_ms: 1000,
        with_postgres: false,
        ..KeeperOptions::default()
    };
    PrivateStack::start(options)
}

/// A write at each of the three primaries.
fn write_everywhere(client: &mut Resp, value: &str) {
    for n in 0..30 {
        assert_eq!(client.cmd(&["SET", &format!("k{n}"), value]).text(), "OK");
    }
}

/// What `WAIT` answers, and how long it took.
fn wait(client: &mut Resp, replicas: &str, timeout: &str) -> (Value, Duration) {
    let began = Instant::now();
    (client.cmd(&["WAIT", replicas, timeout]), began.elapsed())
}

#[test]
fn replicas_are_counted_where_they_have_the_writes() {
    let stack = stack();
    let proxy = Proxy::for_nodes(&stack.redis_nodes(), None, "[limits]\ndedicated_connections = 1\n");
    let mut client = proxy.connect();
    eventually(PATIENCE, "all replicas are online", || client.cmd(&["WAIT", "1", "100"]) == Value::Int(1));
    // Replicas are asked to acknowledge: nobody waits for the second in which they do so by themselves.
    let began = Instant::now();
    for round in 0..10 {
        write_everywhere(&mut client, &round.to_string());
        assert_eq!(wait(&mut client, "1", "5000").0, Value::Int(1));
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // More than there are: as many as there are, once the time is over. None: at once.
    // (Each `WAIT` asks the replicas anew, and a busy machine takes its time to answer.)
    let (told, took) = wait(&mut client, "2", "1500");
    assert_eq!(told, Value::Int(1));
    assert!((1490..5000).contains(&took.as_millis()), "{took:?}");
    assert!(wait(&mut client, "0", "0").1 < Duration::from_secs(1));

    // The replica of one primary stops: the least of all is told, and nobody else waits.
    stack.pause("redis-4");
    write_everywhere(&mut client, "unheard");
    client.send(&["WAIT", "1", "1500"]);
    client.send(&["GET", "k1"]);
    let mut other = proxy.connect();
    let began = Instant::now();
    (0..200).for_each(|_| assert_eq!(other.cmd(&["GET", "k1"]).text(), "unheard"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(proxy.metric("dsproxy_blocked_clients"), 1.0);
    assert_eq!(client.recv(), Value::Int(0));
    assert_eq!(client.recv().text(), "unheard");

    // Many wait over the same connections, for as long as it takes; some go, one is unblocked, the others are told.
    let mut waiting: Vec<Resp> = (0..50).map(|_| proxy.connect()).collect();
    for client in &mut waiting {
        client.cmd(&["SET", "k1", "v"]);
        client.send(&["WAIT", "1", "0"]);
    }
    eventually(PATIENCE, "all wait", || proxy.metric("dsproxy_blocked_clients") == 50.0);
    let (half_closed, mut unblocked) = (waiting.pop().unwrap(), waiting.pop().unwrap());
    drop(waiting.pop());
    half_closed.shutdown_write();
    let mine = format!("addr={} ", unblocked.stream().local_addr().unwrap());
    let list = client.cmd(&["CLIENT", "LIST"]).text();
    let line = list.lines().find(|line| line.contains(&mine)).unwrap();
    let id = line.split(' ').next().unwrap().strip_prefix("id=").unwrap();
    assert_eq!(client.cmd(&["CLIENT", "UNBLOCK", id, "ERROR"]), Value::Int(1));
    assert_eq!(unblocked.recv().error(), "UNBLOCKED client unblocked via CLIENT UNBLOCK");
    eventually(PATIENCE, "it is told how many there are", || {
        unblocked.send(&["WAIT", "1", "0"]);
        eventually(PATIENCE, "it waits again", || proxy.metric("dsproxy_blocked_clients") == 48.0);
        assert_eq!(client.cmd(&["CLIENT", "UNBLOCK", id]), Value::Int(1));
        match unblocked.recv() {
            // Before every node was heard.
            Value::Error(text) => {
                assert!(text.ends_with("is unknown"), "{text}");
                false
            }
            told => {
                assert_eq!(told, Value::Int(0));
                true
            }
        }
    });
    stack.cont("redis-4");
    for client in &mut waiting {
        assert_eq!(client.recv(), Value::Int(1));
        assert_eq!(client.cmd(&["GET", "k1"]).text(), "v");
    }
    eventually(PATIENCE, "nobody waits", || proxy.metric("dsproxy_blocked_clients") == 0.0);
}

#[test]
fn what_was_lost_with_a_primary_is_not_counted() {
    let stack = stack();
    let nodes = stack.redis_nodes();
    let proxy = Proxy::start(&format!("[upstream]\nnodes = {nodes:?}\nrefresh_interval = \"200ms\"\n"));
    let mut client = proxy.connect();
    let mut idle = proxy.connect();
    idle.cmd(&["PING"]);
    eventually(PATIENCE, "all replicas are online", || client.cmd(&["WAIT", "1", "100"]) == Value::Int(1));
    write_everywhere(&mut client, "v");
    // One primary falls silent while somebody waits: it is named, instead of left out.
    let node = stack.redis_nodes()[0].clone();
    stack.pause("redis-0");
    let (told, took) = wait(&mut client, "1", "300");
    assert!(told.error().contains(&node) && took < Duration::from_secs(3), "{told:?} {took:?}");
    // Its replica takes over. Whoever was connected before is told once that nothing is known of its writes.
    stack.kill("redis-0");
    eventually(PATIENCE, "the replica has taken over", || {
        (0..30).all(|n| client.cmd(&["SET", &format!("k{n}"), "w"]) == Value::Simple("OK".into()))
    });
    let mut told = Vec::new();
    eventually(PATIENCE, "WAIT counts again", || {
        told.push(client.cmd(&["WAIT", "0", "100"]));
        matches!(told.last(), Some(Value::Int(_)))
    });
    assert!(told.len() >= 2 && told[0].error().contains("is unknown"), "{told:?}");
    // The new primary has no replica: the least is none.
    assert_eq!(client.cmd(&["WAIT", "1", "50"]), Value::Int(0));
    let told = idle.cmd(&["WAIT", "1", "50"]);
    assert!(told.error().contains("the next WAIT is about what follows"), "{told:?}");
    assert_eq!(idle.cmd(&["WAIT", "1", "50"]), Value::Int(0));
    // Who comes later has lost nothing.
    assert_eq!(proxy.connect().cmd(&["WAIT", "1", "50"]), Value::Int(0));
}

#[test]
fn waiting_ends_with_the_proxy() {
    let stack = PrivateStack::start(KeeperOptions { with_postgres: false, ..KeeperOptions::default() });
    let mut proxy = Proxy::for_nodes(&stack.redis_nodes(), None, "");
    let mut client = proxy.connect();
    client.send(&["WAIT", "1", "0"]);
    eventually(PATIENCE, "it waits", || proxy.metric("dsproxy_blocked_clients") == 1.0);
    let began = Instant::now();
    assert!(proxy.stop().success());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(client.recv_to_end().is_empty());
}
