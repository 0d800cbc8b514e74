//! What is done about a dead proxy's journal, and about rows that the database refused.

use std::time::Duration;

use tokio_postgres::NoTls;

use crate::check::TABLES;
use crate::support::{Database, Resp, SharedStack, Value, eventually};
use crate::victim::{Setup, Victim};

fn one(db: &Database, sql: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(db.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client.query_one(&format!("select ({sql})::text"), &[]).await.unwrap().get(0)
    })
}

fn set(proxy: &Victim, key: &str, value: &str) {
    assert_eq!(Resp::connect(("127.0.0.1", proxy.port())).cmd(&["SET", key, value]).text(), "OK");
}

#[test]
fn a_dead_proxys_journal_is_adopted_once() {
    let stack = SharedStack::get();
    let db = stack.fresh_database();
    db.execute(TABLES);
    let mut proxy = Victim::new(Setup::new(stack.redis_nodes(), db.url()).interval("1h"));
    proxy.start(None);
    let data = proxy.data().display().to_string();
    // Other tests of this stack may have these keys, too: they are far away.
    for n in 0..10 {
        set(&proxy, &format!("kv:{}", 7_000_000 + n), &format!("{{\"writer\":1,\"seq\":{n}}}"));
        set(&proxy, "log:7000000", &format!("entry {n}"));
    }
    let (fine, text) = proxy.verb(&["journal", "adopt", &data]);
    assert!(!fine && text.contains("in use by process"), "{text}");
    proxy.kill();
    assert_eq!(one(&db, "select count(*) from kv"), "0");
    let (fine, text) = proxy.verb(&["journal", "inspect", &data]);
    assert!(fine && text.contains("kv put kv:7000003 (writer, seq)"), "{text}");
    for _ in 0..2 {
        let (fine, text) = proxy.verb(&["journal", "adopt", &data]);
        assert!(fine && text.contains("everything up to write 20"), "{text}");
        assert_eq!(one(&db, "select count(*) from kv"), "10");
        assert_eq!(one(&db, "select count(distinct value) || ' ' || count(*) from log"), "10 10");
    }
    assert_eq!(one(&db, "select max(seq) from kv"), "9");
    // It comes back as if nothing had been.
    proxy.start(None);
    set(&proxy, "kv:7000000", "{\"writer\":1,\"seq\":99}");
    assert_eq!(Resp::connect(("127.0.0.1", proxy.port())).cmd(&["DEL", "kv:7000001", "kv:7000002"]).int(), 2);
}

#[test]
fn who_adopts_a_journal_ends_what_its_proxy_has_begun() {
    let stack = SharedStack::get();
    let db = stack.fresh_database();
    db.execute(TABLES);
    // It is acknowledged, and so in the cache, long before it is flushed.
    let mut proxy = Victim::new(Setup::new(stack.redis_nodes(), db.url()).interval("1s"));
    proxy.start(Some("flush.committed:1"));
    eventually(Duration::from_secs(20), "it serves", || {
        Resp::try_connect(("127.0.0.1", proxy.port())).is_ok()
    });
    set(&proxy, "kv:7100000", "{\"writer\":1,\"seq\":1}");
    assert!(proxy.wait_death(Duration::from_secs(20)));
    // It is in the database, and the cache does not know: such an entry has no end.
    assert_eq!(one(&db, "select count(*) from kv"), "1");
    let life = || {
        let lives =
            stack.redis_nodes().iter().map(|node| Resp::connect(&**node).cmd(&["PTTL", "kv:7100000"]));
        lives.into_iter().find(|life| !matches!(life, Value::Error(_))).unwrap().int()
    };
    assert_eq!(life(), -1);
    let (fine, text) = proxy.verb(&["journal", "adopt", &proxy.data().display().to_string()]);
    assert!(fine, "{text}");
    assert_ne!(life(), -1, "{text}");
}

#[test]
fn a_refused_row_is_listed_replayed_and_dropped() {
    let stack = SharedStack::get();
    let db = stack.fresh_database();
    db.execute(&format!("{TABLES} alter table kv add constraint small check (seq < 100)"));
    let mut proxy = Victim::new(Setup::new(stack.redis_nodes(), db.url()));
    proxy.start(None);
    for n in [1, 2, 300, 4, 500] {
        set(&proxy, &format!("kv:{}", 8_000_000 + n), &format!("{{\"writer\":1,\"seq\":{n}}}"));
    }
    proxy.wait_flushed(Duration::from_secs(20));
    assert_eq!(one(&db, "select string_agg(seq::text, ',' order by seq) from kv"), "1,2,4", "its neighbours");
    let (fine, text) = proxy.verb(&["dlq", "list", "--mapping", "kv"]);
    assert!(fine && text.lines().count() == 2 && text.contains("kv put kv:8000300: "), "{text}");
    let (fine, text) = proxy.verb(&["dlq", "show", "1"]);
    assert!(fine && text.contains("23514") && text.contains("seq"), "{text}");
    let (fine, text) = proxy.verb(&["dlq", "replay"]);
    assert!(!fine && text.contains("2 are still refused"), "{text}");
    db.execute("alter table kv drop constraint small");
    // A newer write of one of them comes first.
    set(&proxy, "kv:8000500", "{\"writer\":1,\"seq\":7}");
    proxy.wait_flushed(Duration::from_secs(20));
    let (fine, text) = proxy.verb(&["dlq", "replay"]);
    assert!(fine && text.contains("kv:8000300 applied") && text.contains("newer write"), "{text}");
    assert_eq!(one(&db, "select string_agg(seq::text, ',' order by seq) from kv"), "1,2,4,7,300");
    let (fine, text) = proxy.verb(&["dlq", "drop"]);
    assert!(!fine && text.contains("--all"), "{text}");
    assert!(proxy.verb(&["dlq", "drop", "--all"]).0);
    eventually(Duration::from_secs(20), "the entry of a refused row is gone", || {
        Resp::connect(("127.0.0.1", proxy.port())).cmd(&["GET", "kv:8000300"]).text().contains("300")
    });
}
