//! Dead letters that are applied after all: the row, then everything that is older than it now.
//!
//! Must not know: who wants it.

use std::time::Duration;

use bytes::Bytes;

use super::ReadThrough;
use crate::mapping::MappingId;
use crate::source::{Committed, DeadLetter, Letters, SourceError, Touched};

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// It is in the database; otherwise a newer write of its key was there, and it is dropped.
    pub applied: bool,
    /// The cache has forgotten what is older: the entry of the key, and the entries that depend on the row. Otherwise it
    /// could not be reached.
    pub told: bool,
}

/// How often the cluster is asked to forget an entry.
const TRIES: u32 = 5;
/// Pause before the second try; it grows.
const PAUSE: Duration = Duration::from_millis(50);

impl ReadThrough {
    /// Dead letters, oldest first, at most `most`.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn dead_letters(&self, which: &Letters, most: u32) -> Result<Vec<DeadLetter>, SourceError> {
        self.shared.source.dead_letters(which, most).await
    }

    /// Applies a dead letter, unless a newer write of its key was, and outdates what the cache has of the row.
    ///
    /// # Errors
    /// [`SourceError`]; the letter stays then.
    pub async fn replay(&self, letter: &DeadLetter) -> Result<Replayed, SourceError> {
        let mapping = self.shared.source.mappings().by_name(&letter.mapping).map(|mapping| mapping.id);
        let commit = self.shared.source.replay(letter).await?;
        let applied = commit.held.first().is_some_and(|held| *held != Committed::Unknown);
        let mut told = true;
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * 2_u32.pow(attempt)).await;
            }
            told = self.invalidate(&[Bytes::from(letter.key.clone())]).await.failed == 0;
            if told {
                break;
            }
        }
        if let Some(mapping) = mapping {
            told &= self.touch_or_keep(mapping, commit.touched).await;
        }
        if !told {
            tracing::warn!(
                mapping = letter.mapping,
                key = letter.key,
                "a dead letter was applied, but the cache could not be told; what it has of the row goes with its time to live"
            );
        }
        Ok(Replayed { applied, told })
    }

    /// What cannot be outdated now is tried again for as long as this process lives.
    async fn touch_or_keep(&self, mapping: MappingId, touched: Touched) -> bool {
        if self.touch(mapping, &touched).await {
            return true;
        }
        if let Some(writes) = &self.shared.writes {
            writes.keep_touched(mapping, touched);
        }
        false
    }
}
