//! What the running proxy allocates: nothing for a plain GET hit in steady state, what a big reply needs it gives back, and
//! for a write that waits what it counts for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dsproxy::app::Server;
use dsproxy::config::Config;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::SharedStack;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What may happen besides the GETs: a tick of a background task, a timer.
const SLACK: usize = 20;
const GETS: usize = 20_000;

/// Allocations and growths of the whole process so far.
fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// Bytes that are allocated now.
fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

/// A client that allocates nothing either.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    expected: Vec<u8>,
    got: Vec<u8>,
}

impl Client {
    /// Asks for `key`, whose value is `value`, `pipeline` times at once.
    fn new(addr: SocketAddr, key: &str, value: &str, pipeline: usize) -> Self {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut request = Vec::new();
        dsproxy::resp::push_command(&mut request, [&b"SET"[..], key.as_bytes(), value.as_bytes()]);
        stream.write_all(&request).unwrap();
        let mut ok = [0; 5];
        stream.read_exact(&mut ok).unwrap();
        assert_eq!(&ok, b"+OK\r\n");
        request.clear();
        dsproxy::resp::push_command(&mut request, [&b"GET"[..], key.as_bytes()]);
        let expected = format!("${}\r\n{value}\r\n", value.len()).repeat(pipeline).into_bytes();
        Self { stream, request: request.repeat(pipeline), got: vec![0; expected.len()], expected }
    }

    fn ask(&mut self) {
        self.stream.write_all(&self.request).unwrap();
    }

    fn take(&mut self) {
        self.stream.read_exact(&mut self.got).unwrap();
        assert!(self.got == self.expected, "another value");
    }
}

/// Allocations of the process while `clients` do [`GETS`] GETs, all asking before the first is answered.
fn measure(clients: &mut [Client], pipeline: usize) -> usize {
    let count = GETS.div_ceil(pipeline * clients.len());
    let mut rounds = |count: usize| {
        for _ in 0..count {
            clients.iter_mut().for_each(Client::ask);
            clients.iter_mut().for_each(Client::take);
        }
    };
    rounds(count / 2);
    let before = allocations();
    rounds(count);
    allocations() - before
}

/// Merged replies of 8 MiB each, many at once: their buffers must not wait for their next use.
fn big_merged_replies_are_given_back(addr: SocketAddr, keys: &[String]) {
    const REPLIES: usize = 24;
    let value = "v".repeat(1 << 20);
    for key in keys {
        drop(Client::new(addr, key, &value, 1));
    }
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut request, mut got) = (Vec::new(), vec![0; 1 << 20]);
    let before = held();
    let mget: Vec<&[u8]> =
        std::iter::once(&b"MGET"[..]).chain(keys.iter().map(|key| key.as_bytes())).collect();
    (0..REPLIES).for_each(|_| dsproxy::resp::push_command(&mut request, mget.iter().copied()));
    stream.write_all(&request).unwrap();
    let mut left = REPLIES * (4 + keys.len() * (value.len() + 12));
    while left > 0 {
        let most = got.len().min(left);
        left -= stream.read(&mut got[..most]).unwrap();
    }
    support::eventually(Duration::from_secs(5), "the memory is given back", || held() < before + (8 << 20));
    eprintln!("{} KiB held after big merged replies", held().saturating_sub(before) >> 10);
}

/// The allocator counts for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The memory of a process stays within the bound only if a write takes no more than it counts for.
#[test]
fn a_write_that_waits_takes_what_it_counts_for() {
    const WRITES: usize = 20_000;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (stack, dir) = (SharedStack::get(), tempfile::tempdir().unwrap());
    let db = stack.fresh_database();
    db.execute("create table waits (id bigint primary key, name text not null, n int not null)");
    let file = dir.path().join("proxy.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n[http]\nlisten = \"127.0.0.1:0\"\n[upstream]\nnodes = {:?}\n\
         [database]\nurl = \"{}\"\n[write_behind]\nbatch_rows = 100000\nmax_batch_rows = 100000\nbatch_interval = \"1h\"\nshutdown_timeout = \"0\"\n\
         [journal]\ndata_dir = {:?}\n[[mapping]]\nname = \"waits\"\nkey = \"{}waits:{{id}}\"\ntable = \"waits\"\nid = \"bigint\"\n\
         write = \"behind\"\n",
        stack.redis_nodes(),
        db.url(),
        dir.path().join("data"),
        stack.key_prefix(),
    );
    std::fs::write(&file, text).unwrap();
    let config = Config::load(Some(&file), &dsproxy::config::Environment::of_process()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start(&config)).unwrap();
    let (addr, http) = (server.addresses().resp.unwrap(), server.addresses().http.unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = runtime.spawn(server.run(async move {
        let _ = stopped.await;
    }));

    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut write = |ids: std::ops::Range<usize>| {
        for chunk in ids.collect::<Vec<_>>().chunks(100) {
            let mut request = Vec::new();
            for id in chunk {
                let key = format!("{}waits:{id}", stack.key_prefix());
                let value = format!(r#"{{"name":"name of {id}","n":{id}}}"#);
                dsproxy::resp::push_command(&mut request, [&b"SET"[..], key.as_bytes(), value.as_bytes()]);
            }
            stream.write_all(&request).unwrap();
            let mut got = vec![0; 5 * chunk.len()];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(got, b"+OK\r\n".repeat(chunk.len()));
        }
    };
    write(0..2000);
    let (before, counted) = (held(), waiting_bytes(http));
    write(2000..2000 + WRITES);
    let (taken, counted) = (held() - before, waiting_bytes(http) - counted);
    eprintln!("{} bytes taken and {} counted per write", taken / WRITES, counted / WRITES);
    // The allocator's own share, which is not seen here, is a tenth or less.
    assert!(counted > taken * 9 / 10 && counted < taken * 3 / 2, "{taken} bytes taken, {counted} counted");
    stop.send(()).unwrap();
    // With what is left: nobody needs these rows.
    let _ = runtime.block_on(running).unwrap();
}

/// What the waiting writes count for.
fn waiting_bytes(http: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(http).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find(|line| line.starts_with("dsproxy_write_behind_queue_bytes")).unwrap();
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as usize
}

#[test]
fn a_get_hit_allocates_nothing_and_a_big_reply_leaves_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stack = SharedStack::get();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 1\nslowlog_threshold = \"0\"\n[http]\nenabled = false\n[upstream]\nnodes = {:?}\nrefresh_interval = \"1h\"\n",
        stack.redis_nodes()
    );
    std::fs::write(&file, text).unwrap();
    let config = Config::load(Some(&file), &dsproxy::config::Environment::of_process()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start(&config)).unwrap();
    let addr = server.addresses().resp.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = runtime.spawn(server.run(async move {
        let _ = stopped.await;
    }));

    let key = |n: usize| format!("{}{n}", stack.key_prefix());
    let small = "v".repeat(100);
    for (what, count, pipeline, value) in [
        ("one client, P=1", 1, 1, &small),
        ("one client, P=16", 1, 16, &small),
        ("20 clients on all shards, P=1", 20, 1, &small),
        ("20 clients on all shards, P=16", 20, 16, &small),
        // Replies that do not fit the read buffer at once.
        ("20 clients, P=8, 4 KiB", 20, 8, &"v".repeat(4096)),
        ("20 clients, P=1, 10 KiB", 20, 1, &"v".repeat(10 << 10)),
    ] {
        let mut clients: Vec<Client> =
            (0..count).map(|n| Client::new(addr, &key(n), value, pipeline)).collect();
        let allocated = measure(&mut clients, pipeline);
        eprintln!("{what}: {allocated} allocations in {GETS} GETs");
        assert!(allocated <= SLACK, "{what}: {allocated} allocations in {GETS} GETs");
    }
    big_merged_replies_are_given_back(addr, &(0..8).map(|n| key(100 + n)).collect::<Vec<_>>());
    stop.send(()).unwrap();
    assert_eq!(runtime.block_on(running).unwrap(), 0);
}
