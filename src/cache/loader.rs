//! Loads batches of one mapping, fills the cache, answers.
//!
//! Must not know: how waiting clients are told.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tracing::warn;

use super::flight::{Batch, Outcome, Waiter};
use super::ticket::Ticket;
use super::{Answer, FillItem, Loaded, Shared};
use crate::cluster::Served;
use crate::mapping::{MappingId, Match};
use crate::source::{LoadFrom, LoadedRow, SourceError, spread};
use crate::writeback::Pending;

/// Lets `ticket` wait for keys of one mapping. What a waiting write can answer is answered at once.
pub(super) fn join<'k>(
    shared: &Arc<Shared>,
    mapping: MappingId,
    keys: impl Iterator<Item = (usize, &'k Bytes)>,
    asked: Instant,
    ticket: &Arc<Ticket>,
) {
    let Some(flights) = shared.flights.get(usize::from(mapping)) else {
        return keys.for_each(|(at, _)| {
            ticket.answer(at, Answer::failed(format!("ERR there is no mapping {mapping}")))
        });
    };
    let (mut new, mut ready, mut count) = (Batch::new(), Vec::new(), 0);
    // The look at the waiting writes happens under the lock of the flights. A writer queues its write first and calls
    // `note_write` (which takes this lock) second: so either the write is seen here, or the flight is seen there.
    let mut inner = flights.lock();
    for (at, key) in keys {
        count += 1;
        let pending = shared.writes.as_ref().and_then(|writes| writes.pending(mapping, key));
        let floor = match pending {
            None => None,
            Some(Pending::Newest(value, order)) => Some((value, order)),
            Some(Pending::Value(value)) => {
                ready.push((at, Loaded::Value(value).served(Served::Dirty)));
                continue;
            }
            Some(Pending::Deleted) => {
                ready.push((at, Loaded::Absent.served(Served::Dirty)));
                continue;
            }
        };
        if floor.is_none()
            && let Some(value) = inner.landed.find(key, asked)
        {
            ready.push((at, value.map_or(Loaded::Absent, Loaded::Value).served(Served::Miss)));
            continue;
        }
        inner.join(key, Waiter { ticket: ticket.clone(), at, floor }, &mut new);
    }
    let start = inner.enqueue(new, shared.options.max_batch, shared.options.concurrency);
    drop(inner);
    shared.observer.requested(mapping, count);
    if !ready.is_empty() {
        shared.observer.pending(mapping, ready.len());
    }
    if start {
        let task = shared.stop.clone().run_until_cancelled_owned(run(shared.clone(), mapping));
        shared.tasks.spawn_on(task, &shared.runtime);
    }
    ready.into_iter().for_each(|(at, answer)| ticket.answer(at, answer));
}

/// Keeps the count of loaders right, however one ends.
struct Running<'s> {
    shared: &'s Shared,
    mapping: usize,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.shared.flights[self.mapping].loader_lost();
    }
}

async fn run(shared: Arc<Shared>, mapping: MappingId) {
    let running = Running { shared: &shared, mapping: usize::from(mapping) };
    while let Some(batch) = shared.flights[running.mapping].next_batch(shared.options.max_batch) {
        let batch = Airborne { shared: shared.clone(), mapping, batch };
        let outcomes = query(&shared, mapping, &batch.batch).await;
        // Filling the cache does not hold up the next query.
        let task = shared.stop.clone().run_until_cancelled_owned(land(batch, outcomes));
        shared.tasks.spawn_on(task, &shared.runtime);
    }
    std::mem::forget(running); // `next_batch` has counted it off, under the lock that saw the queue empty
}

/// Flights between query and reply. Dropped early (a panic, the end of the runtime) it lets go of the flights, and with
/// them of the tickets, which then fail: nobody waits for a load that will not come.
struct Airborne {
    shared: Arc<Shared>,
    mapping: MappingId,
    batch: Batch,
}

impl Drop for Airborne {
    fn drop(&mut self) {
        let flights = &self.shared.flights[usize::from(self.mapping)];
        self.batch.iter().for_each(|(key, flight)| flights.forget(key, flight));
    }
}

async fn query(shared: &Shared, mapping: MappingId, batch: &Batch) -> Vec<Outcome> {
    let started = Instant::now();
    let template = shared.source.mappings().get(mapping).map(|m| &m.template);
    let found: Vec<Option<Match<'_>>> =
        batch.iter().map(|(key, _)| template.and_then(|t| t.find(key))).collect();
    let keys: Vec<Match<'_>> = found.iter().flatten().copied().collect();
    let limit = shared.options.timeout;
    let result =
        match tokio::time::timeout(limit, shared.source.load(mapping, &keys, LoadFrom::Primary)).await {
            Ok(result) => result,
            Err(_) => {
                Err(SourceError::Unavailable { message: format!("no answer within {limit:?}"), code: None })
            }
        };
    shared.observer.queried(mapping, keys.len(), started.elapsed(), result.as_ref().err());
    match result {
        Ok(rows) => {
            let mut rows = rows.into_iter();
            let stranger = || Err("ERR the key does not belong to its mapping".to_owned());
            let mut next = || match rows.next() {
                Some(row) => row.map_err(|error| format!("ERR {error}")),
                None => Ok(None),
            };
            found.iter().map(|found| found.map_or_else(stranger, |_| next())).collect()
        }
        Err(error) => {
            let name = shared.source.mappings().get(mapping).map_or("?", |m| &m.name);
            warn!(mapping = name, keys = keys.len(), error = %error, "cannot load rows");
            vec![Err(format!("ERR {error}")); batch.len()]
        }
    }
}

/// Fills the cache, then answers: a client that reads again after its reply finds the value there.
async fn land(airborne: Airborne, outcomes: Vec<Outcome>) {
    let Airborne { shared, mapping, batch } = &airborne;
    let cached = shared.source.mappings().get(*mapping).is_some_and(|m| m.cache);
    let served = if cached { Served::Miss } else { Served::Bypass };
    let answer =
        || batch.iter().zip(&outcomes).for_each(|((_, flight), outcome)| flight.answer(outcome, served));
    let (items, filled) = fills(shared, *mapping, batch, &outcomes);
    if !items.is_empty() {
        let count = items.len();
        let mut fill = shared.store.fill(items);
        let stored = match tokio::time::timeout(shared.options.fill_timeout, &mut fill).await {
            Ok(stored) => stored,
            Err(_) => {
                // The readers need not wait, but the flights stay known until the fill is over: a write that comes
                // now must find them.
                answer();
                fill.await
            }
        };
        shared.observer.filled(*mapping, stored, count.saturating_sub(stored));
        // A deletion that overtook the fill would leave the old row in the cache.
        let outdated: Vec<Bytes> = filled
            .iter()
            .map(|at| &batch[*at])
            .filter(|(_, f)| f.is_outdated())
            .map(|(key, _)| key.clone())
            .collect();
        if !outdated.is_empty() {
            shared.store.evict(outdated).await;
        }
    }
    let flights = &shared.flights[usize::from(*mapping)];
    batch.iter().zip(&outcomes).for_each(|((key, flight), outcome)| flights.land(key, flight, outcome));
    answer();
}

/// What may be stored, and its positions in the batch.
fn fills(
    shared: &Shared,
    mapping: MappingId,
    batch: &Batch,
    outcomes: &[Outcome],
) -> (Vec<FillItem>, Vec<usize>) {
    let Some(settings) = shared.source.mappings().get(mapping).filter(|m| m.cache) else {
        return Default::default();
    };
    let storable =
        |key: &Bytes| shared.writes.as_ref().is_none_or(|writes| writes.pending(mapping, key).is_none());
    let (mut items, mut refused) = (Vec::new(), 0);
    let mut positions = Vec::new();
    for (at, ((key, flight), outcome)) in batch.iter().zip(outcomes).enumerate() {
        let Ok(Some(LoadedRow { value, .. })) = outcome else { continue };
        if flight.is_outdated() || !storable(key) {
            refused += 1;
            continue;
        }
        let ttl = settings.ttl.map(|ttl| spread(ttl, shared.options.ttl_jitter));
        items.push(FillItem { mapping, key: key.clone(), value: value.clone(), ttl });
        positions.push(at);
    }
    if refused > 0 {
        shared.observer.filled(mapping, 0, refused);
    }
    (items, positions)
}
