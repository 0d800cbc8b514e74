//! Dead letters in SQLite: listed, counted, dropped, and marked where a later write of their key is applied.
//!
//! Must not know: how they come about.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, Transaction, params};

use super::Sqlite;
use crate::source::error::SourceError;
use crate::source::ledger::{DeadLetter, Letters};

/// Files from before letters were marked get the column for it.
pub(super) fn prepare(transaction: &Transaction<'_>) -> Result<(), SourceError> {
    let sql = "select count(*) from pragma_table_info('dsproxy_dead_letters') where name = 'later'";
    if transaction.query_row(sql, [], |row| row.get::<_, i64>(0))? == 0 {
        transaction.execute_batch("alter table dsproxy_dead_letters add column later integer")?;
    }
    Ok(())
}

/// Marks those that these writes (key and version) pass; their keys.
pub(super) fn mark(
    transaction: &Transaction<'_>,
    mapping: &str,
    writes: &BTreeMap<String, i64>,
) -> Result<Vec<String>, SourceError> {
    let mut passed = Vec::new();
    let any = "select exists (select 1 from dsproxy_dead_letters where mapping = ?1)";
    if writes.is_empty() || !transaction.query_row(any, [mapping], |row| row.get::<_, bool>(0))? {
        return Ok(passed);
    }
    let mut sql = transaction.prepare_cached(
        "update dsproxy_dead_letters set later = ?3 where mapping = ?1 and key = ?2 and version < ?3 and later is null",
    )?;
    for (key, version) in writes {
        if sql.execute(params![mapping, key, version])? > 0 {
            passed.push(key.clone());
        }
    }
    Ok(passed)
}

/// How many each mapping has.
pub(super) async fn count(sqlite: &Sqlite) -> Result<Vec<(String, u64)>, SourceError> {
    let work = |connection: &mut Connection| {
        let mut statement =
            connection.prepare("select mapping, count(*) from dsproxy_dead_letters group by mapping")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    sqlite.loads.run(work).await
}

/// `ids` as one JSON array, since a statement has a fixed number of parameters.
fn which(letters: &Letters) -> (Option<String>, String, i64) {
    (letters.mapping.clone(), serde_json::to_string(&letters.ids).unwrap_or_default(), letters.after)
}

const MEANT: &str =
    "(?1 is null or mapping = ?1) and (?2 = '[]' or id in (select value from json_each(?2))) and id > ?3";

/// Dead letters, oldest first.
pub(super) async fn list(
    sqlite: &Sqlite,
    letters: &Letters,
    most: i64,
) -> Result<Vec<DeadLetter>, SourceError> {
    let (mapping, ids, after) = which(letters);
    let work = move |connection: &mut Connection| {
        let sql = format!(
            "select id, at, mapping, key, operation, version, columns, code, error, later from dsproxy_dead_letters \
             where {MEANT} order by id limit ?4"
        );
        let mut statement = connection.prepare(&sql)?;
        let rows = statement.query_map(params![mapping, ids, after, most], letter)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    sqlite.loads.run(work).await
}

fn letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        id: row.get(0)?,
        at: row.get(1)?,
        mapping: row.get(2)?,
        key: row.get(3)?,
        operation: row.get(4)?,
        version: row.get(5)?,
        columns: row.get(6)?,
        code: row.get(7)?,
        error: row.get(8)?,
        later: row.get(9)?,
    })
}

/// Removes dead letters; how many.
pub(super) async fn discard(sqlite: &Sqlite, letters: &Letters) -> Result<u64, SourceError> {
    let (mapping, ids, after) = which(letters);
    let sql = format!("delete from dsproxy_dead_letters where {MEANT}");
    let work =
        move |connection: &mut Connection| Ok(connection.execute(&sql, params![mapping, ids, after])? as u64);
    sqlite.writes.run(work).await
}
