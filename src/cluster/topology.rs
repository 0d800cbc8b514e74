//! An immutable picture of which node owns which slot.
//!
//! Must not know: how it was learned, connections. Source: Redis documentation, `CLUSTER NODES`.

use crate::slot::SLOTS;
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;
use thiserror::Error;

/// Address of a node as `host:port` (an IPv6 host in brackets).
pub type NodeAddr = Box<str>;

/// A node that owns slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where clients of it connect.
    pub addr: NodeAddr,
}

/// Which node owns which slot. Swapped as a whole, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    nodes: Vec<Node>,
    slots: Box<[u16]>,
    layout: u64,
    moving: bool,
}

/// Why a set of answers makes no topology.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TopologyError {
    /// A line of `CLUSTER NODES` that does not parse.
    #[error("cannot read the CLUSTER NODES line {0:?}")]
    BadLine(String),
    /// Slots that no reachable node claims.
    #[error("{} of 16384 slots have no owner (first: {}): the cluster is not complete; finish `CLUSTER ADDSLOTS` or `redis-cli --cluster fix`", .count, .first)]
    MissingSlots {
        /// How many.
        count: usize,
        /// The lowest of them.
        first: u16,
    },
}

const NO_OWNER: u16 = u16::MAX;
/// Stands for a node that a newer picture does not have.
const NOWHERE: u16 = u16::MAX - 1;

impl Topology {
    /// One node that owns everything.
    pub fn single(addr: &str) -> Self {
        Self {
            nodes: vec![Node { addr: addr.into() }],
            slots: vec![0; usize::from(SLOTS)].into(),
            layout: 0,
            moving: false,
        }
    }

    /// Nodes that own slots, in a stable order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Stands for which node (by its id) owns which slot, in any process; 0 for a server that is no cluster.
    pub fn layout(&self) -> u64 {
        self.layout
    }

    /// True when a node has said that slots of it are on their way.
    pub fn is_moving(&self) -> bool {
        self.moving
    }

    /// Index in [`Self::nodes`] of the owner of `slot`, if it has one.
    #[inline]
    pub fn owner(&self, slot: u16) -> Option<usize> {
        match self.slots.get(usize::from(slot)) {
            Some(&owner) if owner != NO_OWNER => Some(usize::from(owner)),
            _ => None,
        }
    }

    /// Address of the owner of `slot`, if it has one.
    pub fn owner_addr(&self, slot: u16) -> Option<&str> {
        self.owner(slot).and_then(|node| self.nodes.get(node)).map(|node| &*node.addr)
    }

    /// The slots that the node at `addr` owns.
    pub fn slots_at(&self, addr: &str) -> Vec<u16> {
        let node = self.nodes.iter().position(|node| &*node.addr == addr);
        (0..SLOTS).filter(|slot| node.is_some() && self.owner(*slot) == node).collect()
    }

    /// Merges what several nodes say (`CLUSTER NODES` texts, each with the address it was asked at).
    ///
    /// Per slot the claim with the highest config epoch wins, so a node in a minority partition that still believes
    /// in the old primary cannot outvote the others.
    ///
    /// # Errors
    /// [`TopologyError::BadLine`] for text that is no `CLUSTER NODES` reply. Missing slots are no error here, see
    /// [`Self::complete`]: while a cluster is half-broken the rest of it still serves.
    pub fn from_views<'a>(
        views: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, TopologyError> {
        let mut addrs: Vec<NodeAddr> = Vec::new();
        let mut ids: Vec<String> = Vec::new();
        let mut moving = false;
        let mut best: Vec<Option<(u64, usize)>> = vec![None; usize::from(SLOTS)];
        for (asked, text) in views {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                // A node lists what it gives and takes after its own slots, as `[slot->-node]`.
                moving |= line.contains(" [");
                let Some(claim) = Claim::parse(line, asked)? else { continue };
                for slot in claim.ranges.iter().flat_map(Clone::clone) {
                    let best = &mut best[usize::from(slot)];
                    if best.is_none_or(|(epoch, _)| claim.epoch > epoch) {
                        *best = Some((claim.epoch, addrs.len()));
                    }
                }
                addrs.push(claim.addr);
                ids.push(claim.id);
            }
        }
        let mut hasher = FxHasher::default();
        let owners: Vec<Option<&str>> = best.iter().map(|best| best.map(|(_, claim)| &*ids[claim])).collect();
        for run in owners.chunk_by(|a, b| a == b) {
            run.len().hash(&mut hasher);
            run.first().hash(&mut hasher);
        }
        let layout = hasher.finish().max(1);
        let mut nodes: Vec<Node> = Vec::new();
        let mut by_claim = vec![NO_OWNER; addrs.len()];
        let slots = best
            .into_iter()
            .map(|claim| {
                let Some((_, claim)) = claim else { return NO_OWNER };
                if by_claim[claim] == NO_OWNER {
                    let known = nodes.iter().position(|node| node.addr == addrs[claim]);
                    by_claim[claim] = known.unwrap_or(nodes.len()) as u16;
                    if known.is_none() {
                        nodes.push(Node { addr: addrs[claim].clone() });
                    }
                }
                by_claim[claim]
            })
            .collect();
        Ok(Self { nodes, slots, layout, moving })
    }

    /// Checks that every slot has an owner.
    ///
    /// # Errors
    /// [`TopologyError::MissingSlots`].
    pub fn complete(&self) -> Result<(), TopologyError> {
        let mut missing = self.slots.iter().enumerate().filter(|(_, owner)| **owner == NO_OWNER);
        match missing.next() {
            None => Ok(()),
            Some((first, _)) => {
                Err(TopologyError::MissingSlots { count: 1 + missing.count(), first: first as u16 })
            }
        }
    }

    /// Slots whose owner's address differs between two pictures.
    pub fn moved_slots(&self, newer: &Self) -> Vec<u16> {
        let same: Vec<u16> = self
            .nodes
            .iter()
            .map(|node| {
                newer.nodes.iter().position(|other| other == node).map_or(NOWHERE, |index| index as u16)
            })
            .collect();
        let expected = |owner: u16| same.get(usize::from(owner)).copied().unwrap_or(NO_OWNER);
        let pairs = self.slots.iter().zip(newer.slots.iter()).zip(0..SLOTS);
        pairs.filter(|((old, new), _)| expected(**old) != **new).map(|(_, slot)| slot).collect()
    }
}

/// One line of `CLUSTER NODES` that claims slots.
struct Claim {
    id: String,
    addr: NodeAddr,
    epoch: u64,
    ranges: Vec<RangeInclusive<u16>>,
}

impl Claim {
    /// `<id> <ip:port@cport[,hostname]> <flags> <primary> <ping> <pong> <epoch> <link> <slot>...`
    fn parse(line: &str, asked: &str) -> Result<Option<Self>, TopologyError> {
        let bad = || TopologyError::BadLine(line.chars().take(200).collect());
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [id, addr, flags, _, _, _, epoch, _, slots @ ..] = fields.as_slice() else { return Err(bad()) };
        let mut flags = flags.split(',');
        if slots.is_empty() || flags.any(|flag| matches!(flag, "slave" | "replica" | "handshake" | "noaddr"))
        {
            return Ok(None);
        }
        let ranges = slots
            .iter()
            .filter(|slot| !slot.starts_with('[')) // a slot in migration is listed again as `[slot->-node]`
            .map(|slot| {
                let (first, last) = slot.split_once('-').unwrap_or((slot, slot));
                let (first, last) = (first.parse().ok()?, last.parse().ok()?);
                (first <= last && last < SLOTS).then_some(first..=last)
            })
            .collect::<Option<_>>()
            .ok_or_else(bad)?;
        Ok(Some(Self {
            id: (*id).to_owned(),
            addr: client_addr(addr, asked).ok_or_else(bad)?,
            epoch: epoch.parse().map_err(|_| bad())?,
            ranges,
        }))
    }
}

/// `ip:port`, as in redirects, or `ip:port@cport[,hostname]`, as in `CLUSTER NODES`, to `host:port`; a node that does not
/// know its own address yet (`:port`) is where it was asked.
pub fn client_addr(field: &str, asked: &str) -> Option<NodeAddr> {
    let endpoint = field.split(['@', ',']).next()?;
    let (host, port) = endpoint.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let host = if host.is_empty() { asked.rsplit_once(':')?.0 } else { host };
    if host.contains(':') && !host.starts_with('[') {
        return Some(format!("[{host}]:{port}").into());
    }
    Some(format!("{host}:{port}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "\
a 127.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-8191
b 127.0.0.1:7002@17002 master - 0 0 2 connected 8192-16383 [93-<-a]
c 127.0.0.1:7003@17003,host.example slave a 0 0 1 connected
";
    const NEW: &str = "\
a 127.0.0.1:7001@17001 master,fail - 0 0 1 disconnected
b :7002@17002 myself,master - 0 0 2 connected 8192-16383
c 127.0.0.1:7003@17003 master - 0 0 3 connected 0-8190 8191
";

    #[test]
    fn the_higher_epoch_wins_whatever_the_order() -> Result<(), TopologyError> {
        for views in [[("x:1", OLD), ("127.0.0.1:7002", NEW)], [("127.0.0.1:7002", NEW), ("x:1", OLD)]] {
            let topology = Topology::from_views(views)?;
            topology.complete()?;
            assert_eq!(topology.owner_addr(0), Some("127.0.0.1:7003"));
            assert_eq!(topology.owner_addr(8191), Some("127.0.0.1:7003"));
            assert_eq!(topology.owner_addr(16383), Some("127.0.0.1:7002"));
        }
        Ok(())
    }

    #[test]
    fn moved_and_missing_slots_are_named() -> Result<(), TopologyError> {
        let old = Topology::from_views([("x:1", OLD)])?;
        let new = Topology::from_views([("127.0.0.1:7002", NEW)])?;
        assert_eq!(old.moved_slots(&new).len(), 8192);
        let half = Topology::from_views([("x:1", "a 1.2.3.4:1@2 master - 0 0 1 connected 0-10 12")])?;
        assert_eq!(half.complete(), Err(TopologyError::MissingSlots { count: 16384 - 12, first: 11 }));
        Ok(())
    }

    #[test]
    fn garbage_is_refused() {
        for text in [
            "what",
            "a b c d e f g h i",
            "a 1.2.3.4:1@2 master - 0 0 x connected 0-10",
            "a 1.2.3.4:1@2 master - 0 0 1 connected 5-99999",
        ] {
            assert!(Topology::from_views([("x:1", text)]).is_err(), "{text}");
        }
    }
}
