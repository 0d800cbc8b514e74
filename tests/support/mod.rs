//! What integration tests stand on: real servers, a running proxy, a small client.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod plain;
mod proxy;
mod resp;
mod stack;

use std::time::{Duration, Instant};

pub use plain::PlainRedis;
pub use proxy::{Http, Proxy};
pub use resp::{Lost, Resp, Value, parse};
pub use stack::{Database, PrivateStack, SharedStack, run_sql};

/// Looks at `condition` again and again; panics when it is not true within `deadline`.
#[track_caller]
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Like [`eventually`], for a condition that gives a value.
#[track_caller]
pub fn eventually_some<T>(deadline: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
