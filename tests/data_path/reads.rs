//! Misses, hits, and what stays in the cache.

use crate::bed::{Bed, NO_CLOCK, PATIENCE, Session, user};
use crate::support::{Value, eventually};
use std::time::Instant;

#[test]
fn a_miss_is_filled_and_a_hit_asks_no_database() {
    let mut bed = Bed::start("");
    assert_eq!(bed.get("user:1"), user(1));
    assert_eq!(bed.direct(&["GET", "@user:1"]), user(1).as_str().into());
    for _ in 0..100 {
        assert_eq!(bed.get("user:1"), user(1));
    }
    assert_eq!(bed.loads("user"), 1.0);
    let key = format!("{{key=\"{}\",mapping=\"user\"}}", bed.key("user:{id}"));
    assert_eq!(bed.proxy.metric(&format!("cache_hits_total{key}")), 100.0);
    assert_eq!(bed.proxy.metric(&format!("cache_misses_total{key}")), 1.0);

    // Sessions report to the statistics now and then, and all they have when they end.
    assert!(bed.proxy.stop().success());
    let sessions = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    eventually(PATIENCE, "the proxy's sessions end", || bed.one(sessions).as_deref() == Some("0"));
    // The one miss; a table that nobody reads shows what its creation counts.
    let scans = "select sum(seq_scan + coalesce(idx_scan, 0)) filter (where relname = 'users') \
                 - sum(seq_scan + coalesce(idx_scan, 0)) filter (where relname = 'posts') from pg_stat_user_tables";
    assert_eq!(bed.one(scans).as_deref(), Some("1"));
}

#[test]
fn mget_asks_once_per_mapping_and_answers_in_order() {
    let bed = Bed::start("");
    bed.run(&["SET", "@plain", "x"]);
    bed.get("user:3");
    let before = bed.loads("user");
    let args = [
        "MGET",
        "@user:1",
        "@user:2",
        "@post:7",
        "@nosuch:1",
        "@user:999999",
        "@user:1",
        "@user:3",
        "@plain",
        "@post:7",
    ];
    let post = Value::from(r#"{"id":7,"content":"p7"}"#);
    let want = [
        user(1).as_str().into(),
        user(2).as_str().into(),
        post.clone(),
        Value::Nil,
        Value::Nil,
        user(1).as_str().into(),
        user(3).as_str().into(),
        "x".into(),
        post,
    ];
    assert_eq!(bed.run(&args).items(), want);
    assert_eq!((bed.loads("user") - before, bed.loads("post")), (1.0, 1.0));
    assert_eq!(bed.run(&args).items(), want);
    // That one has no row is known, too.
    assert_eq!((bed.loads("user") - before, bed.loads("post")), (1.0, 1.0));
}

#[test]
fn a_key_that_no_row_can_have_is_plain_redis() {
    let bed = Bed::start("");
    for key in ["@user:abc", "@user:007", "@user:", "@user:1:x", "@nosuch:1", "@user:9223372036854775808"] {
        assert_eq!(bed.run(&["GET", key]), Value::Nil, "{key}");
        assert_eq!(bed.run(&["SET", key, "no json"]).text(), "OK", "{key}");
        assert_eq!(bed.run(&["GET", key]).text(), "no json", "{key}");
        assert_eq!(bed.run(&["APPEND", key, "!"]).int(), 8, "{key}");
        assert_eq!(bed.run(&["DEL", key]).int(), 1, "{key}");
    }
    assert_eq!((bed.loads("user"), bed.waiting("user")), (0.0, 0.0));
}

#[test]
fn readers_who_wait_for_one_missing_key_cause_one_query() {
    let bed =
        Bed::start("statement_timeout = \"20s\"\n[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 3\n");
    let holder = Session::open(&bed.db);
    holder.execute("begin; lock table users in access exclusive mode");
    let gets = vec![bed.args(&["GET", "@user:5"]); 25];
    let key = bed.key("user:5");
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|_| {
                let mut client = bed.proxy.connect();
                let gets = &gets;
                scope.spawn(move || client.pipeline(gets))
            })
            .collect();
        // Misses, not just commands under way: a reader whose nil is still on its way from the cluster when the load ends
        // begins a load of its own.
        let misses = format!("cache_misses_total{{key=\"{}\",mapping=\"user\"}}", bed.key("user:{id}"));
        eventually(PATIENCE, "500 readers wait", || bed.proxy.metric(&misses) == 500.0);
        holder.execute("commit");
        for client in clients {
            assert_eq!(client.join().unwrap(), vec![Value::from(user(5).as_str()); 25], "{key}");
        }
    });
    assert_eq!(bed.loads("user"), 1.0);
    assert_eq!(bed.get("user:5"), user(5));
}

#[test]
fn loaded_values_expire_about_then_and_written_ones_just_then() {
    let more = "[[mapping]]\nname = \"forever\"\nkey = \"PREFIXforever:{id}\"\ntable = \"users\"\nid = \"bigint\"\nttl = \"0\"\nwrite = \"behind\"\n";
    let bed = Bed::start(&format!("{NO_CLOCK}{more}"));
    let ttls: Vec<i64> = (1..=100)
        .map(|n| {
            bed.get(&format!("user:{n}"));
            bed.run(&["PTTL", &format!("@user:{n}")]).int()
        })
        .collect();
    assert!(ttls.iter().all(|ttl| (85_000..=110_000).contains(ttl)), "{ttls:?}");
    let (least, most) = (ttls.iter().min().unwrap(), ttls.iter().max().unwrap());
    assert!(most - least > 8_000, "jitter: {least} to {most}");
    bed.run(&["SET", "@user:1", r#"{"name":"x"}"#]);
    // An entry that is not in the database yet does not expire: the older row would come back.
    assert_eq!(bed.run(&["PTTL", "@user:1"]).int(), -1);
    bed.get("forever:1");
    assert_eq!(bed.run(&["PTTL", "@forever:1"]).int(), -1);
    bed.run(&["SET", "@forever:1", r#"{"name":"x"}"#]);
    assert_eq!(bed.run(&["PTTL", "@forever:1"]).int(), -1);
    let begun = Instant::now();
    bed.run(&["SET", "@user:2", r#"{"name":"x"}"#, "EX", "7"]);
    bed.run(&["SETEX", "@user:3", "9", r#"{"name":"y"}"#]);
    assert_eq!(bed.run(&["PTTL", "@user:2"]).int(), -1);
    // Fifty rows are a batch.
    (100..147).for_each(|n| drop(bed.run(&["SET", &format!("@user:{n}"), r#"{"name":"x"}"#])));
    bed.wait_flushed();
    for (key, least, most) in
        [("@user:1", 85_000, 110_000), ("@user:2", 7_000, 7_000), ("@user:3", 9_000, 9_000)]
    {
        let ttl = bed.run(&["PTTL", key]).int();
        let passed = begun.elapsed().as_millis() as i64 + 1;
        assert!((least - passed..=most).contains(&ttl), "{key}: {ttl} after {passed} ms");
    }
    assert_eq!(bed.run(&["PTTL", "@forever:1"]).int(), -1);
    // What was written named one column; the entry is the row now.
    let row: serde_json::Value = serde_json::from_str(&bed.get("user:3")).unwrap();
    assert_eq!((&row["id"], &row["name"]), (&serde_json::json!(3), &serde_json::json!("y")));
}

#[test]
fn a_mapping_without_cache_stores_nothing() {
    let more = "[[mapping]]\nname = \"off\"\nkey = \"PREFIXoff:{id}\"\ntable = \"users\"\nid = \"bigint\"\ncache = \"off\"\nwrite = \"behind\"\n";
    let bed = Bed::start(&format!("{NO_CLOCK}{more}"));
    assert_eq!((bed.get("off:1"), bed.get("off:1")), (user(1), user(1)));
    assert_eq!(bed.loads("off"), 2.0);
    assert_eq!(bed.run(&["SET", "@off:1", r#"{"name":"new"}"#]).text(), "OK");
    assert_eq!(bed.get("off:1"), r#"{"name":"new"}"#, "from the queue");
    assert_eq!(bed.direct(&["EXISTS", "@off:1"]).int(), 0);
    assert_eq!(bed.run(&["DEL", "@off:1"]).int(), 0);
    assert_eq!(bed.run(&["GET", "@off:1"]), Value::Nil);
    assert_eq!(bed.run(&["MSET", "@off:2", r#"{"name":"new"}"#]).text(), "OK");
    assert_eq!(bed.get("off:2"), r#"{"name":"new"}"#);
    assert_eq!(bed.direct(&["EXISTS", "@off:2"]).int(), 0);
}
