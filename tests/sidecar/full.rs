//! A node without memory: a script runs whole or not at all, and what may not fail leaves no older value.

use dsproxy::embedded::keeper::KeeperOptions;
use dsproxy::sidecar::{
    Change, Committed, Fault, Fill, Flushed, Invalidated, Leased, Token, Wanted, apply, begin_through, fill,
    lease, parse_applied, parse_begun, parse_filled, parse_leased,
};
use std::time::Duration;

use crate::node::{LONG, Node, text};
use crate::support::PrivateStack;

fn limit(node: &mut Node, bytes: &str) {
    assert_eq!(node.plain().cmd(&["CONFIG", "SET", "maxmemory", bytes]).text(), "OK");
}

fn is_oom<T>(result: &Result<T, Fault>) -> bool {
    matches!(result, Err(Fault::Error(text)) if text.contains("OOM"))
}

#[test]
fn a_full_node_runs_a_script_whole_or_not_at_all() {
    let stack = PrivateStack::start(KeeperOptions { with_postgres: false, ..Default::default() });
    let mut node = Node::at(stack.redis_nodes()[0].clone(), "k".into());
    node.apply(1, Change::Put(&text("one")));
    limit(&mut node, "1");
    for change in [Change::Put(&text("two")), Change::Delete, Change::Append] {
        let request = apply(node.key(), 2, change, None);
        assert!(is_oom(&parse_applied(&node.run(request))), "{change:?}");
        assert_eq!((node.get().as_deref(), node.field("v").as_deref()), (Some("one"), Some("1")));
    }
    // The write is in the database all the same: its flush may not leave the older value.
    assert_eq!(node.flushed(2, Committed::Row(&text("two"))), Flushed::Repaired);
    assert_ne!(node.get().as_deref(), Some("one"));

    node.on_key("DEL", &[]);
    let token = Token::random();
    let request = lease(node.key(), token, LONG, Wanted::Any);
    assert!(is_oom(&parse_leased(&node.run(request))));
    let request = begin_through(node.key(), token, LONG);
    assert!(is_oom(&parse_begun(&node.run(request))), "the write must not go on");
    limit(&mut node, "0");
    assert_eq!(node.lease(token), Leased::Granted(Duration::ZERO));
    limit(&mut node, "1");
    let row = text("row");
    let with =
        Fill { value: Some(&row), ttl: None, negative: LONG, generation: None, replace: false, lags: false };
    let request = fill(node.key(), token, &with);
    assert!(is_oom(&parse_filled(&node.run(request))));
    assert_eq!(node.invalidate(LONG), Invalidated { dropped: false, dirty: false }, "this always works");
    limit(&mut node, "0");
    assert_eq!(node.get(), None);
}
