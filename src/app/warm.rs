//! Loads rows into the cache before anybody asks for them.
//!
//! Must not know: clients; what is loaded goes the way of any miss.
//!
//! The ids are read page by page in their order, so that nothing is held open and a row that is added behind is found. What
//! goes wrong ends the warming of that mapping, with a line in the log: clients load what they need themselves.

use super::ids::{IdPages, PAGE};
use crate::cache::ReadThrough;
use crate::config::WarmUp;
use crate::mapping::MappingId;
use crate::source::Source;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// One mapping to be warmed.
pub(super) struct Warming {
    pub source: Arc<Source>,
    pub reads: ReadThrough,
    pub mapping: MappingId,
    pub wanted: WarmUp,
}

impl Warming {
    /// Runs until all is loaded, something goes wrong, or `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let name = self.source.mappings().get(self.mapping).map(|m| m.name.clone()).unwrap_or_default();
        let begun = Instant::now();
        match stop.run_until_cancelled(self.load_all()).await {
            None => {}
            Some(Ok(keys)) => {
                tracing::info!(mapping = name, keys, took = ?begun.elapsed(), "the mapping is warm");
            }
            Some(Err(error)) => tracing::warn!(mapping = name, error, "warming has ended early"),
        }
    }

    async fn load_all(&self) -> Result<u64, String> {
        let mapping = self.source.mappings().get(self.mapping).ok_or("the mapping is gone")?;
        if mapping.template.placeholders().next().is_none() {
            // The only key there is.
            return self.load(&[Vec::new()]).await.map(|()| 1);
        }
        let ids = IdPages::new(&self.source, self.mapping, self.wanted.filter.as_deref())?;
        let (mut done, mut after) = (0, Vec::new());
        loop {
            let begun = Instant::now();
            let room = self.wanted.limit.map_or(PAGE, |limit| limit.saturating_sub(done).min(PAGE));
            let page = if room == 0 { Vec::new() } else { ids.next(&after, room).await? };
            let Some(last) = page.last().cloned() else { return Ok(done) };
            self.load(&page).await?;
            done += page.len() as u64;
            after = last;
            if let Some(rate) = self.wanted.rate {
                let due = Duration::from_secs_f64(page.len() as f64 / rate.max(1) as f64);
                tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
            }
        }
    }

    async fn load(&self, page: &[Vec<String>]) -> Result<(), String> {
        let mapping = self.source.mappings().get(self.mapping).ok_or("the mapping is gone")?;
        // An id that no key can have (a text with the literal that would end it) is nobody's key.
        let keys: Vec<_> = page
            .iter()
            .filter_map(|ids| Some((self.mapping, Bytes::from(mapping.template.build(ids)?))))
            .collect();
        self.reads.warm(keys).await
    }
}
