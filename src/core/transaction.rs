//! Transactions: `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`.
//!
//! Must not know: how bytes reach a node.
//!
//! Between `MULTI` and `EXEC` nothing is sent: commands are checked, answered `QUEUED` and kept. `EXEC` sends the whole
//! transaction in one piece over the connection that everybody shares; nothing can come between bytes that are
//! appended together, so the node sees the transaction as one client's. It costs no connection of its own, and on its
//! way it is one request with several replies ([`Entry::more`]): a transaction that a node refuses (its slot has moved, or
//! is moving) has not run and is sent again like any other request, whole.
//!
//! `WATCH` is about a connection, so it takes one for itself (`dedicated/`) until `EXEC`, `DISCARD` or `UNWATCH`.

use super::client::{Begun, Slot};
use super::mapped::{CacheOnly, Queued, Whole, Writes};
use super::{Core, recycle};
use crate::acl::User;
use crate::cluster::{Entry, Owner};
use crate::command::{Class, Command, Flags};
use crate::mapping::MappingId;
use crate::resp::Args;
use crate::slot;
use std::sync::Arc;

pub(super) const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
pub(super) const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
const CROSSSLOT: &[u8] = b"CROSSSLOT Keys in request don't hash to the same slot";

/// What a client has queued since `MULTI`.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Its requests, one after the other.
    requests: Vec<u8>,
    count: u32,
    /// The slot of its keys, once one is named.
    slot: Option<u16>,
    /// Keys of mappings that it reads: from the cache alone.
    reads: Vec<(MappingId, CacheOnly)>,
    /// Its commands that write mapped keys.
    mapped: Vec<Queued>,
    /// A command was refused: `EXEC` will be, too.
    refused: bool,
    /// Who has begun it, with the rules of that time.
    pub(super) user: Option<Arc<User>>,
}

impl Transaction {
    /// Whether a command writes mapped keys.
    pub fn writes_mapped(&self) -> bool {
        !self.mapped.is_empty()
    }

    /// Whether a command computes from the value of a mapped key.
    pub fn computes(&self) -> bool {
        self.mapped.iter().any(|queued| queued.writes.asks())
    }

    /// How many commands are queued.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// The queued requests, one after the other.
    pub(super) fn requests(&self) -> &[u8] {
        &self.requests
    }
}

impl Core {
    /// `MULTI`, `EXEC`, `DISCARD`, `UNWATCH`. (`WATCH` is in `dedicated.rs`.)
    pub(super) fn run_transaction(&mut self, index: usize, command: &'static Command) {
        let Some(client) = self.clients.get_mut(index) else { return };
        match (command.name, client.transaction.take()) {
            ("multi", None) => {
                let user = client.session.user.clone();
                client.transaction = Some(Box::new(Transaction { user, ..Transaction::default() }));
                self.answer_now(index, Some(command), b"+OK\r\n");
            }
            ("multi", queued) => {
                client.transaction = queued;
                self.answer_error(index, Some(command), b"ERR MULTI calls can not be nested");
            }
            ("discard", Some(_)) => {
                self.unwatch(index);
                self.answer_now(index, Some(command), b"+OK\r\n");
            }
            ("exec", Some(queued)) => self.exec(index, command, *queued),
            ("exec", None) => self.answer_error(index, Some(command), b"ERR EXEC without MULTI"),
            ("discard", None) => self.answer_error(index, Some(command), b"ERR DISCARD without MULTI"),
            (_, queued) => {
                client.transaction = queued;
                self.unwatch(index);
                self.answer_now(index, Some(command), b"+OK\r\n");
            }
        }
    }

    /// A command between `MULTI` and `EXEC`. True when it was dealt with here.
    pub(super) fn queue(&mut self, index: usize, command: &'static Command, args: &Args<'_>) -> bool {
        if matches!(command.name, "multi" | "exec" | "discard" | "quit" | "reset") {
            return false;
        }
        if command.name == "watch" {
            self.answer_error(index, Some(command), b"ERR WATCH inside MULTI is not allowed");
            return true;
        }
        match self.slot_in_transaction(index, command, args) {
            Ok((slot, writes)) => {
                let reads = self.read_when_executed(index, command, args);
                let limit = self.options.request.frame_bytes;
                let Some(queued) = self.clients.get_mut(index).and_then(|c| c.transaction.as_mut()) else {
                    return false;
                };
                if queued.requests.len() + args.frame().len() > limit {
                    queued.refused = true;
                    self.answer_error(
                        index,
                        Some(command),
                        b"ERR the transaction is larger than the query buffer limit",
                    );
                    return true;
                }
                queued.slot = queued.slot.or(slot);
                let (start, position) = (queued.requests.len(), queued.count);
                let place = start..start + args.frame().len();
                queued.mapped.extend(writes.map(|writes| Queued { place, position, writes }));
                queued.requests.extend_from_slice(args.frame());
                queued.count += 1;
                queued.reads.extend(reads);
                self.answer_now(index, Some(command), b"+QUEUED\r\n");
            }
            Err(text) => {
                self.refuse_transaction(index);
                self.answer_error(index, Some(command), &text);
            }
        }
        true
    }

    /// `EXEC` with arguments: refused, and whatever was queued and watched is forgotten.
    pub(super) fn refuse_exec(&mut self, index: usize, command: &'static Command) {
        if let Some(client) = self.clients.get_mut(index) {
            client.transaction = None;
        }
        self.unwatch(index);
        let text =
            b"EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command";
        self.answer_error(index, Some(command), text);
    }

    /// The transaction will not be executed.
    pub(super) fn refuse_transaction(&mut self, index: usize) {
        if let Some(queued) = self.clients.get_mut(index).and_then(|client| client.transaction.as_mut()) {
            queued.refused = true;
        }
    }

    /// The slot of a queued command's keys, if it has any, and what it writes to mapped ones; an error's text when it cannot be part of the transaction.
    fn slot_in_transaction(
        &mut self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
    ) -> Result<(Option<u16>, Option<Writes>), Vec<u8>> {
        if command.flags.contains(Flags::NO_MULTI) {
            return Err(b"ERR Command not allowed inside a transaction".to_vec());
        }
        let own = matches!(command.name, "ping" | "echo" | "time" | "select" | "publish" | "spublish");
        match command.class_of(args) {
            Class::Single | Class::Split(_) | Class::Script | Class::Blocking => {}
            Class::Local | Class::PubSub if own => return Ok((None, None)),
            Class::Transaction if command.name == "unwatch" => return Ok((None, None)),
            _ => {
                let text =
                    format!("ERR '{}' is not supported inside a transaction by this proxy", command.name);
                return Err(text.into_bytes());
            }
        }
        let mut indexes = Vec::new();
        let _ = command.keys(args, &mut indexes);
        let keys: Vec<&[u8]> = indexes.iter().filter_map(|at| args.get(*at as usize)).collect();
        let writes = self.queued_writes(index, command, args, &keys).map_err(String::into_bytes)?;
        let client = self.clients.get(index);
        let known =
            client.and_then(|c| c.transaction.as_ref()?.slot.or(c.watch.as_ref().map(|watch| watch.slot)));
        let mut slots = known.into_iter().chain(keys.iter().map(|key| slot::slot(key)));
        let first = slots.next();
        match first {
            Some(first) if slots.any(|slot| slot != first) => Err(CROSSSLOT.to_vec()),
            first => Ok((first, writes)),
        }
    }

    /// `EXEC`: sends what was queued.
    fn exec(&mut self, index: usize, command: &'static Command, queued: Transaction) {
        if queued.refused {
            self.unwatch(index);
            let text = b"EXECABORT Transaction discarded because of previous errors.";
            return self.answer_error(index, Some(command), text);
        }
        if let Some(denied) = self.denied_by_now(index, &queued) {
            self.unwatch(index);
            let text = format!(
                "EXECABORT Transaction discarded because of: NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer allowed for the following reason: {}",
                denied.reason()
            );
            return self.answer_error(index, Some(command), text.as_bytes());
        }
        let Some(client) = self.clients.get(index) else { return };
        // The node that watched is gone: what happened to the keys meanwhile is not known. Or this process has written one of
        // them, which the node may not know yet.
        if client.watch.as_ref().is_some_and(|watch| watch.lost || self.is_overwritten(watch)) {
            let nil = if client.session.protocol >= 3 { &b"_\r\n"[..] } else { b"*-1\r\n" };
            self.unwatch(index);
            return self.answer_now(index, Some(command), nil);
        }
        let (watches, computes) = (client.watch.is_some(), queued.computes());
        if queued.count == 0 && !watches {
            return self.answer_now(index, Some(command), b"*0\r\n");
        }
        self.count_cache_only(&queued.reads);
        if !queued.mapped.is_empty() {
            let slot = queued.slot.unwrap_or_default();
            let whole = Whole { requests: queued.requests, count: queued.count, slot };
            return match watches {
                _ if computes => self.exec_computing(index, command, whole, queued.mapped),
                true => self.exec_tried(index, command, whole, queued.mapped),
                false => self.exec_mapped(index, command, whole, queued.mapped),
            };
        }
        let Some(client) = self.clients.get_mut(index) else { return };
        let watch = client.watch.take();
        let at = self.now;
        let mut request = self.spare.pop().unwrap_or_default();
        request.extend_from_slice(MULTI);
        request.extend_from_slice(&queued.requests);
        request.extend_from_slice(EXEC);
        let seq = client.open(Slot::Waiting(Begun { at, command: command.id }));
        let entry = Entry {
            owner: Owner::Client { index: index as u32, serial: client.serial, seq, part: 0 },
            len: 0,
            at,
            command: command.id,
            mapping: Entry::UNMAPPED,
            readonly: false,
            attempts: 0,
            // `OK` for MULTI, `QUEUED` for each command.
            more: 1 + queued.count,
        };
        self.stats.inflight.add(1);
        match watch {
            Some(watch) => self.send_watched(index, watch.upstream, entry, &request),
            None => self.send(queued.slot.unwrap_or_default(), entry, &request),
        }
        recycle(request, &mut self.spare);
    }

    /// Forgets the client's watched keys, and gives the connection back.
    pub(super) fn unwatch(&mut self, index: usize) {
        let Some(watch) = self.clients.get_mut(index).and_then(|client| client.watch.take()) else { return };
        if !watch.lost {
            self.end_watch(watch.upstream);
        }
    }
}
