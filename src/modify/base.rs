//! The value that a command computes from, and what tells whether it still is the value when the result is stored.
//!
//! Must not know: commands.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Shared;
use crate::cache::{Loaded, Miss, Until};
use crate::cluster::Origin;
use crate::mapping::{Bound, Format, fields_of};
use crate::sidecar::{self, Seen, Stamped, Token, Value};
use crate::source::LoadFrom;

/// First pause before a key is looked at again.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What is there.
pub(super) struct Base {
    /// The value; `None`: there is no row.
    pub value: Option<Value>,
    /// The newest version that is known.
    pub version: u64,
    /// The stamp of the value.
    pub stamp: Token,
    /// The value is not in the database yet, and it is another process that brings it there.
    pub foreign: bool,
}

/// Looks until there is something to compute from; an error is an error reply's text.
pub(super) async fn base(
    shared: &Shared,
    bound: &Bound,
    key: &Bytes,
    deadline: tokio::time::Instant,
) -> Result<Base, String> {
    let (mut pause, mut loads) = (FIRST_PAUSE, 0);
    loop {
        let looked = look(shared, key).await?;
        match settled(shared, bound, key, &looked)? {
            Some(base) => return Ok(base),
            // Nothing of this process is under way, and nobody has a value: it is to be loaded.
            None if looked.seen == Seen::Missing => {
                loads += 1;
                // First as a reader does, so that the entry is there for others, too. What is not stored then (there is
                // no row, and that is not remembered) is asked for after the stamp was given, so it belongs to it.
                if loads > 1 {
                    let value = load(shared, bound, key).await?;
                    return Ok(Base { value, version: looked.version, stamp: looked.stamp, foreign: false });
                }
                fill(shared, bound, key).await?;
            }
            None if tokio::time::Instant::now() > deadline => {
                return Err(format!(
                    "ERR the newest value of this key is on its way to the database and the cache has lost it; nothing has \
                     happened within {:?} (write_behind.modify_timeout), try again",
                    shared.options.timeout
                ));
            }
            None => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn look(shared: &Shared, key: &Bytes) -> Result<Stamped, String> {
    let reply = shared.gateway.call(Origin::Internal, sidecar::stamp(key, Token::random())).await;
    let reply = reply.map_err(|error| format!("ERR {error}"))?;
    let looked = sidecar::parse_stamped(&reply).map_err(|fault| match fault {
        sidecar::Fault::Error(text) => text,
        sidecar::Fault::Strange => format!("ERR {fault}"),
    })?;
    shared.writes.clock().observe(looked.version);
    Ok(looked)
}

/// What there is to compute from, with the writes of this process that the cache has not got (any more); `None`: that is
/// not known yet.
fn settled(shared: &Shared, bound: &Bound, key: &Bytes, looked: &Stamped) -> Result<Option<Base>, String> {
    let own = shared.writes.standing(bound.mapping.id, key);
    let newest = own.as_ref().map_or(0, |own| own.version);
    let behind = newest > looked.version || looked.seen == Seen::Lost && newest == looked.version;
    if let Some(own) = own.filter(|_| behind) {
        return match own.value {
            Some(value) if !own.applying => {
                let value = value.map(|value| value_of(bound, value)).transpose()?.flatten();
                Ok(Some(Base { value, version: newest, stamp: looked.stamp, foreign: false }))
            }
            _ => Ok(None),
        };
    }
    let value = match &looked.seen {
        Seen::Value(value) => Some(value.clone()),
        Seen::Absent => None,
        Seen::Other => return Err(super::compute::WRONG_TYPE.to_owned()),
        Seen::Missing | Seen::Lost => return Ok(None),
    };
    let foreign = looked.dirty && newest != looked.version;
    Ok(Some(Base { value, version: looked.version, stamp: looked.stamp, foreign }))
}

/// A value as rows are loaded and writes are queued, as the cache holds it.
fn value_of(bound: &Bound, value: Bytes) -> Result<Option<Value>, String> {
    if bound.mapping.format != Format::Hash {
        return Ok(Some(Value::Text(value)));
    }
    let fields = fields_of(&value).map_err(|message| format!("ERR the row is no hash: {message}"))?;
    Ok((!fields.is_empty()).then_some(Value::Hash(fields)))
}

/// Has the row loaded into the cache.
async fn fill(shared: &Shared, bound: &Bound, key: &Bytes) -> Result<(), String> {
    let (tell, told) = oneshot::channel();
    shared.reads.load(Miss {
        keys: vec![(bound.mapping.id, key.clone())],
        asked: Instant::now(),
        until: Until::Stored,
        reply: Box::new(move |answers| drop(tell.send(answers))),
    });
    let answers = told.await.map_err(|_| "ERR the proxy is shutting down".to_owned())?;
    match answers.into_iter().next().map(|answer| answer.loaded) {
        Some(Loaded::Failed(text)) => Err(text),
        _ => Ok(()),
    }
}

/// The row, past the cache.
async fn load(shared: &Shared, bound: &Bound, key: &Bytes) -> Result<Option<Value>, String> {
    let found = bound.mapping.template.find(key).ok_or("ERR the key does not belong to its mapping")?;
    let rows = shared.source.load(bound.mapping.id, &[found], LoadFrom::Primary).await;
    let row = rows.map_err(|error| format!("ERR {error}"))?.into_iter().next();
    match row.transpose().map_err(|error| format!("ERR {error}"))?.flatten() {
        None => Ok(None),
        Some(row) => value_of(bound, row.value),
    }
}
