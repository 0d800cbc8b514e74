//! Writers, and what each of them knows of its writes.
//!
//! A writer has keys of its own and writes one after the other, through either proxy. Each value says who wrote it and as
//! which of its writes.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dsproxy::resp::push_command;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::support::{Resp, Value};

/// Keys of each writer.
pub const KEYS: usize = 3;

/// One key, as its only writer knows it.
#[derive(Clone, Default)]
pub struct Key {
    /// What was tried since the last acknowledged write (and this itself, first): number, and whether it stored a row.
    pub possible: Vec<(u64, bool)>,
    /// Something of it was acknowledged.
    pub acknowledged: bool,
}

/// A writer.
#[derive(Default)]
pub struct Writer {
    id: usize,
    next: u64,
    pub keys: Vec<Key>,
    /// Appended and acknowledged.
    pub appended: HashSet<String>,
    /// Appended, with an unknown outcome.
    pub unknown: HashSet<String>,
    pub acknowledged: u64,
    /// Reads through the proxy of an acknowledged write that showed something older.
    pub stale_reads: u64,
}

pub struct Load {
    pub writers: Vec<Writer>,
    ports: [u16; 2],
}

impl Load {
    pub fn new(count: usize, ports: [u16; 2]) -> Self {
        let writer = |id| Writer { id, keys: vec![Key::default(); KEYS], ..Writer::default() };
        Self { writers: (0..count).map(writer).collect(), ports }
    }

    /// Lets them write until `stop`.
    pub fn run(&mut self, random: &mut StdRng, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<Writer>> {
        let ports = self.ports;
        let writers = std::mem::take(&mut self.writers);
        let start = |mut writer: Writer| {
            let (stop, mut random) = (stop.clone(), StdRng::seed_from_u64(random.random()));
            std::thread::spawn(move || {
                let mut connections = [None, None];
                while !stop.load(Ordering::Relaxed) {
                    let proxy = random.random_range(0..2);
                    writer.step(&mut random, &mut connections[proxy], ports[proxy]);
                }
                writer
            })
        };
        writers.into_iter().map(start).collect()
    }

    pub fn join(&mut self, running: Vec<JoinHandle<Writer>>) {
        self.writers = running.into_iter().map(|writer| writer.join().unwrap()).collect();
    }
}

/// The number of a value, as `{"writer":..,"seq":..}` or a row has it.
fn seq_of(value: &Value) -> Option<u64> {
    let Value::Bulk(bytes) = value else { return None };
    let object: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    object.get("seq")?.as_u64()
}

impl Writer {
    fn step(&mut self, random: &mut StdRng, connection: &mut Option<Resp>, port: u16) {
        let Some(proxy) = connect(connection, port) else {
            std::thread::sleep(Duration::from_millis(10));
            return;
        };
        self.next += 1;
        let alive = match random.random_range(0..10) {
            0..3 => self.append(proxy),
            3 => self.write(random, proxy, false),
            _ => self.write(random, proxy, true),
        };
        if !alive {
            *connection = None;
        }
    }

    /// A row, or a deletion; false when the connection is of no use any more.
    fn write(&mut self, random: &mut StdRng, proxy: &mut Resp, put: bool) -> bool {
        let (at, seq) = (random.random_range(0..KEYS), self.next);
        let key = self.key(at);
        let state = &mut self.keys[at];
        let value = format!("{{\"writer\":{},\"seq\":{seq}}}", self.id);
        let reply = match put {
            true => try_cmd(proxy, &["SET", &key, &value]),
            false => try_cmd(proxy, &["DEL", &key]),
        };
        state.possible.push((seq, put));
        match reply {
            Some(Value::Error(_)) => true,
            None => false,
            Some(_) => {
                *state = Key { possible: vec![(seq, put)], acknowledged: true };
                self.acknowledged += 1;
                let Some(read) = try_cmd(proxy, &["GET", &key]) else { return false };
                let seen = match &read {
                    Value::Error(_) => return true,
                    other => seq_of(other),
                };
                // The other proxy may not know of it; this one must.
                self.stale_reads += u64::from(seen != put.then_some(seq));
                true
            }
        }
    }

    fn append(&mut self, proxy: &mut Resp) -> bool {
        let value = format!("{}-{}", self.id, self.next);
        let reply = try_cmd(proxy, &["SET", &format!("log:{}", self.id), &value]);
        let acknowledged = matches!(reply, Some(Value::Simple(_)));
        if acknowledged {
            self.acknowledged += 1;
            self.appended.insert(value);
        } else {
            self.unknown.insert(value);
        }
        reply.is_some()
    }

    /// The name of its key number `at`.
    pub fn key(&self, at: usize) -> String {
        format!("kv:{}", self.number(at))
    }

    /// The id of its key number `at`.
    pub fn number(&self, at: usize) -> usize {
        self.id * KEYS + at
    }
}

/// A reply, or `None` when the connection is lost.
fn try_cmd(proxy: &mut Resp, args: &[&str]) -> Option<Value> {
    let mut request = Vec::new();
    push_command(&mut request, args.iter().map(|arg| arg.as_bytes()));
    proxy.stream().write_all(&request).ok()?;
    proxy.try_recv().ok()
}

fn connect(connection: &mut Option<Resp>, port: u16) -> Option<&mut Resp> {
    if connection.is_none() {
        *connection = Resp::try_connect(("127.0.0.1", port)).ok();
    }
    connection.as_mut()
}
