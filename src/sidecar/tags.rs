//! For every slot a short text that hashes to it.
//!
//! Must not know: what it is used for.

use std::sync::LazyLock;

use crate::slot::{SLOTS, slot};

/// Letters of a tag.
const LETTERS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
/// Length of a tag in bytes.
const LENGTH: usize = 4;

/// By slot. Found once, at first use, in about 20 ms.
static TAGS: LazyLock<Vec<[u8; LENGTH]>> = LazyLock::new(|| {
    let mut tags = vec![[0; LENGTH]; usize::from(SLOTS)];
    let mut missing = tags.len();
    for number in 0..1_usize << (5 * LENGTH) {
        let tag: [u8; LENGTH] = std::array::from_fn(|at| LETTERS[(number >> (5 * at)) & 31]);
        let place = &mut tags[usize::from(slot(&tag))];
        if place[0] == 0 {
            *place = tag;
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
    }
    tags
});

/// The text whose slot is `slot`; beyond the last slot any text.
pub fn tag(slot: u16) -> [u8; LENGTH] {
    TAGS.get(usize::from(slot)).copied().unwrap_or(*b"0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_a_tag_of_its_own() {
        assert!((0..SLOTS).all(|wanted| slot(&tag(wanted)) == wanted));
    }
}
