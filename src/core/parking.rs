//! Requests that must wait before they may be sent, so that nothing overtakes anything on the same slot.
//!
//! Must not know: clients, connections beyond their marks.
//!
//! A slot is held until connections that may still carry requests for it have answered what they were sent up to a
//! mark, until a moment when a node may be tried again, or both. Whatever is asked for a held slot queues behind.
//!
//! A slot may also be held for one client only: it has a write under way that is not sent yet. What it asks for the slot
//! after that write queues behind it.

use crate::cluster::{Entry, Owner};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub slot: u16,
    pub entry: Entry,
    pub request: Vec<u8>,
}

/// Why some slots are held.
#[derive(Debug)]
struct Hold {
    slots: Vec<u16>,
    /// Microseconds of the core's clock.
    until: u64,
    /// Connections, and how much of what they were sent they must have answered.
    marks: Vec<(usize, u64)>,
}

/// The waiting requests of a core.
#[derive(Debug, Default)]
pub(super) struct Parking {
    queue: VecDeque<Parked>,
    /// Some requests at the end of the queue are older than others of their client.
    unsorted: bool,
    /// How many requests wait, by client and slot.
    waiting: FxHashMap<(u32, u32, u16), u32>,
    holds: Vec<Hold>,
    /// How many holds each held slot is in.
    held: FxHashMap<u16, u32>,
    /// By client and slot: its commands that write there and are not sent yet, the oldest first.
    behind: FxHashMap<(u32, u32, u16), VecDeque<u32>>,
}

impl Parking {
    /// True when nothing is held for all clients.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// True when this request for `slot` must queue here.
    #[inline]
    pub fn keeps(&self, slot: u16, entry: &Entry) -> bool {
        if self.holds.is_empty() && self.behind.is_empty() {
            return false;
        }
        self.held.contains_key(&slot) || self.is_behind(slot, entry)
    }

    /// True when its client has an earlier write for the slot that is not sent yet.
    fn is_behind(&self, slot: u16, entry: &Entry) -> bool {
        let Owner::Client { seq, .. } = entry.owner else { return false };
        let writes = waiter(slot, entry).and_then(|waiter| self.behind.get(&waiter));
        writes.and_then(VecDeque::front).is_some_and(|first| (seq.wrapping_sub(*first) as i32) > 0)
    }

    /// Holds `slot` for the client of a command (index, serial number, sequence number) until it is let go.
    pub fn hold_client(&mut self, (index, serial, seq): (u32, u32, u32), slot: u16) {
        self.behind.entry((index, serial, slot)).or_default().push_back(seq);
    }

    /// The command is sent, or will not be: takes what waited for it, in order.
    pub fn let_go(&mut self, (index, serial, seq): (u32, u32, u32), slot: u16) -> Vec<Parked> {
        let waiter = (index, serial, slot);
        let Some(writes) = self.behind.get_mut(&waiter) else { return Vec::new() };
        if let Some(at) = writes.iter().position(|write| *write == seq) {
            writes.remove(at);
        }
        if writes.is_empty() {
            self.behind.remove(&waiter);
        }
        match self.waiting.contains_key(&waiter) {
            true => self.take(|parked, parking| !parking.keeps(parked.slot, &parked.entry)),
            false => Vec::new(),
        }
    }

    /// Number of requests that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True when requests for `slot` must queue here.
    #[inline]
    pub fn holds(&self, slot: u16) -> bool {
        !self.is_empty() && self.held.contains_key(&slot)
    }

    /// True when a request of this one's client waits for the same slot.
    pub fn has_company(&self, slot: u16, entry: &Entry) -> bool {
        !self.queue.is_empty() && waiter(slot, entry).is_some_and(|waiter| self.waiting.contains_key(&waiter))
    }

    /// Queues a request that its client has just made, for a held slot.
    pub fn park(&mut self, slot: u16, entry: Entry, request: Vec<u8>) {
        if let Some(waiter) = waiter(slot, &entry) {
            *self.waiting.entry(waiter).or_default() += 1;
        }
        self.queue.push_back(Parked { slot, entry, request });
    }

    /// Queues a request that was on its way already, before those that its client made later.
    pub fn park_again(&mut self, slot: u16, entry: Entry, request: Vec<u8>) {
        self.unsorted = true;
        self.park(slot, entry, request);
    }

    /// Holds `slots` until `until` (microseconds of the core's clock) and until every connection in `marks` has
    /// answered up to its mark.
    pub fn hold(&mut self, slots: Vec<u16>, until: u64, marks: Vec<(usize, u64)>) {
        for slot in &slots {
            *self.held.entry(*slot).or_default() += 1;
        }
        self.holds.push(Hold { slots, until, marks });
    }

    /// Holds one slot until a connection has answered up to `mark`; a later mark replaces an earlier one.
    pub fn hold_for(&mut self, slot: u16, upstream: usize, mark: u64) {
        let same =
            |hold: &&mut Hold| hold.slots == [slot] && hold.marks.len() == 1 && hold.marks[0].0 == upstream;
        match self.holds.iter_mut().find(same) {
            Some(hold) => hold.marks[0].1 = mark,
            None => self.hold(vec![slot], 0, vec![(upstream, mark)]),
        }
    }

    /// Ends the holds that are over and takes what may be sent now, in order.
    pub fn release(&mut self, now: u64, passed: impl Fn(usize, u64) -> bool) -> Vec<Parked> {
        let before = self.holds.len();
        let held = &mut self.held;
        self.holds.retain_mut(|hold| {
            hold.marks.retain(|(upstream, mark)| !passed(*upstream, *mark));
            let over = hold.marks.is_empty() && hold.until <= now;
            for slot in hold.slots.iter().filter(|_| over) {
                match held.get_mut(slot) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => {
                        held.remove(slot);
                    }
                }
            }
            !over
        });
        if self.holds.len() == before {
            Vec::new()
        } else {
            self.take(|parked, parking| !parking.keeps(parked.slot, &parked.entry))
        }
    }

    /// Takes the requests dispatched before `deadline`, in order.
    pub fn expire(&mut self, deadline: u64) -> Vec<Parked> {
        if self.queue.iter().all(|parked| parked.entry.at >= deadline) {
            return Vec::new();
        }
        self.take(|parked, _| parked.entry.at < deadline)
    }

    /// Takes the requests that are wanted, in order.
    pub fn take_if(&mut self, wanted: impl Fn(&Entry) -> bool) -> Vec<Parked> {
        if self.queue.iter().all(|parked| !wanted(&parked.entry)) {
            return Vec::new();
        }
        self.take(|parked, _| wanted(&parked.entry))
    }

    fn take(&mut self, wanted: impl Fn(&Parked, &Self) -> bool) -> Vec<Parked> {
        self.sort();
        let queue = std::mem::take(&mut self.queue);
        let (taken, kept) = queue.into_iter().partition::<Vec<_>, _>(|parked| wanted(parked, self));
        self.queue = kept.into();
        for waiter in taken.iter().filter_map(|parked| waiter(parked.slot, &parked.entry)) {
            match self.waiting.get_mut(&waiter) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    self.waiting.remove(&waiter);
                }
            }
        }
        taken
    }

    /// Puts the requests of each client, among the places that they have, into the order in which it made them.
    fn sort(&mut self) {
        if !std::mem::take(&mut self.unsorted) {
            return;
        }
        let mut by_client: FxHashMap<(u32, u32), Vec<usize>> = FxHashMap::default();
        for (place, parked) in self.queue.iter().enumerate() {
            if let Owner::Client { index, serial, .. } = parked.entry.owner {
                by_client.entry((index, serial)).or_default().push(place);
            }
        }
        let mut queue: Vec<Option<Parked>> = self.queue.drain(..).map(Some).collect();
        for places in by_client.into_values() {
            let mut theirs: Vec<Parked> = places.iter().filter_map(|place| queue[*place].take()).collect();
            theirs.sort_by(|a, b| is_later(&a.entry, &b.entry).cmp(&is_later(&b.entry, &a.entry)));
            for (place, parked) in places.iter().zip(theirs) {
                queue[*place] = Some(parked);
            }
        }
        self.queue = queue.into_iter().flatten().collect();
    }
}

fn waiter(slot: u16, entry: &Entry) -> Option<(u32, u32, u16)> {
    match entry.owner {
        Owner::Client { index, serial, .. } => Some((index, serial, slot)),
        Owner::Handshake | Owner::Nobody => None,
    }
}

/// True when `other` is a request of the same client as `entry`, made after it.
pub(super) fn is_later(other: &Entry, entry: &Entry) -> bool {
    match (other.owner, entry.owner) {
        (
            Owner::Client { index: a, serial: b, seq: theirs, .. },
            Owner::Client { index: c, serial: d, seq: ours, .. },
        ) => a == c && b == d && (theirs.wrapping_sub(ours) as i32) > 0,
        _ => false,
    }
}
