//! Units that are tried as a whole: queued undecided, then all of their writes count, or none does.
//!
//! Must not know: Redis, clients, how the cache decides.
//!
//! What depends on more than its own keys (`EXEC` after `WATCH`, `MSETNX` of several keys) cannot be decided again after a crash
//! by looking at them: the others may have changed. So such a unit counts in a replay only when its confirmation is in the journal,
//! or when the cache shows that it was applied. The confirmation is durable before anybody is told of success, and before
//! any of the writes is flushed; without one, nobody was told, and nothing of the unit is in the database.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::handle::WriteBehind;
use super::log::Staged;
use super::record::Operation;
use super::shared::Shared;
use super::{InCache, KeyWrite, Race, WriteError};
use crate::mapping::MappingId;

/// What makes a unit one that is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    /// Its number.
    pub(super) unit: u64,
    /// See [`super::record::Record::fence`].
    pub(super) fence: u64,
}

/// One write of a unit: its mapping, key and version.
pub type Settled = (MappingId, Bytes, u64);

impl WriteBehind {
    /// Takes the writes of a unit, each with its `base`, and waits until they are durable; answers their versions. What became
    /// of them is said with [`WriteBehind::settle`]. `fence`: see [`super::record::Record::fence`].
    ///
    /// # Errors
    /// [`WriteError`]; `Outrun` when another write of one of the keys came first, or is undecided. Nothing has happened then.
    pub async fn attempt(&self, unit: Vec<KeyWrite>, fence: u64) -> Result<Vec<u64>, WriteError> {
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |outcome| drop(tell.send(outcome)));
        let number = self.shared.trials.fetch_add(1, Ordering::Relaxed);
        match self.take(unit, Some(Trial { unit: number, fence }), done)? {
            Some(versions) => Ok(versions),
            None => told.await.unwrap_or(Err(WriteError::Closed)),
        }
    }

    /// Says what became of a unit in the cache. When it has won, this ends once that is durable.
    ///
    /// # Errors
    /// The journal does not take the confirmation: the writes count and will be in the database, but a crash before that may
    /// undo them if the cache loses them, too.
    pub async fn settle(&self, unit: &[Settled], race: Race) -> Result<(), WriteError> {
        let confirmed = match race {
            Race::Won => self.confirm(unit).await,
            Race::Lost | Race::Unknown => Ok(()),
        };
        let known = if race == Race::Unknown { InCache::Unknown } else { InCache::Stored };
        for (mapping, key, version) in unit {
            self.decide(*mapping, key, *version, race);
            self.resolve(*mapping, key, known);
            if race == Race::Unknown {
                // The next process must not find out something else of some of them.
                self.shared.withdraw(*version);
            }
        }
        confirmed
    }

    async fn confirm(&self, unit: &[Settled]) -> Result<(), WriteError> {
        let shared = &self.shared;
        let journaled = unit.iter().any(|(mapping, ..)| shared.is_journaled(*mapping));
        let Some(journal) = shared.journal.get().filter(|_| journaled) else { return Ok(()) };
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |outcome| drop(tell.send(outcome)));
        let verdicts = unit.iter().map(|(.., version)| Operation::Confirm(*version)).collect();
        shared.in_flight.fetch_add(1, Ordering::AcqRel);
        if let Err(refused) = journal.append(Staged::verdicts(shared, verdicts, Some(done))) {
            shared.landed();
            return Err(WriteError::Journal(refused.error));
        }
        told.await.unwrap_or(Err(WriteError::Closed)).map(drop)
    }
}

impl Shared {
    /// Writes of a unit that is not taken as a whole never were.
    pub(super) fn take_back(&self, taken: &[Settled]) {
        for (mapping, key, version) in taken {
            let Some(queue) = self.queue(*mapping) else { continue };
            queue.decide(key, *version, Race::Lost);
            queue.resolve(key, InCache::Stored);
            self.withdraw(*version);
        }
    }
}
