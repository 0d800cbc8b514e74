//! What the clock makes due at the sockets: clients that do not read, clients that say nothing.
//!
//! Must not know: what is sent.

use super::super::sockets::Socket;
use super::Worker;
use crate::config::NEVER;
use crate::core::ClientKey;

/// Time between two looks for idle clients, in microseconds.
const IDLE_CHECK_US: u64 = 1_000_000;

impl Worker {
    pub(super) fn tick(&mut self) {
        self.clock();
        self.core.tick();
        let (now, stall) = (self.core.now, self.stall);
        let stalled: Vec<ClientKey> = self
            .clients
            .iter()
            .flatten()
            .filter(|(_, socket)| socket.blocked && now.saturating_sub(socket.wrote_at) > stall)
            .map(|(key, _)| *key)
            .collect();
        for key in stalled {
            self.core.count_slow();
            self.close_client(key);
        }
        self.close_idle();
        self.settle();
    }

    /// Closes clients that have been silent for too long, or hold their place for nothing. Looking at every socket is for
    /// once a second.
    fn close_idle(&mut self) {
        let (now, idle) = (self.core.now, self.process.live.idle_us.get());
        if now < self.next_idle_check {
            return;
        }
        self.next_idle_check = now + IDLE_CHECK_US;
        let silent =
            |socket: &Socket| idle != NEVER && now.saturating_sub(socket.read_at.max(socket.wrote_at)) > idle;
        let mut expired: Vec<(ClientKey, Option<&'static str>)> = Vec::new();
        for (key, socket) in self.clients.iter().flatten() {
            let overdue = self.core.is_overdue(*key);
            if overdue.is_some() || silent(socket) && !self.core.is_subscriber(*key) {
                expired.push((*key, overdue));
            }
        }
        for (key, overdue) in expired {
            if let Some(reason) = overdue {
                self.process.access.metrics.rejected(reason);
            }
            self.close_client(key);
        }
    }
}
