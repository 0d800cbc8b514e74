//! Keys whose entry is not yet the answer: of an older generation perhaps, or a list of the ids of objects.
//!
//! Must not know: how generations are kept, how a list is loaded.
//!
//! Such a key is not asked for at its node first: the read-through, which knows its generation, says what it holds. The
//! objects of a list are then fetched with one MGET (one part per slot), which reads through as any other does.

use super::super::client::{Begun, Slot};
use super::super::gather::{Join, MappedKey};
use super::super::run::Hook;
use super::super::{ClientKey, Core, recycle};
use crate::cluster::{Entry, Owner};
use crate::command::{self, Command};
use crate::mapping::{Mapping, MappingId};
use crate::resp::{Args, push_command};
use crate::slot;
use bytes::Bytes;
use serde_json::value::RawValue;

impl Core {
    /// `GET` of such a key.
    pub(super) fn read_indirect(
        &mut self,
        index: usize,
        command: &'static Command,
        mapping: MappingId,
        args: &Args<'_>,
    ) -> Hook {
        let (at, key) = (self.now, Bytes::copy_from_slice(args.get(1).unwrap_or_default()));
        let Some(client) = self.clients.get_mut(index) else { return Hook::Done };
        let seq = client.open(Slot::Waiting(Begun { at, command: command.id }));
        let client = ClientKey { index: index as u32, serial: client.serial };
        self.stats.inflight.add(1);
        self.load(client, seq, at, vec![(mapping, key)], None);
        Hook::Done
    }

    /// The mapping of the objects of `list`, where it is a list of ids.
    pub(super) fn listed_by(&self, list: MappingId) -> Option<MappingId> {
        self.data.as_ref()?.source.mappings().get(list)?.of
    }

    /// Fetches the objects with these ids, a JSON array, for request `seq` of a client. False when they are no ids of the
    /// mapping `of`.
    pub(super) fn fetch_objects(&mut self, client: ClientKey, seq: u32, of: MappingId, ids: &[u8]) -> bool {
        let mapping = self.data.as_ref().and_then(|data| data.source.mappings().get(of));
        let Some(keys) = mapping.and_then(|mapping| keys_of(mapping, ids)) else { return false };
        let (at, command) = (self.now, command::lookup(b"mget").map_or(super::super::NO_COMMAND, |c| c.id));
        let mut by_slot: Vec<(u16, u32)> =
            keys.iter().enumerate().map(|(position, key)| (slot::slot(key), position as u32)).collect();
        by_slot.sort_unstable();
        let mut gather = self.spare_gather();
        gather.reset(Join::Objects, keys.len());
        for group in by_slot.chunk_by(|a, b| a.0 == b.0) {
            gather.add_part(group.iter().map(|(_, position)| *position));
        }
        gather.mapped = keys
            .iter()
            .enumerate()
            .map(|(position, key)| MappedKey { position: position as u32, mapping: of, key: key.clone() })
            .collect();
        let waiting = self.client_mut(client).and_then(|client| client.slot_mut(seq));
        let Some(place @ Slot::Waiting(_)) = waiting else { return true };
        if let Slot::Waiting(begun) = place {
            *place = Slot::Gathering(*begun, gather);
        }
        if keys.is_empty() {
            self.finish_gather(client, seq);
        }
        let mut request = self.spare.pop().unwrap_or_default();
        for (part, group) in by_slot.chunk_by(|a, b| a.0 == b.0).enumerate() {
            let named: Vec<&[u8]> = std::iter::once(&b"MGET"[..])
                .chain(
                    group.iter().filter_map(|(_, position)| keys.get(*position as usize).map(|key| &key[..])),
                )
                .collect();
            request.clear();
            push_command(&mut request, named);
            let entry = Entry {
                owner: Owner::Client { index: client.index, serial: client.serial, seq, part: part as u32 },
                len: 0,
                at,
                command,
                mapping: Entry::UNMAPPED,
                readonly: true,
                attempts: 0,
                more: 0,
            };
            self.send(group.first().map_or(0, |(slot, _)| *slot), entry, &request);
        }
        recycle(request, &mut self.spare);
        true
    }
}

/// The keys of the objects with these ids: a JSON array of numbers and texts, or of arrays of them.
fn keys_of(mapping: &Mapping, ids: &[u8]) -> Option<Vec<Bytes>> {
    let text = |raw: &RawValue| match raw.get().starts_with('"') {
        true => serde_json::from_str::<String>(raw.get()).ok(),
        false => Some(raw.get().to_owned()),
    };
    let ids: Vec<&RawValue> = serde_json::from_slice(ids).ok()?;
    ids.into_iter()
        .map(|id| {
            let parts: Vec<String> = match id.get().starts_with('[') {
                true => {
                    let parts: Vec<&RawValue> = serde_json::from_str(id.get()).ok()?;
                    parts.into_iter().map(text).collect::<Option<_>>()?
                }
                false => vec![text(id)?],
            };
            mapping.template.build(&parts).map(Bytes::from)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{MappingSet, MappingSpec};

    #[test]
    fn ids_of_each_shape_are_keys() {
        let of = |key: &str, id: &str, ids: &str| {
            let set = MappingSet::new(vec![MappingSpec::new("m", key, "t", id)]).ok()?;
            keys_of(set.get(0)?, ids.as_bytes())
        };
        let keys =
            |keys: &[&str]| Some(keys.iter().map(|key| Bytes::from((*key).to_owned())).collect::<Vec<_>>());
        assert_eq!(
            of("p:{id}", "bigint", "[7,-1,9007199254740993]"),
            keys(&["p:7", "p:-1", "p:9007199254740993"])
        );
        assert_eq!(of("p:{id}", "text", r#"["a","\u00e4\""]"#), keys(&["p:a", "p:\u{e4}\""]));
        assert_eq!(of("p:{a}:{b}", "bigint,text", r#"[[1,"x"],[2,"y"]]"#), keys(&["p:1:x", "p:2:y"]));
        assert_eq!(of("p:{id}", "bigint", "[]"), keys(&[]));
        for bad in ["{}", "[{}]", "[null]", "[[1,2]]", "[1.5]", "", "[1"] {
            assert_eq!(of("p:{id}", "bigint", bad), None, "{bad}");
        }
    }
}
