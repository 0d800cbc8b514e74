//! Keys whose entry is not what was written here last: which of the two is the newer one.
//!
//! Must not know: clients, how the cluster lost a write.

use bytes::Bytes;

use super::{Answer, Loaded, Miss, ReadThrough, store};
use crate::cluster::Served;
use crate::mapping::MappingId;
use crate::sidecar::{self, Leased, Version, parse_leased};

impl ReadThrough {
    /// Answers from the cluster where it knows of a write that is as new as the one that waits here, and from what waits, or
    /// from the database, where it does not.
    pub fn recheck(&self, miss: Miss) {
        let reads = self.clone();
        let shared = self.shared.clone();
        let task = async move {
            let requests = miss.keys.iter().map(|(_, key)| sidecar::look(key)).collect();
            let replies = store::within(shared.options.cache_timeout, &*shared.store, requests).await;
            let found = replies.iter().map(|reply| parse_leased(reply.as_ref()?).ok());
            let keys = miss.keys.iter().zip(found);
            let answers: Vec<_> =
                keys.map(|((mapping, key), found)| reads.newest(*mapping, key, found?)).collect();
            reads.load_the_rest(miss, answers);
        };
        let task = self.shared.stop.clone().run_until_cancelled_owned(task);
        self.shared.tasks.spawn_on(task, &self.shared.runtime);
    }

    /// What the cluster holds, if nothing newer waits here. Nothing waits any more: it was flushed just now, and nobody knows
    /// whether that was before the look or after it.
    fn newest(&self, mapping: MappingId, key: &Bytes, found: (Leased, Version)) -> Option<Answer> {
        let (_, waiting) = self.shared.writes.as_ref()?.unflushed(mapping, key)?;
        match found {
            (_, version) if version < waiting => None,
            (Leased::Present(value), _) => Some(Loaded::from(value).served(Served::Hit)),
            (Leased::Deleted, _) => Some(Loaded::Absent.served(Served::Dirty)),
            _ => None,
        }
    }

    /// Loads the keys that have no answer, and replies with all.
    fn load_the_rest(&self, miss: Miss, mut answers: Vec<Option<Answer>>) {
        let Miss { keys, asked, until, reply } = miss;
        let missing: Vec<usize> =
            (0..keys.len()).filter(|at| answers.get(*at).is_some_and(Option::is_none)).collect();
        if missing.is_empty() {
            return reply(answers.into_iter().flatten().collect());
        }
        let rest = missing.iter().filter_map(|at| keys.get(*at).cloned()).collect();
        let reply = Box::new(move |loaded: Vec<Answer>| {
            for (at, answer) in missing.into_iter().zip(loaded) {
                if let Some(place) = answers.get_mut(at) {
                    *place = Some(answer);
                }
            }
            let failed = || Answer::failed("ERR the key could not be looked at");
            reply(answers.into_iter().map(|answer| answer.unwrap_or_else(failed)).collect());
        });
        self.load(Miss { keys: rest, asked, until, reply });
    }
}
