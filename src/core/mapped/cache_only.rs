//! Counts reads of mapped keys where nothing is loaded: inside `MULTI`, and by scripts.
//!
//! Must not know: what they read.

use super::super::{Core, Kind};
use crate::command::{Class, Command};
use crate::mapping::MappingId;
use crate::resp::Args;

/// Where a key is read from the cache alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum CacheOnly {
    /// By a command between `MULTI` and `EXEC`.
    Transaction,
    /// By a script or function that names it.
    Script,
}

impl Core {
    /// The mappings of the keys of a command that is queued by `MULTI`, if it reads them; one entry per key.
    pub(in crate::core) fn read_when_executed(
        &self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
    ) -> Vec<(MappingId, CacheOnly)> {
        match command.class_of(args) {
            Class::Script => self.named(index, command, args, CacheOnly::Script),
            _ if command.is_readonly() => self.named(index, command, args, CacheOnly::Transaction),
            _ => Vec::new(),
        }
    }

    /// A script outside of `MULTI` is about to run.
    pub(in crate::core) fn note_script(&self, index: usize, command: &'static Command, args: &Args<'_>) {
        if self.data.is_some() {
            self.count_cache_only(&self.named(index, command, args, CacheOnly::Script));
        }
    }

    /// They run.
    pub(in crate::core) fn count_cache_only(&self, reads: &[(MappingId, CacheOnly)]) {
        for (mapping, place) in reads {
            let Some(cells) = self.stats.mappings.get(usize::from(*mapping)) else { continue };
            match place {
                CacheOnly::Transaction => cells.in_transactions.add(1),
                CacheOnly::Script => cells.in_scripts.add(1),
            }
        }
    }

    fn named(
        &self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
        place: CacheOnly,
    ) -> Vec<(MappingId, CacheOnly)> {
        let own = self.clients.get(index).is_none_or(|client| client.kind == Kind::Internal);
        let Some(data) = self.data.as_ref().filter(|_| !own) else { return Vec::new() };
        let mut keys = Vec::new();
        // A malformed key list names no key.
        let _ = command.keys(args, &mut keys);
        let keys = keys.iter().filter_map(|at| args.get(*at as usize));
        keys.filter_map(|key| Some((data.source.mappings().find_id(key)?, place))).collect()
    }
}
