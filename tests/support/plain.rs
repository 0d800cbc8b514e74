//! One plain Redis server beside the cluster.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use dsproxy::embedded::free_ports;
use dsproxy::embedded::process::{DeathSignal, Launch, Supervised};

/// A plain Redis server; it ends with the value.
pub struct PlainRedis {
    process: Supervised,
    port: u16,
    dir: tempfile::TempDir,
}

impl PlainRedis {
    /// Starts it with these arguments, without persistence.
    #[track_caller]
    pub fn start(more: &[&str]) -> Self {
        Self::start_at(free_ports(1).unwrap()[0], more)
    }

    /// The same on this port, on which one of the arguments may have it listen in another way.
    #[track_caller]
    pub fn start_at(port: u16, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port_text = port.to_string();
        let args = ["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let launch = Launch {
            name: "redis".to_owned(),
            program: PathBuf::from("redis-server"),
            args: args.iter().chain(more).map(|arg| (*arg).to_owned()).collect(),
            cwd: dir.path().to_owned(),
            log: dir.path().join("log"),
            user: None,
            death_signal: DeathSignal::Kill,
        };
        let process = Supervised::spawn(&launch).unwrap();
        super::eventually(Duration::from_secs(20), "the plain server listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { process, port, dir }
    }

    /// Its address.
    pub fn addr(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.port)
    }

    /// Its directory.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

impl Drop for PlainRedis {
    fn drop(&mut self) {
        self.process.signal(rustix::process::Signal::KILL);
    }
}
