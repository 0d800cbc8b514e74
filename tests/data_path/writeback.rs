//! What is shown and done over HTTP about writes that wait for the database, or were refused by it.

use std::process::Command;

use crate::bed::{Bed, NO_CLOCK, PATIENCE};
use crate::support::{Http, eventually};
use serde_json::Value as Json;

/// Rows leave at once; a list depends on the rows of `user`.
const LISTS: &str = r#"
[write_behind]
batch_interval = "10ms"
[[mapping]]
name = "aged"
key = "PREFIXaged:{age}"
id = "int"
format = "list"
load = "select id, name from users where age = $age order by id"
invalidate_on = { mapping = "user", by = "age" }
ttl = "1h"
"#;

fn json(answer: &Http) -> Json {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
}

fn letters(bed: &Bed, query: &str) -> Vec<Json> {
    let shown = json(&bed.proxy.get(&format!("/api/v1/dlq{query}")));
    shown["dead_letters"].as_array().unwrap().clone()
}

#[test]
fn what_waits_is_shown_by_mapping_and_lane() {
    let bed = Bed::durable(NO_CLOCK);
    let shown = || json(&bed.proxy.get("/api/v1/writeback"));
    assert_eq!((shown()["rows"].as_u64(), shown()["oldest_seconds"].as_f64()), (Some(0), None));
    for n in 1..=5 {
        bed.run(&["SET", &format!("@user:{n}"), r#"{"name":"waits"}"#]);
    }
    bed.run(&["SET", "@user_data:a", "v"]);
    let all = shown();
    assert_eq!((all["state"].as_str(), all["rows"].as_u64()), (Some("healthy"), Some(6)));
    let user = &all["mappings"]["user"];
    assert_eq!((user["rows"].as_u64(), user["durability"].as_str()), (Some(5), Some("journal")));
    assert_eq!((user["state"].as_str(), user["reason"].as_str()), (Some("healthy"), None));
    let lanes = user["lanes"].as_array().unwrap();
    assert_eq!(lanes.iter().map(|lane| lane["rows"].as_u64().unwrap()).sum::<u64>(), 5);
    assert!(lanes.len() > 1 && all["bytes"].as_u64() > user["bytes"].as_u64());
    assert!(all["oldest_seconds"].as_f64().is_some() && all["journal"]["entries"].as_u64() >= Some(6));
    assert!(all["mappings"]["post"].is_null(), "it takes no writes");
    assert_eq!(bed.proxy.get("/api/v1/writeback?mapping=user").status, 400);
}

#[test]
fn limits_and_failures_are_told_with_their_reason() {
    let queue = "[journal]\nhigh_water = 0.5\n[write_behind]\nbatch_interval = \"20ms\"\nretry_max = \"50ms\"\nqueue_rows = 4\nmax_batch_rows = 4\nbatch_rows = 4\n";
    let bed = Bed::start(queue);
    let user = || json(&bed.proxy.get("/api/v1/writeback"))["mappings"]["user"].clone();
    bed.db.execute("alter table users rename to away");
    bed.run(&["SET", "@user:1", r#"{"name":"a"}"#]);
    eventually(PATIENCE, "it says why the rows wait", || {
        user()["retrying"].as_str().is_some_and(|why| why.contains("users"))
    });
    bed.run(&["SET", "@user:2", r#"{"name":"b"}"#]);
    assert_eq!(user()["state"], "slow");
    for n in 3..=4 {
        bed.run(&["SET", &format!("@user:{n}"), r#"{"name":"c"}"#]);
    }
    let full = json(&bed.proxy.get("/api/v1/writeback"));
    assert_eq!(
        (full["state"].as_str(), full["mappings"]["user"]["state"].as_str()),
        (Some("refusing"), Some("refusing"))
    );
    assert!(full["reason"].as_str().unwrap().contains("write_behind.queue_rows"), "{full}");
    bed.db.execute("alter table away rename to users");
    eventually(PATIENCE, "it is well again", || {
        let user = user();
        user["state"] == "healthy" && user["retrying"].is_null() && user["rows"] == 0
    });
}

#[test]
fn a_replay_outdates_the_entry_and_the_lists_that_depend_on_the_row() {
    let bed = Bed::durable(LISTS);
    bed.db.execute("alter table users add constraint young check (age < 100)");
    for n in 1..=3 {
        assert_eq!(bed.run(&["SET", &format!("@user:{n}"), r#"{"name":"old","age":150}"#]).text(), "OK");
    }
    eventually(PATIENCE, "they are refused", || letters(&bed, "").len() == 3);
    // What the cache has is what the database has.
    assert_eq!(bed.get("aged:150"), "[]");
    eventually(PATIENCE, "the entry is as the row", || bed.get("user:1").contains("u1"));
    let all = letters(&bed, "?mapping=user&limit=10");
    assert_eq!((all[0]["columns"]["age"].as_str(), all[0]["code"].as_str()), (Some("150"), Some("23514")));
    assert!(all[0]["version"].as_str().unwrap().parse::<u64>().is_ok());
    let id = |n: usize| all[n]["id"].as_i64().unwrap();
    assert_eq!(letters(&bed, &format!("?id={}&id={}", id(0), id(2))).len(), 2);
    let page = json(&bed.proxy.get("/api/v1/dlq?limit=2"));
    assert_eq!(page["next"].as_i64(), Some(id(1)));
    assert_eq!(letters(&bed, &format!("?after={}", id(1))).len(), 1);

    let replay = |query: &str| json(&bed.proxy.post(&format!("/api/v1/dlq/replay?{query}"), ""));
    let first = format!("which={}", id(0));
    let again = replay(&first);
    assert_eq!((again["applied"].as_u64(), again["refused"][0]["id"].as_i64()), (Some(0), Some(id(0))));
    bed.db.execute("alter table users drop constraint young");
    assert_eq!(bed.get("aged:150"), "[]", "cached");
    assert_eq!(replay(&first)["applied"], 1);
    assert_eq!(bed.get("aged:150"), r#"[{"id":1,"name":"old"}]"#);
    assert!(bed.get("user:1").contains("150"));
    assert_eq!(replay(&first)["applied"], 0, "once");

    // The same on the command line, for a key that a newer write has outrun, too.
    bed.run(&["SET", "@user:3", r#"{"name":"newer"}"#]);
    bed.wait_flushed();
    assert!(bed.get("user:2").contains("u2"));
    let mut verb = Command::new(env!("CARGO_BIN_EXE_dsproxy"));
    let output = verb.current_dir(bed.proxy.dir()).args(["dlq", "replay"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("user:2 applied"), "{output:?}");
    assert!(text.contains("user:3 dropped"), "{text}");
    assert_eq!(bed.get("aged:150"), r#"[{"id":1,"name":"old"},{"id":2,"name":"old"}]"#);
    assert!(bed.get("user:2").contains("150") && bed.get("user:3").contains("newer"));
    assert_eq!(
        bed.one("select count(*) from dsproxy_instances").as_deref(),
        Some("1"),
        "it leaves nothing behind"
    );
}

#[test]
fn dead_letters_are_dropped_and_what_is_not_understood_is_refused() {
    let bed = Bed::durable(&NO_CLOCK.replace("1h", "10ms"));
    bed.db.execute("alter table users add constraint grown check (age >= 18)");
    for n in 1..=3 {
        bed.run(&["SET", &format!("@user:{n}"), r#"{"name":"x","age":3}"#]);
    }
    eventually(PATIENCE, "they are refused", || letters(&bed, "").len() == 3);
    let delete = |query: &str| bed.proxy.http("DELETE", &format!("/api/v1/dlq{query}"), "", "");
    for wrong in [
        "",
        "?which=",
        "?which=some",
        "?limit=2",
        "?which=-1",
        "?which=1,",
        "?which=1234567890123456789",
        "?which=mapping:",
        "?which=mapping:%00",
        "?who=1",
        "?id=1",
        "?which=all&which=all",
    ] {
        assert_eq!(delete(wrong).status, 400, "{wrong}");
        assert_eq!(
            bed.proxy.post(&format!("/api/v1/dlq/replay{}", wrong.replace("limit=2", "limit=0")), "").status,
            400
        );
    }
    for wrong in
        ["?limit=0", "?limit=1001", "?after=x", "?all=true", "?id=99999999999999999999", "?limit=1&limit=1"]
    {
        assert_eq!(bed.proxy.get(&format!("/api/v1/dlq{wrong}")).status, 400, "{wrong}");
    }
    assert_eq!(letters(&bed, "").len(), 3, "nothing has happened");
    let id = letters(&bed, "")[0]["id"].as_i64().unwrap();
    assert_eq!(json(&delete(&format!("?which={id}")))["dropped"], 1);
    assert_eq!(json(&delete("?which=mapping:nobody"))["dropped"], 0);
    assert_eq!(json(&delete("?which=all"))["dropped"], 2);
    assert_eq!(letters(&bed, "").len(), 0);
    let document = json(&bed.proxy.get("/openapi.json"));
    for path in ["/api/v1/writeback", "/api/v1/dlq", "/api/v1/dlq/replay"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}

#[test]
fn who_may_not_use_the_facade_may_not_ask() {
    let bed = Bed::start("[http]\nlisten = \"127.0.0.1:$HTTP_PORT\"\nfacade = \"off\"\n");
    for path in ["/api/v1/writeback", "/api/v1/dlq"] {
        assert_eq!(bed.proxy.get(path).status, 404, "{path}");
    }
    assert_eq!(bed.proxy.post("/api/v1/dlq/replay?which=all", "").status, 404);
    assert_eq!(bed.proxy.http("DELETE", "/api/v1/dlq?which=all", "", "").status, 404);
}
