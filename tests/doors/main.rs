//! The ways in and out: TLS and mutual TLS on both sides, the Unix socket, the PROXY protocol, networks; and what comes to
//! those doors that should not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod certificates;
mod https;
mod networks;
#[path = "../support/mod.rs"]
mod support;
mod upstream;
mod warm;

use certificates::Certificates;
use dsproxy::embedded::free_ports;
use dsproxy::resp::push_command;
use dsproxy::tls::{ClientFiles, ClientTls};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Proxy, SharedStack, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy with a TLS port.
struct Bed {
    proxy: Proxy,
    port: u16,
    certificates: Certificates,
    stack: SharedStack,
}

impl Bed {
    /// `more` is part of `[tls]`; `$DIR` are the certificates.
    fn start(more: &str) -> Self {
        let (stack, certificates) = (SharedStack::get(), Certificates::new());
        certificates.make("proxy", &["localhost", "127.0.0.1"]);
        certificates.make("client", &[]);
        let port = free_ports(1).unwrap()[0];
        let dir = certificates.dir().display().to_string();
        let config = format!(
            "[tls]\nlisten = \"127.0.0.1:{port}\"\ncertificate = \"$DIR/proxy.pem\"\nkey = \"$DIR/proxy.key\"\n{more}\n"
        );
        let proxy = Proxy::for_nodes(stack.redis_nodes(), None, &config.replace("$DIR", &dir));
        Self { proxy, port, certificates, stack }
    }

    /// What `redis-cli --tls` says; these arguments before the command.
    fn redis_cli(&self, more: &[&str], command: &[&str]) -> String {
        let mut cli = Command::new("timeout");
        cli.args(["20", "redis-cli", "--tls", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        cli.arg("--cacert").arg(self.certificates.path("ca.pem")).args(more).args(command);
        let output = cli.output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
    }

    fn identity(&self, certificates: &Certificates, name: &str) -> Vec<String> {
        let path = |end: &str| certificates.path(&format!("{name}.{end}")).display().to_string();
        vec!["--cert".to_owned(), path("pem"), "--key".to_owned(), path("key")]
    }

    fn connect(&self) -> Tls {
        Tls::connect(self.port, &self.certificates)
    }

    fn rejected(&self, reason: &str) -> f64 {
        self.proxy.metric(&format!("dsproxy_rejected_connections_total{{reason=\"{reason}\"}}"))
    }
}

/// A client over TLS.
struct Tls(StreamOwned<ClientConnection, TcpStream>);

impl Tls {
    fn connect(port: u16, certificates: &Certificates) -> Self {
        let files =
            ClientFiles { ca: Some(certificates.path("ca.pem")), identity: None, verifies_names: true };
        let tls = ClientTls::new(files).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Self(StreamOwned::new(ClientConnection::new(tls.current(), name).unwrap(), stream))
    }

    fn send(&mut self, words: &[&[u8]]) {
        let mut request = Vec::new();
        push_command(&mut request, words.iter().copied());
        self.0.write_all(&request).unwrap();
    }

    fn expect(&mut self, reply: &[u8]) {
        let mut got = vec![0; reply.len()];
        self.0.read_exact(&mut got).unwrap();
        assert!(got == reply, "{:?}", String::from_utf8_lossy(&got[..got.len().min(200)]));
    }

    fn certificate(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().unwrap()[0].to_vec()
    }
}

#[test]
fn redis_cli_speaks_tls() {
    let bed = Bed::start("");
    let key = format!("{}k", bed.stack.key_prefix());
    assert_eq!(bed.redis_cli(&[], &["SET", &key, "over TLS"]), "OK");
    assert_eq!(bed.redis_cli(&["-3"], &["GET", &key]), "\"over TLS\"".trim_matches('"'));
    assert_eq!(bed.proxy.connect().cmd(&["GET", &key]).text(), "over TLS");
    // An authority that has not signed the proxy's certificate.
    let other = Certificates::new();
    let refused = bed.redis_cli(&["--cacert", &other.path("ca.pem").display().to_string()], &["PING"]);
    assert!(refused.contains("certificate verify failed"), "{refused}");
}

#[test]
fn only_clients_with_a_right_certificate_come_in() {
    let bed = Bed::start("client_ca = \"$DIR/ca.pem\"\nmin_version = \"1.3\"");
    let stranger = Certificates::new();
    stranger.make("client", &[]);
    bed.certificates.make_until("expired", &[], 2002);
    let ping = |identity: &[String]| {
        let words: Vec<&str> = identity.iter().map(String::as_str).collect();
        bed.redis_cli(&words, &["PING"])
    };
    assert_eq!(ping(&bed.identity(&bed.certificates, "client")), "PONG");
    let cases = [
        ("none", Vec::new()),
        ("of a stranger", bed.identity(&stranger, "client")),
        ("expired", bed.identity(&bed.certificates, "expired")),
    ];
    for (what, identity) in &cases {
        assert_ne!(ping(identity), "PONG", "a certificate {what}");
    }
    // Right, but of old.
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut old = StreamOwned::new(session, TcpStream::connect(("127.0.0.1", bed.port)).unwrap());
    let refused = old
        .write_all(
            b"PING
",
        )
        .unwrap_err();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    eventually(PATIENCE, "all are counted", || bed.rejected("tls") == cases.len() as f64 + 1.0);
    assert_eq!(bed.proxy.metric("dsproxy_connected_clients"), 0.0);
}

#[test]
fn large_replies_and_long_pipelines_come_whole() {
    let bed = Bed::start("");
    let key = format!("{}big", bed.stack.key_prefix());
    let value: Vec<u8> = (0..3 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut client = bed.connect();
    client.send(&[b"SET", key.as_bytes(), &value]);
    client.expect(b"+OK\r\n");
    let reply = [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
    // Many replies wait in the proxy until the client reads.
    for _ in 0..8 {
        client.send(&[b"GET", key.as_bytes()]);
    }
    let answered = "dsproxy_commands_total{command=\"get\",outcome=\"ok\"}";
    eventually(PATIENCE, "they are there", || bed.proxy.metric(answered) == 8.0);
    (0..8).for_each(|_| client.expect(&reply));
    let small = format!("{}small", bed.stack.key_prefix());
    for round in 0..20 {
        let mut requests = Vec::new();
        for _ in 0..500 {
            push_command(&mut requests, [&b"INCR"[..], small.as_bytes()]);
        }
        client.0.write_all(&requests).unwrap();
        (1..=500).for_each(|n| client.expect(format!(":{}\r\n", round * 500 + n).as_bytes()));
    }
    // The proxy says goodbye in the way of TLS.
    client.send(&[b"QUIT"]);
    client.expect(b"+OK\r\n");
    assert_eq!(client.0.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn garbage_at_the_tls_port_hurts_nobody() {
    let bed = Bed::start("");
    let mut client = bed.connect();
    let pieces: [&[u8]; 5] = [
        b"PING\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 20_000],
        // A record of a handshake that holds none.
        &[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5],
    ];
    for piece in pieces {
        let mut stream = TcpStream::connect(("127.0.0.1", bed.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(piece);
        match stream.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
        client.send(&[b"PING"]);
        client.expect(b"+PONG\r\n");
    }
    eventually(PATIENCE, "all are counted", || bed.rejected("tls") == pieces.len() as f64);
    // Within a session, too.
    let mut broken = bed.connect();
    broken.send(&[b"PING"]);
    broken.expect(b"+PONG\r\n");
    broken.0.sock.write_all(&[0x17, 3, 3, 0, 40, 7, 7, 7]).unwrap();
    broken.0.sock.write_all(&[7; 40]).unwrap();
    let _ = broken.0.sock.read_to_end(&mut Vec::new());
    eventually(PATIENCE, "it is closed", || bed.proxy.metric("dsproxy_connected_clients") == 1.0);
    client.send(&[b"PING"]);
    client.expect(b"+PONG\r\n");
}

#[test]
fn handshakes_that_do_not_end_are_bounded() {
    let bed = Bed::start("handshake_timeout = \"700ms\"\nmax_handshakes = 3");
    let begin = || {
        let mut stream = TcpStream::connect(("127.0.0.1", bed.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[0x16, 3, 1]).unwrap();
        stream
    };
    let started = Instant::now();
    let slow: Vec<TcpStream> = (0..3).map(|_| begin()).collect();
    eventually(PATIENCE, "three are under way", || bed.proxy.metric("dsproxy_tls_handshakes") == 3.0);
    let end = |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 100]);
    };
    end(begin());
    assert!(started.elapsed() < Duration::from_millis(650), "one too many is closed at once");
    assert_eq!(bed.rejected("handshakes"), 1.0);
    slow.into_iter().for_each(end);
    eventually(PATIENCE, "all three are over", || bed.rejected("handshake_timeout") == 3.0);
    let mut client = bed.connect();
    client.send(&[b"PING"]);
    client.expect(b"+PONG\r\n");
}

#[test]
fn certificates_are_replaced_under_traffic() {
    let bed = Bed::start("reload_interval = \"50ms\"");
    let reloads =
        |outcome: &str| bed.proxy.metric(&format!("dsproxy_tls_reloads_total{{outcome=\"{outcome}\"}}"));
    let mut old = bed.connect();
    let ping = |client: &mut Tls| {
        client.send(&[b"PING"]);
        client.expect(b"+PONG\r\n");
    };
    ping(&mut old);
    // A broken file changes nothing.
    std::fs::write(bed.certificates.path("proxy.pem"), "-----BEGIN CERTIFICATE-----\nnonsense").unwrap();
    eventually(PATIENCE, "the broken file is seen", || reloads("error") >= 1.0);
    let mut same = bed.connect();
    ping(&mut same);
    assert_eq!(same.certificate(), old.certificate());
    bed.certificates.make("proxy", &["localhost"]);
    eventually(PATIENCE, "the new certificate is shown", || {
        ping(&mut old);
        let mut new = bed.connect();
        ping(&mut new);
        new.certificate() != old.certificate()
    });
    let before = reloads("ok");
    bed.proxy.signal(rustix::process::Signal::HUP);
    eventually(PATIENCE, "SIGHUP reads them again", || reloads("ok") > before);
    ping(&mut old);
}

/// What `docs/security.md` tells to paste.
#[test]
fn the_commands_of_the_documents_work() {
    let page = include_str!("../../docs/security.md");
    let blocks = |kind: &str, word: &str| {
        let fence = format!("```{kind}\n");
        let blocks = page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap());
        blocks.into_iter().find(|block| block.contains(word)).unwrap().to_owned()
    };
    let (dir, stack) = (tempfile::tempdir().unwrap(), SharedStack::get());
    let run = |script: &str| {
        let output = Command::new("timeout")
            .args(["60", "sh", "-ec", script])
            .current_dir(dir.path())
            .output()
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    run(&blocks("sh", "openssl"));
    let port = free_ports(1).unwrap()[0];
    let tls = blocks("toml", "[tls]").replace("0.0.0.0:6390", &format!("127.0.0.1:{port}"));
    let tls = tls.replace("certs/", &format!("{}/certs/", dir.path().display()));
    let users = blocks("toml", "users = [");
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, &format!("{tls}\n{users}\n"));
    let ping = blocks("sh", "redis-cli --tls").replace("6390", &port.to_string());
    // The user `default` is off in that page's example.
    let ping = ping.replace("PING", "--no-auth-warning --user app --pass change-me SET app:1 x");
    assert_eq!(run(&ping).trim(), "OK");
    let said = run(&blocks("sh", "--user report")
        .replace("6380", &proxy.addr().1.to_string())
        .replace("--user", "--no-auth-warning --user"));
    assert!(said.starts_with("x\n") && said.contains("NOPERM this user has no permissions"), "{said}");
}

#[test]
fn wrong_certificates_stop_the_start_with_their_name() {
    let (stack, certificates) = (SharedStack::get(), Certificates::new());
    certificates.make("proxy", &["localhost"]);
    certificates.make("other", &["localhost"]);
    let dir = certificates.dir().display();
    for (certificate, key, expected) in [
        ("proxy.pem", "nosuch.key", "nosuch.key"),
        ("proxy.key", "proxy.key", "holds no certificate"),
        ("proxy.pem", "proxy.pem", "no private key"),
        ("proxy.pem", "other.key", "proxy.pem"),
    ] {
        let mut proxy = Proxy::spawn(&format!(
            "[upstream]\nnodes = {:?}\n[tls]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{dir}/{certificate}\"\nkey = \"{dir}/{key}\"\n",
            stack.redis_nodes()
        ));
        assert!(!proxy.wait_exit().success());
        assert!(proxy.log().contains("[tls]: ") && proxy.log().contains(expected), "{}", proxy.log());
    }
}
