//! The example systems as their users run them: their configuration, migrations and environment, and the lines of their
//! own READMEs, on fresh servers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

#[path = "../support/mod.rs"]
mod support;

mod bed;
mod dsproxy;
mod fuzzed;
mod hotcold_users;
mod products;
mod relay_posts;
mod social_feed;
mod variables;
