//! Values that are computed from the one that is there.

use dsproxy::sidecar::{
    Applied, Change, Committed, Fill, Flushed, Seen, Stamped, Token, Version, Wanted, apply_if, fill,
    invalidate, lease, parse_applied, parse_stamped, stamp,
};
use std::time::Duration;

use crate::node::{LONG, Node, hash, text};

impl Node {
    #[track_caller]
    fn look(&mut self) -> Stamped {
        let request = stamp(self.key(), Token::random());
        parse_stamped(&self.run(request)).unwrap()
    }

    #[track_caller]
    fn apply_if(&mut self, version: Version, change: Change<'_>, stamp: Token) -> Applied {
        let request = apply_if(self.key(), version, change, stamp);
        parse_applied(&self.run(request)).unwrap()
    }

    fn load(&mut self, value: Option<&str>) {
        let token = Token::random();
        self.run(lease(self.key(), token, LONG, Wanted::Fresh));
        let value = value.map(text);
        let row = Fill {
            value: value.as_ref(),
            ttl: Some(LONG),
            negative: LONG,
            generation: None,
            replace: true,
            lags: false,
        };
        self.run(fill(self.key(), token, &row));
    }
}

#[test]
fn a_look_tells_what_there_is() {
    let mut node = Node::new();
    assert_eq!(node.look().seen, Seen::Missing);
    node.load(None);
    assert_eq!(node.look().seen, Seen::Absent);
    node.apply(5, Change::Put(&text("five")));
    let looked = node.look();
    assert_eq!((looked.seen, looked.version, looked.dirty), (Seen::Value(text("five")), 5, true));
    node.flushed(5, Committed::AsApplied);
    assert!(!node.look().dirty);
    node.apply(6, Change::Put(&hash(&[("a", "1")])));
    assert_eq!(node.look().seen, Seen::Value(hash(&[("a", "1")])));
    node.on_key("DEL", &[]);
    assert_eq!(node.look().seen, Seen::Lost);
    node.apply(7, Change::Delete);
    assert_eq!(node.look().seen, Seen::Absent);
    node.on_key("LPUSH", &["x"]);
    node.flushed(8, Committed::AsApplied);
    node.on_key("LPUSH", &["x"]);
    assert_eq!(node.look().seen, Seen::Other);
}

#[test]
fn of_those_who_looked_together_one_wins() {
    let mut node = Node::new();
    node.apply(5, Change::Put(&text("five")));
    let (one, other) = (node.look(), node.look());
    assert_eq!(one.stamp, other.stamp);
    assert_eq!(node.apply_if(7, Change::Put(&text("one")), one.stamp), Applied::Applied);
    assert_eq!(node.apply_if(8, Change::Put(&text("other")), other.stamp), Applied::Behind(7));
    assert_eq!(node.apply_if(7, Change::Put(&text("one")), one.stamp), Applied::Applied, "sent again");
    assert_eq!(node.get().as_deref(), Some("one"));
    let again = node.look();
    assert_ne!(again.stamp, one.stamp);
    assert_eq!(node.apply_if(8, Change::Delete, again.stamp), Applied::Applied);
}

#[test]
fn whatever_changes_the_value_takes_the_stamp() {
    type Step = fn(&mut Node);
    let changes: [(&str, Step); 7] = [
        ("a write", |node| assert_eq!(node.apply(6, Change::Put(&text("six"))), Applied::Applied)),
        ("a deletion", |node| assert_eq!(node.apply(6, Change::Delete), Applied::Applied)),
        ("an invalidation", |node| drop(node.run(invalidate(node.key(), Duration::ZERO)))),
        ("a flush of something else", |node| {
            assert_eq!(node.flushed(6, Committed::Row(&text("row"))), Flushed::Repaired)
        }),
        ("a fill", |node| {
            node.flushed(5, Committed::AsApplied);
            node.load(Some("filled"));
        }),
        ("a fill of nothing", |node| {
            node.flushed(5, Committed::AsApplied);
            node.load(None);
        }),
        ("the loss of the sidecar", |node| {
            let sidecar = dsproxy::sidecar::sidecar_key(node.key());
            node.raw(&[b"DEL", &sidecar]);
        }),
    ];
    for (what, change) in changes {
        let mut node = Node::new();
        node.apply(5, Change::Put(&text("five")));
        let looked = node.look();
        change(&mut node);
        let applied = node.apply_if(9, Change::Put(&text("nine")), looked.stamp);
        assert!(matches!(applied, Applied::Behind(_)), "{what}: {applied:?}");
    }
    // What changes nothing leaves it.
    let mut node = Node::new();
    let missing = node.look();
    node.load(None);
    assert_eq!(node.apply_if(1, Change::Put(&text("one")), missing.stamp), Applied::Applied);
    let looked = node.look();
    node.flushed(1, Committed::AsApplied);
    assert_eq!(node.apply_if(2, Change::Put(&text("two")), looked.stamp), Applied::Applied);
}
