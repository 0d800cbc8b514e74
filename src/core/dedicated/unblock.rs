//! `CLIENT UNBLOCK`: lets a client that blocks go on before its time.
//!
//! Must not know: who asks for it.
//!
//! The node is asked to unblock the connection that the client has there, and answers it as it would any client of its
//! own: what was popped in the same moment still arrives, and nothing is lost. A command that waits to be sent has no
//! node to ask, and ends here.

use super::super::{ClientKey, Core};
use super::{Later, Purpose};
use crate::cluster::{Entry, Link};
use crate::resp::push_command;

const UNBLOCKED: &[u8] = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";

impl Core {
    /// True when the client with this id is one of ours and was blocked.
    pub(in super::super) fn unblock(&mut self, id: u64, error: bool) -> bool {
        let Some(key) = self.client_with_id(id) else { return false };
        if self.unblock_wait(key, error) || self.unblock_flush(key, error) {
            return true;
        }
        let waits = (self.dedicated.held.iter())
            .find(|(_, holder)| holder.client == key && holder.purpose == Purpose::Block);
        let Some(upstream) = waits.map(|(upstream, _)| *upstream) else { return false };
        let unsent = self.take_unsent(upstream);
        if !unsent.is_empty() {
            let nil = if self.upstreams.get(upstream).is_some_and(|upstream| upstream.protocol >= 3) {
                &b"_\r\n"[..]
            } else {
                b"*-1\r\n"
            };
            unsent.iter().for_each(|entry| self.deliver(entry, if error { UNBLOCKED } else { nil }));
            self.give_back(upstream);
            return true;
        }
        let Some(upstream) = self.upstreams.get(upstream) else { return false };
        let Some(id) = upstream.client_id else { return false };
        let addr = upstream.addr.clone();
        let way: &[u8] = if error { b"ERROR" } else { b"TIMEOUT" };
        let mut request = Vec::new();
        push_command(&mut request, [&b"CLIENT"[..], b"UNBLOCK", id.to_string().as_bytes(), way]);
        let shared = self.routes.upstream_at(&addr, 2, &mut self.upstreams);
        self.send_to(shared, self.nobodys(), &request);
        true
    }

    fn client_with_id(&self, id: u64) -> Option<ClientKey> {
        let (index, client) = self.clients.iter().find(|(_, client)| client.session.id == id)?;
        Some(ClientKey { index: index as u32, serial: client.serial })
    }

    /// Takes back what was not sent over this connection: it waits to be tried again, or for the connection.
    fn take_unsent(&mut self, index: usize) -> Vec<Entry> {
        let (unsent, later): (Vec<Later>, Vec<Later>) =
            std::mem::take(&mut self.dedicated.later).into_iter().partition(|later| later.upstream == index);
        self.dedicated.later = later;
        let mut entries: Vec<Entry> = unsent.into_iter().map(|later| later.entry).collect();
        if let Some(upstream) = self.upstreams.get_mut(index).filter(|upstream| upstream.link != Link::Up) {
            entries.extend(upstream.take_all().into_iter().map(|lost| lost.entry));
        }
        entries
    }

    /// Counts the connections that clients have for themselves, for the metrics.
    pub(in super::super) fn count_dedicated(&self) {
        let blocked = self.dedicated.held.values().filter(|holder| holder.purpose == Purpose::Block);
        self.stats.blocked.set((blocked.count() + self.waits.len() + self.flushes.len()) as u64);
        self.stats.dedicated.set(self.dedicated.held.len() as u64);
    }
}
