//! SQLite behind the mappings: one file, one writing thread, some reading threads.
//!
//! Must not know: caches, queues, clients, other databases.
//!
//! Every connection belongs to a thread (`threads.rs`). The file is in WAL mode: readers go on while the one writer
//! writes. Flushes and writing statements of routes share the writer; each has its own places in its queue.

mod agreement;
mod apply;
mod describe;
mod error;
mod guard;
mod ledger;
mod letters;
mod load;
mod statement;
mod threads;
mod touched;
mod value;
mod writers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::OpenError;
use super::agreement::Guard;
use super::backend::{Backend, BoxFuture, LoadFrom, LoadedKey, PoolState};
use super::change::Change;
use super::error::SourceError;
use super::ledger::{Batch, Claim, Commit, Count, DeadLetter, LedgerState, Letters};
use super::recheck::Recheck;
use super::statement::{Param, Rows, Statement};
use super::writers::{Seat, Standing, Writer};
use crate::mapping::{Bound, MappingId, MappingSet, Match, shared_version};
use threads::{Lane, Settings, Threads};

/// How the URL of a SQLite file begins.
pub(super) const SCHEME: &str = "sqlite:";

/// The path in a `sqlite:` URL; `sqlite:file.db`, `sqlite:dir/file.db` and `sqlite:///dir/file.db` are understood.
pub fn path_of(url: &str) -> PathBuf {
    let rest = url.strip_prefix(SCHEME).unwrap_or(url);
    PathBuf::from(rest.strip_prefix("//").unwrap_or(rest))
}

/// Limits of the threads and of each statement.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Threads that load rows, each with a connection (1..).
    pub read_connections: usize,
    /// Threads that run reading statements of routes, and places in the writer's queue for writing ones (1..).
    pub statement_connections: usize,
    /// Longest time a statement may run, waiting for other processes' locks included.
    pub statement_timeout: Duration,
    /// Longest time to wait for a free thread.
    pub wait_timeout: Duration,
    /// Longest value of a key, and most bytes that one statement answers.
    pub max_value_bytes: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            read_connections: 4,
            statement_connections: 2,
            statement_timeout: Duration::from_secs(5),
            wait_timeout: Duration::from_secs(5),
            max_value_bytes: 64 << 20,
        }
    }
}

/// A SQLite file. Cheap to clone: clones share the threads.
#[derive(Debug, Clone)]
pub struct Sqlite {
    loads: Arc<Lane>,
    writes: Arc<Lane>,
    /// Statements that only read.
    statements: Arc<Lane>,
    /// Statements that write, on the thread of `writes`.
    writing_statements: Arc<Lane>,
    max_value_bytes: usize,
}

impl Sqlite {
    /// Opens the file of `url`, creating it where it is missing (its directory must exist).
    ///
    /// # Errors
    /// [`SourceError::Unavailable`] when the file cannot be opened or is no database.
    pub async fn open(url: &str, options: &SqliteOptions) -> Result<Self, SourceError> {
        let settings = Arc::new(Settings {
            path: path_of(url),
            statement_timeout: options.statement_timeout,
            wait_timeout: options.wait_timeout,
        });
        let threads = |reading, count| Threads::start(&settings, reading, count);
        let writer = threads(false, 1)?;
        let others = options.statement_connections.max(1);
        let sqlite = Self {
            loads: Lane::new("load", threads(true, options.read_connections)?, options.read_connections),
            writes: Lane::new("write", writer.clone(), 1),
            statements: Lane::new("statement", threads(true, others)?, others),
            writing_statements: Lane::new("writing statement", writer, others),
            max_value_bytes: options.max_value_bytes,
        };
        // The writer first: it creates the file and switches to WAL.
        sqlite.writes.run(ping).await?;
        sqlite.ping().await?;
        Ok(sqlite)
    }

    /// Runs a script of several statements, on the writing connection.
    pub async fn run_script(&self, script: &str) -> Result<(), SourceError> {
        let script = script.to_owned();
        self.writes.run(move |connection| Ok(connection.execute_batch(&script)?)).await
    }

    /// Whether the file can be read.
    pub async fn ping(&self) -> Result<(), SourceError> {
        self.loads.run(ping).await
    }

    /// The lanes, as they are now.
    pub fn pools(&self) -> Vec<PoolState> {
        [&self.loads, &self.writes, &self.statements, &self.writing_statements].map(|l| l.state()).into()
    }

    /// Ends the threads; calls fail from now on.
    pub fn close(&self) {
        [&self.loads, &self.writes, &self.statements, &self.writing_statements]
            .into_iter()
            .for_each(|lane| lane.close());
    }
}

/// Reads the schema, which a file that is no database does not have.
fn ping(connection: &mut Connection) -> Result<(), SourceError> {
    Ok(connection.query_row("select count(*) from sqlite_schema", [], |_| Ok(()))?)
}

/// Says which file an error is about.
fn cannot_open(path: &Path, error: impl std::fmt::Display) -> SourceError {
    SourceError::unavailable(format!("cannot open the SQLite file {}: {error}", path.display()))
}

/// How one mapping is loaded and written.
#[derive(Debug)]
struct Plan {
    bound: Arc<Bound>,
    load: Arc<load::LoadPlan>,
    recheck: Recheck,
}

/// A SQLite file with the mappings that were held against it.
#[derive(Debug)]
pub(super) struct SqliteBackend {
    sqlite: Sqlite,
    plans: Vec<Plan>,
}

/// Holds every mapping of `set` against the file. All mistakes are reported together.
pub(super) async fn bind(sqlite: Sqlite, set: &MappingSet) -> Result<SqliteBackend, OpenError> {
    let mut plans = Vec::with_capacity(set.len());
    let mut misfits = Vec::new();
    for mapping in set.iter() {
        let mapping = mapping.clone();
        match sqlite.loads.run(move |connection| describe::plan(connection, &mapping)).await? {
            Ok(plan) => plans.push(plan),
            Err(problems) => misfits.extend(problems.iter().map(ToString::to_string)),
        }
    }
    misfits.extend(shared_version(plans.iter().map(|plan| &*plan.bound)).iter().map(ToString::to_string));
    if misfits.is_empty() { Ok(SqliteBackend { sqlite, plans }) } else { Err(OpenError::Misfits(misfits)) }
}

impl SqliteBackend {
    fn plan(&self, mapping: MappingId) -> Result<&Plan, SourceError> {
        let none = || SourceError::schema("42704", format!("there is no mapping number {mapping}"));
        self.plans.get(usize::from(mapping)).ok_or_else(none)
    }

    /// `result`, with what is wrong in the words of the check at start where a statement did not fit; `None` when the
    /// mapping does fit, so that the call is worth another try.
    async fn explained<T>(
        &self,
        plan: &Plan,
        result: Result<T, SourceError>,
    ) -> Option<Result<T, SourceError>> {
        let Err(error @ SourceError::Schema { .. }) = result else { return Some(result) };
        let mapping = plan.bound.mapping.clone();
        let look = async {
            let again = self.sqlite.loads.run(move |connection| describe::plan(connection, &mapping)).await?;
            Ok(again.err())
        };
        plan.recheck.explain(error, look).await.map(Err)
    }
}

impl Backend for SqliteBackend {
    fn bound(&self, mapping: MappingId) -> Option<&Arc<Bound>> {
        self.plans.get(usize::from(mapping)).map(|plan| &plan.bound)
    }

    fn load_sql(&self, mapping: MappingId) -> Option<&str> {
        self.plans.get(usize::from(mapping)).map(|plan| plan.load.sql())
    }

    fn load<'a>(
        &'a self,
        mapping: MappingId,
        keys: &'a [Match<'a>],
        _from: LoadFrom,
    ) -> BoxFuture<'a, Result<Vec<LoadedKey>, SourceError>> {
        Box::pin(async move {
            let plan = self.plan(mapping)?;
            let result = load::load(&self.sqlite, plan, keys).await;
            match self.explained(plan, result).await {
                Some(result) => result,
                None => load::load(&self.sqlite, plan, keys).await,
            }
        })
    }

    fn apply<'a>(
        &'a self,
        mapping: MappingId,
        changes: &'a [&'a Change],
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async move {
            let plan = self.plan(mapping)?;
            let result = apply::apply(&self.sqlite, &plan.bound, changes).await;
            match self.explained(plan, result).await {
                Some(result) => result,
                None => apply::apply(&self.sqlite, &plan.bound, changes).await,
            }
        })
    }

    fn prepare_ledger(&self) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(ledger::prepare(&self.sqlite))
    }

    fn ledger_state(&self) -> BoxFuture<'_, Result<LedgerState, SourceError>> {
        Box::pin(ledger::state(&self.sqlite))
    }

    fn claim<'a>(
        &'a self,
        id: &'a str,
        mappings: &'a [&'a str],
        lanes: i32,
    ) -> BoxFuture<'a, Result<Claim, SourceError>> {
        Box::pin(ledger::claim(&self.sqlite, id, mappings, lanes))
    }

    fn commit<'a>(
        &'a self,
        mapping: MappingId,
        batch: &'a Batch<'a>,
        mark: bool,
    ) -> BoxFuture<'a, Result<Commit, SourceError>> {
        Box::pin(async move {
            let plan = self.plan(mapping)?;
            let result = ledger::commit(&self.sqlite, plan, batch, mark).await;
            match self.explained(plan, result).await {
                Some(result) => result,
                None => ledger::commit(&self.sqlite, plan, batch, mark).await,
            }
        })
    }

    fn count_letters(&self) -> BoxFuture<'_, Result<Vec<Count>, SourceError>> {
        Box::pin(letters::count(&self.sqlite))
    }

    fn letters_of<'a>(
        &'a self,
        mapping: &'a str,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, SourceError>> {
        Box::pin(letters::of_keys(&self.sqlite, mapping, keys))
    }

    fn released<'a>(&'a self, mapping: &'a str) -> BoxFuture<'a, Result<Vec<String>, SourceError>> {
        Box::pin(letters::released(&self.sqlite, mapping))
    }

    fn refuse<'a>(
        &'a self,
        letter: &'a DeadLetter,
        error: &'a SourceError,
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(letters::refuse(&self.sqlite, letter, error))
    }

    fn prune(&self, before: u64) -> BoxFuture<'_, Result<u64, SourceError>> {
        Box::pin(writers::prune(&self.sqlite, before))
    }

    fn register<'a>(&'a self, writer: &'a Writer) -> BoxFuture<'a, Result<Seat, SourceError>> {
        Box::pin(writers::register(&self.sqlite, writer))
    }

    fn agree<'a>(
        &'a self,
        id: &'a str,
        guards: &'a [(String, Guard)],
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(agreement::agree(&self.sqlite, id, guards))
    }

    fn note<'a>(
        &'a self,
        writer: &'a Writer,
        needed: Option<u64>,
        last: u64,
    ) -> BoxFuture<'a, Result<Standing, SourceError>> {
        Box::pin(writers::note(&self.sqlite, writer, needed, last))
    }

    fn journal_lost<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(writers::lost(&self.sqlite, id))
    }

    fn letters<'a>(
        &'a self,
        which: &'a Letters,
        most: i64,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, SourceError>> {
        Box::pin(letters::list(&self.sqlite, which, most))
    }

    fn drop_letters<'a>(&'a self, which: &'a Letters) -> BoxFuture<'a, Result<u64, SourceError>> {
        Box::pin(letters::discard(&self.sqlite, which))
    }

    fn statement<'a>(
        &'a self,
        statement: &'a Statement,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<Rows, SourceError>> {
        Box::pin(statement::run(&self.sqlite, statement, params))
    }

    fn describe<'a>(&'a self, statement: &'a Statement) -> BoxFuture<'a, Result<Vec<String>, SourceError>> {
        Box::pin(statement::describe(&self.sqlite, statement))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(self.sqlite.ping())
    }

    fn pools(&self) -> Vec<PoolState> {
        self.sqlite.pools()
    }

    fn close(&self) {
        self.sqlite.close();
    }
}
