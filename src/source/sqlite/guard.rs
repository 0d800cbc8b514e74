//! Lets an older write of a key not be applied after a newer one.
//!
//! Must not know: what is written, journals.
//!
//! As in Postgres (`postgres/guard.rs`), but nobody else writes meanwhile: the transaction has the file to itself.

use std::collections::{BTreeMap, HashMap};

use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, Transaction, params, params_from_iter};

use super::describe::ident;
use super::value;
use crate::mapping::Bound;
use crate::source::change::Change;
use crate::source::error::SourceError;
use crate::source::ledger::{Versioned, guard_key};

/// The versions of a batch, to be compared with those that are there.
pub(super) struct Guard {
    mapping: String,
    /// See [`crate::source::ledger::Once::step`].
    step: i64,
    /// The table has the versions of rows that have one of their own, too.
    in_table: bool,
    /// Reads the version of a row by its ids, where the mapping has a column for it.
    row_version: Option<String>,
    keys: BTreeMap<String, Newest>,
}

struct Newest {
    version: i64,
    ids: Vec<Value>,
    deletes: bool,
}

impl Guard {
    pub fn new(bound: &Bound, writes: &[Versioned<'_>], step: i64) -> Result<Self, SourceError> {
        let mut guard = Self {
            mapping: bound.mapping.name.clone(),
            step,
            in_table: bound.mapping.version_table,
            row_version: row_version(bound),
            keys: BTreeMap::new(),
        };
        for write in writes.iter().filter(|_| !bound.is_append()) {
            let ids = write.change.ids();
            let key = guard_key(ids);
            let deletes = matches!(write.change, Change::Delete(_));
            if let Some(known) = guard.keys.get_mut(key.as_ref()) {
                known.version = known.version.max(write.version as i64);
                known.deletes |= deletes;
                continue;
            }
            let ids = match &guard.row_version {
                Some(_) => values(bound, ids)?,
                None => Vec::new(),
            };
            let newest = Newest { version: write.version as i64, ids, deletes };
            guard.keys.insert(key.into_owned(), newest);
        }
        Ok(guard)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The newest version among the writes of a key.
    pub fn version(&self, key: &str) -> i64 {
        self.keys.get(key).map_or(0, |newest| newest.version)
    }

    /// The keys that had no newer version, each with the version that it has now.
    pub fn pass(&self, transaction: &Transaction<'_>) -> Result<HashMap<String, i64>, SourceError> {
        let sql = "insert into dsproxy_versions as v (mapping, key, version) values (?1, ?2, ?3) \
                   on conflict (mapping, key) do update set version = max(excluded.version, v.version + ?4) \
                   where v.version < excluded.version or ?4 > 0 returning version";
        let mut table = transaction.prepare_cached(sql)?;
        let mut passed = HashMap::new();
        for (key, newest) in &self.keys {
            let there = self.there(transaction, key, newest)?;
            let mut version = newest.version;
            if let Some(there) = there {
                match self.step {
                    0 if there >= version => continue,
                    step => version = version.max(there.saturating_add(step)),
                }
            }
            // A row that is not there holds no version.
            if there.is_none() || newest.deletes || self.in_table {
                let noted = table.query_row(params![self.mapping, key, version, self.step], |row| row.get(0));
                let Some(noted) = noted.optional()? else { continue };
                version = noted;
            }
            passed.insert(key.clone(), version);
        }
        Ok(passed)
    }

    /// The version of the row that is there; an entry that `dsproxy_versions` still has counts, too.
    fn there(
        &self,
        transaction: &Transaction<'_>,
        key: &str,
        newest: &Newest,
    ) -> Result<Option<i64>, SourceError> {
        let Some(sql) = &self.row_version else { return Ok(None) };
        let mut statement = transaction.prepare_cached(sql)?;
        let Some(row) = statement
            .query_row(params_from_iter(&newest.ids), |row| row.get::<_, Option<i64>>(0))
            .optional()?
        else {
            return Ok(None);
        };
        let sql = "select version from dsproxy_versions where mapping = ?1 and key = ?2";
        let noted: Option<i64> = transaction
            .prepare_cached(sql)?
            .query_row(params![self.mapping, key], |row| row.get(0))
            .optional()?;
        Ok(Some(row.unwrap_or(0).max(noted.unwrap_or(0))))
    }
}

fn row_version(bound: &Bound) -> Option<String> {
    let table = bound.table.as_ref()?;
    let column = table.columns.get(usize::from(bound.version_column?))?;
    let ids = bound.id_columns.iter().filter_map(|at| table.columns.get(usize::from(*at)));
    let on: Vec<String> =
        ids.enumerate().map(|(at, c)| format!("{} = ?{}", ident(&c.name), at + 1)).collect();
    Some(format!("select {} from {} where {}", ident(&column.name), table.sql_name, on.join(" and ")))
}

fn values(bound: &Bound, ids: &[Box<str>]) -> Result<Vec<Value>, SourceError> {
    let columns = bound
        .table
        .iter()
        .flat_map(|table| bound.id_columns.iter().filter_map(|at| table.columns.get(usize::from(*at))));
    ids.iter().zip(columns).map(|(id, column)| value::of_text(&column.ty, Some(id))).collect()
}
