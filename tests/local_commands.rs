//! Commands that the proxy answers itself, over several data threads: what the comparison with a plain server cannot see.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::time::Duration;

mod support;

use dsproxy::embedded::keeper::KeeperOptions;
use support::{PrivateStack, Proxy, Resp, SharedStack, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

struct Bed {
    proxy: Proxy,
    stack: SharedStack,
}

impl Bed {
    fn start(more: &str) -> Self {
        let stack = SharedStack::get();
        let server = format!("[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 3\n{more}");
        Self { proxy: Proxy::for_nodes(stack.redis_nodes(), None, &server), stack }
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.stack.key_prefix())
    }
}

/// The fields of each line of `CLIENT LIST`, by client id.
fn clients(list: &Value) -> HashMap<i64, HashMap<String, String>> {
    let fields = |line: &str| -> HashMap<String, String> {
        let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    // A verbatim string of RESP3 begins with its kind.
    let text = list.text();
    let text = text.strip_prefix("txt:").unwrap_or(&text);
    text.lines().map(fields).map(|fields| (fields["id"].parse().unwrap(), fields)).collect()
}

fn info(client: &mut Resp, section: &str) -> HashMap<String, String> {
    let text = client.cmd(&["INFO", section]).text();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn client_list_shows_the_clients_of_all_threads() {
    let bed = Bed::start("");
    let mut all: Vec<Resp> = (0..7).map(|_| bed.proxy.connect()).collect();
    let ids: Vec<i64> = all
        .iter_mut()
        .enumerate()
        .map(|(n, client)| {
            assert_eq!(client.cmd(&["CLIENT", "SETNAME", &format!("me{n}")]).text(), "OK");
            client.cmd(&["CLIENT", "ID"]).int()
        })
        .collect();
    all[2].cmd(&["HELLO", "3"]);
    for asker in 0..all.len() {
        let listed = clients(&all[asker].cmd(&["CLIENT", "LIST"]));
        assert_eq!(listed.len(), 7, "{listed:?}");
        for (n, id) in ids.iter().enumerate() {
            let fields = &listed[id];
            assert_eq!(fields["name"], format!("me{n}"));
            assert_eq!(fields["laddr"], format!("127.0.0.1:{}", bed.proxy.addr().1));
            assert_eq!(fields["addr"], all[n].stream().local_addr().unwrap().to_string());
            assert_eq!(fields["resp"], if n == 2 { "3" } else { "2" });
        }
        assert_eq!(listed[&ids[asker]]["cmd"], "client|list");
    }
    let some = [ids[0].to_string(), ids[4].to_string()];
    let listed = clients(&all[1].cmd(&["CLIENT", "LIST", "ID", &some[0], &some[1], "999999"]));
    let mut found: Vec<_> = listed.into_keys().collect();
    found.sort_unstable();
    assert_eq!(found, [ids[0].min(ids[4]), ids[0].max(ids[4])]);
    assert_eq!(clients(&all[1].cmd(&["CLIENT", "LIST", "TYPE", "normal"])).len(), 7);
}

#[test]
fn client_kill_reaches_all_threads_and_keeps_the_one_that_asks() {
    let bed = Bed::start("");
    let mut all: Vec<Resp> = (0..7).map(|_| bed.proxy.connect()).collect();
    let ids: Vec<i64> = all.iter_mut().map(|client| client.cmd(&["CLIENT", "ID"]).int()).collect();
    let mut asker = all.remove(0);
    let victim = ids[3].to_string();
    assert_eq!(asker.cmd(&["CLIENT", "KILL", "ID", &victim]).int(), 1);
    assert!(all.remove(2).recv_to_end().is_empty());
    assert_eq!(asker.cmd(&["CLIENT", "KILL", "ID", &victim]).int(), 0);
    let addr = all[0].stream().local_addr().unwrap().to_string();
    assert_eq!(asker.cmd(&["CLIENT", "KILL", &addr]).text(), "OK");
    assert!(all.remove(0).recv_to_end().is_empty());
    assert_eq!(asker.cmd(&["CLIENT", "KILL", &addr]).error(), "ERR No such client");
    assert_eq!(asker.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).int(), 4);
    all.iter_mut().for_each(|client| assert!(client.recv_to_end().is_empty()));
    // The one that asks has its answer before it goes.
    let own = ids[0].to_string();
    assert_eq!(asker.cmd(&["CLIENT", "KILL", "ID", &own]).int(), 0);
    asker.send(&["CLIENT", "KILL", "ID", &own, "SKIPME", "no"]);
    asker.send(&["PING"]);
    assert_eq!(asker.recv_to_end(), b":1\r\n");
    let metric = "dsproxy_connected_clients";
    eventually(PATIENCE, "all are gone", || bed.proxy.metric(metric) == 0.0);
}

#[test]
fn muted_replies_are_those_asked_for() {
    let bed = Bed::start("");
    let key = bed.key("k");
    let mut client = bed.proxy.connect();
    let commands: Vec<Vec<&str>> = vec![
        vec!["SET", &key, "1"],
        vec!["CLIENT", "REPLY", "SKIP"],
        vec!["INCR", &key],
        vec!["INCR", &key],
        vec!["CLIENT", "REPLY", "SKIP"],
        vec!["nosuch"],
        vec!["INCR", &key],
        vec!["CLIENT", "REPLY", "OFF"],
        vec!["INCR", &key],
        vec!["nosuch"],
        vec!["PING"],
        vec!["CLIENT", "REPLY", "SKIP"],
        vec!["INCR", &key],
        vec!["CLIENT", "REPLY", "ON"],
        vec!["INCR", &key],
    ];
    for round in 0..50 {
        let mut bytes = Vec::new();
        for command in &commands {
            dsproxy::resp::push_command(&mut bytes, command.iter().map(|word| word.as_bytes()));
        }
        client.send_raw(&bytes);
        let expected = b"+OK\r\n:3\r\n:4\r\n+OK\r\n:7\r\n";
        assert_eq!(client.recv_raw(expected.len()), expected, "round {round}");
    }
    assert!(client.stays_silent(Duration::from_millis(50)));
    client.send(&["CLIENT", "REPLY", "OFF"]);
    client.send(&["RESET"]);
    assert_eq!(client.recv().text(), "RESET");
}

#[test]
fn slow_commands_are_logged_with_their_sender() {
    let bed = Bed::start("slowlog_entries = 3\n");
    let key = bed.key("slow");
    let mut client = bed.proxy.connect();
    client.cmd(&["CLIENT", "SETNAME", "sloth"]);
    assert_eq!(client.cmd(&["SLOWLOG", "LEN"]).int(), 0);
    assert_eq!(client.cmd(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]).text(), "OK");
    eventually(PATIENCE, "the new threshold is seen", || {
        client.cmd(&["SET", &key, "v"]);
        client.cmd(&["SLOWLOG", "LEN"]).int() == 3
    });
    let log = client.cmd(&["SLOWLOG", "GET", "1"]);
    let entry = log.items()[0].items();
    assert_eq!(entry.len(), 6);
    assert!(entry[0].int() >= 2 && entry[1].int() > 1_700_000_000 && entry[2].int() > 0, "{entry:?}");
    let words: Vec<String> = entry[3].items().iter().map(Value::text).collect();
    assert_eq!(words, ["SET", &key, "v"]);
    assert_eq!(entry[4].text(), client.stream().local_addr().unwrap().to_string());
    assert_eq!(entry[5].text(), "sloth");
    assert_eq!(client.cmd(&["CONFIG", "SET", "slowlog-log-slower-than", "-1"]).text(), "OK");
    assert_eq!(client.cmd(&["SLOWLOG", "RESET"]).text(), "OK");
}

#[test]
fn a_slow_command_tells_where_its_time_went() {
    let stack = PrivateStack::start(KeeperOptions { with_postgres: false, ..KeeperOptions::default() });
    let proxy = Proxy::for_nodes(&stack.redis_nodes(), None, "");
    let mut client = proxy.connect();
    let owned = |key: &str| {
        let addr = &stack.redis_nodes()[0];
        Resp::connect(addr.as_str()).try_cmd(&["GET", key]).is_some_and(|reply| reply == Value::Nil)
    };
    let key = (0..).map(|n| format!("k{n}")).find(|key| owned(key)).unwrap();
    client.cmd(&["SET", &key, "v"]);
    let newest = |client: &mut Resp| -> HashMap<String, Value> {
        let log = client.cmd(&["PROXY", "SLOWLOG", "1"]);
        let pairs = log.items()[0].items().chunks(2);
        pairs.map(|pair| (pair[0].text(), pair[1].clone())).collect()
    };
    // The node takes its time.
    stack.pause("redis-0");
    client.send(&["SET", &key, "at the node"]);
    assert!(client.stays_silent(Duration::from_millis(300)));
    stack.cont("redis-0");
    assert_eq!(client.recv().text(), "OK");
    let slow = newest(&mut client);
    let number = |slow: &HashMap<String, Value>, name: &str| slow[name].int();
    assert_eq!(slow["node"].text(), stack.redis_nodes()[0]);
    assert_eq!(slow["command"].items().last().unwrap().text(), "at the node");
    assert!(number(&slow, "microseconds") >= 250_000, "{slow:?}");
    assert!(number(&slow, "in_proxy") <= 50_000, "{slow:?}");
    assert_eq!(number(&slow, "microseconds"), number(&slow, "in_proxy") + number(&slow, "at_node"));
    // There is no node: the command waits here until it is back.
    stack.kill("redis-0");
    client.send(&["SET", &key, "in the proxy"]);
    assert!(client.stays_silent(Duration::from_millis(300)));
    stack.start_server("redis-0");
    assert_eq!(client.recv(), Value::Simple("OK".into()));
    let slow = newest(&mut client);
    assert_eq!(slow["command"].items().last().unwrap().text(), "in the proxy");
    assert!(number(&slow, "in_proxy") >= 250_000, "{slow:?}");
    assert!(number(&slow, "at_node") <= number(&slow, "in_proxy"), "{slow:?}");
    for (words, error) in [("SLOWLOG x", "greater than or equal to -1"), ("SLOWLOG 1 2", "Try PROXY HELP")] {
        let command: Vec<&str> = std::iter::once("PROXY").chain(words.split(' ')).collect();
        assert!(client.cmd(&command).error().contains(error), "{words}");
    }
}

#[test]
fn settings_are_shown_and_changed() {
    let bed = Bed::start("max_clients = 50\npassword = \"hush\"\n");
    let mut client = bed.proxy.connect();
    assert_eq!(client.cmd(&["AUTH", "hush"]).text(), "OK");
    let texts = |value: Value| value.items().iter().map(Value::text).collect::<Vec<_>>();
    assert_eq!(
        texts(client.cmd(&["CONFIG", "GET", "server.w*", "maxclients"])),
        ["maxclients", "50", "server.workers", "3"]
    );
    let all = texts(client.cmd(&["CONFIG", "GET", "*"]));
    assert!(all.iter().all(|text| !text.contains("hush")), "{all:?}");
    for (args, error) in [
        (&["CONFIG", "SET", "maxclients", "60", "port", "1"][..], "can't be set"),
        (&["CONFIG", "SET", "maxclients", "60", "server.max_clients", "61"], "duplicate"),
        (&["CONFIG", "SET", "maxclients", "0"], "out of range"),
        (&["CONFIG", "SET", "maxclients", "60", "nosuch", "1"], "Unknown option"),
        (&["CONFIG", "SET", "upstream.command_timeout", "1s"], "can't be set"),
    ] {
        assert!(client.cmd(args).error().contains(error), "{args:?}");
    }
    assert_eq!(texts(client.cmd(&["CONFIG", "GET", "maxclients"])), ["maxclients", "50"]);
    assert_eq!(client.cmd(&["CONFIG", "SET", "maxclients", "2", "timeout", "1"]).text(), "OK");
    let mut second = bed.proxy.connect();
    second.cmd(&["AUTH", "hush"]);
    let mut third = bed.proxy.connect();
    assert_eq!(third.recv().error(), "ERR max number of clients reached");
    assert_eq!(info(&mut client, "stats")["rejected_connections"], "1");
    // Idle for a second: closed.
    assert!(second.recv_to_end().is_empty());
}

#[test]
fn info_counts() {
    let bed = Bed::start("");
    let key = bed.key("k");
    let mut client = bed.proxy.connect();
    client.cmd(&["CONFIG", "RESETSTAT"]);
    for _ in 0..5 {
        client.cmd(&["SET", &key, "v"]);
    }
    client.cmd(&["HSET", &key, "f", "v"]);
    let commands = info(&mut client, "commandstats");
    assert!(commands["cmdstat_set"].starts_with("calls=5,usec="), "{commands:?}");
    assert!(!commands["cmdstat_set"].starts_with("calls=5,usec=0,"), "{commands:?}");
    assert!(commands["cmdstat_hset"].ends_with("failed_calls=1"), "{commands:?}");
    assert!(!commands.contains_key("cmdstat_get"));
    let stats = info(&mut client, "stats");
    assert!(stats["total_net_input_bytes"].parse::<u64>().unwrap() > 100);
    assert!(stats["total_net_output_bytes"].parse::<u64>().unwrap() > 100);
    assert_eq!(info(&mut client, "clients")["connected_clients"], "1");
    assert!(info(&mut client, "memory")["used_memory_rss"].parse::<u64>().unwrap() > 1 << 20);
    assert_eq!(info(&mut client, "cluster")["cluster_enabled"], "0");
    assert_eq!(info(&mut client, "proxy")["upstream_nodes"], "3");
    let sections = |client: &mut Resp, args: &[&str]| -> Vec<String> {
        let text = client.cmd(args).text();
        text.lines().filter_map(|line| line.strip_prefix("# ")).map(str::to_owned).collect()
    };
    assert_eq!(sections(&mut client, &["INFO", "cpu", "Server"]), ["Server", "CPU"]);
    let default = sections(&mut client, &["INFO"]);
    assert!(default.contains(&"Proxy".to_owned()) && !default.contains(&"Commandstats".to_owned()));
    assert!(sections(&mut client, &["INFO", "everything"]).contains(&"Commandstats".to_owned()));
    eventually(PATIENCE, "commands per second are counted", || {
        info(&mut client, "stats")["instantaneous_ops_per_sec"] != "0"
    });
}

#[test]
fn cluster_clients_see_one_node_where_they_connected() {
    let bed = Bed::start("");
    let port = i64::from(bed.proxy.addr().1);
    let mut client = bed.proxy.connect();
    let id = client.cmd(&["CLUSTER", "MYID"]).text();
    let slots = client.cmd(&["CLUSTER", "SLOTS"]);
    let range = slots.items()[0].items();
    assert_eq!((range[0].int(), range[1].int(), range.len()), (0, 16383, 3));
    let node = range[2].items();
    assert_eq!((node[0].text(), node[1].int(), node[2].text()), ("127.0.0.1".into(), port, id.clone()));
    let nodes = client.cmd(&["CLUSTER", "NODES"]).text();
    assert_eq!(nodes, format!("{id} 127.0.0.1:{port}@{port} myself,master - 0 0 1 connected 0-16383\n"));
    assert!(client.cmd(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok\r\n"));
    assert_eq!(client.cmd(&["CLUSTER", "SHARDS"]).items().len(), 1);
    assert_eq!(client.cmd(&["CLUSTER", "REPLICAS", &id]).items(), []);
    assert_eq!(client.cmd(&["CLUSTER", "REPLICAS", "x"]).error(), "ERR Unknown node x");
    let key = bed.key("{slot}");
    client.cmd(&["SET", &key, "v"]);
    let slot = client.cmd(&["CLUSTER", "KEYSLOT", &key]).int().to_string();
    assert!(client.cmd(&["CLUSTER", "COUNTKEYSINSLOT", &slot]).int() >= 1);
    let keys = client.cmd(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
    assert!(keys.items().contains(&Value::from(key.as_str())));
    assert_eq!(client.cmd(&["CLUSTER", "COUNTKEYSINSLOT", "16384"]).error(), "ERR Invalid slot");
    for command in ["ASKING", "READONLY", "READWRITE"] {
        assert_eq!(client.cmd(&[command]).text(), "OK");
    }
    let bed = Bed::start("announce = \"redis.example:7777\"\n");
    let slots = bed.proxy.connect().cmd(&["CLUSTER", "SLOTS"]);
    let node = slots.items()[0].items()[2].items();
    assert_eq!((node[0].text(), node[1].int()), ("redis.example".into(), 7777));
}

#[test]
fn latencies_are_shown_by_the_way_that_commands_took() {
    let stack = SharedStack::get();
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, "");
    let mut client = proxy.connect();
    let key = format!("{}k", stack.key_prefix());
    let calls = |entry: &Value| {
        let entry = entry.items();
        let buckets: Vec<i64> = entry[3].items().iter().map(Value::int).collect();
        assert_eq!((entry[0].text(), entry[2].text()), ("calls".into(), "histogram_usec".into()));
        // Bounds and counts both ascend, and the last count is that of all.
        assert!(buckets.chunks(2).is_sorted_by(|a, b| a[0] < b[0] && a[1] < b[1]), "{buckets:?}");
        assert_eq!(buckets.last().copied(), Some(entry[1].int()));
        entry[1].int()
    };
    assert_eq!(client.cmd(&["LATENCY", "HISTOGRAM", "split"]), Value::Array(vec![]));
    (0..20).for_each(|_| drop(client.cmd(&["GET", &key])));
    let shown = client.cmd(&["LATENCY", "HISTOGRAM", "SINGLE", "nosuch"]);
    assert_eq!(
        (shown.items().len(), shown.items()[0].text(), calls(&shown.items()[1])),
        (2, "single".into(), 20)
    );
    let keys: Vec<String> = (0..30).map(|n| format!("{key}{n}")).collect();
    client.cmd(&[vec!["MGET".to_owned()], keys].concat());
    // By name where no way is asked for, as Redis does.
    let all = client.cmd(&["LATENCY", "HISTOGRAM"]);
    let named: Vec<_> = all.items().chunks(2).map(|pair| (pair[0].text(), calls(&pair[1]))).collect();
    assert_eq!(named, [("get".to_owned(), 20), ("mget".to_owned(), 1)]);
    let ways = client.cmd(&["LATENCY", "HISTOGRAM", "split", "single", "get"]);
    let named: Vec<_> = ways.items().chunks(2).map(|pair| (pair[0].text(), calls(&pair[1]))).collect();
    assert_eq!(named, [("single".to_owned(), 20), ("split".to_owned(), 1), ("get".to_owned(), 20)]);
    let stats = client.cmd(&["INFO", "latencystats"]).text();
    assert!(stats.contains("\r\nlatency_percentiles_usec_get:p50="), "{stats}");
    for (name, count) in [
        ("dsproxy_command_latency_seconds_count{command=\"get\"}", 20.0),
        ("dsproxy_command_duration_seconds_count{route=\"single\"}", 20.0),
        ("dsproxy_command_duration_seconds_count{route=\"split\"}", 1.0),
    ] {
        assert_eq!(proxy.metric(name), count, "{name}");
    }
    client.cmd(&["HELLO", "3"]);
    let Value::Map(pairs) = client.cmd(&["LATENCY", "HISTOGRAM", "single"]) else { panic!("no map") };
    assert_eq!(pairs.len(), 1, "{pairs:?}");
}
