//! Commands of the `cluster` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command("asking", 1, flag::FAST, category::CONNECTION, Local)
        .docs("3.0.0", "Sent by cluster clients after an -ASK redirect")
        .note(
            "Accepted for cluster-aware clients; where reads go is the proxy's \
             policy.",
        ),
    command("cluster", -2, 0, 0, Local)
        .docs("3.0.0", "A container for cluster commands")
        .note("The proxy shows itself as the one node that owns every slot.")
        .containing(&[
            command("cluster|addslots", -3, flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING, 0, Refused)
                .docs("3.0.0", "Assign new hash slots to receiving node")
                .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command(
                "cluster|addslotsrange",
                -4,
                flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING,
                0,
                Refused,
            )
            .docs("7.0.0", "Assign new hash slots to receiving node")
            .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command("cluster|bumpepoch", 2, flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING, 0, Refused)
                .tips(&["nondeterministic_output"])
                .docs("3.0.0", "Advance the cluster config epoch")
                .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command("cluster|count-failure-reports", 3, flag::ADMIN | flag::STALE, 0, Local)
                .tips(&["nondeterministic_output"])
                .docs("3.0.0", "Return the number of failure reports active for a given node")
                .note("The proxy shows itself as the one node that owns every slot."),
            command("cluster|countkeysinslot", 3, flag::STALE, 0, Local)
                .docs("3.0.0", "Return the number of local keys in the specified hash slot")
                .note("The proxy shows itself as the one node that owns every slot."),
            command("cluster|delslots", -3, flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING, 0, Refused)
                .docs("3.0.0", "Set hash slots as unbound in receiving node")
                .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command(
                "cluster|delslotsrange",
                -4,
                flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING,
                0,
                Refused,
            )
            .docs("7.0.0", "Set hash slots as unbound in receiving node")
            .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command("cluster|failover", -2, flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING, 0, Refused)
                .docs("3.0.0", "Forces a replica to perform a manual failover of its master.")
                .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command("cluster|flushslots", 2, flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING, 0, Refused)
                .docs("3.0.0", "Delete a node's own slots information")
                .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command("cluster|forget", 3, flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING, 0, Refused)
                .docs("3.0.0", "Remove a node from the nodes table")
                .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command("cluster|getkeysinslot", 4, flag::STALE, 0, Local)
                .tips(&["nondeterministic_output"])
                .docs("3.0.0", "Return local key names in the specified hash slot")
                .note("The proxy shows itself as the one node that owns every slot."),
            command("cluster|help", 2, flag::LOADING | flag::STALE, 0, Single)
                .docs("5.0.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command("cluster|info", 2, flag::STALE, 0, Local)
                .tips(&["nondeterministic_output"])
                .docs("3.0.0", "Provides info about Redis Cluster node state")
                .note("The proxy shows itself as the one node that owns every slot."),
            command("cluster|keyslot", 3, flag::STALE, 0, Local)
                .docs("3.0.0", "Returns the hash slot of the specified key")
                .note("The proxy shows itself as the one node that owns every slot."),
            command("cluster|links", 2, flag::STALE, 0, Local)
                .tips(&["nondeterministic_output"])
                .docs("7.0.0", "Returns a list of all TCP links to and from peer nodes in cluster")
                .note("The proxy shows itself as the one node that owns every slot."),
            command("cluster|meet", -4, flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING, 0, Refused)
                .docs("3.0.0", "Force a node cluster to handshake with another node")
                .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command("cluster|myid", 2, flag::STALE, 0, Local)
                .docs("3.0.0", "Return the node id")
                .note("The proxy shows itself as the one node that owns every slot."),
            command("cluster|nodes", 2, flag::STALE, 0, Local)
                .tips(&["nondeterministic_output"])
                .docs("3.0.0", "Get Cluster config for the node")
                .note("The proxy shows itself as the one node that owns every slot."),
            command("cluster|replicas", 3, flag::ADMIN | flag::STALE, 0, Local)
                .tips(&["nondeterministic_output"])
                .docs("5.0.0", "List replica nodes of the specified master node")
                .note("The proxy shows itself as the one node that owns every slot."),
            command("cluster|replicate", 3, flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING, 0, Refused)
                .docs("3.0.0", "Reconfigure a node as a replica of the specified master node")
                .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command("cluster|reset", -2, flag::ADMIN | flag::NOSCRIPT | flag::STALE, 0, Refused)
                .docs("3.0.0", "Reset a Redis Cluster node")
                .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command("cluster|saveconfig", 2, flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING, 0, Refused)
                .docs("3.0.0", "Forces the node to save cluster state on disk")
                .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command(
                "cluster|set-config-epoch",
                3,
                flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING,
                0,
                Refused,
            )
            .docs("3.0.0", "Set the configuration epoch in a new node")
            .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command("cluster|setslot", -4, flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING, 0, Refused)
                .docs("3.0.0", "Bind a hash slot to a specific node")
                .note("The shape of the cluster is changed on its nodes, not through the proxy."),
            command("cluster|shards", 2, flag::STALE, 0, Local)
                .tips(&["nondeterministic_output"])
                .docs("7.0.0", "Get array of cluster slots to node mappings")
                .note("The proxy shows itself as the one node that owns every slot."),
            command("cluster|slaves", 3, flag::ADMIN | flag::STALE, 0, Local)
                .tips(&["nondeterministic_output"])
                .docs("3.0.0", "List replica nodes of the specified master node")
                .note("The proxy shows itself as the one node that owns every slot."),
            command("cluster|slots", 2, flag::STALE, 0, Local)
                .tips(&["nondeterministic_output"])
                .docs("3.0.0", "Get array of Cluster slot to node mappings")
                .note("The proxy shows itself as the one node that owns every slot."),
        ]),
    command("readonly", 1, flag::LOADING | flag::STALE | flag::FAST, category::CONNECTION, Local)
        .docs("3.0.0", "Enables read queries for a connection to a cluster replica node")
        .note(
            "Accepted for cluster-aware clients; where reads go is the proxy's \
             policy.",
        ),
    command("readwrite", 1, flag::LOADING | flag::STALE | flag::FAST, category::CONNECTION, Local)
        .docs("3.0.0", "Disables read queries for a connection to a cluster replica node")
        .note(
            "Accepted for cluster-aware clients; where reads go is the proxy's \
             policy.",
        ),
];
