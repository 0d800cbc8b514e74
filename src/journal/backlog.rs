//! How much of a journal is still needed, and since when.
//!
//! Must not know: files, threads.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Appends this close together are one step: a backlog of an hour has 36,000 of them.
const STEP: Duration = Duration::from_millis(100);

/// Records that are not trimmed yet, in steps of time.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    steps: VecDeque<Step>,
    /// Bytes of all steps.
    pub bytes: u64,
    /// Entries of all steps.
    pub entries: u64,
}

#[derive(Debug)]
struct Step {
    since: Instant,
    last: u64,
    bytes: u64,
    entries: u64,
}

impl Backlog {
    /// Notes entries up to `last`.
    pub fn add(&mut self, now: Instant, last: u64, bytes: u64, entries: u64) {
        self.bytes += bytes;
        self.entries += entries;
        match self.steps.back_mut() {
            Some(step) if now.saturating_duration_since(step.since) < STEP => {
                step.last = last;
                step.bytes += bytes;
                step.entries += entries;
            }
            _ => self.steps.push_back(Step { since: now, last, bytes, entries }),
        }
    }

    /// Entries below `below` are not needed any more.
    pub fn trim(&mut self, below: u64) {
        while let Some(step) = self.steps.pop_front_if(|step| step.last < below) {
            self.bytes -= step.bytes;
            self.entries -= step.entries;
        }
    }

    /// When the oldest was added.
    pub fn oldest(&self) -> Option<Instant> {
        self.steps.front().map(|step| step.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trimmed_no_longer_counts() {
        let (mut backlog, start) = (Backlog::default(), Instant::now());
        backlog.add(start, 1, 10, 1);
        backlog.add(start + STEP / 2, 5, 40, 4);
        backlog.add(start + STEP * 3, 6, 10, 1);
        assert_eq!((backlog.bytes, backlog.entries, backlog.oldest()), (60, 6, Some(start)));
        backlog.trim(5);
        assert_eq!(backlog.entries, 6, "a step goes as a whole");
        backlog.trim(6);
        assert_eq!((backlog.bytes, backlog.entries, backlog.oldest()), (10, 1, Some(start + STEP * 3)));
        backlog.trim(7);
        assert_eq!((backlog.bytes, backlog.entries, backlog.oldest()), (0, 0, None));
    }
}
