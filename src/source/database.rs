//! A database by its URL.
//!
//! Must not know: mappings, but to hand them on.

use std::time::Duration;

use super::OpenError;
use super::backend::Backend;
use super::error::SourceError;
use super::postgres::{self, Postgres, PostgresOptions};
use super::sqlite::{self, Sqlite, SqliteOptions};
use crate::mapping::MappingSet;

/// Limits of the pools and of each statement, whatever the database.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// Open connections at most (1..). A quarter is for writes, a quarter for statements, the rest for loads; each has
    /// one at least.
    pub max_connections: usize,
    /// Longest time a statement may run.
    pub statement_timeout: Duration,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time to wait for a free connection.
    pub wait_timeout: Duration,
    /// Longest value of a key, and most bytes that one statement answers.
    pub max_value_bytes: usize,
    /// URLs of read replicas, of Postgres.
    pub replicas: Vec<String>,
    /// Longest time that a load waits for a replica to have seen what the primary has.
    pub replica_wait: Duration,
    /// Connections to Postgres that were not used for so long are closed; zero = never.
    pub max_idle_time: Duration,
    /// Those that are older are closed while nobody uses them; zero = never.
    pub max_lifetime: Duration,
}

/// Which database a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// `postgres://..`
    Postgres,
    /// `sqlite:path`
    Sqlite,
}

impl DatabaseKind {
    /// By the scheme of `url`.
    pub fn of(url: &str) -> Self {
        if url.starts_with(sqlite::SCHEME) { Self::Sqlite } else { Self::Postgres }
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "Postgres",
            Self::Sqlite => "SQLite",
        }
    }
}

/// A database that answers, before mappings are held against it.
#[derive(Debug, Clone)]
pub enum Database {
    /// Postgres.
    Postgres(Postgres),
    /// SQLite.
    Sqlite(Sqlite),
}

impl From<Postgres> for Database {
    fn from(postgres: Postgres) -> Self {
        Self::Postgres(postgres)
    }
}

impl From<Sqlite> for Database {
    fn from(sqlite: Sqlite) -> Self {
        Self::Sqlite(sqlite)
    }
}

impl Database {
    /// Connects, so that a wrong address or password is found now.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn connect(url: &str, options: &DatabaseOptions) -> Result<Self, SourceError> {
        let (loads, others) = options.split();
        Ok(match DatabaseKind::of(url) {
            DatabaseKind::Postgres => Self::Postgres(
                Postgres::connect(
                    url,
                    &PostgresOptions {
                        read_connections: loads,
                        write_connections: others,
                        statement_connections: others,
                        statement_timeout: options.statement_timeout,
                        connect_timeout: options.connect_timeout,
                        wait_timeout: options.wait_timeout,
                        max_value_bytes: options.max_value_bytes,
                        replicas: options.replicas.clone(),
                        replica_wait: options.replica_wait,
                        max_idle_time: options.max_idle_time,
                        max_lifetime: options.max_lifetime,
                        ..PostgresOptions::default()
                    },
                )
                .await?,
            ),
            DatabaseKind::Sqlite => Self::Sqlite(
                Sqlite::open(
                    url,
                    &SqliteOptions {
                        read_connections: loads,
                        statement_connections: others,
                        statement_timeout: options.statement_timeout,
                        wait_timeout: options.wait_timeout,
                        max_value_bytes: options.max_value_bytes,
                    },
                )
                .await?,
            ),
        })
    }

    /// Runs a script of several statements.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn run_script(&self, script: &str) -> Result<(), SourceError> {
        match self {
            Self::Postgres(postgres) => postgres.run_script(script).await,
            Self::Sqlite(sqlite) => sqlite.run_script(script).await,
        }
    }

    /// Makes the proxy's own tables, or brings them up to date.
    ///
    /// # Errors
    /// [`SourceError`]; where rights are missing, it names them.
    pub async fn prepare_ledger(self) -> Result<(), SourceError> {
        match self.bind(&MappingSet::default()).await {
            Ok(backend) => backend.prepare_ledger().await,
            Err(OpenError::Source(error)) => Err(error),
            // There is no mapping that could be at fault.
            Err(OpenError::Misfits(_)) => Ok(()),
        }
    }

    pub(super) async fn bind(self, set: &MappingSet) -> Result<Box<dyn Backend>, OpenError> {
        Ok(match self {
            Self::Postgres(postgres) => Box::new(postgres::bind(postgres, set).await?),
            Self::Sqlite(sqlite) => Box::new(sqlite::bind(sqlite, set).await?),
        })
    }
}

impl DatabaseOptions {
    /// Connections for loads, and for writes and statements each.
    fn split(&self) -> (usize, usize) {
        let others = (self.max_connections / 4).max(1);
        (self.max_connections.saturating_sub(2 * others).max(1), others)
    }
}
