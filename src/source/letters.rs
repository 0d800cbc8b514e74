//! Dead letters: what can be asked of them, and how they are applied after all.
//!
//! Must not know: SQL, caches.

use super::held;
use super::ledger::{self, Batch, Commit, DeadLetter, Letters, Once, Versioned};
use super::letterbox::Letterbox;
use super::{Source, SourceError};
use crate::mapping::MappingId;

impl Source {
    /// Dead letters, oldest first, at most `most`.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn dead_letters(&self, which: &Letters, most: u32) -> Result<Vec<DeadLetter>, SourceError> {
        self.backend.letters(which, i64::from(most)).await
    }

    /// Dead letters of these keys, in no order.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn dead_letters_of(
        &self,
        mapping: &str,
        keys: &[String],
    ) -> Result<Vec<DeadLetter>, SourceError> {
        self.backend.letters_of(mapping, keys).await
    }

    /// Counts the dead letters of every mapping. Later writes of their keys are marked there from then on, whichever proxy
    /// they come from; those of this process's own letters are at once.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn count_dead_letters(&self) -> Result<(), SourceError> {
        let before: Vec<u64> = self.letters.iter().map(Letterbox::before_counting).collect();
        let counts = self.backend.count_letters().await?;
        for (mapping, (letters, before)) in self.set.iter().zip(self.letters.iter().zip(before)) {
            let count = counts.iter().find(|count| count.mapping == mapping.name);
            letters.counted(count.map_or(0, |count| count.all), before);
            letters.counted_held(count.map_or(0, |count| count.held));
        }
        Ok(())
    }

    /// Dead letters of a mapping, as they were counted last.
    pub fn known_dead_letters(&self, mapping: MappingId) -> Option<u64> {
        self.letters.get(usize::from(mapping))?.count()
    }

    /// Those of them that wait behind others, as they were counted last.
    pub fn known_held(&self, mapping: MappingId) -> u64 {
        self.letters.get(usize::from(mapping)).map_or(0, Letterbox::held)
    }

    /// Keys whose dead letters wait for nothing any more, some of them.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn released(&self, mapping: &str) -> Result<Vec<String>, SourceError> {
        self.backend.released(mapping).await
    }

    /// The dead letters of `key` that wait for nothing any more, in their order.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn released_of(&self, mapping: &str, key: &str) -> Result<Vec<DeadLetter>, SourceError> {
        Ok(held::released(self.backend.letters_of(mapping, &[key.to_owned()]).await?))
    }

    /// A letter that has waited is refused: those behind it go on waiting.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn refuse(&self, letter: &DeadLetter, error: &SourceError) -> Result<(), SourceError> {
        self.backend.refuse(letter, error).await
    }

    /// Applies a dead letter, unless a newer write of its key was; in either case it is gone then. The cache is to be told,
    /// and what waited behind it released: see `ReadThrough::replay`.
    ///
    /// # Errors
    /// [`SourceError`]; the letter stays then. [`SourceError::Waits`]: another one comes first.
    pub async fn replay(&self, letter: &DeadLetter) -> Result<Commit, SourceError> {
        if letter.held {
            let all = self.backend.letters_of(&letter.mapping, std::slice::from_ref(&letter.key)).await?;
            if let Some(before) = held::waits_for(&all, letter) {
                return Err(SourceError::Waits { letter: before });
            }
        }
        self.apply_letter(letter).await
    }

    /// As [`Source::replay`], of a letter of which it is known that it waits for nothing.
    ///
    /// # Errors
    /// [`SourceError`]; the letter stays then.
    pub async fn apply_letter(&self, letter: &DeadLetter) -> Result<Commit, SourceError> {
        let gone = || SourceError::schema("42704", format!("there is no mapping \"{}\"", letter.mapping));
        let mapping = self.set.by_name(&letter.mapping).ok_or_else(gone)?.id;
        let bound = self.bound(mapping).ok_or_else(gone)?;
        let change = ledger::change_of(bound, letter)?;
        let writes = [Versioned { change: &change, version: letter.version as u64, value: None }];
        let once = Once::Letter { id: letter.id, version: letter.version };
        let batch = Batch { writes: &writes, refused: &[], once, through: false, alone: None };
        self.commit(mapping, &batch).await
    }

    /// Removes dead letters without applying them; how many. Those that wait behind others only where they are named.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn drop_dead_letters(&self, which: &Letters) -> Result<u64, SourceError> {
        self.backend.drop_letters(which).await
    }
}
