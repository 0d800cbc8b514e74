//! The hybrid logical clock that gives every write its version.
//!
//! Must not know: what a version is compared with.
//!
//! A version is a time in microseconds since 1970, made unique within the process. It never falls behind a version that
//! this process has seen, wherever that came from, so a write that begins after another was seen gets a greater one. A
//! machine's clock that is set back only makes versions advance by one per write until it has caught up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Versions above this are no times of ours (the year 2255): beyond it Redis' numbers are not exact any more.
pub const GREATEST: u64 = 1 << 53;

/// Gives versions. One per process.
#[derive(Debug, Default)]
pub struct Clock {
    last: AtomicU64,
}

impl Clock {
    /// The first of `count` consecutive versions that are greater than all before.
    pub fn take(&self, count: u64) -> u64 {
        self.take_at(count, now_us())
    }

    fn take_at(&self, count: u64, now: u64) -> u64 {
        let count = count.max(1);
        let first = |last: u64| now.max(last + 1);
        // The closure always gives a value, so both arms hold the version before.
        match self
            .last
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(first(last) + count - 1))
        {
            Ok(before) | Err(before) => first(before),
        }
    }

    /// Somebody has used this version: the next one is greater. A number that can be no version is not believed.
    pub fn observe(&self, version: u64) {
        if version < GREATEST {
            self.last.fetch_max(version, Ordering::AcqRel);
        }
    }

    /// The greatest version given or seen so far.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }
}

/// Microseconds since 1970.
fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn versions_rise_when_the_machine_s_clock_does_not() {
        let clock = Clock::default();
        assert_eq!(clock.take_at(1, 1000), 1000);
        assert_eq!(clock.take_at(3, 1000), 1001);
        assert_eq!(clock.take_at(1, 500), 1004, "set back");
        clock.observe(2000);
        assert_eq!(clock.take_at(1, 1500), 2001, "another proxy is ahead");
        clock.observe(1);
        clock.observe(u64::MAX);
        assert_eq!(clock.take_at(1, 1500), 2002);
        assert_eq!(clock.last(), 2002);
    }

    #[test]
    fn no_version_is_given_twice() {
        let clock = Arc::new(Clock::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let clock = clock.clone();
                std::thread::spawn(move || (0..10_000).map(|_| clock.take(1)).collect::<Vec<_>>())
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            let versions = thread.join().unwrap_or_default();
            assert!(versions.is_sorted());
            all.extend(versions);
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 40_000);
    }
}
