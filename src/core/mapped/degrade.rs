//! Mapped reads whose node does not serve them: the database is asked instead.
//!
//! Must not know: why the node does not, the database.
//!
//! Only reads that the database can answer alone go this way, after [`super::DataSide::degrade_us`]; everything
//! else waits for the node, as unmapped keys do. What is loaded is not stored, so nothing here can leave an older value.

use super::super::client::Slot;
use super::super::{ClientKey, Core, Kind};
use crate::cluster::{Entry, Link, Owner};
use crate::command;
use crate::mapping::Format;
use crate::resp::{Args, RequestLimits, RequestScanner, push_array_header, push_nil};
use bytes::Bytes;

impl Core {
    /// Looks for mapped reads that wait for a node that is away. Call with every tick.
    pub(in crate::core) fn degrade(&mut self) {
        let Some(data) = &self.data else { return };
        let overdue = self.now.saturating_sub(data.degrade_us);
        for index in 0..self.upstreams.len() {
            let Some(upstream) = self.upstreams.get(index).filter(|upstream| upstream.inflight() > 0) else {
                continue;
            };
            match upstream.link {
                // It owes replies and has said nothing for a while.
                Link::Up if upstream.heard_at < overdue => self.rescue_sent(index, overdue),
                Link::Down { .. } | Link::Connecting if upstream.failures > 0 => self.rescue_unsent(index),
                Link::Up | Link::Down { .. } | Link::Connecting => {}
            }
        }
        let may = |entry: &Entry| entry.at < overdue && entry.readonly;
        for parked in self.parking.take_if(may) {
            if !self.rescue(&parked.entry, &parked.request) {
                self.parking.park_again(parked.slot, parked.entry, parked.request);
            }
        }
    }

    fn rescue_sent(&mut self, index: usize, overdue: u64) {
        let Some(upstream) = self.upstreams.get(index) else { return };
        let candidates: Vec<(usize, Entry, Vec<u8>)> = upstream
            .requests()
            .enumerate()
            .filter(|(_, (entry, _))| entry.at < overdue && entry.readonly)
            .map(|(at, (entry, request))| (at, *entry, request.to_vec()))
            .collect();
        for (at, entry, request) in candidates {
            if self.rescue(&entry, &request)
                && let Some(entry) = self.upstreams.get_mut(index).and_then(|u| u.entries_mut().nth(at))
            {
                // The reply, should it still come, belongs to nobody.
                entry.owner = Owner::Nobody;
            }
        }
    }

    fn rescue_unsent(&mut self, index: usize) {
        let Some(upstream) = self.upstreams.get_mut(index) else { return };
        let any = upstream.requests().any(|(entry, _)| matches!(entry.owner, Owner::Client { .. }));
        if !any || self.dedicated.owns(index) {
            return;
        }
        let mut again = Vec::new();
        let reason = upstream.reason.clone();
        for request in upstream.take_all() {
            let internal = self.is_of_program(&request.entry);
            if internal && !request.sent {
                let text =
                    format!("ERR dsproxy: the node is unreachable ({reason}); the command was not run");
                self.fail(&request.entry, &text);
            } else if !self.rescue(&request.entry, &request.request) {
                again.push(request);
            }
        }
        self.send_again(index, again);
    }

    /// A call of the program itself: it knows what to do without an answer, and others wait for it meanwhile.
    fn is_of_program(&self, entry: &Entry) -> bool {
        let Owner::Client { index, serial, .. } = entry.owner else { return false };
        self.client(ClientKey { index, serial }).is_some_and(|client| client.kind == Kind::Internal)
    }

    /// Has the database answer this read. False when it cannot.
    fn rescue(&mut self, entry: &Entry, request: &[u8]) -> bool {
        let (Some(data), Owner::Client { index, serial, seq, .. }) = (&self.data, entry.owner) else {
            return false;
        };
        let key = ClientKey { index, serial };
        let mut scanner = RequestScanner::default();
        if scanner.scan(request, &RequestLimits::default()).is_err() {
            return false;
        }
        let args = Args::new(request, scanner.spans());
        let Some(command) = command::lookup(args.name()) else { return false };
        let mappings = data.source.mappings();
        if self.is_of_program(entry) {
            return false;
        }
        let mapped = |key: &[u8]| {
            let id = mappings.find_id(key)?;
            mappings.get(id).filter(|mapping| mapping.format != Format::Hash).map(|_| id)
        };
        match command.name {
            "get" => {
                let Some(name) = args.get(1) else { return false };
                let Some(mapping) = mapped(name).filter(|_| entry.mapping != Entry::UNMAPPED) else {
                    return false;
                };
                self.load_past_cache(key, seq, entry.at, vec![(mapping, Bytes::copy_from_slice(name))])
            }
            // A part of it: as if none of its keys were cached. Only where each is a row's: any other must not be nil.
            "mget" if args.iter().skip(1).all(|name| mapped(name).is_some()) => {
                let is_part = self
                    .client_mut(key)
                    .is_some_and(|c| matches!(c.slot_mut(seq), Some(Slot::Gathering(..))));
                if is_part {
                    let mut nils = Vec::new();
                    push_array_header(&mut nils, args.len() - 1);
                    (1..args.len()).for_each(|_| push_nil(&mut nils, 2));
                    self.deliver(entry, &nils);
                }
                is_part
            }
            _ => false,
        }
    }
}
