//! Write-through: a death at any step leaves the database's row in the cache, or nothing.

use std::time::Duration;

use dsproxy::sidecar::sidecar_key;

use crate::support::{Resp, SharedStack, Value};
use crate::victim::{Setup, Victim};

const MAPPING: &str = r#"
[[mapping]]
name = "through"
key = "PREFIXthrough:{id}"
table = "through"
id = "bigint"
write = "behind"
durability = "database"
ttl = "60s"
"#;

#[test]
fn a_death_at_each_step_leaves_the_row_or_nothing_in_the_cache() {
    let stack = SharedStack::get();
    let (nodes, prefix) = (stack.redis_nodes().to_vec(), stack.key_prefix().to_owned());
    let db = stack.fresh_database();
    db.execute(
        "create table through (id bigint primary key, n int not null); \
         create table kv (id bigint primary key, n int); \
         create table counter (id bigint primary key, n bigint); \
         create table log (id bigint not null, value text, ts bigint)",
    );
    let setup = || Setup::new(&nodes, db.url()).prefix(&prefix).more(MAPPING);
    let mut other = Victim::new(setup());
    other.start(None);
    let mut victim = Victim::new(setup());
    for (id, point) in ["through.begun", "through.committed", "through.told"].into_iter().enumerate() {
        let key = format!("{prefix}through:{id}");
        victim.start(None);
        victim.kill();
        victim.start(Some(&format!("{point}:5")));
        let mut client = connect(&victim);
        let (mut acknowledged, mut asked) = (0, 0);
        for n in 1..100 {
            asked = n;
            match client.try_cmd(&["SET", &key, &format!(r#"{{"n":{n}}}"#)]) {
                Some(Value::Simple(_)) => acknowledged = n,
                Some(other) => panic!("{other:?}"),
                None => break,
            }
            // Both read it, so that there is an entry.
            let mut reader = connect(&other);
            assert_eq!(n_of(&reader.cmd(&["GET", &key])), n);
        }
        assert!(victim.wait_death(Duration::from_secs(20)), "{point}: {}", victim.log_tail());
        assert_eq!(acknowledged, 4, "{point}");
        let stored: i64 = db.query(&format!("select n from through where id = {id}"))[0][0]
            .clone()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(stored, if point == "through.begun" { acknowledged } else { asked }, "{point}");
        // At once, and again: whoever reads gets what the database has, though the mark of the dead one is there.
        for _ in 0..5 {
            assert_eq!(n_of(&connect(&other).cmd(&["GET", &key])), stored, "{point}");
        }
        let entry = direct(&nodes, &["GET", &key]);
        assert!(entry == Value::Nil || n_of(&entry) == stored, "{point}: {entry:?}");
        if point != "through.told" {
            let sidecar = sidecar_key(key.as_bytes());
            let mark = direct(&nodes, &[b"HGET", sidecar.as_slice(), b"w"]);
            assert!(matches!(mark, Value::Bulk(_)), "{point}: {mark:?}");
        }
        // Another one writes it through its mark.
        let mut client = connect(&other);
        assert_eq!(client.cmd(&["SET", &key, r#"{"n":1000}"#]).text(), "OK");
        assert_eq!(n_of(&client.cmd(&["GET", &key])), 1000);
        victim.start(None);
        assert_eq!(n_of(&connect(&victim).cmd(&["GET", &key])), 1000);
        victim.kill();
    }
}

fn connect(victim: &Victim) -> Resp {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        match Resp::try_connect(("127.0.0.1", victim.port())) {
            Ok(client) => return client,
            Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn n_of(value: &Value) -> i64 {
    let value: serde_json::Value = serde_json::from_str(&value.text()).unwrap();
    value["n"].as_i64().unwrap()
}

/// At the node that has the key, past the proxies.
fn direct<A: AsRef<[u8]>>(nodes: &[String], args: &[A]) -> Value {
    let mut node = nodes[0].clone();
    loop {
        match Resp::connect(&*node).cmd(args) {
            Value::Error(moved) if moved.starts_with("MOVED ") => {
                node = moved.split(' ').nth(2).unwrap().to_owned();
            }
            value => return value,
        }
    }
}
