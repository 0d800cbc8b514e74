//! Requests that must wait before they may be sent, so that nothing overtakes anything on the same slot.
//!
//! Must not know: clients, connections beyond their marks.
//!
//! A slot is held for one of two reasons: its owner has changed and the old one has not yet answered what it was sent
//! (a drain), or a node asked to be tried again later (a delay). Whatever else is asked for a held slot queues behind.

use crate::cluster::{Entry, Owner};
use crate::slot::SLOTS;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub slot: u16,
    pub entry: Entry,
    pub request: Vec<u8>,
}

/// The waiting requests of a core.
#[derive(Debug, Default)]
pub(super) struct Parking {
    queue: VecDeque<Parked>,
    /// Slots that wait for a moment, in microseconds of the core's clock.
    delays: FxHashMap<u16, u64>,
    /// Slots that wait until every mark is passed.
    draining: Option<Box<[bool]>>,
    marks: Vec<(usize, u64)>,
}

impl Parking {
    /// True when nothing is held.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.delays.is_empty() && self.draining.is_none()
    }

    /// Number of requests that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True when requests for `slot` must queue here.
    #[inline]
    pub fn holds(&self, slot: u16) -> bool {
        !self.is_empty()
            && (self.delays.contains_key(&slot)
                || self.draining.as_ref().is_some_and(|slots| slots.get(usize::from(slot)) == Some(&true)))
    }

    /// Queues a request. A request of the same client that was made later, but is here already, goes behind it.
    pub fn park(&mut self, slot: u16, entry: Entry, request: Vec<u8>) {
        let parked = Parked { slot, entry, request };
        let later = |other: &Parked| match (other.entry.owner, entry.owner) {
            (
                Owner::Client { index: a, serial: b, seq: theirs, .. },
                Owner::Client { index: c, serial: d, seq: ours, .. },
            ) => a == c && b == d && (theirs.wrapping_sub(ours) as i32) > 0,
            _ => false,
        };
        match self.queue.iter().position(later) {
            Some(place) => self.queue.insert(place, parked),
            None => self.queue.push_back(parked),
        }
    }

    /// Holds `slot` until `until` (microseconds of the core's clock).
    pub fn delay(&mut self, slot: u16, until: u64) {
        let due = self.delays.entry(slot).or_insert(until);
        *due = (*due).max(until);
    }

    /// Holds `slots` until every connection in `marks` has answered up to its mark.
    pub fn drain(&mut self, slots: &[u16], marks: Vec<(usize, u64)>) {
        if marks.is_empty() {
            return;
        }
        let draining = self.draining.get_or_insert_with(|| vec![false; usize::from(SLOTS)].into());
        for slot in slots {
            if let Some(held) = draining.get_mut(usize::from(*slot)) {
                *held = true;
            }
        }
        self.marks.extend(marks);
    }

    /// Ends the holds that are over and takes what may be sent now, in order.
    pub fn release(&mut self, now: u64, passed: impl Fn(usize, u64) -> bool) -> Vec<Parked> {
        self.delays.retain(|_, due| *due > now);
        self.marks.retain(|(upstream, mark)| !passed(*upstream, *mark));
        if self.marks.is_empty() {
            self.draining = None;
        }
        let mut free = Vec::new();
        let mut kept = VecDeque::new();
        for parked in self.queue.drain(..) {
            let held = self.delays.contains_key(&parked.slot)
                || self
                    .draining
                    .as_ref()
                    .is_some_and(|slots| slots.get(usize::from(parked.slot)) == Some(&true));
            if held { kept.push_back(parked) } else { free.push(parked) }
        }
        self.queue = kept;
        free
    }

    /// Takes the requests dispatched before `deadline`, in order.
    pub fn expire(&mut self, deadline: u64) -> Vec<Parked> {
        let mut expired = Vec::new();
        let mut kept = VecDeque::new();
        for parked in self.queue.drain(..) {
            if parked.entry.at < deadline { expired.push(parked) } else { kept.push_back(parked) }
        }
        self.queue = kept;
        expired
    }
}
