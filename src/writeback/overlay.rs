//! What readers of a key must see while its writes wait for the database.
//!
//! Must not know: the database, locks.

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
    rows: Vec<(u64, OrderKey, Bytes)>,
    /// Writes that count only if nothing came before them, of one unit. Not seen by readers.
    proposed: Vec<Proposed>,
    /// The newest version that was queued, the proposed ones left out.
    newest: u64,
    /// Writes whose outcome in the cache is not known yet.
    applying: u32,
    /// The cache may hold something else than the newest write.
    doubtful: bool,
}

/// What a write does to what readers see.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    /// This is the value.
    Value(Bytes),
    /// One more row, with its order.
    Row(Option<OrderKey>, Bytes),
    /// There is none.
    Nothing,
}

/// A write that counts only if nothing came before it.
#[derive(Debug)]
struct Proposed {
    /// The unit that is tried as a whole, if it belongs to one.
    unit: Option<u64>,
    version: u64,
    shown: Shown,
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

    /// A write that counts.
    pub(super) fn show(&mut self, version: u64, shown: Shown) {
        match shown {
            Shown::Value(value) => self.replace(version, value),
            Shown::Row(order, value) => self.append(version, order, value),
            Shown::Nothing => self.delete(version),
        }
    }

    /// The one row of an upsert mapping.
    pub(super) fn replace(&mut self, version: u64, value: Bytes) {
        self.newest = version;
        self.rows.clear();
        self.push((version, OrderKey(i64::MAX), value));
    }

    /// One more row of an append mapping. Without an order of its own the database will give it one (the time of the
    /// insert): it counts as the newest.
    pub(super) fn append(&mut self, version: u64, order: Option<OrderKey>, value: Bytes) {
        self.newest = version;
        let order = order.unwrap_or(OrderKey(i64::MAX));
        // Earlier rows with a smaller order are committed earlier: they can never be the newest again.
        while self.rows.last().is_some_and(|(_, last, _)| *last <= order) {
            self.rows.pop();
        }
        self.push((version, order, value));
    }

    /// Mostly it is the only one, and there are as many overlays as keys that wait.
    fn push(&mut self, row: (u64, OrderKey, Bytes)) {
        if self.rows.is_empty() {
            self.rows.reserve_exact(1);
        }
        self.rows.push(row);
    }

    /// A deletion.
    pub(super) fn delete(&mut self, version: u64) {
        self.newest = version;
        self.rows.clear();
        self.deleted = Some(version);
    }

    /// A write computed from version `base`; false when that is not the newest any more (or another one is undecided, of
    /// another unit).
    pub(super) fn propose(&mut self, version: u64, base: u64, unit: Option<u64>, shown: Shown) -> bool {
        let ours = |other: &Proposed| unit.is_some() && other.unit == unit;
        let fits = self.newest <= base && self.proposed.iter().all(ours);
        if fits {
            self.proposed.push(Proposed { unit, version, shown });
        }
        fits
    }

    /// The versions of writes whose race is not decided, and whether they are of a unit that is tried as a whole.
    pub(super) fn undecided(&self) -> (Vec<u64>, bool) {
        let versions = self.proposed.iter().map(|proposed| proposed.version).collect();
        (versions, self.proposed.iter().any(|proposed| proposed.unit.is_some()))
    }

    /// The proposed write has won: readers see it from now on. Lost: it never was.
    pub(super) fn decide(&mut self, version: u64, won: bool) {
        let at = self.proposed.iter().position(|proposed| proposed.version == version);
        let Some(Proposed { shown, .. }) = at.map(|at| self.proposed.remove(at)).filter(|_| won) else {
            return;
        };
        match shown {
            shown if version > self.newest => self.show(version, shown),
            Shown::Row(order, value) => self.append_older(version, order, value),
            Shown::Value(_) | Shown::Nothing => {}
        }
    }

    /// A row that newer ones have overtaken while it was undecided.
    fn append_older(&mut self, version: u64, order: Option<OrderKey>, value: Bytes) {
        let order = order.unwrap_or(OrderKey(i64::MAX));
        let at = self.rows.partition_point(|(other, ..)| *other < version);
        let hidden = self.rows.get(at).is_some_and(|(_, next, _)| *next >= order);
        if hidden || self.deleted.is_some_and(|deleted| deleted > version) {
            return;
        }
        let kept = self.rows.iter().take(at).take_while(|(_, before, _)| *before > order).count();
        self.rows.drain(kept..at);
        self.rows.insert(kept, (version, order, value));
    }

    /// Everything up to `version` is in the database (or was rejected).
    pub(super) fn settle(&mut self, version: u64) {
        let over = self.rows.iter().take_while(|(first, ..)| *first <= version).count();
        self.rows.drain(..over);
        self.deleted = self.deleted.filter(|deleted| *deleted > version);
    }

    /// Whether a write of the key waits for the database.
    pub(super) fn waits(&self) -> bool {
        !self.rows.is_empty() || self.deleted.is_some()
    }

    /// Whether nothing of the key is left to be decided.
    pub(super) fn is_over(&self) -> bool {
        !self.waits() && self.applying == 0 && self.proposed.is_empty()
    }

    /// What a reader must see; `None` when the database has it all.
    pub(super) fn pending(&self, append: bool) -> Option<Pending> {
        match self.rows.first() {
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
        let shown = |text| Shown::Value(value(text));
        assert!(!overlay.propose(6, 4, None, shown("lost")), "something newer than its base waits");
        assert!(overlay.propose(6, 5, None, shown("six")));
        assert!(!overlay.propose(7, 5, None, Shown::Nothing), "one at a time");
        assert_eq!(overlay.pending(false), Some(Pending::Value(value("five"))));
        overlay.settle(5);
        assert!(!overlay.is_over());
        overlay.decide(6, true);
        assert_eq!(overlay.pending(false), Some(Pending::Value(value("six"))));
        assert!(overlay.propose(8, 6, None, Shown::Nothing));
        overlay.replace(9, value("nine"));
        overlay.decide(8, true);
        assert_eq!(
            overlay.pending(false),
            Some(Pending::Value(value("nine"))),
            "a newer write came in between"
        );
        assert!(overlay.propose(10, 9, None, Shown::Nothing));
        overlay.decide(10, false);
        assert_eq!(overlay.pending(false), Some(Pending::Value(value("nine"))));
    }

    #[test]
    fn several_writes_of_one_unit_are_decided_in_their_order() {
        let mut overlay = Overlay::default();
        assert!(overlay.propose(1, 0, Some(7), Shown::Value(value("one"))));
        assert!(overlay.propose(2, 0, Some(7), Shown::Nothing));
        assert!(overlay.propose(3, 0, Some(7), Shown::Value(value("three"))));
        assert!(!overlay.propose(4, u64::MAX, Some(8), Shown::Nothing), "another unit");
        assert!(!overlay.propose(4, u64::MAX, None, Shown::Nothing), "no unit");
        assert_eq!((overlay.pending(false), overlay.undecided()), (None, (vec![1, 2, 3], true)));
        (1..=3).for_each(|version| overlay.decide(version, true));
        assert_eq!(overlay.pending(false), Some(Pending::Value(value("three"))));
        overlay.settle(3);
        assert!(overlay.is_over());
    }

    #[test]
    fn a_row_that_was_undecided_takes_its_place_among_newer_ones() {
        let row = |order| Shown::Row(Some(OrderKey(order)), value("row"));
        for (order, newest) in [(9, "row"), (5, "later"), (3, "later")] {
            let mut overlay = Overlay::default();
            assert!(overlay.propose(1, 0, Some(1), row(order)));
            overlay.append(2, Some(OrderKey(5)), value("later"));
            overlay.decide(1, true);
            assert_eq!(
                overlay
                    .pending(true)
                    .map(|pending| matches!(pending, Pending::Newest(it, _) if it == value(newest))),
                Some(true),
                "order {order}"
            );
            overlay.settle(1);
            overlay.settle(2);
            assert!(overlay.is_over());
        }
    }
}
