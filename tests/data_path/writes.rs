//! Write-behind: visible at once, in the database in time, gone from nobody.

use std::time::Duration;

use crate::bed::{Bed, NO_CLOCK, PATIENCE, user};
use crate::support::{Value, eventually};

const ADA: &str = r#"{"name":"Ada"}"#;

#[test]
fn a_write_is_visible_at_once_and_in_the_database_within_two_seconds() {
    let bed = Bed::start("");
    let mut one = bed.proxy.connect();
    let mut other = bed.proxy.connect();
    let get = bed.args(&["GET", "@user:1"]);
    assert_eq!(other.cmd(&get).text(), user(1));
    assert_eq!(one.cmd(&bed.args(&["SET", "@user:1", ADA])).text(), "OK");
    assert_eq!((one.cmd(&get).text(), other.cmd(&get).text()), (ADA.to_owned(), ADA.to_owned()));
    let name = || bed.one("select name from users where id = 1");
    assert_eq!(name().as_deref(), Some("u1"), "not yet");
    // 2 s, and what a busy machine adds.
    eventually(Duration::from_secs(4), "the row is written", || name().as_deref() == Some("Ada"));
    // Columns that were not named stay.
    assert_eq!(bed.db.query("select count(*) from users"), [[Some("200".to_owned())]]);
}

#[test]
fn fifty_rows_leave_together_and_forty_nine_stay() {
    let bed = Bed::start(NO_CLOCK);
    let mut client = bed.proxy.connect();
    let set = |n: u32| bed.args(&["SET", &format!("@user:{}", 1000 + n), ADA]);
    let sets: Vec<_> = (0..49).map(set).collect();
    assert!(client.pipeline(&sets).iter().all(|reply| reply.text() == "OK"));
    assert_eq!(bed.waiting("user"), 49.0);
    assert_eq!(client.cmd(&set(49)).text(), "OK");
    bed.wait_flushed();
    assert_eq!(bed.one("select count(*) from users where name = 'Ada'").as_deref(), Some("50"));
    let family =
        |part: &str| bed.proxy.metric(&format!("dsproxy_flush_batch_rows_{part}{{mapping=\"user\"}}"));
    assert_eq!((family("count"), family("sum")), (1.0, 50.0), "one flush of 50");
}

#[test]
fn shutdown_leaves_nothing_behind() {
    let mut bed = Bed::start(NO_CLOCK);
    let mut client = bed.proxy.connect();
    for n in 1..=30 {
        let reply = client.cmd(&bed.args(&["SET", &format!("@user:{n}"), ADA]));
        assert_eq!(reply.text(), "OK");
    }
    bed.run(&["SET", "@user_data:a", "last"]);
    bed.run(&["DEL", "@user:40"]);
    let status = bed.proxy.stop();
    assert!(status.success(), "{status}");
    assert_eq!(bed.one("select count(*) from users where name = 'Ada'").as_deref(), Some("30"));
    assert_eq!(bed.one("select count(*) from users where id = 40").as_deref(), Some("0"));
    assert_eq!(bed.one("select value from user_data").as_deref(), Some("last"));
}

#[test]
fn a_deleted_row_is_gone_at_once_and_stays_gone() {
    let bed = Bed::start(NO_CLOCK);
    bed.get("user:1");
    assert_eq!(bed.run(&["DEL", "@user:1"]).int(), 1);
    for _ in 0..2 {
        assert_eq!(bed.run(&["GET", "@user:1"]), Value::Nil);
        assert_eq!(bed.run(&["MGET", "@user:1", "@user:2"]).items(), [Value::Nil, user(2).as_str().into()]);
    }
    assert_eq!(bed.one("select count(*) from users where id = 1").as_deref(), Some("1"), "not flushed yet");
    let mut all: Vec<String> = (100..149).map(|n| bed.key(&format!("user:{n}"))).collect();
    all.insert(0, "UNLINK".to_owned());
    bed.proxy.connect().cmd(&all);
    bed.wait_flushed();
    assert_eq!(bed.one("select count(*) from users").as_deref(), Some("150"));
    assert_eq!(bed.run(&["GET", "@user:1"]), Value::Nil);
    assert_eq!(bed.run(&["GET", "@user:120"]), Value::Nil);
    // And back again.
    bed.run(&["SET", "@user:1", ADA]);
    assert_eq!(bed.get("user:1"), ADA);
}

#[test]
fn deleting_read_only_keys_drops_the_entry_and_no_row() {
    let bed = Bed::start(NO_CLOCK);
    let post = r#"{"id":7,"content":"p7"}"#;
    assert_eq!(bed.get("post:7"), post);
    bed.db.execute("update posts set content = 'changed' where id = 7");
    assert_eq!(bed.get("post:7"), post, "cached");
    assert_eq!(bed.run(&["DEL", "@post:7"]).int(), 1);
    assert_eq!(bed.get("post:7"), post.replace("p7", "changed"));
}

#[test]
fn mset_over_mapped_and_plain_keys_is_all_or_nothing() {
    let bed = Bed::start(NO_CLOCK);
    let bob = r#"{"name":"Bob"}"#;
    let error = bed.run(&["MSET", "@user:1", ADA, "@plain", "x", "@user:2", r#"{"nam":"Bob"}"#]);
    assert!(error.error().contains("'nam'"), "{error:?}");
    let error = bed.run(&["MSET", "@user:1", ADA, "@plain", "x", "@post:1", "{}"]);
    assert!(error.error().contains("post"), "{error:?}");
    assert_eq!(
        bed.run(&["MGET", "@user:1", "@plain", "@user:2"]).items(),
        [user(1).as_str().into(), Value::Nil, user(2).as_str().into()]
    );
    assert_eq!(bed.waiting("user"), 0.0);
    assert_eq!(
        bed.run(&["MSET", "@user:1", ADA, "@plain", "x", "@user:2", bob, "@user:1", bob]).text(),
        "OK"
    );
    assert_eq!(
        bed.run(&["MGET", "@user:1", "@plain", "@user:2"]).items(),
        [bob.into(), "x".into(), bob.into()]
    );
    assert_eq!(bed.run(&["PTTL", "@user:1"]).int(), -1, "not before it is in the database");
    assert_eq!(bed.run(&["PTTL", "@plain"]).int(), -1);
}

#[test]
fn mset_finds_room_for_all_its_rows_or_takes_none() {
    // Nothing leaves: 30 rows are below the trigger, and there is no room for 31.
    let bed = Bed::start(
        "[write_behind]\nbatch_interval = \"1h\"\nbatch_rows = 30\nmax_batch_rows = 30\nqueue_rows = 30\n",
    );
    let mut client = bed.proxy.connect();
    for n in 1..=28 {
        client.cmd(&bed.args(&["SET", &format!("@user:{n}"), ADA]));
    }
    bed.get("user:101");
    let mset = ["MSET", "@user:101", ADA, "@user:102", ADA, "@user:103", ADA];
    let error = client.cmd(&bed.args(&mset));
    assert!(error.error().starts_with("BUSY write-behind queue is full"), "{error:?}");
    assert_eq!(bed.waiting("user"), 28.0, "none of the three is queued");
    let keys = bed.args(&["MGET", "@user:101", "@user:102"]);
    assert_eq!(client.cmd(&keys).items(), [user(101).as_str().into(), user(102).as_str().into()]);
    let error = client.cmd(&bed.args(&["DEL", "@user:101", "@user:102", "@user:103"]));
    assert!(error.error().starts_with("BUSY"), "{error:?}");
    assert_eq!(client.cmd(&keys).items(), [user(101).as_str().into(), user(102).as_str().into()]);
    assert_eq!(bed.waiting("user"), 28.0);
}

#[test]
fn a_write_waits_in_the_queue_when_the_cache_lost_it() {
    let bed = Bed::start(NO_CLOCK);
    bed.run(&["SET", "@user:1", ADA]);
    assert_eq!(bed.direct(&["DEL", "@user:1"]).int(), 1);
    assert_eq!(bed.get("user:1"), ADA);
    assert_eq!(bed.loads("user"), 0.0, "the queue has answered");
    assert_eq!(bed.direct(&["EXISTS", "@user:1"]).int(), 0, "an unflushed value is not filled");
    bed.run(&["SET", "@user:1", r#"{"name":"Eve"}"#]);
    bed.direct(&["DEL", "@user:1"]);
    assert_eq!(bed.run(&["MGET", "@user:1"]).items(), [r#"{"name":"Eve"}"#.into()]);
}

#[test]
fn a_row_that_only_the_database_can_refuse_does_not_stop_the_others() {
    let bed = Bed::start(NO_CLOCK);
    bed.db.execute("alter table users add check (age < 200)");
    let mut client = bed.proxy.connect();
    for n in 1..=50 {
        let age = if n == 17 { 200 } else { n };
        let value = format!(r#"{{"name":"Ada","age":{age}}}"#);
        assert_eq!(client.cmd(&bed.args(&["SET", &format!("@user:{n}"), &value])).text(), "OK");
    }
    bed.wait_flushed();
    assert_eq!(bed.one("select count(*) from users where name = 'Ada'").as_deref(), Some("49"));
    assert_eq!(bed.proxy.metric("dsproxy_rejected_rows_total{mapping=\"user\",reason=\"refused\"}"), 1.0);
    // The cache does not go on showing what the database refused.
    eventually(PATIENCE, "the entry is gone", || bed.get("user:17") == user(17));
}

#[test]
fn a_read_in_a_pipeline_sees_the_write_before_it_and_not_the_one_behind() {
    let bed = Bed::start(NO_CLOCK);
    let value = |n: u32| format!(r#"{{"name":"n{n}"}}"#);
    let pair = |n: u32| [bed.args(&["SET", "@user:1", &value(n)]), bed.args(&["GET", "@user:1"])];
    let commands: Vec<_> = (0..100).flat_map(pair).collect();
    for _ in 0..3 {
        let replies = bed.proxy.connect().pipeline(&commands);
        for (n, replies) in (0..).zip(replies.chunks(2)) {
            assert_eq!(replies[1].text(), value(n));
        }
    }
}
