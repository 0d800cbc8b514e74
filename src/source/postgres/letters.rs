//! Dead letters in Postgres: written, listed, counted, dropped, and marked where a later write of their key is applied.
//!
//! Must not know: why they come about.

use bytes::Bytes;
use deadpool_postgres::{GenericClient, Object, Transaction};
use tokio_postgres::types::ToSql;

use super::pool::Postgres;
use crate::mapping::Bound;
use crate::source::error::SourceError;
use crate::source::held::{self, Chain, Draft, Holding, Last, Replaces};
use crate::source::ledger::{Batch, Count, DeadLetter, Letters, Versioned, newest};

/// What a letter is read from.
const COLUMNS: &str = "id, to_char(at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), mapping, key, operation, \
     version, columns, code, error, later, held, value";

/// Lets the writes wait that come after a dead letter of their key; what becomes of the batch.
pub(super) async fn hold<'c>(
    transaction: &Transaction<'_>,
    bound: &Bound,
    batch: &Batch<'c>,
) -> Result<Option<Holding<'c>>, SourceError> {
    if !held::applies(bound, batch) {
        return Ok(None);
    }
    let mapping = &bound.mapping.name;
    let sql = "select c.key, c.first, c.oldest, l.id, l.version, l.columns from (\
               select key, min(id) as first, min(version) as oldest, max(id) filter (where held) as last \
               from dsproxy_dead_letters where mapping = $1 and key = any($2) and later is null group by key) c \
               left join dsproxy_dead_letters l on l.id = c.last";
    let sql = transaction.prepare_cached(sql).await?;
    let rows = transaction.query(&sql, &[mapping, &held::keys(bound, batch.writes)]).await?;
    let chains = rows.iter().map(chain).collect::<Result<Vec<_>, _>>()?;
    if chains.is_empty() {
        return Ok(None);
    }
    let sql = "select count(*) from dsproxy_dead_letters where mapping = $1 and held";
    let count: i64 = transaction.query_one(sql, &[mapping]).await?.try_get(0)?;
    let mut holding = held::plan(bound, batch, chains, usize::try_from(count).unwrap_or(usize::MAX))?;
    for Draft { replaces, letter } in std::mem::take(&mut holding.drafts) {
        match replaces {
            Replaces::Nothing => {}
            Replaces::One(id, version) => {
                let sql = "update dsproxy_dead_letters set operation = $3, version = $4, columns = $5, value = $6 \
                           where id = $1 and version = $2 and held";
                let value = letter.value.as_deref();
                let params: [&(dyn ToSql + Sync); 6] =
                    [&id, &version, &letter.operation, &letter.version, &letter.columns, &value];
                if transaction.execute(sql, &params).await? == 1 {
                    continue;
                }
                // It has just been applied by somebody else: nothing is merged into it.
            }
            Replaces::Older => {
                let sql = "delete from dsproxy_dead_letters \
                           where mapping = $1 and key = $2 and version < $3 and held and later is null";
                transaction.execute(sql, &[&letter.mapping, &letter.key, &letter.version]).await?;
            }
        }
        insert(transaction, &letter).await?;
    }
    Ok(Some(holding))
}

fn chain(row: &tokio_postgres::Row) -> Result<Chain, tokio_postgres::Error> {
    let last = match row.try_get::<_, Option<i64>>(3)? {
        Some(id) => Some(Last { id, version: row.try_get(4)?, columns: row.try_get(5)? }),
        None => None,
    };
    Ok(Chain { key: row.try_get(0)?, first: row.try_get(1)?, oldest: row.try_get(2)?, last })
}

/// Writes a letter.
pub(super) async fn insert(transaction: &Transaction<'_>, letter: &DeadLetter) -> Result<(), SourceError> {
    let sql = "insert into dsproxy_dead_letters \
               (mapping, key, operation, version, columns, code, error, held, value) \
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let sql = transaction.prepare_cached(sql).await?;
    let value = letter.value.as_deref();
    let params: [&(dyn ToSql + Sync); 9] = [
        &letter.mapping,
        &letter.key,
        &letter.operation,
        &letter.version,
        &letter.columns,
        &letter.code,
        &letter.error,
        &letter.held,
        &value,
    ];
    transaction.execute(&sql, &params).await?;
    Ok(())
}

/// Those of these keys, in no order.
pub(super) async fn of_keys(
    postgres: &Postgres,
    mapping: &str,
    keys: &[String],
) -> Result<Vec<DeadLetter>, SourceError> {
    let client = postgres.reader().await?;
    let sql = format!("select {COLUMNS} from dsproxy_dead_letters where mapping = $1 and key = any($2)");
    let work = async |client: &mut Object| {
        let sql = client.prepare_cached(&sql).await?;
        let rows = client.query(&sql, &[&mapping, &keys]).await?;
        rows.iter().map(letter).collect::<Result<Vec<_>, _>>().map_err(SourceError::from)
    };
    postgres.bounded(client, work).await
}

/// Keys of letters that wait for nothing any more, some of them.
pub(super) async fn released(postgres: &Postgres, mapping: &str) -> Result<Vec<String>, SourceError> {
    let client = postgres.for_statement().await?;
    let sql = "select distinct h.key from dsproxy_dead_letters h where h.mapping = $1 and h.held and not exists (\
               select from dsproxy_dead_letters p where p.mapping = h.mapping and p.key = h.key and not p.held) limit 1000";
    let work = async |client: &mut Object| {
        let rows = client.query(sql, &[&mapping]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    };
    postgres.bounded(client, work).await
}

/// A letter that has waited is refused: others wait behind it from now on.
pub(super) async fn refuse(
    postgres: &Postgres,
    letter: &DeadLetter,
    error: &SourceError,
) -> Result<(), SourceError> {
    let client = postgres.for_statement().await?;
    let sql = "update dsproxy_dead_letters set held = false, at = now(), code = $3, error = $4 \
               where id = $1 and version = $2 and held";
    let (code, text) = (error.code().unwrap_or("XX000").to_owned(), error.to_string());
    let work = async |client: &mut Object| {
        Ok(client.execute(sql, &[&letter.id, &letter.version, &code, &text]).await?)
    };
    postgres.bounded(client, work).await.map(drop)
}

/// Marks those that these writes pass; their keys.
pub(super) async fn mark(
    transaction: &Transaction<'_>,
    bound: &Bound,
    writes: &[Versioned<'_>],
) -> Result<Vec<String>, SourceError> {
    let (keys, versions): (Vec<String>, Vec<i64>) = newest(bound, writes).into_iter().unzip();
    let sql = "with given as (select k, v from unnest($2::text[], $3::bigint[]) g(k, v)), \
               meant as (select d.id, given.v from dsproxy_dead_letters d join given on d.key = given.k \
               where d.mapping = $1 and d.version < given.v and d.later is null order by d.id for update of d) \
               update dsproxy_dead_letters d set later = meant.v from meant where d.id = meant.id returning d.key";
    let sql = transaction.prepare_cached(sql).await?;
    let rows = transaction.query(&sql, &[&bound.mapping.name, &keys, &versions]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// How many each mapping has.
pub(super) async fn count(postgres: &Postgres) -> Result<Vec<Count>, SourceError> {
    let client = postgres.for_statement().await?;
    let sql =
        "select mapping, count(*), count(*) filter (where held) from dsproxy_dead_letters group by mapping";
    let work = async |client: &mut Object| {
        let rows = client.query(sql, &[]).await?;
        let number =
            |row: &tokio_postgres::Row, at: usize| Ok::<_, SourceError>(row.try_get::<_, i64>(at)? as u64);
        let count = |row: &tokio_postgres::Row| {
            Ok(Count { mapping: row.try_get(0)?, all: number(row, 1)?, held: number(row, 2)? })
        };
        rows.iter().map(count).collect()
    };
    postgres.bounded(client, work).await
}

/// Dead letters, oldest first.
pub(super) async fn list(
    postgres: &Postgres,
    which: &Letters,
    most: i64,
) -> Result<Vec<DeadLetter>, SourceError> {
    let client = postgres.for_statement().await?;
    let sql = format!(
        "select {COLUMNS} from dsproxy_dead_letters \
         where ($1::text is null or mapping = $1) and (cardinality($2::bigint[]) = 0 or id = any($2)) \
         and id > $3 order by id limit $4"
    );
    let work = async |client: &mut Object| {
        let rows = client.query(&sql, &[&which.mapping, &which.ids, &which.after, &most]).await?;
        rows.iter().map(letter).collect::<Result<Vec<_>, _>>().map_err(SourceError::from)
    };
    postgres.bounded(client, work).await
}

fn letter(row: &tokio_postgres::Row) -> Result<DeadLetter, tokio_postgres::Error> {
    Ok(DeadLetter {
        id: row.try_get(0)?,
        at: row.try_get(1)?,
        mapping: row.try_get(2)?,
        key: row.try_get(3)?,
        operation: row.try_get(4)?,
        version: row.try_get(5)?,
        columns: row.try_get(6)?,
        code: row.try_get(7)?,
        error: row.try_get(8)?,
        later: row.try_get(9)?,
        held: row.try_get(10)?,
        value: row.try_get::<_, Option<&[u8]>>(11)?.map(Bytes::copy_from_slice),
    })
}

/// Removes dead letters, those that wait only where they are named; how many.
pub(super) async fn discard(postgres: &Postgres, which: &Letters) -> Result<u64, SourceError> {
    let client = postgres.for_statement().await?;
    let sql = "delete from dsproxy_dead_letters where ($1::text is null or mapping = $1) \
               and ((cardinality($2::bigint[]) = 0 and not held) or id = any($2)) and id > $3";
    let work = async |client: &mut Object| {
        Ok(client.execute(sql, &[&which.mapping, &which.ids, &which.after]).await?)
    };
    postgres.bounded(client, work).await
}
