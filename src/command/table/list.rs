//! Commands of the `list` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command(
        "blmove",
        6,
        flag::WRITE | flag::DENYOOM | flag::NOSCRIPT | flag::BLOCKING,
        category::LIST,
        Blocking,
    )
    .keys_at(&[at(RW | ACCESS | DELETE, 1), at(RW | INSERT, 2)])
    .docs(
        "6.2.0",
        "Pop an element from a list, push it to another list and return it; or \
             block until one is available",
    )
    .note("Waits on a connection of its own, so that no other client waits with it."),
    command("blmpop", -5, flag::WRITE | flag::BLOCKING | flag::MOVABLEKEYS, category::LIST, Blocking)
        .keys_at(&[counted(RW | ACCESS | DELETE, 2)])
        .docs("7.0.0", "Pop elements from a list, or block until one is available")
        .note("Waits on a connection of its own, so that no other client waits with it."),
    command("blpop", -3, flag::WRITE | flag::NOSCRIPT | flag::BLOCKING, category::LIST, Blocking)
        .keys_at(&[span(RW | ACCESS | DELETE, 1, -2, 1)])
        .docs(
            "2.0.0",
            "Remove and get the first element in a list, or block until one is \
             available",
        )
        .note("Waits on a connection of its own, so that no other client waits with it."),
    command("brpop", -3, flag::WRITE | flag::NOSCRIPT | flag::BLOCKING, category::LIST, Blocking)
        .keys_at(&[span(RW | ACCESS | DELETE, 1, -2, 1)])
        .docs(
            "2.0.0",
            "Remove and get the last element in a list, or block until one is \
             available",
        )
        .note("Waits on a connection of its own, so that no other client waits with it."),
    command(
        "brpoplpush",
        4,
        flag::WRITE | flag::DENYOOM | flag::NOSCRIPT | flag::BLOCKING,
        category::LIST,
        Blocking,
    )
    .keys_at(&[at(RW | ACCESS | DELETE, 1), at(RW | INSERT, 2)])
    .docs(
        "2.2.0",
        "Pop an element from a list, push it to another list and return it; or \
             block until one is available",
    )
    .note("Waits on a connection of its own, so that no other client waits with it."),
    command("lindex", 3, flag::READONLY, category::LIST, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("1.0.0", "Get an element from a list by its index"),
    command("linsert", 5, flag::WRITE | flag::DENYOOM, category::LIST, Single)
        .keys_at(&[at(RW | INSERT, 1)])
        .docs("2.2.0", "Insert an element before or after another element in a list"),
    command("llen", 2, flag::READONLY | flag::FAST, category::LIST, Single)
        .keys_at(&[at(RO, 1)])
        .docs("1.0.0", "Get the length of a list"),
    command("lmove", 5, flag::WRITE | flag::DENYOOM, category::LIST, Single)
        .keys_at(&[at(RW | ACCESS | DELETE, 1), at(RW | INSERT, 2)])
        .docs("6.2.0", "Pop an element from a list, push it to another list and return it"),
    command("lmpop", -4, flag::WRITE | flag::MOVABLEKEYS, category::LIST, Single)
        .keys_at(&[counted(RW | ACCESS | DELETE, 1)])
        .docs("7.0.0", "Pop elements from a list"),
    command("lpop", -2, flag::WRITE | flag::FAST, category::LIST, Single)
        .keys_at(&[at(RW | ACCESS | DELETE, 1)])
        .docs("1.0.0", "Remove and get the first elements in a list"),
    command("lpos", -3, flag::READONLY, category::LIST, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("6.0.6", "Return the index of matching elements on a list"),
    command("lpush", -3, flag::WRITE | flag::DENYOOM | flag::FAST, category::LIST, Single)
        .keys_at(&[at(RW | INSERT, 1)])
        .docs("1.0.0", "Prepend one or multiple elements to a list"),
    command("lpushx", -3, flag::WRITE | flag::DENYOOM | flag::FAST, category::LIST, Single)
        .keys_at(&[at(RW | INSERT, 1)])
        .docs("2.2.0", "Prepend an element to a list, only if the list exists"),
    command("lrange", 4, flag::READONLY, category::LIST, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("1.0.0", "Get a range of elements from a list"),
    command("lrem", 4, flag::WRITE, category::LIST, Single)
        .keys_at(&[at(RW | DELETE, 1)])
        .docs("1.0.0", "Remove elements from a list"),
    command("lset", 4, flag::WRITE | flag::DENYOOM, category::LIST, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs("1.0.0", "Set the value of an element in a list by its index"),
    command("ltrim", 4, flag::WRITE, category::LIST, Single)
        .keys_at(&[at(RW | DELETE, 1)])
        .docs("1.0.0", "Trim a list to the specified range"),
    command("rpop", -2, flag::WRITE | flag::FAST, category::LIST, Single)
        .keys_at(&[at(RW | ACCESS | DELETE, 1)])
        .docs("1.0.0", "Remove and get the last elements in a list"),
    command("rpoplpush", 3, flag::WRITE | flag::DENYOOM, category::LIST, Single)
        .keys_at(&[at(RW | ACCESS | DELETE, 1), at(RW | INSERT, 2)])
        .docs(
            "1.2.0",
            "Remove the last element in a list, prepend it to another list and return \
             it",
        ),
    command("rpush", -3, flag::WRITE | flag::DENYOOM | flag::FAST, category::LIST, Single)
        .keys_at(&[at(RW | INSERT, 1)])
        .docs("1.0.0", "Append one or multiple elements to a list"),
    command("rpushx", -3, flag::WRITE | flag::DENYOOM | flag::FAST, category::LIST, Single)
        .keys_at(&[at(RW | INSERT, 1)])
        .docs("2.2.0", "Append an element to a list, only if the list exists"),
];
