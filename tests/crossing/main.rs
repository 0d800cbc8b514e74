//! Thousands of clients with random commands whose replies say whose they are: every reply is held against the one
//! command that it can belong to.
//!
//! Every value names the client and the command that wrote it (`TOKEN`), and every client asks for keys of its own, so a
//! reply that reaches another client, or the right one out of turn, cannot pass. Clients go at any moment: politely,
//! half-closed, in the middle of a request, while they block. In the second test slots move and replicas take over; in the third
//! primaries are killed, so that writes are lost, and errors are allowed, but only as errors.
//!
//! `CROSSING_SEED`, `CROSSING_CLIENTS` and `CROSSING_SECONDS` repeat a run, or make it longer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod client;
mod model;
mod requests;
#[allow(dead_code, reason = "shared with the simulation")]
#[path = "../core_simulation/rng.rs"]
mod rng;
#[path = "../support/mod.rs"]
mod support;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::Client;
use rng::Rng;
use support::{Proxy, SharedStack};

/// What all clients of a run know.
struct Run {
    addr: (&'static str, u16),
    /// Begins all keys and channels.
    prefix: String,
    /// The cluster changes, so that errors which say so are part of the game.
    troubled: bool,
    /// And nodes die with what their replicas do not have yet.
    lossy: bool,
    until: Instant,
    next_client: AtomicU64,
    tally: Tally,
}

/// What was done.
#[derive(Default)]
struct Tally {
    connections: AtomicU64,
    replies: AtomicU64,
    messages: AtomicU64,
    excused: AtomicU64,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// Runs clients until the time is over; `meanwhile` runs beside them.
fn run(
    proxy: &Proxy,
    prefix: &str,
    (troubled, lossy): (bool, bool),
    clients: u64,
    meanwhile: impl FnOnce(&AtomicBool) + Send + 'static,
) {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = setting("CROSSING_SEED", now);
    let clients = setting("CROSSING_CLIENTS", clients);
    let until = Instant::now() + Duration::from_secs(setting("CROSSING_SECONDS", 6));
    eprintln!("CROSSING_SEED={seed} CROSSING_CLIENTS={clients}");
    let run = Arc::new(Run {
        addr: proxy.addr(),
        prefix: prefix.to_owned(),
        troubled,
        lossy,
        until,
        next_client: AtomicU64::new(0),
        tally: Tally::default(),
    });
    let over = Arc::new(AtomicBool::new(false));
    let (told, doing) = (over.clone(), run.clone());
    let beside = std::thread::spawn(move || meanwhile(&told));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async move {
        let mut all = tokio::task::JoinSet::new();
        for n in 0..clients {
            let run = doing.clone();
            all.spawn(async move {
                let mut rng = Rng::new(seed.wrapping_add(n));
                while Instant::now() < run.until {
                    Client::new(&run, &mut rng).live().await;
                }
            });
        }
        while let Some(ended) = all.join_next().await {
            ended.unwrap();
        }
    });
    over.store(true, Ordering::Relaxed);
    beside.join().unwrap();
    let Tally { connections, replies, messages, excused } = &run.tally;
    eprintln!(
        "{connections:?} connections, {replies:?} replies, {messages:?} messages, {excused:?} errors of trouble"
    );
    assert!(replies.load(Ordering::Relaxed) > clients * 10, "too little was done to mean anything");
    assert!(messages.load(Ordering::Relaxed) > 0);
}

const LIMITS: &str = "[limits]\ndedicated_connections = 5000\n";

#[test]
fn no_reply_reaches_another_client_or_comes_out_of_turn() {
    let stack = SharedStack::get();
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, LIMITS);
    run(&proxy, stack.key_prefix(), (false, false), 2000, |_| {});
}

#[test]
fn nor_while_slots_move_and_replicas_take_over() {
    let stack = trouble::stack();
    let proxy = Proxy::for_nodes(&stack.redis_nodes(), None, LIMITS);
    let nodes = stack.redis_nodes();
    run(&proxy, "x", (true, false), 1000, move |over| trouble::make(&nodes, over));
}

#[test]
fn nor_while_primaries_are_killed() {
    let stack = trouble::mortal();
    let proxy = Proxy::for_nodes(&stack.redis_nodes(), None, LIMITS);
    run(&proxy, "x", (true, true), 500, move |over| trouble::kill(&stack, over));
}
