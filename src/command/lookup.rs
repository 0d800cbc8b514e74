//! From the name a client sent to the row of the table, in any letter case, without allocating.
//!
//! Must not know: arguments.
//!
//! An open-addressing hash table of command ids, built at compile time. The hash sees the length and the first and
//! last four bytes; the full name is compared once a slot is found, so that a hash collision costs time, never truth.

use super::Command;
use super::table::COMMANDS;

/// Power of two, about a quarter full, so that most names are found in the first slot.
const SLOTS: usize = 1024;
const EMPTY: u16 = u16::MAX;
const SHORTEST: usize = 3;

static INDEX: [u16; SLOTS] = build();
// A name that is not in the table fails the build.
const GET: usize = position("get");
const SET: usize = position("set");

/// The top-level command called `name` in any letter case.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    if let [a, b, c] = *name {
        // Setting bit 5 lowers a letter; only the two cases of a letter can become that letter.
        match [a | 0x20, b | 0x20, c | 0x20] {
            [b'g', b'e', b't'] => return COMMANDS.get(GET),
            [b's', b'e', b't'] => return COMMANDS.get(SET),
            _ => {}
        }
    }
    lookup_any(name)
}

fn lookup_any(name: &[u8]) -> Option<&'static Command> {
    if name.len() < SHORTEST {
        return None;
    }
    let mut slot = first_slot(name);
    loop {
        // Ends: the table is never full. `EMPTY` is no command's id.
        let command = COMMANDS.get(usize::from(*INDEX.get(slot)?))?;
        if command.name.len() == name.len() && command.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(command);
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// The slot where the search for `name` (at least [`SHORTEST`] bytes) starts, the same for every letter case.
#[inline]
const fn first_slot(name: &[u8]) -> usize {
    let (head, tail) = match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        (Some(head), Some(tail)) => (u32::from_le_bytes(*head), u32::from_le_bytes(*tail)),
        _ => match name.first_chunk::<3>() {
            Some(&[a, b, c]) => (u32::from_le_bytes([a, b, c, 0]), 0),
            None => (0, 0),
        },
    };
    let folded = ((head as u64) << 32 | tail as u64) | 0x2020_2020_2020_2020;
    let mixed = folded.wrapping_add(name.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (u64::BITS - SLOTS.ilog2())) as usize
}

const fn build() -> [u16; SLOTS] {
    assert!(COMMANDS.len() < SLOTS / 2, "the look-up table must stay sparse");
    let mut index = [EMPTY; SLOTS];
    let mut id = 0;
    while id < COMMANDS.len() {
        assert!(COMMANDS[id].name.len() >= SHORTEST);
        let mut slot = first_slot(COMMANDS[id].name.as_bytes());
        while index[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = id as u16;
        id += 1;
    }
    index
}

const fn position(name: &str) -> usize {
    let mut id = 0;
    while !COMMANDS[id].name.as_bytes().eq_ignore_ascii_case(name.as_bytes()) {
        id += 1;
    }
    id
}
