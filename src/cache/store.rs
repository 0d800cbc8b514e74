//! What read-through asks of the cluster, for many keys at once.
//!
//! Must not know: flights, the database.

use std::time::Duration;

use bytes::Bytes;

use super::{BoxFuture, Observer};
use crate::mapping::MappingId;
use crate::metrics::LeaseEvent;
use crate::sidecar::{
    self, Fault, Filled, Leased, Refusal, Version, parse_filled, parse_invalidated, parse_leased,
};

/// The cluster, as read-through needs it.
pub trait Store: Send + Sync {
    /// Runs requests, each by itself; their raw RESP2 replies in the same order, `None` where there is none. Ends within a
    /// bounded time.
    fn run(&self, requests: Vec<Vec<u8>>) -> BoxFuture<Vec<Option<Bytes>>>;
}

/// The reply of each request, or `None` where none came in time.
pub(super) async fn within(limit: Duration, store: &dyn Store, requests: Vec<Vec<u8>>) -> Vec<Option<Bytes>> {
    let count = requests.len();
    if count == 0 {
        return Vec::new();
    }
    let replies = tokio::time::timeout(limit, store.run(requests)).await;
    let mut replies = replies.unwrap_or_default();
    replies.resize(count, None);
    replies
}

/// Tells the observer of versions and faults; what is left is what the script said.
fn read<T>(
    observer: &dyn Observer,
    reply: Option<&Bytes>,
    parse: impl Fn(&[u8]) -> Result<(T, Version), Fault>,
) -> Option<T> {
    match parse(reply?) {
        Ok((found, version)) => {
            if version > 0 {
                observer.version(version);
            }
            Some(found)
        }
        Err(fault) => {
            observer.fault(&fault);
            None
        }
    }
}

/// What became of the requests for leases, with the versions of the sidecars; `None` where the cluster did not say.
pub(super) fn leases(observer: &dyn Observer, replies: &[Option<Bytes>]) -> Vec<Option<(Leased, Version)>> {
    let parse = |reply: &[u8]| parse_leased(reply).map(|(leased, version)| ((leased, version), version));
    replies.iter().map(|reply| read(observer, reply.as_ref(), parse)).collect()
}

/// Which of the fills were stored.
pub(super) fn fills(observer: &dyn Observer, mapping: MappingId, replies: &[Option<Bytes>]) -> Vec<bool> {
    let stored = |reply: &Option<Bytes>| {
        let filled = read(observer, reply.as_ref(), parse_filled);
        if filled == Some(Filled::Refused(Refusal::Lease)) {
            observer.lease(mapping, LeaseEvent::Lost);
        }
        filled == Some(Filled::Stored)
    };
    replies.iter().map(stored).collect()
}

/// Drops entries and cancels what is being loaded for them. Answers, per key, whether there was an entry; `None` where the
/// cluster did not say.
pub(super) async fn invalidate(
    store: &dyn Store,
    observer: &dyn Observer,
    keys: &[Bytes],
    tombstone: Duration,
) -> Vec<Option<bool>> {
    let requests = keys.iter().map(|key| sidecar::invalidate(key, tombstone)).collect();
    let replies = store.run(requests).await;
    let dropped =
        |reply: &Option<Bytes>| read(observer, reply.as_ref(), parse_invalidated).map(|found| found.dropped);
    replies.iter().map(dropped).collect()
}
