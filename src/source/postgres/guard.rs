//! Lets an older write of a key not be applied after a newer one.
//!
//! Must not know: what is written, journals.
//!
//! The versions of a mapping's keys stand in `dsproxy_versions`, or, where the mapping has a version column, in the rows
//! themselves. A row that is not there holds no version: so the column guards rows that stay, and the table guards
//! keys that are deleted, or whose row is new. A row that stays is locked by whoever compares its version; all others meet
//! at the entry of their key in the table.

use std::borrow::Cow;
use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use rustc_hash::FxHashMap;
use tokio_postgres::types::ToSql;

use super::sql;
use crate::mapping::{Bound, Table};
use crate::source::change::Change;
use crate::source::error::SourceError;
use crate::source::ledger::{Once, Versioned, guard_key};

/// All writes of one key in a batch.
struct Newest<'w> {
    version: u64,
    ids: &'w [Box<str>],
    deletes: bool,
}

/// The keys of a batch, sorted: two proxies lock in the same order.
pub(super) struct Keys<'w>(BTreeMap<Cow<'w, str>, Newest<'w>>);

/// Keys that had no newer version, each with the version that it has now. `None`: all of them have that of their write.
type Passed = Option<FxHashMap<String, i64>>;

impl<'w> Keys<'w> {
    pub fn of(writes: &'w [Versioned<'_>]) -> Self {
        let mut keys = BTreeMap::new();
        for write in writes {
            let ids = write.change.ids();
            let key =
                keys.entry(guard_key(ids)).or_insert(Newest { version: write.version, ids, deletes: false });
            key.version = key.version.max(write.version);
            key.deletes |= matches!(write.change, Change::Delete(_));
        }
        Self(keys)
    }

    /// The newest version among the writes of a key.
    pub fn version(&self, key: &str) -> i64 {
        self.0.get(key).map_or(0, |newest| newest.version as i64)
    }

    /// Notes the versions, in the table or for the rows that get them.
    pub async fn guard(
        &self,
        transaction: &Transaction<'_>,
        bound: &Bound,
        table: &Table,
        once: Once<'_>,
    ) -> Result<Passed, SourceError> {
        let mapping = &bound.mapping.name;
        let own = self.0.iter().map(|(key, newest)| (&**key, newest.version as i64));
        let Some(column) = bound.version_column else {
            return by_table(transaction, mapping, own.collect(), once).await;
        };
        let there = self.lock(transaction, bound, table, column).await?;
        let mut passed = FxHashMap::default();
        let mut elsewhere = Vec::new();
        for ((key, newest), there) in self.0.iter().zip(there) {
            let mut version = newest.version as i64;
            if let Some(there) = there {
                match once.step() {
                    0 if there >= version => continue,
                    step => version = version.max(there.saturating_add(step)),
                }
            }
            match there.is_none() || newest.deletes || bound.mapping.version_table {
                true => elsewhere.push((&**key, version)),
                false => _ = passed.insert(key.to_string(), version),
            }
        }
        if !elsewhere.is_empty() {
            match by_table(transaction, mapping, elsewhere.clone(), once).await? {
                None => passed.extend(elsewhere.into_iter().map(|(key, version)| (key.to_owned(), version))),
                Some(some) => passed.extend(some),
            }
        }
        Ok(Some(passed))
    }

    /// Locks the rows that are there; the version of each key's row. An entry that `dsproxy_versions` still has counts, too:
    /// the column may be younger than it.
    async fn lock(
        &self,
        transaction: &Transaction<'_>,
        bound: &Bound,
        table: &Table,
        column: u16,
    ) -> Result<Vec<Option<i64>>, SourceError> {
        let sql = transaction.prepare_cached(&sql::lock_versions(bound, table, column)).await?;
        let keys: Vec<&str> = self.0.keys().map(AsRef::as_ref).collect();
        let ids = |at: usize| self.0.values().map(|newest| newest.ids.get(at).map(AsRef::as_ref)).collect();
        let ids: Vec<Vec<Option<&str>>> = (0..bound.id_columns.len()).map(ids).collect();
        let mut params: Vec<&(dyn ToSql + Sync)> = ids.iter().map(|ids| ids as &(dyn ToSql + Sync)).collect();
        params.extend([&bound.mapping.name as &(dyn ToSql + Sync), &keys]);
        let mut there = vec![None; self.0.len()];
        for row in transaction.query(&sql, &params).await? {
            let at = usize::try_from(row.try_get::<_, i64>(0)?.saturating_sub(1)).unwrap_or(usize::MAX);
            if let Some(slot) = there.get_mut(at) {
                *slot = Some(row.try_get(1)?);
            }
        }
        Ok(there)
    }
}

async fn by_table(
    transaction: &Transaction<'_>,
    mapping: &str,
    writes: Vec<(&str, i64)>,
    once: Once<'_>,
) -> Result<Passed, SourceError> {
    let sql = "insert into dsproxy_versions as v (mapping, key, version) \
               select $1, u.k, u.v from unnest($2::text[], $3::bigint[]) u(k, v) \
               on conflict (mapping, key) do update set version = greatest(excluded.version, v.version + $4::bigint) \
               where v.version < excluded.version or $4::bigint > 0 returning key, version";
    let sql = transaction.prepare_cached(sql).await?;
    let (keys, versions): (Vec<&str>, Vec<i64>) = writes.into_iter().unzip();
    let rows = transaction.query(&sql, &[&mapping, &keys, &versions, &once.step()]).await?;
    if rows.len() == keys.len() && once.step() == 0 {
        return Ok(None);
    }
    Ok(Some(
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, SourceError>>()?,
    ))
}
