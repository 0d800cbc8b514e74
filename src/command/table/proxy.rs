//! Commands of the `proxy` group, which Redis does not have: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

const OWN: u32 = flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE;

pub(super) const COMMANDS: &[Command] = &[command("proxy", -2, 0, 0, Local)
    .docs("dsproxy", "A container for the proxy's own commands")
    .note("Not of Redis: what the proxy knows of mappings and the entries of their keys.")
    .containing(&[
        command("proxy|explain", -3, OWN, 0, Local)
            .docs("dsproxy", "What a command's key stands for, the state of its entry, and what a miss would run")
            .note("The command is not run. `PROXY EXPLAIN GET user:1`."),
        command("proxy|flush", -2, OWN | flag::SKIP_SLOWLOG, 0, Local)
            .docs("dsproxy", "Wait until everything that this proxy has acknowledged before is in the database")
            .note("`PROXY FLUSH [mapping] [timeout]`, in ms; 0 waits as long as it takes, without one `write_behind.shutdown_timeout` counts. Answers how many writes are left, like WAIT when the time is over: 0 when all are in the database or among the dead letters. Other clients go on; the client's own later commands wait."),
        command("proxy|help", 2, flag::LOADING | flag::STALE, 0, Local)
            .docs("dsproxy", "Show helpful text about the different subcommands")
            .note("Answered by the proxy."),
        command("proxy|invalidate", 3, OWN, 0, Local)
            .docs("dsproxy", "Drop the entries of mapped keys that match a pattern")
            .note("Walks the whole cluster with SCAN; what waits for the database stays. Answers the number of entries dropped."),
        command("proxy|mappings", 2, OWN, 0, Local).docs("dsproxy", "The mappings, as they are declared")
            .note("One map per mapping."),
        command("proxy|slowlog", -2, OWN, 0, Local)
            .docs("dsproxy", "The newest slow commands, with the time at the node and in the proxy")
            .note("The entries of SLOWLOG GET, a map each. What a command waited before it was written is known to 20 ms."),
        command("proxy|stats", -2, OWN, 0, Local)
            .docs("dsproxy", "What was read of each mapping, or of one, by where the answers came from")
            .note("Since the start of the proxy: hit, near, dirty, negative, stale, miss, bypass."),
    ])];
