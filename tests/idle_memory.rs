//! What an idle client costs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::{Proxy, SharedStack, eventually};

const CLIENTS: usize = 10_000;
/// Bytes of resident size per client; the promise.
const PROMISED: usize = 6 * 1024;

fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn ten_thousand_idle_clients_cost_six_kilobytes_each() {
    let wanted = CLIENTS as u64 + 500;
    let raised = rlimit::increase_nofile_limit(wanted).unwrap();
    assert!(
        raised >= wanted,
        "this test opens {wanted} files, the system allows {raised}: raise `ulimit -Hn`"
    );
    let stack = SharedStack::get();
    let more = "[server]\nlisten = \"127.0.0.1:$PORT\"\nmax_clients = 20000\n";
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, more);
    let key = format!("{}k", stack.key_prefix());
    let request = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
    let reply = format!("$100\r\n{}\r\n", "v".repeat(100));
    proxy.connect().cmd(&["SET", &key, &"v".repeat(100)]);
    let get = |client: &mut TcpStream| {
        let mut got = vec![0; reply.len()];
        client.write_all(request.as_bytes()).unwrap();
        client.read_exact(&mut got).unwrap();
        assert!(got == reply.as_bytes());
    };
    let connect = || {
        let mut client = TcpStream::connect(proxy.addr()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        get(&mut client);
        client
    };
    // The first ones make the threads' own buffers and connections to the nodes.
    let mut clients: Vec<TcpStream> = (0..64).map(|_| connect()).collect();
    let before = resident(proxy.pid());
    clients.extend((0..CLIENTS).map(|_| connect()));
    let connected = || proxy.metric("dsproxy_connected_clients");
    assert_eq!(connected(), clients.len() as f64);
    let each = resident(proxy.pid()).saturating_sub(before) / CLIENTS;
    eprintln!("{each} bytes per idle client, one GET after another");
    assert!(each <= PROMISED, "{each} bytes per idle client");

    // All at once, and quiet again: what the burst needed is given back.
    for client in &mut clients {
        client.write_all(request.as_bytes()).unwrap();
    }
    for client in &mut clients {
        let mut got = vec![0; reply.len()];
        client.read_exact(&mut got).unwrap();
    }
    let each = resident(proxy.pid()).saturating_sub(before) / CLIENTS;
    eprintln!("{each} bytes per idle client after all asked at once");
    assert!(each <= PROMISED, "{each} bytes per idle client after a burst");
    drop(clients);
    eventually(Duration::from_secs(20), "all are gone", || connected() == 0.0);
}
