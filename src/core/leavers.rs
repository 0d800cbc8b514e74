//! Closes connections to nodes that have left the cluster.
//!
//! Must not know: what was sent over them.

use super::Core;
use crate::cluster::Link;

impl Core {
    /// Closes those that owe nobody a reply; looked at again at the next tick while some still do. A node that is asked
    /// again after all, because another one says so, is connected to anew.
    pub(super) fn close_leavers(&mut self) {
        if !std::mem::take(&mut self.may_have_left) {
            return;
        }
        let topology = self.routes.topology();
        let stays = |addr: &str| topology.nodes().iter().any(|node| &*node.addr == addr);
        let left: Vec<usize> = self
            .upstreams
            .iter()
            .filter(|(index, upstream)| {
                upstream.link == Link::Up && !stays(&upstream.addr) && !self.is_hub(*index)
            })
            .map(|(index, _)| index)
            .collect();
        for index in left {
            let held = self.dedicated.is_held(index);
            let Some(upstream) = self.upstreams.get_mut(index) else { continue };
            if held || upstream.inflight() > 0 {
                self.may_have_left = true;
                continue;
            }
            tracing::info!(node = %upstream.addr, "connection closed: the node has left the cluster");
            upstream.link = Link::Down { retry_at: self.now };
            upstream.dirty = false;
            upstream.take_all();
            self.outbox.close.push(index);
        }
    }
}
