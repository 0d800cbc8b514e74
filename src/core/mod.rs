//! The data path of one worker thread: clients on one side, nodes on the other, nothing shared, no I/O.
//!
//! Must not know: sockets, threads, runtimes. Bytes come in through [`Core::client_data`] and
//! [`Core::upstream_data`]; what the driver must do about it stands in [`Outbox`].
//!
//! The path of a hit: `run.rs` finds the requests in a client's bytes and appends each to the log of the node that
//! owns its slot; `reply.rs` finds the replies in a node's bytes and appends each to the output of its client.

mod access;
mod block_timeout;
mod client;
mod count;
mod dedicated;
mod due;
mod fanout;
mod gather;
mod guard;
mod keyspace;
mod leavers;
mod links;
mod local;
mod mapped;
mod monitor;
mod options;
mod order;
mod parking;
mod pause;
mod peers;
mod process;
mod pubsub;
mod reply;
mod retry;
mod routes;
mod run;
mod scan;
mod scripts;
mod session;
mod slow;
mod split;
mod transaction;
mod waits;

pub use access::{Access, AccessError, AccessOptions};
pub use client::{ClientKey, Kind};
pub use mapped::{Admin, DataSide, Question, Told};
pub use options::{About, CoreOptions, UpstreamAuth};
pub use peers::Note;
pub use process::Process;
pub use pubsub::Registry as PubSubRegistry;
pub use scripts::ScriptStore;

use crate::cluster::{Link, Served, Topology, Upstream};
use crate::metrics::worker::WorkerStats;
use crate::resp::{RequestLimits, RequestScanner};
use client::Client;
use count::Route;
use dedicated::Dedicated;
use gather::Gather;
use parking::Parking;
use routes::Routes;
use rustc_hash::FxHashMap;
use session::Session;
use slab::Slab;
use std::sync::Arc;

/// Buffers above this capacity are freed instead of kept for reuse, in bytes.
const SPARE_BYTES: usize = 64 << 10;
/// Bytes read from a client that waits for a reply before it may go on.
const READ_AHEAD: usize = 64 << 10;
/// Most buffers kept for reuse.
const SPARE_BUFFERS: usize = 1024;
/// A client's output is written at once when it has this many bytes, and not only at the end of the turn.
const GATHER_OUTPUT: usize = 16 << 10;

/// What the cores of all workers share; touched by the commands that are about it, not by others.
#[derive(Clone, Debug)]
pub struct Commons {
    /// The process that they belong to.
    pub process: Arc<Process>,
    /// Who subscribes to what.
    pub subscriptions: Arc<PubSubRegistry>,
    /// Scripts that any of them has seen.
    pub scripts: Arc<ScriptStore>,
}

/// What the driver must do; it empties the lists.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Clients with something to write (or to close).
    pub touched: Vec<ClientKey>,
    /// Upstream connections with something to write.
    pub dirty: Vec<usize>,
    /// Upstream connections to be made.
    pub connect: Vec<usize>,
    /// Upstream connections to be closed; the core has forgotten what was on them.
    pub close: Vec<usize>,
    /// Paused clients that may go on: call [`Core::resume`].
    pub resume: Vec<ClientKey>,
    /// The topology looks outdated.
    pub refresh: bool,
}

/// The data path of one worker. See the module's documentation.
pub struct Core {
    /// What the driver must do.
    pub outbox: Outbox,
    /// Microseconds since the core was made; set by the driver once per event.
    pub now: u64,
    options: CoreOptions,
    /// Bounds on one request of a client that has not given the password.
    stranger_limits: RequestLimits,
    clients: Slab<Client>,
    upstreams: Slab<Upstream>,
    node_stats: Vec<Arc<crate::metrics::worker::NodeCells>>,
    routes: Routes,
    parking: Parking,
    pubsub: pubsub::PubSub,
    dedicated: Dedicated,
    scripts: scripts::Scripts,
    data: Option<DataSide>,
    /// Whether hits of any mapping are looked at.
    watches: bool,
    /// Commands whose writes are under way.
    writing: FxHashMap<mapped::WritingKey, mapped::Writing>,
    units: FxHashMap<mapped::WritingKey, mapped::Unit>,
    /// Transactions whose commands are to be computed.
    computing: FxHashMap<mapped::WritingKey, mapped::Computing>,
    /// By client (index, serial number): commands under way that compute a value from the one that is there.
    modifying: FxHashMap<(u32, u32), usize>,
    /// Clients that wait for a flush.
    flushes: mapped::Flushes,
    stats: Arc<WorkerStats>,
    next_serial: u32,
    spare: Vec<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "a gather moves between here and its slot without being copied")]
    spare_gathers: Vec<Box<Gather>>,
    scanner: RequestScanner,
    key_indexes: Vec<u32>,
    by_slot: Vec<(u16, u32)>,
    stopping: bool,
    /// What `CLIENT PAUSE` holds.
    held: pause::Held,
    waits: waits::Waits,
    failures: retry::FailureLog,
    process: Arc<Process>,
    asked: peers::Asked,
    /// Each `INFO` that waits for nodes: its client, its place in the order, and until when.
    infos: Vec<(ClientKey, u32, u64)>,
    /// Since the topology changed, not all connections were looked at (see `leavers.rs`).
    may_have_left: bool,
    /// [`crate::config::Live::slow_us`] as of the last tick.
    slow_us: u64,
    /// Commands that may still be logged as slow before the next tick.
    slow_left: u32,
}

/// Keeps a buffer for reuse, unless it has grown large.
fn recycle(mut buffer: Vec<u8>, spare: &mut Vec<Vec<u8>>) {
    if (1..=SPARE_BYTES).contains(&buffer.capacity()) && spare.len() < SPARE_BUFFERS {
        buffer.clear();
        spare.push(buffer);
    }
}

impl Core {
    /// A core without clients.
    pub fn new(
        options: CoreOptions,
        topology: Arc<Topology>,
        data: Option<DataSide>,
        stats: Arc<WorkerStats>,
    ) -> Self {
        let process = Arc::new(Process::alone(stats.clone()));
        let slow_us = process.live.slow_us.get();
        Self {
            outbox: Outbox::default(),
            now: 0,
            stranger_limits: options.request.for_stranger(),
            options,
            clients: Slab::new(),
            upstreams: Slab::new(),
            node_stats: Vec::new(),
            routes: Routes::new(topology),
            parking: Parking::default(),
            pubsub: pubsub::PubSub::new(),
            dedicated: Dedicated::default(),
            scripts: scripts::Scripts::new(Arc::new(ScriptStore::new(0))),
            watches: data.as_ref().is_some_and(DataSide::watches),
            data,
            writing: FxHashMap::default(),
            units: FxHashMap::default(),
            computing: FxHashMap::default(),
            modifying: FxHashMap::default(),
            flushes: FxHashMap::default(),
            stats,
            next_serial: 0,
            spare: Vec::new(),
            spare_gathers: Vec::new(),
            scanner: RequestScanner::default(),
            key_indexes: Vec::new(),
            by_slot: Vec::new(),
            stopping: false,
            held: pause::Held::Nothing,
            waits: waits::Waits::default(),
            failures: retry::FailureLog::default(),
            process,
            asked: peers::Asked::default(),
            infos: Vec::new(),
            may_have_left: false,
            slow_us,
            slow_left: slow::MOST_PER_TICK,
        }
    }

    /// Makes it one of the workers of a process.
    pub fn join(&mut self, process: Arc<Process>) {
        self.slow_us = process.live.slow_us.get();
        self.process = process;
    }

    /// The same core, sharing with others what they have in common.
    pub fn with_commons(mut self, commons: Commons) -> Self {
        self.pubsub.share(commons.subscriptions);
        self.join(commons.process);
        self.with_scripts(commons.scripts)
    }

    /// A client has connected, or the program calls.
    pub fn add_client(&mut self, kind: Kind, peer: Option<Box<str>>) -> ClientKey {
        self.next_serial = self.next_serial.wrapping_add(1);
        let serial = self.next_serial;
        let id = u64::from(serial) * self.options.about.workers as u64 + self.options.about.worker as u64;
        let session = Session::new(id, peer, self.now);
        let mut client = Client::new(serial, kind, session);
        client.heard_at = self.now;
        let index = self.clients.insert(client) as u32;
        self.begin_session(index as usize);
        if kind == Kind::Socket {
            self.stats.clients.add(1);
            self.stats.accepted.add(1);
        }
        ClientKey { index, serial }
    }

    /// The address of ours that the client has connected to, and whether over TLS.
    pub fn set_local_addr(&mut self, key: ClientKey, local: Option<String>, encrypted: bool) {
        if let Some(client) = self.client_mut(key) {
            client.session.local = local.map(String::into_boxed_str);
            client.session.encrypted = encrypted;
        }
    }

    /// The client is gone; what it still has in flight is answered into the void.
    pub fn remove_client(&mut self, key: ClientKey) {
        if self.client(key).is_none() {
            return;
        }
        let mut client = self.clients.remove(key.index as usize);
        self.drop_trials(key);
        self.release_dedicated(key, client.watch.take());
        self.flushes.remove(&key);
        self.stats.inflight.sub(client.inflight() as u64);
        if client.kind == Kind::Socket {
            self.stats.clients.sub(1);
            self.stats.closed.add(1);
        }
        if let Some(subscriber) = client.subscriber {
            self.forget_subscriber(key, &subscriber);
        }
        if client.monitors.is_some() {
            self.end_monitor(key);
        }
        recycle(client.out, &mut self.spare);
        recycle(client.tail, &mut self.spare);
    }

    /// Its last byte has been read. It stays until everything is answered and written; but nobody waits for a command that
    /// blocks, as Redis has it.
    pub fn client_eof(&mut self, key: ClientKey) {
        let blocked = !self.dedicated.is_idle() && self.is_blocked(key)
            || self.waits.has(key)
            || self.flushes.contains_key(&key);
        if let Some(client) = self.client_mut(key) {
            client.half_closed = true;
            client.gone = blocked;
            self.touch(key.index as usize);
        }
    }

    /// False while the client is at a limit (or has said all it may) and must not be read. One that waits for a reply is
    /// read a little ahead, to learn when it goes.
    pub fn wants_read(&self, key: ClientKey) -> bool {
        self.client(key).is_some_and(|client| {
            let ahead = client.waits && client.tail.len() < READ_AHEAD;
            (!client.paused || ahead) && !client.closing && !client.half_closed
        })
    }

    /// Bytes to be written to the client.
    pub fn client_output(&self, key: ClientKey) -> &[u8] {
        self.client(key).map_or(&[], |client| &client.out[client.out_at..])
    }

    /// Whether a client's output may wait for the end of the turn: more of it is to come, and it is little so far.
    #[inline]
    pub fn expects_more(&self, key: ClientKey) -> bool {
        self.client(key).is_some_and(|client| client.inflight() > 0 && client.unwritten() < GATHER_OUTPUT)
    }

    /// `n` bytes of [`Self::client_output`] were written.
    pub fn client_wrote(&mut self, key: ClientKey, n: usize) {
        let Some(client) = self.clients.get_mut(key.index as usize).filter(|c| c.serial == key.serial) else {
            return;
        };
        client.wrote(n, &mut self.spare);
        self.stats.bytes_out.add(n as u64);
        self.check_resume(key.index as usize);
    }

    /// Takes the client off the list of those with something to write; call before writing.
    pub fn untouch(&mut self, key: ClientKey) {
        if let Some(client) = self.client_mut(key) {
            client.touched = false;
        }
    }

    /// True when the client should be closed now: it said goodbye (or was told off), and all is written.
    pub fn is_finished(&self, key: ClientKey) -> bool {
        self.client(key).is_none_or(|client| {
            let has_said_all = client.half_closed && !client.paused && !client.may_run_more();
            client.gone || client.is_quiet() && (client.closing || has_said_all || self.stopping)
        })
    }

    /// True when nobody waits for its replies any more.
    pub fn is_gone(&self, key: ClientKey) -> bool {
        self.client(key).is_none_or(|client| client.gone)
    }

    /// True when the client has more unwritten replies than allowed and must be closed.
    pub fn is_too_slow(&self, key: ClientKey) -> bool {
        self.client(key).is_some_and(|client| client.unwritten() > self.options.output_max)
    }

    /// Counts a client that was closed for not reading its replies.
    pub fn count_slow(&self) {
        self.stats.slow_clients.add(1);
    }

    /// Counts a client that was handed over, but could not be added.
    pub fn count_unserved(&self) {
        self.stats.closed.add(1);
    }

    /// For calls of the program: the whole reply once it is complete, and where its mapped keys were found.
    pub fn take_reply(&mut self, key: ClientKey) -> Option<(Vec<u8>, Served)> {
        let client = self.client_mut(key)?;
        if client.inflight() > 0 || client.unwritten() == 0 {
            return None;
        }
        let reply = std::mem::take(&mut client.out);
        let served = client.served.unwrap_or(Served::Bypass);
        self.remove_client(key);
        Some((reply, served))
    }

    /// Keys of all clients that are sockets.
    pub fn socket_clients(&self) -> Vec<ClientKey> {
        self.clients
            .iter()
            .filter(|(_, client)| client.kind == Kind::Socket)
            .map(|(index, client)| ClientKey { index: index as u32, serial: client.serial })
            .collect()
    }

    /// Stops reading from clients: each is closed as soon as what it has in flight is answered.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.stop_blocked();
        self.stop_waits();
        self.stop_flushes();
        for index in self.clients.iter().map(|(index, _)| index).collect::<Vec<_>>() {
            self.touch(index);
        }
    }

    /// Number of clients, calls included.
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Number of requests that wait until their slot can be served.
    pub fn parked(&self) -> usize {
        self.parking.len()
    }

    fn client(&self, key: ClientKey) -> Option<&Client> {
        self.clients.get(key.index as usize).filter(|client| client.serial == key.serial)
    }

    fn client_mut(&mut self, key: ClientKey) -> Option<&mut Client> {
        self.clients.get_mut(key.index as usize).filter(|client| client.serial == key.serial)
    }

    /// Puts the client on the list of those with something to write.
    #[inline]
    fn touch(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index)
            && !client.touched
        {
            client.touched = true;
            self.outbox.touched.push(ClientKey { index: index as u32, serial: client.serial });
        }
    }

    /// Puts the upstream connection on the list of those to flush, or asks for it to be made.
    #[inline]
    fn mark_dirty(&mut self, index: usize) {
        let Some(upstream) = self.upstreams.get_mut(index) else { return };
        match upstream.link {
            Link::Up if !upstream.dirty => {
                upstream.dirty = true;
                self.outbox.dirty.push(index);
            }
            Link::Down { retry_at } if retry_at <= self.now => {
                upstream.link = Link::Connecting;
                self.outbox.connect.push(index);
            }
            Link::Up | Link::Down { .. } | Link::Connecting => {}
        }
    }
}

/// What [`Entry::command`] holds for requests that no client sent.
const NO_COMMAND: u16 = u16::MAX;
