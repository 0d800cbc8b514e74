//! What readers of a key must see while its writes wait for the database.
//!
//! Must not know: the database, locks.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::mapping::OrderKey;

/// The state of a key whose writes are not in the database yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// This is the value.
    Value(Bytes),
    /// These are the fields, of a `hash` mapping.
    Fields(Vec<(Bytes, Bytes)>),
    /// The newest of the waiting rows: it counts unless the row in the database has a greater order.
    Newest(Bytes, OrderKey),
    /// The key is deleted.
    Deleted,
}

/// Waiting writes of one key.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Version of a waiting deletion; rows older than it are forgotten.
    deleted: Option<u64>,
    /// Waiting rows that are the newest now, or will be when those before them are committed: orders fall, versions rise.
    rows: VecDeque<(u64, OrderKey, Bytes)>,
    /// A write that counts only if nothing came before it: its version, its value (`None` deletes). Not seen by readers.
    conditional: Option<(u64, Option<Bytes>)>,
    /// The newest version that was queued, the conditional one left out.
    newest: u64,
    /// Writes whose outcome in the cache is not known yet.
    applying: u32,
    /// The cache may hold something else than the newest write.
    doubtful: bool,
}

impl Overlay {
    /// Notes that the cache may not have taken a write; false when that was known.
    pub(super) fn doubt(&mut self) -> bool {
        !std::mem::replace(&mut self.doubtful, true)
    }

    /// Whether the cache may hold something else than the newest write.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// The newest version queued, 0 when there is none.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// A write is on its way to the cache.
    pub(super) fn begin_apply(&mut self) {
        self.applying += 1;
    }

    /// Whether a write is on its way to the cache.
    pub(super) fn is_applying(&self) -> bool {
        self.applying > 0
    }

    /// The outcome of a write in the cache is known.
    pub(super) fn end_apply(&mut self) {
        self.applying = self.applying.saturating_sub(1);
    }

    /// The one row of an upsert mapping.
    pub(super) fn replace(&mut self, version: u64, value: Bytes) {
        self.newest = version;
        self.rows.clear();
        self.rows.push_back((version, OrderKey(i64::MAX), value));
    }

    /// One more row of an append mapping. Without an order of its own the database will give it one (the time of the
    /// insert): it counts as the newest.
    pub(super) fn append(&mut self, version: u64, order: Option<OrderKey>, value: Bytes) {
        self.newest = version;
        let order = order.unwrap_or(OrderKey(i64::MAX));
        // Earlier rows with a smaller order are committed earlier: they can never be the newest again.
        while self.rows.back().is_some_and(|(_, last, _)| *last <= order) {
            self.rows.pop_back();
        }
        self.rows.push_back((version, order, value));
    }

    /// A deletion.
    pub(super) fn delete(&mut self, version: u64) {
        self.newest = version;
        self.rows.clear();
        self.deleted = Some(version);
    }

    /// A write computed from version `base`; false when that is not the newest any more (or another one is undecided).
    pub(super) fn propose(&mut self, version: u64, base: u64, value: Option<Bytes>) -> bool {
        let fits = self.newest <= base && self.conditional.is_none();
        if fits {
            self.conditional = Some((version, value));
        }
        fits
    }

    /// The version of a conditional write whose race is not decided.
    pub(super) fn undecided(&self) -> Option<u64> {
        self.conditional.as_ref().map(|(version, _)| *version)
    }

    /// The conditional write has won: readers see it from now on. Lost: it never was.
    pub(super) fn decide(&mut self, version: u64, won: bool) {
        let Some((_, value)) = self.conditional.take_if(|(own, _)| *own == version) else { return };
        if won && version > self.newest {
            match value {
                Some(value) => self.replace(version, value),
                None => self.delete(version),
            }
        }
    }

    /// Everything up to `version` is in the database (or was rejected).
    pub(super) fn settle(&mut self, version: u64) {
        while self.rows.front().is_some_and(|(first, ..)| *first <= version) {
            self.rows.pop_front();
        }
        self.deleted = self.deleted.filter(|deleted| *deleted > version);
    }

    /// Whether a write of the key waits for the database.
    pub(super) fn waits(&self) -> bool {
        !self.rows.is_empty() || self.deleted.is_some()
    }

    /// Whether nothing of the key is left to be decided.
    pub(super) fn is_over(&self) -> bool {
        !self.waits() && self.applying == 0 && self.conditional.is_none()
    }

    /// What a reader must see; `None` when the database has it all.
    pub(super) fn pending(&self, append: bool) -> Option<Pending> {
        match self.rows.front() {
            // After a waiting deletion the rows in the database do not count.
            Some((_, order, value)) if append && self.deleted.is_none() => {
                Some(Pending::Newest(value.clone(), *order))
            }
            Some((_, _, value)) => Some(Pending::Value(value.clone())),
            None => self.deleted.map(|_| Pending::Deleted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn the_newest_waiting_row_is_seen_until_its_commit() {
        let mut overlay = Overlay::default();
        overlay.append(1, Some(OrderKey(5)), value("five"));
        overlay.append(2, Some(OrderKey(9)), value("nine"));
        overlay.append(3, Some(OrderKey(7)), value("seven"));
        overlay.append(4, Some(OrderKey(7)), value("later seven"));
        assert_eq!(overlay.pending(true), Some(Pending::Newest(value("nine"), OrderKey(9))));
        overlay.settle(1);
        assert_eq!(overlay.pending(true), Some(Pending::Newest(value("nine"), OrderKey(9))));
        overlay.settle(2);
        assert_eq!(overlay.pending(true), Some(Pending::Newest(value("later seven"), OrderKey(7))));
        overlay.append(5, None, value("now"));
        assert_eq!(overlay.pending(true), Some(Pending::Newest(value("now"), OrderKey(i64::MAX))));
        overlay.settle(5);
        assert!(overlay.is_over() && overlay.pending(true).is_none());
    }

    #[test]
    fn a_deletion_hides_what_was_before() {
        let mut overlay = Overlay::default();
        overlay.replace(1, value("a"));
        overlay.delete(2);
        assert_eq!(overlay.pending(false), Some(Pending::Deleted));
        overlay.append(3, Some(OrderKey(1)), value("b"));
        assert_eq!(overlay.pending(true), Some(Pending::Value(value("b"))));
        overlay.settle(2);
        assert_eq!(overlay.pending(true), Some(Pending::Newest(value("b"), OrderKey(1))));
        overlay.settle(3);
        assert!(overlay.is_over());
    }

    #[test]
    fn a_write_on_its_way_to_the_cache_keeps_the_newest_version_known() {
        let mut overlay = Overlay::default();
        overlay.begin_apply();
        overlay.replace(7, value("a"));
        overlay.settle(7);
        assert_eq!((overlay.pending(false), overlay.newest(), overlay.is_over()), (None, 7, false));
        overlay.end_apply();
        assert!(overlay.is_over());
    }

    #[test]
    fn a_conditional_write_is_seen_when_it_has_won() {
        let mut overlay = Overlay::default();
        overlay.replace(5, value("five"));
        assert!(!overlay.propose(6, 4, Some(value("lost"))), "something newer than its base waits");
        assert!(overlay.propose(6, 5, Some(value("six"))));
        assert!(!overlay.propose(7, 5, None), "one at a time");
        assert_eq!(overlay.pending(false), Some(Pending::Value(value("five"))));
        overlay.settle(5);
        assert!(!overlay.is_over());
        overlay.decide(6, true);
        assert_eq!(overlay.pending(false), Some(Pending::Value(value("six"))));
        assert!(overlay.propose(8, 6, None));
        overlay.replace(9, value("nine"));
        overlay.decide(8, true);
        assert_eq!(
            overlay.pending(false),
            Some(Pending::Value(value("nine"))),
            "a newer write came in between"
        );
        assert!(overlay.propose(10, 9, None));
        overlay.decide(10, false);
        assert_eq!(overlay.pending(false), Some(Pending::Value(value("nine"))));
    }
}
