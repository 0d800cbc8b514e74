//! `PROXY FLUSH`: what was acknowledged before is in the database when it answers 0, and nobody else waits for it.

use std::time::{Duration, Instant};

use crate::bed::{Bed, NO_CLOCK, PATIENCE, Session};
use crate::support::{Resp, Value, eventually};

const MEMORY: &str = r#"
[[mapping]]
name = "counter"
key = "PREFIXcounter:{id}"
table = "counters"
id = "bigint"
write = "behind"
durability = "memory"
"#;

/// Clients that wait, `WAIT` and blocking commands included.
const BLOCKED: &str = "dsproxy_blocked_clients";

fn count(bed: &Bed, what: &str) -> String {
    bed.one(&format!("select count(*) from {what}")).unwrap()
}

#[test]
fn it_returns_when_what_was_written_before_is_in_the_database() {
    let bed = Bed::durable(&format!("{NO_CLOCK}{MEMORY}"));
    for (round, protocol) in ["2", "3"].into_iter().enumerate() {
        let mut client = bed.proxy.connect();
        client.cmd(&["HELLO", protocol]);
        for n in 1..=60 {
            client.send(&bed.args(&["SET", &format!("@user:{n}"), &format!(r#"{{"name":"f{protocol}"}}"#)]));
        }
        for _ in 1..=60 {
            assert_eq!(client.recv().text(), "OK");
        }
        client.cmd(&bed.args(&["SET", "@user_data:a", "v"]));
        client.cmd(&bed.args(&["SET", "@counter:1", &format!(r#"{{"n":{protocol}}}"#)]));
        assert_eq!(client.cmd(&["PROXY", "FLUSH", "user"]), Value::Int(0));
        assert_eq!(count(&bed, &format!("users where name = 'f{protocol}'")), "60");
        assert_eq!(count(&bed, "user_data"), round.to_string(), "another mapping waits for its own time");
        assert_eq!(client.cmd(&["proxy", "flush", "20000"]), Value::Int(0));
        assert_eq!(count(&bed, "user_data"), (round + 1).to_string());
        assert_eq!(count(&bed, &format!("counters where n = {protocol}")), "1");
        assert_eq!(client.cmd(&["PROXY", "FLUSH"]), Value::Int(0), "nothing waits");
        assert_eq!(client.cmd(&["PROXY", "FLUSH", "post"]), Value::Int(0), "it takes no writes");
    }
    let through = Bed::through("");
    through.run(&["SET", "@user:1", r#"{"name":"through"}"#]);
    assert_eq!(through.run(&["PROXY", "FLUSH", "user", "0"]), Value::Int(0));
}

#[test]
fn at_its_timeout_it_says_how_many_writes_are_left() {
    let bed = Bed::private("[journal]\nsegment_size = \"1mb\"\n[write_behind]\nretry_max = \"100ms\"\n");
    bed.run(&["SET", "@user:1", r#"{"name":"a"}"#]);
    assert_eq!(bed.run(&["PROXY", "FLUSH", "user", "20000"]), Value::Int(0));
    bed.stack().stop("postgres");
    for n in 1..=3 {
        assert_eq!(bed.run(&["SET", &format!("@user:{n}"), r#"{"name":"late"}"#]).text(), "OK");
    }
    bed.run(&["SET", "@user_data:a", "v"]);
    let began = Instant::now();
    assert_eq!(bed.run(&["PROXY", "FLUSH", "user", "200"]), Value::Int(3));
    assert!((190..5000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(bed.run(&["PROXY", "FLUSH", "1"]), Value::Int(4));
    // What is written after it is not waited for; the client that waits hears as soon as it is done.
    let mut waits = bed.proxy.connect();
    waits.send(&["PROXY", "FLUSH", "0"]);
    eventually(PATIENCE, "it waits", || bed.proxy.metric(BLOCKED) == 1.0);
    assert!(waits.stays_silent(Duration::from_millis(100)));
    bed.stack().start_server("postgres");
    assert_eq!(waits.recv(), Value::Int(0));
    assert_eq!(count(&bed, "users where name = 'late'"), "3");
}

/// A proxy in which a row of `user` cannot be written until the session lets it.
fn locked() -> (Bed, Session) {
    let bed = Bed::durable("[write_behind]\nbatch_interval = \"10ms\"\n");
    let locker = Session::open(&bed.db);
    locker.execute("begin; update users set age = 5 where id = 1");
    bed.run(&["SET", "@user:1", r#"{"name":"mine"}"#]);
    (bed, locker)
}

#[test]
fn nobody_else_waits_and_what_its_client_asks_later_comes_after_it() {
    let (bed, locker) = locked();
    let mut client = bed.proxy.connect();
    let name = bed.key("user:1");
    // The SET is acknowledged before the flush begins, though nobody has read that yet.
    let pipeline: [&[&str]; 5] = [
        &["SET", &name, r#"{"name":"newest"}"#],
        &["PROXY", "FLUSH", "user", "0"],
        &["GET", &name],
        &["PROXY", "FLUSH", "user", "20000"],
        &["PING"],
    ];
    pipeline.iter().for_each(|command| client.send(command));
    assert_eq!(client.recv().text(), "OK");
    for _ in 0..50 {
        assert_eq!(bed.run(&["PING"]).text(), "PONG");
        assert!(bed.get("user:1").contains("newest"));
    }
    assert!(client.stays_silent(Duration::from_millis(50)));
    locker.execute("rollback");
    assert_eq!(client.recv(), Value::Int(0));
    assert!(client.recv().text().contains("newest"));
    assert_eq!((client.recv(), client.recv().text()), (Value::Int(0), "PONG".to_owned()));
    assert_eq!(bed.one("select name from users where id = 1").as_deref(), Some("newest"));
}

#[test]
fn a_client_that_goes_ends_its_flush() {
    let (bed, locker) = locked();
    let flushing = || -> Vec<Resp> {
        let clients: Vec<Resp> = (0..20)
            .map(|_| {
                let mut client = bed.proxy.connect();
                client.send(&["PROXY", "FLUSH", "0"]);
                client
            })
            .collect();
        eventually(PATIENCE, "all of them wait", || bed.proxy.metric(BLOCKED) == 20.0);
        clients
    };
    drop(flushing());
    eventually(PATIENCE, "nobody waits", || bed.proxy.metric(BLOCKED) == 0.0);
    // One that has only closed its sending side, too: as with other commands that block.
    let clients = flushing();
    clients.iter().for_each(Resp::shutdown_write);
    eventually(PATIENCE, "nobody waits", || bed.proxy.metric(BLOCKED) == 0.0);
    locker.execute("rollback");
    assert_eq!(bed.run(&["PROXY", "FLUSH", "user", "20000"]), Value::Int(0));
}

#[test]
fn client_unblock_lets_it_go_on() {
    let (bed, _locker) = locked();
    for (how, answer) in [("TIMEOUT", Value::Int(1)), ("ERROR", Value::Error(UNBLOCKED.to_owned()))] {
        let mut client = bed.proxy.connect();
        let id = client.cmd(&["CLIENT", "ID"]).int().to_string();
        client.send(&["PROXY", "FLUSH", "0"]);
        eventually(PATIENCE, "it waits", || bed.proxy.metric(BLOCKED) == 1.0);
        assert_eq!(bed.run(&["CLIENT", "UNBLOCK", &id, how]), Value::Int(1));
        assert_eq!(client.recv(), answer);
        assert_eq!(client.cmd(&["PING"]).text(), "PONG");
        assert_eq!(bed.run(&["CLIENT", "UNBLOCK", &id, how]), Value::Int(0), "it waits no more");
    }
}

const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

#[test]
fn what_cannot_be_flushed_is_refused_in_words() {
    let bed = Bed::durable(NO_CLOCK);
    for (args, words) in [
        (&["nobody"][..], "no mapping 'nobody'"),
        (&["nobody", "5"], "no mapping 'nobody'"),
        (&["user", "soon"], "timeout is not an integer"),
        (&["user", "-1"], "timeout is negative"),
        (&["-1"], "timeout is negative"),
        (&["user", "1", "2"], "wrong number of arguments"),
    ] {
        let command: Vec<&str> = ["PROXY", "FLUSH"].into_iter().chain(args.iter().copied()).collect();
        assert!(bed.run(&command).error().contains(words), "{args:?}");
    }
    let mut client = bed.proxy.connect();
    client.cmd(&["MULTI"]);
    assert!(client.cmd(&["PROXY", "FLUSH"]).error().contains("not supported inside a transaction"));
    assert!(client.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
}
