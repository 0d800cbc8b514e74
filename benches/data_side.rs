//! How fast rows are loaded and flushed, against a real Postgres: `cargo bench --bench data_side`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../tests/data_side/pg.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod pg;
#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dsproxy::cache::{Answer, BoxFuture, Miss, Observer, ReadThrough, ReadThroughOptions, Store, Until};
use dsproxy::mapping::{MappingId, MappingSpec, Row, WriteMode};
use dsproxy::source::SourceError;
use dsproxy::writeback::{Observer as WriteObserver, Write, WriteBehind, WriteBehindOptions};
use pg::Pg;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A cluster that is away: each read is a load, and nothing is stored.
struct Nothing;

impl Store for Nothing {
    fn run(&self, requests: Vec<Vec<u8>>) -> BoxFuture<Vec<Option<Bytes>>> {
        Box::pin(async move { vec![None; requests.len()] })
    }
}

#[derive(Default)]
struct Counts {
    queries: AtomicUsize,
    flushes: AtomicUsize,
}

impl Observer for Counts {
    fn queried(&self, _: MappingId, _: usize, _: Duration, _: Option<&SourceError>) {
        self.queries.fetch_add(1, Ordering::Relaxed);
    }
}

impl WriteObserver for Counts {
    fn flushed(&self, _: MappingId, _: usize, _: Duration) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    loads().await;
    flushes().await;
}

async fn loads() {
    let pg = Pg::start();
    pg.execute(
        "create table u (id bigint primary key, name text); \
         insert into u select i, 'u' || i from generate_series(1, 20000) i; analyze u",
    )
    .await;
    for concurrency in [1, 4] {
        let counts = Arc::new(Counts::default());
        let source = Arc::new(pg.source(vec![MappingSpec::new("u", "u:{id}", "u", "bigint")]).await);
        let options = ReadThroughOptions {
            concurrency,
            timeout: Duration::from_secs(20),
            ..ReadThroughOptions::default()
        };
        let runtime = Handle::current();
        let reads = ReadThrough::start(source, None, Arc::new(Nothing), counts.clone(), options, &runtime);
        let ask = |n: usize| -> oneshot::Receiver<Vec<Answer>> {
            let (send, receive) = oneshot::channel();
            let keys = vec![(0, Bytes::from(format!("u:{n}")))];
            reads.load(Miss {
                keys,
                asked: std::time::Instant::now(),
                until: Until::Stored,
                reply: Box::new(move |answers| drop(send.send(answers))),
            });
            receive
        };
        for n in 1..=10 {
            ask(n).await.unwrap(); // connections and statements are ready
        }
        let started = Instant::now();
        let rounds = 10;
        for _ in 0..rounds {
            let waiting: Vec<_> = (1..=20_000).map(&ask).collect();
            for answer in waiting {
                answer.await.unwrap();
            }
        }
        let rate = f64::from(rounds * 20_000) / started.elapsed().as_secs_f64();
        let queries = counts.queries.load(Ordering::Relaxed);
        let started = Instant::now();
        for n in 1..=2000 {
            ask(n).await.unwrap();
        }
        let one = started.elapsed() / 2000;
        println!(
            "load, concurrency {concurrency}: {rate:.0} keys/s in {queries} queries; one miss alone {one:?}"
        );
    }
}

async fn flushes() {
    let pg = Pg::start();
    pg.execute("create table u (id bigint primary key, name text, age int)").await;
    let spec = MappingSpec { write: WriteMode::Behind, ..MappingSpec::new("u", "u:{id}", "u", "bigint") };
    let source = Arc::new(pg.source(vec![spec]).await);
    for (max_batch_rows, rows) in [(50, 50_000), (1000, 300_000)] {
        pg.execute("truncate u").await;
        let counts = Arc::new(Counts::default());
        let options = WriteBehindOptions {
            max_batch_rows,
            batch_rows: usize::MAX,
            batch_interval: Duration::from_secs(3600),
            ..WriteBehindOptions::default()
        };
        let writes = WriteBehind::start(source.clone(), options, counts.clone(), &Handle::current());
        let started = Instant::now();
        for n in 0..rows {
            let (key, body) = (format!("u:{n}"), &b"{\"name\":\"somebody\",\"age\":33}"[..]);
            let (id, found) = source.mappings().find(key.as_bytes()).unwrap();
            let row = Row::parse(source.bound(id).unwrap(), found.ids(), body).unwrap();
            let write = Write::Put { row, value: Bytes::from_static(body) };
            writes.enqueue(id, Bytes::from(key), write).unwrap();
        }
        let enqueue = started.elapsed().as_nanos() as f64 / f64::from(rows);
        let started = Instant::now();
        writes.flush_now().await;
        let rate = f64::from(rows) / started.elapsed().as_secs_f64();
        let flushes = counts.flushes.load(Ordering::Relaxed);
        println!(
            "flush, batches of {max_batch_rows}: {rate:.0} rows/s in {flushes} flushes; enqueue {enqueue:.0} ns"
        );
    }
}
