//! `WATCH` and transactions that write mapped keys: nobody's change is lost, and nothing happens by halves.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::bed::{Bed, NO_CLOCK, PATIENCE, user};
use crate::support::{Proxy, Resp, Value, eventually};

const MORE: &str = r#"
[[mapping]]
name = "number"
key = "PREFIXnumber:{id}"
table = "numbers"
id = "text"
format = "text"
column = "n"
write = "behind"
[[mapping]]
name = "off"
key = "PREFIXoff:{id}"
table = "numbers"
id = "text"
format = "text"
column = "n"
write = "behind"
cache = "off"
"#;
const TABLE: &str = "create table numbers (id text primary key, n bigint)";
const ADA: &str = r#"{"name":"Ada"}"#;

fn config(more: &str) -> String {
    format!("{more}\n{MORE}")
}

/// The key `number:{s}name`; the slot is that of `s`.
fn number(name: &str) -> String {
    format!("@number:{{s}}{name}")
}

fn row(bed: &Bed, name: &str) -> Option<String> {
    bed.one(&format!("select n::text from numbers where id = '{{s}}{name}'"))
}

/// Adds one by reading and writing, until nobody has come in between; how often somebody had.
fn add_one(client: &mut Resp, bed: &Bed, key: &str) -> u64 {
    for tries in 0..10_000 {
        assert_eq!(client.cmd(&bed.args(&["WATCH", key])).text(), "OK");
        let value: u64 = match client.cmd(&bed.args(&["GET", key])) {
            Value::Nil => 0,
            value => value.text().parse().unwrap(),
        };
        client.cmd(&["MULTI"]);
        client.cmd(&bed.args(&["SET", key, &(value + 1).to_string()]));
        match client.cmd(&["EXEC"]) {
            Value::Nil => {}
            said => {
                assert_eq!(said.items(), [Value::Simple("OK".into())]);
                return tries;
            }
        }
    }
    panic!("{key} is always written by somebody else");
}

fn flush(proxy: &Proxy) {
    assert_eq!(proxy.connect().cmd(&["PROXY", "FLUSH"]).int(), 0);
}

#[test]
fn a_transaction_is_executed_unless_a_watched_key_has_changed() {
    let bed = Bed::start_with(&config(NO_CLOCK), TABLE);
    let twin = bed.twin();
    for protocol in ["2", "3"] {
        let mut client = bed.proxy.connect();
        client.cmd(&["HELLO", protocol]);
        let mut other = twin.connect();
        // Loaded by the read behind WATCH, which is no change. Neither is a row that is not there.
        for key in ["@user:1", "@user:5000"] {
            bed.direct(&["DEL", key]);
            client.cmd(&bed.args(&["WATCH", key]));
            client.cmd(&bed.args(&["GET", key]));
            client.cmd(&["MULTI"]);
            assert_eq!(client.cmd(&bed.args(&["SET", key, ADA])).text(), "QUEUED");
            client.cmd(&bed.args(&["GET", key]));
            let said = client.cmd(&["EXEC"]);
            assert_eq!(said.items(), [Value::Simple("OK".into()), ADA.into()], "{key}");
            assert_eq!(client.cmd(&bed.args(&["GET", key])).text(), ADA);
            assert_eq!(client.cmd(&bed.args(&["DEL", key])).int(), 1);
        }
        // Changed meanwhile: by another proxy, this one, its own client, a deletion, a command that computes.
        let changes: [(bool, &[&str]); 6] = [
            (true, &["SET", "@user:2", ADA]),
            (false, &["SET", "@user:2", ADA]),
            (true, &["DEL", "@user:2"]),
            (false, &["SET", "@user:2", ADA, "NX"]),
            (true, &["GETDEL", "@user:2"]),
            (true, &["MSETNX", "@user:2", ADA]),
        ];
        for (foreign, change) in changes {
            bed.run(&["GET", "@user:2"]);
            client.cmd(&bed.args(&["WATCH", "@user:2", "@user:2"]));
            let changed = match foreign {
                true => other.cmd(&bed.args(change)),
                false => bed.run(change),
            };
            assert!(!matches!(changed, Value::Error(_)), "{change:?}: {changed:?}");
            client.cmd(&["MULTI"]);
            client.cmd(&bed.args(&["SET", "@user:2", r#"{"name":"never"}"#]));
            assert_eq!(client.cmd(&["EXEC"]), Value::Nil, "{change:?}");
            assert!(!format!("{:?}", client.cmd(&bed.args(&["GET", "@user:2"]))).contains("never"));
        }
        bed.run(&["DEL", "@user:2"]);
    }
    flush(&bed.proxy);
    assert_eq!(bed.one("select count(*) from users where name = 'never'").as_deref(), Some("0"));
}

#[test]
fn a_watch_ends_as_it_does_in_redis() {
    let bed = Bed::start_with(&config(NO_CLOCK), TABLE);
    let mut client = bed.proxy.connect();
    let mut run = |args: &[&str]| client.cmd(&bed.args(args));
    let changes = || assert_eq!(bed.run(&["SET", "@user:1", ADA]).text(), "OK");
    let set = ["SET", "@user:1", r#"{"name":"mine"}"#];
    // UNWATCH and DISCARD forget; so does an EXEC, whatever came of it.
    for end in [&["UNWATCH"][..], &["MULTI", "DISCARD"], &["MULTI", "EXEC"]] {
        run(&["WATCH", "@user:1"]);
        changes();
        end.iter().for_each(|word| drop(run(&[word])));
        run(&["MULTI"]);
        run(&set);
        assert_eq!(run(&["EXEC"]).items(), [Value::Simple("OK".into())], "{end:?}");
    }
    // A command that is refused ends the transaction, and the watch.
    run(&["WATCH", "@user:1"]);
    run(&["MULTI"]);
    assert_eq!(run(&set).text(), "QUEUED");
    assert!(run(&["SET", "@user:1", r#"{"nam":1}"#]).error().contains("'nam'"));
    assert!(run(&["EXEC"]).error().starts_with("EXECABORT"));
    assert!(run(&["EXEC"]).error().starts_with("ERR EXEC without MULTI"));
    // Keys of another mapping, plain ones, several writes of a key and of appended rows: one transaction.
    let (a, b) = (number("a"), number("b"));
    run(&["WATCH", "{s}plain", &a]);
    run(&["MULTI"]);
    for line in [
        &["SET", &*a, "1"][..],
        &["INCR", "{s}plain"],
        &["MSET", &a, "2", &b, "3"],
        &["DEL", &b],
        &["GET", &a],
    ] {
        assert_eq!(run(line).text(), "QUEUED");
    }
    let ok = || Value::Simple("OK".into());
    assert_eq!(run(&["EXEC"]).items(), [ok(), Value::Int(1), ok(), Value::Int(1), "2".into()]);
    run(&["WATCH", "@user_data:x"]);
    run(&["MULTI"]);
    run(&["SET", "@user_data:x", "one"]);
    run(&["SET", "@user_data:x", "two"]);
    assert_eq!(run(&["EXEC"]).items(), [ok(), ok()]);
    assert_eq!(run(&["GET", "@user_data:x"]).text(), "two");
    // Nothing is journaled for a key whose mapping takes no writes.
    run(&["WATCH", "@post:1"]);
    run(&["MULTI"]);
    run(&["DEL", "@post:1"]);
    assert_eq!(run(&["EXEC"]).items(), [Value::Int(1)], "its entry is dropped");
    // What the cluster never holds it cannot watch.
    assert!(run(&["WATCH", "@off:1"]).error().contains("cache = \"off\""));
    run(&["DEL", "{s}plain"]);
    flush(&bed.proxy);
    assert_eq!((row(&bed, "a").as_deref(), row(&bed, "b")), (Some("2"), None));
    let appended = bed.one("select string_agg(value, ',' order by id) from user_data where user_id = 'x'");
    assert_eq!(appended.as_deref(), Some("one,two"));
    assert_eq!(bed.one("select name from users where id = 1").as_deref(), Some("mine"));
}

#[test]
fn nobodys_increment_is_lost_over_two_proxies() {
    let bed = Bed::start_with(&config("[write_behind]\nbatch_interval = \"10ms\"\n"), TABLE);
    bed.db.execute("insert into numbers values ('{s}n', 1000)");
    let twin = bed.twin();
    let (key, outrun) = (number("n"), AtomicU64::new(0));
    const CLIENTS: u64 = 6;
    const EACH: u64 = 25;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (bed, twin, key, outrun) = (&bed, &twin, &key, &outrun);
            scope.spawn(move || {
                let mut proxy = if client % 2 == 0 { bed.proxy.connect() } else { twin.connect() };
                for n in 0..EACH {
                    // Those who compute in one command are in between.
                    match (client + n) % 5 {
                        0 => assert!(proxy.cmd(&bed.args(&["INCR", key])).int() > 1000),
                        _ => drop(outrun.fetch_add(add_one(&mut proxy, bed, key), Ordering::Relaxed)),
                    }
                }
            });
        }
    });
    let sum = (1000 + CLIENTS * EACH).to_string();
    assert_eq!(
        (bed.get(&key[1..]), twin.connect().cmd(&bed.args(&["GET", &key])).text()),
        (sum.clone(), sum.clone())
    );
    flush(&bed.proxy);
    flush(&twin);
    assert_eq!(row(&bed, "n"), Some(sum.clone()));
    assert_eq!(bed.direct(&["GET", &key]).text(), sum);
    assert!(outrun.into_inner() > 0, "nobody met anybody");
}

#[test]
fn money_is_neither_made_nor_lost_between_two_keys() {
    let bed = Bed::start_with(&config("[write_behind]\nbatch_interval = \"10ms\"\n"), TABLE);
    bed.db.execute("insert into numbers values ('{s}a', 100), ('{s}b', 100)");
    let twin = bed.twin();
    let keys = [number("a"), number("b")];
    for round in 0..6 {
        std::thread::scope(|scope| {
            for client in 0..6 {
                let (bed, twin, keys) = (&bed, &twin, &keys);
                scope.spawn(move || {
                    let proxy = if client % 2 == 0 { &bed.proxy } else { twin };
                    transfer(
                        &mut proxy.connect(),
                        bed,
                        &keys[client / 3],
                        &keys[1 - client / 3],
                        client == round,
                    );
                });
            }
        });
        // Those who were outrun have left nothing, neither in the cache nor on its way to the database.
        flush(&bed.proxy);
        flush(&twin);
        let cached = keys.each_ref().map(|key| bed.get(&key[1..]));
        let stored = ["a", "b"].map(|name| row(&bed, name).unwrap());
        assert_eq!(cached, stored, "round {round}: cache and database");
        let sum: i64 = cached.iter().map(|held| held.parse::<i64>().unwrap()).sum();
        assert_eq!(sum, 200, "round {round}: {cached:?}");
    }
}

/// Moves one from one key to the other, if nobody comes in between. `leaves`: before it has its reply, so that it never knows.
fn transfer(client: &mut Resp, bed: &Bed, from: &str, to: &str, leaves: bool) {
    client.cmd(&bed.args(&["WATCH", from, to]));
    let held = client.cmd(&bed.args(&["MGET", from, to]));
    let [a, b] = [0, 1].map(|at| held.items()[at].text().parse::<i64>().unwrap());
    client.cmd(&["MULTI"]);
    client.cmd(&bed.args(&["SET", from, &(a - 1).to_string()]));
    client.cmd(&bed.args(&["SET", to, &(b + 1).to_string()]));
    match leaves {
        true => client.send(&["EXEC"]),
        false => drop(client.cmd(&["EXEC"])),
    }
}

#[test]
fn a_proxy_that_dies_at_exec_leaves_all_or_nothing() {
    let mut bed = Bed::durable_with(&config(NO_CLOCK), TABLE);
    for (point, done) in [("trial.durable", false), ("trial.applied", true), ("journal.durable:2", true)] {
        bed.crash_to_die_at(point);
        let mut client = bed.proxy.connect();
        client.cmd(&bed.args(&["WATCH", &number("a"), "{s}plain"]));
        client.cmd(&["MULTI"]);
        client.cmd(&bed.args(&["SET", &number("a"), "1"]));
        client.cmd(&bed.args(&["SET", &number("b"), "2"]));
        assert_eq!(client.try_cmd(&["EXEC"]), None, "{point}: it dies before it answers");
        bed.restart();
        let seen = [number("a"), number("b")].map(|key| bed.run(&["GET", &key]));
        let wanted = if done { ["1", "2"].map(Value::from) } else { [const { Value::Nil }; 2] };
        assert_eq!(seen, wanted, "{point}");
        flush(&bed.proxy);
        let rows = [row(&bed, "a"), row(&bed, "b")].map(|row| row.map_or(Value::Nil, |row| (&*row).into()));
        assert_eq!(rows, wanted, "{point}");
        // Nothing is in the way of what comes next.
        assert_eq!(add_one(&mut bed.proxy.connect(), &bed, &number("a")), 0, "{point}");
        bed.run(&["DEL", &number("a"), &number("b")]);
        flush(&bed.proxy);
    }
}

#[test]
fn a_client_that_goes_before_its_reply_leaves_nothing_undecided() {
    let bed = Bed::start_with(&config("[write_behind]\nbatch_interval = \"10ms\"\n"), TABLE);
    let mut other = bed.proxy.connect();
    for n in 0..30 {
        let mut client = bed.proxy.connect();
        let id = client.cmd(&["CLIENT", "ID"]).int().to_string();
        client.cmd(&bed.args(&["WATCH", "@user:1"]));
        client.cmd(&["MULTI"]);
        client.cmd(&bed.args(&["SET", "@user:1", &format!(r#"{{"name":"n{n}"}}"#)]));
        client.send(&["EXEC"]);
        if n % 2 == 0 {
            other.cmd(&["CLIENT", "KILL", "ID", &id]);
        }
        drop(client);
    }
    // A write behind them in the lane reaches the database.
    assert_eq!(bed.run(&["SET", "@user:1", ADA]).text(), "OK");
    flush(&bed.proxy);
    assert_eq!(bed.one("select name from users where id = 1").as_deref(), Some("Ada"));
    assert_eq!(bed.get("user:2"), user(2));
}

#[test]
fn what_another_proxy_has_written_and_the_cache_has_lost_counts_as_a_change() {
    // So long a reader waits for the flush.
    let bed = Bed::start_with(&config(&format!("{NO_CLOCK}[read_through]\ntimeout = \"300ms\"\n")), TABLE);
    let twin = bed.twin();
    let key = number("n");
    assert_eq!(twin.connect().cmd(&bed.args(&["SET", &key, "5"])).text(), "OK");
    bed.direct(&["DEL", &key]);
    let mut client = bed.proxy.connect();
    for (who, executed) in [(&bed.proxy, false), (&twin, true)] {
        let mut client = who.connect();
        client.cmd(&bed.args(&["WATCH", &key]));
        client.cmd(&["MULTI"]);
        client.cmd(&bed.args(&["SET", &key, "6"]));
        assert_eq!(client.cmd(&["EXEC"]) != Value::Nil, executed);
    }
    flush(&twin);
    assert_eq!(client.cmd(&bed.args(&["GET", &key])).text(), "6");
    assert_eq!(add_one(&mut client, &bed, &key), 0);
    flush(&bed.proxy);
    assert_eq!(row(&bed, "n").as_deref(), Some("7"));
}

#[test]
fn what_a_node_that_hung_does_later_is_in_step_with_the_database() {
    let bed = Bed::private_with(&config("[write_behind]\nbatch_interval = \"10ms\"\n"), TABLE);
    const CLIENTS: usize = 12;
    let tags: Vec<String> = (0..CLIENTS).map(|n| format!("t{n}")).collect();
    let keys = |tag: &str| ["a", "b"].map(|name| format!("@number:{{{tag}}}{name}"));
    let nodes = ["redis-0", "redis-1", "redis-2"];
    std::thread::scope(|scope| {
        let mut ready = Vec::new();
        for tag in &tags {
            let mut client = bed.proxy.connect();
            let keys = keys(tag);
            client.cmd(&bed.args(&["WATCH", &keys[0]]));
            client.cmd(&["MULTI"]);
            keys.iter().for_each(|key| drop(client.cmd(&bed.args(&["SET", key, "1"]))));
            ready.push(client);
        }
        nodes.iter().for_each(|node| bed.stack().pause(node));
        let told: Vec<_> = (ready.into_iter())
            .map(|mut client| {
                client.set_patience(std::time::Duration::from_secs(30));
                scope.spawn(move || client.cmd(&["EXEC"]))
            })
            .collect();
        // The writes are journaled, the transactions are on their way, and the proxy has given their connections up.
        eventually(PATIENCE, "the outcome is unknown", || bed.proxy.log().contains("command=\"exec\""));
        nodes.iter().for_each(|node| bed.stack().cont(node));
        let mut unknown = 0;
        for told in told {
            let said = told.join().unwrap();
            unknown += usize::from(matches!(&said, Value::Error(text) if text.contains("is unknown")));
            assert!(!matches!(said, Value::Nil), "{said:?}: nobody has changed anything");
        }
        assert!(unknown > 0, "no node hung in the middle");
    });
    flush(&bed.proxy);
    for tag in &tags {
        let cached = keys(tag).map(|key| bed.direct(&["GET", &key]));
        let stored = ["a", "b"]
            .map(|name| bed.one(&format!("select n::text from numbers where id = '{{{tag}}}{name}'")));
        let stored = stored.map(|n| n.map_or(Value::Nil, |n| (&*n).into()));
        assert_eq!(cached, stored, "{tag}");
        assert_eq!(cached[0], cached[1], "{tag}: by halves");
    }
}
