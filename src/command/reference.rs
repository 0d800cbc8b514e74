//! The reference page of all commands, made from the table.
//!
//! Must not know: where the page is kept.

use super::{Class, Command, Merge, all};
use std::fmt::Write as _;

const HEAD: &str = "\
# Commands

<!-- Made from the command table: `UPDATE_DOCS=1 cargo test --test commands_page` writes this page anew. -->

Every command of Redis 7.0, how the proxy runs it, and what differs from one plain Redis. Where nothing stands in the last
column the reply is the node's own, byte for byte, in the client's dialect; `tests/behaviour/` compares all of them with a
plain server and lists each exception with its reason.

| class | how it is routed |
| --- | --- |
| single | as it came to the owner of its keys' slot; keys of several slots: CROSSSLOT; without keys: any primary |
| split | one part per slot, sent at once, the replies put together in the order of the request |
| fan-out | to every primary; if one fails, an error that names it |
| script | like single, by the keys it declares |
| transaction | on the owner of its keys' slot, over a connection of its own |
| blocking | over a connection of its own, so that nobody else waits |
| pub/sub | subscribes or publishes |
| local | answered by the proxy itself |
| refused | an error that says why |

";

const TAIL: &str = "\
## Commands that are not listed

What the servers know and this page does not (modules, newer versions) is learned from one of them at start: routed by its key
specs, or its first and last key; without keys to any primary. Refused are commands for administrators, and those whose
keys cannot be told. New subcommands of a command listed here are taken over when they have keys.

## What a cluster cannot do

Of the public compatibility suite (`make conformance`) the cases for clusters must pass. Of those for a standalone server these
stay, and no others: commands other than the split ones on keys of several slots (`RENAME k kk`, `SUNION a b`; Redis' own
CROSSSLOT error, because they could not be atomic: give the keys a common `{tag}`), `MOVE` and `SWAPDB` (a cluster has database
0 only), and `SCAN` being done after one call (nodes are scanned one after the other, each with a cursor of its own).

## Answered by the proxy itself

- **To a client this is one server**, not a cluster: `HELLO` says `standalone`, `INFO` says `cluster_enabled:0`. Clients for
  clusters work, too: `CLUSTER SLOTS`, `SHARDS`, `NODES` and their like show one node that owns every slot, at the address
  that the client has connected to, or at `server.announce`. A client that insists on `cluster_enabled:1` is better used
  in its plain mode.
- **CLIENT LIST and KILL** are about all clients of this proxy process, over all its threads. `CLIENT NO-EVICT` and
  `NO-TOUCH` are accepted without effect; `CLIENT TRACKING ON` and `PAUSE` are refused.
- **INFO** is about the proxy: `used_memory` is its resident memory, `keyspace_hits` and `keyspace_misses` count reads of
  mapped keys, times in `commandstats` run from dispatch to reply. There is no `keyspace` section; `DBSIZE` counts.
- **CONFIG GET** knows the settings of `proxy.toml` by name (`server.listen`) and those names of Redis that clients read.
  **CONFIG SET** changes `server.max_clients` (`maxclients`), `server.client_idle_timeout` (`timeout`, in seconds),
  `server.slowlog_threshold` (`slowlog-log-slower-than`, in microseconds) and `server.slowlog_entries`
  (`slowlog-max-len`) until the end of the process; everything else is an error.
- **SLOWLOG** has the commands that took a node long, each part of a split by itself. The time is that from dispatch to
  reply, where Redis counts the time that the command ran. A thread logs 8 commands per 20 ms at most, so that a stall of a
  node costs nothing more; commands that may block are not logged.
- **LATENCY** keeps no events, **MEMORY** is about the proxy's own memory.
- **On keys of a mapping** reads see the row, and writes are checked against the table, journaled and brought to the database; what
  cannot be mapped is refused: see [mappings.md](mappings.md).
- **HELP** of every container is a node's own text.
";

/// The page in Markdown.
pub fn reference_page() -> String {
    let mut page = HEAD.to_owned();
    let mut groups: Vec<&str> = all().map(|command| command.group).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        // Writing to a string does not fail.
        let _ =
            write!(page, "## {group}\n\n| command | since | class | remarks |\n| --- | --- | --- | --- |\n");
        let mut rows: Vec<&Command> =
            all().filter(|c| c.group == group && c.subcommands.is_empty()).collect();
        rows.sort_unstable_by_key(|command| command.name);
        for command in rows {
            let name = command.name.replace('|', " ").to_ascii_uppercase();
            let note = command.note.replace('|', "\\|");
            let _ = writeln!(page, "| {name} | {} | {} | {note} |", command.since, class(command.class));
        }
        page.push('\n');
    }
    page.push_str(TAIL);
    page
}

fn class(class: Class) -> String {
    match class {
        Class::Single => "single".to_owned(),
        Class::Split(Merge::Array) => "split, an element per key".to_owned(),
        Class::Split(Merge::AllOk) => "split, OK when all are".to_owned(),
        Class::Split(Merge::Sum) => "split, the sum".to_owned(),
        Class::FanOut => "fan-out".to_owned(),
        Class::Transaction => "transaction".to_owned(),
        Class::Blocking => "blocking".to_owned(),
        Class::BlockingIf(option) => format!("blocking with {}, else single", option.to_ascii_uppercase()),
        Class::PubSub => "pub/sub".to_owned(),
        Class::Script => "script".to_owned(),
        Class::Local => "local".to_owned(),
        Class::Refused => "refused".to_owned(),
    }
}
