//! Commands of the `scripting` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command(
        "eval",
        -3,
        flag::NOSCRIPT | flag::STALE | flag::SKIP_MONITOR | flag::NO_MANDATORY_KEYS | flag::MOVABLEKEYS,
        category::SCRIPTING,
        Script,
    )
    .keys_at(&[counted(RW | ACCESS | UPDATE, 2).notes(
        "We cannot tell how the keys will be used so we assume the worst, RW and \
             UPDATE",
    )])
    .docs("2.6.0", "Execute a Lua script server side")
    .note("Routed by its declared keys; without keys any primary will do."),
    command(
        "eval_ro",
        -3,
        flag::READONLY
            | flag::NOSCRIPT
            | flag::STALE
            | flag::SKIP_MONITOR
            | flag::NO_MANDATORY_KEYS
            | flag::MOVABLEKEYS,
        category::SCRIPTING,
        Script,
    )
    .keys_at(&[counted(RO | ACCESS, 2).notes(
        "We cannot tell how the keys will be used so we assume the worst, RO and \
             ACCESS",
    )])
    .docs("7.0.0", "Execute a read-only Lua script server side")
    .note("Routed by its declared keys; without keys any primary will do."),
    command(
        "evalsha",
        -3,
        flag::NOSCRIPT | flag::STALE | flag::SKIP_MONITOR | flag::NO_MANDATORY_KEYS | flag::MOVABLEKEYS,
        category::SCRIPTING,
        Script,
    )
    .keys_at(&[counted(RW | ACCESS | UPDATE, 2)])
    .docs("2.6.0", "Execute a Lua script server side")
    .note("Routed by its declared keys; without keys any primary will do."),
    command(
        "evalsha_ro",
        -3,
        flag::READONLY
            | flag::NOSCRIPT
            | flag::STALE
            | flag::SKIP_MONITOR
            | flag::NO_MANDATORY_KEYS
            | flag::MOVABLEKEYS,
        category::SCRIPTING,
        Script,
    )
    .keys_at(&[counted(RO | ACCESS, 2)])
    .docs("7.0.0", "Execute a read-only Lua script server side")
    .note("Routed by its declared keys; without keys any primary will do."),
    command(
        "fcall",
        -3,
        flag::NOSCRIPT | flag::STALE | flag::SKIP_MONITOR | flag::NO_MANDATORY_KEYS | flag::MOVABLEKEYS,
        category::SCRIPTING,
        Script,
    )
    .keys_at(&[counted(RW | ACCESS | UPDATE, 2).notes(
        "We cannot tell how the keys will be used so we assume the worst, RW and \
             UPDATE",
    )])
    .docs("7.0.0", "Invoke a function")
    .note("Routed by its declared keys; without keys any primary will do."),
    command(
        "fcall_ro",
        -3,
        flag::READONLY
            | flag::NOSCRIPT
            | flag::STALE
            | flag::SKIP_MONITOR
            | flag::NO_MANDATORY_KEYS
            | flag::MOVABLEKEYS,
        category::SCRIPTING,
        Script,
    )
    .keys_at(&[counted(RO | ACCESS, 2).notes(
        "We cannot tell how the keys will be used so we assume the worst, RO and \
             ACCESS",
    )])
    .docs("7.0.0", "Invoke a read-only function")
    .note("Routed by its declared keys; without keys any primary will do."),
    command("function", -2, 0, 0, Local)
        .docs("7.0.0", "A container for function commands")
        .note("A container: its subcommands have classes of their own.")
        .containing(&[
            command("function|delete", 3, flag::WRITE | flag::NOSCRIPT, category::SCRIPTING, FanOut)
                .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
                .docs("7.0.0", "Delete a function by name")
                .note(
                    "A library must be the same on every primary, since any of them may run \
             it.",
                ),
            command("function|dump", 2, flag::NOSCRIPT, category::SCRIPTING, Single)
                .docs("7.0.0", "Dump all functions into a serialized binary payload")
                .note("Libraries are the same on every primary, so any one can answer."),
            command("function|flush", -2, flag::WRITE | flag::NOSCRIPT, category::SCRIPTING, FanOut)
                .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
                .docs("7.0.0", "Deleting all functions")
                .note(
                    "A library must be the same on every primary, since any of them may run \
             it.",
                ),
            command("function|help", 2, flag::LOADING | flag::STALE, category::SCRIPTING, Single)
                .docs("7.0.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command("function|kill", 2, flag::NOSCRIPT | flag::ALLOW_BUSY, category::SCRIPTING, FanOut)
                .tips(&["request_policy:all_shards", "response_policy:one_succeeded"])
                .docs("7.0.0", "Kill the function currently in execution.")
                .note("The running script may be on any primary."),
            command("function|list", -2, flag::NOSCRIPT, category::SCRIPTING, Single)
                .tips(&["nondeterministic_output_order"])
                .docs("7.0.0", "List information about all the functions")
                .note("Libraries are the same on every primary, so any one can answer."),
            command(
                "function|load",
                -3,
                flag::WRITE | flag::DENYOOM | flag::NOSCRIPT,
                category::SCRIPTING,
                FanOut,
            )
            .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
            .docs("7.0.0", "Create a function with the given arguments (name, code, description)")
            .note(
                "A library must be the same on every primary, since any of them may run \
             it.",
            ),
            command(
                "function|restore",
                -3,
                flag::WRITE | flag::DENYOOM | flag::NOSCRIPT,
                category::SCRIPTING,
                FanOut,
            )
            .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
            .docs("7.0.0", "Restore all the functions on the given payload")
            .note(
                "A library must be the same on every primary, since any of them may run \
             it.",
            ),
            command("function|stats", 2, flag::NOSCRIPT | flag::ALLOW_BUSY, category::SCRIPTING, FanOut)
                .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
                .docs(
                    "7.0.0",
                    "Return information about the function currently running (name, \
             description, duration)",
                )
                .note("Each primary tells of its own running function; one that runs wins."),
        ]),
    command("script", -2, 0, 0, Local)
        .docs("2.6.0", "A container for Lua scripts management commands")
        .note("A container: its subcommands have classes of their own.")
        .containing(&[
            command("script|debug", 3, flag::NOSCRIPT, category::SCRIPTING, Refused)
                .docs("3.2.0", "Set the debug mode for executed scripts.")
                .note("The script debugger takes over a whole connection to one node."),
            command("script|exists", -3, flag::NOSCRIPT, category::SCRIPTING, FanOut)
                .tips(&["request_policy:all_shards", "response_policy:agg_logical_and"])
                .docs("2.6.0", "Check existence of scripts in the script cache.")
                .note("A script counts as known only when every primary knows it."),
            command("script|flush", -2, flag::NOSCRIPT, category::SCRIPTING, FanOut)
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .docs("2.6.0", "Remove all the scripts from the script cache.")
                .note("A script must be known on every primary, since any of them may run it."),
            command("script|help", 2, flag::LOADING | flag::STALE, category::SCRIPTING, Single)
                .docs("5.0.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command("script|kill", 2, flag::NOSCRIPT | flag::ALLOW_BUSY, category::SCRIPTING, FanOut)
                .tips(&["request_policy:all_shards", "response_policy:one_succeeded"])
                .docs("2.6.0", "Kill the script currently in execution.")
                .note("The running script may be on any primary."),
            command("script|load", 3, flag::NOSCRIPT | flag::STALE, category::SCRIPTING, FanOut)
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .docs("2.6.0", "Load the specified Lua script into the script cache.")
                .note("A script must be known on every primary, since any of them may run it."),
        ]),
];
