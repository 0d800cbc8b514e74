//! Flights: one load of one key, with everybody who waits for it.
//!
//! Must not know: the database, the cache.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::landed::Landed;
use super::ticket::Ticket;
use super::{Answer, Loaded, Until};
use crate::cluster::Served;
use crate::mapping::OrderKey;
use crate::sidecar::{Token, Value};

/// Somebody who waits for a key.
pub(super) struct Waiter {
    pub(super) ticket: Arc<Ticket>,
    /// Position of the key among those of the ticket.
    pub(super) at: usize,
    /// A waiting row of an append mapping: it is the answer unless the database has a newer one.
    pub(super) floor: Option<(Bytes, OrderKey)>,
    pub(super) until: Until,
    /// It came when the row was known already.
    pub(super) late: bool,
}

/// One load of one key.
pub(super) struct Flight {
    waiters: Mutex<Vec<Waiter>>,
    /// What was found, while it is being stored.
    known: OnceLock<(Outcome, Served)>,
    /// The key was written after this flight began: its row may not be stored.
    outdated: AtomicBool,
    /// Whose lease it is, where there is one.
    pub(super) token: Token,
    pub(super) begun: Instant,
}

/// The row behind a key.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) value: Value,
    /// Its place among the rows of its id, where the mapping has an `order_by`.
    pub(super) order: Option<OrderKey>,
}

/// What a flight found.
pub(super) type Outcome = Result<Option<Found>, String>;

impl Flight {
    fn new(waiter: Waiter) -> Self {
        Self {
            waiters: Mutex::new(vec![waiter]),
            known: OnceLock::new(),
            outdated: AtomicBool::new(false),
            token: Token::random(),
            begun: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiter>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Acquire)
    }

    /// Whether everybody who waited has been answered otherwise (by their deadline).
    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().iter().all(|waiter| waiter.ticket.is_done())
    }

    /// Lets `waiter` wait, or answers it where the row is known and that is enough.
    fn join(&self, mut waiter: Waiter) {
        let mut waiters = self.lock();
        waiter.late = self.known.get().is_some();
        match self.known.get() {
            Some((outcome, served)) if waiter.until == Until::Known => {
                drop(waiters);
                waiter.tell(outcome, *served);
            }
            _ => waiters.push(waiter),
        }
    }

    /// Answers everybody who waits now; what was found is `served` so.
    pub(super) fn answer(&self, outcome: &Outcome, served: Served) {
        let waiters = std::mem::take(&mut *self.lock());
        waiters.into_iter().for_each(|waiter| waiter.tell(outcome, served));
    }

    /// The row is known, but not yet stored: answers those for whom that is enough, from now on too.
    pub(super) fn answer_early(&self, outcome: &Outcome, served: Served) {
        let mut waiters = self.lock();
        let _ = self.known.set((outcome.clone(), served));
        let early: Vec<Waiter> = waiters.extract_if(.., |waiter| waiter.until == Until::Known).collect();
        drop(waiters);
        early.into_iter().for_each(|waiter| waiter.tell(outcome, served));
    }
}

impl Waiter {
    fn tell(self, outcome: &Outcome, served: Served) {
        // No query was run for who came late.
        let served = if self.late && served == Served::Miss { Served::Near } else { served };
        let loaded = |row: &Found| Loaded::from(row.value.clone()).served(served);
        let answer = match (outcome, self.floor) {
            (Ok(Some(row)), Some((_, floor))) if row.order.is_some_and(|order| order > floor) => loaded(row),
            // Without the database the newest row we know of is the best answer there is.
            (_, Some((value, _))) => Loaded::Value(value).served(Served::Dirty),
            (Ok(Some(row)), None) => loaded(row),
            (Ok(None), None) => Loaded::Absent.served(served),
            (Err(text), None) => Answer::failed(text.as_str()),
        };
        self.ticket.answer(self.at, answer);
    }
}

/// How a flight stands with the other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// It must be asked for.
    Wanted,
    /// This process may load the key, and store what it finds.
    Held,
    /// The row is loaded, but not stored: the cluster is away, or not to be used.
    Without,
}

/// A flight on its way.
pub(super) struct Leg {
    pub(super) key: Bytes,
    pub(super) flight: Arc<Flight>,
    pub(super) lease: Lease,
    /// It has waited for another process's lease.
    pub(super) waited: bool,
    /// The generation under which it is loaded, where there are generations.
    pub(super) generation: Option<Bytes>,
}

/// Flights that go the same way.
pub(super) type Batch = Vec<Leg>;

/// The flights of one mapping.
#[derive(Default)]
pub(super) struct Flights {
    inner: Mutex<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    by_key: FxHashMap<Bytes, Arc<Flight>>,
    /// Keys of one miss stay together.
    queue: VecDeque<Batch>,
    queued: usize,
    running: usize,
    /// What was found a moment ago.
    pub(super) landed: Landed,
}

impl Inner {
    /// Lets `waiter` wait for `key`: on its flight, or on a new one, which is added to `new`.
    pub(super) fn join(&mut self, key: &Bytes, waiter: Waiter, lease: Lease, new: &mut Batch) {
        if let Some(flight) = self.by_key.get(key) {
            return flight.join(waiter);
        }
        let flight = Arc::new(Flight::new(waiter));
        self.by_key.insert(key.clone(), flight.clone());
        new.push(Leg { key: key.clone(), flight, lease, waited: false, generation: None });
    }

    /// Queues flights. Answers whether a loader is to be started for them: at once when none runs, another one only when a
    /// full batch waits, so that what arrives meanwhile shares a query.
    pub(super) fn enqueue(&mut self, new: Batch, max_batch: usize, concurrency: usize) -> bool {
        if new.is_empty() {
            return false;
        }
        self.queued += new.len();
        self.queue.push_back(new);
        let start = self.running == 0 || (self.queued >= max_batch && self.running < concurrency);
        self.running += usize::from(start);
        start
    }

    fn forget(&mut self, key: &Bytes, flight: &Arc<Flight>) {
        // A write may have made room for a newer flight of the same key.
        if self.by_key.get(key).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            self.by_key.remove(key);
        }
    }
}

impl Flights {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key was written: later readers start anew, and the flight's row is not stored.
    pub(super) fn outdate(&self, key: &[u8]) {
        let mut inner = self.lock();
        inner.landed.forget(key);
        if let Some(flight) = inner.by_key.remove(key) {
            flight.outdated.store(true, Ordering::Release);
        }
    }

    /// The same for every key that `is_meant`.
    pub(super) fn outdate_all(&self, is_meant: impl Fn(&[u8]) -> bool) {
        let mut inner = self.lock();
        inner.landed = Landed::default();
        inner.by_key.retain(|key, flight| {
            let meant = is_meant(key);
            if meant {
                flight.outdated.store(true, Ordering::Release);
            }
            !meant
        });
    }

    /// The next keys to load, or `None`: then the loader has ended. Flights that nobody waits for any more are dropped.
    pub(super) fn next_batch(&self, max_batch: usize) -> Option<Batch> {
        let mut inner = self.lock();
        let mut batch = Batch::new();
        while let Some(group) = inner.queue.front() {
            if !batch.is_empty() && batch.len() + group.len() > max_batch {
                break;
            }
            let Some(group) = inner.queue.pop_front() else { break };
            inner.queued -= group.len();
            for leg in group {
                if leg.flight.is_abandoned() && leg.lease != Lease::Held {
                    inner.forget(&leg.key, &leg.flight);
                } else {
                    batch.push(leg);
                }
            }
        }
        if batch.is_empty() {
            inner.running -= 1;
            return None;
        }
        Some(batch)
    }

    /// A loader died in the middle.
    pub(super) fn loader_lost(&self) {
        let mut inner = self.lock();
        inner.running = inner.running.saturating_sub(1);
    }

    /// The flight is over, and this is what it found: nobody may join it any more, but those who were late may know.
    pub(super) fn land(&self, leg: &Leg, outcome: &Outcome) {
        let mut inner = self.lock();
        inner.forget(&leg.key, &leg.flight);
        if let (Ok(row), false) = (outcome, leg.flight.is_outdated()) {
            let value = row.as_ref().map(|row| row.value.clone());
            inner.landed.keep(leg.key.clone(), value, Instant::now());
        }
    }

    /// Nobody may join the flight any more.
    pub(super) fn forget(&self, leg: &Leg) {
        self.lock().forget(&leg.key, &leg.flight);
    }
}
