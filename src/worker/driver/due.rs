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

    /// Closes clients that have been silent for too long. Looking at every socket is for once a second.
    fn close_idle(&mut self) {
        let (now, idle) = (self.core.now, self.process.live.idle_us.get());
        if idle == NEVER || now < self.next_idle_check {
            return;
        }
        self.next_idle_check = now + IDLE_CHECK_US;
        let silent = |socket: &Socket| now.saturating_sub(socket.read_at.max(socket.wrote_at)) > idle;
        let expired: Vec<ClientKey> = self
            .clients
            .iter()
            .flatten()
            .filter(|(key, socket)| silent(socket) && !self.core.is_subscriber(*key))
            .map(|(key, _)| *key)
            .collect();
        for key in expired {
            self.close_client(key);
        }
    }
}
