//! Commands of the `set` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command("sadd", -3, flag::WRITE | flag::DENYOOM | flag::FAST, category::SET, Single)
        .keys_at(&[at(RW | INSERT, 1)])
        .docs("1.0.0", "Add one or more members to a set"),
    command("scard", 2, flag::READONLY | flag::FAST, category::SET, Single)
        .keys_at(&[at(RO, 1)])
        .docs("1.0.0", "Get the number of members in a set"),
    command("sdiff", -2, flag::READONLY, category::SET, Single)
        .keys_at(&[span(RO | ACCESS, 1, -1, 1)])
        .tips(&["nondeterministic_output_order"])
        .docs("1.0.0", "Subtract multiple sets"),
    command("sdiffstore", -3, flag::WRITE | flag::DENYOOM, category::SET, Single)
        .keys_at(&[at(OW | UPDATE, 1), span(RO | ACCESS, 2, -1, 1)])
        .docs("1.0.0", "Subtract multiple sets and store the resulting set in a key"),
    command("sinter", -2, flag::READONLY, category::SET, Single)
        .keys_at(&[span(RO | ACCESS, 1, -1, 1)])
        .tips(&["nondeterministic_output_order"])
        .docs("1.0.0", "Intersect multiple sets"),
    command("sintercard", -3, flag::READONLY | flag::MOVABLEKEYS, category::SET, Single)
        .keys_at(&[counted(RO | ACCESS, 1)])
        .docs("7.0.0", "Intersect multiple sets and return the cardinality of the result"),
    command("sinterstore", -3, flag::WRITE | flag::DENYOOM, category::SET, Single)
        .keys_at(&[at(RW | UPDATE, 1), span(RO | ACCESS, 2, -1, 1)])
        .docs("1.0.0", "Intersect multiple sets and store the resulting set in a key"),
    command("sismember", 3, flag::READONLY | flag::FAST, category::SET, Single)
        .keys_at(&[at(RO, 1)])
        .docs("1.0.0", "Determine if a given value is a member of a set"),
    command("smembers", 2, flag::READONLY, category::SET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output_order"])
        .docs("1.0.0", "Get all the members in a set"),
    command("smismember", -3, flag::READONLY | flag::FAST, category::SET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("6.2.0", "Returns the membership associated with the given elements for a set"),
    command("smove", 4, flag::WRITE | flag::FAST, category::SET, Single)
        .keys_at(&[at(RW | ACCESS | DELETE, 1), at(RW | INSERT, 2)])
        .docs("1.0.0", "Move a member from one set to another"),
    command("spop", -2, flag::WRITE | flag::FAST, category::SET, Single)
        .keys_at(&[at(RW | ACCESS | DELETE, 1)])
        .tips(&["nondeterministic_output"])
        .docs("1.0.0", "Remove and return one or multiple random members from a set"),
    command("srandmember", -2, flag::READONLY, category::SET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output"])
        .docs("1.0.0", "Get one or multiple random members from a set"),
    command("srem", -3, flag::WRITE | flag::FAST, category::SET, Single)
        .keys_at(&[at(RW | DELETE, 1)])
        .docs("1.0.0", "Remove one or more members from a set"),
    command("sscan", -3, flag::READONLY, category::SET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output"])
        .docs("2.8.0", "Incrementally iterate Set elements"),
    command("sunion", -2, flag::READONLY, category::SET, Single)
        .keys_at(&[span(RO | ACCESS, 1, -1, 1)])
        .tips(&["nondeterministic_output_order"])
        .docs("1.0.0", "Add multiple sets"),
    command("sunionstore", -3, flag::WRITE | flag::DENYOOM, category::SET, Single)
        .keys_at(&[at(OW | UPDATE, 1), span(RO | ACCESS, 2, -1, 1)])
        .docs("1.0.0", "Add multiple sets and store the resulting set in a key"),
];
