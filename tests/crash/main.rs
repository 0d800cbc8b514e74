//! Kills proxies, Postgres and Redis primaries under load, and then reads what is left: `make crash`.
//!
//! Each round is made from a seed: `CRASH_SEED` (random, and printed, when it is not set) and the round's number.
//! `ROUNDS` sets how many there are (the short form, in the everyday suite, has four).
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod arena;
mod broken;
mod check;
mod disk;
mod letters;
mod load;
mod model;
mod points;
mod poison;
mod pressure;
#[path = "../support/mod.rs"]
mod support;
mod through;
mod twins;
mod upgrade;
mod verbs;
mod victim;

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use arena::{Arena, Blow};

/// Writers, shared by the proxies.
const WRITERS: usize = 64;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `CRASH_SEED`, or any.
fn seed() -> u64 {
    let seed = number("CRASH_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("CRASH_SEED={seed}");
    seed
}

fn random(seed: u64, round: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(round))
}

/// Runs so many rounds, each of which must leave nothing to complain about.
fn run(mut arena: Arena, rounds: u64, mut blows: impl FnMut(&mut StdRng, u64) -> Vec<Blow>) {
    let (seed, started) = (seed(), Instant::now());
    let mut figures = String::new();
    for round in 0..rounds {
        let mut random = random(seed, round);
        let blows = blows(&mut random, round);
        let found = arena.round(&mut random, &blows);
        assert!(found.is_clean(), "CRASH_SEED={seed}, round {round}, {blows:?}: {found:?}\n{}", arena.logs());
        assert!(found.acknowledged > 100 * (round + 1).min(5), "hardly anything was acknowledged: {found:?}");
        // What is computed through the other proxy from a row whose newer value Redis has lost is computed from the older one.
        // The one that took the writes knows their values, until they are flushed; a failover may lose the entry after that.
        let fails_over = blows.iter().any(|blow| matches!(blow, Blow::Redis(_)));
        let evicts = blows.iter().any(|blow| matches!(blow, Blow::Evict));
        assert!(
            fails_over || found.miscounted_alone.is_empty() && (evicts || found.miscounted.is_empty()),
            "CRASH_SEED={seed}, round {round}, {blows:?}: {found:?}"
        );
        figures = found.figures();
    }
    println!("{rounds} rounds in {:.0?}: {figures}", started.elapsed());
    println!("{:?}", arena.tally);
}

#[test]
fn no_acknowledged_write_is_lost_doubled_or_overtaken() {
    let rounds = number("ROUNDS").unwrap_or(4);
    let points = points::all();
    run(Arena::private(WRITERS), rounds, |random, round| {
        let proxy = random.random_range(0..2);
        match round {
            // The short form shows each kind once, whatever the seed.
            0 => vec![Blow::Postgres, Blow::Proxy(proxy)],
            1 => vec![Blow::Adopt(proxy, None), fail_point(random, &points)],
            2 => vec![Blow::Evict, Blow::Redis(random.random_range(0..3)), Blow::Proxy(proxy)],
            _ => any(random, &points),
        }
    });
}

#[test]
fn nor_when_the_only_proxy_gets_company_or_loses_it() {
    let rounds = number("ROUNDS").map_or(2, |rounds| rounds.div_ceil(8));
    let points = points::all();
    run(Arena::shared(WRITERS, &[]), rounds, |random, round| {
        let leaves = Blow::Leave(random.random_range(0..2));
        match round {
            0 => vec![leaves],
            _ => [leaves].into_iter().chain(any(random, &points)).filter(kills_no_server).collect(),
        }
    });
}

/// Servers that are shared stay.
fn kills_no_server(blow: &Blow) -> bool {
    !matches!(blow, Blow::Postgres | Blow::Redis(_))
}

#[test]
fn the_same_holds_for_sqlite() {
    let rounds = number("ROUNDS").map_or(2, |rounds| rounds.div_ceil(4));
    let points = points::all();
    run(Arena::sqlite(WRITERS), rounds, |random, _| {
        let blows = any(random, &points).into_iter().chain([Blow::Proxy(random.random_range(0..2))]);
        blows.filter(kills_no_server).collect()
    });
}

fn fail_point(random: &mut StdRng, points: &[String]) -> Blow {
    let point = points[random.random_range(0..points.len())].clone();
    // At a start one comes by once.
    let most = if point.starts_with("start.") { 2 } else { 60 };
    Blow::FailPoint(random.random_range(0..2), point, random.random_range(1..most))
}

/// One to three blows; of servers, one of each kind at most.
fn any(random: &mut StdRng, points: &[String]) -> Vec<Blow> {
    let mut blows = Vec::new();
    for _ in 0..random.random_range(1..=3) {
        let proxy = random.random_range(0..2);
        let blow = match random.random_range(0..14) {
            0..4 => Blow::Proxy(proxy),
            12..14 => Blow::Leave(proxy),
            4..7 => fail_point(random, points),
            7 => Blow::Adopt(proxy, None),
            8 => Blow::Adopt(proxy, Some(points[random.random_range(0..points.len())].clone())),
            9 => Blow::Evict,
            10 => Blow::Postgres,
            _ => Blow::Redis(random.random_range(0..3)),
        };
        let same = |other: &Blow| std::mem::discriminant(other) == std::mem::discriminant(&blow);
        if !(matches!(blow, Blow::Postgres | Blow::Redis(_)) && blows.iter().any(same)) {
            blows.push(blow);
        }
    }
    blows
}
