//! Tests of the data side (source, write-behind, read-through) against a real Postgres.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod alone;
mod cache;
mod cut;
mod faults;
mod held;
mod ledger;
mod pg;
mod redis;
mod source;
mod sqlite;
mod statement;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod told;
mod types;
mod version_column;
mod writeback;
mod writers;
