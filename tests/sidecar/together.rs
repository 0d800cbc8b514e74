//! Many keys in one request: each gets what its own request would have given it, and those of other nodes an error.

use bytes::Bytes;
use dsproxy::embedded::keeper::KeeperOptions;
use dsproxy::sidecar::{
    Committed, Fault, Fill, Filled, Flushed, Leased, Token, Wanted, fill, flushed, invalidate, lease,
    parse_filled, parse_flushed, parse_invalidated, parse_leased, together,
};
use dsproxy::slot::slot;
use std::time::Duration;

use crate::node::{LONG, Node, hash, text};
use crate::support::{PrivateStack, Resp, SharedStack, Value};

/// Keys of a node, in several slots, and one of another node.
struct Some {
    node: Node,
    keys: Vec<String>,
    foreign: String,
    _stack: SharedStack,
}

fn some() -> Some {
    let stack = SharedStack::get();
    let addr = stack.redis_nodes()[0].clone();
    let mut plain = Resp::connect(&*addr);
    let names = (0..1000).map(|n| format!("{}{n}", stack.key_prefix()));
    let (here, there): (Vec<_>, Vec<_>) =
        names.partition(|name| !matches!(plain.cmd(&["GET", name]), Value::Error(_)));
    let node = Node::at(addr, here[0].clone());
    Some { node, keys: here[..5].to_vec(), foreign: there[0].clone(), _stack: stack }
}

impl Some {
    /// The replies to these requests, sent as one each for the kinds of which there are several.
    #[track_caller]
    fn run(&mut self, requests: &[Vec<u8>], kinds: usize) -> Vec<Bytes> {
        let joined = together(requests, |_| Some(0));
        assert_eq!(joined.len(), kinds);
        let mut replies = vec![Bytes::new(); requests.len()];
        for kind in joined {
            let reply = self.node.run(kind.request());
            let each = kind.replies(&Bytes::from(reply)).expect("a reply for each");
            kind.members.iter().zip(each).for_each(|(at, reply)| replies[*at] = reply);
        }
        for (reply, request) in replies.iter_mut().zip(requests).filter(|(reply, _)| reply.is_empty()) {
            *reply = self.node.run(request.clone()).into();
        }
        replies
    }

    fn each(&self, request: impl Fn(&[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
        self.keys.iter().map(|key| request(key.as_bytes())).collect()
    }

    fn get(&mut self, at: usize) -> Option<String> {
        let key = self.keys[at].clone();
        match self.node.plain().cmd(&["GET", &key]) {
            Value::Bulk(value) => Some(String::from_utf8(value).unwrap()),
            _ => None,
        }
    }
}

#[test]
fn many_keys_are_leased_filled_and_invalidated_by_one_request() {
    let mut some = some();
    assert!(some.keys.iter().any(|key| slot(key.as_bytes()) != slot(some.keys[0].as_bytes())));
    let (token, row) = (Token::random(), text("row"));
    let present = some.keys[3].clone();
    some.node.plain().cmd(&["SET", &present, "there"]);
    let replies = some.run(&some.each(|key| lease(key, token, LONG, Wanted::Any)), 1);
    for (at, reply) in replies.iter().enumerate() {
        let expected = if at == 3 { Leased::Present(text("there")) } else { Leased::Granted(Duration::ZERO) };
        assert_eq!(parse_leased(reply).unwrap().0, expected);
    }
    let with = |value| Fill {
        value,
        ttl: Some(LONG),
        negative: LONG,
        generation: None,
        replace: false,
        lags: false,
    };
    let mut requests = some.each(|key| fill(key, token, &with(Some(&row))));
    requests[1] = fill(some.keys[1].as_bytes(), token, &with(None));
    requests[2] = fill(some.keys[2].as_bytes(), Token::random(), &with(Some(&row)));
    let replies: Vec<_> = some.run(&requests, 1).iter().map(|reply| parse_filled(reply).unwrap().0).collect();
    let stored: Vec<bool> = replies.iter().map(|reply| *reply == Filled::Stored).collect();
    assert_eq!(stored, [true, true, false, false, true], "{replies:?}");
    assert_eq!(
        [0, 1, 2, 3].map(|at| some.get(at)),
        [Some("row"), None, None, Some("there")].map(|v| v.map(str::to_owned))
    );
    let replies = some.run(&some.each(|key| invalidate(key, Duration::ZERO)), 1);
    let dropped: Vec<bool> =
        replies.iter().map(|reply| parse_invalidated(reply).unwrap().0.dropped).collect();
    assert_eq!(dropped, [true, false, false, true, true]);
}

#[test]
fn rows_of_several_kinds_go_together_by_kind() {
    let mut some = some();
    let token = Token::random();
    some.run(&some.each(|key| lease(key, token, LONG, Wanted::Any)), 1);
    let values =
        [text("a"), hash(&[("f", "1")]), text("b"), hash(&[("f", "2")]), hash(&[("f", "1"), ("g", "2")])];
    let with = |value, generation| Fill {
        value: Some(value),
        ttl: None,
        negative: LONG,
        generation,
        replace: false,
        lags: false,
    };
    let keys = some.keys.clone();
    let requests: Vec<_> = keys
        .iter()
        .zip(&values)
        .map(|(key, value)| fill(key.as_bytes(), token, &with(value, None)))
        .collect();
    for reply in some.run(&requests, 2) {
        assert_eq!(parse_filled(&reply).unwrap().0, Filled::Stored);
    }
    for (key, value) in keys.iter().zip(values.clone()) {
        let reply = some.node.run(lease(key.as_bytes(), Token::random(), LONG, Wanted::Any));
        assert_eq!(parse_leased(&reply).unwrap().0, Leased::Present(value));
    }
    // Of several generations each key gets its own.
    let replies = some.run(&some.each(|key| lease(key, token, LONG, Wanted::Fresh)), 1);
    assert!(replies.iter().all(|reply| parse_leased(reply).unwrap().0 == Leased::Granted(Duration::ZERO)));
    let row = text("list");
    let generations = [&b"g1"[..], b"g2", b"g1", b"g2", b"g1"];
    let requests: Vec<_> = keys
        .iter()
        .zip(generations)
        .map(|(key, of)| fill(key.as_bytes(), token, &Fill { replace: true, ..with(&row, Some(of)) }))
        .collect();
    some.run(&requests, 2);
    let requests: Vec<_> = keys
        .iter()
        .zip(generations)
        .map(|(key, of)| lease(key.as_bytes(), Token::random(), LONG, Wanted::Of(of)))
        .collect();
    for reply in some.run(&requests, 2) {
        assert_eq!(parse_leased(&reply).unwrap().0, Leased::Present(row.clone()));
    }
}

#[test]
fn a_key_of_another_node_is_an_error_in_its_place() {
    let mut some = some();
    for (at, key) in some.keys.clone().iter().enumerate() {
        let request = dsproxy::sidecar::apply(
            key.as_bytes(),
            7 + at as u64,
            dsproxy::sidecar::Change::Put(&text("v")),
            None,
        );
        some.node.run(request);
    }
    let row = text("committed");
    let mut requests = some.each(|key| flushed(key, 9, Committed::Row(&row), Some(LONG)));
    requests.insert(2, flushed(some.foreign.as_bytes(), 9, Committed::Row(&row), Some(LONG)));
    let replies: Vec<_> = some.run(&requests, 1).iter().map(|reply| parse_flushed(reply)).collect();
    assert!(matches!(&replies[2], Err(Fault::Error(_))), "{replies:?}");
    let said: Vec<_> = replies.into_iter().filter_map(Result::ok).collect();
    assert_eq!(
        said,
        [Flushed::Repaired, Flushed::Repaired, Flushed::Cleared, Flushed::Newer(10), Flushed::Newer(11)]
    );
    assert_eq!([0, 2, 3].map(|at| some.get(at).unwrap()), ["committed", "committed", "v"]);
}

#[test]
fn a_full_node_refuses_each_of_many() {
    let stack = PrivateStack::start(KeeperOptions { with_postgres: false, ..Default::default() });
    let mut node = Node::at(stack.redis_nodes()[0].clone(), "k".into());
    assert_eq!(node.plain().cmd(&["CONFIG", "SET", "maxmemory", "1"]).text(), "OK");
    let requests: Vec<_> = ["{k}1", "{k}2"]
        .iter()
        .map(|key| lease(key.as_bytes(), Token::random(), LONG, Wanted::Any))
        .collect();
    let joined = together(&requests, |_| Some(0));
    let replies = joined[0].replies(&node.run(joined[0].request()).into()).expect("a reply for each");
    for reply in replies {
        assert!(matches!(parse_leased(&reply), Err(Fault::Error(text)) if text.contains("OOM")));
    }
}
