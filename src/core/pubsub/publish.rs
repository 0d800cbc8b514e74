//! `PUBLISH`, `SPUBLISH` and the questions of `PUBSUB`.
//!
//! Must not know: how messages come back.
//!
//! A message goes to the owner of its channel's slot, which is also where the proxy itself subscribes, so that the
//! reply of that one node and the registry give the number: clients of this proxy, plus others at that node. Clients
//! that subscribe directly at other nodes get the message, but are not counted, as in Redis Cluster.

use super::tally::{Number, Tally};
use super::{Core, Space};
use crate::cluster::{Entry, Owner};
use crate::command::Command;
use crate::core::client::{Begun, Slot};
use crate::core::gather::Join;
use crate::resp::Args;
use crate::slot;

/// Where a question goes.
enum Target {
    /// To the owner of a slot, wherever that is by then.
    Slot(u16),
    /// To this node of the topology.
    Node(usize),
    /// To all of them.
    Everywhere,
}

impl Core {
    /// Runs a command of the group that does not subscribe.
    pub(super) fn run_publish(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        let name = args.get(1).unwrap_or_default();
        let registry = &self.pubsub.registry;
        let (tally, target) = match command.name {
            "publish" => {
                let node = self.publishing_node(index, name);
                let addr = node.and_then(|node| self.routes.topology().nodes().get(node)).map(|n| &*n.addr);
                let receivers = self.pubsub.registry.receivers(name, addr.unwrap_or_default());
                (Tally::Number(Number::new(receivers)), Target::Node(node.unwrap_or_default()))
            }
            "spublish" => {
                let slot = slot::slot(name);
                let addr = self.routes.topology().owner_addr(slot).unwrap_or_default();
                let receivers = registry.shard_receivers(name, addr);
                (Tally::Number(Number::new(receivers)), Target::Slot(slot))
            }
            "pubsub|channels" | "pubsub|shardchannels" if args.len() > 3 => {
                let text = format!(
                    "ERR unknown subcommand or wrong number of arguments for '{}'. Try PUBSUB HELP.",
                    String::from_utf8_lossy(args.get(1).unwrap_or_default())
                );
                return self.answer_error(index, Some(command), text.as_bytes());
            }
            "pubsub|channels" => (Tally::names(registry, Space::Channel, args.get(2)), Target::Everywhere),
            "pubsub|shardchannels" => (Tally::names(registry, Space::Shard, args.get(2)), Target::Everywhere),
            "pubsub|numsub" => {
                (Tally::numbers(registry, Space::Channel, args.iter().skip(2)), Target::Everywhere)
            }
            "pubsub|shardnumsub" => {
                (Tally::numbers(registry, Space::Shard, args.iter().skip(2)), Target::Everywhere)
            }
            _ => (Tally::patterns(registry), Target::Everywhere),
        };
        self.ask(index, command, tally, target, args.frame());
    }

    /// The owner of the channel's slot, unless it cannot be reached: any primary spreads a message.
    fn publishing_node(&mut self, index: usize, channel: &[u8]) -> Option<usize> {
        let protocol = self.clients.get(index).map_or(2, |client| client.session.protocol);
        let nodes = self.routes.topology().nodes().len();
        let owner = self.routes.topology().owner(slot::slot(channel))?;
        let mut candidates = (owner..owner + nodes).map(|node| node % nodes);
        candidates
            .find(|node| {
                self.routes
                    .upstream_of(*node, protocol, &mut self.upstreams)
                    .and_then(|upstream| self.upstreams.get(upstream))
                    .is_some_and(|upstream| upstream.failures == 0)
            })
            .or(Some(owner))
    }

    fn ask(&mut self, index: usize, command: &'static Command, tally: Tally, target: Target, request: &[u8]) {
        let nodes = match target {
            Target::Slot(_) => 0..1,
            Target::Node(node) => node..node + 1,
            Target::Everywhere => 0..self.routes.topology().nodes().len(),
        };
        let mut gather = self.spare_gather();
        gather.reset(Join::Tally, 0);
        gather.tally = Some(tally);
        for _ in nodes.clone() {
            gather.add_part(std::iter::empty());
        }
        let at = self.now;
        let Some(client) = self.clients.get_mut(index) else { return };
        let (serial, protocol) = (client.serial, client.session.protocol);
        let seq = client.open(Slot::Gathering(Begun { at, command: command.id }, gather));
        self.stats.inflight.add(1);
        for (part, node) in nodes.enumerate() {
            let entry = Entry {
                owner: Owner::Client { index: index as u32, serial, seq, part: part as u32 },
                len: 0,
                at,
                command: command.id,
                mapping: Entry::UNMAPPED,
                readonly: !matches!(command.name, "publish" | "spublish"),
                attempts: 0,
                more: 0,
            };
            if let Target::Slot(slot) = target {
                self.send(slot, entry, request);
                continue;
            }
            match self.routes.upstream_of(node, protocol, &mut self.upstreams) {
                Some(upstream) => self.send_to(upstream, entry, request),
                None => self.fail(&entry, "CLUSTERDOWN Hash slot not served"),
            }
        }
    }
}
