//! What the clock makes due: reconnects, timeouts, retries that were put off.
//!
//! Must not know: replies, redirects.

use super::{ClientKey, Core};
use crate::cluster::{Link, Owner};

/// What a client must bring of an unfinished request to be given more time, in bytes.
pub(super) const STEP: usize = 16 << 10;

impl Core {
    /// Why a client is closed that holds its place without using it: it does not log in, or sends a request drop by drop.
    pub fn is_overdue(&self, key: ClientKey) -> Option<&'static str> {
        let client = self.client(key)?;
        let past = |since: u64| self.now.saturating_sub(since);
        if !client.session.authenticated && past(client.session.since) > self.options.login_timeout_us {
            return Some("login_timeout");
        }
        // One that waits for replies is not read.
        let is_unfinished = !client.tail.is_empty() && !client.paused && client.inflight() == 0;
        let is_late = is_unfinished && past(client.growing.0) > self.options.request_timeout_us;
        is_late.then_some("request_timeout")
    }

    /// Runs what is due: reconnects, timeouts, delayed retries. Call every few tens of milliseconds.
    pub fn tick(&mut self) {
        self.slow_us = self.process.live.slow_us.get();
        self.slow_left = super::slow::MOST_PER_TICK;
        self.process.sample(self.options.about.worker);
        // Connections are never removed, so their indexes are dense; a list of them would be one more allocation.
        for index in 0..self.upstreams.len() {
            self.time_out(index);
            let Some(upstream) = self.upstreams.get_mut(index) else { continue };
            upstream.note_written(self.now);
            let inflight = upstream.inflight() as u64;
            // The two dialects of a node share its gauge.
            let change = inflight.wrapping_sub(std::mem::replace(&mut upstream.counted, inflight));
            self.cells(index).inflight.add(change);
            if inflight > 0 {
                self.mark_dirty(index);
            }
        }
        self.degrade();
        self.retry_dedicated();
        self.close_idle_dedicated();
        self.count_dedicated();
        self.count_scripts();
        self.close_leavers();
        self.pubsub_tick();
        self.monitor_tick();
        self.end_infos();
        self.waits_tick();
        if self.held != super::pause::Held::Nothing {
            self.look_at_pause();
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
        let blocks = upstream.link == Link::Up && self.dedicated.is_blocked(index);
        if blocks && !self.is_block_overdue(index) {
            return;
        }
        let Some(upstream) = self.upstreams.get_mut(index) else { return };
        if upstream.link != Link::Up {
            return self.withdraw_overdue(index, deadline);
        }
        let text = format!(
            "ERR dsproxy: {} did not answer within the command timeout; whether the command ran is unknown",
            upstream.addr
        );
        let silent = blocks || upstream.heard_at < deadline;
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
        let mut again = Vec::new();
        for request in upstream.take_all() {
            if request.entry.at < deadline {
                self.stats.timeouts.add(u64::from(matches!(request.entry.owner, Owner::Client { .. })));
                self.fail(&request.entry, &text);
            } else {
                again.push(request);
            }
        }
        self.send_again(index, again);
    }
}
