//! `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH` through a running proxy, held against what a server itself says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dsproxy::embedded::keeper::KeeperOptions;
use dsproxy::slot::slot;
use support::{PrivateStack, Proxy, Resp, SharedStack, Value, eventually, eventually_some};

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the node that owns the slot of `key`.
fn owner(nodes: &[String], key: &str) -> Resp {
    let mut all = nodes.iter().map(|addr| Resp::connect(addr.as_str()));
    all.find_map(|mut node| (!matches!(node.cmd(&["TYPE", key]), Value::Error(_))).then_some(node)).unwrap()
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn ok() -> Value {
    Value::Simple("OK".into())
}

/// Each line is a command; of those that begin with `!`, the command comes from another client.
const SCRIPTS: &[&str] = &[
    "MULTI|SET K 1|INCR K|GET K|EXEC|GET K",
    "MULTI|EXEC",
    "MULTI|DISCARD|GET K",
    "MULTI|SET K 1|DISCARD|GET K|EXEC|DISCARD",
    "EXEC|DISCARD|UNWATCH",
    "MULTI|MULTI|SET K 1|EXEC|GET K",
    "MULTI|WATCH K|SET K 1|EXEC|GET K",
    "MULTI|UNWATCH|SET K 1|EXEC|GET K",
    "MULTI|NOSUCHCOMMAND a|SET K 1|EXEC|GET K",
    "MULTI|GET|SET K 1|EXEC|GET K",
    "MULTI|SET K|DISCARD|SET K 2|GET K",
    "SET K text|MULTI|INCR K|APPEND K x|LPUSH K y|EXEC|GET K",
    "MULTI|PING|ECHO hello|SET K 1|PING|EXEC",
    "MULTI|PING|EXEC",
    "MULTI extra|EXEC extra|MULTI|EXEC extra|SET K 1|EXEC|GET K",
    "MULTI|MGET K other{elsewhere}|SET K 1|EXEC|GET K",
    "WATCH K|MULTI|INCR K|EXEC",
    "WATCH K|!SET K 5|MULTI|INCR K|EXEC|GET K",
    "WATCH K|SET K 5|MULTI|INCR K|EXEC|GET K",
    "SET K 1|WATCH K|DEL K|MULTI|SET K 9|EXEC|GET K",
    "SET K 1|WATCH K|!DEL K|MULTI|SET K 9|EXEC|GET K",
    "SET K 1|WATCH K|!PEXPIRE K 0|MULTI|SET K 9|EXEC|GET K",
    "WATCH K|!SET K 5|UNWATCH|MULTI|INCR K|EXEC",
    "WATCH K|!SET K 5|MULTI|INCR K|DISCARD|MULTI|INCR K|EXEC",
    "WATCH K|!SET K 5|MULTI|EXEC|MULTI|INCR K|EXEC",
    "WATCH K|!SET K 5|MULTI|GET|EXEC|MULTI|INCR K|EXEC",
    "WATCH K|WATCH K:2|!SET K:2 5|MULTI|INCR K|EXEC|GET K",
    "WATCH K K:2 K|!SET K:2 5|MULTI|PING|EXEC|GET K",
    "WATCH K other{elsewhere}|MULTI|SET K 1|EXEC",
    "WATCH K|!SET K 5|RESET|MULTI|INCR K|EXEC",
    "WATCH|UNWATCH extra|DISCARD extra",
    "MULTI|BLPOP L 0|BRPOPLPUSH L M 0|BLMOVE L M LEFT LEFT 0|BZPOPMIN Z 0|BLMPOP 0 1 L LEFT|EXEC",
    "MULTI|LPUSH L a b c|BLPOP L 0|BLMPOP 0 1 L LEFT COUNT 5|EXEC|LLEN L",
    "MULTI|XADD X 1-1 a b|XREAD BLOCK 0 STREAMS X 1-1|XREAD BLOCK 0 STREAMS X 0|EXEC",
    "MULTI|EVAL return{KEYS[1],ARGV[1]} 1 K x|EVALSHA 0000000000000000000000000000000000000000 1 K|EXEC",
    "MULTI|HSET H f v|HGETALL H|ZADD S 1.5 a|ZRANGE S 0 -1 WITHSCORES|SADD T a|SMEMBERS T|EXEC",
    "MULTI|SET K 1|GETSET K 2|OBJECT ENCODING K|TYPE K|EXEC",
    "MULTI|SELECT 0|SET K 1|EXEC",
];

/// What the script's client is told, one reply per line.
fn play(script: &str, key: &str, mut connect: impl FnMut() -> Resp, resp3: bool) -> Vec<(String, Value)> {
    let (mut client, mut other) = (connect(), connect());
    let names = ["K", "K:2", "L", "M", "Z", "X", "H", "S", "T"].map(|name| format!("{{{key}}}{name}"));
    other.cmd(&[&["DEL".to_owned()], &names[..]].concat());
    if resp3 {
        client.cmd(&["HELLO", "3"]);
    }
    let mut told = Vec::new();
    for line in script.split('|') {
        let (from_other, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
        let args: Vec<String> = words(line)
            .into_iter()
            .map(|word| match word.as_str() {
                "K" | "K:2" | "L" | "M" | "Z" | "X" | "H" | "S" | "T" => format!("{{{key}}}{word}"),
                _ => word,
            })
            .collect();
        if from_other {
            other.cmd(&args);
        } else {
            told.push((line.to_owned(), client.cmd(&args)));
        }
    }
    told
}

#[test]
fn every_script_is_answered_as_the_server_itself_answers_it() {
    let stack = SharedStack::get();
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, "");
    let key = stack.key_prefix();
    let nodes = stack.redis_nodes();
    let mut wrong = Vec::new();
    for resp3 in [false, true] {
        for script in SCRIPTS {
            let expected = play(script, key, || owner(nodes, &format!("{{{key}}}K")), resp3);
            let told = play(script, key, || proxy.connect(), resp3);
            for ((line, expected), (_, told)) in expected.iter().zip(&told) {
                if expected != told {
                    wrong.push(format!(
                        "{script} (RESP3: {resp3})\n  {line}: {told:?}\n  instead of {expected:?}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A server refuses this when it is queued or at the end, depending on where the slots are.
#[test]
fn a_transaction_over_several_slots_is_refused() {
    let stack = SharedStack::get();
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, "");
    let (mut client, key) = (proxy.connect(), stack.key_prefix());
    assert_eq!(client.cmd(&["MULTI"]), ok());
    assert_eq!(client.cmd(&["SET", &format!("{{a}}{key}"), "1"]), Value::Simple("QUEUED".into()));
    assert!(client.cmd(&["SET", &format!("{{b}}{key}"), "2"]).error().starts_with("CROSSSLOT "));
    assert!(client.cmd(&["EXEC"]).error().starts_with("EXECABORT "));
    assert_eq!(client.cmd(&["EXISTS", &format!("{{a}}{key}"), &format!("{{b}}{key}")]), Value::Int(0));
}

#[test]
fn a_pipelined_transaction_is_answered_in_order() {
    let stack = SharedStack::get();
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, "");
    let key = format!("{}k", stack.key_prefix());
    let mut client = proxy.connect();
    let lines = [
        "SET K 1", "WATCH K", "GET K", "MULTI", "INCR K", "EXEC", "GET K", "MULTI", "INCR K", "EXEC", "GET K",
    ];
    let commands: Vec<Vec<String>> = lines.iter().map(|line| words(&line.replace('K', &key))).collect();
    let (int, queued) = (|n| Value::Array(vec![Value::Int(n)]), Value::Simple("QUEUED".into()));
    for _ in 0..50 {
        let told = client.pipeline(&commands);
        let expected = [
            ok(),
            ok(),
            "1".into(),
            ok(),
            queued.clone(),
            int(2),
            "2".into(),
            ok(),
            queued.clone(),
            int(3),
            "3".into(),
        ];
        assert_eq!(told, expected);
    }
}

/// How many connections the nodes have, apart from the one that asks.
fn connections(nodes: &[String]) -> usize {
    let count = |addr: &String| {
        Resp::connect(addr.as_str()).cmd(&["CLIENT", "LIST", "TYPE", "NORMAL"]).text().lines().count() - 1
    };
    nodes.iter().map(count).sum()
}

/// How many connections the nodes have ever accepted.
fn accepted(nodes: &[String]) -> u64 {
    let count = |addr: &String| {
        let info = Resp::connect(addr.as_str()).cmd(&["INFO", "stats"]).text();
        let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    nodes.iter().map(count).sum()
}

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

fn two_workers(stack: &PrivateStack, more: &str) -> Proxy {
    let nodes = stack.redis_nodes();
    Proxy::start(&format!(
        "[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 2\n[upstream]\nnodes = {nodes:?}\n{more}\n"
    ))
}

#[test]
fn a_thousand_clients_in_transactions_cost_no_connections_and_watches_use_theirs_again() {
    let stack = private(0);
    // The topology is asked for over connections of its own: not now.
    let proxy = two_workers(&stack, "refresh_interval = \"1h\"");
    let nodes = stack.redis_nodes();
    let mut clients: Vec<Resp> = (0..1000).map(|_| proxy.connect()).collect();
    let before = accepted(&nodes);
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&["MULTI"]);
        client.send(&["INCR", &format!("{{{n}}}k")]);
    }
    for client in &mut clients {
        assert_eq!([client.recv(), client.recv()], [ok(), Value::Simple("QUEUED".into())]);
    }
    assert!(connections(&nodes) <= 2 * 3, "{}", connections(&nodes));
    clients.iter_mut().for_each(|client| client.send(&["EXEC"]));
    clients.iter_mut().for_each(|client| assert_eq!(client.recv(), Value::Array(vec![Value::Int(1)])));
    assert!(connections(&nodes) <= 2 * 3, "{}", connections(&nodes));
    // A hundred watch at a time, ten times over: the hundred connections of the first round serve all the others.
    let keys: Vec<String> = (0..100).map(|n| format!("{{{n}}}k")).collect();
    let mut rounds = Vec::new();
    for _ in 0..10 {
        for (client, key) in clients.iter_mut().zip(&keys) {
            client.send(&["WATCH", key]);
            client.send(&["MULTI"]);
            client.send(&["INCR", key]);
        }
        for client in &mut clients[..100] {
            assert_eq!([client.recv(), client.recv()], [ok(), ok()]);
            assert_eq!(client.recv(), Value::Simple("QUEUED".into()));
        }
        for client in &mut clients[..100] {
            client.send(&["EXEC"]);
        }
        for client in &mut clients[..100] {
            assert!(matches!(client.recv(), Value::Array(_)));
        }
        rounds.push(accepted(&nodes));
    }
    // Each look at the counters is a connection, too: three per round, and those above.
    assert!(rounds[0] - before <= 100 + 6 + 4 * 3, "{rounds:?} after {before}");
    assert!(rounds[9] - rounds[0] <= 9 * 3, "{rounds:?}");
}

#[test]
fn a_connection_is_handed_on_without_the_watches_of_its_last_client() {
    let stack = SharedStack::get();
    let nodes = stack.redis_nodes();
    let proxy = Proxy::start(&format!(
        "[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 1\n[upstream]\nnodes = {nodes:?}\n"
    ));
    let key = |name: &str| format!("{{{}}}{name}", stack.key_prefix());
    let mut witness = proxy.connect();
    let leave: [&dyn Fn(&mut Resp); 6] = [
        &|_| {},
        &|client| drop(client.cmd(&["MULTI"])),
        &|client| {
            drop(
                client
                    .pipeline(&[vec!["MULTI".to_owned()], vec!["SET".to_owned(), key("b"), "x".to_owned()]]),
            )
        },
        &|client| drop(client.cmd(&["UNWATCH"])),
        &|client| drop(client.cmd(&["RESET"])),
        &|client| drop(client.cmd(&["QUIT"])),
    ];
    for (n, leave) in leave.iter().enumerate() {
        let before = proxy.metric("dsproxy_clients");
        let mut first = proxy.connect();
        assert_eq!(first.cmd(&["WATCH", &key("a")]), ok());
        leave(&mut first);
        drop(first);
        eventually(PATIENCE, "the client is gone", || proxy.metric("dsproxy_clients") <= before);
        let mut second = proxy.connect();
        assert_eq!(second.cmd(&["WATCH", &key("c")]), ok());
        witness.cmd(&["SET", &key("a"), &n.to_string()]);
        second.cmd(&["MULTI"]);
        second.cmd(&["SET", &key("c"), "x"]);
        assert_eq!(second.cmd(&["EXEC"]), Value::Array(vec![ok()]), "way {n}");
    }
    assert_eq!(witness.cmd(&["GET", &key("b")]), Value::Nil, "a client gone before EXEC has done nothing");
}

#[test]
fn transactions_have_limits_that_say_so() {
    let stack = private(0);
    let proxy = two_workers(
        &stack,
        "[limits]\nquery_buffer = \"64kb\"\ninline = \"32kb\"\nbulk = \"32kb\"\ndedicated_connections = 2",
    );
    let mut client = proxy.connect();
    assert_eq!(client.cmd(&["MULTI"]), ok());
    let big = "x".repeat(30_000);
    let told: Vec<Value> = (0..4).map(|_| client.cmd(&["APPEND", "{k}", &big])).collect();
    assert!(told[3].error().contains("larger than the query buffer limit"), "{told:?}");
    assert!(client.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
    assert_eq!(client.cmd(&["EXISTS", "{k}"]), Value::Int(0));
    // Two workers with two connections each.
    let mut watchers: Vec<Resp> = (0..6).map(|_| proxy.connect()).collect();
    let told: Vec<Value> = watchers.iter_mut().map(|client| client.cmd(&["WATCH", "{k}"])).collect();
    let refused: Vec<&Value> = told.iter().filter(|value| **value != ok()).collect();
    assert_eq!(refused.len(), 2, "{told:?}");
    assert!(refused.iter().all(|value| value.error().contains("limits.dedicated_connections")), "{told:?}");
    for client in &mut watchers {
        client.cmd(&["UNWATCH"]);
    }
    assert!(watchers.iter_mut().take(2).all(|client| client.cmd(&["WATCH", "{k}"]) == ok()));
    // A node without memory refuses when a command is queued; here that shows at the end.
    let mut node = owner(&stack.redis_nodes(), "{k}");
    for (key, value) in [("maxmemory-policy", "noeviction"), ("maxmemory", "1")] {
        assert_eq!(node.cmd(&["CONFIG", "SET", key, value]), ok());
    }
    client.cmd(&["MULTI"]);
    client.cmd(&["SET", "{k}", "1"]);
    let told = client.cmd(&["EXEC"]);
    assert!(told.error().starts_with("EXECABORT"), "{told:?}");
    node.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(client.cmd(&["EXISTS", "{k}"]), Value::Int(0));
}

/// Hash tags of the first primary of three.
fn tags(count: usize) -> Vec<String> {
    let all = (0..).map(|n| format!("{{t{n}}}"));
    all.filter(|tag| slot(&tag.as_bytes()[1..tag.len() - 1]) < 5461).take(count).collect()
}

/// Writers move amounts between two accounts of one slot; what each acknowledged transfer did is counted in the same
/// transaction.
struct Bank<'a> {
    proxy: &'a Proxy,
    stop: AtomicBool,
    transfers: AtomicU64,
    unknown: AtomicU64,
    lost_watches: AtomicU64,
}

impl Bank<'_> {
    fn work(&self, tag: &str, watches: bool, may_fail: bool) {
        let mut client = self.proxy.connect();
        let [from, to, count] = ["from", "to", "count"].map(|name| format!("{tag}:{name}"));
        while !self.stop.load(Ordering::Relaxed) {
            let mut commands: Vec<Vec<&str>> = vec![
                vec!["MULTI"],
                vec!["DECR", &from],
                vec!["INCR", &to],
                vec!["INCR", &count],
                vec!["EXEC"],
            ];
            if watches {
                commands.insert(0, vec!["WATCH", &from]);
            }
            let told = client.pipeline(&commands);
            match told.last().unwrap() {
                Value::Array(items) => {
                    assert_eq!(items.len(), 3);
                    assert_eq!(items[0].int(), -items[1].int(), "{tag}: half a transfer");
                    self.transfers.fetch_add(1, Ordering::Relaxed);
                }
                Value::Nil if watches => {
                    self.lost_watches.fetch_add(1, Ordering::Relaxed);
                }
                Value::Error(text) if may_fail => {
                    if text.contains("unknown") {
                        self.unknown.fetch_add(1, Ordering::Relaxed);
                    }
                }
                other => panic!("{tag}: {other:?} of {told:?}"),
            }
        }
    }

    fn judge(&self, tags: &[String]) {
        let mut client = self.proxy.connect();
        let mut total = 0;
        for tag in tags {
            let read = |client: &mut Resp, name: &str| match client.cmd(&["GET", &format!("{tag}:{name}")]) {
                Value::Nil => 0,
                value => value.text().parse::<i64>().unwrap(),
            };
            let [from, to, count] = ["from", "to", "count"].map(|name| read(&mut client, name));
            assert_eq!((from, to), (-count, count), "{tag}");
            total += count as u64;
        }
        let (known, unknown) = (self.transfers.load(Ordering::Relaxed), self.unknown.load(Ordering::Relaxed));
        assert!(
            (known..=known + unknown).contains(&total),
            "{total} transfers; {known} known, {unknown} unknown"
        );
    }
}

#[test]
fn transfers_are_whole_and_count_once_while_their_slots_move() {
    let stack = private(0);
    let proxy = two_workers(&stack, "refresh_interval = \"1h\"");
    let addrs = stack.redis_nodes();
    let mut nodes: Vec<Resp> = addrs.iter().map(|addr| Resp::connect(addr.as_str())).collect();
    let ids: Vec<String> = nodes.iter_mut().map(|node| node.cmd(&["CLUSTER", "MYID"]).text()).collect();
    let tags = tags(3);
    let bank = Bank {
        proxy: &proxy,
        stop: AtomicBool::new(false),
        transfers: AtomicU64::new(0),
        unknown: AtomicU64::new(0),
        lost_watches: AtomicU64::new(0),
    };
    let bank = &bank;
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&bank.stop);
        for tag in &tags {
            for watches in [false, false, true] {
                scope.spawn(move || bank.work(tag, watches, false));
            }
        }
        let progress = || {
            let before = bank.transfers.load(Ordering::Relaxed);
            let workers_fine = || bank.transfers.load(Ordering::Relaxed) > before + 20;
            eventually(PATIENCE, "the bank works", workers_fine);
        };
        progress();
        for round in 0..4 {
            for tag in &tags {
                let slot = slot(&tag.as_bytes()[1..tag.len() - 1]).to_string();
                let (from, to) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
                assert_eq!(nodes[to].cmd(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]]), ok());
                assert_eq!(nodes[from].cmd(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]), ok());
                let (host, port) = addrs[to].rsplit_once(':').unwrap();
                // Until no key is left: those that a transfer of a moment ago has made are moved, too.
                loop {
                    let keys = nodes[from].cmd(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]);
                    let Some(key) = keys.items().first().map(Value::text) else { break };
                    nodes[from].cmd(&["MIGRATE", host, port, &key, "0", "5000"]);
                    std::thread::sleep(Duration::from_millis(2));
                }
                for node in [to, from, 2] {
                    assert_eq!(nodes[node].cmd(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]), ok());
                }
                progress();
            }
        }
    });
    bank.judge(&tags);
    assert_eq!(bank.unknown.load(Ordering::Relaxed), 0);
}

/// Ends the workers, also when the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn transfers_are_whole_when_their_primary_is_killed() {
    let stack = private(1);
    let proxy = two_workers(&stack, "");
    let tags = tags(3);
    let bank = Bank {
        proxy: &proxy,
        stop: AtomicBool::new(false),
        transfers: AtomicU64::new(0),
        unknown: AtomicU64::new(0),
        lost_watches: AtomicU64::new(0),
    };
    let bank = &bank;
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&bank.stop);
        for tag in &tags {
            for watches in [false, true] {
                scope.spawn(move || bank.work(tag, watches, true));
            }
        }
        eventually(PATIENCE, "the bank works", || bank.transfers.load(Ordering::Relaxed) > 100);
        stack.kill("redis-0");
        let killed = Instant::now();
        let before = bank.transfers.load(Ordering::Relaxed);
        eventually(PATIENCE, "the bank works again", || {
            bank.transfers.load(Ordering::Relaxed) > before + 500
        });
        assert!(killed.elapsed() < Duration::from_secs(15));
    });
    // What the dead primary acknowledged and had not yet replicated is gone; nothing is half there.
    let mut client = proxy.connect();
    for tag in &tags {
        let [from, to, count] = ["from", "to", "count"]
            .map(|name| client.cmd(&["GET", &format!("{tag}:{name}")]).text().parse::<i64>().unwrap());
        assert_eq!((from, to), (-count, count), "{tag}");
    }
    let done = eventually_some(PATIENCE, "a transfer", || {
        match client.pipeline(&[vec!["MULTI"], vec!["INCR", "x"], vec!["EXEC"]]).pop() {
            Some(Value::Array(items)) => Some(items.len()),
            _ => None,
        }
    });
    assert_eq!(done, 1);
}

#[test]
fn a_watch_changes_its_dialect_with_its_client() {
    let stack = SharedStack::get();
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, "");
    let mut client = proxy.connect();
    let key = format!("{{{}}}h", stack.key_prefix());
    client.cmd(&["HSET", &key, "f", "1"]);
    for (protocol, is_map) in [("3", true), ("2", false), ("3", true)] {
        assert_eq!(client.cmd(&["WATCH", &key]), ok());
        client.cmd(&["HELLO", protocol]);
        assert_eq!(client.cmd(&["MULTI"]), ok());
        assert_eq!(client.cmd(&["HGETALL", &key]), Value::Simple("QUEUED".into()));
        let replies = client.cmd(&["EXEC"]);
        assert_eq!(matches!(replies.items()[0], Value::Map(_)), is_map, "RESP{protocol}: {replies:?}");
    }
    // The connection is handed on as what it has become.
    let mut other = proxy.connect();
    assert_eq!(other.cmd(&["WATCH", &key]), ok());
    assert_eq!(other.cmd(&["MULTI"]), ok());
    other.cmd(&["HGETALL", &key]);
    assert!(matches!(other.cmd(&["EXEC"]).items()[0], Value::Array(_)));
}
