//! Applies a batch of writes of one mapping in one Postgres transaction.
//!
//! Must not know: queues, retries.
//!
//! The transaction begins after a connection is taken and before the first step, and ends with the commit that follows
//! the last step; bookkeeping that must be atomic with the rows goes between the two, in `run`.

use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::pool::Postgres;
use super::sql;
use crate::mapping::{Bound, Table};
use crate::source::change::{Action, Change, Step, steps};
use crate::source::error::SourceError;

/// Statements remembered per connection. Clients choose the column sets of partial objects, so there is a limit.
const REMEMBERED_STATEMENTS: usize = 256;

/// Applies `changes`, which are writes of `bound`, in their order: all of them or none.
pub(super) async fn apply(
    postgres: &Postgres,
    bound: &Bound,
    changes: &[&Change],
) -> Result<(), SourceError> {
    let Some(table) = &bound.table else {
        let message = format!("mapping '{}' names no table to write to", bound.mapping.name);
        return Err(SourceError::schema("42P01", message));
    };
    let statements: Vec<Prepared<'_>> =
        steps(bound, changes).iter().map(|step| Prepared::new(bound, table, step)).collect();
    if statements.is_empty() {
        return Ok(());
    }
    let client = postgres.writer().await?;
    postgres.bounded(client, async |client| run(client, &statements).await).await
}

/// A statement with its parameters, one text array per column.
pub(super) struct Prepared<'c> {
    sql: String,
    params: Vec<Vec<Option<&'c str>>>,
}

impl<'c> Prepared<'c> {
    pub fn new(bound: &Bound, table: &Table, step: &Step<'c>) -> Self {
        let sql = match &step.action {
            Action::Delete => sql::delete(bound, table),
            Action::Upsert { keep, set } => sql::upsert(bound, table, keep, set),
            Action::Append(set) => sql::append(bound, table, set),
        };
        let width = step.rows.first().map_or(0, Vec::len);
        let column = |at: usize| step.rows.iter().map(|row| row.get(at).copied().flatten()).collect();
        Self { sql, params: (0..width).map(column).collect() }
    }

    /// Answers `columns` of each row that was written.
    pub fn returning(mut self, columns: &str) -> Self {
        self.sql.push_str(" returning ");
        self.sql.push_str(columns);
        self
    }

    pub async fn execute(&self, client: &impl GenericClient, remember: bool) -> Result<(), SourceError> {
        let statement = self.statement(client, remember).await?;
        client.execute(&statement, &self.params()).await?;
        Ok(())
    }

    pub async fn query(&self, client: &impl GenericClient, remember: bool) -> Result<Vec<Row>, SourceError> {
        let statement = self.statement(client, remember).await?;
        Ok(client.query(&statement, &self.params()).await?)
    }

    async fn statement(&self, client: &impl GenericClient, remember: bool) -> Result<Statement, SourceError> {
        Ok(match remember {
            true => client.prepare_cached(&self.sql).await?,
            false => client.prepare(&self.sql).await?,
        })
    }

    fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.params.iter().map(|p| p as &(dyn ToSql + Sync)).collect()
    }
}

/// Whether a connection has room for one more statement.
pub(super) fn has_room(client: &Object) -> bool {
    client.statement_cache.size() < REMEMBERED_STATEMENTS
}

async fn run(client: &mut Object, statements: &[Prepared<'_>]) -> Result<(), SourceError> {
    let remember = has_room(client);
    if let [only] = statements {
        // One statement is a transaction of its own and needs one round trip instead of three.
        return only.execute(client, remember).await;
    }
    let transaction = client.transaction().await?;
    for statement in statements {
        statement.execute(&transaction, remember).await?;
    }
    Ok(transaction.commit().await?)
}
