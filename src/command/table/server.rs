//! Commands of the `server` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command("acl", -2, 0, 0, Local)
        .docs("6.0.0", "A container for Access List Control commands ")
        .note("About users of the proxy.")
        .containing(&[
            command("acl|cat", -2, flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs("6.0.0", "List the ACL categories or the commands inside a category")
                .note("About users of the proxy."),
            command("acl|deluser", -3, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs("6.0.0", "Remove the specified ACL users and the associated rules")
                .note("About users of the proxy."),
            command("acl|dryrun", -4, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs(
                    "7.0.0",
                    "Returns whether the user can execute the given command without executing \
             the command.",
                )
                .note("About users of the proxy."),
            command("acl|genpass", -2, flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs("6.0.0", "Generate a pseudorandom secure password to use for ACL users")
                .note("About users of the proxy."),
            command("acl|getuser", 3, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs("6.0.0", "Get the rules for a specific ACL user")
                .note("About users of the proxy."),
            command("acl|help", 2, flag::LOADING | flag::STALE, 0, Single)
                .docs("6.0.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command("acl|list", 2, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs("6.0.0", "List the current ACL rules in ACL config file format")
                .note("About users of the proxy."),
            command("acl|load", 2, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs("6.0.0", "Reload the ACLs from the configured ACL file")
                .note("About users of the proxy."),
            command("acl|log", -2, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs("6.0.0", "List latest events denied because of ACLs in place")
                .note("About users of the proxy."),
            command("acl|save", 2, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs("6.0.0", "Save the current ACL rules in the configured ACL file")
                .note("About users of the proxy."),
            command("acl|setuser", -3, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs("6.0.0", "Modify or create the rules for a specific ACL user")
                .note("About users of the proxy."),
            command("acl|users", 2, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs("6.0.0", "List the username of all the configured ACL rules")
                .note("About users of the proxy."),
            command("acl|whoami", 2, flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs("6.0.0", "Return the name of the user associated to the current connection")
                .note("About users of the proxy."),
        ]),
    command("bgrewriteaof", 1, flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING, 0, Refused)
        .docs("1.0.0", "Asynchronously rewrite the append-only file")
        .note("Persistence belongs to each node."),
    command("bgsave", -1, flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING, 0, Refused)
        .docs("1.0.0", "Asynchronously save the dataset to disk")
        .note("Persistence belongs to each node."),
    command("command", -1, flag::LOADING | flag::STALE, category::CONNECTION, Local)
        .tips(&["nondeterministic_output_order"])
        .docs("2.8.13", "Get array of Redis command details")
        .note("Answered from this table.")
        .containing(&[
            command("command|count", 2, flag::LOADING | flag::STALE, category::CONNECTION, Local)
                .docs("2.8.13", "Get total number of Redis commands")
                .note("Answered from this table."),
            command("command|docs", -2, flag::LOADING | flag::STALE, category::CONNECTION, Local)
                .tips(&["nondeterministic_output_order"])
                .docs("7.0.0", "Get array of specific Redis command documentation")
                .note("Answered from this table."),
            command("command|getkeys", -4, flag::LOADING | flag::STALE, category::CONNECTION, Local)
                .docs("2.8.13", "Extract keys given a full Redis command")
                .note("Answered from this table."),
            command("command|getkeysandflags", -4, flag::LOADING | flag::STALE, category::CONNECTION, Local)
                .docs("7.0.0", "Extract keys and access flags given a full Redis command")
                .note("Answered from this table."),
            command("command|help", 2, flag::LOADING | flag::STALE, category::CONNECTION, Single)
                .docs("5.0.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command("command|info", -2, flag::LOADING | flag::STALE, category::CONNECTION, Local)
                .tips(&["nondeterministic_output_order"])
                .docs(
                    "2.8.13",
                    "Get array of specific Redis command details, or all when no argument is \
             given.",
                )
                .note("Answered from this table."),
            command("command|list", -2, flag::LOADING | flag::STALE, category::CONNECTION, Local)
                .tips(&["nondeterministic_output_order"])
                .docs("7.0.0", "Get an array of Redis command names")
                .note("Answered from this table."),
        ]),
    command("config", -2, 0, 0, Local)
        .docs("2.0.0", "A container for server configuration commands")
        .note("About the proxy's own settings.")
        .containing(&[
            command("config|get", -3, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .docs("2.0.0", "Get the values of configuration parameters")
                .note("About the proxy's own settings."),
            command("config|help", 2, flag::LOADING | flag::STALE, 0, Single)
                .docs("5.0.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command(
                "config|resetstat",
                2,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                0,
                Local,
            )
            .docs("2.0.0", "Reset the stats returned by INFO")
            .note("About the proxy's own settings."),
            command(
                "config|rewrite",
                2,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                0,
                Local,
            )
            .docs("2.8.0", "Rewrite the configuration file with the in memory configuration")
            .note("The proxy never rewrites its configuration file; answered with an error."),
            command("config|set", -4, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .docs("2.0.0", "Set configuration parameters to the given values")
                .note("About the proxy's own settings."),
        ]),
    command("dbsize", 1, flag::READONLY | flag::FAST, category::KEYSPACE, FanOut)
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .docs("1.0.0", "Return the number of keys in the selected database")
        .note("Every primary holds a part of the keys; the counts are added."),
    command("debug", -2, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Refused)
        .docs("1.0.0", "A container for debugging commands")
        .note("Can crash or stall a node."),
    command("failover", -1, flag::ADMIN | flag::NOSCRIPT | flag::STALE, 0, Refused)
        .docs(
            "6.2.0",
            "Start a coordinated failover between this server and one of its \
             replicas.",
        )
        .note("Changes the replication of a node."),
    command("flushall", -1, flag::WRITE, category::KEYSPACE | category::DANGEROUS, FanOut)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs("1.0.0", "Remove all keys from all databases")
        .note("Must reach every primary."),
    command("flushdb", -1, flag::WRITE, category::KEYSPACE | category::DANGEROUS, FanOut)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs("1.0.0", "Remove all keys from the current database")
        .note("Must reach every primary."),
    command("info", -1, flag::LOADING | flag::STALE, category::DANGEROUS, Local)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .docs("1.0.0", "Get information and statistics about the server")
        .note(
            "About the proxy, but for `# Keyspace`: the sums over all primaries, at most a second old. The proxy's own \
             keys (`dsproxy:*`) are in it, which `DBSIZE` leaves out: to find them takes a scan. While a primary is \
             silent the section is left out, and `keyspace_error` in `# Proxy` says why.",
        ),
    command(
        "lastsave",
        1,
        flag::LOADING | flag::STALE | flag::FAST,
        category::ADMIN | category::DANGEROUS,
        Refused,
    )
    .tips(&["nondeterministic_output"])
    .docs("1.0.0", "Get the UNIX time stamp of the last successful save to disk")
    .note("Persistence belongs to each node."),
    command("latency", -2, 0, 0, Local)
        .docs("2.8.13", "A container for latency diagnostics commands")
        .note("About the proxy, not about a node behind it.")
        .containing(&[
            command(
                "latency|doctor",
                2,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                0,
                Local,
            )
            .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
            .docs("2.8.13", "Return a human readable latency analysis report.")
            .note("About the proxy, not about a node behind it."),
            command("latency|graph", 3, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
                .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
                .docs("2.8.13", "Return a latency graph for the event.")
                .note("About the proxy, not about a node behind it."),
            command("latency|help", 2, flag::LOADING | flag::STALE, 0, Single)
                .docs("2.8.13", "Show helpful text about the different subcommands.")
                .note("Keyless: any primary can answer."),
            command(
                "latency|histogram",
                -2,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                0,
                Local,
            )
            .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
            .docs(
                "7.0.0",
                "Return the cumulative distribution of latencies of a subset of commands \
             or all.",
            )
            .note("Named by the way that commands take (`single`, `split`, `local`, `load`), not by command: from a request to its reply, since the start of the proxy."),
            command(
                "latency|history",
                3,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                0,
                Local,
            )
            .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
            .docs("2.8.13", "Return timestamp-latency samples for the event.")
            .note(
                "As clients see it, of commands that went to a node. Asked for by name, also by the way that commands took: \
                 single, split, local, load.",
            ),
            command(
                "latency|latest",
                2,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                0,
                Local,
            )
            .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
            .docs("2.8.13", "Return the latest latency samples for all events.")
            .note("About the proxy, not about a node behind it."),
            command(
                "latency|reset",
                -2,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                0,
                Local,
            )
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
            .docs("2.8.13", "Reset latency data for one or more events.")
            .note("About the proxy, not about a node behind it."),
        ]),
    command("lolwut", -1, flag::READONLY | flag::FAST, 0, Single)
        .docs("5.0.0", "Display some computer art and the Redis version")
        .note("Keyless: any primary can answer."),
    command("memory", -2, 0, 0, Local)
        .docs("4.0.0", "A container for memory diagnostics commands")
        .note("A container: its subcommands have classes of their own.")
        .containing(&[
            command("memory|doctor", 2, 0, 0, Local)
                .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
                .docs("4.0.0", "Outputs memory problems report")
                .note("About the proxy, not about a node behind it."),
            command("memory|help", 2, flag::LOADING | flag::STALE, 0, Single)
                .docs("4.0.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command("memory|malloc-stats", 2, 0, 0, Local)
                .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
                .docs("4.0.0", "Show allocator internal stats")
                .note("About the proxy, not about a node behind it."),
            command("memory|purge", 2, 0, 0, Local)
                .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
                .docs("4.0.0", "Ask the allocator to release memory")
                .note("About the proxy, not about a node behind it."),
            command("memory|stats", 2, 0, 0, Local)
                .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
                .docs("4.0.0", "Show memory usage details")
                .note("About the proxy, not about a node behind it."),
            command("memory|usage", -3, flag::READONLY, 0, Single)
                .keys_at(&[at(RO, 2)])
                .docs("4.0.0", "Estimate the memory usage of a key"),
        ]),
    command("module", -2, 0, 0, Local)
        .docs("4.0.0", "A container for module commands")
        .note("A container: its subcommands have classes of their own.")
        .containing(&[
            command("module|help", 2, flag::LOADING | flag::STALE, 0, Single)
                .docs("5.0.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command("module|list", 2, flag::ADMIN | flag::NOSCRIPT, 0, Single)
                .tips(&["nondeterministic_output_order"])
                .docs("4.0.0", "List all modules loaded by the server")
                .note("Keyless: any primary can answer."),
            command("module|load", -3, flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING, 0, Refused)
                .docs("4.0.0", "Load a module")
                .note("Modules are loaded on each node."),
            command("module|loadex", -3, flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING, 0, Refused)
                .docs("7.0.0", "Load a module with extended parameters")
                .note("Modules are loaded on each node."),
            command("module|unload", 3, flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING, 0, Refused)
                .docs("4.0.0", "Unload a module")
                .note("Modules are loaded on each node."),
        ]),
    command("monitor", 1, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, Local)
        .docs("1.0.0", "Listen for all requests received by the server in real time")
        .note("Shows what clients ask the proxy: commands of a transaction when they are queued, nothing of what scripts do. At most `limits.monitor_lines` a second; the others are counted in a line of their own. Long arguments are shortened."),
    command("psync", -3, flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING | flag::NO_MULTI, 0, Refused)
        .docs("2.8.0", "Internal command used for replication")
        .note("Part of the replication protocol between nodes."),
    command(
        "replconf",
        -1,
        flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::ALLOW_BUSY,
        0,
        Refused,
    )
    .docs("3.0.0", "An internal command for configuring the replication stream")
    .note("Part of the replication protocol between nodes."),
    command("replicaof", 3, flag::ADMIN | flag::NOSCRIPT | flag::STALE | flag::NO_ASYNC_LOADING, 0, Refused)
        .docs("5.0.0", "Make the server a replica of another instance, or promote it as master.")
        .note("Changes the replication of a node."),
    command(
        "restore-asking",
        -4,
        flag::WRITE | flag::DENYOOM | flag::ASKING,
        category::KEYSPACE | category::DANGEROUS,
        Refused,
    )
    .keys_at(&[at(OW | UPDATE, 1)])
    .docs("3.0.0", "An internal command for migrating keys in a cluster")
    .note("Part of the slot migration protocol between nodes."),
    command(
        "role",
        1,
        flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST,
        category::ADMIN | category::DANGEROUS,
        Local,
    )
    .docs("2.8.12", "Return the role of the instance in the context of replication")
    .note("To its clients the proxy is a primary without replicas."),
    command("save", 1, flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING | flag::NO_MULTI, 0, Refused)
        .docs("1.0.0", "Synchronously save the dataset to disk")
        .note("Persistence belongs to each node."),
    command(
        "shutdown",
        -1,
        flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::NO_MULTI | flag::ALLOW_BUSY,
        0,
        Refused,
    )
    .docs("1.0.0", "Synchronously save the dataset to disk and then shut down the server")
    .note("Stops a node; the proxy is stopped by a signal."),
    command("slaveof", 3, flag::ADMIN | flag::NOSCRIPT | flag::STALE | flag::NO_ASYNC_LOADING, 0, Refused)
        .docs("1.0.0", "Make the server a replica of another instance, or promote it as master.")
        .note("Changes the replication of a node."),
    command("slowlog", -2, 0, 0, Local)
        .docs("2.2.12", "A container for slow log commands")
        .note("About the proxy, not about a node behind it.")
        .containing(&[
            command("slowlog|get", -2, flag::ADMIN | flag::LOADING | flag::STALE, 0, Local)
                .tips(&["request_policy:all_nodes", "nondeterministic_output"])
                .docs("2.2.12", "Get the slow log's entries")
                .note("About the proxy, not about a node behind it."),
            command("slowlog|help", 2, flag::LOADING | flag::STALE, 0, Single)
                .docs("6.2.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command("slowlog|len", 2, flag::ADMIN | flag::LOADING | flag::STALE, 0, Local)
                .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"])
                .docs("2.2.12", "Get the slow log's length")
                .note("About the proxy, not about a node behind it."),
            command("slowlog|reset", 2, flag::ADMIN | flag::LOADING | flag::STALE, 0, Local)
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .docs("2.2.12", "Clear all entries from the slow log")
                .note("About the proxy, not about a node behind it."),
        ]),
    command("swapdb", 3, flag::WRITE | flag::FAST, category::KEYSPACE | category::DANGEROUS, Refused)
        .docs("4.0.0", "Swaps two Redis databases")
        .note("A cluster has database 0 only."),
    command("sync", 1, flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING | flag::NO_MULTI, 0, Refused)
        .docs("1.0.0", "Internal command used for replication")
        .note("Part of the replication protocol between nodes."),
    command("time", 1, flag::LOADING | flag::STALE | flag::FAST, 0, Local)
        .tips(&["nondeterministic_output"])
        .docs("2.6.0", "Return the current server time")
        .note("Answered without asking any node."),
];
