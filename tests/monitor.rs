//! `MONITOR` through the running proxy, held against what Redis itself shows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;
use support::{Proxy, Resp, SharedStack, Value, eventually};

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(200);

fn proxy(stack: &SharedStack, more: &str) -> Proxy {
    let nodes = stack.redis_nodes();
    Proxy::start(&format!(
        "[upstream]\nnodes = {nodes:?}\n[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 3\n{more}"
    ))
}

fn ok() -> Value {
    Value::Simple("OK".into())
}

fn monitor(mut client: Resp) -> Resp {
    client.set_patience(SOON);
    assert_eq!(client.cmd(&["MONITOR"]), ok());
    client
}

/// Address and command of the next line; checks that the rest is as Redis writes it.
fn next(monitor: &mut Resp) -> (String, String) {
    let Value::Simple(line) = monitor.recv() else { panic!("no simple string") };
    let (time, rest) = line.split_once(" [0 ").unwrap();
    let (seconds, micros) = time.split_once('.').unwrap();
    assert!(seconds.parse::<u64>().unwrap() > 1_700_000_000 && micros.len() == 6, "{line}");
    let (peer, command) = rest.split_once("] ").unwrap();
    (peer.to_owned(), command.to_owned())
}

#[test]
fn lines_are_those_of_redis() {
    let stack = SharedStack::get();
    let key = format!("{}k", stack.key_prefix());
    let requests: Vec<Vec<Vec<u8>>> = [
        vec!["set", &key, "q\"u\\o\n\r\t\u{7}\u{8}\0é"],
        vec!["GET", &key],
        vec!["AUTH", "sesame"],
        vec!["AUTH", "default", "sesame"],
        vec!["HELLO", "2", "AUTH", "default", "sesame", "SETNAME", "joe"],
        vec!["CONFIG", "SET", "requirepass", "sesame", "nosuch", "1"],
        vec!["ACL", "SETUSER", "x", "(sesame"],
        vec!["NOSUCH", "sesame"],
        vec!["GET"],
        vec!["MULTI"],
        vec!["STRLEN", &key],
        vec!["EXEC"],
        vec!["CLIENT", "ID"],
        vec!["CLIENT", "LIST"],
        vec!["ECHO", ""],
        vec!["ping", "end"],
    ]
    .into_iter()
    .map(|words| words.into_iter().map(|word| word.as_bytes().to_vec()).collect())
    .collect();
    let watched = |connect: &dyn Fn() -> Resp| {
        let mut monitor = monitor(connect());
        let mut client = connect();
        let own = client.stream().local_addr().unwrap().to_string();
        requests.iter().for_each(|request| drop(client.cmd(request)));
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != "\"ping\" \"end\"") {
            let (peer, line) = next(&mut monitor);
            // Others use the nodes, too.
            if peer == own {
                lines.push(line);
            }
        }
        lines
    };
    let proxy = proxy(&stack, "");
    let owner = stack
        .redis_nodes()
        .iter()
        .find(|node| !matches!(Resp::connect(node.as_str()).cmd(&["GET", &key]), Value::Error(_)))
        .unwrap();
    let (ours, theirs) = (watched(&|| proxy.connect()), watched(&|| Resp::connect(owner.as_str())));
    assert_eq!(ours, theirs);
    assert!(!ours.concat().contains("sesame") && ours.len() > 9, "{ours:?}");
}

#[test]
fn all_workers_are_seen_until_it_ends() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "");
    for three in [false, true] {
        let mut client = proxy.connect();
        if three {
            client.cmd(&["HELLO", "3"]);
        }
        let mut monitor = monitor(client);
        // A second one is not answered, as in Redis.
        monitor.send(&["MONITOR"]);
        let mut others: Vec<Resp> = (0..12).map(|_| proxy.connect()).collect();
        let mut expected: Vec<(String, String)> = Vec::new();
        for (n, other) in others.iter_mut().enumerate() {
            other.cmd(&["ECHO", &n.to_string()]);
            expected.push((other.stream().local_addr().unwrap().to_string(), format!("\"ECHO\" \"{n}\"")));
        }
        let mut seen: Vec<_> = expected.iter().map(|_| next(&mut monitor)).collect();
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected);
        let error = monitor.cmd(&["GET", "a"]);
        assert_eq!(error.error(), "ERR Replica can't interact with the keyspace");
        assert!(others[0].cmd(&["CLIENT", "LIST"]).text().contains(" flags=O "));
        monitor.send(&["RESET"]);
        while monitor.recv() != Value::Simple("RESET".into()) {}
        others[0].cmd(&["ECHO", "unseen"]);
        assert!(monitor.stays_silent(MOMENT));
        assert_eq!(monitor.cmd(&["EXISTS", &format!("{}none", stack.key_prefix())]), Value::Int(0));
    }
    assert_eq!(proxy.connect().cmd(&["PING"]), Value::Simple("PONG".into()));
}

#[test]
fn a_flood_is_cut_to_the_rate_and_what_is_dropped_is_told() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "[limits]\nmonitor_lines = 50\nmonitors = 2\n");
    let mut looks = monitor(proxy.connect());
    let second = monitor(proxy.connect());
    assert_eq!(
        proxy.connect().cmd(&["MONITOR"]).error(),
        "ERR dsproxy: 2 clients look on already (limits.monitors)"
    );
    drop(second);
    eventually(SOON, "room for another", || proxy.connect().cmd(&["MONITOR"]) == ok());
    let mut client = proxy.connect();
    let many: Vec<Vec<String>> = (0..5000).map(|n| vec!["ECHO".to_owned(), n.to_string()]).collect();
    assert_eq!(client.pipeline(&many).len(), many.len());
    let (mut shown, mut dropped) = (0, 0);
    // What was asked above, and the commands of others, are not meant.
    while shown + dropped < many.len() {
        let (peer, line) = next(&mut looks);
        if peer == "dsproxy:0" {
            dropped += line.split('"').nth(3).unwrap().parse::<usize>().unwrap();
        } else {
            shown += usize::from(line.starts_with("\"ECHO\""));
        }
    }
    assert!((1..=500).contains(&shown), "{shown} shown, {dropped} dropped");
}

#[test]
fn one_that_does_not_read_costs_a_bounded_buffer_and_slows_nobody() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "[limits]\nclient_output_pause = \"64KB\"\nmonitor_lines = 1000000\n");
    let deaf = monitor(proxy.connect());
    let mut client = proxy.connect();
    let long = "x".repeat(100_000);
    for _ in 0..20 {
        let burst: Vec<Vec<&str>> = (0..50).map(|_| vec!["ECHO", &*long]).collect();
        assert_eq!(client.pipeline(&burst).len(), burst.len());
    }
    let list = client.cmd(&["CLIENT", "LIST"]).text();
    let line = list.lines().find(|line| line.contains(" flags=O ")).unwrap();
    let unwritten: usize =
        line.split(' ').find_map(|field| field.strip_prefix("obl=")).unwrap().parse().unwrap();
    assert!(unwritten <= 64 << 10, "{line}");
    drop(deaf);
    eventually(SOON, "its end", || !client.cmd(&["CLIENT", "LIST"]).text().contains(" flags=O "));
}

#[test]
fn it_is_for_administrators() {
    let stack = SharedStack::get();
    let rules = [
        "default on nopass ~* &* +@all -@admin",
        "safe on nopass ~* &* +@all -@dangerous",
        "root on nopass ~* &* +@all",
    ];
    let proxy = proxy(&stack, &format!("[acl]\nusers = {rules:?}\n"));
    let mut client = proxy.connect();
    for _ in 0..2 {
        assert!(client.cmd(&["MONITOR"]).error().starts_with("NOPERM"));
        assert_eq!(client.cmd(&["AUTH", "safe", "any"]), ok());
    }
    assert_eq!(client.cmd(&["AUTH", "root", "any"]), ok());
    let mut looks = monitor(client);
    // Nothing of what is refused is shown.
    let mut other = proxy.connect();
    assert!(other.cmd(&["CONFIG", "GET", "port"]).error().starts_with("NOPERM"));
    other.cmd(&["ECHO", "allowed"]);
    assert_eq!(next(&mut looks).1, "\"ECHO\" \"allowed\"");
}
