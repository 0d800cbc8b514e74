//! A client that subscribes: its commands, what it is told, what it may do meanwhile.
//!
//! Must not know: nodes.
//!
//! The reply to a command is made when the command runs, and told once every topic it names is confirmed. Until
//! then only further subscriptions of the client are run (their replies wait behind it); everything else waits, so
//! that what comes after a subscription happens after it. A client gets no message before it was told of
//! the subscription.

use super::wire::push_change;
use super::{Core, Space};
use crate::acl::User;
use crate::command::{Class, Command};
use crate::core::client::{Begun, Client, Slot};
use crate::core::{ClientKey, Route};
use crate::resp::{Args, push_array_header, push_bulk, push_error};
use rustc_hash::FxHashSet;
use std::collections::VecDeque;

/// The part of a client that subscribes.
#[derive(Debug, Default)]
pub(in crate::core) struct Subscriber {
    /// Ids of topics, by space.
    topics: [FxHashSet<u32>; 3],
    /// Commands that are not answered yet, in order.
    pending: VecDeque<Pending>,
}

/// A command that waits for confirmations.
#[derive(Debug)]
struct Pending {
    seq: u32,
    /// Confirmations that are missing.
    left: usize,
    /// What the client will be told.
    reply: Vec<u8>,
    /// What it subscribes to by this command, and did not before.
    topics: Vec<u32>,
    failed: bool,
}

impl Subscriber {
    /// The number that a reply about `space` holds: Redis counts channels and patterns together.
    fn count(&self, space: Space) -> usize {
        match space {
            Space::Shard => self.topics[Space::Shard as usize].len(),
            Space::Channel | Space::Pattern => self.topics[0].len() + self.topics[1].len(),
        }
    }

    /// How many channels, patterns and sharded channels, as `CLIENT LIST` shows them.
    pub fn counts(&self) -> [usize; 3] {
        Space::ALL.map(|space| self.topics[space as usize].len())
    }

    fn total(&self) -> usize {
        self.topics.iter().map(FxHashSet::len).sum()
    }

    fn is_done(&self) -> bool {
        self.pending.is_empty() && self.total() == 0
    }
}

/// True when a command of a client with unanswered requests must wait for them: one that subscribes waits for replies
/// of other kinds, and everything else for subscriptions.
#[inline]
pub(in crate::core) fn delays(client: &Client, command: &Command, class: Class) -> bool {
    let subscribes = class == Class::PubSub && subscribes_in(command).is_some();
    match &client.subscriber {
        Some(subscriber) if !subscriber.pending.is_empty() => !subscribes,
        _ => subscribes,
    }
}

/// The space that a command subscribes in.
fn subscribes_in(command: &Command) -> Option<Space> {
    Space::ALL.into_iter().find(|space| space.subscribe() == command.name)
}

impl Core {
    /// Runs a command of the pub/sub group.
    pub(in crate::core) fn run_pubsub(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        if let Some(space) = subscribes_in(command) {
            self.subscribe(index, command, space, args);
        } else if let Some(space) = Space::ALL.into_iter().find(|s| s.unsubscribe() == command.name) {
            self.unsubscribe(index, command, space, args);
        } else {
            self.run_publish(index, command, args);
        }
    }

    /// Looks at a command of a client that subscribes; true when it is answered.
    #[cold]
    pub(in crate::core) fn run_as_subscriber(
        &mut self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
    ) -> bool {
        if command.name == "reset" {
            self.end_subscriptions(index);
            return false;
        }
        let Some(client) = self.clients.get(index) else { return true };
        let is_plain = client.session.protocol >= 3;
        if is_plain || client.subscriber.as_ref().is_none_or(|subscriber| subscriber.total() == 0) {
            return false;
        }
        match command.name {
            "ping" if args.len() <= 2 => {
                let mut reply = Vec::new();
                push_array_header(&mut reply, 2);
                push_bulk(&mut reply, b"pong");
                push_bulk(&mut reply, args.get(1).unwrap_or_default());
                self.answer_now(index, Some(command), &reply);
                true
            }
            "ping" | "quit" => false,
            name if Space::ALL.iter().any(|s| name == s.subscribe() || name == s.unsubscribe()) => false,
            name => {
                let text = format!(
                    "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
                );
                self.answer_error(index, Some(command), text.as_bytes());
                true
            }
        }
    }

    fn subscribe(&mut self, index: usize, command: &'static Command, space: Space, args: &Args<'_>) {
        let at = self.now;
        let Some(client) = self.clients.get_mut(index) else { return };
        let protocol = client.session.protocol;
        let known = client.subscriber.as_ref().map_or(0, |subscriber| subscriber.total());
        if known + args.len() - 1 > self.options.subscriptions_per_client {
            let text = format!(
                "ERR dsproxy: the client has {known} subscriptions, {} more are too many (limits.subscriptions_per_client)",
                args.len() - 1
            );
            return self.answer_error(index, Some(command), text.as_bytes());
        }
        let seq = client.open(Slot::Waiting(Begun { at, command: command.id }));
        let key = ClientKey { index: index as u32, serial: client.serial };
        let mut subscriber = client.subscriber.take().unwrap_or_default();
        self.stats.inflight.add(1);
        let mut pending = Pending { seq, left: 0, reply: Vec::new(), topics: Vec::new(), failed: false };
        for name in args.iter().skip(1) {
            let id = self.topic(space, name);
            if subscriber.topics[space as usize].insert(id) {
                self.stats.subscriptions.add(1);
                self.pubsub.registry.local(space, name, 1);
                pending.topics.push(id);
                if let Some(topic) = self.pubsub.topics.get_mut(id as usize) {
                    topic.members.insert(key, false);
                    if !topic.is_confirmed() {
                        topic.waiting.push((key, seq));
                        pending.left += 1;
                    }
                }
            }
            let count = subscriber.count(space);
            push_change(&mut pending.reply, protocol, space.subscribe(), Some(name), count);
        }
        if pending.left > 0 {
            self.pubsub.begun.push_back((at, key, seq));
        }
        subscriber.pending.push_back(pending);
        if let Some(client) = self.clients.get_mut(index) {
            client.subscriber = Some(subscriber);
        }
        self.answer_confirmed(key);
    }

    fn unsubscribe(&mut self, index: usize, command: &'static Command, space: Space, args: &Args<'_>) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let protocol = client.session.protocol;
        let key = ClientKey { index: index as u32, serial: client.serial };
        let mut subscriber = client.subscriber.take().unwrap_or_default();
        let mut reply = self.spare.pop().unwrap_or_default();
        let ids: Vec<u32> = subscriber.topics[space as usize].iter().copied().collect();
        if args.len() > 1 {
            for name in args.iter().skip(1) {
                if let Some(id) = self.pubsub.by_name[space as usize].get(name).copied()
                    && subscriber.topics[space as usize].remove(&id)
                {
                    self.leave_topic(id, key);
                }
                push_change(&mut reply, protocol, space.unsubscribe(), Some(name), subscriber.count(space));
            }
        } else if ids.is_empty() {
            push_change(&mut reply, protocol, space.unsubscribe(), None, subscriber.count(space));
        } else {
            for id in ids {
                let name = self.pubsub.topics.get(id as usize).map(|topic| topic.name.clone());
                subscriber.topics[space as usize].remove(&id);
                self.leave_topic(id, key);
                let count = subscriber.count(space);
                push_change(&mut reply, protocol, space.unsubscribe(), name.as_deref(), count);
            }
        }
        if let Some(client) = self.clients.get_mut(index)
            && !subscriber.is_done()
        {
            client.subscriber = Some(subscriber);
        }
        self.answer_now(index, Some(command), &reply);
        super::super::recycle(reply, &mut self.spare);
    }

    /// True when everything that the client subscribes to may be heard by `user`.
    pub(in crate::core) fn may_hear(&self, key: ClientKey, user: &User) -> bool {
        let subscriber = self.client(key).and_then(|client| client.subscriber.as_ref());
        let topics = subscriber.into_iter().flat_map(|subscriber| subscriber.topics.iter().flatten());
        topics
            .filter_map(|id| self.pubsub.topics.get(*id as usize))
            .all(|topic| user.allows_channel(&topic.name, matches!(topic.space, Space::Pattern)))
    }

    /// The client subscribes to nothing any more.
    pub(in crate::core) fn end_subscriptions(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let key = ClientKey { index: index as u32, serial: client.serial };
        if let Some(subscriber) = client.subscriber.take() {
            self.forget_subscriber(key, &subscriber);
        }
    }

    /// The same for a client that is gone.
    pub(in crate::core) fn forget_subscriber(&mut self, key: ClientKey, subscriber: &Subscriber) {
        for id in subscriber.topics.iter().flatten() {
            self.leave_topic(*id, key);
        }
    }

    fn leave_topic(&mut self, id: u32, key: ClientKey) {
        let Some(topic) = self.pubsub.topics.get_mut(id as usize) else { return };
        if topic.members.remove(&key).is_none() {
            return;
        }
        self.stats.subscriptions.sub(1);
        self.pubsub.registry.local(topic.space, &topic.name, -1);
        if topic.members.is_empty() {
            self.drop_topic(id);
        }
    }

    /// One of the topics that request `seq` waits for is confirmed.
    pub(super) fn topic_confirmed(&mut self, key: ClientKey, seq: u32) {
        if let Some(pending) = self.pending_mut(key, seq) {
            pending.left = pending.left.saturating_sub(1);
            self.answer_confirmed(key);
        }
    }

    /// Request `seq` cannot be fulfilled: `error` takes the place of its reply.
    pub(super) fn fail_subscribing(&mut self, key: ClientKey, seq: u32, error: &[u8]) {
        if let Some(pending) = self.pending_mut(key, seq) {
            pending.left = 0;
            pending.failed = true;
            pending.reply = error.to_vec();
            self.answer_confirmed(key);
        }
    }

    fn pending_mut(&mut self, key: ClientKey, seq: u32) -> Option<&mut Pending> {
        let subscriber = self.client_mut(key)?.subscriber.as_mut()?;
        subscriber.pending.iter_mut().find(|pending| pending.seq == seq)
    }

    /// Answers what needs to wait no longer, in order.
    fn answer_confirmed(&mut self, key: ClientKey) {
        while let Some(client) = self.clients.get_mut(key.index as usize).filter(|c| c.serial == key.serial)
            && let Some(subscriber) = client.subscriber.as_mut()
            && subscriber.pending.front().is_some_and(|pending| pending.left == 0)
            && let Some(pending) = subscriber.pending.pop_front()
        {
            for id in &pending.topics {
                if pending.failed {
                    subscriber.topics.iter_mut().for_each(|topics| {
                        topics.remove(id);
                    });
                } else if let Some(topic) = self.pubsub.topics.get_mut(*id as usize)
                    && let Some(is_told) = topic.members.get_mut(&key)
                {
                    *is_told = true;
                }
            }
            if pending.failed {
                pending.topics.iter().for_each(|id| self.leave_topic(*id, key));
            }
            self.complete(key.index as usize, pending.seq, &pending.reply, Route::Single);
        }
        if let Some(client) = self.client_mut(key)
            && client.subscriber.as_ref().is_some_and(|subscriber| subscriber.is_done())
        {
            client.subscriber = None;
        }
    }

    /// Ends what has waited too long. A topic that is subscribed at some of its nodes is good enough then.
    pub(super) fn fail_overdue_subscribing(&mut self) {
        let deadline = self.now.saturating_sub(self.options.command_timeout_us);
        while let Some((at, key, seq)) = self.pubsub.begun.front().copied()
            && at < deadline
        {
            self.pubsub.begun.pop_front();
            let Some(pending) = self.pending_mut(key, seq) else { continue };
            let topics = pending.topics.clone();
            let is_served = |id: &u32| {
                self.pubsub.topics.get(*id as usize).is_some_and(super::topics::Topic::is_partly_confirmed)
            };
            if topics.iter().all(is_served) {
                if let Some(pending) = self.pending_mut(key, seq) {
                    pending.left = 0;
                }
                self.answer_confirmed(key);
            } else {
                self.stats.timeouts.add(1);
                let mut error = Vec::new();
                push_error(
                    &mut error,
                    "ERR dsproxy: no node confirmed the subscription within the command timeout",
                );
                self.fail_subscribing(key, seq, &error);
            }
        }
    }
}
