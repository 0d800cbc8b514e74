//! Transactions that watch keys and write mapped ones.
//!
//! Must not know: how writes become durable, the database.
//!
//! The writes go to [`crate::modify`], which has them journaled undecided; then the transaction is sent over the connection that
//! watches, and its reply decides: nil means that a watched key has changed, and nothing has happened. The client is answered once
//! what was decided is durable. A client that goes, or a connection that is lost in between, drops the channel that the
//! decision would have gone through: then it is found out from the cache.

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
        let (Some(data), Some(client)) = (&self.data, self.clients.get(index)) else { return };
        let Some(watch) = &client.watch else { return };
        let key = (index as u32, client.serial, seq);
        let unit = Unit::new(command, whole, queued).on_trial(Trial::default());
        let base = |write: &KeyWrite| {
            let seen = watch.seen.iter().find(|(_, seen, _)| *seen == write.key);
            Some(seen.map_or(u64::MAX, |(.., version)| *version))
        };
        let writes =
            unit.writes().into_iter().map(|write| KeyWrite { base: base(&write), ..write }).collect();
        let watched = watch.seen.iter().map(|(mapping, key, _)| (*mapping, key.clone())).collect();
        let (told, trial) = (data.told.clone(), modify::Trial { writes, watched, fence: watch.fence });
        self.units.insert(key, unit);
        // The receiver is gone only when the worker has stopped: then nobody waits.
        let tell = Box::new(move |stage| drop(told.send(Told::Tried(Tried { key, stage }))));
        data.modify.begin_trial(trial, tell);
    }

    pub(super) fn tried(&mut self, tried: Tried) {
        let Tried { key, stage } = tried;
        match stage {
            Stage::Durable(versions, decide) => self.send_trial(key, versions, decide),
            Stage::Refused(error) => {
                if self.units.remove(&key).is_none() {
                    return;
                }
                self.unwatch(key.0 as usize);
                let reply = match error {
                    WriteError::Outrun => self.nil_array(key),
                    error => aborted(&error),
                };
                self.answer_unit(key, &reply);
            }
            Stage::Settled(outcome) => self.settled(key, outcome),
        }
    }

    /// The writes are durable: the transaction is sent over the connection that watches.
    fn send_trial(&mut self, key: WritingKey, versions: Vec<u64>, decide: oneshot::Sender<Race>) {
        let (index, serial, _) = key;
        let watch = self.client_mut(ClientKey { index, serial }).and_then(|client| client.watch.take());
        // Without its client nobody has sent it.
        let Some(mut unit) = self.units.remove(&key) else { return };
        let Some(watch) = watch.filter(|watch| !watch.lost) else {
            let nil = self.nil_array(key);
            unit.trial = Some(Trial { decide: None, said: Some((nil, Vec::new())) });
            self.units.insert(key, unit);
            // The receiver is there until it has heard of this.
            let _ = decide.send(Race::Lost);
            return;
        };
        unit.give(versions);
        unit.trial = Some(Trial { decide: Some(decide), said: None });
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
        if let (Some(race), Some(decide)) = (race, decide) {
            // The receiver is there until it has heard of this.
            let _ = decide.send(race);
        }
        true
    }

    /// What is decided is durable: the client is told.
    fn settled(&mut self, key: WritingKey, outcome: Result<(), WriteError>) {
        let Some(unit) = self.units.remove(&key) else { return };
        let command = unit.command();
        let Some((said, again)) = unit.trial.and_then(|trial| trial.said) else { return };
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
        if !self.units.is_empty() {
            self.units.retain(|(index, serial, _), unit| {
                unit.trial.is_none() || (*index, *serial) != (client.index, client.serial)
            });
        }
    }

    fn nil_array(&self, (index, serial, _): WritingKey) -> Vec<u8> {
        let client = self.client(ClientKey { index, serial });
        let third = client.is_some_and(|client| client.session.protocol >= 3);
        if third { b"_\r\n".to_vec() } else { b"*-1\r\n".to_vec() }
    }
}
