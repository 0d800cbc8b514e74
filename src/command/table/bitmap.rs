//! Commands of the `bitmap` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command("bitcount", -2, flag::READONLY, category::BITMAP, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("2.6.0", "Count set bits in a string"),
    command("bitfield", -2, flag::WRITE | flag::DENYOOM, category::BITMAP, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE | VARIABLE, 1)
            .notes("This command allows both access and modification of the key")])
        .docs("3.2.0", "Perform arbitrary bitfield integer operations on strings"),
    command("bitfield_ro", -2, flag::READONLY | flag::FAST, category::BITMAP, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs(
            "6.0.0",
            "Perform arbitrary bitfield integer operations on strings. Read-only \
             variant of BITFIELD",
        ),
    command("bitop", -4, flag::WRITE | flag::DENYOOM, category::BITMAP, Single)
        .keys_at(&[at(OW | UPDATE, 2), span(RO | ACCESS, 3, -1, 1)])
        .docs("2.6.0", "Perform bitwise operations between strings"),
    command("bitpos", -3, flag::READONLY, category::BITMAP, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("2.8.7", "Find first bit set or clear in a string"),
    command("getbit", 3, flag::READONLY | flag::FAST, category::BITMAP, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("2.2.0", "Returns the bit value at offset in the string value stored at key"),
    command("setbit", 4, flag::WRITE | flag::DENYOOM, category::BITMAP, Single)
        .keys_at(&[at(RW | ACCESS | UPDATE, 1)])
        .docs("2.2.0", "Sets or clears the bit at offset in the string value stored at key"),
];
