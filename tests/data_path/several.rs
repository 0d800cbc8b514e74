//! `MSETNX` of several keys, mapped ones among them: all of them are set, or none is.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::bed::{Bed, NO_CLOCK, PATIENCE};
use crate::support::{Resp, Value, eventually};

const MORE: &str = r#"
[[mapping]]
name = "part"
key = "PREFIXpart:{id}"
table = "parts"
id = "text"
format = "text"
column = "n"
write = "behind"
"#;
const TABLE: &str = "create table parts (id text primary key, n int)";

fn config(more: &str) -> String {
    format!("{more}\n{MORE}")
}

/// The key `part:{s}name`; the slot is that of `s`.
fn part(name: &str) -> String {
    format!("@part:{{s}}{name}")
}

/// What is in the database.
fn rows(bed: &Bed) -> String {
    bed.one("select string_agg(substr(id, 4) || '=' || n, ',' order by id) from parts").unwrap_or_default()
}

#[test]
fn msetnx_sets_all_of_its_keys_or_none() {
    let bed = Bed::start_with(&config(NO_CLOCK), TABLE);
    bed.db.execute("insert into parts values ('{s}there', 7)");
    let mut client = bed.proxy.connect();
    let mut run = |args: &[&str]| client.cmd(&bed.args(args));
    let (a, b, c, there) = (part("a"), part("b"), part("c"), part("there"));
    // A row that is not cached counts.
    assert_eq!(run(&["MSETNX", &a, "1", &there, "2"]).int(), 0);
    assert_eq!(run(&["MSETNX", &there, "1", "{s}plain", "2"]).int(), 0);
    assert_eq!(
        (run(&["GET", &a]), run(&["GET", "{s}plain"]), run(&["GET", &there]).text()),
        (Value::Nil, Value::Nil, "7".into())
    );
    // All, twice the same one too: the last value counts.
    assert_eq!(run(&["MSETNX", &a, "1", "{s}plain", "2", &b, "3", &a, "4"]).int(), 1);
    assert_eq!(run(&["MGET", &a, "{s}plain", &b]).items(), ["4".into(), "2".into(), "3".into()]);
    // One of them is there.
    assert_eq!(run(&["MSETNX", &c, "1", &b, "2"]).int(), 0);
    assert_eq!(run(&["MSETNX", &c, "1", "{s}plain", "2"]).int(), 0);
    assert_eq!(run(&["MSETNX", "{s}plain", "1", &c, "2"]).int(), 0);
    assert_eq!(run(&["EXISTS", &c]).int(), 0);
    // Deleted, and not in the database yet: it is absent.
    assert_eq!(run(&["DEL", &there]).int(), 1);
    assert_eq!(run(&["MSETNX", &there, "8", &c, "9"]).int(), 1);
    // Nothing happens where one of them cannot be.
    let refused = run(&["MSETNX", "{s}other", "1", &part("d"), "x"]);
    assert!(refused.error().contains("'n'"), "{refused:?}");
    let odd = run(&["MSETNX", &a, "1", &b]);
    assert_eq!(odd.error(), "ERR wrong number of arguments for 'msetnx' command");
    let apart = run(&["MSETNX", &a, "1", "elsewhere", "2"]);
    assert!(apart.error().starts_with("CROSSSLOT"), "{apart:?}");
    let read_only = run(&["MSETNX", "@post:1", "1", &format!("{{{}}}x", bed.key("post:1")), "2"]);
    assert!(read_only.error().contains("read-only"), "{read_only:?}");
    assert_eq!(run(&["EXISTS", "{s}other"]).int(), 0);
    run(&["DEL", "{s}plain"]);
    let mut proxy = bed.proxy.connect();
    assert_eq!(proxy.cmd(&["PROXY", "FLUSH"]).int(), 0);
    assert_eq!(rows(&bed), "a=4,b=3,c=9,there=8");
}

#[test]
fn of_many_clients_that_claim_the_same_keys_one_wins() {
    let bed = Bed::start_with(&config("[write_behind]\nbatch_interval = \"20ms\"\n"), TABLE);
    let twin = bed.twin();
    for round in 0..8 {
        let wins = AtomicU32::new(0);
        let winner = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for client in 0..12_u32 {
                let (bed, twin, wins, winner) = (&bed, &twin, &wins, &winner);
                scope.spawn(move || {
                    let mut proxy = if client % 2 == 0 { bed.proxy.connect() } else { twin.connect() };
                    // Everybody wants the one in the middle.
                    let (own, value) = (part(&format!("own{round}-{client}")), client.to_string());
                    let plain = format!("{{s}}{}round{round}", bed.key(""));
                    let all = [&part(&format!("all{round}")), &*own, &*plain].map(str::to_owned);
                    let args = ["MSETNX", &all[0], &value, &all[1], &value, &all[2], &value];
                    match proxy.cmd(&bed.args(&args)) {
                        Value::Int(1) => {
                            wins.fetch_add(1, Ordering::Relaxed);
                            winner.store(client, Ordering::Relaxed);
                        }
                        Value::Int(0) => {}
                        other => panic!("{other:?}"),
                    }
                });
            }
        });
        let winner = winner.into_inner();
        assert_eq!(wins.into_inner(), 1, "round {round}");
        for client in 0..12 {
            let own = bed.run(&["GET", &part(&format!("own{round}-{client}"))]);
            assert_eq!(own != Value::Nil, client == winner, "round {round}: {client} of {winner}");
        }
        assert_eq!(bed.get(&part(&format!("all{round}"))[1..]), winner.to_string());
        assert_eq!(bed.run(&["DEL", &format!("{{s}}{}round{round}", bed.key(""))]).int(), 1);
    }
    for proxy in [&bed.proxy, &twin] {
        assert_eq!(proxy.connect().cmd(&["PROXY", "FLUSH"]).int(), 0);
    }
    assert_eq!(bed.one("select count(*) from parts").as_deref(), Some("16"), "two rows of each round");
}

#[test]
fn claims_and_other_writes_of_the_same_keys_go_on_beside_each_other() {
    let bed = Bed::start_with(&config("[write_behind]\nbatch_interval = \"10ms\"\n"), TABLE);
    let twin = bed.twin();
    let (stop, claimed) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        // Both keys, or none: who claims them sets both to the same number, and others delete both.
        for client in 0..4_u32 {
            let (bed, twin, stop, claimed) = (&bed, &twin, &stop, &claimed);
            scope.spawn(move || {
                let mut proxy = if client % 2 == 0 { bed.proxy.connect() } else { twin.connect() };
                for n in 0..60_u32 {
                    let value = (client * 1000 + n).to_string();
                    let set = ["MSETNX", &*part("a"), &value, &*part("b"), &value].map(str::to_owned);
                    let reply = proxy.cmd(&bed.args(&set.each_ref().map(String::as_str)));
                    if reply.int() == 1 {
                        claimed.fetch_add(1, Ordering::Relaxed);
                        proxy.cmd(&["MULTI"]);
                        proxy.cmd(&bed.args(&["GET", &part("a")]));
                        proxy.cmd(&bed.args(&["GET", &part("b")]));
                        proxy.cmd(&bed.args(&["DEL", &part("a"), &part("b")]));
                        let said = proxy.cmd(&["EXEC"]);
                        let both = [Value::from(&*value), Value::from(&*value), Value::Int(2)];
                        assert_eq!(said.items(), both, "nobody else may touch them");
                    }
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
    });
    assert!(claimed.into_inner() > 4);
    for proxy in [&bed.proxy, &twin] {
        assert_eq!(proxy.connect().cmd(&["PROXY", "FLUSH"]).int(), 0);
    }
    assert_eq!(rows(&bed), "");
}

/// What a client is told that claims two mapped keys and a plain one of a proxy that dies.
fn claim(client: &mut Resp, bed: &Bed) -> Option<Value> {
    let plain = format!("{{s}}{}plain", bed.key(""));
    client.try_cmd(&bed.args(&["MSETNX", &part("a"), "1", &plain, "2", &part("b"), "3"]))
}

#[test]
fn a_proxy_that_dies_in_the_middle_leaves_all_or_nothing() {
    let mut bed = Bed::durable_with(&config(NO_CLOCK), TABLE);
    let plain = format!("{{s}}{}plain", bed.key(""));
    for (point, done) in [("trial.durable", false), ("trial.applied", true), ("journal.durable:2", true)] {
        bed.crash_to_die_at(point);
        let mut client = bed.proxy.connect();
        assert_eq!(claim(&mut client, &bed), None, "{point}: it dies before it answers");
        bed.restart();
        let seen = [part("a"), plain.clone(), part("b")].map(|key| bed.run(&["GET", &key]));
        let wanted = if done { ["1", "2", "3"].map(Value::from) } else { [const { Value::Nil }; 3] };
        assert_eq!(seen, wanted, "{point}");
        assert_eq!(bed.run(&["PROXY", "FLUSH"]).int(), 0);
        assert_eq!(rows(&bed), if done { "a=1,b=3" } else { "" }, "{point}");
        // Nobody is in its way afterwards.
        let again = claim(&mut bed.proxy.connect(), &bed);
        assert_eq!(again, Some(Value::Int(i64::from(!done))), "{point}");
        bed.run(&["DEL", &part("a"), &plain, &part("b")]);
        assert_eq!(bed.run(&["PROXY", "FLUSH"]).int(), 0);
    }
}

#[test]
fn what_was_acknowledged_is_there_though_proxy_and_cache_have_lost_it() {
    let mut bed = Bed::durable_with(&config(NO_CLOCK), TABLE);
    assert_eq!(claim(&mut bed.proxy.connect(), &bed), Some(Value::Int(1)));
    bed.proxy.signal(rustix::process::Signal::KILL);
    for key in ["a", "b"] {
        bed.direct(&["DEL", &part(key)]);
        let side = dsproxy::sidecar::sidecar_key(bed.key(&part(key)[1..]).as_bytes());
        bed.direct(&["DEL", &String::from_utf8(side).unwrap()]);
    }
    bed.restart();
    assert_eq!([part("a"), part("b")].map(|key| bed.get(&key[1..])), ["1", "3"]);
    eventually(PATIENCE, "the node has it again", || bed.direct(&["GET", &part("b")]) == Value::from("3"));
    assert_eq!(bed.run(&["PROXY", "FLUSH"]).int(), 0);
    assert_eq!(rows(&bed), "a=1,b=3");
}
