//! The routes of the configuration over real servers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

#[path = "../support/mod.rs"]
mod support;

mod mapped;
mod statements;
mod tokens;
