//! Leases, fills, invalidations, generations.

use std::time::Duration;

use dsproxy::sidecar::{
    Change, Fill, Filled, Invalidated, KEPT_MS, Leased, Refusal, Token, Value, Wanted, apply,
    current_generation, fill, generation_key, invalidate, lease, new_generation, parse_applied, parse_filled,
    parse_invalidated, parse_leased, release,
};

use crate::node::{LONG, Node, hash, text};
use crate::support::eventually;

const NEGATIVE: Duration = Duration::from_secs(5);

impl Node {
    #[track_caller]
    pub fn lease(&mut self, token: Token) -> Leased {
        let request = lease(self.key(), token, LONG, Wanted::Any);
        parse_leased(&self.run(request)).unwrap().0
    }

    #[track_caller]
    pub fn fill(&mut self, token: Token, value: Option<&Value>) -> Filled {
        self.fill_with(token, &Fill { value, ..plain() })
    }

    #[track_caller]
    pub fn fill_with(&mut self, token: Token, with: &Fill<'_>) -> Filled {
        let request = fill(self.key(), token, with);
        parse_filled(&self.run(request)).unwrap().0
    }

    #[track_caller]
    pub fn invalidate(&mut self, tombstone: Duration) -> Invalidated {
        let request = invalidate(self.key(), tombstone);
        parse_invalidated(&self.run(request)).unwrap().0
    }

    /// A token that may load now.
    #[track_caller]
    pub fn granted(&mut self) -> Token {
        let token = Token::random();
        assert_eq!(self.lease(token), Leased::Granted(Duration::ZERO));
        token
    }
}

fn plain() -> Fill<'static> {
    let ttl = Some(Duration::from_secs(100));
    Fill { value: None, ttl, negative: NEGATIVE, generation: None, replace: false, lags: false }
}

#[test]
fn one_reader_loads_and_the_others_wait() {
    let mut node = Node::new();
    let token = node.granted();
    let Leased::Wait(left) = node.lease(Token::random()) else { panic!("two leases") };
    assert!(left <= LONG && left > LONG / 2, "{left:?}");
    let (most, kept) = (KEPT_MS as i64 + LONG.as_millis() as i64, node.lives().1);
    assert!(kept > most - 15_000 && kept <= most, "{kept}: what nobody gives back goes by itself");
    assert_eq!(node.lease(token), Leased::Granted(Duration::ZERO), "asked again, as after TRYAGAIN");
    assert_eq!(node.fill(token, Some(&text("row"))), Filled::Stored);
    assert_eq!(node.get().as_deref(), Some("row"));
    assert_eq!(node.lease(Token::random()), Leased::Present(text("row")));
    let (entry, side) = node.lives();
    assert!((90_000..=100_000).contains(&entry), "{entry}");
    assert_eq!(side, -2, "nothing is known of the key but its entry");
    assert_eq!(node.fill(token, Some(&text("again"))), Filled::Refused(Refusal::Lease));
    assert_eq!(node.get().as_deref(), Some("row"));
}

#[test]
fn a_lease_that_ran_out_goes_to_the_next_and_its_first_holder_is_too_late() {
    let mut node = Node::new();
    let slow = Token::random();
    let short = lease(node.key(), slow, Duration::from_millis(1), Wanted::Any);
    node.run(short);
    let mut next = Token::random();
    eventually(LONG, "the lease runs out", || {
        next = Token::random();
        node.lease(next) == Leased::Granted(Duration::ZERO)
    });
    assert_eq!(node.fill(slow, Some(&text("old"))), Filled::Refused(Refusal::Lease));
    assert_eq!(node.get(), None);
    assert_eq!(node.fill(next, Some(&text("new"))), Filled::Stored);
}

#[test]
fn that_there_is_no_row_is_known_for_a_while() {
    let mut node = Node::new();
    let token = node.granted();
    let absent = Fill { negative: Duration::from_millis(200), ..plain() };
    assert_eq!(node.fill_with(token, &absent), Filled::Stored);
    assert_eq!(node.lease(Token::random()), Leased::Negative);
    let mut next = Token::random();
    eventually(LONG, "the marker ends", || {
        next = Token::random();
        node.lease(next) == Leased::Granted(Duration::ZERO)
    });
    // Without markers every reader asks the database.
    assert_eq!(node.fill_with(next, &Fill { negative: Duration::ZERO, ..plain() }), Filled::Stored);
    let token = node.granted();
    assert_eq!(node.fill(token, Some(&text("row"))), Filled::Stored);
    assert_eq!(node.field("n"), None, "a row ends the marker");
}

#[test]
fn a_lease_is_given_back_without_a_load() {
    let mut node = Node::new();
    let token = node.granted();
    let request = release(node.key(), token);
    assert_eq!(parse_filled(&node.run(request)).unwrap().0, Filled::Refused(Refusal::Released));
    let other = node.granted();
    let request = release(node.key(), token);
    assert_eq!(parse_filled(&node.run(request)).unwrap().0, Filled::Refused(Refusal::Lease), "not another's");
    assert_eq!(node.fill(other, Some(&text("row"))), Filled::Stored);
}

#[test]
fn hashes_are_stored_and_read_whole_however_many_fields_they_have() {
    let mut node = Node::new();
    let token = node.granted();
    let names: Vec<String> = (0..5000).map(|n| format!("f{n}")).collect();
    let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    assert_eq!(node.fill(token, Some(&hash(&fields))), Filled::Stored);
    assert_eq!(node.on_key("HLEN", &[]).int(), 5000);
    assert!(node.lives().0 > 90_000, "it expires");
    let Leased::Present(Value::Hash(found)) = node.lease(Token::random()) else { panic!("no hash") };
    assert_eq!(found.len(), 5000);
    // A refresh replaces all of it; a hash without fields is no row.
    let token = Token::random();
    let request = lease(node.key(), token, LONG, Wanted::Fresh);
    assert_eq!(parse_leased(&node.run(request)).unwrap().0, Leased::Granted(Duration::ZERO));
    let two = hash(&[("a", "1"), ("b", "\r\n\0")]);
    assert_eq!(node.fill(token, Some(&two)), Filled::Refused(Refusal::Present));
    let request = lease(node.key(), token, LONG, Wanted::Fresh);
    node.run(request);
    assert_eq!(node.fill_with(token, &Fill { value: Some(&two), replace: true, ..plain() }), Filled::Stored);
    assert_eq!(node.lease(Token::random()), Leased::Present(two));
    node.invalidate(Duration::ZERO);
    let token = node.granted();
    assert_eq!(node.fill(token, Some(&hash(&[]))), Filled::Stored);
    assert_eq!(node.lease(Token::random()), Leased::Negative);
}

#[test]
fn a_row_that_was_loaded_before_an_invalidation_is_not_stored_after_it() {
    let mut node = Node::new();
    let token = node.granted();
    assert_eq!(node.invalidate(Duration::ZERO), Invalidated { dropped: false, dirty: false });
    assert_eq!(node.fill(token, Some(&text("old"))), Filled::Refused(Refusal::Lease));
    let token = node.granted();
    assert_eq!(node.fill(token, Some(&text("new"))), Filled::Stored);
    assert_eq!(node.invalidate(Duration::ZERO), Invalidated { dropped: true, dirty: false });
    assert_eq!(node.get(), None);
    // The same for a refresh, a negative marker, and a sidecar that was evicted.
    let token = node.granted();
    node.fill(token, None);
    node.invalidate(Duration::ZERO);
    let token = node.granted();
    node.on_side("DEL", &[]);
    assert_eq!(node.fill(token, Some(&text("old"))), Filled::Refused(Refusal::Lease));
    assert_eq!(node.get(), None);
}

#[test]
fn a_tombstone_keeps_out_what_comes_from_a_source_that_may_lag() {
    let mut node = Node::new();
    node.invalidate(LONG);
    let token = Token::random();
    let Leased::Granted(left) = node.lease(token) else { panic!("not granted") };
    assert!(left > LONG / 2, "the reader is told which source to ask");
    let lagging = Fill { value: Some(&text("old")), lags: true, ..plain() };
    assert_eq!(node.fill_with(token, &lagging), Filled::Refused(Refusal::Tombstone));
    let token = Token::random();
    node.lease(token);
    assert_eq!(node.fill(token, Some(&text("new"))), Filled::Stored);
    assert!(node.lives().1 > LONG.as_millis() as i64, "the sidecar outlives the tombstone");
}

#[test]
fn an_entry_that_something_else_has_stored_is_left_alone() {
    let mut node = Node::new();
    let token = node.granted();
    node.on_key("SET", &["theirs"]);
    assert_eq!(node.fill(token, Some(&text("ours"))), Filled::Refused(Refusal::Present));
    assert_eq!(node.get().as_deref(), Some("theirs"));
    node.on_key("DEL", &[]);
    node.on_key("RPUSH", &["theirs"]);
    assert_eq!(node.lease(Token::random()), Leased::Other("list".into()));
}

#[test]
fn the_sidecar_of_a_list_lives_as_long_as_its_generation_is_needed() {
    let mut node = Node::new();
    let token = node.granted();
    let ttl = Some(Duration::from_secs(1000));
    let list = Fill { value: Some(&text("[1]")), generation: Some(b"g1"), ttl, ..plain() };
    assert_eq!(node.fill_with(token, &list), Filled::Stored);
    assert_eq!(node.field("g").as_deref(), Some("g1"));
    assert!(node.lives().1 > 990_000);
    // A reader who knows of a newer generation loads anew, one of many; the same generation is a hit.
    let mut of = |token, generation: &[u8]| {
        let request = lease(node.key(), token, LONG, Wanted::Of(generation));
        parse_leased(&node.run(request)).unwrap().0
    };
    assert_eq!(of(Token::random(), b"g1"), Leased::Present(text("[1]")));
    let token = Token::random();
    assert_eq!(of(token, b"g2"), Leased::Granted(Duration::ZERO));
    assert!(matches!(of(Token::random(), b"g2"), Leased::Wait(_)));
    let newer = Fill { generation: Some(b"g2"), replace: true, ..list };
    assert_eq!(node.fill_with(token, &newer), Filled::Stored);
    let request = lease(node.key(), Token::random(), LONG, Wanted::Of(b"g2"));
    assert_eq!(parse_leased(&node.run(request)).unwrap().0, Leased::Present(text("[1]")));
    node.invalidate(Duration::ZERO);
    let token = node.granted();
    let list = Fill { ttl: None, ..list };
    assert_eq!(node.fill_with(token, &list), Filled::Stored);
    assert_eq!(node.lives(), (-1, -1));
}

#[test]
fn a_generation_is_never_used_twice() {
    let mut node = Node::new();
    // On this node: the test speaks to one only.
    let shard = |key: &[u8]| dsproxy::slot::slot(key) / 5462;
    let all = (0..100).map(|by: u32| generation_key(&node.key, by.to_string().as_bytes()));
    let key = all.into_iter().find(|key| shard(key) == shard(node.key())).unwrap();
    let first = Token::random();
    assert_eq!(node.run(current_generation(&key, first, LONG)), b"$-1\r\n", "it is ours");
    let found = node.run(current_generation(&key, Token::random(), LONG));
    assert_eq!(found, format!("$32\r\n{first}\r\n").as_bytes());
    node.run(new_generation(&key, LONG));
    let second = node.run(current_generation(&key, Token::random(), LONG));
    assert_ne!(second, found);
    node.raw(&[b"DEL", &key]);
    let third = Token::random();
    assert_eq!(node.run(current_generation(&key, third, LONG)), b"$-1\r\n");
}

#[test]
fn a_dirty_entry_survives_an_invalidation_and_refuses_fills() {
    let mut node = Node::new();
    let token = node.granted();
    let request = apply(node.key(), 5, Change::Put(&text("new")), None);
    parse_applied(&node.run(request)).unwrap();
    assert_eq!(node.fill(token, Some(&text("old"))), Filled::Refused(Refusal::Lease));
    assert_eq!(node.invalidate(LONG), Invalidated { dropped: false, dirty: true });
    assert_eq!(node.lease(Token::random()), Leased::Present(text("new")));
    assert_eq!(node.lives(), (-1, -1), "neither expires before the flush");
    node.on_key("DEL", &[]);
    assert_eq!(node.lease(Token::random()), Leased::Lost, "the database has an older row");
}
