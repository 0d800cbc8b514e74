//! What this process knows of the age of entries, for mappings that refresh ahead or serve stale values.
//!
//! Must not know: how an entry is loaded.
//!
//! An entry lives in the cluster for its time to live and the time that it may be stale. Where the one ends and the other
//! begins is known here: for what this process has filled, and for what it has asked about once. Hits of other mappings do
//! not come here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;

/// Entries known at most, per mapping; beyond it all are learned anew.
const ENTRIES: usize = 100_000;
/// The part of the time to live that a load is taken to last at least.
const LEAST_PART: u32 = 50;
/// Pause after a refresh that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// The ages of one mapping's entries.
#[derive(Default)]
pub(super) struct Fresh {
    by_key: Mutex<FxHashMap<Bytes, Known>>,
    /// How long the last load took, in microseconds.
    load_us: AtomicU64,
    next_id: AtomicU64,
}

struct Known {
    /// From here on the value is stale; `None` while it is asked for.
    soft: Option<Instant>,
    /// No refresh before this.
    pause: Instant,
    /// The refresh under way.
    refresh: Option<u64>,
}

/// What a hit calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// To ask how old the entry is.
    Ask,
    /// To load it anew, under this number.
    Refresh(u64),
}

impl Fresh {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<Bytes, Known>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A load took so long.
    pub fn loaded_in(&self, took: Duration) {
        self.load_us.store(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// The entry was filled, or asked about: it is stale from `soft` on.
    pub fn learn(&self, key: &Bytes, soft: Instant, now: Instant) {
        let mut known = self.lock();
        if known.len() >= ENTRIES {
            known.clear();
        }
        known.insert(key.clone(), Known { soft: Some(soft), pause: now, refresh: None });
    }

    /// The key was written, or nothing is known of it any more; a refresh under way is not of use.
    pub fn forget(&self, key: &[u8]) {
        self.lock().remove(key);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The refresh `id` has failed: not again for a while.
    pub fn failed(&self, key: &[u8], id: u64, now: Instant) {
        if let Some(known) = self.lock().get_mut(key).filter(|known| known.refresh == Some(id)) {
            (known.refresh, known.pause) = (None, now + PAUSE);
        }
    }

    /// Whether the refresh `id` is still of use.
    pub fn is_current(&self, key: &[u8], id: u64) -> bool {
        self.lock().get(key).is_some_and(|known| known.refresh == Some(id))
    }

    /// An entry of this time to live was hit: whether it is stale, and what is to be done. `beta` as XFetch has it, `random`
    /// in (0, 1].
    pub fn hit(&self, key: &Bytes, ttl: Duration, beta: f64, random: f64, now: Instant) -> (bool, Due) {
        let mut all = self.lock();
        let Some(known) = all.get_mut(key) else {
            if all.len() < ENTRIES {
                all.insert(key.clone(), Known { soft: None, pause: now, refresh: None });
                return (false, Due::Ask);
            }
            return (false, Due::Nothing);
        };
        let Some(soft) = known.soft else { return (false, Due::Nothing) };
        let stale = now >= soft;
        // XFetch (Vattani et al., "Optimal Probabilistic Cache Stampede Prevention"): now - delta * beta * ln(rand) >= expiry.
        // A load of a millisecond would be begun a few milliseconds early, when hardly anybody comes by.
        let load = Duration::from_micros(self.load_us.load(Ordering::Relaxed)).max(ttl / LEAST_PART);
        let early = load.mul_f64((beta * -random.max(f64::MIN_POSITIVE).ln()).clamp(0.0, 1000.0));
        if !(stale || now + early >= soft) || known.refresh.is_some() || now < known.pause {
            return (stale, Due::Nothing);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        known.refresh = Some(id);
        (stale, Due::Refresh(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_refresh_at_a_time_and_not_before_it_is_due() {
        let (fresh, key, start) = (Fresh::default(), Bytes::from("k"), Instant::now());
        assert_eq!(fresh.hit(&key, SECOND, 0.0, 0.5, start), (false, Due::Ask));
        assert_eq!(fresh.hit(&key, SECOND, 0.0, 0.5, start), (false, Due::Nothing), "it is asked already");
        fresh.learn(&key, start + SECOND, start);
        assert_eq!(fresh.hit(&key, SECOND, 0.0, 0.5, start), (false, Due::Nothing));
        let (stale, due) = fresh.hit(&key, SECOND, 0.0, 0.5, start + SECOND);
        let Due::Refresh(id) = due else { panic!("{due:?}") };
        assert!(stale && fresh.is_current(&key, id));
        assert_eq!(fresh.hit(&key, SECOND, 0.0, 0.5, start + SECOND), (true, Due::Nothing));
        fresh.failed(&key, id, start + SECOND);
        assert_eq!(
            fresh.hit(&key, SECOND, 0.0, 0.5, start + SECOND),
            (true, Due::Nothing),
            "not at once again"
        );
        assert!(matches!(fresh.hit(&key, SECOND, 0.0, 0.5, start + SECOND + PAUSE), (true, Due::Refresh(_))));
        fresh.forget(&key);
        assert!(!fresh.is_current(&key, id + 1));
    }

    #[test]
    fn a_slow_load_is_begun_the_earlier() {
        let (fresh, key, start) = (Fresh::default(), Bytes::from("k"), Instant::now());
        fresh.learn(&key, start + SECOND, start);
        fresh.loaded_in(Duration::from_millis(1));
        assert_eq!(fresh.hit(&key, SECOND, 1.0, 0.01, start).1, Due::Nothing);
        fresh.loaded_in(SECOND);
        assert_eq!(fresh.hit(&key, SECOND, 0.0, 0.01, start).1, Due::Nothing, "never without beta");
        assert_eq!(fresh.hit(&key, SECOND, 1.0, 0.9, start).1, Due::Nothing, "by chance");
        assert!(matches!(fresh.hit(&key, SECOND, 1.0, 0.01, start).1, Due::Refresh(_)));
    }
}
