//! Keeps this proxy's place among the writers of the database, and the table of versions small.
//!
//! Must not know: what is written.
//!
//! Every proxy says now and then below which version it will apply nothing any more. Below the least that any of them said,
//! no older write of any key can come, from no queue and no journal: so nobody needs to know there which version a key has,
//! and those notes go. A proxy that has died with writes in its journal holds the bound where it was until it is started
//! again, or its journal is adopted.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::StartErrors;
use crate::clock::STEP;
use crate::metrics::VersionMetrics;
use crate::source::{Source, SourceError, Standing, WORD, Writer};
use crate::writeback::WriteBehind;
use std::sync::Arc;

/// This proxy among the writers.
#[derive(Clone)]
pub(super) struct Place {
    source: Arc<Source>,
    writes: WriteBehind,
    writer: Writer,
    metrics: VersionMetrics,
    /// It has said goodbye; held while it says anything, so that nothing it says comes later.
    left: Arc<Mutex<bool>>,
}

impl Place {
    /// Takes a place: from now on versions have its number. Before anything is written.
    pub async fn take(
        source: &Arc<Source>,
        writes: &WriteBehind,
        writer: Writer,
        metrics: VersionMetrics,
    ) -> Result<Self, StartErrors> {
        source.agree(&writer.id).await?;
        let seat = source.register(&writer).await?;
        writes.clock().set_writer(seat.number);
        writes.clock().observe(seat.last);
        tracing::debug!(number = seat.number, instance = writer.id, "this proxy's place among the writers");
        let left = Arc::default();
        Ok(Self { source: source.clone(), writes: writes.clone(), writer, metrics, left })
    }

    /// What an earlier process left is restored: versions that are given from now on are this one's.
    pub fn begin(&self) {
        self.writes.seated(self.writer.id.clone(), self.writer.epoch);
    }

    /// Says every `interval` what is still needed, and removes what nobody needs, until `stop`.
    pub async fn keep(self, interval: Duration, stop: CancellationToken) {
        tokio::join!(self.keep_word(&stop), self.keep_small(interval, &stop));
    }

    /// Says again where versions are kept, before its word is over.
    async fn keep_word(&self, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(WORD / 4)).await.is_some() {
            let left = self.left.lock().await;
            if *left {
                return;
            }
            match self.source.agree(&self.writer.id).await {
                Ok(()) => {}
                // It was away for so long that another one has begun with other settings.
                Err(error @ SourceError::Schema { .. }) => tracing::error!(%error, "proxies disagree"),
                Err(error) => tracing::debug!(%error, "cannot say where versions are kept"),
            }
            drop(left);
        }
    }

    async fn keep_small(&self, interval: Duration, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            // After a failure of the journal's disk nobody knows what a restart will find: the last word stands.
            let Some(needed) = self.writes.needed() else { continue };
            let left = self.left.lock().await;
            if *left {
                return;
            }
            match self.source.note(&self.writer, Some(needed), self.writes.clock().last()).await {
                Ok(Standing { known: false, .. }) => {
                    tracing::error!(
                        instance = self.writer.id,
                        "this proxy is no longer in dsproxy_writers: it runs twice, or its row was removed"
                    );
                    return;
                }
                Ok(standing) => {
                    drop(left);
                    self.metrics.bound(Duration::from_micros(standing.bound / STEP));
                    self.prune(standing.bound).await;
                }
                Err(error) => tracing::debug!(%error, "cannot note which versions are needed"),
            }
        }
    }

    async fn prune(&self, bound: u64) {
        loop {
            match self.source.prune(bound).await {
                Ok(0) => return,
                Ok(removed) => self.metrics.pruned.inc_by(removed),
                Err(error) => return tracing::debug!(%error, "cannot prune versions"),
            }
        }
    }

    /// The end, with so many rows left to be written.
    pub async fn leave(&self, rows_left: usize) {
        if let Err(error) = self.source.disagree(&self.writer.id).await {
            tracing::debug!(%error, "cannot take back where versions are kept");
        }
        let mut left = self.left.lock().await;
        *left = true;
        let done = rows_left == 0 && self.writes.needed().is_some() && self.writes.fenced().is_none();
        if done && let Err(error) = self.source.note(&self.writer, None, self.writes.clock().last()).await {
            tracing::debug!(%error, "cannot say goodbye to the other writers");
        }
    }
}
