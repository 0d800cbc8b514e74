//! Random histories over real servers: readers of three proxies, rows that change and are invalidated, evictions, expiry,
//! slow and failing queries, writers through two of the proxies, a proxy that is killed while it loads. Every value is
//! unique, so each answer can be judged. And the same with a safeguard left out, which must be noticed.
//!
//! `DSPROXY_HISTORY_SECONDS` makes it longer, `DSPROXY_HISTORY_SEED` repeats one.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dsproxy::failpoint::Safeguard;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::bed::{Bed, PATIENCE};

use crate::support::{Resp, Value, eventually};

const KEYS: usize = 12;
/// Keys that are written behind, after the others.
const KEPT: usize = 8;
const FIRST: u64 = 1001;
const MAPPING: &str = "ttl = \"300ms\"\nnegative_ttl = \"200ms\"\nlease = \"600ms\"\n";

const WRITTEN: &str = r#"
[write_behind]
batch_interval = "30ms"
[[mapping]]
name = "kept"
key = "kept:{id}"
table = "kept"
load = "select i.id, i.v from kept i, gate() where i.id = any($1)"
id = "bigint"
format = "text"
column = "v"
write = "behind"
ttl = "300ms"
negative_ttl = "200ms"
lease = "600ms"
"#;

/// What is known of one key.
#[derive(Default)]
struct Key {
    /// Whether the row exists after the change of this number: by number.
    exists: Mutex<Vec<bool>>,
    /// By proxy: the change whose invalidation, or which as a write, it has acknowledged.
    floors: [AtomicU64; 3],
}

struct History {
    keys: Vec<Key>,
    stop: AtomicBool,
    reads: AtomicUsize,
    refused: AtomicUsize,
    changes: AtomicUsize,
    writes: AtomicUsize,
    /// Answers that must not be.
    wrong: Mutex<Vec<String>>,
}

/// The table, and the id in it.
fn row_of(key: usize) -> (&'static str, u64) {
    match key.checked_sub(KEYS) {
        None => ("item", FIRST + key as u64),
        Some(kept) => ("kept", FIRST + kept as u64),
    }
}

fn name(key: usize) -> String {
    let (table, id) = row_of(key);
    format!("{table}:{id}")
}

impl History {
    fn runs(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn is_enough(&self) -> bool {
        let count = |n: &AtomicUsize| n.load(Ordering::Relaxed);
        count(&self.reads) > 1000 && count(&self.changes) > 10 && count(&self.writes) > 100
    }

    fn found(&self, wrong: String) {
        self.wrong.lock().unwrap().push(wrong);
    }

    /// Whether an answer may be given to a reader that began when `floor` was known.
    fn judge(&self, key: usize, floor: u64, answer: &Value) {
        let exists = self.keys[key].exists.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Value::Error(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Value::Nil => {
                let gone = exists.iter().skip(floor as usize).any(|exists| !exists);
                if !gone {
                    self.found(format!(
                        "{}: nil, though the row has been there since change {floor}",
                        name(key)
                    ));
                }
            }
            value => {
                let text = value.text();
                let (of, change) = text.split_once(':').unwrap();
                assert_eq!(of, key.to_string(), "another key's value");
                let change: u64 = change.parse().unwrap();
                if change < floor {
                    let text = format!(
                        "{}: {change} is read after {floor} was invalidated or written here",
                        name(key)
                    );
                    self.found(text);
                }
            }
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self, bed: &Bed, proxy: usize, mut rng: StdRng) {
        let Ok(mut client) = Resp::try_connect(bed.proxies[proxy].addr()) else { return };
        while self.runs() {
            let keys: Vec<usize> =
                (0..rng.random_range(1..4)).map(|_| rng.random_range(0..KEYS + KEPT)).collect();
            let floor = |key: &usize| self.keys[*key].floors[proxy].load(Ordering::SeqCst);
            let floors: Vec<u64> = keys.iter().map(floor).collect();
            let mut words = vec![if keys.len() == 1 { "GET".to_owned() } else { "MGET".to_owned() }];
            words.extend(keys.iter().map(|key| name(*key)));
            client.send(&words);
            // The third proxy is killed.
            let Ok(reply) = client.try_recv() else { return assert_eq!(proxy, 2, "a reply is missing") };
            match &reply {
                Value::Array(values) => {
                    keys.iter()
                        .zip(&floors)
                        .zip(values)
                        .for_each(|((key, floor), v)| self.judge(*key, *floor, v));
                }
                value => self.judge(keys[0], floors[0], value),
            }
            if rng.random_bool(0.3) {
                std::thread::sleep(Duration::from_micros(rng.random_range(0..3000)));
            }
        }
    }

    /// Changes rows of its own keys, and invalidates them through one of the first two proxies.
    fn change(&self, bed: &Bed, own: usize, mut rng: StdRng) {
        let mut clients = [bed.proxies[0].connect(), bed.proxies[1].connect()];
        while self.runs() {
            let (key, proxy) = (rng.random_range(0..KEYS / 2) * 2 + own, rng.random_range(0..2));
            let exists = rng.random_bool(0.8);
            let change = {
                let mut known = self.keys[key].exists.lock().unwrap();
                known.push(exists);
                known.len() as u64 - 1
            };
            let id = FIRST + key as u64;
            match exists {
                true => bed.write(id, &format!("{key}:{change}")),
                false => bed.db.execute(&format!("delete from item where id = {id}")),
            }
            let done = match rng.random_range(0..10) {
                0 => post(bed, proxy, &format!(r#"{{"keys":["{}"]}}"#, name(key))),
                1 => post(bed, proxy, r#"{"pattern":"item:10*"}"#),
                _ => matches!(clients[proxy].cmd(&["DEL", &name(key)]), Value::Int(_)),
            };
            if done {
                self.keys[key].floors[proxy].fetch_max(change, Ordering::SeqCst);
            }
            self.changes.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(rng.random_range(0..20)));
        }
    }

    /// Writes its own keys through one of the first two proxies, one after the other.
    fn write(&self, bed: &Bed, own: usize, mut rng: StdRng) {
        let mut clients = [bed.proxies[0].connect(), bed.proxies[1].connect()];
        while self.runs() {
            let (key, proxy) = (KEYS + rng.random_range(0..KEPT / 2) * 2 + own, rng.random_range(0..2));
            let exists = rng.random_bool(0.8);
            let change = {
                let mut known = self.keys[key].exists.lock().unwrap();
                known.push(exists);
                known.len() as u64 - 1
            };
            let reply = match exists {
                true => clients[proxy].cmd(&["SET", &name(key), &format!("{key}:{change}")]),
                false => clients[proxy].cmd(&["DEL", &name(key)]),
            };
            if !matches!(reply, Value::Error(_)) {
                self.keys[key].floors[proxy].fetch_max(change, Ordering::SeqCst);
                self.writes.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_micros(rng.random_range(0..4000)));
        }
    }

    /// Makes queries slow, makes them fail, evicts entries and sidecars.
    fn disturb(&self, bed: &Bed, mut rng: StdRng) {
        while self.runs() {
            match rng.random_range(0..9) {
                0 => bed.fail(true),
                1 | 2 => bed.slow(rng.random_range(0.0..0.05)),
                3 => bed.slow(0.0),
                4 => drop(bed.direct(&["DEL", &name(rng.random_range(0..KEYS + KEPT))])),
                5 | 6 => {
                    // All that the node knows of a key that is written, and mostly while the last write waits.
                    let key = name(rng.random_range(KEYS..KEYS + KEPT));
                    let side = dsproxy::sidecar::sidecar_key(key.as_bytes());
                    bed.direct(&["DEL", &key, std::str::from_utf8(&side).unwrap()]);
                }
                _ => {
                    let key =
                        dsproxy::sidecar::sidecar_key(name(rng.random_range(0..KEYS + KEPT)).as_bytes());
                    bed.direct(&["DEL", std::str::from_utf8(&key).unwrap()]);
                }
            }
            std::thread::sleep(Duration::from_millis(rng.random_range(5..40)));
            bed.fail(false);
        }
    }

    /// Fills the nodes, so that they evict what they like.
    fn crowd(&self, bed: &Bed, mut rng: StdRng) {
        let mut client = bed.proxies[0].connect();
        let filler = "x".repeat(20_000);
        while self.runs() {
            client.cmd(&["SET", &format!("filler:{}", rng.random_range(0..2000)), &filler]);
        }
    }
}

fn post(bed: &Bed, proxy: usize, body: &str) -> bool {
    bed.proxies[proxy].post("/api/v1/cache/invalidate", body).status == 200
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Starts servers and proxies with these variables, and lets everybody do as they like: for `seconds`, or until something is
/// wrong.
fn play(seconds: u64, env: &[(&str, &str)]) -> (Bed, History) {
    let seed = number("DSPROXY_HISTORY_SEED").unwrap_or_else(rand::random);
    println!("DSPROXY_HISTORY_SEED={seed}");
    let mut bed = Bed::with(Bed::servers(), 3, MAPPING, WRITTEN, env);
    for node in bed.stack.redis_nodes() {
        let mut node = Resp::connect(&*node);
        node.cmd(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
        assert_eq!(node.cmd(&["CONFIG", "SET", "maxmemory", "12mb"]).text(), "OK");
    }
    let history = History {
        keys: (0..KEYS + KEPT).map(|_| Key::default()).collect(),
        stop: AtomicBool::new(false),
        reads: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        changes: AtomicUsize::new(0),
        writes: AtomicUsize::new(0),
        wrong: Mutex::default(),
    };
    for (at, key) in history.keys.iter().enumerate() {
        key.exists.lock().unwrap().push(true);
        let (table, id) = row_of(at);
        bed.db.execute(&format!(
            "insert into {table} values ({id}, '{at}:0') on conflict (id) do update set v = excluded.v"
        ));
    }
    let rng = |n: u64| StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(n));
    std::thread::scope(|scope| {
        let (history, bed) = (&history, &bed);
        for n in 0..6 {
            scope.spawn(move || history.read(bed, n % 3, rng(n as u64)));
        }
        (0..2).for_each(|own| drop(scope.spawn(move || history.change(bed, own, rng(10 + own as u64)))));
        (0..2).for_each(|own| drop(scope.spawn(move || history.write(bed, own, rng(15 + own as u64)))));
        scope.spawn(move || history.disturb(bed, rng(20)));
        scope.spawn(move || history.crowd(bed, rng(21)));
        let (started, length) = (Instant::now(), Duration::from_secs(seconds));
        // A machine that is busy gets more time.
        while history.wrong.lock().unwrap().is_empty()
            && (started.elapsed() < length || (!history.is_enough() && started.elapsed() < length + PATIENCE))
        {
            std::thread::sleep(length / 20);
            if started.elapsed() > length / 2 {
                bed.proxies[2].signal(rustix::process::Signal::KILL);
            }
        }
        history.stop.store(true, Ordering::Relaxed);
    });
    drop(bed.proxies.remove(2));
    (bed, history)
}

#[test]
fn random_histories_show_nothing_older_than_the_last_invalidation() {
    let (bed, history) = play(number("DSPROXY_HISTORY_SECONDS").unwrap_or(8), &[]);
    settle(&bed, &history);
    let wrong = history.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let count = |n: &AtomicUsize| n.load(Ordering::Relaxed);
    let (reads, refused, changes) = (count(&history.reads), count(&history.refused), count(&history.changes));
    let writes = count(&history.writes);
    println!(
        "{reads} reads ({refused} refused), {changes} changes, {writes} writes, {} queries",
        bed.loads()
    );
    assert!(history.is_enough() && refused < reads, "too little happened");
}

#[test]
fn a_history_without_the_overlay_shows_an_older_row() {
    let (_, name) = Safeguard::ALL.into_iter().find(|(known, _)| *known == Safeguard::Overlay).unwrap();
    let (_, history) = play(60, &[("DSPROXY_LEAVE_OUT", name)]);
    assert!(!history.wrong.lock().unwrap().is_empty(), "nobody has noticed that the overlay is missing");
}

/// Nothing is under way any more: entries are absent or equal to their rows, and so are answers; no acknowledged write is lost.
fn settle(bed: &Bed, history: &History) {
    bed.fail(false);
    bed.slow(0.0);
    let waiting = "dsproxy_write_behind_queue_rows{mapping=\"kept\"}";
    eventually(PATIENCE, "all is flushed", || bed.proxies.iter().all(|proxy| proxy.metric(waiting) == 0.0));
    for key in 0..KEYS + KEPT {
        let (table, id) = row_of(key);
        let rows = bed.db.query(&format!("select v from {table} where id = {id}"));
        let row = rows.first().and_then(|row| row[0].clone()).map_or(Value::Nil, |row| row.as_str().into());
        let last = history.keys[key].floors.iter().map(|floor| floor.load(Ordering::SeqCst)).max().unwrap();
        history.judge(key, last, &row);
        let cached = bed.direct(&["GET", &name(key)]);
        assert!(
            cached == Value::Nil || cached == row,
            "{}: {cached:?} is cached, {row:?} is the row",
            name(key)
        );
        for proxy in &bed.proxies {
            // A lease of the proxy that was killed may have to run out.
            eventually(PATIENCE, "it answers", || match proxy.connect().cmd(&["GET", &name(key)]) {
                Value::Error(_) => false,
                answer => {
                    assert_eq!(answer, row, "{}", name(key));
                    true
                }
            });
        }
    }
}
