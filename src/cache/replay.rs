//! Dead letters that are applied after all: the row, then everything that is older than it now.
//!
//! Must not know: who wants it.

use std::time::Duration;

use bytes::Bytes;

use super::ReadThrough;
use crate::failpoint;
use crate::mapping::{MappingId, WriteMode};
use crate::source::{Commit, Committed, DeadLetter, Letters, SourceError, Touched};

/// What became of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// It is in the database; otherwise a newer write of its key was there, and it is dropped.
    pub applied: bool,
    /// The cache has forgotten what is older: the entry of the key, and the entries that depend on the row. Otherwise it
    /// could not be reached.
    pub told: bool,
    /// What became of the writes that waited behind it.
    pub released: Vec<Released>,
}

/// A write that had waited behind a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// Its own number as a dead letter.
    pub id: i64,
    /// Its key.
    pub key: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a write that had waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the database.
    Applied,
    /// A newer write of its key was there.
    Outrun,
    /// It was refused, and others wait behind it now.
    Refused(String),
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

    /// Applies a dead letter, unless a newer write of its key was, and outdates what the cache has of the row; then what
    /// has waited behind it, as far as nothing of that is refused.
    ///
    /// # Errors
    /// [`SourceError`]; the letter stays then.
    pub async fn replay(&self, letter: &DeadLetter) -> Result<Replayed, SourceError> {
        let commit = self.shared.source.replay(letter).await?;
        let replayed = self.replayed(letter, commit).await;
        // It is applied: whatever stops the release, the next look goes on with it.
        let released = self.release(&letter.mapping, &letter.key).await.unwrap_or_default();
        Ok(Replayed { released, ..replayed })
    }

    /// Removes dead letters without applying them; how many, and what became of the writes that waited behind them.
    ///
    /// # Errors
    /// [`SourceError`]; what has waited is released later, if it was only that which failed.
    pub async fn drop_letters(&self, which: &Letters) -> Result<(u64, Vec<Released>), SourceError> {
        let source = &self.shared.source;
        let named = match u32::try_from(which.ids.len()) {
            Ok(1..) => source.dead_letters(which, u32::MAX).await?,
            _ => Vec::new(),
        };
        let count = source.drop_dead_letters(which).await?;
        // Readers have seen what waited.
        for letter in named.iter().filter(|letter| letter.held) {
            self.forget(&letter.key).await;
        }
        Ok((count, self.release_all().await?))
    }

    /// Applies what waits for nothing any more, of all keys.
    ///
    /// # Errors
    /// [`SourceError`]: the first; keys that it is not about are seen to all the same.
    pub async fn release_all(&self) -> Result<Vec<Released>, SourceError> {
        let (mut released, mut failure) = (Vec::new(), None);
        let mappings = self.shared.source.mappings().iter();
        for mapping in mappings.filter(|mapping| mapping.write != WriteMode::None) {
            for key in self.shared.source.released(&mapping.name).await? {
                match self.release(&mapping.name, &key).await {
                    Ok(some) => released.extend(some),
                    Err(error @ SourceError::Unavailable { .. }) => return Err(error),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        failure.map_or(Ok(released), Err)
    }

    /// The same of one key. Any number of processes may do so at once: each write is applied once, in its order.
    async fn release(&self, mapping: &str, key: &str) -> Result<Vec<Released>, SourceError> {
        let mut released = Vec::new();
        loop {
            let letters = self.shared.source.released_of(mapping, key).await?;
            if letters.is_empty() {
                return Ok(released);
            }
            for letter in &letters {
                failpoint::hit("held.release");
                let outcome = match self.shared.source.apply_letter(letter).await {
                    // Somebody else has just seen to it.
                    Ok(Commit { repeated: true, .. }) => continue,
                    Ok(commit) => match self.replayed(letter, commit).await.applied {
                        true => Outcome::Applied,
                        false => Outcome::Outrun,
                    },
                    Err(error @ SourceError::BadData { .. }) => {
                        self.shared.source.refuse(letter, &error).await?;
                        self.forget(key).await;
                        tracing::error!(
                            mapping, key, letter = letter.id, %error,
                            "the database refused a write that had waited; what is behind it goes on waiting (`dsproxy dlq`)"
                        );
                        Outcome::Refused(error.to_string())
                    }
                    Err(error) => return Err(error),
                };
                let refused = matches!(outcome, Outcome::Refused(_));
                released.push(Released { id: letter.id, key: letter.key.clone(), outcome });
                if refused {
                    return Ok(released);
                }
            }
        }
    }

    /// Says to the cache that `letter` was applied.
    async fn replayed(&self, letter: &DeadLetter, commit: Commit) -> Replayed {
        let applied = commit.held.first().is_some_and(|held| *held != Committed::Unknown);
        let mut told = self.forget(&letter.key).await;
        if let Some(mapping) = self.shared.source.mappings().by_name(&letter.mapping) {
            told &= self.touch_or_keep(mapping.id, commit.touched).await;
        }
        if !told {
            tracing::warn!(
                mapping = letter.mapping,
                key = letter.key,
                "a dead letter was applied, but the cache could not be told; what it has of the row goes with its time to live"
            );
        }
        Replayed { applied, told, released: Vec::new() }
    }

    /// Drops what the cache has of `key`; whether it could be told.
    async fn forget(&self, key: &str) -> bool {
        let key = [Bytes::from(key.to_owned())];
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * 2_u32.pow(attempt)).await;
            }
            if self.invalidate(&key).await.failed == 0 {
                return true;
            }
        }
        false
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
