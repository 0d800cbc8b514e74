//! The same against SQLite files: describing, loading, applying, migrating, and what can go wrong with a file.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dsproxy::mapping::{Format, MappingSet, MappingSpec, Row, StoreMode, WriteMode};
use dsproxy::source::migrate::{Migrations, Migrator};
use dsproxy::source::{Change, Database, LoadFrom, Source, SourceError, Sqlite, SqliteOptions};
use rusqlite::Connection;

/// A file of one test.
pub struct File {
    dir: tempfile::TempDir,
}

impl File {
    pub fn new(sql: &str) -> Self {
        let file = Self { dir: tempfile::tempdir().unwrap() };
        file.connection().execute_batch("pragma journal_mode = wal").unwrap();
        file.connection().execute_batch(sql).unwrap();
        file
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("test.db")
    }

    pub fn url(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    pub fn connection(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    pub fn one(&self, sql: &str) -> String {
        let value: rusqlite::types::Value = self.connection().query_row(sql, [], |row| row.get(0)).unwrap();
        match value {
            rusqlite::types::Value::Text(text) => text,
            rusqlite::types::Value::Integer(n) => n.to_string(),
            other => format!("{other:?}"),
        }
    }

    pub async fn sqlite(&self, options: SqliteOptions) -> Result<Sqlite, SourceError> {
        Sqlite::open(&self.url(), &options).await
    }

    pub async fn source(&self, specs: Vec<MappingSpec>) -> Source {
        let sqlite = self.sqlite(SqliteOptions::default()).await.unwrap();
        Source::open(sqlite, MappingSet::new(specs).unwrap()).await.unwrap()
    }
}

fn writable(name: &str, key: &str, table: &str, id: &str) -> MappingSpec {
    MappingSpec { write: WriteMode::Behind, ..MappingSpec::new(name, key, table, id) }
}

fn put(source: &Source, key: &str, body: &str) -> (u16, Change) {
    let (id, found) = source.mappings().find(key.as_bytes()).unwrap();
    (id, Change::Put(Row::parse(source.bound(id).unwrap(), found.ids(), body.as_bytes()).unwrap()))
}

fn delete(source: &Source, key: &str) -> (u16, Change) {
    let (id, found) = source.mappings().find(key.as_bytes()).unwrap();
    (id, Change::Delete(found.ids().iter().map(|s| (*s).into()).collect()))
}

async fn apply(source: &Source, changes: &[(u16, Change)]) -> Result<(), SourceError> {
    let refs: Vec<_> = changes.iter().map(|(_, c)| c).collect();
    source.apply(changes[0].0, &refs).await
}

async fn try_load(source: &Source, keys: &[&str]) -> Result<Vec<Option<String>>, SourceError> {
    let found: Vec<_> = keys.iter().map(|k| source.mappings().find(k.as_bytes()).unwrap()).collect();
    let matches: Vec<_> = found.iter().map(|(_, m)| *m).collect();
    let rows = source.load(found[0].0, &matches, LoadFrom::Primary).await?;
    rows.into_iter().map(|r| Ok(r?.map(|r| String::from_utf8(r.value.to_vec()).unwrap()))).collect()
}

async fn load(source: &Source, keys: &[&str]) -> Vec<Option<String>> {
    try_load(source, keys).await.unwrap()
}

#[tokio::test]
async fn every_type_comes_back_exactly() {
    let file = File::new(
        "create table t (id integer primary key, b bigint, r real, n numeric, f boolean, s text, v varchar(20), u uuid, \
         y blob, d date, ts datetime, j json, x, g integer generated always as (b + 1) stored)",
    );
    let source = file.source(vec![writable("t", "t:{id}", "t", "bigint")]).await;
    let body = r#"{"id":1,"b":9007199254740993,"r":0.30000000000000004,"n":9007199254740993,"f":true,"s":"ä\"\\😀\n","v":"x","u":"123e4567-e89b-12d3-a456-426614174000","y":"\\x00ff","d":"2024-02-29","ts":"2024-02-29T12:00:00.123456+00:00","j":{"z": [1, null]},"x":"any"}"#;
    apply(&source, &[put(&source, "t:1", body)]).await.unwrap();
    let expected = body.replace("\"x\":\"any\"}", "\"x\":\"any\",\"g\":9007199254740994}");
    assert_eq!(load(&source, &["t:1"]).await, [Some(expected)]);
    assert_eq!(
        file.one("select typeof(b) || typeof(r) || typeof(f) || typeof(s) || typeof(y) || typeof(j) from t"),
        "integerrealintegertextblobtext"
    );
    apply(&source, &[put(&source, "t:2", r#"{"b":-9223372036854775808,"r":1e300,"f":false,"j":null}"#)])
        .await
        .unwrap();
    let row = load(&source, &["t:2"]).await.remove(0).unwrap();
    assert!(row.contains(r#""b":-9223372036854775808,"r":1e+300,"n":null,"f":false"#), "{row}");
    // NaN would silently become NULL.
    let error = apply(&source, &[put(&source, "t:3", r#"{"r":"NaN"}"#)]).await.unwrap_err();
    assert!(matches!(error, SourceError::BadData { .. }), "{error}");
    // What others stored in the file is shown by its storage class, whatever the column says.
    file.connection()
        .execute_batch("insert into t (id, b, j, f, r) values (9, 'text', 'no json', 7, 9e999)")
        .unwrap();
    let row = load(&source, &["t:9"]).await.remove(0).unwrap();
    assert!(row.contains(r#""b":"text","r":"Infinity""#) && row.contains(r#""f":7"#), "{row}");
    assert!(row.contains(r#""j":"no json""#), "{row}");
    file.connection().execute_batch("insert into t (id, s) values (10, cast(x'ff' as text))").unwrap();
    assert!(try_load(&source, &["t:10"]).await.unwrap_err().to_string().contains("UTF-8"));
}

#[tokio::test]
async fn loads_by_position_for_every_shape_of_id() {
    let file = File::new(
        "create table users (id integer primary key, name text); \
         insert into users select value, 'u' || value from generate_series(1, 1000); \
         create table pairs (a int, b varchar(10), v text, primary key (a, b)) without rowid; \
         insert into pairs values (1, 'x:y', 'one'), (2, 'z', null); \
         create table \"Odd Name\" (u uuid primary key, v int); \
         insert into \"Odd Name\" values ('123e4567-e89b-12d3-a456-426614174000', 5); \
         create table log (user_id text, value text, ts bigint, n integer primary key); \
         insert into log (user_id, value, ts) values ('a', 'old', 1), ('a', 'new', 3), ('a', 'newest', 3), ('a', 'mid', 2), ('b', 'only', 0)"
            .replace("select value, 'u' || value from generate_series(1, 1000)", "with recursive s(i) as (select 1 union all select i + 1 from s where i < 1000) select i, 'u' || i from s")
            .as_str(),
    );
    let text = |mut spec: MappingSpec, column: &str| {
        spec.format = Format::Text;
        spec.column = Some(column.into());
        spec
    };
    let mut log = text(MappingSpec::new("log", "log:{user_id}", "log", "text"), "value");
    log.order_by = Some("ts".into());
    let mut own = MappingSpec::new("own", "own:{id}", "users", "bigint");
    own.load = Some(
        "select id, upper(name) as shout from users where id in (select value from json_each($1)) -- loud"
            .into(),
    );
    let mut named = MappingSpec::new("page", "page:{from}:{limit}", "x", "bigint, int");
    (named.table, named.load) =
        (None, Some("select group_concat(id) as ids from (select id from users where id >= $from order by id limit $limit + 1)".into()));
    let source = file
        .source(vec![
            MappingSpec::new("user", "user:{id}", "users", "bigint"),
            text(MappingSpec::new("pair", "pair:{a}:{b}", "pairs", "int, varchar(10)"), "v"),
            MappingSpec::new("odd", "odd:{u}", "main.Odd Name", "uuid"),
            log,
            own,
            named,
        ])
        .await;
    let user = |n| Some(format!(r#"{{"id":{n},"name":"u{n}"}}"#));
    assert_eq!(
        load(&source, &["user:7", "user:0", "user:3", "user:7"]).await,
        [user(7), None, user(3), user(7)]
    );
    assert_eq!(
        load(&source, &["pair:1:x:y", "pair:2:z", "pair:1:z"]).await,
        [Some("one".into()), None, None]
    );
    let odd = "odd:123e4567-e89b-12d3-a456-426614174000";
    assert_eq!(
        load(&source, &[odd]).await,
        [Some(r#"{"u":"123e4567-e89b-12d3-a456-426614174000","v":5}"#.into())]
    );
    assert_eq!(
        load(&source, &["log:b", "log:a", "log:c", "log:'; drop table log; --"]).await,
        [Some("only".into()), Some("newest".into()), None, None]
    );
    assert_eq!(load(&source, &["own:2", "own:0"]).await, [Some(r#"{"id":2,"shout":"U2"}"#.into()), None]);
    assert_eq!(
        load(&source, &["page:5:2", "page:999:7"]).await,
        [Some(r#"{"ids":"5,6,7"}"#.into()), Some(r#"{"ids":"999,1000"}"#.into())]
    );
}

#[tokio::test]
async fn applies_partial_rows_deletions_and_appends_in_order() {
    let file = File::new(
        "create table u (id integer primary key, name text not null default '-', age int, note text default 'd'); \
         insert into u values (1, 'Ada', 36, 'keep'); \
         create table log (user_id text not null, value text, ts bigint not null, n integer primary key)",
    );
    let mut log = writable("log", "log:{user_id}", "log", "text");
    (log.mode, log.order_by) = (StoreMode::Append, Some("ts".into()));
    let source = file.source(vec![writable("u", "u:{id}", "u", "bigint"), log]).await;
    let changes = [
        put(&source, "u:1", r#"{"age":37}"#),
        put(&source, "u:2", r#"{"name":"Bob","age":1}"#),
        put(&source, "u:2", r#"{"age":2,"note":null}"#),
        put(&source, "u:3", r#"{"name":"gone"}"#),
        delete(&source, "u:3"),
        put(&source, "u:4", r#"{"name":"x","note":"lost"}"#),
        delete(&source, "u:4"),
        put(&source, "u:4", r#"{"name":"y"}"#),
        put(&source, "u:5", "{}"),
    ];
    apply(&source, &changes).await.unwrap();
    let all =
        "select group_concat(id || name || ifnull(age, '?') || ifnull(note, '?'), ' ' order by id) from u";
    assert_eq!(file.one(all), "1Ada37keep 2Bob2? 4y?d 5-?d");
    let mut appends: Vec<_> =
        (0..100).map(|n| put(&source, "log:a", &format!(r#"{{"value":"{n}","ts":1}}"#))).collect();
    appends.insert(50, delete(&source, "log:a"));
    apply(&source, &appends).await.unwrap();
    let want: Vec<String> = (50..100).map(|n: i32| n.to_string()).collect();
    assert_eq!(file.one("select group_concat(value, ',' order by n) from log"), want.join(","));
    // All of a batch, or none.
    file.connection().execute_batch("create unique index one_name on u (name)").unwrap();
    let batch = [put(&source, "u:7", r#"{"name":"new"}"#), put(&source, "u:8", r#"{"name":"Bob"}"#)];
    let error = apply(&source, &batch).await.unwrap_err();
    assert!(matches!(&error, SourceError::BadData { code, .. } if code == "23505"), "{error}");
    assert_eq!(file.one("select count(*) from u where id in (7, 8)"), "0");
}

#[tokio::test]
async fn a_source_that_does_not_fit_says_everything_at_once() {
    let file = File::new(
        "create table users (id integer primary key, name text); create table log (user_id text, value text, ts bigint)",
    );
    let own = |load: &str| {
        let mut spec = MappingSpec::new("x", "x:{id}", "users", "bigint");
        spec.load = Some(load.into());
        spec
    };
    let mut specs = vec![
        writable("gone", "gone:{id}", "usrs", "bigint"),
        writable("text", "text:{id}", "users", "text"),
        writable("many", "many:{user_id}", "log", "text"),
    ];
    let loads = [
        "selec",
        "delete from users where id = $id",
        "select 1 where $nobody",
        "select name from users where id in (select value from json_each($1))",
        "select id from users where id = ?",
    ];
    for (n, load) in loads.iter().enumerate() {
        let mut spec = own(load);
        (spec.name, spec.key) = (format!("own{n}"), format!("own{n}:{{id}}"));
        specs.push(spec);
    }
    let sqlite = file.sqlite(SqliteOptions::default()).await.unwrap();
    let error = Source::open(sqlite, MappingSet::new(specs).unwrap()).await.unwrap_err().to_string();
    for part in [
        "mapping \"gone\": table \"usrs\" does not exist (did you mean \"users\"?)",
        "mapping \"text\": the placeholder {id} is declared text, column \"users.id\" is INTEGER; set id = \"bigint\"",
        "mapping \"many\": mode = \"upsert\" needs a unique index on exactly (user_id)",
        "near \"selec\": syntax error",
        "mapping \"own1\": `load` must only read",
        "mapping \"own2\": `load` has the parameter $nobody; the key has the placeholders: id",
        "mapping \"own3\": `load` must return a column \"id\"; it returns: name",
        "mapping \"own4\": `load` has parameters other than $1..",
    ] {
        assert!(error.contains(part), "{part}\n--\n{error}");
    }
}

#[tokio::test]
async fn a_locked_file_is_waited_for_and_then_named() {
    let file =
        File::new("create table u (id integer primary key, name text); insert into u values (1, 'old')");
    let options = SqliteOptions { statement_timeout: Duration::from_millis(300), ..SqliteOptions::default() };
    let sqlite = file.sqlite(options).await.unwrap();
    let set = MappingSet::new(vec![writable("u", "u:{id}", "u", "bigint")]).unwrap();
    let source = Source::open(sqlite, set).await.unwrap();
    let holder = file.connection();
    holder.execute_batch("begin immediate; update u set name = 'theirs'").unwrap();
    let started = Instant::now();
    let error = apply(&source, &[put(&source, "u:1", r#"{"name":"ours"}"#)]).await.unwrap_err();
    assert!(error.is_retryable() && error.code() == Some("55P03"), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(250) && started.elapsed() < Duration::from_secs(3));
    // Readers go on meanwhile, and see what is committed.
    assert!(load(&source, &["u:1"]).await[0].as_ref().unwrap().contains("old"));
    holder.execute_batch("rollback").unwrap();
    apply(&source, &[put(&source, "u:1", r#"{"name":"ours"}"#)]).await.unwrap();
    assert_eq!(file.one("select name from u"), "ours");
}

#[tokio::test]
async fn a_slow_query_ends_in_time_and_when_nobody_waits() {
    let file = File::new("create table u (id integer primary key)");
    let mut spec = MappingSpec::new("slow", "slow:{id}", "u", "bigint");
    let forever = "with recursive s(i) as (select 1 union all select i + 1 from s) select max(i) as id from s where i > $id";
    spec.load = Some(forever.into());
    let options = SqliteOptions {
        statement_timeout: Duration::from_millis(200),
        read_connections: 1,
        ..SqliteOptions::default()
    };
    let sqlite = file.sqlite(options.clone()).await.unwrap();
    let source = Source::open(sqlite, MappingSet::new(vec![spec.clone()]).unwrap()).await.unwrap();
    let started = Instant::now();
    let error = try_load(&source, &["slow:1"]).await.unwrap_err();
    assert!(error.is_retryable() && error.code() == Some("57014"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
    // The one thread is free again as soon as the caller is gone.
    let options = SqliteOptions { statement_timeout: Duration::from_secs(60), ..options };
    let sqlite = file.sqlite(options).await.unwrap();
    let source = Source::open(sqlite, MappingSet::new(vec![spec]).unwrap()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), load(&source, &["slow:1"])).await.is_err());
    tokio::time::timeout(Duration::from_secs(5), source.ping()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_written_or_is_no_database_is_named() {
    let file = File::new("create table u (id integer primary key, name text); insert into u values (1, 'x')");
    let missing = Sqlite::open("sqlite:/nowhere/at/all.db", &SqliteOptions::default()).await.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/at/all.db"), "{missing}");
    let garbage = file.dir.path().join("garbage.db");
    std::fs::write(&garbage, "this is no database, it is a text of some length".repeat(100)).unwrap();
    let error =
        Sqlite::open(&format!("sqlite:{}", garbage.display()), &SqliteOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("not a database"), "{error}");
    // No room: the database may not grow.
    let source = file.source(vec![writable("u", "u:{id}", "u", "bigint")]).await;
    source.ping().await.unwrap();
    let pages = "pragma max_page_count = 2";
    let limited = Sqlite::open(&file.url(), &SqliteOptions::default()).await.unwrap();
    limited.run_script(pages).await.unwrap();
    let limited =
        Source::open(limited, MappingSet::new(vec![writable("u", "u:{id}", "u", "bigint")]).unwrap())
            .await
            .unwrap();
    let big = format!(r#"{{"name":"{}"}}"#, "x".repeat(100_000));
    let error = apply(&limited, &[put(&limited, "u:2", &big)]).await.unwrap_err();
    assert!(error.is_retryable() && error.code() == Some("53100"), "{error}");
    assert_eq!(file.one("select count(*) from u"), "1");
    // The file is broken while it is used: an error, then it heals with the file.
    assert!(load(&source, &["u:1"]).await[0].is_some());
}

#[tokio::test]
async fn the_lanes_are_bounded_and_apart() {
    let file = File::new("create table u (id integer primary key)");
    let mut slow = MappingSpec::new("slow", "slow:{id}", "u", "bigint");
    slow.load = Some("with recursive s(i) as (select 1 union all select i + 1 from s) select max(i) as id from s where i > $id".into());
    let options = SqliteOptions {
        read_connections: 1,
        statement_timeout: Duration::from_secs(30),
        wait_timeout: Duration::from_millis(200),
        ..SqliteOptions::default()
    };
    let sqlite = file.sqlite(options).await.unwrap();
    let specs = vec![slow, writable("u", "u:{id}", "u", "bigint")];
    let source = std::sync::Arc::new(Source::open(sqlite, MappingSet::new(specs).unwrap()).await.unwrap());
    let busy = source.clone();
    let stuck = tokio::spawn(async move { try_load(&busy, &["slow:1"]).await });
    crate::pg::until("the reader is busy", async || source.pools()[0].in_use == 1).await;
    // Loads wait and give up; writes and statements do not notice.
    let error = try_load(&source, &["u:1"]).await.unwrap_err();
    assert!(error.to_string().contains("all connections of the pool are busy"), "{error}");
    apply(&source, &[put(&source, "u:1", "{}")]).await.unwrap();
    let statement = dsproxy::source::Statement::parse("select count(*) as n from u").unwrap();
    assert_eq!(source.statement(&statement, &[]).await.unwrap().rows, [r#"{"n":1}"#]);
    let loads = source.pools()[0];
    assert!(
        loads.name == "load" && loads.waited >= Duration::from_millis(200) && loads.served >= 2,
        "{loads:?}"
    );
    stuck.abort();
    crate::pg::until("the reader is free", async || source.pools()[0].in_use == 0).await;
    source.close();
    assert!(source.ping().await.is_err());
}

fn migrations(dir: &Path, files: &[(&str, &str)]) -> Migrations {
    for (name, sql) in files {
        std::fs::write(dir.join(name), sql).unwrap();
    }
    Migrations::read(dir).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_go_up_and_down_and_stop_at_mistakes() {
    let file = File::new("select 1");
    let dir = tempfile::tempdir().unwrap();
    let open = async |files: &[(&str, &str)]| {
        Migrator::open(&file.url(), migrations(dir.path(), files)).await.unwrap()
    };
    let mut migrator = open(&[
        ("0001_users.up.sql", "create table users (id int);"),
        ("0001_users.down.sql", "drop table users;"),
        ("0002_vacuum.up.sql", "-- dsproxy: no transaction\nvacuum;"),
        ("0002_vacuum.down.sql", "-- dsproxy: no transaction\nvacuum;"),
    ])
    .await;
    assert_eq!(migrator.up().await.unwrap(), [1, 2]);
    assert_eq!(migrator.up().await.unwrap(), [] as [i64; 0]);
    assert_eq!(migrator.down(1).await.unwrap(), [2]);
    assert_eq!(migrator.goto(0).await.unwrap(), [1]);
    assert_eq!(migrator.goto(2).await.unwrap(), [1, 2]);
    drop(migrator);
    let mut migrator = open(&[
        ("0003_bad.up.sql", "create table half (id int);\ncreate tabel x;"),
        ("0003_bad.down.sql", "select 1;"),
    ])
    .await;
    let error = migrator.up().await.unwrap_err().to_string();
    assert!(
        error.contains("0003_bad.up.sql") && error.contains("line 2") && error.contains("nothing of it"),
        "{error}"
    );
    assert_eq!(file.one("select count(*) from sqlite_schema where name = 'half'"), "0");
    drop(migrator);
    let mut migrator =
        open(&[("0003_bad.up.sql", "-- dsproxy: no transaction\nbegin; create tabel x;")]).await;
    assert!(migrator.up().await.unwrap_err().to_string().contains("migrate force"));
    assert!(migrator.up().await.unwrap_err().to_string().contains("dirty"));
    assert!(migrator.status().await.unwrap()[2].dirty);
    migrator.force(2).await.unwrap();
    assert_eq!(migrator.status().await.unwrap().iter().filter(|s| s.applied_at.is_some()).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_that_start_at_once_migrate_once() {
    let file = File::new("select 1");
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<(String, String)> = (1..=5)
        .flat_map(|n| {
            [
                (format!("000{n}_t.up.sql"), format!("create table t{n} (id int);")),
                (format!("000{n}_t.down.sql"), format!("drop table t{n};")),
            ]
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    migrations(dir.path(), &files);
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let (url, dir) = (file.url(), dir.path().to_owned());
            tokio::spawn(async move {
                Migrator::open(&url, Migrations::read(&dir).unwrap()).await.unwrap().up().await.unwrap().len()
            })
        })
        .collect();
    let mut done = 0;
    for start in starts {
        done += start.await.unwrap();
    }
    assert_eq!(done, 5);
}

#[tokio::test]
async fn a_database_is_known_by_its_url() {
    let file = File::new("create table u (id integer primary key)");
    let options = dsproxy::source::DatabaseOptions {
        max_connections: 4,
        statement_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        wait_timeout: Duration::from_secs(1),
        max_value_bytes: 1024,
        replicas: Vec::new(),
        replica_wait: Duration::from_millis(50),
        max_idle_time: Duration::ZERO,
        max_lifetime: Duration::ZERO,
    };
    let database = Database::connect(&file.url(), &options).await.unwrap();
    assert!(matches!(database, Database::Sqlite(_)));
    database.run_script("insert into u values (1); insert into u values (2)").await.unwrap();
    assert_eq!(file.one("select count(*) from u"), "2");
}

#[tokio::test]
async fn a_table_that_goes_and_comes_back_is_named_and_heals() {
    let file =
        File::new("create table u (id integer primary key, name text); insert into u values (1, 'Ada')");
    let source = file.source(vec![writable("u", "u:{id}", "u", "bigint")]).await;
    assert!(load(&source, &["u:1"]).await[0].is_some());
    file.connection().execute_batch("alter table u rename to gone").unwrap();
    let error = try_load(&source, &["u:1"]).await.unwrap_err();
    assert!(matches!(&error, SourceError::Schema { code, .. } if code == "42P01"), "{error}");
    assert!(error.to_string().contains("mapping \"u\": table \"u\" does not exist"), "{error}");
    let change = put(&source, "u:2", r#"{"name":"Bob"}"#);
    let changes = [change];
    assert!(apply(&source, &changes).await.unwrap_err().to_string().contains("does not exist"));
    file.connection().execute_batch("alter table gone rename to u").unwrap();
    apply(&source, &changes).await.unwrap();
    assert!(load(&source, &["u:2"]).await[0].as_ref().unwrap().contains("Bob"));
    // The file itself goes: connections that are open go on, new ones say so, and no empty file is made in its place.
    std::fs::remove_file(file.path()).unwrap();
    for _ in 0..20 {
        match try_load(&source, &["u:2"]).await {
            Ok(rows) => assert!(rows[0].is_some()),
            // After some of these the circuit is open.
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("unable to open") || text.contains("circuit open"), "{text}");
            }
        }
    }
    assert!(!file.path().exists());
}
