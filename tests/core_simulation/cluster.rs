//! A model of a Redis Cluster: nodes that own slots and answer, redirect and migrate as Redis does.

use crate::rng::Rng;
use dsproxy::cluster::Topology;
use dsproxy::resp::{
    Args, RequestLimits, RequestScanner, Scan, push_array_header, push_bulk, push_error, push_integer,
    push_nil, push_simple,
};
use dsproxy::slot::slot;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub const NODES: usize = 4;
/// Hash tags of all keys; each has a slot of its own.
pub const TAGS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Who owns a tag's slot, and where it is being moved.
#[derive(Clone, Copy)]
pub struct Ownership {
    pub owner: usize,
    pub migrating_to: Option<usize>,
    /// By node: has owned it.
    has_owned: [bool; NODES],
}

impl Ownership {
    fn of(owner: usize) -> Self {
        let mut ownership = Self { owner, migrating_to: None, has_owned: [false; NODES] };
        ownership.has_owned[owner] = true;
        ownership
    }
}

#[derive(Default)]
pub struct Node {
    pub data: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Answers every command on keys with this error.
    pub refuses: Option<&'static str>,
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub slots: [Ownership; TAGS.len()],
    /// A source with some of a request's keys answers TRYAGAIN itself (newer servers) instead of ASK (older ones).
    pub source_tries_again: bool,
}

/// What a node knows about one of its connections.
#[derive(Default)]
pub struct Peer {
    pub resp3: bool,
    pub asking: bool,
    /// Queued since `MULTI`; `None` where one was refused.
    multi: Option<Option<Vec<Vec<Vec<u8>>>>>,
}

pub fn addr(node: usize) -> String {
    format!("10.0.0.{}:7000", node + 1)
}

fn tag_of(key: &[u8]) -> usize {
    let wanted = slot(key);
    TAGS.iter().position(|tag| slot(tag.as_bytes()) == wanted).expect("every key has one of the tags")
}

impl Cluster {
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            nodes: (0..NODES).map(|_| Node::default()).collect(),
            slots: [(); TAGS.len()].map(|()| Ownership::of(rng.below(NODES))),
            source_tries_again: rng.per_mille(500),
        }
    }

    /// What a client of the cluster would learn now. Pictures are kept: making one is slow.
    pub fn topology(&self) -> Arc<Topology> {
        thread_local!(static MADE: RefCell<HashMap<[usize; TAGS.len()], Arc<Topology>>> = RefCell::default());
        let owners = self.slots.map(|slot| slot.owner);
        MADE.with_borrow_mut(|made| {
            made.entry(owners)
                .or_insert_with(|| {
                    let mut text = format!("x {}@1 master - 0 0 1 connected 0-16383\n", addr(0));
                    for (tag, owner) in TAGS.iter().zip(owners) {
                        let slot = slot(tag.as_bytes());
                        text += &format!("x {}@1 master - 0 0 2 connected {slot}\n", addr(owner));
                    }
                    Arc::new(
                        Topology::from_views([("10.0.0.1:7000", text.as_str())]).expect("it is well formed"),
                    )
                })
                .clone()
        })
    }

    /// One random step of moving slots about. A slot only moves on when the core knows where it is and nothing is on its
    /// way to it (`may_move`), and never comes back: else a request that was redirected could be overtaken by one that
    /// took the old way and found the slot moved once more, and no sender that does not wait could prevent it.
    pub fn reshard(&mut self, rng: &mut Rng, may_move: impl Fn(usize) -> bool) {
        let tag = rng.below(TAGS.len());
        let Ownership { owner, migrating_to, .. } = self.slots[tag];
        let Some(to) = migrating_to else {
            let to = rng.below(NODES);
            let is_first_move = self.slots[tag].has_owned.iter().filter(|has| **has).count() == 1;
            if !self.slots[tag].has_owned[to] && (is_first_move || may_move(tag)) {
                self.slots[tag].migrating_to = Some(to);
            }
            return;
        };
        let keys: Vec<Vec<u8>> =
            self.nodes[owner].data.keys().filter(|key| tag_of(key) == tag).cloned().collect();
        if keys.is_empty() {
            let slot = &mut self.slots[tag];
            slot.owner = to;
            slot.migrating_to = None;
            slot.has_owned[to] = true;
            return;
        }
        for _ in 0..rng.within(1, keys.len()) {
            let key = rng.pick(&keys);
            if let Some(value) = self.nodes[owner].data.remove(key) {
                self.nodes[to].data.insert(key.clone(), value);
            }
        }
    }

    pub fn finish_resharding(&mut self, rng: &mut Rng) {
        while self.slots.iter().any(|slot| slot.migrating_to.is_some()) {
            let before = self.slots;
            self.reshard(rng, |_| false);
            // A step may have begun another move: only those that were under way are finished.
            for (slot, before) in self.slots.iter_mut().zip(before) {
                if before.migrating_to.is_none() {
                    slot.migrating_to = None;
                }
            }
        }
    }

    /// The value of a key, wherever it is.
    pub fn value(&self, key: &[u8]) -> Option<&Vec<u8>> {
        self.nodes.iter().find_map(|node| node.data.get(key))
    }

    /// Takes one whole request off `input` and appends the reply to `output`; false when there is none.
    pub fn serve(&mut self, node: usize, peer: &mut Peer, input: &mut Vec<u8>, output: &mut Vec<u8>) -> bool {
        let mut scanner = RequestScanner::default();
        let scanned = scanner.scan(input, &RequestLimits::default()).expect("the core sends requests");
        let Scan::Complete(length) = scanned else { return false };
        let frame: Vec<u8> = input.drain(..length).collect();
        let args: Vec<&[u8]> = Args::new(&frame, scanner.spans()).iter().collect();
        self.run(node, peer, &args, output);
        true
    }

    fn run(&mut self, node: usize, peer: &mut Peer, args: &[&[u8]], out: &mut Vec<u8>) {
        let name = args[0].to_ascii_uppercase();
        // A transaction keeps the mark for all of its commands.
        let asking = peer.asking;
        peer.asking = asking && (peer.multi.is_some() || name == b"MULTI") && name != b"EXEC";
        let keys: Vec<&[u8]> = match &name[..] {
            b"MULTI" => {
                assert!(peer.multi.is_none(), "a transaction within another");
                peer.multi = Some(Some(Vec::new()));
                return push_simple(out, "OK");
            }
            b"EXEC" => return self.exec(node, peer, asking, out),
            b"HELLO" => {
                peer.resp3 = args[1] == b"3";
                return out.extend_from_slice(b"%1\r\n$5\r\nproto\r\n:3\r\n");
            }
            b"ASKING" => {
                peer.asking = true;
                return push_simple(out, "OK");
            }
            b"MGET" | b"DEL" | b"EXISTS" => args[1..].to_vec(),
            b"MSET" => args[1..].iter().step_by(2).copied().collect(),
            b"GET" | b"SET" | b"INCR" | b"APPEND" => vec![args[1]],
            other => panic!("the core sent {}", other.escape_ascii()),
        };
        let error =
            self.nodes[node].refuses.map(str::to_owned).or_else(|| self.redirect(node, asking, &keys));
        if let Some(error) = error {
            if let Some(queued) = &mut peer.multi {
                *queued = None;
            }
            return push_error(out, &error);
        }
        if let Some(queued) = &mut peer.multi {
            if let Some(queued) = queued {
                queued.push(args.iter().map(|arg| arg.to_vec()).collect());
            }
            return push_simple(out, "QUEUED");
        }
        self.nodes[node].run(&name, args, if peer.resp3 { 3 } else { 2 }, out);
    }

    fn exec(&mut self, node: usize, peer: &mut Peer, asking: bool, out: &mut Vec<u8>) {
        let Some(queued) = peer.multi.take().expect("EXEC comes after MULTI") else {
            return push_error(out, "EXECABORT Transaction discarded because of previous errors.");
        };
        let keys: Vec<&[u8]> = queued.iter().map(|args| &args[1][..]).collect();
        if let Some(error) = self.redirect(node, asking, &keys) {
            return push_error(out, &error);
        }
        push_array_header(out, queued.len());
        for args in &queued {
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            self.nodes[node].run(&args[0].to_ascii_uppercase(), &args, if peer.resp3 { 3 } else { 2 }, out);
        }
    }

    /// As `getNodeByQuery` in Redis' cluster.c.
    fn redirect(&self, node: usize, asking: bool, keys: &[&[u8]]) -> Option<String> {
        let tag = tag_of(keys[0]);
        assert!(keys.iter().all(|key| tag_of(key) == tag), "the core sent keys of several slots");
        let Ownership { owner, migrating_to, .. } = self.slots[tag];
        let here = keys.iter().filter(|key| self.nodes[node].data.contains_key(**key)).count();
        let again = || Some("TRYAGAIN Multiple keys request during rehashing of slot".to_owned());
        let slot = slot(keys[0]);
        if owner == node {
            let to = migrating_to?;
            if here == keys.len() {
                None
            } else if here > 0 && self.source_tries_again {
                again()
            } else {
                Some(format!("ASK {slot} {}", addr(to)))
            }
        } else if migrating_to == Some(node) && asking {
            if keys.len() > 1 && here < keys.len() { again() } else { None }
        } else {
            Some(format!("MOVED {slot} {}", addr(owner)))
        }
    }
}

impl Node {
    fn run(&mut self, name: &[u8], args: &[&[u8]], protocol: u8, out: &mut Vec<u8>) {
        let data = &mut self.data;
        let push_value = |out: &mut Vec<u8>, value: Option<&Vec<u8>>| match value {
            Some(value) => push_bulk(out, value),
            None => push_nil(out, protocol),
        };
        match name {
            b"GET" => push_value(out, data.get(args[1])),
            b"MGET" => {
                push_array_header(out, args.len() - 1);
                args[1..].iter().for_each(|key| push_value(out, data.get(*key)));
            }
            b"SET" | b"MSET" => {
                for pair in args[1..].chunks(2) {
                    data.insert(pair[0].to_vec(), pair[1].to_vec());
                }
                push_simple(out, "OK");
            }
            b"DEL" => {
                push_integer(out, args[1..].iter().filter(|key| data.remove(**key).is_some()).count() as i64)
            }
            b"EXISTS" => {
                push_integer(out, args[1..].iter().filter(|key| data.contains_key(**key)).count() as i64);
            }
            b"INCR" => {
                let value = data.entry(args[1].to_vec()).or_insert_with(|| b"0".to_vec());
                let next =
                    std::str::from_utf8(value).expect("counters are text").parse::<i64>().expect("a number")
                        + 1;
                *value = next.to_string().into_bytes();
                push_integer(out, next);
            }
            b"APPEND" => {
                let value = data.entry(args[1].to_vec()).or_default();
                value.extend_from_slice(args[2]);
                push_integer(out, value.len() as i64);
            }
            _ => unreachable!("checked by the caller"),
        }
    }
}
