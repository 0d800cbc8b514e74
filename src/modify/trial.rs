//! Writes that count if a transaction is executed that depends on watched keys.
//!
//! Must not know: clients, connections, how a transaction is sent.
//!
//! The writes are journaled undecided, as one unit; then the caller sends the transaction and hears from its node whether it was
//! executed. What the caller does not say, because it heard nothing or is gone, is found out (`verdict.rs`).

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Modifier, Shared, find_out};
use crate::cluster::Origin;
use crate::failpoint;
use crate::mapping::MappingId;
use crate::resp::push_command;
use crate::sidecar;
use crate::writeback::{KeyWrite, Race, Settled, WriteError};

/// The writes of a transaction.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Each with its base: the version that its key had when it was watched.
    pub writes: Vec<KeyWrite>,
    /// The mapped keys that are watched.
    pub watched: Vec<(MappingId, Bytes)>,
    /// See [`crate::writeback::record::Record::fence`].
    pub fence: u64,
}

/// How far it is.
#[derive(Debug)]
pub enum Stage {
    /// The writes are durable, with these versions: the transaction may be sent. What its node says of it goes into the channel;
    /// where that is not known the channel is dropped.
    Durable(Vec<u64>, oneshot::Sender<Race>),
    /// The writes are not taken: nothing has happened.
    Refused(WriteError),
    /// It is decided, and durable; an error: the journal does not take that it has won.
    Settled(Result<(), WriteError>),
}

/// Told of each stage, from any thread; must not block.
pub type Tell = Box<dyn Fn(Stage) + Send + Sync>;

impl Modifier {
    /// Begins a trial; `tell` hears how it goes on: `Refused`, or `Durable` and later `Settled`. Never blocks.
    pub fn begin_trial(&self, trial: Trial, tell: Tell) {
        let shared = self.shared.clone();
        let runtime = shared.runtime.clone();
        runtime.spawn(self.shared.tasks.track_future(run(shared, trial, tell)));
    }
}

async fn run(shared: Arc<Shared>, trial: Trial, tell: Tell) {
    if observe(&shared, &trial).await {
        return tell(Stage::Refused(WriteError::Outrun));
    }
    let Trial { writes, fence, .. } = trial;
    let versions = match shared.writes.attempt(writes.clone(), fence).await {
        Ok(versions) => versions,
        Err(error) => return tell(Stage::Refused(error)),
    };
    failpoint::hit("trial.durable");
    let unit: Vec<Settled> = writes
        .into_iter()
        .zip(&versions)
        .map(|(write, version)| (write.mapping, write.key, *version))
        .collect();
    let (say, said) = oneshot::channel();
    tell(Stage::Durable(versions, say));
    let race = match said.await {
        Ok(race) => race,
        Err(_) => {
            let keys: Vec<(Bytes, u64)> =
                unit.iter().map(|(_, key, version)| (key.clone(), *version)).collect();
            let deadline = Instant::now() + shared.options.timeout;
            find_out(&shared.gateway, shared.writes.clock(), &keys, fence, deadline).await
        }
    };
    failpoint::hit("trial.applied");
    let settled = shared.writes.settle(&unit, race).await;
    tell(Stage::Settled(settled));
}

/// Lets the clock know the versions that the keys have, so that the writes get higher ones. (While a key is watched it stays so; of
/// another the node says later that it was behind.) True when the cache has lost the value of a watched key that another process is
/// bringing to the database: whoever read it got an older row.
async fn observe(shared: &Shared, trial: &Trial) -> bool {
    let written = trial.writes.iter().map(|write| (write.mapping, &write.key));
    let keys: Vec<(MappingId, &Bytes)> =
        trial.watched.iter().map(|(mapping, key)| (*mapping, key)).chain(written).collect();
    let mut requests: Vec<Vec<u8>> = keys.iter().map(|(_, key)| sidecar::standing(key)).collect();
    for (_, key) in &trial.watched {
        let mut request = Vec::new();
        push_command(&mut request, [&b"EXISTS"[..], key]);
        requests.push(request);
    }
    let replies = shared.gateway.call_many(Origin::Internal, requests).await;
    let (standings, present) = replies.split_at(keys.len().min(replies.len()));
    let mut lost = false;
    for (at, (reply, (mapping, key))) in standings.iter().zip(keys).enumerate() {
        let Some((version, waits)) =
            reply.as_ref().ok().and_then(|reply| sidecar::parse_standing(reply).ok())
        else {
            continue;
        };
        shared.writes.clock().observe(version);
        let gone = present.get(at).and_then(|reply| reply.as_ref().ok()).is_some_and(|it| &**it == b":0\r\n");
        let own = || shared.writes.standing(mapping, key).is_some_and(|own| own.version >= version);
        lost |= waits && gone && !own();
    }
    lost
}
