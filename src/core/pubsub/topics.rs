//! What is subscribed, and at which nodes.
//!
//! Must not know: what clients are told, what nodes say.
//!
//! A channel or pattern is subscribed at one primary, because the nodes spread what is published: at the owner of its
//! slot, or at another one while that cannot be reached; there it stays as long as the connection holds and the
//! node is in the topology. A sharded channel belongs to the owner of its slot. What may match keyspace
//! notifications is subscribed at every primary, because each tells only of its own keys; of other messages, which
//! come from all of them then, those of one node are passed on.

use super::notification::{is_notification, may_match_notification};
use super::{Core, Space};
use crate::cluster::{Link, Upstream};
use crate::core::ClientKey;
use crate::slot;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// One name that somebody here subscribes to.
#[derive(Debug)]
pub(super) struct Topic {
    pub space: Space,
    pub name: Arc<[u8]>,
    /// Subscribers; true once they have been told so, and may get messages.
    pub members: FxHashMap<ClientKey, bool>,
    /// Commands that wait for the confirmation.
    pub waiting: Vec<(ClientKey, u32)>,
    pub places: Vec<Place>,
    everywhere: bool,
}

/// One node where a topic is subscribed, or will be.
#[derive(Debug)]
pub(super) struct Place {
    pub hub: usize,
    pub state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// To be asked for from this time on, in microseconds of the core's clock.
    Wanted(u64),
    /// Asked for, not confirmed.
    Asked,
    /// Confirmed.
    Held,
}

impl Topic {
    /// True when messages can come from everywhere they should.
    pub fn is_confirmed(&self) -> bool {
        !self.places.is_empty() && self.places.iter().all(|place| place.state == State::Held)
    }

    /// True when messages can come from somewhere.
    pub fn is_partly_confirmed(&self) -> bool {
        self.places.iter().any(|place| place.state == State::Held)
    }

    pub fn place_mut(&mut self, hub: usize) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.hub == hub)
    }

    /// Whether a message on `channel` that came over `hub` is to be passed on: not while that is not (or no longer)
    /// where we subscribe, and not twice.
    pub fn accepts(&self, hub: usize, channel: &[u8]) -> bool {
        let mut held = self.places.iter().filter(|place| place.state == State::Held).map(|place| place.hub);
        let is_first = held.next().is_some_and(|first| first == hub);
        is_first || is_notification(channel) && held.any(|other| other == hub)
    }
}

impl Core {
    /// The topic of this name, made (and asked for) when it is new.
    pub(super) fn topic(&mut self, space: Space, name: &[u8]) -> u32 {
        if let Some(known) = self.pubsub.by_name[space as usize].get(name) {
            return *known;
        }
        let everywhere = match space {
            Space::Channel => is_notification(name),
            Space::Pattern => may_match_notification(name),
            Space::Shard => false,
        };
        let name: Arc<[u8]> = name.into();
        let topic = Topic {
            space,
            name: name.clone(),
            members: FxHashMap::default(),
            waiting: Vec::new(),
            places: Vec::new(),
            everywhere,
        };
        let id = self.pubsub.topics.insert(topic) as u32;
        self.pubsub.by_name[space as usize].insert(name, id);
        self.place(id);
        self.ask_for(id);
        id
    }

    /// Nobody here subscribes to it any more.
    pub(super) fn drop_topic(&mut self, id: u32) {
        let Some(topic) = self.pubsub.topics.try_remove(id as usize) else { return };
        self.pubsub.by_name[topic.space as usize].remove(&topic.name);
        for place in topic.places {
            self.leave_place(topic.space, &topic.name, &place);
        }
    }

    fn leave_place(&mut self, space: Space, name: &Arc<[u8]>, place: &Place) {
        if matches!(place.state, State::Asked | State::Held) {
            self.hub_unsubscribe(place.hub, space, name);
        }
    }

    /// Decides where a topic is subscribed; places that stay keep their state.
    pub(super) fn place(&mut self, id: u32) {
        let Some(topic) = self.pubsub.topics.get(id as usize) else { return };
        let (space, name) = (topic.space, topic.name.clone());
        let hubs: Vec<usize> = if topic.everywhere {
            let addrs: Vec<_> = self.routes.topology().nodes().iter().map(|node| node.addr.clone()).collect();
            addrs.iter().map(|addr| self.hub_at(addr)).collect()
        } else if space == Space::Shard {
            let owner = self.routes.topology().owner_addr(slot::slot(&name)).map(Box::<str>::from);
            owner.iter().map(|addr| self.hub_at(addr)).collect()
        } else {
            let stays = |hub: usize| self.is_in_topology(hub) && self.is_reachable(hub);
            match topic.places.first().map(|place| place.hub).filter(|hub| stays(*hub)) {
                Some(hub) => vec![hub],
                None => self.hub_for(slot::slot(&name)).into_iter().collect(),
            }
        };
        let now = self.now;
        let Some(topic) = self.pubsub.topics.get_mut(id as usize) else { return };
        let mut old = std::mem::take(&mut topic.places);
        for hub in hubs {
            let known = old.iter().position(|place| place.hub == hub).map(|at| old.swap_remove(at));
            topic.places.push(known.unwrap_or(Place { hub, state: State::Wanted(now) }));
        }
        for place in old {
            self.leave_place(space, &name, &place);
        }
    }

    /// A reachable primary, the owner of `slot` before all others.
    fn hub_for(&mut self, slot: u16) -> Option<usize> {
        let topology = self.routes.topology();
        let owner = topology.owner(slot)?;
        let count = topology.nodes().len();
        let addrs: Vec<_> = (owner..owner + count)
            .filter_map(|node| topology.nodes().get(node % count))
            .map(|node| node.addr.clone())
            .collect();
        let hubs: Vec<usize> = addrs.iter().map(|addr| self.hub_at(addr)).collect();
        hubs.iter().copied().find(|hub| self.is_reachable(*hub)).or(hubs.first().copied())
    }

    fn hub_upstream(&self, hub: usize) -> Option<&Upstream> {
        self.upstreams.get(self.pubsub.hubs.get(hub)?.upstream)
    }

    fn is_in_topology(&self, hub: usize) -> bool {
        let addr = self.hub_upstream(hub).map(|upstream| &*upstream.addr);
        self.routes.topology().nodes().iter().any(|node| Some(&*node.addr) == addr)
    }

    /// False while a failed connection is not due to be tried again.
    fn is_reachable(&self, hub: usize) -> bool {
        self.hub_upstream(hub).is_some_and(|upstream| match upstream.link {
            Link::Down { retry_at } => retry_at <= self.now,
            Link::Connecting => upstream.failures == 0,
            Link::Up => true,
        })
    }

    /// Subscribes a topic wherever it should be and is not; what is not possible now is done later.
    pub(super) fn ask_for(&mut self, id: u32) {
        let now = self.now;
        let Some(topic) = self.pubsub.topics.get_mut(id as usize) else { return };
        let (space, name) = (topic.space, topic.name.clone());
        if topic.places.is_empty() {
            self.pubsub.restless = true;
        }
        for at in 0..topic.places.len() {
            let Some(topic) = self.pubsub.topics.get_mut(id as usize) else { return };
            let Some(place) = topic.places.get_mut(at) else { return };
            let State::Wanted(from) = place.state else { continue };
            let Some(hub) = self.pubsub.hubs.get(place.hub) else { continue };
            let upstream = hub.upstream;
            if from <= now && self.upstreams.get(upstream).is_some_and(|up| up.link == Link::Up) {
                place.state = State::Asked;
                let hub = place.hub;
                self.hub_subscribe(hub, space, &name);
            } else {
                self.pubsub.restless = true;
                self.mark_dirty(upstream);
            }
        }
    }

    /// Looks at every topic: places it again when `again`, and asks where it is not subscribed.
    pub(super) fn review_topics(&mut self, again: bool) {
        self.pubsub.restless = false;
        for id in self.topic_ids(|_| true) {
            let is_nowhere = self.pubsub.topics.get(id as usize).is_some_and(|topic| topic.places.is_empty());
            if again || is_nowhere {
                self.place(id);
            }
            self.ask_for(id);
        }
    }

    pub(super) fn topic_ids(&self, wanted: impl Fn(&Topic) -> bool) -> Vec<u32> {
        let topics = self.pubsub.topics.iter();
        topics.filter(|(_, topic)| wanted(topic)).map(|(id, _)| id as u32).collect()
    }
}
