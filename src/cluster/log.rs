//! Keeps the bytes of every request sent to a node until that node has answered it.
//!
//! Must not know: sockets, replies.
//!
//! The write buffer of a connection is not trimmed when bytes are written but when their reply arrives. A redirect
//! or a lost connection finds the request still there, at no cost for the requests that are simply answered.

/// Capacity kept by an empty log, in bytes; a burst gives the rest back.
const KEEP: usize = 256 << 10;
/// Answered bytes at the front before the rest is moved down.
const COMPACT: usize = 64 << 10;

/// Requests of one connection: `[0, acked)` answered, `[acked, sent)` in flight, `[sent, len)` to be written.
#[derive(Debug, Default)]
pub(super) struct RequestLog {
    buf: Vec<u8>,
    acked: usize,
    sent: usize,
}

impl RequestLog {
    /// Appends raw request bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// The tail of the buffer, to encode a request in place.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Puts bytes before everything not yet answered; only while nothing is in flight.
    pub fn prepend(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.acked, self.sent);
        self.buf.splice(self.acked..self.acked, bytes.iter().copied());
    }

    /// Bytes not yet written to the socket.
    pub fn unsent(&self) -> &[u8] {
        &self.buf[self.sent..]
    }

    /// Marks `n` more bytes as written.
    pub fn wrote(&mut self, n: usize) {
        self.sent = (self.sent + n).min(self.buf.len());
    }

    /// True when some byte of a request that starts `offset` bytes after the oldest unanswered one was written.
    pub fn touched(&self, offset: usize) -> bool {
        self.acked + offset < self.sent
    }

    /// The request of `len` bytes that starts `offset` bytes after the oldest unanswered one.
    pub fn request(&self, offset: usize, len: usize) -> &[u8] {
        self.buf.get(self.acked + offset..self.acked + offset + len).unwrap_or_default()
    }

    /// Drops the oldest `len` bytes: their request is answered.
    #[inline]
    pub fn ack(&mut self, len: usize) {
        self.acked += len;
        if self.acked >= self.buf.len() {
            self.clear();
        } else if self.acked >= COMPACT && self.acked * 2 >= self.buf.len() {
            self.buf.copy_within(self.acked.., 0);
            self.buf.truncate(self.buf.len() - self.acked);
            self.sent = self.sent.saturating_sub(self.acked);
            self.acked = 0;
        }
    }

    /// Bytes held, answered ones excluded.
    pub fn len(&self) -> usize {
        self.buf.len() - self.acked
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.acked = 0;
        self.sent = 0;
        if self.buf.capacity() > KEEP {
            self.buf.shrink_to(KEEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_unanswered_bytes_through_compaction() {
        let mut log = RequestLog::default();
        let request = vec![b'x'; 1000];
        for n in 0..10_000u32 {
            log.push(&n.to_le_bytes());
            log.push(&request);
            log.wrote(log.unsent().len());
            if n >= 50 {
                assert_eq!(log.request(0, 4), (n - 50).to_le_bytes());
                log.ack(1004);
            }
            assert!(log.len() <= 51 * 1004);
        }
        assert!(log.unsent().is_empty());
    }

    #[test]
    fn knows_what_was_written() {
        let mut log = RequestLog::default();
        log.push(b"aaaabbbb");
        assert!(!log.touched(0));
        log.wrote(5);
        assert!(log.touched(0));
        assert!(log.touched(4));
        assert_eq!(log.unsent(), b"bbb");
        log.ack(4);
        assert!(log.touched(0));
        log.clear();
        log.push(b"cc");
        log.prepend(b"hh");
        assert_eq!(log.unsent(), b"hhcc");
    }
}
