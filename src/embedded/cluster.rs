//! Nodes that run become one cluster that serves all slots.
//!
//! Must not know: how nodes are started.

use std::time::Instant;

use super::StackError;
use super::node::Node;
use super::process::POLL;

/// Slots of a Redis Cluster.
const SLOTS: usize = 16_384;

/// Waits until every node of `nodes` (the first `shards` are primaries, the others their replicas in turn) runs and
/// sees a cluster that serves all slots. `fresh` nodes hold nothing yet; others are a cluster from an earlier run.
pub(crate) fn form(
    nodes: &mut [Node],
    shards: usize,
    fresh: bool,
    deadline: Instant,
) -> Result<(), StackError> {
    for node in nodes.iter_mut() {
        node.wait_ready(deadline)?;
    }
    if fresh {
        give_out_slots(&nodes[..shards])?;
    }
    // Also nodes that know each other: their ports may have changed, now or in a start that was interrupted.
    introduce(nodes)?;
    if fresh {
        attach_replicas(nodes, shards, deadline)?;
    }
    for node in nodes.iter() {
        wait_for(node, deadline, "did not see a whole cluster", || {
            sees_whole_cluster(node, nodes.len(), shards)
        })?;
    }
    Ok(())
}

fn give_out_slots(primaries: &[Node]) -> Result<(), StackError> {
    let count = primaries.len();
    for (index, node) in primaries.iter().enumerate() {
        let (first, last) = (SLOTS * index / count, SLOTS * (index + 1) / count - 1);
        // Different epochs from the start: nodes that share one would first have to settle who moves on.
        node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
        node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
    }
    Ok(())
}

/// Every node meets every other: gossip would get there as well, only seconds later.
fn introduce(nodes: &[Node]) -> Result<(), StackError> {
    for from in nodes {
        for to in nodes.iter().filter(|to| to.port != from.port) {
            let (port, bus_port) = (to.port.to_string(), to.bus_port.to_string());
            from.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port])?;
        }
    }
    Ok(())
}

fn attach_replicas(nodes: &[Node], shards: usize, deadline: Instant) -> Result<(), StackError> {
    for (index, replica) in nodes[shards..].iter().enumerate() {
        let primary = nodes[index % shards].command(&["CLUSTER", "MYID"])?;
        // Refused until gossip has told it of the primary.
        wait_for(replica, deadline, "did not become a replica", || {
            replica
                .command(&["CLUSTER", "REPLICATE", &primary])
                .map(|_| ())
                .map_err(|error| error.to_string())
        })?;
    }
    Ok(())
}

/// The state of the cluster in the eyes of `node`; `Err` says what is missing.
fn sees_whole_cluster(node: &Node, count: usize, shards: usize) -> Result<(), String> {
    let ask = |args: &[&str]| node.command(args).map_err(|error| error.to_string());
    let info = ask(&["CLUSTER", "INFO"])?;
    let wanted = [
        "cluster_state:ok".to_owned(),
        format!("cluster_slots_ok:{SLOTS}"),
        format!("cluster_known_nodes:{count}"),
        format!("cluster_size:{shards}"),
    ];
    if let Some(missing) = wanted.iter().find(|wanted| !info.lines().any(|line| line == **wanted)) {
        return Err(format!("not yet {missing}"));
    }
    if ask(&["CLUSTER", "NODES"])?
        .lines()
        .any(|line| line.contains("disconnected") || line.contains("handshake"))
    {
        return Err("not all nodes are connected".to_owned());
    }
    let replication = ask(&["INFO", "replication"])?;
    if replication.contains("role:slave") && !replication.contains("master_link_status:up") {
        return Err("it is not in step with its primary".to_owned());
    }
    Ok(())
}

fn wait_for(
    node: &Node,
    deadline: Instant,
    failure: &str,
    mut condition: impl FnMut() -> Result<(), String>,
) -> Result<(), StackError> {
    let started = Instant::now();
    loop {
        let Err(seen) = condition() else { return Ok(()) };
        if Instant::now() >= deadline {
            let what = format!("{} {failure}", node.name);
            return Err(StackError::Timeout { what, seconds: started.elapsed().as_secs(), seen });
        }
        std::thread::sleep(POLL);
    }
}
