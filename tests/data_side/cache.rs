//! Read-through against a real database and a cache that the test can hold.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dsproxy::cache::{Loaded, Miss, Observer, ReadThrough, ReadThroughOptions, Until};
use dsproxy::mapping::{MappingId, MappingSpec, StoreMode};
use dsproxy::source::{Source, SourceError};
use dsproxy::writeback::{WriteBehind, WriteBehindOptions};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use crate::pg::{Pg, until};
use crate::redis::{Cache, Handed};
use crate::writeback::{behind, del, set};

#[derive(Default)]
struct Seen {
    queries: Mutex<Vec<usize>>,
    failed: AtomicUsize,
    stored: AtomicUsize,
    refused: AtomicUsize,
}

impl Observer for Seen {
    fn queried(&self, _: MappingId, keys: usize, _: Duration, error: Option<&SourceError>) {
        self.queries.lock().unwrap().push(keys);
        self.failed.fetch_add(usize::from(error.is_some()), Ordering::SeqCst);
    }
    fn filled(&self, _: MappingId, stored: usize, refused: usize) {
        self.stored.fetch_add(stored, Ordering::SeqCst);
        self.refused.fetch_add(refused, Ordering::SeqCst);
    }
}

struct Bench {
    source: Arc<Source>,
    writes: WriteBehind,
    cache: Arc<Cache>,
    seen: Arc<Seen>,
    reads: ReadThrough,
}

impl Bench {
    async fn new(pg: &Pg, specs: Vec<MappingSpec>, options: ReadThroughOptions) -> Self {
        let source = Arc::new(pg.source(specs).await);
        let waiting = WriteBehindOptions {
            batch_rows: usize::MAX,
            batch_interval: Duration::from_secs(3600),
            ..Default::default()
        };
        let writes = WriteBehind::start(source.clone(), waiting, Arc::new(()), &Handle::current());
        let (cache, seen) = (Cache::new(), Arc::new(Seen::default()));
        let store = Arc::new(Handed(cache.clone()));
        let reads = ReadThrough::start(
            source.clone(),
            Some(writes.clone()),
            store,
            seen.clone(),
            options,
            &Handle::current(),
        );
        Self { source, writes, cache, seen, reads }
    }

    fn ask(&self, keys: &[&str]) -> oneshot::Receiver<Vec<Loaded>> {
        let (send, receive) = oneshot::channel();
        let id = |key: &str| self.source.mappings().find_id(key.as_bytes()).unwrap();
        let keys = keys.iter().map(|key| (id(key), Bytes::copy_from_slice(key.as_bytes()))).collect();
        self.reads.load(Miss {
            keys,
            asked: std::time::Instant::now(),
            until: Until::Stored,
            reply: Box::new(move |answers| drop(send.send(answers.into_iter().map(|a| a.loaded).collect()))),
        });
        receive
    }

    async fn get(&self, key: &str) -> Loaded {
        self.ask(&[key]).await.unwrap().remove(0)
    }

    fn queries(&self) -> Vec<usize> {
        self.seen.queries.lock().unwrap().clone()
    }
}

fn value(text: &str) -> Loaded {
    Loaded::Value(Bytes::copy_from_slice(text.as_bytes()))
}

const USERS: &str = "create table u (id bigint primary key, name text); create sequence loads; \
     insert into u select i, 'u' || i from generate_series(1, 20000) i; analyze u";

fn user(n: usize) -> Loaded {
    value(&format!(r#"{{"id":{n},"name":"u{n}"}}"#))
}

/// A mapping whose loads count themselves, and wait while somebody holds advisory lock 42.
fn gated() -> MappingSpec {
    let mut spec = behind("u", "u:{id}", "u", "bigint");
    spec.load = Some(
        "select u.id, u.name from (select pg_advisory_xact_lock_shared(42), nextval('loads')) gate, u where u.id = any($1)".into(),
    );
    spec
}

async fn hold(pg: &Pg) -> tokio_postgres::Client {
    let holder = pg.client().await;
    holder.batch_execute("select pg_advisory_lock(42)").await.unwrap();
    holder
}

async fn loads_waiting(pg: &Pg, count: usize) {
    let sql = "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())";
    until("loads wait at the gate", async || pg.one(sql).await == count.to_string()).await;
}

async fn release(holder: &tokio_postgres::Client) {
    holder.batch_execute("select pg_advisory_unlock(42)").await.unwrap();
}

fn patient() -> ReadThroughOptions {
    ReadThroughOptions {
        timeout: Duration::from_secs(20),
        fill_timeout: Duration::from_secs(20),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_misses_of_one_key_are_one_query() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let bench = Arc::new(Bench::new(&pg, vec![gated()], patient()).await);
    let holder = hold(&pg).await;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let bench = bench.clone();
            std::thread::spawn(move || (0..2500).map(|_| bench.ask(&["u:7"])).collect::<Vec<_>>())
        })
        .collect();
    let answers: Vec<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    assert_eq!(bench.reads.waiting(), 10_000);
    release(&holder).await;
    for answer in answers {
        assert_eq!(answer.await.unwrap(), [user(7)]);
    }
    assert_eq!((bench.queries(), pg.one("select last_value from loads").await), (vec![1], "1".into()));
    assert_eq!((bench.reads.waiting(), bench.seen.stored.load(Ordering::SeqCst)), (0, 1));
    assert!(bench.cache.get("u:7").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_together_shares_queries_and_a_miss_is_never_split() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let spec = MappingSpec::new("v", "v:{id}", "u", "bigint");
    let bench =
        Bench::new(&pg, vec![gated(), spec], ReadThroughOptions { max_batch: 300, ..patient() }).await;
    let holder = hold(&pg).await;
    let first = bench.ask(&["u:20000"]);
    loads_waiting(&pg, 1).await;
    let singles: Vec<_> = (1..=1000).map(|n| bench.ask(&[&format!("u:{n}")])).collect();
    // One key is already in flight, one is asked for twice, one does not exist: all others in one query per mapping.
    let many: Vec<String> = (2001..=2400)
        .map(|n| format!("u:{n}"))
        .chain(["u:1", "u:2001", "u:0", "v:5", "v:6"].map(String::from))
        .collect();
    let many = bench.ask(&many.iter().map(String::as_str).collect::<Vec<_>>());
    release(&holder).await;
    assert_eq!(first.await.unwrap(), [user(20000)]);
    for (n, single) in singles.into_iter().enumerate() {
        assert_eq!(single.await.unwrap(), [user(n + 1)]);
    }
    let mut want: Vec<_> = (2001..=2400).map(user).collect();
    want.extend([user(1), user(2001), Loaded::Absent, user(5), user(6)]);
    assert_eq!(many.await.unwrap(), want);
    let mut queries = bench.queries();
    queries.sort_unstable();
    assert!(queries.contains(&2) && *queries.last().unwrap() >= 401 && queries.len() <= 8, "{queries:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_during_a_load_keeps_the_older_row_out_of_the_cache() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let bench = Bench::new(&pg, vec![gated()], patient()).await;
    let holder = hold(&pg).await;
    let before = bench.ask(&["u:1", "u:2"]);
    loads_waiting(&pg, 1).await;
    set(&bench.writes, &bench.source, "u:1", r#"{"name":"new"}"#).unwrap();
    bench.reads.note_write(0, b"u:1");
    assert_eq!(bench.get("u:1").await, value(r#"{"name":"new"}"#));
    release(&holder).await;
    assert_eq!(before.await.unwrap(), [user(1), user(2)]);
    assert_eq!((bench.cache.get("u:1"), bench.cache.get("u:2").is_some()), (None, true));
    // Written and flushed between the query and the fill: the mark alone must do it.
    let holder = hold(&pg).await;
    let before = bench.ask(&["u:3"]);
    loads_waiting(&pg, 1).await;
    set(&bench.writes, &bench.source, "u:3", r#"{"name":"new"}"#).unwrap();
    bench.reads.note_write(0, b"u:3");
    bench.writes.flush_now().await;
    let after = bench.ask(&["u:3"]);
    release(&holder).await;
    before.await.unwrap();
    assert_eq!(after.await.unwrap(), [value(r#"{"id":3,"name":"new"}"#)]);
    assert!(bench.cache.get("u:3").is_none_or(|v| v == r#"{"id":3,"name":"new"}"#.as_bytes()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_overtakes_the_fill_takes_the_value_out_again() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let bench = Bench::new(
        &pg,
        vec![gated()],
        ReadThroughOptions { fill_timeout: Duration::from_millis(20), ..patient() },
    )
    .await;
    let closed = bench.cache.gate.acquire_many(u32::MAX >> 3).await.unwrap();
    bench.cache.gate.forget_permits(Semaphore::MAX_PERMITS);
    // The reply does not wait for a stuck cache longer than its timeout.
    assert_eq!(bench.get("u:1").await, user(1));
    del(&bench.writes, &bench.source, "u:1");
    bench.reads.note_write(0, b"u:1");
    assert_eq!(bench.get("u:1").await, Loaded::Absent);
    drop(closed);
    until("the fill is undone", async || bench.cache.evicted.lock().unwrap().len() == 1).await;
    assert_eq!(bench.cache.get("u:1"), None);
    bench.writes.flush_now().await;
    assert_eq!(bench.get("u:1").await, Loaded::Absent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_database_there_is_an_error_and_never_a_false_nil() {
    let pg = Pg::private();
    pg.execute(USERS).await;
    let options = ReadThroughOptions { timeout: Duration::from_secs(1), ..Default::default() };
    let bench = Bench::new(&pg, vec![gated()], options).await;
    assert_eq!(bench.get("u:1").await, user(1));
    set(&bench.writes, &bench.source, "u:2", r#"{"name":"waits"}"#).unwrap();
    pg.kill();
    let mut failed = 0;
    for n in 3..40 {
        let started = Instant::now();
        match bench.get(&format!("u:{n}")).await {
            Loaded::Failed(text) => {
                assert!(text.starts_with("ERR database unavailable: "), "{text}");
                failed += 1;
            }
            // A backend may outlive its postmaster for a moment, and its answer is true.
            answer => assert_eq!(answer, user(n)),
        }
        assert!(started.elapsed() < Duration::from_millis(1500));
    }
    assert!(failed > 20, "{failed}");
    assert_eq!(bench.get("u:2").await, value(r#"{"name":"waits"}"#));
    tokio::task::block_in_place(|| pg.run());
    until("loads work again", async || bench.get("u:3").await == user(3)).await;
    // A database that hangs: the deadline answers, and later readers are not held up by those who gave up.
    let holder = hold(&pg).await;
    let started = Instant::now();
    let waiting: Vec<_> = (100..200).map(|n| bench.ask(&[&format!("u:{n}")])).collect();
    for answer in waiting {
        assert!(matches!(&answer.await.unwrap()[..], [Loaded::Failed(text)] if text.contains("unavailable")));
    }
    assert!(started.elapsed() < Duration::from_millis(1800), "{:?}", started.elapsed());
    release(&holder).await;
    until("loads work again", async || bench.get("u:100").await == user(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_waiters_are_refused_and_a_dead_loader_strands_nobody() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let bench = Bench::new(&pg, vec![gated()], ReadThroughOptions { max_waiting: 10, ..patient() }).await;
    let _holder = hold(&pg).await;
    let waiting: Vec<_> = (1..=10).map(|n| bench.ask(&[&format!("u:{n}")])).collect();
    let Loaded::Failed(text) = bench.get("u:11").await else { panic!() };
    assert!(text.starts_with("ERR read-through is overloaded: 10 keys"), "{text}");
    loads_waiting(&pg, 1).await;
    bench.reads.shutdown(Duration::from_millis(50)).await;
    for answer in waiting {
        assert!(matches!(&answer.await.unwrap()[..], [Loaded::Failed(_)]));
    }
    assert!(matches!(bench.get("u:1").await, Loaded::Failed(_)));
    // The runtime of the loader ends under it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let source = Arc::new(pg.source(vec![gated()]).await);
    let store = Arc::new(Handed(Cache::new()));
    let reads = ReadThrough::start(source, None, store, Arc::new(()), patient(), runtime.handle());
    let (send, receive) = oneshot::channel();
    let keys = vec![(0, Bytes::from_static(b"u:1"))];
    reads.load(Miss {
        keys,
        asked: std::time::Instant::now(),
        until: Until::Stored,
        reply: Box::new(move |answers| {
            drop(send.send(answers.into_iter().map(|a| a.loaded).collect::<Vec<_>>()))
        }),
    });
    loads_waiting(&pg, 1).await;
    runtime.shutdown_background();
    assert!(matches!(&receive.await.unwrap()[..], [Loaded::Failed(text)] if text.contains("interrupted")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_has_jitter_and_cache_off_stores_nothing() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let mut forever = MappingSpec::new("f", "f:{id}", "u", "bigint");
    forever.ttl = Duration::ZERO;
    let mut off = MappingSpec::new("o", "o:{id}", "u", "bigint");
    off.cache = false;
    let bench =
        Bench::new(&pg, vec![MappingSpec::new("u", "u:{id}", "u", "bigint"), forever, off], patient()).await;
    let keys: Vec<String> = (1..=100).map(|n| format!("u:{n}")).chain(["f:1".into(), "o:1".into()]).collect();
    bench.ask(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
    let lives = bench.cache.lives(keys.iter().map(String::as_str));
    assert_eq!((lives.len(), lives["f:1"]), (101, -1));
    let ttls: Vec<_> =
        lives.iter().filter(|(k, _)| k.starts_with('u')).map(|(_, life)| life / 1000).collect();
    assert!(ttls.iter().all(|t| (265..=330).contains(t)) && ttls.iter().any(|t| *t != ttls[0]), "{ttls:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_of_waiting_and_stored_rows_wins() {
    let pg = Pg::start();
    pg.execute("create table l (id text, v text, ts bigint); insert into l values ('a', 'stored', 15), ('b', 'stored', 15)").await;
    let mut log = behind("l", "l:{id}", "l", "text");
    (log.mode, log.order_by) = (StoreMode::Append, Some("ts".into()));
    let bench = Bench::new(&pg, vec![log], patient()).await;
    set(&bench.writes, &bench.source, "l:a", r#"{"v":"older","ts":10}"#).unwrap();
    set(&bench.writes, &bench.source, "l:b", r#"{"v":"newer","ts":20}"#).unwrap();
    set(&bench.writes, &bench.source, "l:c", r#"{"v":"only","ts":1}"#).unwrap();
    let answers = bench.ask(&["l:a", "l:b", "l:c", "l:d"]).await.unwrap();
    let stored = value(r#"{"id":"a","v":"stored","ts":15}"#);
    assert_eq!(
        answers,
        [stored.clone(), value(r#"{"v":"newer","ts":20}"#), value(r#"{"v":"only","ts":1}"#), Loaded::Absent]
    );
    assert!(bench.cache.lives(["l:a", "l:b", "l:c", "l:d"]).is_empty());
    bench.writes.flush_now().await;
    assert_eq!(bench.get("l:a").await, stored);
    assert!(bench.cache.get("l:a").is_some());
}
