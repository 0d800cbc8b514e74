//! The commands of Redis 7.0 and those of our own (`proxy`), put together from one file per group.
//!
//! Must not know: how a command is carried out.
//!
//! To add a command, add a row to its group's file: ids, the look-up table and first/last/step follow from the rows
//! at compile time. `tests/command_table.rs` holds every row against a running server.

mod bitmap;
mod cluster;
mod connection;
mod generic;
mod geo;
mod hash;
mod hyperloglog;
mod list;
mod proxy;
mod pubsub;
mod row;
mod scripting;
mod server;
mod set;
mod sorted_set;
mod stream;
mod string;
mod transactions;

use super::Command;

/// The groups under the names `COMMAND DOCS` gives them.
const GROUPS: &[(&str, &[Command])] = &[
    ("bitmap", bitmap::COMMANDS),
    ("cluster", cluster::COMMANDS),
    ("connection", connection::COMMANDS),
    ("generic", generic::COMMANDS),
    ("geo", geo::COMMANDS),
    ("hash", hash::COMMANDS),
    ("hyperloglog", hyperloglog::COMMANDS),
    ("list", list::COMMANDS),
    ("proxy", proxy::COMMANDS),
    ("pubsub", pubsub::COMMANDS),
    ("scripting", scripting::COMMANDS),
    ("server", server::COMMANDS),
    ("set", set::COMMANDS),
    ("sorted-set", sorted_set::COMMANDS),
    ("stream", stream::COMMANDS),
    ("string", string::COMMANDS),
    ("transactions", transactions::COMMANDS),
];

const TOP_LEVEL: usize = count().0;
const NESTED: usize = count().1;

/// How many ids there are: top-level commands take `0..COMMANDS.len()`, subcommands the rest.
pub const ID_COUNT: usize = TOP_LEVEL + NESTED;

/// Every top-level command, each at the index that is its id.
pub static COMMANDS: [Command; TOP_LEVEL] = top_level();

/// Every subcommand, those of one container next to each other; the id is the index plus the number of commands.
static SUBCOMMANDS: [Command; NESTED] = nested();

const fn count() -> (usize, usize) {
    let (mut commands, mut subcommands, mut group) = (0, 0, 0);
    while group < GROUPS.len() {
        let rows = GROUPS[group].1;
        let mut row = 0;
        while row < rows.len() {
            subcommands += rows[row].subcommands.len();
            row += 1;
        }
        commands += rows.len();
        group += 1;
    }
    (commands, subcommands)
}

const fn top_level() -> [Command; TOP_LEVEL] {
    let mut table = [bitmap::COMMANDS[0]; TOP_LEVEL];
    let (mut next, mut nested, mut group) = (0, 0, 0);
    while group < GROUPS.len() {
        let (name, rows) = GROUPS[group];
        let mut row = 0;
        while row < rows.len() {
            let mut command = rows[row];
            command.id = next as u16;
            command.group = name;
            let count = command.subcommands.len();
            command.subcommands = SUBCOMMANDS.split_at(nested).1.split_at(count).0;
            table[next] = command;
            nested += count;
            next += 1;
            row += 1;
        }
        group += 1;
    }
    table
}

const fn nested() -> [Command; NESTED] {
    let mut table = [bitmap::COMMANDS[0]; NESTED];
    let (mut next, mut group) = (0, 0);
    while group < GROUPS.len() {
        let (name, rows) = GROUPS[group];
        let mut row = 0;
        while row < rows.len() {
            let subcommands = rows[row].subcommands;
            let mut index = 0;
            while index < subcommands.len() {
                let mut command = subcommands[index];
                command.id = (TOP_LEVEL + next) as u16;
                command.group = name;
                table[next] = command;
                next += 1;
                index += 1;
            }
            row += 1;
        }
        group += 1;
    }
    table
}
