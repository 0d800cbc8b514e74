//! `SCAN` over the whole cluster: one node after the other, with a cursor that holds all there is to know.
//!
//! Must not know: how the replies come back (`gather.rs`).
//!
//! A key that is there all the time must be told, whatever the cluster does meanwhile; to tell it twice is allowed.
//!
//! - A node's cursor means nothing to another one, not even to its replica, and the order of the nodes changes with the
//!   slots. So a cursor names the layout it belongs to, and one of another layout begins anew.
//! - Slots may move from a node that is still to be scanned to one that was, and the proxy learns of it later. So after the
//!   last node all primaries are asked for the layout once more; when it is another one, the scan begins anew.
//! - While a slot is moving its keys go one by one and the layout stays. So with slots on their way a second pass
//!   follows the first: it finds at the target what the first has missed at the source.

use super::gather::Join;
use super::{Core, recycle};
use crate::cluster::Topology;
use crate::command::Command;
use crate::resp::{Args, push_array_header, push_bulk};

const NODE_BITS: u32 = 10;
const LAYOUT_BITS: u32 = 15;
/// A node's cursor stays below the size of its hash table: room for tables of 2^37 keys, and the whole stays below 2^63.
const INNER_BITS: u32 = 37;

/// What the cursors of clients hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The cursor of the node.
    inner: u64,
    /// Its number in the topology; after the last node, how many there are.
    node: u64,
    /// [`Topology::layout`], shortened.
    layout: u64,
    /// In the second pass.
    second: bool,
}

/// [`Topology::layout`] as cursors hold it; 0 for a server that is no cluster.
fn short_layout(topology: &Topology) -> u64 {
    match topology.layout() {
        0 => 0,
        layout => 1 + layout % ((1 << LAYOUT_BITS) - 1),
    }
}

impl Cursor {
    fn decode(cursor: u64) -> Self {
        Self {
            node: cursor & ((1 << NODE_BITS) - 1),
            layout: cursor >> NODE_BITS & ((1 << LAYOUT_BITS) - 1),
            second: cursor >> (NODE_BITS + LAYOUT_BITS) & 1 == 1,
            inner: cursor >> (NODE_BITS + LAYOUT_BITS + 1),
        }
    }

    /// `None` when the node's cursor does not fit.
    fn encode(self) -> Option<u64> {
        let above = self.inner << 1 | u64::from(self.second);
        (self.inner >> INNER_BITS == 0)
            .then_some((above << LAYOUT_BITS | self.layout) << NODE_BITS | self.node)
    }

    /// What the client gets when this node, one of `nodes`, has answered with `inner`.
    pub fn after(self, inner: u64, nodes: u64) -> Option<u64> {
        match inner {
            0 if self.layout == 0 && self.node + 1 >= nodes => Some(0),
            0 => Self { inner, node: self.node + 1, ..self }.encode(),
            inner => Self { inner, ..self }.encode(),
        }
    }

    /// What the client gets when all nodes were scanned, and their views of the cluster are these. True: the layout has
    /// changed.
    pub fn at_end(self, views: &[String]) -> Option<(u64, bool)> {
        // Where the nodes were asked does not matter, only what they are called.
        let now = Topology::from_views(views.iter().map(|view| ("node:0", view.as_str()))).ok()?;
        let start = Self { inner: 0, node: 0, layout: short_layout(&now), second: false };
        if start.layout != self.layout {
            return Some((start.encode()?, true));
        }
        if now.is_moving() && !self.second {
            return Some((Self { second: true, ..start }.encode()?, false));
        }
        Some((0, false))
    }
}

impl Core {
    /// `SCAN cursor ...`
    pub(super) fn run_scan(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        let cursor = args.get(1).and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
        let Some(cursor) = cursor.map(Cursor::decode) else {
            return self.answer_error(index, Some(command), b"ERR invalid cursor");
        };
        let topology = self.routes.topology();
        let (nodes, layout) = (topology.nodes().len(), short_layout(topology));
        let is_known = cursor.layout == layout && cursor.node as usize <= nodes;
        let cursor = if is_known { cursor } else { Cursor { layout, ..Cursor::decode(0) } };
        let node = cursor.node as usize;
        if node == nodes && nodes > 0 {
            let mut request = Vec::new();
            crate::resp::push_command(&mut request, [&b"CLUSTER"[..], b"NODES"]);
            return self.send_to_nodes(index, command, Join::Layout(cursor), 0..nodes, &request);
        }
        let mut request = self.spare.pop().unwrap_or_default();
        push_array_header(&mut request, args.len());
        push_bulk(&mut request, args.name());
        push_bulk(&mut request, cursor.inner.to_string().as_bytes());
        for at in 2..args.len() {
            request.extend_from_slice(args.encoded(at).unwrap_or_default());
        }
        let asked = if nodes == 0 { 0..0 } else { node..node + 1 };
        self.send_to_nodes(index, command, Join::Cursor(cursor, nodes as u64), asked, &request);
        recycle(request, &mut self.spare);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is a panic")]
mod tests {
    use super::*;

    fn view(second_slots: &str) -> Vec<String> {
        vec![format!(
            "a 1.2.3.4:1@2 master - 0 0 1 connected 0-99\nb :1@2 myself,master - 0 0 2 connected {second_slots}"
        )]
    }

    #[test]
    fn a_cursor_names_its_node_and_comes_back_as_it_was() {
        let all = [0, 1, 7, (1 << INNER_BITS) - 1];
        for (inner, node, layout, second) in
            all.into_iter().flat_map(|inner| [(inner, 0, 1, false), (inner, 1023, 32767, true)])
        {
            let cursor = Cursor { inner, node, layout, second };
            let text = cursor.encode().unwrap();
            assert!(text < 1 << 63);
            assert_eq!(Cursor::decode(text), cursor);
        }
        let cursor = Cursor { inner: 5, node: 1, layout: 3, second: false };
        assert_eq!(cursor.after(9, 2).map(Cursor::decode), Some(Cursor { inner: 9, ..cursor }));
        assert_eq!(cursor.after(0, 2).map(Cursor::decode), Some(Cursor { inner: 0, node: 2, ..cursor }));
        assert_eq!(cursor.after(1 << INNER_BITS, 2), None);
        assert_eq!(Cursor { layout: 0, node: 0, ..cursor }.after(0, 1), Some(0));
    }

    #[test]
    fn a_scan_ends_when_nothing_has_moved() {
        let layout = short_layout(&Topology::from_views([("x:1", view("100-16383")[0].as_str())]).unwrap());
        let end = Cursor { inner: 0, node: 2, layout, second: false };
        assert_eq!(end.at_end(&view("100-16383")), Some((0, false)));
        let (again, changed) = end.at_end(&view("101-16383")).unwrap();
        assert!(changed && Cursor::decode(again).node == 0 && Cursor::decode(again).layout != layout);
        // A slot on its way: a second pass, but no third.
        let (again, changed) = end.at_end(&view("100-16383 [7-<-a]")).unwrap();
        assert!(!changed);
        assert_eq!(Cursor::decode(again), Cursor { node: 0, second: true, ..end });
        assert_eq!(Cursor { second: true, ..end }.at_end(&view("100-16383 [7-<-a]")), Some((0, false)));
        assert_eq!(end.at_end(&["what".to_owned()]), None);
    }
}
