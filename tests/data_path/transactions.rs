//! Writes of mapped keys inside `MULTI`: one unit, in the journal and at the node.

use crate::bed::{Bed, NO_CLOCK, PATIENCE, user};
use crate::support::{Resp, Value, eventually};

const ADA: &str = r#"{"name":"Ada"}"#;
const EVE: &str = r#"{"name":"Eve","age":9}"#;

/// Queues these commands, each one line of words, and answers what `EXEC` says.
#[track_caller]
fn transaction(client: &mut Resp, bed: &Bed, lines: &[&[&str]]) -> Value {
    assert_eq!(client.cmd(&["MULTI"]).text(), "OK");
    for line in lines {
        assert_eq!(client.cmd(&bed.args(line)).text(), "QUEUED", "{line:?}");
    }
    client.cmd(&["EXEC"])
}

/// A plain key in the slot of a mapped one.
fn beside(bed: &Bed, key: &str) -> String {
    format!("{{{}}}count", bed.key(key))
}

#[test]
fn writes_between_multi_and_exec_are_what_redis_makes_of_them() {
    let bed = Bed::start(NO_CLOCK);
    let plain = beside(&bed, "user:1");
    bed.get("user:1");
    // Nothing can heal NOSCRIPT inside of MULTI.
    bed.run(&["SCRIPT", "FLUSH"]);
    for protocol in ["2", "3"] {
        let mut client = bed.proxy.connect();
        client.cmd(&["HELLO", protocol]);
        let said = transaction(
            &mut client,
            &bed,
            &[
                &["INCR", &plain],
                &["SET", "@user:1", ADA],
                &["GET", "@user:1"],
                &["DEL", "@user:1", &plain],
                &["GET", "@user:1"],
                &["DEL", "@user:1"],
                &["MSET", "@user:1", ADA, &plain, "7", "@user:1", EVE],
                &["LPUSH", &plain, "x"],
                &["SETEX", "@user:1", "100", ADA],
                &["MGET", "@user:1", &plain],
            ],
        );
        let items = said.items();
        assert_eq!(items.len(), 10, "{said:?}");
        assert_eq!((&items[0], items[1].text(), items[2].text()), (&Value::Int(1), "OK".into(), ADA.into()));
        assert_eq!((&items[3], &items[4], &items[5]), (&Value::Int(2), &Value::Nil, &Value::Int(0)));
        assert!(items[7].error().starts_with("WRONGTYPE"), "{said:?}");
        assert_eq!((items[6].text(), items[8].text()), ("OK".into(), "OK".into()));
        assert_eq!(items[9].items(), [Value::from(ADA), "7".into()]);
        assert_eq!(client.cmd(&bed.args(&["GET", "@user:1"])).text(), ADA);
        bed.run(&["DEL", &plain]);
    }
    let mut proxy = bed.proxy;
    assert!(proxy.stop().success());
    assert_eq!(
        bed.db.query("select name, age::text from users where id = 1"),
        [[Some("Ada".to_owned()), Some("9".to_owned())]],
        "the columns of both documents"
    );
}

#[test]
fn what_cannot_be_mapped_ends_the_transaction_before_anything_happens() {
    let bed = Bed::start(NO_CLOCK);
    let plain = beside(&bed, "user:1");
    for (line, wanted) in [
        (&["SET", "@user:1", r#"{"nam":"x"}"#][..], "'nam'"),
        (&["GETEX", "@user:1", "EX", "5"], "not supported on keys of mapping 'user' inside of MULTI"),
        (&["SETNX", "@post:1", "{}"], "read-only"),
        (&["LPUSH", "@user:1", "x"], "not supported on keys of mapping 'user'"),
        (&["SET", "@post:1", "{}"], "read-only"),
    ] {
        let mut client = bed.proxy.connect();
        client.cmd(&["MULTI"]);
        client.cmd(&["SET", &*plain, "x"]);
        let reply = client.cmd(&bed.args(line));
        assert!(reply.error().contains(wanted), "{line:?}: {reply:?}");
        assert!(client.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
    }
    let mut client = bed.proxy.connect();
    client.cmd(&["MULTI"]);
    assert_eq!(client.cmd(&bed.args(&["SET", "@user:1", ADA])).text(), "QUEUED");
    assert_eq!(client.cmd(&["DISCARD"]).text(), "OK");
    assert_eq!(
        (bed.get("user:1"), bed.run(&["EXISTS", &plain]).int(), bed.waiting("user")),
        (user(1), 0, 0.0)
    );
}

#[test]
fn an_executed_transaction_survives_the_crash_of_the_proxy() {
    let mut bed = Bed::durable(NO_CLOCK);
    let mut client = bed.proxy.connect();
    let lines: [&[&str]; 2] = [&["SET", "@user:1", ADA], &["SET", "@user:1", EVE]];
    let said = transaction(&mut client, &bed, &lines);
    assert_eq!(said.items().len(), 2);
    bed.crash();
    bed.direct(&["DEL", "@user:1"]);
    assert_eq!(bed.get("user:1"), EVE);
    assert!(bed.proxy.stop().success());
    assert_eq!(bed.one("select name from users where id = 1").as_deref(), Some("Eve"));
}

#[test]
fn transactions_and_other_writes_of_a_connection_keep_their_order() {
    let bed = Bed::start("[write_behind]\nbatch_interval = \"20ms\"\n");
    let value = |n: u32| format!(r#"{{"name":"n{n}"}}"#);
    let mut commands = Vec::new();
    for n in 0..50 {
        commands.push(bed.args(&["SET", "@user:1", &value(3 * n)]));
        commands.push(bed.args(&["MULTI"]));
        commands.push(bed.args(&["GET", "@user:1"]));
        commands.push(bed.args(&["SET", "@user:1", &value(3 * n + 1)]));
        commands.push(bed.args(&["GET", "@user:1"]));
        commands.push(bed.args(&["EXEC"]));
        commands.push(bed.args(&["SET", "@user:1", &value(3 * n + 2)]));
    }
    let replies = bed.proxy.connect().pipeline(&commands);
    for (n, replies) in (0..).zip(replies.chunks(7)) {
        let said = replies[5].items();
        assert_eq!((said[0].text(), said[2].text()), (value(3 * n), value(3 * n + 1)));
    }
    assert!(bed.get("user:1").contains("n149"));
    let name = || bed.one("select name from users where id = 1");
    eventually(PATIENCE, "the last one is in the database", || name().as_deref() == Some("n149"));
}
