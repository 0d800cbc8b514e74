//! Counts what was answered, by command.
//!
//! Must not know: what was asked.

use super::Core;

impl Core {
    /// Counts an answered command; `us` is how long it took, unless it was answered at once.
    #[inline]
    pub(super) fn count(&self, command: Option<u16>, reply: &[u8], us: Option<u64>) {
        let index = command.map_or(self.stats.commands.len() - 1, usize::from);
        if let Some(cells) = self.stats.commands.get(index) {
            if reply.first() == Some(&b'-') {
                cells.error.add(1);
                self.stats.errors.count(reply);
            } else {
                cells.ok.add(1)
            }
            if let Some(us) = us {
                cells.latency.record(us);
            }
        }
    }
}

/// Position of [`WorkerStats::ROUTES`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Single = 0,
    Split = 1,
    Local = 2,
    Load = 3,
}
