//! The threads that have a worker, and the channels by which the rest of the program reaches them.
//!
//! Must not know: what is sent over the channels.

use crate::cluster::{Gateway, Job};
use crate::command::ID_COUNT;
use crate::core::{Note, Told};
use crate::metrics::worker::WorkerStats;
use crate::worker::Connection;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Connections handed to a worker that it has not taken yet.
const CONNECTION_QUEUE: usize = 1024;
/// Commands of the program itself that a worker has not taken yet.
const CALL_QUEUE: usize = 64 << 10;

/// The workers that serve HTTP, and nobody else.
#[derive(Default)]
pub(super) struct HttpThreads {
    pub threads: Vec<JoinHandle<()>>,
    pub runtimes: Vec<Handle>,
    pub stop: CancellationToken,
}

/// What the rest of the program keeps of a worker.
pub(super) struct WorkerEnd {
    pub connections: mpsc::Sender<Connection>,
    pub calls: mpsc::Sender<Job>,
    pub stats: Arc<WorkerStats>,
}

/// The worker's own ends of its channels.
pub(super) struct Inbox {
    pub connections: mpsc::Receiver<Connection>,
    pub calls: mpsc::Receiver<Job>,
    pub told: (mpsc::UnboundedSender<Told>, mpsc::UnboundedReceiver<Told>),
    pub notes: (mpsc::UnboundedSender<Note>, mpsc::UnboundedReceiver<Note>),
    pub stats: Arc<WorkerStats>,
}

/// The channels of all workers; a gateway to the first `workers`, who take the calls of all threads.
pub(super) fn channels(
    workers: usize,
    for_http: usize,
    mappings: usize,
) -> (Gateway, Vec<WorkerEnd>, Vec<Inbox>) {
    let mut ends = Vec::new();
    let mut inboxes = Vec::new();
    for _ in 0..workers + for_http {
        let stats = Arc::new(WorkerStats::new(ID_COUNT, mappings));
        let (connection_sender, connections) = mpsc::channel(CONNECTION_QUEUE);
        let (call_sender, call_receiver) = mpsc::channel(CALL_QUEUE);
        ends.push(WorkerEnd { connections: connection_sender, calls: call_sender, stats: stats.clone() });
        let (told, notes) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        inboxes.push(Inbox { connections, calls: call_receiver, told, notes, stats });
    }
    let calls = ends.iter().take(workers).map(|end: &WorkerEnd| end.calls.clone()).collect();
    (Gateway::new(calls), ends, inboxes)
}

/// Until these threads have ended.
pub(super) async fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if tokio::task::spawn_blocking(move || thread.join()).await.is_err() {
            tracing::error!("a worker could not be joined");
        }
    }
}
