//! The sidecar of a mapped key: the bookkeeping that keeps cache and database in step, as requests and replies.
//!
//! Must not know: connections, who asks, what a row is.
//!
//! A mapped key K holds its value as plain Redis would, so a hit is a plain `GET`. Everything else stands beside it in a
//! small hash `dsproxy:{tag}:m:K` in the same slot, and only the scripts here touch the two together:
//!
//! | field | meaning |
//! | --- | --- |
//! | `v` | version of the newest write that was applied (decimal) |
//! | `d` | dirty, not in the database yet: `p` put, `x` deleted, `a` a row was appended |
//! | `l`, `le` | token of the lease and its end (ms); `!token`: its holder may not store |
//! | `n` | end of the negative marker: until then there is no row |
//! | `t` | end of the tombstone: until then nothing is stored that comes from a source that may lag |
//! | `w`, `we` | tokens of the write-throughs under way and their end; `*` before them: several at once, none may store |
//! | `c` | stamp of the value: whatever changes the value removes it |
//! | `e` | when a dirty entry ends once it is flushed (ms since 1970, 0 = never), where that is not for the mapping to say |
//! | `f` | when the entry was filled, where there is a sidecar |
//! | `g` | generation of a list when it was filled |
//!
//! `dsproxy:{tag}:u:NUMBER` is the fence of a transaction that watches keys: it is written only to keep that from being executed later.
//!
//! Mostly nothing is known of a key that is loaded. Then its sidecar is a text in place of a hash: the token of the lease, which
//! ends 60 s before the text does. The fill removes it: what is stored under such a lease has no sidecar.
//!
//! Times are milliseconds of the node's clock. A dirty sidecar does not expire; any other goes 60 s after the last thing in
//! it that ends (a lease that was given back may count until its end).
//!
//! A script that many keys need at the same time has a second form, which does the same for each of them (`together.rs`).

mod claim;
mod generation;
mod reply;
mod request;
mod script;
mod stamp;
mod tags;
mod together;

pub use claim::{
    Claim, Claimed, claim, fence, fence_key, parse_claimed, parse_probed, parse_standing, probe, standing,
};
pub use generation::{current_generation, generation_key, new_generation};
pub use reply::{
    Applied, Ended, Fault, Filled, Flushed, Invalidated, Leased, Refusal, had_entry, is_contested,
    parse_applied, parse_begun, parse_ended, parse_filled, parse_flushed, parse_invalidated, parse_leased,
};
pub use request::{
    Change, Committed, Fill, Wanted, apply, apply_after, apply_if, begin_through, drop_entry, end_through,
    fill, flushed, invalidate, lease, look, release,
};
pub use script::{Script, scripts};
pub use stamp::{Seen, Stamped, live, parse_stamped, stamp};
pub use tags::tag;
pub use together::{Together, together};

use crate::mapping::RESERVED_PREFIX;
use crate::slot::slot;
use bytes::Bytes;
use std::fmt::{self, Write as _};

/// Position of a write in time: of two writes of a key the one with the higher version is the newer. 0: none.
pub type Version = u64;

/// How long a sidecar outlives the last thing in it that ends, in milliseconds.
pub const KEPT_MS: u64 = 60_000;

/// The value of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(Bytes),
    /// The fields of a hash.
    Hash(Vec<(Bytes, Bytes)>),
}

impl Value {
    /// About its size in memory, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Hash(fields) => fields.iter().map(|(name, value)| name.len() + value.len() + 16).sum(),
        }
    }
}

/// Says who holds a lease or writes through: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u128);

impl Token {
    /// A token that nobody else has.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl Token {
    /// It in 32 hexadecimal digits.
    fn digits(self) -> [u8; 32] {
        std::array::from_fn(|at| {
            let digit = (self.0 >> (4 * (31 - at))) as u8 & 15;
            if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
        })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digits().iter().try_for_each(|digit| f.write_char(char::from(*digit)))
    }
}

/// Name of the sidecar of `key`.
pub fn sidecar_key(key: &[u8]) -> Vec<u8> {
    reserved(slot(key), b":m:", key)
}

/// The key whose sidecar has this name.
pub fn key_of_sidecar(name: &[u8]) -> Option<&[u8]> {
    let inside = name.strip_prefix(RESERVED_PREFIX.as_bytes())?.strip_prefix(b"{")?;
    inside.get(inside.iter().position(|byte| *byte == b'}')? + 1..)?.strip_prefix(b":m:")
}

/// A glob that matches the sidecars of the keys that match `pattern`.
pub fn sidecar_pattern(pattern: &[u8]) -> Vec<u8> {
    [RESERVED_PREFIX.as_bytes(), b"{????}:m:", pattern].concat()
}

fn reserved(slot: u16, kind: &[u8], name: &[u8]) -> Vec<u8> {
    [RESERVED_PREFIX.as_bytes(), b"{", &tag(slot), b"}", kind, name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_lives_in_the_slot_of_its_key() {
        for key in [&b"user:1"[..], b"{a}b", b"", b"a{b", b"{}x", b"dsproxy:{x}:m:y"] {
            let name = sidecar_key(key);
            assert_eq!(slot(&name), slot(key));
            assert_eq!(key_of_sidecar(&name), Some(key));
        }
        assert_eq!(key_of_sidecar(b"dsproxy:{abcd}:g:x"), None);
        assert_eq!(key_of_sidecar(b"user:1"), None);
    }
}
