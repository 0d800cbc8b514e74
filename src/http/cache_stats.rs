//! `/api/v1/cache/stats`: what the cache did since the last reset, and what the cluster holds.
//!
//! Must not know: who counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::{Value as Json, json};

use super::answer::timestamp;
use super::backend::Backend;
use super::error::ApiError;

/// What was counted of one mapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Its name.
    pub mapping: String,
    /// Reads that needed no database.
    pub hits: u64,
    /// Reads that did.
    pub misses: u64,
    /// Loaded values that were stored.
    pub sets: u64,
    /// Entries that were dropped since they were no longer true.
    pub deletes: u64,
    /// Loads that failed.
    pub errors: u64,
}

impl CacheCounts {
    fn since(&self, base: &Self) -> Self {
        Self {
            mapping: self.mapping.clone(),
            hits: self.hits.saturating_sub(base.hits),
            misses: self.misses.saturating_sub(base.misses),
            sets: self.sets.saturating_sub(base.sets),
            deletes: self.deletes.saturating_sub(base.deletes),
            errors: self.errors.saturating_sub(base.errors),
        }
    }

    fn add(mut self, other: &Self) -> Self {
        self.hits += other.hits;
        self.misses += other.misses;
        self.sets += other.sets;
        self.deletes += other.deletes;
        self.errors += other.errors;
        self
    }

    fn json(&self) -> Json {
        let reads = self.hits + self.misses;
        let rate = if reads == 0 { 0.0 } else { self.hits as f64 / reads as f64 };
        json!({
            "hits": self.hits, "misses": self.misses, "sets": self.sets, "deletes": self.deletes,
            "errors": self.errors, "hit_rate": (rate * 1000.0).round() / 1000.0,
        })
    }
}

/// Counts everything, by mapping. Called for each request.
pub type Counter = dyn Fn() -> Vec<CacheCounts> + Send + Sync;

/// One key of each primary, for questions to each of them.
pub type NodeKeys = dyn Fn() -> Vec<String> + Send + Sync;

/// The counts, and what they were at the last reset.
pub struct CacheStats {
    counter: Arc<Counter>,
    node_keys: Arc<NodeKeys>,
    base: Mutex<Vec<CacheCounts>>,
}

impl CacheStats {
    /// Statistics of what `counter` counts.
    pub fn new(counter: Arc<Counter>, node_keys: Arc<NodeKeys>) -> Self {
        Self { counter, node_keys, base: Mutex::default() }
    }

    /// Statistics of nothing.
    pub fn empty() -> Self {
        Self::new(Arc::new(Vec::new), Arc::new(Vec::new))
    }

    /// Counts from now on.
    pub fn reset(&self) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = (self.counter)();
    }

    fn counts(&self) -> Vec<CacheCounts> {
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let zero = CacheCounts::default();
        let now = (self.counter)();
        now.iter().enumerate().map(|(at, counts)| counts.since(base.get(at).unwrap_or(&zero))).collect()
    }

    /// The answer. What the cluster does not tell in time is null.
    pub async fn json(&self, backend: Option<&Backend>) -> Json {
        let counts = self.counts();
        let total = counts.iter().fold(CacheCounts::default(), CacheCounts::add);
        let mappings: serde_json::Map<String, Json> =
            counts.iter().map(|counts| (counts.mapping.clone(), counts.json())).collect();
        let keys = (self.node_keys)();
        let cluster = match backend {
            Some(backend) => cluster(backend, &keys).await.unwrap_or(Json::Null),
            None => Json::Null,
        };
        json!({
            "cache_stats": total.json(),
            "mappings": mappings,
            "cluster": cluster,
            "timestamp": timestamp(SystemTime::now()),
        })
    }
}

/// Memory and keys of all primaries.
async fn cluster(backend: &Backend, keys: &[String]) -> Result<Json, ApiError> {
    let mut memory = 0;
    for key in keys {
        memory += backend.node_memory(key).await?;
    }
    Ok(json!({"keys": backend.key_count().await?, "memory_bytes": memory, "primaries": keys.len()}))
}
