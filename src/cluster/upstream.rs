//! One connection to a node: what was sent, who waits for which reply, in order.
//!
//! Must not know: sockets (bytes in, bytes out), what a reply means.

use super::log::RequestLog;
use crate::resp::{MalformedReply, ReplyScanner, Scan};
use std::collections::VecDeque;

/// Capacity kept for the next unfinished reply, in bytes: about two reads.
const KEEP_TAIL: usize = 128 << 10;

/// Notes of how much was written; the oldest are forgotten.
const MOST_NOTES: usize = 256;

/// Who gets a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Part `part` of request `seq` of a client; `serial` tells a client from a later one at the same index.
    Client {
        /// Index of the client in its core.
        index: u32,
        /// Serial number of the client.
        serial: u32,
        /// Sequence number of its request.
        seq: u32,
        /// Which part of a split request.
        part: u32,
    },
    /// The connection itself: a step of its handshake.
    Handshake,
    /// Nobody: `ASKING`, or a request whose client was already answered (timeout).
    Nobody,
}

/// One request in flight (or still to be written).
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Who gets the reply.
    pub owner: Owner,
    /// Length of the request in bytes.
    pub len: u32,
    /// When it was dispatched, in microseconds of the core's clock.
    pub at: u64,
    /// Index of the command in the command table.
    pub command: u16,
    /// Index of the mapping its key belongs to, or [`Entry::UNMAPPED`].
    pub mapping: u16,
    /// May be sent again even when it may have run.
    pub readonly: bool,
    /// Redirects and retries so far.
    pub attempts: u8,
    /// Replies that come before the one that counts: a transaction is one request with several.
    pub more: u32,
}

impl Entry {
    /// `mapping` of a request whose keys belong to no mapping.
    pub const UNMAPPED: u16 = u16::MAX;
    /// `mapping` of a script that brings a write of a mapped key to the cache.
    pub const WRITE: u16 = u16::MAX - 1;
    /// Whether it reads a key of a mapping.
    #[inline]
    pub fn reads_mapped(&self) -> bool {
        self.mapping < Self::WRITE
    }

    /// An entry that nobody has asked for.
    pub const NONE: Self = Self {
        owner: Owner::Nobody,
        len: 0,
        at: 0,
        command: u16::MAX,
        mapping: Self::UNMAPPED,
        readonly: false,
        attempts: 0,
        more: 0,
    };
}

/// State of the link to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not connected; the next attempt is due at this time (microseconds of the core's clock).
    Down {
        /// When to connect again.
        retry_at: u64,
    },
    /// A connection attempt is under way.
    Connecting,
    /// Connected.
    Up,
}

/// A request taken off a lost connection.
#[derive(Debug)]
pub struct Lost {
    /// The request's entry.
    pub entry: Entry,
    /// Its bytes.
    pub request: Vec<u8>,
    /// Whether any byte of it had been written, so that it may have run.
    pub sent: bool,
}

/// One connection to one node in one dialect.
#[derive(Debug)]
pub struct Upstream {
    /// Address of the node, as `host:port`.
    pub addr: Box<str>,
    /// RESP dialect spoken on this connection: 2 or 3.
    pub protocol: u8,
    /// State of the link.
    pub link: Link,
    /// Consecutive failed connection attempts.
    pub failures: u32,
    /// Why the link last went down, for error texts.
    pub reason: String,
    /// Already on the list of connections to flush.
    pub dirty: bool,
    /// When bytes last arrived, in microseconds of the core's clock.
    pub heard_at: u64,
    /// What the node's gauge of requests in flight was last told of this connection.
    pub counted: u64,
    /// What the node calls this connection, once it has said so.
    pub client_id: Option<u64>,
    log: RequestLog,
    fifo: VecDeque<Entry>,
    tail: Vec<u8>,
    need: usize,
    scanner: ReplyScanner,
    /// How many replies to the oldest request have come, when it has several.
    early: u32,
    refusal: Option<Box<[u8]>>,
    pushed: u64,
    answered: u64,
    /// Requests at the front that jumped the queue: marks do not count them.
    jumped: usize,
    /// How many requests had been written at a time in the past, newest last: see [`Self::held_back_until`].
    written: VecDeque<(u64, u64)>,
}

impl Upstream {
    /// A connection that is still to be made.
    pub fn new(addr: &str, protocol: u8) -> Self {
        Self {
            addr: addr.into(),
            protocol,
            link: Link::Down { retry_at: 0 },
            failures: 0,
            reason: String::from("not connected yet"),
            dirty: false,
            heard_at: 0,
            counted: 0,
            client_id: None,
            log: RequestLog::default(),
            fifo: VecDeque::new(),
            tail: Vec::new(),
            need: 0,
            scanner: ReplyScanner::default(),
            early: 0,
            refusal: None,
            pushed: 0,
            answered: 0,
            jumped: 0,
            written: VecDeque::new(),
        }
    }

    /// Queues a request; `entry.len` is set from `request`.
    #[inline]
    pub fn push(&mut self, request: &[u8], mut entry: Entry) {
        entry.len = request.len() as u32;
        self.log.push(request);
        self.fifo.push_back(entry);
        self.pushed += 1;
    }

    /// Queues a request that `encode` appends to the output buffer.
    #[inline]
    pub fn push_with(&mut self, mut entry: Entry, encode: impl FnOnce(&mut Vec<u8>)) {
        let tail = self.log.tail();
        let before = tail.len();
        encode(tail);
        entry.len = (tail.len() - before) as u32;
        self.fifo.push_back(entry);
        self.pushed += 1;
    }

    /// Queues handshake requests before everything else; only right after connecting.
    pub fn push_handshake(&mut self, requests: &[Vec<u8>], owner: Owner, at: u64, command: u16) {
        self.jumped += requests.len();
        for request in requests.iter().rev() {
            self.log.prepend(request);
            self.fifo.push_front(Entry {
                owner,
                len: request.len() as u32,
                at,
                command,
                mapping: Entry::UNMAPPED,
                readonly: true,
                attempts: 0,
                more: 0,
            });
        }
    }

    /// Bytes to be written to the socket.
    pub fn unsent(&self) -> &[u8] {
        self.log.unsent()
    }

    /// `n` bytes of [`Self::unsent`] were written.
    pub fn wrote(&mut self, n: usize) {
        self.log.wrote(n);
    }

    /// Notes how much is written by now; call once in a while.
    pub fn note_written(&mut self, now: u64) {
        let last = self.written.back().map(|(count, _)| *count);
        let written = if self.unsent().is_empty() { self.pushed } else { last.unwrap_or(self.answered) };
        match self.written.back_mut().filter(|_| last == Some(written)) {
            Some(same) => same.1 = now,
            None => self.written.push_back((written, now)),
        }
        let outdated = self.written.iter().skip(1).take_while(|(count, _)| *count <= self.answered).count();
        self.written.drain(..outdated);
        if self.written.len() > MOST_NOTES {
            self.written.pop_front();
        }
    }

    /// The last time noted at which the oldest request without a reply was not written yet, if there is one. It may have
    /// been written up to a note later.
    pub fn held_back_until(&self) -> Option<u64> {
        let oldest = self.answered;
        self.written.iter().rev().find(|(count, _)| *count <= oldest).map(|(_, at)| *at)
    }

    /// Requests without a reply.
    pub fn inflight(&self) -> usize {
        self.fifo.len()
    }

    /// Bytes of requests without a reply, plus those of an unfinished reply.
    pub fn buffered(&self) -> usize {
        self.log.len() + self.tail.len()
    }

    /// How many requests were ever queued; a mark for [`Self::answered_up_to`].
    pub fn mark(&self) -> u64 {
        self.pushed
    }

    /// True when every request queued before `mark` was answered or taken back.
    pub fn answered_up_to(&self, mark: u64) -> bool {
        self.answered >= mark
    }

    /// The oldest request without a reply.
    pub fn oldest(&self) -> Option<&Entry> {
        self.fifo.front()
    }

    /// Requests without a reply, oldest first.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.fifo.iter_mut()
    }

    /// Requests without a reply and their bytes, oldest first.
    pub fn requests(&self) -> impl Iterator<Item = (&Entry, &[u8])> {
        self.fifo.iter().scan(0, |offset, entry| {
            let request = self.log.request(*offset, entry.len as usize);
            *offset += entry.len as usize;
            Some((entry, request))
        })
    }

    /// The bytes of the oldest request without a reply.
    pub fn oldest_request(&self) -> &[u8] {
        self.fifo.front().map_or(&[], |entry| self.log.request(0, entry.len as usize))
    }

    /// Takes a reply that is not the last one of the oldest request; false when that has but one. The first error among
    /// them is kept until [`Self::take_refusal`].
    #[inline]
    pub fn take_early(&mut self, reply: &[u8]) -> bool {
        if self.fifo.front().is_none_or(|oldest| oldest.more <= self.early) {
            return false;
        }
        // Counted here, not in the entry: should it be sent again, all of its replies come again.
        self.early += 1;
        if reply.first() == Some(&b'-') && self.refusal.is_none() {
            self.refusal = Some(reply.into());
        }
        true
    }

    /// Why a part of the oldest request was refused, if one was; asked for with its last reply.
    pub fn take_refusal(&mut self) -> Option<Box<[u8]>> {
        self.refusal.take()
    }

    /// Takes the oldest request off the queue: its reply is here. `None` when nothing was asked for.
    #[inline]
    pub fn answer(&mut self) -> Option<Entry> {
        let entry = self.fifo.pop_front()?;
        debug_assert_eq!(entry.more, self.early);
        self.early = 0;
        self.log.ack(entry.len as usize);
        if self.jumped > 0 {
            self.jumped -= 1;
        } else {
            self.answered += 1;
        }
        Some(entry)
    }

    /// Bytes of a reply that began in an earlier read; give them back with [`Self::keep_tail`].
    pub fn take_tail(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.tail)
    }

    /// Keeps the bytes of an unfinished reply; of a buffer without any, the allocation, unless it is a large one.
    pub fn keep_tail(&mut self, tail: Vec<u8>) {
        if !tail.is_empty() || tail.capacity() <= KEEP_TAIL {
            self.tail = tail;
        }
    }

    /// True while a buffer of `len` bytes cannot hold the unfinished reply.
    pub fn needs_more_than(&self, len: usize) -> bool {
        len < self.need
    }

    /// Finds the end of the reply at the start of `buf`; `None` when it is unfinished.
    ///
    /// # Errors
    /// [`MalformedReply`] when the node does not speak RESP.
    #[inline]
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<usize>, MalformedReply> {
        match self.scanner.scan(buf)? {
            Scan::Complete(end) => {
                self.need = 0;
                Ok(Some(end))
            }
            Scan::Incomplete(need) => {
                self.need = need;
                Ok(None)
            }
        }
    }

    /// The link is gone: takes every request back, oldest first, and forgets half-read replies.
    pub fn take_all(&mut self) -> Vec<Lost> {
        let mut offset = 0;
        let mut lost = Vec::with_capacity(self.fifo.len());
        for entry in self.fifo.drain(..) {
            let sent = self.log.touched(offset);
            let request = self.log.request(offset, entry.len as usize).to_vec();
            offset += entry.len as usize;
            lost.push(Lost { entry, request, sent });
        }
        self.answered = self.pushed;
        self.jumped = 0;
        self.log.clear();
        self.tail = Vec::new();
        self.need = 0;
        self.scanner.reset();
        self.early = 0;
        self.refusal = None;
        self.client_id = None;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever they are for: what jumps the queue after a reconnection must not make a mark look answered.
    #[test]
    fn a_mark_is_passed_by_what_was_queued_before_it() {
        for owner in [Owner::Handshake, Owner::Nobody] {
            let mut upstream = Upstream::new("x:1", 2);
            upstream.push(b"a", Entry::NONE);
            upstream.push(b"b", Entry::NONE);
            let mark = upstream.mark();
            upstream.push_handshake(&[b"h".to_vec(), b"i".to_vec()], owner, 0, 0);
            for n in 0..4 {
                assert!(!upstream.answered_up_to(mark), "{owner:?}: after {n} answers");
                upstream.answer();
            }
            assert!(upstream.answered_up_to(mark));
        }
    }

    #[test]
    fn what_held_a_request_back_is_told_from_what_the_node_took() {
        let mut upstream = Upstream::new("x:1", 2);
        upstream.push(b"aa", Entry::NONE);
        assert_eq!(upstream.held_back_until(), None);
        upstream.note_written(10);
        upstream.note_written(30);
        assert_eq!(upstream.held_back_until(), Some(30));
        upstream.wrote(2);
        upstream.push(b"bb", Entry::NONE);
        upstream.wrote(1);
        upstream.note_written(50);
        upstream.wrote(1);
        upstream.note_written(70);
        // The first may have been written at 30, the second at 50.
        upstream.note_written(90);
        assert_eq!(upstream.held_back_until(), Some(50));
        upstream.answer();
        assert_eq!(upstream.held_back_until(), Some(50));
        upstream.push(b"c", Entry::NONE);
        upstream.answer();
        assert_eq!(upstream.held_back_until(), Some(90));
        upstream.answer();
        // One that comes after a long silence was held back by nothing since then.
        upstream.note_written(110);
        upstream.note_written(130);
        upstream.push(b"d", Entry::NONE);
        upstream.wrote(1);
        assert_eq!(upstream.held_back_until(), Some(130));
        upstream.answer();
        for n in 0..1000 {
            upstream.push(b"c", Entry::NONE);
            upstream.wrote(1);
            upstream.note_written(n);
        }
        assert!(upstream.written.len() <= MOST_NOTES);
    }
}
