//! Transactions with commands that compute from the value of a mapped key, such as `INCR`.
//!
//! Must not know: how values are computed, how writes become durable, the database.
//!
//! At `EXEC` the keys are loaded where they are not cached, and watched; then the commands are computed in their order from what
//! the keys hold ([`crate::modify`]), and what they write is tried as the writes of any transaction that watches keys
//! (`trial.rs`). When somebody else was quicker the node has not executed it, and all of it begins again, unless the client
//! watches keys itself: then it is told, as by Redis.

use super::super::{ClientKey, Core};
use super::Told;
use super::unit::{Queued, Unit, Whole, Writes, aborted_for, write_of};
use super::writing::{Step, WritingKey};
use crate::cache::{Miss, Until};
use crate::command::Command;
use crate::mapping::MappingId;
use crate::modify::{Computed, Ordered};
use crate::writeback::{KeyWrite, Write};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// Longest pause before such a transaction begins again.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A transaction whose commands are to be computed.
#[derive(Debug)]
pub(in crate::core) struct Computing {
    command: &'static Command,
    whole: Whole,
    queued: Vec<Queued>,
    /// The client watches keys itself.
    watched: bool,
    /// Until then it begins again.
    until: Instant,
    /// The pause before that.
    pause: Duration,
    /// The keys are about to be watched.
    awaits_watch: bool,
}

/// How far it is.
#[derive(Debug)]
pub struct Progress {
    key: WritingKey,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// It is to begin again.
    Again,
    /// The keys are loaded.
    Loaded,
    /// The commands are computed, or cannot be.
    Computed(Result<Vec<Computed>, String>),
}

impl Core {
    /// `EXEC` of a transaction with such commands, when its client has nothing in flight.
    pub(in crate::core) fn exec_computing(
        &mut self,
        index: usize,
        command: &'static Command,
        whole: Whole,
        queued: Vec<Queued>,
    ) {
        let seq = self.open_alone(index, command);
        let (Some(data), Some(client)) = (&self.data, self.clients.get(index)) else { return };
        let key = (index as u32, client.serial, seq);
        let computing = Computing {
            command,
            whole,
            queued,
            watched: client.watch.is_some(),
            until: Instant::now() + data.modify.patience(),
            pause: Duration::from_millis(1),
            awaits_watch: false,
        };
        self.computing.insert(key, computing);
        self.load_to_compute(key);
    }

    pub(super) fn progress(&mut self, progress: Progress) {
        let Progress { key, stage } = progress;
        match stage {
            Stage::Again => self.load_to_compute(key),
            Stage::Loaded => self.watch_to_compute(key),
            Stage::Computed(Ok(computed)) => self.try_computed(key, computed),
            Stage::Computed(Err(text)) => self.end_computing(key, &aborted_for(&text)),
        }
    }

    fn load_to_compute(&mut self, key: WritingKey) {
        let (Some(data), Some(computing)) = (&self.data, self.computing.get(&key)) else { return };
        let tell = self.teller_of(key);
        data.reads.load(Miss {
            keys: computing.keys(),
            asked: Instant::now(),
            until: Until::Stored,
            // Whatever came of it: a key that cannot be loaded is computed from as it is.
            reply: Box::new(move |_| tell(Stage::Loaded)),
        });
    }

    fn watch_to_compute(&mut self, key: WritingKey) {
        let (index, serial, _) = key;
        let watch = self.client(ClientKey { index, serial }).and_then(|client| client.watch.as_ref());
        let lost = watch.is_none_or(|watch| watch.lost);
        let Some(computing) = self.computing.get_mut(&key) else { return };
        if computing.watched && lost {
            let nil = self.nil_array(key);
            return self.end_computing(key, &nil);
        }
        computing.awaits_watch = true;
        let (keys, slot, command) = (computing.keys(), computing.whole.slot, computing.command);
        if let Err(reply) = self.watch_mapped(key, command, slot, &keys) {
            self.end_computing(key, &reply);
        }
    }

    /// The node has answered to the watch, or will not. False when the reply is to something else.
    pub(super) fn watch_answered(&mut self, key: WritingKey, reply: &[u8]) -> bool {
        let Some(computing) = self.computing.get_mut(&key) else { return false };
        if !std::mem::take(&mut computing.awaits_watch) {
            return false;
        }
        if let Some(error) = reply.strip_prefix(b"-") {
            let reply = aborted_for(String::from_utf8_lossy(error).trim_end());
            self.end_computing(key, &reply);
            return true;
        }
        let commands = computing.queued.iter().flat_map(|queued| ordered(&queued.writes)).collect();
        let tell = self.teller_of(key);
        if let Some(data) = &self.data {
            data.modify.compute(commands, Box::new(move |computed| tell(Stage::Computed(computed))));
        }
        true
    }

    /// The commands are computed: their writes are tried.
    fn try_computed(&mut self, key: WritingKey, computed: Vec<Computed>) {
        let Some(computing) = self.computing.get(&key) else { return };
        let (mut queued, mut computed) = (computing.queued.clone(), computed.into_iter());
        for queued in queued.iter_mut().filter(|queued| queued.writes.asks()) {
            let Some(Computed { reply, write }) = computed.next() else { break };
            let base = write.as_ref().and_then(|write| write.base).unwrap_or_default();
            queued.writes.computed = Some((reply, base));
            // The transaction is executed only if its keys hold what it was computed from.
            let step = |write| Step::Write(KeyWrite { base: None, ..write }, 0);
            queued.writes.steps = write.map(step).into_iter().collect();
        }
        let unit = Unit::new(computing.command, computing.whole.clone(), queued);
        self.begin_trial(key, unit);
    }

    /// The transaction was not executed: true when it begins again, or its client has been told that it cannot.
    pub(super) fn compute_again(&mut self, key: WritingKey) -> bool {
        let Some(computing) = self.computing.get_mut(&key).filter(|computing| !computing.watched) else {
            self.computing.remove(&key);
            return false;
        };
        let pause = computing.pause;
        computing.pause = (pause * 2).min(LONGEST_PAUSE);
        let mapping = computing.keys().first().map_or(0, |(mapping, _)| *mapping);
        let over = Instant::now() > computing.until;
        let tell = self.teller_of(key);
        let Some(data) = &self.data else { return false };
        if over {
            let reply = aborted_for(&data.modify.outrun_too_often());
            self.end_computing(key, &reply);
        } else {
            data.modify.pause(mapping, pause, Box::new(move |()| tell(Stage::Again)));
        }
        true
    }

    /// It is not executed: its client is told why.
    fn end_computing(&mut self, key: WritingKey, reply: &[u8]) {
        if self.computing.remove(&key).is_some() {
            let (index, serial, _) = key;
            if self.client(ClientKey { index, serial }).is_some() {
                self.unwatch(index as usize);
            }
            self.answer_unit(key, reply);
        }
    }

    /// Tells this core how far a transaction is.
    fn teller_of(&self, key: WritingKey) -> impl FnOnce(Stage) + Send + use<> {
        let told = self.data.as_ref().map(|data| data.told.clone());
        move |stage| {
            // The receiver is gone only when the worker has stopped: then nobody waits.
            let _ = told.map(|told| told.send(Told::Computing(Progress { key, stage })));
        }
    }
}

impl Computing {
    /// The keys from whose values it computes, each once.
    fn keys(&self) -> Vec<(MappingId, Bytes)> {
        let mut keys = Vec::new();
        for (mapping, key, _) in self.queued.iter().filter_map(|queued| queued.writes.asks.as_ref()) {
            if keys.iter().all(|(_, known)| known != key) {
                keys.push((*mapping, key.clone()));
            }
        }
        keys
    }
}

/// What others may compute from.
fn ordered(writes: &Writes) -> Vec<Ordered> {
    if let Some((mapping, key, asked)) = &writes.asks {
        return vec![Ordered::Asks(*mapping, key.clone(), asked.clone())];
    }
    let writes = writes.steps.iter().filter_map(write_of).map(|write| match write.write {
        Write::Put { value, .. } => Ordered::Writes(write.key, Some(value)),
        Write::Delete { .. } => Ordered::Writes(write.key, None),
    });
    writes.collect()
}
