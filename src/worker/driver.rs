//! Moves bytes between the sockets of one thread and its core.
//!
//! Must not know: what the bytes mean.
//!
//! Every socket has a task, but a task only reads. A client's last outstanding reply is written straight to its socket by
//! whichever task read it off a node. Everything else is gathered over one turn of the event loop and written by the
//! flusher task, which is queued behind those that read: requests once per node, and replies to clients that wait for more
//! of them, as the parts of a pipeline arrive from several nodes in the same turn.

mod busy_poll;
mod calls;
mod due;

use super::sockets::Socket;
use super::stream::{self, Stream};
use super::{Connection, WorkerParts};
use crate::core::{ClientKey, Core, Kind, Process};
use crate::tls::Dialer;
use busy_poll::BusyPoll;
use calls::Waiting;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Size of the one read buffer of a thread, in bytes.
const READ_BUFFER: usize = 64 << 10;
/// Reads from one socket before the others get their turn.
const READS_IN_A_ROW: usize = 4;
/// Answers of the back runtime taken in one turn at most.
const TOLD_AT_ONCE: usize = 1024;
/// Time between two looks at timeouts, reconnects and delayed retries.
const TICK: Duration = Duration::from_millis(20);

/// All of one thread: the core, the sockets, one read buffer.
struct Worker {
    core: Core,
    clients: Vec<Option<(ClientKey, Socket)>>,
    upstreams: Vec<Option<Socket>>,
    calls: HashMap<u32, Waiting>,
    buffer: Vec<u8>,
    started: Instant,
    flusher: Waker,
    /// Clients with replies to write at the end of the turn.
    late: Vec<ClientKey>,
    /// Upstream connections to be made by [`connector`].
    connect: Vec<(usize, String)>,
    connector: Waker,
    refresh: Arc<Notify>,
    stall: u64,
    process: Arc<Process>,
    next_idle_check: u64,
    busy_poll: BusyPoll,
}

type Shared = Rc<RefCell<Worker>>;

/// Runs a worker until it is told to stop.
pub(super) async fn run(mut parts: WorkerParts) {
    let topology = parts.topology.borrow_and_update().clone();
    let process = parts.commons.process.clone();
    let core = Core::new(parts.options, topology, parts.data, parts.stats).with_commons(parts.commons);
    let shared: Shared = Rc::new(RefCell::new(Worker {
        core,
        clients: Vec::new(),
        upstreams: Vec::new(),
        calls: HashMap::new(),
        buffer: vec![0; READ_BUFFER],
        started: Instant::now(),
        flusher: Waker::noop().clone(),
        late: Vec::new(),
        connect: Vec::new(),
        connector: Waker::noop().clone(),
        refresh: parts.refresh,
        stall: limit_us(parts.stall_timeout),
        process,
        next_idle_check: 0,
        busy_poll: BusyPoll::default(),
    }));
    tokio::task::spawn_local(flusher(shared.clone()));
    tokio::task::spawn_local(connector(shared.clone(), parts.connect_timeout, parts.tls.take()));
    tokio::task::spawn_local(busy_poll::run(shared.clone(), parts.busy_poll));
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            () = parts.drain.cancelled(), if !draining => {
                draining = true;
                shared.borrow_mut().drain();
            }
            Some(connection) = parts.connections.recv() => accept(&shared, connection),
            Some(job) = parts.calls.recv() => shared.borrow_mut().jobs(job, &mut parts.calls),
            Some(note) = parts.notes.recv() => {
                let mut worker = shared.borrow_mut();
                worker.clock();
                worker.core.note(note);
                worker.settle();
            }
            Some(told) = parts.told.recv() => {
                let mut worker = shared.borrow_mut();
                worker.clock();
                worker.core.told(told);
                // What came at the same time is dealt with at the same time: its requests leave together.
                for _ in 0..TOLD_AT_ONCE {
                    let Ok(told) = parts.told.try_recv() else { break };
                    worker.core.told(told);
                }
                worker.settle();
            }
            Ok(()) = parts.topology.changed() => {
                let topology = parts.topology.borrow_and_update().clone();
                let mut worker = shared.borrow_mut();
                worker.clock();
                worker.core.set_topology(topology);
                worker.settle();
            }
            _ = tick.tick() => shared.borrow_mut().tick(),
        }
    }
}

/// A limit in microseconds; zero means there is none.
fn limit_us(limit: Duration) -> u64 {
    if limit.is_zero() { u64::MAX } else { limit.as_micros() as u64 }
}

fn accept(shared: &Shared, connection: Connection) {
    let (stream, local) = match connection.stream.open() {
        Ok(opened) => opened,
        Err(error) => {
            shared.borrow().core.count_unserved();
            return tracing::warn!(%error, "cannot serve an accepted connection");
        }
    };
    let mut worker = shared.borrow_mut();
    worker.clock();
    let key = worker.core.add_client(Kind::Socket, Some(connection.peer));
    worker.core.set_local_addr(key, local, stream.is_tls());
    let socket = Socket::new(stream, worker.core.now);
    let index = key.index as usize;
    if worker.clients.len() <= index {
        worker.clients.resize_with(index + 1, || None);
    }
    worker.clients[index] = Some((key, socket));
    drop(worker);
    let shared = shared.clone();
    tokio::task::spawn_local(poll_fn(move |cx| shared.borrow_mut().poll_client(key, cx)));
}

/// Writes what was gathered for the nodes, once per turn of the event loop.
async fn flusher(shared: Shared) {
    poll_fn(|cx| {
        let mut worker = shared.borrow_mut();
        if !worker.flusher.will_wake(cx.waker()) {
            worker.flusher = cx.waker().clone();
        }
        worker.flush();
        Poll::<()>::Pending
    })
    .await;
}

/// Makes the upstream connections that the core asks for, each in a task of its own.
async fn connector(shared: Shared, timeout: Duration, tls: Option<Dialer>) {
    loop {
        let wanted = poll_fn(|cx| {
            let mut worker = shared.borrow_mut();
            worker.connector = cx.waker().clone();
            if worker.connect.is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(std::mem::take(&mut worker.connect))
            }
        })
        .await;
        for (index, addr) in wanted {
            tokio::task::spawn_local(connect(shared.clone(), index, addr, timeout, tls.clone()));
        }
    }
}

async fn connect(shared: Shared, index: usize, addr: String, timeout: Duration, tls: Option<Dialer>) {
    let made =
        tokio::time::timeout(timeout, stream::connect(&addr, tls.as_ref())).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection attempt"))
        });
    if shared.borrow_mut().connected(index, made) {
        poll_fn(move |cx| shared.borrow_mut().poll_upstream(index, cx)).await;
    }
}

impl Worker {
    /// Sets the core's clock; once per event.
    #[inline]
    fn clock(&mut self) {
        self.core.now = self.started.elapsed().as_micros() as u64;
    }

    /// Serves one client: reads what has come, runs it. Ready once the client is gone.
    fn poll_client(&mut self, key: ClientKey, cx: &mut Context<'_>) -> Poll<()> {
        self.clock();
        let mut reads = 0;
        loop {
            let Some(socket) = self.socket(key) else { return Poll::Ready(()) };
            socket.register(cx.waker());
            if socket.blocked {
                self.core.untouch(key);
                self.write_client(key);
                self.settle();
                match self.socket(key) {
                    None => return Poll::Ready(()),
                    Some(socket) if socket.blocked => return Poll::Pending,
                    Some(_) => {}
                }
            }
            if !self.core.wants_read(key) {
                return Poll::Pending;
            }
            if reads == READS_IN_A_ROW {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            reads += 1;
            let Some(Some((_, socket))) = self.clients.get_mut(key.index as usize) else {
                return Poll::Ready(());
            };
            match socket.poll_read(cx, &mut self.buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => self.core.client_eof(key),
                Poll::Ready(Ok(n)) => {
                    socket.read_at = self.core.now;
                    self.busy_poll.traffic(self.core.now);
                    self.core.client_data(key, &self.buffer[..n]);
                }
                Poll::Ready(Err(_)) => self.close_client(key),
            }
            self.settle();
        }
    }

    fn socket(&mut self, key: ClientKey) -> Option<&mut Socket> {
        match self.clients.get_mut(key.index as usize) {
            Some(Some((owner, socket))) if *owner == key => Some(socket),
            _ => None,
        }
    }

    /// Serves one upstream connection. Ready once it is gone.
    fn poll_upstream(&mut self, index: usize, cx: &mut Context<'_>) -> Poll<()> {
        self.clock();
        for _ in 0..READS_IN_A_ROW {
            let Some(Some(socket)) = self.upstreams.get_mut(index) else { return Poll::Ready(()) };
            socket.register(cx.waker());
            if socket.blocked {
                // It may answer what it has while it takes no more; and when neither, there is nothing to do.
                self.flush_upstream(index);
                self.settle();
            }
            let Some(Some(socket)) = self.upstreams.get_mut(index) else { return Poll::Ready(()) };
            match socket.poll_read(cx, &mut self.buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => self.lose_upstream(index, "it closed the connection"),
                Poll::Ready(Ok(n)) => {
                    self.busy_poll.traffic(self.core.now);
                    self.core.upstream_data(index, &self.buffer[..n]);
                }
                Poll::Ready(Err(error)) => self.lose_upstream(index, &error.to_string()),
            }
            self.settle();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// A connection attempt has ended; true when there is a connection to serve.
    fn connected(&mut self, index: usize, made: io::Result<Stream>) -> bool {
        self.clock();
        let up = made.is_ok();
        match made {
            Ok(stream) => {
                if self.upstreams.len() <= index {
                    self.upstreams.resize_with(index + 1, || None);
                }
                self.upstreams[index] = Some(Socket::new(stream, self.core.now));
                self.core.upstream_connected(index);
            }
            Err(error) => self.core.upstream_lost(index, &error.to_string()),
        }
        self.settle();
        up
    }

    fn lose_upstream(&mut self, index: usize, reason: &str) {
        if let Some(socket) = self.upstreams.get_mut(index) {
            *socket = None;
        }
        self.core.upstream_lost(index, reason);
    }

    /// Does what the core asks for, until it asks for nothing.
    #[inline]
    fn settle(&mut self) {
        loop {
            while let Some(key) = self.core.outbox.touched.pop() {
                if self.core.expects_more(key) {
                    self.late.push(key);
                } else {
                    self.core.untouch(key);
                    self.write_client(key);
                }
            }
            while let Some(key) = self.core.outbox.resume.pop() {
                self.core.resume(key);
                if let Some(socket) = self.socket(key) {
                    socket.wake();
                }
            }
            while let Some(index) = self.core.outbox.close.pop() {
                if let Some(socket) = self.upstreams.get_mut(index)
                    && let Some(socket) = socket.take()
                {
                    socket.wake();
                }
            }
            if self.core.outbox.touched.is_empty() && self.core.outbox.resume.is_empty() {
                break;
            }
        }
        if !self.core.outbox.dirty.is_empty() || !self.late.is_empty() {
            self.flusher.wake_by_ref();
        }
        if !self.core.outbox.connect.is_empty() {
            for index in std::mem::take(&mut self.core.outbox.connect) {
                self.connect.push((index, self.core.upstream_addr(index).to_owned()));
            }
            self.connector.wake_by_ref();
        }
        if std::mem::take(&mut self.core.outbox.refresh) {
            self.refresh.notify_one();
        }
    }

    /// Writes a client's replies, and closes it when it is done.
    #[inline]
    fn write_client(&mut self, key: ClientKey) {
        if let Some((reply, served)) = self.calls.get(&key.serial).and_then(|_| self.core.take_reply(key)) {
            if let Some(waiting) = self.calls.remove(&key.serial) {
                waiting.answer(reply.into(), served);
            }
            return;
        }
        let now = self.core.now;
        let Some(Some((owner, socket))) = self.clients.get_mut(key.index as usize) else { return };
        if *owner != key {
            return;
        }
        let output = self.core.client_output(key);
        if !output.is_empty() || socket.blocked {
            match socket.write(output, now) {
                Ok(written) => self.core.client_wrote(key, written),
                Err(_) => return self.close_client(key),
            }
        }
        let unsent = socket.has_unsent();
        if self.core.is_finished(key) && (!unsent || self.core.is_gone(key)) {
            self.close_client(key);
        } else if self.core.is_too_slow(key) {
            self.core.count_slow();
            tracing::warn!(client = key.index, "client closed: it does not read its replies");
            self.close_client(key);
        }
    }

    fn close_client(&mut self, key: ClientKey) {
        if let Some(place) = self.clients.get_mut(key.index as usize)
            && place.as_ref().is_some_and(|(owner, _)| *owner == key)
        {
            if let Some((_, mut socket)) = place.take() {
                socket.close();
            }
            self.core.remove_client(key);
        }
    }

    /// Writes what was gathered: to every node first, so that they work while the clients are written to.
    fn flush(&mut self) {
        self.flush_upstreams();
        let mut late = std::mem::take(&mut self.late);
        for key in late.drain(..) {
            self.core.untouch(key);
            self.write_client(key);
        }
        // `write_client` defers nobody.
        self.late = late;
        self.settle();
    }

    fn flush_upstreams(&mut self) {
        if self.core.outbox.dirty.is_empty() {
            return;
        }
        let mut dirty = std::mem::take(&mut self.core.outbox.dirty);
        for index in dirty.drain(..) {
            self.flush_upstream(index);
        }
        // Losing a connection may have made others dirty; otherwise keep the list's allocation.
        if self.core.outbox.dirty.is_empty() {
            self.core.outbox.dirty = dirty;
        }
    }

    fn flush_upstream(&mut self, index: usize) {
        let now = self.core.now;
        self.core.clean(index);
        let Some(Some(socket)) = self.upstreams.get_mut(index) else { return };
        match socket.write(self.core.upstream_output(index), now) {
            Ok(written) => self.core.upstream_wrote(index, written),
            Err(error) => {
                socket.wake();
                self.lose_upstream(index, &error.to_string());
            }
        }
    }

    fn drain(&mut self) {
        self.clock();
        self.core.stop();
        self.settle();
    }
}
