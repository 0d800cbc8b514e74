//! Two proxies and a cache that loses entries: what was written through one of them is seen through it.

use crate::bed::{Bed, Beside, NO_CLOCK, user};
use crate::support::Value;

use dsproxy::sidecar::sidecar_key;

const NEW: &str = r#"{"name":"new"}"#;

/// The node evicts the entry and what stands beside it; then the other proxy loads the row of the database again.
fn lose_and_refill(bed: &Bed, other: &Beside, key: &str) -> Value {
    let sidecar = String::from_utf8(sidecar_key(bed.key(key).as_bytes())).unwrap();
    bed.direct(&["DEL", &format!("@{key}")]);
    assert_eq!(bed.direct(&["DEL", &sidecar]).int(), 1, "it was dirty");
    let found = other.run(bed, &["GET", &format!("@{key}")]);
    assert_eq!(bed.direct(&["GET", &format!("@{key}")]), found, "it is cached");
    found
}

#[test]
fn a_hit_is_never_older_than_what_was_written_here_and_is_not_flushed_yet() {
    let bed = Bed::durable(NO_CLOCK);
    let other = bed.beside(&[]);
    for n in [1, 2] {
        assert_eq!(bed.run(&["SET", &format!("@user:{n}"), NEW]).text(), "OK");
        assert_eq!(lose_and_refill(&bed, &other, &format!("user:{n}")).text(), user(n));
    }
    assert_eq!(bed.run(&["GET", "@user:1"]).text(), NEW);
    assert_eq!(bed.run(&["STRLEN", "@user:1"]).int(), NEW.len() as i64);
    assert_eq!(bed.run(&["GETRANGE", "@user:1", "0", "7"]).text(), &NEW[..8]);
    assert_eq!(bed.run(&["GETEX", "@user:1"]).text(), NEW);
    assert_eq!(bed.run(&["EXISTS", "@user:1"]).int(), 1);
    let both = bed.run(&["MGET", "@user:1", "@user:50", "@user:2"]);
    assert_eq!(both.items(), [NEW.into(), user(50).as_str().into(), NEW.into()]);
    let read = bed.proxy.get(&format!("/read?key={}", bed.key("user:1")));
    assert!(read.body.contains("new"), "{}", read.body);
    // Once it is flushed they agree.
    let mut bed = bed;
    assert!(bed.proxy.stop().success());
    let row = other.run(&bed, &["GET", "@user:1"]).text();
    assert!(
        row.contains("new") && bed.one("select name from users where id = 1").as_deref() == Some("new"),
        "{row}"
    );
}

const GUARDED: &str = r#"
[[mapping]]
name = "guarded"
key = "PREFIXguarded:{id}"
table = "guarded"
id = "bigint"
write = "behind"
version_column = "version"
"#;

#[test]
fn a_write_that_reaches_a_guarded_row_late_changes_nothing() {
    let tables = "create table guarded (id bigint primary key, name text, version bigint not null default 0)";
    let mut bed = Bed::durable_with(&format!("{NO_CLOCK}{GUARDED}"), tables);
    let other = bed.beside(&[]);
    assert_eq!(bed.run(&["SET", "@guarded:1", r#"{"name":"late"}"#]).text(), "OK");
    assert_eq!(bed.run(&["SET", "@guarded:2", r#"{"name":"kept"}"#]).text(), "OK");
    let sidecar = String::from_utf8(sidecar_key(bed.key("guarded:1").as_bytes())).unwrap();
    bed.direct(&["DEL", "@guarded:1"]);
    bed.direct(&["DEL", &sidecar]);
    // Nobody tells the other proxy of the first write; its own is in the database before it.
    assert_eq!(other.run(&bed, &["SET", "@guarded:1", r#"{"name":"newer"}"#]).text(), "OK");
    let mut other = other;
    assert!(other.proxy.stop().success());
    let names = "select string_agg(name, ' ' order by id) from guarded";
    assert_eq!(bed.one(names).as_deref(), Some("newer"));
    assert!(bed.proxy.stop().success());
    assert_eq!(bed.one(names).as_deref(), Some("newer kept"));
    assert_eq!(bed.one("select bool_and(version > 0)::text from guarded").as_deref(), Some("true"));
    // The version is no part of the value.
    bed.restart();
    bed.direct(&["DEL", "@guarded:1"]);
    assert_eq!(bed.run(&["GET", "@guarded:1"]).text(), r#"{"id":1,"name":"newer"}"#);
    let refused = bed.run(&["SET", "@guarded:1", r#"{"name":"a","version":1}"#]);
    assert!(matches!(&refused, Value::Error(text) if text.contains("only the proxy writes")), "{refused:?}");
}

#[test]
fn a_deletion_that_is_not_flushed_hides_the_row_from_every_reading_command() {
    let bed = Bed::durable(NO_CLOCK);
    let other = bed.beside(&[]);
    bed.get("user:1");
    assert_eq!(bed.run(&["DEL", "@user:1"]).int(), 1);
    assert_eq!(lose_and_refill(&bed, &other, "user:1").text(), user(1));
    assert_eq!(bed.run(&["GET", "@user:1"]), Value::Nil);
    for (zero, at) in [("STRLEN", 0), ("EXISTS", 0), ("TOUCH", 0), ("BITCOUNT", 0), ("TTL", -2)] {
        assert_eq!(bed.run(&[zero, "@user:1"]).int(), at, "{zero}");
    }
    assert_eq!(bed.run(&["EXISTS", "@user:1", "@user:2", "@user:1"]).int(), 1);
    assert_eq!(bed.run(&["TYPE", "@user:1"]).text(), "none");
    assert_eq!(bed.run(&["GETRANGE", "@user:1", "0", "-1"]).text(), "");
    assert_eq!(bed.run(&["MGET", "@user:1", "@user:2"]).items(), [Value::Nil, user(2).as_str().into()]);
}

#[test]
fn what_another_proxy_wrote_later_is_seen_at_once() {
    let bed = Bed::durable(NO_CLOCK);
    let other = bed.beside(&[]);
    let later = r#"{"name":"later"}"#;
    for n in 1..=5 {
        let key = format!("@user:{n}");
        assert_eq!(bed.run(&["SET", &key, NEW]).text(), "OK");
        assert_eq!(other.run(&bed, &["SET", &key, later]).text(), "OK");
        assert_eq!(bed.run(&["GET", &key]).text(), later, "what waits here is the older one");
        assert_eq!(bed.run(&["STRLEN", &key]).int(), later.len() as i64);
        assert_eq!(bed.run(&["MGET", &key, "@user:60"]).items()[0], later.into());
    }
    assert_eq!(other.run(&bed, &["DEL", "@user:1"]).int(), 1);
    assert_eq!(bed.run(&["GET", "@user:1"]), Value::Nil);
    assert_eq!(bed.run(&["EXISTS", "@user:1", "@user:2"]).int(), 1);
    // What waits here loses in the database, too.
    let (mut bed, mut other) = (bed, other);
    let names = "select string_agg(name, ',' order by id) from users where id between 1 and 5";
    assert!(other.proxy.stop().success());
    assert_eq!(bed.one(names).as_deref(), Some("later,later,later,later"));
    assert!(bed.proxy.stop().success());
    assert_eq!(bed.one(names).as_deref(), Some("later,later,later,later"));
}
