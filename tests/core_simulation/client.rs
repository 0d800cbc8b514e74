//! Clients that know what they may be told: what each asked, in order, and whether the answers can be true.

use crate::cluster::TAGS;
use crate::rng::Rng;
use dsproxy::core::ClientKey;
use dsproxy::resp::{ReplyScanner, Scan, push_command};
use dsproxy::slot::slot;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

type Key = Vec<u8>;
type Value = Vec<u8>;

#[derive(Clone)]
pub enum Op {
    Ping,
    Echo(Vec<u8>),
    Unknown,
    WrongArity,
    CrossSlot,
    Hello(u8),
    Quit,
    Get(Key),
    Set(Key, Value),
    MGet(Vec<Key>),
    MSet(Vec<(Key, Value)>),
    Del(Vec<Key>),
    Exists(Vec<Key>),
    Incr(Key),
    Append(Key, Vec<u8>),
    Multi,
    Queued,
    /// Ends a transaction that appends to a log, then sets a key.
    Exec {
        log: Key,
        token: Vec<u8>,
        key: Key,
        value: Value,
    },
}

#[derive(Clone, Debug)]
pub struct Request {
    pub op: Op,
    /// Dialect in which it is answered.
    protocol: u8,
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::new();
        encode(self, &mut bytes);
        let words =
            bytes.split(|b| *b == b'\n').filter(|line| !matches!(line.first(), Some(b'*' | b'$') | None));
        words
            .map(|word| String::from_utf8_lossy(word))
            .try_for_each(|word| write!(f, "{} ", word.trim_end_matches(['\r', '.'])))
    }
}

/// What an answer says about a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    NotRun,
    Unknown,
}

/// One client, from its first byte to the judgement on all it was told.
pub struct Client {
    pub id: usize,
    pub key: ClientKey,
    /// Written, but not yet delivered to the core.
    pub sending: VecDeque<u8>,
    pub pending: VecDeque<Request>,
    pub done: Vec<(Request, Vec<u8>)>,
    /// Sends nothing more.
    pub finishing: bool,
    /// The core knows that it sends nothing more.
    pub eof: bool,
    pub reads_slowly: bool,
    received: Vec<u8>,
    scanner: ReplyScanner,
    protocol: u8,
    seq: usize,
}

impl Client {
    pub fn new(id: usize, key: ClientKey) -> Self {
        Self {
            id,
            key,
            sending: VecDeque::new(),
            pending: VecDeque::new(),
            done: Vec::new(),
            finishing: false,
            eof: false,
            reads_slowly: false,
            received: Vec::new(),
            scanner: ReplyScanner::default(),
            protocol: 2,
            seq: 0,
        }
    }

    /// Sends one more random request.
    pub fn ask(&mut self, rng: &mut Rng) {
        self.seq += 1;
        let op = self.random_op(rng);
        if let Op::Hello(protocol) = op {
            self.protocol = protocol;
        }
        self.finishing |= matches!(op, Op::Quit);
        let mut bytes = Vec::new();
        if let Op::Exec { log, token, key, value } = &op {
            encode(&Op::Multi, &mut bytes);
            encode(&Op::Append(log.clone(), token.clone()), &mut bytes);
            encode(&Op::Set(key.clone(), value.clone()), &mut bytes);
            for op in [Op::Multi, Op::Queued, Op::Queued] {
                self.pending.push_back(Request { op, protocol: self.protocol });
            }
        }
        encode(&op, &mut bytes);
        self.sending.extend(bytes);
        self.pending.push_back(Request { op, protocol: self.protocol });
    }

    fn random_op(&self, rng: &mut Rng) -> Op {
        match rng.below(100) {
            0..3 => Op::Ping,
            3..6 => Op::Echo(format!("echo {}.{}", self.id, self.seq).into_bytes()),
            6..8 => Op::Unknown,
            8..10 => Op::WrongArity,
            10..12 => Op::CrossSlot,
            12..14 => Op::Hello(if rng.per_mille(700) { 3 } else { 2 }),
            14 if rng.per_mille(100) => Op::Quit,
            14..30 => {
                let key = self.own_key(rng);
                let value = self.value(&key, rng);
                Op::Set(key, value)
            }
            30..50 => Op::Get(self.own_key(rng)),
            50..60 => Op::MGet(self.own_keys(rng)),
            60..68 => Op::MSet(
                self.own_keys(rng)
                    .into_iter()
                    .enumerate()
                    .map(|(n, key)| {
                        let mut value = self.value(&key, rng);
                        value.extend_from_slice(format!("|{n}").as_bytes());
                        (key, value)
                    })
                    .collect(),
            ),
            68..73 => Op::Del(self.own_keys(rng)),
            73..78 => Op::Exists(self.own_keys(rng)),
            78..84 => Op::Incr(shared("counter", rng)),
            84..88 => {
                let key = self.own_key(rng);
                let log = [&key[..3], b"log"].concat();
                let token = format!("<{}.{}>", self.id, self.seq).into_bytes();
                let value = self.value(&key, rng);
                Op::Exec { log, token, key, value }
            }
            88..92 => Op::Append(shared("log", rng), format!("<{}.{}>", self.id, self.seq).into_bytes()),
            92..96 => {
                let key = shared("value", rng);
                let value = self.value(&key, rng);
                Op::Set(key, value)
            }
            _ => Op::Get(shared("value", rng)),
        }
    }

    /// A key that only this client uses.
    fn own_key(&self, rng: &mut Rng) -> Key {
        format!("{{{}}}own{}.{}", rng.pick(&TAGS), self.id, rng.below(2)).into_bytes()
    }

    fn own_keys(&self, rng: &mut Rng) -> Vec<Key> {
        let keys = if rng.per_mille(50) { 20 } else { rng.within(1, 5) };
        if rng.per_mille(300) {
            // One slot: forwarded whole.
            let first = self.own_key(rng);
            let head = &first[..first.len() - 1];
            return (0..keys)
                .map(|_| [head, if rng.per_mille(500) { b"0" } else { b"1" }].concat())
                .collect();
        }
        (0..keys).map(|_| self.own_key(rng)).collect()
    }

    /// A value that says whose it is.
    fn value(&self, key: &[u8], rng: &mut Rng) -> Value {
        let padding = match rng.below(100) {
            0 => 5000,
            1..10 => 200,
            _ => rng.below(10),
        };
        let mut value = key.to_vec();
        value.extend_from_slice(format!("|{}.{}|", self.id, self.seq).as_bytes());
        value.resize(value.len() + padding, b'.');
        value
    }

    /// Bytes have arrived: takes every complete reply.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        while let Scan::Complete(length) = self.scanner.scan(&self.received).expect("replies are well formed")
        {
            let reply: Vec<u8> = self.received.drain(..length).collect();
            let request = self.pending.pop_front().unwrap_or_else(|| {
                panic!("client {} was told {} without asking", self.id, reply.escape_ascii());
            });
            check_shape(&request, &reply);
            self.done.push((request, reply));
        }
    }

    /// Holds what it was told about its own keys against the order in which it asked.
    pub fn judge(&self) {
        let mut unknown: HashMap<&[u8], HashSet<Option<&[u8]>>> = HashMap::new();
        let lost = self.pending.iter().map(|request| (request, Outcome::Unknown));
        for (request, outcome) in self.done.iter().map(|(r, reply)| (r, outcome(&r.op, reply))).chain(lost) {
            if outcome == Outcome::Unknown {
                for (key, value) in writes(&request.op) {
                    unknown.entry(key).or_default().insert(value);
                }
            }
        }
        let mut state: HashMap<&[u8], &[u8]> = HashMap::new();
        for (request, reply) in &self.done {
            let keys = keys(&request.op);
            if keys.iter().any(|key| !key.windows(4).any(|w| w == b"}own")) || reply[0] == b'-' {
                continue;
            }
            match &request.op {
                Op::Get(_) | Op::MGet(_) => {
                    for (key, got) in keys.iter().zip(values(reply)) {
                        let expected = state.get(*key).copied();
                        let possible = got == expected || unknown.get(*key).is_some_and(|u| u.contains(&got));
                        assert!(
                            possible,
                            "client {}: {:?} of {} is {:?}, expected {:?}",
                            self.id,
                            &request.op,
                            key.escape_ascii(),
                            got.map(|v| v.escape_ascii().to_string()),
                            expected.map(|v| v.escape_ascii().to_string()),
                        );
                    }
                }
                Op::Exists(_) | Op::Del(_) if keys.iter().all(|key| !unknown.contains_key(key)) => {
                    let mut counted = keys.clone();
                    if matches!(request.op, Op::Del(_)) {
                        counted.sort_unstable();
                        counted.dedup();
                    }
                    let expected = counted.iter().filter(|key| state.contains_key(*key)).count();
                    assert_eq!(integer(reply), expected as i64, "client {}: {:?}", self.id, request.op);
                }
                _ => {}
            }
            for (key, value) in writes(&request.op) {
                match value {
                    Some(value) => state.insert(key, value),
                    None => state.remove(key),
                };
            }
        }
    }
}

fn shared(kind: &str, rng: &mut Rng) -> Key {
    format!("{{{}}}{kind}", rng.pick(&TAGS)).into_bytes()
}

fn encode(op: &Op, out: &mut Vec<u8>) {
    let many = |name: &'static [u8], keys: &[Key], out: &mut Vec<u8>| {
        let args: Vec<&[u8]> = std::iter::once(name).chain(keys.iter().map(Vec::as_slice)).collect();
        push_command(out, args.iter().copied());
    };
    match op {
        Op::Ping => out.extend_from_slice(b"PING\r\n"),
        Op::Echo(text) => push_command(out, [b"ECHO", &text[..]]),
        Op::Unknown => push_command(out, [&b"NOSUCH"[..], b"x"]),
        Op::WrongArity => push_command(out, [&b"GET"[..], b"x", b"y"]),
        Op::CrossSlot => push_command(out, [&b"SINTER"[..], b"{a}x", b"{b}y"]),
        Op::Hello(2) => push_command(out, [&b"HELLO"[..], b"2"]),
        Op::Hello(_) => push_command(out, [&b"HELLO"[..], b"3"]),
        Op::Quit => push_command(out, [&b"QUIT"[..]]),
        Op::Get(key) => push_command(out, [b"GET", &key[..]]),
        Op::Set(key, value) => push_command(out, [b"SET", &key[..], value]),
        Op::MGet(keys) => many(b"MGET", keys, out),
        Op::Del(keys) => many(b"DEL", keys, out),
        Op::Exists(keys) => many(b"EXISTS", keys, out),
        Op::MSet(pairs) => {
            let flat: Vec<Vec<u8>> =
                pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]).collect();
            many(b"MSET", &flat, out);
        }
        Op::Incr(key) => push_command(out, [b"INCR", &key[..]]),
        Op::Append(key, token) => push_command(out, [b"APPEND", &key[..], token]),
        Op::Multi => push_command(out, [&b"MULTI"[..]]),
        Op::Exec { .. } => push_command(out, [&b"EXEC"[..]]),
        Op::Queued => {}
    }
}

fn keys(op: &Op) -> Vec<&[u8]> {
    match op {
        Op::Get(key) | Op::Set(key, _) | Op::Incr(key) | Op::Append(key, _) | Op::Exec { key, .. } => {
            vec![key]
        }
        Op::MGet(keys) | Op::Del(keys) | Op::Exists(keys) => keys.iter().map(Vec::as_slice).collect(),
        Op::MSet(pairs) => pairs.iter().map(|(key, _)| key.as_slice()).collect(),
        _ => Vec::new(),
    }
}

/// What a SET-like request makes of its keys.
fn writes(op: &Op) -> Vec<(&[u8], Option<&[u8]>)> {
    match op {
        Op::Set(key, value) | Op::Exec { key, value, .. } => vec![(key, Some(value))],
        Op::MSet(pairs) => pairs.iter().map(|(key, value)| (&key[..], Some(&value[..]))).collect(),
        Op::Del(keys) => keys.iter().map(|key| (&key[..], None)).collect(),
        _ => Vec::new(),
    }
}

/// What the client may conclude from an answer.
pub fn outcome(op: &Op, reply: &[u8]) -> Outcome {
    if reply[0] != b'-' {
        return Outcome::Done;
    }
    let keys = keys(op);
    let split = keys.windows(2).any(|pair| slot(pair[0]) != slot(pair[1]));
    let text = String::from_utf8_lossy(reply);
    if split || text.contains(" is unknown") { Outcome::Unknown } else { Outcome::NotRun }
}

/// Errors that a request on keys may be answered with when nodes fail.
const FAILURES: [&str; 6] = [
    "-ERR dsproxy: the connection to ",
    "-ERR dsproxy: 10.0.0.",
    "-ERR dsproxy: no node could serve",
    "-LOADING",
    "-CLUSTERDOWN",
    "-TRYAGAIN",
];

fn check_shape(request: &Request, reply: &[u8]) {
    let nil: &[u8] = if request.protocol >= 3 { b"_\r\n" } else { b"$-1\r\n" };
    let failed = FAILURES.iter().any(|text| reply.starts_with(text.as_bytes()));
    let fits = match &request.op {
        Op::Ping => reply == b"+PONG\r\n",
        Op::Echo(text) => reply == [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat(),
        Op::Unknown => reply == b"-ERR unknown command 'NOSUCH', with args beginning with: 'x' \r\n",
        Op::WrongArity => reply == b"-ERR wrong number of arguments for 'get' command\r\n",
        Op::CrossSlot => reply == b"-CROSSSLOT Keys in request don't hash to the same slot\r\n",
        Op::Hello(2) => reply.starts_with(b"*14\r\n"),
        Op::Hello(_) => reply.starts_with(b"%7\r\n"),
        Op::Quit => reply == b"+OK\r\n",
        _ if failed => true,
        Op::Set(..) | Op::MSet(_) => reply == b"+OK\r\n",
        Op::Get(key) => reply == nil || values(reply)[0].is_some_and(|value| belongs(value, key)),
        Op::MGet(keys) => {
            let values = values(reply);
            let nils = values.iter().filter(|value| value.is_none()).count();
            values.len() == keys.len()
                && reply.starts_with(b"*")
                && values.iter().zip(keys).all(|(value, key)| value.is_none_or(|value| belongs(value, key)))
                && (nils == 0 || reply.windows(nil.len()).any(|w| w == nil))
        }
        Op::Del(keys) | Op::Exists(keys) => (0..=keys.len() as i64).contains(&integer(reply)),
        Op::Incr(_) | Op::Append(..) => integer(reply) > 0,
        Op::Multi => reply == b"+OK\r\n",
        Op::Queued => reply == b"+QUEUED\r\n",
        Op::Exec { .. } => {
            reply.starts_with(b"*2\r\n:") && reply.ends_with(b"\r\n+OK\r\n")
                || reply.starts_with(b"-EXECABORT ")
        }
    };
    assert!(fits, "{:?} was answered {}", request.op, reply.escape_ascii());
}

fn belongs(value: &[u8], key: &[u8]) -> bool {
    value.strip_prefix(key).is_some_and(|rest| rest.starts_with(b"|"))
}

pub fn integer(reply: &[u8]) -> i64 {
    let digits = reply.strip_prefix(b":").and_then(|rest| rest.strip_suffix(b"\r\n"));
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(i64::MIN)
}

/// The elements of an array of bulk strings and nils, or the one such value.
fn values(reply: &[u8]) -> Vec<Option<&[u8]>> {
    let mut values = Vec::new();
    let mut rest = reply;
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let (line, after) = (&rest[..end - 1], &rest[end + 1..]);
        rest = after;
        match line[0] {
            b'_' => values.push(None),
            b'$' if line == b"$-1" => values.push(None),
            b'$' => {
                let length: usize =
                    std::str::from_utf8(&line[1..]).expect("digits").parse().expect("a length");
                values.push(Some(&after[..length]));
                rest = &after[length + 2..];
            }
            _ => {}
        }
    }
    values
}
