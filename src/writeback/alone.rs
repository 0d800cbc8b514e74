//! Since when this proxy may be the only one that writes.
//!
//! Must not know: the database, who else there is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::WriteBehind;
use crate::source::Alone;

/// As far as this process knows. To be asked of the database with each batch.
#[derive(Default)]
pub(super) struct Solitude {
    /// Its place among the writers: instance and epoch.
    place: OnceLock<(String, i64)>,
    /// No version up to this one counts as written alone.
    since: AtomicU64,
}

impl Solitude {
    /// What the database is asked; `None` before the place is known.
    pub(super) fn now(&self) -> Option<Alone> {
        let (writer, epoch) = self.place.get()?;
        Some(Alone { writer: writer.clone(), epoch: *epoch, since: self.since.load(Ordering::Acquire) })
    }

    /// There was company; `last` is the greatest version until now.
    pub(super) fn ended(&self, last: u64) {
        self.since.fetch_max(last, Ordering::AcqRel);
    }
}

impl WriteBehind {
    /// Versions that are given from now on are those of this writer, which may be the only one. What was restored before is
    /// not: nobody knows who wrote meanwhile.
    pub fn seated(&self, writer: String, epoch: i64) {
        let solitude = &self.shared.solitude;
        solitude.ended(self.shared.clock.last());
        let _ = solitude.place.set((writer, epoch));
    }
}
