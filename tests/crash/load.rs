//! Writers, and what each of them knows of its writes.
//!
//! A writer has keys of its own and writes one after the other, through either proxy. Each value says who wrote it and as
//! which of its writes.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dsproxy::resp::push_command;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::poison::Poisoned;
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
    pub id: usize,
    prefix: String,
    next: u64,
    pub keys: Vec<Key>,
    /// Appended and acknowledged.
    pub appended: HashSet<String>,
    /// Appended, with an unknown outcome.
    pub unknown: HashSet<String>,
    pub acknowledged: u64,
    /// The value of its counter as it was answered last, and how often adding to it since then had an unknown outcome.
    pub counted: (u64, u64),
    /// Answers of its counter that cannot be.
    pub miscounted: Vec<String>,
    /// The proxy through which alone it counts; `None`: through both.
    pub counts_through: Option<usize>,
    /// Reads through the proxy of an acknowledged write that showed something older.
    pub stale_reads: Vec<String>,
    /// Its keys of which some writes are refused.
    pub poisoned: Option<Poisoned>,
}

pub struct Load {
    pub writers: Vec<Writer>,
    ports: [u16; 2],
}

/// How often a writer appends, deletes, writes two keys at once, counts, writes in a transaction, claims a key that it has
/// deleted, and writes what it watches, of sixteen writes; the others are of one row. Besides, one in eight writers writes
/// what may be refused.
const APPENDS: u32 = 3;
const DELETES: u32 = 1;
const PAIRS: u32 = 1;
const COUNTS: u32 = 2;
const UNITS: u32 = 2;
const CLAIMS: u32 = 2;
const WATCHES: u32 = 2;
const POISONED: u32 = 12;

impl Load {
    pub fn new(count: usize, prefix: &str, ports: [u16; 2]) -> Self {
        let writer = |id| Writer {
            id,
            prefix: prefix.to_owned(),
            keys: vec![Key::default(); KEYS],
            counts_through: [None, Some(0), None, Some(1)][id % 4],
            poisoned: (id % 8 == 2).then(|| Poisoned::new(id, prefix, [Some(0), Some(1), None][id / 8 % 3])),
            ..Writer::default()
        };
        Self { writers: (0..count).map(writer).collect(), ports }
    }

    /// All keys that are written.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let count = self.writers.len();
        let Some(writer) = self.writers.first() else { return Vec::new() };
        let rows = (0..count * KEYS).map(|number| format!("{}kv:{number}", writer.prefix));
        let logs = (0..count).map(|id| format!("{}log:{id}", writer.prefix));
        let counters = (0..count).map(|id| format!("{}counter:{id}", writer.prefix));
        let poisoned = self.writers.iter().filter_map(|writer| writer.poisoned.as_ref());
        let refused = poisoned.flat_map(|poisoned| &poisoned.keys).map(|key| key.name.clone());
        rows.chain(logs).chain(counters).chain(refused).map(String::into_bytes).collect()
    }

    /// Of all keys.
    pub fn prefix(&self) -> &str {
        self.writers.first().map_or("", |writer| &writer.prefix)
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
                    writer.step(&mut random, &mut connections[proxy], ports[proxy], proxy);
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
pub fn seq_of(value: &Value) -> Option<u64> {
    let Value::Bulk(bytes) = value else { return None };
    let object: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    object.get("seq")?.as_u64()
}

impl Writer {
    fn step(&mut self, random: &mut StdRng, connection: &mut Option<Resp>, port: u16, through: usize) {
        let Some(proxy) = connect(connection, port) else {
            std::thread::sleep(Duration::from_millis(10));
            return;
        };
        self.next += 1;
        let most = if self.poisoned.is_some() { 16 + POISONED } else { 16 };
        let alive = match random.random_range(0..most) {
            16.. => match &mut self.poisoned {
                Some(poisoned) if poisoned.through.is_none_or(|only| only == through) => {
                    poisoned.step(random, proxy, self.next)
                }
                _ => return,
            },
            ..APPENDS => self.append(proxy),
            n if n < APPENDS + DELETES => self.write(&[random.random_range(0..KEYS)], proxy, false, false),
            n if n < APPENDS + DELETES + PAIRS => self.write(&[0, 1], proxy, true, false),
            n if n < APPENDS + DELETES + PAIRS + COUNTS => {
                if self.counts_through.is_some_and(|only| only != through) {
                    return;
                }
                self.count(proxy)
            }
            n if n < APPENDS + DELETES + PAIRS + COUNTS + UNITS => {
                let put = random.random_bool(0.8);
                self.write(&[random.random_range(0..KEYS)], proxy, put, true)
            }
            n if n < APPENDS + DELETES + PAIRS + COUNTS + UNITS + CLAIMS => {
                let at = random.random_range(0..KEYS);
                self.write(&[at], proxy, false, false) && self.claim(at, proxy)
            }
            n if n < APPENDS + DELETES + PAIRS + COUNTS + UNITS + CLAIMS + WATCHES => {
                self.watch(random.random_range(0..KEYS), proxy)
            }
            _ => self.write(&[random.random_range(0..KEYS)], proxy, true, false),
        };
        if !alive {
            *connection = None;
        }
    }

    /// Rows, or deletions, of the keys number `which` in one command, which is alone in its transaction if it is a `unit`;
    /// false when the connection is of no use any more.
    fn write(&mut self, which: &[usize], proxy: &mut Resp, put: bool, unit: bool) -> bool {
        let seq = self.next;
        let value = format!("{{\"writer\":{},\"seq\":{seq}}}", self.id);
        let mut command = vec![if put { "MSET" } else { "DEL" }.to_owned()];
        for at in which {
            command.push(self.key(*at));
            command.extend(put.then(|| value.clone()));
            self.keys[*at].possible.push((seq, put));
        }
        if let [name, _, _] = command.as_mut_slice() {
            *name = "SET".to_owned();
        }
        let reply = match unit {
            true => transaction(proxy, &command),
            false => try_cmd(proxy, &command),
        };
        match reply {
            Some(Value::Error(_)) => return true,
            None => return false,
            Some(_) => self.acknowledged += 1,
        }
        for at in which {
            self.keys[*at] = Key { possible: vec![(seq, put)], acknowledged: true };
        }
        which.iter().all(|at| self.read_back(*at, proxy, put.then_some(seq)))
    }

    /// Sets its key number `at` together with a plain one, if neither is there.
    fn claim(&mut self, at: usize, proxy: &mut Resp) -> bool {
        self.next += 1;
        let (seq, key) = (self.next, self.key(at));
        let value = format!("{{\"writer\":{},\"seq\":{seq}}}", self.id);
        let plain = format!("{{{key}}}claimed:{seq}");
        self.keys[at].possible.push((seq, true));
        let command = ["MSETNX", &*plain, "x", &*key, &*value].map(str::to_owned);
        match try_cmd(proxy, &command) {
            Some(Value::Int(1)) => {
                self.acknowledged += 1;
                self.keys[at] = Key { possible: vec![(seq, true)], acknowledged: true };
                self.read_back(at, proxy, Some(seq)) && try_cmd(proxy, &["DEL".to_owned(), plain]).is_some()
            }
            Some(Value::Int(_)) => {
                self.keys[at].possible.pop();
                true
            }
            reply => reply.is_some(),
        }
    }

    /// Writes its key number `at` if nobody has touched it since it was read: the flush may have, and then nothing happens.
    fn watch(&mut self, at: usize, proxy: &mut Resp) -> bool {
        let (seq, key) = (self.next, self.key(at));
        let value = format!("{{\"writer\":{},\"seq\":{seq}}}", self.id);
        for command in [&["WATCH", &*key][..], &["GET", &key]] {
            let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            match try_cmd(proxy, &command) {
                None | Some(Value::Error(_)) => return false,
                Some(_) => {}
            }
        }
        self.keys[at].possible.push((seq, true));
        match transaction(proxy, &["SET".to_owned(), key, value]) {
            Some(Value::Simple(_)) => {
                self.acknowledged += 1;
                self.keys[at] = Key { possible: vec![(seq, true)], acknowledged: true };
                self.read_back(at, proxy, Some(seq))
            }
            Some(Value::Nil) => {
                self.keys[at].possible.pop();
                true
            }
            reply => reply.is_some(),
        }
    }

    /// The other proxy may not know of a write yet; the one that has acknowledged it must.
    fn read_back(&mut self, at: usize, proxy: &mut Resp, written: Option<u64>) -> bool {
        let asked = Instant::now();
        match try_cmd(proxy, &["GET".to_owned(), self.key(at)]) {
            None => return false,
            Some(Value::Error(_)) => {}
            Some(seen) if seq_of(&seen) == written => {}
            Some(seen) => {
                let took = asked.elapsed();
                let what = format!("{}: {seen:?} and not {written:?}, after {took:?}", self.key(at));
                self.stale_reads.push(what);
            }
        }
        true
    }

    /// Adds one to its counter: the answer says how often that has happened.
    fn count(&mut self, proxy: &mut Resp) -> bool {
        let reply = try_cmd(proxy, &["INCR".to_owned(), format!("{}counter:{}", self.prefix, self.id)]);
        match reply {
            Some(Value::Int(counted)) => {
                let (least, most) = (self.counted.0 + 1, self.counted.0 + self.counted.1 + 1);
                self.acknowledged += 1;
                // Too few: something was lost or not seen. Too many: something was added twice.
                if !(least..=most).contains(&(counted as u64)) {
                    self.miscounted.push(format!("counter {}: {counted}, not {least} to {most}", self.id));
                }
                self.counted = (counted as u64, 0);
            }
            _ => self.counted.1 += 1,
        }
        reply.is_some()
    }

    fn append(&mut self, proxy: &mut Resp) -> bool {
        let value = format!("{}-{}", self.id, self.next);
        let reply =
            try_cmd(proxy, &["SET".to_owned(), format!("{}log:{}", self.prefix, self.id), value.clone()]);
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
        format!("{}kv:{}", self.prefix, self.number(at))
    }

    /// The id of its key number `at`.
    pub fn number(&self, at: usize) -> usize {
        self.id * KEYS + at
    }
}

/// The reply to this one command between `MULTI` and `EXEC`, or `None` when the connection is lost.
pub fn transaction(proxy: &mut Resp, command: &[String]) -> Option<Value> {
    try_cmd(proxy, &["MULTI".to_owned()])?;
    try_cmd(proxy, command)?;
    match try_cmd(proxy, &["EXEC".to_owned()])? {
        Value::Array(replies) => replies.into_iter().next(),
        refused => Some(refused),
    }
}

/// A reply, or `None` when the connection is lost.
pub fn try_cmd(proxy: &mut Resp, args: &[String]) -> Option<Value> {
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
