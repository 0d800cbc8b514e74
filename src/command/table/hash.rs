//! Commands of the `hash` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command("hdel", -3, flag::WRITE | flag::FAST, category::HASH, Single)
        .keys_at(&[at(RW | DELETE, 1)])
        .docs("2.0.0", "Delete one or more hash fields"),
    command("hexists", 3, flag::READONLY | flag::FAST, category::HASH, Single)
        .keys_at(&[at(RO, 1)])
        .docs("2.0.0", "Determine if a hash field exists"),
    command("hget", 3, flag::READONLY | flag::FAST, category::HASH, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("2.0.0", "Get the value of a hash field"),
    command("hgetall", 2, flag::READONLY, category::HASH, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output_order"])
        .docs("2.0.0", "Get all the fields and values in a hash"),
    command("hincrby", 4, flag::WRITE | flag::DENYOOM | flag::FAST, category::HASH, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE, 1)])
        .docs("2.0.0", "Increment the integer value of a hash field by the given number"),
    command("hincrbyfloat", 4, flag::WRITE | flag::DENYOOM | flag::FAST, category::HASH, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE, 1)])
        .docs("2.6.0", "Increment the float value of a hash field by the given amount"),
    command("hkeys", 2, flag::READONLY, category::HASH, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output_order"])
        .docs("2.0.0", "Get all the fields in a hash"),
    command("hlen", 2, flag::READONLY | flag::FAST, category::HASH, Single)
        .keys_at(&[at(RO, 1)])
        .docs("2.0.0", "Get the number of fields in a hash"),
    command("hmget", -3, flag::READONLY | flag::FAST, category::HASH, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("2.0.0", "Get the values of all the given hash fields"),
    command("hmset", -4, flag::WRITE | flag::DENYOOM | flag::FAST, category::HASH, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs("2.0.0", "Set multiple hash fields to multiple values"),
    command("hrandfield", -2, flag::READONLY, category::HASH, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output"])
        .docs("6.2.0", "Get one or multiple random fields from a hash"),
    command("hscan", -3, flag::READONLY, category::HASH, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output"])
        .docs("2.8.0", "Incrementally iterate hash fields and associated values"),
    command("hset", -4, flag::WRITE | flag::DENYOOM | flag::FAST, category::HASH, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs("2.0.0", "Set the string value of a hash field"),
    command("hsetnx", 4, flag::WRITE | flag::DENYOOM | flag::FAST, category::HASH, Single)
        .keys_at(&[at(RW | INSERT, 1)])
        .docs("2.0.0", "Set the value of a hash field, only if the field does not exist"),
    command("hstrlen", 3, flag::READONLY | flag::FAST, category::HASH, Single)
        .keys_at(&[at(RO, 1)])
        .docs("3.2.0", "Get the length of the value of a hash field"),
    command("hvals", 2, flag::READONLY, category::HASH, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output_order"])
        .docs("2.0.0", "Get all the values in a hash"),
];
