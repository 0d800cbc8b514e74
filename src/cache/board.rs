//! Before a load: asks the cluster for leases, and waits for those that other processes hold.
//!
//! Must not know: SQL, waiting clients.
//!
//! A process that waits looks again after a pause that grows, and takes the lease over when it has run out: nobody goes to
//! the database beside a lease. Only where the cluster does not answer is a row loaded without one, and then not stored.

use std::sync::Arc;
use std::time::Duration;

use super::flight::{Batch, Found, Lease, Leg, Outcome};
use super::loader::{Airborne, queue};
use super::refresh::{hit, watches};
use super::{Shared, generation, store};
use crate::cluster::Served;
use crate::mapping::MappingId;
use crate::metrics::LeaseEvent;
use crate::sidecar::{self, Leased, Value, Version, Wanted};
use crate::writeback::Pending;

/// First pause before another process's lease is looked at again.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What the cluster said about one key.
enum Verdict {
    /// The flight is over.
    Answer(Outcome, Served),
    /// Somebody else is at it.
    Wait,
    /// It is to be loaded.
    Load(Lease),
}

/// Asks for the leases that the flights of `airborne` want; those that need no query are answered, those that must wait are
/// taken off. What is left is to be loaded.
pub(super) async fn board(shared: &Arc<Shared>, airborne: &mut Airborne) {
    let waiting = ask(shared, airborne).await;
    if !waiting.is_empty() {
        let waiting = airborne.split_off(waiting);
        let task = shared.stop.clone().run_until_cancelled_owned(wait(shared.clone(), waiting));
        shared.tasks.spawn_on(task, &shared.runtime);
    }
}

/// Asks once. Answered flights leave `airborne`; the flights that must wait are handed back.
async fn ask(shared: &Arc<Shared>, airborne: &mut Airborne) -> Batch {
    let Some(mapping) = shared.source.mappings().get(airborne.mapping) else { return Batch::new() };
    if !mapping.cache {
        airborne.batch.iter_mut().for_each(|leg| leg.lease = Lease::Without);
        return Batch::new();
    }
    let wanted = airborne.take(|leg| leg.lease == Lease::Wanted);
    // A guard of its own: dropped in the middle, it lets go of the flights.
    let mut guard = airborne.split_off(wanted);
    generation::current(shared, mapping, &mut guard.batch).await;
    airborne.batch.extend(guard.take(|leg| leg.lease != Lease::Wanted));
    let life = mapping.fill.lease.unwrap_or(shared.options.lease);
    let requests = guard.batch.iter().map(|leg| request(leg, life)).collect();
    let replies = store::within(shared.options.cache_timeout, &*shared.store, requests).await;
    let leases = store::leases(&*shared.observer, &replies);
    let patience = mapping.fill.timeout.unwrap_or(shared.options.timeout) / 2;
    let mut waiting = Batch::new();
    for (mut leg, leased) in std::mem::take(&mut guard.batch).into_iter().zip(leases) {
        let written = leased.as_ref().and_then(|leased| outdated(shared, airborne.mapping, &leg.key, leased));
        let leased = leased.map(|(leased, _)| leased);
        match written.unwrap_or_else(|| verdict(leased, &leg, patience)) {
            Verdict::Wait => {
                if !std::mem::replace(&mut leg.waited, true) {
                    shared.observer.lease(airborne.mapping, LeaseEvent::Waited);
                }
                waiting.push(leg);
            }
            Verdict::Load(lease) => {
                if lease == Lease::Held {
                    shared.observer.lease(airborne.mapping, LeaseEvent::Granted);
                    if leg.waited {
                        shared.observer.lease(airborne.mapping, LeaseEvent::TakenOver);
                    }
                }
                leg.lease = lease;
                airborne.batch.push(leg);
            }
            Verdict::Answer(outcome, mut served) => {
                if served == Served::Hit && watches(mapping) {
                    served = hit(shared, airborne.mapping, leg.key.clone());
                }
                shared.flights[usize::from(airborne.mapping)].forget(&leg);
                leg.flight.answer(&outcome, served);
            }
        }
    }
    waiting
}

fn request(leg: &Leg, life: Duration) -> Vec<u8> {
    let wanted = leg.generation.as_ref().map_or(Wanted::Any, |generation| Wanted::Of(generation));
    sidecar::lease(&leg.key, leg.flight.token, life, wanted)
}

/// What counts instead of what the cluster said, when that is older than what was written here: a request that has waited for
/// a node to take over may come to it before it hears of that.
fn outdated(
    shared: &Shared,
    mapping: MappingId,
    key: &[u8],
    (leased, version): &(Leased, Version),
) -> Option<Verdict> {
    let shows = matches!(leased, Leased::Present(_) | Leased::Negative | Leased::Deleted);
    let writes = shared.writes.as_ref().filter(|writes| shows && writes.has_unflushed())?;
    writes.unflushed(mapping, key).filter(|(_, written)| version < written)?;
    let found = |value| Some(Found { value, order: None });
    let written = match writes.pending(mapping, key) {
        Some(Pending::Value(value)) => found(Value::Text(value)),
        Some(Pending::Fields(fields)) => found(Value::Hash(fields)),
        Some(Pending::Deleted) => None,
        Some(Pending::Newest(..)) | None => return Some(Verdict::Load(Lease::Without)),
    };
    Some(Verdict::Answer(Ok(written), Served::Dirty))
}

fn verdict(leased: Option<Leased>, leg: &Leg, patience: Duration) -> Verdict {
    let value = |value: Value| Ok(Some(Found { value, order: None }));
    match leased {
        Some(Leased::Present(found)) => Verdict::Answer(value(found), Served::Hit),
        Some(Leased::Negative) => Verdict::Answer(Ok(None), Served::Negative),
        Some(Leased::Deleted) => Verdict::Answer(Ok(None), Served::Dirty),
        Some(Leased::Other(_)) => {
            let text = "WRONGTYPE Operation against a key holding the wrong kind of value";
            Verdict::Answer(Err(text.to_owned()), Served::Miss)
        }
        Some(Leased::Granted(_)) => Verdict::Load(Lease::Held),
        // The flush that will put the entry right is not awaited for ever: then the older row is all there is.
        Some(Leased::Lost) if leg.flight.begun.elapsed() > patience => Verdict::Load(Lease::Without),
        Some(Leased::Wait(_) | Leased::Lost) => Verdict::Wait,
        None => Verdict::Load(Lease::Without),
    }
}

/// Waits until none of the flights has to wait any more.
async fn wait(shared: Arc<Shared>, mut airborne: Airborne) {
    let mut pause = FIRST_PAUSE;
    while !airborne.batch.is_empty() {
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        let gone = airborne.take(|leg| leg.flight.is_abandoned());
        drop(airborne.split_off(gone));
        let waiting = ask(&shared, &mut airborne).await;
        let granted = std::mem::replace(&mut airborne.batch, waiting);
        queue(&shared, airborne.mapping, granted);
    }
}
