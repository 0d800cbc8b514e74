//! Loads batches of one mapping.
//!
//! Must not know: how waiting clients are told, what is stored.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tracing::warn;

use super::board::board;
use super::flight::{Batch, Found, Lease, Leg, Outcome, Waiter};
use super::land::land;
use super::ticket::Ticket;
use super::{Answer, Loaded, Shared, Until};
use crate::cluster::Served;
use crate::mapping::{Format, MappingId, Match, fields_of};
use crate::sidecar::Value;
use crate::source::{LoadFrom, LoadedRow, SourceError};
use crate::writeback::Pending;

/// Lets `ticket` wait for keys of one mapping. What a waiting write can answer is answered at once.
pub(super) fn join<'k>(
    shared: &Arc<Shared>,
    mapping: MappingId,
    keys: impl Iterator<Item = (usize, &'k Bytes)>,
    (asked, until): (Instant, Until),
    lease: Lease,
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
            Some(Pending::Fields(fields)) => {
                ready.push((at, Loaded::Hash(fields).served(Served::Dirty)));
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
            ready.push((at, value.map_or(Loaded::Absent, Loaded::from).served(Served::Miss)));
            continue;
        }
        inner.join(key, Waiter { ticket: ticket.clone(), at, floor, until, late: false }, lease, &mut new);
    }
    let start = inner.enqueue(new, shared.max_batch(mapping), shared.options.concurrency);
    drop(inner);
    shared.observer.requested(mapping, count);
    if !ready.is_empty() {
        shared.observer.pending(mapping, ready.len());
    }
    if start {
        start_loader(shared, mapping);
    }
    ready.into_iter().for_each(|(at, answer)| ticket.answer(at, answer));
}

/// Queues flights that have waited for their leases.
pub(super) fn queue(shared: &Arc<Shared>, mapping: MappingId, batch: Batch) {
    let flights = &shared.flights[usize::from(mapping)];
    let start = flights.lock().enqueue(batch, shared.max_batch(mapping), shared.options.concurrency);
    if start {
        start_loader(shared, mapping);
    }
}

fn start_loader(shared: &Arc<Shared>, mapping: MappingId) {
    let task = shared.stop.clone().run_until_cancelled_owned(run(shared.clone(), mapping));
    shared.tasks.spawn_on(task, &shared.runtime);
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
    while let Some(batch) = shared.flights[running.mapping].next_batch(shared.max_batch(mapping)) {
        let mut airborne = Airborne { shared: shared.clone(), mapping, batch };
        board(&shared, &mut airborne).await;
        if airborne.batch.is_empty() {
            continue;
        }
        let outcomes = query(&shared, mapping, &airborne.batch).await;
        // Filling the cache does not hold up the next query.
        let task = shared.stop.clone().run_until_cancelled_owned(land(airborne, outcomes));
        shared.fills.spawn_on(task, &shared.runtime);
    }
    std::mem::forget(running); // `next_batch` has counted it off, under the lock that saw the queue empty
}

/// Flights between queue and reply. Dropped early (a panic, the end of the runtime) it lets go of the flights, and with
/// them of the tickets, which then fail: nobody waits for a load that will not come.
pub(super) struct Airborne {
    pub(super) shared: Arc<Shared>,
    pub(super) mapping: MappingId,
    pub(super) batch: Batch,
}

impl Airborne {
    /// The same for other flights of the mapping.
    pub(super) fn split_off(&self, batch: Batch) -> Self {
        Self { shared: self.shared.clone(), mapping: self.mapping, batch }
    }

    /// Takes flights off.
    pub(super) fn take(&mut self, which: impl Fn(&Leg) -> bool) -> Batch {
        let (taken, kept) = std::mem::take(&mut self.batch).into_iter().partition(which);
        self.batch = kept;
        taken
    }
}

impl Drop for Airborne {
    fn drop(&mut self) {
        let flights = &self.shared.flights[usize::from(self.mapping)];
        self.batch.iter().for_each(|leg| flights.forget(leg));
    }
}

/// A loaded row as the entry of a mapping of this format.
pub(super) fn found_in(row: LoadedRow, format: Option<Format>) -> Outcome {
    let LoadedRow { value, order } = row;
    if format != Some(Format::Hash) {
        return Ok(Some(Found { value: Value::Text(value), order }));
    }
    let fields = fields_of(&value).map_err(|message| format!("ERR the row is no hash: {message}"))?;
    // Nothing but NULLs: Redis has no hash without fields.
    Ok((!fields.is_empty()).then_some(Found { value: Value::Hash(fields), order }))
}

async fn query(shared: &Shared, mapping: MappingId, batch: &[Leg]) -> Vec<Outcome> {
    let started = Instant::now();
    let declared = shared.source.mappings().get(mapping);
    let (template, format) = (declared.map(|m| &m.template), declared.map(|m| m.format));
    let found: Vec<Option<Match<'_>>> =
        batch.iter().map(|leg| template.and_then(|t| t.find(&leg.key))).collect();
    let keys: Vec<Match<'_>> = found.iter().flatten().copied().collect();
    let limit = shared.options.timeout;
    let result =
        match tokio::time::timeout(limit, shared.source.load(mapping, &keys, LoadFrom::Replica)).await {
            Ok(result) => result,
            Err(_) => {
                Err(SourceError::Unavailable { message: format!("no answer within {limit:?}"), code: None })
            }
        };
    shared.fresh[usize::from(mapping)].loaded_in(started.elapsed());
    shared.observer.queried(mapping, keys.len(), started.elapsed(), result.as_ref().err());
    match result {
        Ok(rows) => {
            let mut rows = rows.into_iter();
            let stranger = || Err("ERR the key does not belong to its mapping".to_owned());
            let mut next = || match rows.next() {
                Some(Ok(Some(row))) => found_in(row, format),
                Some(Err(error)) => Err(format!("ERR {error}")),
                Some(Ok(None)) | None => Ok(None),
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
