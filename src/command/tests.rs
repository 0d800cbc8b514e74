//! Tests of the table that need no server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;
use crate::resp::Span;

/// Words as one request.
struct Request {
    frame: Vec<u8>,
    spans: Vec<Span>,
}

impl Request {
    fn of<W: AsRef<[u8]>>(words: &[W]) -> Self {
        let mut request = Self { frame: Vec::new(), spans: Vec::new() };
        for word in words {
            let start = request.frame.len() as u32;
            request.frame.extend_from_slice(word.as_ref());
            request.spans.push(Span { start, end: request.frame.len() as u32 });
        }
        request
    }

    fn args(&self) -> Args<'_> {
        Args::new(&self.frame, &self.spans)
    }
}

fn line(text: &str) -> Request {
    Request::of(&text.split(' ').collect::<Vec<_>>())
}

#[test]
fn ids_are_dense_and_unique() {
    for (index, command) in COMMANDS.iter().enumerate() {
        assert_eq!(usize::from(command.id), index);
    }
    let mut ids: Vec<u16> =
        COMMANDS.iter().flat_map(|command| command.subcommands).map(|command| command.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (COMMANDS.len() as u16..ID_COUNT as u16).collect::<Vec<_>>());
}

#[test]
fn every_row_is_complete() {
    for command in COMMANDS.iter().flat_map(|command| std::iter::once(command).chain(command.subcommands)) {
        assert_eq!(command.name, command.name.to_ascii_lowercase());
        assert!(!command.since.is_empty() && !command.summary.is_empty() && !command.group.is_empty());
        let obvious = command.class == Class::Single && command.takes_keys();
        assert!(obvious || !command.note.is_empty(), "{} needs a note that explains its class", command.name);
        assert!(!(command.is_write() && command.is_readonly()), "{}", command.name);
    }
}

#[test]
fn full_names_find_subcommands() {
    for command in &COMMANDS {
        assert_eq!(lookup_full(command.name.as_bytes()), Some(command));
        for subcommand in command.subcommands {
            assert_eq!(lookup_full(subcommand.name.to_uppercase().as_bytes()), Some(subcommand));
            assert!(subcommand.name.starts_with(command.name));
        }
    }
    assert_eq!(lookup_full(b"config|nothing"), None);
    assert_eq!(lookup_full(b"get|get"), None);
}

#[test]
fn bytes_that_only_look_alike_are_not_found() {
    // Each differs from a name by bit 5 of a byte that is no letter, or by a NUL.
    for name in [
        &b"restore\rasking"[..],
        b"sort\x7fro",
        b"EVAL\x7fRO",
        b"ge\0",
        b"get\0",
        b"ge",
        b"g",
        b"",
        b"\0\0\0",
    ] {
        assert_eq!(lookup(name), None, "{name:?}");
    }
}

#[test]
fn blocking_depends_on_the_option() {
    for (text, class) in [
        ("XREAD BLOCK 0 STREAMS a 0", Class::Blocking),
        ("XREAD COUNT 1 block 5 STREAMS a 0", Class::Blocking),
        ("XREAD STREAMS block 0", Class::Single),
        ("XREADGROUP GROUP block block STREAMS block 0", Class::Single),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS a 0", Class::Blocking),
        ("MEMORY USAGE a", Class::Single),
        ("CONFIG GET a", Class::Local),
        ("GET a", Class::Single),
    ] {
        let request = line(text);
        assert_eq!(lookup(request.args().name()).unwrap().class_of(&request.args()), class, "{text}");
    }
}

#[test]
fn first_key_agrees_with_keys() {
    for command in COMMANDS.iter().flat_map(|command| std::iter::once(command).chain(command.subcommands)) {
        for argc in 1..8 {
            let request = Request::of(&vec!["1"; argc]);
            let mut all = Vec::new();
            if command.arity_ok(argc)
                && command.subcommands.is_empty()
                && let Some(first) = command.first_key(&request.args())
            {
                assert_eq!(command.keys(&request.args(), &mut all), Ok(()), "{}", command.name);
                assert_eq!(all, [first as u32], "{}", command.name);
            }
        }
    }
    let request = line("set k v");
    assert_eq!(lookup(b"set").unwrap().first_key(&request.args()), Some(1));
    assert_eq!(lookup(b"mset").unwrap().first_key(&request.args()), None);
}

#[test]
fn a_failed_search_leaves_no_keys_behind() {
    let request = line("zunionstore d 7 a b");
    let mut keys = vec![42];
    assert_eq!(lookup(b"zunionstore").unwrap().keys(&request.args(), &mut keys), Err(KeyError::Invalid));
    assert_eq!(keys, [42]);
}

#[test]
fn pfmerge_may_have_its_destination_only() {
    let request = line("pfmerge d");
    let mut keys = Vec::new();
    assert_eq!(lookup(b"pfmerge").unwrap().keys(&request.args(), &mut keys), Ok(()));
    assert_eq!(keys, [1]);
}

proptest! {
    #[test]
    fn every_name_is_found_in_any_letter_case(index in 0..COMMANDS.len(), upper in any::<u32>()) {
        let command = &COMMANDS[index];
        let mut name = command.name.as_bytes().to_vec();
        for (at, byte) in name.iter_mut().enumerate() {
            if upper >> at & 1 == 1 {
                byte.make_ascii_uppercase();
            }
        }
        prop_assert_eq!(lookup(&name), Some(command));
    }

    #[test]
    fn other_names_are_not_found(name in prop::collection::vec(any::<u8>(), 0..24)) {
        let known = COMMANDS.iter().find(|command| command.name.as_bytes().eq_ignore_ascii_case(&name));
        prop_assert_eq!(lookup(&name), known);
    }

    #[test]
    fn names_changed_in_one_byte_are_not_found(index in 0..COMMANDS.len(), at in 0_usize..20, byte in any::<u8>()) {
        let mut name = COMMANDS[index].name.as_bytes().to_vec();
        let at = at % name.len();
        name[at] = byte;
        let known = COMMANDS.iter().find(|command| command.name.as_bytes().eq_ignore_ascii_case(&name));
        prop_assert_eq!(lookup(&name), known);
    }

    /// Whatever the arguments, nothing panics and every key lies among them.
    #[test]
    fn keys_are_always_arguments(
        index in 0..COMMANDS.len(),
        words in prop::collection::vec(
            prop::sample::select(vec![
                "", "0", "1", "2", "-1", "99999999999999999999", " 1", "a", "STORE", "STOREDIST", "KEYS", "STREAMS",
                "BLOCK", "BY", "GET", "LIMIT", "AUTH", "AUTH2", "usage", "encoding", "create", "stream",
            ]),
            0..12,
        ),
    ) {
        let command = &COMMANDS[index];
        let mut all = vec![command.name];
        all.extend(words);
        let request = Request::of(&all);
        let mut keys = Vec::new();
        let found = command.keys(&request.args(), &mut keys);
        prop_assert!(keys.iter().all(|&key| key >= 1 && (key as usize) < all.len()));
        prop_assert!(found.is_ok() || keys.is_empty());
        let _ = command.class_of(&request.args());
        let _ = resolve(&request.args()).map_err(|error| error.message(&request.args()));
    }
}
