//! Runs one statement of a route in SQLite.
//!
//! Must not know: who sent the parameters.
//!
//! A statement that only reads runs on a thread for statements. One that writes runs on the writer, in a transaction of
//! its own: begun before it, committed when all of its rows are read, rolled back on any error.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{CachedStatement, Connection, Transaction, TransactionBehavior, params_from_iter};
use serde_json::value::RawValue;

use super::Sqlite;
use super::load::{Field, fields, object};
use crate::source::error::SourceError;
use crate::source::statement::{Param, Rows, Statement, answer_too_large, same_name_twice};

pub(super) async fn run(
    sqlite: &Sqlite,
    statement: &Statement,
    params: &[Param<'_>],
) -> Result<Rows, SourceError> {
    let sql: Arc<str> = numbered(statement.sql()).into();
    let params: Arc<[Value]> = params.iter().map(of_param).collect::<Result<_, _>>()?;
    let most = sqlite.max_value_bytes;
    let (reading_sql, reading_params) = (sql.clone(), params.clone());
    let read = move |connection: &mut Connection| {
        let mut statement = connection.prepare_cached(&reading_sql)?;
        match statement.readonly() {
            true => answer(&mut statement, &reading_params, most).map(Some),
            false => Ok(None),
        }
    };
    if let Some(rows) = sqlite.statements.run(read).await? {
        return Ok(rows);
    }
    let write = move |connection: &mut Connection| {
        let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
        let rows = {
            let mut statement = transaction.prepare_cached(&sql)?;
            let rows = answer(&mut statement, &params, most)?;
            Rows { affected: transaction.changes(), ..rows }
        };
        transaction.commit()?;
        Ok(rows)
    };
    sqlite.writing_statements.run(write).await
}

/// Prepares it without running it.
pub(super) async fn describe(sqlite: &Sqlite, statement: &Statement) -> Result<Vec<String>, SourceError> {
    let sql = numbered(statement.sql());
    let look = move |connection: &mut Connection| {
        let statement = connection.prepare_cached(&sql)?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        same_name_twice(&columns)?;
        Ok(columns)
    };
    sqlite.statements.run(look).await
}

/// `$1` would be a name for SQLite; `?1` is a number.
fn numbered(sql: &str) -> String {
    use crate::sql::{Piece, pieces};
    pieces(sql)
        .into_iter()
        .map(|piece| match piece {
            Piece::Sql(sql) => sql.to_owned(),
            Piece::Number(number) => format!("?{number}"),
            Piece::Name(name) => format!("${name}"),
        })
        .collect()
}

fn answer(statement: &mut CachedStatement<'_>, params: &[Value], most: usize) -> Result<Rows, SourceError> {
    let fields: Vec<Field> = fields(statement);
    let columns: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
    same_name_twice(&columns)?;
    let mut found = statement.query(params_from_iter(params))?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let json = object(fields.iter().enumerate().map(|(at, field)| Ok((field, row.get_ref(at)?))))?;
        bytes += json.len();
        if bytes > most {
            return Err(answer_too_large(most));
        }
        rows.push(Bytes::from(json));
    }
    let affected = rows.len() as u64;
    Ok(Rows { columns, rows, affected })
}

/// A value by its own type: SQLite converts it by the affinity of the column that it meets.
fn of_param(param: &Param<'_>) -> Result<Value, SourceError> {
    Ok(match param {
        Param::Null => Value::Null,
        Param::Bool(value) => Value::Integer(i64::from(*value)),
        Param::Int(value) => Value::Integer(*value),
        Param::Text(text) => Value::Text((*text).to_owned()),
        Param::Json(json) => of_json(json)?,
    })
}

fn of_json(json: &RawValue) -> Result<Value, SourceError> {
    let raw = json.get();
    Ok(match raw.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Integer(1),
        Some(b'f') => Value::Integer(0),
        Some(b'"') => Value::Text(serde_json::from_str(raw).map_err(|_| {
            SourceError::bad_data("22P05", "a parameter is no valid text (a lone surrogate?)")
        })?),
        // Arrays and objects are stored as their JSON text.
        Some(b'[' | b'{') => Value::Text(raw.to_owned()),
        _ => match raw.parse::<i64>() {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Real(
                raw.parse().map_err(|_| SourceError::bad_data("22P02", "a parameter is no number"))?,
            ),
        },
    })
}
