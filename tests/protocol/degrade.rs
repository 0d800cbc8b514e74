//! A shard is down, or hangs: mapped reads are answered from the database, and cached again when it is back.

use std::time::{Duration, Instant};

use crate::bed::{Bed, PATIENCE};
use crate::support::{Value, eventually};

/// Keys of the shard of `redis-0`, and keys of others.
fn keys(count: usize) -> (Vec<String>, Vec<String>) {
    let all = (1..1000).map(|n| format!("item:{n}"));
    let (down, up): (Vec<_>, Vec<_>) = all.partition(|key| dsproxy::slot::slot(key.as_bytes()) < 5000);
    let up = up.into_iter().filter(|key| dsproxy::slot::slot(key.as_bytes()) > 6000);
    (down.into_iter().take(count).collect(), up.take(count).collect())
}

fn value(key: &str) -> Value {
    format!("v{}", key.strip_prefix("item:").unwrap()).as_str().into()
}

fn answers_while_away(bed: &Bed, down: &[String], up: &[String]) {
    let mut client = bed.proxies[0].connect();
    for key in down.iter().chain(up) {
        let started = Instant::now();
        assert_eq!(client.cmd(&["GET", key]), value(key), "{key}");
        assert!(started.elapsed() < Duration::from_secs(3), "{key}: {:?}", started.elapsed());
    }
    let mut mget = vec!["MGET".to_owned()];
    mget.extend(down.iter().chain(up).cloned());
    let values: Vec<Value> = down.iter().chain(up).map(|key| value(key)).collect();
    assert_eq!(client.cmd(&mget).items(), values);
}

fn is_cached_again(bed: &Bed, down: &[String]) {
    let mut client = bed.proxies[0].connect();
    eventually(PATIENCE, "cached again", || {
        down.iter().for_each(|key| assert_eq!(client.cmd(&["GET", key]), value(key)));
        let before = bed.loads();
        down.iter().for_each(|key| assert_eq!(client.cmd(&["GET", key]), value(key)));
        bed.loads() == before
    });
}

#[test]
fn without_a_shard_mapped_reads_are_answered_from_the_database() {
    let bed = Bed::start(1, "", "");
    let (down, up) = keys(5);
    bed.proxies[0].connect().cmd(&["GET", &down[0]]);
    bed.stack.stop("redis-0");
    answers_while_away(&bed, &down, &up);
    bed.stack.start_server("redis-0");
    is_cached_again(&bed, &down);
}

#[test]
fn a_shard_that_hangs_holds_up_no_mapped_read() {
    let bed = Bed::start(1, "", "");
    let (down, up) = keys(2);
    bed.proxies[0].connect().cmd(&["GET", &down[0]]);
    bed.stack.pause("redis-0");
    answers_while_away(&bed, &down, &up);
    bed.stack.cont("redis-0");
    is_cached_again(&bed, &down);
}
