//! Pub/sub: many local subscribers behind few subscriptions at the nodes.
//!
//! Must not know: sockets.
//!
//! Subscribing, step by step: `subscriber.rs` runs a client's command and answers it once all its topics are
//! confirmed; `topics.rs` decides at which node a topic is subscribed; `hubs.rs` has the connections for that, one
//! per node, and hands the messages out. `publish.rs` is the other half: `PUBLISH` and the questions of `PUBSUB`.

mod hubs;
mod notification;
mod publish;
mod registry;
mod subscriber;
mod tally;
mod topics;
mod wire;

pub use registry::Registry;
pub(super) use subscriber::{Subscriber, delays};
pub(super) use tally::Tally;

use super::{ClientKey, Core};
use hubs::Hub;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use topics::Topic;

/// What a name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Space {
    /// A channel that every node knows of.
    Channel = 0,
    /// A pattern over such channels.
    Pattern = 1,
    /// A channel of one shard.
    Shard = 2,
}

impl Space {
    const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::Shard];

    fn subscribe(self) -> &'static str {
        ["subscribe", "psubscribe", "ssubscribe"][self as usize]
    }

    fn unsubscribe(self) -> &'static str {
        ["unsubscribe", "punsubscribe", "sunsubscribe"][self as usize]
    }

    fn message(self) -> &'static str {
        ["message", "pmessage", "smessage"][self as usize]
    }
}

/// The subscriptions of one worker.
pub(super) struct PubSub {
    registry: Arc<Registry>,
    topics: Slab<Topic>,
    by_name: [HashMap<Arc<[u8]>, u32>; 3],
    hubs: Vec<Hub>,
    /// Unanswered commands and when they were begun, oldest first; some are answered meanwhile.
    begun: VecDeque<(u64, ClientKey, u32)>,
    /// Some topic is not subscribed where it should be: the next tick looks at all of them.
    restless: bool,
}

impl PubSub {
    pub fn new() -> Self {
        Self {
            registry: Arc::default(),
            topics: Slab::new(),
            by_name: Default::default(),
            hubs: Vec::new(),
            begun: VecDeque::new(),
            restless: false,
        }
    }

    /// Shares the numbers of subscribers with the other workers. Call before there are clients.
    pub fn share(&mut self, registry: Arc<Registry>) {
        self.registry = registry;
    }

    /// What clients of this process subscribe to, as `INFO` names it.
    pub fn subscribed(&self) -> [(&'static str, usize); 3] {
        [
            ("pubsub_channels", Space::Channel),
            ("pubsub_patterns", Space::Pattern),
            ("pubsubshard_channels", Space::Shard),
        ]
        .map(|(name, space)| (name, self.registry.local_names(space)))
    }
}

impl Core {
    /// True for a client that has subscriptions: it may be silent for as long as there are no messages.
    pub fn is_subscriber(&self, key: ClientKey) -> bool {
        self.client(key).is_some_and(|client| client.subscriber.is_some() || client.monitors.is_some())
    }
}
