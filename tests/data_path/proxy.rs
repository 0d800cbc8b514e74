//! `PROXY` and `DBSIZE`: what the proxy says of itself and of the keys.

use crate::bed::{Bed, NO_CLOCK, Session, user};
use crate::support::Value;

/// The pairs of a flat array; of several with one name the first.
fn said(value: &Value, name: &str) -> String {
    let items = value.items();
    let at = items.iter().step_by(2).position(|item| item.text() == name);
    at.map_or_else(|| format!("no {name} in {value:?}"), |at| items[at * 2 + 1].text())
}

#[test]
fn explain_tells_the_state_of_an_entry_and_runs_nothing() {
    let bed = Bed::start(NO_CLOCK);
    let explain = |words: &[&str]| bed.run(&[&["PROXY", "EXPLAIN"], words].concat());
    let miss = explain(&["GET", "@user:1"]);
    assert_eq!((said(&miss, "mapping"), said(&miss, "column")), ("user".into(), "id = 1".into()));
    assert_eq!(said(&miss, "state"), "miss");
    assert!(said(&miss, "sql_of_a_miss").contains("from unnest($1::text[]::bigint[])"), "{miss:?}");
    assert!(said(&miss, "node").contains(':') && said(&miss, "slot").parse::<u16>().unwrap() < 16384);
    assert_eq!((bed.loads("user"), bed.direct(&["EXISTS", "@user:1"]).int()), (0.0, 0));
    bed.get("user:1");
    let hit = explain(&["STRLEN", "@user:1"]);
    assert_eq!(said(&hit, "state"), "hit");
    assert!((1..=110_000).contains(&said(&hit, "ttl_ms").parse::<i64>().unwrap()));
    bed.run(&["GET", "@user:999"]);
    assert!(said(&explain(&["GET", "@user:999"]), "state").starts_with("negative"));
    bed.run(&["SET", "@user:2", r#"{"name":"new"}"#]);
    let dirty = explain(&["GET", "@user:2"]);
    assert_eq!(
        (said(&dirty, "state"), said(&dirty, "queued")),
        ("dirty".into(), "a write waits for the database".into())
    );
    assert_eq!(said(&explain(&["GET", "@plain"]), "mapping"), "none: plain Redis");
    assert_eq!(said(&explain(&["MGET", "@user:1", "@user:2"]), "other_keys"), "1");
    for (words, why) in
        [(&["PING"][..], "names no key"), (&["NOSUCH", "x"], "unknown command"), (&["GET"], "wrong number")]
    {
        assert!(explain(words).error().contains(why), "{words:?}");
    }
    let mut three = bed.proxy.connect();
    three.cmd(&["HELLO", "3"]);
    assert!(matches!(three.cmd(&bed.args(&["PROXY", "EXPLAIN", "GET", "@user:1"])), Value::Map(_)));
}

#[test]
fn mappings_and_their_counts_are_shown() {
    let bed = Bed::start("");
    let mappings = bed.run(&["PROXY", "MAPPINGS"]);
    assert_eq!(mappings.items().len(), 3);
    assert_eq!(
        (said(&mappings.items()[0], "name"), said(&mappings.items()[0], "ttl")),
        ("user".into(), "100s".into())
    );
    assert_eq!(said(&mappings.items()[2], "write"), "behind (append)");
    bed.get("user:1");
    bed.get("user:1");
    let stats = bed.run(&["PROXY", "STATS", "user"]);
    let of_user = &stats.items()[1];
    let count = |name: &str| {
        let items = of_user.items();
        items[items.iter().position(|item| *item == Value::from(name)).unwrap() + 1].int()
    };
    assert_eq!((count("hit"), count("miss"), count("stale")), (1, 1, 0));
    assert_eq!(bed.run(&["PROXY", "STATS"]).items().len(), 6);
    assert!(bed.run(&["PROXY", "STATS", "nosuch"]).error().contains("no mapping 'nosuch'"));
    assert!(bed.run(&["PROXY", "HELP"]).items().len() > 5);
    assert!(bed.run(&["PROXY", "NOSUCH"]).error().contains("unknown subcommand"));
}

#[test]
fn invalidate_drops_what_matches_and_nothing_else() {
    let bed = Bed::start("");
    for n in 1..=20 {
        bed.get(&format!("user:{n}"));
    }
    bed.get("post:1");
    bed.run(&["SET", "@user:plain", "x"]);
    let pattern = bed.key("user:*");
    assert_eq!(bed.run(&["PROXY", "INVALIDATE", &pattern]).int(), 20);
    assert_eq!(bed.run(&["EXISTS", "@user:plain"]).int(), 1, "no mapped key");
    let before = (bed.loads("user"), bed.loads("post"));
    bed.get("user:3");
    bed.get("post:1");
    assert_eq!((bed.loads("user") - before.0, bed.loads("post") - before.1), (1.0, 0.0));
}

#[test]
fn dbsize_counts_the_clients_keys_only() {
    let bed = Bed::private("");
    assert_eq!(bed.run(&["DBSIZE"]).int(), 0);
    for n in 1..=30 {
        bed.get(&format!("user:{n}"));
    }
    for n in 500..520 {
        bed.run(&["GET", &format!("@user:{n}")]);
    }
    bed.run(&["SET", "@plain", "x"]);
    assert_eq!(bed.run(&["DBSIZE"]).int(), 31);
    assert_eq!(bed.run(&["KEYS", "*"]).items().len(), 31);
}

#[test]
fn an_mget_of_a_hundred_keys_half_missing_is_one_query() {
    let bed = Bed::start("");
    let keys: Vec<String> = (1..=100).map(|n| format!("@user:{n}")).collect();
    let half: Vec<&str> = std::iter::once("MGET").chain(keys.iter().step_by(2).map(String::as_str)).collect();
    bed.run(&half);
    let before = bed.loads("user");
    let all: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
    let want: Vec<Value> = (1..=100).map(|n| user(n).as_str().into()).collect();
    assert_eq!(bed.run(&all).items(), want);
    assert_eq!(bed.loads("user") - before, 1.0);
}

#[test]
fn hits_behind_a_slow_fill_are_sent_at_once_and_answered_in_order() {
    let bed = Bed::start("statement_timeout = \"20s\"\n");
    bed.get("post:1");
    let holder = Session::open(&bed.db);
    holder.execute("begin; lock table users in access exclusive mode");
    let counted = |name: &str| {
        bed.proxy.metric(&format!("dsproxy_mapped_reads_total{{mapping=\"post\",served=\"{name}\"}}"))
    };
    let before = counted("hit");
    let mut client = bed.proxy.connect();
    client.send(&bed.args(&["GET", "@user:7"]));
    for _ in 0..100 {
        client.send(&bed.args(&["GET", "@post:1"]));
    }
    // The hits are back from the cluster while the fill in front of them still waits for its table.
    crate::support::eventually(crate::bed::PATIENCE, "the hits are done", || {
        counted("hit") - before == 100.0
    });
    assert!(
        client.stays_silent(std::time::Duration::from_millis(50)),
        "nothing may be answered before its turn"
    );
    // Another client waits for nobody.
    assert_eq!(bed.get("post:1"), r#"{"id":1,"content":"p1"}"#);
    holder.execute("commit");
    assert_eq!(client.recv().text(), user(7));
    for _ in 0..100 {
        assert_eq!(client.recv().text(), r#"{"id":1,"content":"p1"}"#);
    }
}
