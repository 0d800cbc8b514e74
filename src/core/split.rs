//! Commands over keys of several slots: one part per slot, pipelined.
//!
//! Must not know: how the replies come back together (`gather.rs`).

use super::client::{Begun, Slot};
use super::gather::Join;
use super::mapped::Split;
use super::{Core, recycle};
use crate::cluster::{Entry, Owner};
use crate::command::{self, Command, Merge};
use crate::resp::{Args, push_array_header};
use crate::slot;

impl Core {
    /// MGET, MSET, DEL, UNLINK, EXISTS, TOUCH.
    pub(super) fn run_split(
        &mut self,
        index: usize,
        command: &'static Command,
        merge: Merge,
        args: &Args<'_>,
    ) {
        // MSET alternates keys and values.
        let step = if merge == Merge::AllOk { 2 } else { 1 };
        if !(args.len() - 1).is_multiple_of(step) {
            return self.answer_error(index, Some(command), command::wrong_arity_error(command).as_bytes());
        }
        let mapped = match self.mapped_split(index, command, args, step) {
            Some(mapped) => mapped,
            None => return,
        };
        let mut by_slot = std::mem::take(&mut self.by_slot);
        by_slot.clear();
        let keys = (args.len() - 1) / step;
        by_slot.extend(
            (0..keys).map(|key| (slot::slot(args.get(1 + key * step).unwrap_or_default()), key as u32)),
        );
        match by_slot.first() {
            Some((first, _)) if mapped == Split::Plain && by_slot.iter().all(|(slot, _)| slot == first) => {
                self.forward(index, command, *first, Entry::UNMAPPED, args.frame());
            }
            _ => {
                by_slot.sort_unstable();
                self.send_parts(index, command, merge, args, &by_slot, mapped);
            }
        }
        self.by_slot = by_slot;
    }

    /// Sends a part per slot; `by_slot` holds (slot, position of the key), sorted.
    fn send_parts(
        &mut self,
        index: usize,
        command: &'static Command,
        merge: Merge,
        args: &Args<'_>,
        by_slot: &[(u16, u32)],
        mut mapped: Split,
    ) {
        let at = self.now;
        let mut gather = self.spare_gather();
        gather.reset(Join::Keys(merge), by_slot.len());
        match &mut mapped {
            Split::Reads(keys) => gather.mapped = std::mem::take(keys),
            // They tell which keys are alone, too.
            Split::Counts(keys) => gather.mapped.clone_from(keys),
            Split::Plain => {}
        }
        for group in by_slot.chunk_by(|a, b| mapped.may_share(a, b)) {
            gather.add_part(group.iter().map(|(_, position)| *position));
        }
        let Some(client) = self.clients.get_mut(index) else { return };
        let seq = client.open(Slot::Gathering(Begun { at, command: command.id }, gather));
        let serial = client.serial;
        self.stats.inflight.add(1);
        let mut request = self.spare.pop().unwrap_or_default();
        for (part, group) in by_slot.chunk_by(|a, b| mapped.may_share(a, b)).enumerate() {
            let Some((slot, _)) = group.first() else { continue };
            request.clear();
            encode_part(args, merge, group, &mut request);
            let entry = Entry {
                owner: Owner::Client { index: index as u32, serial, seq, part: part as u32 },
                len: 0,
                at,
                command: command.id,
                mapping: Entry::UNMAPPED,
                readonly: command.is_readonly(),
                attempts: 0,
                more: 0,
            };
            self.send(*slot, entry, &request);
        }
        recycle(request, &mut self.spare);
    }
}

/// The same command over the keys of one group.
fn encode_part(args: &Args<'_>, merge: Merge, group: &[(u16, u32)], request: &mut Vec<u8>) {
    let step = if merge == Merge::AllOk { 2 } else { 1 };
    push_array_header(request, 1 + group.len() * step);
    request.extend_from_slice(args.encoded(0).unwrap_or_default());
    for (_, position) in group {
        let key = 1 + *position as usize * step;
        for arg in key..key + step {
            request.extend_from_slice(args.encoded(arg).unwrap_or_default());
        }
    }
}
