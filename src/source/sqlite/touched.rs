//! Reads the columns of changed rows on which values of other mappings depend.
//!
//! Must not know: which values depend on what.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::describe::ident;
use super::value;
use crate::mapping::Bound;
use crate::source::change::Change;
use crate::source::error::SourceError;
use crate::source::touched::Touched;

/// What is to be read, before the rows are changed and afterwards.
pub(super) struct Watch {
    known: Touched,
    columns: Vec<String>,
    sql: String,
    ids: Vec<Vec<Value>>,
}

impl Watch {
    pub fn new(bound: &Bound, changes: &[&Change]) -> Result<Self, SourceError> {
        let mut watch =
            Self { known: Touched::default(), columns: Vec::new(), sql: String::new(), ids: Vec::new() };
        let Some(table) = &bound.table else { return Ok(watch) };
        let (known, columns) = Touched::by_ids(bound, table, changes);
        watch.known = known;
        if columns.is_empty() {
            return Ok(watch);
        }
        let ids: Vec<_> =
            bound.id_columns.iter().filter_map(|at| table.columns.get(usize::from(*at))).collect();
        let wanted: Vec<String> =
            columns.iter().map(|c| format!("cast({} as text)", ident(&c.name))).collect();
        let on: Vec<String> =
            ids.iter().enumerate().map(|(at, c)| format!("{} = ?{}", ident(&c.name), at + 1)).collect();
        watch.sql = format!(
            "select distinct {} from {} where {}",
            wanted.join(", "),
            table.sql_name,
            on.join(" and ")
        );
        watch.columns = columns.iter().map(|column| column.name.clone()).collect();
        for change in changes {
            let values =
                change.ids().iter().zip(&ids).map(|(id, column)| value::of_text(&column.ty, Some(id)));
            watch.ids.push(values.collect::<Result<_, _>>()?);
        }
        Ok(watch)
    }

    /// What the rows hold now.
    pub fn read(&self, connection: &Connection) -> Result<Touched, SourceError> {
        let mut touched = self.known.clone();
        if self.columns.is_empty() {
            return Ok(touched);
        }
        let mut statement = connection.prepare_cached(&self.sql)?;
        for ids in &self.ids {
            let mut rows = statement.query(params_from_iter(ids))?;
            while let Some(row) = rows.next()? {
                for (at, column) in self.columns.iter().enumerate() {
                    touched.add(column, row.get::<_, Option<String>>(at)?.as_deref());
                }
            }
        }
        Ok(touched)
    }
}
