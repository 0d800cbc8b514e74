//! Reads the columns of changed rows on which values of other mappings depend.
//!
//! Must not know: which values depend on what.

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;

use super::sql;
use crate::mapping::{Bound, Table};
use crate::source::change::Change;
use crate::source::error::SourceError;
use crate::source::touched::Touched;

/// What the rows hold before they are changed. They are locked, so that nobody changes them in between.
pub(super) async fn before(
    transaction: &Transaction<'_>,
    bound: &Bound,
    table: &Table,
    changes: &[&Change],
) -> Result<Touched, SourceError> {
    match bound.is_append() && !changes.iter().any(|change| matches!(change, Change::Delete(_))) {
        true => Ok(Touched::default()),
        false => read(transaction, bound, table, changes, " for no key update of t").await,
    }
}

/// What they hold afterwards.
pub(super) async fn after(
    transaction: &Transaction<'_>,
    bound: &Bound,
    table: &Table,
    changes: &[&Change],
) -> Result<Touched, SourceError> {
    read(transaction, bound, table, changes, "").await
}

async fn read(
    transaction: &Transaction<'_>,
    bound: &Bound,
    table: &Table,
    changes: &[&Change],
    lock: &str,
) -> Result<Touched, SourceError> {
    let (mut touched, columns) = Touched::by_ids(bound, table, changes);
    if columns.is_empty() {
        return Ok(touched);
    }
    let statement = transaction.prepare_cached(&(sql::columns_of(bound, table, &columns) + lock)).await?;
    let ids = |at: usize| changes.iter().map(|change| change.ids().get(at).map(AsRef::as_ref)).collect();
    let ids: Vec<Vec<Option<&str>>> = (0..bound.id_columns.len()).map(ids).collect();
    let params: Vec<&(dyn ToSql + Sync)> = ids.iter().map(|ids| ids as &(dyn ToSql + Sync)).collect();
    for row in transaction.query(&statement, &params).await? {
        for (at, column) in columns.iter().enumerate() {
            touched.add(&column.name, row.try_get(at)?);
        }
    }
    Ok(touched)
}
