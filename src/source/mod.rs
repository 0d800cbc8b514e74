//! The databases behind the mappings: describing tables, loading rows, applying batches of writes, running statements.
//!
//! Must not know: caches, queues, clients.
//!
//! [`Source`] is a thin front. What a database must be able to do stands in `backend.rs`; `postgres/` and `sqlite/` do
//! it. What both share: `change.rs` (the steps of a transaction), `held.rs` (what waits behind dead letters), `named.rs` and `statement.rs` (parameters of own SQL),
//! `error.rs`, `backoff.rs`, and the migrations.

mod agreement;
mod backend;
mod backoff;
mod breaker;
mod change;
mod copy;
mod database;
mod error;
mod held;
mod ledger;
mod letterbox;
mod letters;
pub mod migrate;
mod own_load;
mod postgres;
mod recheck;
mod sqlite;
mod statement;
mod touched;
mod writers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agreement::Guard;
use backend::Backend;
use breaker::Breaker;

use crate::mapping::{Bound, Mapping, MappingId, MappingSet, Match, OnPoison};
use letterbox::Letterbox;

pub use agreement::WORD;
pub use backend::{LoadFrom, LoadedKey, LoadedRow, PoolState, ReplicaCounts};
pub use backoff::{Backoff, spread};
pub use breaker::{BreakerCounts, BreakerOptions, BreakerState};
pub use change::Change;
pub use copy::copy_in;
pub use database::{Database, DatabaseKind, DatabaseOptions};
pub use error::SourceError;
pub use ledger::{
    Alone, Applied, Batch, Claim, Commit, Committed, DeadLetter, LedgerState, Letters, Once, Refused,
    Versioned,
};
pub use postgres::{Postgres, PostgresOptions};
pub use sqlite::{Sqlite, SqliteOptions};
pub use statement::{Param, Rows, Statement, StatementError};
pub use touched::Touched;
pub use writers::{Seat, Standing, Writer};

/// The mappings of a proxy, held against a database: what rows are loaded from and written to.
#[derive(Debug)]
pub struct Source {
    backend: Box<dyn Backend>,
    set: MappingSet,
    breaker: Breaker,
    statements: StatementCounters,
    /// By mapping.
    letters: Vec<Letterbox>,
}

/// Statements that were run since the start.
#[derive(Debug, Default)]
struct StatementCounters {
    ok: AtomicU64,
    failed: AtomicU64,
    micros: AtomicU64,
}

/// Statements that were run since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatementCounts {
    /// Without an error.
    pub ok: u64,
    /// With one.
    pub failed: u64,
    /// Time of all of them.
    pub took: Duration,
}

/// Why a source cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The database could not be asked.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Mappings and database do not fit; one message per mistake, each with its cure.
    #[error("{}", .0.join("\n"))]
    Misfits(Vec<String>),
}

impl Source {
    /// Holds every mapping of `set` against the database. All mistakes are reported together.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(database: impl Into<Database>, set: MappingSet) -> Result<Self, OpenError> {
        let backend = database.into().bind(&set).await?;
        let breaker = Breaker::new(BreakerOptions::default());
        let letters = set.iter().map(|_| Letterbox::default()).collect();
        let source = Self { backend, set, breaker, statements: StatementCounters::default(), letters };
        match source.undependable() {
            none if none.is_empty() => Ok(source),
            misfits => Err(OpenError::Misfits(misfits)),
        }
    }

    /// Mappings that depend on a column which the other's table has not got.
    fn undependable(&self) -> Vec<String> {
        let wrong = |mapping: &Mapping| {
            let on = mapping.invalidate_on.as_ref()?;
            let (by, other) = (on.by.as_deref()?, self.bound(on.mapping)?);
            let table = other.table.as_ref().filter(|table| table.column(by).is_none())?;
            Some(format!(
                "mapping \"{}\": `invalidate_on` has by = \"{by}\", table \"{}\" of mapping \"{}\" has no such column",
                mapping.name, table.name, other.mapping.name
            ))
        };
        self.set.iter().filter_map(wrong).collect()
    }

    /// With these limits of the circuit breaker instead of the defaults.
    #[must_use]
    pub fn with_breaker(self, options: BreakerOptions) -> Self {
        Self { breaker: Breaker::new(options), ..self }
    }

    /// The mappings.
    pub fn mappings(&self) -> &MappingSet {
        &self.set
    }

    /// A mapping with its table.
    pub fn bound(&self, mapping: MappingId) -> Option<&Arc<Bound>> {
        self.backend.bound(mapping)
    }

    /// The SQL that loads rows of the mapping: its parameters stand for lists of ids.
    pub fn load_sql(&self, mapping: MappingId) -> Option<String> {
        self.backend.load_sql(mapping).map(str::to_owned)
    }

    /// The rows of `keys` (id values as the mapping's template reads them), in their order. One statement. Dropping the
    /// future cancels it at the database.
    ///
    /// # Errors
    /// [`SourceError`], when nothing is known of any key; a key whose row cannot be given out has an error of its own.
    pub async fn load(
        &self,
        mapping: MappingId,
        keys: &[Match<'_>],
        from: LoadFrom,
    ) -> Result<Vec<LoadedKey>, SourceError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let Some(bound) = self.bound(mapping).filter(|bound| self.may_hold(bound)) else {
            return self.breaker.guard(self.backend.load(mapping, keys, from)).await;
        };
        let names: Vec<String> =
            keys.iter().map(|key| bound.mapping.template.build(key.ids()).unwrap_or_default()).collect();
        let load = async {
            // In this order: what is applied in between is seen in its row.
            let letters = self.backend.letters_of(&bound.mapping.name, &names).await?;
            let mut rows = self.backend.load(mapping, keys, from).await?;
            held::show(bound, letters, &names, &mut rows);
            Ok(rows)
        };
        self.breaker.guard(load).await
    }

    /// Whether writes of the mapping may wait behind dead letters.
    fn may_hold(&self, bound: &Bound) -> bool {
        let letters = || self.letters.get(usize::from(bound.mapping.id)).is_some_and(|it| it.held() > 0);
        bound.mapping.on_poison == OnPoison::Wait || letters()
    }

    /// Applies `changes` in their order, in one transaction: all of them or none. Dropping the future rolls back, unless
    /// the commit was already on its way.
    ///
    /// Always tried, whatever the circuit breaker says: the caller has waits of its own between attempts.
    ///
    /// # Errors
    /// [`SourceError`]; nothing was applied then, but for a connection that was lost during the commit.
    pub async fn apply(&self, mapping: MappingId, changes: &[&Change]) -> Result<(), SourceError> {
        self.breaker.observe(self.backend.apply(mapping, changes)).await
    }

    /// Makes the tables in which the proxy keeps who applied what, versions and dead letters, where they are missing.
    ///
    /// # Errors
    /// [`SourceError`]; where rights are missing, it names them.
    pub async fn prepare_ledger(&self) -> Result<(), SourceError> {
        self.backend.prepare_ledger().await
    }

    /// How these tables stand, without changing anything.
    ///
    /// # Errors
    /// [`SourceError::Schema`] where a start could not make them what they should be, with the cure.
    pub async fn ledger_state(&self) -> Result<LedgerState, SourceError> {
        self.backend.ledger_state().await
    }

    /// Takes the instance `id` (of a journal) for this process, and answers up to where its lanes are applied. Another
    /// process that had it gets [`SourceError::Fenced`] from now on.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn claim(&self, id: &str, lanes: usize) -> Result<Claim, SourceError> {
        let mappings: Vec<&str> = self.set.iter().map(|mapping| mapping.name.as_str()).collect();
        self.backend.claim(id, &mappings, i32::try_from(lanes).unwrap_or(i32::MAX)).await
    }

    /// Does all of `batch` in one transaction; where it was done before (see [`Once`]), nothing. A write that is older than
    /// what was applied for its key is left out (upserts and deletions; an append mapping takes every row).
    ///
    /// # Errors
    /// [`SourceError`]; nothing was done then, but for a connection that was lost during the commit: the same call again
    /// finds out.
    pub async fn commit(&self, mapping: MappingId, batch: &Batch<'_>) -> Result<Commit, SourceError> {
        let letters = self.letters.get(usize::from(mapping));
        let mark = letters.is_some_and(Letterbox::may_hold_any);
        let commit = self.breaker.observe(self.backend.commit(mapping, batch, mark)).await?;
        if let Some(letters) = letters.filter(|_| !batch.refused.is_empty()) {
            letters.bury();
        }
        Ok(commit)
    }

    /// Says for [`WORD`] where the writer `id` keeps the versions of rows, so that it must be said again before that is over.
    ///
    /// # Errors
    /// [`SourceError::Schema`] where another one that lives would not see them, or this one not its; nothing is said then.
    pub async fn agree(&self, id: &str) -> Result<(), SourceError> {
        let guard = |mapping: &Mapping| Some((mapping.name.clone(), Guard::of(self.bound(mapping.id)?)?));
        let guards: Vec<_> = self.set.iter().filter_map(guard).collect();
        self.backend.agree(id, &guards).await
    }

    /// The writer `id` writes no more.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn disagree(&self, id: &str) -> Result<(), SourceError> {
        self.backend.agree(id, &[]).await
    }

    /// Gives this process the number that tells its versions from those of others.
    ///
    /// # Errors
    /// [`SourceError`]; [`SourceError::Schema`] when all numbers are taken.
    pub async fn register(&self, writer: &Writer) -> Result<Seat, SourceError> {
        self.backend.register(writer).await
    }

    /// Notes that `writer` will apply no version below `needed` any more (`None`: none at all) and has given none above
    /// `last`; answers how all writers stand.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn note(
        &self,
        writer: &Writer,
        needed: Option<u64>,
        last: u64,
    ) -> Result<Standing, SourceError> {
        self.backend.note(writer, needed, last).await
    }

    /// Notes that the journal of instance `id` is lost, so that nobody waits for what it held.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn journal_lost(&self, id: &str) -> Result<(), SourceError> {
        self.backend.journal_lost(id).await
    }

    /// Forgets a bounded number of versions of keys below `before`, and says how many. Safe below [`Standing::bound`]: no
    /// journal holds an older, unapplied write. Versions of a mapping whose dead letters are older stay.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn prune(&self, before: u64) -> Result<u64, SourceError> {
        self.backend.prune(before).await
    }

    /// Runs one statement in a transaction of its own and gives its rows: `SELECT`, or `INSERT`, `UPDATE`, `DELETE` with
    /// or without `RETURNING`. `params` stand for the parameters by position (see [`Statement::names`]), each converted
    /// to the type that the database expects there.
    ///
    /// # Errors
    /// [`SourceError::BadData`] also for a parameter that does not fit.
    pub async fn statement(&self, statement: &Statement, params: &[Param<'_>]) -> Result<Rows, SourceError> {
        if params.len() != statement.parameters() {
            let (given, wanted) = (params.len(), statement.parameters());
            return Err(SourceError::schema("08P01", format!("{given} parameters given, {wanted} wanted")));
        }
        let started = Instant::now();
        let result = self.breaker.guard(self.backend.statement(statement, params)).await;
        let count = if result.is_ok() { &self.statements.ok } else { &self.statements.failed };
        count.fetch_add(1, Ordering::Relaxed);
        self.statements.micros.fetch_add(started.elapsed().as_micros() as u64, Ordering::Relaxed);
        result
    }

    /// Has the database look at a statement without running it; the names of the columns that it answers.
    ///
    /// # Errors
    /// [`SourceError`]: what the database would say when it is run.
    pub async fn describe(&self, statement: &Statement) -> Result<Vec<String>, SourceError> {
        self.backend.describe(statement).await
    }

    /// Whether the database answers. Always tried; an answer closes the circuit breaker.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn ping(&self) -> Result<(), SourceError> {
        self.breaker.observe(self.backend.ping()).await
    }

    /// What the circuit breaker does, and has done.
    pub fn breaker(&self) -> (BreakerState, BreakerCounts) {
        (self.breaker.state(), self.breaker.counts())
    }

    /// Statements that were run since the start.
    pub fn statements(&self) -> StatementCounts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        StatementCounts {
            ok: get(&self.statements.ok),
            failed: get(&self.statements.failed),
            took: Duration::from_micros(get(&self.statements.micros)),
        }
    }

    /// Loads that read replicas were asked for since the start.
    pub fn replicas(&self) -> ReplicaCounts {
        self.backend.replicas()
    }

    /// The pools of connections, as they are now.
    pub fn pools(&self) -> Vec<PoolState> {
        self.backend.pools()
    }

    /// Closes every connection; calls fail from now on.
    pub fn close(&self) {
        self.backend.close();
    }
}
