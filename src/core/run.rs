//! From a client's bytes to requests on their way.
//!
//! Must not know: replies.

use super::client::{Begun, Client, Mute, Slot};
use super::pause::Held;
use super::{ClientKey, Core, Kind, pubsub};
use crate::cluster::{Entry, Owner};
use crate::command::{self, Class, Command};
use crate::resp::{Args, ProtocolError, RequestScanner, Scan};
use crate::slot;

/// An unfinished request with more arguments than this keeps its place; a shorter one is scanned again.
const KEEP_PLACE_ARGS: usize = 16;

impl Core {
    /// Bytes have arrived from a client: runs every complete request in them.
    pub fn client_data(&mut self, key: ClientKey, data: &[u8]) {
        let index = key.index as usize;
        let Some(client) = self.clients.get_mut(index).filter(|client| client.serial == key.serial) else {
            return;
        };
        client.heard_at = self.now;
        self.stats.bytes_in.add(data.len() as u64);
        if client.tail.is_empty() && !client.paused {
            let used = self.run_buffer(index, data);
            self.keep(index, data.get(used..).unwrap_or_default());
        } else {
            client.tail.extend_from_slice(data);
            if client.tail.len() - client.growing.1.min(client.tail.len()) >= super::due::STEP {
                client.growing = (self.now, client.tail.len());
            }
            if client.tail.len() >= client.need {
                self.run_tail(index);
            }
        }
    }

    /// A paused client may go on.
    pub fn resume(&mut self, key: ClientKey) {
        if self.client(key).is_some_and(|client| !client.paused && !client.tail.is_empty()) {
            self.run_tail(key.index as usize);
        }
        // One that has sent its last byte may be done now, with nothing new to write.
        if self.client(key).is_some_and(|client| client.half_closed) {
            self.touch(key.index as usize);
        }
    }

    fn run_tail(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if client.paused {
            return;
        }
        let mut tail = std::mem::take(&mut client.tail);
        let used = self.run_buffer(index, &tail);
        let Some(client) = self.clients.get_mut(index) else { return };
        if client.closing || used >= tail.len() {
            super::recycle(tail, &mut self.spare);
        } else {
            tail.drain(..used);
            if used > 0 {
                client.growing = (self.now, tail.len());
            }
            client.tail = tail;
        }
    }

    fn keep(&mut self, index: usize, rest: &[u8]) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if rest.is_empty() || client.closing {
            return;
        }
        client.tail = self.spare.pop().unwrap_or_default();
        client.tail.extend_from_slice(rest);
        client.growing = (self.now, rest.len());
    }

    /// Runs complete requests at the start of `buf`; how many bytes they took.
    fn run_buffer(&mut self, index: usize, buf: &[u8]) -> usize {
        let mut scanner = match self.clients.get_mut(index).and_then(|client| client.scanner.take()) {
            Some(kept) => *kept,
            None => std::mem::take(&mut self.scanner),
        };
        let mut stranger = self.is_stranger(index);
        let mut at = 0;
        while at < buf.len() {
            if !self.may_run(index) {
                // The scanner may be in the middle of a long request: the next client must not go on from there.
                scanner.reset();
                break;
            }
            let limits = if stranger { &self.stranger_limits } else { &self.options.request };
            match scanner.scan(&buf[at..], limits) {
                Ok(Scan::Complete(length)) => {
                    let frame = &buf[at..at + length];
                    let flow = if scanner.is_inline() {
                        self.run_inline(index, frame)
                    } else if scanner.spans().is_empty() {
                        Flow::Ran
                    } else {
                        self.run(index, Args::new(frame, scanner.spans()))
                    };
                    scanner.reset();
                    if stranger {
                        stranger = self.is_stranger(index);
                    }
                    match flow {
                        Flow::Ran => at += length,
                        Flow::Wait => {
                            self.wait_for_replies(index);
                            break;
                        }
                    }
                }
                Ok(Scan::Incomplete(need)) => {
                    if let Some(client) = self.clients.get_mut(index) {
                        client.need = need;
                        if scanner.spans().len() > KEEP_PLACE_ARGS {
                            client.scanner = Some(Box::new(std::mem::take(&mut scanner)));
                        }
                    }
                    scanner.reset();
                    break;
                }
                Err(error) => {
                    self.refuse(index, &error);
                    at = buf.len();
                    scanner.reset();
                }
            }
        }
        self.scanner = scanner;
        at
    }

    fn is_stranger(&self, index: usize) -> bool {
        self.clients.get(index).is_some_and(|client| !client.session.authenticated)
    }

    /// False when the client is at a limit, and pauses it.
    #[inline]
    fn may_run(&mut self, index: usize) -> bool {
        let Some(client) = self.clients.get_mut(index) else { return false };
        if client.closing || client.paused || self.stopping && client.kind == Kind::Socket {
            return false;
        }
        if client.inflight() >= self.options.inflight_per_client
            || client.unread() >= self.options.output_pause
        {
            client.paused = true;
            client.need = 0;
            self.stats.pauses.add(1);
            return false;
        }
        true
    }

    /// The next request needs the client's earlier ones answered: it is run again then.
    fn wait_for_replies(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index) {
            client.paused = true;
            client.waits = true;
            client.need = 0;
        }
    }

    /// The bytes are no RESP: says so, then closes.
    fn refuse(&mut self, index: usize, error: &ProtocolError) {
        self.stats.protocol_errors.add(1);
        self.answer_error(index, None, format!("ERR {error}").as_bytes());
        if let Some(client) = self.clients.get_mut(index) {
            client.closing = true;
        }
    }

    fn run_inline(&mut self, index: usize, line: &[u8]) -> Flow {
        let mut scanner = RequestScanner::default();
        let unpacked = RequestScanner::unpack_inline(line).and_then(|inline| {
            inline.map(|inline| scanner.scan(&inline.0, &self.options.request).map(|_| inline)).transpose()
        });
        match unpacked {
            Ok(None) => Flow::Ran,
            Ok(Some(inline)) => self.run(index, Args::new(&inline.0, scanner.spans())),
            Err(error) => {
                self.refuse(index, &error);
                Flow::Ran
            }
        }
    }

    /// Runs one request, unless it must wait for the client's earlier ones.
    fn run(&mut self, index: usize, args: Args<'_>) -> Flow {
        let resolved = match command::resolve(&args) {
            Err(_) => self.process.learned.resolve(&args),
            known => known,
        };
        let class = resolved.as_ref().map_or(Class::Local, |command| command.class_of(&args));
        if self.must_wait(index, resolved.ok(), class, &args) {
            return Flow::Wait;
        }
        if self.held != Held::Nothing && self.is_held(index, resolved.ok()) {
            return Flow::Wait;
        }
        if let Some(client) = self.clients.get_mut(index) {
            client.mute = client.mute.after_request();
            client.command = resolved.as_ref().map_or(super::NO_COMMAND, |command| command.id);
        }
        let command = match resolved {
            Ok(command) => command,
            Err(command::ResolveError::WrongArity(command)) if command.name == "exec" => {
                self.refuse_exec(index, command);
                return Flow::Ran;
            }
            Err(error) => {
                self.refuse_transaction(index);
                self.answer_error(index, None, &error.message(&args));
                return Flow::Ran;
            }
        };
        self.run_command(index, command, class, &args);
        Flow::Ran
    }

    /// True when the client's earlier requests must be answered before this one runs.
    #[inline]
    fn must_wait(
        &self,
        index: usize,
        command: Option<&'static Command>,
        class: Class,
        args: &Args<'_>,
    ) -> bool {
        let Some(client) = self.clients.get(index).filter(|client| client.inflight() > 0) else {
            return false;
        };
        client.mute == Mute::This
            || command.is_some_and(|command| {
                changes_way(client, command, class)
                    || pubsub::delays(client, command, class)
                    || self.waits_to_modify(index, command, class, args)
            })
    }

    fn run_command(&mut self, index: usize, command: &'static Command, class: Class, args: &Args<'_>) {
        let Some(client) = self.clients.get(index) else { return };
        let is_free = client.session.free;
        if !is_free && self.is_refused(index, command, args) {
            return;
        }
        if let Some(text) = self.refused_key(index, command, args) {
            self.refuse_transaction(index);
            return self.answer_error(index, Some(command), text.as_bytes());
        }
        if !is_free {
            self.show(index, command, class, args);
        }
        let Some(client) = self.clients.get(index) else { return };
        let (subscribes, queues) = (client.subscriber.is_some(), client.transaction.is_some());
        if subscribes && self.run_as_subscriber(index, command, args) {
            return;
        }
        if queues && self.queue(index, command, args) {
            return;
        }
        match class {
            Class::Single => self.run_single(index, command, args),
            Class::Split(merge) => self.run_split(index, command, merge, args),
            Class::Local => self.run_local(index, command, args),
            Class::Refused => {
                let text = format!("ERR '{}' is refused by this proxy: {}", command.name, command.note);
                self.answer_error(index, Some(command), text.as_bytes());
            }
            Class::FanOut => {
                self.scripts.note(command, args);
                self.run_fanout(index, command, args);
            }
            Class::Script => {
                self.scripts.note(command, args);
                self.note_script(index, command, args);
                self.run_single(index, command, args);
            }
            Class::PubSub => self.run_pubsub(index, command, args),
            Class::Transaction if command.name == "watch" => self.run_watch(index, command, args),
            Class::Transaction => self.run_transaction(index, command),
            Class::Blocking if command.takes_keys() => self.run_blocking(index, command, args),
            Class::Blocking if command.name == "wait" => self.run_wait(index, command, args),
            Class::Blocking | Class::BlockingIf(_) => {
                let text = format!("ERR '{}' is not supported by this proxy", command.name);
                self.answer_error(index, Some(command), text.as_bytes());
            }
        }
    }

    /// A command whose keys share a slot: forwarded as it came.
    #[inline]
    fn run_single(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        let slot = match command.first_key(args) {
            Some(first) => slot::slot(args.get(first).unwrap_or_default()),
            None => match self.common_slot(command, args) {
                Ok(slot) => slot,
                Err(text) => return self.answer_error(index, Some(command), text.as_bytes()),
            },
        };
        let mapping = match self.mapping_of(index, command, args) {
            Hook::Plain(mapping) => mapping,
            Hook::Done => return,
        };
        self.forward(index, command, slot, mapping, args.frame());
    }

    /// The slot of a command with several keys, or with none (any slot will do).
    fn common_slot(&mut self, command: &'static Command, args: &Args<'_>) -> Result<u16, &'static str> {
        let mut indexes = std::mem::take(&mut self.key_indexes);
        indexes.clear();
        let found = command.keys(args, &mut indexes);
        let mut slots = indexes.iter().map(|at| slot::slot(args.get(*at as usize).unwrap_or_default()));
        let slot = match (found, slots.next()) {
            // Redis itself finds the right words for a malformed key list.
            (Err(_), _) | (Ok(()), None) => Ok(0),
            (Ok(()), Some(first)) if slots.all(|slot| slot == first) => Ok(first),
            (Ok(()), Some(_)) => Err("CROSSSLOT Keys in request don't hash to the same slot"),
        };
        self.key_indexes = indexes;
        slot
    }

    /// Forwards a whole request; its reply takes the next place in the client's order.
    #[inline]
    pub(super) fn forward(
        &mut self,
        index: usize,
        command: &'static Command,
        slot: u16,
        mapping: u16,
        request: &[u8],
    ) {
        let at = self.now;
        let Some(client) = self.clients.get_mut(index) else { return };
        let seq = client.open(Slot::Waiting(Begun { at, command: command.id }));
        let owner = Owner::Client { index: index as u32, serial: client.serial, seq, part: 0 };
        self.stats.inflight.add(1);
        let entry = Entry {
            owner,
            len: 0,
            at,
            command: command.id,
            mapping,
            readonly: command.is_readonly(),
            attempts: 0,
            more: 0,
        };
        self.send(slot, entry, request);
    }

    /// Sends a request of the client in `entry` to the owner of `slot`; drops it when that client is gone.
    #[inline]
    pub(super) fn send(&mut self, slot: u16, entry: Entry, request: &[u8]) {
        if self.parking.keeps(slot, &entry) {
            return self.parking.park(slot, entry, request.to_vec());
        }
        let Owner::Client { index, serial, .. } = entry.owner else { return };
        let Some(client) = self.clients.get(index as usize).filter(|client| client.serial == serial) else {
            return;
        };
        match self.routes.upstream(slot, client.session.protocol, &mut self.upstreams) {
            Some(upstream) => self.send_to(upstream, entry, request),
            None => self.fail(&entry, "CLUSTERDOWN Hash slot not served"),
        }
    }

    /// Appends a request to the log of an upstream connection.
    #[inline]
    pub(super) fn send_to(&mut self, upstream_index: usize, entry: Entry, request: &[u8]) {
        let Some(upstream) = self.upstreams.get_mut(upstream_index) else { return };
        upstream.push(request, entry);
        if upstream.inflight() >= self.options.upstream_inflight
            || upstream.buffered() >= self.options.upstream_buffer
        {
            self.pause_for_upstream(entry.owner);
        }
        self.mark_dirty(upstream_index);
    }

    /// The node is behind: the client that just sent to it is not read until it has its replies.
    fn pause_for_upstream(&mut self, owner: Owner) {
        if let Owner::Client { index, serial, .. } = owner
            && let Some(client) = self.clients.get_mut(index as usize)
            && client.serial == serial
            && !client.paused
        {
            client.paused = true;
            client.need = 0;
            self.stats.pauses.add(1);
        }
    }
}

/// True for a command that goes over another connection than those before it: these must be answered first, or it could
/// overtake them, or be overtaken. Replies are muted and unmuted between requests, too.
fn changes_way(client: &Client, command: &Command, class: Class) -> bool {
    match class {
        Class::Blocking => client.transaction.is_none(),
        Class::Transaction => {
            let computes = || client.transaction.as_ref().is_some_and(|queued| queued.computes());
            command.name == "watch" || client.watch.is_some() || computes()
        }
        Class::Local => matches!(command.name, "hello" | "reset" | "client|reply" | "proxy|flush"),
        _ => false,
    }
}

/// What the mapped-key hook says about a command.
pub(super) enum Hook {
    /// Forward it; the mapping of its key, or [`Entry::UNMAPPED`].
    Plain(u16),
    /// It is answered or on its way already.
    Done,
}

/// Whether a request was run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// It was; go on with the next.
    Ran,
    /// It must wait until the client has no unanswered request.
    Wait,
}
