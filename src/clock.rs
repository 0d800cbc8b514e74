//! The hybrid logical clock that gives every write its version.
//!
//! Must not know: what a version is compared with.
//!
//! A version is a time in microseconds since 1970, made unique within the process, times [`STEP`], plus the writer's number
//! (`dsproxy_writers` in the database gives each proxy one): so two proxies never give the same version, not even in the same
//! microsecond. It never falls behind a version that this process has seen, wherever that came from, so a write that begins
//! after another was seen gets a greater one. A machine's clock that is set back only makes versions advance by one step
//! per write until it has caught up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How many writers can be told apart.
pub const WRITERS: u16 = 1 << BITS;
/// Distance of two consecutive versions of one writer.
pub const STEP: u64 = 1 << BITS;
/// Versions from this on are no times of ours (the year 2255): a signed integer of 64 bits, as databases have it, ends there.
pub const GREATEST: u64 = 1 << 63;

/// Bits of a version that say whose it is. What is left is room for 2^53 microseconds.
const BITS: u32 = 10;

/// Gives versions. One per process.
#[derive(Debug, Default)]
pub struct Clock {
    /// The last microsecond that was given or seen.
    last: AtomicU64,
    number: AtomicU64,
}

impl Clock {
    /// From now on versions are those of this writer (below [`WRITERS`]). Said before the first one is taken.
    pub fn set_writer(&self, number: u16) {
        self.number.store(u64::from(number) % STEP, Ordering::Release);
    }

    /// The first of `count` versions that are greater than all before; the others follow at a distance of [`STEP`].
    pub fn take(&self, count: u64) -> u64 {
        self.take_at(count, now_us())
    }

    fn take_at(&self, count: u64, now: u64) -> u64 {
        let count = count.max(1);
        let first = |last: u64| now.max(last + 1);
        // The closure always gives a value, so both arms hold the microsecond before.
        let (Ok(before) | Err(before)) =
            self.last.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(first(last) + count - 1));
        first(before) * STEP + self.number.load(Ordering::Acquire)
    }

    /// Somebody has used this version: the next one is greater. A number that can be no version is not believed.
    pub fn observe(&self, version: u64) {
        if version < GREATEST {
            self.last.fetch_max(version / STEP, Ordering::AcqRel);
        }
    }

    /// No version given or seen so far is greater; all that follow are.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire) * STEP + (STEP - 1)
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
        assert_eq!(clock.take_at(1, 1000), 1000 * STEP);
        assert_eq!(clock.take_at(3, 1000), 1001 * STEP);
        assert_eq!(clock.take_at(1, 500), 1004 * STEP, "set back");
        clock.observe(2000 * STEP + 7);
        assert_eq!(clock.take_at(1, 1500), 2001 * STEP, "another proxy is ahead");
        clock.observe(1);
        clock.observe(u64::MAX);
        assert_eq!(clock.take_at(1, 1500), 2002 * STEP);
        assert!(clock.last() >= 2002 * STEP && clock.last() < 2003 * STEP);
    }

    #[test]
    fn two_writers_never_give_the_same_version() {
        let (one, other) = (Clock::default(), Clock::default());
        one.set_writer(0);
        other.set_writer(WRITERS - 1);
        let take = |clock: &Clock, count: u64| {
            let first = clock.take_at(count, 1000); // one microsecond, for all of them
            (0..count).map(move |at| first + at * STEP)
        };
        let mut all: Vec<u64> = [1, 5, 1, 3].iter().flat_map(|count| take(&one, *count)).collect();
        all.extend([2, 1, 7].iter().flat_map(|count| take(&other, *count)));
        // What one has seen of the other is older than what follows, whatever their numbers.
        let newest = all.iter().max().copied().unwrap_or_default();
        one.observe(newest);
        let next = one.take_at(1, 1000);
        assert!(next > newest);
        all.push(next);
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|version| *version < GREATEST && i64::try_from(*version).is_ok()));
        // Those of a journal from before versions had numbers are older than any of now.
        assert!(Clock::default().take(1) > now_us() * 2);
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
