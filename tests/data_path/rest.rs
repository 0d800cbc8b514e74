//! `POST /write` and `GET /read`: the same rows as by RESP.

use serde_json::json;

use crate::bed::{Bed, NO_CLOCK};
use crate::support::Http;

#[track_caller]
fn write(bed: &Bed, user_id: &str, value: &str, ts: Option<i64>) {
    let mut body = json!({"user_id": user_id, "value": value});
    if let Some(ts) = ts {
        body["ts"] = ts.into();
    }
    let answer = bed.proxy.post("/write", &body.to_string());
    assert_eq!((answer.status, answer.body.trim()), (202, "accepted"));
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn read(bed: &Bed, user_id: &str) -> Http {
    bed.proxy.get(&format!("/read?user_id={}", encoded(user_id)))
}

/// What both sides say the value is.
#[track_caller]
fn assert_value(bed: &Bed, user_id: &str, value: &str) {
    let answer = read(bed, user_id);
    assert_eq!((answer.status, answer.body.as_str()), (200, value), "by HTTP");
    assert_eq!(bed.get(&format!("user_data:{user_id}")), value, "by RESP");
}

fn flush(bed: &Bed) {
    // Fills the batch up with rows of somebody else.
    let mut client = bed.proxy.connect();
    for n in bed.waiting("user_data") as u32..50 {
        client.cmd(&bed.args(&["SET", &format!("@user_data:filler{n}"), "x"]));
    }
    bed.wait_flushed();
}

#[test]
fn the_latest_value_by_ts_is_read_before_and_after_the_flush() {
    let bed = Bed::start(NO_CLOCK);
    assert_eq!(read(&bed, "user1").status, 404);
    write(&bed, "user1", "at 20", Some(20));
    assert_value(&bed, "user1", "at 20");
    write(&bed, "user1", "at 10", Some(10));
    assert_value(&bed, "user1", "at 20");
    write(&bed, "user1", "at 30", Some(30));
    assert_value(&bed, "user1", "at 30");
    flush(&bed);
    assert_value(&bed, "user1", "at 30");
    // Now the newest one is in the database, and in the cache.
    write(&bed, "user1", "at 25", Some(25));
    assert_value(&bed, "user1", "at 30");
    write(&bed, "user1", "also at 30", Some(30));
    assert_value(&bed, "user1", "also at 30");
    flush(&bed);
    assert_value(&bed, "user1", "also at 30");
    let rows = bed.one("select string_agg(value, ',' order by id) from user_data where user_id = 'user1'");
    assert_eq!(rows.as_deref(), Some("at 20,at 10,at 30,at 25,also at 30"), "every write is a row");
}

#[test]
fn a_write_without_ts_is_written_now() {
    let bed = Bed::start(NO_CLOCK);
    write(&bed, "user1", "old", Some(1_000_000_000));
    write(&bed, "user1", "now", None);
    assert_value(&bed, "user1", "now");
    write(&bed, "user1", "older", Some(1_000_000_001));
    assert_value(&bed, "user1", "now");
    flush(&bed);
    assert_value(&bed, "user1", "now");
    let age = "select abs(ts - extract(epoch from now())) < 60 from user_data where value = 'now'";
    assert_eq!(bed.one(age).as_deref(), Some("t"));
}

#[test]
fn a_value_of_the_future_stays_the_latest() {
    let bed = Bed::start(NO_CLOCK);
    write(&bed, "user1", "future", Some(40_000_000_000));
    write(&bed, "user1", "now", None);
    assert_value(&bed, "user1", "future");
    bed.run(&["SET", "@user_data:user1", "now"]);
    assert_value(&bed, "user1", "future");
    flush(&bed);
    assert_value(&bed, "user1", "future");
    write(&bed, "user1", "now", None);
    assert_value(&bed, "user1", "future");
    bed.run(&["MSET", "@user_data:user1", "now"]);
    assert_value(&bed, "user1", "future");
    flush(&bed);
    assert_value(&bed, "user1", "future");
}

#[test]
fn one_side_reads_what_the_other_has_written() {
    let bed = Bed::start(NO_CLOCK);
    write(&bed, "user1", "by HTTP", None);
    assert_eq!(bed.get("user_data:user1"), "by HTTP");
    bed.run(&["SET", "@user_data:user1", "by RESP"]);
    assert_eq!(read(&bed, "user1").body, "by RESP");
    bed.run(&["MSET", "@user_data:user1", "by MSET", "@user_data:user2", "too"]);
    assert_eq!((read(&bed, "user1").body, read(&bed, "user2").body), ("by MSET".into(), "too".into()));
    let error = bed.run(&["DEL", "@user_data:user1"]);
    assert!(error.error().contains("'user_data' appends rows"), "{error:?}");
    flush(&bed);
    assert_value(&bed, "user1", "by MSET");
    assert_eq!(bed.one("select count(*) from user_data where user_id = 'user1'").as_deref(), Some("3"));
}

#[test]
fn any_text_is_a_value_and_nearly_any_text_a_user() {
    let bed = Bed::start(NO_CLOCK);
    let huge = "ü€😀".repeat(100_000);
    let values = ["grüße 😀 \u{202e}", "", " ", "line\r\nbreak", "{\"json\":true}", "$5\r\nhello\r\n", &huge];
    for (n, value) in values.iter().enumerate() {
        let user = format!("ünï 😀:{n}&x=?#%41");
        write(&bed, &user, value, None);
        assert_value(&bed, &user, value);
    }
    flush(&bed);
    for (n, value) in values.iter().enumerate() {
        let user = format!("ünï 😀:{n}&x=?#%41");
        bed.direct(&["DEL", &format!("@user_data:{user}")]);
        assert_value(&bed, &user, value);
    }
}

#[test]
fn bad_requests_are_told_what_is_wrong() {
    let bed = Bed::start(NO_CLOCK);
    let too_long = format!(r#"{{"user_id":"a","value":"{}"}}"#, "x".repeat(1 << 20));
    for (body, status, part) in [
        ("", 400, "EOF"),
        ("nonsense", 400, "expected"),
        ("[]", 400, "user_id"),
        (r#"["a","x",1]"#, 400, "object"),
        (r#"{"value":"x"}"#, 400, "user_id"),
        (r#"{"user_id":"a"}"#, 400, "value"),
        (r#"{"user_id":"","value":"x"}"#, 400, "empty"),
        (r#"{"user_id":1,"value":"x"}"#, 400, "string"),
        (r#"{"user_id":"a","value":1}"#, 400, "string"),
        (r#"{"user_id":"a","value":"x","ts":"now"}"#, 400, "number"),
        (r#"{"user_id":"a","value":"x","ts":1.5}"#, 400, "whole number"),
        (r#"{"user_id":"a","value":"x","ts":99999999999999999999}"#, 400, "whole number"),
        (r#"{"user_id":"a","value":"x","tss":1}"#, 400, "tss"),
        (r#"{"user_id":"a","value":"nul: \u0000"}"#, 400, "NUL"),
        (r#"{"user_id":"a","value":"nul: \u0000","ts":1}"#, 400, "NUL"),
        (&too_long, 413, "limit"),
    ] {
        let answer = bed.proxy.post("/write", body);
        assert_eq!(answer.status, status, "{}: {}", &body[..body.len().min(80)], answer.body);
        assert!(answer.body.contains(part), "{part}: {}", answer.body);
    }
    for body in [r#"{"user_id":"a\u0000b","value":"x"}"#, r#"{"user_id":"a\u0000b","value":"x","ts":1}"#] {
        let answer = bed.proxy.post("/write", body);
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
    for (path, status) in [
        ("/read", 400),
        ("/read?user_id=", 400),
        ("/read?user=a", 400),
        ("/read?user_id=a&user_id=b", 400),
        ("/read?user_id=%ff", 400),
        ("/read?user_id=nobody", 404),
        ("/write", 405),
        ("/nonsense", 404),
    ] {
        assert_eq!(bed.proxy.get(path).status, status, "{path}");
    }
    // No row can have it: that is no error.
    assert_eq!(bed.proxy.get("/read?user_id=a%00b").status / 100, 4);
    assert_eq!(bed.waiting("user_data"), 0.0);
    assert_eq!(bed.proxy.metric("dsproxy_http_requests_total{route=\"/write\",status=\"405\"}"), 1.0);
}

#[test]
fn without_the_mapping_the_facade_says_so() {
    let stack = crate::support::SharedStack::get();
    let proxy = crate::support::Proxy::for_nodes(stack.redis_nodes(), None, "");
    for answer in [proxy.post("/write", r#"{"user_id":"a","value":"x"}"#), proxy.get("/read?user_id=a")] {
        assert_eq!(answer.status, 404);
        assert!(answer.body.contains("no mapping named `user_data`"), "{}", answer.body);
    }
    assert_eq!(proxy.get("/health/ready").status, 200);
}
