//! From slot to upstream connection.
//!
//! Must not know: what is sent.

use crate::cluster::{Topology, Upstream};
use rustc_hash::FxHashMap;
use slab::Slab;
use std::sync::Arc;

const NONE: u32 = u32::MAX;

/// Which connection of this worker leads to the owner of a slot, per dialect.
pub(super) struct Routes {
    topology: Arc<Topology>,
    /// By node of the topology: the RESP2 and the RESP3 connection.
    by_node: Vec<[u32; 2]>,
    by_addr: FxHashMap<(Box<str>, u8), u32>,
}

impl Routes {
    pub fn new(topology: Arc<Topology>) -> Self {
        let by_node = vec![[NONE; 2]; topology.nodes().len()];
        Self { topology, by_node, by_addr: FxHashMap::default() }
    }

    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Swaps the topology; the old one.
    pub fn replace(&mut self, topology: Arc<Topology>) -> Arc<Topology> {
        self.by_node = topology
            .nodes()
            .iter()
            .map(|node| {
                [2, 3]
                    .map(|protocol| self.by_addr.get(&(node.addr.clone(), protocol)).copied().unwrap_or(NONE))
            })
            .collect();
        std::mem::replace(&mut self.topology, topology)
    }

    /// The connection to the owner of `slot` in dialect `protocol`, made known when first asked for.
    #[inline]
    pub fn upstream(&mut self, slot: u16, protocol: u8, upstreams: &mut Slab<Upstream>) -> Option<usize> {
        let node = self.topology.owner(slot)?;
        self.upstream_of(node, protocol, upstreams)
    }

    /// The connection to node `node` of the topology in dialect `protocol`.
    #[inline]
    pub fn upstream_of(
        &mut self,
        node: usize,
        protocol: u8,
        upstreams: &mut Slab<Upstream>,
    ) -> Option<usize> {
        let dialect = usize::from(protocol >= 3);
        match self.by_node.get(node)?[dialect] {
            NONE => {
                let addr = self.topology.nodes().get(node)?.addr.clone();
                let index = self.upstream_at(&addr, protocol, upstreams);
                if let Some(known) = self.by_node.get_mut(node) {
                    known[dialect] = index as u32;
                }
                Some(index)
            }
            index => Some(index as usize),
        }
    }

    /// The connection to the node at `addr`, whether the topology has it or not.
    pub fn upstream_at(&mut self, addr: &str, protocol: u8, upstreams: &mut Slab<Upstream>) -> usize {
        let protocol = if protocol >= 3 { 3 } else { 2 };
        *self
            .by_addr
            .entry((addr.into(), protocol))
            .or_insert_with(|| upstreams.insert(Upstream::new(addr, protocol)) as u32) as usize
    }
}
