//! What is known of a mapping's dead letters without asking the database.
//!
//! Must not know: what is in them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Nobody has counted yet.
const UNKNOWN: u64 = u64::MAX;

/// Of one mapping. Commits look here whether there is any letter that they might pass, which costs a load of an atomic.
#[derive(Debug)]
pub(super) struct Letterbox {
    /// There may be some.
    used: AtomicBool,
    /// Batches with refused rows that this process has committed.
    buried: AtomicU64,
    counted: AtomicU64,
    /// Those that waited behind others, when they were counted last.
    held: AtomicU64,
}

impl Default for Letterbox {
    /// As long as nobody has counted there may be some.
    fn default() -> Self {
        Self {
            used: AtomicBool::new(true),
            buried: AtomicU64::new(0),
            counted: AtomicU64::new(UNKNOWN),
            held: AtomicU64::new(0),
        }
    }
}

impl Letterbox {
    pub(super) fn may_hold_any(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// A letter of this process has come.
    pub(super) fn bury(&self) {
        self.buried.fetch_add(1, Ordering::AcqRel);
        self.used.store(true, Ordering::Release);
    }

    /// To be said to [`Letterbox::counted`].
    pub(super) fn before_counting(&self) -> u64 {
        self.buried.load(Ordering::Acquire)
    }

    /// There were so many, counted since `before`.
    pub(super) fn counted(&self, count: u64, before: u64) {
        self.counted.store(count, Ordering::Release);
        self.used.store(count > 0, Ordering::Release);
        // One that came meanwhile may not be among them.
        if self.buried.load(Ordering::Acquire) != before {
            self.used.store(true, Ordering::Release);
        }
    }

    /// Of these so many waited.
    pub(super) fn counted_held(&self, held: u64) {
        self.held.store(held, Ordering::Release);
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// How many there were when they were counted last.
    pub(super) fn count(&self) -> Option<u64> {
        Some(self.counted.load(Ordering::Acquire)).filter(|count| *count != UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_that_comes_while_they_are_counted_is_not_forgotten() {
        let letters = Letterbox::default();
        assert!(letters.may_hold_any() && letters.count().is_none(), "nobody has counted");
        let before = letters.before_counting();
        letters.counted(0, before);
        assert!(!letters.may_hold_any());
        let before = letters.before_counting();
        letters.bury();
        letters.counted(0, before);
        assert!(letters.may_hold_any());
        letters.counted(0, letters.before_counting());
        assert_eq!((letters.may_hold_any(), letters.count()), (false, Some(0)));
    }
}
