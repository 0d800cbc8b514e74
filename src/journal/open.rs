//! Opens the directory of a journal and checks all that an earlier process left.
//!
//! Must not know: what records mean.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use super::backlog::Backlog;
use super::directory::{self, Directory};
use super::error::OpenError;
use super::inbox::Inbox;
use super::reader::{End, Record, Segment, Walk};
use super::writer::{Old, Writer, now};
use super::{Item, Journal, JournalOptions, Shared, Sink, segment};

/// A journal that is locked and checked, and not running yet.
#[derive(Debug)]
pub struct Opened {
    directory: Directory,
    options: JournalOptions,
    segments: Vec<Found>,
    next: u64,
    backlog: Backlog,
}

#[derive(Debug)]
struct Found {
    path: PathBuf,
    next: u64,
    records: u64,
}

impl Opened {
    pub(super) fn new(path: &Path, options: JournalOptions) -> Result<Self, OpenError> {
        let directory = Directory::lock(path)?;
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        let mut segments = Vec::new();
        let mut last = None;
        walk(path, |file, segment, walk| {
            let Walk { next, records, entries, .. } = walk;
            if entries > 0 {
                backlog.add(start, next - 1, walk.offset, entries);
            }
            segments.push(Found { path: file.to_owned(), next, records });
            last = Some((segment.header, walk));
            Ok(())
        })?;
        let next = last.as_ref().map_or(1, |(_, walk)| walk.next);
        if let (Some((header, walk)), Some(found)) = (last, segments.last())
            && walk.end != End::Sealed
        {
            // Ended here, so that what is torn can never be taken for what this process will write.
            if let End::Torn(bytes) = walk.end {
                tracing::warn!(
                    file = %found.path.display(), offset = walk.offset, bytes,
                    "the last write to the journal was torn by a crash; nobody was told of it, and it is cut off"
                );
            }
            segment::Segment::reopen(found.path.clone(), walk.offset, header.capacity)
                .and_then(|segment| segment.seal(next, now()))
                .map_err(OpenError::io("write", &found.path))?;
        }
        Ok(Self { directory, options, segments, next, backlog })
    }

    /// Sequence of the last entry that was ever written here (0: none).
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// Bytes and entries that are there.
    pub fn size(&self) -> (u64, u64) {
        (self.backlog.bytes, self.backlog.entries)
    }

    /// Shows all records in their order.
    ///
    /// # Errors
    /// A file cannot be read any more.
    pub fn replay(&self, mut each: impl FnMut(Record<'_>)) -> Result<(), OpenError> {
        for found in self.segments.iter().filter(|found| found.records > 0) {
            Segment::read(&found.path)?.walk(&mut each)?;
        }
        Ok(())
    }

    /// Starts the thread. Whatever was replayed stays until it is trimmed.
    ///
    /// # Errors
    /// No segment, or no thread, can be made.
    pub fn start<I: Item>(self, sink: impl Sink<I>) -> Result<Journal<I>, OpenError> {
        let path = self.directory.path().to_owned();
        let old: VecDeque<Old> =
            self.segments.into_iter().map(|found| Old { path: found.path, next: found.next }).collect();
        let shared = Arc::new(Shared {
            options: self.options,
            directory: self.directory,
            inbox: Inbox::new(0),
            backlog: Mutex::new(self.backlog),
            synced: AtomicU64::new(self.next - 1),
            segments: AtomicU64::new(old.len() as u64 + 1),
            poison: OnceLock::new(),
            no_space: Mutex::default(),
        });
        let mut writer = Writer::new(shared.clone(), sink, old, self.next);
        writer.prepare().map_err(OpenError::io("make a segment in", &path))?;
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run())
            .map_err(OpenError::io("start the thread of", &path))?;
        Ok(Journal { shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }
}

/// Walks over all segments of `path`, checking that each follows the one before.
pub(super) fn walk(
    path: &Path,
    mut each: impl FnMut(&Path, &Segment, Walk) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let files = directory::segments(path)?;
    let mut expected: Option<u64> = None;
    for (at, file) in files.iter().enumerate() {
        let segment = Segment::read(file)?;
        if let Some(expected) = expected.filter(|expected| *expected != segment.header.first) {
            let what = format!("it should begin with record {expected}; a file before it is missing");
            return Err(segment.damaged(16, what));
        }
        let walk = segment.walk(|_| {})?;
        if at + 1 < files.len() && walk.end != End::Sealed {
            let what = format!("record {} cannot be read, and another segment follows", walk.next);
            return Err(segment.damaged(walk.offset as usize, what));
        }
        expected = Some(walk.next);
        each(file, &segment, walk)?;
    }
    Ok(())
}
