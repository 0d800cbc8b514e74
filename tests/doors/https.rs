//! The HTTP port over TLS, and a proxy without its plain port.

use super::*;
use dsproxy::embedded::free_ports;

/// A proxy whose HTTP port speaks TLS.
struct Https {
    proxy: Proxy,
    certificates: Certificates,
}

impl Https {
    /// `more` is part of `[http]`; `$DIR` are the certificates.
    fn start(more: &str, tls: &str) -> Self {
        let (stack, certificates) = (SharedStack::get(), Certificates::new());
        certificates.make("proxy", &["localhost", "127.0.0.1"]);
        certificates.make("client", &[]);
        let config = format!(
            "[upstream]\nnodes = {:?}\n[http]\nlisten = \"127.0.0.1:$HTTP_PORT\"\ntls_certificate = \"$DIR/proxy.pem\"\ntls_key = \"$DIR/proxy.key\"\n{more}\n{tls}\n",
            stack.redis_nodes()
        );
        let proxy = Proxy::spawn(&config.replace("$DIR", &certificates.dir().display().to_string()));
        let bed = Self { proxy, certificates };
        eventually(PATIENCE, "it serves", || bed.proxy.log().contains("serving"));
        bed
    }

    /// The answer to a GET; an empty one when there is none.
    fn get(&self, path: &str) -> String {
        let mut client = Tls::connect(self.proxy.http_port(), &self.certificates);
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut answer = Vec::new();
        let _ = client.0.write_all(request.as_bytes()).and_then(|()| client.0.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn health(&self) -> std::process::Output {
        let config = self.proxy.dir().join("proxy.toml");
        Command::new(env!("CARGO_BIN_EXE_dsproxy"))
            .arg("health")
            .arg("--config")
            .arg(config)
            .output()
            .unwrap()
    }
}

#[test]
fn the_http_port_speaks_tls_only() {
    let bed = Https::start("request_timeout = \"500ms\"", "[tls]\nreload_interval = \"50ms\"");
    assert!(bed.get("/health/live").starts_with("HTTP/1.1 200"), "{}", bed.get("/health/live"));
    let page = bed.get("/metrics");
    assert!(page.contains("dsproxy_connected_clients 0") && page.len() > 10_000, "{} bytes", page.len());
    let health = bed.health();
    assert!(health.status.success(), "{health:?}");
    // Plain HTTP, garbage, and one that never ends its handshake.
    for piece in [&b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0xff; 20_000], &[0x16, 3, 1]] {
        let mut stream = TcpStream::connect(("127.0.0.1", bed.proxy.http_port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(piece);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP/"), "{answer:?}");
    }
    let page = bed.get("/metrics");
    for (reason, count) in [("http_tls", 2), ("http_handshake_timeout", 1)] {
        let line = format!("dsproxy_rejected_connections_total{{reason=\"{reason}\"}} {count}");
        assert!(page.contains(&line), "{line} is missing");
    }
    // A new certificate is taken while it runs; a broken one is not.
    let shown = || {
        let mut client = Tls::connect(bed.proxy.http_port(), &bed.certificates);
        client.0.write_all(b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let _ = client.0.read_to_end(&mut Vec::new());
        client.certificate()
    };
    let old = shown();
    std::fs::write(bed.certificates.path("proxy.pem"), "nonsense").unwrap();
    eventually(PATIENCE, "the broken file is seen", || {
        bed.get("/metrics").contains("dsproxy_tls_reloads_total{outcome=\"error\"}")
    });
    assert_eq!(shown(), old);
    bed.certificates.make("proxy", &["localhost"]);
    eventually(PATIENCE, "the new certificate is shown", || shown() != old);
}

#[test]
fn the_http_port_asks_for_certificates() {
    let bed = Https::start("tls_client_ca = \"$DIR/ca.pem\"", "");
    assert_eq!(bed.get("/health/live"), "");
    let files = ClientFiles {
        ca: Some(bed.certificates.path("ca.pem")),
        identity: Some((bed.certificates.path("client.pem"), bed.certificates.path("client.key"))),
        verifies_names: true,
    };
    let tls = ClientTls::new(files).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", bed.proxy.http_port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = StreamOwned::new(ClientConnection::new(tls.current(), name).unwrap(), stream);
    client.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    // The proxy's own certificate is of that authority here, so its own health check comes in.
    assert!(bed.health().status.success());
}

#[test]
fn without_the_plain_port_clients_come_over_tls_and_the_socket() {
    let (stack, certificates) = (SharedStack::get(), Certificates::new());
    certificates.make("proxy", &["localhost"]);
    let (dir, port) = (certificates.dir().display().to_string(), free_ports(1).unwrap()[0]);
    let proxy = Proxy::for_nodes(
        stack.redis_nodes(),
        None,
        &format!(
            "[server]\nlisten = \"127.0.0.1:$PORT\"\nplain = false\nunix_socket = \"{dir}/s\"\n\
             [tls]\nlisten = \"127.0.0.1:{port}\"\ncertificate = \"{dir}/proxy.pem\"\nkey = \"{dir}/proxy.key\"\n"
        ),
    );
    assert_eq!(TcpStream::connect(proxy.addr()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let mut client = Tls::connect(port, &certificates);
    client.send(&[b"CONFIG", b"GET", b"tls-port"]);
    client.expect(format!("*2\r\n$8\r\ntls-port\r\n${}\r\n{port}\r\n", port.to_string().len()).as_bytes());
    let mut local = std::os::unix::net::UnixStream::connect(format!("{dir}/s")).unwrap();
    local.write_all(b"PING\r\n").unwrap();
    let mut pong = [0; 7];
    local.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"+PONG\r\n");
}

#[test]
fn a_proxy_that_nobody_could_reach_does_not_start() {
    for (config, expected) in [
        ("[server]\nlisten = \"127.0.0.1:$PORT\"\nplain = false\n", "no client could come in"),
        ("[http]\nlisten = \"127.0.0.1:$HTTP_PORT\"\ntls_key = \"x\"\n", "go together"),
        ("[http]\nlisten = \"127.0.0.1:$HTTP_PORT\"\ntls_client_ca = \"x\"\n", "go together"),
        (
            "[http]\nlisten = \"127.0.0.1:$HTTP_PORT\"\ntls_certificate = \"/nosuch.pem\"\ntls_key = \"/x\"\n",
            "[http] tls: /nosuch.pem",
        ),
    ] {
        let mut proxy = Proxy::spawn(&format!("[upstream]\nnodes = [\"127.0.0.1:1\"]\n{config}"));
        assert!(!proxy.wait_exit().success());
        assert!(proxy.log().contains(expected), "{}", proxy.log());
    }
}
