//! Commands of well-behaved clients through the running proxy, held against what Redis itself answers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::process::Command;

use support::{Proxy, Resp, SharedStack, Value};

/// A proxy before the shared cluster.
fn proxy(stack: &SharedStack, more: &str) -> Proxy {
    Proxy::for_nodes(stack.redis_nodes(), None, more)
}

/// Keys of this test, on all shards: 30 keys miss none of three with any likelihood worth the name, and the test
/// checks it.
fn keys(stack: &SharedStack, count: usize) -> Vec<String> {
    let keys: Vec<_> = (0..count).map(|n| format!("{}key:{n}", stack.key_prefix())).collect();
    let shards: std::collections::BTreeSet<_> =
        keys.iter().map(|key| usize::from(dsproxy::slot::slot(key.as_bytes())) * 3 / 16384).collect();
    assert!(count < 30 || shards.len() == 3, "the keys do not reach all shards");
    keys
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn ok() -> Value {
    Value::Simple("OK".into())
}

#[test]
fn sets_and_one_mget_over_all_shards() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let mut client = proxy.connect();
    let keys = keys(&stack, 30);
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(client.cmd(&["SET", key, &format!("value {n}")]), ok());
    }
    // Backwards, every third twice, some missing.
    let (mut asked, mut expected) = (vec!["MGET".to_owned()], Vec::new());
    for (n, key) in keys.iter().enumerate().rev() {
        asked.push(key.clone());
        expected.push(Value::from(format!("value {n}").as_str()));
        if n % 3 == 0 {
            asked.push(key.clone());
            expected.push(expected[expected.len() - 1].clone());
        }
        if n % 4 == 0 {
            asked.push(format!("{key}:missing"));
            expected.push(Value::Nil);
        }
    }
    assert_eq!(client.cmd(&asked), Value::Array(expected));
    assert_eq!(client.cmd(&["GET", &keys[7]]), Value::from("value 7"));
}

#[test]
fn split_commands_count_over_slots() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let mut client = proxy.connect();
    let keys = keys(&stack, 40);
    let with = |name: &str, keys: &[String]| [&[name.to_owned()], keys].concat();
    let mut mset = vec!["MSET".to_owned()];
    keys.iter().for_each(|key| mset.extend([key.clone(), format!("v{key}")]));
    assert_eq!(client.cmd(&mset), ok());
    // The last one of a key given twice wins, as in Redis.
    assert_eq!(client.cmd(&["MSET", &keys[0], "first", &keys[1], "x", &keys[0], "last"]), ok());
    assert_eq!(client.cmd(&["GET", &keys[0]]), Value::from("last"));
    assert_eq!(client.cmd(&with("EXISTS", &keys)), Value::Int(40));
    assert_eq!(client.cmd(&with("EXISTS", &[&keys[..], &keys[..5]].concat())), Value::Int(45));
    assert_eq!(client.cmd(&with("TOUCH", &keys[..7])), Value::Int(7));
    assert_eq!(client.cmd(&with("UNLINK", &keys[..10])), Value::Int(10));
    assert_eq!(client.cmd(&with("DEL", &keys)), Value::Int(30));
    assert_eq!(client.cmd(&with("MGET", &keys)), Value::Array(vec![Value::Nil; 40]));
    // Hash tags put keys into one slot: forwarded whole.
    let tagged: Vec<_> = (0..5).map(|n| format!("{{{}}}:{n}", stack.key_prefix())).collect();
    assert_eq!(client.cmd(&["MSET", &tagged[0], "a", &tagged[1], "b"]), ok());
    assert_eq!(client.cmd(&["RENAME", &tagged[0], &tagged[2]]), ok());
    assert_eq!(client.cmd(&with("MGET", &tagged[1..3])), Value::Array(vec!["b".into(), "a".into()]));
}

#[test]
fn a_part_that_fails_fails_the_command_alone() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let mut client = proxy.connect();
    let keys = keys(&stack, 30);
    let mut pipeline: Vec<Vec<&str>> = keys.iter().map(|key| vec!["SET", key, "1"]).collect();
    // MSET refuses an odd number of arguments before anything is sent; each of these must take exactly one place.
    pipeline.push(vec!["MSET", &keys[0], "lost", &keys[1]]);
    pipeline.push(vec!["INCR", &keys[0]]);
    pipeline.push(vec!["LPUSH", &keys[1], "x"]);
    pipeline.push(vec!["INCR", &keys[1]]);
    let answers = client.pipeline(&pipeline);
    assert!(answers[..30].iter().all(|answer| *answer == ok()));
    assert_eq!(answers[30].error(), "ERR wrong number of arguments for 'mset' command");
    assert_eq!(answers[31], Value::Int(2));
    assert!(answers[32].error().starts_with("WRONGTYPE "), "{answers:?}");
    assert_eq!(answers[33], Value::Int(2));
}

#[test]
fn errors_are_redis_own() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let mut client = proxy.connect();
    let mut direct = Resp::connect(stack.redis_nodes()[0].as_str());
    let mut different = Vec::new();
    for line in [
        "GET",
        "SET a",
        "NOSUCH",
        "NOSUCH with some arguments",
        "CONFIG NOSUCH",
        "CLIENT NOSUCH a",
        "HELLO 9",
        "HELLO x",
        "HELLO 3 WHAT",
        "SELECT 1",
        "SELECT x",
        "AUTH a b c",
        "AUTH secret",
        "PING a b",
        "ECHO",
        "SINTERSTORE a b c",
        "RENAME a b",
        "MSETNX a 1 b 2",
        "OBJECT NOSUCH a",
        "CLIENT SETNAME a\u{1}b",
        "COMMAND GETKEYS",
        "COMMAND GETKEYS NOSUCH",
        "COMMAND GETKEYS PING",
        "COMMAND GETKEYS GET",
        "CLIENT NO-EVICT maybe",
        "HELLO 2 AUTH default",
        "HELLO 2 SETNAME",
        "CLIENT GETNAME x",
        "SELECT 99999999999999999999",
        "XREAD STREAMS a b c",
        "LMPOP x a LEFT",
        "ZUNIONSTORE d 0 a",
        "SINTERCARD 3 a b",
        "AUTH default wrong",
    ] {
        let (ours, theirs) = (client.cmd(&words(line)), direct.cmd(&words(line)));
        if ours != theirs {
            different.push(format!("{line}: {ours:?} instead of {theirs:?}"));
        }
    }
    assert!(different.is_empty(), "{different:#?}");
    // A line break in a name must not become one in the reply.
    assert_eq!(client.cmd(&["NO\r\n+SUCH", "a\r\nb"]), direct.cmd(&["NO\r\n+SUCH", "a\r\nb"]));
    assert_eq!(client.cmd(&["PING"]), Value::Simple("PONG".into()));
}

#[test]
fn what_later_issues_bring_is_refused_by_name() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let mut client = proxy.connect();
    let key = format!("{}k", stack.key_prefix());
    assert_eq!(client.cmd(&["SET", &key, "kept"]), ok());
    for line in [
        "MULTI",
        "EXEC",
        "DISCARD",
        "WATCH k",
        "UNWATCH",
        "BLPOP k 1",
        "BRPOP k 0",
        "BLMOVE k k LEFT LEFT 0",
        "BZPOPMIN k 0",
        "XREAD BLOCK 0 STREAMS k $",
        "WAIT 0 0",
        "SUBSCRIBE c",
        "PSUBSCRIBE c",
        "SSUBSCRIBE c",
        "PUBLISH c m",
        "UNSUBSCRIBE",
    ] {
        let args = words(line);
        let (answer, name) = (client.cmd(&args), args[0].to_ascii_lowercase());
        let error = answer.error();
        assert!(error.starts_with("ERR '") && error.contains(&name), "{line}: {error}");
        assert!(error.ends_with("is not supported by this proxy yet"), "{line}: {error}");
    }
    for line in
        ["SHUTDOWN NOSAVE", "REPLICAOF NO ONE", "DEBUG SLEEP 0", "SAVE", "MIGRATE h 1 k 0 1", "MONITOR"]
    {
        let error = client.cmd(&words(line));
        assert!(error.error().to_ascii_lowercase().contains(&line.split(' ').next().unwrap().to_lowercase()));
        assert!(error.error().contains("is refused by this proxy"), "{line}: {error:?}");
    }
    // Nothing of it reached a node.
    assert_eq!(client.cmd(&["GET", &key]), Value::from("kept"));
    assert_eq!(
        client.cmd(&["XREAD", "COUNT", "1", "STREAMS", &key, "0"]).error().split(' ').next(),
        Some("WRONGTYPE")
    );
}

#[test]
fn both_dialects_are_byte_for_byte_those_of_the_node() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let tag = format!("{{{}}}", stack.key_prefix());
    let slot = dsproxy::slot::slot(tag.as_bytes());
    let mut owner = stack
        .redis_nodes()
        .iter()
        .map(|node| Resp::connect(node.as_str()))
        .find_map(|mut node| matches!(node.cmd(&["GET", &tag]), Value::Nil).then_some(node))
        .unwrap_or_else(|| panic!("no node serves slot {slot}"));
    let mut client = proxy.connect();
    let k = |name: &str| format!("{tag}{name}");
    for line in [
        format!("HSET {} a 1 b 2", k("h")),
        format!("ZADD {} 1.5 x 2 y inf z", k("z")),
        format!("SADD {} one", k("s")),
        format!("RPUSH {} a b c", k("l")),
        format!("SET {} 12.5", k("n")),
        format!("XADD {} 1-1 f v", k("x")),
        format!("GEOADD {} 13.361389 38.115556 p", k("g")),
    ] {
        client.cmd(&words(&line));
    }
    let reads = [
        format!("HGETALL {}", k("h")),
        format!("ZRANGE {} 0 -1 WITHSCORES", k("z")),
        format!("ZSCORE {} z", k("z")),
        format!("ZMSCORE {} x nosuch", k("z")),
        format!("SMEMBERS {}", k("s")),
        format!("LRANGE {} 0 -1", k("l")),
        format!("LPOP {} 2", k("nosuch")),
        format!("GET {}", k("nosuch")),
        format!("HRANDFIELD {} 2 WITHVALUES", k("nosuch")),
        format!("XRANGE {} - +", k("x")),
        format!("XREAD STREAMS {} {} 0 0", k("x"), k("nosuch2")),
        format!("XINFO STREAM {}", k("x")),
        format!("GEOPOS {} p nosuch", k("g")),
        format!("GET {}", k("h")),
        format!("MGET {} {}", k("n"), k("no")),
        format!("OBJECT ENCODING {}", k("h")),
        format!("LCS {} {} IDX", k("n"), k("n")),
        format!("ZPOPMIN {}", k("nosuch")),
        format!("SISMEMBER {} one", k("s")),
        format!("DUMP {}", k("n")),
    ];
    for dialect in ["2", "3", "2", "3"] {
        client.cmd(&["HELLO", dialect]);
        owner.cmd(&["HELLO", dialect]);
        for line in &reads {
            owner.send(&words(line));
            client.send(&words(line));
            // A PING behind it shows where the reply ends.
            owner.send_raw(b"PING\r\n");
            client.send_raw(b"PING\r\n");
            let expected = until_pong(&mut owner);
            let got = until_pong(&mut client);
            assert_eq!(
                got.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "HELLO {dialect}, {line}"
            );
        }
    }
}

/// Everything up to `+PONG`.
fn until_pong(node: &mut Resp) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"+PONG\r\n") {
        bytes.extend(node.recv_raw(1));
    }
    bytes
}

#[test]
fn a_change_of_dialect_in_a_pipeline_takes_effect_in_its_place() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let mut client = proxy.connect();
    let hash = format!("{}h", stack.key_prefix());
    client.cmd(&["HSET", &hash, "a", "1"]);
    let flat = Value::Array(vec!["a".into(), "1".into()]);
    let map = Value::Map(vec![("a".into(), "1".into())]);
    let lines: Vec<Vec<&str>> =
        [&["HGETALL", &hash][..], &["HELLO", "3"], &["HGETALL", &hash], &["HELLO", "2"]]
            .iter()
            .cycle()
            .take(40)
            .map(|line| line.to_vec())
            .collect();
    let answers = client.pipeline(&lines);
    for round in answers.chunks(4) {
        assert_eq!(round[0], flat);
        assert!(matches!(&round[1], Value::Map(pairs) if pairs.contains(&("proto".into(), Value::Int(3)))));
        assert_eq!(round[2], map);
        assert!(matches!(&round[3], Value::Array(items) if items.contains(&Value::Int(2))));
    }
    client.send_raw(b"HELLO 3\r\nRESET\r\nHGETALL ");
    client.send_raw(format!("{hash}\r\n").as_bytes());
    assert!(matches!(client.recv(), Value::Map(_)));
    assert_eq!(client.recv(), Value::Simple("RESET".into()));
    assert_eq!(client.recv(), flat);
}

#[test]
fn inline_commands_and_pings() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let mut client = proxy.connect();
    let key = format!("{}k", stack.key_prefix());
    client.send_raw(format!("SET {key} \"two words\\n\"\r\n\r\nget {key}\nPING 'it''\r\n").as_bytes());
    assert_eq!(client.recv(), ok());
    assert_eq!(client.recv(), Value::from("two words\n"));
    assert_eq!(client.recv().error(), "ERR Protocol error: unbalanced quotes in request");
    let mut client = proxy.connect();
    assert_eq!(client.cmd(&["PING"]), Value::Simple("PONG".into()));
    assert_eq!(client.cmd(&["ping", "hello\r\n"]), Value::from("hello\r\n"));
    assert_eq!(client.cmd(&["ECHO", ""]), Value::from(""));
    assert_eq!(client.cmd(&["SELECT", "0"]), ok());
    client.send_raw(b"*1\r\n$4\r\nPING\r\nPING\r\n*2\r\n$4\r\nPING\r\n$1\r\nx\r\n");
    assert_eq!(client.recv(), Value::Simple("PONG".into()));
    assert_eq!(client.recv(), Value::Simple("PONG".into()));
    assert_eq!(client.recv(), Value::from("x"));
    client.send_raw(b"QUIT\r\nPING\r\n");
    assert_eq!(client.recv_to_end(), b"+OK\r\n");
}

#[test]
fn a_password_is_asked_for() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "[server]\nlisten = \"127.0.0.1:$PORT\"\npassword = \"secret\"\n");
    let mut client = proxy.connect();
    let denied = "NOAUTH Authentication required.";
    for line in ["GET k", "PING", "MGET a b", "CLIENT ID", "COMMAND COUNT", "INFO", "CONFIG GET save"] {
        assert_eq!(client.cmd(&words(line)).error(), denied, "{line}");
    }
    assert!(client.cmd(&["HELLO", "3"]).error().starts_with("NOAUTH HELLO must be called"));
    for line in ["AUTH wrong", "AUTH secre", "AUTH other secret", "HELLO 3 AUTH default wrong"] {
        assert!(client.cmd(&words(line)).error().starts_with("WRONGPASS "), "{line}");
        assert_eq!(client.cmd(&["GET", "k"]).error(), denied);
    }
    assert_eq!(client.cmd(&["AUTH", "secret"]), ok());
    assert_eq!(client.cmd(&["PING"]), Value::Simple("PONG".into()));
    assert_eq!(client.cmd(&["RESET"]), Value::Simple("RESET".into()));
    assert_eq!(client.cmd(&["PING"]).error(), denied);
    assert!(matches!(
        client.cmd(&["HELLO", "3", "AUTH", "default", "secret", "SETNAME", "me"]),
        Value::Map(_)
    ));
    assert_eq!(client.cmd(&["CLIENT", "GETNAME"]), Value::from("me"));
    // Also in one pipeline with the commands that need it.
    let mut client = proxy.connect();
    client.send_raw(b"GET k\r\nAUTH default secret\r\nPING\r\n");
    assert_eq!(client.recv().error(), denied);
    assert_eq!(client.recv(), ok());
    assert_eq!(client.recv(), Value::Simple("PONG".into()));
}

#[test]
fn client_and_command_answer_for_the_connection() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let (mut client, mut other) = (proxy.connect(), proxy.connect());
    let id = client.cmd(&["CLIENT", "ID"]).int();
    assert_ne!(id, other.cmd(&["CLIENT", "ID"]).int());
    assert_eq!(client.cmd(&["CLIENT", "GETNAME"]), Value::Nil);
    assert_eq!(client.cmd(&["CLIENT", "SETNAME", "worker-1"]), ok());
    assert_eq!(client.cmd(&["CLIENT", "SETINFO", "LIB-NAME", "redis-py"]), ok());
    assert_eq!(client.cmd(&["CLIENT", "SETINFO", "lib-ver", "8.0"]), ok());
    assert_eq!(client.cmd(&["CLIENT", "GETNAME"]), Value::from("worker-1"));
    let info = client.cmd(&["CLIENT", "INFO"]).text();
    let addr = client.stream().local_addr().unwrap();
    for part in
        [format!("id={id} addr={addr} "), " name=worker-1 ".into(), " lib-name=redis-py lib-ver=8.0".into()]
    {
        assert!(info.contains(&part), "{info}");
    }
    assert_eq!(other.cmd(&["CLIENT", "GETNAME"]), Value::Nil);
    assert_eq!(client.cmd(&["CLIENT", "NO-EVICT", "ON"]), ok());

    let mut direct = Resp::connect(stack.redis_nodes()[0].as_str());
    for line in [
        "COMMAND COUNT",
        "COMMAND GETKEYS MSET a 1 b 2",
        "COMMAND GETKEYS EVAL s 2 a b c",
        "CLUSTER KEYSLOT foo",
    ] {
        assert_eq!(client.cmd(&words(line)), direct.cmd(&words(line)), "{line}");
    }
    let (ours, theirs) = (
        client.cmd(&words("COMMAND INFO get nosuch mset")),
        direct.cmd(&words("COMMAND INFO get nosuch mset")),
    );
    for (ours, theirs) in ours.items().iter().zip(theirs.items()) {
        match theirs {
            // Name, arity, flags and key positions; the rest is for documentation.
            Value::Array(theirs) => assert_eq!(ours.items()[..6], theirs[..6]),
            nil => assert_eq!(ours, nil),
        }
    }
    assert_eq!(ours.items().len(), 3);
}

#[test]
fn redis_benchmark_runs_clean() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let port = proxy.addr().1.to_string();
    let run = Command::new("redis-benchmark")
        .args(["-p", &port, "-t", "get,set", "-n", "100000", "-P", "16", "-q", "-r", "1000"])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}{err}");
    assert!(err.is_empty() && !out.contains("rror"), "{out}{err}");
    for name in ["SET", "GET"] {
        assert!(out.contains(&format!("{name}: ")) && out.contains("requests per second"), "{out}");
        let counter = format!("dsproxy_commands_total{{command=\"{}\",outcome=\"ok\"}}", name.to_lowercase());
        assert_eq!(proxy.metric(&counter), 100_000.0, "{counter}");
    }
}
