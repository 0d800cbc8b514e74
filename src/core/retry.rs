//! What happens when a node says "not here", "not now", or nothing any more.
//!
//! Must not know: where bytes come from.
//!
//! A request is sent again only when it is known not to have run (redirects, refusals, not one byte written), or when
//! it only reads. Otherwise its client is told that the outcome is unknown.

use super::{ClientKey, Core, NO_COMMAND, recycle};
use crate::cluster::{Entry, Link, Owner};
use crate::command::COMMANDS;
use crate::resp::{Args, RequestScanner, Scan, push_command, push_error};
use crate::{command, slot};

/// Redirects and retries of one request before its error is passed on.
const ATTEMPTS: u8 = 16;
/// Pause before a request is tried again that a node could not serve just now, in microseconds.
const AGAIN_US: u64 = 20_000;

impl Core {
    /// The driver has connected an upstream: shakes hands, then sends what waits.
    pub fn upstream_connected(&mut self, index: usize) {
        let steps = self.handshake(index);
        let now = self.now;
        let Some(upstream) = self.upstreams.get_mut(index) else { return };
        upstream.link = Link::Up;
        upstream.failures = 0;
        upstream.heard_at = now;
        upstream.push_handshake(&steps, now, NO_COMMAND);
        self.cells(index).connects.add(1);
        self.mark_dirty(index);
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
    fn cells(&mut self, index: usize) -> &crate::metrics::worker::NodeCells {
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
        upstream.link = Link::Down { retry_at: now + pause };
        upstream.reason = reason.to_owned();
        upstream.dirty = false;
        let addr = upstream.addr.clone();
        let lost = upstream.take_all();
        self.outbox.refresh = true;
        tracing::warn!(node = %addr, reason, requests = lost.len(), "upstream connection lost");
        for mut request in lost {
            let again = !request.sent || request.entry.readonly;
            if again && request.entry.attempts < ATTEMPTS {
                request.entry.attempts += u8::from(request.sent);
                self.stats.retries.add(u64::from(request.sent));
                self.send_again(index, request.entry, &request.request);
            } else {
                let text = format!(
                    "ERR dsproxy: the connection to {addr} was lost after the command was sent ({reason}); whether it ran is unknown"
                );
                self.fail(&request.entry, &text);
            }
        }
    }

    /// Queues a request again, where its slot now belongs. One that no client waits for ends here: an `ASKING` without
    /// its request would let a stranger's in.
    fn send_again(&mut self, lost_on: usize, entry: Entry, request: &[u8]) {
        if !matches!(entry.owner, Owner::Client { .. }) {
            return;
        }
        match slot_of(request) {
            Some(slot) => self.send(slot, entry, request),
            None => self.send_to(lost_on, entry, request),
        }
    }

    /// After a change of topology: requests that wait for an unreachable node go to the new owner of their slot.
    pub(super) fn reroute_unreachable(&mut self) {
        let down: Vec<usize> = self
            .upstreams
            .iter()
            .filter(|(_, upstream)| upstream.link != Link::Up && upstream.inflight() > 0)
            .map(|(index, _)| index)
            .collect();
        for index in down {
            let Some(upstream) = self.upstreams.get_mut(index) else { continue };
            for request in upstream.take_all() {
                self.send_again(index, request.entry, &request.request);
            }
        }
    }

    /// Sends what no longer needs to wait.
    pub(super) fn release_parked(&mut self) {
        let upstreams = &self.upstreams;
        let passed = |index: usize, mark: u64| {
            upstreams.get(index).is_none_or(|upstream| upstream.answered_up_to(mark))
        };
        for parked in self.parking.release(self.now, passed) {
            self.send(parked.slot, parked.entry, &parked.request);
        }
    }

    /// Looks at an error reply to the oldest request of a connection: true when the request was sent on, or will be.
    pub(super) fn retry_after(&mut self, index: usize, error: &[u8]) -> bool {
        let Some(verdict) = Verdict::of(error) else { return false };
        let Some(upstream) = self.upstreams.get_mut(index) else { return false };
        let Some(oldest) = upstream.oldest().copied() else { return false };
        if oldest.attempts >= ATTEMPTS && !matches!(verdict, Verdict::Later) {
            return false;
        }
        if self.now.saturating_sub(oldest.at) > self.options.command_timeout_us {
            return false;
        }
        let asked = upstream.addr.clone();
        let mut request = self.spare.pop().unwrap_or_default();
        request.extend_from_slice(upstream.oldest_request());
        upstream.answer();
        let entry = Entry { attempts: oldest.attempts.saturating_add(1), ..oldest };
        match verdict {
            Verdict::Moved(addr) => {
                self.outbox.refresh = true;
                self.stats.redirects.add(1);
                self.redirect(&asked, &addr, entry, &request, false);
            }
            Verdict::Ask(addr) => {
                self.stats.redirects.add(1);
                self.redirect(&asked, &addr, entry, &request, true);
            }
            Verdict::Later => {
                self.outbox.refresh = true;
                self.stats.retries.add(1);
                let slot = slot_of(&request).unwrap_or_default();
                self.parking.delay(slot, self.now + AGAIN_US);
                self.parking.park(slot, entry, request.clone());
            }
        }
        recycle(request, &mut self.spare);
        true
    }

    fn redirect(&mut self, asked: &str, addr: &str, entry: Entry, request: &[u8], asking: bool) {
        let Owner::Client { index, serial, .. } = entry.owner else { return };
        let Some(client) = self.client(ClientKey { index, serial }) else { return };
        let protocol = client.session.protocol;
        // An empty host means "the host you asked".
        let addr = match addr.strip_prefix(':') {
            Some(port) => format!("{}:{port}", asked.rsplit_once(':').map_or(asked, |(host, _)| host)),
            None => addr.to_owned(),
        };
        let upstream = self.routes.upstream_at(&addr, protocol, &mut self.upstreams);
        if asking {
            let nobody = Entry { owner: Owner::Nobody, ..entry };
            self.send_to(upstream, nobody, b"*1\r\n$6\r\nASKING\r\n");
        }
        self.send_to(upstream, entry, request);
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

    /// Runs what is due: reconnects, timeouts, delayed retries. Call every few tens of milliseconds.
    pub fn tick(&mut self) {
        for index in self.upstreams.iter().map(|(index, _)| index).collect::<Vec<_>>() {
            self.time_out(index);
            let Some(upstream) = self.upstreams.get(index) else { continue };
            let inflight = upstream.inflight();
            if inflight > 0 {
                self.mark_dirty(index);
            }
            self.cells(index).inflight.set(inflight as u64);
        }
        if !self.parking.is_empty() {
            self.release_parked();
            let deadline = self.now.saturating_sub(self.options.command_timeout_us);
            for parked in self.parking.expire(deadline) {
                self.stats.timeouts.add(1);
                self.fail(
                    &parked.entry,
                    "ERR dsproxy: no node could serve this slot within the command timeout",
                );
            }
        }
    }

    /// Answers what has waited too long on one connection, and gives the connection up when it has fallen silent.
    fn time_out(&mut self, index: usize) {
        let deadline = self.now.saturating_sub(self.options.command_timeout_us);
        let Some(upstream) = self.upstreams.get_mut(index) else { return };
        // Entries are not in the order of their time: redirected ones are older than their place, handshakes younger.
        if upstream.entries_mut().all(|entry| entry.at >= deadline) {
            return;
        }
        if upstream.link != Link::Up {
            return self.withdraw_overdue(index, deadline);
        }
        let text = format!(
            "ERR dsproxy: {} did not answer within the command timeout; whether the command ran is unknown",
            upstream.addr
        );
        let silent = upstream.heard_at < deadline;
        let mut overdue = Vec::new();
        for entry in upstream.entries_mut().filter(|entry| entry.at < deadline) {
            if matches!(entry.owner, Owner::Client { .. }) {
                overdue.push(*entry);
                // The reply, should it still come, belongs to nobody; the bytes stay in the log until then.
                entry.owner = Owner::Nobody;
            }
        }
        for entry in &overdue {
            self.stats.timeouts.add(1);
            self.fail(entry, &text);
        }
        if silent {
            self.outbox.close.push(index);
            self.upstream_lost(index, "it did not answer within the command timeout");
        }
    }

    /// Answers what has waited too long for a connection, and takes it off the queue: nothing of it was written.
    fn withdraw_overdue(&mut self, index: usize, deadline: u64) {
        let Some(upstream) = self.upstreams.get_mut(index) else { return };
        let text = format!(
            "ERR dsproxy: {} is unreachable ({}); the command was not run",
            upstream.addr, upstream.reason
        );
        for request in upstream.take_all() {
            if request.entry.at < deadline {
                self.stats.timeouts.add(u64::from(matches!(request.entry.owner, Owner::Client { .. })));
                self.fail(&request.entry, &text);
            } else {
                self.send_again(index, request.entry, &request.request);
            }
        }
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
            _ => None,
        }
    }
}

/// The slot of a request that was sent before: that of its first key.
fn slot_of(request: &[u8]) -> Option<u16> {
    let mut scanner = RequestScanner::default();
    let Ok(Scan::Complete(_)) = scanner.scan(request, &crate::resp::RequestLimits::default()) else {
        return None;
    };
    let args = Args::new(request, scanner.spans());
    let command = command::lookup(args.name())?;
    let mut keys = Vec::new();
    command.keys(&args, &mut keys).ok()?;
    Some(slot::slot(args.get(*keys.first()? as usize)?))
}
