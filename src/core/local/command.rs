//! `COMMAND`: the command table as clients may ask for it.
//!
//! Must not know: clients.

use super::{Refusal, SYNTAX, is, push_map_header, push_set_header, unsupported};
use crate::command::{self, Begin, COMMANDS, Categories, Command, Find, KeySpec, Learned, ResolveError};
use crate::glob;
use crate::resp::{
    Args, RequestLimits, RequestScanner, push_array_header, push_bulk, push_command, push_integer, push_nil,
    push_simple,
};

/// `COMMAND [COUNT | LIST ... | INFO ... | DOCS ... | GETKEYS ... | GETKEYSANDFLAGS ...]`
pub(super) fn command_command(
    command: &Command,
    learned: &Learned,
    args: &Args<'_>,
    protocol: u8,
    reply: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let count = COMMANDS.len() + learned.commands().count();
    match command.name {
        "command|count" => push_integer(reply, count as i64),
        "command|list" => return list(learned, args, reply),
        "command|docs" => docs(learned, args, protocol, reply),
        "command|getkeys" => return get_keys(learned, args, None, reply),
        "command|getkeysandflags" => return get_keys(learned, args, Some(protocol), reply),
        "command|info" if args.len() > 2 => {
            push_array_header(reply, args.len() - 2);
            for name in args.iter().skip(2) {
                match learned.lookup_full(name) {
                    Some(command) => push_info(command, protocol, reply),
                    None => push_nil(reply, protocol),
                }
            }
        }
        "command" | "command|info" => {
            push_array_header(reply, count);
            COMMANDS.iter().chain(learned.commands()).for_each(|command| push_info(command, protocol, reply));
        }
        _ => return Err(unsupported(command)),
    }
    Ok(())
}

/// `COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]`
fn list(learned: &Learned, args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
    let all = || command::all().chain(learned.commands());
    let names: Vec<&str> = match (args.get(2), args.get(3), args.get(4), args.len()) {
        (None, ..) => all().map(|command| command.name).collect(),
        (Some(word), Some(by), Some(value), 5) if is(word, "filterby") => {
            if is(by, "module") {
                Vec::new()
            } else if is(by, "aclcat") {
                let name = String::from_utf8_lossy(value).to_ascii_lowercase();
                let category = Categories::named(&name);
                let fits = |c: &&Command| category.is_some_and(|category| c.categories.contains(category));
                all().filter(fits).map(|command| command.name).collect()
            } else if is(by, "pattern") {
                let fits = |command: &&Command| glob::matches_in_any_case(value, command.name.as_bytes());
                all().filter(fits).map(|command| command.name).collect()
            } else {
                return Err(SYNTAX.into());
            }
        }
        _ => return Err(SYNTAX.into()),
    };
    push_array_header(reply, names.len());
    names.iter().for_each(|name| push_bulk(reply, name.as_bytes()));
    Ok(())
}

/// `COMMAND DOCS [name ...]`: names that nobody knows are left out.
fn docs(learned: &Learned, args: &Args<'_>, protocol: u8, reply: &mut Vec<u8>) {
    let wanted: Vec<&Command> = match args.len() {
        2 => COMMANDS.iter().chain(learned.commands()).collect(),
        _ => args.iter().skip(2).filter_map(|name| learned.lookup_full(name)).collect(),
    };
    push_map_header(reply, wanted.len(), protocol);
    wanted.into_iter().for_each(|command| push_docs(command, protocol, reply));
}

fn push_docs(command: &Command, protocol: u8, reply: &mut Vec<u8>) {
    push_bulk(reply, command.name.as_bytes());
    let contains = !command.subcommands.is_empty();
    push_map_header(reply, 3 + usize::from(contains), protocol);
    for (key, value) in [("summary", command.summary), ("since", command.since), ("group", command.group)] {
        push_bulk(reply, key.as_bytes());
        push_bulk(reply, value.as_bytes());
    }
    if contains {
        push_bulk(reply, b"subcommands");
        push_map_header(reply, command.subcommands.len(), protocol);
        command.subcommands.iter().for_each(|command| push_docs(command, protocol, reply));
    }
}

/// One element of `COMMAND`: name, arity, flags, first key, last key, step, ACL categories, tips, key specs, subcommands.
fn push_info(command: &Command, protocol: u8, reply: &mut Vec<u8>) {
    push_array_header(reply, 10);
    push_bulk(reply, command.name.as_bytes());
    push_integer(reply, i64::from(command.arity));
    push_words(command.flags.names(), "", protocol, reply);
    for position in [command.range.first, command.range.last, command.range.step] {
        push_integer(reply, i64::from(position));
    }
    push_words(command.categories.names(), "@", protocol, reply);
    push_set_header(reply, command.tips.len(), protocol);
    command.tips.iter().for_each(|tip| push_bulk(reply, tip.as_bytes()));
    push_set_header(reply, command.keys.len(), protocol);
    command.keys.iter().for_each(|spec| push_spec(spec, protocol, reply));
    if command.subcommands.is_empty() {
        push_set_header(reply, 0, protocol);
    } else {
        push_array_header(reply, command.subcommands.len());
        command.subcommands.iter().for_each(|command| push_info(command, protocol, reply));
    }
}

fn push_words(words: impl Iterator<Item = &'static str>, mark: &str, protocol: u8, reply: &mut Vec<u8>) {
    let words: Vec<_> = words.collect();
    push_set_header(reply, words.len(), protocol);
    words.iter().for_each(|word| push_simple(reply, &format!("{mark}{word}")));
}

fn push_spec(spec: &KeySpec, protocol: u8, reply: &mut Vec<u8>) {
    let numbers = |reply: &mut Vec<u8>, pairs: &[(&str, i64)]| {
        push_map_header(reply, pairs.len(), protocol);
        for (key, value) in pairs {
            push_bulk(reply, key.as_bytes());
            push_integer(reply, *value);
        }
    };
    let kind = |reply: &mut Vec<u8>, name: &str, kind: &str| {
        push_bulk(reply, name.as_bytes());
        push_map_header(reply, 2, protocol);
        push_bulk(reply, b"type");
        push_bulk(reply, kind.as_bytes());
        push_bulk(reply, b"spec");
    };
    push_map_header(reply, 3 + usize::from(!spec.notes.is_empty()), protocol);
    if !spec.notes.is_empty() {
        push_bulk(reply, b"notes");
        push_bulk(reply, spec.notes.as_bytes());
    }
    push_bulk(reply, b"flags");
    push_words(spec.flags.names(), "", protocol, reply);
    match spec.begin {
        Begin::Index(index) => {
            kind(reply, "begin_search", "index");
            numbers(reply, &[("index", i64::from(index))]);
        }
        Begin::Keyword { keyword, from } => {
            kind(reply, "begin_search", "keyword");
            push_map_header(reply, 2, protocol);
            push_bulk(reply, b"keyword");
            push_bulk(reply, keyword.as_bytes());
            push_bulk(reply, b"startfrom");
            push_integer(reply, i64::from(from));
        }
        Begin::Unknown => {
            kind(reply, "begin_search", "unknown");
            numbers(reply, &[]);
        }
    }
    match spec.find {
        Find::Range { last, step, limit } => {
            kind(reply, "find_keys", "range");
            let (last, step, limit) = (i64::from(last), i64::from(step), i64::from(limit));
            numbers(reply, &[("lastkey", last), ("keystep", step), ("limit", limit)]);
        }
        Find::KeyNum { count_at, first, step } => {
            kind(reply, "find_keys", "keynum");
            let (count_at, first, step) = (i64::from(count_at), i64::from(first), i64::from(step));
            numbers(reply, &[("keynumidx", count_at), ("firstkey", first), ("keystep", step)]);
        }
        Find::Unknown => {
            kind(reply, "find_keys", "unknown");
            numbers(reply, &[]);
        }
    }
}

/// `COMMAND GETKEYS command ...`; with a protocol, `COMMAND GETKEYSANDFLAGS`.
fn get_keys(
    learned: &Learned,
    args: &Args<'_>,
    flags: Option<u8>,
    reply: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let inner: Vec<&[u8]> = args.iter().skip(2).collect();
    let mut frame = Vec::new();
    push_command(&mut frame, inner.iter().copied());
    let mut scanner = RequestScanner::default();
    let scanned = scanner.scan(&frame, &RequestLimits::default());
    let inner = Args::new(&frame, scanner.spans());
    let command = match (scanned, learned.resolve(&inner)) {
        (Ok(_), Ok(command)) => command,
        (_, Err(ResolveError::WrongArity(command))) if command.takes_keys() => {
            return Err("ERR Invalid number of arguments specified for command".into());
        }
        (_, Err(ResolveError::WrongArity(_))) => return Err("ERR The command has no key arguments".into()),
        _ => return Err("ERR Invalid command specified".into()),
    };
    let mut keys = Vec::new();
    command.keys_with_flags(&inner, &mut keys).map_err(|error| format!("ERR {error}"))?;
    push_array_header(reply, keys.len());
    for (at, what) in keys {
        let key = inner.get(at as usize).unwrap_or_default();
        let Some(protocol) = flags else {
            push_bulk(reply, key);
            continue;
        };
        push_array_header(reply, 2);
        push_bulk(reply, key);
        push_words(what.names(), "", protocol, reply);
    }
    Ok(())
}
