//! Postgres is away under load: nothing fails below the limits, memory stays within them, at them writes are refused.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dsproxy::embedded::keeper::KeeperOptions;

use crate::check::Store;
use crate::support::{PrivateStack, Resp, Value, eventually};
use crate::victim::{Setup, Victim};

/// What may wait, bytes.
const QUEUE: usize = 24 << 20;
/// One value, bytes: it waits as a column, and as what readers see.
const VALUE: usize = 50_000;
/// What a proxy takes beside what waits: buffers of clients and upstream connections, the journal's, the allocator's. Bytes.
const SLACK: usize = 48 << 20;
const WRITERS: usize = 8;

fn resident(proxy: &Victim) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    strange: AtomicU64,
    at: AtomicUsize,
}

/// Appends large values until told to stop.
fn write(counts: &Counts, port: u16) {
    let (mut client, writer) =
        (Resp::connect(("127.0.0.1", port)), counts.at.fetch_add(1, Ordering::Relaxed));
    let filler = "x".repeat(VALUE);
    for n in 0.. {
        if counts.stop.load(Ordering::Relaxed) {
            return;
        }
        let counter = match client.cmd(&["SET", "log:1", &format!("{writer}-{n}-{filler}")]) {
            Value::Simple(_) => &counts.acknowledged,
            Value::Error(error) if error.starts_with("BUSY write-behind queue is full") => &counts.refused,
            other => {
                println!("{other:?}");
                &counts.strange
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn without_postgres_nothing_fails_below_the_limit_and_memory_stays_within_it() {
    let stack = PrivateStack::start(KeeperOptions { durable: true, ..KeeperOptions::default() });
    let store = Store::postgres(stack.fresh_database());
    let queue = format!("queue_bytes = {QUEUE}");
    let mut proxy = Victim::new(Setup::new(&stack.redis_nodes(), &store.url()).queue(&queue));
    proxy.start(None);
    let mut reader = Resp::connect(("127.0.0.1", proxy.port()));
    assert_eq!(reader.cmd(&["SET", "kv:1", r#"{"writer":1,"seq":7}"#]).text(), "OK");
    proxy.wait_flushed(Duration::from_secs(20));
    stack.kill("postgres");
    let (before, counts) = (resident(&proxy), Counts::default());
    let mut most = before;
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| write(&counts, proxy.port()));
        }
        let mut look = |what: &str, enough: &dyn Fn() -> bool| {
            eventually(Duration::from_secs(60), what, || {
                most = most.max(resident(&proxy));
                enough()
            });
        };
        // Half of what fits: a failure here would be one below the limit.
        let half = (QUEUE / (2 * (2 * VALUE + 1000))) as u64;
        look("half is written", &|| counts.acknowledged.load(Ordering::Relaxed) >= half);
        assert_eq!(counts.refused.load(Ordering::Relaxed), 0, "refused below the limit");
        look("the limit is reached", &|| counts.refused.load(Ordering::Relaxed) > 0);
        // And then they go on as clients do.
        look("many are refused", &|| counts.refused.load(Ordering::Relaxed) > 200);
        assert!(reader.cmd(&["GET", "kv:1"]).text().contains('7'), "reads go on");
        counts.stop.store(true, Ordering::Relaxed);
    });
    let (acknowledged, grown) = (counts.acknowledged.load(Ordering::Relaxed), most - before);
    println!(
        "{acknowledged} acknowledged, {} refused, memory grew by {} MiB; the limit is {} MiB",
        counts.refused.load(Ordering::Relaxed),
        grown >> 20,
        QUEUE >> 20
    );
    assert_eq!(counts.strange.load(Ordering::Relaxed), 0, "another error than the limit's");
    assert!(grown <= QUEUE + SLACK, "memory grew by {grown} bytes");
    stack.start_server("postgres");
    proxy.wait_flushed(Duration::from_secs(60));
    let rows = store.rows("select count(*), count(distinct value) from log");
    assert_eq!(rows, [[acknowledged.to_string(), acknowledged.to_string()]], "all of them, once");
}
