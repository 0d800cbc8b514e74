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
    let (mut answers, began) = (0, Instant::now());
    let mut promoted = Resp::connect(&*nodes[3]);
    while answers < 50 {
        let owns = promoted.cmd(&["ROLE"]).items()[0] == "master".into();
        assert!(began.elapsed() < PATIENCE, "no answers");
        let mut client = bed.proxies[0].connect();
        for (key, row) in [(changed, "new".into()), (deleted, Value::Nil), (dirty, "new".into())] {
            match client.cmd(&["GET", key]) {
                Value::Error(_) => {}
                answer => {
                    assert_eq!(answer, row, "{key} after {answers} answers");
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
    for (key, row) in [(changed, "new".into()), (deleted, Value::Nil), (dirty, "new".into())] {
        assert_eq!(bed.proxies[1].connect().cmd(&["GET", key]), row, "{key} through the other proxy");
    }
    assert!(bed.proxies[0].metric("dsproxy_retold_commits_total{mapping=\"kept\"}") >= 3.0);
}
