//! What happens when a node says "not here", "not now", or nothing any more.
//!
//! Must not know: where bytes come from.
//!
//! A request is sent again only when it is known not to have run (redirects, refusals, not one byte written), or when
//! it only reads. Otherwise its client is told that the outcome is unknown.

use super::order::{Way, way_of};
use super::{ClientKey, Core, NO_COMMAND, recycle};
use crate::cluster::{Entry, Link, Owner, Upstream, client_addr};
use crate::command::COMMANDS;
use crate::resp::{push_command, push_error};

/// Pause before a request is tried again that a node could not serve just now, in microseconds.
const AGAIN_US: u64 = 20_000;

/// Asked on connections that may block: who blocks there can be unblocked by this number only.
const CLIENT_ID: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n";

/// How a node says that it does not know the script of an `EVALSHA`.
const NO_SCRIPT: &[u8] = b"-NOSCRIPT No matching script.";

impl Core {
    /// The driver has connected an upstream: shakes hands, then sends what waits.
    pub fn upstream_connected(&mut self, index: usize) {
        let steps = self.handshake(index);
        let loads = if self.data.is_some() { self.scripts.own_loads() } else { Vec::new() };
        let now = self.now;
        let Some(upstream) = self.upstreams.get_mut(index) else { return };
        upstream.link = Link::Up;
        if steps.is_empty() {
            upstream.failures = 0;
        }
        upstream.heard_at = now;
        // A node that refuses our scripts shows it when they are called.
        upstream.push_handshake(&loads, Owner::Nobody, now, NO_COMMAND);
        if self.dedicated.owns(index) {
            upstream.push_handshake(&[CLIENT_ID.to_vec()], Owner::Nobody, now, NO_COMMAND);
        }
        upstream.push_handshake(&steps, Owner::Handshake, now, NO_COMMAND);
        self.cells(index).connects.add(1);
        self.mark_dirty(index);
        self.hub_connected(index);
    }

    fn handshake(&self, index: usize) -> Vec<Vec<u8>> {
        let mut steps = Vec::new();
        let mut step = |args: &[&[u8]]| {
            let mut request = Vec::new();
            push_command(&mut request, args.iter().copied());
            steps.push(request);
        };
        if let Some(auth) = &self.options.upstream_auth {
            let password = auth.password.expose().as_bytes();
            match &auth.username {
                Some(user) => step(&[b"AUTH", user.as_bytes(), password]),
                None => step(&[b"AUTH", password]),
            }
        }
        if self.upstreams.get(index).is_some_and(|upstream| upstream.protocol >= 3) {
            step(&[b"HELLO", b"3"]);
        }
        steps
    }

    /// The counters of the node behind a connection.
    pub(super) fn cells(&mut self, index: usize) -> &crate::metrics::worker::NodeCells {
        while self.node_stats.len() <= index {
            let addr = self.upstreams.get(self.node_stats.len()).map_or("?", |upstream| &upstream.addr);
            self.node_stats.push(self.stats.node(addr));
        }
        &self.node_stats[index]
    }

    /// The link of an upstream is gone, or could not be made.
    pub fn upstream_lost(&mut self, index: usize, reason: &str) {
        self.cells(index).losses.add(1);
        let (first, longest) = self.options.backoff_us;
        let now = self.now;
        let Some(upstream) = self.upstreams.get_mut(index) else { return };
        let pause = first.saturating_mul(1 << upstream.failures.min(16)).min(longest);
        upstream.failures += 1;
        let was_up = upstream.link == Link::Up;
        upstream.link = Link::Down { retry_at: now + pause };
        upstream.reason = reason.to_owned();
        upstream.dirty = false;
        let addr = upstream.addr.clone();
        let lost = upstream.take_all();
        self.outbox.refresh = true;
        if let Some(data) = self.data.as_ref().filter(|_| was_up) {
            // The node may come back with less than it knew: what it had saved.
            data.writes.doubt_slots(&self.routes.topology().slots_at(&addr));
        }
        tracing::warn!(node = %addr, reason, requests = lost.len(), "upstream connection lost");
        let mut again = Vec::new();
        let dedicated = self.dedicated.owns(index);
        let outrun = self.outrun(&lost);
        for (mut request, outrun) in lost.into_iter().zip(outrun) {
            if dedicated && !request.sent {
                let text = format!("ERR dsproxy: {addr} is unreachable ({reason}); the command was not run");
                self.fail(&request.entry, &text);
            } else if (!request.sent || request.entry.readonly && !outrun)
                && !dedicated
                && request.entry.attempts < self.options.max_retries
            {
                request.entry.attempts += u8::from(request.sent);
                self.stats.retries.add(u64::from(request.sent));
                again.push(request);
            } else {
                let text = format!(
                    "ERR dsproxy: the connection to {addr} was lost after the command was sent ({reason}); whether it ran is unknown"
                );
                self.fail(&request.entry, &text);
            }
        }
        self.send_again(index, again);
        self.hub_lost(index);
        self.wait_lost(index, &addr, was_up);
        self.dedicated_lost(index);
    }

    /// Looks at an error reply to the oldest request of a connection: true when the request was sent on, will be, or was
    /// answered in other words.
    pub(super) fn retry_after(&mut self, index: usize, error: &[u8]) -> bool {
        if error.starts_with(NO_SCRIPT) {
            return self.heal_script(index);
        }
        let Some(verdict) = Verdict::of(error) else { return false };
        let Some(upstream) = self.upstreams.get_mut(index) else { return false };
        let Some(oldest) = upstream.oldest().copied() else { return false };
        let dedicated = self.dedicated.owns(index);
        if dedicated && !self.still_holds(index, &oldest) {
            // Its client has gone, and the connection may have another one already.
            return false;
        }
        let Some(upstream) = self.upstreams.get_mut(index) else { return false };
        let mut request = self.spare.pop().unwrap_or_default();
        request.extend_from_slice(upstream.oldest_request());
        if dedicated {
            let moved = match &verdict {
                Verdict::Moved(addr) => client_addr(addr, &upstream.addr).map(|addr| (addr, false)),
                Verdict::Ask(addr) => client_addr(addr, &upstream.addr).map(|addr| (addr, true)),
                Verdict::Later => None,
            };
            if let Some((addr, asking)) = moved.filter(|_| oldest.attempts < self.options.max_retries) {
                upstream.answer();
                self.outbox.refresh = true;
                let entry = Entry { attempts: oldest.attempts + 1, ..oldest };
                self.redirect_dedicated(index, &addr, asking, entry, &request);
                recycle(request, &mut self.spare);
                return true;
            }
            if matches!(verdict, Verdict::Later) {
                upstream.answer();
                self.outbox.refresh = true;
                if self.try_dedicated_later(index, oldest, &request) {
                    recycle(request, &mut self.spare);
                    return true;
                }
                self.deliver(&oldest, error);
                self.dedicated_answered(index);
                recycle(request, &mut self.spare);
                return true;
            }
            recycle(request, &mut self.spare);
            return false;
        }
        let Some(way) = way_of(&self.process.learned, &request) else {
            // It was sent to this node for its own sake, not for a slot.
            recycle(request, &mut self.spare);
            return false;
        };
        let is_late = self.now.saturating_sub(oldest.at) > self.options.command_timeout_us;
        let is_overtaken = self.is_overtaken(index, &oldest, way.slot);
        let Some(upstream) = self.upstreams.get_mut(index) else { return false };
        let asked = upstream.addr.clone();
        let entry = Entry { attempts: oldest.attempts.saturating_add(1), ..oldest };
        match verdict {
            Verdict::Later if is_late || is_overtaken => {
                recycle(request, &mut self.spare);
                return false;
            }
            Verdict::Moved(_) | Verdict::Ask(_)
                if is_late || (is_overtaken && oldest.attempts >= self.options.max_retries) =>
            {
                upstream.answer();
                self.fail(&oldest, "CLUSTERDOWN dsproxy: the nodes disagree about who serves this slot; the command was not run");
            }
            // A later request may find its keys where this one did not, and be served before it.
            Verdict::Ask(_) if is_overtaken && way.keys > 1 => {
                upstream.answer();
                self.fail(&oldest, "TRYAGAIN Multiple keys request during rehashing of slot");
            }
            Verdict::Moved(addr) if oldest.attempts < self.options.max_retries => {
                upstream.answer();
                self.outbox.refresh = true;
                self.redirect(&asked, &addr, entry, &request, way, false);
            }
            Verdict::Ask(addr) if oldest.attempts < self.options.max_retries => {
                upstream.answer();
                self.redirect(&asked, &addr, entry, &request, way, true);
            }
            Verdict::Moved(_) | Verdict::Ask(_) | Verdict::Later => {
                upstream.answer();
                self.outbox.refresh = true;
                self.stats.retries.add(1);
                self.try_later(way.slot, entry, &request);
            }
        }
        recycle(request, &mut self.spare);
        true
    }

    /// A node does not know the script of an `EVALSHA`: sends the `EVAL` that it stands for. One that later requests of
    /// its client have overtaken is not run any more, but the script is there when the client tries again.
    fn heal_script(&mut self, index: usize) -> bool {
        let Some(upstream) = self.upstreams.get(index) else { return false };
        let Some(oldest) = upstream.oldest().copied() else { return false };
        let Some(eval) = self.scripts.spell_out(upstream.oldest_request()) else { return false };
        let slot = way_of(&self.process.learned, upstream.oldest_request()).map(|way| way.slot);
        if slot.is_some_and(|slot| self.is_overtaken(index, &oldest, slot)) {
            let Some(load) = super::scripts::load_of(&eval) else { return false };
            self.send_to(index, Entry { owner: Owner::Nobody, ..oldest }, &load);
            return false;
        }
        if let Some(upstream) = self.upstreams.get_mut(index) {
            upstream.answer();
        }
        self.stats.retries.add(1);
        let entry = Entry { attempts: oldest.attempts.saturating_add(1), ..oldest };
        match slot.filter(|slot| self.parking.holds(*slot)) {
            Some(slot) => self.parking.park_again(slot, entry, eval),
            None => self.send_to(index, entry, &eval),
        }
        true
    }

    /// Parks a request until its slot may be tried again.
    fn try_later(&mut self, slot: u16, entry: Entry, request: &[u8]) {
        self.hold(vec![slot], self.now + AGAIN_US);
        // What is tried again after a pause may be redirected as often as a new request: the timeout ends it.
        self.parking.park_again(slot, Entry { attempts: 0, ..entry }, request.to_vec());
    }

    fn redirect(&mut self, asked: &str, addr: &str, entry: Entry, request: &[u8], way: Way, asking: bool) {
        let Owner::Client { index, serial, .. } = entry.owner else { return };
        let Some(client) = self.client(ClientKey { index, serial }) else { return };
        let protocol = client.session.protocol;
        self.stats.redirects.add(1);
        if self.parking.has_company(way.slot, &entry) {
            // An earlier request of the client may wait for this slot.
            return self.parking.park_again(way.slot, entry, request.to_vec());
        }
        let Some(addr) = client_addr(addr, asked) else {
            return self.fail(&entry, "ERR dsproxy: a node redirected to an address that is none");
        };
        let upstream = self.routes.upstream_at(&addr, protocol, &mut self.upstreams);
        if asking {
            let nobody = Entry { owner: Owner::Nobody, more: 0, ..entry };
            self.send_to(upstream, nobody, b"*1\r\n$6\r\nASKING\r\n");
        }
        self.send_to(upstream, entry, request);
        if asking
            && way.keys > 1
            && let Some(mark) = self.upstreams.get(upstream).map(Upstream::mark)
        {
            // The source may still serve later requests for some of the keys: not before this one is answered.
            self.parking.hold_for(way.slot, upstream, mark);
        }
    }

    /// Answers a request with an error of our own; `text` begins with its code. The log line and the error carry the
    /// same request id: the client's id, and the number of the request on its connection.
    pub(super) fn fail(&mut self, entry: &Entry, text: &str) {
        let Owner::Client { index, serial, seq, .. } = entry.owner else { return };
        let Some(client) = self.client(ClientKey { index, serial }) else { return };
        let request = format!("{}-{seq}", client.session.id);
        if self.failures.may_log(self.now) {
            let command = COMMANDS.get(usize::from(entry.command)).map_or("?", |command| command.name);
            tracing::warn!(request, command, error = text, "a command failed");
        }
        let mut reply = self.spare.pop().unwrap_or_default();
        push_error(&mut reply, format!("{text} [request {request}]"));
        self.deliver(entry, &reply);
        recycle(reply, &mut self.spare);
    }
}

/// Lets a burst of failures through to the log, not a flood: a node that is gone fails thousands of commands a second.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    second: u64,
    lines: u32,
}

impl FailureLog {
    /// Lines per second and worker.
    const LINES: u32 = 10;

    fn may_log(&mut self, now: u64) -> bool {
        let second = now / 1_000_000;
        if second != self.second {
            (self.second, self.lines) = (second, 0);
        }
        self.lines += 1;
        self.lines <= Self::LINES
    }
}

/// What an error of a node asks for.
enum Verdict {
    Moved(String),
    Ask(String),
    Later,
}

impl Verdict {
    fn of(error: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(error.strip_prefix(b"-")?.strip_suffix(b"\r\n")?).ok()?;
        let mut words = text.split(' ');
        match words.next()? {
            "MOVED" => Some(Self::Moved(words.nth(1)?.to_owned())),
            "ASK" => Some(Self::Ask(words.nth(1)?.to_owned())),
            "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" => Some(Self::Later),
            // A primary that has become a replica lets go of those that wait. (`CLIENT UNBLOCK` says it otherwise.)
            "UNBLOCKED" if words.next() == Some("force") => Some(Self::Later),
            _ => None,
        }
    }
}
