//! Commands of the `sorted-set` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command("bzmpop", -5, flag::WRITE | flag::BLOCKING | flag::MOVABLEKEYS, category::SORTEDSET, Blocking)
        .keys_at(&[counted(RW | ACCESS | DELETE, 2)])
        .docs(
            "7.0.0",
            "Remove and return members with scores in a sorted set or block until one \
             is available",
        )
        .note("Waits on a connection of its own, so that no other client waits with it."),
    command(
        "bzpopmax",
        -3,
        flag::WRITE | flag::NOSCRIPT | flag::BLOCKING | flag::FAST,
        category::SORTEDSET,
        Blocking,
    )
    .keys_at(&[span(RW | ACCESS | DELETE, 1, -2, 1)])
    .docs(
        "5.0.0",
        "Remove and return the member with the highest score from one or more \
             sorted sets, or block until one is available",
    )
    .note("Waits on a connection of its own, so that no other client waits with it."),
    command(
        "bzpopmin",
        -3,
        flag::WRITE | flag::NOSCRIPT | flag::BLOCKING | flag::FAST,
        category::SORTEDSET,
        Blocking,
    )
    .keys_at(&[span(RW | ACCESS | DELETE, 1, -2, 1)])
    .docs(
        "5.0.0",
        "Remove and return the member with the lowest score from one or more \
             sorted sets, or block until one is available",
    )
    .note("Waits on a connection of its own, so that no other client waits with it."),
    command("zadd", -4, flag::WRITE | flag::DENYOOM | flag::FAST, category::SORTEDSET, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs(
            "1.2.0",
            "Add one or more members to a sorted set, or update its score if it \
             already exists",
        ),
    command("zcard", 2, flag::READONLY | flag::FAST, category::SORTEDSET, Single)
        .keys_at(&[at(RO, 1)])
        .docs("1.2.0", "Get the number of members in a sorted set"),
    command("zcount", 4, flag::READONLY | flag::FAST, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("2.0.0", "Count the members in a sorted set with scores within the given values"),
    command("zdiff", -3, flag::READONLY | flag::MOVABLEKEYS, category::SORTEDSET, Single)
        .keys_at(&[counted(RO | ACCESS, 1)])
        .docs("6.2.0", "Subtract multiple sorted sets"),
    command("zdiffstore", -4, flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS, category::SORTEDSET, Single)
        .keys_at(&[at(OW | UPDATE, 1), counted(RO | ACCESS, 2)])
        .docs(
            "6.2.0",
            "Subtract multiple sorted sets and store the resulting sorted set in a \
             new key",
        ),
    command("zincrby", 4, flag::WRITE | flag::DENYOOM | flag::FAST, category::SORTEDSET, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE, 1)])
        .docs("1.2.0", "Increment the score of a member in a sorted set"),
    command("zinter", -3, flag::READONLY | flag::MOVABLEKEYS, category::SORTEDSET, Single)
        .keys_at(&[counted(RO | ACCESS, 1)])
        .docs("6.2.0", "Intersect multiple sorted sets"),
    command("zintercard", -3, flag::READONLY | flag::MOVABLEKEYS, category::SORTEDSET, Single)
        .keys_at(&[counted(RO | ACCESS, 1)])
        .docs("7.0.0", "Intersect multiple sorted sets and return the cardinality of the result"),
    command("zinterstore", -4, flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS, category::SORTEDSET, Single)
        .keys_at(&[at(OW | UPDATE, 1), counted(RO | ACCESS, 2)])
        .docs(
            "2.0.0",
            "Intersect multiple sorted sets and store the resulting sorted set in a \
             new key",
        ),
    command("zlexcount", 4, flag::READONLY | flag::FAST, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs(
            "2.8.9",
            "Count the number of members in a sorted set between a given \
             lexicographical range",
        ),
    command("zmpop", -4, flag::WRITE | flag::MOVABLEKEYS, category::SORTEDSET, Single)
        .keys_at(&[counted(RW | ACCESS | DELETE, 1)])
        .docs("7.0.0", "Remove and return members with scores in a sorted set"),
    command("zmscore", -3, flag::READONLY | flag::FAST, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("6.2.0", "Get the score associated with the given members in a sorted set"),
    command("zpopmax", -2, flag::WRITE | flag::FAST, category::SORTEDSET, Single)
        .keys_at(&[at(RW | ACCESS | DELETE, 1)])
        .docs("5.0.0", "Remove and return members with the highest scores in a sorted set"),
    command("zpopmin", -2, flag::WRITE | flag::FAST, category::SORTEDSET, Single)
        .keys_at(&[at(RW | ACCESS | DELETE, 1)])
        .docs("5.0.0", "Remove and return members with the lowest scores in a sorted set"),
    command("zrandmember", -2, flag::READONLY, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output"])
        .docs("6.2.0", "Get one or multiple random elements from a sorted set"),
    command("zrange", -4, flag::READONLY, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("1.2.0", "Return a range of members in a sorted set"),
    command("zrangebylex", -4, flag::READONLY, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("2.8.9", "Return a range of members in a sorted set, by lexicographical range"),
    command("zrangebyscore", -4, flag::READONLY, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("1.0.5", "Return a range of members in a sorted set, by score"),
    command("zrangestore", -5, flag::WRITE | flag::DENYOOM, category::SORTEDSET, Single)
        .keys_at(&[at(OW | UPDATE, 1), at(RO | ACCESS, 2)])
        .docs("6.2.0", "Store a range of members from sorted set into another key"),
    command("zrank", 3, flag::READONLY | flag::FAST, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("2.0.0", "Determine the index of a member in a sorted set"),
    command("zrem", -3, flag::WRITE | flag::FAST, category::SORTEDSET, Single)
        .keys_at(&[at(RW | DELETE, 1)])
        .docs("1.2.0", "Remove one or more members from a sorted set"),
    command("zremrangebylex", 4, flag::WRITE, category::SORTEDSET, Single)
        .keys_at(&[at(RW | DELETE, 1)])
        .docs(
            "2.8.9",
            "Remove all members in a sorted set between the given lexicographical \
             range",
        ),
    command("zremrangebyrank", 4, flag::WRITE, category::SORTEDSET, Single)
        .keys_at(&[at(RW | DELETE, 1)])
        .docs("2.0.0", "Remove all members in a sorted set within the given indexes"),
    command("zremrangebyscore", 4, flag::WRITE, category::SORTEDSET, Single)
        .keys_at(&[at(RW | DELETE, 1)])
        .docs("1.2.0", "Remove all members in a sorted set within the given scores"),
    command("zrevrange", -4, flag::READONLY, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs(
            "1.2.0",
            "Return a range of members in a sorted set, by index, with scores ordered \
             from high to low",
        ),
    command("zrevrangebylex", -4, flag::READONLY, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs(
            "2.8.9",
            "Return a range of members in a sorted set, by lexicographical range, \
             ordered from higher to lower strings.",
        ),
    command("zrevrangebyscore", -4, flag::READONLY, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs(
            "2.2.0",
            "Return a range of members in a sorted set, by score, with scores ordered \
             from high to low",
        ),
    command("zrevrank", 3, flag::READONLY | flag::FAST, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs(
            "2.0.0",
            "Determine the index of a member in a sorted set, with scores ordered \
             from high to low",
        ),
    command("zscan", -3, flag::READONLY, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output"])
        .docs("2.8.0", "Incrementally iterate sorted sets elements and associated scores"),
    command("zscore", 3, flag::READONLY | flag::FAST, category::SORTEDSET, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("1.2.0", "Get the score associated with the given member in a sorted set"),
    command("zunion", -3, flag::READONLY | flag::MOVABLEKEYS, category::SORTEDSET, Single)
        .keys_at(&[counted(RO | ACCESS, 1)])
        .docs("6.2.0", "Add multiple sorted sets"),
    command("zunionstore", -4, flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS, category::SORTEDSET, Single)
        .keys_at(&[at(OW | UPDATE, 1), counted(RO | ACCESS, 2)])
        .docs("2.0.0", "Add multiple sorted sets and store the resulting sorted set in a new key"),
];
