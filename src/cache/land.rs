//! After a load: stores what was found, then answers.
//!
//! Must not know: how waiting clients are told.

use bytes::Bytes;
use std::time::{Duration, Instant};

use super::flight::{Lease, Leg, Outcome};
use super::loader::Airborne;
use super::refresh::watches;
use super::{Shared, store};
use crate::cluster::Served;
use crate::mapping::{Mapping, MappingId};
use crate::sidecar::{self, Fill};
use crate::source::spread;

/// Answers, fills the cache, and then answers those who wait for that.
pub(super) async fn land(airborne: Airborne, outcomes: Vec<Outcome>) {
    let Airborne { shared, mapping, batch } = &airborne;
    let plan = Plan::new(shared, *mapping, batch, &outcomes);
    let mut served: Vec<Served> = batch.iter().map(|leg| plan.before(leg)).collect();
    for ((leg, outcome), served) in batch.iter().zip(&outcomes).zip(&served) {
        leg.flight.answer_early(outcome, *served);
    }
    let answer = |served: &[Served]| {
        let flights = batch.iter().zip(&outcomes).zip(served);
        flights.for_each(|((leg, outcome), served)| leg.flight.answer(outcome, *served));
    };
    if !plan.requests.is_empty() {
        let count = plan.fills.len();
        let mut fill = shared.store.run(plan.requests);
        // The flights stay known until the fill is over: a write that comes now must find them, and a reader who has his
        // answer and asks again must not start a second query.
        let replies = match tokio::time::timeout(shared.options.fill_timeout, &mut fill).await {
            Ok(replies) => replies,
            Err(_) => {
                answer(&served);
                fill.await
            }
        };
        let stored = store::fills(&*shared.observer, *mapping, replies.get(..count).unwrap_or_default());
        let kept = stored.iter().filter(|stored| **stored).count();
        shared.observer.filled(*mapping, kept, count - kept);
        let now = Instant::now();
        for (at, ttl) in
            plan.fills.iter().zip(&plan.ttls).zip(&stored).filter_map(|(fill, stored)| stored.then_some(fill))
        {
            if let Some(ttl) = ttl {
                shared.fresh[usize::from(*mapping)].learn(&batch[*at].key, now + *ttl, now);
            }
        }
        for (at, _) in plan.fills.iter().zip(&stored).filter(|(_, stored)| !**stored) {
            served[*at] = Served::Bypass;
        }
        // A plain deletion that overtook the fill would leave the old row in the cache.
        let outdated = plan.fills.iter().map(|at| &batch[*at]).filter(|leg| leg.flight.is_outdated());
        let outdated: Vec<Bytes> = outdated.map(|leg| leg.key.clone()).collect();
        if !outdated.is_empty() {
            store::invalidate(&*shared.store, &*shared.observer, &outdated, Duration::ZERO).await;
        }
    }
    let flights = &shared.flights[usize::from(*mapping)];
    batch.iter().zip(&outcomes).for_each(|(leg, outcome)| flights.land(leg, outcome));
    answer(&served);
}

/// What is to be told to the cluster.
struct Plan {
    /// Fills first, then leases that are given back.
    requests: Vec<Vec<u8>>,
    /// Positions in the batch of what is filled.
    fills: Vec<usize>,
    /// How long each of them is fresh.
    ttls: Vec<Option<Duration>>,
}

impl Plan {
    fn new(shared: &Shared, mapping: MappingId, batch: &[Leg], outcomes: &[Outcome]) -> Self {
        let mut plan = Self { requests: Vec::new(), fills: Vec::new(), ttls: Vec::new() };
        let Some(settings) = shared.source.mappings().get(mapping) else { return plan };
        let storable =
            |key: &Bytes| shared.writes.as_ref().is_none_or(|writes| writes.pending(mapping, key).is_none());
        let (mut releases, mut refused) = (Vec::new(), 0);
        for (at, (leg, outcome)) in batch.iter().zip(outcomes).enumerate() {
            if leg.lease != Lease::Held {
                continue;
            }
            match outcome {
                Ok(_) if leg.flight.is_outdated() || !storable(&leg.key) => refused += 1,
                Ok(found) => {
                    let value = found.as_ref().map(|found| &found.value);
                    let jitter = settings.fill.ttl_jitter.unwrap_or(shared.options.ttl_jitter);
                    let ttl = settings.ttl.map(|ttl| spread(ttl, jitter));
                    plan.requests.push(fill(settings, leg, value, ttl));
                    plan.ttls.push(ttl.filter(|_| value.is_some() && watches(settings)));
                    plan.fills.push(at);
                    continue;
                }
                Err(_) => {}
            }
            releases.push(sidecar::release(&leg.key, leg.flight.token));
        }
        plan.requests.extend(releases);
        if refused > 0 {
            shared.observer.filled(mapping, 0, refused);
        }
        plan
    }

    fn before(&self, leg: &Leg) -> Served {
        match leg.lease {
            Lease::Held => Served::Miss,
            Lease::Wanted | Lease::Without => Served::Bypass,
        }
    }
}

fn fill(mapping: &Mapping, leg: &Leg, value: Option<&sidecar::Value>, ttl: Option<Duration>) -> Vec<u8> {
    // Where nobody looks at the age of entries they may not outlive their time.
    let stale = if watches(mapping) { mapping.fill.stale } else { Duration::ZERO };
    let ttl = ttl.map(|ttl| ttl + stale);
    let generation = leg.generation.as_deref();
    sidecar::fill(
        &leg.key,
        leg.flight.token,
        &Fill {
            value,
            ttl,
            negative: mapping.fill.negative_ttl,
            generation,
            // An entry of an older generation may be there.
            replace: generation.is_some(),
            lags: false,
        },
    )
}
