//! Reads the replies.
//!
//! Must not know: requests.

use super::{Value, Version};
use crate::resp::decode_reply;
use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;
use std::time::Duration;
use thiserror::Error;

/// A reply that is none of the script's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// The node (or the proxy, about the node) answered with an error.
    #[error("{0}")]
    Error(String),
    /// It makes no sense.
    #[error("unexpected reply to a script of the proxy")]
    Strange,
}

/// What the reader of a missing key may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leased {
    /// Nothing is missing.
    Present(Value),
    /// The key holds something else than a mapping stores; its type.
    Other(String),
    /// There is no row.
    Negative,
    /// The row was deleted; the database does not know yet.
    Deleted,
    /// A write is on its way to the database, and its value is gone from the cache: the database has an older row.
    Lost,
    /// Another reader loads it; its lease ends after this time.
    Wait(Duration),
    /// Load it, and `fill`. Until the given time has passed, a source that may lag must not be asked.
    Granted(Duration),
}

/// What became of a fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filled {
    /// It is in the cache.
    Stored,
    /// It is not.
    Refused(Refusal),
}

/// Why a fill was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The lease was lost: something was written or invalidated, or it ran out.
    Lease,
    /// A write is on its way to the database.
    Dirty,
    /// An invalidation forbids rows of sources that may lag.
    Tombstone,
    /// A write-through was under way when the lease was given.
    Through,
    /// A value is there.
    Present,
    /// The lease was only given back.
    Released,
}

/// What became of an applied write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The cache holds it.
    Applied,
    /// The cache holds a write of this higher version; the clock must go past it.
    Behind(Version),
}

/// What `flushed` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// That write: it is not dirty any more.
    Cleared,
    /// A newer write, of this version, which stays dirty.
    Newer(Version),
    /// An older one, or nothing: put right.
    Repaired,
}

/// What became of the end of a write-through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As intended.
    Done,
    /// Others wrote the key meanwhile, or the outcome is unknown: the entry was dropped.
    Dropped,
}

/// What an invalidation found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidated {
    /// Whether there was an entry, which is gone.
    pub dropped: bool,
    /// Whether a write is on its way to the database: then the entry stays.
    pub dirty: bool,
}

/// A script's reply: its word, the sidecar's version, and what follows, as it came.
struct Reply<'r> {
    word: &'r [u8],
    version: Version,
    more: &'r [u8],
}

/// What a lease or a fill answers mostly: done, and there is no version.
const DONE: &[u8] = b":1\r\n";

fn read(reply: &[u8]) -> Result<Reply<'_>, Fault> {
    if let Some(error) = reply.strip_prefix(b"-") {
        let text = error.strip_suffix(b"\r\n").ok_or(Fault::Strange)?;
        return Err(Fault::Error(String::from_utf8_lossy(text).into_owned()));
    }
    let items = || {
        let (_, rest) = line(reply.strip_prefix(b"*")?)?;
        let (word, rest) = bulk(rest)?;
        let (version, more) = bulk(rest)?;
        Some(Reply { word, version: number(version)?, more })
    };
    items().ok_or(Fault::Strange)
}

/// A line at the start, and what follows it.
pub(super) fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\r')?;
    Some((bytes.get(..end)?, bytes.get(end..)?.strip_prefix(b"\r\n")?))
}

/// A bulk string at the start, and what follows it.
pub(super) fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = line(bytes.strip_prefix(b"$")?)?;
    let (body, rest) = rest.split_at_checked(usize::try_from(number(length)?).ok()?)?;
    Some((body, rest.strip_prefix(b"\r\n")?))
}

pub(super) fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub(super) fn bytes(frame: BytesFrame) -> Option<Bytes> {
    match frame {
        BytesFrame::BlobString { data, .. } | BytesFrame::SimpleString { data, .. } => Some(data),
        _ => None,
    }
}

pub(super) fn text(frame: &BytesFrame) -> Option<String> {
    bytes(frame.clone()).and_then(|data| String::from_utf8(data.to_vec()).ok())
}

/// The fields of a hash, as `HGETALL` answers them.
pub(super) fn fields(frame: BytesFrame) -> Option<Vec<(Bytes, Bytes)>> {
    let BytesFrame::Array { data, .. } = frame else { return None };
    let mut data = data.into_iter().map_while(bytes);
    let mut fields = Vec::new();
    while let (Some(name), Some(value)) = (data.next(), data.next()) {
        fields.push((name, value));
    }
    Some(fields)
}

impl Reply<'_> {
    fn text(&self) -> Result<&[u8], Fault> {
        bulk(self.more).map(|(text, _)| text).ok_or(Fault::Strange)
    }

    fn millis(&self) -> Result<Duration, Fault> {
        number(self.text()?).map(Duration::from_millis).ok_or(Fault::Strange)
    }

    fn fields(&self) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        decode_reply(self.more).ok().and_then(fields).ok_or(Fault::Strange)
    }
}

/// The word of a reply, and the version beside it.
pub(super) fn answered(reply: &[u8]) -> Result<(&[u8], Version), Fault> {
    read(reply).map(|reply| (reply.word, reply.version))
}

/// The version beside this word.
pub(super) fn version_of(reply: &[u8], wanted: &str) -> Result<Version, Fault> {
    match answered(reply)? {
        (word, version) if word == wanted.as_bytes() => Ok(version),
        _ => Err(Fault::Strange),
    }
}

/// Of `lease` and `look`, with the sidecar's version.
///
/// # Errors
/// [`Fault`] when the script did not run.
pub fn parse_leased(reply: &[u8]) -> Result<(Leased, Version), Fault> {
    if reply == DONE {
        return Ok((Leased::Granted(Duration::ZERO), 0));
    }
    let reply = read(reply)?;
    let version = reply.version;
    let leased = match reply.word {
        b"text" => Leased::Present(Value::Text(Bytes::copy_from_slice(reply.text()?))),
        b"hash" => Leased::Present(Value::Hash(reply.fields()?)),
        b"other" => Leased::Other(String::from_utf8_lossy(reply.text()?).into_owned()),
        b"negative" => Leased::Negative,
        b"deleted" => Leased::Deleted,
        b"lost" => Leased::Lost,
        b"wait" => Leased::Wait(reply.millis()?),
        b"granted" => Leased::Granted(reply.millis()?),
        _ => return Err(Fault::Strange),
    };
    Ok((leased, version))
}

/// Of `fill` and `release`, with the sidecar's version.
///
/// # Errors
/// [`Fault`] when the script did not run.
pub fn parse_filled(reply: &[u8]) -> Result<(Filled, Version), Fault> {
    if reply == DONE {
        return Ok((Filled::Stored, 0));
    }
    let reply = read(reply)?;
    let filled = match reply.word {
        b"stored" => Filled::Stored,
        b"refused" => Filled::Refused(match reply.text()? {
            b"lease" => Refusal::Lease,
            b"dirty" => Refusal::Dirty,
            b"tombstone" => Refusal::Tombstone,
            b"through" => Refusal::Through,
            b"present" => Refusal::Present,
            b"released" => Refusal::Released,
            _ => return Err(Fault::Strange),
        }),
        _ => return Err(Fault::Strange),
    };
    Ok((filled, reply.version))
}

/// Of `apply`.
///
/// # Errors
/// [`Fault`] when the script did not run.
pub fn parse_applied(reply: &[u8]) -> Result<Applied, Fault> {
    if reply == DONE {
        return Ok(Applied::Applied);
    }
    let reply = read(reply)?;
    match reply.word {
        b"applied" => Ok(Applied::Applied),
        b"behind" => Ok(Applied::Behind(reply.version)),
        _ => Err(Fault::Strange),
    }
}

/// Of `apply` and `begin_through`: whether there was an entry before.
pub fn had_entry(reply: &[u8]) -> bool {
    reply != DONE && reply.ends_with(DONE)
}

/// Of `flushed`.
///
/// # Errors
/// [`Fault`] when the script did not run.
pub fn parse_flushed(reply: &[u8]) -> Result<Flushed, Fault> {
    if reply == DONE {
        return Ok(Flushed::Cleared);
    }
    let reply = read(reply)?;
    match reply.word {
        b"cleared" => Ok(Flushed::Cleared),
        b"newer" => Ok(Flushed::Newer(reply.version)),
        b"repaired" => Ok(Flushed::Repaired),
        _ => Err(Fault::Strange),
    }
}

/// Of `begin_through`: whether it has begun, which it does not on a dirty key; with the sidecar's version.
///
/// # Errors
/// [`Fault`] when the script did not run.
pub fn parse_begun(reply: &[u8]) -> Result<(bool, Version), Fault> {
    let reply = read(reply)?;
    match reply.word {
        b"begun" => Ok((true, reply.version)),
        b"dirty" => Ok((false, reply.version)),
        _ => Err(Fault::Strange),
    }
}

/// Of `begin_through`: whether another one of the key is under way.
pub fn is_contested(reply: &[u8]) -> bool {
    reply
        .strip_suffix(b":1\r\n")
        .or_else(|| reply.strip_suffix(b":0\r\n"))
        .is_some_and(|rest| rest.ends_with(b":1\r\n"))
}

/// Of `end_through`, with the sidecar's version.
///
/// # Errors
/// [`Fault`] when the script did not run.
pub fn parse_ended(reply: &[u8]) -> Result<(Ended, Version), Fault> {
    let reply = read(reply)?;
    match reply.word {
        b"ended" => Ok((Ended::Done, reply.version)),
        b"lost" => Ok((Ended::Dropped, reply.version)),
        _ => Err(Fault::Strange),
    }
}

/// Of `invalidate`, with the sidecar's version.
///
/// # Errors
/// [`Fault`] when the script did not run.
pub fn parse_invalidated(reply: &[u8]) -> Result<(Invalidated, Version), Fault> {
    let reply = read(reply)?;
    let dropped = reply.text()? == b"1";
    match reply.word {
        b"dropped" => Ok((Invalidated { dropped, dirty: false }, reply.version)),
        b"dirty" => Ok((Invalidated { dropped, dirty: true }, reply.version)),
        _ => Err(Fault::Strange),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_strange_replies_are_told_apart() {
        let oom = b"-OOM command not allowed\r\n";
        assert_eq!(parse_applied(oom), Err(Fault::Error("OOM command not allowed".into())));
        for strange in
            [&b""[..], b"+OK\r\n", b"*0\r\n", b"*2\r\n$4\r\nword\r\n$1\r\nx\r\n", b"*1\r\n$7\r\napplied\r\n"]
        {
            assert_eq!(parse_applied(strange), Err(Fault::Strange), "{strange:?}");
        }
    }
}
