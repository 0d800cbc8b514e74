//! Transactions that watch keys and write mapped ones.
//!
//! Must not know: how writes become durable, the database.
//!
//! The writes go to [`crate::modify`], which has them journaled undecided; then the transaction is sent over the connection that
//! watches, and its reply decides: nil means that a watched key has changed, and nothing has happened. The client is answered once
//! what was decided is durable. A client that goes, or a connection that is lost in between, drops the channel that the
//! decision would have gone through: then it is found out from the cache. A transaction with commands that compute comes here, too,
//! once they are computed (`computing.rs`), and again when it was not executed.

use super::super::{ClientKey, Core};
use super::Told;
use super::unit::{Queued, Unit, Whole, aborted};
use super::unit_reply::elements;
use super::writing::{Step, WritingKey};
use crate::command::Command;
use crate::modify::{self, Stage};
use crate::resp::push_error;
use crate::writeback::{KeyWrite, Race, WriteError};
use tokio::sync::oneshot;

/// A transaction that was not executed, in RESP3.
const NIL: &[u8] = b"_\r\n";
/// The same in RESP2.
const NIL_ARRAY: &[u8] = b"*-1\r\n";

/// What is known of such a transaction.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// Where its node's decision goes.
    decide: Option<oneshot::Sender<Race>>,
    /// What its client is told once that is durable, and what is to be written once more before.
    said: Option<(Vec<u8>, Vec<Step>)>,
}

/// How far a transaction is.
#[derive(Debug)]
pub struct Tried {
    key: WritingKey,
    stage: Stage,
}

impl Core {
    /// `EXEC` of a transaction that writes mapped keys, of a client that watches keys.
    pub(in crate::core) fn exec_tried(
        &mut self,
        index: usize,
        command: &'static Command,
        whole: Whole,
        queued: Vec<Queued>,
    ) {
        let seq = self.open_alone(index, command);
        let Some(client) = self.clients.get(index) else { return };
        let key = (index as u32, client.serial, seq);
        self.begin_trial(key, Unit::new(command, whole, queued));
    }

    /// Has the writes of a transaction journaled undecided; its client watches keys, and waits.
    pub(super) fn begin_trial(&mut self, key: WritingKey, unit: Unit) {
        let (index, serial, _) = key;
        let Some(data) = &self.data else { return };
        let Some(watch) = self.client(ClientKey { index, serial }).and_then(|client| client.watch.as_ref())
        else {
            return;
        };
        let unit = unit.on_trial(Trial::default());
        let base = |write: &KeyWrite| {
            let seen = watch.seen.iter().find(|(_, seen, _)| *seen == write.key);
            seen.map_or(u64::MAX, |(.., version)| *version)
        };
        let writes: Vec<KeyWrite> = (unit.writes_and_bases())
            .map(|(write, computed)| KeyWrite { base: computed.or_else(|| Some(base(&write))), ..write })
            .collect();
        if writes.is_empty() {
            // What was computed changes nothing: there is nothing to be decided.
            self.units.insert(key, unit);
            return self.send_trial(key, Vec::new(), None);
        }
        let watched = watch.seen.iter().map(|(mapping, key, _)| (*mapping, key.clone())).collect();
        let (told, trial) = (data.told.clone(), modify::Trial { writes, watched, fence: watch.fence });
        // The receiver is gone only when the worker has stopped: then nobody waits.
        let tell = Box::new(move |stage| drop(told.send(Told::Tried(Tried { key, stage }))));
        data.modify.begin_trial(trial, tell);
        self.units.insert(key, unit);
    }

    pub(super) fn tried(&mut self, tried: Tried) {
        let Tried { key, stage } = tried;
        match stage {
            Stage::Durable(versions, decide) => self.send_trial(key, versions, Some(decide)),
            Stage::Refused(error) => {
                if self.units.remove(&key).is_none() {
                    return;
                }
                self.unwatch(key.0 as usize);
                let reply = match error {
                    WriteError::Outrun if self.compute_again(key) => return,
                    WriteError::Outrun => self.nil_array(key),
                    error => aborted(&error),
                };
                self.answer_unit(key, &reply);
            }
            Stage::Settled(outcome) => self.settled(key, outcome),
        }
    }

    /// The writes are durable: the transaction is sent over the connection that watches.
    fn send_trial(&mut self, key: WritingKey, versions: Vec<u64>, decide: Option<oneshot::Sender<Race>>) {
        let (index, serial, _) = key;
        let watch = self.client_mut(ClientKey { index, serial }).and_then(|client| client.watch.take());
        // Without its client nobody has sent it.
        let Some(mut unit) = self.units.remove(&key) else { return };
        let Some(watch) = watch.filter(|watch| !watch.lost) else {
            let nil = self.nil_array(key);
            unit.trial = Some(Trial { decide: None, said: Some((nil, Vec::new())) });
            self.units.insert(key, unit);
            return self.decided(key, Some(Race::Lost), decide);
        };
        unit.give(versions);
        unit.trial = Some(Trial { decide, said: None });
        let (entry, request) = self.spell_unit(key, &mut unit);
        self.units.insert(key, unit);
        self.send_watched(index as usize, watch.upstream, entry, &request);
    }

    /// The node has answered, or will not. False when the reply is to no such transaction.
    pub(super) fn trial_answered(&mut self, key: WritingKey, reply: &[u8]) -> bool {
        if self.units.get(&key).is_none_or(|unit| unit.trial.is_none()) {
            return false;
        }
        let Some(mut unit) = self.units.remove(&key) else { return false };
        let decide = unit.trial.as_mut().and_then(|trial| trial.decide.take());
        let rest = unit.over();
        let (race, said) = match elements(reply) {
            Some(elements) => (Some(Race::Won), self.read_unit(unit, elements)),
            None if reply.starts_with(b"-EXECABORT") => (Some(Race::Lost), (reply.to_vec(), Vec::new())),
            None if reply.starts_with(b"-") => (None, (reply.to_vec(), Vec::new())),
            None => (Some(Race::Lost), (reply.to_vec(), Vec::new())),
        };
        self.units.insert(key, rest.on_trial(Trial { decide: None, said: Some(said) }));
        self.decided(key, race, decide);
        true
    }

    /// What the node says goes to who waits for it, or, where nothing was to be decided, to the client.
    fn decided(&mut self, key: WritingKey, race: Option<Race>, decide: Option<oneshot::Sender<Race>>) {
        match (race, decide) {
            // The receiver is there until it has heard of this.
            (Some(race), Some(decide)) => drop(decide.send(race)),
            (None, Some(_)) => {}
            (_, None) => self.settled(key, Ok(())),
        }
    }

    /// What is decided is durable: the client is told.
    fn settled(&mut self, key: WritingKey, outcome: Result<(), WriteError>) {
        let Some(unit) = self.units.remove(&key) else { return };
        let command = unit.command();
        let Some((said, again)) = unit.trial.and_then(|trial| trial.said) else { return };
        if matches!(&*said, NIL | NIL_ARRAY) && self.compute_again(key) {
            return;
        }
        self.computing.remove(&key);
        match outcome {
            Ok(()) => self.end_unit(key, command, again, said),
            Err(error) => {
                let mut reply = Vec::new();
                let text = format!("{error} (the transaction was executed, and its writes will be stored)");
                push_error(&mut reply, text);
                self.end_unit(key, command, again, reply);
            }
        }
    }

    /// The client is gone: whoever waits for the decision finds it out.
    pub(in crate::core) fn drop_trials(&mut self, client: ClientKey) {
        if !self.computing.is_empty() {
            self.computing.retain(|(index, serial, _), _| (*index, *serial) != (client.index, client.serial));
        }
        if !self.units.is_empty() {
            self.units.retain(|(index, serial, _), unit| {
                unit.trial.is_none() || (*index, *serial) != (client.index, client.serial)
            });
        }
    }

    pub(super) fn nil_array(&self, (index, serial, _): WritingKey) -> Vec<u8> {
        let client = self.client(ClientKey { index, serial });
        let third = client.is_some_and(|client| client.session.protocol >= 3);
        if third { NIL.to_vec() } else { NIL_ARRAY.to_vec() }
    }
}
