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
    let life = life(mapping);
    let fresh: Vec<Token> = batch.iter().map(|_| Token::random()).collect();
    let request = |(leg, fresh): (&super::flight::Leg, &Token)| {
        current_generation(&key_of(mapping, &leg.key), *fresh, life)
    };
    let requests = batch.iter().zip(&fresh).map(request).collect();
    let replies = store::within(shared.options.cache_timeout, &*shared.store, requests).await;
    for ((leg, fresh), reply) in batch.iter_mut().zip(fresh).zip(replies) {
        leg.generation = match reply.as_deref().map(decode_reply) {
            Some(Ok(BytesFrame::Null)) => Some(Bytes::from(fresh.to_string())),
            Some(Ok(BytesFrame::BlobString { data, .. })) => Some(data),
            _ => None,
        };
        if leg.generation.is_none() {
            leg.lease = Lease::Without;
        }
    }
}

fn life(mapping: &Mapping) -> Duration {
    mapping.ttl.map_or(LONGEST, |ttl| (ttl * 2 + mapping.fill.stale + SLACK).min(LONGEST))
}

/// Where the generation of `key` is kept.
fn key_of(mapping: &Mapping, key: &[u8]) -> Vec<u8> {
    let by = mapping.invalidate_on.as_ref().and_then(|dependent| dependent.by.as_deref());
    let value = |by: &str| -> Option<Vec<u8>> {
        let at = mapping.template.placeholders().position(|(name, _)| name == by)?;
        mapping.template.find(key)?.ids().get(at).map(|id| id.as_bytes().to_vec())
    };
    generation_key(&mapping.name, &by.and_then(value).unwrap_or_default())
}

/// The requests that outdate what depends on a row of `changed` with these columns.
pub(super) fn outdate(shared: &Shared, changed: MappingId, columns: &[(&str, &str)]) -> Vec<Vec<u8>> {
    let depends = |mapping: &&Mapping| {
        mapping.invalidate_on.as_ref().is_some_and(|dependent| dependent.mapping == changed)
    };
    let mut requests = Vec::new();
    for mapping in shared.source.mappings().iter().filter(depends) {
        let by = mapping.invalidate_on.as_ref().and_then(|dependent| dependent.by.as_deref());
        match by {
            None => requests.push(new_generation(&generation_key(&mapping.name, b""), life(mapping))),
            Some(by) => {
                let values = columns.iter().filter(|(name, _)| *name == by);
                requests.extend(values.map(|(_, value)| {
                    new_generation(&generation_key(&mapping.name, value.as_bytes()), life(mapping))
                }));
            }
        }
    }
    requests
}
