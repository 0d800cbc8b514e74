//! `dsproxy dev`: the embedded servers, the schema, a little sample data, then the proxy.
//!
//! Must not know: how servers are started, how the proxy works.

use super::{Addresses, Server, StartErrors, shutdown_signal};
use crate::config::{Config, JournalConfig, Secret, UpstreamMode};
use crate::embedded::{Stack, StackError, StackOptions, write_env_file};
use crate::source::migrate::{MigrateError, Migrations, Migrator};
use crate::source::{DatabaseKind, SourceError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;
use thiserror::Error;
use tokio::runtime::Runtime;

/// Rows that make the first `GET user:1` a success. Loaded when the tables are empty.
const SAMPLE: &str = include_str!("sample.sql");
const SQLITE_SAMPLE: &str = include_str!("sample.sqlite.sql");
/// The migration whose tables the sample data are for.
const SAMPLE_MIGRATION: &str = "sample";

/// The database of `dsproxy dev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DevSource {
    /// A Postgres of its own
    Postgres,
    /// A SQLite file: no server is needed
    Sqlite,
}

impl DevSource {
    /// As asked for; else SQLite where the configuration names a SQLite file.
    fn choose(asked: Option<Self>, config: &Config) -> Self {
        let configured = config.database.url.as_ref().map(|url| DatabaseKind::of(url.expose()));
        asked.unwrap_or(match configured {
            Some(DatabaseKind::Sqlite) => Self::Sqlite,
            _ => Self::Postgres,
        })
    }

    /// Where its migrations are, unless a directory is named.
    fn migrations(self) -> &'static Path {
        Path::new(match self {
            Self::Postgres => "migrations",
            Self::Sqlite => "migrations/sqlite",
        })
    }
}

/// Why `dsproxy dev` cannot run.
#[derive(Debug, Error)]
pub enum DevError {
    /// The embedded servers.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The schema.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The sample data.
    #[error("cannot load the sample data: {0}")]
    Sample(#[from] SourceError),
    /// The proxy.
    #[error(transparent)]
    Start(#[from] StartErrors),
    /// The runtime.
    #[error("{0}")]
    Runtime(String),
    /// Rows that could not be written at the end.
    #[error("{0} rows could not be written to the database before the end")]
    RowsLeft(usize),
}

/// Runs everything until Ctrl-C or SIGTERM. Must be called on the main thread: the embedded servers end with it.
///
/// # Errors
/// [`DevError`]; everything that was started is stopped then.
pub fn dev(
    mut config: Config,
    source: Option<DevSource>,
    migrations: Option<&Path>,
    runtime: impl FnOnce() -> Result<Runtime, String>,
) -> Result<(), DevError> {
    let begun = Instant::now();
    let directory = PathBuf::from(&config.dev.directory);
    let source = DevSource::choose(source, &config);
    let migrations = migrations.unwrap_or(source.migrations());
    let with_postgres = source == DevSource::Postgres;
    let shards = config.dev.shards;
    let mut stack =
        Stack::start(StackOptions { shards, with_postgres, ..StackOptions::durable(&directory) })?;
    point_at(&mut config, &stack, source);
    let outcome = match runtime() {
        Ok(runtime) => runtime.block_on(serve(&config, &stack, migrations, begun)),
        Err(message) => Err(DevError::Runtime(message)),
    };
    let _ = std::fs::remove_file(stack.dir().join("env"));
    stack.stop();
    outcome
}

/// The embedded servers are the upstream and the database, whatever the file says; but for a SQLite file that it names. The
/// journal is theirs, too, and stands beside their data unless it has a place of its own.
fn point_at(config: &mut Config, stack: &Stack, source: DevSource) {
    config.upstream.mode = UpstreamMode::Cluster;
    config.upstream.nodes = stack.redis_nodes().iter().map(ToString::to_string).collect();
    config.upstream.username = None;
    config.upstream.password = None;
    let named =
        config.database.url.take().filter(|url| DatabaseKind::of(url.expose()) == DatabaseKind::Sqlite);
    config.database.url = match source {
        DevSource::Postgres => stack.database_url().map(Secret::new),
        DevSource::Sqlite => {
            let own = || Secret::new(format!("sqlite:{}", stack.dir().join("dev.db").display()));
            Some(named.unwrap_or_else(own))
        }
    };
    if config.journal.data_dir == JournalConfig::default().data_dir {
        config.journal.data_dir = stack.dir().join("journal").display().to_string();
    }
}

async fn serve(config: &Config, stack: &Stack, migrations: &Path, begun: Instant) -> Result<(), DevError> {
    if let Some(url) = &config.database.url {
        let migrations = Migrations::read(migrations)?;
        let has_samples = migrations.all().iter().any(|migration| migration.name == SAMPLE_MIGRATION);
        let applied = Migrator::open(url.expose(), migrations).await?.up().await?;
        tracing::info!(?applied, "the schema is up to date");
        if has_samples {
            let sample = match DatabaseKind::of(url.expose()) {
                DatabaseKind::Postgres => SAMPLE,
                DatabaseKind::Sqlite => SQLITE_SAMPLE,
            };
            super::database::run_script(config, sample).await?;
        }
    }
    let server = Server::start(config).await?;
    let addresses = server.addresses();
    write_env_file(&stack.dir().join("env"), &environment(config, addresses))?;
    // A closed standard output must not end the proxy.
    let _ = welcome(config, addresses, begun, stack.dir());
    match server.run(shutdown_signal()).await {
        0 => Ok(()),
        left => Err(DevError::RowsLeft(left)),
    }
}

fn environment(config: &Config, addresses: Addresses) -> Vec<(&'static str, String)> {
    let url = config.database.url.as_ref().map(|url| url.expose().to_owned()).unwrap_or_default();
    vec![
        ("DATABASE_URL", url),
        ("REDIS_NODES", config.upstream.nodes.join(",")),
        ("PROXY_ADDR", addresses.resp.map(|resp| resp.to_string()).unwrap_or_default()),
        ("HTTP_ADDR", addresses.http.map(|http| http.to_string()).unwrap_or_default()),
        ("PROXY_PID", std::process::id().to_string()),
    ]
}

/// What runs where, and five lines to paste.
fn welcome(config: &Config, addresses: Addresses, begun: Instant, dir: &Path) -> io::Result<()> {
    let port = addresses.resp.map_or(0, |resp| resp.port());
    let http = addresses.http.map(|http| http.to_string()).unwrap_or_else(|| "(off)".into());
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "\ndsproxy is up after {:.1} s (Ctrl-C stops everything)\n",
        begun.elapsed().as_secs_f64()
    )?;
    let resp = addresses.resp.map(|resp| resp.to_string()).unwrap_or_else(|| "(off)".into());
    writeln!(out, "  Redis clients   {resp}")?;
    writeln!(out, "  HTTP            http://{http}")?;
    let database = config.database.url.as_ref().map(|url| DatabaseKind::of(url.expose()));
    let database = database.map_or("no database", DatabaseKind::name);
    writeln!(out, "  behind it       {} and {database}", config.upstream.nodes.join(" "))?;
    writeln!(out, "  for scripts     . {}/env\n", dir.display())?;
    writeln!(out, "Try:\n")?;
    writeln!(out, "  redis-cli -p {port} SET greeting hello")?;
    writeln!(out, "  redis-cli -p {port} GET user:1")?;
    writeln!(out, "  redis-cli -p {port} SET user:1 '{{\"name\":\"Ada\"}}'")?;
    writeln!(out, "  curl -s http://{http}/write -d '{{\"user_id\":\"user1\",\"value\":\"hello world\"}}'")?;
    writeln!(out, "  curl -s http://{http}/metrics | grep ^cache_\n")?;
    out.flush()
}
