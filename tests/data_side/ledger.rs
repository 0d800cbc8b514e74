//! Batches that are applied exactly once, versions, fences and dead letters, in both databases.

use std::sync::Arc;
use std::time::Duration;

use dsproxy::mapping::{Format, MappingId, MappingSpec, Row, StoreMode, WriteMode};
use dsproxy::source::{
    Applied, Batch, Change, Claim, Committed, LedgerState, Letters, LoadFrom, Once, Refused, Source,
    SourceError, Versioned,
};

use crate::pg::Pg;
use crate::sqlite::File;

/// One of the databases, with a source on it.
pub enum Place {
    Postgres(Box<Pg>),
    Sqlite(File),
}

const TABLES: &str = "create table u (id bigint primary key, name text, age int check (age >= 0));
    create table l (id bigint, v bigint);";

impl Place {
    pub async fn both() -> [Self; 2] {
        let pg = Pg::start();
        pg.execute(TABLES).await;
        [Self::Postgres(Box::new(pg)), Self::Sqlite(File::new(TABLES))]
    }

    pub async fn source(&self) -> Source {
        let spec = |name: &str, key: &str| MappingSpec {
            write: WriteMode::Behind,
            ..MappingSpec::new(name, key, name, "bigint")
        };
        let mut log = spec("l", "l:{id}");
        (log.mode, log.order_by) = (StoreMode::Append, Some("v".into()));
        let mut by_name = MappingSpec::new("by_name", "n:{name}:{n}", "u", "text,int");
        (by_name.table, by_name.format) = (None, Format::List);
        by_name.load = Some("select id from u where name = $name limit $n".into());
        by_name.invalidate_on = Some(("u".into(), Some("name".into())));
        let specs = vec![spec("u", "u:{id}"), log, by_name];
        let source = match self {
            Self::Postgres(pg) => pg.source(specs).await,
            Self::Sqlite(file) => file.source(specs).await,
        };
        source.prepare_ledger().await.unwrap();
        source
    }

    pub async fn execute(&self, sql: &str) {
        match self {
            Self::Postgres(pg) => pg.execute(sql).await,
            Self::Sqlite(file) => file.connection().execute_batch(sql).unwrap(),
        }
    }

    pub async fn one(&self, sql: &str) -> String {
        match self {
            Self::Postgres(pg) => pg.one(sql).await,
            Self::Sqlite(file) => file.one(sql),
        }
    }
}

pub fn put(source: &Source, key: &str, body: &str) -> (MappingId, Change) {
    let (id, found) = source.mappings().find(key.as_bytes()).unwrap();
    (id, Change::Put(Row::parse(source.bound(id).unwrap(), found.ids(), body.as_bytes()).unwrap()))
}

pub fn delete(source: &Source, key: &str) -> (MappingId, Change) {
    let (id, found) = source.mappings().find(key.as_bytes()).unwrap();
    (id, Change::Delete(found.ids().iter().map(|id| Box::from(*id)).collect()))
}

fn advance(claim: &Claim, lane: i32, offset: u64) -> Applied {
    Applied { source: "me".into(), epoch: claim.epoch, offsets: vec![(lane, offset)] }
}

/// Commits writes (with their versions), and answers what is held.
pub async fn commit(
    source: &Source,
    writes: &[(MappingId, Change)],
    versions: &[u64],
    once: Once<'_>,
) -> Result<Vec<Committed>, SourceError> {
    let versioned: Vec<_> = writes
        .iter()
        .zip(versions)
        .map(|((_, change), version)| Versioned { change, version: *version, value: None })
        .collect();
    let batch = Batch { writes: &versioned, refused: &[], once, through: false, alone: None };
    Ok(source.commit(writes[0].0, &batch).await?.held)
}

pub fn value(text: &str) -> Committed {
    Committed::Value(text.to_owned().into())
}

#[tokio::test]
async fn a_batch_that_comes_again_is_applied_once() {
    for place in Place::both().await {
        let source = place.source().await;
        let claim = source.claim("me", 4).await.unwrap();
        assert_eq!((claim.epoch, claim.applied.len(), claim.highest()), (1, 12, 0));
        let rows = [put(&source, "l:1", r#"{"v":1}"#), put(&source, "l:1", r#"{"v":2}"#)];
        let applied = advance(&claim, 2, 7);
        let first = commit(&source, &rows, &[1, 2], Once::Advance(&applied)).await.unwrap();
        assert_eq!(first, [Committed::Appended, Committed::Appended]);
        // The answer to the commit was lost: the same call again.
        let again = commit(&source, &rows, &[1, 2], Once::Advance(&applied)).await.unwrap();
        assert_eq!(again, [Committed::Unknown, Committed::Unknown]);
        assert_eq!(place.one("select count(*) from l").await, "2");
        // After a restart, too.
        let claim = source.claim("me", 4).await.unwrap();
        assert_eq!((claim.epoch, claim.offset("l", 2), claim.offset("l", 1)), (2, 7, 0));
        commit(&source, &rows, &[1, 2], Once::Advance(&advance(&claim, 2, 7))).await.unwrap();
        assert_eq!(place.one("select count(*) from l").await, "2");
        // A lane of another mapping is another lane; a batch of no writes advances, too.
        let batch = Batch {
            writes: &[],
            refused: &[],
            once: Once::Advance(&advance(&claim, 2, 9)),
            through: false,
            alone: None,
        };
        source.commit(0, &batch).await.unwrap();
        assert_eq!(source.claim("me", 4).await.unwrap().offset("u", 2), 9);
    }
}

#[tokio::test]
async fn a_proxy_that_was_taken_over_writes_nothing() {
    for place in Place::both().await {
        let (zombie, heir) = (place.source().await, place.source().await);
        let old = zombie.claim("me", 4).await.unwrap();
        let rows = [put(&zombie, "u:1", r#"{"name":"a"}"#)];
        commit(&zombie, &rows, &[1], Once::Advance(&advance(&old, 0, 1))).await.unwrap();
        let new = heir.claim("me", 4).await.unwrap();
        let rows = [put(&zombie, "u:1", r#"{"name":"zombie"}"#)];
        let fenced = commit(&zombie, &rows, &[9], Once::Advance(&advance(&old, 0, 2))).await.unwrap_err();
        assert!(matches!(fenced, SourceError::Fenced { .. }) && !fenced.is_retryable(), "{fenced}");
        assert!(fenced.to_string().contains("another proxy has taken over instance me"), "{fenced}");
        assert_eq!(place.one("select name from u").await, "a");
        let rows = [put(&heir, "u:1", r#"{"name":"heir"}"#)];
        commit(&heir, &rows, &[2], Once::Advance(&advance(&new, 0, 2))).await.unwrap();
        assert_eq!(place.one("select name from u").await, "heir");
    }
}

#[tokio::test]
async fn the_newest_version_wins_in_whatever_order_they_come() {
    for place in Place::both().await {
        let source = place.source().await;
        let [newer, older] = [r#"{"name":"newer","age":2}"#, r#"{"name":"older","age":1}"#];
        let held = commit(&source, &[put(&source, "u:1", newer)], &[20], Once::Nothing).await.unwrap();
        assert_eq!(held, [value(r#"{"id":1,"name":"newer","age":2}"#)]);
        // With a neighbour that is not too old.
        let rows = [put(&source, "u:1", older), put(&source, "u:2", older)];
        let held = commit(&source, &rows, &[10, 10], Once::Nothing).await.unwrap();
        assert_eq!(held, [Committed::Unknown, value(r#"{"id":2,"name":"older","age":1}"#)]);
        assert_eq!(place.one("select name from u where id = 1").await, "newer");
        // A deletion leaves its version behind.
        let held = commit(&source, &[delete(&source, "u:1")], &[30], Once::Nothing).await.unwrap();
        assert_eq!(held, [Committed::Gone]);
        commit(&source, &[put(&source, "u:1", newer)], &[29], Once::Nothing).await.unwrap();
        assert_eq!(place.one("select count(*) from u where id = 1").await, "0");
        // Within one batch: a deletion, then a row of some of the columns.
        let rows = [delete(&source, "u:2"), put(&source, "u:2", r#"{"age":5}"#)];
        let held = commit(&source, &rows, &[40, 41], Once::Nothing).await.unwrap();
        assert_eq!(held[1], value(r#"{"id":2,"name":null,"age":5}"#));
        // What is forgotten no longer guards; what is newer stays.
        assert_eq!(source.prune(31).await.unwrap(), 1);
        assert_eq!(place.one("select count(*) from dsproxy_versions").await, "1");
    }
}

#[tokio::test]
async fn what_is_answered_is_what_a_load_answers() {
    for place in Place::both().await {
        let source = place.source().await;
        let rows: Vec<_> = (0..20).map(|n| put(&source, &format!("u:{}", 19 - n), r#"{"age":3}"#)).collect();
        let held = commit(&source, &rows, &[5; 20], Once::Nothing).await.unwrap();
        let keys: Vec<String> = (0..20).map(|n| format!("u:{}", 19 - n)).collect();
        let found: Vec<_> =
            keys.iter().map(|key| source.mappings().find(key.as_bytes()).unwrap().1).collect();
        let loaded = source.load(0, &found, LoadFrom::Primary).await.unwrap();
        for (held, loaded) in held.iter().zip(loaded) {
            assert_eq!(*held, Committed::Value(loaded.unwrap().unwrap().value));
        }
    }
}

#[tokio::test]
async fn a_refused_row_leaves_as_a_dead_letter_and_can_come_back() {
    for place in Place::both().await {
        let source = place.source().await;
        let claim = source.claim("me", 4).await.unwrap();
        let rows = [put(&source, "u:1", r#"{"name":"bad","age":-1}"#)];
        let error = commit(&source, &rows, &[5], Once::Advance(&advance(&claim, 0, 1))).await.unwrap_err();
        assert!(matches!(error, SourceError::BadData { .. }), "{error}");
        assert_eq!(source.claim("me", 4).await.unwrap().highest(), 0, "nothing of it was done");
        let claim = source.claim("me", 4).await.unwrap();
        let write = Versioned { change: &rows[0].1, version: 5, value: None };
        let refused = [Refused { key: b"u:1", write, error: &error }];
        let applied = advance(&claim, 0, 1);
        let batch = Batch {
            writes: &[],
            refused: &refused,
            once: Once::Advance(&applied),
            through: false,
            alone: None,
        };
        source.commit(0, &batch).await.unwrap();
        source.commit(0, &batch).await.unwrap(); // again: once all the same
        let letters = source.dead_letters(&Letters::default(), 10).await.unwrap();
        assert_eq!(letters.len(), 1);
        let letter = &letters[0];
        assert_eq!(
            (letter.key.as_str(), letter.operation.as_str(), letter.code.as_str()),
            ("u:1", "put", "23514")
        );
        assert!(letter.columns.as_deref().unwrap().contains(r#""age":"-1""#), "{letter:?}");
        assert!(!letter.error.contains("-1"), "an error quotes no values: {}", letter.error);
        // It is still refused, and stays.
        assert!(source.replay(letter).await.is_err());
        let which = Letters { mapping: Some("u".into()), ids: vec![letter.id], after: 0 };
        assert_eq!(source.dead_letters(&which, 10).await.unwrap().len(), 1);
        match &place {
            Place::Postgres(pg) => pg.execute("alter table u drop constraint u_age_check").await,
            Place::Sqlite(file) => file
                .connection()
                .execute_batch("drop table u; create table u (id bigint primary key, name text, age int)")
                .unwrap(),
        }
        assert_eq!(source.replay(letter).await.unwrap().held, [value(r#"{"id":1,"name":"bad","age":-1}"#)]);
        assert_eq!(source.replay(letter).await.unwrap().held, [Committed::Unknown], "once");
        let behind = Letters { after: letter.id, ..Letters::default() };
        assert_eq!(source.dead_letters(&behind, 10).await.unwrap(), []);
        assert_eq!(source.drop_dead_letters(&which).await.unwrap(), 0, "it is gone");
    }
}

#[tokio::test]
async fn a_letter_that_a_newer_write_has_outrun_changes_nothing() {
    for place in Place::both().await {
        let source = place.source().await;
        let bad = put(&source, "u:1", r#"{"name":"letter"}"#).1;
        let error = SourceError::BadData {
            message: "m".into(),
            code: "23514".into(),
            column: None,
            constraint: None,
        };
        let refused = [Refused {
            key: b"u:1",
            write: Versioned { change: &bad, version: 5, value: None },
            error: &error,
        }];
        source
            .commit(
                0,
                &Batch { writes: &[], refused: &refused, once: Once::Nothing, through: false, alone: None },
            )
            .await
            .unwrap();
        let newer = put(&source, "u:1", r#"{"name":"newer"}"#).1;
        let write = |version| Versioned { change: &newer, version, value: None };
        let (older, newer) = ([write(4)], [write(6), write(7)]);
        let of = |writes| Batch { writes, refused: &[], once: Once::Nothing, through: false, alone: None };
        assert!(source.commit(0, &of(&older)).await.unwrap().passed.is_empty(), "it was written before");
        // The first later write says so, once; also where the table is one from before there were marks.
        let letters = source.dead_letters(&Letters::default(), 10).await.unwrap();
        assert_eq!(letters[0].later, None);
        place.execute("alter table dsproxy_dead_letters drop column later").await;
        source.prepare_ledger().await.unwrap();
        assert_eq!(source.commit(0, &of(&newer)).await.unwrap().passed, ["u:1"]);
        assert!(source.commit(0, &of(&newer)).await.unwrap().passed.is_empty());
        let letters = source.dead_letters(&Letters::default(), 10).await.unwrap();
        assert_eq!(letters[0].later, Some(7));
        assert_eq!(source.known_dead_letters(0), None);
        source.count_dead_letters().await.unwrap();
        assert_eq!(source.known_dead_letters(0), Some(1));
        assert_eq!(source.replay(&letters[0]).await.unwrap().held, [Committed::Unknown]);
        assert_eq!(place.one("select name from u").await, "newer");
        assert_eq!(place.one("select count(*) from dsproxy_dead_letters").await, "0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn two_proxies_with_the_same_keys_neither_deadlock_nor_go_back() {
    let pg = Pg::start();
    pg.execute(TABLES).await;
    let place = Place::Postgres(Box::new(pg));
    let sources = [Arc::new(place.source().await), Arc::new(place.source().await)];
    let writers = sources.iter().enumerate().map(|(proxy, source)| {
        let source = source.clone();
        tokio::spawn(async move {
            for round in 0..30_u64 {
                let version = round * 2 + proxy as u64 + 1;
                let body = format!(r#"{{"age":{version}}}"#);
                let key = |n: u64| (n * (7 + 4 * proxy as u64) + round) % 101;
                let rows: Vec<_> = (0..60).map(|n| put(&source, &format!("u:{}", key(n)), &body)).collect();
                let mut tries = 0;
                while let Err(error) = commit(&source, &rows, &[version; 60], Once::Nothing).await {
                    assert!(error.code() != Some("40P01"), "{error}");
                    tries += 1;
                    assert!(tries < 5, "{error}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let behind =
        "select count(*) from u join dsproxy_versions v on v.key = u.id::text where u.age <> v.version";
    assert_eq!(place.one(behind).await, "0", "each row is that of its newest version");
}

#[tokio::test]
async fn missing_rights_are_named_with_their_cure() {
    let pg = Pg::start();
    pg.execute(TABLES).await;
    let role = format!("weak_{}", std::process::id());
    pg.execute(&format!(
        "create role {role} login password 'x'; grant all on all tables in schema public to {role}; \
         revoke create on schema public from public"
    ))
    .await;
    let (_, server) = pg.url().split_once('@').unwrap();
    let url = format!("postgres://{role}:x@{server}");
    let postgres =
        dsproxy::source::Postgres::connect(&url, &dsproxy::source::PostgresOptions::default()).await;
    let set =
        dsproxy::mapping::MappingSet::new(vec![MappingSpec::new("u", "u:{id}", "u", "bigint")]).unwrap();
    let source = Source::open(postgres.unwrap(), set).await.unwrap();
    let error = source.prepare_ledger().await.unwrap_err().to_string();
    assert!(error.contains("dsproxy_applied") && error.contains("grant create on schema"), "{error}");
    assert!(source.ledger_state().await.unwrap_err().to_string().contains("grant create on schema"));
    // Another role has made them, long ago; then it grants, and then it brings them up to date.
    let place = Place::Postgres(Box::new(pg));
    let owner = place.source().await;
    place
        .execute(
            "drop index dsproxy_dead_letters_key; alter table dsproxy_dead_letters drop held, drop value",
        )
        .await;
    let error = source.prepare_ledger().await.unwrap_err().to_string();
    let grant = format!("dsproxy_guards to {role}");
    for words in ["its owner run `dsproxy migrate up`", "alter table dsproxy_dead_letters", grant.as_str()] {
        assert!(error.contains(words), "{words}: {error}");
    }
    place
        .execute(&format!("grant select, insert, update, delete on all tables in schema public to {role}"))
        .await;
    let error = source.prepare_ledger().await.unwrap_err().to_string();
    assert!(error.contains("does not own it") && !error.contains("grant select"), "{error}");
    assert!(owner.ledger_state().await.unwrap().outdated);
    owner.prepare_ledger().await.unwrap();
    source.prepare_ledger().await.unwrap();
    assert_eq!(source.ledger_state().await.unwrap(), LedgerState::default());
    let Place::Postgres(pg) = place else { return };
    source.close();
    pg.execute(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_batch_tells_what_its_rows_were_and_are_where_lists_depend_on_it() {
    for place in Place::both().await {
        let source = place.source().await;
        let touched = async |writes: &[(MappingId, Change)], versions: &[u64]| {
            let versioned: Vec<_> = writes
                .iter()
                .zip(versions)
                .map(|((_, change), version)| Versioned { change, version: *version, value: None })
                .collect();
            let batch =
                Batch { writes: &versioned, refused: &[], once: Once::Nothing, through: false, alone: None };
            let commit = source.commit(0, &batch).await.unwrap();
            let values = commit.touched.values().unwrap().map(|(column, value)| format!("{column}={value}"));
            values.collect::<Vec<_>>().join(" ")
        };
        let rows = [put(&source, "u:1", r#"{"name":"a"}"#), put(&source, "u:2", r#"{"name":null}"#)];
        assert_eq!(touched(&rows, &[1, 2]).await, "name=a");
        // It moves; a change of another column touches the list that the row is in.
        assert_eq!(touched(&[put(&source, "u:1", r#"{"name":"b"}"#)], &[3]).await, "name=a name=b");
        assert_eq!(touched(&[put(&source, "u:1", r#"{"age":7}"#)], &[4]).await, "name=b");
        // What is too old to be applied touches nothing.
        assert_eq!(touched(&[put(&source, "u:1", r#"{"name":"old"}"#)], &[1]).await, "");
        assert_eq!(touched(&[delete(&source, "u:1"), delete(&source, "u:2")], &[5, 6]).await, "name=b");
        // Committed before, the answer was lost: anything may have been touched.
        let claim = source.claim("me", 4).await.unwrap();
        let (_, change) = put(&source, "u:9", r#"{"name":"c"}"#);
        let (writes, applied) =
            ([Versioned { change: &change, version: 9, value: None }], advance(&claim, 0, 1));
        let batch = Batch {
            writes: &writes,
            refused: &[],
            once: Once::Advance(&applied),
            through: false,
            alone: None,
        };
        assert!(source.commit(0, &batch).await.unwrap().touched.values().is_some());
        assert!(source.commit(0, &batch).await.unwrap().touched.values().is_none());
    }
}
