//! Commands of the `hyperloglog` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command("pfadd", -2, flag::WRITE | flag::DENYOOM | flag::FAST, category::HYPERLOGLOG, Single)
        .keys_at(&[at(RW | INSERT, 1)])
        .docs("2.8.9", "Adds the specified elements to the specified HyperLogLog."),
    command("pfcount", -2, flag::READONLY, category::HYPERLOGLOG, Single)
        .keys_at(&[span(RW | ACCESS, 1, -1, 1).notes(
            "RW because it may change the internal representation of the key, and \
             propagate to replicas",
        )])
        .docs(
            "2.8.9",
            "Return the approximated cardinality of the set(s) observed by the \
             HyperLogLog at key(s).",
        ),
    command("pfdebug", 3, flag::WRITE | flag::DENYOOM | flag::ADMIN, category::HYPERLOGLOG, Refused)
        .keys_at(&[at(RW | ACCESS, 2)])
        .docs("2.8.9", "Internal commands for debugging HyperLogLog values")
        .note("An aid for the developers of the server."),
    command("pfmerge", -2, flag::WRITE | flag::DENYOOM, category::HYPERLOGLOG, Single)
        .keys_at(&[at(RW | ACCESS | INSERT, 1), span(RO | ACCESS, 2, -1, 1)])
        .docs("2.8.9", "Merge N different HyperLogLogs into a single one."),
    command("pfselftest", 1, flag::ADMIN, category::HYPERLOGLOG, Refused)
        .docs("2.8.9", "An internal command for testing HyperLogLog values")
        .note("An aid for the developers of the server."),
];
