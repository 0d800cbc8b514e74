//! What commands compute from when Redis has lost the value of a write that waits for the database.

use crate::bed::{Bed, Beside, NO_CLOCK};
use dsproxy::sidecar::sidecar_key;

const COUNTER: &str = r#"
[[mapping]]
name = "counter"
key = "PREFIXcounter:{id}"
table = "counters"
id = "bigint"
format = "text"
column = "n"
write = "behind"
"#;

fn bed() -> (Bed, Beside) {
    let bed = Bed::durable(&format!("{NO_CLOCK}modify_timeout = \"300ms\"\n{COUNTER}"));
    let other = bed.beside(&[]);
    (bed, other)
}

fn lose(bed: &Bed, key: &str, sidecar: bool) {
    bed.direct(&["DEL", &format!("@{key}")]);
    if sidecar {
        bed.direct(&["DEL", &String::from_utf8(sidecar_key(bed.key(key).as_bytes())).unwrap()]);
    }
}

#[test]
fn where_redis_knows_that_a_write_waits_nothing_is_computed_from_the_older_row() {
    let (mut bed, other) = bed();
    assert_eq!((1..=3).map(|_| bed.run(&["INCR", "@counter:1"]).int()).collect::<Vec<_>>(), [1, 2, 3]);
    lose(&bed, "counter:1", false);
    // The other proxy waits for the flush, and says so when it takes too long; nothing has happened then.
    let refused = other.run(&bed, &["INCR", "@counter:1"]);
    assert!(refused.error().contains("on its way to the database"), "{refused:?}");
    assert_eq!(bed.run(&["INCR", "@counter:1"]).int(), 4, "whoever took the writes knows their value");
    lose(&bed, "counter:1", false);
    assert!(bed.proxy.stop().success());
    assert_eq!(other.run(&bed, &["INCR", "@counter:1"]).int(), 5);
}

#[test]
fn where_redis_has_lost_even_that_only_the_proxy_that_took_the_writes_counts_right() {
    let (mut bed, mut other) = bed();
    for n in 1..=3 {
        assert_eq!(bed.run(&["INCR", "@counter:1"]).int(), n);
    }
    lose(&bed, "counter:1", true);
    assert_eq!(bed.run(&["INCR", "@counter:1"]).int(), 4);
    lose(&bed, "counter:1", true);
    bed.crash();
    assert_eq!(bed.run(&["INCR", "@counter:1"]).int(), 5, "from its journal");
    // Another one computes from the row. Its write is the newer one: what it did not know of is lost. This is the limit of
    // what docs/guarantees.md promises; whoever moves it changes that page.
    lose(&bed, "counter:1", true);
    assert_eq!(other.run(&bed, &["INCR", "@counter:1"]).int(), 1);
    assert_eq!(bed.run(&["INCR", "@counter:1"]).int(), 2, "they agree again, on the newer write");
    assert!(bed.proxy.stop().success() && other.proxy.stop().success());
    assert_eq!(bed.one("select n from counters where id = 1").as_deref(), Some("2"));
}
