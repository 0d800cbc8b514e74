//! A running `dsproxy serve`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dsproxy::embedded::free_ports;
use dsproxy::embedded::process::{DeathSignal, Launch, Supervised};
use rustix::process::Signal;

use super::{Resp, eventually};

/// Deadline for being ready, and for a drain.
const PATIENCE: Duration = Duration::from_secs(20);

/// The proxy as a child process of this test's thread; it ends with the value, and with the thread or the process.
pub struct Proxy {
    child: Option<Supervised>,
    dir: tempfile::TempDir,
    port: u16,
    http_port: u16,
}

impl Proxy {
    /// Starts it with this `proxy.toml` on free ports and waits until it is ready.
    ///
    /// `$PORT` and `$HTTP_PORT` in the text become the ports. Where `[server]` or `[http]` does not occur in it, the
    /// section with the `listen` line is added.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        let mut proxy = Self::spawn(config);
        proxy.wait_ready();
        proxy
    }

    /// The shortest useful configuration: these nodes, and this database if given.
    #[track_caller]
    pub fn for_nodes(nodes: &[String], database_url: Option<&str>, more: &str) -> Self {
        let database = database_url.map(|url| format!("[database]\nurl = {url:?}\n")).unwrap_or_default();
        Self::start(&format!("[upstream]\nnodes = {nodes:?}\n{database}{more}"))
    }

    /// Starts it without waiting, for tests of what goes wrong at start.
    #[track_caller]
    pub fn spawn(config: &str) -> Self {
        Self::spawn_with(config, &[])
    }

    /// The same with these variables in its environment.
    #[track_caller]
    pub fn spawn_with(config: &str, env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports = free_ports(2).unwrap();
        let (port, http_port) = (ports[0], ports[1]);
        let mut text = format!("{config}\n");
        // After the given text, which may begin with keys outside of all sections.
        for (section, port) in [("[server]", "$PORT"), ("[http]", "$HTTP_PORT")] {
            if !config.lines().any(|line| line.trim() == section) {
                text.push_str(&format!("\n{section}\nlisten = \"127.0.0.1:{port}\"\n"));
            }
        }
        // A file of the journal is reserved when it is begun, and many proxies run at once.
        if config.contains("[[mapping]]") && !config.contains("[journal]") {
            text.push_str("\n[journal]\nsegment_size = \"1mb\"\n");
        }
        let text = text.replace("$PORT", &port.to_string()).replace("$HTTP_PORT", &http_port.to_string());
        let file = dir.path().join("proxy.toml");
        std::fs::write(&file, text).unwrap();
        let launch = Launch {
            name: "dsproxy".to_owned(),
            program: PathBuf::from("/usr/bin/env"),
            args: env
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .chain([env!("CARGO_BIN_EXE_dsproxy"), "serve", "--config"].map(str::to_owned))
                .chain([file.display().to_string()])
                .collect(),
            cwd: dir.path().to_owned(),
            log: dir.path().join("log"),
            user: None,
            death_signal: DeathSignal::Kill,
        };
        let child = Some(Supervised::spawn(&launch).unwrap());
        Self { child, dir, port, http_port }
    }

    /// Waits until `/health/ready` says so.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        while Http::try_get(self.http_port, "/health/ready").is_none_or(|answer| answer.status != 200) {
            if let Err(error) = self.child.as_mut().unwrap().still_runs() {
                panic!("{error}");
            }
            assert!(Instant::now() < end, "not ready within {PATIENCE:?}; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The RESP address.
    pub fn addr(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.port)
    }

    /// The port of the HTTP side.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// The directory with its configuration and log.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A new RESP connection.
    #[track_caller]
    pub fn connect(&self) -> Resp {
        Resp::connect(self.addr())
    }

    /// `GET path`; panics without an answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Http {
        Http::try_get(self.http_port, path).unwrap()
    }

    /// `POST path` with a JSON body; panics without an answer.
    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> Http {
        Http::try_request(self.http_port, "POST", path, body).unwrap()
    }

    /// One request with further header lines, each ending in CRLF; panics without an answer.
    #[track_caller]
    pub fn http(&self, method: &str, path: &str, headers: &str, body: &str) -> Http {
        Http::try_request_with(self.http_port, method, path, headers, body).unwrap()
    }

    /// The value of the metric with exactly this name and labels, 0 when it is absent.
    #[track_caller]
    pub fn metric(&self, name_and_labels: &str) -> f64 {
        let page = self.get("/metrics").body;
        let values = page.lines().filter_map(|line| line.rsplit_once(' '));
        let found = values
            .filter(|(name, _)| *name == name_and_labels)
            .map(|(_, value)| value.parse::<f64>().unwrap());
        found.sum()
    }

    /// Everything it wrote to standard output and error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its process id.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().pid()
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        self.child.as_ref().unwrap().signal(signal);
    }

    /// Waits for its end; panics when it does not come.
    #[track_caller]
    pub fn wait_exit(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        let child = self.child.as_mut().unwrap();
        eventually(PATIENCE, "the proxy ends", || {
            status = child.exited();
            status.is_some()
        });
        status.unwrap()
    }

    /// SIGTERM, and waits until it has drained.
    #[track_caller]
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(Signal::TERM);
        self.wait_exit()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.signal(Signal::TERM);
            child.signal(Signal::CONT);
            child.finish(Instant::now() + Duration::from_secs(5));
        }
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr().lock(), "--- the proxy's log:\n{}---", self.log());
        }
    }
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// The status code.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Http {
    /// `GET path` of 127.0.0.1:port; `None` when nobody answers.
    pub fn try_get(port: u16, path: &str) -> Option<Self> {
        Self::try_request(port, "GET", path, "")
    }

    /// One request over a connection of its own; `None` when nobody answers.
    pub fn try_request(port: u16, method: &str, path: &str, body: &str) -> Option<Self> {
        Self::try_request_with(port, method, path, "", body)
    }

    /// The same with further header lines, each ending in CRLF.
    pub fn try_request_with(port: u16, method: &str, path: &str, headers: &str, body: &str) -> Option<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            unchunk(body)
        } else {
            body.to_owned()
        };
        Some(Self { status, head: head.to_owned(), body })
    }
}

impl Http {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header, by its name in lower case; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        let pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        pairs
            .filter(|(there, _)| there.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
            .unwrap_or("")
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|chunk| !chunk.is_empty()) else { break };
        whole.push_str(chunk);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}
