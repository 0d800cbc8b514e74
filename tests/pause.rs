//! `CLIENT PAUSE`: the same commands wait as at a plain server, in order, over all data threads, and within bounds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write;
use std::time::{Duration, Instant};

mod support;

use support::{PlainRedis, Proxy, Resp, SharedStack, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(20);
/// So long a reply that is not held may take.
const SOON: Duration = Duration::from_millis(300);

fn proxy(stack: &SharedStack, more: &str) -> Proxy {
    let server = "[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 3\n";
    Proxy::for_nodes(stack.redis_nodes(), None, &format!("{server}{more}"))
}

/// Which of these commands (each over a connection of its own, some of them after others) have no reply while `pause` holds.
fn held(addr: (&str, u16), pause: &[&str], commands: &[&[&[&str]]]) -> Vec<bool> {
    let mut all: Vec<Resp> = commands.iter().map(|_| Resp::connect(addr)).collect();
    for (client, steps) in all.iter_mut().zip(commands) {
        steps[..steps.len() - 1].iter().for_each(|step| drop(client.cmd(step)));
    }
    let mut operator = Resp::connect(addr);
    assert_eq!(operator.cmd(pause).text(), "OK");
    for (client, steps) in all.iter_mut().zip(commands) {
        client.send(steps[steps.len() - 1]);
    }
    let end = Instant::now() + SOON;
    let held = all
        .iter_mut()
        .map(|client| {
            client.stays_silent(end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
        })
        .collect();
    // Once it is over, everything is answered.
    all.iter_mut().for_each(|client| drop(client.recv()));
    held
}

#[test]
fn what_waits_is_what_waits_at_a_plain_server() {
    let stack = SharedStack::get();
    let (proxy, redis) = (proxy(&stack, ""), PlainRedis::start(&[]));
    let key = format!("{}k", stack.key_prefix());
    let key = key.as_str();
    let commands: Vec<&[&[&str]]> = vec![
        &[&["PING"]],
        &[&["ECHO", "x"]],
        &[&["CLIENT", "ID"]],
        &[&["HELLO", "3"]],
        &[&["RESET"]],
        &[&["QUIT"]],
        &[&["INFO", "server"]],
        &[&["nosuch"]],
        &[&["GET"]],
        &[&["SUBSCRIBE", "x"]],
        &[&["DBSIZE"]],
        &[&["MULTI"]],
        &[&["EVAL", "return 1", "0"]],
        &[&["EVAL_RO", "return 1", "0"]],
        &[&["FUNCTION", "LIST"]],
        &[&["PUBLISH", "x", "y"]],
        &[&["SPUBLISH", "x", "y"]],
    ];
    let get: [&[&str]; 1] = [&["GET", key]];
    let set: [&[&str]; 1] = [&["SET", key, "v"]];
    let del: [&[&str]; 1] = [&["DEL", key]];
    let count: [&[&str]; 1] = [&["PFCOUNT", key]];
    let blpop: [&[&str]; 1] = [&["BLPOP", key, "0.01"]];
    let queued_set: [&[&str]; 2] = [&["MULTI"], &["SET", key, "v"]];
    let queued_get: [&[&str]; 2] = [&["MULTI"], &["GET", key]];
    let exec_set: [&[&str]; 3] = [&["MULTI"], &["SET", key, "v"], &["EXEC"]];
    let exec_get: [&[&str]; 3] = [&["MULTI"], &["GET", key], &["EXEC"]];
    let commands =
        [commands, vec![&get, &set, &del, &count, &blpop, &queued_set, &queued_get, &exec_set, &exec_get]]
            .concat();
    for pause in [&["CLIENT", "PAUSE", "1500"][..], &["CLIENT", "PAUSE", "1500", "write"]] {
        let ours = held(proxy.addr(), pause, &commands);
        let theirs = held(redis.addr(), pause, &commands);
        for ((command, ours), theirs) in commands.iter().zip(ours).zip(theirs) {
            assert_eq!(ours, theirs, "{pause:?}: {command:?} (held here, held at Redis)");
        }
    }
    assert_eq!(proxy.metric("dsproxy_held_clients"), 0.0);
}

#[test]
fn mistakes_are_told_in_the_words_of_redis() {
    let stack = SharedStack::get();
    let (proxy, redis) = (proxy(&stack, ""), PlainRedis::start(&[]));
    let (mut ours, mut theirs) = (proxy.connect(), Resp::connect(redis.addr()));
    for words in [
        "PAUSE",
        "PAUSE x",
        "PAUSE -1",
        "PAUSE 1.5",
        "PAUSE 99999999999999999999",
        "PAUSE 1 READ",
        "PAUSE 1 ALL x",
        "PAUSE 0",
        "UNPAUSE x",
        "UNPAUSE",
        "NO-EVICT x",
        "NO-EVICT on",
        "REPLY x",
        "TRACKING x",
        "TRACKING off",
        "TRACKING off foo",
        "TRACKING on foo",
        "TRACKING on PREFIX",
        "TRACKING on BCAST OPTIN",
        "TRACKING on REDIRECT",
        "TRACKING on PREFIX a",
        "TRACKING on OPTIN OPTOUT",
        "CACHING yes",
        "GETREDIR",
        "TRACKINGINFO",
        "KILL",
        "KILL x",
        "KILL ID",
        "KILL ID x",
        "KILL ID 0",
        "KILL ID 77777",
        "KILL TYPE x",
        "KILL TYPE normal SKIPME x",
        "KILL USER nobody",
        "KILL FOO bar",
        "KILL MAXAGE 1",
        "KILL LADDR 1:1",
        "KILL ADDR 1:1",
        "LIST x",
        "LIST TYPE",
        "LIST TYPE x",
        "LIST TYPE normal x",
        "LIST TYPE master",
        "LIST ID",
        "LIST ID x",
        "LIST ID 0",
        "INFO x",
        "ID x",
        "nosuch",
        "UNBLOCK x",
        "UNBLOCK 1 x",
        "UNBLOCK 1 TIMEOUT y",
    ] {
        let command: Vec<&str> = std::iter::once("CLIENT").chain(words.split(' ')).collect();
        assert_eq!(ours.cmd(&command), theirs.cmd(&command), "CLIENT {words}");
    }
}

#[test]
fn a_pause_is_lifted_and_nothing_is_lost_or_out_of_order() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let key = format!("{}k", stack.key_prefix());
    let mut all: Vec<Resp> = (0..9).map(|_| proxy.connect()).collect();
    let mut operator = proxy.connect();
    // The pause begins in the middle of a pipeline of the one that pauses: what comes after it waits, too.
    let pause = vec!["CLIENT".into(), "PAUSE".into(), "60000".into(), "ALL".into()];
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    for command in [words(&["PING"]), pause, words(&["GET", &key])] {
        operator.send(&command);
    }
    assert_eq!((operator.recv().text(), operator.recv().text()), ("PONG".into(), "OK".into()));
    for (n, client) in all.iter_mut().enumerate() {
        for round in 0..50 {
            client.send(&["SET", &format!("{key}{n}"), &round.to_string()]);
            client.send(&["GET", &format!("{key}{n}")]);
        }
    }
    eventually(PATIENCE, "all are held", || proxy.metric("dsproxy_held_clients") == 10.0);
    assert!(all[3].stays_silent(Duration::from_millis(100)));
    let mut second = proxy.connect();
    // Neither is one that pauses again.
    assert_eq!(second.cmd(&["CLIENT", "PAUSE", "10"]).text(), "OK");
    assert!(all[4].stays_silent(Duration::from_millis(100)));
    // One that goes while it is held.
    let gone = all.pop().unwrap().stream().local_addr().unwrap().to_string();
    assert_eq!(second.cmd(&["CLIENT", "UNPAUSE"]).text(), "OK");
    for (n, client) in all.iter_mut().enumerate() {
        for round in 0..50 {
            assert_eq!(client.recv(), Value::Simple("OK".into()), "client {n}");
            assert_eq!(client.recv().text(), round.to_string(), "client {n}");
        }
    }
    assert_eq!(operator.recv(), Value::Nil);
    // Its end is behind a hundred of its commands: it may still be there for a moment.
    eventually(PATIENCE, "it is gone", || {
        !second.cmd(&["CLIENT", "LIST"]).text().contains(&format!("addr={gone} "))
    });
    eventually(PATIENCE, "nobody is held", || proxy.metric("dsproxy_held_clients") == 0.0);
}

#[test]
fn a_pause_is_bounded_in_time_and_in_memory() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "[limits]\nclient_pause = \"5s\"\n");
    let key = format!("{}k", stack.key_prefix());
    let mut operator = proxy.connect();
    let error = operator.cmd(&["CLIENT", "PAUSE", "5001"]);
    assert!(error.error().contains("5000 ms at most (limits.client_pause)"), "{error:?}");
    assert_eq!(operator.cmd(&["CLIENT", "PAUSE", "5000", "WRITE"]).text(), "OK");
    let text = operator.cmd(&["INFO", "clients"]).text();
    assert!(text.contains("paused_reason:client_pause\r\npaused_actions:write\r\n"), "{text}");
    // A flood: the proxy reads a little ahead, and leaves the rest to the sockets.
    let flood = proxy.connect();
    let mut stream = flood.stream();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut chunk = Vec::new();
    for _ in 0..1000 {
        dsproxy::resp::push_command(&mut chunk, [&b"SET"[..], key.as_bytes(), &[b'v'; 1000]]);
    }
    let mut written = 0;
    while let Ok(n) = stream.write(&chunk) {
        written += n;
        assert!(written < 64 << 20, "the proxy reads without end");
    }
    let list = operator.cmd(&["CLIENT", "LIST"]).text();
    let mine = format!("addr={} ", stream.local_addr().unwrap());
    let line = list.lines().find(|line| line.contains(&mine)).unwrap();
    let held: usize = line.split(' ').find_map(|pair| pair.strip_prefix("qbuf=")).unwrap().parse().unwrap();
    assert!((1..=256 << 10).contains(&held) && line.contains(" flags=b "), "{line}");
    // Reads go on; and the end comes by itself.
    assert_eq!(operator.cmd(&["GET", &key]), Value::Nil);
    eventually(PATIENCE, "the pause ends", || operator.cmd(&["GET", &key]) != Value::Nil);
    drop(flood);
    eventually(PATIENCE, "nobody is held", || proxy.metric("dsproxy_held_clients") == 0.0);
}

#[test]
fn what_comes_by_http_is_held_too() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    let (mut operator, key) = (proxy.connect(), format!("{}k", stack.key_prefix()));
    operator.cmd(&["SET", &key, "kept"]);
    let began = Instant::now();
    assert_eq!(operator.cmd(&["CLIENT", "PAUSE", "1000"]).text(), "OK");
    let read = proxy.get(&format!("/read?key={key}"));
    assert!(read.status == 200 && read.body.contains("kept"), "{read:?}");
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    // The proxy's own pages answer all the time.
    assert_eq!(operator.cmd(&["CLIENT", "PAUSE", "60000"]).text(), "OK");
    assert_eq!(proxy.get("/health/live").status, 200);
    operator.cmd(&["CLIENT", "UNPAUSE"]);
}
