//! `examples/dsproxy`.

use std::time::{Duration, Instant};

use crate::bed::{Example, cluster, parts};
use crate::support::eventually;

pub fn start() -> Example {
    Example::start("dsproxy", |stack, db, http| {
        [parts(db), cluster(stack), vec![("PROXY_PORT", http.to_string())]].concat()
    })
}

#[test]
fn writes_are_accepted_read_and_stored_in_batches() {
    let example = start();
    let count = |like: &str| {
        let sql = format!("select count(*) from user_data where user_id like '{like}'");
        example.db.as_ref().unwrap().query(&sql)[0][0].clone().unwrap().parse::<u32>().unwrap()
    };
    // The lines of the README, in their order.
    let seen = example.readme(8081);
    let outputs: Vec<&str> = seen.iter().map(|(_, output)| output.as_str()).collect();
    assert_eq!(&outputs[..2], ["accepted", "hello world"]);
    assert!(outputs[2].contains("process_resident_memory_bytes"));
    assert_eq!(example.redis().cmd(&["GET", "user1"]).text(), "hello world");
    // 2 s after the first row it is stored.
    let begun = Instant::now();
    eventually(Duration::from_secs(10), "the clock flushes", || count("user1") == 1);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // The latest by `ts` is read, whatever came last.
    for (value, ts) in [("new", 2_000_000_000_i64), ("old", 1_234_567_890)] {
        let body = format!(r#"{{"user_id":"test1","value":"{value}","ts":{ts}}}"#);
        let answer = example.send("POST", "/write", &body);
        assert_eq!((answer.status, answer.body.as_str()), (202, "accepted"));
        assert_eq!(example.get("/read?user_id=test1").body, "new");
    }
    // 50 rows are stored at once.
    eventually(Duration::from_secs(10), "the first rows are stored", || count("test1") == 2);
    let begun = Instant::now();
    for n in 0..50 {
        let body = format!(r#"{{"user_id":"batch{n}","value":"{n}"}}"#);
        assert_eq!(example.send("POST", "/write", &body).status, 202);
    }
    eventually(Duration::from_secs(2), "50 rows are stored", || count("batch%") == 50);
    assert!(
        begun.elapsed() < Duration::from_millis(1900),
        "by size, not by the clock: {:?}",
        begun.elapsed()
    );
    assert_eq!(example.get("/read?user_id=nobody").status, 404);
    assert_eq!(example.get("/read").status, 400);
    assert_eq!(example.send("POST", "/write", "{").status, 400);
}

#[test]
fn any_key_is_read_and_written() {
    let example = start();
    let write = |body: &str| example.send("POST", "/write", body);
    assert_eq!(write(r#"{"key":"user7","value":"by key"}"#).status, 202);
    assert_eq!(example.get("/read?user_id=user7").body, "by key");
    let read = example.get("/read?key=user7");
    assert_eq!((read.status, read.body.as_str()), (200, "by key"));
    let tag = format!("If-None-Match: {}\r\n", read.header("etag"));
    assert_eq!(example.send_with("GET", "/read?key=user7", &tag, "").status, 304);
    let many = example.send("POST", "/mget", r#"{"keys":["user7","nobody"]}"#);
    assert_eq!(many.json(), serde_json::json!({"values": ["by key", null]}));
    for body in [r#"{"keys":[]}"#, r#"{"keys":"a"}"#, "[]", "", r#"{"keys":[1]}"#] {
        assert_eq!(example.send("POST", "/mget", body).status, 400, "{body}");
    }
    for body in [
        r#"{"key":"","value":"x"}"#,
        r#"{"key":"a"}"#,
        r#"{"key":"a","value":"x","ttl":0}"#,
        r#"{"key":"a","value":"x","ttl":-1}"#,
        r#"{"key":"a","value":"x","more":1}"#,
    ] {
        assert_eq!(write(body).status, 400, "{body}");
    }
}
