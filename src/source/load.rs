//! Loads the rows of many keys with one query.
//!
//! Must not know: who waits for them.

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio_postgres::types::{ToSql, Type};

use super::error::SourceError;
use super::{Source, params};
use crate::mapping::{Bound, MappingId, Match, OrderKey};

/// A row as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedRow {
    /// The value of the key.
    pub value: Bytes,
    /// Its place among the rows of its id, where the mapping has an `order_by`.
    pub order: Option<OrderKey>,
}

/// The statement of one mapping.
#[derive(Debug)]
pub(super) enum LoadPlan {
    /// Our own: ids as text arrays, answers by position.
    Generated(String),
    /// The operator's `load`: ids in the types of its parameters, answers by id.
    Own {
        /// Own statement, wrapped.
        sql: String,
        /// Element types of `$1`..
        elements: Vec<Type>,
    },
}

impl Source {
    /// The rows of `keys` (id values as the mapping's template reads them), in their order; `None` where there is no row.
    /// One query. Dropping the future cancels it at the server.
    pub async fn load(
        &self,
        mapping: MappingId,
        keys: &[Match<'_>],
    ) -> Result<Vec<Option<LoadedRow>>, SourceError> {
        let plan = self.plan(mapping)?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.postgres.reader().await?;
        let columns: Vec<Vec<&str>> = (0..plan.bound.mapping.template.placeholders().len())
            .map(|i| keys.iter().map(|key| key.ids().get(i).copied().unwrap_or_default()).collect())
            .collect();
        match &plan.load {
            LoadPlan::Generated(sql) => {
                let rows = self
                    .postgres
                    .bounded(client, async |client| {
                        let statement = client.prepare_cached(sql).await?;
                        let params: Vec<&(dyn ToSql + Sync)> =
                            columns.iter().map(|c| c as &(dyn ToSql + Sync)).collect();
                        Ok(client.query(&statement, &params).await?)
                    })
                    .await?;
                by_position(&plan.bound, keys.len(), &rows)
            }
            LoadPlan::Own { sql, elements } => {
                let typed: Option<Vec<_>> = columns
                    .iter()
                    .zip(elements)
                    .map(|(ids, element)| params::array_of(element, ids))
                    .collect();
                let Some(typed) = typed else { return Ok(vec![None; keys.len()]) };
                let rows = self
                    .postgres
                    .bounded(client, async |client| {
                        let statement = client.prepare_cached(sql).await?;
                        let params: Vec<&(dyn ToSql + Sync)> =
                            typed.iter().map(|c| &**c as &(dyn ToSql + Sync)).collect();
                        Ok(client.query(&statement, &params).await?)
                    })
                    .await?;
                by_id(&plan.bound, keys, &rows)
            }
        }
    }
}

fn by_position(
    bound: &Bound,
    count: usize,
    rows: &[tokio_postgres::Row],
) -> Result<Vec<Option<LoadedRow>>, SourceError> {
    let mut loaded = vec![None; count];
    for row in rows {
        let position: i64 = row.try_get(0)?;
        let slot = usize::try_from(position - 1).ok().and_then(|at| loaded.get_mut(at));
        if let Some(slot) = slot
            && slot.is_none()
        {
            *slot = read(bound, row, 1)?;
        }
    }
    Ok(loaded)
}

fn by_id(
    bound: &Bound,
    keys: &[Match<'_>],
    rows: &[tokio_postgres::Row],
) -> Result<Vec<Option<LoadedRow>>, SourceError> {
    let mut positions: FxHashMap<&[&str], Vec<usize>> = FxHashMap::default();
    for (at, key) in keys.iter().enumerate() {
        positions.entry(key.ids()).or_default().push(at);
    }
    let mut loaded = vec![None; keys.len()];
    for row in rows {
        let ids: Result<Vec<Option<&str>>, _> = (2..row.len()).map(|i| row.try_get(i)).collect();
        let Some(ids) = ids?.into_iter().collect::<Option<Vec<&str>>>() else { continue };
        let Some(at) = positions.get(ids.as_slice()) else { continue };
        let value = read(bound, row, 0)?;
        for at in at {
            // Of several rows the newest counts; without an order, the first.
            let newer = loaded[*at]
                .as_ref()
                .is_none_or(|old: &LoadedRow| value.as_ref().is_some_and(|new| new.order > old.order));
            if newer {
                loaded[*at].clone_from(&value);
            }
        }
    }
    Ok(loaded)
}

/// Value and order in two neighbouring columns. A text mapping whose column is NULL has no value.
fn read(bound: &Bound, row: &tokio_postgres::Row, at: usize) -> Result<Option<LoadedRow>, SourceError> {
    let value: Option<&str> = row.try_get(at)?;
    let order: Option<&str> = row.try_get(at + 1)?;
    let order = order.and_then(|text| bound.order_key(text));
    Ok(value.map(|value| LoadedRow { value: Bytes::copy_from_slice(value.as_bytes()), order }))
}
