//! What an earlier process tried as a whole and did not come to confirm: found out at the start.
//!
//! Must not know: commands, clients.

use super::writes::Cache;
use super::{StartError, StartErrors};
use crate::journal::Opened;
use crate::modify::find_out;
use crate::writeback::{Race, RestoreError, Restored, Settled, Tried, Verdicts, WriteBehind};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long nodes are asked; what waits in the same lane waits so long, too.
const FIND_OUT: Duration = Duration::from_secs(30);

/// What the records of the journal say of others.
pub(super) fn verdicts(opened: &Opened) -> Result<Verdicts, StartErrors> {
    let (mut verdicts, mut problem) = (Verdicts::default(), None);
    opened
        .replay(|record| {
            if let Err(error) = verdicts.note(&Bytes::copy_from_slice(record.payload)) {
                problem = Some(RestoreError::from(error));
            }
        })
        .map_err(StartError::from)?;
    match problem {
        None => Ok(verdicts),
        Some(error) => Err(StartError::Restore(error).into()),
    }
}

impl Cache {
    /// Finds out which of the units were applied that an earlier process tried and did not come to confirm.
    pub(super) async fn decide_again(&self, writes: &WriteBehind, tried: Vec<Restored>) {
        let mut units: BTreeMap<u64, (u64, Vec<Settled>)> = BTreeMap::new();
        for write in tried {
            let Some(Tried { unit, fence }) = write.tried else { continue };
            let (_, all) = units.entry(unit).or_insert((fence, Vec::new()));
            all.push((write.mapping, write.key, write.version));
        }
        for (fence, unit) in units.into_values() {
            let keys: Vec<_> = unit.iter().map(|(_, key, version)| (key.clone(), *version)).collect();
            let deadline = Instant::now() + FIND_OUT;
            let race = find_out(&self.gateway, writes.clock(), &keys, fence, deadline).await;
            if race == Race::Unknown {
                tracing::warn!(
                    writes = unit.len(),
                    "no node says whether a transaction was executed when its proxy died; it is taken back"
                );
            }
            if let Err(error) = writes.settle(&unit, race).await {
                tracing::warn!(%error, "the journal does not take what became of a transaction");
            }
        }
    }
}
