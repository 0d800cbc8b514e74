//! One Postgres with a database of its own.
//!
//! Must not know: what is stored in it.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::StackError;
use super::files::{create_dir, remove, write_private};
use super::process::{DeathSignal, Launch, POLL, Supervised, find_program};

/// The superuser and the database.
const NAME: &str = "dsproxy";

/// One attempt to connect takes at most this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The server: where it lives, and the process while it runs.
///
/// `home` holds `data` (Postgres' own) and `password`. It is `postgres` in the stack's directory, or a symlink there
/// to a directory below /var/tmp when Postgres' user cannot reach the stack's directory.
#[derive(Debug)]
pub(crate) struct Postgres {
    initdb: PathBuf,
    program: PathBuf,
    /// Postgres refuses to run as root, so then it runs as this user.
    user: Option<String>,
    home: PathBuf,
    log: PathBuf,
    durable: bool,
    password: String,
    pub port: u16,
    pub child: Option<Supervised>,
}

impl Postgres {
    /// Finds the programs and prepares the directory; without `keep_data` what a former run left is removed.
    pub fn prepare(stack_dir: &Path, port: u16, durable: bool, keep_data: bool) -> Result<Self, StackError> {
        let folders = installed_versions();
        let initdb = find_program("initdb", &folders, "postgresql")?;
        let program = find_program("postgres", &folders, "postgresql")?;
        let user = if rustix::process::geteuid().is_root() { Some(unprivileged_user()?) } else { None };
        let home = find_home(stack_dir, user.as_ref(), keep_data)?;
        let password_file = home.join("password");
        let password = if keep_data {
            let read = std::fs::read_to_string(&password_file);
            read.map_err(StackError::io("cannot read", &password_file))?
        } else {
            let bytes = super::random_bytes::<16>()
                .map_err(StackError::io("cannot read", Path::new("/dev/urandom")))?;
            let password: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let written = write_private(&password_file, password.as_bytes());
            written.map_err(StackError::io("cannot write", &password_file))?;
            own(&password_file, user.as_ref())?;
            password
        };
        let user = user.map(|user| user.name);
        let log = stack_dir.join("postgres.log");
        Ok(Self { initdb, program, user, home, log, durable, password, port, child: None })
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn launch(&self, name: &str, program: &Path, cwd: PathBuf, args: Vec<String>) -> Launch {
        Launch {
            name: name.to_owned(),
            program: program.to_owned(),
            args,
            cwd,
            log: self.log.clone(),
            user: self.user.clone(),
            death_signal: self.stop_signal(),
        }
    }

    /// Starts `initdb` (from this thread).
    pub fn spawn_initdb(&self) -> Result<Supervised, StackError> {
        let password_file = self.home.join("password");
        let args = [
            "-D",
            &self.data().display().to_string(),
            "-U",
            NAME,
            "--auth=scram-sha-256",
            &format!("--pwfile={}", password_file.display()),
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ];
        let args = args.map(str::to_owned).to_vec();
        let mut launch = self.launch("initdb", &self.initdb, self.home.clone(), args);
        launch.death_signal = DeathSignal::Kill;
        Supervised::spawn(&launch)
    }

    /// Starts the server (from this thread; it is not ready yet).
    pub fn spawn(&mut self) -> Result<(), StackError> {
        let switch = if self.durable { "on" } else { "off" };
        let mut settings = vec![
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            // TCP is enough, and the path of a Unix socket may be at most 107 bytes long.
            "unix_socket_directories=".to_owned(),
            "max_connections=200".to_owned(),
            "shared_buffers=64MB".to_owned(),
            // In files of the data directory: nothing stays in /dev/shm after a `kill -9`.
            "dynamic_shared_memory_type=mmap".to_owned(),
            "log_checkpoints=off".to_owned(),
        ];
        settings
            .extend(["fsync", "synchronous_commit", "full_page_writes"].map(|key| format!("{key}={switch}")));
        let mut args = vec!["-D".to_owned(), self.data().display().to_string()];
        args.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let launch = self.launch("postgres", &self.program, self.data(), args);
        self.child = Some(Supervised::spawn(&launch)?);
        Ok(())
    }

    /// A fast shutdown where data counts; else an immediate one.
    pub fn stop_signal(&self) -> DeathSignal {
        if self.durable { DeathSignal::Int } else { DeathSignal::Quit }
    }

    /// The URL of a database on this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{NAME}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The URL of our database.
    pub fn own_url(&self) -> String {
        self.url(NAME)
    }

    /// Waits until our database answers; creates it first when it is not there.
    pub fn wait_ready(&mut self, deadline: Instant) -> Result<(), StackError> {
        let started = Instant::now();
        loop {
            if let Some(child) = &mut self.child {
                child.still_runs()?;
            }
            let create = format!("CREATE DATABASE {NAME}");
            let seen = match run_sql(&self.own_url(), "SELECT 1") {
                Ok(()) => return Ok(()),
                Err(SqlError::NoSuchDatabase) => match run_sql(&self.url("postgres"), &create) {
                    Ok(()) => continue,
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                let what = "postgres was not ready".to_owned();
                return Err(StackError::Timeout { what, seconds: started.elapsed().as_secs(), seen });
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Removes what a stack in `stack_dir` keeps elsewhere.
pub(crate) fn remove_home(stack_dir: &Path) -> Result<(), StackError> {
    let link = stack_dir.join("postgres");
    if let Ok(target) = std::fs::read_link(&link)
        && target == far_home(stack_dir)
    {
        remove(&target)?;
    }
    remove(&link)
}

/// A user to run Postgres as.
#[derive(Debug)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
}

fn unprivileged_user() -> Result<User, StackError> {
    let passwd = Path::new("/etc/passwd");
    let text = std::fs::read_to_string(passwd).map_err(StackError::io("cannot read", passwd))?;
    let find = |wanted: &str| {
        let line = text.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut fields = line.split(':').skip(2).map(str::parse::<u32>);
        let (uid, gid) = (fields.next()?.ok()?, fields.next()?.ok()?);
        // `--regid NAME` names a group, so the user's group must have its name.
        Some(User { name: wanted.to_owned(), uid, gid })
    };
    find("postgres")
        .ok_or(StackError::MissingProgram { program: "the user postgres".into(), package: "postgresql" })
}

fn own(path: &Path, user: Option<&User>) -> Result<(), StackError> {
    let Some(user) = user else { return Ok(()) };
    chown(path, Some(user.uid), Some(user.gid)).map_err(StackError::io("cannot change the owner of", path))
}

/// Where Postgres' files are, created when absent.
fn find_home(stack_dir: &Path, user: Option<&User>, keep_data: bool) -> Result<PathBuf, StackError> {
    let near = stack_dir.join("postgres");
    if keep_data {
        return std::fs::canonicalize(&near).map_err(StackError::io("cannot find", &near));
    }
    remove_home(stack_dir)?;
    create_home(&near, user)?;
    let Some(user) = user else { return Ok(near) };
    if reaches(user, &near)? {
        return Ok(near);
    }
    remove(&near)?;
    let far = far_home(stack_dir);
    if let Ok(found) = far.symlink_metadata() {
        // Of a stack whose directory was removed by hand. Not ours: somebody else took the name.
        if !found.is_dir() || found.uid() != user.uid {
            let source = std::io::Error::other("it exists and does not belong to Postgres' user; remove it");
            return Err(StackError::io("cannot use", &far)(source));
        }
        remove(&far)?;
    }
    create_home(&far, Some(user))?;
    symlink(&far, &near).map_err(StackError::io("cannot link", &near))?;
    tracing::info!(path = %far.display(), "the user {} cannot reach {}; Postgres' data is kept elsewhere", user.name, stack_dir.display());
    Ok(far)
}

/// The place for a stack directory that Postgres' user cannot reach: the same for the same directory.
fn far_home(stack_dir: &Path) -> PathBuf {
    PathBuf::from(format!("/var/tmp/dsproxy-postgres-{}", super::path_hash(stack_dir)))
}

fn create_home(path: &Path, user: Option<&User>) -> Result<(), StackError> {
    if let Some(parent) = path.parent() {
        create_dir(parent)?;
    }
    let created = std::fs::DirBuilder::new().mode(0o700).create(path);
    created.map_err(StackError::io("cannot create", path))?;
    own(path, user)
}

/// Tried, not computed: modes, ACLs and mount options all have a say.
fn reaches(user: &User, dir: &Path) -> Result<bool, StackError> {
    let setpriv = find_program("setpriv", &[], "util-linux")?;
    let mut command = Command::new(&setpriv);
    command.args(["--reuid", &user.name, "--regid", &user.name, "--init-groups", "test", "-w"]).arg(dir);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().map(|status| status.success()).map_err(StackError::io("cannot start", &setpriv))
}

/// `/usr/lib/postgresql/*/bin`, newest first: Debian does not link the server programs into PATH.
fn installed_versions() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut versions: Vec<u32> = versions.collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.iter().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect()
}

#[derive(Debug, thiserror::Error)]
enum SqlError {
    #[error("the database does not exist")]
    NoSuchDatabase,
    #[error("{0}")]
    Other(String),
}

/// Runs one statement over a connection of its own, on a thread of its own: the caller may be inside a runtime, where
/// blocking on another one is not allowed.
fn run_sql(url: &str, sql: &str) -> Result<(), SqlError> {
    let other = |error: &dyn std::error::Error| SqlError::Other(error.to_string());
    let run = async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
        let work = async {
            let done = client.batch_execute(sql).await;
            drop(client);
            done
        };
        let (done, _) = tokio::join!(work, connection);
        done
    };
    let blocking = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| other(&error))?;
        let limited = async { tokio::time::timeout(CONNECT_TIMEOUT, run).await };
        match runtime.block_on(limited) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error))
                if error.code() == Some(&tokio_postgres::error::SqlState::INVALID_CATALOG_NAME) =>
            {
                Err(SqlError::NoSuchDatabase)
            }
            Ok(Err(error)) => match error.as_db_error() {
                Some(refusal) => Err(other(refusal)),
                None => Err(other(&error)),
            },
            Err(_) => Err(SqlError::Other("no answer".to_owned())),
        }
    };
    std::thread::scope(|scope| {
        scope
            .spawn(blocking)
            .join()
            .unwrap_or_else(|_| Err(SqlError::Other("the client panicked".to_owned())))
    })
}
