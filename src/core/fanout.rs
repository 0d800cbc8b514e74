//! Commands that concern every primary.
//!
//! Must not know: how the replies come back together (`gather.rs`).
//!
//! A part that fails makes the whole command fail, with an error that names the node: a smaller answer would be a lie.

use super::Core;
use super::client::{Begun, Slot};
use super::gather::{Gather, Join};
use super::mapped::{Question, push_random_key};
use crate::cluster::{Entry, Owner};
use crate::command::{Command, Merge};
use crate::resp::Args;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

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
        let nodes = self.routes.topology().nodes().len();
        if command.name == "dbsize" && self.hides_keys(index) {
            if let Err(text) = self.ask_admin(index, command, Question::Keys) {
                self.answer_error(index, Some(command), text.as_bytes());
            }
            return;
        }
        if command.name == "randomkey" && self.hides_keys(index) {
            let mut request = Vec::new();
            push_random_key(&mut request);
            return self.send_to_nodes(index, command, join, 0..nodes, &request);
        }
        self.send_to_nodes(index, command, join, 0..nodes, args.frame());
    }

    /// Sends one request to each of these nodes of the topology.
    pub(super) fn send_to_nodes(
        &mut self,
        index: usize,
        command: &'static Command,
        join: Join,
        nodes: Range<usize>,
        request: &[u8],
    ) {
        let gather = self.new_gather(index, join);
        self.ask_nodes(index, command, gather, nodes, request);
    }

    /// A gather to be [reset](Gather::reset).
    #[inline]
    pub(super) fn spare_gather(&mut self) -> Box<Gather> {
        self.spare_gathers.pop().unwrap_or_else(|| Box::new(Gather::new(self.options.output_max)))
    }

    /// A gather without parts for a command of this client.
    pub(super) fn new_gather(&mut self, index: usize, join: Join) -> Box<Gather> {
        let mut gather = self.spare_gather();
        gather.reset(join, 0);
        gather.hides = self.hides_keys(index);
        gather
    }

    /// Sends one request to each of these nodes; `gather` puts the replies together.
    pub(super) fn ask_nodes(
        &mut self,
        index: usize,
        command: &'static Command,
        mut gather: Box<Gather>,
        nodes: Range<usize>,
        request: &[u8],
    ) {
        if nodes.is_empty() {
            return self.answer_error(index, Some(command), b"CLUSTERDOWN Hash slot not served");
        }
        let at = self.now;
        for _ in nodes.clone() {
            gather.add_part(std::iter::empty());
        }
        let Some(client) = self.clients.get_mut(index) else { return };
        let protocol = client.session.protocol;
        let seq = client.open(Slot::Gathering(Begun { at, command: command.id }, gather));
        let serial = client.serial;
        self.stats.inflight.add(1);
        for (part, node) in nodes.enumerate() {
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
            match self.routes.upstream_of(node, protocol, &mut self.upstreams) {
                Some(upstream) => self.send_to(upstream, entry, request),
                None => self.fail(&entry, "ERR dsproxy: a node has left the cluster meanwhile; try again"),
            }
        }
    }
}
