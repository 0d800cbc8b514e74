//! Drives a core through thousands of random histories: pipelines cut at any byte, nodes that fail, slots that move.
//!
//! One history per seed. A failure names its seed; run it alone with `DSPROXY_SEED=<n>`, more of them with
//! `DSPROXY_SEEDS=<count>`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

#[path = "core_simulation/client.rs"]
mod client;
#[path = "core_simulation/cluster.rs"]
mod cluster;
#[path = "core_simulation/rng.rs"]
mod rng;
#[path = "core_simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Histories of one run.
const SEEDS: u64 = 2000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn replies_are_in_order_and_true_whatever_happens() {
    if let Some(seed) = number("DSPROXY_SEED") {
        return world::World::new(seed).live();
    }
    let (threads, count) = (2, number("DSPROXY_SEEDS").unwrap_or(SEEDS));
    let failed: Vec<u64> = std::thread::scope(|scope| {
        let run =
            |thread| (thread..count).step_by(threads).filter(|seed| !lives(*seed)).collect::<Vec<u64>>();
        let handles: Vec<_> = (0..threads as u64).map(|thread| scope.spawn(move || run(thread))).collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "histories {failed:?} failed; run one alone with DSPROXY_SEED={}", failed[0]);
}

fn lives(seed: u64) -> bool {
    catch_unwind(AssertUnwindSafe(|| world::World::new(seed).live())).is_ok()
}
