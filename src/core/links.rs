//! The driver's side of the upstream connections.
//!
//! Must not know: sockets.

use super::Core;
use crate::cluster::Upstream;

impl Core {
    /// `host:port` of an upstream connection.
    pub fn upstream_addr(&self, index: usize) -> &str {
        self.upstreams.get(index).map_or("", |upstream| &upstream.addr)
    }

    /// Bytes to be written to a node.
    pub fn upstream_output(&self, index: usize) -> &[u8] {
        self.upstreams.get(index).map_or(&[], Upstream::unsent)
    }

    /// `n` bytes of [`Self::upstream_output`] were written.
    pub fn upstream_wrote(&mut self, index: usize, n: usize) {
        if let Some(upstream) = self.upstreams.get_mut(index) {
            upstream.wrote(n);
        }
    }

    /// Takes the connection off the list of those to flush; call before writing.
    pub fn clean(&mut self, index: usize) {
        if let Some(upstream) = self.upstreams.get_mut(index) {
            upstream.dirty = false;
        }
    }
}
