//! What a key is, with a stamp: for commands that compute a value from the one that is there.
//!
//! Must not know: commands, who computes.
//!
//! The stamp is a random token in the sidecar. Whatever changes the value removes it, and so does whatever loses the
//! sidecar: a write that [`super::apply_if`] applies under the stamp was computed from the value that it replaces. Those who
//! look at the same time share the stamp, and the first of them that writes wins.

use super::reply::{bytes, fields, text};
use super::request::Call;
use super::script::{LIVE, STAMP};
use super::{Fault, Token, Value, Version};
use crate::resp::decode_reply;
use redis_protocol::resp3::types::BytesFrame;

/// What a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It has this value.
    Value(Value),
    /// There is no row, or it is deleted.
    Absent,
    /// The cache does not say.
    Missing,
    /// A write is on its way to the database, and its value is gone from the cache.
    Lost,
    /// It holds something else than a mapping stores.
    Other,
}

/// The answer to [`stamp`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// What the key is.
    pub seen: Seen,
    /// Version of the newest write that the cache knows, 0 when it knows none.
    pub version: Version,
    /// The stamp of all this.
    pub stamp: Token,
    /// Whether that write is not in the database yet.
    pub dirty: bool,
}

/// Asks what `key` is; `stamp` becomes its stamp where it has none.
pub fn stamp(key: &[u8], stamp: Token) -> Vec<u8> {
    Call::new(&STAMP, key).arg(stamp.digits()).value(None)
}

/// Says when the entry of a key ends (ms since 1970, 0 = never), while it has the stamp under which it was seen; answered as
/// `apply` is. An entry that the database has not got begins to live when it has.
pub fn live(key: &[u8], stamp: Token, ends: u64) -> Vec<u8> {
    Call::new(&LIVE, key).arg(stamp.digits()).arg(ends.to_string()).value(None)
}

/// Of [`stamp`].
///
/// # Errors
/// [`Fault`] when the script did not run.
pub fn parse_stamped(reply: &[u8]) -> Result<Stamped, Fault> {
    let mut items = match decode_reply(reply).map_err(|_| Fault::Strange)? {
        BytesFrame::Array { data, .. } => data.into_iter(),
        BytesFrame::SimpleError { data, .. } => return Err(Fault::Error(data.to_string())),
        _ => return Err(Fault::Strange),
    };
    let mut next = || items.next().as_ref().and_then(text).ok_or(Fault::Strange);
    let (word, version, stamp, dirty) = (next()?, next()?, next()?, next()?);
    let seen = match word.as_str() {
        "text" => items.next().and_then(bytes).map(|text| Seen::Value(Value::Text(text))),
        "hash" => items.next().and_then(fields).map(|fields| Seen::Value(Value::Hash(fields))),
        "deleted" | "negative" => Some(Seen::Absent),
        "missing" => Some(Seen::Missing),
        "lost" => Some(Seen::Lost),
        "other" => Some(Seen::Other),
        _ => None,
    };
    Ok(Stamped {
        seen: seen.ok_or(Fault::Strange)?,
        version: version.parse().map_err(|_| Fault::Strange)?,
        stamp: u128::from_str_radix(&stamp, 16).map(Token).map_err(|_| Fault::Strange)?,
        dirty: !dirty.is_empty(),
    })
}
