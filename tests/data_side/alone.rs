//! Versions that are left out while nobody else writes, and what must not follow from that; in Postgres.

use dsproxy::source::{Alone, Batch, Commit, Letters, Once, Refused, Source, SourceError, Versioned, Writer};

use crate::ledger::{Place, put};
use crate::pg::until;

const NOTED: &str = "select count(*) from dsproxy_versions";
const NAME: &str = "select name from u where id = 1";

async fn place() -> Place {
    let [postgres, _] = Place::both().await;
    postgres
}

fn writer(id: &str) -> Writer {
    Writer { id: id.to_owned(), epoch: 1, journaled: true }
}

/// Sets `u:1` to its version; `since`: the versions that this writer has given while it may have been alone begin after it.
async fn set(source: &Source, id: &str, version: u64, since: u64) -> Commit {
    let (mapping, change) = put(source, "u:1", &format!(r#"{{"name":"{version}"}}"#));
    let alone = Alone { writer: id.to_owned(), epoch: 1, since };
    let writes = [Versioned { change: &change, version, value: None }];
    let once = Once::Nothing;
    let batch = Batch { writes: &writes, refused: &[], once, through: false, alone: Some(&alone) };
    source.commit(mapping, &batch).await.unwrap()
}

#[tokio::test]
async fn who_writes_alone_notes_no_versions_until_another_one_comes() {
    let place = place().await;
    let source = place.source().await;
    source.register(&writer("a")).await.unwrap();
    assert!(!set(&source, "a", 10, 0).await.company);
    assert_eq!((place.one(NAME).await, place.one(NOTED).await), ("10".into(), "0".into()));
    // What it has queued before another one came is compared with what that one has written since.
    source.register(&writer("b")).await.unwrap();
    assert!(set(&source, "b", 30, 20).await.company);
    assert!(set(&source, "a", 15, 0).await.company);
    assert_eq!((place.one(NAME).await, place.one(NOTED).await), ("30".into(), "1".into()));
    // And though it is alone again, with what the other one is known to have written.
    source.note(&writer("b"), None, 30).await.unwrap();
    assert!(!set(&source, "a", 16, 0).await.company);
    assert_eq!(place.one(NAME).await, "30");
    set(&source, "a", 40, 0).await;
    set(&source, "a", 41, 0).await;
    assert_eq!((place.one(NAME).await, place.one(NOTED).await), ("41".into(), "1".into()));
    // An older one of its own is not looked for: its lanes have an order.
    set(&source, "a", 45, 45).await;
    assert_eq!(place.one("select version from dsproxy_versions").await, "45");
}

#[tokio::test]
async fn nobody_is_alone_beside_a_dead_writer_with_a_journal() {
    let place = place().await;
    let source = place.source().await;
    source.register(&writer("a")).await.unwrap();
    source.register(&writer("dead")).await.unwrap();
    source.note(&writer("dead"), Some(5), 9).await.unwrap();
    place.execute("update dsproxy_writers set seen_at = now() - interval '1 year' where id = 'dead'").await;
    set(&source, "a", 20, 0).await;
    // Its journal is played back.
    set(&source, "dead", 10, 10).await;
    assert_eq!((place.one(NAME).await, place.one(NOTED).await), ("20".into(), "1".into()));
    source.journal_lost("dead").await.unwrap();
    set(&source, "a", 21, 0).await;
    assert_eq!(place.one("select version from dsproxy_versions").await, "20");
}

#[tokio::test]
async fn who_is_not_the_writer_any_more_is_not_alone() {
    let place = place().await;
    let source = place.source().await;
    set(&source, "a", 10, 0).await;
    assert_eq!(place.one(NOTED).await, "1", "it is no writer at all");
    source.register(&Writer { epoch: 2, ..writer("a") }).await.unwrap();
    set(&source, "a", 11, 0).await;
    assert_eq!(place.one("select version from dsproxy_versions").await, "11");
}

#[tokio::test]
async fn a_dead_letter_does_not_overwrite_what_was_written_alone() {
    let place = place().await;
    let source = place.source().await;
    source.register(&writer("a")).await.unwrap();
    let (mapping, bad) = put(&source, "u:1", r#"{"name":"letter"}"#);
    let (message, code) = ("m".into(), "23514".into());
    let error = SourceError::BadData { message, code, column: None, constraint: None };
    let write = Versioned { change: &bad, version: 10, value: None };
    let refused = [Refused { key: b"u:1", write, error: &error }];
    let once = Once::Nothing;
    let batch = Batch { writes: &[], refused: &refused, once, through: false, alone: None };
    source.commit(mapping, &batch).await.unwrap();
    set(&source, "a", 20, 0).await;
    let letters = source.dead_letters(&Letters::default(), 10).await.unwrap();
    source.apply_letter(&letters[0]).await.unwrap();
    assert_eq!(place.one(NAME).await, "20");
}

#[tokio::test]
async fn a_writer_comes_only_when_no_batch_runs_that_takes_itself_to_be_alone() {
    let place = place().await;
    let Place::Postgres(pg) = &place else { unreachable!() };
    let source = place.source().await;
    source.register(&writer("a")).await.unwrap();
    set(&source, "a", 10, 0).await;
    // A batch has looked around, and waits for a row.
    let holder = pg.client().await;
    holder.batch_execute("begin; update u set age = 1 where id = 1").await.unwrap();
    let other = place.source().await;
    let comes = async {
        let waits = "select count(*) from pg_locks where locktype = 'advisory' and granted \
                     and database = (select oid from pg_database where datname = current_database())";
        until("the batch has looked around", async || place.one(waits).await == "1").await;
        let registering = async {
            other.register(&writer("b")).await.unwrap();
            set(&other, "b", 30, 20).await;
        };
        let releasing = async {
            let waits = waits.replace("and granted", "and not granted");
            until("the other one waits for the batch", async || place.one(&waits).await == "1").await;
            assert_eq!(place.one("select count(*) from dsproxy_writers").await, "1");
            holder.batch_execute("commit").await.unwrap();
        };
        tokio::join!(registering, releasing);
    };
    tokio::join!(set(&source, "a", 20, 0), comes);
    assert_eq!((place.one(NAME).await, place.one(NOTED).await), ("30".into(), "1".into()));
}

#[tokio::test]
async fn where_a_statement_does_not_see_who_has_just_come_nobody_is_alone() {
    let place = place().await;
    place
        .execute(
            "do $$ begin execute format('alter database %I set default_transaction_isolation = \
                  ''repeatable read''', current_database()); end $$",
        )
        .await;
    let source = place.source().await;
    source.register(&writer("a")).await.unwrap();
    set(&source, "a", 10, 0).await;
    assert_eq!(place.one(NOTED).await, "1");
}
