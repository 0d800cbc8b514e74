//! What the cache was told of commits outlives the process that told it, and the node that heard it.

use std::path::Path;
use std::time::Instant;

use dsproxy::embedded::keeper::KeeperOptions;
use rustix::process::Signal;

use crate::bed::{Bed, PATIENCE};
use crate::support::{PrivateStack, Resp, Value, eventually};

const WRITTEN: &str = r#"
[write_behind]
batch_interval = "20ms"
[journal]
data_dir = "DIR"
segment_size = "64kb"
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

/// One proxy over these servers, with a journal in `dir` that outlives it.
fn bed(options: KeeperOptions, dir: &Path) -> Bed {
    Bed::on(PrivateStack::start(options), 1, "", &WRITTEN.replace("DIR", dir.to_str().unwrap()))
}

/// Keys whose slots the first node has, or has not.
fn keys(bed: &Bed, at_first: bool) -> impl Iterator<Item = String> {
    let mut first = Resp::connect(&*bed.stack.redis_nodes()[0]);
    let here = move |key: &String| at_first != matches!(first.cmd(&["GET", key]), Value::Error(_));
    (1..).map(|id| format!("kept:{id}")).filter(here)
}

fn set(client: &mut Resp, key: &str, value: &str) {
    assert_eq!(client.cmd(&["SET", key, value]).text(), "OK");
}

fn wait_told(bed: &Bed) {
    eventually(PATIENCE, "the cache is told", || {
        bed.proxies[0].metric("dsproxy_write_behind_queue_rows{mapping=\"kept\"}") == 0.0
    });
}

/// Whatever is answered is the row; until there were some answers for which `counts` says so.
fn read(bed: &Bed, rows: &[(&String, Value)], mut counts: impl FnMut() -> bool) {
    let (mut answers, began) = (0, Instant::now());
    while answers < 50 {
        assert!(began.elapsed() < PATIENCE, "no answers");
        let mut client = bed.proxies[0].connect();
        for (key, row) in rows {
            match client.cmd(&["GET", key]) {
                Value::Error(_) => {}
                answer => {
                    assert_eq!(answer, *row, "{key} after {answers} answers");
                    answers += usize::from(counts());
                }
            }
        }
    }
}

/// The node itself has what is in the rows, or nothing.
fn knows(node: &mut Resp, rows: &[(&String, Value)]) {
    eventually(PATIENCE, "the node knows", || {
        rows.iter().all(|(key, row)| {
            let held = node.cmd(&["GET", key]);
            held == Value::Nil || held == *row
        })
    });
}

/// The proxy that flushed is killed, and started again; then a replica takes over that has not heard of the flush.
fn both_die(between: impl FnOnce(&Bed)) {
    let data = tempfile::tempdir().unwrap();
    let options = KeeperOptions { replicas: 1, node_timeout_ms: 1000, ..KeeperOptions::default() };
    let mut bed = bed(options, data.path());
    let nodes = bed.stack.redis_nodes();
    let (mut primary, mut replica) = (Resp::connect(&*nodes[0]), Resp::connect(&*nodes[3]));
    replica.cmd(&["READONLY"]);
    let keys: Vec<String> = keys(&bed, true).take(3).collect();
    let [changed, deleted, dirty] = [&keys[0], &keys[1], &keys[2]];
    let mut client = bed.proxies[0].connect();
    keys.iter().for_each(|key| set(&mut client, key, "old"));
    wait_told(&bed);
    // The last one is dirty at the replica: nothing there would ever end its entry.
    bed.db.execute("alter table kept rename to elsewhere");
    set(&mut client, dirty, "older");
    eventually(PATIENCE, "the replica has it all", || {
        [("old", changed), ("old", deleted), ("older", dirty)]
            .into_iter()
            .all(|(value, key)| replica.cmd(&["GET", key]) == value.into())
    });
    bed.stack.pause("redis-3");
    primary.cmd(&["CLIENT", "KILL", "TYPE", "replica"]);
    bed.db.execute("alter table elsewhere rename to kept");
    set(&mut client, changed, "new");
    assert_eq!(client.cmd(&["DEL", deleted]).int(), 1);
    set(&mut client, dirty, "new");
    wait_told(&bed);
    between(&bed);
    // Its next start tells the old primary, which takes that with it.
    assert_eq!(primary.cmd(&["PERSIST", changed]).int(), 1);
    bed.proxies[0].signal(Signal::KILL);
    bed.proxies[0].wait_exit();
    bed.restart(0);
    eventually(PATIENCE, "it has told", || primary.cmd(&["PTTL", changed]).int() > 0);
    bed.stack.kill("redis-0");
    bed.stack.cont("redis-3");
    let mut promoted = Resp::connect(&*nodes[3]);
    let rows = [(changed, "new".into()), (deleted, Value::Nil), (dirty, "new".into())];
    read(&bed, &rows, || promoted.cmd(&["ROLE"]).items()[0] == "master".into());
    knows(&mut promoted, &rows);
}

#[test]
fn what_a_start_told_a_primary_that_dies_is_told_to_its_replica() {
    both_die(|_| {});
}

#[test]
fn also_when_the_writes_have_left_the_journal_but_for_what_lingers() {
    both_die(|bed| {
        // Two segments of writes to other nodes: those of before are in segments that nobody needs.
        let (others, value): (Vec<String>, _) = (keys(bed, false).take(10).collect(), "x".repeat(1000));
        let mut client = bed.proxies[0].connect();
        for turn in 0..15 {
            others.iter().for_each(|key| set(&mut client, key, &format!("{turn}{value}")));
        }
        wait_told(bed);
        assert!(bed.proxies[0].metric("dsproxy_journal_segments") > 2.0);
    });
}

#[test]
fn a_node_that_comes_back_with_what_it_had_saved_is_told_again() {
    let data = tempfile::tempdir().unwrap();
    let bed = bed(KeeperOptions { node_timeout_ms: 5000, ..KeeperOptions::default() }, data.path());
    let mut node = Resp::connect(&*bed.stack.redis_nodes()[0]);
    let keys: Vec<String> = keys(&bed, true).take(3).collect();
    let [changed, deleted, dirty] = [&keys[0], &keys[1], &keys[2]];
    let mut client = bed.proxies[0].connect();
    keys.iter().for_each(|key| set(&mut client, key, "old"));
    wait_told(&bed);
    bed.db.execute("alter table kept rename to elsewhere");
    set(&mut client, dirty, "older");
    assert_eq!(node.cmd(&["SAVE"]).text(), "OK");
    bed.db.execute("alter table elsewhere rename to kept");
    set(&mut client, changed, "new");
    assert_eq!(client.cmd(&["DEL", deleted]).int(), 1);
    set(&mut client, dirty, "new");
    wait_told(&bed);
    bed.stack.kill("redis-0");
    bed.stack.start_server("redis-0");
    let rows = [(changed, "new".into()), (deleted, Value::Nil), (dirty, "new".into())];
    read(&bed, &rows, || true);
    let mut node = Resp::connect(&*bed.stack.redis_nodes()[0]);
    knows(&mut node, &rows);
}

#[test]
fn a_refused_write_is_not_kept_because_its_process_died_before_it_could_say_so() {
    let data = tempfile::tempdir().unwrap();
    let options = KeeperOptions { node_timeout_ms: 5000, ..KeeperOptions::default() };
    let stack = PrivateStack::start(options);
    let config = WRITTEN.replace("DIR", data.path().to_str().unwrap());
    // It dies when the second batch is in the database, as a dead letter, before the cache hears of it.
    let mut bed = Bed::with(stack, 1, "", &config, &[("DSPROXY_FAILPOINT", "flush.committed:2")]);
    bed.db.execute("alter table kept add constraint good check (v <> 'bad')");
    let mut client = bed.proxies[0].connect();
    set(&mut client, "kept:1", "good");
    wait_told(&bed);
    client.send(&["SET", "kept:1", "bad"]);
    bed.proxies[0].wait_exit();
    assert_eq!(bed.direct(&["GET", "kept:1"]), "bad".into());
    bed.restart(0);
    eventually(PATIENCE, "the row is seen", || {
        bed.proxies[0].connect().cmd(&["GET", "kept:1"]) == "good".into()
    });
    assert_eq!(bed.direct(&["GET", "kept:1"]), "good".into());
}
