//! Brings the writes of an earlier process back from the journal.
//!
//! Must not know: files, Redis.

use std::collections::HashSet;

use bytes::Bytes;

use super::entry::{Arrival, Stamp};
use super::handle::WriteBehind;
use super::queue::Queue;
use super::record::{Named, Operation, Record, RecordError, decode};
use super::{KeyWrite, Pending, Race, Write};
use crate::mapping::{Bound, MappingId, Match, Row};

/// A write that is queued again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Its mapping.
    pub mapping: MappingId,
    /// Its key.
    pub key: Bytes,
    /// Its version.
    pub version: u64,
    /// The value as readers see it; `None` for a deletion.
    pub value: Option<Bytes>,
    /// It counts only if nothing newer than this version was there, which is to be decided with [`WriteBehind::decide`].
    pub base: Option<u64>,
    /// It counts only if the cache shows that its unit was applied, which is to be said with [`WriteBehind::settle`].
    pub tried: Option<Tried>,
}

/// The unit of a write that nobody has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tried {
    /// The version of its first write.
    pub unit: u64,
    /// See [`Record::fence`].
    pub fence: u64,
}

/// What later records of a journal say of earlier ones.
#[derive(Debug, Default)]
pub struct Verdicts {
    withdrawn: HashSet<u64>,
    confirmed: HashSet<u64>,
}

impl Verdicts {
    /// Takes in what a record says.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn note(&mut self, payload: &Bytes) -> Result<(), RecordError> {
        for (_, record) in decode(payload)? {
            let _ = match record.operation {
                Operation::Withdraw(version) => self.withdrawn.insert(version),
                Operation::Confirm(version) => self.confirmed.insert(version),
                _ => false,
            };
        }
        Ok(())
    }

    /// The write with this version never was.
    pub fn is_withdrawn(&self, version: u64) -> bool {
        self.withdrawn.contains(&version)
    }

    /// Whether a write that is in the database by its place in the journal is there indeed; `tried`: as part of a unit.
    fn is_counted(&self, version: u64, tried: bool) -> bool {
        !self.is_withdrawn(version) && (!tried || self.confirmed.contains(&version))
    }
}

/// Why a journaled write cannot be queued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be read.
    #[error("a record of the journal cannot be read: {0}")]
    Record(#[from] RecordError),
    /// The configuration has changed since.
    #[error(
        "the journal holds a write of key '{key}' in mapping '{mapping}', {what}; bring the mapping back until everything is \
         written to the database"
    )]
    Misfit {
        /// The mapping as it was named.
        mapping: Box<str>,
        /// The key.
        key: String,
        /// What does not fit.
        what: String,
    },
}

impl WriteBehind {
    /// Queues the writes of a record that an earlier process journaled: those of them for which `is_wanted` (mapping, lane,
    /// sequence) says so. Records come in their order, before anything else is written. `verdicts` are those of the whole
    /// journal, which is read for them first.
    ///
    /// # Errors
    /// [`RestoreError`]: the record is not what this configuration can apply.
    pub fn restore(
        &self,
        first_sequence: u64,
        payload: &Bytes,
        verdicts: &Verdicts,
        is_wanted: impl Fn(&str, usize, u64) -> bool,
    ) -> Result<Vec<Restored>, RestoreError> {
        let mut restored = Vec::new();
        let records = decode(payload)?;
        let unit = records.first().map_or(0, |(version, _)| *version);
        for ((version, mut record), sequence) in records.into_iter().zip(first_sequence..) {
            self.clock().observe(version);
            let lane = super::record::lane_of(&record.key);
            let counts = !is_verdict(&record) && !verdicts.is_withdrawn(version);
            if counts && is_wanted(&record.mapping, lane, sequence) {
                if record.fence.is_some() && verdicts.confirmed.contains(&version) {
                    (record.base, record.fence) = (None, None);
                }
                restored.extend(self.restore_one(record, version, sequence, unit)?);
            }
        }
        Ok(restored)
    }

    fn restore_one(
        &self,
        record: Record,
        version: u64,
        sequence: u64,
        unit: u64,
    ) -> Result<Option<Restored>, RestoreError> {
        let misfit = |what: &str| RestoreError::Misfit {
            mapping: record.mapping.clone(),
            key: String::from_utf8_lossy(&record.key).into_owned(),
            what: what.to_owned(),
        };
        let source = &self.shared.source;
        let mapping =
            source.mappings().by_name(&record.mapping).ok_or_else(|| misfit("which is not configured"))?.id;
        let queue = self.shared.queue(mapping).ok_or_else(|| misfit("which takes no writes any more"))?;
        let found = queue.bound.mapping.template.find(&record.key);
        let found = found.ok_or_else(|| misfit("whose template has changed"))?;
        let write = write_of(&queue.bound, &found, &record)
            .map_err(|column| misfit(&format!("whose table has no column '{column}' any more")))?;
        let value = match &write {
            Write::Put { value, .. } => Some(value.clone()),
            Write::Delete { .. } => None,
        };
        let (key, base) = (record.key.clone(), record.base);
        let tried = record.fence.map(|fence| Tried { unit, fence });
        let write = KeyWrite { mapping, key: key.clone(), write, base, expires_at: None, applies: false };
        let arrival = Arrival::new(write).of_unit(tried.map(|tried| tried.unit));
        let size = arrival.size;
        decide_earlier(queue, &key, base, tried);
        if queue.push(arrival, Stamp::Journaled { version, sequence }).is_err() {
            return Ok(None); // a conditional write that a newer one has outrun
        }
        self.shared.budget.take_anyway(1, size);
        Ok(Some(Restored { mapping, key, version, value, base, tried }))
    }
}

/// A conditional write that is followed by another of its key was decided before: commands of a key come one after the other.
/// One that was computed from it shows that it had won, one that was computed from something older that it had lost.
/// Before a write that does not look it makes no difference.
///
/// A unit that was tried as a whole, and had won, was confirmed before another conditional write of its key could follow.
fn decide_earlier(queue: &Queue, key: &[u8], base: Option<u64>, tried: Option<Tried>) {
    let (earlier, of_unit) = queue.lane(key).undecided(key);
    let same = tried.is_some_and(|tried| earlier.iter().any(|version| *version >= tried.unit));
    if same || of_unit && base.is_none() {
        return;
    }
    for earlier in earlier {
        let lost = of_unit || base.is_some_and(|base| base < earlier);
        queue.decide(key, earlier, if lost { Race::Lost } else { Race::Won });
    }
}

/// Whether a record only says what counts of others.
fn is_verdict(record: &Record) -> bool {
    matches!(record.operation, Operation::Withdraw(_) | Operation::Confirm(_))
}

/// A write as the journal names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Name of its mapping.
    pub mapping: Box<str>,
    /// Lane of its key.
    pub lane: usize,
    /// Its key.
    pub key: Bytes,
    /// Its version.
    pub version: u64,
    /// Its sequence.
    pub sequence: u64,
    /// The value as readers see it; `None` where it counted on a condition.
    pub shown: Option<Pending>,
}

/// The writes of a record that are in the database, if their places in the journal are passed, as far as they say which key they
/// are about.
///
/// # Errors
/// [`RecordError`].
pub fn written(
    first_sequence: u64,
    payload: &Bytes,
    verdicts: &Verdicts,
) -> Result<impl Iterator<Item = Written>, RecordError> {
    let counts = |((version, record), _): &((u64, Record), u64)| {
        !is_verdict(record) && verdicts.is_counted(*version, record.fence.is_some())
    };
    let records = decode(payload)?.into_iter().zip(first_sequence..);
    Ok(records.filter(counts).map(|((version, record), sequence)| Written {
        lane: super::record::lane_of(&record.key),
        version,
        sequence,
        shown: (record.base.is_none() && record.fence.is_none()).then(|| match record.operation {
            Operation::Delete => Pending::Deleted,
            _ => Pending::Value(record.value),
        }),
        mapping: record.mapping,
        key: record.key,
    }))
}

fn write_of(bound: &Bound, found: &Match<'_>, record: &Record) -> Result<Write, Box<str>> {
    let ids: Box<[Box<str>]> = found.ids().iter().map(|id| Box::from(*id)).collect();
    let none = Vec::new();
    let (set, keep) = match &record.operation {
        Operation::Put(set) | Operation::Append(set) => (set, &none),
        Operation::Patch(set, keep) => (set, keep),
        Operation::Delete | Operation::Withdraw(_) | Operation::Confirm(_) => {
            return Ok(Write::Delete { ids });
        }
    };
    let index = |(name, text): &Named| match bound.table.as_ref().and_then(|table| table.column(name)) {
        Some(index) => Ok((index, text.clone())),
        None => Err(name.clone()),
    };
    let columns = |named: &[Named]| {
        let mut columns = named.iter().map(index).collect::<Result<Vec<_>, _>>()?;
        columns.sort_unstable_by_key(|(index, _)| *index);
        Ok::<_, Box<str>>(columns)
    };
    let row = Row { ids, columns: columns(set)?, keep: columns(keep)? };
    Ok(Write::Put { row, value: record.value.clone() })
}

/// How a write stands in the journal.
pub fn record_of(bound: &Bound, write: &KeyWrite) -> Record {
    let operation = match &write.write {
        Write::Delete { .. } => Operation::Delete,
        Write::Put { row, .. } => {
            let name =
                |index: u16| bound.table.as_ref()?.columns.get(usize::from(index)).map(|c| c.name.as_str());
            let named = |columns: &crate::mapping::Columns| {
                columns
                    .iter()
                    .filter_map(|(index, text)| Some((name(*index)?.into(), text.clone())))
                    .collect()
            };
            match bound.is_append() {
                true => Operation::Append(named(&row.columns)),
                false if !row.keep.is_empty() => Operation::Patch(named(&row.columns), named(&row.keep)),
                false => Operation::Put(named(&row.columns)),
            }
        }
    };
    let value = match &write.write {
        Write::Put { value, .. } => value.clone(),
        Write::Delete { .. } => Bytes::new(),
    };
    Record {
        mapping: bound.mapping.name.as_str().into(),
        key: write.key.clone(),
        operation,
        value,
        base: write.base,
        fence: None,
    }
}
