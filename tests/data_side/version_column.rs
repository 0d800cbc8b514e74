//! Rows that hold their version themselves: what is older changes nothing, in both databases.

use std::sync::Arc;

use dsproxy::mapping::{MappingSpec, WriteMode};
use dsproxy::source::{
    Applied, Batch, Committed, Letters, LoadFrom, Once, Refused, Source, SourceError, Versioned,
};

use crate::ledger::{Place, commit, delete, put, value};
use crate::pg::Pg;
use crate::sqlite::File;

const TABLES: &str = "create table r (id bigint primary key, name text, age int, version bigint default 0);
    create table pair (a int, b varchar(9), name text, v bigint, primary key (a, b));";

fn specs(guarded: bool) -> Vec<MappingSpec> {
    let spec = |name: &str, key: &str, id: &str, column: &str| MappingSpec {
        write: WriteMode::Behind,
        version_column: guarded.then(|| column.into()),
        ..MappingSpec::new(name, key, name, id)
    };
    vec![spec("r", "r:{id}", "bigint", "version"), spec("pair", "p:{a}:{b}", "int, varchar(9)", "v")]
}

async fn places() -> [Place; 2] {
    let pg = Pg::start();
    pg.execute(TABLES).await;
    [Place::Postgres(Box::new(pg)), Place::Sqlite(File::new(TABLES))]
}

async fn source(place: &Place, specs: Vec<MappingSpec>) -> Source {
    let source = match place {
        Place::Postgres(pg) => pg.source(specs).await,
        Place::Sqlite(file) => file.source(specs).await,
    };
    source.prepare_ledger().await.unwrap();
    source
}

/// The row, as `name@version`.
async fn row(place: &Place, id: u64) -> String {
    place.one(&format!("select name || '@' || version from r where id = {id}")).await
}

#[tokio::test]
async fn a_late_write_with_an_older_version_changes_nothing() {
    for place in places().await {
        let (early, late) = (source(&place, specs(true)).await, source(&place, specs(true)).await);
        let newer = [put(&early, "r:1", r#"{"name":"newer"}"#)];
        let older =
            [put(&late, "r:1", r#"{"name":"older","age":1}"#), put(&late, "r:2", r#"{"name":"two"}"#)];
        commit(&early, &newer, &[20], Once::Nothing).await.unwrap();
        let held = commit(&late, &older, &[10, 10], Once::Nothing).await.unwrap();
        assert_eq!(held, [Committed::Unknown, value(r#"{"id":2,"name":"two","age":null}"#)]);
        assert_eq!((row(&place, 1).await.as_str(), row(&place, 2).await.as_str()), ("newer@20", "two@10"));
        // An equal one is the same write once more.
        commit(&late, &older, &[20, 9], Once::Nothing).await.unwrap();
        assert_eq!(row(&place, 1).await, "newer@20");
        // Rows that stay need no entry beside the table: these two are of when they were new.
        commit(&late, &older, &[30, 30], Once::Nothing).await.unwrap();
        assert_eq!(place.one("select max(version) from dsproxy_versions").await, "20");
        assert_eq!(row(&place, 1).await, "older@30");
        // Nor do they lose their version when the entries go.
        assert_eq!(late.prune(1000).await.unwrap(), 2);
        commit(&late, &newer, &[29], Once::Nothing).await.unwrap();
        assert_eq!(row(&place, 1).await, "older@30");
    }
}

#[tokio::test]
async fn a_deletion_leaves_its_version_behind_and_older_ones_delete_nothing() {
    for place in places().await {
        let source = source(&place, specs(true)).await;
        commit(&source, &[put(&source, "r:1", r#"{"name":"a"}"#)], &[20], Once::Nothing).await.unwrap();
        let held = commit(&source, &[delete(&source, "r:1")], &[19], Once::Nothing).await.unwrap();
        assert_eq!(
            (held.as_slice(), row(&place, 1).await.as_str()),
            ([Committed::Unknown].as_slice(), "a@20")
        );
        let held = commit(&source, &[delete(&source, "r:1")], &[30], Once::Nothing).await.unwrap();
        assert_eq!(held, [Committed::Gone]);
        commit(&source, &[put(&source, "r:1", r#"{"name":"late"}"#)], &[29], Once::Nothing).await.unwrap();
        assert_eq!(place.one("select count(*) from r").await, "0");
        // Both in one batch: the row is a new one.
        commit(&source, &[put(&source, "r:2", r#"{"age":1}"#)], &[5], Once::Nothing).await.unwrap();
        let both = [delete(&source, "r:2"), put(&source, "r:2", r#"{"name":"again"}"#)];
        let held = commit(&source, &both, &[40, 41], Once::Nothing).await.unwrap();
        assert_eq!(held[1], value(r#"{"id":2,"name":"again","age":null}"#));
        assert_eq!(row(&place, 2).await, "again@41");
        commit(&source, &[delete(&source, "r:2")], &[40], Once::Nothing).await.unwrap();
        assert_eq!(row(&place, 2).await, "again@41");
    }
}

#[tokio::test]
async fn several_ids_rows_of_others_and_versions_from_before_the_column() {
    for place in places().await {
        let (before, after) = (source(&place, specs(false)).await, source(&place, specs(true)).await);
        commit(&before, &[put(&before, "p:1:x'y", r#"{"name":"old"}"#)], &[50], Once::Nothing).await.unwrap();
        // The row has no version yet, but its key has.
        let rows = [put(&after, "p:1:x'y", r#"{"name":"late"}"#), put(&after, "p:2:z", r#"{"name":"new"}"#)];
        commit(&after, &rows, &[49, 49], Once::Nothing).await.unwrap();
        let both = "select min(name) || max(name) || max(coalesce(v, 0)) from pair";
        assert_eq!(place.one(both).await, "newold49");
        commit(&after, &rows, &[51, 51], Once::Nothing).await.unwrap();
        assert_eq!(place.one(both).await, "latenew51");
        // A row that somebody else inserted has the version of its default, or none.
        place
            .execute("insert into r (id, name) values (7, 'foreign'); insert into r values (8, 'f', 1, null)")
            .await;
        let rows = [put(&after, "r:7", r#"{"name":"a"}"#), put(&after, "r:8", r#"{"name":"b"}"#)];
        commit(&after, &rows, &[1, 1], Once::Nothing).await.unwrap();
        assert_eq!((row(&place, 7).await.as_str(), row(&place, 8).await.as_str()), ("a@1", "b@1"));
    }
}

#[tokio::test]
async fn the_version_is_no_part_of_the_value_and_survives_replays() {
    for place in places().await {
        let source = source(&place, specs(true)).await;
        let claim = source.claim("me", 4).await.unwrap();
        let applied = Applied { source: "me".into(), epoch: claim.epoch, offsets: vec![(0, 1)] };
        let rows = [put(&source, "r:1", r#"{"name":"a","age":3}"#)];
        for _ in 0..2 {
            commit(&source, &rows, &[7], Once::Advance(&applied)).await.unwrap();
            assert_eq!(row(&place, 1).await, "a@7");
        }
        let (id, found) = source.mappings().find(b"r:1").unwrap();
        let loaded = source.load(id, &[found], LoadFrom::Primary).await.unwrap().remove(0).unwrap().unwrap();
        assert_eq!(loaded.value, r#"{"id":1,"name":"a","age":3}"#);
        let bound = source.bound(id).unwrap();
        let refused =
            dsproxy::mapping::Row::parse(bound, &["1"], br#"{"version":9}"#).unwrap_err().to_string();
        assert!(refused.contains("'version' holds the version of the row"), "{refused}");
        // Written through: the order of the database decides, and its versions only grow.
        let rows = [put(&source, "r:1", r#"{"name":"through"}"#), put(&source, "r:5", r#"{"name":"five"}"#)];
        commit(&source, &rows, &[2, 2], Once::Newest).await.unwrap();
        let first: u64 = row(&place, 1).await.strip_prefix("through@").unwrap().parse().unwrap();
        assert!(first > 7, "{first}");
        assert_eq!(row(&place, 5).await, "five@2");
        commit(&source, &[delete(&source, "r:1")], &[1], Once::Newest).await.unwrap();
        commit(&source, &rows, &[first, 3], Once::Nothing).await.unwrap();
        assert_eq!(place.one("select count(*) from r where id = 1").await, "0", "the deletion is the newest");
        assert_eq!(row(&place, 5).await, "five@3");
    }
}

#[tokio::test]
async fn a_letter_that_a_newer_write_has_outrun_changes_nothing() {
    for place in places().await {
        let source = source(&place, specs(true)).await;
        let bad = put(&source, "r:1", r#"{"name":"letter"}"#).1;
        let error = SourceError::BadData {
            message: "m".into(),
            code: "23514".into(),
            column: None,
            constraint: None,
        };
        let refused = [Refused {
            key: b"r:1",
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
        commit(&source, &[put(&source, "r:1", r#"{"name":"newer"}"#)], &[6], Once::Nothing).await.unwrap();
        let letters = source.dead_letters(&Letters::default(), 10).await.unwrap();
        assert_eq!(source.replay(&letters[0]).await.unwrap().held, [Committed::Unknown]);
        assert_eq!(row(&place, 1).await, "newer@6");
    }
}

/// Two proxies write and delete the same keys, versions in any order: what is there afterwards is the newest of each key.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn two_proxies_with_the_same_keys_keep_the_newest() {
    const KEYS: u64 = 40;
    let [place, _] = places().await;
    let place = Arc::new(place);
    let writers = (0..3_u64).map(|proxy| {
        let place = place.clone();
        tokio::spawn(async move {
            let source = source(&place, specs(true)).await;
            for round in 0..25_u64 {
                // Unique over proxies; now and then one that comes very late.
                let version =
                    (round * 3 + proxy + 1).saturating_sub(if round % 5 == 4 { 9 } else { 0 }).max(1);
                let change = |n: u64| {
                    let key = format!("r:{}", (n * (7 + 4 * proxy) + round) % KEYS);
                    match (version + n) % 4 {
                        0 => delete(&source, &key),
                        _ => put(&source, &key, &format!(r#"{{"age":{version}}}"#)),
                    }
                };
                let rows: Vec<_> = (0..KEYS / 2).map(change).collect();
                let mut tries = 0;
                while let Err(error) = commit(&source, &rows, &vec![version; rows.len()], Once::Nothing).await
                {
                    tries += 1;
                    assert!(error.is_retryable() && tries < 5, "{error}");
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(place.one("select count(*) from r where age is distinct from version").await, "0");
    // A row whose key was deleted by a newer write would be a deletion that was lost.
    let deleted = "select count(*) from r join dsproxy_versions v on v.key = r.id::text and v.mapping = 'r' \
                   where r.version < v.version";
    assert_eq!(place.one(deleted).await, "0");
}

#[tokio::test]
async fn a_column_that_cannot_be_the_guard_is_refused_at_start() {
    let pg = Pg::start();
    pg.execute(TABLES).await;
    pg.execute("create table odd (id bigint primary key, n int, strict bigint not null, v bigint)").await;
    let open = async |specs: Vec<MappingSpec>| {
        let options = dsproxy::source::PostgresOptions::default();
        let postgres = dsproxy::source::Postgres::connect(pg.url(), &options).await.unwrap();
        let set = dsproxy::mapping::MappingSet::new(specs).unwrap();
        Source::open(postgres, set).await.unwrap_err().to_string()
    };
    let odd = |name: &str, column: &str| MappingSpec {
        write: WriteMode::Behind,
        version_column: Some(column.into()),
        ..MappingSpec::new(name, &format!("{name}:{{id}}"), "odd", "bigint")
    };
    for (column, want) in [
        ("nn", "`version_column` names \"nn\""),
        ("vv", "dsproxy migrate create --version-column o` writes the migration"),
        ("n", "is integer, but a version is a bigint"),
        ("strict", "give it one: default 0"),
        ("id", "part of the key or the value"),
    ] {
        let error = open(vec![odd("o", column)]).await;
        assert!(error.contains(want), "{error}");
    }
    let error = open(vec![odd("o", "v"), odd("p", "v")]).await;
    assert!(error.contains("that of mapping \"o\"") && error.contains("a column of its own"), "{error}");
    let read_only = MappingSpec { write: WriteMode::None, ..odd("o", "v") };
    let error = dsproxy::mapping::MappingSet::new(vec![read_only]).unwrap_err();
    assert!(format!("{error:?}").contains("guards rows that are replaced"), "{error:?}");
}
