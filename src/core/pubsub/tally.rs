//! What the nodes say about subscribers, put together with what the proxy knows.
//!
//! Must not know: where the question went.
//!
//! A node counts each of our own subscriptions as one subscriber. Those are taken out, and the clients behind them put
//! in. A subscription of ours counts from the moment it is asked for until the node has confirmed its end, so
//! that a node's number can be too small by one for a moment, but never contains ourselves.

use super::wire::{Reader, Word};
use super::{Space, registry::Registry};
use crate::glob;
use crate::resp::{push_array_header, push_bulk, push_integer};
use std::collections::{BTreeSet, HashSet};

/// An answer in the making.
#[derive(Debug)]
pub(in crate::core) enum Tally {
    /// One number: `PUBLISH`, `SPUBLISH`, `PUBSUB NUMPAT`.
    Number(Number),
    /// A number per name: `PUBSUB NUMSUB` and `SHARDNUMSUB`.
    Numbers(Vec<(Box<[u8]>, Number)>),
    /// Names: `PUBSUB CHANNELS` and `SHARDCHANNELS`.
    Names {
        /// All so far.
        names: BTreeSet<Box<[u8]>>,
        /// Names that only we are about to leave.
        leaving: HashSet<Box<[u8]>>,
    },
}

/// One number.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct Number {
    local: i64,
    ours: i64,
    nodes: i64,
}

impl Number {
    /// Clients of this proxy; what the nodes will count for the proxy itself.
    pub fn new((local, ours): (i64, i64)) -> Self {
        Self { local, ours, nodes: 0 }
    }

    fn total(self) -> i64 {
        // Subscriptions of ours that the node does not know yet reach nobody.
        let unknown = self.ours > 0 && self.nodes == 0;
        if unknown { 0 } else { (self.nodes - self.ours).max(0) + self.local }
    }
}

impl Tally {
    /// For `PUBSUB NUMPAT`: a node counts a pattern once, however many of our workers have it there.
    pub fn patterns(registry: &Registry) -> Self {
        let known = registry.names(Space::Pattern);
        let local = known.iter().filter(|(_, count)| count.local > 0).count() as i64;
        let ours = known.iter().map(|(_, count)| count.nodes() as i64).sum();
        Self::Number(Number::new((local, ours)))
    }

    /// For `PUBSUB NUMSUB` and `SHARDNUMSUB`.
    pub fn numbers<'a>(registry: &Registry, space: Space, names: impl Iterator<Item = &'a [u8]>) -> Self {
        let number = |name: &[u8]| {
            let count = registry.count(space, name);
            (name.into(), Number::new((count.local, count.ours())))
        };
        Self::Numbers(names.map(number).collect())
    }

    /// For `PUBSUB CHANNELS` and `SHARDCHANNELS`.
    pub fn names(registry: &Registry, space: Space, pattern: Option<&[u8]>) -> Self {
        let (here, leaving): (Vec<_>, Vec<_>) =
            registry.names(space).into_iter().partition(|(_, count)| count.local > 0);
        let fits = |name: &[u8]| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        Self::Names {
            names: here.into_iter().map(|(name, _)| name).filter(|name| fits(name)).collect(),
            leaving: leaving.into_iter().map(|(name, _)| name).collect(),
        }
    }

    /// Takes the reply of a node; `None` when it has another form than expected.
    pub fn take(&mut self, reply: &[u8]) -> Option<()> {
        let mut reader = Reader::new(reply);
        match self {
            Self::Number(number) => number.nodes += reader.integer()?,
            Self::Numbers(numbers) => {
                (reader.header()? == numbers.len() * 2).then_some(())?;
                for (name, number) in numbers {
                    matches!(reader.word()?, Word::Bulk(asked) if *asked == **name).then_some(())?;
                    number.nodes += reader.integer()?;
                }
            }
            Self::Names { names, leaving } => {
                for _ in 0..reader.header()? {
                    let Word::Bulk(name) = reader.word()? else { return None };
                    if !leaving.contains(name) {
                        names.insert(name.into());
                    }
                }
            }
        }
        Some(())
    }

    /// Appends the answer.
    pub fn finish(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => push_integer(out, number.total()),
            Self::Numbers(numbers) => {
                push_array_header(out, numbers.len() * 2);
                for (name, number) in numbers {
                    push_bulk(out, name);
                    push_integer(out, number.total());
                }
            }
            Self::Names { names, .. } => {
                push_array_header(out, names.len());
                names.iter().for_each(|name| push_bulk(out, name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_subscriptions_are_replaced_by_the_clients_behind_them() {
        let mut tally = Tally::Number(Number::new((1000, 3)));
        tally.take(b":5\r\n").expect("a number");
        let mut out = Vec::new();
        tally.finish(&mut out);
        assert_eq!(out, b":1002\r\n");
        assert_eq!(tally.take(b"+OK\r\n"), None);
    }

    #[test]
    fn names_are_told_once_and_not_those_that_only_we_are_leaving() {
        let registry = Registry::default();
        registry.local(Space::Channel, b"a1", 1);
        registry.ours(Space::Channel, b"a1", "n:1", 1);
        registry.ours(Space::Channel, b"a2", "n:1", 1);
        registry.local(Space::Channel, b"b", 1);
        let mut tally = Tally::names(&registry, Space::Channel, Some(b"a*"));
        tally.take(b"*3\r\n$2\r\na1\r\n$2\r\na2\r\n$2\r\na3\r\n").expect("names");
        let mut out = Vec::new();
        tally.finish(&mut out);
        assert_eq!(out, b"*2\r\n$2\r\na1\r\n$2\r\na3\r\n");
    }
}
