//! Nodes that may evict what is not in the database yet: whoever runs the proxy is told, and told again when that changes.

use std::process::Command;

use crate::bed::{Bed, PATIENCE};
use crate::support::{Resp, Value, eventually};

const WORDS: &str = "has maxmemory-policy allkeys-lru: it may evict entries";

fn set_policy(node: &str, policy: &str) {
    let reply = Resp::connect(node).cmd(&["CONFIG", "SET", "maxmemory-policy", policy]);
    assert_eq!(reply.text(), "OK");
}

/// The last slot moves to this node, which all know from then on.
fn move_slot(bed: &Bed, to: &str) {
    let id = Resp::connect(to).cmd(&["CLUSTER", "MYID"]).text();
    for node in [to, &bed.nodes[0], &bed.nodes[1], &bed.nodes[2]] {
        Resp::connect(node).cmd(&["CLUSTER", "SETSLOT", "16383", "NODE", &id]);
    }
    assert!(matches!(Resp::connect(to).cmd(&["CLUSTER", "BUMPEPOCH"]), Value::Simple(_) | Value::Bulk(_)));
}

#[test]
fn nodes_that_evict_any_key_are_named_with_the_cure() {
    let mut bed = Bed::private("");
    let check = |bed: &Bed| {
        let mut check = Command::new(env!("CARGO_BIN_EXE_dsproxy"));
        let output = check.current_dir(bed.proxy.dir()).arg("check").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(!check(&bed).contains("maxmemory-policy"));
    assert!(bed.proxy.get("/health/ready").body.contains(r#""warnings":[]"#));
    set_policy(&bed.nodes[0], "allkeys-lru");
    set_policy(&bed.nodes[1], "volatile-lru");

    bed.crash();
    let first = bed.nodes[0].clone();
    let named = |node: &str| format!("{node} {WORDS}");
    eventually(PATIENCE, "it is told at the start", || {
        let ready = bed.proxy.get("/health/ready");
        ready.status == 200 && ready.body.contains(&named(&first)) && ready.body.contains("volatile-lru")
    });
    assert!(
        !bed.proxy.get("/health/ready").body.contains(&bed.nodes[1]),
        "a node that spares them is not named"
    );
    assert_eq!(bed.proxy.log().matches(&named(&first)).count(), 1);
    assert_eq!(bed.proxy.metric("dsproxy_evicting_nodes"), 1.0);
    assert!(check(&bed).contains(&format!("warning: Redis node {}", named(&first))));

    // It is looked at again when the topology changes: one more node, then none.
    set_policy(&bed.nodes[1], "allkeys-lru");
    move_slot(&bed, &first);
    eventually(PATIENCE, "the second is named", || bed.proxy.metric("dsproxy_evicting_nodes") == 2.0);
    assert!(bed.proxy.get("/health/ready").body.contains(&named(&bed.nodes[1])));
    bed.nodes.iter().for_each(|node| set_policy(node, "noeviction"));
    move_slot(&bed, &bed.nodes[2]);
    eventually(PATIENCE, "all is well", || bed.proxy.get("/health/ready").body.contains(r#""warnings":[]"#));
    let log = bed.proxy.log();
    assert_eq!(log.matches(&named(&first)).count(), 1, "each is named once: {log}");
    assert!(log.contains("maxmemory-policy is no longer allkeys-lru"));
}
