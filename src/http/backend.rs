//! What endpoints run: commands on keys, as a RESP client would give them; statements; and what these make untrue.
//!
//! Must not know: HTTP beyond its error type, routes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prometheus::IntCounter;
use redis_protocol::resp3::types::BytesFrame;

use super::error::ApiError;
use crate::cache::ReadThrough;
use crate::cluster::{Gateway, GatewayError, Origin, Served};
use crate::mapping::{Durability, MappingId, WriteMode};
use crate::metrics::{CacheOperations, Metrics};
use crate::resp::{bulk_string, decode_reply, push_command};
use crate::route::ParamValue;
use crate::source::{Param, Rows, Source, SourceError, Statement};

/// The ways to the data. Cheap to clone.
#[derive(Clone)]
pub struct Backend {
    gateway: Gateway,
    /// What stands behind the mappings; `None` without a database.
    data: Option<(Arc<Source>, ReadThrough)>,
    source_name: &'static str,
    /// By mapping: entries that were dropped here.
    deletes: Vec<IntCounter>,
    operations: CacheOperations,
}

impl Backend {
    /// Commands go through `gateway`, statements to the database of this name.
    pub fn new(
        gateway: Gateway,
        data: Option<(Arc<Source>, ReadThrough)>,
        source_name: &'static str,
        metrics: &Metrics,
    ) -> Self {
        let names = data.iter().flat_map(|(source, _)| source.mappings().iter().map(|mapping| &mapping.name));
        let deletes = names.map(|name| metrics.mapping(name).deletes).collect();
        Self { gateway, data, source_name, deletes, operations: metrics.http.operations.clone() }
    }

    /// The name of what stands behind the cache, as answers give it.
    pub fn source_name(&self) -> &'static str {
        self.source_name
    }

    /// Whether there is a mapping of this name.
    pub fn has_mapping(&self, name: &str) -> bool {
        self.data.as_ref().is_some_and(|(source, _)| source.mappings().by_name(name).is_some())
    }

    /// The key of `mapping` that stands for these ids; `None` when no key does.
    pub fn key(&self, mapping: &str, ids: &[String]) -> Option<String> {
        self.data.as_ref()?.0.mappings().by_name(mapping)?.template.build(ids)
    }

    /// Runs a statement.
    pub async fn statement(
        &self,
        statement: &Statement,
        values: &[Cow<'_, ParamValue>],
    ) -> Result<Rows, ApiError> {
        let (source, _) =
            self.data.as_ref().ok_or_else(|| ApiError::Internal("there is no database".into()))?;
        let raw: Vec<_> = values.iter().map(|value| raw_json(value)).collect();
        let texts: Vec<_> = values.iter().map(|value| value.to_text().unwrap_or_default()).collect();
        let values = values.iter().map(|value| &**value);
        let params = values.zip(&texts).zip(&raw).map(|((value, text), raw)| match (value, raw) {
            (ParamValue::Absent | ParamValue::Null, _) => Param::Null,
            (ParamValue::Integer(number), _) => Param::Int(*number),
            (ParamValue::Boolean(value), _) => Param::Bool(*value),
            (ParamValue::Json(_), Some(raw)) => Param::Json(raw),
            _ => Param::Text(text),
        });
        let params: Vec<Param<'_>> = params.collect();
        source.statement(statement, &params).await.map_err(failed)
    }

    /// Says that a row of `mapping` with these columns was written by a statement: its entry is dropped, and what depends
    /// on it is outdated. Where the mapping is written through, the entry is loaded again at once.
    pub async fn written(&self, mapping: &str, columns: &serde_json::Map<String, serde_json::Value>) {
        let Some((source, reads)) = &self.data else { return };
        let Some(mapping) = source.mappings().by_name(mapping) else { return };
        let text = |name: &str| columns.get(name).map(bare);
        let ids: Option<Vec<String>> = mapping.template.placeholders().map(|(name, _)| text(name)).collect();
        let key = ids.and_then(|ids| mapping.template.build(&ids));
        if let Some(key) = &key {
            self.forget(key).await;
        }
        let columns: Vec<(String, String)> =
            columns.iter().map(|(name, value)| (name.clone(), bare(value))).collect();
        let columns: Vec<(&str, &str)> =
            columns.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let failed = reads.touch_dependents(mapping.id, &columns).await;
        if failed > 0 {
            tracing::warn!(
                failed,
                "lists that depend on a row cannot be outdated; they go with their time to live"
            );
        }
        let through = mapping.write != WriteMode::None && mapping.durability == Durability::Database;
        if let Some(key) = key.filter(|_| through)
            && let Err(error) = reads.warm(vec![(mapping.id, key.into())]).await
        {
            tracing::warn!(error, "a written row cannot be loaded; its next reader loads it");
        }
    }

    /// Drops the entry of a key: of a mapped one with all that is being loaded for it, a plain one as it is.
    pub async fn forget(&self, key: &str) {
        let mapped = self
            .data
            .as_ref()
            .and_then(|(source, reads)| Some((source.mappings().find_id(key.as_bytes())?, reads)));
        let failed = match mapped {
            Some((mapping, reads)) => {
                let done = reads.invalidate(&[Bytes::copy_from_slice(key.as_bytes())]).await;
                self.count_deletes(mapping, done.dropped);
                done.failed > 0
            }
            None => self.run(Origin::Internal, &[b"DEL", key.as_bytes()]).await.is_err(),
        };
        if failed {
            tracing::warn!("an outdated entry cannot be dropped; it goes with its time to live");
        }
    }

    /// Drops every entry of a mapping whose key matches a pattern.
    pub async fn forget_pattern(&self, pattern: &str) {
        let Some((_, reads)) = &self.data else { return };
        let done = reads.invalidate_pattern(pattern.as_bytes()).await;
        if let Some(deletes) = self.deletes.first() {
            // Which mapping each was of is not told; statistics add them all up.
            deletes.inc_by(done.dropped as u64);
        }
        if done.failed > 0 {
            tracing::warn!(pattern, "outdated entries cannot be dropped; they go with their time to live");
        }
    }

    fn count_deletes(&self, mapping: MappingId, dropped: usize) {
        if let Some(deletes) = self.deletes.get(usize::from(mapping)) {
            deletes.inc_by(dropped as u64);
        }
    }

    /// The value of a key, and where it was found.
    pub async fn get(&self, key: &str) -> Result<(Option<Bytes>, Served), ApiError> {
        let (reply, served) = self.raw(Origin::Client, &[b"GET", key.as_bytes()]).await?;
        if let Some(value) = bulk_string(&reply) {
            return Ok((Some(value), served));
        }
        match decoded(&reply)? {
            BytesFrame::Null => Ok((None, served)),
            BytesFrame::BlobString { data, .. } => Ok((Some(data), served)),
            BytesFrame::SimpleError { data, .. } => Err(ApiError::Unavailable(data.to_string())),
            _ => Err(unexpected()),
        }
    }

    /// Writes a key.
    pub async fn set(&self, key: &str, value: &[u8]) -> Result<(), ApiError> {
        match self.call(&[b"SET", key.as_bytes(), value]).await?.0 {
            BytesFrame::SimpleString { .. } => Ok(()),
            BytesFrame::SimpleError { data, .. } => Err(refused(&data)),
            _ => Err(unexpected()),
        }
    }

    /// Deletes a key, and the row that it stands for; how many entries that were.
    pub async fn delete(&self, key: &str) -> Result<i64, ApiError> {
        match self.call(&[b"DEL", key.as_bytes()]).await?.0 {
            BytesFrame::Number { data, .. } => Ok(data),
            // Nothing is wrong with the request: the mapping of this key does not delete.
            BytesFrame::SimpleError { data, .. } => Err(match refused(&data) {
                ApiError::Unprocessable(text) => ApiError::Conflict(text),
                other => other,
            }),
            _ => Err(unexpected()),
        }
    }

    /// Several values at once, in the order of their keys.
    pub async fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, ApiError> {
        let mut args: Vec<&[u8]> = vec![b"MGET"];
        args.extend(keys.iter().map(|key| key.as_bytes()));
        match self.call(&args).await?.0 {
            BytesFrame::Array { data, .. } => Ok(data
                .into_iter()
                .map(|frame| match frame {
                    BytesFrame::BlobString { data, .. } => Some(data),
                    _ => None,
                })
                .collect()),
            BytesFrame::SimpleError { data, .. } => Err(ApiError::Unavailable(data.to_string())),
            _ => Err(unexpected()),
        }
    }

    /// Writes a key that lives for so many seconds.
    pub async fn set_for(&self, key: &str, value: &[u8], seconds: u32) -> Result<(), ApiError> {
        let seconds = seconds.to_string();
        match self.call(&[b"SET", key.as_bytes(), value, b"EX", seconds.as_bytes()]).await?.0 {
            BytesFrame::SimpleString { .. } => Ok(()),
            BytesFrame::SimpleError { data, .. } => Err(refused(&data)),
            _ => Err(unexpected()),
        }
    }

    /// Keys of all primaries.
    pub async fn key_count(&self) -> Result<i64, ApiError> {
        match self.call(&[b"DBSIZE"]).await?.0 {
            BytesFrame::Number { data, .. } => Ok(data),
            BytesFrame::SimpleError { data, .. } => Err(ApiError::Unavailable(data.to_string())),
            _ => Err(unexpected()),
        }
    }

    /// Bytes that the node uses which owns `key`.
    pub async fn node_memory(&self, key: &str) -> Result<u64, ApiError> {
        // INFO itself is answered by the proxy; a script runs where its key lives.
        let script = b"return redis.call('INFO', 'memory')";
        let reply = self.run(Origin::Internal, &[b"EVAL", script, b"1", key.as_bytes()]).await?.0;
        let info = text(reply).ok_or_else(unexpected)?;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        used.and_then(|used| used.trim().parse().ok()).ok_or_else(unexpected)
    }

    /// Runs a command as a client would; its reply, and where that was found.
    pub async fn call(&self, args: &[&[u8]]) -> Result<(BytesFrame, Served), ApiError> {
        self.run(Origin::Client, args).await
    }

    async fn run(&self, origin: Origin, args: &[&[u8]]) -> Result<(BytesFrame, Served), ApiError> {
        let (reply, served) = self.raw(origin, args).await?;
        Ok((decoded(&reply)?, served))
    }

    /// The reply as it came.
    async fn raw(&self, origin: Origin, args: &[&[u8]]) -> Result<(Bytes, Served), ApiError> {
        let mut request = Vec::with_capacity(64);
        push_command(&mut request, args.iter().copied());
        let start = Instant::now();
        let reply = self.gateway.call_served(origin, request).await;
        self.operations.observe(args.first().copied().unwrap_or_default(), start.elapsed());
        reply.map_err(|error: GatewayError| ApiError::Unavailable(error.to_string()))
    }
}

fn decoded(reply: &[u8]) -> Result<BytesFrame, ApiError> {
    decode_reply(reply).map_err(|error| ApiError::Internal(error.to_string()))
}

fn text(frame: BytesFrame) -> Option<String> {
    match frame {
        BytesFrame::BlobString { data, .. }
        | BytesFrame::VerbatimString { data, .. }
        | BytesFrame::SimpleString { data, .. } => String::from_utf8(data.to_vec()).ok(),
        _ => None,
    }
}

/// A JSON value as characters: a text without its quotes.
fn bare(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn raw_json(value: &ParamValue) -> Option<Box<serde_json::value::RawValue>> {
    match value {
        ParamValue::Json(json) => serde_json::value::RawValue::from_string(json.to_string()).ok(),
        _ => None,
    }
}

/// Whose fault a failed statement is.
fn failed(error: SourceError) -> ApiError {
    let text = error.to_string();
    match &error {
        SourceError::Unavailable { .. } | SourceError::Waits { .. } => ApiError::Unavailable(text),
        // 23505 unique, 23503 foreign key, 23P01 exclusion: what is written contradicts what there is.
        SourceError::BadData { code, .. } if matches!(code.as_str(), "23505" | "23503" | "23P01") => {
            ApiError::Conflict(text)
        }
        SourceError::BadData { .. } => ApiError::Unprocessable(text),
        SourceError::Schema { .. } | SourceError::TooLarge(_) | SourceError::Fenced { .. } => {
            ApiError::Internal(text)
        }
    }
}

fn unexpected() -> ApiError {
    ApiError::Internal("the cluster gave an unexpected reply".to_owned())
}

/// What an error reply to a write means: by its code, the client's value is wrong (`ERR`), or the cluster or the queue
/// cannot take it now.
fn refused(reply: &str) -> ApiError {
    match reply.split_once(' ') {
        Some(("ERR", text)) => ApiError::Unprocessable(text.to_owned()),
        _ => ApiError::Unavailable(reply.to_owned()),
    }
}
