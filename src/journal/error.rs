//! What can go wrong with a journal, each with its cure.
//!
//! Must not know: who writes, what is written.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why a journal cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "the journal in {directory} is in use by {owner}; a data directory belongs to one proxy: stop that process, or set \
         [journal] data_dir to another directory"
    )]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// The other process, as far as it is known.
        owner: String,
    },
    /// The system refuses something.
    #[error(
        "cannot {doing} {path}: {error}; the proxy needs to read and write this directory ([journal] data_dir)"
    )]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// Something that was on the disk has changed since.
    #[error(
        "{file} is damaged at byte {offset}: {what}; restore the file from a copy, or, to give up the writes in it and after \
         it, move the directory away (`dsproxy journal inspect` shows what can still be read)"
    )]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A newer program wrote it.
    #[error(
        "{file} has format version {found}, and this dsproxy knows versions up to {known}: it was written by a newer one; \
         start that one again (and let it write everything to the database before going back to this one)"
    )]
    Newer {
        /// The segment.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The highest one known.
        known: u32,
    },
}

impl OpenError {
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { doing, path, error }
    }
}

/// Why something is not appended. Unless it says otherwise, nothing has happened then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// As many bytes wait for the database as may.
    #[error("the journal is full: {bytes} of {limit} bytes wait for the database; try again later")]
    Full {
        /// Bytes that wait.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The oldest record has been waiting for too long.
    #[error(
        "the journal is full: its oldest record has waited for the database for {age:?} (limit {limit:?}); try again later"
    )]
    TooOld {
        /// Its age.
        age: Duration,
        /// The limit.
        limit: Duration,
    },
    /// The disk does not take as many records as come.
    #[error("the journal's disk is too slow: {waiting} records wait for it; try again later")]
    Busy {
        /// Records that wait to be written.
        waiting: usize,
    },
    /// One record is larger than a journal takes.
    #[error("the record has {bytes} bytes, more than the {limit} that a journal takes")]
    TooLarge {
        /// Its bytes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// There is no room for another segment. The next append tries again.
    #[error("the journal's disk is full: {0}; make room on it")]
    NoSpace(Arc<str>),
    /// A write or sync has failed, so what is on the disk is not known. Never tried again: the kernel may have dropped the
    /// data it could not write and would report success. What was being appended may or may not survive.
    #[error("the journal cannot be written any more: {0}; mend the disk and restart the proxy")]
    Poisoned(Arc<str>),
    /// The proxy shuts down.
    #[error("the proxy is shutting down and takes no more writes")]
    Closed,
}
