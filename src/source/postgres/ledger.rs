//! Batches that are applied exactly once, in Postgres.
//!
//! Must not know: queues, journals, retries.

use std::borrow::Cow;

use deadpool_postgres::{GenericClient, Object, Transaction};
use rustc_hash::FxHashMap;
use tokio_postgres::types::ToSql;

use super::alone::{self, Company};
use super::apply::{Prepared, has_room};
use super::guard::Keys;
use super::pool::Postgres;
use super::{letters, sql, touched};
use crate::failpoint::{self, Safeguard};
use crate::mapping::{Bound, OnPoison, Table};
use crate::source::change::{Action, Change, steps};
use crate::source::error::SourceError;
use crate::source::ledger::{
    Applied, Batch, Claim, Commit, Committed, Once, Versioned, guard_key, letter_of,
};

/// Takes the instance `id`: whoever had it before can write nothing from now on.
pub(super) async fn claim(
    postgres: &Postgres,
    id: &str,
    mappings: &[&str],
    lanes: i32,
) -> Result<Claim, SourceError> {
    let client = postgres.writer().await?;
    let work = async |client: &mut Object| {
        let transaction = client.transaction().await?;
        let sql = "insert into dsproxy_instances as i (id, epoch) values ($1, 1) \
                   on conflict (id) do update set epoch = i.epoch + 1, claimed_at = now() returning epoch";
        let epoch: i64 = transaction.query_one(sql, &[&id]).await?.try_get(0)?;
        let sql = "insert into dsproxy_applied (source, mapping, lane, epoch, \"offset\") \
                   select $1, m, l, $2, 0 from unnest($3::text[]) m, generate_series(0, $4 - 1) l on conflict do nothing";
        transaction.execute(sql, &[&id, &epoch, &mappings, &lanes]).await?;
        let sql =
            "update dsproxy_applied set epoch = $2 where source = $1 returning mapping, lane, \"offset\"";
        let mut applied = Vec::new();
        for row in transaction.query(sql, &[&id, &epoch]).await? {
            applied.push((row.try_get(0)?, row.try_get(1)?, row.try_get::<_, i64>(2)? as u64));
        }
        transaction.commit().await?;
        Ok(Claim { epoch, applied })
    };
    postgres.bounded(client, work).await
}

/// Does all of `batch` in one transaction, or, where it was done before, nothing.
pub(super) async fn commit(
    postgres: &Postgres,
    bound: &Bound,
    batch: &Batch<'_>,
    mark: bool,
) -> Result<Commit, SourceError> {
    let client = postgres.writer().await?;
    postgres.bounded(client, async |client| run(client, bound, batch, mark).await).await
}

async fn run(
    client: &mut Object,
    bound: &Bound,
    batch: &Batch<'_>,
    mark: bool,
) -> Result<Commit, SourceError> {
    let remember = has_room(client);
    let mut transaction = client.transaction().await?;
    if !once(&transaction, bound, batch.once).await? {
        return Ok(Commit::before(bound, batch.writes.len()));
    }
    if failpoint::leaves_out(Safeguard::OneTransaction) {
        transaction.rollback().await?;
        transaction = client.transaction().await?;
    }
    let company = alone::company(&transaction, bound, batch).await?;
    // Letters come before the rows, as in a replay: two that meet wait for each other, and do not deadlock.
    let holding = letters::hold(&transaction, bound, batch).await?;
    let mark = match &holding {
        Some(holding) => holding.overflow,
        None => mark && bound.mapping.on_poison == OnPoison::Flag,
    };
    let rest = holding.as_ref().map(|holding| holding.rest.clone());
    let batch = &Batch { writes: rest.as_deref().unwrap_or(batch.writes), ..*batch };
    let passed = match mark && !batch.writes.is_empty() {
        true => letters::mark(&transaction, bound, batch.writes).await?,
        false => Vec::new(),
    };
    let committed = match &bound.table {
        _ if batch.writes.is_empty() => Commit::default(),
        Some(table) => write(&transaction, bound, table, batch, company, remember).await?,
        None => {
            let message = format!("mapping '{}' names no table to write to", bound.mapping.name);
            return Err(SourceError::schema("42P01", message));
        }
    };
    bury(&transaction, bound, batch).await?;
    let committed = Commit { passed, company: company == Company::Some, ..committed };
    let committed = match holding {
        Some(holding) => {
            failpoint::hit("held.kept");
            holding.and(committed)
        }
        None => committed,
    };
    failpoint::hit("flush.uncommitted");
    transaction.commit().await?;
    if failpoint::leaves_out(Safeguard::OneTransaction) {
        failpoint::hit("flush.torn");
        let transaction = client.transaction().await?;
        once(&transaction, bound, batch.once).await?;
        transaction.commit().await?;
    }
    Ok(committed)
}

/// Does what happens once; false when it has happened before.
async fn once(transaction: &Transaction<'_>, bound: &Bound, once: Once<'_>) -> Result<bool, SourceError> {
    match once {
        Once::Nothing | Once::Newest => Ok(true),
        Once::Letter { id, version } => {
            let sql = "delete from dsproxy_dead_letters where id = $1 and version = $2";
            let sql = transaction.prepare_cached(sql).await?;
            Ok(transaction.execute(&sql, &[&id, &version]).await? == 1)
        }
        Once::Advance(applied) => advance(transaction, &bound.mapping.name, applied).await,
    }
}

async fn advance(
    transaction: &Transaction<'_>,
    mapping: &str,
    applied: &Applied,
) -> Result<bool, SourceError> {
    let (lanes, offsets): (Vec<i32>, Vec<i64>) =
        applied.offsets.iter().map(|(lane, offset)| (*lane, *offset as i64)).unzip();
    let sql = "update dsproxy_applied a set \"offset\" = o.o from unnest($4::int[], $5::bigint[]) o(l, o) \
               where a.source = $1 and a.epoch = $2 and a.mapping = $3 and a.lane = o.l and a.\"offset\" < o.o";
    let sql = &fenced(sql);
    let sql = transaction.prepare_cached(sql).await?;
    let params: [&(dyn ToSql + Sync); 5] = [&applied.source, &applied.epoch, &mapping, &lanes, &offsets];
    if transaction.execute(&sql, &params).await? == lanes.len() as u64 {
        return Ok(true);
    }
    // Fenced, or done before: the answer to an earlier commit was lost.
    let sql = "select count(*) from dsproxy_applied a join unnest($4::int[], $5::bigint[]) o(l, o) on a.lane = o.l \
               where a.source = $1 and a.epoch = $2 and a.mapping = $3 and a.\"offset\" >= o.o";
    let done: i64 = transaction.query_one(&*fenced(sql), &params).await?.try_get(0)?;
    // Both were looked at in one transaction, and only this proxy moves the offsets of its epoch.
    if done >= lanes.len() as i64 {
        Ok(false)
    } else {
        Err(SourceError::fenced(&applied.source, applied.epoch))
    }
}

/// An `sql` that asks for the epoch; as it is, but in the test that leaves the fence out.
fn fenced(sql: &str) -> Cow<'_, str> {
    match failpoint::leaves_out(Safeguard::Fence) {
        true => sql.replace("a.epoch = $2", "a.epoch >= $2").into(),
        false => sql.into(),
    }
}

async fn write(
    transaction: &Transaction<'_>,
    bound: &Bound,
    table: &Table,
    batch: &Batch<'_>,
    company: Company,
    remember: bool,
) -> Result<Commit, SourceError> {
    let writes = batch.writes;
    if bound.is_append() {
        let changes: Vec<&Change> = writes.iter().map(|write| write.change).collect();
        let mut touched = touched::before(transaction, bound, table, &changes).await?;
        for step in steps(bound, &changes) {
            Prepared::new(bound, table, &step).execute(transaction, remember).await?;
        }
        let what = |write: &Versioned<'_>| match write.change {
            Change::Put(_) => Committed::Appended,
            Change::Delete(_) => Committed::Unknown,
        };
        touched.merge(touched::after(transaction, bound, table, &changes).await?);
        return Ok(Commit { held: writes.iter().map(what).collect(), touched, ..Commit::default() });
    }
    let keys = Keys::of(writes);
    let passed = match company == Company::None || failpoint::leaves_out(Safeguard::VersionGuard) {
        true => None,
        false => keys.guard(transaction, bound, table, batch.once).await?,
    };
    let counts = |write: &&Versioned<'_>| {
        passed.as_ref().is_none_or(|passed| passed.contains_key(guard_key(write.change.ids()).as_ref()))
    };
    let changes: Vec<&Change> = writes.iter().filter(counts).map(|write| write.change).collect();
    let mut touched = touched::before(transaction, bound, table, &changes).await?;
    let mut held: FxHashMap<String, Committed> = FxHashMap::default();
    let ids = bound.id_columns.len();
    let key_of = |row: &[Option<&str>]| {
        let ids: Vec<Box<str>> = row.iter().take(ids).flatten().map(|id| Box::from(*id)).collect();
        guard_key(&ids).into_owned()
    };
    let version = |row: &Vec<Option<&str>>| {
        let key = key_of(row);
        let version = passed.as_ref().and_then(|passed| passed.get(&key).copied());
        version.unwrap_or_else(|| keys.version(&key)).to_string()
    };
    for mut step in steps(bound, &changes) {
        if step.action == Action::Delete {
            Prepared::new(bound, table, &step).execute(transaction, remember).await?;
            held.extend(step.rows.iter().map(|row| (key_of(row), Committed::Gone)));
            continue;
        }
        let versions: Vec<String> = match bound.version_column {
            Some(_) => step.rows.iter().map(version).collect(),
            None => Vec::new(),
        };
        step.add_version(bound, versions.iter().map(String::as_str));
        let prepared = Prepared::new(bound, table, &step).returning(&sql::returning(bound, table));
        for row in prepared.query(transaction, remember).await? {
            let ids = (0..ids).map(|at| row.try_get::<_, &str>(at).map(Some));
            let key = key_of(&ids.collect::<Result<Vec<_>, _>>()?);
            // A text mapping whose column is NULL has no value.
            let value: Option<&str> = row.try_get(row.len() - 1)?;
            let value = value.map_or(Committed::Gone, |v| Committed::Value(v.as_bytes().to_vec().into()));
            held.insert(key, value);
        }
    }
    let what = |write: &Versioned<'_>| {
        held.get(guard_key(write.change.ids()).as_ref()).cloned().unwrap_or(Committed::Unknown)
    };
    touched.merge(touched::after(transaction, bound, table, &changes).await?);
    Ok(Commit { held: writes.iter().map(what).collect(), touched, ..Commit::default() })
}

async fn bury(transaction: &Transaction<'_>, bound: &Bound, batch: &Batch<'_>) -> Result<(), SourceError> {
    for refused in batch.refused {
        letters::insert(transaction, &letter_of(bound, refused)).await?;
    }
    Ok(())
}
