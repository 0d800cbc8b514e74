//! Commits that the cache was told of a moment ago.
//!
//! Must not know: locks, which node has a key.
//!
//! A node that dies right after it was told takes that with it, and the replica that takes over still shows what was there
//! before. So what was told lately is kept for a while, within bounds, and told again where slots have another owner.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::entry::Committed;
use super::overlay::Pending;

/// A failover that takes longer is not covered.
pub const LATELY: Duration = Duration::from_secs(60);
/// Map entry, key and bookkeeping of one commit, bytes (approximate).
const OVERHEAD: usize = 128;

/// What was told lately, of one lane.
#[derive(Default)]
pub(super) struct Recent {
    /// Oldest first. A key may be there more than once.
    told: VecDeque<(Instant, Committed)>,
    bytes: usize,
}

impl Recent {
    /// Keeps a commit; at most so many, and so many bytes, of which the oldest go.
    pub(super) fn keep(&mut self, committed: Committed, most: usize, most_bytes: usize) {
        self.bytes += size(&committed);
        self.told.push_back((Instant::now(), committed));
        let over = |recent: &Self| recent.told.len() > most || recent.bytes > most_bytes;
        while over(self) || self.told.front().is_some_and(|(at, _)| at.elapsed() > LATELY) {
            let Some((_, oldest)) = self.told.pop_front() else { return };
            self.bytes -= size(&oldest);
        }
    }

    /// The commits of these keys, the newest one of a key last.
    pub(super) fn of(&self, meant: impl Fn(&[u8]) -> bool) -> Vec<Committed> {
        let lately = self.told.iter().filter(|(at, _)| at.elapsed() <= LATELY);
        lately.map(|(_, committed)| committed).filter(|it| meant(&it.key)).cloned().collect()
    }
}

fn size(committed: &Committed) -> usize {
    let value = match &committed.shown {
        Some(Pending::Value(value) | Pending::Newest(value, _)) => value.len(),
        _ => 0,
    };
    OVERHEAD + committed.key.len() + value
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn commit(key: &'static str, version: u64) -> Committed {
        let (key, shown) = (Bytes::from(key), Some(Pending::Value(Bytes::from_static(&[b'x'; 100]))));
        Committed { key, version, sequence: 0, shown, expires_at: None, rejected: false, held: None }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_they_are_too_large() {
        let mut recent = Recent::default();
        (1..=5).for_each(|version| {
            recent.keep(commit(if version % 2 == 0 { "a" } else { "b" }, version), 3, 1 << 20)
        });
        let versions =
            |key: &str| recent.of(|it| it == key.as_bytes()).iter().map(|it| it.version).collect::<Vec<_>>();
        assert_eq!((versions("a"), versions("b")), (vec![4], vec![3, 5]));
        let mut recent = Recent::default();
        (1..=5).for_each(|version| recent.keep(commit("a", version), 100, 600));
        assert_eq!(recent.of(|_| true).len(), 2);
        recent.keep(commit("a", 6), 0, 600);
        assert_eq!((recent.of(|_| true).len(), recent.bytes), (0, 0));
    }
}
