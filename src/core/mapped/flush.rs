//! `PROXY FLUSH`: a client waits until what was written before is in the database.
//!
//! Must not know: queues, databases; who answers is told when nobody waits any more.
//!
//! Like `WAIT` it runs when its client's earlier commands are answered, and its later ones wait for it; nobody else does.
//! A client waits for one flush at a time, so there are never more of them than clients.

use super::super::client::{Begun, Slot};
use super::super::{ClientKey, Core, Route};
use super::{Question, Told};
use crate::command::Command;
use crate::mapping::MappingId;
use crate::resp::{Args, push_error};
use rustc_hash::FxHashMap;
use std::time::Duration;
use tokio::sync::oneshot;

const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// The clients that wait, and how whoever waits for them is told to stop: by a word, or when this is dropped.
pub(in crate::core) type Flushes = FxHashMap<ClientKey, (u32, oneshot::Sender<()>)>;

/// A flush that has ended.
#[derive(Debug)]
pub struct Flushed {
    client: ClientKey,
    seq: u32,
    reply: Vec<u8>,
}

impl Core {
    /// `PROXY FLUSH [mapping] [timeout]`, when the client has nothing in flight.
    pub(in crate::core) fn flush(
        &mut self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
    ) -> Result<(), String> {
        let Some((admin, told)) = self.data.as_ref().map(|data| (data.admin.clone(), data.told.clone()))
        else {
            return Err("ERR no mapping is configured".into());
        };
        let (mapping, timeout) = self.what_to_flush(args)?;
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        let protocol = client.session.protocol;
        let seq = client.open(Slot::Waiting(Begun { at: self.now, command: command.id }));
        let client = ClientKey { index: index as u32, serial: client.serial };
        self.stats.inflight.add(1);
        let (stop, stopped) = oneshot::channel();
        self.flushes.insert(client, (seq, stop));
        self.wait_alone(index);
        // The receiver is gone only when the worker has stopped: then nobody waits.
        let done = Box::new(move |reply| drop(told.send(Told::Flushed(Flushed { client, seq, reply }))));
        admin.ask(Question::Flush { mapping, timeout, stopped }, protocol, done);
        Ok(())
    }

    /// A single argument that is no mapping's name is the timeout.
    fn what_to_flush(&self, args: &Args<'_>) -> Result<(Option<MappingId>, Option<Duration>), String> {
        let mappings = || self.data.iter().flat_map(|data| data.source.mappings().iter());
        let named = |name: &[u8]| mappings().find(|it| it.name.as_bytes() == name).map(|it| it.id);
        let unknown = |name: &[u8]| format!("ERR there is no mapping '{}'", String::from_utf8_lossy(name));
        match (args.get(2), args.get(3)) {
            _ if args.len() > 4 => Err("ERR wrong number of arguments for 'proxy|flush' command".into()),
            (None, _) => Ok((None, None)),
            (Some(word), None) => match (named(word), super::super::local::integer(word)) {
                (Some(mapping), _) => Ok((Some(mapping), None)),
                (None, Some(_)) => Ok((None, Some(milliseconds(word)?))),
                (None, None) => Err(unknown(word)),
            },
            (Some(name), Some(time)) => {
                let mapping = named(name).ok_or_else(|| unknown(name))?;
                Ok((Some(mapping), Some(milliseconds(time)?)))
            }
        }
    }

    /// The back side has an answer.
    pub(super) fn flushed(&mut self, flushed: Flushed) {
        let Flushed { client, seq, reply } = flushed;
        if self.flushes.get(&client).is_none_or(|(waiting, _)| *waiting != seq) {
            return; // answered before
        }
        self.flushes.remove(&client);
        if self.client(client).is_some() {
            self.complete(client.index as usize, seq, &reply, Route::Single);
        }
    }

    /// `CLIENT UNBLOCK`; false when this client does not wait for a flush.
    pub(in crate::core) fn unblock_flush(&mut self, key: ClientKey, error: bool) -> bool {
        let Some((seq, stop)) = self.flushes.remove(&key) else { return false };
        if error {
            let mut reply = Vec::new();
            push_error(&mut reply, UNBLOCKED);
            self.complete(key.index as usize, seq, &reply, Route::Single);
            return true;
        }
        // It is answered with what is left by now. Whoever has just answered it anyway hears nothing.
        let _ = stop.send(());
        let (kept, _) = oneshot::channel();
        self.flushes.insert(key, (seq, kept));
        true
    }

    /// The program ends.
    pub(in crate::core) fn stop_flushes(&mut self) {
        for (key, _) in std::mem::take(&mut self.flushes) {
            if let Some(client) = self.client_mut(key) {
                client.gone = true;
                self.touch(key.index as usize);
            }
        }
    }
}

/// 0 is as long as it takes.
fn milliseconds(text: &[u8]) -> Result<Duration, String> {
    match super::super::local::integer(text) {
        Some(..0) => Err("ERR timeout is negative".into()),
        Some(0) => Ok(Duration::MAX),
        Some(ms) => Ok(Duration::from_millis(ms.unsigned_abs())),
        None => Err("ERR timeout is not an integer or out of range".into()),
    }
}
