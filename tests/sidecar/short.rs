//! The short form of a lease: whatever a script does where a lease stands in fields, it does where this one stands.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dsproxy::sidecar::{
    Change, Claim, Committed, Fill, Filled, Leased, Token, Value, Wanted, apply, apply_after, apply_if,
    begin_through, claim, drop_entry, end_through, fill, flushed, invalidate, lease, live, look,
    parse_filled, parse_leased, parse_standing, probe, release, stamp, standing,
};

use crate::node::{LONG, Node, hash, text};
use crate::support::{Value as Reply, eventually};

/// What is done to a key on which `Token` holds a lease.
type Step = (&'static str, Box<dyn Fn(&[u8], Token) -> Vec<u8>>);

fn step(name: &'static str, request: impl Fn(&[u8], Token) -> Vec<u8> + 'static) -> Step {
    (name, Box::new(request))
}

fn row(value: &Value) -> Fill<'_> {
    Fill {
        value: Some(value),
        ttl: Some(LONG),
        negative: LONG,
        generation: None,
        replace: false,
        lags: false,
    }
}

fn steps() -> Vec<Step> {
    let (one, two) = (text("one"), hash(&[("a", "1")]));
    let other = Token::random();
    let mut steps = vec![
        step("another reader", move |key, _| lease(key, other, LONG, Wanted::Any)),
        step("another that refreshes", move |key, _| lease(key, other, LONG, Wanted::Fresh)),
        step("another of a generation", move |key, _| lease(key, other, LONG, Wanted::Of(b"g1"))),
        step("its holder again", |key, token| lease(key, token, LONG, Wanted::Any)),
        step("release", release),
        step("another's release", move |key, _| release(key, other)),
        step("a fill without a row", |key, token| fill(key, token, &Fill { value: None, ..row(&text("")) })),
        step("nothing is kept", |key, token| {
            fill(key, token, &Fill { value: None, negative: Duration::ZERO, ..row(&text("")) })
        }),
        step("deletion", |key, _| apply(key, 7, Change::Delete, None)),
        step("append", |key, _| apply(key, 7, Change::Append, None)),
        step("nothing newer, please", |key, _| apply_after(key, 7, Change::Delete, None, Some(3))),
        step("under a stamp", move |key, _| apply_if(key, 7, Change::Delete, other)),
        step("flushed", |key, _| flushed(key, 7, Committed::AsApplied, Some(LONG))),
        step("flushed, gone", |key, _| flushed(key, 7, Committed::Absent, Some(LONG))),
        step("begins", move |key, _| begin_through(key, other, LONG)),
        step("invalidation", |key, _| invalidate(key, Duration::ZERO)),
        step("tombstone", |key, _| invalidate(key, LONG)),
        step("DEL", |key, _| drop_entry(key)),
        step("look", |key, _| look(key)),
        step("stamp", move |key, _| stamp(key, other)),
        step("live", move |key, _| live(key, other, 0)),
        step("probe", |key, _| probe(key)),
    ];
    for value in [one, two] {
        let (a, b, c, d, e, f) =
            (value.clone(), value.clone(), value.clone(), value.clone(), value.clone(), value.clone());
        steps.push(step("fill", move |key, token| fill(key, token, &row(&a))));
        steps.push(step("another's fill", move |key, _| fill(key, other, &row(&b))));
        steps.push(step("refresh", move |key, token| fill(key, token, &Fill { replace: true, ..row(&c) })));
        steps.push(step("list", move |key, token| {
            fill(key, token, &Fill { generation: Some(b"g"), ttl: None, ..row(&d) })
        }));
        steps.push(step("write", move |key, _| apply(key, 7, Change::Put(&e), None)));
        steps.push(step("flushed as", move |key, _| flushed(key, 7, Committed::Row(&f), Some(LONG))));
        steps
            .push(step("ends", move |key, _| end_through(key, other, 7, Committed::Row(&value), Some(LONG))));
    }
    for unknown in [Committed::Nothing, Committed::Unknown, Committed::Absent] {
        steps.push(step("ends", move |key, _| end_through(key, other, 7, unknown, Some(LONG))));
    }
    steps.push(step("claim", move |key, _| {
        let claim_of = |key: Bytes| Claim { key, version: 7, stamp: other, text: "v".into() };
        let second = Bytes::from([b"{", key, b"}2"].concat());
        claim(&[claim_of(second), claim_of(Bytes::copy_from_slice(key))], &[])
    }));
    steps
}

impl Node {
    /// Its lease in fields, as one that was given while something else was known.
    fn in_fields(&mut self, token: Token) {
        let now = self.plain().cmd(&["TIME"]).items()[0].text().parse::<u64>().unwrap() * 1000;
        let ends = (now + LONG.as_millis() as u64).to_string();
        self.on_side("DEL", &[]);
        self.on_side("HSET", &["l", &token.to_string(), "le", &ends]);
        self.on_side("PEXPIRE", &["90000"]);
    }

    /// Entry and sidecar, as far as two keys can have them in common. When it was filled is nobody's business.
    fn state(&mut self) -> String {
        let kind = self.on_key("TYPE", &[]);
        let value = match kind.text().as_str() {
            "hash" => self.on_key("HGETALL", &[]),
            _ => self.on_key("GET", &[]),
        };
        let (entry, side) = self.lives();
        let mut fields = BTreeMap::new();
        match self.on_side("HGETALL", &[]) {
            Reply::Error(_) => {
                fields.insert("l".to_owned(), self.on_side("GET", &[]).text());
                fields.insert("le".to_owned(), String::new());
            }
            found => {
                for pair in found.items().chunks(2) {
                    let (name, value) = (pair[0].text(), pair[1].text());
                    let is_own = ["le", "we", "t", "n", "c"].contains(&&*name);
                    fields.insert(name, if is_own { String::new() } else { value });
                }
            }
        }
        fields.remove("f");
        let side = if fields.is_empty() { 0 } else { (side + 5000) / 10_000 };
        format!("{kind:?} {value:?} {} {fields:?} {side}", (entry + 5000) / 10_000)
    }
}

/// A reply without the time that it names.
fn said(reply: &[u8]) -> String {
    match parse_leased(reply) {
        // What is most frequent has a short form, too.
        Ok((Leased::Granted(Duration::ZERO), 0)) => "done".into(),
        _ if parse_filled(reply) == Ok((Filled::Stored, 0)) => "done".into(),
        Ok((Leased::Wait(_), version)) => format!("wait {version}"),
        Ok((Leased::Granted(tombstone), version)) => format!("granted {} {version}", tombstone.is_zero()),
        _ => String::from_utf8_lossy(reply).into_owned(),
    }
}

/// What becomes of a key with a lease, where `request` is run and entry and lease stand as `there` and `in_fields` say.
fn outcome(token: Token, request: &Step, there: bool, in_fields: bool) -> String {
    let mut node = Node::new();
    let reply = node.run(lease(node.key(), token, LONG, Wanted::Any));
    assert_eq!(parse_leased(&reply).unwrap(), (Leased::Granted(Duration::ZERO), 0));
    if in_fields {
        node.in_fields(token);
    }
    if there {
        node.on_key("SET", &["there"]);
    }
    let reply = node.run(request.1(node.key(), token));
    let mut seen = format!("{} / {}", said(&reply).replace(&node.key, "K"), node.state());
    let late = node.fill(token, Some(&text("late")));
    let reply = node.run(lease(node.key(), Token::random(), LONG, Wanted::Any));
    seen += &format!(" / {late:?} / {}", said(&reply));
    seen
}

#[test]
fn a_lease_is_a_lease_in_either_form() {
    let token = Token::random();
    for request in steps() {
        for there in [false, true] {
            let (short, long) =
                (outcome(token, &request, there, false), outcome(token, &request, there, true));
            assert_eq!(short, long, "{}, entry there: {there}", request.0);
            assert!(!short.contains("WRONGTYPE"), "{}: {short}", request.0);
        }
    }
}

#[test]
fn it_stands_beside_nothing_else() {
    let mut node = Node::new();
    let is_short = |node: &mut Node| matches!(node.on_side("HGETALL", &[]), Reply::Error(_));
    node.granted();
    assert!(is_short(&mut node));
    let reply = node.run(standing(node.key()));
    assert_eq!(parse_standing(&reply), Ok((0, false)), "nothing is known of it");
    node.invalidate(LONG);
    node.lease(Token::random());
    assert!(!is_short(&mut node), "the tombstone stays");
    node.on_side("DEL", &[]);
    node.apply(7, Change::Put(&text("v")));
    node.flushed(7, Committed::AsApplied);
    node.on_key("DEL", &[]);
    let token = node.granted();
    assert_eq!(node.field("v").as_deref(), Some("7"), "and so does a version");
    node.fill(token, Some(&text("row")));
    assert_eq!(node.field("v").as_deref(), Some("7"));
}

#[test]
fn one_that_ran_out_is_taken_over_as_it_is() {
    let mut node = Node::new();
    let slow = Token::random();
    node.run(lease(node.key(), slow, Duration::from_millis(1), Wanted::Any));
    let next = Token::random();
    eventually(LONG, "the lease runs out", || node.lease(next) == Leased::Granted(Duration::ZERO));
    assert_eq!(node.on_side("GET", &[]).text(), next.to_string());
    assert!(node.lives().1 > 85_000);
    // Its holder is late, but nobody else has come: what it has loaded counts for a minute.
    let mut node = Node::new();
    node.run(lease(node.key(), slow, Duration::from_millis(1), Wanted::Any));
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(node.fill(slow, Some(&text("row"))), Filled::Stored);
}
