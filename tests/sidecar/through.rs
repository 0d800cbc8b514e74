//! Write-through: nothing older than the commit may be left, whoever dies and whoever else writes.

use std::time::Duration;

use dsproxy::sidecar::{
    Change, Committed, Ended, Filled, Leased, Refusal, Token, Version, begin_through, end_through,
    parse_begun, parse_ended,
};

use crate::node::{LONG, Node, text};
use crate::support::eventually;

impl Node {
    #[track_caller]
    fn begin(&mut self, life: Duration) -> Token {
        let token = Token::random();
        let request = begin_through(self.key(), token, life);
        assert!(parse_begun(&self.run(request)).unwrap().0);
        token
    }

    #[track_caller]
    fn end(&mut self, token: Token, version: Version, row: Committed<'_>) -> Ended {
        let request = end_through(self.key(), token, version, row, Some(LONG));
        parse_ended(&self.run(request)).unwrap().0
    }
}

#[test]
fn while_it_is_under_way_rows_are_answered_but_not_stored() {
    let mut node = Node::new();
    let before = node.granted();
    let token = node.begin(LONG);
    assert_eq!(node.get(), None);
    assert_eq!(node.fill(before, Some(&text("old"))), Filled::Refused(Refusal::Lease));
    let during = node.granted();
    assert!(matches!(node.lease(Token::random()), Leased::Wait(_)), "still one load");
    assert_eq!(node.fill(during, Some(&text("old"))), Filled::Refused(Refusal::Through));
    let during = node.granted();
    assert_eq!(node.end(token, 1, Committed::Row(&text("new"))), Ended::Done);
    assert_eq!(node.fill(during, Some(&text("old"))), Filled::Refused(Refusal::Lease));
    assert_eq!(node.get().as_deref(), Some("new"));
    assert!(node.lives().0 > 0);
    assert_eq!(node.field("v").as_deref(), Some("1"));
}

#[test]
fn a_writer_that_died_leaves_nothing_behind() {
    let mut node = Node::new();
    node.begin(Duration::from_millis(100));
    let reader = Token::random();
    node.lease(reader);
    eventually(LONG, "the mark ends", || {
        node.lease(reader) != Leased::Granted(Duration::ZERO) || {
            let left = node.field("we").unwrap().parse::<u128>().unwrap();
            std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() > left + 5
        }
    });
    // Loaded before the commit that nobody announced, by a lease that outlived the mark.
    assert_eq!(node.fill(reader, Some(&text("old"))), Filled::Refused(Refusal::Through));
    let next = node.granted();
    assert_eq!(node.fill(next, Some(&text("new"))), Filled::Stored);
}

#[test]
fn of_two_at_once_neither_stores_its_row() {
    for first_ends_first in [true, false] {
        let mut node = Node::new();
        let (a, b) = (node.begin(LONG), node.begin(LONG));
        let order = if first_ends_first { [a, b] } else { [b, a] };
        assert_eq!(node.end(order[0], 1, Committed::Row(&text("one"))), Ended::Dropped);
        // Until the other has ended too its commit may come: what is loaded now is not stored.
        let reader = node.granted();
        assert_eq!(node.fill(reader, Some(&text("one"))), Filled::Refused(Refusal::Through));
        assert_eq!(node.end(order[1], 2, Committed::Row(&text("two"))), Ended::Dropped);
        assert_eq!(node.get(), None);
    }
}

#[test]
fn a_mark_that_was_lost_stops_everybody_who_wrote_without_it() {
    let mut node = Node::new();
    let a = node.begin(LONG);
    node.on_side("DEL", &[]);
    let b = node.begin(LONG);
    assert_eq!(node.end(a, 2, Committed::Row(&text("a"))), Ended::Dropped);
    assert_eq!(node.end(b, 1, Committed::Row(&text("b"))), Ended::Dropped, "a's commit may be the later one");
    assert_eq!(node.get(), None);

    let mut node = Node::new();
    let a = node.begin(LONG);
    node.on_side("DEL", &[]);
    let b = node.begin(LONG);
    assert_eq!(node.end(b, 1, Committed::Row(&text("b"))), Ended::Done);
    assert_eq!(node.end(a, 2, Committed::Row(&text("a"))), Ended::Dropped);
    assert_eq!(node.get(), None, "and what b has stored is gone");
}

#[test]
fn a_rolled_back_one_changes_nothing_and_an_unknown_one_keeps_fills_out() {
    let mut node = Node::new();
    let token = node.begin(LONG);
    assert_eq!(node.end(token, 1, Committed::Nothing), Ended::Done);
    let reader = node.granted();
    assert_eq!(node.fill(reader, Some(&text("as before"))), Filled::Stored);
    let token = node.begin(LONG);
    assert_eq!(node.end(token, 2, Committed::Unknown), Ended::Dropped);
    let reader = node.granted();
    assert_eq!(node.fill(reader, Some(&text("as before"))), Filled::Refused(Refusal::Through));
    assert_eq!(node.get(), None);
}

#[test]
fn a_deleted_row_is_gone() {
    let mut node = Node::new();
    let token = node.begin(LONG);
    assert_eq!(node.end(token, 1, Committed::Absent), Ended::Done);
    assert_eq!(node.get(), None);
    node.granted();
}

#[test]
fn a_dirty_key_is_not_written_through() {
    let mut node = Node::new();
    node.apply(1, Change::Put(&text("dirty")));
    let token = Token::random();
    let request = begin_through(node.key(), token, LONG);
    assert!(!parse_begun(&node.run(request)).unwrap().0);
    assert_eq!(node.end(token, 2, Committed::Row(&text("x"))), Ended::Dropped);
    assert_eq!(node.get().as_deref(), Some("dirty"));
}
