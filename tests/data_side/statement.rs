//! Statements of routes, on both databases.

use std::time::Duration;

use dsproxy::mapping::{MappingSet, MappingSpec};
use dsproxy::source::{
    Param, Postgres, PostgresOptions, Rows, Source, SourceError, Sqlite, SqliteOptions, Statement,
};
use serde_json::value::RawValue;

use crate::pg::Pg;
use crate::sqlite::File;

fn parse(sql: &str) -> Statement {
    Statement::parse(sql).unwrap()
}

fn texts(rows: &Rows) -> Vec<&str> {
    rows.rows.iter().map(|row| std::str::from_utf8(row).unwrap()).collect()
}

async fn crud(source: &Source, now: &str) {
    let create = parse(&format!(
        "insert into p (name, price, at) values ($name, $price, {now}) returning id, name, price;"
    ));
    let name: Box<RawValue> = serde_json::from_str(r#""O'Brien\"; drop table p; --""#).unwrap();
    let price: Box<RawValue> = serde_json::from_str("12.5").unwrap();
    let rows = source.statement(&create, &[Param::Json(&name), Param::Json(&price)]).await.unwrap();
    assert_eq!(rows.columns, ["id", "name", "price"]);
    assert_eq!(
        (texts(&rows), rows.affected),
        (vec![r#"{"id":1,"name":"O'Brien\"; drop table p; --","price":12.5}"#], 1)
    );
    for n in 2..=5 {
        let name = format!("p{n}");
        source.statement(&create, &[Param::Text(&name), Param::Text("3")]).await.unwrap();
    }
    let page =
        parse("select id from p where id >= $from order by id limit $limit + 1 offset $offset -- page");
    let rows = source.statement(&page, &[Param::Text("2"), Param::Int(1), Param::Text("1")]).await.unwrap();
    assert_eq!(texts(&rows), [r#"{"id":3}"#, r#"{"id":4}"#]);
    let update = parse("update p set name = $name where id = $id");
    let rows = source.statement(&update, &[Param::Null, Param::Int(2)]).await.unwrap();
    assert_eq!((rows.affected, rows.columns.len(), rows.rows.len()), (1, 0, 0));
    let rows = source
        .statement(&parse("delete from p where id = $1 returning name"), &[Param::Text("2")])
        .await
        .unwrap();
    assert_eq!(texts(&rows), [r#"{"name":null}"#]);
    let rows = source.statement(&parse("delete from p where id = $1"), &[Param::Text("2")]).await.unwrap();
    assert_eq!(rows.affected, 0);
    let twice = source.statement(&parse("select 1 as a, 2 as a"), &[]).await.unwrap_err();
    assert!(matches!(twice, SourceError::Schema { .. }), "{twice}");
    assert!(
        source.statement(&page, &[]).await.unwrap_err().to_string().contains("0 parameters given, 3 wanted")
    );
    let broken = source.statement(&parse("selec"), &[]).await.unwrap_err();
    assert!(matches!(broken, SourceError::Schema { .. }), "{broken}");
    let conflict =
        source.statement(&parse("insert into p (id, name) values (1, 'x')"), &[]).await.unwrap_err();
    assert!(matches!(&conflict, SourceError::BadData { code, .. } if code == "23505"), "{conflict}");
}

#[tokio::test]
async fn statements_insert_update_delete_and_select_in_postgres() {
    let pg = Pg::start();
    pg.execute("create table p (id bigserial primary key, name text, price numeric, at timestamptz)").await;
    let source = pg.source(vec![]).await;
    crud(&source, "now()").await;
    // A parameter is read in the type that Postgres expects; one that does not fit is the client's fault, and not quoted.
    let error = source
        .statement(&parse("select id from p where id = $id"), &[Param::Text("secret")])
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::BadData { .. }) && !error.to_string().contains("secret"), "{error}");
    // Arrays, JSON and big numbers arrive exactly.
    let json: Box<RawValue> = serde_json::from_str(r#"[1,"a\"b",null]"#).unwrap();
    let big: Box<RawValue> = serde_json::from_str("12345678901234567890.12345678901234567890").unwrap();
    let sql = parse("select $a::text[] as a, $j::jsonb as j, $n::numeric as n");
    let rows =
        source.statement(&sql, &[Param::Json(&json), Param::Json(&json), Param::Json(&big)]).await.unwrap();
    assert_eq!(
        texts(&rows),
        [r#"{"a":["1","a\"b",null],"j":[1, "a\"b", null],"n":12345678901234567890.12345678901234567890}"#]
    );
}

#[tokio::test]
async fn statements_insert_update_delete_and_select_in_sqlite() {
    let file =
        File::new("create table p (id integer primary key, name text, price real, at datetime, ok boolean)");
    let source = file.source(vec![]).await;
    crud(&source, "datetime('now')").await;
    let insert = parse("insert into p (ok) values ($ok) returning ok");
    let rows = source.statement(&insert, &[Param::Bool(true)]).await.unwrap();
    assert_eq!(texts(&rows).len(), 1);
    assert_eq!(
        texts(&source.statement(&parse("select ok from p where ok"), &[]).await.unwrap()),
        [r#"{"ok":true}"#]
    );
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_an_error_and_writes_nothing_in_sqlite() {
    let pg = Pg::start();
    let options = PostgresOptions { max_value_bytes: 1000, ..PostgresOptions::default() };
    let postgres = Postgres::connect(pg.url(), &options).await.unwrap();
    let source = Source::open(postgres, MappingSet::new(vec![]).unwrap()).await.unwrap();
    let error =
        source.statement(&parse("select i from generate_series(1, 10000000) i"), &[]).await.unwrap_err();
    assert!(matches!(error, SourceError::TooLarge(_)), "{error}");
    // The connection is good for the next one.
    assert_eq!(texts(&source.statement(&parse("select 1 as a"), &[]).await.unwrap()), [r#"{"a":1}"#]);
    let file = File::new("create table t (id integer primary key, s text)");
    let options = SqliteOptions { max_value_bytes: 1000, ..SqliteOptions::default() };
    let sqlite = Sqlite::open(&file.url(), &options).await.unwrap();
    let source = Source::open(sqlite, MappingSet::new(vec![]).unwrap()).await.unwrap();
    let long = "x".repeat(2000);
    let insert = parse("insert into t (s) values ($s) returning s");
    let error = source.statement(&insert, &[Param::Text(&long)]).await.unwrap_err();
    assert!(matches!(error, SourceError::TooLarge(_)), "{error}");
    assert_eq!(file.one("select count(*) from t"), "0");
}

#[tokio::test]
async fn slow_statements_do_not_starve_loads_and_flushes() {
    let pg = Pg::start();
    pg.execute("create table u (id bigint primary key)").await;
    let options = PostgresOptions {
        statement_connections: 1,
        wait_timeout: Duration::from_millis(300),
        ..PostgresOptions::default()
    };
    let postgres = Postgres::connect(pg.url(), &options).await.unwrap();
    let set = MappingSet::new(vec![MappingSpec::new("u", "u:{id}", "u", "bigint")]).unwrap();
    let source = std::sync::Arc::new(Source::open(postgres, set).await.unwrap());
    let busy = source.clone();
    let stuck =
        tokio::spawn(async move { busy.statement(&parse("select pg_sleep(60)::text as s"), &[]).await });
    let state = || source.pools().into_iter().find(|pool| pool.name == "statement").unwrap();
    crate::pg::until("the connection is busy", async || state().in_use == 1).await;
    let error = source.statement(&parse("select 1 as a"), &[]).await.unwrap_err();
    assert!(error.to_string().contains("all connections of the pool are busy"), "{error}");
    assert!(state().waited >= Duration::from_millis(300));
    let (id, key) = source.mappings().find(b"u:1").unwrap();
    assert_eq!(source.load(id, &[key], dsproxy::source::LoadFrom::Primary).await.unwrap(), [Ok(None)]);
    stuck.abort();
    crate::pg::until("the statement is cancelled", async || {
        pg.one("select count(*) from pg_stat_activity where datname = current_database() and state = 'active' and query like '%pg_sleep(60)%' and pid <> pg_backend_pid()").await == "0"
    })
    .await;
}
