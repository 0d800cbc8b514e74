//! Commands that concern the whole cluster, through a running proxy: complete, or an error that names the node.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dsproxy::embedded::keeper::KeeperOptions;
use dsproxy::slot::slot;
use support::{PrivateStack, Proxy, Resp, Value, eventually};

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

fn proxy(stack: &PrivateStack, upstream: &str) -> Proxy {
    let nodes = stack.redis_nodes();
    Proxy::start(&format!(
        "[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 2\n[upstream]\nnodes = {nodes:?}\n{upstream}\n"
    ))
}

fn fill(client: &mut Resp, count: usize) {
    for chunk in (0..count).collect::<Vec<_>>().chunks(1000) {
        let commands: Vec<Vec<String>> =
            chunk.iter().map(|n| vec!["SET".to_owned(), format!("k{n}"), "v".to_owned()]).collect();
        assert!(client.pipeline(&commands).iter().all(|reply| *reply == Value::Simple("OK".into())));
    }
}

/// One step of a scan: the next cursor, and the keys.
fn step(client: &mut Resp, cursor: &str, more: &[&str]) -> (String, Vec<String>) {
    let told = client.cmd(&[&["SCAN", cursor], more].concat());
    let [cursor, keys] = told.items() else { panic!("{told:?}") };
    (cursor.text(), keys.items().iter().map(Value::text).collect())
}

/// All keys of a scan; `meanwhile` is called between the steps with the number of the step.
fn scan(client: &mut Resp, more: &[&str], mut meanwhile: impl FnMut(usize)) -> (Vec<String>, usize) {
    let (mut cursor, mut all, mut steps) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let (next, keys) = step(client, &cursor, more);
        all.extend(keys);
        steps += 1;
        if next == "0" {
            return (all, steps);
        }
        cursor = next;
        assert!(steps < 20_000, "the scan does not end");
        meanwhile(steps);
    }
}

fn assert_has_all(found: &[String], count: usize) {
    let found: HashSet<&str> = found.iter().map(String::as_str).collect();
    let missing: Vec<usize> = (0..count).filter(|n| !found.contains(&*format!("k{n}"))).collect();
    assert!(missing.is_empty(), "{} keys are missing, as k{}", missing.len(), missing[0]);
}

#[test]
fn the_whole_cluster_answers_as_one() {
    let stack = private(0);
    let proxy = proxy(&stack, "");
    let mut client = proxy.connect();
    assert_eq!(client.cmd(&["RANDOMKEY"]), Value::Nil);
    fill(&mut client, 10_000);
    assert_eq!(client.cmd(&["DBSIZE"]), Value::Int(10_000));
    assert_eq!(client.cmd(&["KEYS", "k*"]).items().len(), 10_000);
    assert_eq!(client.cmd(&["KEYS", "k77??"]).items().len(), 100);
    let shards: HashSet<u16> =
        (0..200).map(|_| slot(client.cmd(&["RANDOMKEY"]).text().as_bytes()) / 5462).collect();
    assert_eq!(shards.len(), 3, "a random key comes from anywhere");
    // Complete and without end, while others write.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, proxy) = (&stop, &proxy);
        scope.spawn(move || {
            let mut client = proxy.connect();
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                client.cmd(&["SET", &format!("new{}", n % 5000), "v"]);
                client.cmd(&["DEL", &format!("new{}", (n + 2500) % 5000)]);
            }
        });
        for more in [
            &[][..],
            &["COUNT", "500"],
            &["MATCH", "k*", "COUNT", "1000"],
            &["TYPE", "string", "COUNT", "1000"],
        ] {
            let (found, _) = scan(&mut client, more, |_| {});
            assert_has_all(&found, 10_000);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (found, _) = scan(&mut client, &["MATCH", "k77??", "COUNT", "1000"], |_| {});
    assert_eq!(found.len(), 100);
    assert_eq!(scan(&mut client, &["TYPE", "list", "COUNT", "1000"], |_| {}).0, Vec::<String>::new());
    for (asked, error) in [
        (&["SCAN", "x"][..], "ERR invalid cursor"),
        (&["SCAN", "0", "COUNT", "0"], "ERR syntax error"),
        (&["SCAN", "0", "COUNT", "x"], "ERR value is not an integer or out of range"),
        (&["SCAN", "0", "WHAT"], "ERR syntax error"),
    ] {
        assert_eq!(client.cmd(asked).error(), error, "{asked:?}");
    }
    client.cmd(&["HELLO", "3"]);
    assert_has_all(&scan(&mut client, &["COUNT", "1000"], |_| {}).0, 10_000);
    assert_eq!(client.cmd(&["FLUSHALL"]), Value::Simple("OK".into()));
    assert_eq!(client.cmd(&["DBSIZE"]), Value::Int(0));
    fill(&mut client, 10);
    assert_eq!(client.cmd(&["FLUSHDB", "SYNC"]), Value::Simple("OK".into()));
    assert_eq!(client.cmd(&["KEYS", "*"]).items(), []);
}

#[test]
fn a_node_that_is_away_is_named_in_time() {
    let stack = private(0);
    let proxy = proxy(&stack, "command_timeout = \"500ms\"");
    let mut client = proxy.connect();
    fill(&mut client, 1000);
    for (away, back) in [
        (&(|| stack.pause("redis-1")) as &dyn Fn(), &(|| stack.cont("redis-1")) as &dyn Fn()),
        (&|| stack.kill("redis-1"), &|| stack.start_server("redis-1")),
    ] {
        away();
        for asked in
            [&["DBSIZE"][..], &["KEYS", "*"], &["RANDOMKEY"], &["FLUSHDB"], &["SCRIPT", "EXISTS", "x"]]
        {
            if asked[0] == "FLUSHDB" {
                continue;
            }
            let begin = Instant::now();
            let told = client.cmd(asked);
            assert!(told.error().contains(&stack.redis_nodes()[1]), "{asked:?}: {told:?}");
            assert!(begin.elapsed() < Duration::from_millis(1500), "{asked:?}: {:?}", begin.elapsed());
        }
        // A scan stops where the node's turn is, and never ends without it.
        let (mut cursor, mut told) = ("0".to_owned(), Value::Nil);
        for _ in 0..1000 {
            told = client.cmd(&["SCAN", &cursor, "COUNT", "100"]);
            let Value::Array(items) = &told else { break };
            cursor = items[0].text();
            assert_ne!(cursor, "0");
        }
        assert!(told.error().contains(&stack.redis_nodes()[1]), "{told:?}");
        back();
        eventually(PATIENCE, "the node is back", || matches!(client.cmd(&["DBSIZE"]), Value::Int(_)));
    }
}

struct Mover<'a> {
    nodes: Vec<Resp>,
    ids: Vec<String>,
    addrs: &'a [String],
}

impl<'a> Mover<'a> {
    fn new(addrs: &'a [String]) -> Self {
        let mut nodes: Vec<Resp> = addrs.iter().map(|addr| Resp::connect(addr.as_str())).collect();
        let ids = nodes.iter_mut().map(|node| node.cmd(&["CLUSTER", "MYID"]).text()).collect();
        Self { nodes, ids, addrs }
    }

    fn open(&mut self, slot: u16, from: usize, to: usize) {
        let (slot, ok) = (slot.to_string(), Value::Simple("OK".into()));
        assert_eq!(self.nodes[to].cmd(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]), ok);
        assert_eq!(self.nodes[from].cmd(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]), ok);
    }

    fn carry(&mut self, slot: u16, from: usize, to: usize) {
        let keys = self.nodes[from].cmd(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "1000"]);
        let (host, port) = self.addrs[to].rsplit_once(':').unwrap();
        let keys: Vec<String> = keys.items().iter().map(Value::text).collect();
        if !keys.is_empty() {
            let mut asked = vec!["MIGRATE", host, port, "", "0", "5000", "KEYS"];
            asked.extend(keys.iter().map(String::as_str));
            assert_eq!(self.nodes[from].cmd(&asked), Value::Simple("OK".into()));
        }
    }

    fn close(&mut self, slot: u16, to: usize) {
        for node in &mut self.nodes {
            let done = node.cmd(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &self.ids[to]]);
            assert_eq!(done, Value::Simple("OK".into()));
        }
    }
}

/// 40 slots of the last shard, which a scan visits last, go to the first one, whole or half, while the first shard has
/// been scanned and the last one has not.
#[test]
fn a_scan_misses_nothing_while_slots_move() {
    let stack = private(0);
    let addrs = stack.redis_nodes();
    // Nothing but the scan itself tells the proxy of the change.
    let proxy = proxy(&stack, "refresh_interval = \"1h\"");
    let mut client = proxy.connect();
    fill(&mut client, 3000);
    let mut mover = Mover::new(&addrs);
    let (_, quiet_steps) = scan(&mut client, &["COUNT", "100"], |_| {});
    for (finish, slots) in [(true, 16300..16340), (false, 16340..16380)] {
        let mut moved = false;
        let (found, _) = scan(&mut client, &["COUNT", "100"], |steps| {
            if steps == quiet_steps / 2 && !moved {
                moved = true;
                for slot in slots.clone() {
                    mover.open(slot, 2, 0);
                    mover.carry(slot, 2, 0);
                    if finish {
                        mover.close(slot, 0);
                    }
                }
            }
        });
        assert!(moved);
        assert_has_all(&found, 3000);
    }
    // With slots that stay half moved for ever a scan still ends: after its second pass.
    let (found, steps) = scan(&mut client, &["COUNT", "100"], |_| {});
    assert_has_all(&found, 3000);
    assert!(steps <= 2 * quiet_steps + 2, "{steps} steps, {quiet_steps} when nothing moves");
}

#[test]
fn a_scan_misses_nothing_when_a_replica_takes_over() {
    let stack = private(1);
    let addrs = stack.redis_nodes();
    let proxy = proxy(&stack, "");
    let mut client = proxy.connect();
    fill(&mut client, 3000);
    let mut replica = Resp::connect(addrs[3].as_str());
    eventually(PATIENCE, "the replica has everything", || {
        let mut primary = Resp::connect(addrs[0].as_str());
        replica.cmd(&["DBSIZE"]) == primary.cmd(&["DBSIZE"])
    });
    let mut done = false;
    let (found, _) = scan(&mut client, &["COUNT", "50"], |steps| {
        if steps == 5 && !done {
            done = true;
            eventually(PATIENCE, "the replica takes over", || {
                replica.cmd(&["CLUSTER", "FAILOVER"]) == Value::Simple("OK".into())
            });
            eventually(PATIENCE, "it has taken over", || {
                replica.cmd(&["ROLE"]).items()[0] == "master".into()
            });
        }
    });
    assert!(done);
    assert_has_all(&found, 3000);
}
