//! Writes of one mapping, and the steps of the transaction that applies them.
//!
//! Must not know: SQL, which database it is.

use std::collections::BTreeMap;

use crate::mapping::{Bound, Columns, Row};

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

/// What one step does with its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Deletes by ids.
    Delete,
    /// Inserts ids and all these columns, or updates the columns of `set` where the ids exist. Rows have `keep` first.
    Upsert { keep: Vec<u16>, set: Vec<u16> },
    /// Inserts ids and these columns.
    Append(Vec<u16>),
}

/// One statement of a transaction: an action and its rows. A row is the id values, then the columns of the action.
#[derive(Debug)]
pub(super) struct Step<'c> {
    pub action: Action,
    pub rows: Vec<Vec<Option<&'c str>>>,
}

impl<'c> Step<'c> {
    fn new(action: Action) -> Self {
        Self { action, rows: Vec::new() }
    }

    /// Each row also gets the version of its key, as its last column, where the mapping has a column for it.
    pub fn add_version(&mut self, bound: &Bound, versions: impl Iterator<Item = &'c str>) {
        let (Action::Upsert { keep, set }, Some(column)) = (&mut self.action, bound.version_column) else {
            return;
        };
        // A client's write never names the column; a journal from before it was the guard may.
        if let Some(given) = set.iter().position(|given| *given == column) {
            set.remove(given);
            let at = bound.id_columns.len() + keep.len() + given;
            self.rows.iter_mut().filter(|row| at < row.len()).for_each(|row| _ = row.remove(at));
        }
        set.push(column);
        for (row, version) in self.rows.iter_mut().zip(versions) {
            row.push(Some(version));
        }
    }

    fn push(&mut self, ids: &'c [Box<str>], texts: impl Iterator<Item = Option<&'c str>>) {
        self.rows.push(ids.iter().map(|id| Some(&**id)).chain(texts).collect());
    }
}

/// The steps that apply `changes` of a mapping, in the order in which they must be run.
pub(super) fn steps<'c>(bound: &Bound, changes: &[&'c Change]) -> Vec<Step<'c>> {
    if bound.is_append() { in_order(changes) } else { coalesced(changes) }
}

/// What remains of all changes of one key: a deletion, a row, or a deletion and then a row.
#[derive(Default)]
struct Net<'c> {
    delete: bool,
    put: Option<NetRow<'c>>,
}

/// Columns by index.
type Texts<'c> = BTreeMap<u16, Option<&'c str>>;

#[derive(Default)]
struct NetRow<'c> {
    set: Texts<'c>,
    /// Only for a new row.
    keep: Texts<'c>,
}

impl<'c> Net<'c> {
    fn add(&mut self, change: &'c Change) {
        match change {
            Change::Delete(_) => *self = Self { delete: true, put: None },
            // A later partial object updates the columns it names and keeps the others: the same as one object of both.
            Change::Put(row) => {
                let net = self.put.get_or_insert_default();
                net.set.extend(row.columns.iter().map(|(i, text)| (*i, text.as_deref())));
                net.keep.extend(row.keep.iter().map(|(i, text)| (*i, text.as_deref())));
                net.keep.retain(|index, _| !net.set.contains_key(index));
            }
        }
    }
}

/// Upsert mappings: at most one row per key, sorted by key so that two proxies lock rows in the same order.
fn coalesced<'c>(changes: &[&'c Change]) -> Vec<Step<'c>> {
    let mut keys: BTreeMap<&'c [Box<str>], Net<'c>> = BTreeMap::new();
    for change in changes {
        keys.entry(change.ids()).or_default().add(change);
    }
    let mut deleted = Step::new(Action::Delete);
    let mut groups: BTreeMap<(Vec<u16>, Vec<u16>), Step<'c>> = BTreeMap::new();
    for (ids, net) in &keys {
        if net.delete {
            deleted.push(ids, std::iter::empty());
        }
        if let Some(put) = &net.put {
            let columns = |texts: &Texts<'_>| texts.keys().copied().collect::<Vec<u16>>();
            let step = groups.entry((columns(&put.set), columns(&put.keep)));
            let step = step.or_insert_with_key(|(set, keep)| {
                Step::new(Action::Upsert { keep: keep.clone(), set: set.clone() })
            });
            step.push(ids, put.keep.values().chain(put.set.values()).copied());
        }
    }
    let deleted = (!deleted.rows.is_empty()).then_some(deleted);
    deleted.into_iter().chain(groups.into_values()).collect()
}

/// Append mappings: every row, in the order given.
fn in_order<'c>(changes: &[&'c Change]) -> Vec<Step<'c>> {
    let mut steps = Vec::new();
    for run in changes.chunk_by(|a, b| column_set(a) == column_set(b)) {
        let action = match run.first() {
            Some(Change::Delete(_)) => Action::Delete,
            Some(Change::Put(first)) => Action::Append(first.columns.iter().map(|(i, _)| *i).collect()),
            None => continue,
        };
        let mut step = Step::new(action);
        for change in run {
            match change {
                Change::Delete(ids) => step.push(ids, std::iter::empty()),
                Change::Put(row) => step.push(&row.ids, row.columns.iter().map(|(_, text)| text.as_deref())),
            }
        }
        steps.push(step);
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
