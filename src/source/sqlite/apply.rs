//! Applies a batch of writes of one mapping in one SQLite transaction.
//!
//! Must not know: queues, retries.
//!
//! The transaction begins (`begin immediate`: the write lock is taken at once) before the first step and ends with the
//! commit after the last; bookkeeping that must be atomic with the rows goes between the two, in `run`.

use rusqlite::types::Value;
use rusqlite::{Connection, Transaction, TransactionBehavior, params_from_iter};

use super::{Sqlite, value};
use crate::mapping::{Bound, ColumnType, Table};
use crate::source::change::{Action, Change, Step, steps};
use crate::source::error::SourceError;
use crate::source::sqlite::describe::ident;

/// Applies `changes`, which are writes of `bound`, in their order: all of them or none.
pub(super) async fn apply(sqlite: &Sqlite, bound: &Bound, changes: &[&Change]) -> Result<(), SourceError> {
    let Some(table) = &bound.table else {
        let message = format!("mapping '{}' names no table to write to", bound.mapping.name);
        return Err(SourceError::schema("42P01", message));
    };
    let steps = steps(bound, changes);
    let statements = steps
        .iter()
        .map(|step| Prepared::new(bound, table, step))
        .collect::<Result<Vec<_>, SourceError>>()?;
    if statements.is_empty() {
        return Ok(());
    }
    sqlite.writes.run(move |connection| run(connection, &statements)).await
}

/// A statement that is run once per row.
pub(super) struct Prepared {
    pub sql: String,
    pub rows: Vec<Vec<Value>>,
    /// Whose rows they are, where the last column of each is its version.
    pub keys: Vec<String>,
}

impl Prepared {
    pub fn new(bound: &Bound, table: &Table, step: &Step<'_>) -> Result<Self, SourceError> {
        let none = Vec::new();
        let (keep, set) = match &step.action {
            Action::Delete => (&none, &none),
            Action::Upsert { keep, set } => (keep, set),
            Action::Append(set) => (&none, set),
        };
        let given: Vec<u16> = bound.id_columns.iter().chain(keep).chain(set).copied().collect();
        let sql = match &step.action {
            Action::Delete => delete(table, &given),
            Action::Upsert { set, .. } => {
                format!("{} {}", insert(table, &given), on_conflict(table, &bound.id_columns, set))
            }
            Action::Append(_) => insert(table, &given),
        };
        let types: Vec<&ColumnType> =
            given.iter().filter_map(|at| table.columns.get(usize::from(*at))).map(|c| &c.ty).collect();
        let row = |row: &Vec<Option<&str>>| {
            row.iter().zip(&types).map(|(text, ty)| value::of_text(ty, *text)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { sql, rows: step.rows.iter().map(row).collect::<Result<_, _>>()?, keys: Vec::new() })
    }
}

fn run(connection: &mut Connection, statements: &[Prepared]) -> Result<(), SourceError> {
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    for statement in statements {
        let mut prepared = transaction.prepare_cached(&statement.sql)?;
        for row in &statement.rows {
            prepared.execute(params_from_iter(row))?;
        }
    }
    Ok(transaction.commit()?)
}

fn names(table: &Table, columns: &[u16], form: impl Fn(usize, String) -> String, between: &str) -> String {
    let columns = columns.iter().filter_map(|at| table.columns.get(usize::from(*at)));
    columns.enumerate().map(|(at, c)| form(at + 1, ident(&c.name))).collect::<Vec<_>>().join(between)
}

fn insert(table: &Table, given: &[u16]) -> String {
    let columns = names(table, given, |_, name| name, ", ");
    let values = names(table, given, |at, _| format!("?{at}"), ", ");
    format!("insert into {} ({columns}) values ({values})", table.sql_name)
}

fn on_conflict(table: &Table, ids: &[u16], set: &[u16]) -> String {
    let target = names(table, ids, |_, name| name, ", ");
    match set {
        [] => format!("on conflict ({target}) do nothing"),
        set => {
            let assign = names(table, set, |_, name| format!("{name} = excluded.{name}"), ", ");
            format!("on conflict ({target}) do update set {assign}")
        }
    }
}

fn delete(table: &Table, ids: &[u16]) -> String {
    let on = names(table, ids, |at, name| format!("{name} = ?{at}"), " and ");
    format!("delete from {} where {on}", table.sql_name)
}
