//! What a journal holds, in words: `dsproxy journal inspect` and `verify`.
//!
//! Must not know: what a payload means; the caller prints it.

use std::io::{self, Write};
use std::path::Path;

use super::directory;
use super::error::OpenError;
use super::open::walk;
use super::reader::{End, Record, Segment};

/// What `verify` found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Segments.
    pub segments: usize,
    /// Records.
    pub records: u64,
    /// Entries of these.
    pub entries: u64,
    /// Bytes of a torn end, which the next start cuts off.
    pub torn: u64,
    /// Sequence of the last entry (0: none ever was).
    pub last: u64,
}

/// Checks every byte of the journal in `path`, as a start does, and changes nothing. A running proxy is not disturbed; a
/// record that it is just writing may look torn.
///
/// # Errors
/// The first damage, or why it cannot be read.
pub fn verify(path: &Path) -> Result<Summary, OpenError> {
    let mut summary = Summary::default();
    walk(path, |_, _, walk| {
        summary.segments += 1;
        summary.records += walk.records;
        summary.entries += walk.entries;
        summary.last = walk.next.saturating_sub(1);
        if let End::Torn(bytes) = walk.end {
            summary.torn += bytes;
        }
        Ok(())
    })?;
    Ok(summary)
}

/// Prints every record that can be read, its payload as `show` has it, and where damage is. Answers how many segments are
/// damaged.
///
/// # Errors
/// The directory cannot be listed, or `out` cannot be written.
pub fn inspect(path: &Path, out: &mut dyn Write, show: &dyn Fn(&[u8]) -> String) -> io::Result<usize> {
    let files = directory::segments(path).map_err(io::Error::other)?;
    let mut damaged = 0;
    for file in files {
        writeln!(out, "{}", file.display())?;
        let segment = match Segment::read(&file) {
            Ok(segment) => segment,
            Err(error) => {
                damaged += 1;
                writeln!(out, "  {error}")?;
                continue;
            }
        };
        let mut failed = None;
        let walked = segment.walk(|record| {
            if failed.is_none() {
                failed = line(out, &record, show).err();
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        match walked {
            Ok(walk) => {
                let end = match walk.end {
                    End::Sealed => "closed".to_owned(),
                    End::Open => "not closed: in use, or its proxy died".to_owned(),
                    End::Torn(bytes) => format!("{bytes} bytes of a torn write at byte {}", walk.offset),
                };
                let (records, bytes) = (walk.records, segment.len());
                writeln!(out, "  {records} records, next sequence {}, {bytes} bytes, {end}", walk.next)?;
            }
            Err(error) => {
                damaged += 1;
                writeln!(out, "  {error}")?;
            }
        }
    }
    Ok(damaged)
}

fn line(out: &mut dyn Write, record: &Record<'_>, show: &dyn Fn(&[u8]) -> String) -> io::Result<()> {
    let sequences = match record.count {
        1 => record.first.to_string(),
        _ => format!("{}..{}", record.first, record.last()),
    };
    let at = record.at;
    writeln!(out, "  {sequences} at {}.{:03} {}", at / 1000, at % 1000, show(record.payload))
}
