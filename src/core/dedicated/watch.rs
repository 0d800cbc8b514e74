//! `WATCH`: a connection that watches keys for one client.
//!
//! Must not know: what the transaction does that follows.
//!
//! Mapped keys are loaded first, where they are not cached: a `GET` behind `WATCH` would otherwise load them, which is a change of
//! the key to the node, and end the client's own transaction. Beside the keys of the client a key of the proxy's is watched,
//! the fence: whoever writes that can be sure that the transaction is not executed any more.

use super::super::{ClientKey, Core, Route};
use super::Purpose;
use crate::cache::{Miss, Until};
use crate::cluster::{Entry, Owner};
use crate::command::{self, Command};
use crate::core::mapped::{Told, WritingKey};
use crate::mapping::MappingId;
use crate::resp::{Args, RequestLimits, RequestScanner, push_array_header, push_bulk, push_error};
use crate::sidecar;
use bytes::Bytes;
use std::time::Instant;

/// What a client watches.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The connection.
    pub upstream: usize,
    /// The slot of the keys.
    pub slot: u16,
    /// The connection is gone: whether the keys have changed is not known.
    pub lost: bool,
    /// The number of the fence key, 0 where there is none.
    pub fence: u64,
    /// The mapped ones among the keys, each with the newest version that this process had written of it.
    pub seen: Vec<(MappingId, Bytes, u64)>,
}

/// A `WATCH` whose keys are loaded.
#[derive(Debug)]
pub struct Loaded {
    client: ClientKey,
    seq: u32,
    request: Vec<u8>,
}

impl Core {
    /// `WATCH key...`, outside a transaction and when the client has nothing in flight.
    pub(in crate::core) fn run_watch(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        let slot = match self.one_slot(command, args) {
            Ok(slot) => slot,
            Err(text) => return self.answer_error(index, Some(command), text),
        };
        let Some(client) = self.clients.get(index) else { return };
        if client.watch.as_ref().is_some_and(|watch| watch.slot != slot) {
            let text = b"CROSSSLOT Keys in request don't hash to the same slot";
            return self.answer_error(index, Some(command), text);
        }
        let client = ClientKey { index: index as u32, serial: client.serial };
        let keys = match self.watchable(args) {
            Ok(keys) => keys,
            Err(text) => return self.answer_error(index, Some(command), text.as_bytes()),
        };
        let seq = self.open_alone(index, command);
        let loaded = Loaded { client, seq, request: args.frame().to_vec() };
        let Some(data) = self.data.as_ref().filter(|_| !keys.is_empty()) else {
            return self.watch_loaded(loaded);
        };
        let told = data.told.clone();
        data.reads.load(Miss {
            keys,
            asked: Instant::now(),
            until: Until::Stored,
            // Whatever came of it: a key that cannot be loaded is watched as it is. The receiver is gone only when the
            // worker has stopped: then nobody waits.
            reply: Box::new(move |_| drop(told.send(Told::Watchable(loaded)))),
        });
    }

    /// The mapped keys that are to be loaded; an error reply where one cannot be watched.
    fn watchable(&self, args: &Args<'_>) -> Result<Vec<(MappingId, Bytes)>, String> {
        let Some(data) = &self.data else { return Ok(Vec::new()) };
        let mut keys = Vec::new();
        for key in args.iter().skip(1) {
            let mappings = data.source.mappings();
            let mapping = mappings.find_id(key).and_then(|id| mappings.get(id));
            let Some(mapping) = mapping else { continue };
            if !mapping.cache {
                return Err(format!(
                    "ERR keys of mapping '{}' cannot be watched: they are not in the cluster (cache = \"off\")",
                    mapping.name
                ));
            }
            if !mapping.is_indirect() {
                keys.push((mapping.id, Bytes::copy_from_slice(key)));
            }
        }
        Ok(keys)
    }

    /// The keys are in the cluster: they are watched from now on.
    pub(in crate::core) fn watch_loaded(&mut self, loaded: Loaded) {
        let Loaded { client: key, seq, request } = loaded;
        let index = key.index as usize;
        let Some(client) = self.client_mut(key) else { return };
        let watch = client.watch.take();
        let mut scanner = RequestScanner::default();
        if scanner.scan(&request, &RequestLimits::default()).is_err() {
            return;
        }
        let args = Args::new(&request, scanner.spans());
        let Ok(command) = command::resolve(&args) else { return };
        let slot = watch.as_ref().map(|watch| watch.slot);
        let slot = slot.or_else(|| self.one_slot(command, &args).ok()).unwrap_or_default();
        let mut watch = match watch {
            Some(watch) if watch.lost => {
                if let Some(client) = self.client_mut(key) {
                    client.watch = Some(watch);
                }
                return self.complete(index, seq, b"+OK\r\n", Route::Single);
            }
            Some(watch) => {
                if let Some(holder) = self.dedicated.held.get_mut(&watch.upstream) {
                    holder.watches = true;
                }
                watch
            }
            None => {
                let Some(upstream) = self.take_dedicated(index, slot, Purpose::Watch, u64::MAX) else {
                    let mut reply = Vec::new();
                    push_error(&mut reply, self.no_more_dedicated());
                    return self.complete(index, seq, &reply, Route::Single);
                };
                Box::new(Watch { upstream, slot, lost: false, fence: 0, seen: Vec::new() })
            }
        };
        self.note_seen(&mut watch, &args);
        let (upstream, mut own) = (watch.upstream, None);
        if watch.fence == 0 && self.data.is_some() {
            watch.fence = rand::random::<u64>().max(1);
            own = Some(with_fence(&args, watch.fence));
        }
        if let Some(client) = self.client_mut(key) {
            client.watch = Some(watch);
        }
        self.send_dedicated(index, seq, upstream, command, own.as_deref().unwrap_or(args.frame()));
    }

    /// Watches these keys for a transaction of the client, which waits. The reply goes where those to its writes go.
    ///
    /// # Errors
    /// An error reply.
    pub(in crate::core) fn watch_mapped(
        &mut self,
        (index, serial, seq): WritingKey,
        command: &'static Command,
        slot: u16,
        keys: &[(MappingId, Bytes)],
    ) -> Result<(), Vec<u8>> {
        let key = ClientKey { index, serial };
        let Some(client) = self.client_mut(key) else { return Ok(()) };
        let mut watch = match client.watch.take().filter(|watch| !watch.lost) {
            Some(watch) => {
                if let Some(holder) = self.dedicated.held.get_mut(&watch.upstream) {
                    holder.watches = true;
                }
                watch
            }
            None => {
                let taken = self.take_dedicated(index as usize, slot, Purpose::Watch, u64::MAX);
                let upstream = taken.ok_or_else(|| {
                    let mut reply = Vec::new();
                    push_error(&mut reply, self.no_more_dedicated());
                    reply
                })?;
                let fence = rand::random::<u64>().max(1);
                Box::new(Watch { upstream, slot, lost: false, fence, seen: Vec::new() })
            }
        };
        let mut request = Vec::new();
        push_array_header(&mut request, 2 + keys.len());
        push_bulk(&mut request, b"WATCH");
        for (mapping, key) in keys {
            push_bulk(&mut request, key);
            self.note_seen_key(&mut watch, *mapping, key);
        }
        let first = keys.first().map_or(&b""[..], |(_, key)| key);
        push_bulk(&mut request, &sidecar::fence_key(first, watch.fence));
        let upstream = watch.upstream;
        if let Some(client) = self.client_mut(key) {
            client.watch = Some(watch);
        }
        let entry = Entry {
            owner: Owner::Client { index, serial, seq, part: 0 },
            at: self.now,
            command: command.id,
            mapping: Entry::WRITE,
            ..Entry::NONE
        };
        self.send_to(upstream, entry, &request);
        Ok(())
    }

    fn note_seen_key(&self, watch: &mut Watch, mapping: MappingId, key: &[u8]) {
        if let Some(data) = &self.data
            && watch.seen.iter().all(|(_, seen, _)| seen != key)
        {
            let version = data.writes.standing(mapping, key).map_or(0, |own| own.version);
            watch.seen.push((mapping, Bytes::copy_from_slice(key), version));
        }
    }

    fn note_seen(&self, watch: &mut Watch, args: &Args<'_>) {
        let Some(data) = &self.data else { return };
        for key in args.iter().skip(1) {
            if let Some(mapping) = data.source.mappings().find_id(key) {
                self.note_seen_key(watch, mapping, key);
            }
        }
    }

    /// Whether this process has written one of the watched keys since; the cache may not know it yet.
    pub(in crate::core) fn is_overwritten(&self, watch: &Watch) -> bool {
        let newer = |data: &crate::core::DataSide, (mapping, key, seen): &(MappingId, Bytes, u64)| {
            data.writes.standing(*mapping, key).is_some_and(|own| own.version > *seen)
        };
        self.data.as_ref().is_some_and(|data| watch.seen.iter().any(|seen| newer(data, seen)))
    }
}

/// The same `WATCH` with one key more.
fn with_fence(args: &Args<'_>, fence: u64) -> Vec<u8> {
    let mut request = Vec::with_capacity(args.frame().len() + 64);
    push_array_header(&mut request, args.len() + 1);
    push_bulk(&mut request, b"WATCH");
    for at in 1..args.len() {
        request.extend_from_slice(args.encoded(at).unwrap_or_default());
    }
    push_bulk(&mut request, &sidecar::fence_key(args.get(1).unwrap_or_default(), fence));
    request
}
