//! What the proxy keeps in the database beside the rows: who applied what, versions of keys, dead letters.
//!
//! Must not know: SQL, queues, journals.
//!
//! A batch, and the note that it is applied, are one transaction. So a batch that is sent again (after a crash, or because
//! the answer to the commit was lost) is applied once; and a proxy whose journal another one has taken over, or that runs
//! twice, can write nothing any more.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::change::Change;
use super::error::SourceError;
use super::touched::Touched;
use crate::mapping::{Bound, Row};

/// The tables, in the words of an error about missing rights.
pub(super) const TABLES: &str = "dsproxy_instances, dsproxy_applied, dsproxy_versions, dsproxy_dead_letters, dsproxy_writers, dsproxy_guards";

/// How the proxy's own tables stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerState {
    /// These are made by the first start.
    pub missing: Vec<String>,
    /// The dead letters are of an earlier version; the next start brings them up to date.
    pub outdated: bool,
}

/// One write with its version.
#[derive(Debug, Clone, Copy)]
pub struct Versioned<'c> {
    /// The write.
    pub change: &'c Change,
    /// Its version: an older one of the same key is not applied after it.
    pub version: u64,
    /// What readers see while it waits behind a dead letter; `None` for a deletion.
    pub value: Option<&'c Bytes>,
}

/// How far the lanes of one mapping are applied by a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The instance whose journal the writes come from.
    pub source: String,
    /// The epoch in which it is ours: see [`Claim`].
    pub epoch: i64,
    /// Lane, and the journal sequence of its last write in the batch.
    pub offsets: Vec<(i32, u64)>,
}

/// What happens exactly once, together with a batch: when it has happened before, the batch is not applied again.
#[derive(Debug, Clone, Copy)]
pub enum Once<'a> {
    /// Nothing: no journal will repeat the batch.
    Nothing,
    /// The same, and whatever its versions say, they are the newest of their keys.
    Newest,
    /// Lanes of a journal advance.
    Advance(&'a Applied),
    /// A dead letter leaves.
    Letter {
        /// Which one.
        id: i64,
        /// The version of its write: one that waits may be replaced by a newer one.
        version: i64,
    },
}

impl Once<'_> {
    /// So much more than the version that is there the new one has at least; 0: only what is newer by itself is applied.
    pub(super) fn step(self) -> i64 {
        if matches!(self, Self::Newest) { crate::clock::STEP as i64 } else { 0 }
    }
}

/// A writer that may be the only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alone {
    /// Its instance.
    pub writer: String,
    /// Its epoch; see [`super::Writer`].
    pub epoch: i64,
    /// What it wrote up to this version is compared with what others wrote in any case.
    pub since: u64,
}

/// A write that the database refused.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'c> {
    /// Its key.
    pub key: &'c [u8],
    /// The write.
    pub write: Versioned<'c>,
    /// Why.
    pub error: &'c SourceError,
}

/// What is done in one transaction.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Writes of one mapping, in their order.
    pub writes: &'a [Versioned<'a>],
    /// Writes that become dead letters.
    pub refused: &'a [Refused<'a>],
    /// What happens exactly once.
    pub once: Once<'a>,
    /// Nobody has been told that the writes are safe: where one would have to wait behind a dead letter, all are refused.
    pub through: bool,
    /// Whose writes they are, if he may be the only one who writes: if so their versions are neither compared nor noted.
    pub alone: Option<&'a Alone>,
}

/// What the database holds for the key of a write after its commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// This value, as readers see it.
    Value(Bytes),
    /// No row.
    Gone,
    /// A row was added (append mappings): whether it is the newest is not known.
    Appended,
    /// Something that is not known here: a newer write came first, or the batch had been committed before.
    Unknown,
}

/// What a batch came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// What the database holds for the key of each write, in their order.
    pub held: Vec<Committed>,
    /// The batch had been committed before.
    pub repeated: bool,
    /// What values of other mappings depend on.
    pub touched: Touched,
    /// Keys of dead letters that a later write has passed, each said once.
    pub passed: Vec<String>,
    /// So many of the writes wait behind dead letters.
    pub waiting: usize,
    /// Keys of which none waited before.
    pub behind: Vec<String>,
    /// Somebody else writes as well.
    pub company: bool,
}

impl Commit {
    /// The batch had been committed before: nothing is known of what it changed.
    pub(super) fn before(bound: &Bound, writes: usize) -> Self {
        let watched = bound.mapping.watched.is_some() && writes > 0;
        let touched = if watched { Touched::everything() } else { Touched::default() };
        Self { held: vec![Committed::Unknown; writes], touched, repeated: true, ..Self::default() }
    }
}

/// An instance, claimed: from now on only this epoch can write for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The epoch.
    pub epoch: i64,
    /// Mapping, lane, and the journal sequence up to which it is applied.
    pub applied: Vec<(String, i32, u64)>,
}

impl Claim {
    /// The highest sequence that was applied, in any lane. A journal that ends before it is not the one of this instance.
    pub fn highest(&self) -> u64 {
        self.applied.iter().map(|(_, _, offset)| *offset).max().unwrap_or(0)
    }

    /// Up to where a lane is applied.
    pub fn offset(&self, mapping: &str, lane: usize) -> u64 {
        let of = |(name, at, _): &&(String, i32, u64)| name == mapping && usize::try_from(*at) == Ok(lane);
        self.applied.iter().find(of).map_or(0, |(_, _, offset)| *offset)
    }
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DeadLetter {
    /// Number.
    pub id: i64,
    /// When it was refused.
    pub at: String,
    /// Mapping.
    pub mapping: String,
    /// Key.
    pub key: String,
    /// `put` or `delete`.
    pub operation: String,
    /// Version of the write.
    pub version: i64,
    /// Columns and their texts, as a JSON object; `null` for a deletion.
    pub columns: Option<String>,
    /// SQLSTATE.
    pub code: String,
    /// What the database said.
    pub error: String,
    /// Version of the first later write of its key that was applied; a replay changes nothing then, unless it appends.
    pub later: Option<i64>,
    /// It was not refused, but waits behind one of its key that was.
    pub held: bool,
    /// What readers see while it waits.
    #[serde(skip)]
    pub value: Option<Bytes>,
}

/// How many dead letters a mapping has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Count {
    /// Its name.
    pub mapping: String,
    /// All of them.
    pub all: u64,
    /// Those that wait behind others.
    pub held: u64,
}

/// Which dead letters are meant.
#[derive(Debug, Clone, Default)]
pub struct Letters {
    /// Of this mapping.
    pub mapping: Option<String>,
    /// These.
    pub ids: Vec<i64>,
    /// Behind this one.
    pub after: i64,
}

/// Name of the key of a row in the table of versions: the id itself, or a JSON array of several.
pub(super) fn guard_key(ids: &[Box<str>]) -> Cow<'_, str> {
    match ids {
        [id] => Cow::Borrowed(id),
        ids => Cow::Owned(serde_json::to_string(ids).unwrap_or_default()),
    }
}

/// The keys of `writes`, each with the newest version that they give it.
pub(super) fn newest(bound: &Bound, writes: &[Versioned<'_>]) -> BTreeMap<String, i64> {
    let mut newest = BTreeMap::new();
    for write in writes {
        let Some(key) = bound.mapping.template.build(write.change.ids()) else { continue };
        let version = newest.entry(key).or_insert(0);
        *version = (write.version as i64).max(*version);
    }
    newest
}

/// The columns of a put by name, as JSON.
fn columns_json(bound: &Bound, change: &Change) -> Option<String> {
    let Change::Put(row) = change else { return None };
    let table = bound.table.as_ref()?;
    let named = row.keep.iter().chain(&row.columns).filter_map(|(at, text)| {
        let name = table.columns.get(usize::from(*at))?.name.clone();
        Some((name, text.as_deref().map_or(serde_json::Value::Null, Into::into)))
    });
    Some(serde_json::Value::Object(named.collect()).to_string())
}

/// What is kept of a refused write; its number and time are given to it by the database.
pub(super) fn letter_of(bound: &Bound, refused: &Refused<'_>) -> DeadLetter {
    let operation = match refused.write.change {
        Change::Put(_) => "put",
        Change::Delete(_) => "delete",
    };
    DeadLetter {
        id: 0,
        at: String::new(),
        mapping: bound.mapping.name.clone(),
        key: String::from_utf8_lossy(refused.key).into_owned(),
        operation: operation.to_owned(),
        version: refused.write.version as i64,
        columns: columns_json(bound, refused.write.change),
        code: refused.error.code().unwrap_or("XX000").to_owned(),
        error: refused.error.to_string(),
        later: None,
        held: false,
        value: None,
    }
}

/// The write that a dead letter holds.
pub(super) fn change_of(bound: &Bound, letter: &DeadLetter) -> Result<Change, SourceError> {
    let misfit = |what: String| SourceError::schema("42703", format!("dead letter {}: {what}", letter.id));
    let found = bound.mapping.template.find(letter.key.as_bytes());
    let found = found.ok_or_else(|| misfit("its key no longer fits the mapping's template".into()))?;
    let ids: Box<[Box<str>]> = found.ids().iter().map(|id| Box::from(*id)).collect();
    let Some(columns) = &letter.columns else { return Ok(Change::Delete(ids)) };
    let columns: BTreeMap<String, Option<String>> =
        serde_json::from_str(columns).map_err(|_| misfit("its columns cannot be read".into()))?;
    let mut row = Row { ids, columns: Vec::new(), keep: Vec::new() };
    for (name, text) in columns {
        let at = bound.table.as_ref().and_then(|table| table.column(&name));
        let at = at.ok_or_else(|| misfit(format!("the table has no column \"{name}\" any more")))?;
        row.columns.push((at, text.map(String::into_boxed_str)));
    }
    row.columns.sort_unstable_by_key(|(at, _)| *at);
    Ok(Change::Put(row))
}
