//! The protocol that keeps cache and database in step: as an exhaustive model, and over real servers with several proxies.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints figures"
)]

#[path = "../support/mod.rs"]
mod support;

mod bed;
mod counts;
mod degrade;
mod failover;
mod history;
mod invalidation;
mod leases;
mod lists;
mod model;
mod refresh;
mod replica;
mod retelling;
