//! Reads and writes of one connection that are sent together take effect in the order in which they are sent.

use crate::bed::{Bed, PATIENCE, user};
use crate::support::{Value, eventually};

const NEW: &str = r#"{"name":"new"}"#;

#[test]
fn a_read_is_not_overtaken_by_a_write_that_its_client_asks_for_behind_it() {
    let more = "[write_behind]\nbatch_interval = \"1ms\"\n";
    for bed in [Bed::through(""), Bed::durable(more)] {
        let mut client = bed.proxy.connect();
        for n in (1..=150).step_by(3) {
            let keys = [0, 1, 2].map(|more| format!("@user:{}", n + more));
            let [one, two, three] = &keys;
            let lines: [&[&str]; 8] = [
                &["GET", one],
                &["DEL", one],
                &["GET", one],
                &["STRLEN", two],
                &["SET", two, NEW],
                &["MGET", three, one],
                &["MSET", two, NEW, three, NEW],
                &["EXISTS", three],
            ];
            let replies = client.pipeline(&lines.map(|line| bed.args(line)));
            assert_eq!((replies[0].text(), &replies[2]), (user(n), &Value::Nil));
            assert_eq!(replies[3].int(), user(n + 1).len() as i64);
            assert_eq!(replies[5].items()[0].text(), user(n + 2));
            assert_eq!(replies[7].int(), 1);
        }
    }
    // A transaction is a write, too.
    let bed = Bed::durable(more);
    let mut client = bed.proxy.connect();
    for n in 1..=50 {
        let key = format!("@user:{n}");
        let lines: [&[&str]; 4] = [&["GET", &key], &["MULTI"], &["DEL", &key], &["EXEC"]];
        assert_eq!(client.pipeline(&lines.map(|line| bed.args(line)))[0].text(), user(n));
    }
    eventually(PATIENCE, "they are deleted", || {
        bed.one("select count(*) from users").as_deref() == Some("150")
    });
}
