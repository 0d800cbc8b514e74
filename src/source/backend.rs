//! What a database must be able to do to stand behind mappings.
//!
//! Must not know: any particular database.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::agreement::Guard;
use super::change::Change;
use super::error::SourceError;
use super::ledger::{Batch, Claim, Commit, Count, DeadLetter, LedgerState, Letters};
use super::statement::{Param, Rows, Statement};
use super::writers::{Seat, Standing, Writer};
use crate::mapping::{BindError, Bound, Mapping, MappingId, Match, OrderKey};

/// A boxed future of a backend. One allocation per query is nothing against the query.
pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A row as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedRow {
    /// The value of the key.
    pub value: Bytes,
    /// Its place among the rows of its id, where the mapping has an `order_by`.
    pub order: Option<OrderKey>,
}

/// What was found for one key: its row, no row, or a row that cannot be given out (its neighbours can).
pub type LoadedKey = Result<Option<LoadedRow>, SourceError>;

/// Of several rows with one id the newest counts; without an order, the first.
pub(super) fn newest(slot: &mut LoadedKey, candidate: LoadedKey) {
    let order = |key: &LoadedKey| key.as_ref().ok().and_then(|row| row.as_ref()).and_then(|row| row.order);
    if matches!(slot, Ok(None)) || (matches!(candidate, Ok(Some(_))) && order(&candidate) > order(slot)) {
        *slot = candidate;
    }
}

/// A value that is larger than the limit. Its neighbours are given out.
pub(super) fn too_large(mapping: &Mapping, bytes: usize, limit: usize) -> SourceError {
    SourceError::TooLarge(format!(
        "the value has {bytes} bytes, at most {limit} are read for mapping '{}' (database.max_value_bytes)",
        mapping.name
    ))
}

/// Where rows may be loaded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadFrom {
    /// The primary: every commit that was acknowledged before the call is seen.
    #[default]
    Primary,
    /// A read replica, when one is there that has seen all of these commits, too; else the primary.
    Replica,
}

/// Loads that read replicas were asked for since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicaCounts {
    /// They gave the rows.
    pub served: u64,
    /// They had not seen yet all that the primary had.
    pub behind: u64,
    /// They did not answer.
    pub failed: u64,
}

/// A pool of connections, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolState {
    /// What it is for: `load`, `write`, `statement`.
    pub name: &'static str,
    /// Open connections.
    pub size: usize,
    /// Open connections at most.
    pub max: usize,
    /// Connections that run something.
    pub in_use: usize,
    /// Callers that wait for a connection.
    pub waiting: usize,
    /// Sum of the time that callers have waited since the start.
    pub waited: Duration,
    /// Callers that have been given a connection since the start.
    pub served: u64,
}

/// Mistakes between a mapping and its database.
pub(super) type Misfits = Vec<BindError>;

pub(super) fn misfit(mapping: &Mapping, message: String) -> BindError {
    BindError { mapping: mapping.name.clone(), message }
}

/// A database with the mappings that were held against it. Each of the three kinds of work (loads, writes, statements)
/// has connections of its own: none can starve another.
///
/// Every call ends within the statement timeout, plus the time to get a connection, which is limited as well. Dropping
/// a future stops the work at the database.
pub(super) trait Backend: Send + Sync + fmt::Debug {
    /// A mapping with its table.
    fn bound(&self, mapping: MappingId) -> Option<&Arc<Bound>>;

    /// The SQL that loads rows of the mapping.
    fn load_sql(&self, mapping: MappingId) -> Option<&str>;

    /// The rows of `keys`, in their order, by one statement.
    fn load<'a>(
        &'a self,
        mapping: MappingId,
        keys: &'a [Match<'a>],
        from: LoadFrom,
    ) -> BoxFuture<'a, Result<Vec<LoadedKey>, SourceError>>;

    /// Applies `changes` in their order, in one transaction that is begun and committed inside of the call: all of them
    /// or none. Dropping the future rolls back, unless the commit was already on its way.
    fn apply<'a>(
        &'a self,
        mapping: MappingId,
        changes: &'a [&'a Change],
    ) -> BoxFuture<'a, Result<(), SourceError>>;

    /// Makes the proxy's own tables where they are missing.
    fn prepare_ledger(&self) -> BoxFuture<'_, Result<(), SourceError>>;

    /// How the proxy's own tables stand; an error where they cannot be made what they should be.
    fn ledger_state(&self) -> BoxFuture<'_, Result<LedgerState, SourceError>>;

    /// Takes the instance `id` for this process, with rows for the lanes of `mappings`.
    fn claim<'a>(
        &'a self,
        id: &'a str,
        mappings: &'a [&'a str],
        lanes: i32,
    ) -> BoxFuture<'a, Result<Claim, SourceError>>;

    /// Does all of `batch` in one transaction, or, where it was done before, nothing. `mark`: there may be dead letters of
    /// the mapping, which are to be marked where a later write of their key is in the batch (and does not wait behind them).
    fn commit<'a>(
        &'a self,
        mapping: MappingId,
        batch: &'a Batch<'a>,
        mark: bool,
    ) -> BoxFuture<'a, Result<Commit, SourceError>>;

    /// Forgets some versions of keys below `before`; how many.
    fn prune(&self, before: u64) -> BoxFuture<'_, Result<u64, SourceError>>;

    /// Gives a writer its number.
    fn register<'a>(&'a self, writer: &'a Writer) -> BoxFuture<'a, Result<Seat, SourceError>>;

    /// Says where a writer keeps the versions of mappings (by name), in place of what it said before; an error where
    /// another one disagrees.
    fn agree<'a>(
        &'a self,
        id: &'a str,
        guards: &'a [(String, Guard)],
    ) -> BoxFuture<'a, Result<(), SourceError>>;

    /// Notes what a writer may yet apply (`None`: nothing, ever), and answers what all of them may.
    fn note<'a>(
        &'a self,
        writer: &'a Writer,
        needed: Option<u64>,
        last: u64,
    ) -> BoxFuture<'a, Result<Standing, SourceError>>;

    /// The journal of an instance is lost.
    fn journal_lost<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), SourceError>>;

    /// Dead letters of each mapping that has any.
    fn count_letters(&self) -> BoxFuture<'_, Result<Vec<Count>, SourceError>>;

    /// The dead letters of these keys of a mapping, in no order.
    fn letters_of<'a>(
        &'a self,
        mapping: &'a str,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, SourceError>>;

    /// Keys of a mapping whose letters wait for nothing any more, some of them.
    fn released<'a>(&'a self, mapping: &'a str) -> BoxFuture<'a, Result<Vec<String>, SourceError>>;

    /// A letter that has waited is refused now.
    fn refuse<'a>(
        &'a self,
        letter: &'a DeadLetter,
        error: &'a SourceError,
    ) -> BoxFuture<'a, Result<(), SourceError>>;

    /// Dead letters, oldest first, at most `most`.
    fn letters<'a>(
        &'a self,
        which: &'a Letters,
        most: i64,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, SourceError>>;

    /// Removes dead letters; how many.
    fn drop_letters<'a>(&'a self, which: &'a Letters) -> BoxFuture<'a, Result<u64, SourceError>>;

    /// Runs one statement in a transaction of its own.
    fn statement<'a>(
        &'a self,
        statement: &'a Statement,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<Rows, SourceError>>;

    /// Prepares a statement without running it; the names of the columns that it answers.
    fn describe<'a>(&'a self, statement: &'a Statement) -> BoxFuture<'a, Result<Vec<String>, SourceError>>;

    /// Whether the database answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), SourceError>>;

    /// What became of loads that replicas were asked for.
    fn replicas(&self) -> ReplicaCounts {
        ReplicaCounts::default()
    }

    /// The pools: loads, writes, statements.
    fn pools(&self) -> Vec<PoolState>;

    /// Closes every connection; calls fail from now on.
    fn close(&self);
}
