//! What an earlier process brought to the database: the cache is told again, for that process may have died before it could,
//! or a node of the cluster right after it.
//!
//! Must not know: clients, which node has a key.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;

use super::writes::{AT_ONCE, Cache};
use super::{StartError, StartErrors};
use crate::journal::Opened;
use crate::mapping::MappingId;
use crate::source::{Claim, Source, SourceError};
use crate::writeback::{Committed, Verdicts, WriteBehind, written};

/// Time between two tries.
const TELL_AGAIN: Duration = Duration::from_millis(500);

/// The newest write of each key that is in the database, of those that the journal still has.
pub(super) fn read(
    source: &Source,
    opened: &Opened,
    claim: &Claim,
    verdicts: &Verdicts,
) -> Result<HashMap<MappingId, Vec<Committed>>, StartErrors> {
    let mut newest: HashMap<(MappingId, Bytes), Committed> = HashMap::new();
    opened
        .replay(|record| {
            // What cannot be read has been found as the queues were filled.
            let payload = Bytes::copy_from_slice(record.payload);
            let Ok(all) = written(record.first, &payload, verdicts) else { return };
            for write in all.filter(|write| write.sequence <= claim.offset(&write.mapping, write.lane)) {
                let Some(mapping) = source.mappings().by_name(&write.mapping) else { continue };
                let committed = Committed {
                    key: write.key.clone(),
                    version: write.version,
                    sequence: 0,
                    shown: write.shown,
                    expires_at: None,
                    rejected: false,
                    held: None,
                };
                newest.insert((mapping.id, write.key), committed);
            }
        })
        .map_err(StartError::from)?;
    let mut by_mapping: HashMap<MappingId, Vec<Committed>> = HashMap::new();
    for ((mapping, _), committed) in newest {
        by_mapping.entry(mapping).or_default().push(committed);
    }
    Ok(by_mapping)
}

/// Says of these writes that they are in the database. Until all of that is said the journal keeps them, since the next process
/// would have to.
pub(super) async fn tell(cache: Cache, writes: WriteBehind, applied: HashMap<MappingId, Vec<Committed>>) {
    for (mapping, keys) in applied {
        for some in keys.chunks(AT_ONCE) {
            let mut some = some.to_vec();
            while let Err(error) = find_refused(&cache.source, mapping, &mut some).await {
                tracing::debug!(%error, "cannot look for dead letters of an earlier process; again in a moment");
                tokio::time::sleep(TELL_AGAIN).await;
            }
            writes.keep_recent(mapping, &some);
            let mut left = cache.clone().committed(mapping, some).await;
            while !left.is_empty() {
                tokio::time::sleep(TELL_AGAIN).await;
                left = cache.clone().committed(mapping, left).await;
            }
        }
    }
    writes.keep_journal(false);
}

/// Marks those whose keys have dead letters: the journal does not tell which writes the database has refused.
async fn find_refused(
    source: &Source,
    mapping: MappingId,
    applied: &mut [Committed],
) -> Result<(), SourceError> {
    let Some(settings) = source.mappings().get(mapping) else { return Ok(()) };
    if source.known_dead_letters(mapping) == Some(0) {
        return Ok(());
    }
    let keys: Vec<String> = applied.iter().map(|it| String::from_utf8_lossy(&it.key).into_owned()).collect();
    let refused: HashSet<String> =
        source.dead_letters_of(&settings.name, &keys).await?.into_iter().map(|letter| letter.key).collect();
    for (committed, _) in applied.iter_mut().zip(keys).filter(|(_, key)| refused.contains(key)) {
        (committed.rejected, committed.shown) = (true, None);
    }
    Ok(())
}
