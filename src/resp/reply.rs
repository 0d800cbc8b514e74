//! Finds the end of one reply, of any RESP2 or RESP3 type, without decoding it.
//!
//! Must not know: which command it answers. Source: RESP specification, "RESP protocol description".

use super::{
    Scan,
    request::{integer, short_number},
};
use bytes::Bytes;
use redis_protocol::resp3;
use thiserror::Error;

/// The upstream sent something that is no reply; the connection must be dropped.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("malformed reply from upstream")]
pub struct MalformedReply;

/// Longest header line (type byte, number, CRLF) and longest simple string we accept, in bytes.
const LINE_BYTES: usize = 1 << 20;

/// A resumable scanner of one reply at a time; a reply of any depth is walked with one counter, not a stack.
#[derive(Debug)]
pub struct ReplyScanner {
    at: usize,
    /// Values that must still end before the reply ends.
    open: u64,
}

impl Default for ReplyScanner {
    fn default() -> Self {
        Self { at: 0, open: 1 }
    }
}

impl ReplyScanner {
    /// Forgets the current reply.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Scans `buf`, which starts where the current reply starts. After [`Scan::Complete`] the scanner is reset.
    ///
    /// # Errors
    /// [`MalformedReply`] when the bytes are no RESP.
    #[inline]
    pub fn scan(&mut self, buf: &[u8]) -> Result<Scan, MalformedReply> {
        loop {
            let Some(kind) = buf.get(self.at) else { return Ok(Scan::Incomplete(self.at + 1)) };
            // Short strings first: they are most of what a cache answers.
            if *kind == b'$'
                && let Some((length, body)) = short_number(buf, self.at + 1)
            {
                let end = body + length;
                match buf.get(end..end + 2) {
                    None => return Ok(Scan::Incomplete(end + 2)),
                    Some(b"\r\n") => {}
                    Some(_) => return Err(MalformedReply),
                }
                if let Some(end) = self.value_ended(end + 2) {
                    return Ok(Scan::Complete(end));
                }
                continue;
            }
            let rest = &buf[self.at + 1..];
            // Headers are a few digits, status lines a few letters: a byte loop beats a vectorised search.
            let newline = match rest.iter().take(32).position(|b| *b == b'\n') {
                Some(newline) => newline,
                None => match memchr::memchr(b'\n', rest) {
                    Some(newline) => newline,
                    None if rest.len() > LINE_BYTES => return Err(MalformedReply),
                    None => return Ok(Scan::Incomplete(buf.len() + 1)),
                },
            };
            if newline == 0 || rest[newline - 1] != b'\r' {
                return Err(MalformedReply);
            }
            let line = &rest[..newline - 1];
            let body = self.at + 1 + newline + 1;
            match kind {
                b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => self.at = body,
                b'$' | b'!' | b'=' => {
                    let length = integer(line).ok_or(MalformedReply)?;
                    match usize::try_from(length) {
                        Ok(length) => {
                            let end = body.checked_add(length).ok_or(MalformedReply)?;
                            if buf.len() < end + 2 {
                                return Ok(Scan::Incomplete(end + 2));
                            }
                            if &buf[end..end + 2] != b"\r\n" {
                                return Err(MalformedReply);
                            }
                            self.at = end + 2;
                        }
                        Err(_) => self.at = body,
                    }
                }
                b'*' | b'~' | b'>' => {
                    self.at = body;
                    let count = integer(line).ok_or(MalformedReply)?;
                    self.open =
                        self.open.checked_add(u64::try_from(count).unwrap_or(0)).ok_or(MalformedReply)?;
                }
                b'%' => {
                    self.at = body;
                    let pairs = integer(line).and_then(|n| u64::try_from(n).ok()).ok_or(MalformedReply)?;
                    let values = pairs.checked_mul(2).ok_or(MalformedReply)?;
                    self.open = self.open.checked_add(values).ok_or(MalformedReply)?;
                }
                // Attributes come before the value they describe and do not count as one.
                b'|' => {
                    self.at = body;
                    let pairs = integer(line).and_then(|n| u64::try_from(n).ok()).ok_or(MalformedReply)?;
                    let values = pairs.checked_mul(2).and_then(|n| n.checked_add(1)).ok_or(MalformedReply)?;
                    self.open = self.open.checked_add(values).ok_or(MalformedReply)?;
                }
                _ => return Err(MalformedReply),
            }
            if let Some(end) = self.value_ended(self.at) {
                return Ok(Scan::Complete(end));
            }
        }
    }

    /// A value ends at `at`; the end of the reply when it was the last one.
    #[inline]
    fn value_ended(&mut self, at: usize) -> Option<usize> {
        self.at = at;
        self.open -= 1;
        if self.open > 0 {
            return None;
        }
        self.reset();
        Some(at)
    }
}

/// True for the three spellings of "no value": RESP2 nil bulk, RESP2 nil array, RESP3 null.
#[inline]
pub fn is_nil(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"_\r\n" | b"*-1\r\n")
}

/// Deepest nesting we decode; replies to be understood are at most a few levels deep.
const DECODE_DEPTH: usize = 32;

/// Decodes one whole reply, for the few that the proxy itself must understand.
///
/// `redis-protocol` recurses into nested values without a limit, so depth is checked before it sees the bytes; and
/// its RESP3 decoder refuses RESP2's nil spellings, so it is shown RESP3's instead, at any depth.
///
/// # Errors
/// [`MalformedReply`] when the bytes are not exactly one reply, or nest deeper than 32 levels.
pub fn decode_reply(reply: &[u8]) -> Result<resp3::types::BytesFrame, MalformedReply> {
    match ReplyScanner::default().scan(reply)? {
        Scan::Complete(end) if end == reply.len() => {}
        _ => return Err(MalformedReply),
    }
    let reply = understandable(reply)?;
    match resp3::decode::complete::decode_bytes(&reply) {
        Ok(Some((frame, used))) if used == reply.len() => Ok(frame),
        _ => Err(MalformedReply),
    }
}

/// The text of a reply that is one bulk string and nothing else, without a copy; `None` for every other reply.
pub fn bulk_string(reply: &Bytes) -> Option<Bytes> {
    let head = reply.strip_prefix(b"$")?;
    let end = memchr::memchr(b'\r', head)?;
    let length = usize::try_from(integer(&head[..end])?).ok()?;
    // `$5\r\nhello\r\n`
    let start = end + 3;
    let whole =
        reply.len() == start + length + 2 && reply.ends_with(b"\r\n") && reply.get(end + 2) == Some(&b'\n');
    whole.then(|| reply.slice(start..start + length))
}

/// A copy of a whole, scanned reply with RESP3's null in place of RESP2's; refused when it nests too deep.
fn understandable(reply: &[u8]) -> Result<Bytes, MalformedReply> {
    let mut copy = Vec::with_capacity(reply.len());
    // Per open value, how many values must still end before it does.
    let mut open: Vec<u64> = Vec::new();
    let mut at = 0;
    while at < reply.len() {
        let rest = &reply[at..];
        let newline = memchr::memchr(b'\n', rest).ok_or(MalformedReply)?;
        let line = rest.get(1..newline.saturating_sub(1)).ok_or(MalformedReply)?;
        let number = integer(line).and_then(|n| u64::try_from(n).ok());
        let (body, children) = match (rest[0], number) {
            (b'$' | b'!' | b'=', Some(length)) => {
                (usize::try_from(length).map_err(|_| MalformedReply)? + 2, 0)
            }
            (b'*' | b'~' | b'>', Some(count)) => (0, count),
            (b'%', Some(pairs)) => (0, pairs * 2),
            // An attribute holds the value it describes, which comes after its pairs.
            (b'|', Some(pairs)) => (0, pairs * 2 + 1),
            _ => (0, 0),
        };
        let end = newline + 1 + body;
        match (rest[0], number) {
            (b'$' | b'*', None) => copy.extend_from_slice(b"_\r\n"),
            _ => copy.extend_from_slice(rest.get(..end).ok_or(MalformedReply)?),
        }
        at += end;
        if children == 0 {
            end_value(&mut open);
        } else if open.len() < DECODE_DEPTH {
            open.push(children);
        } else {
            return Err(MalformedReply);
        }
    }
    Ok(Bytes::from(copy))
}

/// A value has ended, and with it each value around it that it was the last part of.
fn end_value(open: &mut Vec<u64>) {
    while let Some(last) = open.last_mut() {
        *last -= 1;
        if *last > 0 {
            return;
        }
        open.pop();
    }
}
