//! What nodes say to a client that has a connection for itself: that they are the wrong one, or that it is too early.
//!
//! Must not know: how a connection is taken and given back.

use super::super::Core;
use super::super::block_timeout::with_wait;
use super::{Holder, Later, Purpose};
use crate::cluster::{Entry, Owner};
use crate::command::COMMANDS;

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// Pause before a command is tried again that a node could not serve just now, in microseconds.
const AGAIN_US: u64 = 20_000;

impl Core {
    /// True when the client that sent this request still has the connection that it came over.
    pub(in super::super) fn still_holds(&self, upstream: usize, entry: &Entry) -> bool {
        self.dedicated.held.get(&upstream).is_some_and(|holder| holder.sent(entry))
    }

    /// The node redirected what was sent over a dedicated connection: the same for the client at another node. A watch
    /// cannot move once it has begun: its transaction ends as if a key had changed.
    pub(in super::super) fn redirect_dedicated(
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
        match holder.watches {
            true => self.end_watch(from),
            false => self.give_back(from),
        }
        if holder.purpose == Purpose::Exec {
            return self.deliver(&entry, if protocol >= 3 { b"_\r\n" } else { b"*-1\r\n" });
        }
        if holder.watches {
            // What it watched before may have changed; nothing that it watches from now on matters any more.
            if let Some(watch) = self.client_mut(holder.client).and_then(|client| client.watch.as_mut()) {
                watch.lost = true;
            }
            return self.deliver(&entry, b"+OK\r\n");
        }
        let holder = Holder { asked: asking, stray_since: None, ..holder };
        let upstream = self.take_dedicated_at(addr, protocol, holder);
        if let Some(watch) = self.client_mut(holder.client).and_then(|client| client.watch.as_mut()) {
            watch.upstream = upstream;
        }
        if asking {
            self.send_to(upstream, Entry { owner: Owner::Nobody, more: 0, ..entry }, ASKING);
        }
        // What it has waited already counts.
        let command = COMMANDS.get(usize::from(entry.command));
        let shorter = command
            .filter(|_| holder.purpose == Purpose::Block && holder.until != u64::MAX)
            .and_then(|command| with_wait(command, request, holder.until.saturating_sub(self.now)));
        self.send_to(upstream, entry, shorter.as_deref().unwrap_or(request));
    }

    /// The node cannot serve just now what was sent over a dedicated connection: it is tried again after a pause, unless
    /// that has gone on for the command timeout already. False when the reply must be passed on.
    ///
    /// A transaction is not tried again, since the keys that it watches may be on their way to another node: it ends as
    /// if one of them had changed.
    pub(in super::super) fn try_dedicated_later(
        &mut self,
        upstream: usize,
        entry: Entry,
        request: &[u8],
    ) -> bool {
        let (now, timeout) = (self.now, self.options.command_timeout_us);
        let Some(holder) = self.dedicated.held.get_mut(&upstream) else { return false };
        let since = *holder.refused_since.get_or_insert(now);
        if now.saturating_sub(since) > timeout {
            return false;
        }
        if holder.purpose == Purpose::Exec {
            self.redirect_dedicated(upstream, "", false, entry, request);
            return true;
        }
        self.stats.retries.add(1);
        self.dedicated.later.push(Later { upstream, at: now + AGAIN_US, entry, request: request.to_vec() });
        true
    }

    /// Tries again what nodes could not serve a moment ago.
    pub(in super::super) fn retry_dedicated(&mut self) {
        if self.dedicated.later.is_empty() {
            return;
        }
        let now = self.now;
        let (due, kept) =
            std::mem::take(&mut self.dedicated.later).into_iter().partition(|later: &Later| later.at <= now);
        self.dedicated.later = kept;
        for Later { upstream, entry, request, .. } in due {
            let slot = self.dedicated.held.get(&upstream).map(|holder| holder.slot);
            match slot.and_then(|slot| self.routes.topology().owner_addr(slot)).map(str::to_owned) {
                Some(addr) => self.redirect_dedicated(upstream, &addr, false, entry, &request),
                None => self.fail(&entry, "CLUSTERDOWN Hash slot not served"),
            }
        }
    }

    /// True when a blocked connection should have answered by now: the time that the client gave is over, or the slot
    /// has had another owner for a while, and still nothing came.
    pub(in super::super) fn is_block_overdue(&mut self, upstream: usize) -> bool {
        let (now, timeout) = (self.now, self.options.command_timeout_us);
        let addr = self.upstreams.get(upstream).map(|upstream| &*upstream.addr);
        let Some(holder) = self.dedicated.held.get_mut(&upstream) else { return false };
        if holder.asked || self.routes.topology().owner_addr(holder.slot) == addr {
            holder.stray_since = None;
        } else {
            holder.stray_since.get_or_insert(now);
        }
        let is_over = |since: u64| now.saturating_sub(since) > timeout;
        is_over(holder.until) || holder.stray_since.is_some_and(is_over)
    }
}
