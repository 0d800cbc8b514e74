//! Finds one request and its arguments in the bytes a client sent.
//!
//! Must not know: what a command is. Source: RESP specification, "Sending commands to a Redis server" and
//! "Inline commands"; error words and limits are those of `networking.c` in Redis 7.0.

use super::inline::split_words;
use super::{Scan, Span};
use thiserror::Error;

/// Bounds on what one request may be. Defaults are those of Redis; for `args`, of Redis before 7.0 (now 2^31 - 1).
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Longest inline request (its LF not counted) or header line, in bytes.
    pub inline_bytes: usize,
    /// Most arguments in one request.
    pub args: usize,
    /// Longest single argument, in bytes.
    pub bulk_bytes: usize,
    /// Longest whole request, in bytes.
    pub frame_bytes: usize,
    /// The client has not given the password that is asked for: see [`RequestLimits::for_stranger`].
    pub stranger: bool,
}

impl RequestLimits {
    /// Enough for `AUTH` and `HELLO`, those of `networking.c` in Redis 7.0: who may run nothing else yet must not make
    /// us hold much (CVE-2021-32675).
    pub fn for_stranger(&self) -> Self {
        Self {
            args: self.args.min(10),
            bulk_bytes: self.bulk_bytes.min(16 << 10),
            frame_bytes: self.frame_bytes.min(256 << 10),
            stranger: true,
            ..*self
        }
    }

    fn count_error(&self) -> ProtocolError {
        if self.stranger { ProtocolError::StrangerCount } else { ProtocolError::BadCount }
    }

    fn length_error(&self) -> ProtocolError {
        if self.stranger { ProtocolError::StrangerLength } else { ProtocolError::BadLength }
    }
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            inline_bytes: 64 << 10,
            args: 1 << 20,
            bulk_bytes: 512 << 20,
            frame_bytes: 1 << 30,
            stranger: false,
        }
    }
}

/// Why the bytes are no request. The connection cannot be re-synchronised after any of these: answer, then close.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProtocolError {
    /// An inline request longer than the limit.
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// A header line longer than the limit, after `*`.
    #[error("Protocol error: too big mbulk count string")]
    CountLineTooLong,
    /// A header line longer than the limit, after `$`.
    #[error("Protocol error: too big bulk count string")]
    LengthLineTooLong,
    /// `*` followed by no number, or one beyond the limit.
    #[error("Protocol error: invalid multibulk length")]
    BadCount,
    /// `$` followed by no number, or one beyond the limit.
    #[error("Protocol error: invalid bulk length")]
    BadLength,
    /// More arguments than a client may send that has not given the password.
    #[error("Protocol error: unauthenticated multibulk length")]
    StrangerCount,
    /// A longer argument than a client may send that has not given the password.
    #[error("Protocol error: unauthenticated bulk length")]
    StrangerLength,
    /// Something else where `$` must stand.
    #[error("Protocol error: expected '$', got '{}'", printable(*.0))]
    ExpectedBulk(u8),
    /// An inline request with an open quote.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// An inline request with a NUL byte; Redis would not see the end of the line, and wait.
    #[error("Protocol error: NUL byte in inline request")]
    InlineNul,
    /// The whole request is larger than the query buffer may become.
    #[error("Protocol error: request larger than the query buffer limit")]
    FrameTooLarge,
    /// The first bytes are a TLS ClientHello.
    #[error(
        "Protocol error: this port speaks plain RESP, but the client opened with TLS; connect without TLS"
    )]
    Tls,
    /// The first bytes are an HTTP request.
    #[error("Protocol error: this port speaks RESP, but the client sent HTTP; use the HTTP port")]
    Http,
}

/// A byte in a message: as Redis has it where it can be read, escaped otherwise.
fn printable(byte: u8) -> String {
    if byte == b' ' || byte.is_ascii_graphic() {
        return char::from(byte).to_string();
    }
    byte.escape_ascii().to_string()
}

/// Where a request's arguments are: in the frame itself, or unpacked from an inline line.
#[derive(Debug, PartialEq, Eq)]
pub struct Inline(pub Vec<u8>);

/// A resumable scanner of one request at a time.
///
/// Feed it the same buffer from the same start until it reports [`Scan::Complete`]; then the spans of the arguments
/// are in [`RequestScanner::spans`]. It keeps its place, so a request that arrives in many pieces is scanned once.
#[derive(Debug, Default)]
pub struct RequestScanner {
    spans: Vec<Span>,
    at: usize,
    remaining: usize,
    bulk: Option<usize>,
    inline: bool,
    started: bool,
}

impl RequestScanner {
    /// Arguments found so far, in order.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// True when the last complete frame was an inline line (no `*` header); unpack it with [`Self::unpack_inline`].
    pub fn is_inline(&self) -> bool {
        self.inline
    }

    /// Forgets the current request, keeping the allocation.
    pub fn reset(&mut self) {
        self.spans.clear();
        self.at = 0;
        self.remaining = 0;
        self.bulk = None;
        self.inline = false;
        self.started = false;
    }

    /// Scans `buf`, which starts where the current request starts.
    ///
    /// # Errors
    /// A [`ProtocolError`] when the bytes can never become a request within `limits`.
    pub fn scan(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<Scan, ProtocolError> {
        if !self.started {
            match buf.first() {
                None => return Ok(Scan::Incomplete(1)),
                Some(b'*') => {}
                Some(_) => return self.scan_inline(buf, limits),
            }
            let (count, next) = match short_number(buf, 1) {
                Some(found) => found,
                None => {
                    let Some((count, next)) = line(buf, 1, limits, ProtocolError::CountLineTooLong)? else {
                        return Ok(Scan::Incomplete(buf.len() + 1));
                    };
                    let count = integer(count).ok_or(ProtocolError::BadCount)?;
                    // Redis skips `*0` and negative counts without a reply.
                    (usize::try_from(count).unwrap_or(0), next)
                }
            };
            self.started = true;
            self.at = next;
            self.remaining = count;
            if self.remaining > limits.args {
                return Err(limits.count_error());
            }
        }
        while self.remaining > 0 {
            let length = match self.bulk {
                Some(length) => length,
                None => match buf.get(self.at) {
                    None => return Ok(Scan::Incomplete(self.at + 1)),
                    Some(b'$') => {
                        let (length, next) = match short_number(buf, self.at + 1) {
                            Some(found) => found,
                            None => {
                                let Some((digits, next)) =
                                    line(buf, self.at + 1, limits, ProtocolError::LengthLineTooLong)?
                                else {
                                    return Ok(Scan::Incomplete(buf.len() + 1));
                                };
                                let length = integer(digits).and_then(|n| usize::try_from(n).ok());
                                (length.ok_or(ProtocolError::BadLength)?, next)
                            }
                        };
                        if length > limits.bulk_bytes {
                            return Err(limits.length_error());
                        }
                        self.at = next;
                        if next + length + 2 > limits.frame_bytes.min(u32::MAX as usize) {
                            return Err(ProtocolError::FrameTooLarge);
                        }
                        length
                    }
                    Some(other) => return Err(ProtocolError::ExpectedBulk(*other)),
                },
            };
            let end = self.at + length;
            if buf.len() < end + 2 {
                self.bulk = Some(length);
                return Ok(Scan::Incomplete(end + 2));
            }
            // Redis does not look at the two bytes behind an argument; neither do we, they are forwarded as they came
            // only when they are CRLF, so a second parser downstream cannot disagree with us.
            if buf.get(end..end + 2) != Some(b"\r\n") {
                return Err(ProtocolError::BadLength);
            }
            self.bulk = None;
            self.spans.push(Span { start: self.at as u32, end: end as u32 });
            self.at = end + 2;
            self.remaining -= 1;
        }
        Ok(Scan::Complete(self.at))
    }

    fn scan_inline(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<Scan, ProtocolError> {
        if buf.starts_with(&[0x16, 0x03]) {
            return Err(ProtocolError::Tls);
        }
        // The limit is for what stands before the LF.
        let window = &buf[..buf.len().min(limits.inline_bytes.saturating_add(1))];
        let Some(end) = memchr::memchr(b'\n', window) else {
            if buf.len() > limits.inline_bytes {
                return Err(ProtocolError::InlineTooLong);
            }
            return Ok(Scan::Incomplete(buf.len() + 1));
        };
        if is_http(&buf[..end]) {
            return Err(ProtocolError::Http);
        }
        self.inline = true;
        Ok(Scan::Complete(end + 1))
    }

    /// Turns an inline line into the equivalent multibulk request; `None` for a blank line.
    ///
    /// # Errors
    /// [`ProtocolError::UnbalancedQuotes`] as Redis has it (`sdssplitargs`); [`ProtocolError::InlineNul`], because C
    /// would end the line there.
    pub fn unpack_inline(line: &[u8]) -> Result<Option<Inline>, ProtocolError> {
        if line.contains(&0) {
            return Err(ProtocolError::InlineNul);
        }
        let words = split_words(line).ok_or(ProtocolError::UnbalancedQuotes)?;
        if words.is_empty() {
            return Ok(None);
        }
        let mut frame = Vec::with_capacity(line.len() + 16 * words.len());
        super::push_command(&mut frame, words.iter().map(Vec::as_slice));
        Ok(Some(Inline(frame)))
    }
}

/// The bytes of the line starting at `from` without CRLF, and the offset after it; `None` while it is unfinished.
fn line<'b>(
    buf: &'b [u8],
    from: usize,
    limits: &RequestLimits,
    too_long: ProtocolError,
) -> Result<Option<(&'b [u8], usize)>, ProtocolError> {
    let rest = buf.get(from..).unwrap_or_default();
    // Headers are a few digits: a byte loop beats a vectorised search here.
    let window = rest.len().min(limits.inline_bytes);
    match rest[..window].iter().position(|b| *b == b'\n') {
        Some(newline) if newline > 0 && rest[newline - 1] == b'\r' => {
            Ok(Some((&rest[..newline - 1], from + newline + 1)))
        }
        // Redis reads on to the next CR. The LF stays in the line, so that it is no number, here as there.
        Some(newline) => Ok(Some((&rest[..=newline], from + newline + 1))),
        None if rest.len() > limits.inline_bytes => Err(too_long),
        None => Ok(None),
    }
}

/// A number of one to four digits and its CRLF at `from`, as nearly all headers have it, and the offset after them. `None`
/// when it is anything else, which [`line`] and [`integer`] tell apart.
#[inline]
pub(super) fn short_number(buf: &[u8], from: usize) -> Option<(usize, usize)> {
    let rest = buf.get(from..)?;
    let mut value = 0;
    for (at, byte) in rest.iter().take(5).enumerate() {
        match byte {
            b'0'..=b'9' if at < 4 => value = value * 10 + usize::from(byte - b'0'),
            b'\r' if at > 0 && rest.get(at + 1) == Some(&b'\n') => {
                // A leading zero is no number to Redis, unless it is all there is.
                let plain = rest.first() != Some(&b'0') || at == 1;
                return plain.then_some((value, from + at + 2));
            }
            _ => return None,
        }
    }
    None
}

/// A decimal integer as `string2ll` of Redis reads it: optional minus, no plus, no leading zeros, no blanks.
pub(super) fn integer(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] if !negative => return Some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    let mut value: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(digit - b'0');
        value = value.checked_mul(10)?;
        value = if negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    Some(value)
}

/// First words of an HTTP request. None is a Redis command that could have ` HTTP/` behind it: `GET` has one argument.
const HTTP_METHODS: [&str; 9] =
    ["GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "CONNECT", "PRI"];

fn is_http(line: &[u8]) -> bool {
    let method = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    HTTP_METHODS.iter().any(|known| method == known.as_bytes()) && line.windows(6).any(|w| w == b" HTTP/")
        || line.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"host:"))
}
