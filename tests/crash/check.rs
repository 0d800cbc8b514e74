//! Reads what is left, and holds it against what the writers know.

use std::collections::HashMap;

use tokio_postgres::NoTls;

use crate::load::{KEYS, Load};
use crate::support::{Database, Resp, Value};
use crate::victim::Victim;

/// The history is written by the database itself: each change of a row, in the order in which it was committed.
pub const TABLES: &str = "
    create table kv (id bigint primary key, writer int not null, seq bigint not null);
    create table log (n bigserial primary key, id bigint not null, value text not null, ts bigint not null default 0);
    create table history (n bigserial primary key, id bigint not null, seq bigint not null);
    create function note() returns trigger language plpgsql as $$
        begin insert into history (id, seq) values (new.id, new.seq); return new; end $$;
    create trigger note after insert or update on kv for each row execute function note();";

/// What was found, in one round or in all.
#[derive(Debug, Default)]
pub struct Totals {
    pub acknowledged: u64,
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
    pub inversions: Vec<String>,
    pub stale_reads: u64,
    /// Keys of which the cache holds another value than the database.
    pub stale_entries: Vec<String>,
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.acknowledged = other.acknowledged; // counted from the start
        self.stale_reads = other.stale_reads;
    }

    pub fn is_clean(&self) -> bool {
        self.lost.is_empty()
            && self.doubled.is_empty()
            && self.inversions.is_empty()
            && self.stale_reads == 0
            && self.stale_entries.is_empty()
    }
}

pub fn check(db: &Database, load: &Load, proxies: &[Victim; 2]) -> Totals {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (rows, log, inversions) = runtime.block_on(read(db));
    let mut found = Totals { inversions, ..Totals::default() };
    let mut cache =
        [Resp::connect(("127.0.0.1", proxies[0].port())), Resp::connect(("127.0.0.1", proxies[1].port()))];
    for writer in &load.writers {
        found.acknowledged += writer.acknowledged;
        found.stale_reads += writer.stale_reads;
        for at in 0..KEYS {
            let row = rows.get(&(writer.number(at) as i64)).copied();
            let possible = &writer.keys[at].possible;
            let fits = match row {
                Some(seq) => possible.contains(&(seq, true)),
                None => possible.is_empty() || possible.iter().any(|(_, put)| !put),
            };
            // Before the first acknowledged write the row may be missing, whatever was tried.
            let never = row.is_none() && !writer.keys[at].acknowledged;
            if !fits && !never {
                found.lost.push(format!("{}: the row is {row:?}, possible are {possible:?}", writer.key(at)));
            }
            for proxy in &mut cache {
                let seen = seen(proxy, &writer.key(at));
                if seen != row {
                    found
                        .stale_entries
                        .push(format!("{}: read {seen:?}, the row is {row:?}", writer.key(at)));
                }
            }
        }
        for value in &writer.appended {
            match log.get(value) {
                None => found.lost.push(format!("append {value}")),
                Some(1) => {}
                Some(times) => found.doubled.push(format!("{value}: {times} times")),
            }
        }
        for value in writer.unknown.iter().filter(|value| log.get(*value).is_some_and(|times| *times > 1)) {
            found.doubled.push(format!("{value} (never acknowledged)"));
        }
    }
    found
}

fn seen(proxy: &mut Resp, key: &str) -> Option<u64> {
    match proxy.cmd(&["GET", key]) {
        Value::Bulk(bytes) => serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["seq"].as_u64(),
        Value::Nil => None,
        other => panic!("{key}: {other:?}"),
    }
}

type Read = (HashMap<i64, u64>, HashMap<String, usize>, Vec<String>);

async fn read(db: &Database) -> Read {
    let (client, connection) = tokio_postgres::connect(db.url(), NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let rows = client.query("select id, seq from kv", &[]).await.unwrap();
    let rows = rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1) as u64)).collect();
    let mut log = HashMap::new();
    for row in client.query("select value from log", &[]).await.unwrap() {
        *log.entry(row.get(0)).or_insert(0) += 1;
    }
    // Strictly: the same number twice is a write that was applied twice.
    let sql = "select id, seq, before from (select id, seq, lag(seq) over (partition by id order by n) before from history) h \
               where seq <= before limit 10";
    let inversions = client.query(sql, &[]).await.unwrap();
    let inversion = |row: &tokio_postgres::Row| {
        let (id, seq, before): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        format!("kv:{id}: {seq} after {before}")
    };
    let inversions = inversions.iter().map(inversion).collect();
    drop(client);
    let _ = connection.await;
    (rows, log, inversions)
}
