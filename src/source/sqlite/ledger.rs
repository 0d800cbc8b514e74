//! The proxy's own tables in SQLite, and batches that are applied exactly once.
//!
//! Must not know: queues, journals, retries.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::types::Value;
use rusqlite::{Connection, Transaction, TransactionBehavior, params, params_from_iter};

use super::apply::Prepared;
use super::guard::Guard;
use super::load;
use super::touched::Watch;
use super::{Plan, Sqlite, agreement, letters, writers};
use crate::failpoint;
use crate::mapping::{Bound, OnPoison, Table};
use crate::source::change::{Action, Change, Step, steps};
use crate::source::error::SourceError;
use crate::source::held::{self, Chain, Draft};
use crate::source::ledger::{
    Applied, Batch, Claim, Commit, Committed, DeadLetter, LedgerState, Once, TABLES, Versioned, guard_key,
    letter_of, newest,
};
use crate::source::touched::Touched;

const CREATE: &str = "\
create table if not exists dsproxy_instances (
    id text primary key, epoch integer not null, claimed_at text not null default current_timestamp);
create table if not exists dsproxy_applied (
    source text not null, mapping text not null, lane integer not null, epoch integer not null, \"offset\" integer not null,
    primary key (source, mapping, lane)) without rowid;
create table if not exists dsproxy_versions (
    mapping text not null, key text not null, version integer not null, primary key (mapping, key)) without rowid;
create table if not exists dsproxy_dead_letters (
    id integer primary key autoincrement, at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    mapping text not null, key text not null, operation text not null, version integer not null, columns text,
    code text not null, error text not null, later integer, held integer not null default false, value blob);";

pub(super) fn begin(connection: &mut Connection) -> Result<Transaction<'_>, SourceError> {
    Ok(Transaction::new(connection, TransactionBehavior::Immediate)?)
}

/// Makes the tables where they are missing.
pub(super) async fn prepare(sqlite: &Sqlite) -> Result<(), SourceError> {
    let work = |connection: &mut Connection| {
        let transaction = begin(connection)?;
        transaction.execute_batch(CREATE)?;
        letters::prepare(&transaction)?;
        transaction.execute_batch(writers::CREATE)?;
        transaction.execute_batch(agreement::CREATE)?;
        Ok(transaction.commit()?)
    };
    sqlite.writes.run(work).await
}

/// How the tables stand: who can write the file can make them.
pub(super) async fn state(sqlite: &Sqlite) -> Result<LedgerState, SourceError> {
    let work = |connection: &mut Connection| {
        let sql = "select count(*) from sqlite_schema where type = 'table' and name = ?1";
        let mut missing = Vec::new();
        for name in TABLES.split(", ") {
            if connection.query_row(sql, [name], |row| row.get::<_, i64>(0))? == 0 {
                missing.push(name.to_owned());
            }
        }
        let outdated =
            !missing.iter().any(|name| name == "dsproxy_dead_letters") && letters::is_old(connection)?;
        Ok(LedgerState { missing, outdated })
    };
    sqlite.loads.run(work).await
}

/// Takes the instance `id`.
pub(super) async fn claim(
    sqlite: &Sqlite,
    id: &str,
    mappings: &[&str],
    lanes: i32,
) -> Result<Claim, SourceError> {
    let (id, mappings) = (id.to_owned(), mappings.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>());
    let work = move |connection: &mut Connection| {
        let transaction = begin(connection)?;
        let sql = "insert into dsproxy_instances as i (id, epoch) values (?1, 1) \
                   on conflict (id) do update set epoch = i.epoch + 1, claimed_at = current_timestamp returning epoch";
        let epoch: i64 = transaction.query_row(sql, [&id], |row| row.get(0))?;
        let sql = "insert into dsproxy_applied (source, mapping, lane, epoch, \"offset\") values (?1, ?2, ?3, ?4, 0) \
                   on conflict do nothing";
        for mapping in &mappings {
            for lane in 0..lanes {
                transaction.execute(sql, params![id, mapping, lane, epoch])?;
            }
        }
        transaction.execute("update dsproxy_applied set epoch = ?2 where source = ?1", params![id, epoch])?;
        let applied = {
            let sql = "select mapping, lane, \"offset\" from dsproxy_applied where source = ?1";
            let mut statement = transaction.prepare(sql)?;
            let rows = statement
                .query_map([&id], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)? as u64)))?;
            rows.collect::<Result<_, _>>()?
        };
        transaction.commit()?;
        Ok(Claim { epoch, applied })
    };
    sqlite.writes.run(work).await
}

/// A batch that a thread can own.
struct Job {
    bound: std::sync::Arc<Bound>,
    statements: Vec<Prepared>,
    watch: Watch,
    guard: Guard,
    letters: Vec<DeadLetter>,
    /// Keys whose writes wait behind dead letters.
    keys: Vec<String>,
    /// Such letters, as far as they are known.
    chains: Vec<Chain>,
    /// What waits behind them from now on.
    drafts: Vec<Draft>,
    /// Keys and versions by which older letters are marked.
    marks: BTreeMap<String, i64>,
    once: Do,
}

enum Do {
    Nothing,
    Advance(Applied),
    Letter(i64, i64),
}

/// What a try came to.
enum Tried {
    Done(Touched, Vec<String>),
    /// It was done before.
    Before,
    /// Some keys have newer versions: only these count.
    Only(HashSet<String>),
    /// There are such dead letters, and so many writes wait already.
    Behind(Vec<Chain>, usize),
}

/// Does all of `batch` in one transaction, or, where it was done before, nothing.
pub(super) async fn commit(
    sqlite: &Sqlite,
    plan: &Plan,
    batch: &Batch<'_>,
    mark: bool,
) -> Result<Commit, SourceError> {
    let bound = &plan.bound;
    let (mut chains, mut count) = (Vec::new(), 0);
    let mut only: Option<HashSet<String>> = None;
    loop {
        let holding = match chains.is_empty() {
            true => None,
            false => Some(held::plan(bound, batch, chains.clone(), count)?),
        };
        let mark =
            holding.as_ref().map_or(mark && bound.mapping.on_poison == OnPoison::Flag, |it| it.overflow);
        let rest = holding.as_ref().map(|holding| holding.rest.clone());
        let rest = Batch { writes: rest.as_deref().unwrap_or(batch.writes), ..*batch };
        let counts = |write: &&Versioned<'_>| {
            only.as_ref().is_none_or(|only| only.contains(guard_key(write.change.ids()).as_ref()))
        };
        let writes: Vec<Versioned<'_>> = rest.writes.iter().filter(counts).copied().collect();
        let mut job = job(plan, &rest, &writes)?;
        if held::applies(bound, batch) {
            job.keys = held::keys(bound, batch.writes);
        }
        job.chains.clone_from(&chains);
        job.drafts = holding.as_ref().map(|holding| holding.drafts.clone()).unwrap_or_default();
        if mark {
            job.marks = newest(bound, rest.writes);
        }
        match sqlite.writes.run(move |connection| run(connection, &job)).await? {
            Tried::Done(touched, passed) => {
                let held = after(sqlite, plan, &rest, &writes).await;
                let commit = Commit { held, touched, passed, ..Commit::default() };
                return Ok(match holding {
                    Some(holding) => holding.and(commit),
                    None => commit,
                });
            }
            Tried::Before => return Ok(Commit::before(bound, batch.writes.len())),
            // Rolled back: another proxy was there before. Once more, without what is too old.
            Tried::Only(keys) => only = Some(keys),
            // Rolled back: there are dead letters that were not known of. Once more, and some writes wait behind them.
            Tried::Behind(found, held) => (chains, count, only) = (found, held, None),
        }
    }
}

/// What the database holds after the commit of `writes`, those of `batch` that count.
async fn after(sqlite: &Sqlite, plan: &Plan, batch: &Batch<'_>, writes: &[Versioned<'_>]) -> Vec<Committed> {
    if !plan.bound.is_append() {
        return held(sqlite, plan, batch, writes).await;
    }
    let what = |write: &Versioned<'_>| match write.change {
        Change::Put(_) => Committed::Appended,
        Change::Delete(_) => Committed::Unknown,
    };
    batch.writes.iter().map(what).collect()
}

/// What the keys of `batch` hold, those of `written` being read again: SQLite has one writer, so between the commit and this
/// only a newer write may have come, which is then answered.
async fn held(sqlite: &Sqlite, plan: &Plan, batch: &Batch<'_>, written: &[Versioned<'_>]) -> Vec<Committed> {
    let keys: BTreeMap<_, _> = written.iter().map(|w| (guard_key(w.change.ids()), w.change.ids())).collect();
    let ids: Vec<Box<[Box<str>]>> = keys.values().map(|ids| (*ids).into()).collect();
    // A row that cannot be read after its commit is not known; it is committed all the same.
    let rows = load::load_ids(sqlite, plan, ids).await.unwrap_or_default();
    let held: HashMap<_, _> = keys.into_keys().zip(rows).collect();
    let what = |write: &Versioned<'_>| match held.get(&guard_key(write.change.ids())) {
        Some(Ok(Some(row))) => Committed::Value(row.value.clone()),
        Some(Ok(None)) => Committed::Gone,
        _ => Committed::Unknown,
    };
    batch.writes.iter().map(what).collect()
}

fn job(plan: &Plan, batch: &Batch<'_>, writes: &[Versioned<'_>]) -> Result<Job, SourceError> {
    let bound = plan.bound.clone();
    let changes: Vec<&Change> = writes.iter().map(|write| write.change).collect();
    let guard = Guard::new(&bound, writes, batch.once.step())?;
    let statements = match &bound.table {
        Some(table) => steps(&bound, &changes)
            .into_iter()
            .map(|step| prepared(&bound, table, step, &guard))
            .collect::<Result<Vec<_>, SourceError>>()?,
        None if changes.is_empty() => Vec::new(),
        None => {
            let message = format!("mapping '{}' names no table to write to", bound.mapping.name);
            return Err(SourceError::schema("42P01", message));
        }
    };
    let letters = batch.refused.iter().map(|refused| letter_of(&bound, refused)).collect();
    let once = match batch.once {
        Once::Nothing | Once::Newest => Do::Nothing,
        Once::Advance(applied) => Do::Advance(applied.clone()),
        Once::Letter { id, version } => Do::Letter(id, version),
    };
    let watch = Watch::new(&bound, &changes)?;
    let (keys, chains, drafts, marks) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
    Ok(Job { statements, watch, guard, letters, keys, chains, drafts, marks, once, bound })
}

/// The statement of `step`, which knows whose rows it writes where they hold their version.
fn prepared(bound: &Bound, table: &Table, step: Step<'_>, guard: &Guard) -> Result<Prepared, SourceError> {
    if bound.version_column.is_none() || step.action == Action::Delete {
        return Prepared::new(bound, table, &step);
    }
    let ids = bound.id_columns.len();
    let key = |row: &Vec<Option<&str>>| {
        let ids: Vec<Box<str>> = row.iter().take(ids).flatten().map(|id| Box::from(*id)).collect();
        guard_key(&ids).into_owned()
    };
    let keys: Vec<String> = step.rows.iter().map(key).collect();
    let versions: Vec<String> = keys.iter().map(|key| guard.version(key).to_string()).collect();
    let mut step: Step<'_> = step; // for as long as its versions live
    step.add_version(bound, versions.iter().map(String::as_str));
    Ok(Prepared { keys, ..Prepared::new(bound, table, &step)? })
}

fn run(connection: &mut Connection, job: &Job) -> Result<Tried, SourceError> {
    let transaction = begin(connection)?;
    let mapping = &job.bound.mapping.name;
    let fresh = match &job.once {
        Do::Nothing => true,
        Do::Letter(id, version) => {
            let sql = "delete from dsproxy_dead_letters where id = ?1 and version = ?2";
            transaction.execute(sql, [id, version])? == 1
        }
        Do::Advance(applied) => advance(&transaction, mapping, applied)?,
    };
    if !fresh {
        return Ok(Tried::Before);
    }
    let chains = letters::chains(&transaction, mapping, &job.keys)?;
    if chains != job.chains {
        return Ok(Tried::Behind(chains, letters::held(&transaction, mapping)?));
    }
    let passed = job.guard.pass(&transaction)?;
    if passed.len() < job.guard.len() {
        return Ok(Tried::Only(passed.into_keys().collect())); // dropping the transaction rolls it back
    }
    let marked = letters::mark(&transaction, mapping, &job.marks)?;
    let mut touched = job.watch.read(&transaction)?;
    for statement in &job.statements {
        let mut prepared = transaction.prepare_cached(&statement.sql)?;
        for (at, row) in statement.rows.iter().enumerate() {
            let version = statement.keys.get(at).and_then(|key| passed.get(key));
            // Which version that is, the guard has just decided.
            let decided = version.map(|version| Value::Integer(*version));
            let kept = row.len() - usize::from(decided.is_some());
            prepared.execute(params_from_iter(row.iter().take(kept).chain(&decided)))?;
        }
    }
    touched.merge(job.watch.read(&transaction)?);
    for letter in &job.letters {
        letters::insert(&transaction, letter)?;
    }
    for draft in &job.drafts {
        letters::keep(&transaction, draft)?;
    }
    if !job.drafts.is_empty() {
        failpoint::hit("held.kept");
    }
    failpoint::hit("flush.uncommitted");
    transaction.commit()?;
    Ok(Tried::Done(touched, marked))
}

fn advance(transaction: &Transaction<'_>, mapping: &str, applied: &Applied) -> Result<bool, SourceError> {
    let sql = "update dsproxy_applied set \"offset\" = ?5 \
               where source = ?1 and epoch = ?2 and mapping = ?3 and lane = ?4 and \"offset\" < ?5";
    let done = "select count(*) from dsproxy_applied \
                where source = ?1 and epoch = ?2 and mapping = ?3 and lane = ?4 and \"offset\" >= ?5";
    let mut fresh = 0;
    for (lane, offset) in &applied.offsets {
        let params = params![applied.source, applied.epoch, mapping, lane, *offset as i64];
        if transaction.execute(sql, params)? == 1 {
            fresh += 1;
        } else if transaction.query_row(done, params, |row| row.get::<_, i64>(0))? == 0 {
            return Err(SourceError::fenced(&applied.source, applied.epoch));
        }
    }
    match fresh {
        0 if !applied.offsets.is_empty() => Ok(false),
        fresh if fresh == applied.offsets.len() => Ok(true),
        // Lanes that were applied together stay together.
        _ => Err(SourceError::fenced(&applied.source, applied.epoch)),
    }
}
