//! A proxy that is killed and started again, over the same data directory and on the same ports.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dsproxy::embedded::free_ports;

use crate::support::Http;

const MAPPINGS: &str = r#"
[[mapping]]
name = "kv"
key = "PREFIXkv:{id}"
table = "kv"
id = "bigint"
write = "behind"
ttl = "60s"
[[mapping]]
name = "counter"
key = "PREFIXcounter:{id}"
table = "counter"
id = "bigint"
format = "text"
column = "n"
write = "behind"
ttl = "60s"
[[mapping]]
name = "log"
key = "PREFIXlog:{id}"
table = "log"
id = "bigint"
format = "text"
column = "value"
order_by = "ts"
write = "behind"
mode = "append"
"#;

/// What a proxy is started with.
pub struct Setup {
    nodes: Vec<String>,
    url: String,
    prefix: String,
    interval: String,
    env: Vec<(String, String)>,
    data: Option<PathBuf>,
    settings: String,
    more: String,
}

impl Setup {
    pub fn new(nodes: &[String], url: &str) -> Self {
        // Its death takes what it has not synced: as a power cut does.
        let env = vec![("DSPROXY_POWER_CUT".to_owned(), "1".to_owned())];
        let (prefix, interval) = (String::new(), "20ms".to_owned());
        Self {
            nodes: nodes.to_vec(),
            url: url.to_owned(),
            prefix,
            interval,
            env,
            data: None,
            settings: String::new(),
            more: String::new(),
        }
    }

    /// Of the keys.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.to_owned();
        self
    }

    /// Further mappings.
    pub fn more(mut self, more: &str) -> Self {
        self.more = more.to_owned();
        self
    }

    /// Rows wait for so long.
    pub fn interval(mut self, interval: &str) -> Self {
        self.interval = interval.to_owned();
        self
    }

    /// Of the process.
    pub fn env(mut self, env: &[(&str, &str)]) -> Self {
        self.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// What is said by the power cut's variable is not so: what was written stays, as after any death of a process.
    pub fn without_power_cuts(mut self) -> Self {
        self.env.retain(|(name, _)| name != "DSPROXY_POWER_CUT");
        self
    }

    /// More lines of `[write_behind]`.
    pub fn queue(mut self, settings: &str) -> Self {
        self.settings = settings.to_owned();
        self
    }

    /// Its journal is in this directory, instead of one of its own.
    pub fn data(mut self, data: &Path) -> Self {
        self.data = Some(data.to_owned());
        self
    }
}

pub struct Victim {
    dir: tempfile::TempDir,
    data: PathBuf,
    ports: [u16; 2],
    env: Vec<(String, String)>,
    child: Option<Child>,
}

impl Victim {
    pub fn new(setup: Setup) -> Self {
        let Setup { nodes, url, prefix, interval, env, data, settings, more } = setup;
        let dir = tempfile::tempdir().unwrap();
        let data = data.unwrap_or_else(|| dir.path().join("data"));
        let ports = free_ports(2).unwrap();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:{}\"\nworkers = 2\n[http]\nlisten = \"127.0.0.1:{}\"\n\
             [upstream]\nnodes = {nodes:?}\nrefresh_interval = \"200ms\"\ncommand_timeout = \"2s\"\n\
             [database]\nurl = {url:?}\n[write_behind]\nbatch_interval = \"{interval}\"\nretry_max = \"200ms\"\n{settings}\n\
             [journal]\ndata_dir = {data:?}\nsegment_size = \"64kb\"\nrecent_bytes = \"512kb\"\n{}",
            ports[0],
            ports[1],
            format!("{MAPPINGS}{more}").replace("PREFIX", &prefix),
        );
        std::fs::write(dir.path().join("proxy.toml"), config).unwrap();
        Self { dir, data, ports: [ports[0], ports[1]], env, child: None }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// `GET path` of its HTTP side.
    pub fn http(&self, path: &str) -> Http {
        Http::try_get(self.ports[1], path).unwrap()
    }

    /// Waits for its end; what it wrote to standard error.
    pub fn wait_end(&mut self) -> String {
        let mut child = self.child.take().unwrap();
        crate::support::eventually(Duration::from_secs(20), "it ends", || {
            child.try_wait().unwrap().is_some()
        });
        assert!(!child.wait().unwrap().success());
        self.log_tail()
    }

    pub fn port(&self) -> u16 {
        self.ports[0]
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The answer to this request to its HTTP side.
    pub fn request(&self, method: &str, path: &str) -> Http {
        Http::try_request(self.ports[1], method, path, "").unwrap()
    }

    /// Runs another verb, which dies at this fail point if it comes by.
    pub fn verb_to_die(&self, args: &[&str], failpoint: &str) {
        self.command().args(args).env("DSPROXY_FAILPOINT", failpoint).output().unwrap();
    }

    /// Runs another verb of the program with the same configuration; what it prints, and whether it succeeds.
    pub fn verb(&self, args: &[&str]) -> (bool, String) {
        let output = self.command().args(args).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Writes what is in the journal in `dir` to the database, as `dsproxy journal adopt`; whether that succeeds.
    pub fn adopt(&self, dir: &str, failpoint: Option<&str>) -> bool {
        let mut command = self.command();
        if let Some(failpoint) = failpoint {
            command.env("DSPROXY_FAILPOINT", failpoint);
        }
        command.args(["journal", "adopt", dir]).output().unwrap().status.success()
    }

    fn command(&self) -> Command {
        // Past the limit of a file's size a write is to fail, not the process to end.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_dsproxy")]);
        command.env("DSPROXY_CONFIG", self.dir.path().join("proxy.toml"));
        command.env_remove("DSPROXY_FAILPOINT").envs(self.env.iter().cloned());
        command
    }

    /// Starts it; at this fail point it will die.
    pub fn spawn(&mut self, failpoint: Option<&str>) {
        let log = self.dir.path().join("log");
        let log: File = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = self.command();
        command.arg("serve").stdout(Stdio::null()).stderr(log);
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

    /// SIGTERM: whether it has ended in good order within this time.
    pub fn leave(&mut self, most: Duration) -> bool {
        let Some(child) = &mut self.child else { return false };
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let end = Instant::now() + most;
        loop {
            match child.try_wait().unwrap() {
                Some(status) => return status.success(),
                None if Instant::now() > end => return false,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Waits for it to be killed by its own hand; whether that came.
    pub fn wait_death(&mut self, most: Duration) -> bool {
        let end = Instant::now() + most;
        loop {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                return status.signal() == Some(9);
            }
            if Instant::now() > end {
                return false;
            }
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
