//! Schema migrations: paired SQL files, applied in order, remembered in the database.
//!
//! Must not know: mappings, the command line.
//!
//! `NNNN_name.up.sql` and `NNNN_name.down.sql` in one directory. Each file runs in one transaction together with its
//! entry in `dsproxy_migrations`, so a failed file leaves nothing behind. A file whose first line is
//! `-- dsproxy: no transaction` (for `create index concurrently`) runs outside of one: its entry is written first, marked
//! dirty, and cleared at its end; a dirty entry stops everything until `force` says what is true.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio_postgres::{Client, Config, NoTls};

use super::error::SourceError;

/// Why migrations cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A file or directory cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// What was accessed.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// The files make no sense; one message per mistake.
    #[error("{}", .0.join("\n"))]
    Files(Vec<String>),
    /// A file failed in the database.
    #[error("{file}: {error}{}", if *.dirty { "; it ran without a transaction, so a part of it may be done: look, then say `migrate force VERSION`" } else { "; nothing of it was applied" })]
    Failed {
        /// The file.
        file: String,
        /// What the database said.
        error: String,
        /// Whether a part of it may have been applied.
        dirty: bool,
    },
    /// An earlier run broke off inside a file without a transaction.
    #[error(
        "version {0} is dirty: it was broken off half-way; repair the database, then say `migrate force VERSION` with the version that is true now"
    )]
    Dirty(i64),
    /// There is nothing to go back to.
    #[error("version {0} is applied but has no files in {1}; check out the files it came from")]
    Unknown(i64, PathBuf),
    /// The target is not a version of the directory.
    #[error("there is no version {0}; known versions: {1}")]
    NoSuchVersion(i64, String),
    /// The database could not be asked.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl From<tokio_postgres::Error> for MigrateError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Source(error.into())
    }
}

/// One version in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Number at the start of the file names.
    pub version: i64,
    /// Name between the number and `.up.sql`.
    pub name: String,
    up: PathBuf,
    down: PathBuf,
}

/// One line of `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Version.
    pub version: i64,
    /// Name.
    pub name: String,
    /// When it was applied (RFC 3339), if it is.
    pub applied_at: Option<String>,
    /// Broken off half-way.
    pub dirty: bool,
    /// Applied, but its files are gone.
    pub missing: bool,
}

/// The migrations of a directory.
#[derive(Debug)]
pub struct Migrations {
    directory: PathBuf,
    all: Vec<Migration>,
    warnings: Vec<String>,
}

impl Migrations {
    /// Reads the directory; every mistake in it is reported.
    pub fn read(directory: &Path) -> Result<Self, MigrateError> {
        let io = |error| MigrateError::Io { path: directory.to_owned(), error };
        let mut found: BTreeMap<i64, BTreeMap<String, [Option<PathBuf>; 2]>> = BTreeMap::new();
        let mut mistakes = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !file.ends_with(".sql") {
                continue;
            }
            match parse_name(&file) {
                Some((version, name, down)) => {
                    found.entry(version).or_default().entry(name).or_default()[usize::from(down)] =
                        Some(path);
                }
                None => mistakes.push(format!("{file}: name it NNNN_name.up.sql or NNNN_name.down.sql")),
            }
        }
        let mut all: Vec<Migration> = Vec::new();
        for (version, names) in found {
            if names.len() > 1 {
                let names = names.keys().cloned().collect::<Vec<_>>().join(", ");
                mistakes.push(format!("version {version} is given twice: {names}; renumber one"));
                continue;
            }
            for (name, pair) in names {
                match pair {
                    [Some(up), Some(down)] => all.push(Migration { version, name, up, down }),
                    [up, _] => {
                        let missing = if up.is_some() { "down" } else { "up" };
                        mistakes
                            .push(format!("version {version} ({name}) has no .{missing}.sql file; add it"));
                    }
                }
            }
        }
        let warnings = all.windows(2).filter(|pair| pair[1].version != pair[0].version + 1).map(|pair| {
            format!("there is a gap between versions {} and {}", pair[0].version, pair[1].version)
        });
        let warnings = warnings.collect();
        let directory = directory.to_owned();
        if mistakes.is_empty() {
            Ok(Self { directory, all, warnings })
        } else {
            Err(MigrateError::Files(mistakes))
        }
    }

    /// Things worth saying that stop nothing.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// All versions, ascending.
    pub fn all(&self) -> &[Migration] {
        &self.all
    }

    /// Writes an empty pair for the next version; answers the paths.
    pub fn create(&self, name: &str) -> Result<[PathBuf; 2], MigrateError> {
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .collect();
        let version = self.all.last().map_or(1, |last| last.version + 1);
        let paths = ["up", "down"].map(|way| self.directory.join(format!("{version:04}_{name}.{way}.sql")));
        for path in &paths {
            let mut options = std::fs::OpenOptions::new();
            let io = |error| MigrateError::Io { path: path.clone(), error };
            options.write(true).create_new(true).open(path).map_err(io)?;
        }
        Ok(paths)
    }

    fn version(&self, version: i64) -> Result<&Migration, MigrateError> {
        self.all
            .iter()
            .find(|m| m.version == version)
            .ok_or_else(|| MigrateError::Unknown(version, self.directory.clone()))
    }
}

fn parse_name(file: &str) -> Option<(i64, String, bool)> {
    let (stem, down) = match file.strip_suffix(".up.sql") {
        Some(stem) => (stem, false),
        None => (file.strip_suffix(".down.sql")?, true),
    };
    let (number, name) = stem.split_once('_')?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (digits && !name.is_empty()).then(|| Some((number.parse().ok()?, name.to_owned(), down)))?
}

/// Runs migrations in one database. Holds an advisory lock from `open` until it is dropped, so two runs wait for each other.
#[derive(Debug)]
pub struct Migrator {
    client: Client,
    migrations: Migrations,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Migrator {
    fn drop(&mut self) {
        // Ends the session, and with it the lock.
        self.connection.abort();
    }
}

/// Key of the advisory lock: "dsproxy" in ASCII.
const LOCK: i64 = 0x0064_7370_726f_7879;

const TABLE: &str = "create table if not exists dsproxy_migrations (version bigint primary key, name text not null, \
     dirty boolean not null default false, applied_at timestamptz not null default now())";

struct Applied {
    version: i64,
    name: String,
    dirty: bool,
    applied_at: String,
}

impl Migrator {
    /// Connects, waits for the lock, and creates the table of applied versions where it is missing.
    pub async fn open(url: &str, migrations: Migrations) -> Result<Self, MigrateError> {
        let mut config =
            Config::from_str(url).map_err(|_| SourceError::unavailable("the database URL cannot be read"))?;
        config.application_name("dsproxy migrate");
        let (client, connection) = config.connect(NoTls).await?;
        let connection = tokio::spawn(async move {
            let _ = connection.await; // its error reaches us through the client's calls
        });
        let migrator = Self { client, migrations, connection };
        migrator.client.batch_execute("set client_min_messages = warning; set timezone = 'UTC'").await?;
        migrator.client.execute("select pg_advisory_lock($1)", &[&LOCK]).await?;
        migrator.client.batch_execute(TABLE).await?;
        Ok(migrator)
    }

    async fn applied(&self) -> Result<Vec<Applied>, MigrateError> {
        let sql = "select version, name, dirty, to_char(applied_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
             from dsproxy_migrations order by version";
        let mut applied = Vec::new();
        for row in self.client.query(sql, &[]).await? {
            let (version, name) = (row.try_get(0)?, row.try_get(1)?);
            applied.push(Applied { version, name, dirty: row.try_get(2)?, applied_at: row.try_get(3)? });
        }
        Ok(applied)
    }

    /// Applied versions that nothing broke off.
    async fn clean(&self) -> Result<Vec<i64>, MigrateError> {
        let applied = self.applied().await?;
        match applied.iter().find(|a| a.dirty) {
            Some(dirty) => Err(MigrateError::Dirty(dirty.version)),
            None => Ok(applied.iter().map(|a| a.version).collect()),
        }
    }

    /// Every version of the directory or the database, ascending.
    pub async fn status(&self) -> Result<Vec<Status>, MigrateError> {
        let mut lines: BTreeMap<i64, Status> = BTreeMap::new();
        for m in &self.migrations.all {
            let (version, name) = (m.version, m.name.clone());
            lines.insert(version, Status { version, name, applied_at: None, dirty: false, missing: false });
        }
        for Applied { version, name, dirty, applied_at } in self.applied().await? {
            let line = lines.entry(version).or_insert(Status {
                version,
                name,
                applied_at: None,
                dirty,
                missing: true,
            });
            (line.applied_at, line.dirty) = (Some(applied_at), dirty);
        }
        Ok(lines.into_values().collect())
    }

    /// Applies what is not applied yet; answers the versions.
    pub async fn up(&mut self) -> Result<Vec<i64>, MigrateError> {
        let last = self.migrations.all.last().map_or(0, |m| m.version);
        self.up_to(last).await
    }

    /// Takes back the last `count` versions; answers them.
    pub async fn down(&mut self, count: usize) -> Result<Vec<i64>, MigrateError> {
        let mut applied = self.clean().await?;
        let back = applied.split_off(applied.len().saturating_sub(count));
        self.take_back(&back).await
    }

    /// Goes up or down until `target` is the newest applied version; 0 takes everything back.
    pub async fn goto(&mut self, target: i64) -> Result<Vec<i64>, MigrateError> {
        self.known(target)?;
        let applied = self.clean().await?;
        let back: Vec<i64> = applied.into_iter().filter(|v| *v > target).collect();
        let mut done = self.take_back(&back).await?;
        done.extend(self.up_to(target).await?);
        Ok(done)
    }

    /// Says that `target` and everything before it is applied, cleanly, and nothing after it, without running anything.
    pub async fn force(&mut self, target: i64) -> Result<(), MigrateError> {
        self.known(target)?;
        let transaction = self.client.transaction().await?;
        transaction.execute("delete from dsproxy_migrations where version > $1", &[&target]).await?;
        transaction.execute("update dsproxy_migrations set dirty = false", &[]).await?;
        for m in self.migrations.all.iter().filter(|m| m.version <= target) {
            let sql = "insert into dsproxy_migrations (version, name) values ($1, $2) on conflict do nothing";
            transaction.execute(sql, &[&m.version, &m.name]).await?;
        }
        Ok(transaction.commit().await?)
    }

    fn known(&self, target: i64) -> Result<(), MigrateError> {
        if target == 0 || self.migrations.all.iter().any(|m| m.version == target) {
            return Ok(());
        }
        let known = self.migrations.all.iter().map(|m| m.version.to_string()).collect::<Vec<_>>().join(", ");
        Err(MigrateError::NoSuchVersion(target, known))
    }

    async fn up_to(&mut self, target: i64) -> Result<Vec<i64>, MigrateError> {
        let applied = self.clean().await?;
        let new = |m: &&Migration| m.version <= target && !applied.contains(&m.version);
        let pending: Vec<Migration> = self.migrations.all.iter().filter(new).cloned().collect();
        for m in &pending {
            self.run(m, &m.up, true).await?;
        }
        Ok(pending.iter().map(|m| m.version).collect())
    }

    async fn take_back(&mut self, versions: &[i64]) -> Result<Vec<i64>, MigrateError> {
        let back: Result<Vec<_>, _> =
            versions.iter().rev().map(|v| self.migrations.version(*v).cloned()).collect();
        let back = back?;
        for m in &back {
            self.run(m, &m.down, false).await?;
        }
        Ok(back.iter().map(|m| m.version).collect())
    }

    async fn run(&mut self, m: &Migration, path: &Path, up: bool) -> Result<(), MigrateError> {
        let sql = std::fs::read_to_string(path)
            .map_err(|error| MigrateError::Io { path: path.to_owned(), error })?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bare = sql.lines().next().is_some_and(|line| line.trim() == "-- dsproxy: no transaction");
        let failed = |error: tokio_postgres::Error| MigrateError::Failed {
            file: file.clone(),
            error: explain(&error, &sql),
            dirty: bare,
        };
        if bare {
            self.mark(m, true).await?;
            self.client.batch_execute(&sql).await.map_err(failed)?;
            if up { self.mark(m, false).await } else { self.forget(m).await }
        } else {
            let transaction = self.client.transaction().await?;
            transaction.batch_execute(&sql).await.map_err(failed)?;
            match up {
                true => {
                    let sql = "insert into dsproxy_migrations (version, name) values ($1, $2)";
                    transaction.execute(sql, &[&m.version, &m.name]).await?
                }
                false => {
                    transaction
                        .execute("delete from dsproxy_migrations where version = $1", &[&m.version])
                        .await?
                }
            };
            transaction.commit().await.map_err(failed)
        }
    }

    async fn mark(&self, m: &Migration, dirty: bool) -> Result<(), MigrateError> {
        let sql = "insert into dsproxy_migrations (version, name, dirty) values ($1, $2, $3) \
             on conflict (version) do update set dirty = excluded.dirty";
        self.client.execute(sql, &[&m.version, &m.name, &dirty]).await?;
        Ok(())
    }

    async fn forget(&self, m: &Migration) -> Result<(), MigrateError> {
        self.client.execute("delete from dsproxy_migrations where version = $1", &[&m.version]).await?;
        Ok(())
    }
}

/// The database's words, with the line of the file where it names a position.
fn explain(error: &tokio_postgres::Error, sql: &str) -> String {
    use tokio_postgres::error::ErrorPosition;
    let Some(db) = error.as_db_error() else {
        return SourceError::unavailable(error.to_string()).to_string();
    };
    let line = match db.position() {
        Some(ErrorPosition::Original(at)) => {
            let lines = sql.chars().take(*at as usize).filter(|c| *c == '\n').count() + 1;
            format!(" at line {lines}")
        }
        _ => String::new(),
    };
    format!("{}{line} (SQLSTATE {})", db.message(), db.code().code())
}
