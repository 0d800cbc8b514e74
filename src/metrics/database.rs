//! Pools of connections, the circuit breaker and statements, asked for at every scrape.
//!
//! Must not know: which database it is.

use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::worker::{count, family, gauge, identity};

/// One pool of connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolGauge {
    /// What it is for.
    pub name: &'static str,
    /// Open connections.
    pub size: usize,
    /// Open connections at most.
    pub max: usize,
    /// Connections that run something.
    pub in_use: usize,
    /// Callers that wait.
    pub waiting: usize,
    /// Time that callers have waited since the start.
    pub waited: Duration,
    /// Callers that asked since the start.
    pub served: u64,
}

/// The database, as it is now.
#[derive(Clone, Debug, Default)]
pub struct DatabaseGauges {
    /// Its pools.
    pub pools: Vec<PoolGauge>,
    /// 0 closed, 1 half-open, 2 open.
    pub breaker: u8,
    /// How often the breaker opened.
    pub opened: u64,
    /// Calls that the breaker refused.
    pub refused: u64,
    /// Statements without an error, and with one.
    pub statements: (u64, u64),
    /// Time of all statements.
    pub statement_time: Duration,
    /// Loads that replicas served, were too far behind for, and failed.
    pub replica_loads: (u64, u64, u64),
}

/// Shows the database.
pub struct DatabaseCollector {
    ask: Box<dyn Fn() -> DatabaseGauges + Send + Sync>,
    first: Desc,
}

impl DatabaseCollector {
    /// `ask` gives the current numbers.
    ///
    /// # Errors
    /// Never in practice: the name of the first family is a valid one.
    pub fn new(ask: impl Fn() -> DatabaseGauges + Send + Sync + 'static) -> prometheus::Result<Self> {
        Ok(Self { ask: Box::new(ask), first: identity("dsproxy_database_pool_connections")? })
    }
}

impl Collector for DatabaseCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.first]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = (self.ask)();
        let gauges = |value: fn(&PoolGauge) -> f64| {
            now.pools.iter().map(|pool| gauge(&[("pool", pool.name)], value(pool))).collect()
        };
        let counters = |value: fn(&PoolGauge) -> f64| {
            now.pools.iter().map(|pool| count(&[("pool", pool.name)], value(pool))).collect()
        };
        let (ok, failed) = now.statements;
        let (served, behind, lost) = now.replica_loads;
        let replicas = [("served", served), ("behind", behind), ("failed", lost)];
        vec![
            family(
                "dsproxy_database_pool_connections",
                "Open connections, by pool (load, write, statement).",
                gauges(|pool| pool.size as f64),
                MetricType::GAUGE,
            ),
            family(
                "dsproxy_database_pool_max_connections",
                "Open connections at most.",
                gauges(|pool| pool.max as f64),
                MetricType::GAUGE,
            ),
            family(
                "dsproxy_database_pool_in_use",
                "Connections that run something.",
                gauges(|pool| pool.in_use as f64),
                MetricType::GAUGE,
            ),
            family(
                "dsproxy_database_pool_waiting",
                "Callers that wait for a connection.",
                gauges(|pool| pool.waiting as f64),
                MetricType::GAUGE,
            ),
            family(
                "dsproxy_database_pool_wait_seconds_total",
                "Time that callers have waited for a connection.",
                counters(|pool| pool.waited.as_secs_f64()),
                MetricType::COUNTER,
            ),
            family(
                "dsproxy_database_pool_gets_total",
                "Times that a connection was asked for.",
                counters(|pool| pool.served as f64),
                MetricType::COUNTER,
            ),
            family(
                "dsproxy_database_breaker_state",
                "The circuit breaker: 0 closed, 1 half-open, 2 open.",
                vec![gauge(&[], f64::from(now.breaker))],
                MetricType::GAUGE,
            ),
            family(
                "dsproxy_database_breaker_opened_total",
                "How often the circuit breaker opened.",
                vec![count(&[], now.opened as f64)],
                MetricType::COUNTER,
            ),
            family(
                "dsproxy_database_breaker_refused_total",
                "Loads and statements that failed at once because the circuit was open.",
                vec![count(&[], now.refused as f64)],
                MetricType::COUNTER,
            ),
            family(
                "dsproxy_database_replica_loads_total",
                "Loads that a read replica was asked for, by outcome (served, behind, failed); the latter two went to the primary.",
                replicas.map(|(outcome, loads)| count(&[("outcome", outcome)], loads as f64)).into(),
                MetricType::COUNTER,
            ),
            family(
                "dsproxy_statements_total",
                "Statements of routes, by outcome (ok, error).",
                vec![count(&[("outcome", "ok")], ok as f64), count(&[("outcome", "error")], failed as f64)],
                MetricType::COUNTER,
            ),
            family(
                "dsproxy_statement_seconds_total",
                "Time of the statements of routes.",
                vec![count(&[], now.statement_time.as_secs_f64())],
                MetricType::COUNTER,
            ),
        ]
    }
}
