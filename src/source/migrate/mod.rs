//! Schema migrations: paired SQL files, applied in order, remembered in the database.
//!
//! Must not know: mappings, the command line.
//!
//! `NNNN_name.up.sql` and `NNNN_name.down.sql` in one directory. Each file runs in one transaction together with its
//! entry in `dsproxy_migrations`, so a failed file leaves nothing behind. A file whose first line is
//! `-- dsproxy: no transaction` (for `create index concurrently`) runs outside of one: its entry is written first, marked
//! dirty, and cleared at its end; a dirty entry stops everything until `force` says what is true.

mod files;
mod postgres;
mod sqlite;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::DatabaseKind;
use super::error::SourceError;
pub use files::{Migration, Migrations};

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

/// Runs migrations in one database. Holds a lock from `open` until it is dropped, so that two runs wait for each other:
/// an advisory lock in Postgres, a lock on a file beside it for SQLite.
#[derive(Debug)]
pub struct Migrator {
    ledger: Ledger,
    migrations: Migrations,
}

/// What is applied, in the database itself.
#[derive(Debug)]
enum Ledger {
    Postgres(postgres::Ledger),
    Sqlite(sqlite::Ledger),
}

/// An entry of the ledger.
#[derive(Debug, Clone)]
struct Applied {
    version: i64,
    name: String,
    dirty: bool,
    /// RFC 3339.
    applied_at: String,
}

/// One file to be run.
#[derive(Debug, Clone)]
struct Script {
    version: i64,
    name: String,
    /// Name of the file, for messages.
    file: String,
    sql: String,
    /// Applies the version, or takes it back.
    up: bool,
    /// Not in a transaction.
    bare: bool,
}

impl Script {
    fn failed(&self, error: String) -> MigrateError {
        MigrateError::Failed { file: self.file.clone(), error, dirty: self.bare }
    }
}

impl Ledger {
    async fn applied(&mut self) -> Result<Vec<Applied>, MigrateError> {
        match self {
            Self::Postgres(ledger) => ledger.applied().await,
            Self::Sqlite(ledger) => ledger.applied().await,
        }
    }

    /// Runs a file together with its entry.
    async fn run(&mut self, script: Script) -> Result<(), MigrateError> {
        match self {
            Self::Postgres(ledger) => ledger.run(&script).await,
            Self::Sqlite(ledger) => ledger.run(script).await,
        }
    }

    /// Makes `kept` the applied versions, all clean, and nothing above `target`.
    async fn force(&mut self, target: i64, kept: Vec<(i64, String)>) -> Result<(), MigrateError> {
        match self {
            Self::Postgres(ledger) => ledger.force(target, &kept).await,
            Self::Sqlite(ledger) => ledger.force(target, kept).await,
        }
    }
}

/// What adds the column that holds the versions of a table's rows, and takes it away; the same in both databases. The table is
/// named as in a mapping.
pub fn version_column(table: &str, column: &str) -> [String; 2] {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let table = table.splitn(2, '.').map(quoted).collect::<Vec<_>>().join(".");
    let column = quoted(column);
    [
        format!("alter table {table} add column {column} bigint not null default 0;\n"),
        format!("alter table {table} drop column {column};\n"),
    ]
}

impl Migrator {
    /// Connects, waits for the lock, and creates the table of applied versions where it is missing.
    pub async fn open(url: &str, migrations: Migrations) -> Result<Self, MigrateError> {
        let ledger = match DatabaseKind::of(url) {
            DatabaseKind::Postgres => Ledger::Postgres(postgres::Ledger::open(url).await?),
            DatabaseKind::Sqlite => Ledger::Sqlite(sqlite::Ledger::open(url).await?),
        };
        Ok(Self { ledger, migrations })
    }

    /// Applied versions that nothing broke off.
    async fn clean(&mut self) -> Result<Vec<i64>, MigrateError> {
        let applied = self.ledger.applied().await?;
        match applied.iter().find(|a| a.dirty) {
            Some(dirty) => Err(MigrateError::Dirty(dirty.version)),
            None => Ok(applied.iter().map(|a| a.version).collect()),
        }
    }

    /// Every version of the directory or the database, ascending.
    pub async fn status(&mut self) -> Result<Vec<Status>, MigrateError> {
        let mut lines: BTreeMap<i64, Status> = BTreeMap::new();
        for m in &self.migrations.all {
            let (version, name) = (m.version, m.name.clone());
            lines.insert(version, Status { version, name, applied_at: None, dirty: false, missing: false });
        }
        for Applied { version, name, dirty, applied_at } in self.ledger.applied().await? {
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
        let kept = self.migrations.all.iter().filter(|m| m.version <= target);
        let kept = kept.map(|m| (m.version, m.name.clone())).collect();
        self.ledger.force(target, kept).await
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
        let (version, name) = (m.version, m.name.clone());
        self.ledger.run(Script { version, name, file, sql, up, bare }).await
    }
}
