//! Applies a batch of writes of one mapping in one transaction.
//!
//! Must not know: queues, retries.

use std::collections::BTreeMap;

use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::types::ToSql;

use super::error::SourceError;
use super::{Source, sql};
use crate::mapping::{Bound, Columns, MappingId, Row, Table};

/// One write of a mapped key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Stores a row: upserted or appended, as the mapping says.
    Put(Row),
    /// Deletes the row (all rows, where several have this id).
    Delete(Box<[Box<str>]>),
}

impl Change {
    /// The id values it is about.
    pub fn ids(&self) -> &[Box<str>] {
        match self {
            Self::Put(row) => &row.ids,
            Self::Delete(ids) => ids,
        }
    }

    /// Approximate memory it takes, bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Put(row) => row.size(),
            Self::Delete(ids) => ids.iter().map(|id| 16 + id.len()).sum(),
        }
    }
}

/// A statement with its parameters, one text array per column.
struct Step<'c> {
    sql: String,
    params: Vec<Vec<Option<&'c str>>>,
}

/// Statements remembered per connection. Clients choose the column sets of partial objects, so there is a limit.
const REMEMBERED_STATEMENTS: usize = 256;

impl Source {
    /// Applies `changes` in their order, in one transaction: all of them or none. Dropping the future rolls back, unless
    /// the commit was already on its way.
    pub async fn apply(&self, mapping: MappingId, changes: &[&Change]) -> Result<(), SourceError> {
        let bound = &self.plan(mapping)?.bound;
        let Some(table) = &bound.table else {
            let message = format!("mapping '{}' names no table to write to", bound.mapping.name);
            return Err(SourceError::Schema { message, code: "42P01".into() });
        };
        let steps = if bound.is_append() {
            in_order(bound, table, changes)
        } else {
            coalesced(bound, table, changes)
        };
        if steps.is_empty() {
            return Ok(());
        }
        let client = self.postgres.writer().await?;
        self.postgres.bounded(client, async |client| run(client, &steps).await).await
    }
}

async fn run(client: &mut Object, steps: &[Step<'_>]) -> Result<(), SourceError> {
    let remember = client.statement_cache.size() < REMEMBERED_STATEMENTS;
    if let [only] = steps {
        // One statement is a transaction of its own and needs one round trip instead of three.
        return execute(client, only, remember).await;
    }
    let transaction = client.transaction().await?;
    for step in steps {
        execute(&transaction, step, remember).await?;
    }
    Ok(transaction.commit().await?)
}

async fn execute(client: &impl GenericClient, step: &Step<'_>, remember: bool) -> Result<(), SourceError> {
    let statement = match remember {
        true => client.prepare_cached(&step.sql).await?,
        false => client.prepare(&step.sql).await?,
    };
    let params: Vec<&(dyn ToSql + Sync)> = step.params.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
    client.execute(&statement, &params).await?;
    Ok(())
}

/// What remains of all changes of one key: a deletion, a row, or a deletion and then a row.
#[derive(Default)]
struct Net<'c> {
    delete: bool,
    put: Option<BTreeMap<u16, Option<&'c str>>>,
}

impl<'c> Net<'c> {
    fn add(&mut self, change: &'c Change) {
        match change {
            Change::Delete(_) => *self = Self { delete: true, put: None },
            // A later partial object updates the columns it names and keeps the others: the same as one object of both.
            Change::Put(row) => {
                self.put
                    .get_or_insert_default()
                    .extend(row.columns.iter().map(|(i, text)| (*i, text.as_deref())));
            }
        }
    }
}

/// Upsert mappings: at most one row per key, sorted by key so that two proxies lock rows in the same order.
fn coalesced<'c>(bound: &Bound, table: &Table, changes: &[&'c Change]) -> Vec<Step<'c>> {
    let mut keys: BTreeMap<&'c [Box<str>], Net<'c>> = BTreeMap::new();
    for change in changes {
        keys.entry(change.ids()).or_default().add(change);
    }
    let deleted: Vec<_> = keys.iter().filter(|(_, net)| net.delete).map(|(ids, _)| *ids).collect();
    let mut groups: BTreeMap<Vec<u16>, Step<'c>> = BTreeMap::new();
    for (ids, put) in keys.iter().filter_map(|(ids, net)| Some((*ids, net.put.as_ref()?))) {
        let set: Vec<u16> = put.keys().copied().collect();
        let step = groups
            .entry(set)
            .or_insert_with_key(|set| Step::new(sql::upsert(bound, table, set), ids.len() + set.len()));
        step.push(ids, put.values().copied());
    }
    delete(bound, table, &deleted).into_iter().chain(groups.into_values()).collect()
}

/// Append mappings: every row, in the order given.
fn in_order<'c>(bound: &Bound, table: &Table, changes: &[&'c Change]) -> Vec<Step<'c>> {
    let mut steps = Vec::new();
    for run in changes.chunk_by(|a, b| column_set(a) == column_set(b)) {
        match run.first() {
            Some(Change::Delete(_)) => {
                let ids: Vec<_> = run.iter().map(|change| change.ids()).collect();
                steps.extend(delete(bound, table, &ids));
            }
            Some(Change::Put(first)) => {
                let set: Vec<u16> = first.columns.iter().map(|(i, _)| *i).collect();
                let mut step = Step::new(sql::append(bound, table, &set), first.ids.len() + set.len());
                for change in run {
                    if let Change::Put(row) = change {
                        step.push(&row.ids, row.columns.iter().map(|(_, text)| text.as_deref()));
                    }
                }
                steps.push(step);
            }
            None => {}
        }
    }
    steps
}

/// The columns a change writes; `None` for a deletion. Compares without building anything.
fn column_set(change: &Change) -> Option<impl PartialEq + use<'_>> {
    struct Set<'r>(&'r Columns);
    impl PartialEq for Set<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.0.len() == other.0.len() && self.0.iter().zip(other.0).all(|(a, b)| a.0 == b.0)
        }
    }
    match change {
        Change::Put(row) => Some(Set(&row.columns)),
        Change::Delete(_) => None,
    }
}

fn delete<'c>(bound: &Bound, table: &Table, keys: &[&'c [Box<str>]]) -> Option<Step<'c>> {
    let mut step = Step::new(sql::delete(bound, table), keys.first()?.len());
    keys.iter().for_each(|ids| step.push(ids, std::iter::empty()));
    Some(step)
}

impl<'c> Step<'c> {
    fn new(sql: String, columns: usize) -> Self {
        Self { sql, params: vec![Vec::new(); columns] }
    }

    fn push(&mut self, ids: &'c [Box<str>], texts: impl Iterator<Item = Option<&'c str>>) {
        let row = ids.iter().map(|id| Some(&**id)).chain(texts);
        self.params.iter_mut().zip(row).for_each(|(column, text)| column.push(text));
    }
}
