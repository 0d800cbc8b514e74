//! A node that takes its time, played by the test itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use support::{Proxy, Value, eventually};

/// Answers the proxy's questions at start, and hands out the connection on which it forwards commands, with the first
/// of them already read.
fn node() -> (String, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Small, so that a large request fills it.
    socket2::SockRef::from(&listener).set_recv_buffer_size(64 << 10).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut chunk = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut chunk) {
                    if chunk[..read] == *b"*1\r\n$7\r\nCOMMAND\r\n" {
                        stream.write_all(b"*0\r\n").unwrap();
                        continue;
                    }
                    if !chunk[..read].starts_with(b"*2\r\n$4\r\nINFO\r\n") {
                        let _ = sender.send(stream);
                        return;
                    }
                    let info = "redis_version:7.0.15\r\ncluster_enabled:0\r\n";
                    write!(stream, "${}\r\n{info}\r\n", info.len()).unwrap();
                }
            });
        }
    });
    (addr, receiver)
}

fn proxy(node: &str) -> Proxy {
    Proxy::start(&format!(
        "[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 1\n[upstream]\nmode = \"single\"\nnodes = [{node:?}]\nrefresh_interval = \"1h\"\n"
    ))
}

/// Processor time of a process, in ticks of 10 ms.
fn processor_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn replies_come_while_the_node_takes_no_requests() {
    let (addr, connections) = node();
    let proxy = proxy(&addr);
    let (mut reader, mut writer) = (proxy.connect(), proxy.connect());
    reader.send(&["GET", "small"]);
    let mut node = connections.recv_timeout(Duration::from_secs(5)).unwrap();
    writer.send(&["SET", "large", &"v".repeat(32 << 20)]);
    eventually(Duration::from_secs(5), "the large value is on its way", || {
        proxy.metric("dsproxy_inflight_commands") == 2.0
    });
    // A few bytes are taken, so that the proxy tries to write on.
    let mut chunk = vec![0; 256 << 10];
    node.read_exact(&mut chunk).unwrap();
    node.write_all(b"$5\r\nvalue\r\n").unwrap();
    reader.set_patience(Duration::from_secs(2));
    assert_eq!(reader.recv(), Value::from("value"));
}

#[test]
fn waiting_for_a_slow_node_costs_no_processor_time() {
    let (addr, connections) = node();
    let proxy = proxy(&addr);
    let mut client = proxy.connect();
    client.send(&["GET", "first"]);
    let mut node = connections.recv_timeout(Duration::from_secs(5)).unwrap();
    node.write_all(b"$-1\r\n").unwrap();
    assert_eq!(client.recv(), Value::Nil);
    client.send(&["SET", "large", &"v".repeat(32 << 20)]);
    eventually(Duration::from_secs(5), "the large value is on its way", || {
        proxy.metric("dsproxy_inflight_commands") == 1.0
    });
    let (begin, before) = (Instant::now(), processor_ticks(proxy.pid()));
    let mut chunk = vec![0; 64 << 10];
    while begin.elapsed() < Duration::from_secs(1) {
        node.read_exact(&mut chunk).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let used = processor_ticks(proxy.pid()) - before;
    assert!(used < 40, "{used} ticks of processor time in 100");
}

/// Replies that are ready but not in turn count as unread ones: a client cannot fill the memory behind one slow reply.
#[test]
fn what_waits_behind_a_slow_reply_is_bounded() {
    const BOUND: usize = 48 << 20;
    let (addr, connections) = node();
    let proxy = proxy(&addr);
    let mut client = proxy.connect();
    let before = resident(proxy.pid());
    client.send(&["GET", "slow"]);
    let mut node = connections.recv_timeout(Duration::from_secs(5)).unwrap();
    let mut echo = Vec::new();
    dsproxy::resp::push_command(&mut echo, [&b"ECHO"[..], &vec![b'e'; 4 << 20]]);
    let mut stream = client.stream().try_clone().unwrap();
    stream.set_write_timeout(None).unwrap();
    let writing = std::thread::spawn(move || (0..50).for_each(|_| stream.write_all(&echo).unwrap()));
    eventually(Duration::from_secs(5), "the client is paused, or has sent all", || {
        proxy.metric("dsproxy_client_pauses_total") >= 1.0 || writing.is_finished()
    });
    assert!(!writing.is_finished(), "everything was taken");
    let grown = resident(proxy.pid()).saturating_sub(before);
    assert!(grown < BOUND, "{} MiB more than before", grown >> 20);
    node.write_all(b"$4\r\nslow\r\n").unwrap();
    assert_eq!(client.recv(), Value::from("slow"));
    for _ in 0..50 {
        assert_eq!(client.recv().text().len(), 4 << 20);
    }
    writing.join().unwrap();
}

/// Resident size of a process, in bytes.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
