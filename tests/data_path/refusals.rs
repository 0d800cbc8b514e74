//! Writes that are refused before anything happens, and connections that go on as if nothing had.

use crate::bed::{Bed, NO_CLOCK, user};
use crate::support::Value;

/// Values that cannot be a row of `users`, and what the answer has to name.
const MISFITS: [(&str, &[&str]); 13] = [
    (r#"{"name":"x","emial":"x"}"#, &["'emial'", "did you mean", "email"]),
    (r#"{"name":1}"#, &["'name'", "string"]),
    (r#"{"name":"x","age":"old"}"#, &["'age'", "integer"]),
    (r#"{"name":"x","age":2147483648}"#, &["'age'", "out of range"]),
    (r#"{"name":"123456789012345678901"}"#, &["'name'", "21 characters, 20 fit"]),
    (r#"{"name":null}"#, &["'name'", "NOT NULL"]),
    (r#"{"email":"x"}"#, &["'name'", "is missing"]),
    (r#"{"name":"x""#, &["user", "EOF"]),
    (r#"{"name":"x","name":"y"}"#, &["'name'", "twice"]),
    ("[1]", &["JSON object"]),
    ("", &["JSON object"]),
    (r#"{"id":2,"name":"x"}"#, &["'id'", "differs from the id in the key"]),
    (r#"{"name":"a\u0000b"}"#, &["'name'", "NUL"]),
];

#[test]
fn a_value_that_does_not_fit_is_refused_and_nothing_happens() {
    let bed = Bed::start(NO_CLOCK);
    let mut client = bed.proxy.connect();
    for (value, parts) in MISFITS {
        for args in [vec!["SET", "@user:1", value], vec!["SETEX", "@user:1", "9", value]] {
            let reply = client.cmd(&bed.args(&args));
            let error = reply.error();
            assert!(error.starts_with("ERR ") && error.contains("mapping 'user'"), "{value}: {error}");
            for part in parts {
                assert!(error.contains(part), "{value}: no {part:?} in {error:?}");
            }
        }
    }
    let binary: Vec<Vec<u8>> =
        vec![b"SET".to_vec(), bed.key("user:1").into_bytes(), b"{\"name\":\"\xff\"}".to_vec()];
    assert!(client.cmd(&binary).error().contains("UTF-8"));
    assert_eq!(bed.direct(&["EXISTS", "@user:1"]).int(), 0);
    assert_eq!(bed.waiting("user"), 0.0);
    assert_eq!(bed.get("user:1"), user(1));
    // A new row needs what an old one has.
    let reply = client.cmd(&bed.args(&["SET", "@user:5000", "{}"]));
    assert!(reply.error().contains("'name' is missing"), "{reply:?}");
}

#[test]
fn in_a_pipeline_each_refusal_takes_its_own_place() {
    let bed = Bed::start(NO_CLOCK);
    let ada = r#"{"name":"Ada"}"#;
    let commands: Vec<Vec<String>> = [
        &["SET", "@user:1", ada][..],
        &["SET", "@user:1", "{"],
        &["GET", "@user:1"],
        &["INCR", "@user:1"],
        &["SET", "@plain", "1"],
        &["MSET", "@user:2", ada, "@user:3", "{"],
        &["INCR", "@plain"],
        &["SET", "@post:1", "{}"],
        &["GET", "@user:2"],
        &["PING"],
    ]
    .iter()
    .map(|args| bed.args(args))
    .collect();
    let mut client = bed.proxy.connect();
    for _ in 0..3 {
        let replies = client.pipeline(&commands);
        let seen: Vec<String> = replies
            .iter()
            .map(|reply| match reply {
                Value::Error(_) => "-".to_owned(),
                Value::Int(number) => number.to_string(),
                reply => reply.text(),
            })
            .collect();
        assert_eq!(seen, ["OK", "-", ada, "-", "OK", "-", "2", "-", &user(2), "PONG"]);
    }
    assert_eq!(bed.waiting("user"), 3.0);
}

#[test]
fn a_read_only_mapping_says_so() {
    let bed = Bed::start(NO_CLOCK);
    bed.get("post:7");
    for args in [
        &["SET", "@post:7", r#"{"content":"x"}"#][..],
        &["MSET", "@plain", "x", "@post:7", r#"{"content":"x"}"#],
        &["SETEX", "@post:7", "5", "x"],
    ] {
        let reply = bed.run(args);
        assert!(
            reply.error().contains("'post'") && reply.error().contains("read-only"),
            "{args:?}: {}",
            reply.error()
        );
    }
    assert_eq!(bed.run(&["GET", "@plain"]), Value::Nil);
    assert_eq!(bed.get("post:7"), r#"{"id":7,"content":"p7"}"#);
    assert_eq!(bed.one("select content from posts where id = 7").as_deref(), Some("p7"));
}

#[test]
fn commands_that_would_go_past_the_database_are_refused_by_name() {
    let bed = Bed::start(NO_CLOCK);
    bed.get("user:1");
    for args in [
        &["SETBIT", "@user:1", "0", "1"][..],
        &["RENAME", "@user:1", "@user:1"],
        &["RENAMENX", "@user:1", "@user:1"],
        &["COPY", "@user:1", "@user:1"],
        &["LPUSH", "@user:1", "x"],
        &["SADD", "@user:1", "x"],
        &["ZADD", "@user:1", "1", "x"],
        &["XADD", "@user:1", "*", "f", "v"],
        &["PFADD", "@user:1", "x"],
        &["RESTORE", "@user:1", "0", "x"],
        &["SUNIONSTORE", "@user:1", "@user:1"],
        &["BITOP", "NOT", "@user:1", "@user:1"],
    ] {
        let reply = bed.run(args);
        let error = reply.error();
        let clear = error.starts_with("ERR") && (error.contains("'user'") || error.contains("mapped keys"));
        assert!(clear && error.contains("not supported"), "{args:?}: {error}");
    }
    assert_eq!((bed.get("user:1"), bed.waiting("user")), (user(1), 0.0));
}

#[test]
fn mistakes_in_a_command_are_redis_own_and_queue_nothing() {
    let bed = Bed::start(NO_CLOCK);
    let ada = r#"{"name":"Ada"}"#;
    bed.get("user:1");
    for (args, wanted) in [
        (&["SET", "@user:1"][..], "ERR wrong number of arguments for 'set' command"),
        (&["SET", "@user:1", ada, "EX"], "ERR syntax error"),
        (&["SET", "@user:1", ada, "EX", "5", "PX", "5"], "ERR syntax error"),
        (&["SET", "@user:1", ada, "NONSENSE"], "ERR syntax error"),
        (&["SET", "@user:1", ada, "EX", "0"], "ERR invalid expire time in 'set' command"),
        (&["SET", "@user:1", ada, "EX", "x"], "ERR value is not an integer or out of range"),
        (&["SETEX", "@user:1", "-1", ada], "ERR invalid expire time in 'setex' command"),
        (&["PSETEX", "@user:1", "x", ada], "ERR value is not an integer or out of range"),
        (&["MSET", "@user:1", ada, "@user:2"], "ERR wrong number of arguments for 'mset' command"),
    ] {
        assert_eq!(bed.run(args).error(), wanted, "{args:?}");
        assert_eq!(bed.waiting("user"), 0.0, "{args:?} must not reach the database");
    }
    assert_eq!(bed.get("user:1"), user(1));
}
