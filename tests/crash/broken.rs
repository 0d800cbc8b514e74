//! Shows that the crash tests notice: with one safeguard left out they complain within a few rounds.

use dsproxy::failpoint::Safeguard;

use crate::arena::{Arena, Blow, evict};
use crate::check::{Found, Store};
use crate::support::{Resp, SharedStack, Value};
use crate::victim::{Setup, Victim};

/// Within so many rounds; the first one is enough nearly always, but not on a machine that has no time for 64 writers.
const ROUNDS: u64 = 20;

/// Runs rounds with `safeguard` left out until `complaint` sees something.
fn notices(safeguard: Safeguard, blow: Option<Blow>, complaint: impl Fn(&Found) -> usize) {
    let (_, name) = Safeguard::ALL.into_iter().find(|(known, _)| *known == safeguard).unwrap();
    let mut arena = Arena::shared(crate::WRITERS, &[("DSPROXY_LEAVE_OUT", name)]);
    let seed = crate::seed();
    for round in 0..ROUNDS {
        let found = arena.round(&mut crate::random(seed, round), blow.as_slice());
        if complaint(&found) > 0 {
            println!("without {name}, round {round}: {}", found.figures());
            return;
        }
    }
    panic!("CRASH_SEED={seed}: without {name} nobody has noticed anything in {ROUNDS} rounds");
}

#[test]
fn without_the_sync_acknowledged_writes_are_lost() {
    notices(Safeguard::Sync, Some(Blow::Proxy(0)), |found| found.lost.len());
}

#[test]
fn without_the_replay_acknowledged_writes_are_lost() {
    notices(Safeguard::Replay, Some(Blow::Proxy(0)), |found| found.lost.len());
}

#[test]
fn without_the_version_guard_an_older_write_comes_last() {
    notices(Safeguard::VersionGuard, None, |found| found.inversions.len());
}

#[test]
fn where_a_proxy_believes_to_be_alone_an_older_write_comes_last() {
    notices(Safeguard::Company, None, |found| found.inversions.len());
}

#[test]
fn without_one_transaction_rows_are_appended_twice() {
    let torn = Blow::FailPoint(0, "flush.torn".into(), 2);
    notices(Safeguard::OneTransaction, Some(torn), |found| found.doubled.len());
}

/// How many of twenty acknowledged writes a reader does not see when Redis has lost them before they were flushed.
fn unseen(env: &[(&str, &str)]) -> usize {
    let stack = SharedStack::get();
    let store = Store::postgres(stack.fresh_database());
    let setup =
        Setup::new(stack.redis_nodes(), &store.url()).prefix(stack.key_prefix()).interval("1h").env(env);
    let mut proxy = Victim::new(setup);
    proxy.start(None);
    let mut client = Resp::connect(("127.0.0.1", proxy.port()));
    let keys: Vec<String> = (0..20).map(|n| format!("{}kv:{n}", stack.key_prefix())).collect();
    for key in &keys {
        assert_eq!(client.cmd(&["SET", key, r#"{"writer":1,"seq":7}"#]).text(), "OK");
    }
    evict(stack.redis_nodes(), &keys.iter().map(|key| key.clone().into_bytes()).collect::<Vec<_>>());
    let seen = |key: &&String| matches!(client.cmd(&["GET", key]), Value::Bulk(row) if row.ends_with(b"7}"));
    keys.len() - keys.iter().filter(seen).count()
}

#[test]
fn a_reader_sees_what_waits_though_redis_has_lost_it() {
    assert_eq!(unseen(&[]), 0);
    let (_, overlay) = Safeguard::ALL.into_iter().find(|(known, _)| *known == Safeguard::Overlay).unwrap();
    let without = unseen(&[("DSPROXY_LEAVE_OUT", overlay)]);
    assert!(without > 0, "nobody has noticed that the overlay is missing");
}

#[test]
fn every_safeguard_is_tried_without() {
    let tests = [include_str!("broken.rs"), include_str!("twins.rs")].concat();
    for (safeguard, _) in Safeguard::ALL {
        assert!(tests.contains(&format!("Safeguard::{safeguard:?}")), "{safeguard:?} is never left out");
    }
}
