//! Accepts HTTP connections within their limits, and drains them at the end.
//!
//! Must not know: routes.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::HttpState;
use super::deadline::{Deadline, Pulse};
use super::router::respond;
use super::stall::StallGuard;
use crate::tls::ServerTls;

/// Longest head of a request, in bytes; hyper answers a longer one with 431.
const MAX_HEAD: usize = 32 * 1024;

/// Pause after a failed accept: without it, running out of file descriptors would turn into a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How connections are asked to end.
#[derive(Clone)]
struct Stop {
    /// Finish the request at hand, then close.
    drain: CancellationToken,
    /// Close at once.
    abort: CancellationToken,
}

/// The connections of one thread.
struct Desk {
    runtime: Handle,
    connections: TaskTracker,
}

/// Serves on `threads` (none: where this is called), over TLS where there are certificates, until `shutdown`, then stops accepting, lets requests at hand finish for at most `http.request_timeout`, and
/// closes what is left. Returns when no connection is open. A dropped future closes nothing that is in progress: let it
/// finish.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    state: Arc<HttpState>,
    mut threads: Vec<Handle>,
    shutdown: CancellationToken,
) {
    if threads.is_empty() {
        threads.push(Handle::current());
    }
    let desk = |runtime| Desk { runtime, connections: TaskTracker::new() };
    let desks: Vec<Desk> = threads.into_iter().map(desk).collect();
    let permits = Arc::new(Semaphore::new(state.config.max_connections));
    let stop = Stop { drain: shutdown.clone(), abort: CancellationToken::new() };
    // Both arms can be dropped: a permit goes back, and a connection that is not accepted yet stays in the backlog.
    while let Some(accepted) = shutdown.run_until_cancelled(accept(&listener, &permits)).await {
        match accepted {
            Ok((stream, permit)) => {
                let served = connection(stream, tls.clone(), Arc::clone(&state), stop.clone(), permit);
                if let Some(desk) = desks.iter().min_by_key(|desk| desk.connections.len()) {
                    desk.connections.spawn_on(served, &desk.runtime);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let ended = async || {
        for desk in &desks {
            desk.connections.close();
            desk.connections.wait().await;
        }
    };
    if timeout(state.config.request_timeout, ended()).await.is_err() {
        stop.abort.cancel();
        ended().await;
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(std::net::TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // The thread that serves it watches it, not this one.
    Ok((stream.into_std()?, permit))
}

/// Counts a connection while it lives, also when its task panics.
struct Open(IntGauge);

impl Open {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn connection(
    stream: std::net::TcpStream,
    tls: Option<Arc<ServerTls>>,
    state: Arc<HttpState>,
    stop: Stop,
    _permit: OwnedSemaphorePermit,
) {
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "an accepted HTTP connection cannot be served"),
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let _open = Open::new(&state.metrics.http.connections);
    let Some(tls) = tls else { return requests(stream, state, stop).await };
    let handshake = TlsAcceptor::from(tls.current()).accept(stream);
    let handshake = timeout(state.config.request_timeout, handshake);
    match stop.drain.run_until_cancelled(handshake).await {
        None => {}
        Some(Ok(Ok(stream))) => requests(stream, state, stop).await,
        Some(Ok(Err(error))) => {
            state.metrics.security.rejected("http_tls");
            tracing::debug!(%error, "an HTTP client could not shake hands");
        }
        Some(Err(_)) => state.metrics.security.rejected("http_handshake_timeout"),
    }
}

/// Answers what comes over one connection.
async fn requests<S>(stream: S, state: Arc<HttpState>, stop: Stop)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limit = state.config.request_timeout;
    let pulse = Pulse::new();
    let deadline = Deadline::default();
    let service = service_fn(|request| {
        let (state, pulse, deadline) = (Arc::clone(&state), &pulse, &deadline);
        async move {
            pulse.begin();
            let response = respond(state, request, deadline).await;
            pulse.end();
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(StallGuard::new(stream, limit));
    let mut connection = pin!(
        http1::Builder::new()
            // Its timer would be made and dropped for each request; `Pulse` looks after slow heads.
            .header_read_timeout(None)
            .max_buf_size(MAX_HEAD)
            // A client may close its sending side behind its request and still wants the answer.
            .half_close(true)
            .serve_connection(io, service)
    );
    let finished = tokio::select! {
        finished = connection.as_mut() => Some(finished),
        // No request within its time: the connection is dropped, which closes it.
        () = pulse.stopped(limit) => None,
        () = stop.drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // `None` when the drain took too long: the connection is dropped, which closes it.
            stop.abort.run_until_cancelled(connection).await
        }
    };
    if let Some(Err(error)) = finished {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}
