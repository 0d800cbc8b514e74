//! The same bytes to the scanner and to a real Redis.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dsproxy::resp::{
    Args, ProtocolError, RequestLimits, RequestScanner, Scan, push_array_header, push_bulk, push_command,
};
use dsproxy::slot::slot;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::request;

const PATIENCE: Duration = Duration::from_secs(10);
/// Redis is taken to wait for more when nothing came for this long.
const SILENCE: Duration = Duration::from_millis(100);

/// A server of its own for one test, in cluster mode for `CLUSTER KEYSLOT`; killed when dropped.
struct Server {
    process: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(server) = Self::try_start(deadline) {
                return server;
            }
            assert!(Instant::now() < deadline, "redis-server did not become ready");
        }
    }

    /// `None` if the server ended, as it does when somebody else took a port in between.
    fn try_start(deadline: Instant) -> Option<Self> {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (client, bus) = (free(), free());
        let port = client.local_addr().unwrap().port();
        let bus_port = bus.local_addr().unwrap().port();
        drop((client, bus));
        let directory = tempfile::tempdir().unwrap();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--cluster-port", &bus_port.to_string()])
            .args(["--bind", "127.0.0.1", "--save", "", "--cluster-enabled", "yes", "--dir"])
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server must be installed");
        let mut server = Self { process, port, _directory: directory };
        while Instant::now() < deadline {
            if server.process.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What Redis says to `bytes` until it closes, or until it falls silent; and whether it closed.
    fn answer(&self, bytes: &[u8], wait: Duration) -> (Vec<u8>, bool) {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        stream.set_read_timeout(Some(wait)).unwrap();
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => (answer, true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                (answer, false)
            }
            Err(error) => panic!("{error} after {}", answer.escape_ascii()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the proxy makes of requests that are all `PING`: the answer, and whether it closes.
fn ours(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let limits = RequestLimits::default();
    let (mut answer, mut scanner) = (Vec::new(), RequestScanner::default());
    let refused = |mut answer: Vec<u8>, error: ProtocolError| {
        answer.extend_from_slice(format!("-ERR {error}\r\n").as_bytes());
        (answer, true)
    };
    loop {
        let end = match scanner.scan(bytes, &limits) {
            Ok(Scan::Complete(end)) => end,
            Ok(Scan::Incomplete(_)) => return (answer, false),
            Err(error) => return refused(answer, error),
        };
        match request(&bytes[..end], &limits) {
            Ok(args) if args.as_ref().is_some_and(Vec::is_empty) => {}
            Ok(args) => {
                assert_eq!(args, Some(vec![b"PING".to_vec()]));
                answer.extend_from_slice(b"+PONG\r\n");
            }
            Err(error) => return refused(answer, error),
        }
        scanner.reset();
        bytes = &bytes[end..];
    }
}

fn text((answer, closed): &(Vec<u8>, bool)) -> String {
    format!("{}{}", answer.escape_ascii(), if *closed { " and closed" } else { "" })
}

#[test]
fn redis_answers_malformed_requests_in_the_same_words() {
    let server = Server::start();
    let bulk = |header: &str| format!("*1\r\n{header}\r\nPING\r\n").into_bytes();
    let count = |header: &str| format!("{header}\r\n$4\r\nPING\r\n").into_bytes();
    let mut cases: Vec<Vec<u8>> = Vec::new();
    cases
        .extend(["$4", "$-1", "$+4", "$04", "$4x", "$ 4", "$4 ", "$", "$-0", "$-", "$0x4", "$4.0"].map(bulk));
    cases.extend(["$536870913", "$9223372036854775807", "$9223372036854775808"].map(bulk));
    cases.extend(["$99999999999999999999999", "$-9223372036854775808"].map(bulk));
    cases.extend([":4", "+PING", "x", "*1", "'", "\"", "\\", "  "].map(bulk));
    cases.extend(["*1", "*+1", "*01", "*1x", "* 1", "*1 ", "*", "*-0", "*-", "**1", "*?"].map(count));
    cases.extend(["*2147483648", "*9223372036854775808", "*-9223372036854775809", "*1.0"].map(count));
    // No request at all; what follows is read.
    cases.extend(["*0\r\n*1", "*-1\r\n*1", "*-9223372036854775808\r\n*1", "\r\n\n \t\r\n*1"].map(count));
    // Headers end with CR LF.
    cases.extend(
        [&b"*1\n$4\r\nPING\r\n"[..], b"*1\r\n$4\nPING\r\n", b"*\n\r\n", b"*1\r\n$\n\r\n"].map(<[u8]>::to_vec),
    );
    // Not finished.
    cases.extend(
        [
            "*",
            "*1",
            "*1\r",
            "*1\r\n",
            "*1\r\n$",
            "*1\r\n$4\r\n",
            "*1\r\n$4\r\nPING\r",
            "PING",
            "*1048576\r\n",
        ]
        .map(|s| s.as_bytes().to_vec()),
    );
    // Inline.
    cases.extend(
        ["PING\r\n", "PING\n", "\"PING\"\n", "'PING'\r\n", "  PING \t\r\n", "\"PI\\x4eG\"\n", "PI\"NG\"\n"]
            .map(|s| s.as_bytes().to_vec()),
    );
    cases.extend(
        ["\"PING\n", "'PING\n", "\"PING\"x\n", "'PING'x\n", "'PING\\'\n", "\"PING\\\"\n", "\"\n"]
            .map(|s| s.as_bytes().to_vec()),
    );
    cases.push(vec![b'a'; 64 << 10]);
    cases.push(vec![b'a'; (64 << 10) + 1]);
    cases.push([&b"*"[..], &vec![b'1'; (64 << 10) + 1]].concat());
    cases.push([&b"*1\r\n$"[..], &vec![b'1'; (64 << 10) + 1]].concat());
    for case in &cases {
        let expected = ours(case);
        let got = server.answer(case, if expected.1 { PATIENCE } else { SILENCE });
        let shown = case[..case.len().min(60)].escape_ascii();
        assert_eq!(text(&got), text(&expected), "Redis against us for {shown}");
    }
}

/// Where we differ on purpose: the bytes, what Redis says, what we say, and why.
#[test]
fn differences_from_redis_are_known() {
    let server = Server::start();
    let cases: [(&[u8], &str, &str, &str); 9] = [
        (
            b"*1\r\n$4\r\r\nPING\r\n",
            "-ERR unknown command",
            "invalid bulk length",
            "Redis skips one byte after CR",
        ),
        (b"*1\r\n$4\r\nPINGxx", "+PONG", "invalid bulk length", "a second parser must find the same frames"),
        (b"*1\rx$4\r\nPING\r\n", "+PONG", "invalid multibulk length", "likewise, for the byte after CR"),
        (b"*1\r\n$4\rxPING\r\n", "+PONG", "invalid bulk length", "likewise"),
        (
            b"*1\r\n\r\n",
            "-ERR Protocol error: expected '$', got ' '",
            "got '\\r'",
            "a log must show which byte",
        ),
        (b"PING \0\r\n", "", "NUL byte", "Redis never finds the end of the line"),
        (
            b"GET / HTTP/1.1\r\n",
            "-ERR wrong number",
            "HTTP port",
            "say what is wrong, and do not go on with the headers",
        ),
        (b"Host: localhost\r\n", "", "HTTP port", "Redis closes without a word"),
        (b"*1048577\r\n", "", "invalid multibulk length", "2^20 arguments, the limit of Redis before 7.0"),
    ];
    for (bytes, redis, us, why) in cases {
        let (answer, _) = server.answer(bytes, SILENCE);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with(redis) && answer.is_empty() == redis.is_empty(),
            "Redis said {answer:?} ({why})"
        );
        let (answer, closed) = ours(bytes);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains(us) && closed != us.is_empty(), "we said {answer:?} ({why})");
    }
}

/// Quotes, escapes and blanks: a script returns the words that Redis made of the line.
#[test]
fn inline_words_are_those_of_redis() {
    let server = Server::start();
    let byte = prop_oneof![
        8 => prop::sample::select(&b"\"'\\ x4aFng01b\t\r\x0b\x0c"[..]),
        1 => any::<u8>().prop_filter("a line", |byte| !matches!(byte, 0 | b'\n')),
    ];
    let stream = RefCell::new(server.connect());
    let config = ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&vec(byte, 0..24), |line| {
        let line = [&b"EVAL \"return ARGV\" 0 "[..], &line, b"\r\n"].concat();
        stream.borrow_mut().write_all(&line).unwrap();
        let mut expected = Vec::new();
        match request(&line, &RequestLimits::default()) {
            Ok(words) => {
                let words = words.unwrap_or_default();
                push_array_header(&mut expected, words.len() - 3);
                words[3..].iter().for_each(|word| push_bulk(&mut expected, word));
            }
            Err(error) => expected = format!("-ERR {error}\r\n").into_bytes(),
        }
        let mut got = vec![0; expected.len()];
        let read = stream.borrow_mut().read_exact(&mut got);
        if read.is_err() || got[0] == b'-' {
            stream.replace(server.connect());
        }
        if got == expected {
            return Ok(());
        }
        Err(TestCaseError::fail(format!("{}: {}", line.escape_ascii(), got.escape_ascii())))
    });
    result.unwrap();
}

/// Any bytes, braces often: the slot is the one Redis computes.
#[test]
fn slots_are_those_of_redis() {
    let server = Server::start();
    let stream = server.connect();
    let byte = prop_oneof![2 => prop::sample::select(&b"{}a\r\n\0"[..]), 1 => any::<u8>()];
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&vec(vec(byte, 0..24), 1..20), |keys| {
        let (mut requests, mut expected) = (Vec::new(), Vec::new());
        for key in &keys {
            push_command(&mut requests, [&b"CLUSTER"[..], b"KEYSLOT", key]);
            expected.extend_from_slice(format!(":{}\r\n", slot(key)).as_bytes());
        }
        (&stream).write_all(&requests).unwrap();
        let mut got = vec![0; expected.len()];
        (&stream).read_exact(&mut got).unwrap();
        prop_assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&expected));
        Ok(())
    });
    result.unwrap();
}

/// What the scanner accepts, Redis reads as the same arguments: a script gives them back.
#[test]
fn arguments_are_those_of_redis() {
    let server = Server::start();
    let stream = server.connect();
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&b"\r\n$*0\0"[..])];
    let config = ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&vec(vec(byte, 0..40), 0..8), |args| {
        let all = [&b"EVAL"[..], b"return ARGV", b"0"].into_iter().chain(args.iter().map(Vec::as_slice));
        let mut frame = Vec::new();
        push_command(&mut frame, all.collect::<Vec<_>>());
        let mut scanner = RequestScanner::default();
        prop_assert_eq!(scanner.scan(&frame, &RequestLimits::default()), Ok(Scan::Complete(frame.len())));
        let mut expected = Vec::new();
        push_array_header(&mut expected, args.len());
        Args::new(&frame, scanner.spans()).iter().skip(3).for_each(|arg| push_bulk(&mut expected, arg));
        (&stream).write_all(&frame).unwrap();
        let mut got = vec![0; expected.len()];
        (&stream).read_exact(&mut got).unwrap();
        prop_assert_eq!(got, expected);
        Ok(())
    });
    result.unwrap();
}
