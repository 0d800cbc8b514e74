//! Connections to Postgres: pools, session settings, deadlines.
//!
//! Must not know: mappings.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::Config;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::replica::Replicas;
use super::tls::connector;

use crate::source::backend::PoolState;
use crate::source::error::SourceError;

/// Limits of the pools and of each statement.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Connections for loading rows (1..).
    pub read_connections: usize,
    /// Connections for writing; a pool of their own, so that loads and flushes cannot starve each other (1..).
    pub write_connections: usize,
    /// Connections for statements of routes; a pool of their own for the same reason (1..).
    pub statement_connections: usize,
    /// Longest time a statement may run: enforced by the server, and by us a little later.
    pub statement_timeout: Duration,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time to wait for a free connection.
    pub wait_timeout: Duration,
    /// Longest value of a key, and most bytes that one statement answers.
    pub max_value_bytes: usize,
    /// Connections that were not used for so long are closed; zero = never.
    pub max_idle_time: Duration,
    /// Connections that are older are closed while nobody uses them; zero = never.
    pub max_lifetime: Duration,
    /// URLs of read replicas.
    pub replicas: Vec<String>,
    /// Longest time that a load waits for a replica to have seen what the primary has.
    pub replica_wait: Duration,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            read_connections: 8,
            write_connections: 4,
            statement_connections: 4,
            statement_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            wait_timeout: Duration::from_secs(5),
            max_value_bytes: 64 << 20,
            max_idle_time: Duration::ZERO,
            max_lifetime: Duration::ZERO,
            replicas: Vec::new(),
            replica_wait: Duration::from_millis(50),
            application_name: "dsproxy".into(),
        }
    }
}

/// A Postgres database. Cheap to clone: clones share the pools.
#[derive(Clone)]
pub struct Postgres {
    loads: Arc<Lane>,
    writes: Arc<Lane>,
    statements: Arc<Lane>,
    deadline: Duration,
    max_value_bytes: usize,
    replicas: Vec<Postgres>,
    replica_wait: Duration,
    /// How long a connection may be idle, and how old it may get.
    lives: (Duration, Duration),
    /// For cancelling, which needs a connection of its own.
    tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("pools", &self.pools()).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Prepares the pools without connecting yet. `url` is a `postgres://` URL or a key=value string.
    pub fn new(url: &str, options: &PostgresOptions) -> Result<Self, SourceError> {
        let (config, tls) = session(url, options)?;
        let alone = PostgresOptions { replicas: Vec::new(), ..options.clone() };
        let lane =
            |name, size| Ok::<_, SourceError>(Arc::new(Lane::new(name, &config, &tls, size, options)?));
        Ok(Self {
            loads: lane("load", options.read_connections)?,
            writes: lane("write", options.write_connections)?,
            statements: lane("statement", options.statement_connections)?,
            // Later than the server's own timeout: its error is the better one, ours is for a server that is gone.
            deadline: options.statement_timeout + Duration::from_millis(500),
            max_value_bytes: options.max_value_bytes,
            replicas: options.replicas.iter().map(|url| Self::new(url, &alone)).collect::<Result<_, _>>()?,
            replica_wait: options.replica_wait,
            lives: (options.max_idle_time, options.max_lifetime),
            tls,
        })
    }

    /// `new`, and a first connection, so that a wrong address or password is found now.
    pub async fn connect(url: &str, options: &PostgresOptions) -> Result<Self, SourceError> {
        let postgres = Self::new(url, options)?;
        postgres.ping().await?;
        Ok(postgres)
    }

    /// Runs a script of several statements, on a writing connection.
    pub async fn run_script(&self, script: &str) -> Result<(), SourceError> {
        let client = self.writer().await?;
        self.bounded(client, async |client| Ok(client.batch_execute(script).await?)).await
    }

    /// Closes connections that are idle for too long, or too old.
    fn prune(&self) {
        let within = |limit: Duration, time: Duration| limit.is_zero() || time < limit;
        let (idle, life) = self.lives;
        for lane in [&self.loads, &self.writes, &self.statements] {
            lane.pool.retain(|_, known| within(idle, known.last_used()) && within(life, known.age()));
        }
        self.replicas.iter().for_each(Self::prune);
    }

    /// Whether the database answers. Connections whose time is up are closed before.
    pub async fn ping(&self) -> Result<(), SourceError> {
        self.prune();
        let client = self.reader().await?;
        self.bounded(client, async |client| Ok(client.batch_execute("").await?)).await
    }

    /// The pools, as they are now.
    pub fn pools(&self) -> Vec<PoolState> {
        [&self.loads, &self.writes, &self.statements].map(|lane| lane.state()).into()
    }

    /// Closes the pools; calls fail from now on.
    pub fn close(&self) {
        [&self.loads, &self.writes, &self.statements].into_iter().for_each(|lane| lane.pool.close());
    }

    /// Its read replicas.
    pub(super) fn replicas(&self) -> Replicas {
        Replicas::new(self.replicas.clone(), self.replica_wait)
    }

    /// Statements are prepared anew when they are next needed.
    pub(super) fn forget_statements(&self) {
        for lane in [&self.loads, &self.writes, &self.statements] {
            lane.pool.manager().statement_caches.clear();
        }
    }

    /// Longest value of a key, and most bytes that one statement answers.
    pub(super) fn max_value_bytes(&self) -> usize {
        self.max_value_bytes
    }

    pub(super) async fn reader(&self) -> Result<Object, SourceError> {
        self.loads.get().await
    }

    pub(super) async fn writer(&self) -> Result<Object, SourceError> {
        self.writes.get().await
    }

    pub(super) async fn for_statement(&self) -> Result<Object, SourceError> {
        self.statements.get().await
    }

    /// Runs `work` within the deadline. When it is over, or when this future is dropped, the statement is cancelled at
    /// the server and the connection is not used again: its answers would be read by the next user.
    pub(super) async fn bounded<T>(
        &self,
        client: Object,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let mut guard = Unfinished(Some(client), self.tls.clone());
        let Some(client) = guard.0.as_mut() else { return Err(SourceError::unavailable("no connection")) };
        let result = tokio::time::timeout(self.deadline, work(client)).await;
        match result {
            Ok(result) => {
                drop(guard.0.take()); // back to the pool
                result
            }
            Err(_) => {
                drop(guard);
                Err(SourceError::unavailable(format!("no answer within {:?}", self.deadline)))
            }
        }
    }
}

/// The connections of one kind of work.
struct Lane {
    name: &'static str,
    pool: Pool,
    waited_us: AtomicU64,
    served: AtomicU64,
}

impl Lane {
    fn new(
        name: &'static str,
        config: &Config,
        tls: &MakeRustlsConnect,
        size: usize,
        options: &PostgresOptions,
    ) -> Result<Self, SourceError> {
        Ok(Self {
            name,
            pool: pool(config, tls, size, options)?,
            waited_us: AtomicU64::new(0),
            served: AtomicU64::new(0),
        })
    }

    async fn get(&self) -> Result<Object, SourceError> {
        let asked = Instant::now();
        let got = self.pool.get().await;
        self.waited_us.fetch_add(asked.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.served.fetch_add(1, Ordering::Relaxed);
        Ok(got?)
    }

    fn state(&self) -> PoolState {
        let status = self.pool.status();
        PoolState {
            name: self.name,
            size: status.size,
            max: status.max_size,
            in_use: status.size.saturating_sub(status.available),
            waiting: status.waiting,
            waited: Duration::from_micros(self.waited_us.load(Ordering::Relaxed)),
            served: self.served.load(Ordering::Relaxed),
        }
    }
}

/// A connection in the middle of something.
struct Unfinished(Option<Object>, MakeRustlsConnect);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(object) = self.0.take() else { return };
        let client = Object::take(object);
        let cancel = client.cancel_token();
        // Bounded by the server's own statement timeout if this message never arrives; nobody needs to await it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tls = self.1.clone();
            runtime.spawn(within(Duration::from_secs(2), async move {
                let _ = cancel.cancel_query(tls).await;
            }));
        }
    }
}

async fn within(limit: Duration, work: impl Future<Output = ()>) {
    let _ = tokio::time::timeout(limit, work).await;
}

fn session(url: &str, options: &PostgresOptions) -> Result<(Config, MakeRustlsConnect), SourceError> {
    let (mut config, tls) = connector(url)?;
    // UTC and ISO make texts of times mean one thing, whatever the server's or role's defaults are.
    let ours = format!(
        "-c statement_timeout={} -c timezone=UTC -c datestyle=ISO -c intervalstyle=iso_8601 -c bytea_output=hex \
         -c client_encoding=UTF8",
        options.statement_timeout.as_millis().max(1)
    );
    let given = config.get_options().unwrap_or_default().to_owned();
    config.options(format!("{given} {ours}").trim());
    config.application_name(&options.application_name);
    config.connect_timeout(options.connect_timeout);
    Ok((config, tls))
}

fn pool(
    config: &Config,
    tls: &MakeRustlsConnect,
    size: usize,
    options: &PostgresOptions,
) -> Result<Pool, SourceError> {
    let manager = Manager::from_config(
        config.clone(),
        tls.clone(),
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    Pool::builder(manager)
        .max_size(size.max(1))
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(options.wait_timeout))
        .create_timeout(Some(options.connect_timeout + Duration::from_millis(500)))
        .recycle_timeout(Some(options.connect_timeout))
        .build()
        .map_err(|error| SourceError::unavailable(error.to_string()))
}
