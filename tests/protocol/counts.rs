//! One load per key, few queries for many keys.

use std::time::{Duration, Instant};

use crate::bed::{Bed, PATIENCE};
use crate::support::{Value, eventually};

const MISSES: usize = 10_000;

/// `GET` of these keys over several connections of each proxy at once; the values.
fn storm(bed: &Bed, connections: usize, keys: &(dyn Fn(usize) -> String + Sync)) -> Vec<Value> {
    let clients = bed.proxies.len() * connections;
    let each = MISSES / clients;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|n| {
                let mut client = bed.proxies[n % bed.proxies.len()].connect();
                client.set_patience(PATIENCE);
                scope.spawn(move || {
                    let of = |at: usize| vec!["GET".to_owned(), keys(n * each + at)];
                    client.pipeline(&(0..each).map(of).collect::<Vec<_>>())
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn ten_thousand_misses_of_one_key_through_three_proxies_are_one_query() {
    let bed = Bed::start(3, "", "");
    bed.slow(0.3);
    let values = storm(&bed, 8, &|_| "item:7".to_owned());
    assert!(values.len() > 9900 && values.iter().all(|value| *value == "v7".into()));
    assert_eq!(bed.loads(), 1);
    // The same for a row that does not exist.
    let values = storm(&bed, 8, &|_| "item:0".to_owned());
    assert!(values.iter().all(|value| *value == Value::Nil));
    let queries = "dsproxy_queries_total{kind=\"load\",mapping=\"item\",outcome=\"ok\"}";
    assert_eq!(bed.proxies.iter().map(|proxy| proxy.metric(queries)).sum::<f64>(), 2.0);
}

#[test]
fn when_the_proxy_that_loads_is_killed_another_takes_over() {
    let mut bed = Bed::start(3, "lease = \"1500ms\"", "");
    bed.slow(1.0);
    let mut first = bed.proxies[0].connect();
    first.send(&["GET", "item:7"]);
    eventually(PATIENCE, "the first proxy holds the lease", || bed.sidecar("item:7", "l").is_some());
    let started = Instant::now();
    let mut waiting: Vec<_> = (0..100).map(|n| bed.proxies[1 + n % 2].connect()).collect();
    waiting.iter_mut().for_each(|client| client.send(&["GET", "item:7"]));
    bed.proxies[0].signal(rustix::process::Signal::KILL);
    for client in &mut waiting {
        assert_eq!(client.recv(), "v7".into());
    }
    let took = started.elapsed();
    assert!(bed.loads() <= 2, "{}", bed.loads());
    assert!(took < Duration::from_millis(1500 + 1000 + 800), "lease and one load: {took:?}");
    drop(bed.proxies.remove(0));
}

#[test]
fn many_missing_keys_share_queries() {
    let bed = Bed::start(1, "", "[read_through]\nmax_batch = 1000\nconcurrency = 4\n");
    let values = storm(&bed, 10, &|n| format!("item:{}", n + 1));
    assert!(values.iter().enumerate().all(|(n, value)| *value == format!("v{}", n + 1).as_str().into()));
    let loads = bed.loads();
    println!("{loads} queries for {MISSES} keys");
    assert!(loads <= 10 + 4, "{loads}");
}

#[test]
fn a_failed_load_is_given_back_and_its_error_told() {
    let bed = Bed::start(2, "", "");
    bed.fail(true);
    for proxy in &bed.proxies {
        let started = Instant::now();
        let reply = proxy.connect().cmd(&["GET", "item:7"]);
        assert!(reply.error().starts_with("ERR database unavailable"), "{reply:?}");
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "nobody waits for the lease of a load that failed"
        );
    }
    assert_eq!(bed.sidecar("item:7", "l"), None);
    bed.fail(false);
    assert_eq!(bed.proxies[1].connect().cmd(&["GET", "item:7"]), "v7".into());
}

#[test]
fn scripts_that_the_nodes_have_forgotten_are_shown_again() {
    let bed = Bed::start(1, "", "");
    let mut client = bed.proxies[0].connect();
    for n in 1..=20 {
        for node in bed.stack.redis_nodes() {
            crate::support::Resp::connect(&*node).cmd(&["SCRIPT", "FLUSH"]);
        }
        assert_eq!(client.cmd(&["GET", &format!("item:{n}")]), format!("v{n}").as_str().into());
        assert_eq!(bed.direct(&["EXISTS", &format!("item:{n}")]).int(), 1, "it was stored");
    }
    // A client's flush through the proxy does not take them from it.
    client.cmd(&["SCRIPT", "FLUSH"]);
    assert_eq!(client.cmd(&["GET", "item:21"]), "v21".into());
    assert_eq!(bed.direct(&["EXISTS", "item:21"]).int(), 1);
}

#[test]
fn the_answer_to_many_keys_waits_for_the_query_and_not_for_the_fill() {
    let bed = Bed::start(1, "", "");
    let mut client = bed.proxies[0].connect();
    let keys: Vec<String> = (1..=100).map(|n| format!("item:{n}")).collect();
    let mget = |keys: &[String]| [&["MGET".to_owned()], keys].concat();
    client.cmd(&mget(&keys[..50]));
    let before = bed.loads();
    bed.slow(0.6);
    client.send(&mget(&keys));
    eventually(PATIENCE, "the query runs", || bed.loads() > before);
    bed.slow(0.0);
    // From here on no node answers anything.
    (0..3).for_each(|node| bed.stack.pause(&format!("redis-{node}")));
    let reply = client.try_recv();
    let frozen = (0..3).all(|node| is_stopped(&bed, node));
    (0..3).for_each(|node| bed.stack.cont(&format!("redis-{node}")));
    let want: Vec<Value> = (1..=100).map(|n| format!("v{n}").as_str().into()).collect();
    assert_eq!((reply.unwrap().items(), frozen), (&want[..], true));
    // Whoever asks again, and be it at once, has the database asked no second time.
    assert_eq!(client.cmd(&mget(&keys)).items(), want);
    assert_eq!(bed.loads(), before + 1);
    let stored = |key: &String| bed.direct(&["EXISTS", key]).int() == 1;
    eventually(PATIENCE, "all are stored", || keys.iter().all(stored));
}

/// Whether a node is frozen (state `T` of its process).
fn is_stopped(bed: &Bed, node: usize) -> bool {
    let pid = bed.stack.pid(&format!("redis-{node}"));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('T')
}
