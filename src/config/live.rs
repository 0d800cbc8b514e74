//! Settings that can change while the program runs (`CONFIG SET`).
//!
//! Must not know: who changes them.

use super::Config;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Stands for "never" in a number of microseconds.
pub const NEVER: u64 = u64::MAX;

/// Their values now. Read without locks; a change is seen within one tick of a worker.
#[derive(Debug)]
pub struct Live {
    /// `server.max_clients`.
    pub max_clients: Number,
    /// `server.client_idle_timeout` in microseconds, [`NEVER`] when there is none.
    pub idle_us: Number,
    /// `server.slowlog_threshold` in microseconds, [`NEVER`] when nothing is logged.
    pub slow_us: Number,
    /// `server.slowlog_entries`.
    pub slow_entries: Number,
}

/// One of them.
#[derive(Debug)]
pub struct Number(AtomicU64);

impl Number {
    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Changes it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Live {
    /// As the configuration has them.
    pub fn new(config: &Config) -> Self {
        let server = &config.server;
        let number = |value: u64| Number(AtomicU64::new(value));
        let us = |limit: Duration| if limit.is_zero() { NEVER } else { limit.as_micros() as u64 };
        Self {
            max_clients: number(server.max_clients as u64),
            idle_us: number(us(server.client_idle_timeout)),
            slow_us: number(us(server.slowlog_threshold)),
            slow_entries: number(server.slowlog_entries as u64),
        }
    }
}
