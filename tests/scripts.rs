//! Scripts and functions through a running proxy: routed by their keys, known where they run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::time::Duration;

use dsproxy::embedded::keeper::KeeperOptions;
use support::{PrivateStack, Proxy, Resp, SharedStack, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(20);
/// `return {KEYS[1], redis.call('INCR', KEYS[1])}`
const BODY: &str = "return {KEYS[1], redis.call('INCR', KEYS[1])}";

fn private(replicas: usize) -> PrivateStack {
    PrivateStack::start(KeeperOptions {
        replicas,
        with_postgres: false,
        node_timeout_ms: 1000,
        ..Default::default()
    })
}

fn proxy(nodes: &[String]) -> Proxy {
    Proxy::start(&format!(
        "[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 2\n[upstream]\nnodes = {nodes:?}\n"
    ))
}

/// A key on each of three shards.
fn keys(prefix: &str) -> [String; 3] {
    [0, 1, 2].map(|shard| {
        let mut all = (0..).map(|n| format!("{prefix}{n}"));
        all.find(|key| usize::from(dsproxy::slot::slot(key.as_bytes())) * 3 / 16384 == shard).unwrap()
    })
}

fn forget(nodes: &[String]) {
    for addr in nodes {
        Resp::connect(addr.as_str()).cmd(&["SCRIPT", "FLUSH"]);
    }
}

#[test]
fn scripts_go_where_their_keys_are() {
    let stack = SharedStack::get();
    let proxy = proxy(stack.redis_nodes());
    let (mut client, keys) = (proxy.connect(), keys(stack.key_prefix()));
    let [a, b, c] = keys.each_ref().map(String::as_str);
    for key in [a, b, c] {
        let expected = Value::Array(vec![key.into(), Value::Int(1)]);
        assert_eq!(client.cmd(&["EVAL", BODY, "1", key]), expected);
        assert_eq!(client.cmd(&["EVAL_RO", "return redis.call('GET', KEYS[1])", "1", key]), "1".into());
    }
    assert_eq!(client.cmd(&["EVAL", "return ARGV[1]", "0", "x"]), "x".into());
    let other = format!("{{{a}}}x");
    assert_eq!(client.cmd(&["EVAL", "return #KEYS", "2", a, &other]), Value::Int(2));
    assert!(client.cmd(&["EVAL", "return #KEYS", "2", a, b]).error().starts_with("CROSSSLOT"));
    let mut node = Resp::connect(stack.redis_nodes()[0].as_str());
    for numkeys in ["-1", "x", "3", "99999999999999999999"] {
        let asked = ["EVAL", "return 1", numkeys, "k"];
        assert_eq!(client.cmd(&asked), node.cmd(&asked), "{numkeys}");
        let asked = ["EVALSHA_RO", "0000000000000000000000000000000000000000", numkeys, "k"];
        assert_eq!(client.cmd(&asked), node.cmd(&asked), "{numkeys}");
    }
    for (script, error) in
        [("return redis.call('NOSUCH')", "ERR"), ("syntax error here", "ERR Error compiling")]
    {
        assert!(client.cmd(&["EVAL", script, "1", a]).error().starts_with(error));
    }
    let unknown = client.cmd(&["EVALSHA", "0000000000000000000000000000000000000000", "1", a]);
    assert!(unknown.error().starts_with("NOSCRIPT"));
    let library = format!("lib{}", stack.key_prefix().trim_end_matches(':'));
    let code = format!(
        "#!lua name={library}\nredis.register_function('{library}', function(k) return redis.call('GET', k[1]) end)"
    );
    assert_eq!(client.cmd(&["FUNCTION", "LOAD", &code]), library.as_str().into());
    for key in [a, b, c] {
        assert_eq!(client.cmd(&["FCALL", &library, "1", key]), "1".into());
    }
    assert_eq!(client.cmd(&["FUNCTION", "DELETE", &library]), Value::Simple("OK".into()));
}

#[test]
fn a_node_that_has_forgotten_a_script_is_told_again() {
    let stack = private(0);
    let nodes = stack.redis_nodes();
    let proxy = proxy(&nodes);
    let (mut client, keys) = (proxy.connect(), keys("k"));
    let sha = client.cmd(&["SCRIPT", "LOAD", BODY]).text();
    // By this client, and by one of the other worker.
    let mut clients = [client, proxy.connect()];
    for round in 0..4 {
        for key in &keys {
            if round > 0 {
                forget(&nodes);
            }
            let told = clients[round % 2].cmd(&["EVALSHA", &sha, "1", key]);
            assert_eq!(told, Value::Array(vec![key.as_str().into(), Value::Int(round as i64 + 1)]));
        }
    }
    // What was seen in an EVAL only.
    let [one, other] = &mut clients;
    one.cmd(&["EVAL", "return 7", "0"]);
    forget(&nodes);
    let seven = "59b6ab2fbe0ee4b25733de0f62e6cda4899ef8e9";
    let told = other.cmd(&["EVALSHA", seven, "1", &keys[0]]);
    if let Value::Error(text) = &told {
        panic!("{text}");
    }
    // A client that has dropped all scripts is not told that they are there.
    one.cmd(&["SCRIPT", "FLUSH"]);
    assert!(other.cmd(&["EVALSHA", &sha, "1", &keys[0]]).error().starts_with("NOSCRIPT"));
    one.cmd(&["SCRIPT", "LOAD", BODY]);
    forget(&nodes);
    assert!(matches!(other.cmd(&["EVALSHA", &sha, "1", &keys[0]]), Value::Array(_)));
}

#[test]
fn an_evalsha_is_not_run_after_what_its_client_sent_later() {
    let stack = private(0);
    let nodes = stack.redis_nodes();
    let proxy = proxy(&nodes);
    let mut client = proxy.connect();
    let sha = client.cmd(&["SCRIPT", "LOAD", BODY]).text();
    forget(&nodes);
    let told = client.pipeline(&[vec!["EVALSHA", &sha, "1", "k"], vec!["SET", "k", "10"], vec!["GET", "k"]]);
    assert!(told[0].error().starts_with("NOSCRIPT"), "{told:?}");
    assert_eq!(told[2], "10".into());
    // It is there when the client tries again, proxy or not.
    let told = client.cmd(&["EVALSHA", &sha, "1", "k"]);
    assert_eq!(told, Value::Array(vec!["k".into(), Value::Int(11)]));
}

#[test]
fn scripts_outlive_a_failover() {
    let stack = private(1);
    let nodes = stack.redis_nodes();
    let proxy = proxy(&nodes);
    let (mut client, keys) = (proxy.connect(), keys("k"));
    let sha = client.cmd(&["SCRIPT", "LOAD", BODY]).text();
    forget(&nodes[3..]);
    let mut replica = Resp::connect(nodes[3].as_str());
    eventually(PATIENCE, "the replica takes over", || {
        replica.cmd(&["CLUSTER", "FAILOVER"]) == Value::Simple("OK".into())
    });
    eventually(PATIENCE, "it has taken over", || replica.cmd(&["ROLE"]).items()[0] == "master".into());
    assert!(matches!(client.cmd(&["EVALSHA", &sha, "1", &keys[0]]), Value::Array(_)));
}
