//! Connections that one client has for itself for a while: to watch keys, or to wait in a blocking command.
//!
//! Must not know: what a transaction does.
//!
//! They are made when they are needed and kept for the next one. A connection that watches is held until `EXEC`,
//! `DISCARD` or `UNWATCH`; one that blocks, until its reply. When the client goes, a blocked connection is closed,
//! which is how Redis learns that nobody waits any more.

use super::client::{Begun, Slot};
use super::{ClientKey, Core};
use crate::cluster::{Entry, Link, Owner, Upstream};
use crate::command::{Command, Flags};
use crate::resp::Args;
use crate::slot;
use rustc_hash::{FxHashMap, FxHashSet};

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";
const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";

/// The connection that watches keys for a client.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// The connection.
    pub upstream: usize,
    /// The slot of the keys.
    pub slot: u16,
    /// The connection is gone: whether the keys have changed is not known.
    pub lost: bool,
}

/// The dedicated connections of a core.
#[derive(Debug, Default)]
pub(super) struct Dedicated {
    /// Those that nobody has, by address and dialect.
    idle: FxHashMap<(Box<str>, u8), Vec<usize>>,
    /// Who has which.
    held: FxHashMap<usize, Holder>,
    /// All of them, whoever has them.
    known: FxHashSet<usize>,
}

/// Who has a connection, and what for.
#[derive(Clone, Copy, Debug)]
struct Holder {
    client: ClientKey,
    purpose: Purpose,
}

/// What a client has a connection for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To watch keys, until told otherwise.
    Watch,
    /// For the `EXEC` that ends a watch.
    Exec,
    /// For one command that waits as long as the client asked.
    Block,
}

impl Dedicated {
    /// True when nobody has one.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    /// True for the connections of this module, whoever has them.
    pub fn owns(&self, upstream: usize) -> bool {
        self.known.contains(&upstream)
    }

    /// True for a connection whose client waits for as long as it asked.
    pub fn is_blocked(&self, upstream: usize) -> bool {
        self.held.get(&upstream).is_some_and(|holder| holder.purpose == Purpose::Block)
    }
}

impl Core {
    /// `WATCH key...`, outside a transaction and when the client has nothing in flight.
    pub(super) fn run_watch(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        let slot = match self.one_slot(command, args) {
            Ok(slot) => slot,
            Err(text) => return self.answer_error(index, Some(command), text),
        };
        let watch = self.clients.get(index).and_then(|client| client.watch);
        let upstream = match watch {
            Some(watch) if watch.slot != slot => {
                let text = b"CROSSSLOT Keys in request don't hash to the same slot";
                return self.answer_error(index, Some(command), text);
            }
            Some(watch) if watch.lost => return self.answer_now(index, Some(command), b"+OK\r\n"),
            Some(watch) => Some(watch.upstream),
            None => self.take_dedicated(index, slot, Purpose::Watch),
        };
        let Some(upstream) = upstream else { return self.refuse_dedicated(index, command) };
        if let Some(client) = self.clients.get_mut(index) {
            client.watch = Some(Watch { upstream, slot, lost: false });
        }
        self.send_dedicated(index, upstream, command, args.frame());
    }

    /// A command that may wait on the server, when the client has nothing in flight.
    pub(super) fn run_blocking(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        let slot = match self.one_slot(command, args) {
            Ok(slot) => slot,
            Err(text) => return self.answer_error(index, Some(command), text),
        };
        let Some(upstream) = self.take_dedicated(index, slot, Purpose::Block) else {
            return self.refuse_dedicated(index, command);
        };
        self.send_dedicated(index, upstream, command, args.frame());
    }

    fn one_slot(&mut self, command: &'static Command, args: &Args<'_>) -> Result<u16, &'static [u8]> {
        let mut keys = Vec::new();
        // Redis itself finds the right words for a malformed key list.
        let _ = command.keys(args, &mut keys);
        let mut slots = keys.iter().map(|at| slot::slot(args.get(*at as usize).unwrap_or_default()));
        let first = slots.next().unwrap_or_default();
        match slots.all(|slot| slot == first) {
            true => Ok(first),
            false => Err(b"CROSSSLOT Keys in request don't hash to the same slot"),
        }
    }

    fn refuse_dedicated(&mut self, index: usize, command: &'static Command) {
        let text = format!(
            "ERR dsproxy: {} connections are blocked or watching already (limits.dedicated_connections); try again later",
            self.dedicated.held.len()
        );
        self.answer_error(index, Some(command), text.as_bytes());
    }

    /// A connection of its own for the client, to the owner of `slot`; `None` at the limit.
    fn take_dedicated(&mut self, index: usize, slot: u16, purpose: Purpose) -> Option<usize> {
        if self.dedicated.held.len() >= self.options.dedicated_connections {
            return None;
        }
        let client = self.clients.get(index)?;
        let key = ClientKey { index: index as u32, serial: client.serial };
        let protocol = client.session.protocol;
        let addr = self.routes.topology().owner_addr(slot)?.to_owned();
        Some(self.take_dedicated_at(&addr, protocol, Holder { client: key, purpose }))
    }

    fn take_dedicated_at(&mut self, addr: &str, protocol: u8, holder: Holder) -> usize {
        let idle = self.dedicated.idle.get_mut(&(addr.into(), protocol));
        let upstream = match idle.and_then(Vec::pop) {
            Some(upstream) => upstream,
            None => self.upstreams.insert(Upstream::new(addr, protocol)),
        };
        self.dedicated.known.insert(upstream);
        self.dedicated.held.insert(upstream, holder);
        upstream
    }

    fn send_dedicated(&mut self, index: usize, upstream: usize, command: &'static Command, request: &[u8]) {
        let at = self.now;
        let Some(client) = self.clients.get_mut(index) else { return };
        let seq = client.open(Slot::Waiting(Begun { at, command: command.id }));
        let owner = Owner::Client { index: index as u32, serial: client.serial, seq, part: 0 };
        self.stats.inflight.add(1);
        let readonly = command.flags.contains(Flags::READONLY);
        let entry = Entry {
            owner,
            len: 0,
            at,
            command: command.id,
            mapping: Entry::UNMAPPED,
            readonly,
            attempts: 0,
            more: 0,
        };
        self.wait_alone(index);
        self.send_to(upstream, entry, request);
    }

    /// What the client sent last goes over a connection of its own: nothing later may overtake it, so nothing later is run
    /// before it is answered.
    pub(super) fn wait_alone(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index) {
            client.paused = true;
            client.waits = true;
            client.need = 0;
        }
    }

    /// Sends the transaction that ends a watch.
    pub(super) fn send_watched(&mut self, index: usize, upstream: usize, entry: Entry, request: &[u8]) {
        if let Some(holder) = self.dedicated.held.get_mut(&upstream) {
            holder.purpose = Purpose::Exec;
        }
        self.wait_alone(index);
        self.send_to(upstream, entry, request);
    }

    /// A reply has come over a dedicated connection: one that was needed for this command only is free again.
    pub(super) fn dedicated_answered(&mut self, upstream: usize) {
        let quiet = self.upstreams.get(upstream).is_some_and(|upstream| upstream.inflight() == 0);
        let done = self.dedicated.held.get(&upstream).is_some_and(|holder| holder.purpose != Purpose::Watch);
        if quiet && done {
            self.give_back(upstream);
        }
    }

    /// The node redirected what was sent over a dedicated connection: the same for the client at another node. A watch
    /// cannot move once it has begun: its transaction ends as if a key had changed.
    pub(super) fn redirect_dedicated(
        &mut self,
        from: usize,
        addr: &str,
        asking: bool,
        entry: Entry,
        request: &[u8],
    ) {
        let Some(holder) = self.dedicated.held.get(&from).copied() else { return };
        let Some(client) = self.client(holder.client) else { return self.give_back(from) };
        let protocol = client.session.protocol;
        if holder.purpose == Purpose::Exec {
            self.give_back(from);
            return self.deliver(&entry, if protocol >= 3 { b"_\r\n" } else { b"*-1\r\n" });
        }
        self.give_back(from);
        let upstream = self.take_dedicated_at(addr, protocol, holder);
        if let Some(watch) = self.client_mut(holder.client).and_then(|client| client.watch.as_mut()) {
            watch.upstream = upstream;
        }
        if asking {
            self.send_to(upstream, Entry { owner: Owner::Nobody, more: 0, ..entry }, ASKING);
        }
        self.send_to(upstream, entry, request);
    }

    /// Ends the watch of a connection and gives it back.
    pub(super) fn end_watch(&mut self, upstream: usize) {
        let nobody = Entry {
            owner: Owner::Nobody,
            len: 0,
            at: self.now,
            command: super::NO_COMMAND,
            mapping: Entry::UNMAPPED,
            readonly: false,
            attempts: 0,
            more: 0,
        };
        self.send_to(upstream, nobody, UNWATCH);
        self.give_back(upstream);
    }

    /// Nobody has the connection any more.
    pub(super) fn give_back(&mut self, index: usize) {
        if self.dedicated.held.remove(&index).is_none() {
            return;
        }
        if let Some(upstream) = self.upstreams.get(index) {
            let place = (upstream.addr.clone(), upstream.protocol);
            self.dedicated.idle.entry(place).or_default().push(index);
        }
    }

    /// The client is gone: ends what it watches, and what it waits for.
    pub(super) fn release_dedicated(&mut self, key: ClientKey, watch: Option<Watch>) {
        if let Some(watch) = watch.filter(|watch| !watch.lost) {
            self.end_watch(watch.upstream);
        }
        let blocked: Vec<usize> = (self.dedicated.held.iter())
            .filter(|(_, holder)| holder.client == key && holder.purpose != Purpose::Watch)
            .map(|(upstream, _)| *upstream)
            .collect();
        for index in blocked {
            // A connection that is closed is a command that is cancelled.
            self.outbox.close.push(index);
            if let Some(upstream) = self.upstreams.get_mut(index) {
                upstream.take_all();
                upstream.link = Link::Down { retry_at: self.now };
                upstream.dirty = false;
            }
            self.give_back(index);
        }
    }

    /// True when the client waits in a blocking command.
    pub(super) fn is_blocked(&self, key: ClientKey) -> bool {
        self.dedicated.held.values().any(|holder| holder.client == key && holder.purpose == Purpose::Block)
    }

    /// A dedicated connection is gone: whoever had it has it no more.
    pub(super) fn dedicated_lost(&mut self, index: usize) {
        let Some(holder) = self.dedicated.held.get(&index).copied() else { return };
        if let Some(watch) = self.client_mut(holder.client).and_then(|client| client.watch.as_mut())
            && watch.upstream == index
        {
            watch.lost = true;
        }
        self.give_back(index);
    }
}
