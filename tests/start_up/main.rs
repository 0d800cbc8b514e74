//! The program from the outside: what it says when it cannot start, what its verbs print, how `dev` begins and ends.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod dev;
mod migrate;
mod mistakes;
mod routes;
mod run;
#[path = "../support/mod.rs"]
mod support;
