//! Values that are loaded anew before, or shortly after, their time to live is over.

use std::time::{Duration, Instant};

use crate::bed::{Bed, PATIENCE};
use crate::support::Value;

#[test]
fn a_stale_value_is_served_at_once_and_loaded_anew_by_one() {
    let bed = Bed::start(2, "ttl = \"200ms\"\nttl_jitter = 0.0\nstale_while_revalidate = \"30s\"\n", "");
    let mut clients: Vec<_> = bed.proxies.iter().map(|proxy| proxy.connect()).collect();
    assert_eq!(clients[0].cmd(&["GET", "item:1"]), "v1".into());
    bed.write(1, "new");
    bed.slow(0.4);
    let (started, before) = (Instant::now(), bed.loads());
    let mut fresh = 0;
    // Neither the proxy that filled it nor the other keeps a reader waiting.
    while fresh < 2 {
        fresh = 0;
        for client in &mut clients {
            let asked = Instant::now();
            let value = client.cmd(&["GET", "item:1"]);
            assert!(asked.elapsed() < Duration::from_millis(300), "a reader waited {:?}", asked.elapsed());
            fresh += usize::from(value == "new".into());
        }
        assert!(started.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(started.elapsed() >= Duration::from_millis(200), "not before its time");
    assert_eq!(bed.loads() - before, 1);
}

#[test]
fn without_the_database_a_value_may_be_stale_for_so_long_and_no_longer() {
    let bed = Bed::start(1, "ttl = \"200ms\"\nttl_jitter = 0.0\nstale_while_revalidate = \"1s\"\n", "");
    let mut client = bed.proxies[0].connect();
    assert_eq!(client.cmd(&["GET", "item:1"]), "v1".into());
    let filled = Instant::now();
    bed.fail(true);
    loop {
        let value = client.cmd(&["GET", "item:1"]);
        let age = filled.elapsed();
        if matches!(value, Value::Error(_)) {
            assert!(age >= Duration::from_millis(1150), "{age:?}");
            break;
        }
        assert_eq!(value, "v1".into(), "never nil");
        assert!(age < Duration::from_secs(3), "{age:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    bed.fail(false);
    assert_eq!(client.cmd(&["GET", "item:1"]), "v1".into());
}

#[test]
fn a_value_that_is_read_all_the_time_is_never_missing() {
    let bed = Bed::start(1, "ttl = \"1s\"\nttl_jitter = 0.0\nrefresh_ahead = 2.0\n", "");
    bed.slow(0.2);
    let mut client = bed.proxies[0].connect();
    client.cmd(&["GET", "item:1"]);
    let (started, mut slowest) = (Instant::now(), Duration::ZERO);
    while started.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        assert_eq!(client.cmd(&["GET", "item:1"]), "v1".into());
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    let loads = bed.loads();
    println!("{loads} loads, slowest read {slowest:?}");
    assert!((3..=30).contains(&loads), "{loads}");
    assert!(slowest < Duration::from_millis(190), "a reader waited {slowest:?}");
}

#[test]
fn a_refresh_does_not_bring_back_what_was_invalidated() {
    let bed = Bed::start(2, "ttl = \"100ms\"\nttl_jitter = 0.0\nstale_while_revalidate = \"30s\"\n", "");
    let mut client = bed.proxies[0].connect();
    assert_eq!(client.cmd(&["GET", "item:1"]), "v1".into());
    bed.slow(0.4);
    let before = bed.loads();
    crate::support::eventually(PATIENCE, "a refresh is under way", || {
        client.cmd(&["GET", "item:1"]);
        bed.loads() > before
    });
    bed.slow(0.0);
    bed.write(1, "new");
    assert_eq!(bed.proxies[1].connect().cmd(&["DEL", "item:1"]).int(), 1);
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(700) {
        assert_eq!(bed.proxies[1].connect().cmd(&["GET", "item:1"]), "new".into());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A list of items beside them, outdated by every write of one.
const LIST: &str = "[[mapping]]\nname = \"list\"\nkey = \"list\"\nformat = \"list\"\n\
    load = \"select i.id, i.v from item i, gate() where i.id < 4 order by i.id\"\n\
    ttl = \"1s\"\nttl_jitter = 0.0\nrefresh_ahead = 2.0\nwarm = true\ninvalidate_on = { mapping = \"row\" }\n\
    [[mapping]]\nname = \"row\"\nkey = \"row:{id}\"\nid = \"bigint\"\ntable = \"item\"\nwrite = \"behind\"\ndurability = \"database\"\n";

#[test]
fn a_list_that_writes_outdate_is_refreshed_as_well() {
    let bed = Bed::start(1, &format!("ttl = \"1s\"\n{LIST}"), "");
    crate::support::eventually(PATIENCE, "it is warm", || bed.direct(&["EXISTS", "list"]).int() == 1);
    bed.slow(0.2);
    let mut client = bed.proxies[0].connect();
    bed.direct(&["DEL", "list"]);
    let first = client.cmd(&["GET", "list"]);
    let (started, mut slowest) = (Instant::now(), Duration::ZERO);
    while started.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        assert_eq!(client.cmd(&["GET", "list"]), first);
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    let loads = bed.loads();
    assert!((3..=30).contains(&loads), "{loads}");
    assert!(slowest < Duration::from_millis(190), "a reader waited {slowest:?}");
    // What is refreshed while a row is written is outdated by that write.
    bed.slow(0.0);
    for n in 0..300 {
        let value = format!("w{n}");
        let set = client.cmd(&["SET", "row:1", &format!("{{\"v\":\"{value}\"}}")]);
        assert_eq!(set.text(), "OK");
        for _ in 0..3 {
            let list = client.cmd(&["GET", "list"]).text();
            assert!(list.contains(&format!("\"{value}\"")), "{value}: {list}");
        }
    }
}

/// Hashes of the same rows.
const CARD: &str = "[[mapping]]\nname = \"card\"\nkey = \"card:{id}\"\nid = \"bigint\"\nformat = \"hash\"\nttl = \"200ms\"\n\
    ttl_jitter = 0.0\nstale_while_revalidate = \"30s\"\n\
    load = \"select i.id, i.v from item i, gate() where i.id = any($1)\"\n";

#[test]
fn other_reads_than_get_are_served_stale_and_refresh_as_well() {
    let bed = Bed::start(
        1,
        &format!("ttl = \"200ms\"\nttl_jitter = 0.0\nstale_while_revalidate = \"30s\"\n{CARD}"),
        "",
    );
    let mut client = bed.proxies[0].connect();
    let reads: [&[&str]; 6] = [
        &["MGET", "item:1", "item:2", "item:19000"],
        &["STRLEN", "item:3"],
        &["HGET", "card:1", "v"],
        &["HGETALL", "card:2"],
        &["HMGET", "card:3", "id", "v"],
        &["GETRANGE", "item:4", "0", "-1"],
    ];
    let old: Vec<Value> = reads.iter().map(|read| client.cmd(read)).collect();
    for id in [1, 2, 3, 4, 19000] {
        bed.write(id, "a-new-one");
    }
    bed.slow(0.4);
    for (read, old) in reads.iter().zip(&old) {
        let started = Instant::now();
        // All that the reply shows is new in the end; nobody waits for it meanwhile.
        while format!("{:?}", client.cmd(read)).contains(&format!("{:?}", Value::from("v19000")))
            || client.cmd(read) == *old
        {
            assert!(started.elapsed() < PATIENCE, "{read:?}");
            let asked = Instant::now();
            client.cmd(read);
            assert!(asked.elapsed() < Duration::from_millis(300), "a reader waited {:?}", asked.elapsed());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
