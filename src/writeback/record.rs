//! How a unit of writes stands in the journal: a compact binary form with a format version.
//!
//! Must not know: files, tables. Mappings and columns are named, not numbered: a configuration or a table may have changed
//! by the time it is read again.
//!
//! ```text
//! format u8 | first version u64 | count | write ...            numbers: LEB128 unless a width is given (little endian)
//! write:  kind u8 | mapping | key | value | columns            texts: length, then bytes
//! kind:   1 put, 2 append, 3 delete, 5 patch (columns, then columns for a new row), 4 withdrawn (its key is empty, its value the withdrawn version),
//!         6 confirmed (likewise); + 16: base u64 follows; + 32: fence u64 follows, after the base
//! column: name | 0 (null), or length + 1 and text
//! ```
//!
//! The versions of a unit's writes follow each other at the distance that the format has. Which lane a key belongs to is part
//! of the format: [`lane_of`].

use crate::clock;
use bytes::Bytes;

/// The first byte of a payload.
const FORMAT: u8 = 2;
/// The same where it holds a unit that counts only once it is confirmed, or what confirms one: versions of this program that
/// know nothing of that must not read it.
const WITH_UNITS: u8 = 3;
/// The same, from before versions had the number of their writer.
const WITHOUT_WRITERS: u8 = 1;
/// Where the version stands: it is written last, when the writer thread takes the unit.
const VERSION: std::ops::Range<usize> = 1..9;
/// Set in the kind of a write that counts only when its base was still the newest.
const CONDITIONAL: u8 = 16;
/// Set in the kind of a write that counts only when its unit is confirmed.
const TENTATIVE: u8 = 32;

/// Flushers per mapping; a key always belongs to the same one.
pub const LANES: usize = 4;

/// The lane of a key within its mapping.
pub fn lane_of(key: &[u8]) -> usize {
    lane_of_sum(crc32c::crc32c(key))
}

/// The same, of the key's CRC32C.
pub fn lane_of_sum(sum: u32) -> usize {
    // The lowest bits of a CRC alone would put most of a run of numbers into one lane.
    (sum.wrapping_mul(0x9e37_79b1) >> 24) as usize % LANES
}

/// What a write does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Inserts or updates these columns; `None` is NULL.
    Put(Vec<Named>),
    /// Inserts a row of both, or updates the first where there is a row.
    Patch(Vec<Named>, Vec<Named>),
    /// Adds a row of these columns.
    Append(Vec<Named>),
    /// Deletes the row.
    Delete,
    /// The write with this version, of a read-modify-write command that lost a race, never was.
    Withdraw(u64),
    /// The write with this version, of a unit that was tried as a whole, counts.
    Confirm(u64),
}

/// A column by name, with its text.
pub type Named = (Box<str>, Option<Box<str>>);

/// One write as it is journaled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Name of the mapping.
    pub mapping: Box<str>,
    /// The key.
    pub key: Bytes,
    /// What it does.
    pub operation: Operation,
    /// The value as readers see it; empty for a deletion.
    pub value: Bytes,
    /// The version it was computed from: it counts only if nothing newer was there.
    pub base: Option<u64>,
    /// It counts only if a later record confirms it, or the cache shows that its unit was applied. The number names the key that
    /// keeps the unit from being applied later ([`crate::sidecar::fence_key`]), 0: there is none.
    pub fence: Option<u64>,
}

impl Record {
    /// Says this of the write with a version; it is about no key.
    pub fn verdict(operation: Operation) -> Self {
        Self {
            mapping: "".into(),
            key: Bytes::new(),
            operation,
            value: Bytes::new(),
            base: None,
            fence: None,
        }
    }

    fn needs_units(&self) -> bool {
        self.fence.is_some() || matches!(self.operation, Operation::Confirm(_))
    }
}

/// Why a payload cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a later version of this program.
    #[error("it has format {0}, which this version of dsproxy cannot read")]
    Format(u8),
    /// Not what any version writes.
    #[error("it is damaged")]
    Damaged,
}

/// The payload of a unit, without its version.
pub fn encode(records: &[Record]) -> Vec<u8> {
    let mut out =
        Vec::with_capacity(64 + records.iter().map(|r| r.key.len() + 2 * r.value.len()).sum::<usize>());
    out.push(if records.iter().any(Record::needs_units) { WITH_UNITS } else { FORMAT });
    out.extend_from_slice(&0_u64.to_le_bytes());
    number(&mut out, records.len() as u64);
    records.iter().for_each(|record| encode_one(&mut out, record));
    out
}

/// Gives an encoded unit its version.
pub fn set_version(payload: &mut [u8], version: u64) {
    if let Some(place) = payload.get_mut(VERSION) {
        place.copy_from_slice(&version.to_le_bytes());
    }
}

/// The writes, each with its version.
///
/// # Errors
/// [`RecordError`]; whatever the bytes are, it neither panics nor allocates more than their length.
pub fn decode(payload: &Bytes) -> Result<Vec<(u64, Record)>, RecordError> {
    let mut reader = Reader { bytes: payload.clone(), at: 0 };
    let step = match reader.byte()? {
        FORMAT | WITH_UNITS => clock::STEP,
        WITHOUT_WRITERS => 1,
        other => return Err(RecordError::Format(other)),
    };
    let mut version = reader.u64()?;
    let count = reader.number()?;
    let mut records = Vec::new();
    for _ in 0..count {
        records.push((version, reader.record()?));
        version = version.saturating_add(step);
    }
    if reader.at == payload.len() { Ok(records) } else { Err(RecordError::Damaged) }
}

fn encode_one(out: &mut Vec<u8>, record: &Record) {
    let kind = match record.operation {
        Operation::Put(_) => 1,
        Operation::Append(_) => 2,
        Operation::Delete => 3,
        Operation::Withdraw(_) => 4,
        Operation::Patch(..) => 5,
        Operation::Confirm(_) => 6,
    };
    let flag = |set: bool, flag| if set { flag } else { 0 };
    out.push(kind | flag(record.base.is_some(), CONDITIONAL) | flag(record.fence.is_some(), TENTATIVE));
    for number in [record.base, record.fence].into_iter().flatten() {
        out.extend_from_slice(&number.to_le_bytes());
    }
    text(out, record.mapping.as_bytes());
    text(out, &record.key);
    match &record.operation {
        Operation::Withdraw(version) | Operation::Confirm(version) => text(out, &version.to_le_bytes()),
        _ => text(out, &record.value),
    }
    match &record.operation {
        Operation::Put(columns) | Operation::Append(columns) => encode_columns(out, columns),
        Operation::Patch(set, keep) => {
            [set, keep].into_iter().for_each(|columns| encode_columns(out, columns))
        }
        Operation::Delete | Operation::Withdraw(_) | Operation::Confirm(_) => {}
    }
}

fn encode_columns(out: &mut Vec<u8>, columns: &[Named]) {
    number(out, columns.len() as u64);
    for (name, value) in columns {
        text(out, name.as_bytes());
        match value {
            None => number(out, 0),
            Some(value) => {
                number(out, value.len() as u64 + 1);
                out.extend_from_slice(value.as_bytes());
            }
        }
    }
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    fn take(&mut self, length: u64) -> Result<Bytes, RecordError> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        let end = end.filter(|end| *end <= self.bytes.len()).ok_or(RecordError::Damaged)?;
        let taken = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, RecordError> {
        self.take(1)?.first().copied().ok_or(RecordError::Damaged)
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        let bytes = self.take(8)?;
        bytes.as_ref().try_into().map(u64::from_le_bytes).map_err(|_| RecordError::Damaged)
    }

    fn number(&mut self) -> Result<u64, RecordError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(RecordError::Damaged)
    }

    fn text(&mut self) -> Result<Bytes, RecordError> {
        let length = self.number()?;
        self.take(length)
    }

    fn string(&mut self, length: u64) -> Result<Box<str>, RecordError> {
        let bytes = self.take(length)?;
        std::str::from_utf8(&bytes).map(Into::into).map_err(|_| RecordError::Damaged)
    }

    fn record(&mut self) -> Result<Record, RecordError> {
        let kind = self.byte()?;
        let base = if kind & CONDITIONAL == 0 { None } else { Some(self.u64()?) };
        let fence = if kind & TENTATIVE == 0 { None } else { Some(self.u64()?) };
        let length = self.number()?;
        let mapping = self.string(length)?;
        let (key, value) = (self.text()?, self.text()?);
        let operation = match kind & !(CONDITIONAL | TENTATIVE) {
            1 => Operation::Put(self.columns()?),
            2 => Operation::Append(self.columns()?),
            3 => Operation::Delete,
            5 => Operation::Patch(self.columns()?, self.columns()?),
            verdict @ (4 | 6) => {
                let version = value.as_ref().try_into().map_err(|_| RecordError::Damaged)?;
                let version = u64::from_le_bytes(version);
                let operation =
                    if verdict == 4 { Operation::Withdraw(version) } else { Operation::Confirm(version) };
                return Ok(Record { mapping, key, operation, value: Bytes::new(), base, fence });
            }
            _ => return Err(RecordError::Damaged),
        };
        Ok(Record { mapping, key, operation, value, base, fence })
    }

    fn columns(&mut self) -> Result<Vec<Named>, RecordError> {
        let mut columns = Vec::new();
        for _ in 0..self.number()? {
            let length = self.number()?;
            let name = self.string(length)?;
            let value = match self.number()? {
                0 => None,
                length => Some(self.string(length - 1)?),
            };
            columns.push((name, value));
        }
        Ok(columns)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is a panic")]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = Record> {
        let name = || ".{0,8}".prop_map(String::into_boxed_str);
        let columns = || vec((name(), proptest::option::of(name())), 0..4);
        let operation = prop_oneof![
            columns().prop_map(Operation::Put),
            columns().prop_map(Operation::Append),
            (columns(), columns()).prop_map(|(set, keep)| Operation::Patch(set, keep)),
            Just(Operation::Delete),
            any::<u64>().prop_map(Operation::Withdraw),
            any::<u64>().prop_map(Operation::Confirm),
        ];
        let bytes = || vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        let number = || proptest::option::of(any::<u64>());
        (name(), bytes(), operation, bytes(), number(), number()).prop_map(
            |(mapping, key, operation, value, base, fence)| {
                let is_verdict = matches!(operation, Operation::Withdraw(_) | Operation::Confirm(_));
                let value = if is_verdict { Bytes::new() } else { value };
                Record { mapping, key, operation, value, base, fence }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in vec(record(), 0..5), version in 0..clock::GREATEST) {
            let mut payload = encode(&records);
            set_version(&mut payload, version);
            // A journal from before is read as it was meant: there versions followed each other by one.
            let mut older = payload.clone();
            older[0] = WITHOUT_WRITERS;
            let versioned = |step: u64| (0..).map(move |at: u64| version + at * step).zip(records.clone()).collect::<Vec<_>>();
            prop_assert_eq!(decode(&Bytes::from(older)), Ok(versioned(1)));
            let payload = Bytes::from(payload);
            prop_assert_eq!(decode(&payload), Ok(versioned(clock::STEP)));
            for cut in 0..payload.len() {
                prop_assert!(decode(&payload.slice(..cut)).is_err());
            }
        }

        #[test]
        fn garbage_is_an_error_and_no_panic(mut bytes in vec(any::<u8>(), 0..200), known: bool) {
            if let (Some(first), true) = (bytes.first_mut(), known) {
                *first = FORMAT;
            }
            let _ = decode(&Bytes::from(bytes));
        }
    }

    #[test]
    fn a_format_from_the_future_is_named() {
        assert_eq!(decode(&Bytes::from_static(&[4, 0])), Err(RecordError::Format(4)));
        assert_eq!(decode(&Bytes::new()), Err(RecordError::Damaged));
    }

    #[test]
    fn lanes_never_change() {
        // A journal that was written with other lanes would be replayed against the wrong offsets.
        assert_eq!(
            ["user:1", "user:2", "user:3", "user:4", ""].map(|key| lane_of(key.as_bytes())),
            [0, 3, 3, 3, 0]
        );
    }
}
