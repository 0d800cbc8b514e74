//! Connections to Postgres: pools, session settings, deadlines.
//!
//! Must not know: mappings.

use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::{Config, NoTls};

use super::error::SourceError;

/// Limits of the pools and of each statement.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Connections for loading rows (1..).
    pub read_connections: usize,
    /// Connections for writing; a pool of their own, so that loads and flushes cannot starve each other (1..).
    pub write_connections: usize,
    /// Longest time a statement may run: enforced by the server, and by us a little later.
    pub statement_timeout: Duration,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time to wait for a free connection.
    pub wait_timeout: Duration,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            read_connections: 8,
            write_connections: 4,
            statement_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            wait_timeout: Duration::from_secs(5),
            application_name: "dsproxy".into(),
        }
    }
}

/// A Postgres database. Cheap to clone: clones share the pools.
#[derive(Clone)]
pub struct Postgres {
    read: Pool,
    write: Pool,
    deadline: Duration,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres")
            .field("read", &self.read.status())
            .field("write", &self.write.status())
            .finish()
    }
}

impl Postgres {
    /// Prepares the pools without connecting yet. `url` is a `postgres://` URL or a key=value string.
    pub fn new(url: &str, options: &PostgresOptions) -> Result<Self, SourceError> {
        let config = session(url, options)?;
        Ok(Self {
            read: pool(&config, options.read_connections, options)?,
            write: pool(&config, options.write_connections, options)?,
            // Later than the server's own timeout: its error is the better one, ours is for a server that is gone.
            deadline: options.statement_timeout + Duration::from_millis(500),
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

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), SourceError> {
        let client = self.reader().await?;
        self.bounded(client, async |client| Ok(client.batch_execute("").await?)).await
    }

    /// Connections (in use, open) of the read pool and of the write pool.
    pub fn connections(&self) -> [(usize, usize); 2] {
        [&self.read, &self.write].map(|pool| {
            let status = pool.status();
            (status.size.saturating_sub(status.available), status.size)
        })
    }

    /// Closes both pools; calls fail from now on.
    pub fn close(&self) {
        self.read.close();
        self.write.close();
    }

    pub(super) async fn reader(&self) -> Result<Object, SourceError> {
        Ok(self.read.get().await?)
    }

    pub(super) async fn writer(&self) -> Result<Object, SourceError> {
        Ok(self.write.get().await?)
    }

    /// Runs `work` within the deadline. When it is over, or when this future is dropped, the statement is cancelled at
    /// the server and the connection is not used again: its answers would be read by the next user.
    pub(super) async fn bounded<T>(
        &self,
        client: Object,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let mut guard = Unfinished(Some(client));
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

/// A connection in the middle of something.
struct Unfinished(Option<Object>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(object) = self.0.take() else { return };
        let client = Object::take(object);
        let cancel = client.cancel_token();
        // Bounded by the server's own statement timeout if this message never arrives; nobody needs to await it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(within(Duration::from_secs(2), async move {
                let _ = cancel.cancel_query(NoTls).await;
            }));
        }
    }
}

async fn within(limit: Duration, work: impl Future<Output = ()>) {
    let _ = tokio::time::timeout(limit, work).await;
}

fn session(url: &str, options: &PostgresOptions) -> Result<Config, SourceError> {
    // The parser's error may quote the URL, and with it the password: it is not passed on.
    let mut config = Config::from_str(url).map_err(|_| SourceError::Schema {
        message: "the database URL cannot be read; write postgres://user:password@host:5432/database".into(),
        code: "08001".into(),
    })?;
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
    Ok(config)
}

fn pool(config: &Config, size: usize, options: &PostgresOptions) -> Result<Pool, SourceError> {
    let manager = Manager::from_config(
        config.clone(),
        NoTls,
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
