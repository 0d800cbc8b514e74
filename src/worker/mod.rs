//! Data workers: threads that drive a core with sockets.
//!
//! Must not know: commands, replies.

mod acceptor;
mod driver;
mod listener;
mod proxy_header;
mod sockets;
mod stream;

pub use acceptor::{Acceptor, Networks};
pub use listener::{ListenError, bind, bind_unix};

use crate::cluster::{Job, Topology};
use crate::core::{Commons, CoreOptions, DataSide, Note, Told};
use crate::metrics::worker::WorkerStats;
use crate::tls::Dialer;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Tasks polled before new events are fetched. tokio's default of 61 would write to the nodes several times per turn
/// when hundreds of clients are readable at once.
const EVENT_INTERVAL: u32 = 1024;

/// What a worker is told from outside.
#[derive(Debug)]
pub struct Connection {
    /// The accepted socket.
    pub stream: Incoming,
    /// Where it comes from, as `CLIENT LIST` shows it.
    pub peer: Box<str>,
}

/// An accepted connection, ready to be served.
#[derive(Debug)]
pub enum Incoming {
    /// Plain.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TLS; the handshake is over.
    Tls(TcpStream, Box<rustls::ServerConnection>),
}

/// Everything a worker needs.
pub struct WorkerParts {
    /// Bounds and times of its core.
    pub options: CoreOptions,
    /// Mappings, if there are any.
    pub data: Option<DataSide>,
    /// What it shares with the others.
    pub commons: Commons,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
    /// New clients.
    pub connections: mpsc::Receiver<Connection>,
    /// Commands of the program itself.
    pub calls: mpsc::Receiver<Job>,
    /// What the data side answers.
    pub told: mpsc::UnboundedReceiver<Told>,
    /// What the other workers ask and answer.
    pub notes: mpsc::UnboundedReceiver<Note>,
    /// The topology, now and after each change.
    pub topology: watch::Receiver<Arc<Topology>>,
    /// Asks for the topology to be refreshed.
    pub refresh: Arc<Notify>,
    /// Bound on connecting to a node.
    pub connect_timeout: Duration,
    /// How nodes are reached over TLS, if they are.
    pub tls: Option<Dialer>,
    /// How long the thread looks for further events before it sleeps; zero = not at all.
    pub busy_poll: Duration,
    /// A client that is written nothing for this long while it does not read is closed.
    pub stall_timeout: Duration,
    /// Begin to stop: no new requests, clients are closed when answered.
    pub drain: CancellationToken,
    /// Stop now.
    pub stop: CancellationToken,
}

/// Starts a worker on a thread of its own; the thread ends when `stop` is cancelled. The handle is that of the thread's
/// runtime: what is spawned there shares the thread with the worker, and ends with it.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn spawn(name: String, parts: WorkerParts) -> std::io::Result<(std::thread::JoinHandle<()>, Handle)> {
    let runtime = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let built = tokio::runtime::Builder::new_current_thread()
            .event_interval(EVENT_INTERVAL)
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default());
        match built {
            Ok(local) => {
                let _ = runtime.0.send(Ok(local.handle().clone()));
                local.block_on(driver::run(parts));
            }
            Err(error) => {
                let _ = runtime.0.send(Err(error));
            }
        }
    })?;
    let handle = runtime.1.recv().map_err(|_| std::io::Error::other("the worker thread died at start"))??;
    Ok((thread, handle))
}
