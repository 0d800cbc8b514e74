//! `kill -9` of the proxy: what was acknowledged is there, what was not is either there whole or not at all.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::bed::{Bed, NO_CLOCK, PATIENCE, user};
use crate::support::{Value, eventually};

fn named(name: &str) -> String {
    format!(r#"{{"name":"{name}"}}"#)
}

#[test]
fn acknowledged_writes_survive_kill_9_are_seen_at_once_and_reach_the_database() {
    let mut bed = Bed::durable(NO_CLOCK);
    let mut client = bed.proxy.connect();
    for n in 1..=30 {
        assert_eq!(client.cmd(&bed.args(&["SET", &format!("@user:{n}"), &named("first")])).text(), "OK");
    }
    assert_eq!(client.cmd(&bed.args(&["SET", "@user:1", &named("second")])).text(), "OK");
    assert_eq!(client.cmd(&bed.args(&["DEL", "@user:2"])).int(), 1);
    assert_eq!(
        client.cmd(&bed.args(&["MSET", "@user:40", &named("mset"), "@user:41", &named("mset")])).text(),
        "OK"
    );
    client.cmd(&bed.args(&["SET", "@user_data:a", "one"]));
    client.cmd(&bed.args(&["SET", "@user_data:a", "two"]));
    assert_eq!(
        bed.one("select count(*) from users where name <> 'u' || id").as_deref(),
        Some("0"),
        "none is flushed"
    );
    bed.crash();
    // The cache may have lost them as well.
    for n in 1..=40 {
        bed.direct(&["DEL", &format!("@user:{n}")]);
    }
    assert_eq!(
        (bed.get("user:1"), bed.get("user:30"), bed.get("user:40")),
        (named("second"), named("first"), named("mset"))
    );
    assert_eq!(bed.run(&["GET", "@user:2"]), Value::Nil);
    assert_eq!(bed.get("user:50"), user(50));
    assert_eq!(bed.loads("user"), 1.0, "the journal has answered for the others");
    assert_eq!(bed.get("user_data:a"), "two");
    assert!(bed.waiting("user") > 0.0);
    let status = bed.proxy.stop();
    assert!(status.success(), "{status}");
    let written = "select string_agg(name, ',' order by id) from users where id in (1, 2, 3, 40, 41)";
    assert_eq!(bed.one(written).as_deref(), Some("second,first,mset,mset"));
    // Nothing is left to be done again.
    bed.restart();
    assert_eq!(bed.waiting("user") + bed.waiting("user_data"), 0.0);
}

#[test]
fn a_writer_never_finds_less_than_was_acknowledged_to_it() {
    let mut bed = Bed::durable(&NO_CLOCK.replace("1h", "20ms"));
    for round in 0..3 {
        let acknowledged: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::new(0)).collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (writer, acknowledged) in acknowledged.iter().enumerate() {
                let (bed, stop, mut client) = (&bed, &stop, bed.proxy.connect());
                scope.spawn(move || {
                    for n in 1.. {
                        let set = bed.args(&[
                            "SET",
                            &format!("@user:{}", 100 + writer),
                            &named(&format!("{round}-{n}")),
                        ]);
                        // The connection breaks when the proxy is killed.
                        match client.try_cmd(&set) {
                            Some(Value::Simple(_)) => acknowledged.store(n, Ordering::Release),
                            _ => break,
                        }
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            eventually(PATIENCE, "writers are busy", || {
                acknowledged.iter().all(|n| n.load(Ordering::Acquire) > 50)
            });
            bed.proxy.signal(rustix::process::Signal::KILL);
            stop.store(true, Ordering::Relaxed);
        });
        bed.restart();
        let seen = |text: &str| -> u32 {
            // As it was written, or, once it is flushed, the whole row.
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            let name = value["name"].as_str().unwrap();
            name.strip_prefix(&format!("{round}-")).map_or(0, |n| n.parse().unwrap())
        };
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let (value, least) =
                (bed.get(&format!("user:{}", 100 + writer)), acknowledged.load(Ordering::Acquire));
            assert!(
                seen(&value) >= least,
                "round {round}, writer {writer}: {value}, and {least} was acknowledged"
            );
        }
        bed.wait_flushed();
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let name = bed.one(&format!("select name from users where id = {}", 100 + writer)).unwrap();
            assert!(seen(&named(&name)) >= acknowledged.load(Ordering::Acquire), "{name}");
        }
    }
}

#[test]
fn a_second_proxy_on_the_same_journal_is_refused() {
    let bed = Bed::durable("");
    let mut second = bed.second();
    assert!(!second.wait_exit().success());
    assert!(second.log().contains("is in use by"), "{}", second.log());
}
