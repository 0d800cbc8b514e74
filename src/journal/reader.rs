//! Reads one segment, and tells a torn end from damage.
//!
//! Must not know: the lock, who asks.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::format::{self, BadHeader, Frame, Kind, SEGMENT_HEADER, SegmentHeader, VERSION};

/// One record of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'b> {
    /// Sequence of its first entry.
    pub first: u64,
    /// Entries: it has the sequences `first .. first + count`.
    pub count: u32,
    /// When it was written, Unix time in ms.
    pub at: u64,
    /// What its writer put into it.
    pub payload: &'b [u8],
}

impl Record<'_> {
    /// Sequence of its last entry.
    pub fn last(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }
}

/// How the records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was closed: nothing can follow.
    Sealed,
    /// It is being written, or its writer died: nothing follows.
    Open,
    /// Its writer died in the middle of a write that nobody was told of: so many bytes of it are there.
    Torn(u64),
}

/// What a walk through a segment found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    /// Sequence after the last record.
    pub next: u64,
    /// Where the frames end (before the seal).
    pub offset: u64,
    /// How they end.
    pub end: End,
    /// Records in it.
    pub records: u64,
    /// Entries of these.
    pub entries: u64,
}

/// A segment in memory.
pub(super) struct Segment {
    path: PathBuf,
    bytes: Vec<u8>,
    pub header: SegmentHeader,
}

impl Segment {
    /// Reads the file and checks its header.
    pub fn read(path: &Path) -> Result<Self, OpenError> {
        let bytes = fs::read(path).map_err(OpenError::io("read", path))?;
        let damaged = |what: &str| OpenError::Damaged { file: path.to_owned(), offset: 0, what: what.into() };
        let header = SegmentHeader::decode(&bytes).map_err(|bad| match bad {
            BadHeader::Magic => damaged("it does not start as a segment of a journal does"),
            BadHeader::Checksum => damaged("the checksum of its header is wrong"),
            BadHeader::Newer(found) => OpenError::Newer { file: path.to_owned(), found, known: VERSION },
        })?;
        let segment = Self { path: path.to_owned(), bytes, header };
        let named = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if named != Some(header.first) {
            return Err(segment.damaged(
                16,
                format!("its name and its first record, {}, differ; it was renamed", header.first),
            ));
        }
        Ok(segment)
    }

    /// Walks over the records, up to the end or to the first damage.
    pub fn walk(&self, mut each: impl FnMut(Record<'_>)) -> Result<Walk, OpenError> {
        let mut at = SEGMENT_HEADER;
        let mut walk = Walk { next: self.header.first, offset: 0, end: End::Open, records: 0, entries: 0 };
        loop {
            walk.offset = at as u64;
            let rest = self.bytes.get(at..).unwrap_or_default();
            let frame = Frame::decode(rest).filter(|frame| frame.first == walk.next);
            let Some(frame) = frame else {
                walk.end = self.end(at, walk.next)?;
                return Ok(walk);
            };
            match frame.kind {
                Kind::Record(count) => {
                    each(Record { first: frame.first, count, at: frame.at, payload: frame.payload });
                    walk.records += 1;
                    walk.entries += u64::from(count);
                }
                Kind::Mark => {}
                Kind::Seal => {
                    walk.end = End::Sealed;
                    return Ok(walk);
                }
            }
            walk.next = frame.next();
            at += frame.len();
        }
    }

    /// No frame at `at`, where the one with sequence `next` would be: what does that mean?
    fn end(&self, at: usize, next: u64) -> Result<End, OpenError> {
        if (self.bytes.len() as u64) < self.header.capacity {
            let what = format!(
                "the file ends after {} bytes, was made with {}, and was not closed; it was cut",
                self.bytes.len(),
                self.header.capacity
            );
            return Err(self.damaged(at, what));
        }
        let rest = without_zeros(self.bytes.get(at..).unwrap_or_default());
        // Whoever wrote a later frame with `synced` at or after `next` had seen the frame at `at` reach the disk.
        let highest = next.saturating_add(rest.len() as u64);
        for start in 1..rest.len() {
            let later = &self.bytes[at + start..];
            if format::peek_first(later).is_some_and(|first| first >= next && first <= highest)
                && Frame::decode(later).is_some_and(|frame| frame.synced >= next)
            {
                let what = format!("record {next} cannot be read, and records after it can");
                return Err(self.damaged(at, what));
            }
        }
        Ok(if rest.is_empty() { End::Open } else { End::Torn(rest.len() as u64) })
    }

    /// An error about this file.
    pub fn damaged(&self, offset: usize, what: String) -> OpenError {
        OpenError::Damaged { file: self.path.clone(), offset: offset as u64, what }
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// `bytes` up to the last one that is not zero. Compared in blocks: most of a segment is empty, and this runs at each start.
fn without_zeros(mut bytes: &[u8]) -> &[u8] {
    const BLOCK: [u8; 4096] = [0; 4096];
    while let Some((head, tail)) = bytes.split_last_chunk::<4096>() {
        if *tail != BLOCK {
            break;
        }
        bytes = head;
    }
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..end]
}
