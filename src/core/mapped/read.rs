//! Reads of mapped keys: what a nil means.
//!
//! Must not know: the database, how a row is loaded.

use super::super::client::Slot;
use super::super::{ClientKey, Core, Kind, Route, recycle};
use super::Loads;
use crate::cache::{Answer, Loaded, Miss};
use crate::cluster::{Entry, Owner};
use crate::resp::{Args, RequestLimits, RequestScanner, push_bulk, push_error, push_nil};
use bytes::Bytes;
use std::time::{Duration, Instant};

impl Core {
    /// Counts a read of a mapped key that the cluster answered.
    pub(in crate::core) fn count_hit(&self, entry: &Entry, reply: &[u8]) {
        if reply.first() != Some(&b'-')
            && let Some(cells) = self.stats.mappings.get(usize::from(entry.mapping))
        {
            cells.hits.add(1);
        }
    }

    /// A GET of a mapped key came back nil: loads it. False when it is answered as it came.
    pub(in crate::core) fn load_missing(&mut self, entry: &Entry, request: &[u8]) -> bool {
        let Owner::Client { index, serial, seq, .. } = entry.owner else { return false };
        let mut scanner = RequestScanner::default();
        if scanner.scan(request, &RequestLimits::default()).is_err() {
            return false;
        }
        let Some(key) = Args::new(request, scanner.spans()).get(1).map(Bytes::copy_from_slice) else {
            return false;
        };
        self.load(ClientKey { index, serial }, seq, entry.at, vec![(entry.mapping, key)])
    }

    /// All parts of a split command are here: loads the mapped keys among its nils. False when there are none.
    pub(in crate::core) fn load_missing_parts(&mut self, key: ClientKey, seq: u32) -> bool {
        let Some(client) = self.clients.get_mut(key.index as usize).filter(|c| c.serial == key.serial) else {
            return false;
        };
        let Some(Slot::Gathering(begun, gather)) = client.slot_mut(seq) else { return false };
        let asked = begun.at;
        if gather.mapped.is_empty() || gather.failed() {
            return false;
        }
        let (hits, missing) = gather.split_mapped();
        for mapping in hits {
            if let Some(cells) = self.stats.mappings.get(usize::from(mapping)) {
                cells.hits.add(1);
            }
        }
        !missing.is_empty() && self.load(key, seq, asked, missing)
    }

    /// `asked`: when the cluster was asked for them, in microseconds of the core's clock.
    fn load(&mut self, client: ClientKey, seq: u32, asked: u64, keys: Vec<(u16, Bytes)>) -> bool {
        let Some(data) = &self.data else { return false };
        for (mapping, _) in &keys {
            if let Some(cells) = self.stats.mappings.get(usize::from(*mapping)) {
                cells.misses.add(1);
            }
        }
        let loads = data.loads.clone();
        let mappings: Vec<u16> = keys.iter().map(|(mapping, _)| *mapping).collect();
        let now = Instant::now();
        let age = Duration::from_micros(self.now.saturating_sub(asked));
        data.reads.load(Miss {
            keys,
            asked: now.checked_sub(age).unwrap_or(now),
            // The receiver is gone only when the worker has stopped: then nobody waits.
            reply: Box::new(move |answers| {
                let results = mappings.into_iter().zip(answers).collect();
                let _ = loads.send(Loads { client, seq, results });
            }),
        });
        true
    }

    /// Counts where the answers of a load came from.
    fn count_served(&self, results: &[(u16, Answer)]) {
        for (mapping, answer) in results {
            if let Some(cells) = self.stats.mappings.get(usize::from(*mapping)) {
                cells.served[answer.served as usize].add(1);
            }
        }
    }

    /// A load has ended: answers the client that waits for it.
    pub fn loaded(&mut self, loads: Loads) {
        let Loads { client: key, seq, results } = loads;
        self.count_served(&results);
        let Some(client) = self.clients.get_mut(key.index as usize).filter(|c| c.serial == key.serial) else {
            return;
        };
        if client.kind == Kind::Call {
            results.iter().for_each(|(_, answer)| client.note_served(answer.served));
        }
        let protocol = client.session.protocol;
        let mut reply = self.spare.pop().unwrap_or_default();
        match client.slot_mut(seq) {
            Some(Slot::Waiting(_)) => {
                if let Some((_, answer)) = results.first() {
                    push_loaded(&mut reply, &answer.loaded, protocol);
                }
            }
            Some(Slot::Gathering(_, gather)) => {
                gather.fill(&results, |out, (_, answer)| push_loaded(out, &answer.loaded, protocol));
                gather.finish(&mut reply, protocol);
            }
            Some(Slot::Ready(_)) | None => return,
        }
        self.complete(key.index as usize, seq, &reply, Route::Load);
        recycle(reply, &mut self.spare);
    }
}

/// What Redis says of a command on a value of another kind.
const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

/// One loaded value as a reply.
fn push_loaded(out: &mut Vec<u8>, result: &Loaded, protocol: u8) {
    match result {
        Loaded::Value(value) => push_bulk(out, value),
        Loaded::Hash(_) => push_error(out, WRONG_TYPE),
        Loaded::Absent => push_nil(out, protocol),
        Loaded::Failed(text) => push_error(out, text),
    }
}
