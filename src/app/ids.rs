//! The ids of the rows behind a mapping, page by page in their order.
//!
//! Must not know: what they are wanted for.

use crate::mapping::{MappingId, fields_of};
use crate::source::{Param, Source, Statement};

/// Rows of one page at most.
pub(super) const PAGE: u64 = 500;

/// Reads the ids. Nothing is held open between two pages: each begins behind the last id of the one before, so that a row
/// that is added behind is found.
pub(super) struct IdPages<'s> {
    source: &'s Source,
    /// The id columns, quoted.
    columns: Vec<String>,
    table: String,
    filter: Option<&'s str>,
}

impl<'s> IdPages<'s> {
    /// Of the rows that `filter`, a condition in SQL, holds for.
    pub fn new(source: &'s Source, mapping: MappingId, filter: Option<&'s str>) -> Result<Self, String> {
        let bound = source.bound(mapping).ok_or("the mapping is not bound")?;
        let table = bound.table.as_ref().ok_or("the mapping has no table")?;
        let columns = bound
            .id_columns
            .iter()
            .filter_map(|at| table.columns.get(usize::from(*at)))
            .map(|column| format!("\"{}\"", column.name.replace('"', "\"\"")))
            .collect();
        Ok(Self { source, columns, table: table.sql_name.clone(), filter })
    }

    /// The ids of the next rows behind `after`, at most `room`.
    pub async fn next(&self, after: &[String], room: u64) -> Result<Vec<Vec<String>>, String> {
        let shown: Vec<String> =
            self.columns.iter().enumerate().map(|(at, id)| format!("cast({id} as text) as k{at}")).collect();
        let list = self.columns.join(", ");
        let given: Vec<String> = (1..=after.len()).map(|n| format!("${n}")).collect();
        let behind = (!after.is_empty()).then(|| format!("({list}) > ({})", given.join(", ")));
        let sql = format!(
            "select {} from {} {} group by {list} order by {list} limit {room}",
            shown.join(", "),
            self.table,
            self.condition(behind)
        );
        let params: Vec<Param<'_>> = after.iter().map(|id| Param::Text(id)).collect();
        self.rows(&sql, &params).await
    }

    /// How many rows there are.
    pub async fn count(&self) -> Result<u64, String> {
        let sql = format!("select cast(count(*) as text) as n from {} {}", self.table, self.condition(None));
        let rows = self.rows(&sql, &[]).await?;
        let count = rows.first().and_then(|row| row.first()).and_then(|text| text.parse().ok());
        count.ok_or_else(|| "the database does not count".to_owned())
    }

    fn condition(&self, more: Option<String>) -> String {
        let mut conditions: Vec<String> = self.filter.iter().map(|filter| format!("({filter}\n)")).collect();
        conditions.extend(more);
        match conditions.is_empty() {
            true => String::new(),
            false => format!("where {}", conditions.join(" and ")),
        }
    }

    async fn rows(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Vec<String>>, String> {
        let statement = Statement::parse(sql).map_err(|error| format!("its statement {error}"))?;
        let rows = self.source.statement(&statement, params).await.map_err(|error| error.to_string())?;
        rows.rows.iter().map(|row| texts(row)).collect()
    }
}

fn texts(row: &[u8]) -> Result<Vec<String>, String> {
    let fields = fields_of(row)?;
    Ok(fields.into_iter().map(|(_, value)| String::from_utf8_lossy(&value).into_owned()).collect())
}
