//! A counter that costs its one writer nothing.
//!
//! Must not know: what is counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer. A plain load and store: a read-modify-write instruction would cost more than the command
/// table look-up it counts.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds `n`; only ever from the owning thread.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` away; only ever from the owning thread.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    /// Sets the number; only ever from the owning thread.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number as last written.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
