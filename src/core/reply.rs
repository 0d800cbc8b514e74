//! From a node's bytes to replies in their client's output.
//!
//! Must not know: how requests were routed.

use super::client::Slot;
use super::mapped::may_be_absent;
use super::order::way_of;
use super::{ClientKey, Core, Kind, NO_COMMAND, Route, recycle};
use crate::cluster::{Entry, Owner};
use crate::command;
use crate::command::Command;
use crate::resp::is_nil;

/// Whether a reply to a read of a mapped key may say that there is no such key.
fn may_mean_absent(oldest: Option<&Entry>, reply: &[u8]) -> bool {
    let Some(entry) = oldest.filter(|entry| entry.mapping != Entry::UNMAPPED) else { return false };
    let is = |name: &[u8]| command::lookup(name).is_some_and(|command| command.id == entry.command);
    match reply {
        // To these an empty string is a value like any other.
        b"$0\r\n\r\n" => !is(b"get") && !is(b"getex"),
        // A key that does not expire says so in the same way.
        b":-1\r\n" => is(b"bitpos"),
        reply => may_be_absent(reply),
    }
}

/// Codes of errors that are about the state of a node.
const STATES: [&str; 6] = ["LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "MISCONF", "OOM"];

impl Core {
    /// Bytes have arrived from a node: hands every complete reply in them to its client.
    pub fn upstream_data(&mut self, index: usize, data: &[u8]) {
        let Some(upstream) = self.upstreams.get_mut(index) else { return };
        upstream.heard_at = self.now;
        let mut tail = upstream.take_tail();
        if tail.is_empty() {
            let used = self.read_replies(index, data);
            if let Some(upstream) = self.upstreams.get_mut(index) {
                tail.extend_from_slice(used.and_then(|used| data.get(used..)).unwrap_or_default());
                upstream.keep_tail(tail);
            }
        } else {
            tail.extend_from_slice(data);
            let used =
                if upstream.needs_more_than(tail.len()) { Some(0) } else { self.read_replies(index, &tail) };
            if let Some(upstream) = self.upstreams.get_mut(index)
                && let Some(used) = used
            {
                tail.drain(..used);
                upstream.keep_tail(tail);
            }
        }
        if !self.parking.is_empty() {
            self.release_parked();
        }
    }

    /// Reads complete replies at the start of `buf`; how many bytes they took, `None` when the connection was given up.
    fn read_replies(&mut self, index: usize, buf: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < buf.len() {
            let upstream = self.upstreams.get_mut(index)?;
            match upstream.scan(&buf[at..]) {
                Ok(Some(length)) => {
                    let reply = &buf[at..at + length];
                    at += length;
                    if !self.take_reply_from(index, reply) {
                        return None;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    self.outbox.close.push(index);
                    self.upstream_lost(index, &error.to_string());
                    return None;
                }
            }
        }
        Some(at)
    }

    /// Takes one reply off a connection. False when the connection was given up.
    #[inline]
    fn take_reply_from(&mut self, index: usize, reply: &[u8]) -> bool {
        let Some(upstream) = self.upstreams.get_mut(index) else { return false };
        let kind = reply.first().copied().unwrap_or_default();
        if kind == b'>' {
            return self.take_push(index, reply);
        }
        if upstream.oldest().is_some_and(|oldest| self.now.saturating_sub(oldest.at) > self.slow_us) {
            self.note_slow(index);
        }
        let Some(upstream) = self.upstreams.get_mut(index) else { return false };
        // A value, which most replies are, is what it says.
        let certain = kind == b'$' && !matches!(reply.get(1), Some(b'-' | b'0'));
        let oldest = upstream.oldest();
        // Nor has a nil another meaning where a client asked for a key without a mapping.
        let plain =
            |entry: &Entry| entry.mapping == Entry::UNMAPPED && matches!(entry.owner, Owner::Client { .. });
        let special = !certain
            && (kind == b'-'
                || !oldest.is_some_and(plain) && (is_nil(reply) || may_mean_absent(oldest, reply)));
        let waits = |entry: &Entry| {
            let unflushed = || self.data.as_ref().is_some_and(|data| data.writes.has_unflushed());
            entry.reads_mapped() && (entry.attempts > 0 || unflushed())
        };
        if special || upstream.oldest().is_some_and(waits) {
            return self.take_special(index, reply);
        }
        if upstream.take_early(reply) {
            return true;
        }
        let watched = if self.watches { self.watched(index) } else { None };
        let Some(upstream) = self.upstreams.get_mut(index) else { return false };
        let Some(entry) = upstream.answer() else {
            self.outbox.close.push(index);
            self.upstream_lost(index, "it sent a reply that nothing asked for");
            return false;
        };
        match entry.owner {
            Owner::Client { .. } => {
                if let Some(cells) = self.node_stats.get(index) {
                    cells.latency.record(self.now.saturating_sub(entry.at));
                }
                if entry.mapping != Entry::UNMAPPED {
                    self.count_hit(&entry, reply);
                    if let Some(key) = watched {
                        self.watch(&entry, key);
                    }
                }
                self.deliver(&entry, reply);
            }
            // Only now is it known to be of use: one that refuses us must not be tried without pause.
            Owner::Handshake => upstream.failures = 0,
            // The answer to `CLIENT ID`; every other one is no number, or belonged to a client once.
            Owner::Nobody if entry.command == NO_COMMAND && kind == b':' => {
                upstream.client_id =
                    std::str::from_utf8(&reply[1..]).ok().and_then(|number| number.trim_end().parse().ok());
            }
            Owner::Nobody if kind == b'$' && entry.command != NO_COMMAND => self.probe_told(index, reply),
            Owner::Nobody => {}
        }
        if !self.dedicated.is_idle() {
            self.dedicated_answered(index);
        }
        true
    }

    /// Errors and nils: the replies that may mean something else than what they say.
    #[cold]
    fn take_special(&mut self, index: usize, reply: &[u8]) -> bool {
        let Some(upstream) = self.upstreams.get_mut(index) else { return false };
        let Some(oldest) = upstream.oldest().copied() else {
            self.outbox.close.push(index);
            self.upstream_lost(index, "it sent a reply that nothing asked for");
            return false;
        };
        if oldest.owner == Owner::Handshake && reply.first() == Some(&b'-') {
            let reason = format!("it refused the handshake: {}", String::from_utf8_lossy(reply).trim());
            self.outbox.close.push(index);
            self.upstream_lost(index, &reason);
            return false;
        }
        if upstream.take_early(reply) {
            return true;
        }
        // A transaction that is refused at its end was refused for the sake of one of its commands.
        let refusal = upstream.take_refusal();
        let is_error = reply.first() == Some(&b'-');
        if is_error && oldest.owner == Owner::Nobody && self.probe_refused(index, reply) {
            return true;
        }
        if is_error && oldest.owner == Owner::Nobody && self.is_hub(index) {
            self.hub_refused(index, reply);
            return true;
        }
        let reason = if is_error { refusal.as_deref().unwrap_or(reply) } else { reply };
        let again =
            is_error && matches!(oldest.owner, Owner::Client { .. }) && self.retry_after(index, reason);
        if again {
            return true;
        }
        let named = if is_error { self.name_node(index, &oldest, reply) } else { None };
        let reply = named.as_deref().unwrap_or(reply);
        let wants_key = !is_error && oldest.reads_mapped();
        let is_hit = wants_key && !is_nil(reply) && !may_mean_absent(Some(&oldest), reply);
        let watched = if is_hit && self.watches { self.watched(index) } else { None };
        let mut request = self.spare.pop().unwrap_or_default();
        let Some(upstream) = self.upstreams.get_mut(index) else { return false };
        if wants_key {
            request.extend_from_slice(upstream.oldest_request());
        }
        upstream.answer();
        if matches!(oldest.owner, Owner::Client { .. }) {
            if let Some(cells) = self.node_stats.get(index) {
                cells.latency.record(self.now.saturating_sub(oldest.at));
            }
            let looked_at = match is_hit {
                true => self.verify_hit(&oldest, &request, reply),
                false => wants_key && self.load_missing(&oldest, &request, reply),
            };
            if !looked_at {
                if wants_key {
                    self.count_hit(&oldest, reply);
                }
                if let Some(key) = watched {
                    self.watch(&oldest, key);
                }
                self.deliver(&oldest, reply);
            }
        }
        self.dedicated_answered(index);
        recycle(request, &mut self.spare);
        true
    }

    /// What a node says of its own state in answer to a command that concerns every node: the client cannot know which
    /// node said it.
    fn name_node(&mut self, index: usize, entry: &Entry, error: &[u8]) -> Option<Vec<u8>> {
        let word = error.get(1..)?.split(|byte| *byte == b' ').next()?;
        if !STATES.iter().any(|state| state.as_bytes() == word) {
            return None;
        }
        let Owner::Client { index: client, serial, seq, .. } = entry.owner else { return None };
        let client = self.client_mut(ClientKey { index: client, serial })?;
        if !matches!(client.slot_mut(seq), Some(Slot::Gathering(..))) {
            return None;
        }
        let upstream = self.upstreams.get(index)?;
        if way_of(&self.process.learned, upstream.oldest_request()).is_some() {
            return None;
        }
        let text = error.strip_suffix(b"\r\n")?;
        Some([text, b" (said by ", upstream.addr.as_bytes(), b")\r\n"].concat())
    }

    /// Hands a reply to the client that asked.
    #[inline]
    pub(super) fn deliver(&mut self, entry: &Entry, reply: &[u8]) {
        let Owner::Client { index, serial, seq, part } = entry.owner else { return };
        if entry.mapping == Entry::WRITE {
            return self.write_answered(entry, reply);
        }
        let Some(client) = self.clients.get_mut(index as usize).filter(|client| client.serial == serial)
        else {
            return;
        };
        if let Some(Slot::Gathering(_, gather)) = client.slot_mut(seq) {
            if entry.attempts > 0
                && let Some(data) = &self.data
            {
                // As `verify_hit` does for one key.
                gather.mapped_of(part).for_each(|mapped| data.writes.doubt_key(mapped.mapping, &mapped.key));
            }
            if gather.take(part, reply) {
                self.finish_gather(ClientKey { index, serial }, seq);
            }
            return;
        }
        self.complete(index as usize, seq, reply, Route::Single);
    }

    /// Every part of a split command has arrived.
    pub(super) fn finish_gather(&mut self, key: ClientKey, seq: u32) {
        if self.load_missing_parts(key, seq) {
            return;
        }
        let mut merged = self.spare.pop().unwrap_or_default();
        let Some(client) = self.client_mut(key) else { return };
        let protocol = client.session.protocol;
        let Some(Slot::Gathering(begun, gather)) = client.slot_mut(seq) else { return };
        gather.finish(&mut merged, protocol);
        let outdated = gather.is_outdated();
        let begun = *begun;
        // The gather goes back to the spares before its slot becomes an answered one.
        let slot = Slot::Waiting(begun);
        if let Some(place) = client.slot_mut(seq)
            && let Slot::Gathering(_, gather) = std::mem::replace(place, slot)
            && self.spare_gathers.len() < super::SPARE_BUFFERS
            && gather.capacity() <= super::SPARE_BYTES
        {
            self.spare_gathers.push(gather);
        }
        self.outbox.refresh |= outdated;
        self.complete(key.index as usize, seq, &merged, Route::Split);
        recycle(merged, &mut self.spare);
    }

    /// Answers a request at once, in its turn.
    pub(super) fn answer_now(&mut self, index: usize, command: Option<&Command>, reply: &[u8]) {
        self.count(command.map(|c| c.id), reply, None);
        let Some(client) = self.clients.get_mut(index) else { return };
        if client.inflight() == 0 {
            if client.out.capacity() == 0 {
                client.out = self.spare.pop().unwrap_or_default();
            }
            client.say(reply);
        } else {
            let mut kept = self.spare.pop().unwrap_or_default();
            kept.extend_from_slice(reply);
            client.open(Slot::Ready(kept));
            self.stats.inflight.add(1);
        }
        self.touch(index);
    }

    /// Answers a request at once with an error; `text` begins with its code.
    pub(super) fn answer_error(&mut self, index: usize, command: Option<&Command>, text: &[u8]) {
        let mut reply = self.spare.pop().unwrap_or_default();
        crate::resp::push_error(&mut reply, text);
        self.answer_now(index, command, &reply);
        recycle(reply, &mut self.spare);
    }

    /// Answers request `seq` of a client.
    #[inline]
    pub(super) fn complete(&mut self, index: usize, seq: u32, reply: &[u8], route: Route) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if client.out.capacity() == 0 {
            client.out = self.spare.pop().unwrap_or_default();
        }
        let before = client.inflight();
        let Some(begun) = client.complete(seq, reply, &mut self.spare) else { return };
        let done = before - client.inflight();
        let paused = client.paused;
        // What the proxy asks for itself (fills) is no client's command.
        let counted = client.kind != Kind::Internal;
        self.stats.inflight.sub(done as u64);
        if counted {
            let us = self.now.saturating_sub(begun.at);
            if route != Route::Single {
                self.stats.detours[route as usize - 1].record(us);
            }
            self.count((begun.command != NO_COMMAND).then_some(begun.command), reply, Some(us));
        }
        self.touch(index);
        if paused {
            self.check_resume(index);
        }
    }

    /// Lets a paused client go on once it is well below its limits.
    pub(super) fn check_resume(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let most = if client.waits { 0 } else { self.options.inflight_per_client / 2 };
        if client.paused && client.inflight() <= most && client.unread() <= self.options.output_pause / 2 {
            client.paused = false;
            client.waits = false;
            self.outbox.resume.push(ClientKey { index: index as u32, serial: client.serial });
        }
    }
}
