//! The commands of a transaction: what those answer and write that compute from the value of a key, one after the other.
//!
//! Must not know: transactions, connections, who sees to it that the keys hold the same when the writes happen.

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::time::{Duration, Instant, sleep};

use super::base::base;
use super::compute::Asked;
use super::draft::Draft;
use super::round::say;
use super::{Modifier, Shared};
use crate::mapping::MappingId;
use crate::sidecar::Value;
use crate::writeback::KeyWrite;

/// A command of a transaction that others may compute from.
#[derive(Clone, Debug)]
pub enum Ordered {
    /// It computes from the value of this key.
    Asks(MappingId, Bytes, Asked),
    /// It replaces the value of this key, or deletes it.
    Writes(Bytes, Option<Bytes>),
}

/// What a command comes to that computes.
#[derive(Clone, Debug)]
pub struct Computed {
    /// Its reply.
    pub reply: Vec<u8>,
    /// Its write, where it changes something; with the version that its key had before the transaction as its base.
    pub write: Option<KeyWrite>,
}

/// Told once, from any thread; must not block.
pub type Answer<T> = Box<dyn FnOnce(T) + Send>;

/// The value of a key as the next command sees it.
struct Held {
    value: Option<Value>,
    version: u64,
    /// See `Base::foreign`.
    foreign: bool,
}

impl Modifier {
    /// Computes the commands of a transaction in their order; what those come to that ask, or why nothing can be computed, in the
    /// words of an error reply. Never blocks.
    pub fn compute(&self, commands: Vec<Ordered>, tell: Answer<Result<Vec<Computed>, String>>) {
        let shared = self.shared.clone();
        let task = async move { tell(compute(&shared, commands).await) };
        self.shared.runtime.spawn(self.shared.tasks.track_future(task));
    }

    /// Somebody else was quicker with a key of this mapping: answers when it is time to try again.
    pub fn pause(&self, mapping: MappingId, most: Duration, tell: Answer<()>) {
        if let Some(metrics) = self.shared.metrics.get(usize::from(mapping)) {
            metrics.conflicts.inc();
        }
        let task = async move {
            sleep(most.mul_f64(rand::random_range(0.0..1.0))).await;
            tell(());
        };
        self.shared.runtime.spawn(self.shared.tasks.track_future(task));
    }

    /// How long commands are tried again while others write their keys.
    pub fn patience(&self) -> Duration {
        self.shared.options.timeout
    }

    /// What a command is told that was tried again for so long.
    pub fn outrun_too_often(&self) -> String {
        self.shared.outrun_too_often()
    }
}

async fn compute(shared: &Shared, commands: Vec<Ordered>) -> Result<Vec<Computed>, String> {
    let deadline = Instant::now() + shared.options.timeout;
    let mut held: FxHashMap<Bytes, Held> = FxHashMap::default();
    for command in &commands {
        if let Ordered::Asks(mapping, key, _) = command
            && !held.contains_key(key)
        {
            let bound = shared.source.bound(*mapping).ok_or("ERR the mapping has no table")?;
            let base = base(shared, bound, key, deadline).await?;
            let (value, version, foreign) = (base.value, base.version, base.foreign);
            held.insert(key.clone(), Held { value, version, foreign });
        }
    }
    let mut computed = Vec::new();
    for command in commands {
        match command {
            Ordered::Writes(key, value) => {
                if let Some(held) = held.get_mut(&key) {
                    (held.value, held.foreign) = (value.map(Value::Text), false);
                }
            }
            Ordered::Asks(mapping, key, asked) => {
                let Some(held) = held.get_mut(&key) else { continue };
                computed.push(one(shared, mapping, key, &asked, held)?);
            }
        }
    }
    Ok(computed)
}

fn one(
    shared: &Shared,
    mapping: MappingId,
    key: Bytes,
    asked: &Asked,
    held: &mut Held,
) -> Result<Computed, String> {
    let bound = shared.source.bound(mapping).ok_or("ERR the mapping has no table")?;
    let found = bound.mapping.template.find(&key).ok_or("ERR the key does not belong to its mapping")?;
    let mut draft = Draft::new(bound, &found, held.value.clone());
    let reply = say(&mut draft, asked);
    let Some(outcome) = draft.finish(held.foreign) else { return Ok(Computed { reply, write: None }) };
    (held.value, held.foreign) = (outcome.value, false);
    let (write, expires_at, base) = (outcome.write, outcome.expires_at, Some(held.version));
    let write = KeyWrite { mapping, key, write, base, expires_at, applies: true };
    Ok(Computed { reply, write: Some(write) })
}
