//! Who subscribes to what, over all workers: the numbers that `PUBLISH` and `PUBSUB` answer with.
//!
//! Must not know: connections, clients beyond their number.
//!
//! The only thing that workers share; touched by these commands and by subscriptions that begin or end, never by
//! a message.

use super::Space;
use crate::glob;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks per space, so that workers seldom meet.
const PARTS: usize = 16;

/// The subscriptions of all workers.
#[derive(Debug, Default)]
pub struct Registry {
    channels: [Part; PARTS],
    shard_channels: [Part; PARTS],
    patterns: Part,
    /// Names in `patterns`; most proxies have none, and need not lock then.
    pattern_names: AtomicUsize,
    hasher: RandomState,
}

type Part = Mutex<HashMap<Box<[u8]>, Count>>;

/// Subscriptions to one name.
#[derive(Clone, Debug, Default)]
pub(super) struct Count {
    /// Clients of this proxy.
    pub local: i64,
    /// The proxy's own subscriptions, by node: what that node counts as a subscriber on our behalf.
    ours: Vec<(Box<str>, i64)>,
}

impl Count {
    /// Our own subscriptions at all nodes.
    pub fn ours(&self) -> i64 {
        self.ours.iter().map(|(_, count)| count).sum()
    }

    /// How many nodes have such a subscription of ours.
    pub fn nodes(&self) -> usize {
        self.ours.len()
    }

    fn ours_at(&self, node: &str) -> i64 {
        self.ours.iter().find(|(addr, _)| **addr == *node).map_or(0, |(_, count)| *count)
    }

    fn change(&mut self, node: &str, by: i64) {
        match self.ours.iter_mut().find(|(addr, _)| **addr == *node) {
            Some((_, count)) => *count += by,
            None => self.ours.push((node.into(), by)),
        }
        self.ours.retain(|(_, count)| *count > 0);
    }
}

impl Registry {
    /// A client has subscribed (`by` = 1) or is a subscriber no more (-1).
    pub(super) fn local(&self, space: Space, name: &[u8], by: i64) {
        self.change(space, name, |count| count.local += by);
    }

    /// A node was asked to subscribe us (`by` = 1), or has stopped counting us (-1).
    pub(super) fn ours(&self, space: Space, name: &[u8], node: &str, by: i64) {
        self.change(space, name, |count| count.change(node, by));
    }

    /// What is known of one name.
    pub(super) fn count(&self, space: Space, name: &[u8]) -> Count {
        lock(self.part(space, name)).get(name).cloned().unwrap_or_default()
    }

    /// Everything that has a name in this space.
    pub(super) fn names(&self, space: Space) -> Vec<(Box<[u8]>, Count)> {
        let all = |part: &Part| lock(part).iter().map(|(n, c)| (n.clone(), c.clone())).collect::<Vec<_>>();
        self.parts(space).iter().flat_map(all).collect()
    }

    /// How many names of this space clients of this proxy subscribe to.
    pub(super) fn local_names(&self, space: Space) -> usize {
        let count = |part: &Part| lock(part).values().filter(|count| count.local > 0).count();
        self.parts(space).iter().map(count).sum()
    }

    fn parts(&self, space: Space) -> &[Part] {
        match space {
            Space::Channel => &self.channels[..],
            Space::Shard => &self.shard_channels[..],
            Space::Pattern => std::slice::from_ref(&self.patterns),
        }
    }

    /// How often a message on `channel` reaches clients of this proxy, and how often the proxy itself at `node`.
    pub(super) fn receivers(&self, channel: &[u8], node: &str) -> (i64, i64) {
        let (mut local, mut ours) = self.receivers_of(Space::Channel, channel, node);
        if self.pattern_names.load(Ordering::Relaxed) > 0 {
            for (_, count) in lock(&self.patterns).iter().filter(|(name, _)| glob::matches(name, channel)) {
                local += count.local;
                ours += count.ours_at(node);
            }
        }
        (local, ours)
    }

    /// The same for a sharded channel.
    pub(super) fn shard_receivers(&self, channel: &[u8], node: &str) -> (i64, i64) {
        self.receivers_of(Space::Shard, channel, node)
    }

    fn receivers_of(&self, space: Space, name: &[u8], node: &str) -> (i64, i64) {
        lock(self.part(space, name)).get(name).map_or((0, 0), |count| (count.local, count.ours_at(node)))
    }

    fn part(&self, space: Space, name: &[u8]) -> &Part {
        let at = self.hasher.hash_one(name) as usize % PARTS;
        match space {
            Space::Channel => &self.channels[at],
            Space::Shard => &self.shard_channels[at],
            Space::Pattern => &self.patterns,
        }
    }

    fn change(&self, space: Space, name: &[u8], change: impl FnOnce(&mut Count)) {
        let mut part = lock(self.part(space, name));
        let mut count = part.remove(name).unwrap_or_default();
        change(&mut count);
        if count.local > 0 || !count.ours.is_empty() {
            part.insert(name.into(), count);
        }
        if space == Space::Pattern {
            self.pattern_names.store(part.len(), Ordering::Relaxed);
        }
    }
}

fn lock(part: &Part) -> MutexGuard<'_, HashMap<Box<[u8]>, Count>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_clients_here_and_our_own_subscriptions_at_the_node() {
        let registry = Registry::default();
        for _ in 0..3 {
            registry.local(Space::Channel, b"news.art", 1);
        }
        registry.ours(Space::Channel, b"news.art", "a:1", 1);
        registry.ours(Space::Channel, b"news.art", "b:1", 1);
        registry.local(Space::Pattern, b"news.*", 1);
        registry.ours(Space::Pattern, b"news.*", "a:1", 1);
        assert_eq!(registry.receivers(b"news.art", "a:1"), (4, 2));
        assert_eq!(registry.receivers(b"news.art", "c:1"), (4, 0));
        assert_eq!(registry.count(Space::Channel, b"news.art").ours(), 2);
        registry.local(Space::Pattern, b"news.*", -1);
        registry.ours(Space::Pattern, b"news.*", "a:1", -1);
        assert!(registry.names(Space::Pattern).is_empty());
    }
}
