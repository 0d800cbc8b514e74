//! The state of one connection: dialect, password, name, and what it may ask about itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use support::{Proxy, Resp, SharedStack, Value};

/// A proxy before the shared cluster.
fn proxy(stack: &SharedStack, more: &str) -> Proxy {
    Proxy::for_nodes(stack.redis_nodes(), None, more)
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn ok() -> Value {
    Value::Simple("OK".into())
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
    // One more than a node has: PROXY.
    let [ours, theirs] = [&mut client, &mut direct].map(|one| one.cmd(&["COMMAND", "COUNT"]).int());
    assert_eq!(ours, theirs + 1);
    for line in ["COMMAND GETKEYS MSET a 1 b 2", "COMMAND GETKEYS EVAL s 2 a b c", "CLUSTER KEYSLOT foo"] {
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
