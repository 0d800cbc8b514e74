//! Commands of the `stream` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command("xack", -4, flag::WRITE | flag::FAST, category::STREAM, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs(
            "5.0.0",
            "Marks a pending message as correctly processed, effectively removing it \
             from the pending entries list of the consumer group. Return value of the \
             command is the number of messages successfully acknowledged, that is, \
             the IDs we were actually able to resolve in the PEL.",
        ),
    command("xadd", -5, flag::WRITE | flag::DENYOOM | flag::FAST, category::STREAM, Single)
        .keys_at(&[
            at(RW | UPDATE, 1).notes("UPDATE instead of INSERT because of the optional trimming feature")
        ])
        .tips(&["nondeterministic_output"])
        .docs("5.0.0", "Appends a new entry to a stream"),
    command("xautoclaim", -6, flag::WRITE | flag::FAST, category::STREAM, Single)
        .keys_at(&[at(RW | DELETE, 1)])
        .tips(&["nondeterministic_output"])
        .docs(
            "6.2.0",
            "Changes (or acquires) ownership of messages in a consumer group, as if \
             the messages were delivered to the specified consumer.",
        ),
    command("xclaim", -6, flag::WRITE | flag::FAST, category::STREAM, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .tips(&["nondeterministic_output"])
        .docs(
            "5.0.0",
            "Changes (or acquires) ownership of a message in a consumer group, as if \
             the message was delivered to the specified consumer.",
        ),
    command("xdel", -3, flag::WRITE | flag::FAST, category::STREAM, Single)
        .keys_at(&[at(RW | DELETE, 1)])
        .docs(
            "5.0.0",
            "Removes the specified entries from the stream. Returns the number of \
             items actually deleted, that may be different from the number of IDs \
             passed in case certain IDs do not exist.",
        ),
    command("xgroup", -2, 0, 0, Local)
        .docs("5.0.0", "A container for consumer groups commands")
        .note("A container: its subcommands have classes of their own.")
        .containing(&[
            command("xgroup|create", -5, flag::WRITE | flag::DENYOOM, category::STREAM, Single)
                .keys_at(&[at(RW | INSERT, 2)])
                .docs("5.0.0", "Create a consumer group."),
            command("xgroup|createconsumer", 5, flag::WRITE | flag::DENYOOM, category::STREAM, Single)
                .keys_at(&[at(RW | INSERT, 2)])
                .docs("6.2.0", "Create a consumer in a consumer group."),
            command("xgroup|delconsumer", 5, flag::WRITE, category::STREAM, Single)
                .keys_at(&[at(RW | DELETE, 2)])
                .docs("5.0.0", "Delete a consumer from a consumer group."),
            command("xgroup|destroy", 4, flag::WRITE, category::STREAM, Single)
                .keys_at(&[at(RW | DELETE, 2)])
                .docs("5.0.0", "Destroy a consumer group."),
            command("xgroup|help", 2, flag::LOADING | flag::STALE, category::STREAM, Single)
                .docs("5.0.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command("xgroup|setid", -5, flag::WRITE, category::STREAM, Single)
                .keys_at(&[at(RW | UPDATE, 2)])
                .docs("5.0.0", "Set a consumer group to an arbitrary last delivered ID value."),
        ]),
    command("xinfo", -2, 0, 0, Local)
        .docs("5.0.0", "A container for stream introspection commands")
        .note("A container: its subcommands have classes of their own.")
        .containing(&[
            command("xinfo|consumers", 4, flag::READONLY, category::STREAM, Single)
                .keys_at(&[at(RO | ACCESS, 2)])
                .tips(&["nondeterministic_output"])
                .docs("5.0.0", "List the consumers in a consumer group"),
            command("xinfo|groups", 3, flag::READONLY, category::STREAM, Single)
                .keys_at(&[at(RO | ACCESS, 2)])
                .docs("5.0.0", "List the consumer groups of a stream"),
            command("xinfo|help", 2, flag::LOADING | flag::STALE, category::STREAM, Single)
                .docs("5.0.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command("xinfo|stream", -3, flag::READONLY, category::STREAM, Single)
                .keys_at(&[at(RO | ACCESS, 2)])
                .docs("5.0.0", "Get information about a stream"),
        ]),
    command("xlen", 2, flag::READONLY | flag::FAST, category::STREAM, Single)
        .keys_at(&[at(RO, 1)])
        .docs("5.0.0", "Return the number of entries in a stream"),
    command("xpending", -3, flag::READONLY, category::STREAM, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .tips(&["nondeterministic_output"])
        .docs(
            "5.0.0",
            "Return information and entries from a stream consumer group pending \
             entries list, that are messages fetched but never acknowledged.",
        ),
    command("xrange", -4, flag::READONLY, category::STREAM, Single).keys_at(&[at(RO | ACCESS, 1)]).docs(
        "5.0.0",
        "Return a range of elements in a stream, with IDs matching the specified \
             IDs interval",
    ),
    command(
        "xread",
        -4,
        flag::READONLY | flag::BLOCKING | flag::MOVABLEKEYS,
        category::STREAM,
        BlockingIf("block"),
    )
    .keys_at(&[keyword(RO | ACCESS, "STREAMS", 1).first_half()])
    .docs(
        "5.0.0",
        "Return never seen elements in multiple streams, with IDs greater than \
             the ones reported by the caller for each stream. Can block.",
    )
    .note("Waits on a connection of its own only when BLOCK is among the options."),
    command(
        "xreadgroup",
        -7,
        flag::WRITE | flag::BLOCKING | flag::MOVABLEKEYS,
        category::STREAM,
        BlockingIf("block"),
    )
    .keys_at(&[keyword(RO | ACCESS, "STREAMS", 4).first_half()])
    .docs(
        "5.0.0",
        "Return new entries from a stream using a consumer group, or access the \
             history of the pending entries for a given consumer. Can block.",
    )
    .note("Waits on a connection of its own only when BLOCK is among the options."),
    command("xrevrange", -4, flag::READONLY, category::STREAM, Single).keys_at(&[at(RO | ACCESS, 1)]).docs(
        "5.0.0",
        "Return a range of elements in a stream, with IDs matching the specified \
             IDs interval, in reverse order (from greater to smaller IDs) compared to \
             XRANGE",
    ),
    command("xsetid", -3, flag::WRITE | flag::DENYOOM | flag::FAST, category::STREAM, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs("5.0.0", "An internal command for replicating stream values"),
    command("xtrim", -4, flag::WRITE, category::STREAM, Single)
        .keys_at(&[at(RW | DELETE, 1)])
        .tips(&["nondeterministic_output"])
        .docs("5.0.0", "Trims the stream to (approximately if '~' is passed) a certain size"),
];
