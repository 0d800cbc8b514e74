//! One client: what it has asked, in order, and what it is still to be told.
//!
//! Must not know: upstreams, sockets.

use super::dedicated::Watch;
use super::gather::Gather;
use super::pubsub::Subscriber;
use super::session::Session;
use super::transaction::Transaction;
use crate::cluster::Served;
use crate::resp::RequestScanner;
use std::collections::VecDeque;

/// Written bytes at the front of the output before the rest is moved down.
const COMPACT: usize = 64 << 10;

/// Tells a client from an earlier one at the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey {
    /// Index in the core's slab.
    pub index: u32,
    /// Serial number, unique among the clients that ever had this index.
    pub serial: u32,
}

/// What kind of client it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A socket.
    Socket,
    /// One call of the program itself, on behalf of a client.
    Call,
    /// One call of the program itself, past all mappings.
    Internal,
}

/// A request whose reply has its place in the order.
#[derive(Debug)]
pub enum Slot {
    /// Forwarded, unanswered.
    Waiting(Begun),
    /// Answered, but an earlier request is not.
    Ready(Vec<u8>),
    /// Split; some parts are unanswered.
    Gathering(Begun, Box<Gather>),
}

/// When a request was dispatched, and what it was; for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// Microseconds of the core's clock.
    pub at: u64,
    /// Index in the command table.
    pub command: u16,
}

/// Which replies a client does not want (`CLIENT REPLY`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mute {
    /// It wants all.
    #[default]
    No,
    /// None.
    All,
    /// Not that of the next request.
    Next,
    /// Not that of the request that runs.
    This,
}

impl Mute {
    /// What it is for a request, from what it was before.
    #[inline]
    pub fn after_request(self) -> Self {
        match self {
            Self::Next => Self::This,
            Self::This => Self::No,
            other => other,
        }
    }

    /// True when the reply of the request that runs is wanted.
    #[inline]
    fn hears(self) -> bool {
        matches!(self, Self::No | Self::Next)
    }
}

/// One client.
#[derive(Debug)]
pub struct Client {
    /// See [`ClientKey`].
    pub serial: u32,
    /// What kind.
    pub kind: Kind,
    /// What it has told about itself.
    pub session: Session,
    /// Replies in order, to be written from `out_at` on.
    pub out: Vec<u8>,
    /// Bytes of `out` already written.
    pub out_at: usize,
    /// Bytes received but not run: an unfinished request, or whole ones while paused.
    pub tail: Vec<u8>,
    /// Nothing can be run before the tail is this long.
    pub need: usize,
    /// Place in a long unfinished request.
    pub scanner: Option<Box<RequestScanner>>,
    /// On the list of clients with something to write.
    pub touched: bool,
    /// At a limit: not read, its tail not run.
    pub paused: bool,
    /// Paused until it has no unanswered request.
    pub waits: bool,
    /// Its next command waits for the end of a `CLIENT PAUSE`.
    pub put_off: bool,
    /// No further request is run; closed once everything is written.
    pub closing: bool,
    /// Nobody waits for its replies any more: closed at once.
    pub gone: bool,
    /// It has sent its last byte; closed once everything is answered and written.
    pub half_closed: bool,
    /// Its subscriptions; `None` while it has none.
    pub subscriber: Option<Box<Subscriber>>,
    /// Which replies it does not want.
    pub mute: Mute,
    /// Index of its last command in the command table.
    pub command: u16,
    /// When bytes last arrived, in microseconds of the core's clock.
    pub heard_at: u64,
    /// Since when, and from which length on, its unfinished request has grown slowly.
    pub growing: (u64, usize),
    /// Commands queued since `MULTI`.
    pub transaction: Option<Box<Transaction>>,
    /// The connection that watches keys for it.
    pub watch: Option<Box<Watch>>,
    /// When it last asked for replicas (`WAIT`), in microseconds of the core's clock.
    pub waited_at: u64,
    /// Of a call: where the mapped keys that it reads were found.
    pub served: Option<Served>,
    /// Place in its order of the `MONITOR` by which it looks on.
    pub monitors: Option<u32>,
    slots: VecDeque<Slot>,
    head: u32,
    /// Bytes of replies whose turn has not come.
    held: usize,
}

impl Client {
    /// A client that has said nothing yet.
    pub fn new(serial: u32, kind: Kind, session: Session) -> Self {
        Self {
            serial,
            kind,
            session,
            out: Vec::new(),
            out_at: 0,
            tail: Vec::new(),
            need: 0,
            scanner: None,
            touched: false,
            paused: false,
            waits: false,
            put_off: false,
            closing: false,
            half_closed: false,
            subscriber: None,
            mute: Mute::No,
            command: u16::MAX,
            heard_at: 0,
            growing: (0, 0),
            gone: false,
            transaction: None,
            watch: None,
            waited_at: 0,
            served: None,
            monitors: None,
            slots: VecDeque::new(),
            head: 0,
            held: 0,
        }
    }

    /// A mapped key of the request was found there.
    pub fn note_served(&mut self, served: Served) {
        self.served = self.served.max(Some(served));
    }

    /// Requests whose reply is not in `out` yet.
    pub fn inflight(&self) -> usize {
        self.slots.len()
    }

    /// Whether a read is unanswered.
    pub fn reads_under_way(&self) -> bool {
        self.slots.iter().any(|slot| match slot {
            Slot::Waiting(begun) | Slot::Gathering(begun, _) => crate::command::reads(begun.command),
            Slot::Ready(_) => false,
        })
    }

    /// Bytes that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.out.len() - self.out_at
    }

    /// Bytes that wait to be written, and those that wait for their turn.
    pub fn unread(&self) -> usize {
        self.unwritten() + self.held
    }

    /// True when it owes and is owed nothing.
    pub fn is_quiet(&self) -> bool {
        self.slots.is_empty() && self.unwritten() == 0
    }

    /// True when its tail may hold a whole request, so that it must be looked at.
    pub fn may_run_more(&self) -> bool {
        !self.tail.is_empty() && self.tail.len() >= self.need
    }

    /// Sequence number of the next request.
    pub fn next_seq(&self) -> u32 {
        self.head.wrapping_add(self.slots.len() as u32)
    }

    /// Takes a place in the order for a request; its sequence number.
    #[inline]
    pub fn open(&mut self, slot: Slot) -> u32 {
        let seq = self.next_seq();
        if let Slot::Ready(reply) = &slot {
            self.held += reply.len();
        }
        self.slots.push_back(slot);
        seq
    }

    /// True while request `seq` is unanswered.
    pub fn is_open(&self, seq: u32) -> bool {
        (seq.wrapping_sub(self.head) as usize) < self.slots.len()
    }

    /// The place of request `seq`, if it is still unanswered.
    pub fn slot_mut(&mut self, seq: u32) -> Option<&mut Slot> {
        self.slots.get_mut(seq.wrapping_sub(self.head) as usize)
    }

    /// Answers request `seq`: appends the reply to `out` when it is its turn, else keeps it in a buffer from `spare`.
    /// Returns when and what the request was; `None` when it is not waiting.
    #[inline]
    pub fn complete(&mut self, seq: u32, reply: &[u8], spare: &mut Vec<Vec<u8>>) -> Option<Begun> {
        let place = seq.wrapping_sub(self.head) as usize;
        let begun = match self.slots.get(place)? {
            Slot::Waiting(begun) | Slot::Gathering(begun, _) => *begun,
            Slot::Ready(_) => return None,
        };
        if place == 0 {
            self.say(reply);
            self.slots.pop_front();
            self.head = self.head.wrapping_add(1);
            self.advance(spare);
        } else {
            let mut kept = spare.pop().unwrap_or_default();
            kept.extend_from_slice(reply);
            self.held += reply.len();
            if let Some(slot) = self.slots.get_mut(place) {
                *slot = Slot::Ready(kept);
            }
        }
        Some(begun)
    }

    /// Appends a reply whose turn has come, unless the client does not want it.
    #[inline]
    pub fn say(&mut self, reply: &[u8]) {
        if self.mute.hears() {
            self.out.extend_from_slice(reply);
        }
    }

    /// Moves replies whose turn has come into `out`.
    fn advance(&mut self, spare: &mut Vec<Vec<u8>>) {
        while let Some(Slot::Ready(reply)) = self.slots.front_mut() {
            self.held -= reply.len();
            if self.mute.hears() {
                self.out.extend_from_slice(reply);
            }
            super::recycle(std::mem::take(reply), spare);
            self.slots.pop_front();
            self.head = self.head.wrapping_add(1);
        }
        // A long pipeline leaves a long queue behind; a quiet client keeps none of it.
        if self.slots.is_empty() && self.slots.capacity() > 32 {
            self.slots = VecDeque::new();
        }
    }

    /// `n` bytes of the output were written: gives up buffers that hold nothing.
    pub fn wrote(&mut self, n: usize, spare: &mut Vec<Vec<u8>>) {
        self.out_at += n;
        if self.unwritten() == 0 {
            self.out_at = 0;
            super::recycle(std::mem::take(&mut self.out), spare);
        } else if self.out_at >= COMPACT && self.out_at * 2 >= self.out.len() {
            // A client that reads, but never catches up, must not keep what it has read.
            self.out.drain(..self.out_at);
            self.out_at = 0;
        }
        if self.tail.is_empty() && self.tail.capacity() > 0 {
            super::recycle(std::mem::take(&mut self.tail), spare);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_never_catches_up_keeps_only_what_it_has_not_read() {
        let mut client = Client::new(1, Kind::Socket, Session::new(1, None, 0));
        let mut spare = Vec::new();
        let mut expected = std::collections::VecDeque::new();
        for round in 0..10_000u32 {
            let reply = [round as u8; 1000];
            client.out.extend_from_slice(&reply);
            expected.extend(reply);
            let n = if round == 0 { 1 } else { 1000 };
            assert!(
                client.out[client.out_at..][..n].iter().eq(expected.drain(..n).collect::<Vec<_>>().iter())
            );
            client.wrote(n, &mut spare);
        }
        assert_eq!(client.unwritten(), expected.len());
        assert!(client.out.capacity() <= 4 * COMPACT, "{} bytes", client.out.capacity());
    }
}
