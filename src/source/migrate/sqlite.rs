//! Applied migrations in SQLite.
//!
//! Must not know: migration files.
//!
//! Each file and its entry are one exclusive transaction. A file beside the database is locked for the whole run: a
//! transaction could not span files that must run outside of one.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{Applied, MigrateError, Script};
use crate::source::error::SourceError;
use crate::source::sqlite::path_of;

const TABLE: &str = "create table if not exists dsproxy_migrations (version integer primary key, name text not null, \
     dirty boolean not null default 0, applied_at datetime not null default (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')))";

/// How long a proxy that writes to the file may hold it up.
const LOCK_WAIT: Duration = Duration::from_secs(30);

impl From<rusqlite::Error> for MigrateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Source(error.into())
    }
}

/// A connection, and the lock that ends with it.
#[derive(Debug)]
pub(super) struct Ledger {
    /// `None` while a thread has it.
    connection: Option<Connection>,
    _lock: File,
}

impl Ledger {
    pub async fn open(url: &str) -> Result<Self, MigrateError> {
        let path = path_of(url);
        blocking(move || {
            let mut beside = path.clone().into_os_string();
            beside.push("-migrate.lock");
            let beside = PathBuf::from(beside);
            let io = |error| MigrateError::Io { path: beside.clone(), error };
            let lock = File::create(&beside).map_err(io)?;
            lock.lock().map_err(io)?;
            let connection = Connection::open(&path)?;
            connection.busy_timeout(LOCK_WAIT)?;
            connection.execute_batch("pragma journal_mode = wal; pragma foreign_keys = on")?;
            connection.execute_batch(TABLE)?;
            Ok(Self { connection: Some(connection), _lock: lock })
        })
        .await
    }

    pub async fn applied(&mut self) -> Result<Vec<Applied>, MigrateError> {
        self.run_blocking(|connection| {
            let sql = "select version, name, dirty, applied_at from dsproxy_migrations order by version";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                let (version, name) = (row.get(0)?, row.get(1)?);
                Ok(Applied { version, name, dirty: row.get(2)?, applied_at: row.get(3)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn force(&mut self, target: i64, kept: Vec<(i64, String)>) -> Result<(), MigrateError> {
        self.run_blocking(move |connection| {
            let transaction = Transaction::new(connection, TransactionBehavior::Exclusive)?;
            transaction.execute("delete from dsproxy_migrations where version > ?1", [target])?;
            transaction.execute("update dsproxy_migrations set dirty = 0", [])?;
            for (version, name) in kept {
                let sql = "insert or ignore into dsproxy_migrations (version, name) values (?1, ?2)";
                transaction.execute(sql, params![version, name])?;
            }
            Ok(transaction.commit()?)
        })
        .await
    }

    pub async fn run(&mut self, script: Script) -> Result<(), MigrateError> {
        self.run_blocking(move |connection| match script.bare {
            true => bare(connection, &script),
            false => in_transaction(connection, &script),
        })
        .await
    }

    async fn run_blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> Result<T, MigrateError> + Send + 'static,
    ) -> Result<T, MigrateError> {
        let gone = || SourceError::unavailable("an earlier migration was broken off");
        let mut connection = self.connection.take().ok_or_else(gone)?;
        let (connection, result) = blocking(move || {
            let result = work(&mut connection);
            Ok((connection, result))
        })
        .await?;
        self.connection = Some(connection);
        result
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MigrateError> + Send + 'static,
) -> Result<T, MigrateError> {
    let broke = |_| MigrateError::from(SourceError::unavailable("the migration broke off"));
    tokio::task::spawn_blocking(work).await.map_err(broke)?
}

fn in_transaction(connection: &mut Connection, script: &Script) -> Result<(), MigrateError> {
    let failed = |error: rusqlite::Error| script.failed(explain(error, &script.sql));
    let transaction = Transaction::new(connection, TransactionBehavior::Exclusive)?;
    transaction.execute_batch(&script.sql).map_err(failed)?;
    match script.up {
        true => {
            let sql = "insert into dsproxy_migrations (version, name) values (?1, ?2)";
            transaction.execute(sql, params![script.version, script.name])?
        }
        false => {
            transaction.execute("delete from dsproxy_migrations where version = ?1", [script.version])?
        }
    };
    transaction.commit().map_err(failed)
}

fn bare(connection: &Connection, script: &Script) -> Result<(), MigrateError> {
    let mark = |dirty: bool| {
        let sql = "insert into dsproxy_migrations (version, name, dirty) values (?1, ?2, ?3) \
                   on conflict (version) do update set dirty = excluded.dirty";
        connection.execute(sql, params![script.version, script.name, dirty])
    };
    mark(true)?;
    if let Err(error) = connection.execute_batch(&script.sql) {
        if !connection.is_autocommit() {
            // The file began a transaction of its own: it must not swallow the entry.
            connection.execute_batch("rollback")?;
        }
        return Err(script.failed(explain(error, &script.sql)));
    }
    match script.up {
        true => mark(false)?,
        false => connection.execute("delete from dsproxy_migrations where version = ?1", [script.version])?,
    };
    Ok(())
}

/// SQLite's words, with the line of the file where it names a position.
fn explain(error: rusqlite::Error, sql: &str) -> String {
    let line = match &error {
        rusqlite::Error::SqlInputError { sql: rest, offset, .. } => {
            // The statement that failed is the start of what remains of the file.
            let at = sql.len().saturating_sub(rest.len()) + usize::try_from(*offset).unwrap_or(0);
            let lines = sql.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
            format!(" at line {lines}")
        }
        _ => String::new(),
    };
    let text = match &error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    };
    format!("{text}{line}")
}
