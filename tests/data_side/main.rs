//! Tests of the data side (source, write-behind, read-through) against a real Postgres.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod cache;
mod pg;
mod source;
mod writeback;
