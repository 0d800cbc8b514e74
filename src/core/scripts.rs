//! Scripts that clients have shown to this process, for nodes that do not know them.
//!
//! Must not know: connections, clients.
//!
//! A node forgets its scripts when it restarts, or never had them when it is a replica that takes over. The proxy keeps
//! what it sees in `SCRIPT LOAD` and `EVAL`, so that an `EVALSHA` that meets `NOSCRIPT` can be sent again as the `EVAL`
//! that it stands for.

use crate::command::Command;
use crate::resp::{Args, RequestLimits, RequestScanner, Scan, push_array_header, push_bulk};
use rustc_hash::{FxHashMap, FxHashSet};
use sha1::{Digest, Sha1};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Hash = [u8; 20];

/// The scripts that all workers have seen, the oldest forgotten first.
#[derive(Debug)]
pub struct ScriptStore {
    most_bytes: usize,
    /// The proxy's own: never forgotten, whatever clients do.
    own: FxHashMap<Hash, Arc<[u8]>>,
    kept: Mutex<Kept>,
    /// How often it was emptied.
    flushes: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    bodies: FxHashMap<Hash, Arc<[u8]>>,
    order: VecDeque<Hash>,
    bytes: usize,
}

/// What a script costs apart from its own bytes.
const OVERHEAD: usize = 200;

impl ScriptStore {
    /// A store of at most `most_bytes` bytes; with 0 it keeps nothing.
    pub fn new(most_bytes: usize) -> Self {
        let own = crate::sidecar::scripts().into_iter();
        let own =
            own.map(|script| (Sha1::digest(script.body).into(), script.body.as_bytes().into())).collect();
        Self { most_bytes, own, kept: Mutex::default(), flushes: AtomicU64::new(0) }
    }

    fn add(&self, body: &[u8]) {
        let cost = body.len() + OVERHEAD;
        if cost > self.most_bytes {
            return;
        }
        let hash: Hash = Sha1::digest(body).into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bodies.contains_key(&hash) {
            return;
        }
        kept.bytes += cost;
        kept.bodies.insert(hash, body.into());
        kept.order.push_back(hash);
        while kept.bytes > self.most_bytes {
            let Some(oldest) = kept.order.pop_front() else { break };
            let freed = kept.bodies.remove(&oldest).map_or(0, |body| body.len() + OVERHEAD);
            kept.bytes -= freed;
        }
    }

    /// How many there are, the proxy's own left out.
    pub fn kept(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).order.len()
    }

    /// A client has emptied the nodes' caches: what it has dropped is not to come back.
    fn flush(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Kept::default();
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self, hash: &Hash) -> Option<Arc<[u8]>> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner).bodies.get(hash).cloned();
        self.own.get(hash).cloned().or_else(kept)
    }
}

/// One worker's view of the store: what it has handed in already is not hashed again.
#[derive(Debug)]
pub(super) struct Scripts {
    store: Arc<ScriptStore>,
    seen: FxHashSet<u64>,
    /// The store's flushes when `seen` was last emptied.
    flushes: u64,
    hasher: RandomState,
}

/// Bodies that a worker remembers to have handed in.
const SEEN: usize = 4096;

impl Scripts {
    pub fn new(store: Arc<ScriptStore>) -> Self {
        Self { store, seen: FxHashSet::default(), flushes: 0, hasher: RandomState::new() }
    }

    /// Keeps the body that a `SCRIPT LOAD`, `EVAL` or `EVAL_RO` carries; forgets all with `SCRIPT FLUSH`.
    pub fn note(&mut self, command: &Command, args: &Args<'_>) {
        let body = match command.name {
            "eval" | "eval_ro" => args.get(1),
            "script|load" => args.get(2),
            "script|flush" => return self.store.flush(),
            _ => None,
        };
        let Some(body) = body else { return };
        let flushes = self.store.flushes.load(Ordering::Relaxed);
        if self.seen.len() >= SEEN || self.flushes != flushes {
            self.flushes = flushes;
            self.seen.clear();
        }
        if self.seen.insert(self.hasher.hash_one(body)) {
            self.store.add(body);
        }
    }

    /// A `SCRIPT LOAD` of each of the proxy's own scripts, for a new connection.
    pub fn own_loads(&self) -> Vec<Vec<u8>> {
        self.store.own.values().map(|body| load(body)).collect()
    }

    /// The body of the script with this hash, in hexadecimal digits, if it is known.
    pub fn body(&self, hash: &[u8]) -> Option<Vec<u8>> {
        self.store.get(&unhex(hash)?).map(|body| body.to_vec())
    }

    /// The `EVAL` that this `EVALSHA` stands for, if the body is known.
    pub fn spell_out(&self, request: &[u8]) -> Option<Vec<u8>> {
        let mut scanner = RequestScanner::default();
        let Ok(Scan::Complete(_)) = scanner.scan(request, &RequestLimits::default()) else { return None };
        let args = Args::new(request, scanner.spans());
        let name: &[u8] = match crate::command::lookup(args.name())?.name {
            "evalsha" => b"EVAL",
            "evalsha_ro" => b"EVAL_RO",
            _ => return None,
        };
        let body = self.store.get(&unhex(args.get(1)?)?)?;
        let mut eval = Vec::with_capacity(request.len() + body.len());
        push_array_header(&mut eval, args.len());
        push_bulk(&mut eval, name);
        push_bulk(&mut eval, &body);
        for at in 2..args.len() {
            eval.extend_from_slice(args.encoded(at)?);
        }
        Some(eval)
    }
}

impl super::Core {
    /// Counts the scripts that are kept, for the metrics; one worker does it for all.
    pub(super) fn count_scripts(&self) {
        if self.options.about.worker == 0 {
            self.stats.scripts.set(self.scripts.store.kept() as u64);
        }
    }

    /// Heals `NOSCRIPT` with the scripts of this store, which all workers share.
    #[must_use]
    pub fn with_scripts(mut self, store: Arc<ScriptStore>) -> Self {
        self.scripts = Scripts::new(store);
        self
    }
}

/// The `SCRIPT LOAD` of the body of this `EVAL`.
pub(super) fn load_of(eval: &[u8]) -> Option<Vec<u8>> {
    let mut scanner = RequestScanner::default();
    let Ok(Scan::Complete(_)) = scanner.scan(eval, &RequestLimits::default()) else { return None };
    Args::new(eval, scanner.spans()).get(1).map(load)
}

fn load(body: &[u8]) -> Vec<u8> {
    let mut load = Vec::with_capacity(body.len() + 64);
    crate::resp::push_command(&mut load, [&b"SCRIPT"[..], b"LOAD", body]);
    load
}

fn unhex(text: &[u8]) -> Option<Hash> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut hash = [0; 20];
    if text.len() != 40 {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(hash)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is a panic")]
mod tests {
    use super::*;

    /// SHA1 of `return 1`.
    const RETURN_1: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";

    fn request(words: &[&str]) -> Vec<u8> {
        let mut request = Vec::new();
        crate::resp::push_command(&mut request, words.iter().map(|word| word.as_bytes()));
        request
    }

    #[test]
    fn the_oldest_scripts_go_when_there_is_no_room() {
        let store = ScriptStore::new(3 * (OVERHEAD + 10));
        for n in 0..10 {
            store.add(format!("return {n}").as_bytes());
        }
        let known = |n: usize| store.get(&Sha1::digest(format!("return {n}").as_bytes()).into()).is_some();
        assert_eq!((0..10).filter(|n| known(*n)).collect::<Vec<_>>(), [7, 8, 9]);
        store.add(&[b'-'; 10_000]);
        assert!(known(9) && store.kept.lock().unwrap().bytes <= store.most_bytes);
        let none = ScriptStore::new(0);
        none.add(b"return 1");
        assert!(none.kept.lock().unwrap().bodies.is_empty());
    }

    #[test]
    fn an_evalsha_becomes_its_eval() {
        let store = Arc::new(ScriptStore::new(1 << 20));
        let mut scripts = Scripts::new(store);
        let load = request(&["SCRIPT", "LOAD", "return 1"]);
        let mut scanner = RequestScanner::default();
        scanner.scan(&load, &RequestLimits::default()).unwrap();
        let args = Args::new(&load, scanner.spans());
        scripts.note(crate::command::resolve(&args).unwrap(), &args);
        for (sha, eval) in [("EVALSHA", "EVAL"), ("evalsha_ro", "EVAL_RO")] {
            let asked = request(&[sha, &RETURN_1.to_uppercase(), "1", "k", "a"]);
            assert_eq!(scripts.spell_out(&asked), Some(request(&[eval, "return 1", "1", "k", "a"])));
        }
        for other in [&["EVALSHA", "00", "0"][..], &["EVALSHA", &"0".repeat(40), "0"], &["GET", RETURN_1]] {
            assert_eq!(scripts.spell_out(&request(other)), None);
        }
    }
}
