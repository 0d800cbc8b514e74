//! Commands that concern every primary.
//!
//! Must not know: how the replies come back together (`gather.rs`).
//!
//! A part that fails makes the whole command fail, with an error that names the node: a smaller answer would be a lie.

use super::client::{Begun, Slot};
use super::gather::{Gather, Join};
use super::{Core, recycle};
use crate::cluster::{Entry, Owner};
use crate::command::{Command, Merge};
use crate::resp::{Args, push_array_header, push_bulk};
use std::hash::{BuildHasher, RandomState};

/// Bits of a `SCAN` cursor that hold the number of the node; the node's own cursor stands above them. A node's cursor
/// stays below the size of its hash table, so there is room for tables of 2^54 keys.
const NODE_BITS: u32 = 10;

/// The cursor that a client gets for `cursor` of node number `node` of `nodes`; `None` when it does not fit.
pub(super) fn next_cursor(cursor: u64, node: u64, nodes: u64) -> Option<u64> {
    match cursor {
        0 if node + 1 >= nodes => Some(0),
        // This node is done: the next one, from its start.
        0 => Some(node + 1),
        cursor if cursor.leading_zeros() < NODE_BITS => None,
        cursor => Some(cursor << NODE_BITS | node),
    }
}

impl Core {
    /// Runs one of them.
    pub(super) fn run_fanout(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        let join = match command.name {
            "scan" => return self.run_scan(index, command, args),
            "keys" => Join::Concat,
            "dbsize" => Join::Keys(Merge::Sum),
            "flushall" | "flushdb" | "script|flush" => Join::Keys(Merge::AllOk),
            "randomkey" => Join::Pick(RandomState::new().hash_one(self.now)),
            "script|exists" => Join::Least,
            "script|kill" | "function|kill" => Join::AnyOk,
            _ => Join::First,
        };
        let nodes: Vec<usize> = (0..self.routes.topology().nodes().len()).collect();
        self.send_to_nodes(index, command, join, &nodes, args.frame());
    }

    /// `SCAN cursor ...`: one node after the other, in the order of the topology. The cursor says which one is next, so
    /// the proxy keeps nothing.
    fn run_scan(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        let cursor = args.get(1).and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
        let Some(cursor) = cursor else {
            return self.answer_error(index, Some(command), b"ERR invalid cursor");
        };
        let nodes = self.routes.topology().nodes().len() as u64;
        let (node, cursor) = (cursor & ((1 << NODE_BITS) - 1), cursor >> NODE_BITS);
        if node >= nodes {
            // The cluster has shrunk since the cursor was given: its keys are on nodes that were or will be scanned.
            return self.answer_now(index, Some(command), b"*2\r\n$1\r\n0\r\n*0\r\n");
        }
        let mut request = self.spare.pop().unwrap_or_default();
        push_array_header(&mut request, args.len());
        push_bulk(&mut request, args.name());
        push_bulk(&mut request, cursor.to_string().as_bytes());
        for at in 2..args.len() {
            request.extend_from_slice(args.encoded(at).unwrap_or_default());
        }
        self.send_to_nodes(index, command, Join::Cursor { node, nodes }, &[node as usize], &request);
        recycle(request, &mut self.spare);
    }

    /// Sends one request to each of these nodes of the topology.
    fn send_to_nodes(
        &mut self,
        index: usize,
        command: &'static Command,
        join: Join,
        nodes: &[usize],
        request: &[u8],
    ) {
        if nodes.is_empty() {
            return self.answer_error(index, Some(command), b"CLUSTERDOWN Hash slot not served");
        }
        let at = self.now;
        let mut gather = self.spare_gathers.pop().unwrap_or_else(|| Box::new(Gather::new()));
        gather.reset(join, 0);
        for _ in nodes {
            gather.add_part(std::iter::empty());
        }
        let Some(client) = self.clients.get_mut(index) else { return };
        let protocol = client.session.protocol;
        let seq = client.open(Slot::Gathering(Begun { at, command: command.id }, gather));
        let serial = client.serial;
        self.stats.inflight.add(1);
        for (part, node) in nodes.iter().enumerate() {
            let entry = Entry {
                owner: Owner::Client { index: index as u32, serial, seq, part: part as u32 },
                len: 0,
                at,
                command: command.id,
                mapping: Entry::UNMAPPED,
                readonly: command.is_readonly(),
                attempts: 0,
                more: 0,
            };
            match self.routes.upstream_of(*node, protocol, &mut self.upstreams) {
                Some(upstream) => self.send_to(upstream, entry, request),
                None => self.fail(&entry, "ERR dsproxy: a node has left the cluster meanwhile; try again"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_names_its_node_and_ends_after_the_last() {
        assert_eq!(next_cursor(0, 0, 3), Some(1));
        assert_eq!(next_cursor(0, 2, 3), Some(0));
        assert_eq!(next_cursor(7, 2, 3), Some(7 << 10 | 2));
        assert_eq!(next_cursor(u64::MAX >> 10, 1, 3), Some((u64::MAX >> 10) << 10 | 1));
        assert_eq!(next_cursor(1 << 54, 1, 3), None);
    }
}
