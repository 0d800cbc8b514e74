//! A proxy that is killed and started again, over the same data directory and on the same ports.

use std::fs::{File, OpenOptions};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dsproxy::embedded::free_ports;

use crate::support::Http;

const MAPPINGS: &str = r#"
[[mapping]]
name = "kv"
key = "kv:{id}"
table = "kv"
id = "bigint"
write = "behind"
ttl = "60s"
[[mapping]]
name = "log"
key = "log:{id}"
table = "log"
id = "bigint"
format = "text"
column = "value"
order_by = "ts"
write = "behind"
mode = "append"
"#;

pub struct Victim {
    dir: tempfile::TempDir,
    ports: [u16; 2],
    child: Option<Child>,
}

impl Victim {
    pub fn new(nodes: &[String], url: &str) -> Self {
        Self::with_interval(nodes, url, "20ms")
    }

    /// Rows wait for so long.
    pub fn with_interval(nodes: &[String], url: &str, interval: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports = free_ports(2).unwrap();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:{}\"\nworkers = 2\n[http]\nlisten = \"127.0.0.1:{}\"\n\
             [upstream]\nnodes = {nodes:?}\nrefresh_interval = \"200ms\"\ncommand_timeout = \"2s\"\n\
             [database]\nurl = {url:?}\n[write_behind]\nbatch_interval = \"{interval}\"\nretry_max = \"200ms\"\n\
             [journal]\ndata_dir = {:?}\nsegment_size = \"256kb\"\n{MAPPINGS}",
            ports[0],
            ports[1],
            dir.path().join("data"),
        );
        std::fs::write(dir.path().join("proxy.toml"), config).unwrap();
        Self { dir, ports: [ports[0], ports[1]], child: None }
    }

    pub fn port(&self) -> u16 {
        self.ports[0]
    }

    /// Its data directory.
    pub fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Runs another verb of the program with the same configuration; what it prints, and whether it succeeds.
    pub fn verb(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsproxy"));
        let output =
            command.args(args).env("DSPROXY_CONFIG", self.dir.path().join("proxy.toml")).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    fn spawn(&mut self, failpoint: Option<&str>) {
        let log = self.dir.path().join("log");
        let log: File = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsproxy"));
        command.args(["serve", "--config"]).arg(self.dir.path().join("proxy.toml"));
        command.stdout(Stdio::null()).stderr(log).env_remove("DSPROXY_FAILPOINT");
        if let Some(failpoint) = failpoint {
            command.env("DSPROXY_FAILPOINT", failpoint);
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts it. Without a fail point it is ready on return; with one it may die at any time.
    pub fn start(&mut self, failpoint: Option<&str>) {
        self.spawn(failpoint);
        if failpoint.is_none() {
            self.wait_ready();
        }
    }

    fn wait_ready(&mut self) {
        let end = Instant::now() + Duration::from_secs(30);
        while Http::try_get(self.ports[1], "/health/ready").is_none_or(|answer| answer.status != 200) {
            // A start can fail while Postgres or a primary is away: again, as a supervisor would.
            if self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                self.spawn(None);
            }
            assert!(Instant::now() < end, "not ready; its log:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// It is there and ready.
    pub fn ensure(&mut self) {
        self.wait_ready();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Waits for its death.
    pub fn wait_death(&mut self, most: Duration) {
        let end = Instant::now() + most;
        while Instant::now() < end
            && self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until everything it has taken is in the database.
    pub fn wait_flushed(&self, most: Duration) {
        let end = Instant::now() + most;
        loop {
            let page = Http::try_get(self.ports[1], "/metrics").map(|answer| answer.body).unwrap_or_default();
            let mut rows = page.lines().filter(|line| line.starts_with("dsproxy_write_behind_queue_rows{"));
            if !page.is_empty() && rows.all(|line| line.ends_with(" 0")) {
                return;
            }
            assert!(Instant::now() < end, "not flushed; its log:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.kill();
    }
}
