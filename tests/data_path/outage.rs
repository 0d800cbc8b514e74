//! Postgres stopped, killed, full queues; Redis away. Each test has servers of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::bed::{Bed, PATIENCE, user};
use crate::support::{Value, eventually};

const QUICK: &str = "connect_timeout = \"500ms\"\nstatement_timeout = \"1s\"\n[read_through]\ntimeout = \"2s\"\n\
    [write_behind]\nretry_max = \"200ms\"\n";

#[test]
fn without_postgres_hits_and_waiting_writes_are_served_and_misses_fail_clearly() {
    let bed = Bed::private(QUICK);
    assert_eq!(bed.get("user:1"), user(1));
    bed.stack().stop("postgres");

    assert_eq!(bed.get("user:1"), user(1), "a hit");
    for n in 2..10 {
        for args in [
            vec!["GET".to_owned(), format!("user:{n}")],
            vec!["MGET".to_owned(), "user:1".to_owned(), format!("user:{n}"), "plain".to_owned()],
        ] {
            let started = Instant::now();
            let reply = bed.proxy.connect().cmd(&args);
            assert!(reply.error().starts_with("ERR database unavailable: "), "never a false nil: {reply:?}");
            assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
        }
    }
    let answer = bed.proxy.get("/read?user_id=a");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("database unavailable"), "{answer:?}");

    // Writes are taken, shown, and shown again when the cache has lost them.
    let ada = r#"{"name":"Ada"}"#;
    for n in 1..=60 {
        assert_eq!(bed.run(&["SET", &format!("@user:{n}"), ada]).text(), "OK");
    }
    bed.run(&["DEL", "@user:100"]);
    assert_eq!(bed.proxy.post("/write", r#"{"user_id":"a","value":"x"}"#).status, 202);
    assert_eq!(bed.proxy.post("/write", r#"{"user_id":"b","value":"y","ts":5}"#).status, 202);
    bed.direct(&["DEL", "@user:2"]);
    assert_eq!(bed.get("user:2"), ada);
    assert_eq!(bed.run(&["GET", "@user:100"]), Value::Nil, "deleted, and that is known");
    assert_eq!(bed.proxy.get("/read?user_id=b").body, "y");
    eventually(PATIENCE, "health says so", || {
        let ready = bed.proxy.get("/health/ready");
        ready.status == 503 && ready.body.contains(r#""database":{"reason":"#)
    });
    let ready = bed.proxy.get("/health/ready").body;
    assert!(ready.contains(r#""redis":{"status":"up"}"#), "{ready}");

    bed.stack().start_server("postgres");
    eventually(PATIENCE, "ready again", || bed.proxy.get("/health/ready").status == 200);
    bed.wait_flushed();
    assert_eq!(bed.get("user:150"), user(150));
    let written = "select (select count(*) from users where name = 'Ada'), (select count(*) from user_data), \
                   (select count(*) from users where id = 100)";
    assert_eq!(bed.db.query(written), [["60", "2", "0"].map(|n| Some(n.to_owned()))]);
}

#[test]
fn no_acknowledged_row_is_lost_when_postgres_is_killed() {
    let bed = Bed::private(QUICK);
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut wanted: HashMap<u32, String> = HashMap::new();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u32)
            .map(|writer| {
                let (bed, stop, sent) = (&bed, &stop, &sent);
                let mut client = bed.proxy.connect();
                scope.spawn(move || {
                    let mut last = HashMap::new();
                    for n in 0_u32.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let (id, name) = (1000 * (writer + 1) + n % 300, format!("{writer}.{n}"));
                        let value = format!(r#"{{"name":"{name}"}}"#);
                        assert_eq!(client.cmd(&["SET", &format!("user:{id}"), &value]).text(), "OK");
                        last.insert(id, name);
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    last
                })
            })
            .collect();
        let after = |more: usize| {
            let goal = sent.load(Ordering::Relaxed) + more;
            eventually(PATIENCE, "writes go on", || sent.load(Ordering::Relaxed) >= goal);
        };
        after(2000);
        for _ in 0..2 {
            bed.stack().kill("postgres");
            after(2000);
            bed.stack().start_server("postgres");
            after(1000);
        }
        stop.store(true, Ordering::Relaxed);
        wanted.extend(writers.into_iter().flat_map(|writer| writer.join().unwrap()));
    });
    bed.wait_flushed();
    let rows = bed.db.query("select id, name from users where id >= 1000");
    let found: HashMap<u32, String> = rows
        .into_iter()
        .map(|row| (row[0].as_ref().unwrap().parse().unwrap(), row[1].clone().unwrap()))
        .collect();
    assert_eq!(found.len(), wanted.len());
    for (id, name) in &wanted {
        assert_eq!(&found[id], name, "user:{id}");
    }
    assert_eq!(bed.proxy.metric("dsproxy_rejected_rows_total{mapping=\"user\",reason=\"refused\"}"), 0.0);
}

#[test]
fn a_full_queue_refuses_writes_and_takes_them_again_later() {
    let bed = Bed::private(
        "[write_behind]\nbatch_rows = 10\nmax_batch_rows = 10\nqueue_rows = 10\nretry_max = \"200ms\"\n",
    );
    bed.stack().stop("postgres");
    let ada = r#"{"name":"Ada"}"#;
    let mut client = bed.proxy.connect();
    for n in 1..=10 {
        assert_eq!(client.cmd(&["SET", &format!("user:{n}"), ada]).text(), "OK");
    }
    for args in [&["SET", "user:11", ada][..], &["DEL", "user:11"], &["SET", "user_data:x", "v"]] {
        let reply = client.cmd(args);
        assert!(reply.error().starts_with("BUSY write-behind queue is full: 10 rows"), "{args:?}: {reply:?}");
    }
    let answer = bed.proxy.post("/write", r#"{"user_id":"x","value":"v"}"#);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.head.to_ascii_lowercase().contains("retry-after"), "{answer:?}");
    assert_eq!(bed.proxy.post("/write", r#"{"user_id":"x","value":"v","ts":1}"#).status, 503);
    assert_eq!(client.cmd(&["GET", "user:10"]).text(), ada, "reads go on");
    assert_eq!(client.cmd(&["SET", "plain", "x"]).text(), "OK", "plain keys go on");
    assert_eq!(bed.direct(&["EXISTS", "user:11", "user:11"]).int(), 0);
    eventually(PATIENCE, "health says so", || {
        bed.proxy.get("/health/ready").body.contains("10 of 10 rows wait")
    });
    bed.stack().start_server("postgres");
    bed.wait_flushed();
    assert_eq!(client.cmd(&["SET", "user:11", ada]).text(), "OK");
    eventually(PATIENCE, "ready again", || bed.proxy.get("/health/ready").status == 200);
}

#[test]
fn a_queue_that_cannot_be_written_in_time_is_told_at_the_end() {
    let mut bed = Bed::private("[write_behind]\nshutdown_timeout = \"500ms\"\n");
    bed.stack().stop("postgres");
    for n in 1..=3 {
        bed.run(&["SET", &format!("@user:{n}"), r#"{"name":"Ada"}"#]);
    }
    let status = bed.proxy.stop();
    assert!(!status.success());
    assert!(bed.proxy.log().contains("3 rows could not be written"), "{}", bed.proxy.log());
}

#[test]
fn health_names_redis_when_it_is_away() {
    let bed = Bed::private("");
    bed.get("user:1");
    let nodes = ["redis-0", "redis-1", "redis-2"];
    nodes.iter().for_each(|node| bed.stack().stop(node));
    eventually(PATIENCE, "not ready", || {
        let ready = bed.proxy.get("/health/ready");
        ready.status == 503 && ready.body.contains(r#""redis":{"reason":"#)
    });
    let ready = bed.proxy.get("/health/ready").body;
    assert!(ready.contains(r#""database":{"status":"up"}"#), "{ready}");
    assert_eq!(bed.proxy.get("/health/live").status, 200);
    let reply = bed.run(&["GET", "@user:1"]);
    assert_eq!(reply, user(1).as_str().into(), "the database has it");
    assert!(matches!(bed.run(&["GET", "@plain"]), Value::Error(_)));
    nodes.iter().for_each(|node| bed.stack().start_server(node));
    eventually(Duration::from_secs(30), "ready again", || bed.proxy.get("/health/ready").status == 200);
    eventually(PATIENCE, "and serving", || bed.run(&["GET", "@user:1"]) == user(1).as_str().into());
}

#[test]
fn a_lost_database_opens_the_circuit_and_misses_fail_at_once_until_it_answers() {
    let options =
        format!("breaker_failures = 3\nbreaker_probe_min = \"200ms\"\nbreaker_probe_max = \"1s\"\n{QUICK}");
    let bed = Bed::private(&options);
    assert_eq!(bed.get("user:1"), user(1));
    let metric = |name: &str| {
        let text = bed.proxy.get("/metrics").body;
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(metric("dsproxy_database_breaker_state"), 0.0);
    assert!(metric("dsproxy_database_pool_gets_total{pool=\"load\"}") >= 1.0);
    bed.stack().kill("postgres");
    let mut n = 10;
    let mut miss = || {
        n += 1;
        let started = Instant::now();
        let reply = bed.proxy.connect().cmd(&["GET".to_owned(), format!("user:{n}")]).error().to_owned();
        (reply, started.elapsed())
    };
    eventually(PATIENCE, "the circuit opens", || miss().0.contains("circuit"));
    let quick = (0..20).map(|_| miss()).filter(|(reply, took)| {
        reply.starts_with("ERR database unavailable: circuit ") && *took < Duration::from_secs(1)
    });
    assert!(quick.count() >= 10, "all but the probes fail at once");
    assert_eq!(bed.get("user:1"), user(1), "hits are served");
    assert!(metric("dsproxy_database_breaker_refused_total") >= 10.0);
    assert!(metric("dsproxy_database_breaker_opened_total") >= 1.0);
    bed.stack().start_server("postgres");
    eventually(PATIENCE, "the circuit closes", || metric("dsproxy_database_breaker_state") == 0.0);
    assert_eq!(bed.get("user:99"), user(99));
}
