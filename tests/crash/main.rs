//! Kills proxies, Postgres and Redis primaries under load, and then reads what is left: `make crash`.
//!
//! Each round is made from a seed: `CRASH_SEED` (random, and printed, when it is not set) and the round's number.
//! `ROUNDS` sets how many there are (the short form, in the everyday suite, has three).
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod check;
mod load;
#[path = "../support/mod.rs"]
mod support;
mod verbs;
mod victim;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dsproxy::embedded::keeper::KeeperOptions;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use check::Totals;
use support::PrivateStack;
use victim::Victim;

/// Writers, shared by the proxies.
const WRITERS: usize = 64;
/// Places in the program at which it is told to die, see `failpoint.rs`.
const FAIL_POINTS: &[&str] = &[
    "write.before_journal",
    "journal.written",
    "journal.durable",
    "write.durable",
    "write.applied",
    "flush.begin",
    "flush.committed",
    "flush.told",
];

/// What is done to the system in a round.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// `kill -9` of a proxy.
    Proxy(usize),
    /// A proxy dies at a fail point, after passing it so many times.
    FailPoint(usize, &'static str, u32),
    /// `kill -9` of Postgres.
    Postgres,
    /// `kill -9` of a Redis primary; its replica takes over.
    Redis(usize),
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_acknowledged_write_is_lost_doubled_or_overtaken() {
    let rounds = number("ROUNDS").unwrap_or(3);
    let seed = number("CRASH_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("CRASH_SEED={seed} ROUNDS={rounds}");
    let options =
        KeeperOptions { durable: true, replicas: 1, node_timeout_ms: 1000, ..KeeperOptions::default() };
    let stack = PrivateStack::start(options);
    let db = stack.fresh_database();
    db.execute(check::TABLES);
    let nodes = stack.redis_nodes();
    let mut proxies = [Victim::new(&nodes, db.url()), Victim::new(&nodes, db.url())];
    proxies.iter_mut().for_each(|proxy| proxy.start(None));
    let mut load = load::Load::new(WRITERS, proxies.each_ref().map(|proxy| proxy.port()));
    let (mut totals, started) = (Totals::default(), Instant::now());
    for round in 0..rounds {
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let blows = blows(&mut random, round);
        let stop = Arc::new(AtomicBool::new(false));
        let running = load.run(&mut random, &stop);
        for blow in blows {
            std::thread::sleep(Duration::from_millis(random.random_range(20..300)));
            strike(blow, &stack, &mut proxies);
        }
        std::thread::sleep(Duration::from_millis(random.random_range(50..300)));
        stop.store(true, Ordering::Relaxed);
        load.join(running);
        proxies.iter_mut().for_each(Victim::ensure);
        proxies.iter().for_each(|proxy| proxy.wait_flushed(Duration::from_secs(60)));
        let found = check::check(&db, &load, &proxies);
        totals.add(&found);
        assert!(found.is_clean(), "CRASH_SEED={seed}, round {round}: {found:?}\n{}", logs(&proxies));
    }
    println!("{rounds} rounds in {:.0?}: {totals:?}", started.elapsed());
    assert!(totals.acknowledged > 100, "hardly anything was acknowledged: {totals:?}");
}

fn blows(random: &mut StdRng, round: u64) -> Vec<Blow> {
    let mut blows = Vec::new();
    for _ in 0..random.random_range(1..=2) {
        let proxy = random.random_range(0..2);
        blows.push(match random.random_range(0..10) {
            0..4 => Blow::Proxy(proxy),
            4..8 => Blow::FailPoint(
                proxy,
                FAIL_POINTS[random.random_range(0..FAIL_POINTS.len())],
                random.random_range(1..60),
            ),
            8 => Blow::Postgres,
            // A failover takes seconds: not in each round, and not in the short form's first ones.
            _ if round > 2 => Blow::Redis(random.random_range(0..3)),
            _ => Blow::Proxy(proxy),
        });
    }
    blows
}

fn strike(blow: Blow, stack: &PrivateStack, proxies: &mut [Victim; 2]) {
    println!("  {blow:?}");
    match blow {
        Blow::Proxy(which) => {
            proxies[which].kill();
            proxies[which].start(None);
        }
        Blow::FailPoint(which, name, count) => {
            proxies[which].kill();
            proxies[which].start(Some(&format!("{name}:{count}")));
            // It may not come by often enough; then it is killed in the end as any other.
            proxies[which].wait_death(Duration::from_millis(1500));
            proxies[which].kill();
            proxies[which].start(None);
        }
        Blow::Postgres => {
            stack.kill("postgres");
            // How long the outage lasts; nothing is waited for.
            std::thread::sleep(Duration::from_millis(100));
            stack.start_server("postgres");
        }
        Blow::Redis(which) => {
            let name = format!("redis-{which}");
            stack.kill(&name);
            // Long enough for a replica to take over.
            std::thread::sleep(Duration::from_millis(2500));
            stack.start_server(&name);
        }
    }
}

fn logs(proxies: &[Victim; 2]) -> String {
    proxies.iter().map(Victim::log_tail).collect::<Vec<_>>().join("\n---\n")
}
