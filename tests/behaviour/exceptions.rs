//! What is not the same as on a plain server, and why: data only.

use super::Difference;

const fn differs(command: &'static str, reason: &'static str) -> Difference {
    Difference { command, reason }
}

const SHAPE: &str = "the shape of the cluster is changed on its nodes; the plain server is no cluster at all";
const EMULATED: &str =
    "the plain server is no cluster; the proxy shows itself as one node that owns every slot";
const PERSISTENCE: &str = "persistence and replication belong to each node: refused";
const USERS: &str = "changes or shows users, who differ; tests of the ACL compare them";
const MODULES: &str = "modules are loaded on each node: refused";
const CLUSTER_SORT: &str = "a cluster refuses BY and GET of SORT, whose keys could be of any slot";
const FOREVER: &str = "waits for ever; the script has one with a timeout";
const PUBSUB: &str = "answers with messages of its own, not one reply each; tests of pub/sub compare those";

/// Commands whose replies are not compared. A command with no line in the script must stand here.
pub const COMMANDS: &[Difference] = &[
    differs("asking", EMULATED),
    differs("proxy", "is the proxy's own; Redis has none"),
    differs("cluster", EMULATED),
    differs("readonly", EMULATED),
    differs("readwrite", EMULATED),
    differs("acl|deluser", USERS),
    differs("acl|dryrun", USERS),
    differs("acl|getuser", USERS),
    differs("acl|list", USERS),
    differs("acl|load", USERS),
    differs("acl|log", USERS),
    differs("acl|save", USERS),
    differs("acl|setuser", USERS),
    differs("acl|users", USERS),
    differs("bgrewriteaof", PERSISTENCE),
    differs("bgsave", PERSISTENCE),
    differs(
        "client|no-touch",
        "of Redis 7.2; the table has it, since clients send it whatever the server is",
    ),
    differs("client|setinfo", "of Redis 7.2; the table has it, since clients send it whatever the server is"),
    differs("config|rewrite", "the configuration file is never rewritten"),
    differs("debug", "can crash or stall a node: refused"),
    differs("failover", PERSISTENCE),
    differs("lastsave", PERSISTENCE),
    differs("migrate", "moves keys to a server that the proxy does not know: refused"),
    differs("module|load", MODULES),
    differs("module|loadex", MODULES),
    differs("module|unload", MODULES),
    differs("monitor", "shows the traffic of the proxy's clients; tests/monitor.rs"),
    differs("move", "a cluster has database 0 only"),
    differs("swapdb", "a cluster has database 0 only"),
    differs("pfdebug", "for developers of Redis"),
    differs("pfselftest", "for developers of Redis"),
    differs("psync", PERSISTENCE),
    differs("replconf", PERSISTENCE),
    differs("replicaof", PERSISTENCE),
    differs("restore-asking", SHAPE),
    differs("save", PERSISTENCE),
    differs("script|debug", "would stop a node: refused"),
    differs("shutdown", "stops a node; the proxy is stopped by a signal"),
    differs("slaveof", PERSISTENCE),
    differs("sync", PERSISTENCE),
    differs("psubscribe", PUBSUB),
    differs("punsubscribe", PUBSUB),
    differs("ssubscribe", PUBSUB),
    differs("subscribe", PUBSUB),
    differs("sunsubscribe", PUBSUB),
    differs("unsubscribe", PUBSUB),
];

/// Single lines whose replies differ, although their command's others do not.
pub const LINES: &[Difference] = &[
    differs("SCAN 0", "one node is scanned after the other, so the cursor of an empty node is not the end"),
    differs("COMMAND LIST", "the two commands of Redis 7.2 that are in the table"),
    differs("COMMAND COUNT", "counts PROXY, which is the proxy's own"),
    differs("ACL CAT dangerous", "names the subcommands of PROXY, which is the proxy's own"),
    differs("SORT k BY nosort GET # LIMIT 0 5 ASC", CLUSTER_SORT),
    differs("SORT k GET store LIMIT store store STORE d", CLUSTER_SORT),
    differs("GEORADIUS k 1 2 3 m STORE a STORE b", "a node takes the last STORE, which is of another slot"),
    differs(
        "COMMAND INFO",
        "the order of commands and subcommands means nothing and differs between servers",
    ),
    differs("XREAD BLOCK 0 STREAMS a", FOREVER),
    differs("XREAD COUNT 1 BLOCK 0 streams a b 0 0", FOREVER),
    differs("BLPOP a b 0", FOREVER),
    differs("BRPOP a 0", FOREVER),
    differs("BLMPOP 0 2 a b RIGHT", FOREVER),
    differs("BZMPOP 0 1 a MIN", FOREVER),
    differs("BZPOPMIN a b 0", FOREVER),
    differs("COPY a b DB 0", "a cluster has database 0 only"),
    differs("CLUSTER KEYSLOT k", EMULATED),
];
