//! A real Redis Cluster and a real Postgres as child processes in one directory: for `dsproxy dev` and for tests.
//!
//! Must not know: the proxy.
//!
//! [`Stack::start`] must be called from a thread that lives as long as the stack should; see [`process`].

mod children;
mod cluster;
mod error;
mod files;
pub mod keeper;
mod node;
mod ports;
mod postgres;
pub mod process;

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

pub use error::StackError;
pub use files::write_env_file;
pub use ports::{free_ports, is_free};

use files::{DirLock, Memory};
use node::{Node, NodeStyle};
use postgres::Postgres;
use process::{POLL, Supervised};

/// A port that was free a moment ago may be taken when a server wants it: so often new ones are tried.
const ATTEMPTS: usize = 3;

/// Processes of a killed former run get this long to finish their shutdown.
const STRAY_TIMEOUT: Duration = Duration::from_secs(15);

/// What to start, and where.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// The directory of all files; created when absent.
    pub dir: PathBuf,
    /// Primaries, at least 1 (a cluster that can elect needs 3).
    pub shards: usize,
    /// Replicas of each primary.
    pub replicas: usize,
    /// True keeps data: append-only files, fsync, clean shutdowns. False is for tests: as fast as can be.
    pub durable: bool,
    /// Whether Postgres is started too.
    pub with_postgres: bool,
    /// `cluster-node-timeout`: how long a node may be silent before the others call it failed.
    pub node_timeout: Duration,
    /// Deadline of the whole start.
    pub start_timeout: Duration,
    /// Deadline of the whole stop; what still runs then is killed.
    pub stop_timeout: Duration,
}

impl StackOptions {
    /// What `dsproxy dev` runs: three shards without replicas, and a Postgres, all durable.
    pub fn durable(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            shards: 3,
            replicas: 0,
            durable: true,
            with_postgres: true,
            node_timeout: Duration::from_secs(5),
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(15),
        }
    }

    /// The same for tests: nothing is kept, failed nodes are noticed sooner.
    pub fn throw_away(dir: impl Into<PathBuf>) -> Self {
        Self { durable: false, node_timeout: Duration::from_secs(2), ..Self::durable(dir) }
    }
}

/// The running servers. Dropping it stops them; [`Stack::stop`] does so too and is the one to prefer.
#[derive(Debug)]
pub struct Stack {
    options: StackOptions,
    style: NodeStyle,
    nodes: Vec<Node>,
    postgres: Option<Postgres>,
    _lock: DirLock,
}

impl Stack {
    /// Starts everything and waits until all slots are served and the database answers.
    ///
    /// What an earlier run left in the directory is used again, on the same ports when they are still free. What an
    /// interrupted first start left is removed.
    ///
    /// # Errors
    /// [`StackError`]; nothing runs then.
    pub fn start(options: StackOptions) -> Result<Self, StackError> {
        let mut options = options;
        options.shards = options.shards.max(1);
        files::create_dir(&options.dir)?;
        options.dir = options.dir.canonicalize().map_err(StackError::io("cannot find", &options.dir))?;
        let style = NodeStyle::find(options.durable, options.node_timeout)?;
        let lock = DirLock::take(&options.dir)?;
        settle_strays(&options.dir);
        let mut stack = Self { options, style, nodes: Vec::new(), postgres: None, _lock: lock };
        let mut attempt = 1;
        loop {
            match stack.try_start() {
                Ok(()) => return Ok(stack),
                Err(error) if error.port_was_taken() && attempt < ATTEMPTS => {
                    tracing::warn!(%error, "a port was taken meanwhile; trying other ports");
                    stack.stop();
                    attempt += 1;
                }
                Err(error) => {
                    stack.stop();
                    return Err(error);
                }
            }
        }
    }

    fn try_start(&mut self) -> Result<(), StackError> {
        let deadline = Instant::now() + self.options.start_timeout;
        let dir = self.options.dir.clone();
        let mut memory = Memory::load(&dir);
        let fresh = self.plan_cluster(&mut memory)?;
        self.plan_postgres(&mut memory)?;
        memory.save(&dir)?;
        for node in &mut self.nodes {
            node.spawn(&self.style)?;
        }
        // Waiting is done by another thread, starting by this one: see `process` on threads.
        let (nodes, shards, style_postgres) = (&mut self.nodes, self.options.shards, &mut self.postgres);
        let (formed, ready) = std::thread::scope(|scope| {
            let forming = scope.spawn(|| cluster::form(nodes, shards, fresh, deadline));
            let ready = start_postgres(style_postgres.as_mut(), &mut memory, &dir, deadline);
            let formed = forming.join().unwrap_or_else(|_| {
                Err(StackError::Refused {
                    name: "redis".to_owned(),
                    message: "forming the cluster panicked".to_owned(),
                })
            });
            (formed, ready)
        });
        formed?;
        ready?;
        memory.cluster_formed = true;
        memory.save(&dir)
    }

    /// Decides on ports and on what to do with what the directory holds; true when that is nothing (any more).
    fn plan_cluster(&mut self, memory: &mut Memory) -> Result<bool, StackError> {
        let options = &self.options;
        let count = options.shards * (1 + options.replicas);
        let shape = |shards, replicas| format!("{shards} shards with {replicas} replicas each");
        if memory.cluster_formed && (memory.shards, memory.replicas) != (options.shards, options.replicas) {
            return Err(StackError::Mismatch {
                dir: options.dir.clone(),
                had: shape(memory.shards, memory.replicas),
                want: shape(options.shards, options.replicas),
            });
        }
        let kept = memory.cluster_formed && memory.redis_ports.len() == count;
        let same = kept && memory.redis_ports.iter().all(|(port, bus)| is_free(*port) && is_free(*bus));
        if !kept {
            let left = (0..count.max(memory.redis_ports.len()))
                .map(|index| options.dir.join(format!("redis-{index}")))
                .filter(|left| left.exists());
            for (number, left) in left.enumerate() {
                if number == 0 {
                    tracing::warn!(dir = %options.dir.display(), "the first start did not finish; the cluster is made anew");
                }
                files::remove(&left)?;
            }
        }
        if !same {
            if kept {
                tracing::warn!("a Redis port of the last run is taken; all nodes get new ports");
            }
            let ports = free_ports(2 * count).map_err(StackError::io("no ports for", &options.dir))?;
            memory.redis_ports = ports.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        }
        (memory.shards, memory.replicas, memory.cluster_formed) = (options.shards, options.replicas, kept);
        let ports = memory.redis_ports.iter().enumerate();
        self.nodes = ports.map(|(index, ports)| Node::new(&options.dir, index, *ports)).collect();
        Ok(!kept)
    }

    fn plan_postgres(&mut self, memory: &mut Memory) -> Result<(), StackError> {
        let options = &self.options;
        if !options.with_postgres {
            return Ok(());
        }
        let kept = memory.postgres_initialised && options.dir.join("postgres/data/PG_VERSION").exists();
        if !kept && options.dir.join("postgres").symlink_metadata().is_ok() {
            tracing::warn!(dir = %options.dir.display(), "the first start did not finish; the database is made anew");
        }
        memory.postgres_initialised = kept;
        if !(kept && is_free(memory.postgres_port)) {
            let taken: Vec<u16> = memory.redis_ports.iter().flat_map(|(port, bus)| [*port, *bus]).collect();
            // As many as could collide with those chosen for Redis above, which are not yet listened on.
            let ports = free_ports(taken.len() + 1).map_err(StackError::io("no ports for", &options.dir))?;
            memory.postgres_port = ports.into_iter().find(|port| !taken.contains(port)).unwrap_or_default();
        }
        let (dir, port) = (&options.dir, memory.postgres_port);
        self.postgres = Some(Postgres::prepare(dir, port, options.durable, kept)?);
        Ok(())
    }

    /// The client addresses of the nodes: primaries first (as started; a failover can change roles), then replicas.
    pub fn redis_nodes(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::addr).collect()
    }

    /// The URL of the database, with its password.
    pub fn database_url(&self) -> Option<String> {
        self.postgres.as_ref().map(Postgres::own_url)
    }

    /// Name and process id of every child that runs.
    pub fn pids(&self) -> Vec<(String, u32)> {
        let nodes = self.nodes.iter().filter_map(|node| node.child.as_ref());
        let children = nodes.chain(self.postgres.as_ref().and_then(|postgres| postgres.child.as_ref()));
        children.map(|child| (child.name().to_owned(), child.pid())).collect()
    }

    /// The directory, without symlinks.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// The first child that has ended by itself, as an error with the end of its log.
    ///
    /// # Errors
    /// [`StackError::Died`].
    pub fn check(&mut self) -> Result<(), StackError> {
        let nodes = self.nodes.iter_mut().filter_map(|node| node.child.as_mut());
        let mut children = nodes.chain(self.postgres.as_mut().and_then(|postgres| postgres.child.as_mut()));
        children.try_for_each(Supervised::still_runs)
    }

    /// Stops all children and waits for their end: all are told at once, so that no node sees another one fail; what
    /// still runs at the deadline is killed. The data stays.
    pub fn stop(&mut self) {
        let deadline = Instant::now() + self.options.stop_timeout;
        let nodes = self.nodes.iter_mut().filter_map(|node| node.child.take());
        let signal = self.style.stop_signal().signal();
        let mut ending: Vec<(Supervised, Signal)> = nodes.map(|child| (child, signal)).collect();
        if let Some(postgres) = &mut self.postgres {
            let signal = postgres.stop_signal().signal();
            ending.extend(postgres.child.take().map(|child| (child, signal)));
        }
        for (child, signal) in &ending {
            child.signal(*signal);
            child.signal(Signal::CONT);
        }
        for (child, _) in &mut ending {
            child.finish(deadline);
        }
    }

    /// Stops all children and removes the directory and what was kept elsewhere.
    ///
    /// # Errors
    /// [`StackError::Io`] when something cannot be removed.
    pub fn stop_and_remove(mut self) -> Result<(), StackError> {
        self.stop();
        remove_stack(&self.options.dir)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Removes the directory of a stack that does not run, and what it keeps elsewhere.
fn remove_stack(dir: &Path) -> Result<(), StackError> {
    settle_strays(dir);
    postgres::remove_home(dir)?;
    files::remove(dir)
}

fn start_postgres(
    postgres: Option<&mut Postgres>,
    memory: &mut Memory,
    dir: &Path,
    deadline: Instant,
) -> Result<(), StackError> {
    let Some(postgres) = postgres else { return Ok(()) };
    if !memory.postgres_initialised {
        let mut initdb = postgres.spawn_initdb()?;
        match initdb.wait_until(deadline) {
            Some(status) if status.success() => {}
            Some(status) => return Err(initdb.died(status)),
            None => {
                let what = "initdb did not finish".to_owned();
                return Err(StackError::Timeout { what, seconds: 0, seen: "it runs".to_owned() });
            }
        }
        memory.postgres_initialised = true;
        memory.save(dir)?;
    }
    postgres.spawn()?;
    postgres.wait_ready(deadline)
}

/// Waits for children of a former run that was killed: they are told to stop by then, and may still be writing. We
/// hold the directory's lock, so nobody else has a use for them.
fn settle_strays(dir: &Path) {
    let mut places = vec![dir.to_owned()];
    places.extend(dir.join("postgres").canonicalize());
    let strays = || -> Vec<u32> {
        let names = ["redis-server", "postgres", "initdb"];
        places.iter().flat_map(|place| process::running_below(place, &names)).collect()
    };
    let deadline = Instant::now() + STRAY_TIMEOUT;
    loop {
        let left = strays();
        if left.is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            tracing::warn!(pids = ?left, "killing servers of a former run that do not stop");
            left.into_iter().for_each(process::kill_stray);
            return;
        }
        std::thread::sleep(POLL);
    }
}

/// Bytes from the system's generator.
fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Sixteen hex digits that stand for a path.
pub fn path_hash(path: &Path) -> String {
    use std::hash::{Hash, Hasher};
    let mut hasher = rustc_hash::FxHasher::default();
    path.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
