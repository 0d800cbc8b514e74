//! `MSETNX` of several keys in one slot: all of them are set, or none is.
//!
//! Must not know: clients, which of them asked.
//!
//! As with one key (`round.rs`) it is looked whether the mapped ones are absent, which loads what is not cached; the writes are
//! journaled undecided, as one unit; a script sets all keys while their stamps are there; then the unit is confirmed, or never
//! was.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::Shared;
use super::base::base;
use super::compute::Effect;
use super::draft::Draft;
use super::line::{Job, LONGEST_PAUSE};
use super::round::UNKNOWN;
use crate::cluster::Origin;
use crate::failpoint;
use crate::mapping::MappingId;
use crate::resp::{push_array_header, push_bulk};
use crate::sidecar::{self, Claim, Claimed, Fault, Token, Value};
use crate::writeback::{KeyWrite, Race, Settled, WriteError};

/// Pause before a script is sent again.
const PAUSE: Duration = Duration::from_millis(50);
const NONE: &[u8] = b":0\r\n";
const ALL: &[u8] = b":1\r\n";

/// What is to be set.
#[derive(Clone, Debug, Default)]
pub struct Several {
    /// Mapped keys, each with the values that it gets one after the other.
    pub mapped: Vec<(MappingId, Bytes, Vec<Bytes>)>,
    /// Plain keys.
    pub plain: Vec<(Bytes, Bytes)>,
}

/// What a try came to.
enum Try {
    Said(&'static [u8]),
    Outrun,
    Failed(String),
}

/// Runs the command until it has its reply.
pub(super) async fn serve(shared: Arc<Shared>, several: Several, job: Job) {
    let deadline = Instant::now() + shared.options.timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        match attempt(&shared, &several, deadline).await {
            Try::Said(reply) => return job.answer(reply.to_vec()),
            Try::Failed(text) => return job.fail(&text),
            Try::Outrun if Instant::now() > deadline => return job.fail(&shared.outrun_too_often()),
            Try::Outrun => {
                let mapping = several.mapped.first().map_or(0, |(mapping, ..)| *mapping);
                if let Some(metrics) = shared.metrics.get(usize::from(mapping)) {
                    metrics.conflicts.inc();
                }
                sleep(pause.mul_f64(rand::random_range(0.0..1.0))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn attempt(shared: &Shared, several: &Several, deadline: Instant) -> Try {
    match any_plain(shared, &several.plain).await {
        Ok(false) => {}
        Ok(true) => return Try::Said(NONE),
        Err(text) => return Try::Failed(text),
    }
    let (mut writes, mut seen) = (Vec::new(), Vec::new());
    for (mapping, key, values) in &several.mapped {
        match one(shared, *mapping, key, values, deadline).await {
            Ok(Some((write, stamp, text))) => {
                writes.push(write);
                seen.push((stamp, text));
            }
            Ok(None) => return Try::Said(NONE),
            Err(text) => return Try::Failed(text),
        }
    }
    let versions = match shared.writes.attempt(writes.clone(), 0).await {
        Ok(versions) => versions,
        Err(WriteError::Outrun) => return Try::Outrun,
        Err(error) => return Try::Failed(error.to_string()),
    };
    failpoint::hit("trial.durable");
    let unit: Vec<Settled> = (writes.iter().zip(&versions))
        .map(|(write, version)| (write.mapping, write.key.clone(), *version))
        .collect();
    unit.iter().for_each(|(mapping, key, _)| shared.reads.note_write(*mapping, key));
    let claim = |((_, key, version), (stamp, text)): (&Settled, (Token, Bytes))| Claim {
        key: key.clone(),
        version: *version,
        stamp,
        text,
    };
    let claims: Vec<Claim> = unit.iter().zip(seen).map(claim).collect();
    let (race, said) = apply(shared, sidecar::claim(&claims, &several.plain), deadline).await;
    failpoint::hit("trial.applied");
    match shared.writes.settle(&unit, race).await {
        Ok(()) => said,
        Err(error) => Try::Failed(format!("{error} (the keys are set, and will be stored)")),
    }
}

/// Whether one of the plain keys is there. (The script looks again.)
async fn any_plain(shared: &Shared, plain: &[(Bytes, Bytes)]) -> Result<bool, String> {
    if plain.is_empty() {
        return Ok(false);
    }
    let mut request = Vec::new();
    push_array_header(&mut request, 1 + plain.len());
    push_bulk(&mut request, b"EXISTS");
    plain.iter().for_each(|(key, _)| push_bulk(&mut request, key));
    let reply = shared.gateway.call(Origin::Internal, request).await;
    let reply = reply.map_err(|error| format!("ERR {error}"))?;
    match reply.strip_prefix(b"-") {
        Some(error) => Err(String::from_utf8_lossy(error).trim_end().to_owned()),
        None => Ok(&*reply != NONE),
    }
}

/// The write of one key, with the stamp under which it is absent and what the cache is to hold; `None`: it is there.
async fn one(
    shared: &Shared,
    mapping: MappingId,
    key: &Bytes,
    values: &[Bytes],
    deadline: Instant,
) -> Result<Option<(KeyWrite, Token, Bytes)>, String> {
    let bound = shared.source.bound(mapping).ok_or("ERR the mapping has no table")?;
    let found = bound.mapping.template.find(key).ok_or("ERR the key does not belong to its mapping")?;
    let base = base(shared, bound, key, deadline).await?;
    if base.value.is_some() {
        return Ok(None);
    }
    let mut draft = Draft::new(bound, &found, None);
    for value in values {
        draft.take(Effect::Put(value.clone(), None))?;
    }
    let outcome = draft.finish(base.foreign).ok_or("ERR there is nothing to set")?;
    let Some(Value::Text(text)) = outcome.value else {
        return Err(super::compute::WRONG_TYPE.to_owned());
    };
    let (key, write) = (key.clone(), outcome.write);
    let write = KeyWrite { mapping, key, write, base: Some(base.version), expires_at: None, applies: true };
    Ok(Some((write, base.stamp, text)))
}

/// Sends the script until the node says what became of it.
async fn apply(shared: &Shared, request: Vec<u8>, deadline: Instant) -> (Race, Try) {
    let mut heard = true;
    loop {
        let reply = shared.gateway.call(Origin::Internal, request.clone()).await;
        let reply = reply.map_err(|error| Fault::Error(format!("ERR {error}")));
        // A try whose answer was lost may have been the quicker one.
        let lost = |said| if heard { said } else { Try::Failed(UNKNOWN.to_owned()) };
        match reply.and_then(|reply| sidecar::parse_claimed(&reply)) {
            Ok(Claimed::Applied) => return (Race::Won, Try::Said(ALL)),
            Ok(Claimed::Behind(newer)) => {
                shared.writes.clock().observe(newer);
                return (Race::Lost, lost(Try::Outrun));
            }
            Ok(Claimed::Present) => return (Race::Lost, lost(Try::Said(NONE))),
            Err(Fault::Error(text)) if text.starts_with("OOM") && heard => {
                return (Race::Lost, Try::Failed(text));
            }
            Err(_) if Instant::now() > deadline => return (Race::Unknown, Try::Failed(UNKNOWN.to_owned())),
            Err(_) => heard = false,
        }
        sleep(PAUSE).await;
    }
}
