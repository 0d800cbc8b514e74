//! Invalidation: by key, by pattern, by what depends on a row.
//!
//! Must not know: who asks for it.

use std::time::Duration;

use bytes::Bytes;

use super::{ReadThrough, generation, store};
use crate::mapping::MappingId;
use crate::resp::{decode_reply, push_command};
use crate::sidecar::{key_of_sidecar, sidecar_pattern};
use crate::source::Touched;
use redis_protocol::resp3::types::BytesFrame;

/// Keys that a node looks at for one step of a scan.
const STEP: &[u8] = b"1000";

/// What an invalidation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Invalidation {
    /// Entries that were dropped.
    pub dropped: usize,
    /// Keys of which it is not known: the cluster did not answer for them.
    pub failed: usize,
}

impl ReadThrough {
    /// Drops the entries of these keys and cancels what is being loaded for them: once this returns, no row that was
    /// loaded before the call is in the cache, or gets there. An entry that waits for the database stays. Keys that belong to
    /// no mapping are left alone.
    pub async fn invalidate(&self, keys: &[Bytes]) -> Invalidation {
        let shared = &self.shared;
        let mapped = keys.iter().filter_map(|key| Some((shared.source.mappings().find_id(key)?, key)));
        let mut meant = Vec::with_capacity(keys.len());
        for (mapping, key) in mapped {
            self.note_write(mapping, key);
            meant.push(key.clone());
        }
        let found = store::invalidate(&*shared.store, &*shared.observer, &meant, Duration::ZERO).await;
        Invalidation {
            dropped: found.iter().filter(|found| **found == Some(true)).count(),
            failed: found.iter().filter(|found| found.is_none()).count(),
        }
    }

    /// The same for every key that matches `pattern`, a glob as `KEYS` has it. Looks at the whole cluster, step by step, which
    /// takes a while and holds up nobody.
    ///
    /// Sidecars first: a load that began before has its lease there, and either is found by that, and stores nothing, or has
    /// stored its row before the entries are looked at. The other way round it could do so between the two.
    pub async fn invalidate_pattern(&self, pattern: &[u8]) -> Invalidation {
        // Rather too many than one too few: these are loaded again, that is all.
        self.shared.flights.iter().for_each(|flights| flights.outdate_all(|_| true));
        self.shared.fresh.iter().for_each(super::fresh::Fresh::clear);
        let mut sum = Invalidation::default();
        for pattern in [sidecar_pattern(pattern), pattern.to_vec()] {
            let mut cursor = Bytes::from_static(b"0");
            loop {
                let Some((next, keys)) = self.scan(&cursor, &pattern).await else {
                    sum.failed += 1;
                    break;
                };
                let keys: Vec<Bytes> = keys
                    .into_iter()
                    .map(|key| key_of_sidecar(&key).map_or(key.clone(), Bytes::copy_from_slice))
                    .collect();
                let part = self.invalidate(&keys).await;
                sum.dropped += part.dropped;
                sum.failed += part.failed;
                if &next[..] == b"0" {
                    break;
                }
                cursor = next;
            }
        }
        sum
    }

    /// One step of a scan of the whole cluster.
    async fn scan(&self, cursor: &[u8], pattern: &[u8]) -> Option<(Bytes, Vec<Bytes>)> {
        let mut request = Vec::new();
        push_command(&mut request, [&b"SCAN"[..], cursor, b"MATCH", pattern, b"COUNT", STEP]);
        let reply = self.shared.store.run(vec![request]).await.pop().flatten()?;
        let Ok(BytesFrame::Array { data, .. }) = decode_reply(&reply) else { return None };
        let text = |frame: BytesFrame| match frame {
            BytesFrame::BlobString { data, .. } => Some(data),
            _ => None,
        };
        let mut parts = data.into_iter();
        let next = text(parts.next()?)?;
        let Some(BytesFrame::Array { data, .. }) = parts.next() else { return None };
        Some((next, data.into_iter().filter_map(text).collect()))
    }

    /// A row of `mapping` with these columns (name and text) was written, or was there before: outdates the entries that depend
    /// on it. Answers the number of generations that could not be renewed.
    pub async fn touch_dependents(&self, mapping: MappingId, columns: &[(&str, &str)]) -> usize {
        let requests = generation::outdate(&self.shared, mapping, columns);
        let limit = self.shared.options.cache_timeout;
        let replies = store::within(limit, &*self.shared.store, requests).await;
        replies.iter().filter(|reply| reply.as_deref() != Some(b"+OK\r\n")).count()
    }

    /// A batch of writes of `mapping` was committed: outdates the entries that depend on what it touched. Answers whether
    /// it could.
    pub async fn touch(&self, mapping: MappingId, touched: &Touched) -> bool {
        if touched.is_nothing() {
            return true;
        }
        if let Some(values) = touched.values() {
            return self.touch_dependents(mapping, &values.collect::<Vec<_>>()).await == 0;
        }
        let mut failed = self.touch_dependents(mapping, &[]).await;
        let by_some_value = generation::dependents(&self.shared, mapping).filter(|(_, by)| by.is_some());
        for (dependent, _) in by_some_value {
            failed += self.invalidate_pattern(dependent.template.pattern().as_bytes()).await.failed;
        }
        failed == 0
    }
}
