//! The database of the configuration: opened, and shown in the metrics.
//!
//! Must not know: what its rows are for.

use super::route_check;
use super::server::both;
use super::specs::spec;
use super::{StartError, StartErrors};
use crate::config::Config;
use crate::mapping::MappingSet;
use crate::metrics::{DatabaseCollector, DatabaseGauges, Metrics, PoolGauge};
use crate::source::{BreakerOptions, BreakerState, Database, DatabaseOptions, Source, SourceError};
use std::sync::Arc;

/// Connects to the database and holds mappings and routes against it. `None` without mappings.
pub(super) async fn open_source(config: &Config) -> Result<Option<Source>, StartErrors> {
    let needed = !config.mappings.is_empty() || config.routes.iter().any(|route| route.sql.is_some());
    let (Some(url), true) = (&config.database.url, needed) else { return Ok(None) };
    let specs = config.mappings.iter().map(|mapping| spec(mapping, config.write_behind.max_held));
    let set = MappingSet::new(specs.collect()).map_err(|errors| {
        StartErrors(errors.into_iter().map(|e| StartError::Mapping(e.to_string())).collect())
    });
    let database = Database::connect(url.expose(), &database_options(config)).await;
    let (set, database) = both(set, database.map_err(StartErrors::from))?;
    let source = Source::open(database, set).await?.with_breaker(breaker_options(config));
    route_check::check(config, &source).await?;
    Ok(Some(source))
}

/// Makes the proxy's own tables, or brings them up to date.
pub(super) async fn prepare_ledger(config: &Config) -> Result<(), SourceError> {
    let Some(url) = &config.database.url else { return Ok(()) };
    Database::connect(url.expose(), &database_options(config)).await?.prepare_ledger().await
}

/// Runs a script of several statements.
pub(super) async fn run_script(config: &Config, script: &str) -> Result<(), SourceError> {
    let Some(url) = &config.database.url else { return Ok(()) };
    Database::connect(url.expose(), &database_options(config)).await?.run_script(script).await
}

fn database_options(config: &Config) -> DatabaseOptions {
    let database = &config.database;
    DatabaseOptions {
        max_connections: database.max_connections,
        statement_timeout: database.statement_timeout,
        connect_timeout: database.connect_timeout,
        wait_timeout: config.read_through.timeout,
        max_value_bytes: database.max_value_bytes,
        replicas: database.replicas.iter().map(|url| url.expose().to_owned()).collect(),
        replica_wait: database.replica_wait,
        max_idle_time: database.max_idle_time,
        max_lifetime: database.max_lifetime,
    }
}

fn breaker_options(config: &Config) -> BreakerOptions {
    let database = &config.database;
    BreakerOptions {
        failures: database.breaker_failures,
        probe_min: database.breaker_probe_min,
        probe_max: database.breaker_probe_max,
    }
}

/// Shows pools, circuit breaker and statements at every scrape.
pub(super) fn show(metrics: &Metrics, source: &Arc<Source>) -> prometheus::Result<()> {
    let source = source.clone();
    metrics.registry().register(Box::new(DatabaseCollector::new(move || gauges(&source))?))
}

fn gauges(source: &Source) -> DatabaseGauges {
    let pools = source.pools().into_iter().map(|pool| PoolGauge {
        name: pool.name,
        size: pool.size,
        max: pool.max,
        in_use: pool.in_use,
        waiting: pool.waiting,
        waited: pool.waited,
        served: pool.served,
    });
    let (state, counts) = source.breaker();
    let (statements, replicas) = (source.statements(), source.replicas());
    DatabaseGauges {
        pools: pools.collect(),
        breaker: match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open(_) => 2,
        },
        opened: counts.opened,
        refused: counts.refused,
        statements: (statements.ok, statements.failed),
        statement_time: statements.took,
        replica_loads: (replicas.served, replicas.behind, replicas.failed),
    }
}
