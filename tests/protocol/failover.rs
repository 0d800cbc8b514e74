//! A replica takes over that has not heard of what its primary was told last.

use std::time::Instant;

use dsproxy::embedded::keeper::KeeperOptions;

use crate::bed::{Bed, PATIENCE};
use crate::support::{PrivateStack, Resp, Value, eventually};

const WRITTEN: &str = r#"
[write_behind]
batch_interval = "20ms"
[[mapping]]
name = "kept"
key = "kept:{id}"
table = "kept"
id = "bigint"
format = "text"
column = "v"
write = "behind"
ttl = "1h"
"#;

#[test]
fn what_a_dead_primary_was_told_last_is_told_to_the_replica_that_takes_over() {
    let options = KeeperOptions { replicas: 1, node_timeout_ms: 1000, ..KeeperOptions::default() };
    let bed = Bed::on(PrivateStack::start(options), 2, "", WRITTEN);
    let nodes = bed.stack.redis_nodes();
    let (mut primary, mut replica) = (Resp::connect(&*nodes[0]), Resp::connect(&*nodes[3]));
    replica.cmd(&["READONLY"]);
    let here = |key: &String| !matches!(Resp::connect(&*nodes[0]).cmd(&["GET", key]), Value::Error(_));
    let keys: Vec<String> = (1..).map(|id| format!("kept:{id}")).filter(here).take(3).collect();
    let [changed, deleted, dirty] = [&keys[0], &keys[1], &keys[2]];
    let mut client = bed.proxies[0].connect();
    let waiting = "dsproxy_write_behind_queue_rows{mapping=\"kept\"}";
    let told = || bed.proxies[0].metric(waiting) == 0.0;
    for key in &keys {
        assert_eq!(client.cmd(&["SET", key, "old"]).text(), "OK");
    }
    eventually(PATIENCE, "the cache is told", told);
    // The last one is dirty at the replica: nothing there would ever end its entry.
    bed.db.execute("alter table kept rename to elsewhere");
    assert_eq!(client.cmd(&["SET", dirty, "older"]).text(), "OK");
    eventually(PATIENCE, "the replica has it all", || {
        [("old", changed), ("old", deleted), ("older", dirty)]
            .into_iter()
            .all(|(value, key)| replica.cmd(&["GET", key]) == value.into())
    });
    bed.stack.pause("redis-3");
    primary.cmd(&["CLIENT", "KILL", "TYPE", "replica"]);
    bed.db.execute("alter table elsewhere rename to kept");
    assert_eq!(client.cmd(&["SET", changed, "new"]).text(), "OK");
    assert_eq!(client.cmd(&["DEL", deleted]).int(), 1);
    assert_eq!(client.cmd(&["SET", dirty, "new"]).text(), "OK");
    eventually(PATIENCE, "the cache is told", told);
    bed.stack.kill("redis-0");
    bed.stack.cont("redis-3");
    // All readers of this proxy: while nobody owns the slots, in the moment when somebody does, and after it.
    let rows = [(changed, "new".into()), (deleted, Value::Nil), (dirty, "new".into())];
    let (mut answers, began) = (0, Instant::now());
    let mut promoted = Resp::connect(&*nodes[3]);
    while answers < 50 {
        let owns = promoted.cmd(&["ROLE"]).items()[0] == "master".into();
        assert!(began.elapsed() < PATIENCE, "no answers");
        let mut client = bed.proxies[0].connect();
        match client.cmd(&["MGET", changed, deleted, dirty]) {
            Value::Error(_) => {}
            answer => {
                let expected = rows.iter().map(|(_, row)| row.clone()).collect();
                assert_eq!(answer, Value::Array(expected), "after {answers} answers");
                answers += usize::from(owns);
            }
        }
        for (key, row) in &rows {
            match client.cmd(&["GET", key]) {
                Value::Error(_) => {}
                answer => {
                    assert_eq!(answer, *row, "{key} after {answers} answers");
                    answers += usize::from(owns);
                }
            }
        }
    }
    // And then those of any other one.
    eventually(PATIENCE, "the replica knows", || {
        let mut holds = |key| promoted.cmd(&["GET", key]);
        [holds(changed), holds(dirty)].into_iter().all(|value| value == Value::Nil || value == "new".into())
            && holds(deleted) == Value::Nil
    });
    for (key, row) in rows {
        assert_eq!(bed.proxies[1].connect().cmd(&["GET", key]), row, "{key} through the other proxy");
    }
    assert!(bed.proxies[0].metric("dsproxy_retold_commits_total{mapping=\"kept\"}") >= 3.0);
}

#[test]
fn who_is_sent_to_a_node_that_knows_less_sees_what_was_committed() {
    let options = KeeperOptions { replicas: 1, ..KeeperOptions::default() };
    let bed = Bed::on(PrivateStack::start(options), 1, "", WRITTEN);
    let nodes = bed.stack.redis_nodes();
    let mut client = bed.proxies[0].connect();
    let told = || bed.proxies[0].metric("dsproxy_write_behind_queue_rows{mapping=\"kept\"}") == 0.0;
    // Of each shard another reading command is the first that comes.
    for (shard, first) in [vec!["MGET"], vec!["GET"], vec!["EXISTS", "STRLEN"]].into_iter().enumerate() {
        let (primary, replica) = (&*nodes[shard], &*nodes[3 + shard]);
        let here = |key: &String| !matches!(Resp::connect(primary).cmd(&["GET", key]), Value::Error(_));
        let keys: Vec<String> = (1..).map(|id| format!("kept:{id}")).filter(here).take(2).collect();
        for key in &keys {
            assert_eq!(client.cmd(&["SET", key, "old"]).text(), "OK");
        }
        eventually(PATIENCE, "the cache is told", told);
        let mut reader = Resp::connect(replica);
        reader.cmd(&["READONLY"]);
        eventually(PATIENCE, "the replica has it all", || {
            keys.iter().all(|key| reader.cmd(&["GET", key]) == "old".into())
        });
        // It takes over by hand before it is in step again.
        bed.stack.pause(&format!("redis-{}", 3 + shard));
        Resp::connect(primary).cmd(&["CLIENT", "KILL", "TYPE", "replica"]);
        assert_eq!(client.cmd(&["SET", &keys[0], "a newer one"]).text(), "OK");
        assert_eq!(client.cmd(&["DEL", &keys[1]]).int(), 1);
        eventually(PATIENCE, "the cache is told", told);
        reader.send(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
        bed.stack.cont(&format!("redis-{}", 3 + shard));
        assert_eq!(reader.recv().text(), "OK");
        let mut old = Resp::connect(primary);
        eventually(PATIENCE, "the old one knows", || matches!(old.cmd(&["GET", &keys[0]]), Value::Error(_)));
        for command in first {
            let answers = match command {
                "MGET" => client.cmd(&["MGET", &keys[0], &keys[1]]).items().to_vec(),
                command => keys.iter().map(|key| client.cmd(&[command, key])).collect(),
            };
            let expected = match command {
                "EXISTS" => [Value::Int(1), Value::Int(0)],
                "STRLEN" => [Value::Int(11), Value::Int(0)],
                _ => ["a newer one".into(), Value::Nil],
            };
            assert_eq!(answers, expected, "{command}");
        }
    }
}
