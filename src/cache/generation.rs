//! Generations of entries that depend on rows of another mapping.
//!
//! Must not know: flights beyond their keys.

use std::time::Duration;

use bytes::Bytes;

use super::flight::{Batch, Lease};
use super::{Shared, store};
use crate::mapping::{Mapping, MappingId};
use crate::resp::decode_reply;
use crate::sidecar::{Token, current_generation, generation_key, new_generation};
use redis_protocol::resp3::types::BytesFrame;

/// What a generation outlives its entries by: jitter, and clocks that do not run alike.
const SLACK: Duration = Duration::from_secs(60);
/// Life of the generations of entries that do not expire.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Learns, before the load, the generation that each key is loaded under. A key whose generation cannot be learned is not
/// stored.
pub(super) async fn current(shared: &Shared, mapping: &Mapping, batch: &mut Batch) {
    if mapping.invalidate_on.is_none() {
        return;
    }
    let keys: Vec<&Bytes> = batch.iter().map(|leg| &leg.key).collect();
    let generations = of(shared, mapping, &keys).await;
    for (leg, generation) in batch.iter_mut().zip(generations) {
        leg.generation = generation;
        if leg.generation.is_none() {
            leg.lease = Lease::Without;
        }
    }
}

/// The current generation of each of these keys of a mapping; `None` where the cluster does not say.
pub(super) async fn of(shared: &Shared, mapping: &Mapping, keys: &[&Bytes]) -> Vec<Option<Bytes>> {
    let life = life(mapping);
    let fresh: Vec<Token> = keys.iter().map(|_| Token::random()).collect();
    let request = |(key, fresh): (&&Bytes, &Token)| current_generation(&key_of(mapping, key), *fresh, life);
    let requests = keys.iter().zip(&fresh).map(request).collect();
    let replies = store::within(shared.options.cache_timeout, &*shared.store, requests).await;
    let generation = |(fresh, reply): (Token, Option<Bytes>)| match reply.as_deref().map(decode_reply) {
        Some(Ok(BytesFrame::Null)) => Some(Bytes::from(fresh.to_string())),
        Some(Ok(BytesFrame::BlobString { data, .. })) => Some(data),
        _ => None,
    };
    fresh.into_iter().zip(replies).map(generation).collect()
}

fn life(mapping: &Mapping) -> Duration {
    mapping.ttl.map_or(LONGEST, |ttl| (ttl * 2 + mapping.fill.stale + SLACK).min(LONGEST))
}

/// The value in `key` that tells which rows its entry depends on; empty where all matter.
fn by_value<'k>(mapping: &Mapping, key: &'k [u8]) -> &'k [u8] {
    let by = mapping.invalidate_on.as_ref().and_then(|dependent| dependent.by.as_deref());
    let value = |by: &str| -> Option<&'k [u8]> {
        let at = mapping.template.placeholders().position(|(name, _)| name == by)?;
        mapping.template.find(key)?.ids().get(at).map(|id| id.as_bytes())
    };
    by.and_then(value).unwrap_or_default()
}

/// Where the generation of `key` is kept.
fn key_of(mapping: &Mapping, key: &[u8]) -> Vec<u8> {
    generation_key(&mapping.name, by_value(mapping, key))
}

/// The mappings whose values depend on rows of `changed`, each with the placeholder that tells which.
pub(super) fn dependents(
    shared: &Shared,
    changed: MappingId,
) -> impl Iterator<Item = (&Mapping, Option<&str>)> {
    shared.source.mappings().iter().filter_map(move |mapping| {
        let dependent = mapping.invalidate_on.as_ref().filter(|dependent| dependent.mapping == changed)?;
        Some((mapping, dependent.by.as_deref()))
    })
}

/// The requests that outdate what depends on a row of `changed` with these columns. What is being loaded by this process
/// is outdated at once.
pub(super) fn outdate(shared: &Shared, changed: MappingId, columns: &[(&str, &str)]) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    for (mapping, by) in dependents(shared, changed) {
        let mut values: Vec<&[u8]> = match by {
            None => vec![b""],
            Some(by) => {
                columns.iter().filter(|(name, _)| *name == by).map(|(_, value)| value.as_bytes()).collect()
            }
        };
        values.sort_unstable();
        values.dedup();
        // Whoever asks after this must not get what was read before the change.
        shared.flights[usize::from(mapping.id)]
            .outdate_all(|key| values.binary_search(&by_value(mapping, key)).is_ok());
        let life = life(mapping);
        requests
            .extend(values.iter().map(|value| new_generation(&generation_key(&mapping.name, value), life)));
    }
    requests
}
