//! Clients that want too much: each meets its limit, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::{Proxy, Resp, SharedStack, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// One worker, so that whoever suffers from a flood shares its thread.
fn proxy(stack: &SharedStack, server: &str, more: &str) -> Proxy {
    let config = format!("[server]\nlisten = \"127.0.0.1:$PORT\"\n{server}\n{more}");
    Proxy::for_nodes(stack.redis_nodes(), None, &config)
}

/// Resident size of a process, in bytes.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Median and longest time of a GET.
fn latency(client: &mut Resp, key: &str) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let begin = Instant::now();
            client.cmd(&["GET", key]);
            begin.elapsed()
        })
        .collect();
    times.sort();
    (times[100], times[199])
}

/// Writes until everything is written or nobody takes more; counts the bytes in `written`.
fn write_all(mut stream: TcpStream, bytes: Vec<u8>, written: &AtomicUsize) {
    let mut at = 0;
    while at < bytes.len() {
        at += stream.write(&bytes[at..(at + (64 << 10)).min(bytes.len())]).unwrap();
        written.store(at, Ordering::Relaxed);
    }
}

#[test]
fn a_million_pipelined_commands_of_a_client_that_does_not_read() {
    const COMMANDS: usize = 1_000_000;
    const BOUND: usize = 24 << 20;
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "workers = 1", "");
    let key = |n: usize| format!("{}{n}", stack.key_prefix());
    let value = |n: usize| format!("{n:0>64}");
    let mut bystander = proxy.connect();
    for n in 0..100 {
        bystander.cmd(&["SET", &key(n), &value(n)]);
    }
    let before = resident(proxy.pid());
    let flood = TcpStream::connect(proxy.addr()).unwrap();
    let (writer, written) = (flood.try_clone().unwrap(), Arc::new(AtomicUsize::new(0)));
    let mut request = Vec::new();
    let mut bytes = Vec::new();
    for n in 0..100 {
        request.clear();
        dsproxy::resp::push_command(&mut request, [&b"GET"[..], key(n).as_bytes()]);
        bytes.extend_from_slice(&request);
    }
    let bytes = bytes.repeat(COMMANDS / 100);
    let total = bytes.len();
    let counter = written.clone();
    let writing = std::thread::spawn(move || write_all(writer, bytes, &counter));

    // Stuck: paused, and no byte more taken over some turns of a bystander.
    let (mut highest, mut last, mut still) = (0, 0, 0);
    eventually(PATIENCE, "the flood is held back", || {
        bystander.cmd(&["GET", &key(1)]);
        highest = highest.max(resident(proxy.pid()));
        let now = written.load(Ordering::Relaxed);
        still = if now > 0 && now == last { still + 1 } else { 0 };
        last = now;
        still > 50
    });
    assert!(proxy.metric("dsproxy_client_pauses_total") >= 1.0);
    assert!(last < total, "everything was taken: nothing was held back");
    let (median, longest) = latency(&mut bystander, &key(2));
    assert!(median < Duration::from_millis(5) && longest < Duration::from_secs(1), "{median:?} {longest:?}");

    // Now it reads: every reply, in order, while others are served.
    let mut reader = std::io::BufReader::with_capacity(1 << 20, flood);
    let mut expected = Vec::new();
    for n in 0..100 {
        expected.extend_from_slice(format!("$64\r\n{}\r\n", value(n)).as_bytes());
    }
    let mut got = vec![0; expected.len()];
    for round in 0..COMMANDS / 100 {
        reader.read_exact(&mut got).unwrap();
        assert!(got == expected, "wrong replies in round {round}");
        if round % 1000 == 0 {
            let (median, _) = latency(&mut bystander, &key(3));
            assert!(median < Duration::from_millis(20), "{median:?}");
            highest = highest.max(resident(proxy.pid()));
        }
    }
    writing.join().unwrap();
    assert!(highest < before + BOUND, "{} MiB more than before", (highest - before) >> 20);
    assert_eq!(bystander.cmd(&["GET", &key(7)]), Value::from(value(7).as_str()));
}

/// Reads always, but never everything: what was written must not be kept until there is nothing left to write.
#[test]
fn a_client_that_is_always_behind_costs_no_more_over_time() {
    const BOUND: usize = 64 << 20;
    let stack = SharedStack::get();
    // Read again long before its output is written out.
    let limits = "[limits]\nclient_output_pause = \"16MB\"\ninflight_per_client = 4\n";
    let proxy = proxy(&stack, "workers = 1", limits);
    let key = format!("{}k", stack.key_prefix());
    let mut bystander = proxy.connect();
    bystander.cmd(&["SET", &key, &"v".repeat(1 << 20)]);
    let client = TcpStream::connect(proxy.addr()).unwrap();
    let mut request = Vec::new();
    dsproxy::resp::push_command(&mut request, [&b"GET"[..], key.as_bytes()]);
    let replies = 400;
    let (writer, bytes) = (client.try_clone().unwrap(), request.repeat(replies));
    let writing = std::thread::spawn(move || write_all(writer, bytes, &AtomicUsize::new(0)));
    let before = resident(proxy.pid());
    let (mut left, mut reader, mut chunk) = (replies * ((1 << 20) + 12), &client, vec![0; 1 << 20]);
    let mut highest = 0;
    while left > 0 {
        // Nothing in flight for a while: its output is at the limit again (or all is there), and this read does not
        // empty it.
        let idle = || proxy.metric("dsproxy_inflight_commands") == 0.0;
        eventually(PATIENCE, "the client is held back", || (0..4).all(|_| idle()));
        let want = chunk.len().min(left);
        reader.read_exact(&mut chunk[..want]).unwrap();
        left -= want;
        highest = highest.max(resident(proxy.pid()));
    }
    writing.join().unwrap();
    highest = highest.max(resident(proxy.pid()));
    assert!(highest < before + BOUND, "{} MiB more than before", (highest - before) >> 20);
}

#[test]
fn a_client_that_never_reads_is_closed() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "workers = 1", "[limits]\nclient_stall_timeout = \"1s\"\n");
    let key = format!("{}k", stack.key_prefix());
    let mut bystander = proxy.connect();
    bystander.cmd(&["SET", &key, &"v".repeat(32 << 20)]);
    let mut stuck = proxy.connect();
    stuck.send(&["GET", &key]);
    eventually(PATIENCE, "the client is closed", || proxy.metric("dsproxy_slow_clients_closed_total") == 1.0);
    eventually(PATIENCE, "it is gone", || proxy.metric("dsproxy_connected_clients") == 1.0);
    // What it sees in the end is a part of the reply and a closed connection, not a wrong reply.
    assert!(matches!(stuck.try_recv(), Err(support::Lost::Closed)));
    // One that is slow but reads is not closed, though it takes longer than the timeout in all.
    let slow = TcpStream::connect(proxy.addr()).unwrap();
    (&slow).write_all(format!("GET {key}\r\n").as_bytes()).unwrap();
    let (mut left, mut chunk) = ((32 << 20) + 13, vec![0; 256 << 10]);
    while left > 0 {
        std::thread::sleep(Duration::from_millis(15));
        let read = (&slow).read(&mut chunk).unwrap();
        assert!(read > 0, "closed with {left} bytes left");
        left -= read;
    }
    assert_eq!(proxy.metric("dsproxy_slow_clients_closed_total"), 1.0);
    bystander.cmd(&["DEL", &key]);
}

#[test]
fn a_client_with_too_much_unread_is_closed() {
    let stack = SharedStack::get();
    let limits = "[limits]\nclient_output_max = \"4MB\"\nclient_output_pause = \"1MB\"\n";
    let proxy = proxy(&stack, "workers = 1", limits);
    let key = format!("{}k", stack.key_prefix());
    let mut bystander = proxy.connect();
    bystander.cmd(&["SET", &key, &"v".repeat(32 << 20)]);
    proxy.connect().send(&["GET", &key]);
    let mut stuck = proxy.connect();
    stuck.send(&["GET", &key]);
    eventually(PATIENCE, "the client is closed", || proxy.metric("dsproxy_slow_clients_closed_total") >= 1.0);
    assert!(matches!(stuck.try_recv(), Err(support::Lost::Closed)));
    bystander.cmd(&["DEL", &key]);
}

#[test]
fn values_of_64_megabytes_pass_unharmed() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "workers = 1", "");
    let key = |n: usize| format!("{}{n}", stack.key_prefix());
    // No period that a lost or doubled buffer could hide in.
    let value: Vec<u8> =
        (0..16_u32 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut client = proxy.connect();
    client.set_patience(PATIENCE);
    for n in 0..2 {
        assert_eq!(client.cmd(&[b"SET", key(n).as_bytes(), &value]), Value::Simple("OK".into()));
    }
    assert!(client.cmd(&["GET", &key(0)]) == Value::Bulk(value.clone()), "GET gives another value");
    client.send(&["MGET", &key(0), &key(1)]);
    assert_eq!(client.recv_raw(4), b"*2\r\n");
    for _ in 0..2 {
        assert_eq!(client.recv_raw(11), b"$67108864\r\n");
        assert!(client.recv_raw(value.len()) == value, "MGET gives another value");
        assert_eq!(client.recv_raw(2), b"\r\n");
    }
    assert_eq!(client.cmd(&["DEL", &key(0), &key(1)]), Value::Int(2));
}

#[test]
fn one_client_too_many_is_refused_in_redis_words() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "workers = 2\nmax_clients = 3", "");
    let mut clients: Vec<Resp> = (0..3).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.cmd(&["PING"]), Value::Simple("PONG".into()));
    }
    let mut refused = proxy.connect();
    assert_eq!(refused.recv_to_end(), b"-ERR max number of clients reached\r\n");
    clients.pop();
    eventually(PATIENCE, "the place is free again", || {
        let mut client = proxy.connect();
        client.send_raw(b"PING\r\n");
        client.try_recv().is_ok_and(|answer| answer == Value::Simple("PONG".into()))
    });
}

/// All at once, before any worker has counted one: neither more than the limit, nor all on one worker.
#[test]
fn a_burst_of_clients_is_counted_and_spread() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "workers = 4\nmax_clients = 40", "");
    let mut clients: Vec<Resp> = (0..100).map(|_| proxy.connect()).collect();
    let mut ids = Vec::new();
    for client in &mut clients {
        let _ = client.stream().write_all(b"CLIENT ID\r\n");
    }
    for client in &mut clients {
        match client.try_recv() {
            Ok(Value::Int(id)) => ids.push(id),
            Ok(Value::Error(text)) => assert_eq!(text, "ERR max number of clients reached"),
            Ok(other) => panic!("{other:?}"),
            // The refusal can be lost when our bytes were not read.
            Err(_) => {}
        }
    }
    assert_eq!(ids.len(), 40);
    // An id tells its worker, see `CLIENT ID`.
    let of_worker = |worker: i64| ids.iter().filter(|id| *id % 4 == worker).count();
    let spread: Vec<usize> = (0..4).map(of_worker).collect();
    assert!(spread.iter().all(|count| *count == 10), "{spread:?}");
}

#[test]
fn silent_clients_are_closed_and_active_ones_are_not() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack, "workers = 1\nclient_idle_timeout = \"1s\"", "");
    let (mut active, mut silent) = (proxy.connect(), proxy.connect());
    let begin = Instant::now();
    silent.cmd(&["PING"]);
    eventually(PATIENCE, "the silent client is gone", || {
        assert_eq!(active.cmd(&["PING"]), Value::Simple("PONG".into()));
        std::thread::sleep(Duration::from_millis(50));
        proxy.metric("dsproxy_connected_clients") == 1.0
    });
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(silent.recv_to_end(), b"");
    assert_eq!(active.cmd(&["PING"]), Value::Simple("PONG".into()));
}
