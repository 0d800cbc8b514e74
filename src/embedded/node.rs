//! One `redis-server` in cluster mode, with the blocking connection to command it.
//!
//! Must not know: the other nodes.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StackError;
use super::process::{DeathSignal, Launch, POLL, Supervised, find_program};
use crate::resp::{ReplyScanner, Scan, push_command};

/// A single command of ours takes at most this long.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// A node of the cluster: where it lives, and the process while it runs.
#[derive(Debug)]
pub(crate) struct Node {
    pub name: String,
    pub port: u16,
    pub bus_port: u16,
    pub dir: PathBuf,
    pub child: Option<Supervised>,
}

/// How all nodes of a stack run.
#[derive(Clone, Debug)]
pub(crate) struct NodeStyle {
    pub program: PathBuf,
    pub durable: bool,
    pub node_timeout: Duration,
}

impl NodeStyle {
    pub fn find(durable: bool, node_timeout: Duration) -> Result<Self, StackError> {
        let program = find_program("redis-server", &[], "redis-server")?;
        require_version_7(&program)?;
        Ok(Self { program, durable, node_timeout })
    }

    /// A clean stop where data counts; else the shortest way.
    pub fn stop_signal(&self) -> DeathSignal {
        if self.durable { DeathSignal::Term } else { DeathSignal::Kill }
    }
}

impl Node {
    pub fn new(stack_dir: &Path, index: usize, (port, bus_port): (u16, u16)) -> Self {
        let name = format!("redis-{index}");
        Self { dir: stack_dir.join(&name), name, port, bus_port, child: None }
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Starts the process (from this thread; it is not ready yet).
    pub fn spawn(&mut self, style: &NodeStyle) -> Result<(), StackError> {
        super::files::create_dir(&self.dir)?;
        let timeout_ms = style.node_timeout.as_millis().to_string();
        let (port, bus_port) = (self.port.to_string(), self.bus_port.to_string());
        let append_only = if style.durable { "yes" } else { "no" };
        let settings: [(&str, &str); 17] = [
            ("bind", "127.0.0.1"),
            ("port", &port),
            ("protected-mode", "no"),
            ("daemonize", "no"),
            ("dir", "."),
            ("save", ""),
            ("appendonly", append_only),
            ("appendfsync", "everysec"),
            ("cluster-enabled", "yes"),
            ("cluster-config-file", "nodes.conf"),
            ("cluster-port", &bus_port),
            ("cluster-announce-ip", "127.0.0.1"),
            ("cluster-node-timeout", &timeout_ms),
            ("repl-diskless-sync-delay", "0"),
            // A primary would else wait up to 10 s for its replicas, which are being stopped as well.
            ("shutdown-timeout", "0"),
            // Tests stall a node with DEBUG SLEEP; nobody but this machine can reach it.
            ("enable-debug-command", "local"),
            ("latency-tracking", "no"),
        ];
        let args = settings.iter().flat_map(|(key, value)| [format!("--{key}"), (*value).to_owned()]);
        let launch = Launch {
            name: self.name.clone(),
            program: style.program.clone(),
            args: args.collect(),
            cwd: self.dir.clone(),
            log: self.dir.with_extension("log"),
            user: None,
            death_signal: style.stop_signal(),
        };
        self.child = Some(Supervised::spawn(&launch)?);
        Ok(())
    }

    /// Waits until it answers PING, which it does not while it loads.
    pub fn wait_ready(&mut self, deadline: Instant) -> Result<(), StackError> {
        let started = Instant::now();
        loop {
            if let Some(child) = &mut self.child {
                child.still_runs()?;
            }
            let seen = match self.command(&["PING"]) {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                let what = format!("{} did not answer PING", self.name);
                return Err(StackError::Timeout { what, seconds: started.elapsed().as_secs(), seen });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Runs one command over a connection of its own; the reply as text without RESP's marks for a one-value reply.
    pub fn command(&self, args: &[&str]) -> Result<String, StackError> {
        let failed = |source| StackError::Io { what: format!("{}: {}", self.name, args.join(" ")), source };
        let reply = self.exchange(args).map_err(failed)?;
        let text = String::from_utf8_lossy(&reply);
        match reply.first() {
            Some(b'-') => {
                let message = format!("{}: {}", args.join(" "), text[1..].trim_end());
                Err(StackError::Refused { name: self.name.clone(), message })
            }
            Some(b'$') => Ok(text.split_once("\r\n").map_or("", |(_, body)| body).trim_end().to_owned()),
            _ => Ok(text.trim_end().trim_start_matches(['+', ':']).to_owned()),
        }
    }

    fn exchange(&self, args: &[&str]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.addr(), COMMAND_TIMEOUT)?;
        stream.set_read_timeout(Some(COMMAND_TIMEOUT))?;
        stream.set_write_timeout(Some(COMMAND_TIMEOUT))?;
        let mut request = Vec::new();
        push_command(&mut request, args.iter().map(|arg| arg.as_bytes()));
        stream.write_all(&request)?;
        let (mut reply, mut chunk) = (Vec::new(), [0; 4096]);
        let mut scanner = ReplyScanner::default();
        loop {
            let read = stream.read(&mut chunk)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            reply.extend_from_slice(&chunk[..read]);
            if let Scan::Complete(end) = scanner.scan(&reply).map_err(io::Error::other)? {
                reply.truncate(end);
                return Ok(reply);
            }
        }
    }
}

/// `cluster-port` and `CLUSTER ADDSLOTSRANGE` came with 7.0.
fn require_version_7(program: &Path) -> Result<(), StackError> {
    let output = std::process::Command::new(program).arg("--version").output();
    let output = output.map_err(StackError::io("cannot start", program))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match version(&text) {
        Some(major) if major >= 7 => Ok(()),
        _ => Err(StackError::TooOld {
            program: program.to_owned(),
            found: text.trim().to_owned(),
            wanted: "Redis 7.0",
        }),
    }
}

/// The major version in `Redis server v=7.0.15 sha=...`.
fn version(text: &str) -> Option<u32> {
    text.split_once("v=")?.1.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn the_version_is_read() {
        assert_eq!(version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n"), Some(7));
        assert_eq!(version("Redis server v=10.1.0"), Some(10));
        assert_eq!(version("something else"), None);
    }
}
