//! Keeps the requests of a client for one slot in order when they change their way to a node.
//!
//! Must not know: sockets, what a reply means to its client.
//!
//! Requests for a slot go to its owner over one connection, so they stay in order by themselves. When the owner
//! changes, a connection is lost or a node asks to be tried later, requests for the slot may be on several ways at once.
//! Then the slot is held (see `parking.rs`) until what is on its way is answered.

use super::Core;
use super::parking::is_later;
use crate::cluster::{Entry, Link, Lost, Owner, Topology};
use crate::command::Learned;
use crate::resp::{Args, RequestLimits, RequestScanner, Scan};
use crate::slot;
use rustc_hash::FxHashSet;
use std::sync::Arc;

impl Core {
    /// A new topology is known. Requests for slots that moved wait until those on their way are answered, so that no
    /// later command of a client overtakes an earlier one on the same key.
    pub fn set_topology(&mut self, topology: Arc<Topology>) {
        let old = self.routes.replace(topology);
        self.pubsub_topology();
        self.wait_topology(&old);
        self.may_have_left = true;
        let moved = old.moved_slots(self.routes.topology());
        if moved.is_empty() {
            return;
        }
        self.hold(moved, 0);
        self.reroute_unreachable();
        self.release_parked();
    }

    /// Requests that wait for an unreachable node go to the new owner of their slot.
    fn reroute_unreachable(&mut self) {
        let down: Vec<usize> = self
            .upstreams
            .iter()
            .filter(|(_, upstream)| upstream.link != Link::Up && upstream.inflight() > 0)
            .map(|(index, _)| index)
            .filter(|index| !self.dedicated.owns(*index))
            .collect();
        for index in down {
            let Some(upstream) = self.upstreams.get_mut(index) else { continue };
            let requests = upstream.take_all();
            self.send_again(index, requests);
        }
    }

    /// Holds slots (in ascending order) until every request for them that is on its way is answered, and until `until`
    /// (microseconds of the core's clock).
    pub(super) fn hold(&mut self, slots: Vec<u16>, until: u64) {
        let learned = self.process.learned.clone();
        let concerned = |request: &[u8]| {
            way_of(&learned, request).is_some_and(|way| slots.binary_search(&way.slot).is_ok())
        };
        let marks: Vec<(usize, u64)> = self
            .upstreams
            .iter()
            // What goes over a connection of its own waits alone already.
            .filter(|(index, _)| !self.dedicated.owns(*index))
            .filter(|(_, upstream)| {
                let mut requests = upstream.requests();
                requests
                    .any(|(entry, request)| matches!(entry.owner, Owner::Client { .. }) && concerned(request))
            })
            .map(|(index, upstream)| (index, upstream.mark()))
            .collect();
        if !marks.is_empty() || until > self.now {
            self.parking.hold(slots, until, marks);
        }
    }

    /// Queues requests of connection `from` again, where their slots now belong. Those that no client waits for end
    /// here: an `ASKING` without its request would let a stranger's in.
    pub(super) fn send_again(&mut self, from: usize, mut requests: Vec<Lost>) {
        requests.retain(|request| matches!(request.entry.owner, Owner::Client { .. }));
        if self.dedicated.owns(from) {
            requests.iter().for_each(|request| self.send_to(from, request.entry, &request.request));
            return;
        }
        let learned = &self.process.learned;
        let ways: Vec<Option<Way>> =
            requests.iter().map(|request| way_of(learned, &request.request)).collect();
        // One that was redirected here goes back to the owner of its slot, which may have later ones on their way.
        let here = self.upstreams.get(from).map(|upstream| &*upstream.addr);
        let mut strays: Vec<u16> = ways.iter().flatten().map(|way| way.slot).collect();
        strays.retain(|slot| !self.parking.holds(*slot) && self.routes.topology().owner_addr(*slot) != here);
        if !strays.is_empty() {
            strays.sort_unstable();
            strays.dedup();
            self.hold(strays, 0);
        }
        for (Lost { entry, request, .. }, way) in requests.into_iter().zip(ways) {
            match way {
                None => self.send_to(from, entry, &request),
                Some(way) if self.parking.holds(way.slot) => {
                    self.parking.park_again(way.slot, entry, request)
                }
                Some(way) => self.send(way.slot, entry, &request),
            }
        }
    }

    /// Sends what no longer needs to wait.
    pub(super) fn release_parked(&mut self) {
        let upstreams = &self.upstreams;
        let passed = |index: usize, mark: u64| {
            upstreams.get(index).is_none_or(|upstream| upstream.answered_up_to(mark))
        };
        for parked in self.parking.release(self.now, passed) {
            self.send(parked.slot, parked.entry, &parked.request);
        }
    }

    /// Of each of these requests, oldest first, whether a later one of its client for the same slot may have run: a read
    /// that is sent again would see what was written after it.
    pub(super) fn outrun(&self, lost: &[Lost]) -> Vec<bool> {
        let mut ran: FxHashSet<(u32, u32, u16)> = FxHashSet::default();
        let mut outrun = vec![false; lost.len()];
        for (outrun, Lost { entry, request, sent }) in outrun.iter_mut().zip(lost).rev() {
            let Owner::Client { index, serial, .. } = entry.owner else { continue };
            if !sent || entry.readonly && ran.is_empty() {
                continue;
            }
            let Some(way) = way_of(&self.process.learned, request) else { continue };
            match entry.readonly {
                true => *outrun = ran.contains(&(index, serial, way.slot)),
                false => _ = ran.insert((index, serial, way.slot)),
            }
        }
        outrun
    }

    /// True when the client of this request, the oldest of a connection, has sent a later one for the same slot over it:
    /// were the oldest sent again, it would come after that one. Two reads may change places.
    pub(super) fn is_overtaken(&self, upstream: usize, oldest: &Entry, slot: u16) -> bool {
        let Some(upstream) = self.upstreams.get(upstream) else { return false };
        upstream.requests().skip(1).any(|(entry, request)| {
            is_later(entry, oldest)
                && !(entry.readonly && oldest.readonly)
                && way_of(&self.process.learned, request).is_some_and(|way| way.slot == slot)
        })
    }
}

/// Where a request belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// The slot of its keys.
    pub slot: u16,
    /// How many keys it has.
    pub keys: usize,
}

/// The way of a request that was dispatched before; `None` when it has no keys.
pub(super) fn way_of(learned: &Learned, request: &[u8]) -> Option<Way> {
    let mut scanner = RequestScanner::default();
    let Ok(Scan::Complete(end)) = scanner.scan(request, &RequestLimits::default()) else { return None };
    let args = Args::new(request, scanner.spans());
    let command = learned.resolve(&args).ok()?;
    if command.name == "spublish" {
        // A sharded channel is no key, but has a slot.
        return Some(Way { slot: slot::slot(args.get(1)?), keys: 1 });
    }
    if command.name == "multi" {
        // A transaction goes where the first of its commands with keys goes; it is never less than one of many keys.
        return way_of_any(learned, request.get(end..)?).map(|way| Way { keys: way.keys.max(2), ..way });
    }
    let mut keys = Vec::new();
    command.keys(&args, &mut keys).ok()?;
    let first = args.get(*keys.first()? as usize)?;
    Some(Way { slot: slot::slot(first), keys: keys.len() })
}

/// The way of the first of several requests, one after the other, that has keys.
fn way_of_any(learned: &Learned, mut requests: &[u8]) -> Option<Way> {
    let mut scanner = RequestScanner::default();
    while !requests.is_empty() {
        if let Some(way) = way_of(learned, requests) {
            return Some(way);
        }
        scanner.reset();
        let Ok(Scan::Complete(end)) = scanner.scan(requests, &RequestLimits::default()) else { return None };
        requests = requests.get(end..)?;
    }
    None
}
