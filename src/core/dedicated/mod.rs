//! Connections that one client has for itself for a while: to watch keys, or to wait in a blocking command.
//!
//! Must not know: what a transaction does.
//!
//! They are made when they are needed and kept for the next one. A connection that watches is held until `EXEC`,
//! `DISCARD` or `UNWATCH`; one that blocks, until its reply. When the client goes, a blocked connection is closed,
//! which is how Redis learns that nobody waits any more.

use super::block_timeout::wait_us;
use super::client::{Begun, Slot};
use super::run::Hook;
use super::{ClientKey, Core};
use crate::cluster::{Entry, Link, Owner, Upstream};
use crate::command::{Command, Flags};
use crate::resp::Args;
use crate::slot;
use rustc_hash::{FxHashMap, FxHashSet};

const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";
const HELLO_2: &[u8] = b"*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n";
const HELLO_3: &[u8] = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n";

mod moves;
mod unblock;
mod watch;

pub use watch::{Loaded as WatchLoaded, Watch};

/// The dedicated connections of a core.
#[derive(Debug, Default)]
pub(super) struct Dedicated {
    /// Those that nobody has, by address and dialect.
    idle: FxHashMap<(Box<str>, u8), Vec<usize>>,
    /// Who has which.
    held: FxHashMap<usize, Holder>,
    /// All of them, whoever has them.
    known: FxHashSet<usize>,
    /// Commands that a node could not serve just now.
    later: Vec<Later>,
}

/// A command that is tried again after a pause.
#[derive(Debug)]
struct Later {
    /// The connection that its client has.
    upstream: usize,
    /// When, in microseconds of the core's clock.
    at: u64,
    entry: Entry,
    request: Vec<u8>,
}

/// Who has a connection, and what for.
#[derive(Clone, Copy, Debug)]
struct Holder {
    client: ClientKey,
    purpose: Purpose,
    slot: u16,
    /// When a command that blocks is over by its own timeout, in microseconds of the core's clock.
    until: u64,
    /// Since when the connection leads to a node that does not own the slot.
    stray_since: Option<u64>,
    /// The node was asked for a slot that it is only about to own.
    asked: bool,
    /// Since when nodes refuse what the connection is for.
    refused_since: Option<u64>,
    /// It watches keys already.
    watches: bool,
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

impl Holder {
    /// True for a request of the client that has the connection: one of its last client may still be on its way.
    fn sent(&self, entry: &Entry) -> bool {
        let ClientKey { index: ours, serial: our } = self.client;
        matches!(entry.owner, Owner::Client { index, serial, .. } if (index, serial) == (ours, our))
    }
}

impl Dedicated {
    /// True when nobody has one.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    /// True for a connection that a client has.
    pub fn is_held(&self, upstream: usize) -> bool {
        self.held.contains_key(&upstream)
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
    /// A command that may wait on the server, when the client has nothing in flight.
    pub(super) fn run_blocking(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        let slot = match self.one_slot(command, args) {
            Ok(slot) => slot,
            Err(text) => return self.answer_error(index, Some(command), text),
        };
        if matches!(self.mapping_of(index, command, args), Hook::Done) {
            return;
        }
        if self.clients.get(index).is_some_and(|client| client.half_closed) {
            // It has gone: whatever it waits for would be taken for nobody.
            if let Some(client) = self.clients.get_mut(index) {
                client.closing = true;
            }
            return self.touch(index);
        }
        let until = self.now.saturating_add(wait_us(command, args));
        let Some(upstream) = self.take_dedicated(index, slot, Purpose::Block, until) else {
            return self.refuse_dedicated(index, command);
        };
        let seq = self.open_alone(index, command);
        self.send_dedicated(index, seq, upstream, command, args.frame());
    }

    /// The place of a command that goes over a connection of its own.
    pub(super) fn open_alone(&mut self, index: usize, command: &'static Command) -> u32 {
        let at = self.now;
        let Some(client) = self.clients.get_mut(index) else { return 0 };
        let seq = client.open(Slot::Waiting(Begun { at, command: command.id }));
        self.stats.inflight.add(1);
        self.wait_alone(index);
        seq
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
        let text = self.no_more_dedicated();
        self.answer_error(index, Some(command), text.as_bytes());
    }

    fn no_more_dedicated(&self) -> String {
        format!(
            "ERR dsproxy: {} connections are blocked or watching already (limits.dedicated_connections); try again later",
            self.dedicated.held.len()
        )
    }

    /// A connection of its own for the client, to the owner of `slot`; `None` at the limit.
    fn take_dedicated(&mut self, index: usize, slot: u16, purpose: Purpose, until: u64) -> Option<usize> {
        if self.dedicated.held.len() >= self.options.dedicated_connections {
            return None;
        }
        let client = self.clients.get(index)?;
        let key = ClientKey { index: index as u32, serial: client.serial };
        let protocol = client.session.protocol;
        let addr = self.routes.topology().owner_addr(slot)?.to_owned();
        let holder = Holder {
            client: key,
            purpose,
            slot,
            until,
            stray_since: None,
            asked: false,
            refused_since: None,
            watches: false,
        };
        Some(self.take_dedicated_at(&addr, protocol, holder))
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

    fn send_dedicated(
        &mut self,
        index: usize,
        seq: u32,
        upstream: usize,
        command: &'static Command,
        request: &[u8],
    ) {
        let Some(client) = self.clients.get(index) else { return };
        let entry = Entry {
            owner: Owner::Client { index: index as u32, serial: client.serial, seq, part: 0 },
            len: 0,
            at: self.now,
            command: command.id,
            mapping: Entry::UNMAPPED,
            readonly: command.flags.contains(Flags::READONLY),
            attempts: 0,
            more: 0,
        };
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

    /// Ends the watch of a connection and gives it back.
    pub(super) fn end_watch(&mut self, upstream: usize) {
        self.send_to(upstream, self.nobodys(), UNWATCH);
        self.give_back(upstream);
    }

    /// A request whose reply nobody waits for.
    fn nobodys(&self) -> Entry {
        Entry {
            owner: Owner::Nobody,
            len: 0,
            at: self.now,
            command: super::NO_COMMAND,
            mapping: Entry::UNMAPPED,
            readonly: false,
            attempts: 0,
            more: 0,
        }
    }

    /// The client has changed its dialect: so does the connection that watches for it.
    pub(super) fn watch_in_dialect(&mut self, watch: &Watch, protocol: u8) {
        if let Some(upstream) = self.upstreams.get_mut(watch.upstream).filter(|_| !watch.lost) {
            upstream.protocol = protocol;
            let hello = if protocol >= 3 { HELLO_3 } else { HELLO_2 };
            self.send_to(watch.upstream, self.nobodys(), hello);
        }
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

    /// Closes connections that nobody has needed for long. Their places stay, for the next who needs one.
    pub(super) fn close_idle_dedicated(&mut self) {
        let since = self.now.saturating_sub(self.options.dedicated_idle_us);
        if since == 0 {
            return;
        }
        for index in self.dedicated.idle.values().flatten() {
            if let Some(upstream) = self.upstreams.get_mut(*index)
                && upstream.link == Link::Up
                && upstream.inflight() == 0
                && upstream.heard_at < since
            {
                self.outbox.close.push(*index);
                upstream.link = Link::Down { retry_at: self.now };
                upstream.dirty = false;
            }
        }
    }

    /// The client is gone: ends what it watches, and what it waits for.
    pub(super) fn release_dedicated(&mut self, key: ClientKey, watch: Option<Box<Watch>>) {
        if let Some(watch) = watch.filter(|watch| !watch.lost) {
            self.dedicated.later.retain(|later| later.upstream != watch.upstream);
            self.end_watch(watch.upstream);
        }
        let blocked: Vec<usize> = (self.dedicated.held.iter())
            .filter(|(_, holder)| holder.client == key && holder.purpose != Purpose::Watch)
            .map(|(upstream, _)| *upstream)
            .collect();
        for index in blocked {
            self.dedicated.later.retain(|later| later.upstream != index);
            if let Some(upstream) = self.upstreams.get_mut(index) {
                let waits = !upstream.take_all().is_empty();
                // A connection that is closed is a command that is cancelled. One that is still being made has carried
                // nothing: were it given up now, it would come up beside the next.
                if waits && upstream.link == Link::Up {
                    self.outbox.close.push(index);
                    upstream.link = Link::Down { retry_at: self.now };
                    upstream.dirty = false;
                }
            }
            self.give_back(index);
        }
    }

    /// The program ends: nobody waits in a blocking command any more.
    pub(super) fn stop_blocked(&mut self) {
        let blocked = self.dedicated.held.values().filter(|holder| holder.purpose == Purpose::Block);
        for key in blocked.map(|holder| holder.client).collect::<Vec<_>>() {
            if let Some(client) = self.client_mut(key) {
                client.gone = true;
                self.touch(key.index as usize);
            }
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
        // What waits to be tried again has not run, and takes another connection then.
        if self.dedicated.later.iter().all(|later| later.upstream != index) {
            self.give_back(index);
        }
    }
}
