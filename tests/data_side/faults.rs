//! Postgres behind a wire that freezes, breaks and lies; tables that change under a running source.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dsproxy::mapping::{MappingSet, MappingSpec, Row, WriteMode};
use dsproxy::source::{
    BreakerOptions, BreakerState, Change, LoadFrom, Postgres, PostgresOptions, Source, SourceError,
};

use crate::cut::Wire;
use crate::pg::{Pg, until};

async fn wired(pg: &Pg, options: PostgresOptions) -> (Wire, Source) {
    let (_, rest) = pg.url().split_once("://").unwrap();
    let authority = rest.split('/').next().unwrap();
    let wire = Wire::to(authority.rsplit('@').next().unwrap().to_owned()).await;
    let postgres = Postgres::connect(&wire.url(pg.url()), &options).await.unwrap();
    let spec = MappingSpec { write: WriteMode::Behind, ..MappingSpec::new("u", "u:{id}", "u", "bigint") };
    let source = Source::open(postgres, MappingSet::new(vec![spec]).unwrap()).await.unwrap();
    (wire, source)
}

fn quick() -> PostgresOptions {
    PostgresOptions {
        statement_timeout: Duration::from_millis(200),
        connect_timeout: Duration::from_millis(300),
        wait_timeout: Duration::from_millis(300),
        ..PostgresOptions::default()
    }
}

async fn load(source: &Source, id: u32) -> Result<Option<String>, SourceError> {
    let key = format!("u:{id}");
    let (mapping, found) = source.mappings().find(key.as_bytes()).unwrap();
    let mut rows = source.load(mapping, &[found], LoadFrom::Primary).await?;
    Ok(rows.remove(0)?.map(|row| String::from_utf8(row.value.to_vec()).unwrap()))
}

fn put(source: &Source, key: &str, body: &str) -> Change {
    let (id, found) = source.mappings().find(key.as_bytes()).unwrap();
    Change::Put(Row::parse(source.bound(id).unwrap(), found.ids(), body.as_bytes()).unwrap())
}

const TABLE: &str = "create table u (id bigint primary key, name text); insert into u values (1, 'Ada')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_database_opens_the_circuit_and_an_answer_closes_it() {
    let pg = Pg::start();
    pg.execute(TABLE).await;
    let (wire, source) = wired(&pg, quick()).await;
    let breaker = BreakerOptions {
        failures: 3,
        probe_min: Duration::from_millis(100),
        probe_max: Duration::from_millis(200),
    };
    let source = source.with_breaker(breaker);
    assert!(load(&source, 1).await.unwrap().unwrap().contains("Ada"));
    wire.freeze();
    let mut slow = 0;
    while source.breaker().0 == BreakerState::Closed {
        assert!(load(&source, 1).await.unwrap_err().is_retryable());
        slow += 1;
        assert!(slow <= 3, "three failures open it");
    }
    let started = Instant::now();
    let error = load(&source, 1).await.unwrap_err().to_string();
    assert!(error.contains("circuit open, next probe in "), "{error}");
    assert!(started.elapsed() < Duration::from_millis(50), "{:?}", started.elapsed());
    // A flush is tried all the same, with waits of its own above.
    let change = put(&source, "u:2", r#"{"name":"Bob"}"#);
    let error = source.apply(0, &[&change]).await.unwrap_err();
    assert!(error.is_retryable() && !error.to_string().contains("circuit"), "{error}");
    wire.pass();
    until("a probe closes it", async || load(&source, 1).await.is_ok()).await;
    assert_eq!(source.breaker().0, BreakerState::Closed);
    source.apply(0, &[&change]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_in_the_middle_fail_only_what_they_carried() {
    let pg = Pg::start();
    pg.execute(TABLE).await;
    let (wire, source) = wired(&pg, PostgresOptions::default()).await;
    let source = Arc::new(source.with_breaker(BreakerOptions { failures: 0, ..BreakerOptions::default() }));
    let (stop, mut readers) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), Vec::new());
    for reader in 0..8_u32 {
        let (source, stop) = (source.clone(), stop.clone());
        readers.push(tokio::spawn(async move {
            let (mut good, mut failed) = (0_u32, 0_u32);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                match load(&source, reader % 2 + 1).await {
                    // Never the answer of another's question: row 1 is there, row 2 is not.
                    Ok(row) => {
                        assert_eq!(row.is_some(), reader % 2 == 0);
                        good += 1;
                    }
                    Err(error) => {
                        assert!(error.is_retryable(), "{error}");
                        failed += 1;
                    }
                }
            }
            (good, failed)
        }));
    }
    for round in 0..30 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if round % 3 == 2 {
            wire.garble();
            tokio::time::sleep(Duration::from_millis(5)).await;
            wire.cut();
            wire.pass();
        } else {
            wire.cut();
        }
    }
    until("it works again", async || load(&source, 1).await.is_ok()).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut good, mut failed) = (0, 0);
    for reader in readers {
        let (g, f) = reader.await.unwrap();
        (good, failed) = (good + g, failed + f);
    }
    assert!(good > 0 && failed > 0, "{good} good, {failed} failed");
}

#[tokio::test]
async fn a_table_that_goes_and_comes_back_is_named_and_heals() {
    let pg = Pg::start();
    pg.execute(TABLE).await;
    let (_wire, source) = wired(&pg, PostgresOptions::default()).await;
    assert!(load(&source, 1).await.unwrap().is_some());
    pg.execute("alter table u rename to gone").await;
    let error = load(&source, 1).await.unwrap_err();
    assert!(matches!(&error, SourceError::Schema { code, .. } if code == "42P01"), "{error}");
    assert!(error.to_string().contains("mapping \"u\": table \"u\" does not exist"), "{error}");
    let change = put(&source, "u:2", r#"{"name":"Bob"}"#);
    let error = source.apply(0, &[&change]).await.unwrap_err();
    assert!(error.to_string().contains("mapping \"u\": table \"u\" does not exist"), "{error}");
    assert_eq!(source.breaker().0, BreakerState::Closed, "the database is there");
    // Back, as another table with another order of columns.
    pg.execute("create table u (name text, more int default 5, id bigint primary key); insert into u values ('Eve', 1, 1)").await;
    assert_eq!(load(&source, 1).await.unwrap().unwrap(), r#"{"name":"Eve","more":1,"id":1}"#);
    source.apply(0, &[&change]).await.unwrap();
    assert_eq!(pg.one("select name || more from u where id = 2").await, "Bob5");
    // A column changes its type: what does not fit any more is said.
    pg.execute("drop table u; create table u (id text primary key, name text)").await;
    until("the new mistake is named", async || {
        let error = load(&source, 1).await.unwrap_err().to_string();
        error.contains("is declared bigint, column \"u.id\" is text; set id = \"text\"")
    })
    .await;
    pg.execute("drop table u; create table u (id bigint primary key); insert into u values (1)").await;
    assert_eq!(load(&source, 1).await.unwrap().unwrap(), r#"{"id":1}"#);
    until("the missing column is named", async || {
        source.apply(0, &[&change]).await.unwrap_err().to_string().contains("column \"name\" of relation")
    })
    .await;
    pg.execute("alter table u add column name text").await;
    source.apply(0, &[&change]).await.unwrap();
}

#[tokio::test]
async fn a_value_above_the_limit_is_an_error_of_its_key_alone() {
    let pg = Pg::start();
    pg.execute(TABLE).await;
    pg.execute("insert into u values (2, repeat('x', 5000))").await;
    let (_wire, source) =
        wired(&pg, PostgresOptions { max_value_bytes: 1000, ..PostgresOptions::default() }).await;
    let keys = [source.mappings().find(b"u:1").unwrap().1, source.mappings().find(b"u:2").unwrap().1];
    let rows = source.load(0, &keys, LoadFrom::Primary).await.unwrap();
    assert!(rows[0].as_ref().unwrap().is_some());
    let error = rows[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("at most 1000 are read for mapping 'u' (database.max_value_bytes)"), "{error}");
}
