//! Commands of the `transactions` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command(
        "discard",
        1,
        flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::ALLOW_BUSY,
        category::TRANSACTION,
        Transaction,
    )
    .docs("2.0.0", "Discard all commands issued after MULTI")
    .note("Ends the transaction on the slot's owner."),
    command(
        "exec",
        1,
        flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::SKIP_SLOWLOG,
        category::TRANSACTION,
        Transaction,
    )
    .docs("1.2.0", "Execute all commands issued after MULTI")
    .note("Ends the transaction on the slot's owner."),
    command(
        "multi",
        1,
        flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::ALLOW_BUSY,
        category::TRANSACTION,
        Transaction,
    )
    .docs("1.2.0", "Mark the start of a transaction block")
    .note("Queued for the one slot its commands name."),
    command(
        "unwatch",
        1,
        flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::ALLOW_BUSY,
        category::TRANSACTION,
        Transaction,
    )
    .docs("2.2.0", "Forget about all watched keys")
    .note("Gives the connection that WATCH tied to the client back."),
    command(
        "watch",
        -2,
        flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::ALLOW_BUSY,
        category::TRANSACTION,
        Transaction,
    )
    .keys_at(&[span(RO, 1, -1, 1)])
    .docs("2.2.0", "Watch the given keys to determine execution of the MULTI/EXEC block")
    .note("Ties the client to a connection of its own to the slot's owner; mapped keys are loaded first."),
];
