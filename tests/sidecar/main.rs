//! The scripts beside mapped keys, against a real node: each is attacked in the ways that would leave a wrong entry.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

#[path = "../support/mod.rs"]
mod support;

mod full;
mod node;
mod quick;
mod reads;
mod short;
mod stamp;
mod through;
mod together;
mod writes;
