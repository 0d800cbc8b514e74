//! Commands of the `generic` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command("copy", -3, flag::WRITE | flag::DENYOOM, category::KEYSPACE, Single)
        .keys_at(&[at(RO | ACCESS, 1), at(OW | UPDATE, 2)])
        .docs("6.2.0", "Copy a key"),
    command("del", -2, flag::WRITE, category::KEYSPACE, Split(Merge::Sum))
        .keys_at(&[span(RM | DELETE, 1, -1, 1)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .docs("1.0.0", "Delete a key")
        .note("Each slot counts its own keys; the counts are added."),
    command("dump", 2, flag::READONLY, category::KEYSPACE, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output"])
        .docs("2.6.0", "Return a serialized version of the value stored at the specified key."),
    command("exists", -2, flag::READONLY | flag::FAST, category::KEYSPACE, Split(Merge::Sum))
        .keys_at(&[span(RO, 1, -1, 1)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .docs("1.0.0", "Determine if a key exists")
        .note("Each slot counts its own keys; the counts are added."),
    command("expire", -3, flag::WRITE | flag::FAST, category::KEYSPACE, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs("1.0.0", "Set a key's time to live in seconds"),
    command("expireat", -3, flag::WRITE | flag::FAST, category::KEYSPACE, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs("1.2.0", "Set the expiration for a key as a UNIX timestamp"),
    command("expiretime", 2, flag::READONLY | flag::FAST, category::KEYSPACE, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("7.0.0", "Get the expiration Unix timestamp for a key"),
    command("keys", 2, flag::READONLY, category::KEYSPACE | category::DANGEROUS, FanOut)
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .docs("1.0.0", "Find all keys matching the given pattern")
        .note("Every primary holds a part of the keys; the lists are joined."),
    command(
        "migrate",
        -6,
        flag::WRITE | flag::MOVABLEKEYS,
        category::KEYSPACE | category::DANGEROUS,
        Refused,
    )
    .keys_at(&[at(RW | ACCESS | DELETE, 3), keyword(RW | ACCESS | DELETE | INCOMPLETE, "KEYS", -2).to_end()])
    .found_by(Finder::Migrate)
    .tips(&["nondeterministic_output"])
    .docs("2.6.0", "Atomically transfer a key from a Redis instance to another one.")
    .note(
        "Moves keys between nodes behind the proxy's back, to an address the \
             client chooses.",
    ),
    command("move", 3, flag::WRITE | flag::FAST, category::KEYSPACE, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE, 1)])
        .docs("1.0.0", "Move a key to another database")
        .note("Refused by a cluster with its own words: there is database 0 only."),
    command("object", -2, 0, 0, Local)
        .docs("2.2.3", "A container for object introspection commands")
        .note("A container: its subcommands have classes of their own.")
        .containing(&[
            command("object|encoding", 3, flag::READONLY, category::KEYSPACE, Single)
                .keys_at(&[at(RO, 2)])
                .tips(&["nondeterministic_output"])
                .docs("2.2.3", "Inspect the internal encoding of a Redis object"),
            command("object|freq", 3, flag::READONLY, category::KEYSPACE, Single)
                .keys_at(&[at(RO, 2)])
                .tips(&["nondeterministic_output"])
                .docs("4.0.0", "Get the logarithmic access frequency counter of a Redis object"),
            command("object|help", 2, flag::LOADING | flag::STALE, category::KEYSPACE, Single)
                .docs("6.2.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command("object|idletime", 3, flag::READONLY, category::KEYSPACE, Single)
                .keys_at(&[at(RO, 2)])
                .tips(&["nondeterministic_output"])
                .docs("2.2.3", "Get the time since a Redis object was last accessed"),
            command("object|refcount", 3, flag::READONLY, category::KEYSPACE, Single)
                .keys_at(&[at(RO, 2)])
                .tips(&["nondeterministic_output"])
                .docs("2.2.3", "Get the number of references to the value of the key"),
        ]),
    command("persist", 2, flag::WRITE | flag::FAST, category::KEYSPACE, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs("2.2.0", "Remove the expiration from a key"),
    command("pexpire", -3, flag::WRITE | flag::FAST, category::KEYSPACE, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs("2.6.0", "Set a key's time to live in milliseconds"),
    command("pexpireat", -3, flag::WRITE | flag::FAST, category::KEYSPACE, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs(
            "2.6.0",
            "Set the expiration for a key as a UNIX timestamp specified in \
             milliseconds",
        ),
    command("pexpiretime", 2, flag::READONLY | flag::FAST, category::KEYSPACE, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("7.0.0", "Get the expiration Unix timestamp for a key in milliseconds"),
    command("pttl", 2, flag::READONLY | flag::FAST, category::KEYSPACE, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output"])
        .docs("2.6.0", "Get the time to live for a key in milliseconds"),
    command("randomkey", 1, flag::READONLY, category::KEYSPACE, FanOut)
        .tips(&["request_policy:all_shards", "nondeterministic_output"])
        .docs("1.0.0", "Return a random key from the keyspace")
        .note("Asks primaries in random order until one has a key."),
    command("rename", 3, flag::WRITE, category::KEYSPACE, Single)
        .keys_at(&[at(RW | ACCESS | DELETE, 1), at(OW | UPDATE, 2)])
        .docs("1.0.0", "Rename a key")
        .note("Atomic over all its keys, so they must share a slot."),
    command("renamenx", 3, flag::WRITE | flag::FAST, category::KEYSPACE, Single)
        .keys_at(&[at(RW | ACCESS | DELETE, 1), at(OW | INSERT, 2)])
        .docs("1.0.0", "Rename a key, only if the new key does not exist")
        .note("Atomic over all its keys, so they must share a slot."),
    command("restore", -4, flag::WRITE | flag::DENYOOM, category::KEYSPACE | category::DANGEROUS, Single)
        .keys_at(&[at(OW | UPDATE, 1)])
        .docs(
            "2.6.0",
            "Create a key using the provided serialized value, previously obtained \
             using DUMP.",
        ),
    command("scan", -2, flag::READONLY, category::KEYSPACE, FanOut)
        .tips(&["nondeterministic_output", "request_policy:special"])
        .docs("2.8.0", "Incrementally iterate the keys space")
        .note(
            "Walks the primaries one after the other with a cursor that names its \
             node.",
        ),
    command(
        "sort",
        -2,
        flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS,
        category::SET | category::SORTEDSET | category::LIST | category::DANGEROUS,
        Single,
    )
    .keys_at(&[
        at(RO | ACCESS, 1),
        unknown(RO | ACCESS).notes(
            "For the optional BY/GET keyword. It is marked 'unknown' because the key \
             names derive from the content of the key we sort",
        ),
        unknown(OW | UPDATE).notes(
            "For the optional STORE keyword. It is marked 'unknown' because the \
             keyword can appear anywhere in the argument array",
        ),
    ])
    .found_by(Finder::Sort)
    .docs("1.0.0", "Sort the elements in a list, set or sorted set")
    .note("BY and GET patterns that leave the slot are refused by the server."),
    command(
        "sort_ro",
        -2,
        flag::READONLY | flag::MOVABLEKEYS,
        category::SET | category::SORTEDSET | category::LIST | category::DANGEROUS,
        Single,
    )
    .keys_at(&[
        at(RO | ACCESS, 1),
        unknown(RO | ACCESS).notes(
            "For the optional BY/GET keyword. It is marked 'unknown' because the key \
             names derive from the content of the key we sort",
        ),
    ])
    .found_by(Finder::FirstArgument)
    .docs(
        "7.0.0",
        "Sort the elements in a list, set or sorted set. Read-only variant of \
             SORT.",
    )
    .note("BY and GET patterns that leave the slot are refused by the server."),
    command("touch", -2, flag::READONLY | flag::FAST, category::KEYSPACE, Split(Merge::Sum))
        .keys_at(&[span(RO, 1, -1, 1)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .docs(
            "3.2.1",
            "Alters the last access time of a key(s). Returns the number of existing \
             keys specified.",
        )
        .note("Each slot counts its own keys; the counts are added."),
    command("ttl", 2, flag::READONLY | flag::FAST, category::KEYSPACE, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output"])
        .docs("1.0.0", "Get the time to live for a key in seconds"),
    command("type", 2, flag::READONLY | flag::FAST, category::KEYSPACE, Single)
        .keys_at(&[at(RO, 1)])
        .docs("1.0.0", "Determine the type stored at key"),
    command("unlink", -2, flag::WRITE | flag::FAST, category::KEYSPACE, Split(Merge::Sum))
        .keys_at(&[span(RM | DELETE, 1, -1, 1)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .docs(
            "4.0.0",
            "Delete a key asynchronously in another thread. Otherwise it is just as \
             DEL, but non blocking.",
        )
        .note("Each slot counts its own keys; the counts are added."),
    command("wait", 3, flag::NOSCRIPT, category::CONNECTION, Blocking)
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .docs(
            "3.0.0",
            "Wait for the synchronous replication of all the write commands sent in \
             the context of the current connection",
        )
        .note(
            "The least over all primaries, whichever the client wrote to. After a primary was replaced, or a \
             connection to one was lost, the next `WAIT` of each client is an error: what its writes became is not known. \
             About the cache, not about the database behind it. Inside `MULTI` the slot's owner answers.",
        ),
];
