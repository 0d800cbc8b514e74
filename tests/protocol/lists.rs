//! Lists are outdated by writes of their objects with Redis commands: by the row as it was, and as it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dsproxy::embedded::keeper::KeeperOptions;
use dsproxy::sidecar::generation_key;

use crate::bed::{Bed, PATIENCE};
use crate::support::{PrivateStack, Proxy, Resp, Value, eventually};

/// Rows from 100,001 on belong to the lists of their value; `first` lists them whatever it is.
const LISTS: &str = r#"
[write_behind]
batch_interval = "20ms"
[[mapping]]
name = "row"
key = "row:{id}"
table = "item"
id = "bigint"
write = "behind"
[[mapping]]
name = "list"
key = "list:{v}:{n}"
id = ["text", "int"]
format = "list"
ttl = "1h"
load = "select id from item where v = $v and id > 100000 order by id limit $n * (select gate())"
of = "row"
invalidate_on = { mapping = "row", by = "v" }
[[mapping]]
name = "first"
key = "first:{n}"
id = "int"
format = "list"
load = "select id, v from item where id > 100000 order by id limit $n"
invalidate_on = { mapping = "row" }
"#;

fn set(client: &mut Resp, id: u32, v: &str) {
    let body = format!(r#"{{"id":{id},"v":"{v}"}}"#);
    assert_eq!(client.cmd(&["SET", &format!("row:{id}"), &body]).text(), "OK");
}

fn ids(answer: &Value) -> Option<Vec<u32>> {
    let Value::Bulk(text) = answer else { return None };
    let rows: Vec<serde_json::Value> = serde_json::from_slice(text).unwrap();
    Some(rows.iter().map(|row| row["id"].as_u64().unwrap() as u32).collect())
}

#[track_caller]
fn list(proxy: &Proxy, key: &str) -> Vec<u32> {
    let answer = proxy.connect().cmd(&["GET", key]);
    ids(&answer).unwrap_or_else(|| panic!("{key}: {answer:?}"))
}

/// Everything that was written is in the database, and what depends on it is outdated.
#[track_caller]
fn flushed(bed: &Bed) {
    let waiting = "dsproxy_write_behind_queue_rows{mapping=\"row\"}";
    eventually(PATIENCE, "it is flushed", || bed.proxies.iter().all(|proxy| proxy.metric(waiting) == 0.0));
}

#[test]
fn a_row_that_moves_outdates_the_list_it_leaves_and_the_one_it_joins() {
    let bed = Bed::start(2, "", LISTS);
    let all = |a: &[u32], b: &[u32], first: usize| {
        for proxy in &bed.proxies {
            assert_eq!(
                (list(proxy, "list:a:10"), list(proxy, "list:a:1")),
                (a.to_vec(), a.iter().copied().take(1).collect())
            );
            assert_eq!((list(proxy, "list:b:10"), list(proxy, "first:9").len()), (b.to_vec(), first));
        }
    };
    let mut client = bed.proxies[0].connect();
    all(&[], &[], 0);
    set(&mut client, 100_001, "a");
    set(&mut client, 100_002, "a");
    flushed(&bed);
    all(&[100_001, 100_002], &[], 2);
    // It moves, through the other proxy.
    set(&mut bed.proxies[1].connect(), 100_001, "b");
    flushed(&bed);
    all(&[100_002], &[100_001], 2);
    assert_eq!(
        client.cmd(&["MSET", "row:100002", r#"{"v":"b"}"#, "row:100003", r#"{"v":"a"}"#]).text(),
        "OK"
    );
    flushed(&bed);
    all(&[100_003], &[100_001, 100_002], 3);
    assert_eq!(client.cmd(&["DEL", "row:100001", "row:100003"]).int(), 2);
    flushed(&bed);
    all(&[], &[100_002], 1);
    // Nothing has changed: they are served from the cache.
    let before = bed.loads();
    all(&[], &[100_002], 1);
    assert_eq!(bed.loads(), before);
}

#[test]
fn a_list_that_was_read_before_a_commit_and_stored_after_it_is_not_served() {
    let bed = Bed::start(2, "", LISTS);
    let mut client = bed.proxies[0].connect();
    for round in 0..3 {
        let (id, key, before) = (100_001 + round, format!("list:a:{}", 50 + round), bed.loads());
        bed.slow(0.6);
        let mut slow: Vec<Resp> = bed.proxies.iter().map(Proxy::connect).collect();
        slow[round as usize % 2].send(&["GET", &key]);
        // Its snapshot is taken: what is committed from now on is not in it.
        eventually(PATIENCE, "it loads", || bed.loads() > before);
        bed.slow(0.0);
        set(&mut client, id, "a");
        flushed(&bed);
        let want: Vec<u32> = (100_001..=id).collect();
        assert_eq!(list(&bed.proxies[0], &key), want, "while the older one is still being loaded");
        assert_eq!(
            ids(&slow[round as usize % 2].recv()).unwrap().len(),
            round as usize,
            "asked before the write"
        );
        for proxy in &bed.proxies {
            assert_eq!(list(proxy, &key), want, "and for ever");
        }
    }
}

#[test]
fn lists_settle_on_their_rows_whatever_is_written_and_filled_at_the_same_time() {
    let bed = Bed::start(2, "", LISTS);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (bed, stop) = (&bed, &stop);
        for n in 0..2u32 {
            scope.spawn(move || {
                let mut client = bed.proxies[n as usize].connect();
                for at in 0u32.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = 100_001 + (at * 7 + n * 3) % 12;
                    match at % 5 {
                        0 => drop(client.cmd(&["DEL", &format!("row:{id}")])),
                        _ => set(&mut client, id, ["a", "b", "c"][(at / 3 + n) as usize % 3]),
                    }
                }
            });
        }
        for n in 0..4usize {
            scope.spawn(move || {
                let mut client = bed.proxies[n % 2].connect();
                while !stop.load(Ordering::Relaxed) {
                    for key in ["list:a:50", "list:b:50", "list:c:50", "first:50"] {
                        assert!(ids(&client.cmd(&["GET", key])).is_some());
                    }
                }
            });
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(2) {
            bed.slow(0.002);
            std::thread::sleep(Duration::from_millis(30));
            bed.slow(0.0);
            std::thread::sleep(Duration::from_millis(30));
        }
        stop.store(true, Ordering::Relaxed);
    });
    flushed(&bed);
    for v in ["a", "b", "c"] {
        let rows =
            bed.db.query(&format!("select id::text from item where v = '{v}' and id > 100000 order by id"));
        let want: Vec<u32> = rows.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect();
        for proxy in &bed.proxies {
            assert_eq!(list(proxy, &format!("list:{v}:50")), want, "{v}");
        }
    }
}

/// A node that holds the generation of list `v` and not the row.
fn away_from(bed: &Bed, row: &str) -> (String, String) {
    let owner = |key: &[u8]| {
        let key = std::str::from_utf8(key).unwrap();
        bed.stack
            .redis_nodes()
            .iter()
            .position(|node| !matches!(Resp::connect(&**node).cmd(&["GET", key]), Value::Error(_)))
    };
    (0..100)
        .find_map(|n| {
            let v = format!("v{n}");
            let node = owner(&generation_key("list", v.as_bytes())).unwrap();
            (Some(node) != owner(row.as_bytes())).then(|| (v, format!("redis-{node}")))
        })
        .unwrap()
}

#[test]
fn a_generation_that_cannot_be_renewed_is_renewed_later_or_by_the_next_start() {
    let data = tempfile::tempdir().unwrap();
    let stack = PrivateStack::start(KeeperOptions { node_timeout_ms: 60_000, ..KeeperOptions::default() });
    let journal = format!("{LISTS}[journal]\ndata_dir = {:?}\n", data.path());
    let mut bed = Bed::on(stack, 1, "", &journal);
    for (round, id) in [(0, 100_001), (1, 100_002)] {
        let (v, node) = away_from(&bed, &format!("row:{id}"));
        let key = format!("list:{v}:10");
        let before = list(&bed.proxies[0], &key);
        bed.stack.pause(&node);
        set(&mut bed.proxies[0].connect(), id, &v);
        eventually(PATIENCE, "the row is committed", || {
            bed.db.query(&format!("select 1 from item where id = {id} and v = '{v}'")).len() == 1
        });
        if round == 1 {
            bed.proxies[0].signal(rustix::process::Signal::KILL);
            bed.proxies[0].wait_exit();
        }
        bed.stack.cont(&node);
        if round == 1 {
            bed.restart(0);
        }
        let want = [before, vec![id]].concat();
        eventually(PATIENCE, "the list is as its rows", || {
            ids(&bed.proxies[0].connect().cmd(&["GET", &key])).as_ref() == Some(&want)
        });
    }
}
