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
    /// The newest of the waiting rows: it counts unless the row in the database has a greater order.
    Newest(Bytes, OrderKey),
    /// The key is deleted.
    Deleted,
}

/// Waiting writes of one key.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Sequence number of a waiting deletion; rows older than it are forgotten.
    deleted: Option<u64>,
    /// Waiting rows that are the newest now, or will be when those before them are committed: orders fall, sequence
    /// numbers rise.
    rows: VecDeque<(u64, OrderKey, Bytes)>,
    /// Who wrote last.
    writer: Option<u16>,
    contended: bool,
}

impl Overlay {
    /// Notes who writes.
    pub(super) fn written_by(&mut self, writer: u16) {
        self.contended |= self.writer.is_some_and(|last| last != writer);
        self.writer = Some(writer);
    }

    /// Notes that the cache may not have taken a write.
    pub(super) fn doubt(&mut self) {
        self.contended = true;
    }

    /// Several writers wrote: the cache may have seen their writes in another order than the queue did.
    pub(super) fn is_contended(&self) -> bool {
        self.contended
    }

    /// The one row of an upsert mapping.
    pub(super) fn replace(&mut self, seq: u64, value: Bytes) {
        self.rows.clear();
        self.rows.push_back((seq, OrderKey(i64::MAX), value));
    }

    /// One more row of an append mapping. Without an order of its own the database will give it one (the time of the
    /// insert): it counts as the newest.
    pub(super) fn append(&mut self, seq: u64, order: Option<OrderKey>, value: Bytes) {
        let order = order.unwrap_or(OrderKey(i64::MAX));
        // Earlier rows with a smaller order are committed earlier: they can never be the newest again.
        while self.rows.back().is_some_and(|(_, last, _)| *last <= order) {
            self.rows.pop_back();
        }
        self.rows.push_back((seq, order, value));
    }

    /// A deletion.
    pub(super) fn delete(&mut self, seq: u64) {
        self.rows.clear();
        self.deleted = Some(seq);
    }

    /// Everything up to `seq` is in the database (or was rejected). Answers whether nothing is left.
    pub(super) fn settle(&mut self, seq: u64) -> bool {
        while self.rows.front().is_some_and(|(first, ..)| *first <= seq) {
            self.rows.pop_front();
        }
        self.deleted = self.deleted.filter(|deleted| *deleted > seq);
        self.rows.is_empty() && self.deleted.is_none()
    }

    /// What a reader must see.
    pub(super) fn pending(&self, append: bool) -> Pending {
        match self.rows.front() {
            // After a waiting deletion the rows in the database do not count.
            Some((_, order, value)) if append && self.deleted.is_none() => {
                Pending::Newest(value.clone(), *order)
            }
            Some((_, _, value)) => Pending::Value(value.clone()),
            None => Pending::Deleted,
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
        assert_eq!(overlay.pending(true), Pending::Newest(value("nine"), OrderKey(9)));
        assert!(!overlay.settle(1));
        assert_eq!(overlay.pending(true), Pending::Newest(value("nine"), OrderKey(9)));
        assert!(!overlay.settle(2));
        assert_eq!(overlay.pending(true), Pending::Newest(value("later seven"), OrderKey(7)));
        overlay.append(5, None, value("now"));
        assert_eq!(overlay.pending(true), Pending::Newest(value("now"), OrderKey(i64::MAX)));
        assert!(overlay.settle(5));
    }

    #[test]
    fn a_deletion_hides_what_was_before() {
        let mut overlay = Overlay::default();
        overlay.replace(1, value("a"));
        overlay.delete(2);
        assert_eq!(overlay.pending(false), Pending::Deleted);
        overlay.append(3, Some(OrderKey(1)), value("b"));
        assert_eq!(overlay.pending(true), Pending::Value(value("b")));
        assert!(!overlay.settle(2));
        assert_eq!(overlay.pending(true), Pending::Newest(value("b"), OrderKey(1)));
        assert!(overlay.settle(3));
    }
}
