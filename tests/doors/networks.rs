//! The Unix socket, the PROXY protocol, the list of networks.

use crate::support::{Proxy, Resp, SharedStack, Value};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn start(server: &str) -> Proxy {
    let stack = SharedStack::get();
    Proxy::for_nodes(stack.redis_nodes(), None, &format!("[server]\nlisten = \"127.0.0.1:$PORT\"\n{server}"))
}

fn rejected(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric(&format!("dsproxy_rejected_connections_total{{reason=\"{reason}\"}}"))
}

/// What a connection gets that begins with these bytes, up to its end or `length` bytes.
fn ask(proxy: &Proxy, bytes: &[u8], length: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let mut got = Vec::new();
    let _ = stream.take(length as u64).read_to_end(&mut got);
    got
}

#[test]
fn a_unix_socket_serves_clients_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    // Left behind by a proxy that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut proxy =
        start(&format!("unix_socket = {path:?}\nunix_socket_mode = \"700\"\nallow = [\"10.9.9.9\"]\n"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"PING\r\nCLIENT INFO\r\n").unwrap();
    let mut got = [0; 200];
    let mut length = 0;
    while length < 60 {
        length += stream.read(&mut got[length..]).unwrap();
    }
    let text = String::from_utf8_lossy(&got[..length]).into_owned();
    assert!(text.starts_with("+PONG") && text.contains(&format!("addr={}:0", path.display())), "{text}");
    let output = std::process::Command::new("timeout")
        .args(["20", "redis-cli", "-s"])
        .arg(&path)
        .args(["SET", "unix", "1"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "OK");
    // A second proxy must not take it away.
    let stack = SharedStack::get();
    let config = format!(
        "[upstream]\nnodes = {:?}\n[server]\nlisten = \"127.0.0.1:$PORT\"\nunix_socket = {path:?}\n",
        stack.redis_nodes()
    );
    let mut second = Proxy::spawn(&config);
    assert!(!second.wait_exit().success());
    assert!(second.log().contains("unix_socket"), "{}", second.log());
    assert!(UnixStream::connect(&path).is_ok());
    assert!(proxy.stop().success());
    assert!(!path.exists(), "the socket goes with its proxy");
}

#[test]
fn clients_of_other_networks_are_turned_away() {
    let proxy = start("allow = [\"10.0.0.0/8\", \"fd00::/8\"]\n");
    assert_eq!(ask(&proxy, b"PING\r\n", 100), b"");
    assert!(rejected(&proxy, "network") >= 1.0);
    let proxy = start("allow = [\"10.0.0.0/8\", \"127.0.0.1\"]\n");
    assert_eq!(ask(&proxy, b"PING\r\n", 7), b"+PONG\r\n");
}

#[test]
fn the_proxy_protocol_tells_who_the_client_is() {
    let proxy = start(
        "proxy_protocol = [\"127.0.0.0/8\"]\nallow = [\"10.0.0.0/8\", \"::1\"]\n[tls]\nhandshake_timeout = \"500ms\"\n",
    );
    let mut client = Resp::connect(proxy.addr());
    client.send_raw(b"PROXY TCP4 10.1.2.3 10.0.0.1 4711 6380\r\nPING\r\n");
    assert_eq!(client.recv(), Value::Simple("PONG".into()));
    assert!(client.cmd(&["CLIENT", "INFO"]).text().contains(" addr=10.1.2.3:4711 "));
    let mut six = [0; 36];
    (six[15], six[33]) = (1, 77);
    let v2 = |family: u8, addresses: &[u8]| {
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, family, 0, addresses.len() as u8], addresses].concat()
    };
    let mut client = Resp::connect(proxy.addr());
    client.send_raw(&[&v2(0x21, &six)[..], b"PING\r\n"].concat());
    assert_eq!(client.recv(), Value::Simple("PONG".into()));
    assert!(client.cmd(&["CLIENT", "INFO"]).text().contains(" addr=[::1]:77 "));
    // Byte by byte.
    let mut client = Resp::connect(proxy.addr());
    for byte in v2(0x11, &[10, 0, 0, 7, 1, 2, 3, 4, 0, 9, 0, 1]).chunks(1).chain([&b"PING\r\n"[..]]) {
        client.send_raw(byte);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(client.recv(), Value::Simple("PONG".into()));
    // From a network that is not allowed; no header; none that ends.
    assert_eq!(ask(&proxy, b"PROXY TCP4 11.1.2.3 10.0.0.1 4711 6380\r\nPING\r\n", 100), b"");
    assert_eq!(rejected(&proxy, "network"), 1.0);
    assert_eq!(ask(&proxy, b"*1\r\n$4\r\nPING\r\n", 100), b"");
    assert_eq!(rejected(&proxy, "proxy_header"), 1.0);
    assert_eq!(ask(&proxy, b"PROXY TCP4 10.", 100), b"");
    assert_eq!(rejected(&proxy, "handshake_timeout"), 1.0);
    // A health check of the load balancer itself.
    assert_eq!(ask(&proxy, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0PING\r\n", 7), b"+PONG\r\n");
}

#[test]
fn without_trust_the_header_is_no_header() {
    let proxy = start("proxy_protocol = [\"10.0.0.0/8\"]\n");
    let mut client = Resp::connect(proxy.addr());
    client.send_raw(b"PROXY TCP4 10.1.2.3 10.0.0.1 4711 6380\r\n");
    assert!(matches!(client.recv(), Value::Error(_)));
    assert!(client.cmd(&["CLIENT", "INFO"]).text().contains(" addr=127.0.0.1:"));
}

#[test]
fn clients_that_hold_their_place_for_nothing_are_closed() {
    let proxy = start("password = \"pw\"\n[limits]\nrequest_timeout = \"1s\"\nlogin_timeout = \"1s\"\n");
    let logged_in = || {
        let mut client = proxy.connect();
        assert_eq!(client.cmd(&["AUTH", "pw"]).text(), "OK");
        client
    };
    let mut stranger = proxy.connect();
    let (mut idle, mut slow, mut steady, mut blocked) = (logged_in(), logged_in(), logged_in(), logged_in());
    blocked.send(&["BLPOP", "nobody-pushes-here", "0"]);
    slow.send_raw(b"*2\r\n$3\r\nGET\r\n$500\r\n");
    steady.send_raw(b"*3\r\n$3\r\nSET\r\n$6\r\nsteady\r\n$90000\r\n");
    // One byte at a time saves nobody.
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        use std::io::Write as _;
        let _ = slow.stream().write(b"a");
        steady.send_raw(&[b'x'; 3000]);
    }
    assert!(slow.recv_to_end().is_empty() || slow.try_recv().is_err());
    assert!(stranger.recv_to_end().is_empty());
    steady.send_raw(b"\r\n");
    assert_eq!(steady.recv().text(), "OK");
    assert_eq!(idle.cmd(&["PING"]).text(), "PONG");
    assert!(blocked.stays_silent(Duration::from_millis(10)));
    assert_eq!(rejected(&proxy, "request_timeout"), 1.0);
    assert_eq!(rejected(&proxy, "login_timeout"), 1.0);
}

#[test]
fn one_client_too_many_is_told_so() {
    let proxy = start("max_clients = 2\n");
    let mut both = [proxy.connect(), proxy.connect()];
    both.iter_mut().for_each(|client| assert_eq!(client.cmd(&["PING"]).text(), "PONG"));
    let mut third = proxy.connect();
    assert_eq!(third.recv().error(), "ERR max number of clients reached");
    assert!(third.recv_to_end().is_empty());
    assert_eq!(rejected(&proxy, "max_clients"), 1.0);
    let [first, mut second] = both;
    drop(first);
    crate::support::eventually(PATIENCE, "there is room again", || {
        matches!(Resp::connect(proxy.addr()).cmd(&["PING"]), Value::Simple(_))
    });
    assert_eq!(second.cmd(&["PING"]).text(), "PONG");
}
