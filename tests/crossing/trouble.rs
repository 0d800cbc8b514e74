//! Slots that move and replicas that take over, none of which loses a write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dsproxy::embedded::keeper::KeeperOptions;
use dsproxy::slot::slot;

use crate::requests::{TAGS, tag};
use crate::support::{PrivateStack, Resp, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

pub fn stack() -> PrivateStack {
    PrivateStack::start(KeeperOptions {
        replicas: 1,
        with_postgres: false,
        // Nothing takes over unasked, however busy the machine is: that would lose writes.
        node_timeout_ms: 15_000,
        ..KeeperOptions::default()
    })
}

/// A node as the cluster sees it.
struct Node {
    id: String,
    addr: String,
    /// Id of its primary, for a replica.
    primary: Option<String>,
    slots: Vec<(u16, u16)>,
}

fn cluster(addr: &str) -> Vec<Node> {
    let text = Resp::connect(addr).cmd(&["CLUSTER", "NODES"]).text();
    let nodes = text.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let addr = words[1].split(['@', ',']).next().unwrap().to_owned();
        let slots = words[8..].iter().filter(|range| !range.starts_with('['));
        let slots = slots.map(|range| range.split_once('-').unwrap_or((range, range)));
        Node {
            id: words[0].to_owned(),
            addr,
            primary: (words[3] != "-").then(|| words[3].to_owned()),
            slots: slots.map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap())).collect(),
        }
    });
    nodes.collect()
}

/// Until `over`: moves the slots of some tags, then lets a replica take over, and so on.
pub fn make(nodes: &[String], over: &AtomicBool) {
    let (mut moved, mut failed_over) = (0, 0);
    for round in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        // Two changes at once can cost a cluster keys: a replica may take over that has not heard of the last move.
        eventually(PATIENCE, "the nodes agree", || agree(nodes));
        if round % 8 == 7 {
            failed_over += usize::from(fail_over(&nodes[0], round / 8));
        } else {
            moved += usize::from(move_slot(&nodes[0], slot(tag(round % TAGS).as_bytes())));
        }
    }
    eprintln!("{moved} slots moved, {failed_over} replicas took over");
    assert!(moved > 0 && failed_over > 0);
}

/// True when all nodes say the same of who owns what, and of who is whose replica.
fn agree(nodes: &[String]) -> bool {
    let views = nodes.iter().map(|node| {
        let mut view: Vec<_> =
            cluster(node).into_iter().map(|node| (node.id, node.primary, node.slots)).collect();
        view.sort();
        view
    });
    let views: Vec<_> = views.collect();
    views.iter().all(|view| *view == views[0])
}

/// Moves a slot key by key to the next primary; false when the cluster was not ready for it.
fn move_slot(seed: &str, slot: u16) -> bool {
    let nodes = cluster(seed);
    let primaries: Vec<&Node> = nodes.iter().filter(|node| node.primary.is_none()).collect();
    let owns = |node: &&Node| node.slots.iter().any(|(from, to)| (*from..=*to).contains(&slot));
    let Some(from) = primaries.iter().position(owns) else { return false };
    let to = (from + 1) % primaries.len();
    let (from, to) = (primaries[from], primaries[to]);
    let (mut source, mut target) = (Resp::connect(from.addr.as_str()), Resp::connect(to.addr.as_str()));
    let text = slot.to_string();
    let ok = Value::Simple("OK".into());
    if target.cmd(&["CLUSTER", "SETSLOT", &text, "IMPORTING", &from.id]) != ok
        || source.cmd(&["CLUSTER", "SETSLOT", &text, "MIGRATING", &to.id]) != ok
    {
        return false;
    }
    let (host, port) = to.addr.rsplit_once(':').unwrap();
    loop {
        let keys = source.cmd(&["CLUSTER", "GETKEYSINSLOT", &text, "20"]);
        let keys: Vec<String> = keys.items().iter().map(Value::text).collect();
        if keys.is_empty() {
            break;
        }
        let mut request = vec!["MIGRATE", host, port, "", "0", "5000", "KEYS"];
        request.extend(keys.iter().map(String::as_str));
        let done = source.cmd(&request);
        assert!(matches!(&done, Value::Simple(_)), "{done:?}");
    }
    // The target first: between the two, the source still sends there.
    for node in [&to.addr, &from.addr] {
        assert_eq!(Resp::connect(node.as_str()).cmd(&["CLUSTER", "SETSLOT", &text, "NODE", &to.id]), ok);
    }
    true
}

/// A replica takes over as an operator would have it, with its primary waiting for it.
fn fail_over(seed: &str, round: usize) -> bool {
    let nodes = cluster(seed);
    let replicas: Vec<&Node> = nodes.iter().filter(|node| node.primary.is_some()).collect();
    let Some(replica) = replicas.get(round % replicas.len().max(1)) else { return false };
    let mut node = Resp::connect(replica.addr.as_str());
    if node.cmd(&["CLUSTER", "FAILOVER"]) != Value::Simple("OK".into()) {
        return false;
    }
    eventually(PATIENCE, "the replica takes over", || node.cmd(&["ROLE"]).items()[0].text() == "master");
    true
}

/// A cluster in which replicas take over by themselves, soon.
pub fn mortal() -> PrivateStack {
    let options = KeeperOptions {
        replicas: 1,
        with_postgres: false,
        node_timeout_ms: 1000,
        ..KeeperOptions::default()
    };
    PrivateStack::start(options)
}

/// Until `over`: kills a primary, waits for its replica to take over, brings it back as a replica, and so on.
pub fn kill(stack: &PrivateStack, over: &AtomicBool) {
    let nodes = stack.redis_nodes();
    let mut killed = 0;
    while !over.load(Ordering::Relaxed) {
        eventually(PATIENCE, "each primary has a replica", || has_replicas(&nodes));
        let views = cluster(&nodes[0]);
        let primaries: Vec<&Node> = views.iter().filter(|node| !node.slots.is_empty()).collect();
        let victim = primaries[killed % primaries.len()];
        let number = nodes.iter().position(|addr| *addr == victim.addr).unwrap();
        let witness = nodes.iter().find(|addr| **addr != victim.addr).unwrap();
        stack.kill(&format!("redis-{number}"));
        killed += 1;
        eventually(PATIENCE, "a replica takes over", || {
            cluster(witness).iter().any(|node| {
                node.addr != victim.addr && node.slots.iter().any(|slots| victim.slots.contains(slots))
            })
        });
        stack.start_server(&format!("redis-{number}"));
    }
    eprintln!("{killed} primaries killed");
    assert!(killed > 0);
}

/// True when all nodes agree, and every primary's replica follows it.
fn has_replicas(nodes: &[String]) -> bool {
    agree(nodes)
        && nodes.iter().all(|node| {
            let info = Resp::connect(node.as_str()).cmd(&["INFO", "replication"]).text();
            info.contains("master_link_status:up") || info.contains("connected_slaves:1")
        })
}
