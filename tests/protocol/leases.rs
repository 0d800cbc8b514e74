//! Leases: what becomes of them is counted, and a cluster that changes under one costs a query at most, never a stale value.

use dsproxy::embedded::keeper::KeeperOptions;

use crate::bed::{Bed, PATIENCE, PATIENT};
use crate::support::{PrivateStack, Resp, Value, eventually};

const EVENTS: [&str; 4] = ["granted", "waited", "taken_over", "lost"];

/// What a proxy has counted: granted, waited, taken over, lost.
fn counted(bed: &Bed, proxy: usize) -> [f64; 4] {
    EVENTS.map(|event| {
        bed.proxies[proxy].metric(&format!("dsproxy_leases_total{{event=\"{event}\",mapping=\"item\"}}"))
    })
}

/// A reader of a proxy that has begun to load `key`.
fn loading(bed: &Bed, proxy: usize, key: &str) -> Resp {
    let mut reader = bed.proxies[proxy].connect();
    reader.set_patience(PATIENCE);
    reader.send(&["GET", key]);
    eventually(PATIENCE, "it holds the lease", || bed.sidecar(key, "l").is_some());
    reader
}

#[test]
fn what_becomes_of_leases_is_counted() {
    let bed = Bed::with(Bed::servers(), 2, "lease = \"3s\"", "", PATIENT);
    assert_eq!((counted(&bed, 0), counted(&bed, 1)), ([0.0; 4], [0.0; 4]), "shown from the start");
    // One loads, the other one waits and finds the value.
    bed.hold(true);
    let mut first = loading(&bed, 0, "item:1");
    let mut second = bed.proxies[1].connect();
    second.send(&["GET", "item:1"]);
    eventually(PATIENCE, "it waits", || counted(&bed, 1)[1] == 1.0);
    bed.hold(false);
    assert_eq!((first.recv(), second.recv()), ("v1".into(), "v1".into()));
    assert_eq!((counted(&bed, 0), counted(&bed, 1)), ([1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]));
    // What is invalidated while it is loaded is answered, and not stored.
    bed.hold(true);
    let mut first = loading(&bed, 0, "item:2");
    bed.proxies[1].connect().cmd(&["DEL", "item:2"]);
    bed.hold(false);
    assert_eq!(first.recv(), "v2".into());
    assert_eq!(bed.direct(&["EXISTS", "item:2"]).int(), 0);
    assert_eq!(counted(&bed, 0), [2.0, 0.0, 0.0, 1.0]);
    // A lease that runs out is taken over, and whoever had it stores nothing.
    bed.hold(true);
    let mut first = loading(&bed, 0, "item:3");
    second.send(&["GET", "item:3"]);
    eventually(PATIENCE, "it takes over", || counted(&bed, 1)[2] == 1.0);
    bed.hold(false);
    assert_eq!((first.recv(), second.recv()), ("v3".into(), "v3".into()));
    assert_eq!(
        (counted(&bed, 0), counted(&bed, 1)[..3].to_vec()),
        ([3.0, 0.0, 0.0, 2.0], vec![1.0, 2.0, 1.0])
    );
}

/// Moves the slot of `key` from the node that has it to another one, and `meanwhile` in the middle of it.
fn move_slot(bed: &Bed, key: &str, meanwhile: impl FnOnce()) {
    let slot = dsproxy::slot::slot(key.as_bytes()).to_string();
    let addrs = bed.stack.redis_nodes();
    let mut nodes: Vec<Resp> = addrs.iter().map(|addr| Resp::connect(&**addr)).collect();
    let ids: Vec<String> = nodes.iter_mut().map(|node| node.cmd(&["CLUSTER", "MYID"]).text()).collect();
    let here = |node: &mut Resp| !matches!(node.cmd(&["EXISTS", key]), Value::Error(_));
    let from = nodes.iter_mut().position(here).unwrap();
    let to = (from + 1) % nodes.len();
    let ok = Value::Simple("OK".into());
    assert_eq!(nodes[to].cmd(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]]), ok);
    assert_eq!(nodes[from].cmd(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]), ok);
    meanwhile();
    let (host, port) = addrs[to].rsplit_once(':').unwrap();
    loop {
        let keys = nodes[from].cmd(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
        if keys.items().is_empty() {
            break;
        }
        for key in keys.items() {
            nodes[from].cmd(&["MIGRATE", host, port, &key.text(), "0", "5000"]);
        }
    }
    for node in [to, from, 3 - to - from] {
        assert_eq!(nodes[node].cmd(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]), ok);
    }
}

/// The value at the node that has the key, once there is one.
fn cached(bed: &Bed, key: &str) -> Option<Value> {
    let holds = |node: String| match Resp::try_connect(&*node).ok()?.cmd(&["GET", key]) {
        Value::Error(_) => None,
        value => Some(value),
    };
    bed.stack.redis_nodes().into_iter().find_map(holds)
}

/// Both proxies see `value`, and it is what is cached.
fn settles_on(bed: &Bed, key: &str, value: &str) {
    for proxy in &bed.proxies {
        assert_eq!(proxy.connect().cmd(&["GET", key]), value.into());
    }
    eventually(PATIENCE, "it is cached", || {
        bed.proxies[0].connect().cmd(&["GET", key]);
        cached(bed, key) == Some(value.into())
    });
}

#[test]
fn a_slot_that_moves_under_a_lease_costs_a_query_at_most_and_no_stale_value() {
    let bed = Bed::start(2, "", "");
    for id in 1..=2 {
        let key = format!("item:{id}");
        let before = bed.loads();
        bed.slow(0.5);
        let mut first = loading(&bed, 0, &key);
        let mut second = bed.proxies[1].connect();
        second.set_patience(PATIENCE);
        let mut dropped = Value::Int(0);
        move_slot(&bed, &key, || {
            second.send(&["GET", &key]);
            // The row changes behind the snapshot of the load; the invalidation meets a slot between two nodes.
            if id % 2 == 0 {
                eventually(PATIENCE, "it is being loaded", || bed.loads() > before);
                bed.write(id, "new");
                dropped = bed.proxies[1].connect().cmd(&["DEL", &key]);
            }
        });
        if !matches!(dropped, Value::Int(_)) {
            // Neither node has all of it at that moment: whoever asked is told so, and asks again.
            let said = dropped.error();
            assert!(said.starts_with("TRYAGAIN") || said.contains("no node could serve this slot"), "{said}");
            assert!(matches!(bed.proxies[1].connect().cmd(&["DEL", &key]), Value::Int(_)));
        }
        let old = Value::from(format!("v{id}").as_str());
        assert_eq!(first.recv(), old, "its snapshot is from before");
        bed.slow(0.0);
        let seen = second.recv();
        assert!(seen == old || id % 2 == 0 && seen == "new".into(), "{seen:?}");
        let changed = id % 2 == 0;
        let most = if changed { 3 } else { 2 };
        settles_on(&bed, &key, if changed { "new" } else { old.text().leak() });
        assert!(bed.loads() - before <= most, "{} queries", bed.loads() - before);
    }
}

#[test]
fn a_primary_that_fails_over_under_a_lease_costs_a_query_at_most_and_no_stale_value() {
    let options = KeeperOptions { replicas: 1, node_timeout_ms: 1000, ..KeeperOptions::default() };
    let bed = Bed::with(PrivateStack::start(options), 2, "lease = \"20s\"\ntimeout = \"15s\"", "", PATIENT);
    let nodes = bed.stack.redis_nodes();
    let here = |key: &String| !matches!(Resp::connect(&*nodes[0]).cmd(&["GET", key]), Value::Error(_));
    let keys: Vec<String> = (1..).map(|id| format!("item:{id}")).filter(here).take(2).collect();
    let value = |key: &str| key.replace("item:", "v");
    assert_eq!(bed.proxies[0].connect().cmd(&["GET", &keys[0]]), value(&keys[0]).as_str().into());
    bed.hold(true);
    let mut first = loading(&bed, 0, &keys[1]);
    bed.stack.kill("redis-0");
    bed.hold(false);
    assert_eq!(first.recv(), value(&keys[1]).as_str().into());
    // Its row changes while nobody owns the slots: nobody can be told.
    bed.db.execute(&format!("update item set v = 'new' where id = {}", keys[1].replace("item:", "")));
    let mut promoted = Resp::connect(&*nodes[3]);
    eventually(PATIENCE, "the replica takes over", || {
        promoted.cmd(&["ROLE"]).items()[0] == "master".into() && here_now(&mut promoted, &keys[0])
    });
    let before = bed.loads();
    for proxy in bed.proxies.iter().rev() {
        eventually(PATIENCE, "it knows the new primary", || {
            !matches!(proxy.connect().cmd(&["EXISTS", "{item:x}plain"]), Value::Error(_))
        });
    }
    let mut client = bed.proxies[1].connect();
    client.set_patience(PATIENCE);
    assert_eq!(client.cmd(&["GET", &keys[0]]), value(&keys[0]).as_str().into());
    // The row may have been stored after all: by the replica, when it took over in time.
    assert!(matches!(client.cmd(&["DEL", &keys[1]]), Value::Int(0 | 1)));
    assert_eq!(client.cmd(&["GET", &keys[1]]), "new".into());
    assert!(bed.loads() - before <= 2, "one for each key: {}", bed.loads() - before);
    settles_on(&bed, &keys[0], &value(&keys[0]));
    settles_on(&bed, &keys[1], "new");
}

fn here_now(node: &mut Resp, key: &str) -> bool {
    !matches!(node.cmd(&["EXISTS", key]), Value::Error(_))
}
