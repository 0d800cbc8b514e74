//! Dead letters in Postgres: listed, counted, dropped, and marked where a later write of their key is applied.
//!
//! Must not know: how they come about.

use deadpool_postgres::{GenericClient, Object, Transaction};

use super::pool::Postgres;
use crate::mapping::Bound;
use crate::source::error::SourceError;
use crate::source::ledger::{DeadLetter, Letters, Versioned, newest};

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
pub(super) async fn count(postgres: &Postgres) -> Result<Vec<(String, u64)>, SourceError> {
    let client = postgres.for_statement().await?;
    let sql = "select mapping, count(*) from dsproxy_dead_letters group by mapping";
    let work = async |client: &mut Object| {
        let rows = client.query(sql, &[]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<_, i64>(1)? as u64))).collect()
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
    let sql = "select id, to_char(at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), mapping, key, operation, \
               version, columns, code, error, later from dsproxy_dead_letters \
               where ($1::text is null or mapping = $1) and (cardinality($2::bigint[]) = 0 or id = any($2)) \
               and id > $3 order by id limit $4";
    let work = async |client: &mut Object| {
        let rows = client.query(sql, &[&which.mapping, &which.ids, &which.after, &most]).await?;
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
    })
}

/// Removes dead letters; how many.
pub(super) async fn discard(postgres: &Postgres, which: &Letters) -> Result<u64, SourceError> {
    let client = postgres.for_statement().await?;
    let sql = "delete from dsproxy_dead_letters where ($1::text is null or mapping = $1) \
               and (cardinality($2::bigint[]) = 0 or id = any($2)) and id > $3";
    let work = async |client: &mut Object| {
        Ok(client.execute(sql, &[&which.mapping, &which.ids, &which.after]).await?)
    };
    postgres.bounded(client, work).await
}
