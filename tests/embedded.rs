//! The embedded stack and the harness on it: that servers start, keep their data, and never outlive their owner.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dsproxy::embedded::keeper::{Info, KeeperOptions, sweep};
use dsproxy::embedded::process::runs;
use rustix::process::{Pid, Signal, kill_process};
use support::{PrivateStack, Resp, SharedStack, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

fn kill_9(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

fn assert_all_gone(info: &Info) {
    for (name, pid) in &info.pids {
        eventually(PATIENCE, &format!("{name} (pid {pid}) is gone"), || !runs(*pid));
    }
}

fn in_memory() -> KeeperOptions {
    KeeperOptions { with_postgres: false, ..KeeperOptions::default() }
}

/// Sets `key` at the node that has it: the others answer MOVED with its address.
fn set(nodes: &[String], key: &str, value: &str) -> String {
    let mut addr = nodes[0].clone();
    loop {
        match Resp::connect(&*addr).cmd(&["SET", key, value]) {
            Value::Simple(ok) if ok == "OK" => return addr,
            Value::Error(moved) if moved.starts_with("MOVED ") => {
                addr = moved.split(' ').nth(2).unwrap().to_owned()
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_shared_stack_serves_keys_and_rows() {
    let stack = SharedStack::get();
    let mut used = std::collections::HashSet::new();
    for number in 0..30 {
        let key = format!("{}{number}", stack.key_prefix());
        let addr = set(stack.redis_nodes(), &key, "hello");
        assert_eq!(Resp::connect(&*addr).cmd(&["GET", &key]), Value::from("hello"));
        used.insert(addr);
    }
    assert_eq!(used.len(), 3, "30 keys are on all three shards");

    let database = stack.fresh_database();
    database.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1), (NULL)");
    assert_eq!(database.query("SELECT id FROM t ORDER BY id"), [[Some("1".to_owned())], [None]]);
    let (other, name) = (stack.fresh_database(), database.url().rsplit('/').next().unwrap().to_owned());
    assert!(other.query("SELECT 1 FROM pg_tables WHERE tablename = 't'").is_empty(), "databases are apart");
    drop(database);
    assert!(other.query(&format!("SELECT 1 FROM pg_database WHERE datname = '{name}'")).is_empty());
}

#[test]
fn all_share_one_stack() {
    let (one, two) = (SharedStack::get(), SharedStack::get());
    assert_eq!(one.info(), two.info());
    assert_ne!(one.key_prefix(), two.key_prefix());
}

#[test]
fn replicas_follow_their_primaries() {
    let stack = PrivateStack::start(KeeperOptions { replicas: 1, ..in_memory() });
    let nodes = stack.redis_nodes();
    assert_eq!(nodes.len(), 6);
    let primary = set(&nodes, "key", "value");
    let index = nodes.iter().position(|node| *node == primary).unwrap();
    let mut replica = Resp::connect(&*nodes[index + 3]);
    replica.cmd(&["READONLY"]);
    eventually(PATIENCE, "the replica has the key", || replica.cmd(&["GET", "key"]) == Value::from("value"));
}

#[test]
fn a_server_can_be_stopped_killed_frozen_and_started() {
    let stack = PrivateStack::start(KeeperOptions::default());
    let node = stack.redis_nodes()[1].clone();
    let alive = || {
        Resp::try_connect(&*node).is_ok_and(|mut node| node.cmd(&["PING"]) == Value::Simple("PONG".into()))
    };
    for stop in [PrivateStack::stop, PrivateStack::kill] {
        stop(&stack, "redis-1");
        assert!(!alive());
        stack.start_server("redis-1");
        assert!(alive());
    }
    stack.pause("redis-1");
    let mut frozen = Resp::connect(&*node);
    frozen.send(&["PING"]);
    assert!(frozen.stays_silent(Duration::from_millis(200)));
    stack.cont("redis-1");
    assert_eq!(frozen.recv(), Value::Simple("PONG".into()));
    let mut other = Resp::connect(&*stack.redis_nodes()[0]);
    eventually(PATIENCE, "the cluster is whole again", || {
        other.cmd(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok")
    });

    let database = stack.fresh_database();
    stack.kill("postgres");
    stack.start_server("postgres");
    assert_eq!(database.query("SELECT 1"), [[Some("1".to_owned())]]);
}

#[test]
fn no_server_outlives_a_killed_keeper() {
    let stack = PrivateStack::start(KeeperOptions::default());
    let info = stack.info();
    assert_eq!(info.pids.len(), 4);
    // A frozen server cannot act on a signal, and must end as well.
    stack.pause("redis-0");
    stack.pause("postgres");
    kill_9(info.keeper_pid);
    assert_all_gone(&info);

    // Its files are found and removed by whoever comes next.
    let (root, parent) = (stack.root().to_owned(), stack.root().parent().unwrap());
    let name = root.file_name().unwrap().to_str().unwrap();
    eventually(PATIENCE, "the keeper is gone", || !runs(info.keeper_pid));
    // The children of the frozen Postgres end a moment after it, and may write to its files until then.
    eventually(PATIENCE, "its files are removed", || {
        sweep(parent, name);
        !root.exists()
    });
}

#[test]
fn a_killed_test_leaves_nothing() {
    // The test below, as a process of its own that connects, says so and waits.
    let root = std::env::temp_dir().join(format!("dsproxy-killed-{}", std::process::id()));
    let mut client = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_client_that_waits_to_be_killed", "--nocapture"])
        .env("CLIENT_ROOT", &root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = root.join("keeper.sock");
    eventually(Duration::from_secs(60), "the client's stack is up", || root.join("client-is-up").exists());
    let stack = PrivateStack::start_in(root.clone(), in_memory());
    let info = stack.info();
    drop(stack);
    assert!(socket.exists(), "the client still needs it");
    client.kill().unwrap();
    client.wait().unwrap();
    assert_all_gone(&info);
    eventually(PATIENCE, "the keeper is gone", || !runs(info.keeper_pid));
    assert!(!root.exists());
}

/// A part of [`a_killed_test_leaves_nothing`]; by itself it does nothing.
#[test]
fn a_client_that_waits_to_be_killed() {
    let Some(root) = std::env::var_os("CLIENT_ROOT").map(PathBuf::from) else { return };
    let _stack = PrivateStack::start_in(root.clone(), in_memory());
    std::fs::write(root.join("client-is-up"), "").unwrap();
    // It is killed long before.
    std::thread::sleep(Duration::from_secs(60));
}

fn kept() -> KeeperOptions {
    KeeperOptions { durable: true, keep_files: true, ..KeeperOptions::default() }
}

/// The root of keepers that leave their files; removed with the value, once the last keeper is gone.
struct KeptRoot(PathBuf);

impl KeptRoot {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("dsproxy-kept-").tempdir().unwrap().keep())
    }
}

impl Drop for KeptRoot {
    fn drop(&mut self) {
        sweep(self.0.parent().unwrap(), self.0.file_name().unwrap().to_str().unwrap());
    }
}

#[test]
fn an_interrupted_first_start_is_repaired() {
    let root = KeptRoot::new();
    let stack = root.0.join("stack");
    let remembers = |fact: &str| {
        let memory = std::fs::read_to_string(stack.join("stack.json")).unwrap_or_default();
        memory.contains(&format!("{fact:?}: true"))
    };
    let moments: [(&str, &dyn Fn() -> bool); 4] = [
        ("a node has started", &|| stack.join("redis-2/nodes.conf").exists()),
        ("initdb is at work", &|| stack.join("postgres/data/global").exists()),
        ("initdb is done", &|| remembers("postgres_initialised")),
        ("all is done", &|| remembers("cluster_formed")),
    ];
    for (what, reached) in moments {
        let mut keeper = Command::new(env!("CARGO_BIN_EXE_dsproxy"))
            .arg("keep-stack")
            .arg(&root.0)
            .arg(serde_json::to_string(&kept()).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually(PATIENCE, what, reached);
        keeper.kill().unwrap();
        keeper.wait().unwrap();
    }
    let whole = PrivateStack::start_in(root.0.clone(), kept());
    let info = whole.info();
    set(&info.redis_nodes, "key", "value");
    assert_eq!(whole.fresh_database().query("SELECT 1"), [[Some("1".to_owned())]]);
    drop(whole);
    eventually(PATIENCE, "the keeper is gone", || !runs(info.keeper_pid));
}

#[test]
fn data_survives_a_restart() {
    let root = KeptRoot::new();
    let start = || PrivateStack::start_in(root.0.clone(), kept());
    let leave = |stack: PrivateStack, kill: bool| {
        let info = stack.info();
        if kill {
            kill_9(info.keeper_pid);
        }
        drop(stack);
        eventually(PATIENCE, "the keeper is gone", || !runs(info.keeper_pid));
        info
    };
    let first = start();
    let holder = set(&first.redis_nodes(), "key", "value");
    let database = first.fresh_database();
    database.execute("CREATE TABLE t AS SELECT 42 AS answer");
    let info = leave(first, false);
    assert_all_gone(&info);

    // After a clean end, and after a kill whose servers may still be stopping.
    for kill in [true, false] {
        let begin = Instant::now();
        let again = start();
        assert!(begin.elapsed() < Duration::from_secs(10), "took {:?}", begin.elapsed());
        assert_eq!(again.redis_nodes(), info.redis_nodes, "free ports are used again");
        assert_eq!(Resp::connect(&*holder).cmd(&["GET", "key"]), Value::from("value"));
        assert_eq!(database.query("SELECT answer FROM t"), [[Some("42".to_owned())]]);
        leave(again, kill);
    }

    // A port is taken by somebody else: the nodes move and find each other again.
    let taken = std::net::TcpListener::bind(&*info.redis_nodes[0]).unwrap();
    let moved = start();
    assert_ne!(moved.redis_nodes(), info.redis_nodes);
    assert_eq!(set(&moved.redis_nodes(), "other", "value").len(), holder.len());
    let mut found = moved
        .redis_nodes()
        .iter()
        .map(|node| Resp::connect(&**node).cmd(&["GET", "key"]))
        .collect::<Vec<_>>();
    found.retain(|value| *value == Value::from("value"));
    assert_eq!(found.len(), 1);
    leave(moved, false);
    drop(taken);
}
