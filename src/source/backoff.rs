//! Waiting times that grow, and do not fall into step with those of others.
//!
//! Must not know: what is being retried.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Exponential waiting times with jitter.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    attempt: u32,
}

impl Backoff {
    /// From `first`, doubling up to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, attempt: 0 }
    }

    /// The next time to wait: between half of the step and all of it.
    pub fn next_wait(&mut self) -> Duration {
        let step = self.first.saturating_mul(1 << self.attempt.min(20)).min(self.most);
        self.attempt = self.attempt.saturating_add(1);
        spread(step.mul_f64(0.75), 1.0 / 3.0)
    }

    /// How many times were handed out.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }
}

/// `base` times a random factor between `1 - share` and `1 + share`.
pub fn spread(base: Duration, share: f64) -> Duration {
    // A hasher with random keys is the standard library's only source of randomness; jitter needs no better one.
    let random = RandomState::new().hash_one(0_u8) as f64 / u64::MAX as f64;
    base.mul_f64((1.0 + share * (random * 2.0 - 1.0)).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_vary() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let waits: Vec<_> = (0..30).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] >= Duration::from_millis(25) && waits[0] <= Duration::from_millis(50));
        assert!(
            waits[10..].iter().all(|w| *w >= Duration::from_millis(2500) && *w <= Duration::from_secs(5))
        );
        assert!(waits[10..].iter().any(|w| *w != waits[10]));
    }
}
