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
fn what_is_not_run_is_refused_by_name() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let mut client = proxy.connect();
    let key = format!("{}k", stack.key_prefix());
    assert_eq!(client.cmd(&["SET", &key, "kept"]), ok());
    for line in ["SHUTDOWN NOSAVE", "REPLICAOF NO ONE", "DEBUG SLEEP 0", "SAVE", "MIGRATE h 1 k 0 1"] {
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
