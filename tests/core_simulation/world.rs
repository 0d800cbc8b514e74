//! Everything around a core: the clients, the nodes, the wires between, the clock; and what goes wrong with them.

use crate::client::{Client, Op, Outcome, integer, outcome};
use crate::cluster::{Cluster, NODES, Peer, TAGS, addr};
use crate::rng::Rng;
use dsproxy::command::ID_COUNT;
use dsproxy::core::{About, Core, CoreOptions, Kind};
use dsproxy::metrics::worker::WorkerStats;
use dsproxy::resp::RequestLimits;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What may go wrong in one run.
#[derive(Debug)]
pub struct Troubles {
    pub connections_break: bool,
    pub connections_refused: bool,
    pub nodes_refuse: bool,
    pub time_runs_out: bool,
    pub slots_move: bool,
    pub clients_leave: bool,
    pub clients_read_slowly: bool,
}

impl Troubles {
    pub fn random(rng: &mut Rng) -> Self {
        let mut on = || rng.per_mille(400);
        Self {
            connections_break: on(),
            connections_refused: on(),
            nodes_refuse: on(),
            time_runs_out: on(),
            slots_move: on(),
            clients_leave: on(),
            clients_read_slowly: on(),
        }
    }

    /// True when no request may fail, save for what Redis itself says during a migration.
    fn none_that_fails(&self) -> bool {
        !(self.connections_break || self.nodes_refuse || self.time_runs_out)
    }
}

/// A connection as the node sees it.
struct Wire {
    node: usize,
    peer: Peer,
    to_node: Vec<u8>,
    to_core: Vec<u8>,
}

pub struct World {
    rng: Rng,
    troubles: Troubles,
    core: Core,
    stats: Arc<WorkerStats>,
    cluster: Cluster,
    clients: Vec<Client>,
    gone: Vec<Client>,
    wires: BTreeMap<usize, Wire>,
    /// Wires that the core has given up, with bytes that the node may still read.
    cut: Vec<Wire>,
    connecting: Vec<usize>,
    dirty: BTreeSet<usize>,
    next_id: usize,
    ticked_at: u64,
    at_rest: bool,
    /// Owners that the core was told.
    known: [usize; TAGS.len()],
}

const TIMEOUT_US: u64 = 300_000;

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let troubles = Troubles::random(&mut rng);
        let options = CoreOptions {
            request: RequestLimits::default(),
            inflight_per_client: *rng.pick(&[1, 2, 3, 8, 1000]),
            output_pause: *rng.pick(&[1, 60, 1000, 1 << 20]),
            output_max: 1 << 30,
            upstream_inflight: *rng.pick(&[1, 3, 10, 10_000]),
            upstream_buffer: *rng.pick(&[100, 1000, 1 << 20]),
            dedicated_connections: 8,
            dedicated_idle_us: u64::MAX,
            max_retries: 16,
            subscriptions_per_client: 8,
            request_timeout_us: u64::MAX,
            login_timeout_us: u64::MAX,
            command_timeout_us: if troubles.time_runs_out { TIMEOUT_US } else { u64::MAX / 4 },
            backoff_us: (1000, 50_000),
            upstream_auth: None,
            about: About { redis_version: "7.0.0".into(), port: 6380, workers: 1, worker: 0 },
        };
        let cluster = Cluster::new(&mut rng);
        let known = cluster.slots.map(|slot| slot.owner);
        let stats = Arc::new(WorkerStats::new(ID_COUNT, 0));
        let core = Core::new(options, cluster.topology(), None, stats.clone());
        let mut world = Self {
            rng,
            troubles,
            core,
            stats,
            cluster,
            clients: Vec::new(),
            gone: Vec::new(),
            wires: BTreeMap::new(),
            cut: Vec::new(),
            connecting: Vec::new(),
            dirty: BTreeSet::new(),
            next_id: 0,
            ticked_at: 0,
            at_rest: false,
            known,
        };
        world.core.now = 1_000_000;
        for _ in 0..world.rng.within(1, 6) {
            world.connect_client();
        }
        world
    }

    /// The whole life of a world.
    pub fn live(&mut self) {
        for _ in 0..self.rng.within(50, 400) {
            self.step();
        }
        self.come_to_rest();
        self.judge();
    }

    fn connect_client(&mut self) {
        let key = self.core.add_client(Kind::Socket, None);
        self.clients.push(Client::new(self.next_id, key));
        self.next_id += 1;
    }

    fn step(&mut self) {
        self.core.now += self.rng.below(2000) as u64;
        match self.rng.below(100) {
            0..25 => self.client_asks(),
            25..45 => self.deliver_request(),
            45..60 => self.flush_some(),
            60..72 => self.node_serves(),
            72..85 => self.deliver_reply(),
            85..87 => self.write_to_client(),
            87..90 => self.connects(),
            90..98 => self.trouble(),
            _ => self.tick(20_000),
        }
        self.settle();
        if self.core.now - self.ticked_at > 20_000 {
            self.tick(0);
            self.settle();
        }
    }

    fn client_asks(&mut self) {
        let at = self.rng.below(self.clients.len());
        let client = &mut self.clients[at];
        for _ in 0..*self.rng.pick(&[1, 1, 2, 5, 20]) {
            if client.finishing {
                return;
            }
            client.ask(&mut self.rng);
        }
    }

    fn deliver_request(&mut self) {
        let at = self.rng.below(self.clients.len());
        let most = *self.rng.pick(&[1, 10, 100, 100_000]);
        self.deliver_from(at, most);
    }

    fn deliver_from(&mut self, at: usize, most: usize) {
        let client = &mut self.clients[at];
        if !self.core.wants_read(client.key) {
            return;
        }
        if client.sending.is_empty() {
            if client.finishing && !client.eof {
                client.eof = true;
                self.core.client_eof(client.key);
            }
            return;
        }
        let n = most.min(client.sending.len());
        let bytes: Vec<u8> = client.sending.drain(..n).collect();
        self.core.client_data(client.key, &bytes);
    }

    fn flush_some(&mut self) {
        let Some(index) = pick(&mut self.rng, self.dirty.iter().copied()) else { return };
        let most = *self.rng.pick(&[1, 7, 40, 100_000, 100_000]);
        self.flush(index, most);
    }

    fn flush(&mut self, index: usize, most: usize) {
        self.core.clean(index);
        let output = self.core.upstream_output(index);
        let n = most.min(output.len());
        let all = n == output.len();
        if let Some(wire) = self.wires.get_mut(&index) {
            wire.to_node.extend_from_slice(&output[..n]);
            self.core.upstream_wrote(index, n);
        }
        if all || !self.wires.contains_key(&index) {
            self.dirty.remove(&index);
        }
    }

    fn node_serves(&mut self) {
        let requests = *self.rng.pick(&[1, 3, 100]);
        if !self.cut.is_empty() && self.rng.per_mille(300) {
            let at = self.rng.below(self.cut.len());
            let mut wire = self.cut.swap_remove(at);
            self.serve_all(&mut wire);
            return;
        }
        let Some(index) = pick(&mut self.rng, self.wires.keys().copied()) else { return };
        if let Some(wire) = self.wires.get_mut(&index) {
            for _ in 0..requests {
                if !self.cluster.serve(wire.node, &mut wire.peer, &mut wire.to_node, &mut wire.to_core) {
                    break;
                }
            }
        }
    }

    fn serve_all(&mut self, wire: &mut Wire) {
        while self.cluster.serve(wire.node, &mut wire.peer, &mut wire.to_node, &mut wire.to_core) {}
    }

    fn deliver_reply(&mut self) {
        let Some(index) = pick(&mut self.rng, self.wires.keys().copied()) else { return };
        let most = *self.rng.pick(&[1, 5, 30, 100_000, 100_000]);
        self.deliver_to_core(index, most);
    }

    fn deliver_to_core(&mut self, index: usize, most: usize) {
        let Some(wire) = self.wires.get_mut(&index) else { return };
        let n = most.min(wire.to_core.len());
        let bytes: Vec<u8> = wire.to_core.drain(..n).collect();
        if !bytes.is_empty() {
            self.core.upstream_data(index, &bytes);
        }
    }

    /// A client whose socket was full can be written again.
    fn write_to_client(&mut self) {
        let at = self.rng.below(self.clients.len());
        let most = *self.rng.pick(&[1, 10, 100_000]);
        self.write_some(at, most);
    }

    fn write_some(&mut self, at: usize, most: usize) {
        let key = self.clients[at].key;
        self.core.untouch(key);
        let output = self.core.client_output(key);
        let n = most.min(output.len());
        let bytes = output[..n].to_vec();
        if n > 0 {
            self.core.client_wrote(key, n);
        }
        let client = &mut self.clients[at];
        client.receive(&bytes);
        if self.core.is_finished(key) {
            assert!(client.finishing, "client {} was closed although it had not finished", client.id);
            assert!(
                client.eof
                    || matches!(client.done.last(), Some((request, _)) if matches!(request.op, Op::Quit))
            );
            assert!(
                client.pending.is_empty(),
                "client {} was closed without answers to {:?}",
                client.id,
                client.pending
            );
            self.remove_client(at);
        }
    }

    fn remove_client(&mut self, at: usize) {
        let client = self.clients.swap_remove(at);
        self.core.remove_client(client.key);
        self.gone.push(client);
        if !self.at_rest && (self.clients.is_empty() || self.rng.per_mille(700)) {
            self.connect_client();
        }
    }

    fn connects(&mut self) {
        if self.connecting.is_empty() {
            return;
        }
        let at = self.rng.below(self.connecting.len());
        let index = self.connecting.swap_remove(at);
        if self.troubles.connections_refused && self.rng.per_mille(500) {
            self.core.upstream_lost(index, "refused");
        } else {
            self.establish(index);
        }
    }

    fn establish(&mut self, index: usize) {
        let node =
            (0..NODES).find(|node| addr(*node) == self.core.upstream_addr(index)).expect("a known node");
        self.wires
            .insert(index, Wire { node, peer: Peer::default(), to_node: Vec::new(), to_core: Vec::new() });
        self.core.upstream_connected(index);
    }

    fn tick(&mut self, later: u64) {
        self.core.now += later;
        self.ticked_at = self.core.now;
        self.core.tick();
    }

    fn trouble(&mut self) {
        match self.rng.below(7) {
            0 if self.troubles.connections_break => self.connection_breaks(),
            1 if self.troubles.time_runs_out => {
                let later = *self.rng.pick(&[100_000, 200_000, 400_000]);
                self.tick(later);
            }
            2 if self.troubles.nodes_refuse => {
                let node = self.rng.below(NODES);
                let errors = [
                    None,
                    None,
                    Some("LOADING Redis is loading the dataset in memory"),
                    Some("CLUSTERDOWN The cluster is down"),
                ];
                self.cluster.nodes[node].refuses = *self.rng.pick(&errors);
            }
            3 | 4 if self.troubles.slots_move => self.reshard(),
            5 if self.troubles.slots_move => self.learn_topology(),
            6 => {
                let at = self.rng.below(self.clients.len());
                if self.troubles.clients_leave && self.rng.per_mille(300) {
                    self.remove_client(at);
                } else if self.troubles.clients_leave && self.rng.per_mille(300) {
                    self.clients[at].finishing = true;
                } else if self.troubles.clients_read_slowly {
                    self.clients[at].reads_slowly ^= true;
                }
            }
            _ => {}
        }
    }

    fn connection_breaks(&mut self) {
        let Some(index) = pick(&mut self.rng, self.wires.keys().copied()) else { return };
        if self.rng.per_mille(300) {
            let most = self.rng.within(1, 60);
            self.deliver_to_core(index, most);
            self.settle();
        }
        if let Some(wire) = self.wires.remove(&index) {
            if self.rng.per_mille(500) {
                self.cut.push(wire);
            }
            self.core.upstream_lost(index, "reset");
        }
    }

    /// What the driver does after each event.
    fn settle(&mut self) {
        loop {
            while let Some(key) = self.core.outbox.touched.pop() {
                let Some(at) = self.clients.iter().position(|client| client.key == key) else { continue };
                if !self.clients[at].reads_slowly {
                    self.write_some(at, usize::MAX);
                } else {
                    self.core.untouch(key);
                }
            }
            while let Some(key) = self.core.outbox.resume.pop() {
                self.core.resume(key);
            }
            while let Some(index) = self.core.outbox.close.pop() {
                self.cut.extend(self.wires.remove(&index));
            }
            if self.core.outbox.touched.is_empty() && self.core.outbox.resume.is_empty() {
                break;
            }
        }
        self.dirty.extend(self.core.outbox.dirty.drain(..));
        self.connecting.append(&mut self.core.outbox.connect);
        if std::mem::take(&mut self.core.outbox.refresh) && self.rng.per_mille(200) {
            self.learn_topology();
            self.settle();
        }
    }

    fn learn_topology(&mut self) {
        self.known = self.cluster.slots.map(|slot| slot.owner);
        self.core.set_topology(self.cluster.topology());
    }

    fn reshard(&mut self) {
        let (core, wires, known) = (&self.core, &self.wires, self.known);
        let owners = self.cluster.slots.map(|slot| slot.owner);
        let may_move = |tag: usize| {
            let word = format!("{{{}}}", TAGS[tag]).into_bytes();
            let on_the_way = |bytes: &[u8]| bytes.windows(word.len()).any(|window| window == word);
            let busy = (0..2 * NODES).any(|index| on_the_way(core.upstream_output(index)))
                || wires.values().any(|wire| on_the_way(&wire.to_node) || !wire.to_core.is_empty());
            core.parked() == 0 && known[tag] == owners[tag] && !busy
        };
        self.cluster.reshard(&mut self.rng, may_move);
    }

    /// Nothing goes wrong any more: every request must be answered, every client let go.
    fn come_to_rest(&mut self) {
        self.at_rest = true;
        for node in &mut self.cluster.nodes {
            node.refuses = None;
        }
        self.cluster.finish_resharding(&mut self.rng);
        self.learn_topology();
        self.settle();
        self.run_until("answered", |world| {
            world.clients.iter().all(|client| client.pending.is_empty() && client.sending.is_empty())
        });
        for client in &mut self.clients {
            client.finishing = true;
        }
        self.run_until("let go", |world| world.core.client_count() == 0);
        assert_eq!(self.stats.inflight.get(), 0, "commands are counted as waiting");
        assert_eq!(self.stats.clients.get(), 0, "clients are counted as connected");
        assert_eq!(self.core.parked(), 0, "requests wait for a slot");
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..2000 {
            if done(self) && self.core.parked() == 0 {
                return;
            }
            while let Some(index) = self.connecting.pop() {
                self.establish(index);
            }
            self.settle();
            for index in self.dirty.clone() {
                self.flush(index, usize::MAX);
            }
            for mut wire in std::mem::take(&mut self.cut) {
                self.serve_all(&mut wire);
            }
            for index in self.wires.keys().copied().collect::<Vec<_>>() {
                if let Some(mut wire) = self.wires.remove(&index) {
                    self.serve_all(&mut wire);
                    self.wires.insert(index, wire);
                }
                self.deliver_to_core(index, usize::MAX);
                self.settle();
            }
            let mut at = 0;
            while at < self.clients.len() {
                self.clients[at].reads_slowly = false;
                let key = self.clients[at].key;
                self.write_some(at, usize::MAX);
                if self.clients.get(at).is_some_and(|client| client.key == key) {
                    self.deliver_from(at, usize::MAX);
                    at += 1;
                }
                self.settle();
            }
            self.tick(20_000);
            self.settle();
        }
        let waiting: Vec<_> =
            self.clients.iter().map(|client| (client.id, client.sending.len(), &client.pending)).collect();
        panic!("not everything was {what}: {waiting:?}, {} parked", self.core.parked());
    }

    fn judge(&self) {
        let everybody = || self.clients.iter().chain(&self.gone);
        for client in everybody() {
            client.judge();
            if self.troubles.none_that_fails() {
                for (request, reply) in &client.done {
                    let own = !matches!(request.op, Op::Unknown | Op::WrongArity | Op::CrossSlot);
                    // What Redis says during a migration, and a transaction for the same cause.
                    let try_again = reply.starts_with(b"-TRYAGAIN") || reply.starts_with(b"-EXECABORT");
                    let failed = own && reply[0] == b'-' && !try_again;
                    assert!(!failed, "{:?} failed without a cause: {}", request.op, reply.escape_ascii());
                }
            }
        }
        for tag in TAGS {
            self.judge_counter(tag);
            self.judge_log(tag);
        }
    }

    /// Every acknowledged INCR has counted once, every other one at most once.
    fn judge_counter(&self, tag: &str) {
        let counter = format!("{{{tag}}}counter").into_bytes();
        let mut seen = HashSet::new();
        let mut unknown = 0;
        for client in self.clients.iter().chain(&self.gone) {
            let mut last = 0;
            unknown +=
                client.pending.iter().filter(|r| matches!(&r.op, Op::Incr(key) if *key == counter)).count();
            for (request, reply) in &client.done {
                match outcome(&request.op, reply) {
                    _ if !matches!(&request.op, Op::Incr(key) if *key == counter) => {}
                    Outcome::Done => {
                        let value = integer(reply);
                        assert!(seen.insert(value), "two were told {value}");
                        assert!(value > last, "client {} was told {last}, then {value}", client.id);
                        last = value;
                    }
                    Outcome::Unknown => unknown += 1,
                    Outcome::NotRun => {}
                }
            }
        }
        let value =
            self.cluster.value(&counter).map_or(0, |text| integer(&[b":", &text[..], b"\r\n"].concat()));
        let acknowledged = seen.len();
        assert!(
            (acknowledged..=acknowledged + unknown).contains(&(value as usize)),
            "counter {tag} is {value} after {acknowledged} acknowledged and {unknown} unknown increments"
        );
    }

    /// Every acknowledged APPEND is there once, in the order in which its client asked.
    fn judge_log(&self, tag: &str) {
        let log = format!("{{{tag}}}log").into_bytes();
        let text = self.cluster.value(&log).cloned().unwrap_or_default();
        let mut places: HashMap<&[u8], usize> = HashMap::new();
        for (place, token) in text.split_inclusive(|b| *b == b'>').enumerate() {
            assert!(places.insert(token, place).is_none(), "{} was applied twice", token.escape_ascii());
        }
        for client in self.clients.iter().chain(&self.gone) {
            let mut last = None;
            for (request, reply) in &client.done {
                let (Op::Append(key, token) | Op::Exec { log: key, token, .. }) = &request.op else {
                    continue;
                };
                if *key != log {
                    continue;
                }
                let place = places.get(&token[..]).copied();
                let shown = token.escape_ascii();
                match outcome(&request.op, reply) {
                    Outcome::Done => {
                        assert!(place.is_some(), "{shown} was acknowledged and is not there");
                        assert!(place > last, "{shown} was applied too early");
                        last = place;
                    }
                    Outcome::NotRun => {
                        assert!(place.is_none(), "{shown} ran, but the client was told it did not")
                    }
                    Outcome::Unknown => {}
                }
            }
        }
    }
}

fn pick<T>(rng: &mut Rng, items: impl Iterator<Item = T>) -> Option<T> {
    let mut items: Vec<T> = items.collect();
    if items.is_empty() { None } else { Some(items.swap_remove(rng.below(items.len()))) }
}
