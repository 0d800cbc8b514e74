//! Several keys that change together, or not at all: the script that sets them, and what finds out afterwards whether such a
//! change took place.
//!
//! Must not know: commands, who asks.

use super::reply::{answered, text, version_of};
use super::request::Call;
use super::script::{CLAIM, PROBE};
use super::{Fault, Token, Version, reserved, sidecar_key};
use crate::resp::{decode_reply, push_array_header, push_bulk};
use crate::slot;
use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;

/// How long a fence stands, in milliseconds: longer than any request may wait in a node that hangs.
const FENCE_MS: u64 = 600_000;

/// A mapped key that is to be set because it is absent.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The key.
    pub key: Bytes,
    /// Version of the write.
    pub version: Version,
    /// The stamp under which the key was seen to be absent.
    pub stamp: Token,
    /// Its value.
    pub text: Bytes,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// All keys are set.
    Applied,
    /// A mapped key has changed since it was looked at; nothing is set. The clock must go past this version.
    Behind(Version),
    /// A plain key is there; nothing is set.
    Present,
}

/// Sets mapped keys, dirty, and plain ones, all in one slot, if none of them is there.
pub fn claim(claims: &[Claim], plain: &[(Bytes, Bytes)]) -> Vec<u8> {
    let mut call = Call::with_keys(&CLAIM, 2 * claims.len() + plain.len());
    for claim in claims {
        call = call.arg(&claim.key).arg(sidecar_key(&claim.key));
    }
    call = plain.iter().fold(call, |call, (key, _)| call.arg(key)).arg(claims.len().to_string());
    for claim in claims {
        call = call.arg(claim.version.to_string()).arg(claim.stamp.digits()).arg(&claim.text);
    }
    plain.iter().fold(call, |call, (_, value)| call.arg(value)).value(None)
}

/// Of [`claim`].
///
/// # Errors
/// [`Fault`] when the script did not run.
pub fn parse_claimed(reply: &[u8]) -> Result<Claimed, Fault> {
    match answered(reply)? {
        (word, _) if word == b"applied" => Ok(Claimed::Applied),
        (word, version) if word == b"behind" => Ok(Claimed::Behind(version)),
        (word, _) if word == b"present" => Ok(Claimed::Present),
        _ => Err(Fault::Strange),
    }
}

/// Asks for the version of a key. Whatever was to be applied under a stamp that the key had before is not any more.
pub fn probe(key: &[u8]) -> Vec<u8> {
    Call::new(&PROBE, key).arg(Token::random().digits()).value(None)
}

/// Of [`probe`]: the version.
///
/// # Errors
/// [`Fault`] when the script did not run.
pub fn parse_probed(reply: &[u8]) -> Result<Version, Fault> {
    version_of(reply, "probed")
}

/// Asks for the newest version of `key`, and whether its value waits for the database; changes nothing.
pub fn standing(key: &[u8]) -> Vec<u8> {
    let mut request = Vec::with_capacity(key.len() + 64);
    push_array_header(&mut request, 4);
    for arg in [&b"HMGET"[..], &sidecar_key(key), b"v", b"d"] {
        push_bulk(&mut request, arg);
    }
    request
}

/// Of [`standing`]: the version, 0 where there is none, and whether there is a value that waits.
///
/// # Errors
/// [`Fault`] when it did not run.
pub fn parse_standing(reply: &[u8]) -> Result<(Version, bool), Fault> {
    let items = match decode_reply(reply).map_err(|_| Fault::Strange)? {
        BytesFrame::Array { data, .. } => data,
        // A lease in its short form: nothing else is known of the key.
        BytesFrame::SimpleError { data, .. } if data.starts_with("WRONGTYPE") => return Ok((0, false)),
        BytesFrame::SimpleError { data, .. } => return Err(Fault::Error(data.to_string())),
        _ => return Err(Fault::Strange),
    };
    let version = match items.first().and_then(text) {
        None => 0,
        Some(version) => version.parse().map_err(|_| Fault::Strange)?,
    };
    Ok((version, items.get(1).and_then(text).as_deref() == Some("p")))
}

/// The key that a transaction watches beside those of its client, in the slot of `key`.
pub fn fence_key(key: &[u8], fence: u64) -> Vec<u8> {
    reserved(slot::slot(key), b":u:", format!("{fence:016x}").as_bytes())
}

/// From now on a transaction that watches this key is not executed any more.
pub fn fence(fence_key: &[u8]) -> Vec<u8> {
    let mut request = Vec::with_capacity(fence_key.len() + 64);
    push_array_header(&mut request, 5);
    for arg in [&b"SET"[..], fence_key, b"1", b"PX", FENCE_MS.to_string().as_bytes()] {
        push_bulk(&mut request, arg);
    }
    request
}
