//! Dead letters in SQLite: written, listed, counted, dropped, and marked where a later write of their key is applied.
//!
//! Must not know: why they come about.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::{Connection, Row, Transaction, params};

use super::Sqlite;
use crate::source::error::SourceError;
use crate::source::held::{Chain, Draft, Last, Replaces};
use crate::source::ledger::{Count, DeadLetter, Letters};

/// Columns that a file from an earlier version has not got.
const ADDED: [(&str, &str); 3] =
    [("later", "integer"), ("held", "integer not null default false"), ("value", "blob")];

/// Whether the table is one of an earlier version.
pub(super) fn is_old(connection: &Connection) -> Result<bool, SourceError> {
    let sql = "select count(*) from pragma_table_info('dsproxy_dead_letters') where name in ('later', 'held', 'value')";
    Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))? < 3)
}

/// Files from before letters were marked, and writes waited behind them, get the columns for it.
pub(super) fn prepare(transaction: &Transaction<'_>) -> Result<(), SourceError> {
    let sql = "select count(*) from pragma_table_info('dsproxy_dead_letters') where name = ?1";
    for (name, ty) in ADDED {
        if transaction.query_row(sql, [name], |row| row.get::<_, i64>(0))? == 0 {
            transaction.execute_batch(&format!("alter table dsproxy_dead_letters add column {name} {ty}"))?;
        }
    }
    let index = "create index if not exists dsproxy_dead_letters_key on dsproxy_dead_letters (mapping, key)";
    Ok(transaction.execute_batch(index)?)
}

/// What a letter is read from.
const COLUMNS: &str = "id, at, mapping, key, operation, version, columns, code, error, later, held, value";

/// The letters of these keys that no later write has passed.
pub(super) fn chains(
    transaction: &Transaction<'_>,
    mapping: &str,
    keys: &[String],
) -> Result<Vec<Chain>, SourceError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "select c.key, c.first, c.oldest, l.id, l.version, l.columns from (\
               select key, min(id) as first, min(version) as oldest, max(id) filter (where held) as last \
               from dsproxy_dead_letters where mapping = ?1 and key in (select value from json_each(?2)) \
               and later is null group by key) c left join dsproxy_dead_letters l on l.id = c.last order by c.key";
    let mut statement = transaction.prepare_cached(sql)?;
    let chain = |row: &Row<'_>| {
        let last = match row.get::<_, Option<i64>>(3)? {
            Some(id) => Some(Last { id, version: row.get(4)?, columns: row.get(5)? }),
            None => None,
        };
        Ok(Chain { key: row.get(0)?, first: row.get(1)?, oldest: row.get(2)?, last })
    };
    let rows = statement.query_map(params![mapping, json(keys)], chain)?;
    Ok(rows.collect::<Result<Vec<_>, _>>()?)
}

/// How many wait behind others.
pub(super) fn held(transaction: &Transaction<'_>, mapping: &str) -> Result<usize, SourceError> {
    let sql = "select count(*) from dsproxy_dead_letters where mapping = ?1 and held";
    let count: i64 = transaction.query_row(sql, [mapping], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Lets a write wait.
pub(super) fn keep(transaction: &Transaction<'_>, draft: &Draft) -> Result<(), SourceError> {
    let Draft { replaces, letter } = draft;
    match replaces {
        Replaces::Nothing => {}
        Replaces::One(id, version) => {
            let sql = "update dsproxy_dead_letters set operation = ?3, version = ?4, columns = ?5, value = ?6 \
                       where id = ?1 and version = ?2 and held";
            let value = letter.value.as_deref();
            let params = params![id, version, letter.operation, letter.version, letter.columns, value];
            if transaction.execute(sql, params)? == 1 {
                return Ok(());
            }
        }
        Replaces::Older => {
            let sql = "delete from dsproxy_dead_letters \
                       where mapping = ?1 and key = ?2 and version < ?3 and held and later is null";
            transaction.execute(sql, params![letter.mapping, letter.key, letter.version])?;
        }
    }
    insert(transaction, letter)
}

/// Writes a letter.
pub(super) fn insert(transaction: &Transaction<'_>, letter: &DeadLetter) -> Result<(), SourceError> {
    let sql = "insert into dsproxy_dead_letters \
               (mapping, key, operation, version, columns, code, error, held, value) \
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    transaction.prepare_cached(sql)?.execute(params![
        letter.mapping,
        letter.key,
        letter.operation,
        letter.version,
        letter.columns,
        letter.code,
        letter.error,
        letter.held,
        letter.value.as_deref()
    ])?;
    Ok(())
}

/// Those of these keys, in no order.
pub(super) async fn of_keys(
    sqlite: &Sqlite,
    mapping: &str,
    keys: &[String],
) -> Result<Vec<DeadLetter>, SourceError> {
    let (mapping, keys) = (mapping.to_owned(), json(keys));
    let work = move |connection: &mut Connection| {
        let sql = format!(
            "select {COLUMNS} from dsproxy_dead_letters \
             where mapping = ?1 and key in (select value from json_each(?2))"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params![mapping, keys], letter)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    sqlite.loads.run(work).await
}

/// Keys of letters that wait for nothing any more, some of them.
pub(super) async fn released(sqlite: &Sqlite, mapping: &str) -> Result<Vec<String>, SourceError> {
    let mapping = mapping.to_owned();
    let work = move |connection: &mut Connection| {
        let sql = "select distinct h.key from dsproxy_dead_letters h where h.mapping = ?1 and h.held and not exists (\
                   select 1 from dsproxy_dead_letters p where p.mapping = h.mapping and p.key = h.key and not p.held) \
                   limit 1000";
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([mapping], |row| row.get(0))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    sqlite.loads.run(work).await
}

/// A letter that has waited is refused: others wait behind it from now on.
pub(super) async fn refuse(
    sqlite: &Sqlite,
    letter: &DeadLetter,
    error: &SourceError,
) -> Result<(), SourceError> {
    let (id, version) = (letter.id, letter.version);
    let (code, text) = (error.code().unwrap_or("XX000").to_owned(), error.to_string());
    let work = move |connection: &mut Connection| {
        let sql = "update dsproxy_dead_letters set held = false, at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), \
                   code = ?3, error = ?4 where id = ?1 and version = ?2 and held";
        connection.execute(sql, params![id, version, code, text])?;
        Ok(())
    };
    sqlite.writes.run(work).await
}

/// A statement has a fixed number of parameters.
fn json(keys: &[String]) -> String {
    serde_json::to_string(keys).unwrap_or_default()
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
pub(super) async fn count(sqlite: &Sqlite) -> Result<Vec<Count>, SourceError> {
    let work = |connection: &mut Connection| {
        let sql = "select mapping, count(*), count(*) filter (where held) from dsproxy_dead_letters group by mapping";
        let mut statement = connection.prepare(sql)?;
        let number = |row: &Row<'_>, at: usize| row.get::<_, i64>(at).map(|number| number as u64);
        let count =
            |row: &Row<'_>| Ok(Count { mapping: row.get(0)?, all: number(row, 1)?, held: number(row, 2)? });
        let rows = statement.query_map([], count)?;
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
        let sql = format!("select {COLUMNS} from dsproxy_dead_letters where {MEANT} order by id limit ?4");
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
        held: row.get(10)?,
        value: row.get::<_, Option<Vec<u8>>>(11)?.map(Bytes::from),
    })
}

/// Removes dead letters, those that wait only where they are named; how many.
pub(super) async fn discard(sqlite: &Sqlite, letters: &Letters) -> Result<u64, SourceError> {
    let (mapping, ids, after) = which(letters);
    let sql = format!("delete from dsproxy_dead_letters where {MEANT} and (not held or ?2 <> '[]')");
    let work =
        move |connection: &mut Connection| Ok(connection.execute(&sql, params![mapping, ids, after])? as u64);
    sqlite.writes.run(work).await
}
