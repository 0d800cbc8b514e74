//! What broken, hostile and half-gone clients send: each gets its due, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::time::Duration;

use support::{Proxy, Resp, SharedStack, Value, eventually};

/// One worker, so that whatever one client breaks, breaks for all.
const ONE_WORKER: &str = "[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 1\n";

fn proxy(stack: &SharedStack, more: &str) -> Proxy {
    Proxy::for_nodes(stack.redis_nodes(), None, &format!("{ONE_WORKER}{more}"))
}

/// Sends `bytes` over a connection of its own and gives everything that comes until the other side closes.
#[track_caller]
fn last_words(addr: impl std::net::ToSocketAddrs, bytes: &[u8]) -> String {
    let mut client = Resp::connect(addr);
    client.send_raw(bytes);
    client.set_patience(Duration::from_secs(2));
    client.recv_to_end().escape_ascii().to_string()
}

#[test]
fn garbage_is_answered_as_redis_does_and_hurts_nobody_else() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let key = format!("{}k", stack.key_prefix());
    let mut bystander = proxy.connect();
    bystander.cmd(&["SET", &key, "mine"]);
    let cases: &[&[u8]] = &[
        b"*x\r\n",
        b"*99999999999999999999\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\nPING\r\n",
        b"*2\r\n$3\r\nGET\r\n+x\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$\r\n",
        b"*\r\n",
        b"* 1\r\n",
        b"*+1\r\n",
        b"*01\r\n",
        b"PING \"open\r\n",
        b"PING 'open\r\n",
        b"PING \"a\"b\r\n",
        b"+PING\r\n*x\r\n",
        b"PING\r\n*1\r\n$4\r\nPING\r\n*1\r\n?\xfe\r\n",
    ];
    let mut different = Vec::new();
    for case in cases {
        let theirs = last_words(stack.redis_nodes()[0].as_str(), case);
        let ours = last_words(proxy.addr(), case);
        if ours != theirs {
            different.push(format!("{}: {ours:?} instead of {theirs:?}", case.escape_ascii()));
        }
        assert_eq!(bystander.cmd(&["GET", &key]), Value::from("mine"), "{}", case.escape_ascii());
    }
    assert!(different.is_empty(), "{different:#?}");
    assert_eq!(proxy.metric("dsproxy_protocol_errors_total"), cases.len() as f64);
}

#[test]
fn random_bytes_never_stop_the_proxy() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let mut bystander = proxy.connect();
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let alphabet = b"*$+-:\r\n\r\n0123456789GETSETMGETabc\"' \x00\xff";
    for round in 0..500 {
        let mut bytes = Vec::new();
        for _ in 0..(round % 100) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
        }
        let client = proxy.connect();
        // It may be closed before all is written.
        let _ = std::io::Write::write_all(&mut client.stream(), &bytes);
        drop(client);
        if round % 50 == 0 {
            assert_eq!(bystander.cmd(&["PING"]), Value::Simple("PONG".into()));
        }
    }
    eventually(Duration::from_secs(5), "only the bystander is left", || {
        proxy.metric("dsproxy_connected_clients") == 1.0 && proxy.metric("dsproxy_inflight_commands") == 0.0
    });
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

#[test]
fn other_protocols_are_told_so() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let hello = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &[7; 512]].concat();
    let tls = last_words(proxy.addr(), &hello);
    assert!(tls.starts_with("-ERR Protocol error") && tls.contains("connect without TLS"), "{tls}");
    for request in [
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nFLUSHALL\n",
        "POST / \r\nHost: x\r\n\r\n",
    ] {
        let http = last_words(proxy.addr(), request.as_bytes());
        assert!(http.contains("use the HTTP port"), "{request}: {http}");
        // Nothing behind the request was run: one protocol error at the end, at most one unknown command before.
        assert!(http.matches("-ERR").count() <= 2 && http.ends_with("use the HTTP port\\r\\n"), "{http}");
    }
}

#[test]
fn limits_hold_exactly() {
    let stack = SharedStack::get();
    let proxy =
        proxy(&stack, "[limits]\ninline = \"1KB\"\nargs = 16\nbulk = \"2KB\"\nquery_buffer = \"8KB\"\n");
    let key = format!("{}k", stack.key_prefix());
    let mut client = proxy.connect();
    let fits = "v".repeat(2048);
    assert_eq!(client.cmd(&["SET", &key, &fits]), Value::Simple("OK".into()));
    assert_eq!(client.cmd(&["GET", &key]), Value::from(fits.as_str()));
    assert_eq!(client.cmd(&vec!["EXISTS"; 16]), Value::Int(0));
    let line = format!("ECHO {}\r\n", "e".repeat(1024 - 7));
    client.send_raw(line.as_bytes());
    assert_eq!(client.recv().text().len(), 1024 - 7);
    let many = |count: usize, size: usize| {
        let mut request = Vec::new();
        dsproxy::resp::push_command(&mut request, vec![vec![b'x'; size]; count].iter().map(Vec::as_slice));
        request
    };
    for (what, bytes, error) in [
        ("args", many(17, 1), "invalid multibulk length"),
        ("bulk", many(2, 2049), "invalid bulk length"),
        ("frame", many(5, 2048), "request larger than the query buffer limit"),
        ("inline", vec![b'x'; 1025], "too big inline request"),
        ("count line", [&b"*"[..], &[b'1'; 1025]].concat(), "too big mbulk count string"),
        ("length line", [&b"*1\r\n$"[..], &[b'1'; 1025]].concat(), "too big bulk count string"),
    ] {
        let words = last_words(proxy.addr(), &bytes);
        assert_eq!(words, format!("-ERR Protocol error: {error}\\r\\n"), "{what}");
    }
    assert_eq!(client.cmd(&["PING"]), Value::Simple("PONG".into()));
}

#[test]
fn nothing_much_is_no_command() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let mut client = proxy.connect();
    client.send_raw(b"\r\n\n   \r\n*0\r\n*-1\r\n*-5\r\n\r\n*1\r\n$4\r\nPING\r\n");
    assert_eq!(client.recv(), Value::Simple("PONG".into()));
    client.send_raw(b"*1\r\n$0\r\n\r\n");
    assert!(client.recv().error().starts_with("ERR unknown command ''"));
    client.send_raw(&b"*0\r\n".repeat(100_000));
    client.send_raw(b"PING\r\n");
    assert_eq!(client.recv(), Value::Simple("PONG".into()));
}

/// A NUL once sent the splitting of a line into an endless loop that ate all memory.
#[test]
fn a_nul_in_an_inline_line_is_refused() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    for line in [&b"ECHO a\0b\r\n"[..], b"\0\r\n", b"ECHO \"\0\"\r\n"] {
        let mut client = proxy.connect();
        client.send_raw(b"PING\r\n");
        assert_eq!(client.recv(), Value::Simple("PONG".into()));
        client.send_raw(line);
        assert!(client.recv().error().starts_with("ERR Protocol error: "));
        assert!(client.recv_to_end().is_empty());
    }
}

#[test]
fn a_stream_cut_anywhere_is_the_same_stream() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let mut pacer = proxy.connect();
    let key = |n: usize| format!("{}k{n}", stack.key_prefix());
    let mut stream = Vec::new();
    let many: Vec<String> = std::iter::once("MGET".to_owned()).chain((0..20).map(key)).collect();
    let mut add = |args: &[&str]| dsproxy::resp::push_command(&mut stream, args.iter().map(|a| a.as_bytes()));
    add(&["SET", &key(1), "one\r\ntwo"]);
    add(&["MGET", &key(1), &key(2)]);
    add(&many.iter().map(String::as_str).collect::<Vec<_>>());
    add(&["GET", &key(1)]);
    stream.extend_from_slice(format!("PING\r\nget {}\r\n", key(1)).as_bytes());
    let mut whole = proxy.connect();
    whole.send_raw(&stream);
    let expected: Vec<Value> = (0..6).map(|_| whole.recv()).collect();
    assert_eq!(expected[3], Value::from("one\r\ntwo"));
    let mut client = proxy.connect();
    for cut in 1..stream.len() {
        client.send_raw(&stream[..cut]);
        // The answer shows that the worker has had its turn, so that the first piece was read alone.
        pacer.cmd(&["PING"]);
        client.send_raw(&stream[cut..]);
        let got: Vec<Value> = (0..6).map(|_| client.recv()).collect();
        assert_eq!(got, expected, "cut at {cut}");
    }
    for byte in &stream {
        client.send_raw(std::slice::from_ref(byte));
        pacer.cmd(&["PING"]);
    }
    assert_eq!((0..6).map(|_| client.recv()).collect::<Vec<_>>(), expected);
}

#[test]
fn a_half_closed_client_gets_every_reply() {
    let stack = SharedStack::get();
    // Few in flight and little output, so that the client is paused and resumed again and again.
    for limits in ["", "[limits]\ninflight_per_client = 8\nclient_output_pause = \"1KB\"\n"] {
        let proxy = proxy(&stack, limits);
        let key = |n: usize| format!("{}k{n}", stack.key_prefix());
        for round in 0..5 {
            let mut client = proxy.connect();
            let mut request = Vec::new();
            for n in 0..1000 {
                let value = format!("{round}-{n}");
                for args in [
                    vec!["SET", &key(n % 50), &value],
                    vec!["MGET", &key(n % 50), &key(n % 7)],
                    vec!["ECHO", &value],
                    vec!["GET", &key(n % 50)],
                ] {
                    dsproxy::resp::push_command(&mut request, args.iter().map(|arg| arg.as_bytes()));
                }
            }
            // The last request never ends.
            request.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$100\r\nhalf");
            client.send_raw(&request);
            client.shutdown_write();
            for n in 0..1000 {
                let value = Value::from(format!("{round}-{n}").as_str());
                assert_eq!(client.recv(), Value::Simple("OK".into()), "{n}");
                assert_eq!(client.recv().items()[0], value, "{n}");
                assert_eq!(client.recv(), value);
                assert_eq!(client.recv(), value);
            }
            assert_eq!(client.recv_to_end(), b"");
        }
    }
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let key = format!("{}k", stack.key_prefix());
    let mut bystander = proxy.connect();
    bystander.cmd(&["SET", &key, "mine"]);
    for round in 0..200 {
        let mut client = proxy.connect();
        // Requests in flight and half a request, then gone; replies that come later must go to nobody.
        let lost = format!("{key}:lost");
        client.send(&["SET", &lost, &format!("{round}")]);
        for _ in 0..50 {
            client.send(&["MGET", &lost, &key]);
        }
        client.send_raw(b"*3\r\n$3\r\nSET\r\n$100\r\nx");
        drop(client);
        assert_eq!(bystander.cmd(&["GET", &key]), Value::from("mine"));
        assert_eq!(bystander.cmd(&["ECHO", "me"]), Value::from("me"));
    }
    eventually(Duration::from_secs(5), "all but the bystander are gone", || {
        proxy.metric("dsproxy_connected_clients") == 1.0 && proxy.metric("dsproxy_inflight_commands") == 0.0
    });
}

/// A request with many arguments that stops half-way keeps its place in it; a client that is then paused must not
/// leave that place to the next client.
#[test]
fn a_place_in_a_request_belongs_to_one_client() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let key = format!("{}k", stack.key_prefix());
    let big = "b".repeat(16 << 20);
    let mut client = proxy.connect();
    let mut bystander = proxy.connect();
    assert_eq!(client.cmd(&["SET", &key, &big]), Value::Simple("OK".into()));
    let mut request = Vec::new();
    let many: Vec<&str> = std::iter::once("EXISTS").chain(std::iter::repeat_n(key.as_str(), 40)).collect();
    dsproxy::resp::push_command(&mut request, many.iter().map(|arg| arg.as_bytes()));
    let half = request.len() / 2;
    // The reply is more than sockets hold, so the client is at its output limit when the second half comes.
    client.send(&["GET", &key]);
    client.send_raw(&request[..half]);
    let blocked = || proxy.metric("dsproxy_commands_total{command=\"get\",outcome=\"ok\"}") == 1.0;
    eventually(Duration::from_secs(5), "the big value was fetched", blocked);
    client.send_raw(&request[half..]);
    for _ in 0..50 {
        assert_eq!(bystander.cmd(&["ECHO", "mine"]), Value::from("mine"));
        assert_eq!(bystander.cmd(&["EXISTS", &key]), Value::Int(1));
    }
    assert_eq!(client.recv(), Value::from(big.as_str()));
    assert_eq!(client.recv(), Value::Int(40));
    assert_eq!(client.cmd(&["DEL", &key]), Value::Int(1));
}

/// Redis holds nearly nothing for who has not given the password yet (CVE-2021-32675); nor do we.
#[test]
fn strangers_get_small_buffers_only() {
    let stack = SharedStack::get();
    let config = ONE_WORKER.replace("workers", "password = \"secret\"\nworkers");
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, &config);
    let words = last_words(proxy.addr(), b"*11\r\n");
    assert_eq!(words, "-ERR Protocol error: unauthenticated multibulk length\\r\\n");
    let words = last_words(proxy.addr(), b"*2\r\n$4\r\nAUTH\r\n$16385\r\n");
    assert_eq!(words, "-ERR Protocol error: unauthenticated bulk length\\r\\n");
    // Who has given it may send more, also in the same write.
    let mut client = proxy.connect();
    client.send_raw(b"AUTH secret\r\n");
    let key = format!("{}k", stack.key_prefix());
    assert_eq!(client.cmd(&["SET", &key, &"v".repeat(20_000)]), Value::Simple("OK".into()));
    assert_eq!(client.recv(), Value::Simple("OK".into()));
    let many: Vec<&str> = std::iter::once("EXISTS").chain(std::iter::repeat_n(key.as_str(), 20)).collect();
    assert_eq!(client.cmd(&many), Value::Int(20));
}
