//! `POST /write` and `GET /read` on the mapping named `user_data`, over the same paths as RESP.
//!
//! Must not know: HTTP beyond its error type.

use super::data::{self, Data};
use crate::cluster::{Gateway, GatewayError, Origin, Served, Topology};
use crate::http::{self, ApiError, CacheCounts, CacheStats, Facade, WriteRequest};
use crate::mapping::{Bound, Row};
use crate::metrics::worker::WorkerStats;
use crate::metrics::{MappingMetrics, Metrics};
use crate::resp::{decode_reply, push_command};
use crate::slot;
use crate::writeback::{KeyWrite, Write, WriteBehind, WriteError};
use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// The mapping that the facade reads and writes.
const MAPPING: &str = http::USER_DATA;

/// What the two functions share.
struct Shared {
    gateway: Gateway,
    target: Option<Target>,
}

/// The mapping with what writes to it.
struct Target {
    bound: Arc<Bound>,
    writes: WriteBehind,
    reads: crate::cache::ReadThrough,
}

/// The facade; without a mapping of that name both operations say so.
pub(super) fn facade(data: Option<&Data>, gateway: Gateway) -> Facade {
    let target = data.and_then(|data| {
        let mapping = data.source.mappings().by_name(MAPPING)?;
        let bound = data.source.bound(mapping.id)?.clone();
        Some(Target { bound, writes: data.writes.clone(), reads: data.reads.clone() })
    });
    let shared = Arc::new(Shared { gateway, target });
    let reader = shared.clone();
    Facade::new(
        move |request| {
            let shared = shared.clone();
            // A task of its own: a client that goes away must not leave a write half done.
            async move {
                let writing = tokio::spawn(async move { shared.write(request).await });
                writing.await.unwrap_or_else(|error| Err(ApiError::Internal(error.to_string())))
            }
        },
        move |user_id| {
            let shared = reader.clone();
            async move { shared.read(&user_id).await }
        },
    )
}

/// What `/api/v1/cache/stats` counts: reads by the workers, the rest by the metrics.
pub(super) fn cache_stats(
    data: Option<&Data>,
    metrics: &Metrics,
    workers: &[Arc<WorkerStats>],
    topology: watch::Receiver<Arc<Topology>>,
) -> CacheStats {
    let names =
        data.iter().flat_map(|data| data.source.mappings().iter().map(|mapping| mapping.name.clone()));
    let mappings: Vec<_> = names.map(|name| (metrics.mapping(&name), name)).collect();
    let workers = workers.to_vec();
    let counter = move || {
        let count = |(at, (metrics, name)): (usize, &(MappingMetrics, String))| {
            let cells: Vec<_> = workers.iter().filter_map(|worker| worker.mappings.get(at)).collect();
            let served =
                |served: Served| cells.iter().map(|cells| cells.served[served as usize].get()).sum::<u64>();
            let found: u64 = cells.iter().map(|cells| cells.hits.get()).sum();
            let hits =
                Served::ALL.into_iter().filter(|served| served.is_from_cache()).map(served).sum::<u64>();
            CacheCounts {
                mapping: name.clone(),
                hits: found + hits,
                misses: served(Served::Miss) + served(Served::Bypass),
                sets: metrics.sets.get(),
                deletes: metrics.deletes.get(),
                errors: metrics.load_errors(),
            }
        };
        mappings.iter().enumerate().map(count).collect()
    };
    CacheStats::new(Arc::new(counter), Arc::new(move || node_keys(&topology.borrow())))
}

/// One key of each node that owns slots.
fn node_keys(topology: &Topology) -> Vec<String> {
    let mut keys: Vec<Option<String>> = vec![None; topology.nodes().len()];
    // Numbers spread evenly over the slots: a node with few slots is found, too, long before the end.
    for number in 0..200_000_u32 {
        let key = format!("dsproxy:{{{number}}}");
        if let Some(place) = topology.owner(slot::slot(key.as_bytes())).and_then(|owner| keys.get_mut(owner))
        {
            place.get_or_insert(key);
        }
        if number % 256 == 255 && keys.iter().all(Option::is_some) {
            break;
        }
    }
    keys.into_iter().flatten().collect()
}

impl Shared {
    fn target(&self) -> Result<&Target, ApiError> {
        let missing = || ApiError::NotFound(format!("no mapping named `{MAPPING}` is configured"));
        self.target.as_ref().ok_or_else(missing)
    }

    fn key(&self, user_id: &str) -> Result<(&Target, String), ApiError> {
        let target = self.target()?;
        let key = target.bound.mapping.template.build(&[user_id]);
        let refused = || ApiError::Malformed("user_id cannot be a key of this mapping".into());
        Ok((target, key.ok_or_else(refused)?))
    }

    /// Queues the row, then drops the cached entry: the next read decides by the time of each row which is the newest.
    async fn write(&self, request: WriteRequest) -> Result<(), ApiError> {
        let (target, key) = self.key(&request.user_id)?;
        let row = row_of(&target.bound, &request)?;
        let (mapping, key) = (target.bound.mapping.id, Bytes::from(key));
        let value = Bytes::from(request.value);
        let write = Write::Put { row, value };
        let write =
            KeyWrite { mapping, key: key.clone(), write, base: None, expires_at: None, applies: false };
        target.writes.write(vec![write]).await.map_err(refused)?;
        target.reads.note_write(mapping, &key);
        data::drop_entry(&self.gateway, &key).await;
        Ok(())
    }

    async fn read(&self, user_id: &str) -> Result<Option<Bytes>, ApiError> {
        let (_, key) = self.key(user_id)?;
        match self.call(&[b"GET", key.as_bytes()]).await? {
            BytesFrame::Null => Ok(None),
            BytesFrame::BlobString { data, .. } => Ok(Some(data)),
            BytesFrame::SimpleError { data, .. } => Err(ApiError::Unavailable(data.to_string())),
            _ => Err(ApiError::Internal("unexpected reply from upstream".into())),
        }
    }

    /// Runs a command as a client would.
    async fn call(&self, args: &[&[u8]]) -> Result<BytesFrame, ApiError> {
        let mut request = Vec::new();
        push_command(&mut request, args.iter().copied());
        let reply = self.gateway.call(Origin::Client, request).await;
        let reply = reply.map_err(|error: GatewayError| ApiError::Unavailable(error.to_string()))?;
        decode_reply(&reply).map_err(|error| ApiError::Internal(error.to_string()))
    }
}

fn refused(error: WriteError) -> ApiError {
    match error {
        WriteError::Through(text) => ApiError::Unavailable(text),
        WriteError::Full { .. }
        | WriteError::Fenced(_)
        | WriteError::Closed
        | WriteError::Outrun
        | WriteError::Journal(_) => ApiError::Unavailable(error.to_string()),
        WriteError::ReadOnly => ApiError::Unprocessable(error.to_string()),
    }
}

/// The row that a request asks to write; without a time of its own it is written now.
fn row_of(bound: &Bound, request: &WriteRequest) -> Result<Row, ApiError> {
    let ids = [request.user_id.as_str()];
    let row = match (request.ts, &bound.mapping.order_by, &bound.mapping.column) {
        (None, ..) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            Row::parse_at(bound, &ids, request.value.as_bytes(), now)
        }
        (Some(ts), Some(order), Some(column)) => {
            let ts = ts.to_string();
            let given =
                [(column.as_str(), Some(request.value.as_str())), (order.as_str(), Some(ts.as_str()))];
            Row::from_columns(bound, &ids, &given)
        }
        (Some(_), ..) => {
            let text = format!("mapping `{MAPPING}` has no `order_by` and `column` that `ts` could go to");
            return Err(ApiError::Unprocessable(text));
        }
    };
    row.map_err(|error| ApiError::Unprocessable(error.to_string()))
}
