//! Postgres behind the mappings.
//!
//! Must not know: caches, queues, clients, other databases.

mod agreement;
mod alone;
mod apply;
mod describe;
mod guard;
mod ledger;
mod letters;
mod load;
mod params;
mod pool;
mod replica;
mod sql;
mod statement;
mod tables;
mod tls;
mod touched;
mod writers;

use std::sync::Arc;

pub use pool::{Postgres, PostgresOptions};
use replica::Replicas;
pub(super) use tls::connector;

use super::OpenError;
use super::agreement::Guard;
use super::backend::{Backend, BoxFuture, LoadFrom, LoadedKey, PoolState, ReplicaCounts};
use super::change::Change;
use super::error::SourceError;
use super::ledger::{Batch, Claim, Commit, Count, DeadLetter, LedgerState, Letters};
use super::recheck::Recheck;
use super::statement::{Param, Rows, Statement};
use super::writers::{Seat, Standing, Writer};
use crate::mapping::{Bound, MappingId, MappingSet, Match, shared_version};

/// How one mapping is loaded and written.
#[derive(Debug)]
struct Plan {
    bound: Arc<Bound>,
    load: load::LoadPlan,
    recheck: Recheck,
}

/// A Postgres with the mappings that were held against it.
#[derive(Debug)]
pub(super) struct PostgresBackend {
    postgres: Postgres,
    replicas: Replicas,
    plans: Vec<Plan>,
}

/// Holds every mapping of `set` against the database. All mistakes are reported together.
pub(super) async fn bind(postgres: Postgres, set: &MappingSet) -> Result<PostgresBackend, OpenError> {
    let mut plans = Vec::with_capacity(set.len());
    let mut misfits = Vec::new();
    for mapping in set.iter() {
        match describe::plan(&postgres, mapping).await? {
            Ok(plan) => plans.push(plan),
            Err(problems) => misfits.extend(problems.iter().map(ToString::to_string)),
        }
    }
    misfits.extend(shared_version(plans.iter().map(|plan| &*plan.bound)).iter().map(ToString::to_string));
    if misfits.is_empty() {
        Ok(PostgresBackend { replicas: postgres.replicas(), postgres, plans })
    } else {
        Err(OpenError::Misfits(misfits))
    }
}

impl PostgresBackend {
    fn plan(&self, mapping: MappingId) -> Result<&Plan, SourceError> {
        let none = || SourceError::schema("42704", format!("there is no mapping number {mapping}"));
        self.plans.get(usize::from(mapping)).ok_or_else(none)
    }

    /// `result`, with what is wrong in the words of the check at start where a statement did not fit; `None` when the
    /// mapping does fit: statements prepared before a change are forgotten then, and the call is worth another try.
    async fn explained<T>(
        &self,
        plan: &Plan,
        result: Result<T, SourceError>,
    ) -> Option<Result<T, SourceError>> {
        let Err(error @ SourceError::Schema { .. }) = result else { return Some(result) };
        let look = async { Ok(describe::plan(&self.postgres, &plan.bound.mapping).await?.err()) };
        let explained = plan.recheck.explain(error, look).await;
        if explained.is_none() {
            self.postgres.forget_statements();
            self.replicas.forget_statements();
        }
        explained.map(Err)
    }
}

impl Backend for PostgresBackend {
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
        from: LoadFrom,
    ) -> BoxFuture<'a, Result<Vec<LoadedKey>, SourceError>> {
        Box::pin(async move {
            let plan = self.plan(mapping)?;
            if from == LoadFrom::Replica
                && let Some(rows) = self.replicas.load(&self.postgres, plan, keys).await
            {
                return Ok(rows);
            }
            let result = load::load(&self.postgres, plan, keys).await;
            match self.explained(plan, result).await {
                Some(result) => result,
                None => load::load(&self.postgres, plan, keys).await,
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
            let result = apply::apply(&self.postgres, &plan.bound, changes).await;
            match self.explained(plan, result).await {
                Some(result) => result,
                None => apply::apply(&self.postgres, &plan.bound, changes).await,
            }
        })
    }

    fn prepare_ledger(&self) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(tables::prepare(&self.postgres))
    }

    fn ledger_state(&self) -> BoxFuture<'_, Result<LedgerState, SourceError>> {
        Box::pin(tables::state(&self.postgres))
    }

    fn claim<'a>(
        &'a self,
        id: &'a str,
        mappings: &'a [&'a str],
        lanes: i32,
    ) -> BoxFuture<'a, Result<Claim, SourceError>> {
        Box::pin(ledger::claim(&self.postgres, id, mappings, lanes))
    }

    fn commit<'a>(
        &'a self,
        mapping: MappingId,
        batch: &'a Batch<'a>,
        mark: bool,
    ) -> BoxFuture<'a, Result<Commit, SourceError>> {
        Box::pin(async move {
            let plan = self.plan(mapping)?;
            let result = ledger::commit(&self.postgres, &plan.bound, batch, mark).await;
            match self.explained(plan, result).await {
                Some(result) => result,
                None => ledger::commit(&self.postgres, &plan.bound, batch, mark).await,
            }
        })
    }

    fn count_letters(&self) -> BoxFuture<'_, Result<Vec<Count>, SourceError>> {
        Box::pin(letters::count(&self.postgres))
    }

    fn letters_of<'a>(
        &'a self,
        mapping: &'a str,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, SourceError>> {
        Box::pin(letters::of_keys(&self.postgres, mapping, keys))
    }

    fn released<'a>(&'a self, mapping: &'a str) -> BoxFuture<'a, Result<Vec<String>, SourceError>> {
        Box::pin(letters::released(&self.postgres, mapping))
    }

    fn refuse<'a>(
        &'a self,
        letter: &'a DeadLetter,
        error: &'a SourceError,
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(letters::refuse(&self.postgres, letter, error))
    }

    fn prune(&self, before: u64) -> BoxFuture<'_, Result<u64, SourceError>> {
        Box::pin(writers::prune(&self.postgres, before))
    }

    fn register<'a>(&'a self, writer: &'a Writer) -> BoxFuture<'a, Result<Seat, SourceError>> {
        Box::pin(writers::register(&self.postgres, writer))
    }

    fn agree<'a>(
        &'a self,
        id: &'a str,
        guards: &'a [(String, Guard)],
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(agreement::agree(&self.postgres, id, guards))
    }

    fn note<'a>(
        &'a self,
        writer: &'a Writer,
        needed: Option<u64>,
        last: u64,
    ) -> BoxFuture<'a, Result<Standing, SourceError>> {
        Box::pin(writers::note(&self.postgres, writer, needed, last))
    }

    fn journal_lost<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(writers::lost(&self.postgres, id))
    }

    fn letters<'a>(
        &'a self,
        which: &'a Letters,
        most: i64,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, SourceError>> {
        Box::pin(letters::list(&self.postgres, which, most))
    }

    fn drop_letters<'a>(&'a self, which: &'a Letters) -> BoxFuture<'a, Result<u64, SourceError>> {
        Box::pin(letters::discard(&self.postgres, which))
    }

    fn statement<'a>(
        &'a self,
        statement: &'a Statement,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<Rows, SourceError>> {
        Box::pin(statement::run(&self.postgres, statement, params))
    }

    fn describe<'a>(&'a self, statement: &'a Statement) -> BoxFuture<'a, Result<Vec<String>, SourceError>> {
        Box::pin(statement::describe(&self.postgres, statement))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(self.postgres.ping())
    }

    fn pools(&self) -> Vec<PoolState> {
        self.postgres.pools()
    }

    fn replicas(&self) -> ReplicaCounts {
        self.replicas.counts()
    }

    fn close(&self) {
        self.replicas.close();
        self.postgres.close();
    }
}
