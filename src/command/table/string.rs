//! Commands of the `string` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command("append", 3, flag::WRITE | flag::DENYOOM | flag::FAST, category::STRING, Single)
        .keys_at(&[at(RW | INSERT, 1)])
        .docs("2.0.0", "Append a value to a key"),
    command("decr", 2, flag::WRITE | flag::DENYOOM | flag::FAST, category::STRING, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE, 1)])
        .docs("1.0.0", "Decrement the integer value of a key by one"),
    command("decrby", 3, flag::WRITE | flag::DENYOOM | flag::FAST, category::STRING, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE, 1)])
        .docs("1.0.0", "Decrement the integer value of a key by the given number"),
    command("get", 2, flag::READONLY | flag::FAST, category::STRING, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("1.0.0", "Get the value of a key"),
    command("getdel", 2, flag::WRITE | flag::FAST, category::STRING, Single)
        .keys_at(&[at(RW | ACCESS | DELETE, 1)])
        .docs("6.2.0", "Get the value of a key and delete the key"),
    command("getex", -2, flag::WRITE | flag::FAST, category::STRING, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE, 1).notes("RW and UPDATE because it changes the TTL")])
        .docs("6.2.0", "Get the value of a key and optionally set its expiration"),
    command("getrange", 4, flag::READONLY, category::STRING, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("2.4.0", "Get a substring of the string stored at a key"),
    command("getset", 3, flag::WRITE | flag::DENYOOM | flag::FAST, category::STRING, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE, 1)])
        .docs("1.0.0", "Set the string value of a key and return its old value"),
    command("incr", 2, flag::WRITE | flag::DENYOOM | flag::FAST, category::STRING, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE, 1)])
        .docs("1.0.0", "Increment the integer value of a key by one"),
    command("incrby", 3, flag::WRITE | flag::DENYOOM | flag::FAST, category::STRING, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE, 1)])
        .docs("1.0.0", "Increment the integer value of a key by the given amount"),
    command("incrbyfloat", 3, flag::WRITE | flag::DENYOOM | flag::FAST, category::STRING, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE, 1)])
        .docs("2.6.0", "Increment the float value of a key by the given amount"),
    command("lcs", -3, flag::READONLY, category::STRING, Single)
        .keys_at(&[span(RO | ACCESS, 1, 1, 1)])
        .docs("7.0.0", "Find longest common substring"),
    command("mget", -2, flag::READONLY | flag::FAST, category::STRING, Split(Merge::Array))
        .keys_at(&[span(RO | ACCESS, 1, -1, 1)])
        .tips(&["request_policy:multi_shard"])
        .docs("1.0.0", "Get the values of all the given keys")
        .note(
            "Each slot answers for its own keys; the replies are put back in the \
             order of the arguments.",
        ),
    command("mset", -3, flag::WRITE | flag::DENYOOM, category::STRING, Split(Merge::AllOk))
        .keys_at(&[span(OW | UPDATE, 1, -1, 2)])
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .docs("1.0.1", "Set multiple keys to multiple values")
        .note("One MSET per slot: atomic within a slot, not across slots."),
    command("msetnx", -3, flag::WRITE | flag::DENYOOM, category::STRING, Single)
        .keys_at(&[span(OW | INSERT, 1, -1, 2)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_min"])
        .docs("1.0.1", "Set multiple keys to multiple values, only if none of the keys exist")
        .note("Atomic over all its keys, so they must share a slot."),
    command("psetex", 4, flag::WRITE | flag::DENYOOM, category::STRING, Single)
        .keys_at(&[at(OW | UPDATE, 1)])
        .docs("2.6.0", "Set the value and expiration in milliseconds of a key"),
    command("set", -3, flag::WRITE | flag::DENYOOM, category::STRING, Single)
        .keys_at(&[
            at(RW | ACCESS | UPDATE | VARIABLE, 1).notes("RW and ACCESS due to the optional `GET` argument")
        ])
        .docs("1.0.0", "Set the string value of a key"),
    command("setex", 4, flag::WRITE | flag::DENYOOM, category::STRING, Single)
        .keys_at(&[at(OW | UPDATE, 1)])
        .docs("2.0.0", "Set the value and expiration of a key"),
    command("setnx", 3, flag::WRITE | flag::DENYOOM | flag::FAST, category::STRING, Single)
        .keys_at(&[at(OW | INSERT, 1)])
        .docs("1.0.0", "Set the value of a key, only if the key does not exist"),
    command("setrange", 4, flag::WRITE | flag::DENYOOM, category::STRING, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs("2.2.0", "Overwrite part of a string at key starting at the specified offset"),
    command("strlen", 2, flag::READONLY | flag::FAST, category::STRING, Single)
        .keys_at(&[at(RO, 1)])
        .docs("2.2.0", "Get the length of the value stored in a key"),
    command("substr", 4, flag::READONLY, category::STRING, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("1.0.0", "Get a substring of the string stored at a key"),
];
