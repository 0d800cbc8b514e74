//! Pub/sub messages in bytes: those that nodes push, those that clients are told.
//!
//! Must not know: subscriptions.

use super::Space;
use crate::resp::{push_bulk, push_integer, push_nil};

/// Reads the elements of a reply that the scanner has found to be whole.
pub(super) struct Reader<'a>(&'a [u8]);

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word<'a> {
    Bulk(&'a [u8]),
    Integer(i64),
    Nil,
}

impl<'a> Reader<'a> {
    pub fn new(reply: &'a [u8]) -> Self {
        Self(reply)
    }

    /// The number of elements of an array, a set or a push.
    pub fn header(&mut self) -> Option<usize> {
        match self.line()? {
            (b'*' | b'~' | b'>', count) => usize::try_from(count).ok(),
            _ => None,
        }
    }

    pub fn integer(&mut self) -> Option<i64> {
        match self.word()? {
            Word::Integer(number) => Some(number),
            Word::Bulk(_) | Word::Nil => None,
        }
    }

    pub fn word(&mut self) -> Option<Word<'a>> {
        match self.line()? {
            (b':', number) => Some(Word::Integer(number)),
            (b'_', _) => Some(Word::Nil),
            (b'$', length) => {
                let Ok(length) = usize::try_from(length) else { return Some(Word::Nil) };
                let bytes = self.0.get(..length)?;
                self.0 = self.0.get(length + 2..)?;
                Some(Word::Bulk(bytes))
            }
            _ => None,
        }
    }

    fn line(&mut self) -> Option<(u8, i64)> {
        let end = memchr::memchr(b'\n', self.0)?;
        let (kind, digits) = self.0.get(..end.checked_sub(1)?)?.split_first()?;
        self.0 = self.0.get(end + 1..)?;
        let number = if digits.is_empty() { 0 } else { std::str::from_utf8(digits).ok()?.parse().ok()? };
        Some((*kind, number))
    }
}

/// What a node pushes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Push<'a> {
    /// A message; for a pattern, `topic` is the pattern.
    Message { space: Space, topic: &'a [u8], channel: &'a [u8] },
    /// We are subscribed now.
    Subscribed(Space, &'a [u8]),
    /// We are not subscribed any more.
    Unsubscribed(Space, &'a [u8]),
}

impl<'a> Push<'a> {
    /// `None` for pushes that are no concern of pub/sub.
    pub fn parse(push: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(push);
        reader.header()?;
        let Word::Bulk(kind) = reader.word()? else { return None };
        let Word::Bulk(topic) = reader.word()? else { return None };
        let space = |names: fn(Space) -> &'static str| {
            Space::ALL.into_iter().find(|space| names(*space).as_bytes() == kind)
        };
        if let Some(space) = space(Space::message) {
            let channel = match (space, reader.word()?) {
                (Space::Pattern, Word::Bulk(channel)) => channel,
                _ => topic,
            };
            Some(Self::Message { space, topic, channel })
        } else if let Some(space) = space(Space::subscribe) {
            Some(Self::Subscribed(space, topic))
        } else {
            space(Space::unsubscribe).map(|space| Self::Unsubscribed(space, topic))
        }
    }
}

/// Appends what a client is told about one subscription: what happened, to which name, how many it has now.
pub(super) fn push_change(out: &mut Vec<u8>, protocol: u8, verb: &str, name: Option<&[u8]>, count: usize) {
    out.extend_from_slice(if protocol >= 3 { b">3\r\n" } else { b"*3\r\n" });
    push_bulk(out, verb.as_bytes());
    match name {
        Some(name) => push_bulk(out, name),
        None => push_nil(out, protocol),
    }
    push_integer(out, count as i64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_pushes_apart() {
        let message = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n";
        assert_eq!(
            Push::parse(message),
            Some(Push::Message { space: Space::Channel, topic: b"c", channel: b"c" })
        );
        let message = b">4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$2\r\nc1\r\n$2\r\nhi\r\n";
        assert_eq!(
            Push::parse(message),
            Some(Push::Message { space: Space::Pattern, topic: b"c*", channel: b"c1" })
        );
        let gone = b">3\r\n$12\r\nsunsubscribe\r\n$1\r\nc\r\n:0\r\n";
        assert_eq!(Push::parse(gone), Some(Push::Unsubscribed(Space::Shard, b"c")));
        assert_eq!(Push::parse(b">2\r\n$10\r\ninvalidate\r\n_\r\n"), None);
    }
}
