//! Generations: how entries that depend on many rows are outdated all at once.
//!
//! Must not know: which entries depend on what.
//!
//! An entry that depends on rows of another table keeps, in its sidecar, the generation it was loaded under; it is valid
//! as long as that is still the current one. Generations are random and never used twice, so one that is lost (evicted,
//! expired) outdates its entries instead of reviving older ones.

use super::{Token, reserved};
use crate::resp::push_command;
use crate::slot::slot;
use std::time::Duration;

/// Where the generation of what `list` holds for `by` is kept.
pub fn generation_key(list: &str, by: &[u8]) -> Vec<u8> {
    let name = [list.as_bytes(), b":", by].concat();
    reserved(slot(&name), b":g:", &name)
}

/// Outdates everything that was loaded under the generation of `key` or earlier. `life` must be longer than that of the
/// entries, else they are loaded again for nothing.
pub fn new_generation(key: &[u8], life: Duration) -> Vec<u8> {
    let (token, life) = (Token::random().to_string(), life.as_millis().max(1).to_string());
    let mut request = Vec::new();
    push_command(&mut request, [&b"SET"[..], key, token.as_bytes(), b"PX", life.as_bytes()]);
    request
}

/// Asks for the generation to load under, *before* the load: answered by the current one as a string, or by nil, when
/// `fresh` has become the current one.
pub fn current_generation(key: &[u8], fresh: Token, life: Duration) -> Vec<u8> {
    let (token, life) = (fresh.to_string(), life.as_millis().max(1).to_string());
    let mut request = Vec::new();
    push_command(&mut request, [&b"SET"[..], key, token.as_bytes(), b"NX", b"GET", b"PX", life.as_bytes()]);
    request
}
