//! `CLUSTER`: one node that owns every slot, for clients that insist on a cluster.
//!
//! Must not know: the cluster behind the proxy, but for questions about one slot, which go to its owner.
//!
//! The node's address is the one that the client has connected to, so that it stays reachable from where the client is;
//! `server.announce` overrides it.

use super::super::Core;
use super::{Refusal, Said, Verdict, integer, push_map_header, push_text, unsupported};
use crate::cluster::Entry;
use crate::command::Command;
use crate::resp::{Args, push_array_header, push_bulk, push_integer};
use crate::slot::{SLOTS, slot};

impl Core {
    pub(super) fn cluster_command(
        &mut self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let protocol = self.protocol(index);
        let id = self.process.run_id.as_str();
        match command.short_name() {
            "keyslot" => push_integer(reply, i64::from(slot(args.get(2).unwrap_or_default()))),
            "myid" => push_bulk(reply, id.as_bytes()),
            "info" => push_text(reply, INFO, protocol),
            "slots" => self.cluster_slots(index, protocol, reply),
            "shards" => self.cluster_shards(index, protocol, reply),
            "nodes" => {
                let (host, port) = self.own_address(index);
                let text = format!("{id} {host}:{port}@{port} myself,master - 0 0 1 connected 0-16383\n");
                push_text(reply, &text, protocol);
            }
            "links" => push_array_header(reply, 0),
            "replicas" | "slaves" => {
                self.check_own_id(args)?;
                push_array_header(reply, 0);
            }
            "count-failure-reports" => {
                self.check_own_id(args)?;
                push_integer(reply, 0);
            }
            "countkeysinslot" | "getkeysinslot" => {
                let number = args.get(2).and_then(integer).ok_or(super::NO_INTEGER)?;
                let slot = u16::try_from(number).ok().filter(|slot| *slot < SLOTS);
                let slot = slot.ok_or(match command.short_name() {
                    "countkeysinslot" => "ERR Invalid slot",
                    _ => "ERR Invalid slot or number of keys",
                })?;
                self.forward(index, command, slot, Entry::UNMAPPED, args.frame());
                return Ok(Said::Elsewhere);
            }
            _ => return Err(unsupported(command)),
        }
        Ok(Said::Reply)
    }

    /// Host and port under which the client can reach us.
    fn own_address(&self, index: usize) -> (String, u16) {
        let session = self.clients.get(index).map(|client| &client.session);
        let encrypted = session.is_some_and(|session| session.encrypted);
        let [plain, tls] = &self.process.announce;
        let announced = if encrypted { tls } else { plain };
        // A path is of no use to a client that looks for other nodes.
        let local =
            session.and_then(|session| session.local.as_deref()).filter(|local| !local.starts_with('/'));
        let address = announced.as_deref().or(local);
        let parts = address.and_then(|address| address.rsplit_once(':'));
        let (host, port) = parts.unwrap_or(("", ""));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (host.to_owned(), port.parse().unwrap_or(self.options.about.port))
    }

    fn check_own_id(&self, args: &Args<'_>) -> Result<(), Refusal> {
        match args.get(2).unwrap_or_default() {
            id if id == self.process.run_id.as_bytes() => Ok(()),
            id => Err(format!("ERR Unknown node {}", id.escape_ascii())),
        }
    }

    /// One range: its first and last slot, then its node as address, port, id and further names (none).
    fn cluster_slots(&self, index: usize, protocol: u8, reply: &mut Vec<u8>) {
        let (host, port) = self.own_address(index);
        push_array_header(reply, 1);
        push_array_header(reply, 3);
        push_integer(reply, 0);
        push_integer(reply, i64::from(SLOTS) - 1);
        push_array_header(reply, 4);
        push_bulk(reply, host.as_bytes());
        push_integer(reply, i64::from(port));
        push_bulk(reply, self.process.run_id.as_bytes());
        push_map_header(reply, 0, protocol);
    }

    fn cluster_shards(&self, index: usize, protocol: u8, reply: &mut Vec<u8>) {
        let (host, port) = self.own_address(index);
        push_array_header(reply, 1);
        push_map_header(reply, 2, protocol);
        push_bulk(reply, b"slots");
        push_array_header(reply, 2);
        push_integer(reply, 0);
        push_integer(reply, i64::from(SLOTS) - 1);
        push_bulk(reply, b"nodes");
        push_array_header(reply, 1);
        push_map_header(reply, 7, protocol);
        let texts = [("id", self.process.run_id.as_str()), ("ip", &host), ("endpoint", &host)];
        let more = [("role", "master"), ("health", "online")];
        for (name, value) in texts.into_iter().chain(more) {
            push_bulk(reply, name.as_bytes());
            push_bulk(reply, value.as_bytes());
        }
        for (name, value) in [("port", i64::from(port)), ("replication-offset", 0)] {
            push_bulk(reply, name.as_bytes());
            push_integer(reply, value);
        }
    }
}

/// `CLUSTER INFO` of a healthy cluster of one node.
const INFO: &str = "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n\
    cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:1\r\ncluster_size:1\r\n\
    cluster_current_epoch:1\r\ncluster_my_epoch:1\r\ncluster_stats_messages_sent:0\r\n\
    cluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n";
