//! Reads what is left, and holds it against what the writers know.

use std::collections::HashMap;

use crate::load::{KEYS, Load, Writer};
use crate::poison;
use crate::support::{Database, Resp, Value};
use crate::victim::Victim;

/// The history is written by the database itself: each change of a row, in the order in which it was committed.
pub const TABLES: &str = "
    create table kv (id bigint primary key, writer int not null, seq bigint not null);
    create table counter (id bigint primary key, n bigint not null);
    create table log (n bigserial primary key, id bigint not null, value text not null, ts bigint not null default 0);
    create table history (n bigserial primary key, kind text not null, id bigint not null, seq bigint not null);
    create function note() returns trigger language plpgsql as $$
        begin insert into history (kind, id, seq) values (tg_table_name, new.id, new.seq); return new; end $$;
    create trigger note after insert or update on kv for each row execute function note();";

const SQLITE_TABLES: &str = "
    pragma journal_mode = wal;
    create table kv (id integer primary key, writer integer not null, seq integer not null);
    create table counter (id integer primary key, n integer not null);
    create table log (n integer primary key, id integer not null, value text not null, ts integer not null default 0);
    create table history (n integer primary key, kind text not null, id integer not null, seq integer not null);
    create trigger noted after insert on kv
        begin insert into history (kind, id, seq) values ('kv', new.id, new.seq); end;
    create trigger noted_again after update on kv
        begin insert into history (kind, id, seq) values ('kv', new.id, new.seq); end;";

/// Strictly: the same number twice is a write that was applied twice.
const INVERSIONS: &str = "select kind, id, seq, before from \
    (select kind, id, seq, lag(seq) over (partition by kind, id order by n) before from history) h \
    where seq <= before limit 10";

/// The database.
pub enum Store {
    Postgres(Database),
    Sqlite(tempfile::TempDir),
}

impl Store {
    pub fn postgres(db: Database) -> Self {
        db.execute(TABLES);
        db.execute(poison::TABLES);
        Self::Postgres(db)
    }

    pub fn sqlite() -> Self {
        let store = Self::Sqlite(tempfile::tempdir().unwrap());
        store.execute(SQLITE_TABLES);
        store.execute(&poison::sqlite_tables());
        store
    }

    pub fn url(&self) -> String {
        match self {
            Self::Postgres(db) => db.url().to_owned(),
            Self::Sqlite(dir) => format!("sqlite:{}", dir.path().join("crash.db").display()),
        }
    }

    fn file(&self) -> rusqlite::Connection {
        let Self::Sqlite(dir) = self else { panic!("not SQLite") };
        rusqlite::Connection::open(dir.path().join("crash.db")).unwrap()
    }

    /// Statements that answer nothing.
    pub fn execute(&self, sql: &str) {
        match self {
            Self::Postgres(db) => db.execute(sql),
            Self::Sqlite(_) => self.file().execute_batch(sql).unwrap(),
        }
    }

    /// One query; all values as texts, none of which is NULL.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        match self {
            Self::Postgres(db) => {
                db.query(sql).into_iter().map(|row| row.into_iter().map(Option::unwrap).collect()).collect()
            }
            Self::Sqlite(_) => {
                let file = self.file();
                let mut statement = file.prepare(sql).unwrap();
                let width = statement.column_count();
                let text = |value: rusqlite::types::Value| match value {
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    other => panic!("{other:?}"),
                };
                let row = |row: &rusqlite::Row<'_>| (0..width).map(|at| row.get(at).map(text)).collect();
                statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
            }
        }
    }
}

/// What was found at the end of a round.
#[derive(Debug, Default)]
pub struct Found {
    /// Since the beginning.
    pub acknowledged: u64,
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
    pub inversions: Vec<String>,
    /// Reads of an acknowledged write through the proxy that took it which showed something older.
    pub stale_reads: Vec<String>,
    /// Keys of which the cache holds another value than the database.
    pub stale_entries: Vec<String>,
    /// Counters that were added to twice, or not at all.
    pub miscounted: Vec<String>,
    /// The same of those that were counted through one proxy only.
    pub miscounted_alone: Vec<String>,
    /// What is wrong with keys of which writes were refused.
    pub poisoned: Vec<String>,
}

impl Found {
    /// Nothing to complain about; of the counters only where Redis has lost nothing.
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty()
            && self.doubled.is_empty()
            && self.inversions.is_empty()
            && self.stale_reads.is_empty()
            && self.stale_entries.is_empty()
            && self.poisoned.is_empty()
    }

    /// The figures, one after the other.
    pub fn figures(&self) -> String {
        let Self { acknowledged, lost, doubled, inversions, stale_reads, stale_entries, .. } = self;
        format!(
            "{acknowledged} writes acknowledged: {} lost, {} applied twice, {} out of order, {} stale reads, {} \
             stale entries, {} counts wrong, {} wrong of refused writes",
            lost.len(),
            doubled.len(),
            inversions.len(),
            stale_reads.len(),
            stale_entries.len(),
            self.miscounted.len() + self.miscounted_alone.len(),
            self.poisoned.len(),
        )
    }
}

/// Holds the rows, their history and both proxies' caches against what the writers know.
pub fn check(store: &Store, load: &mut Load, proxies: &[Victim; 2]) -> Found {
    let number = |text: &String| text.parse::<u64>().unwrap();
    let rows = store.rows("select id, seq from kv");
    let rows: HashMap<u64, u64> = rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
    let mut log: HashMap<String, usize> = HashMap::new();
    store
        .rows("select value from log")
        .into_iter()
        .flatten()
        .for_each(|value| *log.entry(value).or_default() += 1);
    let counters = store.rows("select id, n from counter");
    let counters: HashMap<u64, u64> = counters.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
    let inversion = |row: &Vec<String>| format!("{}:{}: {} after {}", row[0], row[1], row[2], row[3]);
    let inversions = store.rows(INVERSIONS).iter().map(inversion).collect();
    let mut found = Found { inversions, ..Found::default() };
    let keys = load.writers.iter().flat_map(|writer| (0..KEYS).map(|at| writer.key(at)));
    let gets: Vec<_> = keys.map(|key| vec!["GET".to_owned(), key]).collect();
    let mut cache = proxies
        .each_ref()
        .map(|proxy| Resp::connect(("127.0.0.1", proxy.port())).pipeline(&gets).into_iter());
    for writer in &mut load.writers {
        found.acknowledged += writer.acknowledged;
        found.stale_reads.extend(writer.stale_reads.iter().cloned());
        if let Some(poisoned) = &writer.poisoned {
            found.acknowledged += poisoned.count;
            found.stale_reads.extend(poisoned.stale_reads.iter().cloned());
        }
        for at in 0..KEYS {
            let row = rows.get(&(writer.number(at) as u64)).copied();
            check_key(&mut found, writer, at, row);
            for proxy in &mut cache {
                let seen = seen(proxy.next().unwrap());
                if seen != row {
                    let what = format!("{}: read {seen:?}, the row is {row:?}", writer.key(at));
                    found.stale_entries.push(what);
                }
            }
        }
        check_log(&mut found, writer, &log);
        let counted = counters.get(&(writer.id as u64)).copied().unwrap_or(0);
        let (least, most) = (writer.counted.0, writer.counted.0 + writer.counted.1);
        let wrong = match writer.counts_through {
            None => &mut found.miscounted,
            Some(_) => &mut found.miscounted_alone,
        };
        wrong.append(&mut writer.miscounted);
        if !(least..=most).contains(&counted) {
            wrong.push(format!("counter {}: the row is {counted}, not {least} to {most}", writer.id));
        }
        writer.counted = (counted, 0);
    }
    found
}

fn check_key(found: &mut Found, writer: &Writer, at: usize, row: Option<u64>) {
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
}

fn check_log(found: &mut Found, writer: &Writer, log: &HashMap<String, usize>) {
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

fn seen(reply: Value) -> Option<u64> {
    match reply {
        Value::Bulk(bytes) => serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["seq"].as_u64(),
        Value::Nil => None,
        other => panic!("{other:?}"),
    }
}
