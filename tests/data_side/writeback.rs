//! Write-behind against a real database.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dsproxy::mapping::{MappingId, MappingSpec, OrderKey, Row, StoreMode, WriteMode};
use dsproxy::source::{Source, SourceError};
use dsproxy::writeback::{
    KeyWrite, MappingOptions, Observer, Pending, Race, Write, WriteBehind, WriteBehindOptions, WriteError,
    record, record_of,
};
use tokio::runtime::Handle;

use crate::pg::{Pg, until};

#[derive(Default)]
pub struct Seen {
    pub flushes: AtomicUsize,
    pub rows: AtomicUsize,
    pub retries: AtomicUsize,
    pub rejected: Mutex<Vec<String>>,
}

impl Observer for Seen {
    fn flushed(&self, _: MappingId, rows: usize, _: Duration) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
    fn retrying(&self, _: MappingId, _: &SourceError, _: Duration) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }
    fn rejected(&self, _: MappingId, key: &[u8], error: &SourceError) {
        self.rejected.lock().unwrap().push(format!(
            "{} {}",
            String::from_utf8_lossy(key),
            error.code().unwrap_or("-")
        ));
    }
}

pub fn behind(name: &str, key: &str, table: &str, id: &str) -> MappingSpec {
    MappingSpec { write: WriteMode::Behind, ..MappingSpec::new(name, key, table, id) }
}

pub fn set(writes: &WriteBehind, source: &Source, key: &str, body: &str) -> Result<(), WriteError> {
    let (id, found) = source.mappings().find(key.as_bytes()).unwrap();
    let row = Row::parse(source.bound(id).unwrap(), found.ids(), body.as_bytes()).unwrap();
    let write = Write::Put { row, value: Bytes::copy_from_slice(body.as_bytes()) };
    writes.enqueue(id, Bytes::copy_from_slice(key.as_bytes()), write)
}

pub fn del(writes: &WriteBehind, source: &Source, key: &str) {
    let (id, found) = source.mappings().find(key.as_bytes()).unwrap();
    let ids = found.ids().iter().map(|s| (*s).into()).collect();
    writes.enqueue(id, Bytes::copy_from_slice(key.as_bytes()), Write::Delete { ids }).unwrap();
}

fn start(source: &Arc<Source>, options: WriteBehindOptions) -> (WriteBehind, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    (WriteBehind::start(source.clone(), options, seen.clone(), &Handle::current()), seen)
}

pub fn never() -> WriteBehindOptions {
    WriteBehindOptions {
        batch_rows: usize::MAX,
        batch_interval: Duration::from_secs(3600),
        ..WriteBehindOptions::default()
    }
}

pub const USERS: &str = "create table u (id bigint primary key, name text, age int check (age >= 0))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_leaves_at_its_row_count_or_after_its_interval() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let source = Arc::new(pg.source(vec![behind("u", "u:{id}", "u", "bigint")]).await);
    let (writes, seen) = start(
        &source,
        WriteBehindOptions { batch_interval: Duration::from_secs(3600), ..Default::default() },
    );
    for n in 0..49 {
        set(&writes, &source, &format!("u:{n}"), r#"{"name":"x"}"#).unwrap();
    }
    assert_eq!(writes.pending(0, b"u:48"), Some(Pending::Value(Bytes::from_static(b"{\"name\":\"x\"}"))));
    assert_eq!((seen.flushes.load(Ordering::Relaxed), writes.depth(0).rows), (0, 49));
    set(&writes, &source, "u:49", "{}").unwrap();
    until("50 rows are flushed", async || writes.depth(0).rows == 0).await;
    assert_eq!(
        (seen.flushes.load(Ordering::Relaxed), pg.one("select count(*) from u").await),
        (1, "50".into())
    );
    assert_eq!((writes.pending(0, b"u:48"), writes.depth(0)), (None, Default::default()));
    let (writes, _) = start(
        &source,
        WriteBehindOptions { batch_interval: Duration::from_millis(30), ..Default::default() },
    );
    let started = Instant::now();
    set(&writes, &source, "u:50", "{}").unwrap();
    del(&writes, &source, "u:1");
    assert_eq!(writes.pending(0, b"u:1"), Some(Pending::Deleted));
    until("the interval is over", async || writes.depth(0).rows == 0).await;
    assert!(started.elapsed() >= Duration::from_millis(30));
    assert_eq!(pg.one("select count(*) from u").await, "50");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn writes_of_a_key_keep_their_order_under_concurrent_writers() {
    let pg = Pg::start();
    pg.execute("create table u (id bigint primary key, name text, age int); create table l (id bigint, v int, ts bigint default 0, n bigserial primary key)").await;
    let mut log = behind("l", "l:{id}", "l", "bigint");
    (log.mode, log.order_by) = (StoreMode::Append, Some("ts".into()));
    let source = Arc::new(pg.source(vec![behind("u", "u:{id}", "u", "bigint"), log]).await);
    let (writes, _) = start(&source, WriteBehindOptions { max_batch_rows: 64, ..Default::default() });
    // A lock per key makes "the order of the calls" a fact that the test can know.
    let counters: Arc<Vec<Mutex<u32>>> = Arc::new((0..8).map(|_| Mutex::new(0)).collect());
    let writers = (0..4).map(|w: usize| {
        let (writes, source, counters) = (writes.clone(), source.clone(), counters.clone());
        std::thread::spawn(move || {
            for i in 0..1000 {
                let key = (i * 7 + w) % 8;
                let mut counter = counters[key].lock().unwrap();
                *counter += 1;
                match *counter % 10 {
                    9 => del(&writes, &source, &format!("u:{key}")),
                    _ => set(&writes, &source, &format!("u:{key}"), &format!(r#"{{"age":{}}}"#, *counter))
                        .unwrap(),
                }
                set(&writes, &source, &format!("l:{key}"), &format!(r#"{{"v":{}}}"#, *counter)).unwrap();
            }
        })
    });
    writers.collect::<Vec<_>>().into_iter().for_each(|t| t.join().unwrap());
    writes.flush_now().await;
    for (key, counter) in counters.iter().enumerate() {
        let last = *counter.lock().unwrap();
        let want = if last % 10 == 9 { String::new() } else { last.to_string() };
        assert_eq!(pg.one(&format!("select (select age from u where id = {key})")).await, want);
    }
    assert_eq!(pg.one("select count(*) from l").await, "4000");
    let disorder =
        "select count(*) from (select v - lag(v) over (partition by id order by n) d from l) x where d <> 1";
    assert_eq!(pg.one(disorder).await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_row_does_not_hurt_its_neighbours() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let source = Arc::new(pg.source(vec![behind("u", "u:{id}", "u", "bigint")]).await);
    let (writes, seen) = start(&source, never());
    for n in 0..200 {
        let age = if n == 77 || n == 150 { -1 } else { n };
        set(&writes, &source, &format!("u:{n}"), &format!(r#"{{"age":{age}}}"#)).unwrap();
    }
    set(&writes, &source, "u:150", r#"{"name":"later, and good"}"#).unwrap();
    writes.flush_now().await;
    assert_eq!(*seen.rejected.lock().unwrap(), ["u:77 23514", "u:150 23514"]);
    assert_eq!(
        pg.one("select count(*) || ' ' || sum(age) from u").await,
        format!("199 {}", (0..200).sum::<i32>() - 77 - 150)
    );
    assert_eq!((writes.depth(0).rows, writes.pending(0, b"u:77")), (0, None));
    assert!(seen.flushes.load(Ordering::Relaxed) <= 20, "{:?}", seen.flushes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_the_database_is_killed_and_restarted() {
    let pg = Pg::private();
    pg.execute(USERS).await;
    let source = Arc::new(pg.source(vec![behind("u", "u:{id}", "u", "bigint")]).await);
    let options = WriteBehindOptions {
        retry_most: Duration::from_millis(200),
        max_batch_rows: 100,
        ..Default::default()
    };
    let (writes, seen) = start(&source, options);
    for n in 0..3000 {
        set(&writes, &source, &format!("u:{n}"), &format!(r#"{{"age":{n}}}"#)).unwrap();
        if n == 500 {
            until("a batch is through", async || seen.rows.load(Ordering::Relaxed) >= 100).await;
            pg.kill();
        }
    }
    until("the database is missed", async || seen.retries.load(Ordering::Relaxed) >= 2).await;
    assert!(matches!(writes.pending(0, b"u:2999"), Some(Pending::Value(_))));
    tokio::task::block_in_place(|| pg.run());
    writes.flush_now().await;
    assert_eq!(
        pg.one("select count(*) || ' ' || sum(age) from u").await,
        format!("3000 {}", (0..3000).sum::<i32>())
    );
    assert!(seen.rejected.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_flushes_and_says_what_remained() {
    let pg = Pg::private();
    pg.execute(USERS).await;
    let source = Arc::new(pg.source(vec![behind("u", "u:{id}", "u", "bigint")]).await);
    let (writes, _) = start(&source, never());
    for n in 0..2500 {
        set(&writes, &source, &format!("u:{n}"), "{}").unwrap();
    }
    assert_eq!(writes.shutdown(Duration::from_secs(10)).await.rows, 0);
    assert_eq!(pg.one("select count(*) from u").await, "2500");
    assert_eq!(set(&writes, &source, "u:1", "{}"), Err(WriteError::Closed));
    let (writes, _) = start(&source, never());
    set(&writes, &source, "u:1", r#"{"name":"waits"}"#).unwrap();
    pg.kill();
    let started = Instant::now();
    let remained = writes.shutdown(Duration::from_millis(300)).await;
    assert!(remained.rows == 1 && remained.bytes > 0 && remained.oldest.is_some(), "{remained:?}");
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_and_recovers() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let mut read_only = MappingSpec::new("r", "r:{id}", "u", "bigint");
    read_only.write = WriteMode::None;
    let source = Arc::new(pg.source(vec![behind("u", "u:{id}", "u", "bigint"), read_only]).await);
    let (writes, _) = start(&source, WriteBehindOptions { max_rows: 10, ..never() });
    for n in 0..10 {
        set(&writes, &source, &format!("u:{n}"), "{}").unwrap();
    }
    let error = set(&writes, &source, "u:10", "{}").unwrap_err().to_string();
    assert!(error.starts_with("BUSY write-behind queue is full: 10 rows ("), "{error}");
    assert_eq!(writes.pending(0, b"u:10"), None);
    writes.flush_now().await;
    set(&writes, &source, "u:10", "{}").unwrap();
    let ids = Box::new(["1".into()]);
    assert_eq!(
        writes.enqueue(1, Bytes::from_static(b"r:1"), Write::Delete { ids }),
        Err(WriteError::ReadOnly)
    );
    let (writes, _) = start(&source, WriteBehindOptions { max_bytes: 2000, ..never() });
    let big = format!(r#"{{"name":"{}"}}"#, "x".repeat(2000));
    assert!(matches!(set(&writes, &source, "u:1", &big), Err(WriteError::Full { rows: 0, bytes: 0 })));
    set(&writes, &source, "u:1", "{}").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_waiting_row_of_an_append_mapping_is_seen_with_its_order() {
    let pg = Pg::start();
    pg.execute("create table l (id text, v text, ts bigint)").await;
    let mut log = behind("l", "l:{id}", "l", "text");
    (log.mode, log.order_by) = (StoreMode::Append, Some("ts".into()));
    let source = Arc::new(pg.source(vec![log]).await);
    let (writes, _) = start(&source, never());
    let newer = r#"{"v":"newer","ts":20}"#;
    set(&writes, &source, "l:a", newer).unwrap();
    set(&writes, &source, "l:a", r#"{"v":"late arrival","ts":10}"#).unwrap();
    assert_eq!(
        writes.pending(0, b"l:a"),
        Some(Pending::Newest(Bytes::from_static(newer.as_bytes()), OrderKey(20)))
    );
    writes.flush_now().await;
    assert_eq!((writes.pending(0, b"l:a"), pg.one("select count(*) from l").await), (None, "2".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_journaled_comes_back_in_order_and_what_was_withdrawn_does_not() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let source = Arc::new(pg.source(vec![behind("u", "u:{id}", "u", "bigint")]).await);
    let bound = source.bound(0).unwrap();
    let write = |n: u32, body: Option<&str>, base: Option<u64>| {
        let (key, ids) = (Bytes::from(format!("u:{n}")), [n.to_string()]);
        let write = match body {
            None => Write::Delete { ids: ids.iter().map(|id| Box::from(&**id)).collect() },
            Some(body) => Write::Put {
                row: Row::parse(bound, &ids, body.as_bytes()).unwrap(),
                value: Bytes::copy_from_slice(body.as_bytes()),
            },
        };
        KeyWrite { mapping: 0, key, write, base, expires_at: None, applies: false }
    };
    let unit = |version: u64, writes: &[KeyWrite]| {
        let records: Vec<_> = writes.iter().map(|write| record_of(bound, write)).collect();
        let mut payload = record::encode(&records);
        record::set_version(&mut payload, version);
        Bytes::from(payload)
    };
    let first = unit(100, &[write(1, Some(r#"{"age":1}"#), None), write(2, Some(r#"{"age":2}"#), None)]);
    let second = unit(200, &[write(1, None, None)]);
    let third = unit(300, &[write(3, Some(r#"{"age":3}"#), Some(250))]);
    let lost = unit(400, &[write(2, Some(r#"{"age":22}"#), Some(101))]);
    let (writes, _) = start(&source, never());
    let mut gone = dsproxy::writeback::Verdicts::default();
    let verdict = |operation| Bytes::from(record::encode(&[record::Record::verdict(operation)]));
    gone.note(&verdict(record::Operation::Withdraw(400))).unwrap();
    let all = |sequence, payload: &Bytes| writes.restore(sequence, payload, &gone, |_, _, _| true).unwrap();
    assert_eq!(all(1, &first).len(), 2);
    // The lane of this key has it already.
    assert!(writes.restore(3, &second, &gone, |mapping, _, at| mapping == "u" && at > 3).unwrap().is_empty());
    assert_eq!(all(3, &second)[0].value, None);
    let conditional = all(4, &third);
    assert_eq!((conditional[0].version, conditional[0].base), (300, Some(250)));
    assert!(all(5, &lost).is_empty());
    assert_eq!(writes.pending(0, b"u:1"), Some(Pending::Deleted));
    assert_eq!(writes.pending(0, b"u:3"), None, "not decided yet");
    assert_eq!((writes.oldest_sequence(), writes.clock().last() > 400), (Some(1), true));
    writes.decide(0, b"u:3", 300, Race::Won);
    assert!(matches!(writes.pending(0, b"u:3"), Some(Pending::Value(_))));
    writes.flush_now().await;
    assert_eq!(pg.one("select string_agg(id || '=' || age, ',' order by id) from u").await, "2=2,3=3");
    assert_eq!((writes.oldest_sequence(), writes.depth(0).rows), (None, 0));
    let misfit =
        record::encode(&[record::Record { mapping: "v".into(), ..record_of(bound, &write(1, None, None)) }]);
    let error = writes.restore(9, &Bytes::from(misfit), &gone, |_, _, _| true).unwrap_err().to_string();
    assert!(error.contains("'u:1' in mapping 'v', which is not configured"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_lost_its_race_is_never_flushed() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let source = Arc::new(pg.source(vec![behind("u", "u:{id}", "u", "bigint")]).await);
    let (writes, _) = start(&source, never());
    let put = |age: u32, base: Option<u64>| {
        let (body, ids) = (format!(r#"{{"age":{age}}}"#), ["1"]);
        let row = Row::parse(source.bound(0).unwrap(), &ids, body.as_bytes()).unwrap();
        let write = Write::Put { row, value: Bytes::from(body) };
        let write = KeyWrite {
            mapping: 0,
            key: Bytes::from_static(b"u:1"),
            write,
            base,
            expires_at: None,
            applies: false,
        };
        writes.submit(vec![write], Box::new(drop)).map(Option::unwrap)
    };
    let first = put(1, None).unwrap()[0];
    assert_eq!(put(2, Some(first - 1)), Err(WriteError::Outrun));
    let second = put(3, Some(first)).unwrap()[0];
    assert!(second > first);
    let flush = tokio::spawn({
        let writes = writes.clone();
        async move { writes.flush_now().await }
    });
    // What came before it is flushed; the undecided one, and what comes behind it, waits.
    until("the first is flushed", async || writes.depth(0).rows == 1).await;
    assert_eq!(pg.one("select age from u").await, "1");
    assert!(!flush.is_finished());
    writes.decide(0, b"u:1", second, Race::Lost);
    flush.await.unwrap();
    assert_eq!((pg.one("select age from u").await, writes.pending(0, b"u:1")), ("1".into(), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapping_may_have_triggers_of_its_own() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let source = Arc::new(pg.source(vec![behind("u", "u:{id}", "u", "bigint")]).await);
    let own = MappingOptions { batch_rows: Some(3), ..Default::default() };
    let (writes, seen) =
        start(&source, WriteBehindOptions { by_mapping: [("u".to_owned(), own)].into(), ..never() });
    for n in 0..2 {
        set(&writes, &source, &format!("u:{n}"), "{}").unwrap();
    }
    assert_eq!(writes.depth(0).rows, 2);
    set(&writes, &source, "u:2", "{}").unwrap();
    until("three rows are flushed", async || writes.depth(0).rows == 0).await;
    assert_eq!(seen.flushes.load(Ordering::Relaxed), 1, "lanes leave together while there is little");
}
