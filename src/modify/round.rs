//! One try: look, compute, journal, apply.
//!
//! Must not know: who is told.

use std::time::Duration;

use bytes::Bytes;

use super::Shared;
use super::base::{Base, base};
use super::compute::{Asked, compute};
use super::draft::{Draft, Outcome};
use crate::cluster::Origin;
use crate::failpoint;
use crate::mapping::MappingId;
use crate::resp::push_error;
use crate::sidecar::{self, Applied, Change, Fault};
use crate::writeback::{InCache, KeyWrite, Race, WriteError};

/// Pause before a script is sent again.
const PAUSE: Duration = Duration::from_millis(50);

/// What a try came to.
pub(super) enum Round {
    /// The replies of the first commands, at least of one.
    Done(Vec<Vec<u8>>),
    /// Somebody else was quicker: nothing has happened.
    Outrun,
    /// An error for all of them, with its code.
    Failed(String),
}

/// What became of the write.
enum Written {
    Yes,
    Outrun,
    No(String),
}

pub(super) async fn round(
    shared: &Shared,
    mapping: MappingId,
    key: &Bytes,
    asked: &[&Asked],
    deadline: tokio::time::Instant,
) -> Round {
    let Some(bound) = shared.source.bound(mapping) else {
        return Round::Failed("ERR the mapping has no table".to_owned());
    };
    let Some(found) = bound.mapping.template.find(key) else {
        return Round::Failed("ERR the key does not belong to its mapping".to_owned());
    };
    let mut base = match base(shared, bound, key, deadline).await {
        Ok(base) => base,
        Err(text) => return Round::Failed(text),
    };
    let mut draft = Draft::new(bound, &found, base.value.take());
    let mut replies = Vec::with_capacity(asked.len());
    // Commands before the first that changes something have their replies whatever becomes of the write.
    let mut sure = 0;
    for asked in asked {
        if !draft.is_open(asked) {
            break;
        }
        replies.push(say(&mut draft, asked));
        if !draft.changes() {
            sure = replies.len();
        }
    }
    let life = draft.life();
    let Some(outcome) = draft.finish(base.foreign) else {
        return match life {
            None => Round::Done(replies),
            Some(ends) => live(shared, key, &base, ends, replies).await,
        };
    };
    match write(shared, mapping, key, &base, outcome, deadline).await {
        Written::Yes => Round::Done(replies),
        _ if sure > 0 => {
            replies.truncate(sure);
            Round::Done(replies)
        }
        Written::Outrun => Round::Outrun,
        Written::No(text) => Round::Failed(text),
    }
}

/// The reply of one command, whose effect goes into the draft.
pub(super) fn say(draft: &mut Draft<'_>, asked: &Asked) -> Vec<u8> {
    let said = compute(asked, draft.current());
    let taken = said.and_then(|(reply, effect)| draft.take(effect).map(|()| reply));
    taken.unwrap_or_else(|text| {
        let mut reply = Vec::new();
        push_error(&mut reply, text);
        reply
    })
}

/// Journals the write, then brings it to the cache, if the value there still is the one it was computed from.
async fn write(
    shared: &Shared,
    mapping: MappingId,
    key: &Bytes,
    base: &Base,
    outcome: Outcome,
    deadline: tokio::time::Instant,
) -> Written {
    let Outcome { write, value, expires_at } = outcome;
    let unit =
        KeyWrite { mapping, key: key.clone(), write, base: Some(base.version), expires_at, applies: true };
    let version = match shared.writes.write(vec![unit]).await {
        Ok(versions) => versions.first().copied().unwrap_or_default(),
        Err(WriteError::Outrun) => return Written::Outrun,
        Err(error) => return Written::No(error.to_string()),
    };
    failpoint::hit("modify.durable");
    shared.reads.note_write(mapping, key);
    if shared.writes.is_through(mapping) {
        // It is committed, and the cache knows: the write-through has looked whether the key was still as it was.
        return Written::Yes;
    }
    let change = value.as_ref().map_or(Change::Delete, Change::Put);
    let request = sidecar::apply_if(key, version, change, base.stamp);
    let (race, written) = apply(shared, request, deadline).await;
    failpoint::hit("modify.applied");
    shared.writes.decide(mapping, key, version, race);
    let known = if race == Race::Unknown { InCache::Unknown } else { InCache::Stored };
    shared.writes.resolve(mapping, key, known);
    written
}

/// Gives the entry its life, if its value still is the one that the last of the replies names.
async fn live(shared: &Shared, key: &Bytes, base: &Base, ends: u64, mut replies: Vec<Vec<u8>>) -> Round {
    let reply = shared.gateway.call(Origin::Internal, sidecar::live(key, base.stamp, ends)).await;
    let said = reply.map_err(|error| Fault::Error(format!("ERR {error}")));
    let text = match said.and_then(|reply| sidecar::parse_applied(&reply)) {
        Ok(Applied::Applied) => return Round::Done(replies),
        Ok(Applied::Behind(_)) => None,
        Err(Fault::Error(text)) => Some(text),
        Err(fault) => Some(format!("ERR {fault}")),
    };
    replies.pop();
    match text {
        // Those before it have their replies.
        _ if !replies.is_empty() => Round::Done(replies),
        None => Round::Outrun,
        Some(text) => Round::Failed(text),
    }
}

/// Sends the script until the node says what became of it.
async fn apply(shared: &Shared, request: Vec<u8>, deadline: tokio::time::Instant) -> (Race, Written) {
    let mut heard = true;
    loop {
        let reply = shared.gateway.call(Origin::Internal, request.clone()).await;
        let applied = reply.map_err(|error| Fault::Error(format!("ERR {error}")));
        match applied.and_then(|reply| sidecar::parse_applied(&reply)) {
            Ok(Applied::Applied) => return (Race::Won, Written::Yes),
            Ok(Applied::Behind(newer)) => {
                shared.writes.clock().observe(newer);
                // A try whose answer was lost may have been the quicker one.
                let written = if heard { Written::Outrun } else { Written::No(UNKNOWN.to_owned()) };
                return (Race::Lost, written);
            }
            Err(Fault::Error(text)) if text.starts_with("OOM") && heard => {
                return (Race::Lost, Written::No(text));
            }
            Err(_) if tokio::time::Instant::now() > deadline => {
                return (Race::Unknown, Written::No(UNKNOWN.to_owned()));
            }
            Err(_) => heard = false,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

pub(super) const UNKNOWN: &str = "ERR the node did not answer in time; the outcome of the command is unknown";
