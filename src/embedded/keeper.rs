//! The process that owns a stack for tests.
//!
//! Must not know: which tests.
//!
//! Test runners start one process per test, and a server must be the child of a process (in truth: of a thread, see
//! [`super::process`]) that lives as long as the server should. So the first test starts a keeper, all tests connect
//! to it, and when no connection has been there for a while it stops the servers, removes its directory and ends. A
//! test that panics or is killed loses its connection like any other. When the keeper itself is killed the kernel
//! ends the servers; the files are removed by the next keeper of the place.
//!
//! All files are in one root directory: `keeper.sock`, `keeper.log`, `lock` (held by who starts a keeper and by a
//! keeper that leaves, so that those two exclude each other) and `stack/`.
//!
//! Protocol: one line `VERB [NAME]` per request, one line of JSON per answer. Verbs: `info`, and with a child's name
//! `stop`, `kill`, `pause`, `cont`, `start`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::files::{create_dir, remove};
use super::process::POLL;
use super::{Stack, StackError, StackOptions};

/// The first client has this long to connect.
const FIRST_CLIENT: Duration = Duration::from_secs(20);

/// Getting a keeper takes at most this long: it may have to wait for an old one to leave and to start all servers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(100);

/// One request takes at most this long (a stop and a start each have their own shorter deadline).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);

/// The stack a keeper is to keep.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct KeeperOptions {
    /// See [`StackOptions::shards`].
    pub shards: usize,
    /// See [`StackOptions::replicas`].
    pub replicas: usize,
    /// See [`StackOptions::durable`].
    pub durable: bool,
    /// See [`StackOptions::with_postgres`].
    pub with_postgres: bool,
    /// See [`StackOptions::node_timeout`]; in ms.
    pub node_timeout_ms: u64,
    /// The keeper leaves when no client has been connected for this many ms.
    pub linger_ms: u64,
    /// True leaves the directory when the keeper leaves.
    pub keep_files: bool,
}

impl Default for KeeperOptions {
    fn default() -> Self {
        Self {
            shards: 3,
            replicas: 0,
            durable: false,
            with_postgres: true,
            node_timeout_ms: 2_000,
            linger_ms: 0,
            keep_files: false,
        }
    }
}

/// What a keeper says about its stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Addresses of the nodes, `127.0.0.1:PORT`.
    pub redis_nodes: Vec<String>,
    /// URL of the database.
    pub database_url: Option<String>,
    /// Name and process id of each child.
    pub pids: Vec<(String, u32)>,
    /// Process id of the keeper.
    pub keeper_pid: u32,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    #[serde(rename = "info")]
    Info(Info),
    #[serde(rename = "error")]
    Error(String),
}

enum Event {
    Joined,
    Left,
    Request(String, Sender<Answer>),
}

/// The program: `keep-stack ROOT OPTIONS-AS-JSON`. Call it on the main thread.
///
/// # Errors
/// A message for standard error.
pub fn run(args: &[String]) -> Result<(), String> {
    let [root, options] = args else { return Err("usage: keep-stack ROOT OPTIONS-AS-JSON".to_owned()) };
    let options: KeeperOptions = serde_json::from_str(options).map_err(|error| error.to_string())?;
    // Ctrl-C in the terminal of the tests, and a runner that ends their process group, do not reach a session of our own.
    let _ = rustix::process::setsid();
    keep(Path::new(root), &options).map_err(|error| error.to_string())
}

fn keep(root: &Path, options: &KeeperOptions) -> Result<(), StackError> {
    let (socket, dir) = (root.join("keeper.sock"), root.join("stack"));
    let mut wanted = StackOptions::throw_away(&dir);
    wanted.durable = options.durable;
    wanted.shards = options.shards;
    wanted.replicas = options.replicas;
    wanted.with_postgres = options.with_postgres;
    wanted.node_timeout = Duration::from_millis(options.node_timeout_ms);
    if !options.keep_files {
        super::remove_stack(&dir)?;
    }
    let mut stack = Stack::start(wanted)?;
    // Bound last: who can connect has a stack.
    remove(&socket)?;
    let listener = UnixListener::bind(&socket).map_err(StackError::io("cannot listen on", &socket))?;
    let (events, inbox) = channel();
    std::thread::spawn(move || accept(&listener, &events));
    let linger = Duration::from_millis(options.linger_ms);
    let _lock = serve(&mut stack, &inbox, root, linger);
    // From here on new clients find no socket, wait for the lock, and start a keeper of their own.
    let _ = remove(&socket);
    if options.keep_files {
        stack.stop();
        return Ok(());
    }
    stack.stop_and_remove()?;
    remove(root)
}

/// Answers requests until nobody is left; returns the lock under which to leave.
fn serve(stack: &mut Stack, inbox: &Receiver<Event>, root: &Path, linger: Duration) -> Option<File> {
    let mut clients = 0_usize;
    let mut patience = FIRST_CLIENT.max(linger);
    loop {
        let event = if clients == 0 {
            match inbox.recv_timeout(patience) {
                Err(RecvTimeoutError::Timeout) => match try_lock(root) {
                    Ok(Some(lock)) => return Some(lock),
                    // Somebody is at the door, and will connect or find that we left.
                    Ok(None) => continue,
                    // The directory is gone: nobody can find us.
                    Err(_) => return None,
                },
                Err(RecvTimeoutError::Disconnected) => return None,
                Ok(event) => event,
            }
        } else {
            match inbox.recv() {
                Ok(event) => event,
                Err(_) => return None,
            }
        };
        match event {
            Event::Joined => clients += 1,
            Event::Left => {
                clients = clients.saturating_sub(1);
                patience = linger;
            }
            Event::Request(line, answer) => {
                // A client that left meanwhile needs no answer.
                let _ = answer.send(handle(stack, &line));
            }
        }
    }
}

fn handle(stack: &mut Stack, line: &str) -> Answer {
    let (verb, name) = line.split_once(' ').unwrap_or((line, ""));
    let done = match verb {
        "info" => Ok(()),
        "stop" => stack.stop_child(name),
        "kill" => stack.kill_child(name),
        "pause" => stack.pause_child(name),
        "cont" => stack.resume_child(name),
        "start" => stack.start_child(name),
        _ => return Answer::Error(format!("unknown verb {verb:?}")),
    };
    match done {
        Ok(()) => Answer::Info(Info {
            redis_nodes: stack.redis_nodes().iter().map(ToString::to_string).collect(),
            database_url: stack.database_url(),
            pids: stack.pids(),
            keeper_pid: std::process::id(),
        }),
        Err(error) => Answer::Error(error.to_string()),
    }
}

fn accept(listener: &UnixListener, events: &Sender<Event>) {
    for stream in listener.incoming().flatten() {
        let events = events.clone();
        std::thread::spawn(move || {
            let _ = events.send(Event::Joined);
            let _ = converse(&stream, &events);
            let _ = events.send(Event::Left);
        });
    }
}

fn converse(mut stream: &UnixStream, events: &Sender<Event>) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let (answer, answered) = channel();
        if events.send(Event::Request(line?, answer)).is_err() {
            return Ok(());
        }
        let Ok(answer) = answered.recv() else { return Ok(()) };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        stream.write_all(&text)?;
    }
    Ok(())
}

/// A connection to a keeper; while it is open the stack stays.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the keeper of `root`; starts one from `program` (a dsproxy) when there is none.
    ///
    /// # Errors
    /// When the keeper does not come up, with the end of its log.
    pub fn get(root: &Path, program: &Path, options: &KeeperOptions) -> Result<Self, StackError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let late = || StackError::Timeout {
            what: format!("no stack came up in {}", root.display()),
            seconds: CONNECT_TIMEOUT.as_secs(),
            seen: log_of(root),
        };
        while Instant::now() < deadline {
            if let Some(client) = Self::connect(root) {
                return Ok(client);
            }
            create_dir(root)?;
            if let Some(_lock) = try_lock(root).ok().flatten() {
                if let Some(client) = Self::connect(root) {
                    return Ok(client);
                }
                let mut keeper = start_keeper(root, program, options)?;
                return Self::wait_for(root, &mut keeper, deadline)?.ok_or_else(late);
            }
            std::thread::sleep(POLL);
        }
        Err(late())
    }

    fn wait_for(root: &Path, keeper: &mut Child, deadline: Instant) -> Result<Option<Self>, StackError> {
        while Instant::now() < deadline {
            if let Some(client) = Self::connect(root) {
                return Ok(Some(client));
            }
            if let Ok(Some(status)) = keeper.try_wait() {
                let (name, log) = ("the stack's keeper".to_owned(), root.join("keeper.log"));
                return Err(StackError::Died { name, status: status.to_string(), log, tail: log_of(root) });
            }
            std::thread::sleep(POLL);
        }
        Ok(None)
    }

    /// A connection that was answered: a keeper that is leaving accepts and says nothing.
    fn connect(root: &Path) -> Option<Self> {
        let stream = UnixStream::connect(root.join("keeper.sock")).ok()?;
        stream.set_read_timeout(Some(REQUEST_TIMEOUT)).ok()?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.request("info").ok()?;
        Some(client)
    }

    /// Sends one request, see the module.
    ///
    /// # Errors
    /// The keeper's refusal, or the loss of the connection.
    pub fn request(&mut self, line: &str) -> Result<Info, StackError> {
        let lost =
            |source| StackError::Io { what: format!("the stack's keeper did not answer `{line}`"), source };
        writeln!(self.stream.get_mut(), "{line}").map_err(lost)?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).map_err(lost)?;
        match serde_json::from_str(&answer).map_err(io::Error::from).map_err(lost)? {
            Answer::Info(info) => Ok(info),
            Answer::Error(message) => Err(StackError::Refused { name: format!("keeper, `{line}`"), message }),
        }
    }
}

fn start_keeper(root: &Path, program: &Path, options: &KeeperOptions) -> Result<Child, StackError> {
    let log = root.join("keeper.log");
    let file = File::create(&log).map_err(StackError::io("cannot create", &log))?;
    let options = serde_json::to_string(options).unwrap_or_default();
    let mut command = Command::new(program);
    command.arg("keep-stack").arg(root).arg(options).current_dir("/");
    // It makes a session of its own, for which it must not lead a group. No pipe of ours may stay open in it: test runners wait for the end of their tests' output.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    command.spawn().map_err(StackError::io("cannot start", program))
}

fn log_of(root: &Path) -> String {
    std::fs::read_to_string(root.join("keeper.log")).unwrap_or_default()
}

/// The lock of `root`; `None` while somebody else has it. A directory that was removed and made again is a new one.
fn try_lock(root: &Path) -> io::Result<Option<File>> {
    let path = root.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
    match file.try_lock() {
        Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
        Err(std::fs::TryLockError::Error(error)) => return Err(error),
        Ok(()) => {}
    }
    let same =
        std::fs::metadata(&path).is_ok_and(|now| file.metadata().is_ok_and(|held| held.ino() == now.ino()));
    Ok(same.then_some(file))
}

/// Removes roots whose name starts with `prefix` in `parent` and that belong to nobody: their keeper was killed.
/// Returns what was removed.
pub fn sweep(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let roots = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    roots
        .map(|entry| entry.path())
        .filter(|root| {
            let stack = root.join("stack");
            let Ok(Some(_lock)) = try_lock(root) else { return false };
            let unused = !stack.exists() || super::DirLock::take(&stack).is_ok();
            unused && super::remove_stack(&stack).is_ok() && remove(root).is_ok()
        })
        .collect()
}
