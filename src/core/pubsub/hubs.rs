//! The connections that messages come over: one per node and worker, made when there is something to subscribe.
//!
//! Must not know: what a client asked.
//!
//! They speak RESP3, where a confirmation is a push that names its topic, so that nothing depends on what else arrives
//! meanwhile. Each name is asked for in a request of its own: an error tells which.

use super::topics::State;
use super::wire::Push;
use super::{Core, Space};
use crate::cluster::{Entry, Link, Owner, Upstream, client_addr};
use crate::core::NO_COMMAND;
use crate::resp::{Args, RequestLimits, RequestScanner, push_command, push_error};
use std::collections::HashMap;
use std::sync::Arc;

/// A connection without a message for this long is asked whether it still lives, in microseconds.
const SILENCE_US: u64 = 1_000_000;
/// Pause before a subscription is asked for again that a node could not take just now, in microseconds.
const AGAIN_US: u64 = 20_000;
/// The same after an error that will not go away by itself.
const REFUSED_US: u64 = 1_000_000;

/// One connection.
#[derive(Debug)]
pub(super) struct Hub {
    /// Its index among the upstream connections.
    pub upstream: usize,
    /// What the node counts us for: how often it was asked to, less how often it has confirmed the end.
    sent: HashMap<(Space, Arc<[u8]>), u32>,
}

/// A request of ours that waits for its confirmation.
enum Asked {
    Subscribe(Space, Vec<u8>),
    Unsubscribe(Space, Vec<u8>),
    Other,
}

impl Core {
    /// The hub at a node, made known when first asked for.
    pub(super) fn hub_at(&mut self, addr: &str) -> usize {
        let upstreams = &self.upstreams;
        let is_here = |hub: &Hub| upstreams.get(hub.upstream).is_some_and(|up| *up.addr == *addr);
        if let Some(known) = self.pubsub.hubs.iter().position(is_here) {
            return known;
        }
        let upstream = self.upstreams.insert(Upstream::new(addr, 3));
        self.pubsub.hubs.push(Hub { upstream, sent: HashMap::new() });
        self.pubsub.hubs.len() - 1
    }

    fn hub_of(&self, upstream: usize) -> Option<usize> {
        self.pubsub.hubs.iter().position(|hub| hub.upstream == upstream)
    }

    /// True for an upstream connection that is a hub's.
    pub(in crate::core) fn is_hub(&self, upstream: usize) -> bool {
        self.hub_of(upstream).is_some()
    }

    fn hub_send(&mut self, hub: usize, verb: &str, name: Option<&[u8]>) {
        let Some(upstream) = self.pubsub.hubs.get(hub).map(|hub| hub.upstream) else { return };
        let entry = Entry {
            owner: Owner::Nobody,
            len: 0,
            at: self.now,
            command: NO_COMMAND,
            mapping: Entry::UNMAPPED,
            readonly: true,
            attempts: 0,
            more: 0,
        };
        let mut request = self.spare.pop().unwrap_or_default();
        match name {
            Some(name) => push_command(&mut request, [verb.as_bytes(), name]),
            None => push_command(&mut request, [verb.as_bytes()]),
        }
        self.send_to(upstream, entry, &request);
        super::super::recycle(request, &mut self.spare);
    }

    pub(super) fn hub_subscribe(&mut self, hub: usize, space: Space, name: &Arc<[u8]>) {
        let Some(known) = self.pubsub.hubs.get_mut(hub) else { return };
        let count = known.sent.entry((space, name.clone())).or_default();
        *count += 1;
        if *count == 1
            && let Some(upstream) = self.upstreams.get(known.upstream)
        {
            self.pubsub.registry.ours(space, name, &upstream.addr, 1);
        }
        self.hub_send(hub, space.subscribe(), Some(name));
    }

    pub(super) fn hub_unsubscribe(&mut self, hub: usize, space: Space, name: &[u8]) {
        self.hub_send(hub, space.unsubscribe(), Some(name));
    }

    /// The node counts us once less for this name; with `entirely`, not at all any more.
    fn hub_forgets(&mut self, hub: usize, space: Space, name: &[u8], entirely: bool) {
        let Some(known) = self.pubsub.hubs.get_mut(hub) else { return };
        let key = (space, Arc::from(name));
        let Some(count) = known.sent.get_mut(&key) else { return };
        *count -= 1;
        if entirely || *count == 0 {
            known.sent.remove(&key);
            if let Some(upstream) = self.upstreams.get(known.upstream) {
                self.pubsub.registry.ours(space, name, &upstream.addr, -1);
            }
        }
    }

    /// A hub is connected: subscribes what waits for it.
    pub(in crate::core) fn hub_connected(&mut self, upstream: usize) {
        let Some(hub) = self.hub_of(upstream) else { return };
        for id in self.topic_ids(|topic| topic.places.iter().any(|place| place.hub == hub)) {
            self.ask_for(id);
        }
    }

    /// A hub's connection is gone: what was subscribed there is subscribed again, there or elsewhere.
    pub(in crate::core) fn hub_lost(&mut self, upstream: usize) {
        let Some(hub) = self.hub_of(upstream) else { return };
        let addr = self.upstreams.get(upstream).map(|upstream| upstream.addr.clone()).unwrap_or_default();
        if let Some(known) = self.pubsub.hubs.get_mut(hub) {
            for (space, name) in std::mem::take(&mut known.sent).into_keys() {
                self.pubsub.registry.ours(space, &name, &addr, -1);
            }
        }
        let now = self.now;
        for id in self.topic_ids(|topic| topic.places.iter().any(|place| place.hub == hub)) {
            if let Some(place) =
                self.pubsub.topics.get_mut(id as usize).and_then(|topic| topic.place_mut(hub))
            {
                place.state = State::Wanted(now);
            }
            self.place(id);
            self.ask_for(id);
        }
    }

    /// A push has come over an upstream connection. False when the connection was given up.
    #[inline(never)]
    pub(in crate::core) fn take_push(&mut self, upstream: usize, push: &[u8]) -> bool {
        let Some(hub) = self.hub_of(upstream) else { return true }; // nobody asked for it
        match Push::parse(push) {
            Some(Push::Message { space, topic, channel }) => {
                self.fan_out(hub, space, topic, channel, push);
            }
            Some(Push::Subscribed(space, name)) => {
                if let Some(upstream) = self.upstreams.get_mut(upstream) {
                    upstream.answer();
                }
                self.confirmed(hub, space, name);
            }
            Some(Push::Unsubscribed(space, name)) => {
                let expected = matches!(self.asked(upstream), Asked::Unsubscribe(asked, of) if asked == space && of == name);
                if expected && let Some(upstream) = self.upstreams.get_mut(upstream) {
                    upstream.answer();
                }
                self.hub_forgets(hub, space, name, !expected);
                if !expected {
                    // The slot has moved, or an operator has ended it: asking again tells where to.
                    self.outbox.refresh = true;
                    self.ask_again(hub, space, name, None, 0);
                }
            }
            None => {}
        }
        true
    }

    /// Hands a message to every subscriber, in the dialect of each.
    fn fan_out(&mut self, hub: usize, space: Space, name: &[u8], channel: &[u8], push: &[u8]) {
        let Self { pubsub, clients, spare, outbox, stats, options, .. } = self;
        let Some(topic) = pubsub.by_name[space as usize].get(name) else { return };
        let Some(topic) = pubsub.topics.get(*topic as usize).filter(|topic| topic.accepts(hub, channel))
        else {
            return;
        };
        let mut delivered = 0;
        for (key, _) in topic.members.iter().filter(|(_, is_told)| **is_told) {
            let Some(client) = clients.get_mut(key.index as usize) else { continue };
            // One that is beyond its limit is closed as soon as it is written to.
            if client.serial != key.serial || client.closing || client.unwritten() > options.output_max {
                continue;
            }
            if client.out.capacity() == 0 {
                client.out = spare.pop().unwrap_or_default();
            }
            client.out.push(if client.session.protocol >= 3 { b'>' } else { b'*' });
            client.out.extend_from_slice(push.get(1..).unwrap_or_default());
            delivered += 1;
            if !client.touched {
                client.touched = true;
                outbox.touched.push(*key);
            }
        }
        stats.messages.add(delivered);
    }

    fn confirmed(&mut self, hub: usize, space: Space, name: &[u8]) {
        let Some(id) = self.pubsub.by_name[space as usize].get(name).copied() else { return };
        let Some(topic) = self.pubsub.topics.get_mut(id as usize) else { return };
        match topic.place_mut(hub) {
            Some(place) if place.state == State::Asked => place.state = State::Held,
            _ => return,
        }
        if topic.is_confirmed() {
            for (client, seq) in std::mem::take(&mut topic.waiting) {
                self.topic_confirmed(client, seq);
            }
        }
    }

    /// An error has come over a hub: it answers the oldest request.
    #[cold]
    pub(in crate::core) fn hub_refused(&mut self, upstream: usize, error: &[u8]) {
        let Some(hub) = self.hub_of(upstream) else { return };
        let asked = self.asked(upstream);
        let Some(up) = self.upstreams.get_mut(upstream) else { return };
        let here = up.addr.clone();
        up.answer();
        let (space, name) = match asked {
            Asked::Subscribe(space, name) => (space, name),
            Asked::Unsubscribe(space, name) => return self.hub_forgets(hub, space, &name, false),
            Asked::Other => return,
        };
        self.hub_forgets(hub, space, &name, false);
        let text = String::from_utf8_lossy(error.get(1..).unwrap_or_default()).trim_end().to_owned();
        match text.split(' ').next().unwrap_or_default() {
            "MOVED" => {
                self.outbox.refresh = true;
                let addr = text.split(' ').nth(2).and_then(|addr| client_addr(addr, &here));
                let to = addr.map(|addr| self.hub_at(&addr));
                self.ask_again(hub, space, &name, to, AGAIN_US);
            }
            "CLUSTERDOWN" | "LOADING" | "TRYAGAIN" | "MASTERDOWN" => {
                self.outbox.refresh = true;
                self.ask_again(hub, space, &name, None, AGAIN_US);
            }
            _ => {
                self.ask_again(hub, space, &name, None, REFUSED_US);
                self.topic_refused(space, &name, &text);
            }
        }
    }

    /// Asks for a topic again after a pause, at hub `to` if it is known to be there.
    fn ask_again(&mut self, hub: usize, space: Space, name: &[u8], to: Option<usize>, pause: u64) {
        let from = self.now + pause;
        let Some(id) = self.pubsub.by_name[space as usize].get(name).copied() else { return };
        let Some(place) = self.pubsub.topics.get_mut(id as usize).and_then(|topic| topic.place_mut(hub))
        else {
            return;
        };
        place.hub = to.unwrap_or(hub);
        place.state = State::Wanted(from);
        self.ask_for(id);
    }

    fn topic_refused(&mut self, space: Space, name: &[u8], text: &str) {
        let Some(id) = self.pubsub.by_name[space as usize].get(name).copied() else { return };
        let Some(topic) = self.pubsub.topics.get_mut(id as usize) else { return };
        let mut error = Vec::new();
        push_error(&mut error, text);
        for (client, seq) in std::mem::take(&mut topic.waiting) {
            self.fail_subscribing(client, seq, &error);
        }
    }

    /// The oldest request of a hub without a confirmation.
    fn asked(&self, upstream: usize) -> Asked {
        let request = self.upstreams.get(upstream).map_or(&[][..], Upstream::oldest_request);
        let mut scanner = RequestScanner::default();
        if scanner.scan(request, &RequestLimits::default()).is_err() {
            return Asked::Other;
        }
        let args = Args::new(request, scanner.spans());
        let name = || args.get(1).unwrap_or_default().to_vec();
        for space in Space::ALL {
            if args.name() == space.subscribe().as_bytes() {
                return Asked::Subscribe(space, name());
            } else if args.name() == space.unsubscribe().as_bytes() {
                return Asked::Unsubscribe(space, name());
            }
        }
        Asked::Other
    }

    /// The topology has changed: topics of nodes that are gone, or that own another slot now, move.
    pub(in crate::core) fn pubsub_topology(&mut self) {
        if !self.pubsub.topics.is_empty() {
            self.review_topics(true);
        }
    }

    /// What the clock makes due.
    pub(in crate::core) fn pubsub_tick(&mut self) {
        if self.pubsub.restless {
            self.review_topics(false);
        }
        self.fail_overdue_subscribing();
        for hub in 0..self.pubsub.hubs.len() {
            let Some(known) = self.pubsub.hubs.get(hub) else { return };
            let Some(upstream) = self.upstreams.get(known.upstream) else { continue };
            let silent = upstream.heard_at + SILENCE_US < self.now;
            if silent && upstream.link == Link::Up && upstream.inflight() == 0 && !known.sent.is_empty() {
                self.hub_send(hub, "ping", None);
            }
        }
    }
}
