//! Accepts clients and hands each to the least busy worker.
//!
//! Must not know: what clients say.

use super::Connection;
use crate::config::Live;
use crate::metrics::worker::{Cell, WorkerStats};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Pause after an accept error such as "too many open files".
const PAUSE: Duration = Duration::from_millis(50);

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody else has it.
    #[error("{addr} is taken by another program; stop that one, or set {setting} to another address")]
    Taken {
        /// The address.
        addr: SocketAddr,
        /// The configuration key (and environment variable) that names it.
        setting: &'static str,
    },
    /// Anything else.
    #[error("cannot listen on {addr} ({setting}): {error}")]
    Other {
        /// The address.
        addr: SocketAddr,
        /// The configuration key that names it.
        setting: &'static str,
        /// The system's word.
        error: io::Error,
    },
}

/// Opens a listening socket; `setting` names the configuration key for the error text.
///
/// # Errors
/// [`ListenError`].
pub fn bind(addr: SocketAddr, setting: &'static str) -> Result<TcpListener, ListenError> {
    let open = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { addr, setting },
        _ => ListenError::Other { addr, setting, error },
    })
}

/// Accepts RESP clients.
#[derive(Debug)]
pub struct Acceptor {
    /// Where to accept.
    pub listener: tokio::net::TcpListener,
    /// Where to hand clients to, with the counters that tell how busy each worker is.
    pub workers: Vec<(mpsc::Sender<Connection>, Arc<WorkerStats>)>,
    /// Most clients at once.
    pub live: Arc<Live>,
    /// Counts clients that were refused.
    pub refused: Arc<Cell>,
    /// Idle time before the system probes a client.
    pub keepalive: Duration,
}

impl Acceptor {
    /// Accepts until `stop`. Cancel-safe.
    pub async fn run(self, stop: CancellationToken) {
        // Counted here: what the workers count lags behind a burst.
        let mut handed = vec![0; self.workers.len()];
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => match stream.into_std() {
                    Ok(stream) => self.hand_over(stream, peer, &mut handed).await,
                    Err(error) => tracing::warn!(%error, "cannot take an accepted connection"),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// `handed` counts what each worker was given so far.
    async fn hand_over(&self, mut stream: TcpStream, peer: SocketAddr, handed: &mut [u64]) {
        let load = |(index, handed): (usize, &u64)| {
            let closed = self.workers.get(index).map_or(0, |(_, stats)| stats.closed.get());
            (handed.saturating_sub(closed), index)
        };
        let clients: u64 = handed.iter().enumerate().map(|worker| load(worker).0).sum();
        if clients >= self.live.max_clients.get() {
            self.refused.add(1);
            // Best effort, in Redis' words; the socket is new, so this fits its buffer.
            let _ = stream.write_all(b"-ERR max number of clients reached\r\n");
            return;
        }
        let socket = socket2::SockRef::from(&stream);
        let keepalive = socket2::TcpKeepalive::new().with_time(self.keepalive);
        if let Err(error) = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive)) {
            tracing::debug!(%error, "cannot set options of an accepted connection");
        }
        let Some((_, idlest)) = handed.iter().enumerate().map(load).min() else { return };
        if let (Some((worker, _)), Some(handed)) = (self.workers.get(idlest), handed.get_mut(idlest))
            && worker.send(Connection { stream, peer }).await.is_ok()
        {
            *handed += 1;
        }
    }
}
