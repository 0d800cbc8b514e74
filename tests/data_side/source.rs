//! Describing, loading, applying, migrating.

use std::time::{Duration, Instant};

use dsproxy::mapping::{Format, MappingSet, MappingSpec, Row, StoreMode, WriteMode};
use dsproxy::source::migrate::{MigrateError, Migrations, Migrator};
use dsproxy::source::{Change, LoadFrom, Postgres, PostgresOptions, Source, SourceError};

use crate::pg::Pg;

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

async fn load(source: &Source, keys: &[&str]) -> Vec<Option<String>> {
    let found: Vec<_> = keys.iter().map(|k| source.mappings().find(k.as_bytes()).unwrap()).collect();
    let matches: Vec<_> = found.iter().map(|(_, m)| *m).collect();
    let rows = source.load(found[0].0, &matches, LoadFrom::Primary).await.unwrap();
    rows.into_iter().map(|r| r.unwrap().map(|r| String::from_utf8(r.value.to_vec()).unwrap())).collect()
}

#[tokio::test]
async fn every_type_comes_back_exactly() {
    let pg = Pg::start();
    pg.execute(
        "create type mood as enum ('sad', 'ok'); create domain short as varchar(3); \
         create table t (id bigint primary key, b bigint, n numeric(40,20), r double precision, f bool, s text, \
         v varchar(20), sh short, u uuid, y bytea, d date, ts timestamptz, tl timestamp, j json, jb jsonb, ia int[], ta text[][], \
         m mood, c char(4), iv interval, g bigint generated always as (b + 1) stored)",
    )
    .await;
    let source = pg.source(vec![writable("t", "t:{id}", "t", "bigint")]).await;
    let body = r#"{"id":1,"b":9007199254740993,"n":12345678901234567890.12345678901234567890,"r":0.1,"f":true,"s":"ä\"\\😀\n","v":"x","sh":"abc","u":"123e4567-e89b-12d3-a456-426614174000","y":"\\x00ff","d":"2024-02-29","ts":"2024-02-29T12:00:00.123456+00:00","tl":"2024-02-29T12:00:00","j":{"z": [1, null]},"jb":{"a": 1e2},"ia":[1,null,3],"ta":[["a","b"],["c\"","d\\"]],"m":"ok","c":"ab  ","iv":"P1DT2H"}"#;
    apply(&source, &[put(&source, "t:1", body)]).await.unwrap();
    let expected = body.replace("1e2", "100").replace("\"P1DT2H\"}", "\"P1DT2H\",\"g\":9007199254740994}");
    assert_eq!(load(&source, &["t:1"]).await, [Some(expected)]);
    apply(&source, &[put(&source, "t:2", r#"{"b":-9223372036854775807,"r":"NaN"}"#)]).await.unwrap();
    let null = load(&source, &["t:2"]).await.remove(0).unwrap();
    assert!(null.contains(r#""b":-9223372036854775807,"n":null,"r":"NaN","f":null"#), "{null}");
    // Too long for the column is an error, not a silent cut: sneak past the check at write time to show it.
    let source = pg.source(vec![writable("t", "t:{id}", "t", "bigint")]).await;
    let (id, change) = put(&source, "t:3", r#"{"v":"x"}"#);
    let Change::Put(mut row) = change else { panic!() };
    row.columns[0].1 = Some("x".repeat(21).into());
    let error = apply(&source, &[(id, Change::Put(row))]).await.unwrap_err();
    assert!(matches!(&error, SourceError::BadData { code, .. } if code == "22001"), "{error}");
}

#[tokio::test]
async fn loads_by_position_for_every_shape_of_id() {
    let pg = Pg::start();
    pg.execute(
        "create table users (id bigint primary key, name text); insert into users select i, 'u' || i from generate_series(1, 1000) i; \
         create table pairs (a int, b varchar(10), v text, primary key (a, b)); insert into pairs values (1, 'x:y', 'one'), (2, 'z', null); \
         create table \"Odd Name\" (u uuid primary key, v int); \
         insert into \"Odd Name\" values ('123e4567-e89b-12d3-a456-426614174000', 5); \
         create table log (user_id text, value text, ts bigint, n serial primary key); \
         insert into log (user_id, value, ts) values ('a', 'old', 1), ('a', 'new', 3), ('a', 'newest', 3), ('a', 'mid', 2), ('b', 'only', 0)",
    )
    .await;
    let text = |mut spec: MappingSpec, column: &str| {
        spec.format = Format::Text;
        spec.column = Some(column.into());
        spec
    };
    let mut log = text(MappingSpec::new("log", "log:{user_id}", "log", "text"), "value");
    log.order_by = Some("ts".into());
    let mut own = MappingSpec::new("own", "own:{id}", "users", "bigint");
    own.load = Some("select id, upper(name) as shout from users where id = any($1) -- loud".into());
    let mut own_uuid = MappingSpec::new("ownu", "ownu:{u}", "x", "uuid");
    (own_uuid.table, own_uuid.load) =
        (None, Some("select u, v from \"Odd Name\" where u = any($1) ;\n".into()));
    // Named parameters: the statement runs per key, inside of one.
    let mut page = MappingSpec::new("page", "page:{from}:{limit}", "x", "bigint, int");
    let sql = "select json_agg(id) as ids from (select id from users where id >= $from order by id limit $limit + 1) x -- '$no'";
    (page.table, page.load) = (None, Some(sql.into()));
    let source = pg
        .source(vec![
            page,
            MappingSpec::new("user", "user:{id}", "users", "bigint"),
            text(MappingSpec::new("pair", "pair:{a}:{b}", "pairs", "int, varchar(10)"), "v"),
            MappingSpec::new("odd", "odd:{u}", "public.Odd Name", "uuid"),
            log,
            own,
            own_uuid,
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
    assert_eq!(load(&source, &[&odd.replace("odd", "ownu")]).await[0].as_deref().map(|v| v.len()), Some(50));
    assert_eq!(
        load(&source, &["log:b", "log:a", "log:c"]).await,
        [Some("only".into()), Some("newest".into()), None]
    );
    assert_eq!(load(&source, &["own:2", "own:0"]).await, [Some(r#"{"id":2,"shout":"U2"}"#.into()), None]);
    assert_eq!(
        load(&source, &["page:5:2", "page:999:7", "page:5:2"]).await,
        [r#"{"ids":[5, 6, 7]}"#, r#"{"ids":[999, 1000]}"#, r#"{"ids":[5, 6, 7]}"#]
            .map(|s| Some(s.to_owned()))
    );
    // SQL in a key stays text.
    assert_eq!(load(&source, &["log:'; drop table log; --"]).await, [None]);
}

#[tokio::test]
async fn applies_partial_rows_deletions_and_appends_in_order() {
    let pg = Pg::start();
    pg.execute(
        "create table u (id bigint primary key, name text not null default '-', age int, note text default 'd'); \
         insert into u values (1, 'Ada', 36, 'keep'); \
         create table log (user_id text not null, value text, ts timestamptz not null default now(), n bigserial primary key)",
    )
    .await;
    let mut log = writable("log", "log:{user_id}", "log", "text");
    (log.mode, log.order_by) = (StoreMode::Append, Some("ts".into()));
    let source = pg.source(vec![writable("u", "u:{id}", "u", "bigint"), log]).await;
    apply(
        &source,
        &[
            put(&source, "u:1", r#"{"age":37}"#),
            put(&source, "u:2", r#"{"name":"Bob","age":1}"#),
            put(&source, "u:2", r#"{"age":2,"note":null}"#),
            put(&source, "u:3", r#"{"name":"gone"}"#),
            delete(&source, "u:3"),
            put(&source, "u:4", r#"{"name":"x","note":"lost"}"#),
            delete(&source, "u:4"),
            put(&source, "u:4", r#"{"name":"y"}"#),
            put(&source, "u:5", "{}"),
        ],
    )
    .await
    .unwrap();
    let all = "select json_agg(u order by id)::text from u";
    let rows = pg.one(all).await.replace("\n ", "");
    assert_eq!(
        rows,
        r#"[{"id":1,"name":"Ada","age":37,"note":"keep"}, {"id":2,"name":"Bob","age":2,"note":null}, {"id":4,"name":"y","age":null,"note":"d"}, {"id":5,"name":"-","age":null,"note":"d"}]"#
    );
    // Putting an empty object on an existing row changes nothing.
    apply(&source, &[put(&source, "u:1", "{}")]).await.unwrap();
    assert_eq!(pg.one(all).await.replace("\n ", ""), rows);
    let mut appends = Vec::new();
    for n in 0..100 {
        appends.push(put(&source, "log:a", &format!(r#"{{"value":"{n}","ts":"2024-01-01T00:00:00Z"}}"#)));
    }
    appends.insert(50, delete(&source, "log:a"));
    appends.push(put(&source, "log:a", r#"{"value":"last"}"#));
    apply(&source, &appends).await.unwrap();
    let want: Vec<String> = (50..100).map(|n: i32| n.to_string()).chain(["last".into()]).collect();
    assert_eq!(pg.one("select string_agg(value, ',' order by n) from log").await, want.join(","));
    assert!(load(&source, &["log:a"]).await[0].as_ref().unwrap().contains("\"last\""));
}

#[tokio::test]
async fn errors_say_whose_fault_it_is() {
    let pg = Pg::start();
    pg.execute("create table u (id bigint primary key, age int check (age > 0), email text unique); insert into u values (1, 1, 'e')").await;
    let source = pg.source(vec![writable("u", "u:{id}", "u", "bigint")]).await;
    let error = apply(&source, &[put(&source, "u:2", r#"{"age":-7}"#)]).await.unwrap_err();
    assert!(
        matches!(&error, SourceError::BadData { code, constraint: Some(_), .. } if code == "23514"),
        "{error}"
    );
    let error = apply(&source, &[put(&source, "u:2", r#"{"email":"e"}"#)]).await.unwrap_err();
    assert!(!error.is_retryable() && !error.to_string().contains("(email)"), "{error}");
    pg.execute("drop table u").await;
    let error = apply(&source, &[put(&source, "u:2", "{}")]).await.unwrap_err();
    assert!(matches!(&error, SourceError::Schema { code, .. } if code == "42P01"), "{error}");
    let refused = Postgres::connect("postgres://u:sesame@127.0.0.1:1/x", &PostgresOptions::default())
        .await
        .unwrap_err();
    assert!(refused.is_retryable() && refused.to_string().contains("refused"), "{refused}");
    assert!(!format!("{refused} {refused:?}").contains("sesame"));
    let nonsense =
        Postgres::connect("postgres://u:sesame@:x:y", &PostgresOptions::default()).await.unwrap_err();
    assert!(!format!("{nonsense} {nonsense:?}").contains("sesame"), "{nonsense}");
}

#[tokio::test]
async fn a_slow_statement_ends_in_time_and_at_the_server() {
    let pg = Pg::start();
    pg.execute("create table u (id bigint primary key)").await;
    let mut spec = MappingSpec::new("slow", "slow:{id}", "u", "bigint");
    spec.load = Some("select unnest($1::bigint[]) as id, pg_sleep(60)::text as s".into());
    let options =
        PostgresOptions { statement_timeout: Duration::from_millis(200), ..PostgresOptions::default() };
    let postgres = Postgres::connect(pg.url(), &options).await.unwrap();
    let source = Source::open(postgres, MappingSet::new(vec![spec.clone()]).unwrap()).await.unwrap();
    let (id, found) = source.mappings().find(b"slow:1").unwrap();
    let started = Instant::now();
    let error = source.load(id, &[found], LoadFrom::Primary).await.unwrap_err();
    assert!(
        error.is_retryable() && error.code() == Some("57014") && started.elapsed() < Duration::from_secs(2),
        "{error}"
    );
    // Dropped by the caller: the server stops too.
    let source = pg.source(vec![spec]).await;
    let (id, found) = source.mappings().find(b"slow:1").unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(300), source.load(id, &[found], LoadFrom::Primary))
            .await
            .is_err()
    );
    crate::pg::until("the statement is cancelled", async || {
        pg.one("select count(*) from pg_stat_activity where datname = current_database() and state = 'active' and query like '%pg_sleep(60)%' and pid <> pg_backend_pid()").await == "0"
    })
    .await;
}

#[tokio::test]
async fn a_source_that_does_not_fit_says_everything_at_once() {
    let pg = Pg::start();
    pg.execute("create table users (id int primary key, name text); create table log (user_id text, value text, ts bigint)").await;
    let mut own = MappingSpec::new("own", "own:{id}", "users", "int");
    own.load = Some("select name from users where id = $1".into());
    let mut broken = MappingSpec::new("broken", "broken:{id}", "users", "int");
    broken.load = Some("selec".into());
    let specs = vec![
        writable("gone", "gone:{id}", "usrs", "bigint"),
        writable("wide", "wide:{id}", "users", "bigint"),
        writable("many", "many:{user_id}", "log", "text"),
        own,
        broken,
    ];
    let postgres = Postgres::connect(pg.url(), &PostgresOptions::default()).await.unwrap();
    let error = Source::open(postgres, MappingSet::new(specs).unwrap()).await.unwrap_err().to_string();
    for part in [
        "mapping \"gone\": table \"usrs\" does not exist (did you mean \"users\"?)",
        "mapping \"wide\": the placeholder {id} is declared bigint, column \"users.id\" is integer; set id = \"int\"",
        "mapping \"many\": mode = \"upsert\" needs a unique index on exactly (user_id)",
        "mapping \"own\": parameter $1 of `load` is no array of type int4",
        "mapping \"own\": `load` must return a column \"id\"",
        "mapping \"broken\": `load` is not understood: ",
    ] {
        assert!(error.contains(part), "{part}\n--\n{error}");
    }
}

#[tokio::test]
async fn migrations_go_up_and_down_and_stop_at_mistakes() {
    let pg = Pg::start();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, sql: &str| std::fs::write(directory.path().join(name), sql).unwrap();
    let open = async || Migrator::open(pg.url(), Migrations::read(directory.path())?).await;
    write("0001_users.up.sql", "create table users (id int);");
    write("0001_users.down.sql", "drop table users;");
    write("0002_index.up.sql", "-- dsproxy: no transaction\ncreate index concurrently i on users (id);");
    write("0002_index.down.sql", "drop index i;");
    assert_eq!(open().await.unwrap().up().await.unwrap(), [1, 2]);
    assert_eq!(open().await.unwrap().up().await.unwrap(), [] as [i64; 0]);
    assert_eq!(open().await.unwrap().down(1).await.unwrap(), [2]);
    assert_eq!(open().await.unwrap().goto(2).await.unwrap(), [2]);
    write("0004_bad.up.sql", "create table half (id int);\ncreate tabel x;");
    write("0004_bad.down.sql", "select 1;");
    let mut migrator = open().await.unwrap();
    let error = migrator.up().await.unwrap_err().to_string();
    assert!(
        error.starts_with("0004_bad.up.sql: syntax error")
            && error.contains("at line 2")
            && error.contains("nothing of it"),
        "{error}"
    );
    let status = migrator.status().await.unwrap();
    assert_eq!(status.iter().map(|s| s.applied_at.is_some()).collect::<Vec<_>>(), [true, true, false]);
    drop(migrator);
    assert!(Migrations::read(directory.path()).unwrap().warnings()[0].contains("between versions 2 and 4"));
    write("0004_bad.up.sql", "-- dsproxy: no transaction\ncreate tabel x;");
    let mut migrator = open().await.unwrap();
    assert!(matches!(migrator.up().await.unwrap_err(), MigrateError::Failed { dirty: true, .. }));
    assert!(matches!(migrator.up().await.unwrap_err(), MigrateError::Dirty(4)));
    migrator.force(2).await.unwrap();
    drop(migrator);
    std::fs::remove_file(directory.path().join("0004_bad.down.sql")).unwrap();
    write("0002_twice.up.sql", "");
    write("nonsense.sql", "");
    let error = Migrations::read(directory.path()).unwrap_err().to_string();
    assert!(
        error.contains("no .down.sql")
            && error.contains("given twice: index, twice")
            && error.contains("nonsense.sql"),
        "{error}"
    );
}
