//! `ACL LOG`: what was refused lately, and to whom.
//!
//! Must not know: clocks, clients.

use std::collections::VecDeque;

/// Refusals of one kind within this time are one entry, in milliseconds.
const GROUPED_MS: u64 = 60_000;
/// Entries that are looked at for one of the kind.
const LOOKED_AT: usize = 10;

/// Where a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// When it was sent.
    TopLevel,
    /// Between `MULTI` and `EXEC`, or by `EXEC`.
    Multi,
}

impl Context {
    /// As `ACL LOG` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TopLevel => "toplevel",
            Self::Multi => "multi",
        }
    }
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// How often it happened.
    pub count: u64,
    /// `auth`, `command`, `key` or `channel`.
    pub reason: &'static str,
    /// Where.
    pub context: Context,
    /// The command, key or channel.
    pub object: Vec<u8>,
    /// The user.
    pub username: Vec<u8>,
    /// When it happened last, in milliseconds.
    pub at_ms: u64,
    /// The line of `CLIENT LIST` of the last client.
    pub client: String,
}

/// The entries, the newest first.
#[derive(Debug, Default)]
pub struct Log(VecDeque<Entry>);

impl Log {
    /// Adds an entry, or counts it with one of its kind; keeps `most`.
    pub fn add(&mut self, entry: Entry, most: usize) {
        let same = |known: &Entry| {
            known.reason == entry.reason
                && known.context == entry.context
                && known.at_ms.abs_diff(entry.at_ms) <= GROUPED_MS
                && known.object == entry.object
                && known.username == entry.username
        };
        let place = self.0.iter().take(LOOKED_AT).position(same);
        let count = place.and_then(|place| self.0.remove(place)).map_or(0, |known| known.count);
        self.0.push_front(Entry { count: count + 1, ..entry });
        self.0.truncate(most);
    }

    /// The newest `count`.
    pub fn newest(&self, count: usize) -> impl ExactSizeIterator<Item = &Entry> {
        self.0.iter().take(count)
    }

    /// `ACL LOG RESET`.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
