//! The database of one test, and a source on it.

use std::time::{Duration, Instant};

use dsproxy::embedded::keeper::KeeperOptions;
use dsproxy::mapping::{MappingSet, MappingSpec};
use dsproxy::source::{Postgres, PostgresOptions, Source};
use tokio_postgres::{Client, NoTls};

use crate::support::{Database, PrivateStack, SharedStack};

/// A database of a test's own, on the shared server or on one that the test may kill.
pub struct Pg {
    // Dropped first: the server is needed for it.
    database: Database,
    server: Server,
}

enum Server {
    Shared(#[expect(dead_code, reason = "keeps the server")] SharedStack),
    Private(PrivateStack),
}

impl Pg {
    /// An empty database on the shared server.
    pub fn start() -> Self {
        let stack = SharedStack::get();
        Self { database: stack.fresh_database(), server: Server::Shared(stack) }
    }

    /// An empty database on a server that may be killed.
    pub fn private() -> Self {
        // Durable: a throw-away server answers a commit before it is in the log, and loses it when killed.
        let options = KeeperOptions { shards: 1, durable: true, ..KeeperOptions::default() };
        let stack = PrivateStack::start(options);
        Self { database: stack.fresh_database(), server: Server::Private(stack) }
    }

    fn stack(&self) -> &PrivateStack {
        match &self.server {
            Server::Private(stack) => stack,
            Server::Shared(_) => panic!("the shared server must not be killed"),
        }
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.stack().kill("postgres");
    }

    /// Starts the killed server and waits until it takes connections.
    pub fn run(&self) {
        self.stack().start_server("postgres");
    }

    pub fn url(&self) -> &str {
        self.database.url()
    }

    pub async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(self.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub async fn execute(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap();
    }

    /// The first column of the first row, as text.
    pub async fn one(&self, sql: &str) -> String {
        let row =
            self.client().await.query_one(&format!("select x::text from ({sql}) q(x)"), &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    pub async fn source(&self, specs: Vec<MappingSpec>) -> Source {
        let options = PostgresOptions { wait_timeout: Duration::from_secs(2), ..PostgresOptions::default() };
        let postgres = Postgres::connect(self.url(), &options).await.unwrap();
        let source = Source::open(postgres, MappingSet::new(specs).unwrap()).await.unwrap();
        source.prepare_ledger().await.unwrap();
        source
    }
}

/// Waits for a condition.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited 20 s for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
