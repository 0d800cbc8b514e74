//! The one segment that is written to.
//!
//! Must not know: threads, sequences beyond its own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use rustix::fs::FallocateFlags;

use super::directory::Directory;
use super::format::{self, FRAME, Kind, SEGMENT_HEADER, SegmentHeader};
use crate::failpoint;

/// An open segment. Positions are explicit, so a failed write leaves no doubt about where the next one would go.
#[derive(Debug)]
pub(super) struct Segment {
    pub path: PathBuf,
    file: File,
    offset: u64,
    capacity: u64,
    /// Frames before `offset` that are not in the file yet: always empty, but in a test of power cuts.
    held: Vec<u8>,
}

/// Why a segment could not be made.
pub(super) enum Unmade {
    /// No room; nothing is left of it.
    NoSpace(io::Error),
    /// Anything else.
    Failed(io::Error),
}

impl Segment {
    /// Makes the segment that starts with `first`, with room for `capacity` bytes of frames. It has its name only when all
    /// of it is durable, so a segment with a bad header was never a good one.
    pub fn create(directory: &Directory, first: u64, capacity: u64, made: u64) -> Result<Self, Unmade> {
        let (path, unfinished) = directory.names(first);
        let capacity = capacity + (SEGMENT_HEADER + FRAME) as u64; // and the seal
        let make = || -> io::Result<File> {
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unfinished)?;
            reserve(&file, capacity)?;
            file.write_all_at(&SegmentHeader { first, capacity, made }.encode(), 0)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            directory.sync()?;
            Ok(file)
        };
        match make() {
            Ok(file) => Ok(Self { path, file, offset: SEGMENT_HEADER as u64, capacity, held: Vec::new() }),
            Err(error) => {
                let _ = fs::remove_file(&unfinished);
                let no_space = matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
                );
                Err(if no_space { Unmade::NoSpace(error) } else { Unmade::Failed(error) })
            }
        }
    }

    /// Opens a segment whose writer died, to go on at `offset`.
    pub fn reopen(path: PathBuf, offset: u64, capacity: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self { path, file, offset, capacity, held: Vec::new() })
    }

    /// Whether so many bytes of frames fit, with the seal after them.
    pub fn fits(&self, bytes: usize) -> bool {
        self.offset + bytes as u64 + FRAME as u64 <= self.capacity
    }

    /// Writes frames at the end; not durable yet.
    pub fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        match failpoint::power_cut() {
            true => self.held.extend_from_slice(frames),
            false => self.file.write_all_at(frames, self.offset)?,
        }
        self.offset += frames.len() as u64;
        Ok(())
    }

    /// Makes what was written durable.
    pub fn sync(&mut self) -> io::Result<()> {
        if !self.held.is_empty() {
            self.file.write_all_at(&self.held, self.offset - self.held.len() as u64)?;
            self.held.clear();
        }
        rustix::fs::fdatasync(&self.file).map_err(io::Error::from)
    }

    /// Ends it: durable, and no longer than its frames where the file system lets it be.
    pub fn seal(mut self, next: u64, at: u64) -> io::Result<()> {
        self.write(&format::bare(Kind::Seal, next, at))?;
        self.sync()?;
        // After the seal is durable: a file that is shorter than it was made, and not sealed, was cut by somebody else.
        // Some file systems refuse to shorten a file while its size is limited: that room then goes with the segment.
        match self.file.set_len(self.offset) {
            Ok(()) => self.file.sync_all(),
            Err(error) => {
                tracing::warn!(%error, file = %self.path.display(), "cannot give back what a segment of the journal has not used");
                Ok(())
            }
        }
    }
}

/// Room on the disk, so that a write into it cannot run out of space; as zeros, where the file system cannot reserve.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes),
        Err(error) => Err(error.into()),
    }
}
