//! Writes applied to the cache, and what happens when they are in the database.

use std::time::Duration;

use dsproxy::sidecar::{
    Applied, Change, Committed, Filled, Flushed, Leased, Refusal, Token, Version, apply, flushed,
    parse_applied, parse_flushed,
};

use crate::node::{LONG, Node, hash, text};

impl Node {
    #[track_caller]
    pub fn apply(&mut self, version: Version, change: Change<'_>) -> Applied {
        let request = apply(self.key(), version, change, None);
        parse_applied(&self.run(request)).unwrap()
    }

    #[track_caller]
    pub fn flushed(&mut self, version: Version, row: Committed<'_>) -> Flushed {
        let request = flushed(self.key(), version, row, Some(LONG));
        parse_flushed(&self.run(request)).unwrap()
    }
}

#[test]
fn an_older_write_never_replaces_a_newer_one() {
    let mut node = Node::new();
    assert_eq!(node.apply(10, Change::Put(&text("ten"))), Applied::Applied);
    assert_eq!(node.apply(9, Change::Put(&text("nine"))), Applied::Behind(10));
    assert_eq!(node.apply(9, Change::Delete), Applied::Behind(10));
    assert_eq!(node.get().as_deref(), Some("ten"));
    assert_eq!(node.apply(10, Change::Put(&text("ten"))), Applied::Applied, "replayed after a crash");
    // Not as texts, not as numbers of Lua.
    assert_eq!(node.apply(u64::MAX - 1, Change::Put(&text("a"))), Applied::Applied);
    assert_eq!(node.apply(u64::MAX, Change::Put(&text("b"))), Applied::Applied);
    assert_eq!(node.apply(u64::MAX - 1, Change::Put(&text("a"))), Applied::Behind(u64::MAX));
    assert_eq!(node.get().as_deref(), Some("b"));
}

#[test]
fn a_deletion_is_known_until_it_is_flushed() {
    let mut node = Node::new();
    node.on_key("SET", &["old"]);
    assert_eq!(node.apply(1, Change::Delete), Applied::Applied);
    assert_eq!(node.get(), None);
    assert_eq!(node.lease(Token::random()), Leased::Deleted);
    assert_eq!(node.lives().1, -1);
    assert_eq!(node.flushed(1, Committed::AsApplied), Flushed::Cleared);
    assert_eq!(node.lease(Token::random()), Leased::Granted(Duration::ZERO));
}

#[test]
fn a_flush_clears_only_its_own_write() {
    let mut node = Node::new();
    node.apply(1, Change::Put(&text("one")));
    node.apply(2, Change::Put(&text("two")));
    assert_eq!(node.flushed(1, Committed::AsApplied), Flushed::Newer(2));
    assert_eq!(node.flushed(1, Committed::Row(&text("one"))), Flushed::Newer(2));
    assert_eq!(node.get().as_deref(), Some("two"));
    assert_eq!(node.lives(), (-1, -1), "still dirty");
    assert_eq!(node.flushed(2, Committed::AsApplied), Flushed::Cleared);
    let (entry, side) = node.lives();
    assert!(entry > 20_000 && side > 50_000, "{entry} {side}");
    assert_eq!(node.field("d"), None);
    assert_eq!(node.flushed(2, Committed::AsApplied), Flushed::Cleared, "said twice");
}

#[test]
fn a_flush_leaves_what_the_database_made_of_the_row() {
    let mut node = Node::new();
    node.apply(1, Change::Put(&text(r#"{"name":"a"}"#)));
    let row = text(r#"{"id":1,"name":"a","age":null}"#);
    assert_eq!(node.flushed(1, Committed::Row(&row)), Flushed::Cleared);
    assert_eq!(node.lease(Token::random()), Leased::Present(row));
    assert!(node.lives().0 > 0, "and it expires");
    node.apply(2, Change::Put(&hash(&[("a", "1"), ("b", "2")])));
    node.flushed(2, Committed::Row(&hash(&[("a", "1")])));
    assert_eq!(node.lease(Token::random()), Leased::Present(hash(&[("a", "1")])));
    node.apply(3, Change::Put(&text("x")));
    assert_eq!(node.flushed(3, Committed::Absent), Flushed::Cleared, "a row that its trigger refused");
    assert_eq!(node.get(), None);
}

#[test]
fn a_flush_repairs_what_the_cache_has_lost() {
    let mut node = Node::new();
    // An older write is there: a failover lost ours.
    node.apply(1, Change::Put(&text("one")));
    assert_eq!(node.flushed(2, Committed::Row(&text("two"))), Flushed::Repaired);
    assert_eq!(node.get().as_deref(), Some("two"));
    assert_eq!(node.flushed(1, Committed::AsApplied), Flushed::Newer(2), "the other's flush comes later");
    node.apply(3, Change::Put(&text("three")));
    assert_eq!(node.flushed(4, Committed::AsApplied), Flushed::Repaired);
    assert_eq!(node.get(), None, "what was applied is not known here");
    // Nothing is there, but an older row was filled, and another one is being loaded.
    for row in [Committed::AsApplied, Committed::Row(&text("six")), Committed::Absent] {
        node.on_side("DEL", &[]);
        node.on_key("SET", &["older row"]);
        assert_eq!(node.flushed(6, row), Flushed::Repaired);
        assert_eq!(node.get(), None);
    }
    node.on_side("DEL", &[]);
    let token = node.granted();
    assert_eq!(node.flushed(6, Committed::AsApplied), Flushed::Repaired);
    assert_eq!(node.fill(token, Some(&text("older row"))), Filled::Refused(Refusal::Lease));
}

#[test]
fn a_flush_that_is_told_once_more_leaves_what_was_heard_and_drops_what_was_not() {
    let mut node = Node::new();
    node.apply(1, Change::Put(&text("a part")));
    assert_eq!(node.flushed(1, Committed::Unknown), Flushed::Cleared);
    assert_eq!(node.get(), None, "the database may have more of the row, or have refused it");
    node.apply(2, Change::Put(&text("a part")));
    node.flushed(2, Committed::Row(&text("the row")));
    assert_eq!(node.flushed(2, Committed::Unknown), Flushed::Cleared);
    assert_eq!(node.get().as_deref(), Some("the row"));
    assert_eq!(node.flushed(1, Committed::Unknown), Flushed::Newer(2));
    assert_eq!(node.flushed(3, Committed::Unknown), Flushed::Repaired, "what was applied is lost");
    assert_eq!(node.get(), None);
}

#[test]
fn an_entry_whose_value_was_evicted_is_put_right_by_the_flush() {
    let mut node = Node::new();
    node.apply(1, Change::Put(&text("one")));
    node.on_key("DEL", &[]);
    assert_eq!(node.lease(Token::random()), Leased::Lost);
    assert_eq!(node.flushed(1, Committed::AsApplied), Flushed::Cleared);
    assert_eq!(node.lease(Token::random()), Leased::Granted(Duration::ZERO));
}

#[test]
fn an_appended_row_keeps_fills_out_until_it_is_flushed() {
    let mut node = Node::new();
    let early = node.granted();
    node.apply(1, Change::Append);
    assert_eq!(node.fill(early, Some(&text("older"))), Filled::Refused(Refusal::Lease));
    let token = node.granted();
    assert_eq!(node.fill(token, Some(&text("older"))), Filled::Refused(Refusal::Dirty));
    // Loaded before the commit, stored after it: refused as well.
    let token = node.granted();
    assert_eq!(node.flushed(1, Committed::AsApplied), Flushed::Cleared);
    assert_eq!(node.fill(token, Some(&text("older"))), Filled::Refused(Refusal::Lease));
    let token = node.granted();
    assert_eq!(node.fill(token, Some(&text("newest"))), Filled::Stored);
}

#[test]
fn a_write_that_is_in_the_database_already_is_not_dirty() {
    let mut node = Node::new();
    let request = apply(node.key(), 1, Change::Put(&text("one")), Some(Some(LONG)));
    assert_eq!(parse_applied(&node.run(request)).unwrap(), Applied::Applied);
    assert!(node.lives().0 > 0);
    assert_eq!(node.field("d"), None);
    let request = apply(node.key(), 2, Change::Put(&text("two")), Some(None));
    node.run(request);
    assert_eq!(node.lives().0, -1);
}

#[test]
fn a_value_of_another_type_is_replaced() {
    let mut node = Node::new();
    node.on_key("RPUSH", &["x"]);
    assert_eq!(node.apply(1, Change::Put(&hash(&[("a", "1")]))), Applied::Applied);
    assert_eq!(node.on_key("HGET", &["a"]).text(), "1");
    assert_eq!(node.apply(2, Change::Put(&text("t"))), Applied::Applied);
    assert_eq!(node.get().as_deref(), Some("t"));
    assert_eq!(node.apply(3, Change::Put(&hash(&[]))), Applied::Applied, "no fields: no row");
    assert_eq!(node.lease(Token::random()), Leased::Deleted);
}
