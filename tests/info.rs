//! `INFO` as agents read it: what the nodes hold, what is true of the proxy, and what is said while a node is silent.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

mod support;

use dsproxy::embedded::keeper::KeeperOptions;
use support::{PrivateStack, Proxy, Resp, SharedStack, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

fn fields(text: &str) -> HashMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn sections(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# ")).collect()
}

/// The numbers of `db0:keys=3,expires=1,avg_ttl=7`.
fn db0(text: &str) -> Option<Vec<u64>> {
    let line = text.lines().find_map(|line| line.strip_prefix("db0:"))?;
    Some(line.split(',').map(|pair| pair.split_once('=').unwrap().1.parse().unwrap()).collect())
}

#[test]
fn the_keyspace_is_that_of_all_primaries_and_is_asked_for_once_a_second() {
    let stack = PrivateStack::start(KeeperOptions { with_postgres: false, ..KeeperOptions::default() });
    let proxy = Proxy::for_nodes(&stack.redis_nodes(), None, "");
    let mut client = proxy.connect();
    // Nothing there: the section is, without a line, as in Redis.
    let text = client.cmd(&["INFO", "keyspace"]).text();
    assert_eq!(text, "# Keyspace\r\n");
    for n in 0..300 {
        let ttl = ["EX", "1000"];
        let set =
            [&["SET".to_owned(), format!("k{n}"), "v".to_owned()][..], &ttl.map(str::to_owned)].concat();
        client.cmd(if n % 3 == 0 { &set } else { &set[..3] });
    }
    eventually(PATIENCE, "the new keys are counted", || {
        let counts = db0(&client.cmd(&["INFO", "keyspace"]).text());
        counts.is_some_and(|counts| counts[..2] == [300, 100] && (900_000..=1_000_000).contains(&counts[2]))
    });
    assert_eq!(client.cmd(&["DBSIZE"]).int(), 300);
    // Its place in the order is kept, in both dialects, and what was learned is told by all workers.
    for protocol in ["2", "3"] {
        std::thread::sleep(Duration::from_millis(1050));
        client.cmd(&["HELLO", protocol]);
        let replies = client.pipeline(&[vec!["PING"], vec!["INFO"], vec!["GET", "k1"], vec!["INFO", "ALL"]]);
        assert_eq!((replies[0].text(), replies[2].text()), ("PONG".into(), "v".into()));
        for info in [&replies[1], &replies[3]] {
            let text = info.text();
            assert_eq!(db0(&text).unwrap()[0], 300);
            let names = sections(&text);
            assert_eq!(names[names.len() - 2..], ["Keyspace", "Proxy"]);
        }
    }
    // The nodes are asked once a second, whoever asks.
    let asked = || -> u64 {
        let calls = |addr: &String| {
            let text = Resp::connect(addr.as_str()).cmd(&["INFO", "commandstats"]).text();
            let line =
                text.lines().find_map(|line| line.strip_prefix("cmdstat_info:calls=").map(str::to_owned));
            line.map_or(0, |line| line.split(',').next().unwrap().parse::<u64>().unwrap())
        };
        stack.redis_nodes().iter().map(calls).sum()
    };
    let (before, began) = (asked(), Instant::now());
    let mut others: Vec<Resp> = (0..20).map(|_| proxy.connect()).collect();
    for _ in 0..20 {
        others.iter_mut().for_each(|other| assert_eq!(db0(&other.cmd(&["INFO"]).text()).unwrap()[0], 300));
    }
    let rounds = began.elapsed().as_secs() + 2;
    // The question itself is one per node, and the proxy's workers may ask at the same time.
    assert!(asked() - before <= 3 + 3 * 3 * rounds, "{} in {rounds} s", asked() - before);
}

#[test]
fn a_silent_node_costs_a_second_and_is_named() {
    let stack = PrivateStack::start(KeeperOptions { with_postgres: false, ..KeeperOptions::default() });
    let proxy = Proxy::for_nodes(&stack.redis_nodes(), None, "");
    let mut client = proxy.connect();
    client.cmd(&["INFO"]);
    let node = stack.redis_nodes()[1].clone();
    stack.pause("redis-1");
    std::thread::sleep(Duration::from_millis(1050));
    let began = Instant::now();
    let replies = client.pipeline(&[vec!["PING"], vec!["INFO"], vec!["PING"]]);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!((replies[0].text(), replies[2].text()), ("PONG".into(), "PONG".into()));
    let text = replies[1].text();
    assert!(!sections(&text).contains(&"Keyspace"), "{text}");
    let error = &fields(&text)["keyspace_error"];
    assert!(error.contains(&node) && error.contains("did not answer"), "{error}");
    let text = client.cmd(&["INFO", "keyspace"]).error().to_owned();
    assert!(text.contains(&node), "{text}");
    // One that goes away while it waits leaves nothing behind.
    std::thread::sleep(Duration::from_millis(1050));
    let mut gone = proxy.connect();
    gone.send(&["INFO"]);
    drop(gone);
    stack.cont("redis-1");
    eventually(PATIENCE, "the keyspace is known again", || {
        client.try_cmd(&["INFO", "keyspace"]).is_some_and(|reply| !matches!(reply, Value::Error(_)))
    });
}

#[test]
fn what_agents_read_is_there_with_true_numbers() {
    let stack = SharedStack::get();
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, "");
    let mut client = proxy.connect();
    let key = format!("{}k", stack.key_prefix());
    client.cmd(&["SET", &key, "v"]);
    client.cmd(&["HGET", &key, "f"]).error();
    client.cmd(&["EVALSHA", "0000000000000000000000000000000000000000", "1", &key]).error();
    client.cmd(&["nosuch"]).error();
    let mut listener = proxy.connect();
    listener.send(&["SUBSCRIBE", &format!("{key}-a"), &format!("{key}-b")]);
    (0..2).for_each(|_| drop(listener.recv()));
    listener.send(&["PSUBSCRIBE", &format!("{key}*")]);
    listener.recv();
    let text = client.cmd(&["INFO"]).text();
    let info = fields(&text);
    // What redis-exporter, Datadog and `redis-cli --stat` look up.
    for name in [
        "redis_version",
        "redis_mode",
        "os",
        "process_id",
        "run_id",
        "tcp_port",
        "uptime_in_seconds",
        "uptime_in_days",
        "connected_clients",
        "maxclients",
        "blocked_clients",
        "used_memory",
        "used_memory_rss",
        "used_memory_peak",
        "total_system_memory",
        "maxmemory",
        "maxmemory_policy",
        "mem_fragmentation_ratio",
        "loading",
        "rdb_changes_since_last_save",
        "rdb_bgsave_in_progress",
        "rdb_last_save_time",
        "rdb_last_bgsave_status",
        "aof_enabled",
        "aof_rewrite_in_progress",
        "total_connections_received",
        "total_commands_processed",
        "instantaneous_ops_per_sec",
        "instantaneous_input_kbps",
        "instantaneous_output_kbps",
        "total_net_input_bytes",
        "total_net_output_bytes",
        "rejected_connections",
        "expired_keys",
        "evicted_keys",
        "keyspace_hits",
        "keyspace_misses",
        "pubsub_channels",
        "pubsub_patterns",
        "total_error_replies",
        "role",
        "connected_slaves",
        "master_repl_offset",
        "used_cpu_sys",
        "used_cpu_user",
        "cluster_enabled",
        "db0",
    ] {
        assert!(info.contains_key(name), "{name} is missing in\n{text}");
    }
    assert_eq!((&*info["pubsub_channels"], &*info["pubsub_patterns"]), ("2", "1"));
    assert_eq!((&*info["errorstat_WRONGTYPE"], &*info["errorstat_NOSCRIPT"]), ("count=1", "count=1"));
    assert_eq!((&*info["errorstat_ERR"], &*info["total_error_replies"]), ("count=1", "3"));
    assert_eq!(proxy.metric("dsproxy_error_replies_total{code=\"WRONGTYPE\"}"), 1.0);
    client.cmd(&["CONFIG", "RESETSTAT"]);
    assert_eq!(client.cmd(&["INFO", "errorstats"]).text(), "# Errorstats\r\n");
    let mut kbps = 0.0;
    eventually(PATIENCE, "bytes per second are counted", || {
        client.cmd(&["SET", &key, &"v".repeat(20_000)]);
        kbps = fields(&client.cmd(&["INFO", "stats"]).text())["instantaneous_input_kbps"].parse().unwrap();
        kbps > 1.0
    });
}

#[test]
fn redis_cli_shows_its_statistics() {
    let stack = SharedStack::get();
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, "");
    proxy.connect().cmd(&["SET", &format!("{}k", stack.key_prefix()), "v"]);
    let port = proxy.addr().1.to_string();
    let mut cli = Command::new("redis-cli")
        .args(["-p", &port, "--stat", "-i", "0.05"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(cli.stdout.take().unwrap()).lines();
    let shown: Vec<String> = lines.map(Result::unwrap).take(4).collect();
    cli.kill().unwrap();
    cli.wait().unwrap();
    // Two lines of headings, then: keys, memory, clients, blocked, requests, connections.
    let words: Vec<&str> = shown[2].split_whitespace().collect();
    assert!(words[0].parse::<u64>().unwrap() >= 1, "{shown:?}");
    assert!(words[1].ends_with('M') && words[2] == "1", "{shown:?}");
}
