//! The servers of a test: one stack that all tests share, or one of its own that it may break.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dsproxy::embedded::keeper::{Client, Info, KeeperOptions, sweep};
use dsproxy::embedded::path_hash;
use tokio_postgres::NoTls;

/// The shared stack outlives its last test by this much: long enough for the next test process to begin.
const LINGER: Duration = Duration::from_secs(4);

/// The program under test, which is also the keeper.
const PROGRAM: &str = env!("CARGO_BIN_EXE_dsproxy");

/// Different for every use in every process of this machine's uptime.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() % 100_000_000;
    format!("{}_{now}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// All roots of this checkout and user begin with this, in the temp dir: the path of a socket must be short.
fn root_prefix() -> String {
    let user = rustix::process::geteuid().as_raw();
    format!("dsproxy-{user}-{}", path_hash(&Path::new(env!("CARGO_MANIFEST_DIR")).join(PROGRAM)))
}

/// The stack all tests of this checkout share, across test processes. Tests keep apart by [`SharedStack::key_prefix`]
/// and [`SharedStack::fresh_database`], and break nothing.
pub struct SharedStack {
    info: Info,
    prefix: String,
    _client: Client,
}

impl SharedStack {
    /// Connects to it; the first one starts it.
    #[track_caller]
    pub fn get() -> Self {
        let parent = std::env::temp_dir();
        let root = parent.join(root_prefix());
        let options = KeeperOptions { linger_ms: LINGER.as_millis() as u64, ..KeeperOptions::default() };
        let mut client = match Client::get(&root, Path::new(PROGRAM), &options) {
            Ok(client) => client,
            Err(error) => panic!("{error}"),
        };
        let info = client.request("info").unwrap();
        sweep(&parent, &format!("{}-", root_prefix()));
        Self { info, prefix: format!("t{}:", unique()), _client: client }
    }

    /// Addresses of the nodes.
    pub fn redis_nodes(&self) -> &[String] {
        &self.info.redis_nodes
    }

    /// A prefix for this test's keys.
    pub fn key_prefix(&self) -> &str {
        &self.prefix
    }

    /// A new empty database, dropped with the value.
    #[track_caller]
    pub fn fresh_database(&self) -> Database {
        Database::create(self.info.database_url.as_ref().unwrap())
    }

    /// What the keeper said.
    pub fn info(&self) -> &Info {
        &self.info
    }
}

/// A stack of one test, which may stop, kill and freeze its servers. Gone with the value.
pub struct PrivateStack {
    info: Mutex<Info>,
    client: Mutex<Client>,
    root: PathBuf,
}

impl PrivateStack {
    /// Starts it in a directory of its own.
    #[track_caller]
    pub fn start(options: KeeperOptions) -> Self {
        let root = std::env::temp_dir().join(format!("{}-{}", root_prefix(), unique()));
        Self::start_in(root, options)
    }

    /// Starts it in this directory (the path must be short, it holds a Unix socket).
    #[track_caller]
    pub fn start_in(root: PathBuf, options: KeeperOptions) -> Self {
        let mut client = match Client::get(&root, Path::new(PROGRAM), &options) {
            Ok(client) => client,
            Err(error) => panic!("{error}"),
        };
        let info = client.request("info").unwrap();
        Self { info: Mutex::new(info), client: Mutex::new(client), root }
    }

    /// Its keeper's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the keeper said last.
    pub fn info(&self) -> Info {
        self.info.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Addresses of the nodes: primaries first, then replicas.
    pub fn redis_nodes(&self) -> Vec<String> {
        self.info().redis_nodes
    }

    /// URL of the database `dsproxy`.
    #[track_caller]
    pub fn database_url(&self) -> String {
        self.info().database_url.unwrap()
    }

    /// A new empty database, dropped with the value.
    #[track_caller]
    pub fn fresh_database(&self) -> Database {
        Database::create(&self.database_url())
    }

    /// Process id of `redis-N` or `postgres`.
    #[track_caller]
    pub fn pid(&self, name: &str) -> u32 {
        self.info().pids.iter().find(|(known, _)| known == name).map(|(_, pid)| *pid).unwrap()
    }

    /// Stops a server politely.
    #[track_caller]
    pub fn stop(&self, name: &str) {
        self.request("stop", name);
    }

    /// Kills a server.
    #[track_caller]
    pub fn kill(&self, name: &str) {
        self.request("kill", name);
    }

    /// Freezes a server: connections stay open, nothing answers.
    #[track_caller]
    pub fn pause(&self, name: &str) {
        self.request("pause", name);
    }

    /// Lets a frozen server go on.
    #[track_caller]
    pub fn cont(&self, name: &str) {
        self.request("cont", name);
    }

    /// Starts a stopped or killed server on its old port, and waits until it answers.
    #[track_caller]
    pub fn start_server(&self, name: &str) {
        self.request("start", name);
    }

    #[track_caller]
    fn request(&self, verb: &str, name: &str) {
        let answer =
            self.client.lock().unwrap_or_else(PoisonError::into_inner).request(&format!("{verb} {name}"));
        match answer {
            Ok(info) => *self.info.lock().unwrap_or_else(PoisonError::into_inner) = info,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A database of one test; dropped with the value.
pub struct Database {
    url: String,
    name: String,
    server_url: String,
}

impl Database {
    #[track_caller]
    fn create(server_url: &str) -> Self {
        let name = format!("t{}", unique());
        run_sql(server_url, &format!("CREATE DATABASE {name}")).unwrap();
        let (server, _) = server_url.rsplit_once('/').unwrap();
        Self { url: format!("{server}/{name}"), name, server_url: server_url.to_owned() }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs statements that return nothing.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        run_sql(&self.url, sql).unwrap();
    }

    /// Runs one query; all values as text (NULL is `None`).
    #[track_caller]
    pub fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        run_sql(&self.url, sql).unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Without the server there is nothing to drop.
        let _ = run_sql(&self.server_url, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

/// Runs statements over a connection of their own and gives the rows of all of them. On a thread of its own, so that
/// a test that is async may call it too.
pub fn run_sql(url: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
    let run = async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(sql).await?;
        drop(client);
        let _ = connection.await;
        let rows = messages.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    };
    let blocking =
        || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run);
    std::thread::scope(|scope| scope.spawn(blocking).join().unwrap())
}
