//! Rows as hashes, written: as Redis does, and only the columns that were named.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::bed::{Bed, NO_CLOCK, PATIENCE};
use crate::reading::{node_of, with_key};
use crate::support::{Value, eventually};

const MORE: &str = r#"
[[mapping]]
name = "card"
key = "PREFIXcard:{id}"
table = "cards"
id = "bigint"
format = "hash"
write = "behind"
"#;

const TABLE: &str = "create table cards (id bigint primary key, name varchar(20) not null, n bigint, price numeric(12, 4), \
     done boolean, tags int[], extra jsonb, note text, stars int not null default 3); \
     insert into cards (id, name) select n, 'c' || n from generate_series(1, 50) n";
const QUICK: &str = "[write_behind]\nbatch_interval = \"30ms\"\n";

fn bed(more: &str) -> Bed {
    Bed::start_with(&format!("{more}\n{MORE}"), TABLE)
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const LINES: &[&str] = &[
    "HSET @KEY n 5",
    "HSET @KEY n 6 note hello",
    "HSET @KEY n 7 n 8 note a note b",
    "HSET @KEY n",
    "HSET @KEY n 1 note",
    "HMSET @KEY n 9 done true",
    "HMSET @KEY n 9 done",
    "HSETNX @KEY n 1",
    "HSETNX @KEY price 1.25",
    "HINCRBY @KEY n 4",
    "HINCRBY @KEY n -40",
    "HINCRBY @KEY n 1.5",
    "HINCRBY @KEY note 1",
    "HINCRBY @KEY n 9223372036854775807",
    "HINCRBY @KEY n 9223372036854775807",
    "HINCRBYFLOAT @KEY price 0.5",
    "HINCRBYFLOAT @KEY price 1e2",
    "HINCRBYFLOAT @KEY price x",
    "HINCRBYFLOAT @KEY price inf",
    "HINCRBYFLOAT @KEY note 1",
    "HDEL @KEY nosuch",
    "HDEL @KEY note n note nosuch",
    "HDEL @KEY note",
    "HINCRBY @KEY n 3",
    "HSET @KEY extra {\"a\":1} tags [1,2]",
    "HGET @KEY extra",
    "HDEL @KEY price done extra tags",
    "HINCRBYFLOAT @KEY price 0.1",
    "HLEN @KEY",
    "HKEYS @KEY",
    "APPEND @KEY x",
    "INCR @KEY",
    "GETSET @KEY x",
    "GETDEL @KEY",
    "SETRANGE @KEY 0 x",
    "SET @KEY x GET",
    "SETNX @KEY x",
    "TYPE @KEY",
];

#[test]
fn hashes_are_what_redis_makes_of_them() {
    let bed = bed(NO_CLOCK);
    let (mapped, plain) = (bed.key("card:7"), bed.key("plain"));
    for (protocol, evicted) in [("2", false), ("3", true)] {
        let mut node = node_of(&bed, &plain, protocol);
        let mut proxied = bed.proxy.connect();
        proxied.cmd(&["HELLO", protocol]);
        node.cmd(&["DEL", &plain]);
        node.cmd(&["HSET", &plain, "id", "7", "name", "c7", "stars", "3"]);
        for line in LINES {
            if evicted {
                bed.direct(&["DEL", "@card:7"]);
            }
            let said = proxied.cmd_raw(&with_key(line, &mapped));
            let wanted = node.cmd_raw(&with_key(line, &plain));
            assert_eq!(show(&said), show(&wanted), "{line} in RESP{protocol}");
            let (is, should) = (proxied.cmd_raw(&["HGETALL", &mapped]), node.cmd_raw(&["HGETALL", &plain]));
            assert_eq!(show(&is), show(&should), "after {line} in RESP{protocol}");
        }
        proxied.cmd(&["HDEL", &mapped, "n", "price"]);
    }
}

fn row(bed: &Bed, id: u32) -> Option<String> {
    bed.one(&format!("select row_to_json(c)::text from cards c where id = {id}"))
}

#[test]
fn only_the_columns_that_were_named_change() {
    let bed = bed(NO_CLOCK);
    assert_eq!(bed.run(&["HGET", "@card:1", "name"]).text(), "c1");
    assert_eq!(bed.run(&["HSET", "@card:1", "n", "5", "tags", "[1,2]"]).int(), 2);
    assert_eq!(bed.run(&["HINCRBYFLOAT", "@card:1", "price", "1.5"]).text(), "1.5");
    assert_eq!(bed.run(&["HSET", "@card:2", "note", "x", "done", "true", "extra", r#"{"a":[1]}"#]).int(), 3);
    assert_eq!(bed.run(&["HDEL", "@card:2", "note"]).int(), 1);
    // Somebody else changes what was not named.
    bed.db.execute("update cards set name = 'other', note = 'theirs' where id = 1");
    assert_eq!(bed.run(&["HSET", "@card:900", "name", "new", "n", "1"]).int(), 2);
    assert_eq!(bed.run(&["HGETALL", "@card:900"]).items().len(), 6);
    let mut proxy = bed.proxy;
    assert!(proxy.stop().success(), "everything is flushed");
    let one = |sql: &str| bed.db.query(sql).first().and_then(|row| row[0].clone()).unwrap_or_default();
    let row = |id: u32| one(&format!("select row_to_json(c)::text from cards c where id = {id}"));
    assert_eq!(
        row(1),
        r#"{"id":1,"name":"other","n":5,"price":1.5000,"done":null,"tags":[1,2],"extra":null,"note":"theirs","stars":3}"#
    );
    assert_eq!(
        row(2),
        r#"{"id":2,"name":"c2","n":null,"price":null,"done":true,"tags":null,"extra":{"a": [1]},"note":null,"stars":3}"#
    );
    assert_eq!(
        row(900),
        r#"{"id":900,"name":"new","n":1,"price":null,"done":null,"tags":null,"extra":null,"note":null,"stars":3}"#
    );
}

#[test]
fn the_entry_is_the_row_once_it_is_flushed() {
    let bed = bed(QUICK);
    bed.run(&["HSET", "@card:901", "name", "new", "price", "2"]);
    eventually(PATIENCE, "the entry has the default and the scale of its columns", || {
        let fields = bed.run(&["HMGET", "@card:901", "price", "stars", "id"]);
        fields.items() == [Value::from("2.0000"), "3".into(), "901".into()]
    });
    assert_eq!(bed.direct(&["TYPE", "@card:901"]).text(), "hash");
    assert_eq!(bed.run(&["DEL", "@card:901"]).int(), 1);
    assert_eq!(bed.run(&["HGETALL", "@card:901"]).items().len(), 0);
    eventually(PATIENCE, "the row is gone", || row(&bed, 901).is_none());
}

#[test]
fn what_the_table_cannot_take_is_refused_by_column() {
    let bed = bed(NO_CLOCK);
    for (line, wanted) in [
        (&["HSET", "@card:1", "nosuch", "1"][..], "column 'nosuch' does not exist"),
        (&["HSET", "@card:1", "n", "x"], "column 'n'"),
        (&["HSET", "@card:1", "note", "fine", "tags", "1"], "column 'tags'"),
        (&["HSET", "@card:1", "name", "123456789012345678901"], "21 characters, 20 fit"),
        (&["HSET", "@card:1", "id", "2"], "column 'id' differs from the id in the key"),
        (&["HDEL", "@card:1", "id"], "DEL deletes the row"),
        (&["HDEL", "@card:1", "name"], "column 'name' is null, but it is NOT NULL"),
        (&["HSET", "@card:999", "n", "1"], "column 'name' is missing"),
        (&["HINCRBY", "@card:1", "stars", "99999999999"], "column 'stars' is out of range"),
        (&["HINCRBYFLOAT", "@card:1", "n", "0.5"], "column 'n'"),
        (&["SET", "@card:1", "x"], "mapping 'card' holds hashes"),
        (&["SET", "@card:999", "x", "NX"], "mapping 'card' holds hashes"),
        (&["MSET", "@card:1", "x"], "mapping 'card' holds hashes"),
        (&["INCR", "@card:999"], "mapping 'card' holds hashes"),
        (&["HSET", "@user:9999", "name", "x"], "mapping 'user' holds strings"),
        (&["HSET", "@user:1", "name", "x"], "WRONGTYPE"),
        (&["HSET", "@post:1", "content", "x"], "mapping 'post' is read-only"),
    ] {
        let reply = bed.run(line);
        assert!(reply.error().contains(wanted), "{line:?}: {reply:?}");
    }
    assert_eq!(bed.run(&["HGETALL", "@card:1"]).items().len(), 6);
    assert_eq!(bed.waiting("card"), 0.0);
    // The id may be named as it is.
    assert_eq!(bed.run(&["HSET", "@card:1", "id", "1", "n", "2"]).int(), 1);
}

#[test]
fn a_hash_comes_back_after_a_crash() {
    let mut bed = Bed::durable_with(&format!("{NO_CLOCK}\n{MORE}"), TABLE);
    assert_eq!(bed.run(&["HSET", "@card:1", "n", "5"]).int(), 1);
    assert_eq!(bed.run(&["HSET", "@card:902", "name", "new", "note", "x"]).int(), 2);
    bed.crash();
    bed.direct(&["DEL", "@card:902"]);
    assert_eq!(bed.run(&["HMGET", "@card:902", "name", "note"]).items(), [Value::from("new"), "x".into()]);
    assert_eq!(bed.run(&["HGET", "@card:1", "n"]).text(), "5");
    assert_eq!(bed.run(&["HINCRBY", "@card:1", "n", "1"]).int(), 6);
    bed.db.execute("update cards set name = 'other' where id = 1");
    assert!(bed.proxy.stop().success());
    assert!(row(&bed, 1).unwrap().starts_with(r#"{"id":1,"name":"other","n":6"#));
    assert!(row(&bed, 902).unwrap().contains(r#""note":"x""#));
}

#[test]
fn two_proxies_that_write_different_fields_lose_none() {
    let bed = bed(&format!("[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 2\n{QUICK}"));
    let other = bed.twin();
    let (ours, theirs) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + Duration::from_millis(1500);
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (proxy, field, done) = match writer % 2 {
                0 => (&bed.proxy, "n", &ours),
                _ => (&other, "stars", &theirs),
            };
            let (mut client, line) = (proxy.connect(), bed.args(&["HINCRBY", "@card:3", field, "1"]));
            scope.spawn(move || {
                while Instant::now() < end {
                    client.cmd(&line).int();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (n, stars) = (ours.into_inner().to_string(), (theirs.into_inner() + 3).to_string());
    assert_eq!(bed.run(&["HMGET", "@card:3", "n", "stars"]).items(), [Value::from(&*n), (&*stars).into()]);
    eventually(PATIENCE, "the row has both", || {
        bed.db.query("select n::text, stars::text from cards where id = 3")
            == [[Some(n.clone()), Some(stars.clone())]]
    });
}
