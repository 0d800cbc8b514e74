//! Rows behind keys, end to end: the real program between real clients, a real cluster and a real Postgres.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod bed;
mod cache_only;
mod computing;
mod crash;
mod eviction;
mod explain;
mod flush;
mod formats;
mod formats_sqlite;
mod hashes;
mod hidden;
mod lives;
mod lost_base;
mod modify;
mod order;
mod outage;
mod poison;
mod proxies;
mod proxy;
mod races;
mod reading;
mod reads;
mod refusals;
mod rest;
mod scrape;
mod several;
#[path = "../support/mod.rs"]
mod support;
mod through;
mod transactions;
mod versions;
mod waiting;
mod warm;
mod watches;
mod writeback;
mod writes;
