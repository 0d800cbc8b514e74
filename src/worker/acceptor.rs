//! Takes connections from all listeners, has each shake hands where it must, and hands it to the least busy worker.
//!
//! Must not know: what clients say.
//!
//! Handshakes (TLS, the PROXY protocol's header) run on the back runtime, bounded in number and time, so that neither their
//! cost nor a peer that never ends one is felt by a data thread.

use super::{Connection, Incoming, proxy_header};
use crate::config::Live;
use crate::metrics::SecurityMetrics;
use crate::metrics::worker::{Cell, WorkerStats};
use crate::tls::ServerTls;
use ipnet::IpNet;
use std::future::pending;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Pause after an accept error such as "too many open files".
const PAUSE: Duration = Duration::from_millis(50);
/// What Redis says to one client too many.
const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// From where clients may come.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    /// These only; empty: from everywhere.
    pub allow: Vec<IpNet>,
    /// From these a connection begins with the PROXY protocol's header.
    pub proxy_protocol: Vec<IpNet>,
}

impl Networks {
    fn allows(&self, ip: IpAddr) -> bool {
        self.allow.is_empty() || holds(&self.allow, ip)
    }
}

fn holds(networks: &[IpNet], ip: IpAddr) -> bool {
    // A dual-stack listener shows clients of IPv4 as ::ffff:a.b.c.d.
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// Accepts RESP clients.
#[derive(Debug)]
pub struct Acceptor {
    /// Where plain clients come, unless they do not.
    pub plain: Option<TcpListener>,
    /// Where TLS clients come.
    pub tls: Option<(TcpListener, Arc<ServerTls>)>,
    /// Where clients of this machine come, and its path.
    pub unix: Option<(UnixListener, String)>,
    /// Where to hand clients to, with the counters that tell how busy each worker is.
    pub workers: Vec<(mpsc::Sender<Connection>, Arc<WorkerStats>)>,
    /// Most clients at once.
    pub live: Arc<Live>,
    /// Counts clients that were refused because there were too many.
    pub refused: Arc<Cell>,
    /// Counts all that were turned away.
    pub metrics: Arc<SecurityMetrics>,
    /// From where clients may come.
    pub networks: Networks,
    /// Idle time before the system probes a client.
    pub keepalive: Duration,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Most handshakes at once.
    pub max_handshakes: usize,
}

/// Why a connection is turned away: as metrics call it, and what happened.
type Rejection = (&'static str, io::Error);
type Handshakes = JoinSet<Result<Connection, Rejection>>;

impl Acceptor {
    /// Accepts until `stop`. Cancel-safe.
    pub async fn run(self, stop: CancellationToken) {
        // Counted here: what the workers count lags behind a burst.
        let mut handed = vec![0; self.workers.len()];
        let mut handshakes = Handshakes::new();
        loop {
            let error = tokio::select! {
                () = stop.cancelled() => return self.end(),
                accepted = accept_plain(self.plain.as_ref()) => match accepted {
                    Ok((stream, peer)) => self.begin(stream, peer, None, &mut handed, &mut handshakes).await,
                    Err(error) => Some(error),
                },
                (accepted, tls) = accept_tls(self.tls.as_ref()) => match accepted {
                    Ok((stream, peer)) => self.begin(stream, peer, Some(tls), &mut handed, &mut handshakes).await,
                    Err(error) => Some(error),
                },
                (accepted, path) = accept_unix(self.unix.as_ref()) => match accepted.and_then(UnixStream::into_std) {
                    Ok(stream) => {
                        let connection = Connection { stream: Incoming::Unix(stream), peer: format!("{path}:0").into() };
                        self.hand_over(connection, &mut handed).await;
                        None
                    }
                    Err(error) => Some(error),
                },
                Some(done) = handshakes.join_next() => {
                    self.metrics.handshakes.set(handshakes.len() as i64);
                    match done {
                        Ok(Ok(connection)) => self.hand_over(connection, &mut handed).await,
                        Ok(Err((reason, error))) => self.reject(reason, &error),
                        Err(error) => tracing::error!(%error, "a handshake has failed"),
                    }
                    None
                }
            };
            if let Some(error) = error {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// A socket in the file system outlives its listener.
    fn end(&self) {
        if let Some((_, path)) = &self.unix
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, path, "cannot remove the Unix socket");
        }
    }

    fn reject(&self, reason: &'static str, error: &io::Error) {
        self.metrics.rejected(reason);
        tracing::debug!(reason, %error, "a connection was turned away");
    }

    /// A TCP connection: served at once, or after its handshake.
    async fn begin(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<&Arc<ServerTls>>,
        handed: &mut [u64],
        handshakes: &mut Handshakes,
    ) -> Option<io::Error> {
        let through_proxy = holds(&self.networks.proxy_protocol, peer.ip());
        if !through_proxy && !self.networks.allows(peer.ip()) {
            self.reject("network", &io::Error::other(format!("{peer} is in none of server.allow")));
            return None;
        }
        self.prepare(&stream);
        if !through_proxy && tls.is_none() {
            match stream.into_std() {
                Ok(stream) => {
                    let connection =
                        Connection { stream: Incoming::Tcp(stream), peer: peer.to_string().into() };
                    self.hand_over(connection, handed).await;
                }
                Err(error) => return Some(error),
            }
            return None;
        }
        if handshakes.len() >= self.max_handshakes {
            self.reject("handshakes", &io::Error::other("too many handshakes at once (tls.max_handshakes)"));
            return None;
        }
        let (networks, tls, limit) = (self.networks.clone(), tls.cloned(), self.handshake_timeout);
        handshakes.spawn(async move {
            let handshake = shake_hands(stream, peer, through_proxy, &networks, tls);
            tokio::time::timeout(limit, handshake)
                .await
                .unwrap_or_else(|_| Err(("handshake_timeout", io::ErrorKind::TimedOut.into())))
        });
        self.metrics.handshakes.set(handshakes.len() as i64);
        None
    }

    fn prepare(&self, stream: &TcpStream) {
        let socket = socket2::SockRef::from(stream);
        let keepalive = socket2::TcpKeepalive::new().with_time(self.keepalive);
        if let Err(error) = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive)) {
            tracing::debug!(%error, "cannot set options of an accepted connection");
        }
    }

    /// `handed` counts what each worker was given so far.
    async fn hand_over(&self, connection: Connection, handed: &mut [u64]) {
        let load = |(index, handed): (usize, &u64)| {
            let closed = self.workers.get(index).map_or(0, |(_, stats)| stats.closed.get());
            (handed.saturating_sub(closed), index)
        };
        let clients: u64 = handed.iter().enumerate().map(|worker| load(worker).0).sum();
        if clients >= self.live.max_clients.get() {
            self.refused.add(1);
            self.metrics.rejected("max_clients");
            return turn_away(connection.stream);
        }
        let Some((_, idlest)) = handed.iter().enumerate().map(load).min() else { return };
        if let (Some((worker, _)), Some(handed)) = (self.workers.get(idlest), handed.get_mut(idlest))
            && worker.send(connection).await.is_ok()
        {
            *handed += 1;
        }
    }
}

/// Best effort, in Redis' words; the socket is new, so this fits its buffer.
fn turn_away(stream: Incoming) {
    let _ = match stream {
        Incoming::Tcp(mut stream) => stream.write_all(TOO_MANY),
        Incoming::Unix(mut stream) => stream.write_all(TOO_MANY),
        Incoming::Tls(mut stream, mut session) => {
            session.writer().write_all(TOO_MANY).and_then(|()| session.write_tls(&mut stream).map(|_| ()))
        }
    };
}

/// Brings a connection as far as it can be served.
async fn shake_hands(
    mut stream: TcpStream,
    mut peer: SocketAddr,
    through_proxy: bool,
    networks: &Networks,
    tls: Option<Arc<ServerTls>>,
) -> Result<Connection, Rejection> {
    if through_proxy {
        let told = proxy_header::read(&mut stream).await.map_err(|error| ("proxy_header", error))?;
        peer = told.unwrap_or(peer);
        // One that speaks for itself, such as a health check, comes from where it comes from.
        if told.is_some() && !networks.allows(peer.ip()) {
            return Err(("network", io::Error::other(format!("{peer} is in none of server.allow"))));
        }
    }
    let open = |stream: TcpStream| stream.into_std().map_err(|error| ("system", error));
    let stream = match tls {
        None => Incoming::Tcp(open(stream)?),
        Some(tls) => {
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.current());
            let (stream, session) =
                acceptor.accept(stream).await.map_err(|error| ("tls", error))?.into_inner();
            Incoming::Tls(open(stream)?, Box::new(session))
        }
    };
    Ok(Connection { stream, peer: peer.to_string().into() })
}

async fn accept_plain(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => pending().await,
    }
}

async fn accept_tls(
    listener: Option<&(TcpListener, Arc<ServerTls>)>,
) -> (io::Result<(TcpStream, SocketAddr)>, &Arc<ServerTls>) {
    match listener {
        Some((listener, tls)) => (listener.accept().await, tls),
        None => pending().await,
    }
}

async fn accept_unix(listener: Option<&(UnixListener, String)>) -> (io::Result<UnixStream>, &str) {
    match listener {
        Some((listener, path)) => (listener.accept().await.map(|(stream, _)| stream), path),
        None => pending().await,
    }
}
