//! Many writers of one key.

use std::sync::Barrier;

use crate::bed::{Bed, NO_CLOCK, PATIENCE};
use crate::support::{Resp, Value, eventually};

const KEYS: u32 = 2000;

#[test]
fn the_cache_and_the_database_agree_on_the_last_of_concurrent_writes() {
    let quick = NO_CLOCK.replace("1h", "50ms");
    let bed = Bed::start(&format!("[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 4\n{quick}"));
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (bed, start, mut client) = (&bed, &start, bed.proxy.connect());
            // Its worker counts it now: the next client goes to another one.
            client.cmd(&["PING"]);
            scope.spawn(move || {
                for n in 0..KEYS {
                    let (key, value) = (format!("@user:{}", 1000 + n), format!(r#"{{"name":"{writer}"}}"#));
                    let set = bed.args(&["SET", &key, &value]);
                    start.wait();
                    assert_eq!(client.cmd(&set).text(), "OK");
                }
            });
        }
    });
    bed.wait_flushed();
    let mut keys = vec!["MGET".to_owned()];
    keys.extend((0..KEYS).map(|n| bed.key(&format!("user:{}", 1000 + n))));
    let stored = bed.db.query("select name from users where id between 1000 and 8999 order by id");
    assert_eq!(stored.len(), KEYS as usize);
    // Doubtful entries are dropped a moment after the flush.
    eventually(PATIENCE, "cache and database agree", || {
        let cached = bed.proxy.connect().cmd(&keys);
        let name =
            |value: &Value| serde_json::from_str::<serde_json::Value>(&value.text()).unwrap()["name"].clone();
        let pairs = cached.items().iter().zip(&stored);
        pairs.filter(|(cached, stored)| name(cached) != *stored[0].as_ref().unwrap()).count() == 0
    });
}

#[test]
fn a_write_that_the_cluster_refuses_does_not_leave_the_old_value_in_the_cache() {
    let bed = Bed::private(NO_CLOCK);
    let limit_memory = |bytes: &str| {
        for node in bed.stack().redis_nodes() {
            assert_eq!(Resp::connect(&*node).cmd(&["CONFIG", "SET", "maxmemory", bytes]).text(), "OK");
        }
    };
    let before = bed.get("user:1");
    limit_memory("1");
    // The journal has it: the write is done, and seen, whatever the cache holds.
    let after = r#"{"name":"after"}"#;
    assert_eq!(bed.run(&["SET", "@user:1", after]).text(), "OK");
    assert_eq!(bed.run(&["MSET", "@user:2", after, "@user:3", after]).text(), "OK");
    for _ in 0..20 {
        assert_eq!(bed.get("user:1"), after);
        assert_eq!(bed.run(&["MGET", "@user:1", "@user:3"]).items(), [after.into(), after.into()]);
    }
    assert_eq!(bed.direct(&["GET", "@user:1"]).text(), before, "the node took nothing");
    limit_memory("0");
    // Fifty rows are a batch.
    (100..147).for_each(|n| drop(bed.run(&["SET", &format!("@user:{n}"), after])));
    bed.wait_flushed();
    assert_eq!(bed.one("select count(*)::text from users where name = 'after'").as_deref(), Some("50"));
    eventually(PATIENCE, "the old value is gone", || bed.get("user:1") != before);
    assert!(bed.get("user:1").contains("after"));
}
