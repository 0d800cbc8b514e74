//! `dsproxy check` and `dsproxy migrate`: say how things stand, without serving anybody.
//!
//! Must not know: the command line.

use super::server::upstream_options;
use super::{StartError, StartErrors, database, doors, eviction, security};
use crate::cluster::{Discovery, Topology};
use crate::config::{Config, WritePolicy};
use crate::mapping::WriteMode;
use crate::source::migrate::{MigrateError, Migrations, Migrator, version_column};
use crate::source::{LedgerState, SourceError};
use crate::tls::Dialer;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;

/// Connects to everything; a report of the resolved routes.
///
/// # Errors
/// Everything that is wrong, not just the first.
pub async fn check(config: &Config) -> Result<String, StartErrors> {
    let dialer = doors::dialer(config)?;
    let (topology, source) =
        tokio::join!(Discovery::start(upstream_options(config, dialer)), database::open_source(config));
    let mut errors: Vec<StartError> = Vec::new();
    let topology = topology.map_err(|error| errors.push(error.into())).ok();
    let source = source.map_err(|found| errors.extend(found.0)).ok();
    if !errors.is_empty() {
        return Err(StartErrors(errors));
    }
    let mut report = String::from("configuration: ok\n");
    if let Some(discovery) = topology {
        let topology = discovery.watch().borrow().clone();
        describe_topology(&mut report, discovery.server_version(), &topology);
        warn_of_eviction(&mut report, config, &topology, doors::dialer(config)?).await;
        let access = security::access(config, discovery.learned(), Arc::default())?;
        security::describe(config, &access, &mut report);
    }
    if let Some(source) = source.flatten() {
        if source.mappings().iter().any(|mapping| mapping.write != WriteMode::None) {
            describe_ledger(&mut report, &source.ledger_state().await?);
        }
        for mapping in source.mappings().iter() {
            let table = mapping.table.as_deref().unwrap_or("(custom load)");
            let _ = writeln!(report, "mapping: {} -> {} -> {table}", mapping.template.source(), mapping.name);
        }
        for route in &config.routes {
            let _ = writeln!(
                report,
                "route: {} {} -> {}",
                crate::http::method_of(route.method),
                route.path,
                route.name
            );
        }
    }
    Ok(report)
}

fn describe_ledger(report: &mut String, state: &LedgerState) {
    let LedgerState { missing, outdated } = state;
    if !missing.is_empty() {
        let _ = writeln!(report, "the proxy's own tables: {} will be made at the start", missing.join(", "));
    }
    if *outdated {
        let _ = writeln!(
            report,
            "the proxy's own tables: dsproxy_dead_letters will be brought up to date at the start"
        );
    }
    if missing.is_empty() && !outdated {
        report.push_str("the proxy's own tables: ok\n");
    }
}

/// Where mappings are written.
async fn warn_of_eviction(report: &mut String, config: &Config, topology: &Topology, dialer: Option<Dialer>) {
    if config.mappings.iter().all(|mapping| mapping.write == WritePolicy::None) {
        return;
    }
    for evicting in eviction::look(topology, &upstream_options(config, dialer)).await {
        let _ = writeln!(report, "warning: {}", eviction::warning(&evicting));
    }
}

fn describe_topology(report: &mut String, version: &str, topology: &Topology) {
    let _ =
        writeln!(report, "upstream: ok, Redis {version}, {} node(s) that own slots", topology.nodes().len());
    for (index, node) in topology.nodes().iter().enumerate() {
        let slots = (0..crate::slot::SLOTS).filter(|slot| topology.owner(*slot) == Some(index)).count();
        let _ = writeln!(report, "  {}: {slots} slots", node.addr);
    }
}

/// What `dsproxy migrate` is to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum MigrateStep {
    /// Apply everything that is not applied yet
    Up,
    /// Take back the newest COUNT versions
    Down {
        /// How many
        #[arg(default_value_t = 1)]
        count: usize,
    },
    /// Go up or down to VERSION (0: take everything back)
    Goto {
        /// The version that is to be the newest
        version: i64,
    },
    /// Say that VERSION and all before it are applied, without running anything (after a broken migration was mended)
    Force {
        /// The version that is to count as the newest
        version: i64,
    },
    /// List the versions and whether they are applied
    Status,
    /// Write a pair of files for a new version, empty or with what adds a mapping's version column
    Create {
        /// Its name
        #[arg(required_unless_present = "version_column")]
        name: Option<String>,
        /// Add the column that holds the version of each row of this mapping's table
        #[arg(long, value_name = "MAPPING")]
        version_column: Option<String>,
    },
}

/// Why a migration could not be run.
#[derive(Debug, Error)]
pub enum MigrateFailure {
    /// The files, or the database.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The database.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A mapping that has no table to add a column to.
    #[error("--version-column {0}: the configuration has no mapping of this name that names a `table`")]
    NoTable(String),
    /// No database to migrate.
    #[error("no database is configured; set [database] url in proxy.toml, or DATABASE_URL")]
    NoDatabase,
}

/// Writes a pair of files, empty or with what adds the version column of `mapping`.
fn create(
    config: &Config,
    migrations: &Migrations,
    name: Option<&str>,
    mapping: Option<&str>,
    report: &mut String,
) -> Result<(), MigrateFailure> {
    let mut sql = [String::new(), String::new()];
    if let Some(wanted) = mapping {
        let found = config.mappings.iter().find(|mapping| mapping.name == wanted);
        let table = found.and_then(|mapping| Some((mapping, mapping.table.as_deref()?)));
        let (mapping, table) = table.ok_or_else(|| MigrateFailure::NoTable(wanted.to_owned()))?;
        let column = mapping.version_column.as_deref().unwrap_or("version");
        sql = version_column(table, column);
        if mapping.version_column.is_none() {
            let _ = writeln!(
                report,
                "when it is applied: set version_column = \"{column}\" in mapping \"{wanted}\", with version_table = true for as long as other proxies are without"
            );
        }
    }
    let default = mapping.map(|mapping| format!("{mapping}_version"));
    let name = name.or(default.as_deref()).unwrap_or_default();
    for path in migrations.create(name, [&sql[0], &sql[1]])? {
        let _ = writeln!(report, "created {}", path.display());
    }
    Ok(())
}

/// Runs one step; a report of what was done.
///
/// # Errors
/// [`MigrateFailure`].
pub async fn migrate(config: &Config, directory: &Path, step: MigrateStep) -> Result<String, MigrateFailure> {
    let migrations = Migrations::read(directory)?;
    let mut report = String::new();
    for warning in migrations.warnings() {
        let _ = writeln!(report, "warning: {warning}");
    }
    if let MigrateStep::Create { name, version_column } = &step {
        create(config, &migrations, name.as_deref(), version_column.as_deref(), &mut report)?;
        return Ok(report);
    }
    let url = config.database.url.as_ref().ok_or(MigrateFailure::NoDatabase)?;
    let mut migrator = Migrator::open(url.expose(), migrations).await?;
    let done = match step {
        MigrateStep::Up => {
            let done = migrator.up().await?;
            // Their owner brings them up to date here; the proxy's role need not be it.
            if config.mappings.iter().any(|mapping| mapping.write != WritePolicy::None) {
                database::prepare_ledger(config).await?;
                report.push_str("the proxy's own tables are up to date\n");
            }
            done
        }
        MigrateStep::Down { count } => migrator.down(count).await?,
        MigrateStep::Goto { version } => migrator.goto(version).await?,
        MigrateStep::Force { version } => {
            migrator.force(version).await?;
            let _ = writeln!(report, "version {version} counts as the newest applied one");
            return Ok(report);
        }
        MigrateStep::Status | MigrateStep::Create { .. } => {
            for line in migrator.status().await? {
                let state = match (line.applied_at, line.dirty, line.missing) {
                    (_, true, _) => "broken off half-way: mend it, then `migrate force`".to_owned(),
                    (Some(at), _, true) => format!("applied {at}, but its files are gone"),
                    (Some(at), ..) => format!("applied {at}"),
                    (None, ..) => "not applied".to_owned(),
                };
                let _ = writeln!(report, "{:>6} {:<32} {state}", line.version, line.name);
            }
            return Ok(report);
        }
    };
    match done.as_slice() {
        [] => report.push_str("nothing to do\n"),
        versions => versions.iter().for_each(|version| {
            let _ = writeln!(report, "done: {version}");
        }),
    }
    Ok(report)
}
