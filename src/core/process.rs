//! What the workers of one process have in common: only questions about the whole process come here.
//!
//! Must not know: any client, any request on its way.

use super::access::Access;
use super::keyspace::Keyspace;
use super::monitor::Monitors;
use super::pause::Pause;
use super::peers::Note;
use super::slow::SlowLog;
use crate::command::Learned;
use crate::config::{Config, Live};
use crate::metrics::worker::{Cell, WorkerStats, error_codes};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Time between two looks at how many commands were answered.
const SAMPLE: Duration = Duration::from_millis(1000);

/// Shared by all workers; nothing of it is touched by a command that is forwarded.
#[derive(Debug)]
pub struct Process {
    /// Counters of all workers.
    pub stats: Vec<Arc<WorkerStats>>,
    /// Settings that `CONFIG SET` changes.
    pub live: Arc<Live>,
    /// All settings as they were at start.
    pub settings: Vec<(String, String)>,
    /// Commands beyond the table.
    pub learned: Arc<Learned>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Clients turned away at `server.max_clients`; written by the acceptor.
    pub refused: Arc<Cell>,
    /// Commands that took long.
    pub slow: SlowLog,
    /// 40 hexadecimal digits, others at every start.
    pub run_id: String,
    /// When the process started.
    pub started: Instant,
    /// The same on the calendar, in seconds since 1970.
    pub started_at: u64,
    /// `server.announce`, and `tls.announce`.
    pub announce: [Option<String>; 2],
    /// Who looks on.
    pub(super) monitors: Monitors,
    /// What `CLIENT PAUSE` holds.
    pub(super) pause: Pause,
    /// What the nodes said about their keys.
    pub(super) keyspace: Keyspace,
    notes: Vec<mpsc::UnboundedSender<Note>>,
    before: Mutex<Totals>,
    sampled: Mutex<(Instant, [u64; 3])>,
    rates: [AtomicU64; 3],
}

/// What was counted since the start, over all workers.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// By index in the command table: calls, those answered by an error, microseconds.
    pub commands: Vec<(u64, u64, u64)>,
    /// Clients accepted.
    pub accepted: u64,
    /// Clients refused.
    pub refused: u64,
    /// Bytes read from clients and written to them.
    pub bytes: (u64, u64),
    /// Reads of mapped keys that the cluster could answer, and those that it could not.
    pub reads: (u64, u64),
    /// Error replies by code.
    pub codes: Vec<(&'static str, u64)>,
}

impl Totals {
    /// Commands answered.
    pub fn calls(&self) -> u64 {
        self.commands.iter().map(|(calls, _, _)| calls).sum()
    }

    /// Commands answered by an error.
    pub fn errors(&self) -> u64 {
        self.commands.iter().map(|(_, errors, _)| errors).sum()
    }

    fn since(mut self, before: &Self) -> Self {
        for (now, then) in self.commands.iter_mut().zip(&before.commands) {
            *now = (now.0 - then.0, now.1 - then.1, now.2 - then.2);
        }
        for (code, count) in &mut self.codes {
            let then = before.codes.iter().find(|(known, _)| known == code);
            *count -= then.map_or(0, |(_, then)| *then);
        }
        self.accepted -= before.accepted;
        self.refused -= before.refused;
        self.bytes = (self.bytes.0 - before.bytes.0, self.bytes.1 - before.bytes.1);
        self.reads = (self.reads.0 - before.reads.0, self.reads.1 - before.reads.1);
        self
    }
}

impl Process {
    /// The common things of workers with these counters, in their order. What a worker is to be told stands in `notes`.
    pub fn new(
        config: &Config,
        live: Arc<Live>,
        access: Arc<Access>,
        stats: Vec<Arc<WorkerStats>>,
        notes: Vec<mpsc::UnboundedSender<Note>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            stats,
            live,
            learned: access.learned.clone(),
            access,
            settings: config.values(),
            refused: Arc::default(),
            slow: SlowLog::default(),
            run_id: random_id(),
            started: now,
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            announce: [config.server.announce.clone(), config.tls.announce.clone()],
            monitors: Monitors::new(config),
            pause: Pause::new(config),
            keyspace: Keyspace::default(),
            notes,
            before: Mutex::default(),
            sampled: Mutex::new((now, [0; 3])),
            rates: Default::default(),
        }
    }

    /// A process of one worker with the default settings: for tests of a core.
    pub(super) fn alone(stats: Arc<WorkerStats>) -> Self {
        let config = Config::default();
        Self::new(&config, Arc::new(Live::new(&config)), Arc::default(), vec![stats], Vec::new())
    }

    /// Number of workers that can be asked, the asking one included.
    pub(super) fn peers(&self) -> usize {
        self.notes.len()
    }

    /// Sends a note to a worker; one that has stopped gets none.
    pub(super) fn tell(&self, worker: usize, note: Note) {
        if let Some(to) = self.notes.get(worker) {
            let _ = to.send(note);
        }
    }

    /// Counts since the start, or since `CONFIG RESETSTAT`.
    pub fn totals(&self) -> Totals {
        self.totals_from_start().since(&lock(&self.before))
    }

    /// `CONFIG RESETSTAT`: the counters themselves go on, since the metrics page must never see them fall.
    pub(super) fn reset_totals(&self) {
        *lock(&self.before) = self.totals_from_start();
    }

    /// Commands, bytes from clients and bytes to clients per second, lately.
    pub fn rates(&self) -> [u64; 3] {
        self.rates.each_ref().map(|rate| rate.load(Ordering::Relaxed))
    }

    /// Looks at the counters once in a while; the first worker does it for all.
    pub(super) fn sample(&self, worker: usize) {
        if worker != 0 {
            return;
        }
        let mut sampled = lock(&self.sampled);
        let passed = sampled.0.elapsed();
        if passed < SAMPLE {
            return;
        }
        let calls: u64 =
            self.stats.iter().flat_map(|worker| &worker.commands).map(|c| c.ok.get() + c.error.get()).sum();
        let bytes =
            |cell: fn(&WorkerStats) -> &Cell| self.stats.iter().map(|worker| cell(worker).get()).sum();
        let now = [calls, bytes(|worker| &worker.bytes_in), bytes(|worker| &worker.bytes_out)];
        for ((rate, now), before) in self.rates.iter().zip(now).zip(sampled.1) {
            rate.store(now.saturating_sub(before) * 1000 / passed.as_millis() as u64, Ordering::Relaxed);
        }
        *sampled = (Instant::now(), now);
    }

    fn totals_from_start(&self) -> Totals {
        let codes = error_codes(&self.stats);
        let mut totals = Totals { refused: self.refused.get(), codes, ..Totals::default() };
        for worker in &self.stats {
            totals.commands.resize(worker.commands.len(), (0, 0, 0));
            for (total, cells) in totals.commands.iter_mut().zip(&worker.commands) {
                total.0 += cells.ok.get() + cells.error.get();
                total.1 += cells.error.get();
                total.2 += cells.latency.sum_us();
            }
            totals.accepted += worker.accepted.get();
            totals.bytes.0 += worker.bytes_in.get();
            totals.bytes.1 += worker.bytes_out.get();
            totals.reads.0 += worker.mappings.iter().map(|mapping| mapping.hits.get()).sum::<u64>();
            totals.reads.1 += worker.mappings.iter().map(|mapping| mapping.misses.get()).sum::<u64>();
        }
        totals
    }
}

/// 40 hexadecimal digits that differ between processes; nothing secret depends on them.
fn random_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    let mut id = String::new();
    for n in 0..3 {
        id.push_str(&format!("{:016x}", RandomState::new().hash_one(n)));
    }
    id.truncate(40);
    id
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
