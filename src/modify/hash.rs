//! The commands that change fields of a hash.
//!
//! Must not know: mappings, where values come from. Words are those of Redis 7.0.

use super::compute::{
    Asked, Effect, NOT_FINITE, NOT_FLOAT, NOT_INTEGER, OVERFLOW, Said, WRONG_TYPE, bulk, number, ok,
};
use super::float::{self, Float};
use super::options::integer;
use crate::sidecar::Value;
use bytes::Bytes;

/// The fields that are there.
struct Fields<'f>(&'f [(Bytes, Bytes)]);

impl<'f> Fields<'f> {
    fn of(current: Option<&'f Value>) -> Result<Self, String> {
        match current {
            None => Ok(Self(&[])),
            Some(Value::Hash(fields)) => Ok(Self(fields)),
            Some(Value::Text(_)) => Err(WRONG_TYPE.to_owned()),
        }
    }

    fn get(&self, name: &[u8]) -> Option<&'f Bytes> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }
}

/// Computes; an error is the text of an error reply, and nothing happens then.
pub(super) fn compute(asked: &Asked, current: Option<&Value>) -> Said {
    match asked.name {
        "hset" | "hmset" => set(asked, current),
        "hsetnx" => match Fields::of(current)?.get(asked.arg(2)) {
            Some(_) => Ok((number(0), Effect::None)),
            None => Ok((number(1), Effect::Fields(vec![(asked.bytes(2), Some(asked.bytes(3)))]))),
        },
        "hdel" => delete(asked, current),
        "hincrby" => increment(asked, current),
        _ => increment_float(asked, current),
    }
}

fn set(asked: &Asked, current: Option<&Value>) -> Said {
    if !asked.args.len().is_multiple_of(2) {
        return Err(format!("ERR wrong number of arguments for '{}' command", asked.name));
    }
    let fields = Fields::of(current)?;
    let (mut changes, mut new) = (Vec::new(), 0);
    for at in (2..asked.args.len()).step_by(2) {
        let name = asked.bytes(at);
        let is_new = fields.get(&name).is_none() && changes.iter().all(|(given, _)| *given != name);
        new += i64::from(is_new);
        changes.push((name, Some(asked.bytes(at + 1))));
    }
    let reply = if asked.name == "hmset" { ok() } else { number(new) };
    Ok((reply, Effect::Fields(changes)))
}

fn delete(asked: &Asked, current: Option<&Value>) -> Said {
    let fields = Fields::of(current)?;
    let mut gone: Vec<(Bytes, Option<Bytes>)> = Vec::new();
    for at in 2..asked.args.len() {
        let name = asked.bytes(at);
        if fields.get(&name).is_some() && gone.iter().all(|(other, _)| *other != name) {
            gone.push((name, None));
        }
    }
    let reply = number(gone.len() as i64);
    Ok((reply, if gone.is_empty() { Effect::None } else { Effect::Fields(gone) }))
}

fn increment(asked: &Asked, current: Option<&Value>) -> Said {
    let by = integer(asked.arg(3)).ok_or(NOT_INTEGER)?;
    let value = match Fields::of(current)?.get(asked.arg(2)) {
        None => 0,
        Some(value) => integer(value).ok_or("ERR hash value is not an integer")?,
    };
    let sum = value.checked_add(by).ok_or(OVERFLOW)?;
    Ok((number(sum), Effect::Fields(vec![(asked.bytes(2), Some(sum.to_string().into()))])))
}

fn increment_float(asked: &Asked, current: Option<&Value>) -> Said {
    let by = float::parse(asked.arg(3)).ok_or(NOT_FLOAT)?;
    if by == Float::Infinite {
        return Err("ERR value is NaN or Infinity".to_owned());
    }
    let value = Fields::of(current)?.get(asked.arg(2)).map_or(&b"0"[..], |value| value);
    let value = float::parse(value).ok_or("ERR hash value is not a float")?;
    let sum = value.plus(&by).ok_or(NOT_FINITE)?.text();
    Ok((bulk(sum.as_bytes()), Effect::Fields(vec![(asked.bytes(2), Some(sum.into()))])))
}
