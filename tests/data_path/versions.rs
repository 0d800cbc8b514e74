//! Versions of several proxies: none is given twice, and none is forgotten that a journal still needs.

use crate::bed::{Bed, Beside, NO_CLOCK, PATIENCE};
use crate::support::{Proxy, eventually};

const QUICK: &str = "[write_behind]\nbatch_interval = \"10ms\"\nprune_interval = \"20ms\"\n";
const VERSIONS: &str = "select count(*) from dsproxy_versions";

fn named(name: &str) -> String {
    format!(r#"{{"name":"{name}"}}"#)
}

#[test]
fn versions_of_two_proxies_differ_by_their_writer() {
    let bed = Bed::durable(&NO_CLOCK.replace("1h", "10ms"));
    let other = bed.beside(&[]);
    for n in 1..=20 {
        assert_eq!(bed.run(&["SET", &format!("@user:{n}"), &named("one")]).text(), "OK");
        assert_eq!(other.run(&bed, &["SET", &format!("@user:{}", 100 + n), &named("other")]).text(), "OK");
    }
    eventually(PATIENCE, "all versions are noted", || bed.one(VERSIONS).as_deref() == Some("40"));
    let by_writer = "select string_agg(n::text, ',') from (select count(*) n from dsproxy_versions \
                     group by version % 1024, key::int > 100) x";
    assert_eq!(bed.one(by_writer).as_deref(), Some("20,20"));
    let writers = "select count(distinct number) || ' ' || count(*) from dsproxy_writers";
    assert_eq!(bed.one(writers).as_deref(), Some("2 2"));
    // After a restart it is the same writer.
    let mut bed = bed;
    bed.crash();
    assert_eq!(bed.one(writers).as_deref(), Some("2 2"));
}

#[test]
fn a_proxy_alone_notes_no_versions_and_the_next_one_is_not_overwritten_by_what_it_has_queued() {
    let bed = Bed::durable(&QUICK.replace("20ms", "1h"));
    let flush = ["PROXY", "FLUSH", "user", "20000"];
    for n in 1..=20 {
        assert_eq!(bed.run(&["SET", &format!("@user:{n}"), &named("alone")]).text(), "OK");
    }
    assert_eq!(bed.run(&flush).int(), 0);
    assert_eq!(bed.one("select count(*) from users where name = 'alone'").as_deref(), Some("20"));
    assert_eq!(bed.one(VERSIONS).as_deref(), Some("0"));
    // From now on both note theirs.
    let other = bed.beside(&[]);
    for (n, last) in [(1, "other"), (2, "bed")] {
        let key = format!("@user:{n}");
        let set = |name: &str| {
            let (key, value) = (key.as_str(), named(name));
            match name {
                "bed" => assert_eq!(bed.run(&["SET", key, &value]).text(), "OK"),
                _ => assert_eq!(other.run(&bed, &["SET", key, &value]).text(), "OK"),
            }
        };
        set(if last == "bed" { "other" } else { "bed" });
        set(last);
    }
    assert_eq!(bed.run(&flush).int(), 0);
    assert_eq!(other.run(&bed, &flush).int(), 0);
    let names = "select string_agg(name, ',' order by id) from users where id < 3";
    assert_eq!(bed.one(names).as_deref(), Some("other,bed"));
    assert_eq!(bed.one(VERSIONS).as_deref(), Some("2"));
}

#[test]
fn versions_do_not_pile_up_but_wait_for_the_journal_of_a_dead_proxy() {
    let bed = Bed::durable(QUICK);
    let mut other = bed.beside(&[("batch_interval = \"10ms\"", "batch_interval = \"1h\"")]);
    for n in 1..=50 {
        bed.run(&["SET", &format!("@user:{n}"), &named("old")]);
    }
    assert_eq!(bed.run(&["PROXY", "FLUSH", "user", "20000"]).int(), 0);
    eventually(PATIENCE, "nothing is left to be guarded", || bed.one(VERSIONS).as_deref() == Some("0"));
    let pruned = |proxy: &Proxy| proxy.metric("dsproxy_versions_pruned_total");
    eventually(PATIENCE, "they were forgotten", || pruned(&bed.proxy) + pruned(&other.proxy) >= 50.0);
    // The other proxy dies with a write in its journal; then the key is written again.
    assert_eq!(other.run(&bed, &["SET", "@user:1", &named("older")]).text(), "OK");
    other.kill();
    assert_eq!(bed.run(&["SET", "@user:1", &named("newer")]).text(), "OK");
    let name = "select name from users where id = 1";
    eventually(PATIENCE, "it is written", || bed.one(name).as_deref() == Some("newer"));
    // Both are looked at by a whole round of pruning that began after it.
    let passed = "select count(*) from dsproxy_writers w, dsproxy_versions v where v.key = '1' and w.needed > v.version";
    eventually(PATIENCE, "this proxy needs nothing", || bed.one(passed).as_deref() == Some("1"));
    let seen = "select max(seen_at)::text from dsproxy_writers";
    for _ in 0..3 {
        let before = bed.one(seen);
        eventually(PATIENCE, "another round", || bed.one(seen) != before);
    }
    assert_eq!(
        bed.one(VERSIONS).as_deref(),
        Some("1"),
        "what guards the key against the journal of the other one"
    );
    other.restart();
    let queued = other.proxy.metric("dsproxy_write_behind_queue_rows{mapping=\"user\"}");
    assert_eq!(queued, 1.0, "its write is queued again");
    let status = other.proxy.stop();
    assert!(status.success(), "{status}");
    assert_eq!(bed.one(name).as_deref(), Some("newer"), "the older write came too late");
    eventually(PATIENCE, "nothing is left to be guarded", || bed.one(VERSIONS).as_deref() == Some("0"));
}

/// What guards `user`, in proxy.toml: nothing of its own, the column, or both.
const TABLE: &str = "table = \"users\"\n";
const COLUMN: &str = "table = \"users\"\nversion_column = \"version\"\n";
const BOTH: &str = "table = \"users\"\nversion_column = \"version\"\nversion_table = true\n";

#[test]
fn proxies_that_would_not_see_each_others_versions_refuse_to_start() {
    let mut bed = Bed::durable(NO_CLOCK);
    bed.db.execute("alter table users add version bigint default 0, add other bigint default 0");
    let refused = bed.refused_beside(&[(TABLE, COLUMN)]);
    let id = bed.one("select id from dsproxy_guards where mapping = 'user'").unwrap();
    for word in
        ["mapping \"user\"", &id, "column \"version\"", "table dsproxy_versions", "version_table = true"]
    {
        assert!(refused.contains(word), "{word}: {refused}");
    }
    // It has not left anything behind that others would trip over.
    assert_eq!(bed.one("select count(*) from dsproxy_guards").as_deref(), Some("1"));

    // One after the other changes over, and all of the time one of them serves. Older writes come last, from either.
    let mut other = bed.beside(&[(TABLE, BOTH)]);
    let round = |bed: &Bed, other: &Beside, n: u32| {
        let flush = ["PROXY", "FLUSH", "user", "20000"];
        for (id, last) in [(n, true), (n + 100, false)] {
            let set = |name: &str, from_bed: bool| {
                let (key, body) = (format!("@user:{id}"), named(name));
                let set = ["SET", key.as_str(), body.as_str()];
                let reply = if from_bed { bed.run(&set) } else { other.run(bed, &set) };
                assert_eq!(reply.text(), "OK");
            };
            set("older", !last);
            set("newer", last);
            for from_bed in [last, !last] {
                let left = if from_bed { bed.run(&flush) } else { other.run(bed, &flush) };
                assert_eq!(left.int(), 0);
            }
            let name = bed.one(&format!("select name from users where id = {id}"));
            assert_eq!(name.as_deref(), Some("newer"), "{id}");
        }
    };
    round(&bed, &other, 1);
    assert!(bed.proxy.stop().success());
    bed.change_config(TABLE, BOTH);
    bed.restart();
    round(&bed, &other, 2);
    assert!(other.proxy.stop().success());
    other.change_config(BOTH, COLUMN);
    other.restart();
    round(&bed, &other, 3);
    assert!(bed.proxy.stop().success());
    bed.change_config(BOTH, COLUMN);
    bed.restart();
    round(&bed, &other, 4);
    assert!(bed.refused_beside(&[(COLUMN, TABLE)]).contains("version_column"));
    let elsewhere = COLUMN.replace("version\"", "other\"");
    assert!(bed.refused_beside(&[(COLUMN, &elsewhere)]).contains("column \"other\""));

    // What is dead and comes back with other settings contradicts only others.
    assert!(other.proxy.stop().success());
    bed.proxy.signal(rustix::process::Signal::KILL);
    bed.change_config(COLUMN, TABLE);
    bed.restart();
}
