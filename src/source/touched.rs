//! Which rows a batch has changed, as far as values of other mappings depend on them.
//!
//! Must not know: SQL, which values depend on what.

use std::collections::BTreeSet;

use super::change::Change;
use crate::mapping::{Bound, Table};

/// Values kept at most; beyond it everything counts as touched.
const MOST: usize = 10_000;

/// What a batch has touched of the rows that values of other mappings depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    rows: bool,
    all: bool,
    values: BTreeSet<(String, String)>,
}

impl Touched {
    /// It is not known what was touched.
    pub fn everything() -> Self {
        Self { rows: true, all: true, values: BTreeSet::new() }
    }

    /// Whether nothing was.
    pub fn is_nothing(&self) -> bool {
        !self.rows
    }

    /// Columns and values (as texts) of the touched rows, from before and after the batch. `None`: not known.
    pub fn values(&self) -> Option<impl Iterator<Item = (&str, &str)>> {
        (!self.all).then(|| self.values.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Both together.
    pub fn merge(&mut self, other: Self) {
        self.rows |= other.rows;
        self.all |= other.all;
        self.values.extend(other.values);
        self.bound();
    }

    /// Rows with these ids were changed, or may have been. The columns that their ids do not tell are to be read.
    pub(super) fn by_ids<'t>(
        bound: &Bound,
        table: &'t Table,
        changes: &[&Change],
    ) -> (Self, Vec<&'t crate::mapping::Column>) {
        let mut touched =
            Self { rows: bound.mapping.watched.is_some() && !changes.is_empty(), ..Self::default() };
        let mut unknown = Vec::new();
        for watched in bound.watched(table).filter(|_| touched.rows) {
            let Some(column) = table.columns.get(usize::from(watched)) else { continue };
            match bound.id_columns.iter().position(|id| *id == watched) {
                None => unknown.push(column),
                Some(at) => {
                    let ids = changes.iter().filter_map(|change| change.ids().get(at));
                    touched.values.extend(ids.map(|id| (column.name.clone(), id.to_string())));
                }
            }
        }
        touched.bound();
        (touched, unknown)
    }

    /// A row has, or had, this value in this column; `None` is NULL, on which nothing depends.
    pub(super) fn add(&mut self, column: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.values.insert((column.to_owned(), value.to_owned()));
            self.bound();
        }
    }

    fn bound(&mut self) {
        if self.all || self.values.len() > MOST {
            (self.all, self.values) = (true, BTreeSet::new());
        }
    }
}
