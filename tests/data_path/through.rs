//! Write-through: an OK is a commit, an error is none, and the cache is never ahead of the database, nor behind an OK.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::bed::{Bed, PATIENCE, Session, user};
use crate::support::{Value, eventually};

/// `user` and `user_data` are written through.
fn bed(more: &str) -> Bed {
    Bed::through(more)
}

fn named(name: &str) -> String {
    format!(r#"{{"name":"{name}"}}"#)
}

fn row(n: u32, name: &str) -> String {
    format!(r#"{{"id":{n},"name":"{name}","email":null,"age":null}}"#)
}

fn name_of(bed: &Bed, n: u32) -> Option<String> {
    bed.one(&format!("select name from users where id = {n}"))
}

#[test]
fn an_ok_means_that_the_database_has_it() {
    let bed = bed("");
    let mut client = bed.proxy.connect();
    for n in 1..=20 {
        assert_eq!(client.cmd(&bed.args(&["SET", &format!("@user:{n}"), &named("new")])).text(), "OK");
        assert_eq!(name_of(&bed, n).as_deref(), Some("new"));
        // The cache has the row, not what was written.
        assert_eq!(bed.direct(&["GET", &format!("@user:{n}")]).text(), row(n, "new"));
    }
    assert_eq!(client.cmd(&bed.args(&["SETEX", "@user:1", "50", &named("ex")])).text(), "OK");
    assert!((1..=50).contains(&bed.direct(&["TTL", "@user:1"]).int()));
    let mset = ["MSET", "@user:2", &named("mset"), "@user:300", &named("made"), "@plain", "text"];
    assert_eq!(client.cmd(&bed.args(&mset)).text(), "OK");
    assert_eq!((name_of(&bed, 2).as_deref(), name_of(&bed, 300).as_deref()), (Some("mset"), Some("made")));
    assert_eq!(bed.get("plain"), "text");
    // Deletions count what was cached, as elsewhere.
    assert_eq!(client.cmd(&bed.args(&["DEL", "@user:2", "@user:2", "@user:150"])).int(), 1);
    assert_eq!((name_of(&bed, 2), name_of(&bed, 150)), (None, None));
    assert_eq!(bed.run(&["GET", "@user:2"]), Value::Nil);
    assert_eq!(client.cmd(&bed.args(&["UNLINK", "@user:300"])).int(), 1);
    assert_eq!(bed.waiting("user"), 0.0);
    // A transaction cannot wait for the database.
    assert_eq!(client.cmd(&["MULTI"]).text(), "OK");
    assert!(client.cmd(&bed.args(&["SET", "@user:1", &named("multi")])).error().contains("written through"));
    assert!(client.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
    // In one pipeline, in order.
    let set = named("a");
    let commands: [&[&str]; 4] =
        [&["SET", "@user:7", &set], &["GET", "@user:7"], &["DEL", "@user:7"], &["GET", "@user:7"]];
    let pipeline: Vec<_> = commands.iter().map(|command| bed.args(command)).collect();
    let replies = client.pipeline(&pipeline);
    assert_eq!((replies[1].text(), replies[2].int(), &replies[3]), (row(7, "a"), 1, &Value::Nil));
    let sets: Vec<_> = (0..50).map(|n| bed.args(&["SET", "@user:8", &named(&format!("n{n}"))])).collect();
    client.pipeline(&sets);
    assert_eq!((name_of(&bed, 8).as_deref(), bed.get("user:8")), (Some("n49"), row(8, "n49")));
}

#[test]
fn every_row_of_an_append_mapping_is_there_and_the_newest_is_read() {
    let bed = bed("");
    for n in 1..=5 {
        assert_eq!(bed.run(&["SET", "@user_data:a", &format!("v{n}")]).text(), "OK");
        assert_eq!(bed.get("user_data:a"), format!("v{n}"));
        assert_eq!(bed.one("select count(*) from user_data").as_deref(), Some(n.to_string().as_str()));
    }
}

#[test]
fn what_the_database_refuses_changes_nothing_and_says_why() {
    let bed = bed("");
    bed.db.execute("alter table users add constraint grown check (age >= 18)");
    assert_eq!(bed.get("user:1"), user(1));
    let refused = bed.run(&["SET", "@user:1", r#"{"name":"child","age":3}"#]);
    assert!(
        refused.error().contains("grown") && refused.error().contains("nothing was written"),
        "{refused:?}"
    );
    assert_eq!((bed.get("user:1"), name_of(&bed, 1).as_deref()), (user(1), Some("u1")));
    // One of several: all of them or none.
    let mset = bed.run(&["MSET", "@user:2", &named("two"), "@user:3", r#"{"name":"child","age":3}"#]);
    assert!(mset.error().contains("nothing was written"), "{mset:?}");
    assert_eq!((bed.get("user:2"), bed.get("user:3")), (user(2), user(3)));
    assert_eq!(
        bed.one("select count(*) from dsproxy_dead_letters").as_deref(),
        Some("0"),
        "its client knows"
    );
    // Over HTTP as well.
    let write = bed.proxy.post(
        "/write",
        &format!(r#"{{"key":"{}","value":"{{\"name\":\"x\",\"age\":3}}"}}"#, bed.key("user:1")),
    );
    assert!(write.status >= 400 && write.status < 600, "{} {}", write.status, write.body);
    assert_eq!(bed.get("user:1"), user(1));
}

#[test]
fn a_statement_that_takes_too_long_changes_nothing() {
    let bed = Bed::through("statement_timeout = \"300ms\"");
    assert_eq!(bed.get("user:1"), user(1));
    let locker = Session::open(&bed.db);
    locker.execute("begin; update users set age = 50 where id = 1");
    let started = Instant::now();
    let slow = bed.run(&["SET", "@user:1", &named("late")]);
    assert!(matches!(slow, Value::Error(_)) && started.elapsed() < Duration::from_secs(5), "{slow:?}");
    // Meanwhile its older row is answered, and not kept.
    assert_eq!(bed.get("user:1"), user(1));
    locker.execute("commit");
    assert_eq!(bed.run(&["SET", "@user:1", &named("now")]).text(), "OK");
    assert_eq!(bed.get("user:1"), r#"{"id":1,"name":"now","email":null,"age":50}"#);
}

#[test]
fn readers_see_nothing_older_than_an_ok_through_either_proxy() {
    let bed = bed("");
    let other = bed.beside(&[]);
    let (acknowledged, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for proxy in [&bed.proxy, &other.proxy] {
            let (bed, stop, acknowledged) = (&bed, &stop, &acknowledged);
            scope.spawn(move || {
                let mut reader = proxy.connect();
                while !stop.load(Ordering::Acquire) {
                    let least = acknowledged.load(Ordering::Acquire);
                    let value = reader.cmd(&bed.args(&["GET", "@user:1"])).text();
                    let seen: serde_json::Value = serde_json::from_str(&value).unwrap();
                    let seen: u32 = seen["name"].as_str().unwrap().trim_start_matches('u').parse().unwrap();
                    assert!(seen >= least, "{seen} was read after the OK of {least}");
                }
            });
        }
        let (mut one, mut two) = (bed.proxy.connect(), other.proxy.connect());
        for n in 2..150 {
            let client = if n % 2 == 0 { &mut one } else { &mut two };
            assert_eq!(client.cmd(&bed.args(&["SET", "@user:1", &named(&format!("u{n}"))])).text(), "OK");
            acknowledged.store(n, Ordering::Release);
        }
        stop.store(true, Ordering::Release);
    });
}

#[test]
fn two_proxies_at_once_leave_cache_and_database_in_step() {
    let bed = bed("");
    let other = bed.beside(&[]);
    std::thread::scope(|scope| {
        for (which, proxy) in [&bed.proxy, &other.proxy].into_iter().enumerate() {
            let bed = &bed;
            scope.spawn(move || {
                let mut client = proxy.connect();
                for n in 0..60 {
                    let key = format!("@user:{}", n % 5 + 1);
                    assert_eq!(
                        client.cmd(&bed.args(&["SET", &key, &named(&format!("{which}-{n}"))])).text(),
                        "OK"
                    );
                    client.cmd(&bed.args(&["GET", &key]));
                }
            });
        }
    });
    for n in 1..=5 {
        let stored = row(n, &name_of(&bed, n).unwrap());
        assert_eq!(bed.get(&format!("user:{n}")), stored);
        assert_eq!(other.run(&bed, &["GET", &format!("@user:{n}")]).text(), stored);
    }
}

#[test]
fn counting_through_two_proxies_loses_nothing() {
    let more = "[[mapping]]\nname = \"counter\"\nkey = \"PREFIXcounter:{id}\"\ntable = \"counters\"\nid = \"bigint\"\n\
                format = \"text\"\ncolumn = \"n\"\nwrite = \"behind\"\ndurability = \"database\"\n";
    let bed = bed(&format!("\n{more}"));
    let other = bed.beside(&[]);
    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for proxy in [&bed.proxy, &other.proxy, &bed.proxy, &other.proxy] {
            let (bed, done) = (&bed, &done);
            scope.spawn(move || {
                let mut client = proxy.connect();
                for _ in 0..15 {
                    if let Value::Int(_) = client.cmd(&bed.args(&["INCR", "@counter:1"])) {
                        done.fetch_add(1, Ordering::AcqRel);
                    }
                }
            });
        }
    });
    let done = done.load(Ordering::Acquire);
    assert!(done >= 30, "{done}");
    assert_eq!(bed.one("select n::text from counters where id = 1"), Some(done.to_string()));
    assert_eq!(
        (bed.get("counter:1"), other.run(&bed, &["GET", "@counter:1"]).text()),
        (done.to_string(), done.to_string())
    );
    assert_eq!(bed.run(&["SETNX", "@user:400", &named("new")]).int(), 1);
    assert_eq!(
        (name_of(&bed, 400).as_deref(), bed.run(&["SETNX", "@user:400", &named("no")]).int()),
        (Some("new"), 0)
    );
}

#[test]
fn with_the_database_away_writes_fail_in_time_and_hits_are_served() {
    let bed = Bed::through_private("statement_timeout = \"500ms\"");
    assert_eq!(bed.get("user:1"), user(1));
    bed.stack().kill("postgres");
    let failed = bed.run(&["SET", "@user:2", &named("lost")]);
    assert!(matches!(failed, Value::Error(_)), "{failed:?}");
    assert_eq!(bed.get("user:1"), user(1));
    bed.stack().start_server("postgres");
    eventually(PATIENCE, "it is there again", || {
        bed.run(&["SET", "@user:2", &named("back")]) == Value::Simple("OK".into())
    });
    assert_eq!((bed.get("user:2"), name_of(&bed, 2).as_deref()), (row(2, "back"), Some("back")));
}

#[test]
fn what_waits_from_write_behind_comes_before_a_write_through() {
    let mut bed = Bed::durable("[write_behind]\nbatch_interval = \"1h\"\n");
    assert_eq!(bed.run(&["SET", "@user:1", &named("behind")]).text(), "OK");
    bed.change_config("write = \"behind\"", "write = \"behind\"\ndurability = \"database\"");
    bed.crash();
    assert_eq!((bed.waiting("user"), name_of(&bed, 1).as_deref()), (1.0, Some("u1")));
    // A write-through of the key has it flushed, and comes after it.
    assert_eq!(bed.run(&["SET", "@user:1", &named("through")]).text(), "OK");
    assert_eq!(bed.waiting("user"), 0.0);
    assert_eq!(name_of(&bed, 1).as_deref(), Some("through"));
    assert_eq!(bed.get("user:1"), row(1, "through"));
}
