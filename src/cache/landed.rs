//! What flights found a moment ago, for readers that were late.
//!
//! Must not know: flights, the database.
//!
//! A reader whose GET left before a fill, but whose nil comes back after the flight has landed, has missed both the
//! flight and the value. It asked before the answer was known, so that answer is as good for it as for those who were
//! on board, and costs no second query.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::sidecar::Value;

/// How long an answer is kept: longer than a GET takes to come back from a node that is well.
const KEPT: Duration = Duration::from_millis(250);
/// Answers kept at most.
const ENTRIES: usize = 4096;
/// Bytes of values kept at most.
const BYTES: usize = 8 << 20;

/// Answers of the last moment, by key.
#[derive(Default)]
pub(super) struct Landed {
    by_key: FxHashMap<Bytes, (Instant, Option<Value>)>,
    /// Keys in the order of their landing; one that landed again, or was forgotten, is here more often than there.
    order: VecDeque<(Instant, Bytes)>,
    bytes: usize,
}

impl Landed {
    /// Keeps what a flight found for `key`: its value, or that there is no row.
    pub fn keep(&mut self, key: Bytes, value: Option<Value>, now: Instant) {
        self.forget(&key);
        self.bytes += value.as_ref().map_or(0, Value::size);
        self.by_key.insert(key.clone(), (now, value));
        self.order.push_back((now, key));
        while let Some((at, _)) = self.order.front() {
            let full = self.order.len() > ENTRIES || self.bytes > BYTES;
            if !full && now.duration_since(*at) < KEPT {
                break;
            }
            let Some((at, key)) = self.order.pop_front() else { break };
            if self.by_key.get(&key).is_some_and(|(kept, _)| *kept == at) {
                self.forget(&key);
            }
        }
    }

    /// The answer for a reader that asked at `asked`, when a flight has landed since. `Some(None)`: there is no row.
    pub fn find(&self, key: &[u8], asked: Instant) -> Option<Option<Value>> {
        let (at, value) = self.by_key.get(key)?;
        (asked < *at && at.elapsed() < KEPT).then(|| value.clone())
    }

    /// The key was written: what was found before is no answer any more.
    pub fn forget(&mut self, key: &[u8]) {
        if let Some((_, value)) = self.by_key.remove(key) {
            self.bytes -= value.map_or(0, |value| value.size());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_asked_before_the_landing_are_answered() {
        let (mut landed, before) = (Landed::default(), Instant::now());
        let now = before + Duration::from_micros(10);
        landed.keep("k".into(), Some(Value::Text("v".into())), now);
        assert_eq!(landed.find(b"k", before), Some(Some(Value::Text("v".into()))));
        assert_eq!(landed.find(b"k", now), None);
        landed.forget(b"k");
        assert_eq!(landed.find(b"k", before), None);
        assert_eq!(landed.bytes, 0);
    }

    #[test]
    fn little_is_kept() {
        let (mut landed, start) = (Landed::default(), Instant::now());
        let value = Value::Text(vec![0; 64 << 10].into());
        for n in 0..1000u32 {
            landed.keep(n.to_string().into(), Some(value.clone()), start);
        }
        assert!(landed.bytes <= BYTES && landed.order.len() <= ENTRIES);
        landed.keep("late".into(), None, start + KEPT);
        assert_eq!((landed.bytes, landed.by_key.len(), landed.order.len()), (0, 1, 1));
    }
}
