//! Invalidation, while loads are under way in this proxy and in another.

use crate::bed::{Bed, PATIENCE};
use crate::support::{Resp, Value, eventually};

/// Loads that begin now take a while, and have read their row before it is changed.
fn race(bed: &Bed, invalidate: impl Fn(&str)) {
    for id in 100..104 {
        let (key, before) = (format!("item:{id}"), bed.loads());
        bed.slow(0.4);
        let mut slow = bed.proxies[id as usize % 2].connect();
        slow.send(&["GET", &key]);
        eventually(PATIENCE, "it loads", || bed.sidecar(&key, "l").is_some() && bed.loads() > before);
        bed.slow(0.0);
        bed.write(id, "new");
        invalidate(&key);
        assert_eq!(bed.proxies[0].connect().cmd(&["GET", &key]), "new".into(), "read after invalidation");
        slow.recv();
        for proxy in &bed.proxies {
            assert_eq!(proxy.connect().cmd(&["GET", &key]), "new".into(), "and for ever");
        }
        assert_eq!(bed.direct(&["GET", &key]), "new".into());
    }
}

#[test]
fn a_deletion_cancels_loads_in_every_proxy() {
    let bed = Bed::start(2, "", "");
    race(&bed, |key| drop(bed.proxies[0].connect().cmd(&["DEL", key])));
    assert_eq!(bed.loads(), 8);
    // It answers as Redis does, over several slots, mapped and not, mentioned twice.
    let mut client = bed.proxies[0].connect();
    client.cmd(&["SET", "plain", "x"]);
    client.cmd(&["MGET", "item:1", "item:2"]);
    eventually(PATIENCE, "both are stored", || {
        bed.direct(&["EXISTS", "item:1"]).int() + bed.direct(&["EXISTS", "item:2"]).int() == 2
    });
    assert_eq!(client.cmd(&["DEL", "item:1", "plain", "item:2", "item:1", "item:3"]).int(), 3);
    assert_eq!(client.cmd(&["UNLINK", "item:1"]).int(), 0);
}

#[test]
fn so_does_the_http_side_by_keys_and_by_pattern() {
    let bed = Bed::start(2, "", "");
    let post = |body: &str| bed.proxies[0].post("/api/v1/cache/invalidate", body);
    race(&bed, |key| assert_eq!(post(&format!(r#"{{"keys":["{key}","other"]}}"#)).status, 200));
    bed.db.execute("update item set v = 'v' || id");
    assert_eq!(post(r#"{"pattern":"item:*"}"#).body.trim(), r#"{"dropped":4}"#);
    let before = bed.loads();
    race_by_pattern(&bed, before);
    let mut client = bed.proxies[0].connect();
    client.cmd(&["SET", "item", "x"]);
    client.cmd(&["GET", "item:1"]);
    client.cmd(&["GET", "item:10"]);
    client.cmd(&["GET", "item:2"]);
    assert_eq!(post(r#"{"pattern":"item:1*"}"#).body.trim(), r#"{"dropped":3}"#);
    assert_eq!(bed.direct(&["EXISTS", "item:2"]).int(), 1);
    assert_eq!(bed.direct(&["GET", "item"]), Value::from("x"), "plain keys are left alone");
    for wrong in ["", "[]", "{}", r#"{"pattern":""}"#, r#"{"keys":["a"],"pattern":"b"}"#, r#"{"key":"a"}"#] {
        assert_eq!(post(wrong).status, 400, "{wrong}");
    }
}

fn race_by_pattern(bed: &Bed, before: u64) {
    bed.slow(0.4);
    let mut slow = bed.proxies[1].connect();
    slow.send(&["GET", "item:111"]);
    eventually(PATIENCE, "it loads", || bed.sidecar("item:111", "l").is_some() && bed.loads() > before);
    bed.slow(0.0);
    bed.write(111, "new");
    assert_eq!(bed.proxies[0].post("/api/v1/cache/invalidate", r#"{"pattern":"item:1*"}"#).status, 200);
    slow.recv();
    assert_eq!(bed.proxies[0].connect().cmd(&["GET", "item:111"]), "new".into());
    assert_eq!(bed.direct(&["GET", "item:111"]), "new".into());
}

#[test]
fn a_pattern_lets_no_row_from_before_through_while_thousands_are_stored() {
    let bed = Bed::start(2, "", "");
    // What makes a scan take longer than a load.
    for node in bed.stack.redis_nodes() {
        assert_eq!(Resp::connect(&*node).cmd(&["DEBUG", "POPULATE", "20000"]).text(), "OK");
    }
    let keys: Vec<Vec<String>> =
        (0..8).map(|group| (1..=40).map(|n| format!("item:{}", group * 100 + n)).collect()).collect();
    let ask = |keys: &[String]| -> Vec<String> {
        ["MGET".to_owned()].into_iter().chain(keys.iter().cloned()).collect()
    };
    for round in 0..10 {
        // Queries take their time one after the other, so that rows are stored before, in the middle of and after the scans.
        bed.slow(0.04 + f64::from(round) * 0.012);
        let mut readers: Vec<_> = keys.iter().map(|_| bed.proxies[1].connect()).collect();
        let before = bed.loads();
        for (reader, keys) in readers.iter_mut().zip(&keys) {
            let words = ask(keys);
            reader.send(&words.iter().map(String::as_str).collect::<Vec<_>>());
        }
        eventually(PATIENCE, "they load", || bed.loads() > before);
        bed.db.execute(&format!("update item set v = 'r{round}' where id < 1000"));
        let reply = bed.proxies[0].post("/api/v1/cache/invalidate", r#"{"pattern":"item:*"}"#);
        assert_eq!(reply.status, 200, "{}", reply.body);
        bed.slow(0.0);
        let wanted = Value::from(format!("r{round}").as_str());
        for keys in &keys {
            let words = ask(keys);
            let values = bed.proxies[0].connect().cmd(&words.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(values.items().iter().all(|value| *value == wanted), "round {round}: {values:?}");
        }
        readers.iter_mut().for_each(|reader| drop(reader.recv()));
        for key in keys.iter().flatten().step_by(7) {
            let cached = bed.direct(&["GET", key]);
            assert!(cached == wanted || cached == Value::Nil, "round {round}: {key} {cached:?}");
        }
        for key in keys.iter().flatten() {
            bed.proxies[0].connect().cmd(&["DEL", key]);
        }
    }
}
