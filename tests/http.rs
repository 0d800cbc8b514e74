//! The HTTP side server through real sockets: routes, limits, hostile clients, draining.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dsproxy::config::HttpConfig;
use dsproxy::health::{Condition, Dependency, Health};
use dsproxy::http::{ApiError, CacheStats, Facade, HttpState, Site, WriteRequest, serve};
use dsproxy::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nothing here takes longer; a test that does has hung.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    state: Arc<HttpState>,
    written: Arc<Mutex<Vec<WriteRequest>>>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// A store in memory. User `full` meets a full queue, user `stuck` no answer, user `slow` a late one.
fn facade(written: &Arc<Mutex<Vec<WriteRequest>>>) -> Facade {
    let (writes, reads) = (Arc::clone(written), Arc::clone(written));
    Facade::new(
        move |request: WriteRequest| {
            let writes = Arc::clone(&writes);
            async move {
                match request.user_id.as_str() {
                    "full" => return Err(ApiError::Unavailable("the queue is full".to_owned())),
                    "stuck" => std::future::pending().await,
                    _ => {}
                }
                let slow = request.user_id == "slow";
                writes.lock().unwrap().push(request);
                if slow {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Ok(())
            }
        },
        move |user_id: String| {
            let latest = reads.lock().unwrap().iter().rev().find(|write| write.user_id == user_id).cloned();
            async move { Ok(latest.map(|write| Bytes::from(write.value))) }
        },
    )
}

async fn start(config: HttpConfig) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (written, shutdown) = (Arc::default(), CancellationToken::new());
    let state = Arc::new(HttpState {
        config,
        metrics: Arc::new(Metrics::new()),
        health: Arc::new(Health::new()),
        facade: facade(&written),
        site: Site::empty(),
        reads: None,
        writeback: None,
        cache: CacheStats::empty(),
        requests: std::sync::atomic::AtomicU64::new(0),
        process: std::process::id(),
    });
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(serve(listener, None, Arc::clone(&state), Vec::new(), shutdown.clone()));
    Server { address, state, written, shutdown, task }
}

fn quick() -> HttpConfig {
    HttpConfig { request_timeout: Duration::from_millis(300), max_body: 1024, ..HttpConfig::default() }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a connection of their own, and reads until the server closes it.
    async fn raw(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut stream = self.connect().await;
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request.as_ref()).await;
        Reply::parse(&read_all(&mut stream).await)
    }

    async fn send(&self, method: &str, target: &str, body: &str) -> Reply {
        let length = body.len();
        self.raw(format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    async fn get(&self, target: &str) -> Reply {
        self.raw(format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
        assert_eq!(self.state.metrics.http.connections.get(), 0);
    }
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset behind the answer (the server closes with our bytes unread) ends it as a close does.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

#[derive(Debug, Default)]
struct Reply {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return Self::default() };
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Self { status, headers, body: body.to_owned() }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// A problem with this status whose detail contains `detail`.
    #[track_caller]
    fn is_problem(&self, status: u16, detail: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], status, "{self:?}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "no {detail:?} in {self:?}");
    }
}

#[tokio::test]
async fn ping_metrics_and_health() {
    let server = start(HttpConfig::default()).await;
    let pong = server.get("/ping?x=1").await;
    assert_eq!((pong.status, pong.body.as_str()), (200, "pong"));

    let live = server.get("/health/live").await;
    assert_eq!((live.status, live.body.trim()), (200, r#"{"status":"live"}"#));

    let health = &server.state.health;
    assert_eq!(server.get("/health/ready").await.status, 503);
    health.set(Dependency::Redis, Condition::Up);
    health.set(Dependency::Database, Condition::Down("connection refused".to_owned()));
    health.set(Dependency::WriteBehind, Condition::Off);
    let ready = server.get("/health/ready").await;
    let body: serde_json::Value = serde_json::from_str(&ready.body).unwrap();
    let expected = serde_json::json!({
        "status": "not ready",
        "dependencies": {
            "redis": {"status": "up"},
            "database": {"status": "down", "reason": "connection refused"},
            "write_behind": {"status": "off"},
        },
        "warnings": [],
    });
    assert_eq!((ready.status, body), (503, expected));
    health.set(Dependency::Database, Condition::Up);
    assert_eq!(server.get("/health/ready").await.status, 200);
    health.drain();
    let ready = server.get("/health/ready").await;
    assert!(ready.status == 503 && ready.body.contains("draining"), "{ready:?}");

    server.get("/nowhere").await;
    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        r#"dsproxy_http_requests_total{route="/ping",status="200"} 1"#,
        r#"dsproxy_http_requests_total{route="/health/ready",status="503"} 3"#,
        r#"dsproxy_http_requests_total{route="unmatched",status="404"} 1"#,
        r#"dsproxy_http_request_duration_seconds_count{route="/ping"} 1"#,
    ] {
        assert!(metrics.body.lines().any(|there| there == line), "no {line} in {}", metrics.body);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_written_is_read() {
    let server = start(HttpConfig::default()).await;
    server.get("/read?user_id=user1").await.is_problem(404, "no value");
    for value in ["first", "h\u{e9}llo \\u4e16"] {
        let body = format!(r#"{{"user_id":"user1","value":"{value}"}}"#);
        let accepted = server.send("POST", "/write", &body).await;
        assert_eq!((accepted.status, accepted.body.as_str()), (202, "accepted"));
    }
    let latest = server.get("/read?user_id=user%31").await;
    assert_eq!((latest.status, latest.body.as_str()), (200, "h\u{e9}llo \u{4e16}"));
    assert_eq!(latest.header("content-type"), "text/plain; charset=utf-8");
    server.send("POST", "/write", r#" {"ts": 1234567890, "value": "", "user_id": "a b"} "#).await;
    let last = server.written.lock().unwrap().last().cloned();
    assert_eq!(
        last,
        Some(WriteRequest { user_id: "a b".to_owned(), value: String::new(), ts: Some(1_234_567_890) })
    );
    let empty = server.get("/read?user_id=a+b").await;
    assert_eq!((empty.status, empty.body.as_str()), (200, ""));
    server.stop().await;
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong() {
    let server = start(quick()).await;
    for (body, detail) in [
        ("", "EOF"),
        ("[1]", "not a write request"),
        ("{\"user_id\":\"u\"", "EOF"),
        (r#"{"value":"v"}"#, "missing field `user_id`"),
        (r#"{"user_id":"u"}"#, "missing field `value`"),
        (r#"{"user_id":1,"value":"v"}"#, "expected a string"),
        (r#"{"user_id":"u","value":"v","ts":"now"}"#, "expected a JSON number"),
        (r#"{"user_id":"u","value":"v","ts":1.5}"#, "whole number"),
        (r#"{"user_id":"u","value":"v","tts":1}"#, "unknown field `tts`"),
        (r#"{"user_id":"u","user_id":"u","value":"v"}"#, "duplicate field"),
        (r#"{"user_id":"","value":"v"}"#, "`user_id` is empty"),
        (r#"{"user_id":"u\u0000","value":"v"}"#, "NUL"),
        (r#"{"key":"u","value":"\u0000"}"#, "NUL"),
        (r#"{"user_id":"u","value":"v"} trailing"#, "trailing"),
    ] {
        server.send("POST", "/write", body).await.is_problem(400, detail);
    }
    let not_utf8 = b"POST /write HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 28\r\n\r\n{\"user_id\":\"\xff\",\"value\":\"vv\"}";
    server.raw(not_utf8).await.is_problem(400, "write request");
    for (target, detail) in [
        ("/read", "missing"),
        ("/read?user_id=", "empty"),
        ("/read?user=1", "unknown parameter \"user\""),
        ("/read?user_id=1&user_id=2", "twice"),
        ("/read?user_id=%zz", "hexadecimal"),
        ("/read?user_id=%ff", "UTF-8"),
    ] {
        server.get(target).await.is_problem(400, detail);
    }
    assert!(server.written.lock().unwrap().is_empty());
    server.get("/writes").await.is_problem(404, "/write");
    server.get("/ping/").await.is_problem(404, "no such path");
    let reply = server.get("/write").await;
    reply.is_problem(405, "POST");
    assert_eq!(reply.header("allow"), "POST");
    let reply = server.send("PUT", "/read", "").await;
    reply.is_problem(405, "GET");
    assert_eq!(reply.header("allow"), "GET, HEAD, DELETE");
    let reply = server.send("POST", "/write", r#"{"user_id":"full","value":"v"}"#).await;
    reply.is_problem(503, "queue is full");
    assert_eq!(reply.header("retry-after"), "1");
    server.send("POST", "/write", r#"{"user_id":"stuck","value":"v"}"#).await.is_problem(504, "unknown");
    server.stop().await;
}

#[tokio::test]
async fn bodies_are_bounded() {
    let server = start(quick()).await;
    let huge = "POST /write HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n";
    server.raw(huge).await.is_problem(413, "1024");
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let head = "POST /write HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    server.raw(format!("{head}{chunk}{chunk}")).await.is_problem(413, "1024");
    // Announced, never sent.
    let slow = server.raw("POST /write HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{").await;
    slow.is_problem(408, "did not arrive");
    // Cut off by a half-closed client.
    let mut stream = server.connect().await;
    stream.write_all(b"POST /write HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{").await.unwrap();
    stream.shutdown().await.unwrap();
    Reply::parse(&read_all(&mut stream).await).is_problem(400, "cannot be read");
    let smuggled = "POST /write HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello";
    assert_eq!(server.raw(smuggled).await.status, 400);
    server.stop().await;
}

#[tokio::test]
async fn hostile_bytes_close_their_connection_only() {
    let server = start(quick()).await;
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage garbage\r\n\r\n";
    for bytes in [
        &tls[..],
        b"\0\0\0\0\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"GET /ping HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
    ] {
        assert_eq!(server.raw(bytes).await.status, 400, "{bytes:?}");
    }
    let many = (0..200).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    assert_eq!(server.raw(format!("GET /ping HTTP/1.1\r\n{many}\r\n")).await.status, 431);
    let long = format!("GET /ping HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    assert_eq!(server.raw(long).await.status, 431);
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(100_000));
    assert!(matches!(server.raw(target).await.status, 414 | 431));
    // Heads that never end: closed after the time for a request, without an answer.
    let start = Instant::now();
    assert_eq!(server.raw("GET /ping HTTP/1.1\r\nhost").await.status, 0);
    assert_eq!(server.raw("").await.status, 0);
    assert!(start.elapsed() >= Duration::from_millis(500) && start.elapsed() < PATIENCE);
    assert_eq!(server.get("/ping").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn head_keep_alive_pipelining_and_half_close() {
    let server = start(HttpConfig::default()).await;
    let head = server.raw("HEAD /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (200, "4", ""));

    let mut stream = server.connect().await;
    let ping = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n";
    for _ in 0..3 {
        stream.write_all(ping).await.unwrap();
        let mut reply = vec![0; 1024];
        let length = stream.read(&mut reply).await.unwrap();
        assert!(reply[..length].starts_with(b"HTTP/1.1 200") && reply[..length].ends_with(b"pong"));
    }
    // Three at once, byte by byte, the sending side closed behind them: three answers.
    for byte in ping.repeat(3) {
        stream.write_all(&[byte]).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let replies = String::from_utf8(read_all(&mut stream).await).unwrap();
    assert_eq!(replies.matches("pong").count(), 3, "{replies}");

    let mut stream = server.connect().await;
    let write =
        "POST /write HTTP/1.1\r\nhost: x\r\ncontent-length: 30\r\n\r\n{\"user_id\":\"slow\",\"value\":\"v\"}";
    stream.write_all(write.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(Reply::parse(&read_all(&mut stream).await).body, "accepted");
    let old = server.raw("GET /ping HTTP/1.0\r\n\r\n").await;
    assert_eq!((old.status, old.body.as_str()), (200, "pong"));
    server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let server = start(HttpConfig { max_connections: 1, ..HttpConfig::default() }).await;
    let mut first = server.connect().await;
    first.write_all(b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(first.read(&mut [0; 1024]).await.unwrap() > 0);
    let mut second = server.connect().await;
    second.write_all(b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), second.readable()).await;
    assert!(early.is_err(), "answered although the limit is reached");
    drop(first);
    assert_eq!(Reply::parse(&read_all(&mut second).await).status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_drain_finishes_what_has_begun_and_closes_the_rest() {
    let server = start(HttpConfig::default()).await;
    let mut idle = server.connect().await;
    let mut busy = server.connect().await;
    let write =
        "POST /write HTTP/1.1\r\nhost: x\r\ncontent-length: 30\r\n\r\n{\"user_id\":\"slow\",\"value\":\"v\"}";
    busy.write_all(write.as_bytes()).await.unwrap();
    while server.state.metrics.http.connections.get() < 2 {
        tokio::task::yield_now().await;
    }
    while server.written.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let (address, begun) = (server.address, Instant::now());
    server.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "idle connections must not hold up the drain");
    assert_eq!(Reply::parse(&read_all(&mut busy).await).body, "accepted");
    assert!(read_all(&mut idle).await.is_empty());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let server = start(quick()).await;
    let mut stuck = server.connect().await;
    stuck.write_all(b"POST /write HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n").await.unwrap();
    while server.state.metrics.http.connections.get() < 1 {
        tokio::task::yield_now().await;
    }
    server.stop().await;
}
