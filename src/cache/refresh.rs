//! Loads entries anew in the background, while readers still have the value that is there.
//!
//! Must not know: clients.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::fresh::Due;
use super::loader::found_in;
use super::{ReadThrough, Shared, generation, store};
use crate::cluster::Served;
use crate::mapping::{Mapping, MappingId};
use crate::metrics::LeaseEvent;
use crate::resp::push_command;
use crate::sidecar::{self, Fill, Leased, Token, Value, Wanted};
use crate::source::{LoadFrom, spread};

/// Whether hits of a mapping are looked at.
pub(super) fn watches(mapping: &Mapping) -> bool {
    let wanted = mapping.fill.refresh_ahead > 0.0 || !mapping.fill.stale.is_zero();
    wanted && mapping.cache && mapping.ttl.is_some()
}

impl ReadThrough {
    /// Whether [`Self::hit`] is to be called for hits of this mapping. Those of entries that are read through this anyway
    /// are noticed here.
    pub fn watches(&self, mapping: MappingId) -> bool {
        self.shared.source.mappings().get(mapping).is_some_and(|known| watches(known) && !known.is_indirect())
    }

    /// The cluster had a value of a watched mapping: loads it anew in the background if it is due. Says whether the value is stale.
    pub fn hit(&self, mapping: MappingId, key: Bytes) -> Served {
        hit(&self.shared, mapping, key)
    }
}

/// As [`ReadThrough::hit`].
pub(super) fn hit(shared: &Arc<Shared>, mapping: MappingId, key: Bytes) -> Served {
    let (Some(settings), Some(fresh)) =
        (shared.source.mappings().get(mapping), shared.fresh.get(usize::from(mapping)))
    else {
        return Served::Hit;
    };
    let random = 1.0 - rand::random::<f64>();
    let (stale, due) = {
        let ttl = settings.ttl.unwrap_or_default();
        fresh.hit(&key, ttl, settings.fill.refresh_ahead, random, Instant::now())
    };
    let (own, stop) = (shared.clone(), shared.stop.clone());
    match due {
        Due::Nothing => {}
        Due::Ask => {
            let task = async move { ask(&own, mapping, &key).await };
            shared.tasks.spawn_on(stop.run_until_cancelled_owned(task), &shared.runtime);
        }
        Due::Refresh(id) => {
            let task = async move { refresh(&own, mapping, &key, id).await };
            shared.tasks.spawn_on(stop.run_until_cancelled_owned(task), &shared.runtime);
        }
    }
    if stale { Served::Stale } else { Served::Hit }
}

/// Learns how old an entry is that this process has not filled.
async fn ask(shared: &Arc<Shared>, mapping: MappingId, key: &Bytes) {
    let fresh = &shared.fresh[usize::from(mapping)];
    let stale = shared.source.mappings().get(mapping).map(|m| m.fill.stale).unwrap_or_default();
    let mut request = Vec::new();
    push_command(&mut request, [&b"PTTL"[..], key]);
    let replies = store::within(shared.options.cache_timeout, &*shared.store, vec![request]).await;
    let life = replies
        .first()
        .and_then(Option::as_ref)
        .and_then(|reply| std::str::from_utf8(reply).ok()?.strip_prefix(':')?.trim_end().parse::<u64>().ok());
    let now = Instant::now();
    match life {
        Some(life) => {
            let end = now + std::time::Duration::from_millis(life);
            fresh.learn(key, end.checked_sub(stale).unwrap_or(now), now);
        }
        // Gone, without expiry (dirty), or not known: the next hit asks again.
        None => fresh.forget(key),
    }
}

/// Loads one entry anew, unless another process does.
async fn refresh(shared: &Arc<Shared>, mapping: MappingId, key: &Bytes, id: u64) {
    let fresh = &shared.fresh[usize::from(mapping)];
    let failed = || fresh.failed(key, id, Instant::now());
    let (Some(settings), Ok(_place)) =
        (shared.source.mappings().get(mapping), shared.refreshes.try_acquire())
    else {
        return failed();
    };
    let token = Token::random();
    let life = settings.fill.lease.unwrap_or(shared.options.lease);
    let lease = sidecar::lease(key, token, life, Wanted::Fresh);
    let replies = store::within(shared.options.cache_timeout, &*shared.store, vec![lease]).await;
    let leased = store::leases(&*shared.observer, &replies).pop().flatten().map(|(leased, _)| leased);
    if !matches!(leased, Some(Leased::Granted(_))) {
        // Somebody else is at it, or the entry is dirty.
        return failed();
    }
    shared.observer.lease(mapping, LeaseEvent::Granted);
    let started = Instant::now();
    // Before the load: a change that comes in between outdates what is stored.
    let generation = match settings.invalidate_on.is_some() {
        true => generation::of(shared, settings, &[key]).await.pop().flatten().map(Some),
        false => Some(None),
    };
    let loaded = match generation {
        Some(_) => load(shared, settings, mapping, key).await,
        None => None,
    };
    let generation = generation.flatten();
    fresh.loaded_in(started.elapsed());
    let writes = shared.writes.as_ref();
    let pending = || writes.is_some_and(|writes| writes.pending(mapping, key).is_some());
    let found = match loaded {
        Some(found) if fresh.is_current(key, id) && !pending() => found,
        _ => {
            store::within(shared.options.cache_timeout, &*shared.store, vec![sidecar::release(key, token)])
                .await;
            return failed();
        }
    };
    let jitter = settings.fill.ttl_jitter.unwrap_or(shared.options.ttl_jitter);
    let ttl = settings.ttl.map(|ttl| spread(ttl, jitter));
    let fill = Fill {
        value: found.as_ref(),
        ttl: ttl.map(|ttl| ttl + settings.fill.stale),
        negative: settings.fill.negative_ttl,
        generation: generation.as_deref(),
        replace: true,
        lags: false,
    };
    let replies = shared.store.run(vec![sidecar::fill(key, token, &fill)]).await;
    let stored = store::fills(&*shared.observer, mapping, &replies) == [true];
    shared.observer.filled(mapping, usize::from(stored), usize::from(!stored));
    let current = fresh.is_current(key, id);
    match ttl {
        Some(ttl) if stored && current && found.is_some() => {
            let now = Instant::now();
            fresh.learn(key, now + ttl, now);
        }
        _ => fresh.forget(key),
    }
    if stored && !current {
        // Written meanwhile by a plain command, which does not cancel leases.
        store::invalidate(
            &*shared.store,
            &*shared.observer,
            std::slice::from_ref(key),
            std::time::Duration::ZERO,
        )
        .await;
    }
}

/// The row of one key; `None`: it is not known.
async fn load(shared: &Shared, settings: &Mapping, mapping: MappingId, key: &Bytes) -> Option<Option<Value>> {
    let started = Instant::now();
    let found = [settings.template.find(key)?];
    let loading = shared.source.load(mapping, &found, LoadFrom::Replica);
    let Ok(result) = tokio::time::timeout(shared.options.timeout, loading).await else { return None };
    shared.observer.queried(mapping, 1, started.elapsed(), result.as_ref().err());
    let row = result.ok()?.pop()?.ok()?;
    let found = row.map(|row| found_in(row, Some(settings.format))).unwrap_or(Ok(None)).ok()?;
    Some(found.map(|found| found.value))
}
