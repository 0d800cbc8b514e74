//! Writes that wait behind a dead letter of their key, as dead letters themselves.
//!
//! Must not know: SQL, queues.
//!
//! What waits stands in the database, in the transaction that takes it from the journal. So it outlives its proxy, and every
//! proxy that loads the key finds it. Of an upsert mapping a deletion and a row wait at most, however often the key is
//! written: a later write is merged into the last one, as in a batch.

use std::collections::{BTreeMap, HashMap};

use super::backend::{LoadedKey, LoadedRow};
use super::change::Change;
use super::error::SourceError;
use super::ledger::{Batch, Commit, Committed, DeadLetter, Refused, Versioned, change_of, letter_of};
use crate::mapping::{Bound, OnPoison, OrderKey};

/// The dead letters of one key that no later write has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub key: String,
    /// The first of them.
    pub first: i64,
    /// The least of their versions: older writes are not later ones.
    pub oldest: i64,
    /// The last one that waits.
    pub last: Option<Last>,
}

/// A write that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Last {
    pub id: i64,
    pub version: i64,
    /// As in [`DeadLetter::columns`].
    pub columns: Option<String>,
}

/// A letter to be written.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub replaces: Replaces,
    pub letter: DeadLetter,
}

/// What goes when a letter is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replaces {
    /// Nothing.
    Nothing,
    /// The one with this number and version, if that is still there.
    One(i64, i64),
    /// Whatever older of its key waits: it is a deletion, which leaves nothing of that.
    Older,
}

/// What becomes of a batch.
#[derive(Debug, Default)]
pub(super) struct Holding<'c> {
    pub drafts: Vec<Draft>,
    /// Writes that do not wait.
    pub rest: Vec<Versioned<'c>>,
    /// Some would have to, but there are too many already.
    pub overflow: bool,
    /// By write: the key behind whose letter it waits.
    waits: Vec<Option<String>>,
    answers: HashMap<String, Committed>,
    behind: Vec<String>,
}

/// Whether writes of this batch wait behind dead letters.
pub(super) fn applies(bound: &Bound, batch: &Batch<'_>) -> bool {
    let replay = matches!(batch.once, super::Once::Letter { .. });
    bound.mapping.on_poison == OnPoison::Wait && !replay && !batch.writes.is_empty()
}

/// The keys of `writes`.
pub(super) fn keys(bound: &Bound, writes: &[Versioned<'_>]) -> Vec<String> {
    let mut keys: Vec<String> =
        writes.iter().filter_map(|write| bound.mapping.template.build(write.change.ids())).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Decides which writes of `batch` wait, where `held` do already.
pub(super) fn plan<'c>(
    bound: &Bound,
    batch: &Batch<'c>,
    chains: Vec<Chain>,
    held: usize,
) -> Result<Holding<'c>, SourceError> {
    let mut chains: BTreeMap<String, Waiting> =
        chains.into_iter().map(|chain| (chain.key.clone(), Waiting::new(chain))).collect();
    let mut holding = Holding::default();
    let mut room = bound.mapping.max_held.saturating_sub(held);
    for write in batch.writes {
        let key = bound.mapping.template.build(write.change.ids());
        let waiting = key.as_ref().and_then(|key| chains.get_mut(key));
        let waiting = waiting.filter(|waiting| write.version as i64 > waiting.chain.oldest);
        let Some(waiting) = waiting else {
            holding.rest.push(*write);
            holding.waits.push(None);
            continue;
        };
        if batch.through {
            return Err(SourceError::Waits { letter: waiting.chain.first });
        }
        // All writes of a key in a batch, or none: they keep their order.
        let adds = bound.is_append() || waiting.chain.last.is_none();
        if waiting.drafts.is_empty() && adds && room == 0 {
            holding.overflow = true;
            holding.rest.push(*write);
            holding.waits.push(None);
            continue;
        }
        room = room.saturating_sub(waiting.add(bound, write));
        holding.waits.push(key);
    }
    for (key, waiting) in chains {
        if waiting.chain.last.is_none() && !waiting.drafts.is_empty() {
            holding.behind.push(key.clone());
        }
        holding.drafts.extend(waiting.drafts);
        holding.answers.insert(key, waiting.answer);
    }
    Ok(holding)
}

impl Holding<'_> {
    /// What the batch came to, of which `commit` is the rest.
    pub fn and(self, commit: Commit) -> Commit {
        let mut rest = commit.held.into_iter();
        let answer = |key: &Option<String>| match key {
            Some(key) => self.answers.get(key).cloned(),
            None => rest.next(),
        };
        let waiting = self.waits.iter().flatten().count();
        let held = self.waits.iter().map(answer).map(|held| held.unwrap_or(Committed::Unknown)).collect();
        Commit { held, waiting, behind: self.behind, ..commit }
    }
}

/// A key whose writes wait.
struct Waiting {
    chain: Chain,
    drafts: Vec<Draft>,
    answer: Committed,
}

impl Waiting {
    fn new(chain: Chain) -> Self {
        Self { chain, drafts: Vec::new(), answer: Committed::Unknown }
    }

    /// Lets one more write wait; by how many letters there are more.
    fn add(&mut self, bound: &Bound, write: &Versioned<'_>) -> usize {
        let key = self.chain.key.clone();
        let error = SourceError::Waits { letter: self.chain.first };
        let refused = Refused { key: key.as_bytes(), write: *write, error: &error };
        let mut letter = DeadLetter { held: true, value: write.value.cloned(), ..letter_of(bound, &refused) };
        if bound.is_append() {
            self.drafts.push(Draft { replaces: Replaces::Nothing, letter });
            return 1;
        }
        let stored = self.chain.last.as_ref().map(|last| (last.version, last.columns.clone()));
        let newest = self.drafts.last().map(|draft| (draft.letter.version, draft.letter.columns.clone()));
        let last = newest.or(stored);
        // The older of two writes is left out when it comes second, as everywhere.
        if last.as_ref().is_some_and(|(version, _)| *version >= letter.version) {
            return 0;
        }
        self.answer = match (&write.change, write.value) {
            (Change::Delete(_), _) => Committed::Gone,
            (Change::Put(_), Some(value)) => Committed::Value(value.clone()),
            (Change::Put(_), None) => Committed::Unknown,
        };
        let draft = |replaces, letter| Draft { replaces, letter };
        let adds = usize::from(last.is_none());
        let Some(columns) = &letter.columns else {
            self.drafts = vec![draft(Replaces::Older, letter)];
            return adds;
        };
        let before = last.and_then(|(_, before)| before);
        let Some(both) = before.and_then(|before| merged(&before, columns)) else {
            self.drafts.push(draft(Replaces::Nothing, letter));
            return 1;
        };
        letter.columns = Some(both);
        match self.drafts.last_mut() {
            Some(before) => *before = draft(before.replaces, letter),
            None => {
                let last = self.chain.last.as_ref();
                let replaces = last.map_or(Replaces::Nothing, |last| Replaces::One(last.id, last.version));
                self.drafts.push(draft(replaces, letter));
            }
        }
        0
    }
}

/// The columns of an object, and then of another.
fn merged(before: &str, after: &str) -> Option<String> {
    let mut columns: serde_json::Map<String, serde_json::Value> = serde_json::from_str(before).ok()?;
    columns.extend(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(after).ok()?);
    Some(serde_json::Value::Object(columns).to_string())
}

/// What readers see of a key, of which writes wait.
enum Shown {
    /// This, or that there is no row, whatever the table has.
    Instead(Option<LoadedRow>),
    /// This, unless the table has a row of a greater order.
    Newest(LoadedRow),
}

/// Lets what waits be seen in the rows of `keys`, which were loaded after `letters` were.
pub(super) fn show(bound: &Bound, letters: Vec<DeadLetter>, keys: &[String], rows: &mut [LoadedKey]) {
    let mut shown: HashMap<String, Shown> = HashMap::new();
    let mut letters: Vec<DeadLetter> =
        letters.into_iter().filter(|letter| letter.held && letter.later.is_none()).collect();
    letters.retain(|letter| letter.value.is_some() == letter.columns.is_some());
    letters.sort_unstable_by_key(|letter| (letter.version, letter.id));
    for letter in letters {
        let seen = shown.remove(&letter.key);
        let key = letter.key.clone();
        shown.insert(key, after(bound, seen, letter));
    }
    for (key, row) in keys.iter().zip(rows) {
        match shown.get(key) {
            None => {}
            Some(Shown::Instead(instead)) => *row = Ok(instead.clone()),
            Some(Shown::Newest(newest)) => {
                let greater = |row: &LoadedRow| row.order > newest.order;
                if row.as_ref().is_ok_and(|row| !row.as_ref().is_some_and(greater)) {
                    *row = Ok(Some(newest.clone()));
                }
            }
        }
    }
}

/// What is seen once `letter` is, too.
fn after(bound: &Bound, seen: Option<Shown>, letter: DeadLetter) -> Shown {
    let Some(value) = letter.value.clone() else { return Shown::Instead(None) };
    if !bound.is_append() {
        return Shown::Instead(Some(LoadedRow { value, order: None }));
    }
    // Without an order of its own the database will give it one: it counts as the newest.
    let order = match change_of(bound, &letter) {
        Ok(Change::Put(row)) => row.order_key(bound),
        _ => None,
    };
    let row = LoadedRow { value, order: Some(order.unwrap_or(OrderKey(i64::MAX))) };
    let newer = |before: LoadedRow| if before.order > row.order { before } else { row.clone() };
    match seen {
        None => Shown::Newest(row),
        Some(Shown::Newest(before)) => Shown::Newest(newer(before)),
        Some(Shown::Instead(None)) => Shown::Instead(Some(row)),
        Some(Shown::Instead(Some(before))) => Shown::Instead(Some(newer(before))),
    }
}

/// What `letter` waits behind, of all letters of its key.
pub(super) fn waits_for(all: &[DeadLetter], letter: &DeadLetter) -> Option<i64> {
    let place = |letter: &DeadLetter| (letter.held, letter.version, letter.id);
    all.iter().filter(|other| place(other) < place(letter)).map(|other| other.id).min()
}

/// Of all letters of a key those that wait for nothing any more, in their order.
pub(super) fn released(mut letters: Vec<DeadLetter>) -> Vec<DeadLetter> {
    if letters.iter().any(|letter| !letter.held) {
        return Vec::new();
    }
    letters.sort_unstable_by_key(|letter| (letter.version, letter.id));
    letters
}
