//! Which proxies write to a database, how they are told apart, and how far back each of them may still write.
//!
//! Must not know: SQL, queues.
//!
//! A writer has a number (a part of its versions, [`crate::clock`]) and says now and then below which version it has nothing
//! left to apply. The least of these is the bound below which nobody needs the version of a key any more: whatever
//! is applied from now on, by whichever journal, is newer than that.

/// What a writer that has ended, with everything applied, still needs: nothing.
pub(super) const NOTHING: i64 = i64::MAX;
/// After this time without a word, a writer without a journal is taken to be gone: it has nothing that could be replayed.
pub(super) const SILENT: &str = "1 day";

/// Who writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// Its instance.
    pub id: String,
    /// The epoch in which that is its own; 0 without a journal.
    pub epoch: i64,
    /// Whether it has a journal, which may be replayed long after it has died.
    pub journaled: bool,
}

/// What a writer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Its number, which no other one has.
    pub number: u16,
    /// The highest version that whoever had the number has told of.
    pub last: u64,
}

/// How all writers stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether the one that asked is (still) registered. If it is not, another process has its instance.
    pub known: bool,
    /// Nobody will apply a version below.
    pub bound: u64,
}

/// The text of an error when all numbers are taken.
pub(super) fn no_number() -> super::SourceError {
    super::SourceError::schema(
        "53400",
        format!(
            "{} proxies write to this database already, as table dsproxy_writers says; remove the rows of those that are gone \
             for good, whose journals are lost or empty",
            crate::clock::WRITERS
        ),
    )
}
