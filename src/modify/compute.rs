//! What Redis answers to a command that computes a value from the one that is there, and what the value becomes.
//!
//! Must not know: mappings, where values come from. Words are those of Redis 7.0.

use super::float;
use super::hash;
use super::options::{expiry_of, integer, set_options};
use crate::resp::{push_bulk, push_integer, push_nil, push_simple};
use crate::sidecar::Value;
use bytes::Bytes;

/// What Redis says of a command on a value of another kind.
pub(super) const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
pub(super) const NOT_INTEGER: &str = "ERR value is not an integer or out of range";
pub(super) const OVERFLOW: &str = "ERR increment or decrement would overflow";
pub(super) const NOT_FLOAT: &str = "ERR value is not a valid float";
pub(super) const NOT_FINITE: &str = "ERR increment would produce NaN or Infinity";
/// Longest string (`proto-max-bulk-len` as Redis has it by default).
const LONGEST: usize = 512 << 20;

/// One command on one key.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its name, as the command table calls it.
    pub name: &'static str,
    /// Its arguments, the name among them.
    pub args: Vec<Bytes>,
    /// The version of RESP in which it is answered.
    pub protocol: u8,
}

/// What becomes of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// It is this text; the entry expires then (ms since 1970), where the command says so.
    Put(Bytes, Option<u64>),
    /// These fields of it are set, or removed.
    Fields(Vec<(Bytes, Option<Bytes>)>),
    /// There is none any more.
    Delete,
    /// It is what it was; its entry expires then (ms since 1970; 0 = never).
    Live(u64),
}

/// A reply, and what the command does.
pub(super) type Said = Result<(Vec<u8>, Effect), String>;

impl Asked {
    pub(super) fn arg(&self, at: usize) -> &[u8] {
        self.args.get(at).map_or(&[][..], |arg| arg)
    }

    pub(super) fn bytes(&self, at: usize) -> Bytes {
        self.args.get(at).cloned().unwrap_or_default()
    }
}

/// Computes; an error is the text of an error reply, and nothing happens then.
pub(super) fn compute(asked: &Asked, current: Option<&Value>) -> Said {
    match asked.name {
        "set" => set(asked, current),
        // Of one key they are the same.
        "setnx" | "msetnx" => match current {
            Some(_) => Ok((number(0), Effect::None)),
            None => Ok((number(1), Effect::Put(asked.bytes(2), None))),
        },
        "getset" => Ok((old(asked, current)?, Effect::Put(asked.bytes(2), None))),
        "getdel" => {
            let effect = if current.is_some() { Effect::Delete } else { Effect::None };
            Ok((old(asked, current)?, effect))
        }
        "getex" => get_ex(asked, current),
        "append" => append(asked, text(current)?),
        "setrange" => set_range(asked, current),
        "incr" => increment(current, Some(1)),
        "decr" => increment(current, Some(-1)),
        "incrby" => increment(current, Some(integer(asked.arg(2)).ok_or(NOT_INTEGER)?)),
        "decrby" => match integer(asked.arg(2)).ok_or(NOT_INTEGER)? {
            i64::MIN => Err("ERR decrement would overflow".to_owned()),
            by => increment(current, Some(-by)),
        },
        "incrbyfloat" => increment_float(asked, text(current)?),
        "hset" | "hmset" | "hsetnx" | "hdel" | "hincrby" | "hincrbyfloat" => hash::compute(asked, current),
        name => Err(format!("ERR '{name}' is not supported on mapped keys")),
    }
}

/// The text that is there.
fn text(current: Option<&Value>) -> Result<Option<&Bytes>, String> {
    match current {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(Value::Hash(_)) => Err(WRONG_TYPE.to_owned()),
    }
}

pub(super) fn number(number: i64) -> Vec<u8> {
    let mut reply = Vec::new();
    push_integer(&mut reply, number);
    reply
}

pub(super) fn bulk(text: &[u8]) -> Vec<u8> {
    let mut reply = Vec::with_capacity(text.len() + 16);
    push_bulk(&mut reply, text);
    reply
}

fn nil(asked: &Asked) -> Vec<u8> {
    let mut reply = Vec::new();
    push_nil(&mut reply, asked.protocol);
    reply
}

pub(super) fn ok() -> Vec<u8> {
    let mut reply = Vec::new();
    push_simple(&mut reply, "OK");
    reply
}

/// The value that was there, as `GET` answers it.
fn old(asked: &Asked, current: Option<&Value>) -> Result<Vec<u8>, String> {
    Ok(text(current)?.map_or_else(|| nil(asked), |text| bulk(text)))
}

fn set(asked: &Asked, current: Option<&Value>) -> Said {
    let options = set_options(asked.args.iter().map(|arg| &arg[..]))?;
    let old = if options.get { Some(old(asked, current)?) } else { None };
    let found = current.is_some();
    if options.nx && found || options.xx && !found {
        return Ok((old.unwrap_or_else(|| nil(asked)), Effect::None));
    }
    Ok((old.unwrap_or_else(ok), Effect::Put(asked.bytes(2), options.expires_at)))
}

fn get_ex(asked: &Asked, current: Option<&Value>) -> Said {
    let option = String::from_utf8_lossy(asked.arg(2)).to_ascii_uppercase();
    let unit = match (option.as_str(), asked.args.len()) {
        ("PERSIST", 3) => None,
        ("EX" | "EXAT", 4) => Some(1000),
        ("PX" | "PXAT", 4) => Some(1),
        _ => return Err("ERR syntax error".to_owned()),
    };
    let old = old(asked, current)?;
    if current.is_none() {
        return Ok((old, Effect::None));
    }
    let ends = unit.map(|unit| expiry_of(asked.arg(3), unit, option.ends_with("AT"), "getex"));
    Ok((old, Effect::Live(ends.transpose()?.unwrap_or(0))))
}

fn fits(length: usize) -> Result<(), String> {
    match length > LONGEST {
        true => Err("ERR string exceeds maximum allowed size (proto-max-bulk-len)".to_owned()),
        false => Ok(()),
    }
}

fn append(asked: &Asked, current: Option<&Bytes>) -> Said {
    let Some(current) = current else {
        return Ok((number(asked.arg(2).len() as i64), Effect::Put(asked.bytes(2), None)));
    };
    let length = current.len().saturating_add(asked.arg(2).len());
    fits(length)?;
    let value = [current, asked.arg(2)].concat();
    Ok((number(length as i64), Effect::Put(value.into(), None)))
}

fn set_range(asked: &Asked, current: Option<&Value>) -> Said {
    let offset = integer(asked.arg(2)).ok_or(NOT_INTEGER)?;
    let offset = usize::try_from(offset).map_err(|_| "ERR offset is out of range")?;
    let (current, patch) = (text(current)?, asked.arg(3));
    let length = current.map_or(0, Bytes::len);
    if patch.is_empty() {
        return Ok((number(length as i64), Effect::None));
    }
    let end = offset.saturating_add(patch.len());
    fits(end)?;
    if offset > length {
        // No column takes it, and it may be 512 MB of them.
        return Err("ERR the value would contain NUL characters, which no mapping can store".to_owned());
    }
    let mut value = current.map_or_else(Vec::new, |current| current.to_vec());
    value.resize(end.max(length), 0);
    if let Some(place) = value.get_mut(offset..end) {
        place.copy_from_slice(patch);
    }
    Ok((number(value.len() as i64), Effect::Put(value.into(), None)))
}

fn increment(current: Option<&Value>, by: Option<i64>) -> Said {
    let value = match text(current)? {
        None => 0,
        Some(text) => integer(text).ok_or(NOT_INTEGER)?,
    };
    let sum = by.and_then(|by| value.checked_add(by)).ok_or(OVERFLOW)?;
    Ok((number(sum), Effect::Put(sum.to_string().into(), None)))
}

fn increment_float(asked: &Asked, current: Option<&Bytes>) -> Said {
    let value = float::parse(current.map_or(&b"0"[..], |text| text)).ok_or(NOT_FLOAT)?;
    let by = float::parse(asked.arg(2)).ok_or(NOT_FLOAT)?;
    let sum = value.plus(&by).ok_or(NOT_FINITE)?.text();
    Ok((bulk(sum.as_bytes()), Effect::Put(sum.into(), None)))
}
