//! Loads the rows of many keys with one query.
//!
//! Must not know: who waits for them.

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::pool::Postgres;
use super::{Plan, params};
use crate::mapping::{Bound, Match};
use crate::source::backend::{LoadedKey, LoadedRow, newest, too_large};
use crate::source::error::SourceError;

/// The statement of one mapping.
#[derive(Debug)]
pub(super) enum LoadPlan {
    /// Ids as text arrays, answers by position: our own statement, or the operator's `load` with named parameters.
    ByPosition(String),
    /// The operator's `load` with arrays of ids in the types of its parameters, answers by id.
    ByIds {
        /// Own statement, wrapped.
        sql: String,
        /// Element types of `$1`..
        elements: Vec<Type>,
    },
}

impl LoadPlan {
    /// Its SQL.
    pub fn sql(&self) -> &str {
        match self {
            Self::ByPosition(sql) | Self::ByIds { sql, .. } => sql,
        }
    }
}

/// The rows of `keys`, in their order, by one statement on one of the reading connections.
pub(super) async fn load(
    postgres: &Postgres,
    plan: &Plan,
    keys: &[Match<'_>],
) -> Result<Vec<LoadedKey>, SourceError> {
    let columns: Vec<Vec<&str>> = (0..plan.bound.mapping.template.placeholders().len())
        .map(|i| keys.iter().map(|key| key.ids().get(i).copied().unwrap_or_default()).collect())
        .collect();
    let reader = Reader { bound: &plan.bound, max_bytes: postgres.max_value_bytes() };
    match &plan.load {
        LoadPlan::ByPosition(sql) => {
            let params: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|c| c as &(dyn ToSql + Sync)).collect();
            let rows = query(postgres, sql, &params).await?;
            reader.by_position(keys.len(), &rows)
        }
        LoadPlan::ByIds { sql, elements } => {
            let typed: Option<Vec<_>> =
                columns.iter().zip(elements).map(|(ids, element)| params::array_of(element, ids)).collect();
            // An id that the statement's type cannot hold: no such row.
            let Some(typed) = typed else { return Ok(vec![Ok(None); keys.len()]) };
            let params: Vec<&(dyn ToSql + Sync)> =
                typed.iter().map(|c| &**c as &(dyn ToSql + Sync)).collect();
            let rows = query(postgres, sql, &params).await?;
            reader.by_id(keys, &rows)
        }
    }
}

async fn query(
    postgres: &Postgres,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, SourceError> {
    let client = postgres.reader().await?;
    postgres
        .bounded(client, async |client| {
            let statement = client.prepare_cached(sql).await?;
            Ok(client.query(&statement, params).await?)
        })
        .await
}

/// Makes values of rows.
struct Reader<'b> {
    bound: &'b Bound,
    max_bytes: usize,
}

impl Reader<'_> {
    fn by_position(&self, count: usize, rows: &[Row]) -> Result<Vec<LoadedKey>, SourceError> {
        let mut loaded = vec![Ok(None); count];
        for row in rows {
            let position: i64 = row.try_get(0)?;
            let slot = usize::try_from(position - 1).ok().and_then(|at| loaded.get_mut(at));
            if let Some(slot) = slot {
                newest(slot, self.read(row, 1)?);
            }
        }
        Ok(loaded)
    }

    fn by_id(&self, keys: &[Match<'_>], rows: &[Row]) -> Result<Vec<LoadedKey>, SourceError> {
        let mut positions: FxHashMap<&[&str], Vec<usize>> = FxHashMap::default();
        for (at, key) in keys.iter().enumerate() {
            positions.entry(key.ids()).or_default().push(at);
        }
        let mut loaded = vec![Ok(None); keys.len()];
        for row in rows {
            let ids: Result<Vec<Option<&str>>, _> = (2..row.len()).map(|i| row.try_get(i)).collect();
            let Some(ids) = ids?.into_iter().collect::<Option<Vec<&str>>>() else { continue };
            let Some(at) = positions.get(ids.as_slice()) else { continue };
            let value = self.read(row, 0)?;
            for at in at {
                if let Some(slot) = loaded.get_mut(*at) {
                    newest(slot, value.clone());
                }
            }
        }
        Ok(loaded)
    }

    /// Value and order in two neighbouring columns. A text mapping whose column is NULL has no value.
    fn read(&self, row: &Row, at: usize) -> Result<LoadedKey, SourceError> {
        let value: Option<&str> = row.try_get(at)?;
        let order: Option<&str> = row.try_get(at + 1)?;
        let order = order.and_then(|text| self.bound.order_key(text));
        Ok(match value {
            Some(value) if value.len() > self.max_bytes => {
                Err(too_large(&self.bound.mapping, value.len(), self.max_bytes))
            }
            value => {
                Ok(value.map(|value| LoadedRow { value: Bytes::copy_from_slice(value.as_bytes()), order }))
            }
        })
    }
}
