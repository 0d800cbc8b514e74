//! What the workers share about who may do what: the users now, the policy, the log of refusals.
//!
//! Must not know: any client.
//!
//! A worker looks here when somebody logs in, when rules change and when something is refused; never for a command that
//! is allowed. Users are replaced as a whole, so that whoever has loaded them sees one state.

use crate::acl::{DEFAULT, Entry, Log, Policy, Secrecy, User, Users};
use crate::command::Learned;
use crate::metrics::SecurityMetrics;
use arc_swap::ArcSwap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// Why users cannot be read.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The file.
    #[error("Error loading ACLs, opening file '{}': {error}", path.display())]
    File {
        /// Where it should be.
        path: PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
    /// Its lines; all that are wrong. Holds no rule, which may be a password.
    #[error("{0}")]
    Lines(String),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Access {
    users: ArcSwap<Users>,
    /// One change at a time.
    changing: Mutex<()>,
    /// The user `default` where nothing names it.
    default: User,
    file: Option<PathBuf>,
    /// What is refused to everybody.
    pub policy: Policy,
    /// Users with limited rights may run scripts.
    pub trusts_scripts: bool,
    /// Commands beyond the table.
    pub learned: Arc<Learned>,
    /// What was refused.
    pub metrics: Arc<SecurityMetrics>,
    log: Mutex<Log>,
    log_entries: usize,
}

/// How access is set up.
#[derive(Debug, Default)]
pub struct AccessOptions {
    /// Password of `default`, if it needs one.
    pub password: Option<crate::config::Secret>,
    /// Users, a line each, as in an ACL file.
    pub users: Vec<String>,
    /// Or the ACL file.
    pub file: Option<PathBuf>,
    /// What is refused to everybody.
    pub policy: Policy,
    /// Users with limited rights may run scripts.
    pub trusts_scripts: bool,
    /// Entries that `ACL LOG` keeps.
    pub log_entries: usize,
}

impl Default for Access {
    /// One user, who may do everything: for tests of a core.
    fn default() -> Self {
        Self::assemble(AccessOptions::default(), Arc::default(), Arc::default(), User::unrestricted(DEFAULT))
    }
}

impl Access {
    /// Reads the users.
    ///
    /// # Errors
    /// [`AccessError`]
    pub fn new(
        options: AccessOptions,
        learned: Arc<Learned>,
        metrics: Arc<SecurityMetrics>,
    ) -> Result<Self, AccessError> {
        let mut default = User::unrestricted(DEFAULT);
        if let Some(password) = &options.password {
            // Any password is one.
            let _ = default.apply(format!(">{}", password.expose()).as_bytes(), &learned);
        }
        let lines: Vec<String> = options
            .users
            .iter()
            .map(|line| if line.starts_with("user ") { line.clone() } else { format!("user {line}") })
            .collect();
        let access = Self::assemble(options, learned, metrics, default);
        let users = match &access.file {
            Some(file) => access.read(file)?,
            None => access.parse("acl.users", lines.iter().map(String::as_str))?,
        };
        access.users.store(Arc::new(users));
        Ok(access)
    }

    fn assemble(
        options: AccessOptions,
        learned: Arc<Learned>,
        metrics: Arc<SecurityMetrics>,
        default: User,
    ) -> Self {
        Self {
            users: ArcSwap::default(),
            changing: Mutex::default(),
            default,
            file: options.file,
            policy: options.policy,
            trusts_scripts: options.trusts_scripts,
            learned,
            metrics,
            log: Mutex::default(),
            log_entries: options.log_entries,
        }
    }

    /// The same with commands beyond the table: for tests of a core.
    #[must_use]
    pub fn with_learned(self, learned: Learned) -> Self {
        Self { learned: Arc::new(learned), ..self }
    }

    /// The users now.
    pub fn users(&self) -> Arc<Users> {
        self.users.load_full()
    }

    /// The user who may log in with this name and password.
    pub fn login(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        // The hash is made for a name that nobody has, too: the time must not tell whether there is one.
        let password = Secrecy::of(password);
        self.users.load().get(name).filter(|user| user.accepts(&password)).cloned()
    }

    /// Changes the users; what `change` returns. When that is an error, nothing has changed.
    pub fn change<T, E>(&self, change: impl FnOnce(&mut Users) -> Result<T, E>) -> Result<T, E> {
        let _one_at_a_time = lock(&self.changing);
        let mut users = Users::clone(&self.users.load());
        let result = change(&mut users)?;
        self.users.store(Arc::new(users));
        Ok(result)
    }

    /// The ACL file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the ACL file again.
    ///
    /// # Errors
    /// [`AccessError`]; nothing has changed then.
    pub fn load(&self, file: &Path) -> Result<(), AccessError> {
        let loaded = self.read(file)?;
        self.change(|users| {
            *users = loaded;
            Ok(())
        })
    }

    fn read(&self, file: &Path) -> Result<Users, AccessError> {
        let failed = |error| AccessError::File { path: file.to_owned(), error };
        let text = std::fs::read_to_string(file).map_err(failed)?;
        self.parse(&file.display().to_string(), text.lines())
    }

    fn parse<'a>(&self, place: &str, lines: impl Iterator<Item = &'a str>) -> Result<Users, AccessError> {
        Users::from_lines(self.default.clone(), lines, &self.learned).map_err(|errors| {
            let shown: String = errors.iter().map(|(line, error)| format!("{place}:{line}: {error}. ")).collect();
            AccessError::Lines(format!(
                "{shown}WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
            ))
        })
    }

    /// Writes the users to the ACL file; whoever reads it meanwhile sees the old one, whole.
    ///
    /// # Errors
    /// The system's.
    pub fn save(&self, file: &Path) -> std::io::Result<()> {
        let mut text = self.users().lines().join(&b'\n');
        text.push(b'\n');
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".tmp-{}", std::process::id()));
        let temporary = PathBuf::from(name);
        // Hashes of passwords are nobody else's business.
        let mut open = std::fs::OpenOptions::new();
        let mut written = open.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let saved = written.write_all(&text).and_then(|()| written.sync_all());
        let saved = saved.and_then(|()| std::fs::rename(&temporary, file));
        if saved.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        saved
    }

    /// Notes a refusal in the log.
    pub fn note(&self, entry: Entry) {
        lock(&self.log).add(entry, self.log_entries);
    }

    /// The log of refusals.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
