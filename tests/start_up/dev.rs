//! `dsproxy dev`, from nothing to a second start.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dsproxy::embedded::free_ports;
use dsproxy::embedded::process::runs;
use rustix::process::{Pid, Signal, kill_process};

use crate::run::{assert_says, program, run};
use crate::support::{Resp, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running `dsproxy dev`; killed with the value, and its servers with it.
struct Dev {
    child: Child,
    env: HashMap<String, String>,
    /// What to paste, as it was printed.
    lines: Vec<String>,
}

impl Dev {
    /// Starts it and waits until it has printed what to paste.
    fn start(dir: &Path, ports: &[u16]) -> Self {
        Self::start_with(dir, ports, &[])
    }

    fn start_with(dir: &Path, ports: &[u16], args: &[&str]) -> Self {
        let mut child = program(dir)
            .arg("dev")
            .args(args)
            .env("DSPROXY_SERVER_LISTEN", format!("127.0.0.1:{}", ports[0]))
            .env("DSPROXY_HTTP_LISTEN", format!("127.0.0.1:{}", ports[1]))
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let log = || std::fs::read_to_string(dir.join("log")).unwrap();
        let mut lines = Vec::new();
        for line in out.lines().map_while(Result::ok) {
            lines.push(line);
            if lines.last().is_some_and(|line| line.contains("/metrics")) {
                break;
            }
        }
        assert!(lines.len() > 5, "{lines:?}\n{}", log());
        let env = std::fs::read_to_string(dir.join(".dsproxy/env")).unwrap();
        let unquoted = |text: &str| text.trim_matches(['\'', '"']).to_owned();
        let pair = |line: &str| {
            let (name, value) = line.trim_start_matches("export ").split_once('=')?;
            Some((name.to_owned(), unquoted(value)))
        };
        let env = env.lines().filter_map(pair).collect();
        let paste = |line: &String| line.trim().starts_with("redis-cli") || line.trim().starts_with("curl");
        Self { child, env, lines: lines.iter().filter(|line| paste(line)).cloned().collect() }
    }

    fn resp(&self) -> Resp {
        Resp::connect(&*self.env["PROXY_ADDR"])
    }

    /// Every process that it has started, and theirs.
    fn descendants(&self) -> Vec<u32> {
        let mut found = vec![self.child.id()];
        let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| {
                let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                Some((pid, stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?))
            })
            .collect();
        let mut at = 0;
        while let Some(parent) = found.get(at).copied() {
            found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            at += 1;
        }
        found.remove(0);
        found
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn place() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("dsproxy-dev-").tempdir().unwrap();
    // Postgres runs as another user when we are root, and has to reach its directory.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(top.join("proxy.toml"), dir.path().join("proxy.toml")).unwrap();
    for part in ["migrations", "migrations/sqlite"] {
        std::fs::create_dir(dir.path().join(part)).unwrap();
        for file in std::fs::read_dir(top.join(part)).unwrap() {
            let file = file.unwrap();
            if file.path().is_file() {
                std::fs::copy(file.path(), dir.path().join(part).join(file.file_name())).unwrap();
            }
        }
    }
    dir
}

#[track_caller]
fn assert_gone(pids: &[u32]) {
    for pid in pids {
        eventually(PATIENCE, &format!("process {pid} is gone"), || !runs(*pid));
    }
}

#[test]
fn dev_starts_survives_a_kill_and_keeps_its_data() {
    let dir = place();
    let ports = free_ports(2).unwrap();
    let dev = Dev::start(dir.path(), &ports);
    let mode = std::fs::metadata(dir.path().join(".dsproxy/env")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds a password");
    assert_eq!(dev.env["PROXY_ADDR"], format!("127.0.0.1:{}", ports[0]));
    assert_eq!(dev.env["HTTP_ADDR"], format!("127.0.0.1:{}", ports[1]));
    assert_eq!(dev.env["PROXY_PID"], dev.child.id().to_string());
    assert_eq!(dev.env["REDIS_NODES"].split(',').count(), 3);
    assert!(dev.env["DATABASE_URL"].starts_with("postgres://"));

    assert_eq!(dev.lines.len(), 5, "{:?}", dev.lines);
    let wanted = ["OK", r#""id":1"#, "OK", "accepted", "cache_hits_total"];
    for (line, wanted) in dev.lines.iter().zip(wanted) {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains(wanted), "{line}: {output:?}");
    }

    // A second one in the same place says what is the matter.
    let second = run(dir.path(), &["dev"]);
    assert!(!second.success);
    assert_says(&second.err, &[&dev.child.id().to_string()]);

    let mut client = dev.resp();
    assert_eq!(client.cmd(&["SET", "kept", "yes"]).text(), "OK");
    // The one that was pasted is in the database once it is not waiting any more.
    eventually(PATIENCE, "the row is written", || {
        let port = ports[1];
        let page = crate::support::Http::try_get(port, "/metrics").unwrap().body;
        page.contains("dsproxy_write_behind_queue_rows{mapping=\"user\"} 0")
    });
    let servers = dev.descendants();
    assert!(servers.len() >= 4, "{servers:?}");
    dev.signal(Signal::KILL);
    assert_gone(&servers);
    drop(dev);

    let started = Instant::now();
    let mut dev = Dev::start(dir.path(), &ports);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "the second start took {took:?}");
    let mut client = dev.resp();
    assert_eq!(client.cmd(&["GET", "kept"]).text(), "yes");
    let row = client.cmd(&["GET", "user:1"]).text();
    assert!(row.contains("Ada"), "{row}");
    assert_eq!(client.cmd(&["SET", "user:2", r#"{"name":"Bob"}"#]).text(), "OK");
    let servers = dev.descendants();
    dev.signal(Signal::TERM);
    let status = dev.child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", std::fs::read_to_string(dir.path().join("log")).unwrap());
    assert_gone(&servers);
    assert!(!dir.path().join(".dsproxy/env").exists());
    drop(dev);

    // What was queued at SIGTERM is in the database: without the cache it is still there.
    let mut dev = Dev::start(dir.path(), &ports);
    let mut client = dev.resp();
    for node in dev.env["REDIS_NODES"].split(',') {
        let _: Value = Resp::connect(node).cmd(&["FLUSHALL"]);
    }
    let row = client.cmd(&["GET", "user:2"]).text();
    assert!(row.contains("Bob") && row.contains("email"), "{row}");
    dev.signal(Signal::INT);
    assert_eq!(dev.child.wait().unwrap().code(), Some(0));
    // All it has made is in there: the journal of a database that is removed must not outlive it.
    assert!(dir.path().join(".dsproxy/journal").exists() && !dir.path().join("dsproxy-data").exists());
}

#[test]
fn dev_runs_on_a_sqlite_file_without_any_postgres() {
    let (dir, ports) = (place(), free_ports(2).unwrap());
    let mut dev = Dev::start_with(dir.path(), &ports, &["--source", "sqlite"]);
    assert!(dev.env["DATABASE_URL"].starts_with("sqlite:"), "{:?}", dev.env);
    let named = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    assert!(dev.descendants().iter().map(named).all(|name| name.starts_with("redis")), "only Redis runs");
    let mut client = dev.resp();
    let row = client.cmd(&["GET", "user:1"]).text();
    assert!(row.contains("\"id\":1,\"name\":\"Edsger\""), "{row}");
    assert_eq!(client.cmd(&["SET", "user:2", r#"{"name":"Bob"}"#]).text(), "OK");
    dev.signal(Signal::TERM);
    assert_eq!(dev.child.wait().unwrap().code(), Some(0));
    // What was queued at SIGTERM is in the file.
    let url = dev.env["DATABASE_URL"].clone();
    let file = rusqlite::Connection::open(url.strip_prefix("sqlite:").unwrap()).unwrap();
    let name: String = file.query_row("select name from users where id = 2", [], |row| row.get(0)).unwrap();
    assert_eq!(name, "Bob");
}

#[test]
fn dev_names_a_taken_port_and_leaves_nothing() {
    let dir = place();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = program(dir.path())
        .arg("dev")
        .env("DSPROXY_SERVER_LISTEN", &addr)
        .env("DSPROXY_HTTP_LISTEN", "127.0.0.1:0")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_says(&said, &[&addr, "taken by another program", "[server] listen"]);
    assert!(!said.contains("panicked"));
    assert!(!dir.path().join(".dsproxy/env").exists());
}

#[test]
fn help_names_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(dir.path(), &["--help"]);
    assert!(ran.success);
    assert_says(&ran.out, &["serve", "dev", "check", "migrate", "--config"]);
    assert!(!ran.out.contains("keep-stack"), "{}", ran.out);
    let ran = run(dir.path(), &["dev", "--help"]);
    assert!(ran.success);
    assert_says(&ran.out, &["--config", "--migrations", ".dsproxy"]);
    assert!(!dir.path().join(".dsproxy").exists(), "help starts nothing");
    assert_says(
        &run(dir.path(), &["migrate", "--help"]).out,
        &["up", "down", "goto", "force", "status", "create"],
    );
    assert_says(&run(dir.path(), &["--version"]).out, &[env!("CARGO_PKG_VERSION")]);
}
