//! Writes that wait behind a dead letter of their key, in both databases.

use dsproxy::mapping::{MappingSpec, OnPoison, StoreMode, WriteMode};
use dsproxy::source::{
    Batch, Change, Commit, Committed, DeadLetter, Letters, LoadFrom, Once, Refused, Source, SourceError,
    Versioned,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::ledger::{Place, delete, put, value};
use crate::pg::Pg;
use crate::sqlite::File;

const TABLES: &str = "create table u (id bigint primary key, name text, age int check (age >= 0), city text);
    create table l (id bigint, v bigint, n int);
    create table c (id bigint primary key, name text, version bigint);";

async fn places() -> [Place; 2] {
    let pg = Pg::start();
    pg.execute(TABLES).await;
    [Place::Postgres(Box::new(pg)), Place::Sqlite(File::new(TABLES))]
}

fn specs(policy: OnPoison, max_held: usize) -> Vec<MappingSpec> {
    let spec = |name: &str, key: &str| MappingSpec {
        write: WriteMode::Behind,
        on_poison: policy,
        max_held,
        ..MappingSpec::new(name, key, name, "bigint")
    };
    let mut log = spec("l", "l:{id}");
    (log.mode, log.order_by) = (StoreMode::Append, Some("v".into()));
    let mut column = spec("c", "c:{id}");
    column.version_column = Some("version".into());
    vec![spec("u", "u:{id}"), log, column]
}

async fn open(place: &Place, policy: OnPoison, max_held: usize) -> Source {
    let specs = specs(policy, max_held);
    let source = match place {
        Place::Postgres(pg) => pg.source(specs).await,
        Place::Sqlite(file) => file.source(specs).await,
    };
    source.prepare_ledger().await.unwrap();
    source
}

async fn waiting(place: &Place) -> Source {
    open(place, OnPoison::Wait, 1000).await
}

/// One write: its key, its object (none: a deletion), its version.
type Wrote<'w> = (&'w str, Option<&'w str>, u64);

async fn write(source: &Source, writes: &[Wrote<'_>], through: bool) -> Result<Commit, SourceError> {
    let changes: Vec<Change> = writes
        .iter()
        .map(|(key, body, _)| body.map_or_else(|| delete(source, key), |body| put(source, key, body)).1)
        .collect();
    let values: Vec<Option<bytes::Bytes>> =
        writes.iter().map(|(_, body, _)| body.map(|body| body.to_owned().into())).collect();
    let versioned: Vec<_> = changes
        .iter()
        .zip(writes)
        .zip(&values)
        .map(|((change, (_, _, version)), value)| Versioned {
            change,
            version: *version,
            value: value.as_ref(),
        })
        .collect();
    let mapping = source.mappings().find(writes[0].0.as_bytes()).unwrap().0;
    let batch = Batch { writes: &versioned, refused: &[], once: Once::Nothing, through, alone: None };
    source.commit(mapping, &batch).await
}

/// A dead letter of this write.
async fn poison(source: &Source, (key, body, version): Wrote<'_>) {
    let (mapping, change) = body.map_or_else(|| delete(source, key), |body| put(source, key, body));
    let (code, message) = ("23514".into(), "no".into());
    let error = SourceError::BadData { message, code, column: None, constraint: None };
    let write = Versioned { change: &change, version, value: None };
    let refused = [Refused { key: key.as_bytes(), write, error: &error }];
    let batch = Batch { writes: &[], refused: &refused, once: Once::Nothing, through: false, alone: None };
    source.commit(mapping, &batch).await.unwrap();
}

async fn read(source: &Source, key: &str) -> Option<String> {
    let (mapping, found) = source.mappings().find(key.as_bytes()).unwrap();
    let mut rows = source.load(mapping, &[found], LoadFrom::Primary).await.unwrap();
    rows.remove(0).unwrap().map(|row| String::from_utf8(row.value.to_vec()).unwrap())
}

async fn letters(source: &Source) -> Vec<DeadLetter> {
    source.dead_letters(&Letters::default(), 10_000).await.unwrap()
}

/// Applies what waits for nothing any more.
async fn release(source: &Source, mapping: &str) {
    for key in source.released(mapping).await.unwrap() {
        for letter in source.released_of(mapping, &key).await.unwrap() {
            source.apply_letter(&letter).await.unwrap();
        }
    }
}

#[tokio::test]
async fn later_writes_wait_are_seen_and_follow_in_their_order() {
    for place in places().await {
        let source = waiting(&place).await;
        write(&source, &[("u:1", Some(r#"{"name":"first","age":1,"city":"A"}"#), 1)], false).await.unwrap();
        poison(&source, ("u:1", Some(r#"{"age":7}"#), 5)).await;
        // Neighbours, and what is older than the letter, are applied.
        let writes = [
            ("u:1", Some(r#"{"name":"second"}"#), 6),
            ("u:2", Some(r#"{"name":"beside"}"#), 7),
            ("u:1", Some(r#"{"name":"older"}"#), 4),
        ];
        let commit = write(&source, &writes, false).await.unwrap();
        assert_eq!((commit.waiting, commit.behind.as_slice()), (1, ["u:1".to_owned()].as_slice()));
        assert_eq!(commit.held[0], value(r#"{"name":"second"}"#));
        assert_eq!(commit.held[2], value(r#"{"id":1,"name":"older","age":1,"city":"A"}"#));
        assert_eq!(place.one("select name from u where id = 2").await, "beside");
        assert_eq!(read(&source, "u:1").await.unwrap(), r#"{"name":"second"}"#);
        // Another proxy's wait as well; of one key there is one letter that waits, and it has all columns.
        let other = waiting(&place).await;
        let commit = write(&other, &[("u:1", Some(r#"{"city":"B"}"#), 8)], false).await.unwrap();
        assert_eq!((commit.waiting, commit.behind.len()), (1, 0));
        assert_eq!(read(&source, "u:1").await.unwrap(), r#"{"city":"B"}"#);
        let all = letters(&source).await;
        assert_eq!(all.iter().map(|it| it.held).collect::<Vec<_>>(), [false, true]);
        assert!(all[1].error.contains(&format!("dead letter {}", all[0].id)), "{}", all[1].error);
        source.count_dead_letters().await.unwrap();
        assert_eq!((source.known_dead_letters(0), source.known_held(0)), (Some(2), 1));
        // What waits cannot be applied before what it waits for, and goes with nothing but its own number.
        let early = source.replay(&all[1]).await.unwrap_err();
        assert_eq!(early, SourceError::Waits { letter: all[0].id });
        assert_eq!(source.released("u").await.unwrap(), Vec::<String>::new());
        source.replay(&all[0]).await.unwrap();
        assert_eq!(read(&source, "u:1").await.unwrap(), r#"{"city":"B"}"#, "what waits is the newest");
        // Behind it, as long as it is there; then nothing waits any more.
        assert_eq!(write(&source, &[("u:1", Some(r#"{"age":9}"#), 9)], false).await.unwrap().waiting, 1);
        release(&source, "u").await;
        assert_eq!(read(&source, "u:1").await.unwrap(), r#"{"id":1,"name":"second","age":9,"city":"B"}"#);
        assert_eq!(letters(&source).await, []);
        assert_eq!(write(&source, &[("u:1", Some(r#"{"age":3}"#), 10)], false).await.unwrap().waiting, 0);
        assert_eq!(place.one("select age from u where id = 1").await, "3");
    }
}

#[tokio::test]
async fn a_dropped_letter_lets_go_of_what_waits_and_only_a_named_one_takes_it_along() {
    for place in places().await {
        let source = waiting(&place).await;
        for n in 1..=3 {
            let key = format!("u:{n}");
            poison(&source, (&key, Some(r#"{"age":1}"#), 5)).await;
            write(&source, &[(&key, Some(r#"{"name":"x"}"#), 6)], false).await.unwrap();
        }
        let which = Letters { mapping: Some("u".into()), ..Letters::default() };
        assert_eq!(source.drop_dead_letters(&which).await.unwrap(), 3);
        let left = letters(&source).await;
        assert!(left.len() == 3 && left.iter().all(|letter| letter.held));
        let which = Letters { ids: vec![left[0].id], ..Letters::default() };
        assert_eq!(source.drop_dead_letters(&which).await.unwrap(), 1);
        release(&source, "u").await;
        assert_eq!(place.one("select count(*) from u").await, "2");
        assert_eq!(letters(&source).await, []);
    }
}

#[tokio::test]
async fn deletions_and_rows_wait_in_their_order() {
    for place in places().await {
        let source = waiting(&place).await;
        write(&source, &[("u:1", Some(r#"{"name":"a","age":1,"city":"A"}"#), 1)], false).await.unwrap();
        poison(&source, ("u:1", Some(r#"{"age":2}"#), 2)).await;
        let commit =
            write(&source, &[("u:1", Some(r#"{"age":3}"#), 3), ("u:1", None, 4)], false).await.unwrap();
        assert_eq!(commit.held, [Committed::Gone, Committed::Gone]);
        assert_eq!(read(&source, "u:1").await, None);
        write(&source, &[("u:1", Some(r#"{"name":"new"}"#), 5)], false).await.unwrap();
        assert_eq!(read(&source, "u:1").await.unwrap(), r#"{"name":"new"}"#);
        let operations: Vec<String> = letters(&source).await.into_iter().map(|it| it.operation).collect();
        assert_eq!(operations, ["put", "delete", "put"]);
        let first = letters(&source).await.remove(0);
        source.replay(&first).await.unwrap();
        release(&source, "u").await;
        assert_eq!(read(&source, "u:1").await.unwrap(), r#"{"id":1,"name":"new","age":null,"city":null}"#);
        // A deletion that is refused (a row is referred to), and is dropped.
        poison(&source, ("u:1", None, 6)).await;
        write(&source, &[("u:1", None, 7)], false).await.unwrap();
        assert_eq!(read(&source, "u:1").await, None);
        let first = letters(&source).await.remove(0);
        let which = Letters { ids: vec![first.id], ..Letters::default() };
        source.drop_dead_letters(&which).await.unwrap();
        release(&source, "u").await;
        assert_eq!(place.one("select count(*) from u").await, "0");
    }
}

#[tokio::test]
async fn rows_of_an_append_mapping_wait_each_for_itself() {
    for place in places().await {
        let source = waiting(&place).await;
        write(&source, &[("l:1", Some(r#"{"v":5,"n":0}"#), 1)], false).await.unwrap();
        poison(&source, ("l:1", Some(r#"{"v":6,"n":1}"#), 2)).await;
        for (version, order) in [(3, 7), (4, 3), (5, 9)] {
            let body = format!(r#"{{"v":{order},"n":{version}}}"#);
            write(&source, &[("l:1", Some(&body), version)], false).await.unwrap();
        }
        assert_eq!(
            read(&source, "l:1").await.unwrap(),
            r#"{"v":9,"n":5}"#,
            "the greatest order is the newest"
        );
        assert_eq!(place.one("select count(*) from l").await, "1");
        // A row of the table with a greater order is newer than all that wait.
        place.execute("insert into l values (1, 20, 99)").await;
        assert!(read(&source, "l:1").await.unwrap().contains("99"));
        write(&source, &[("l:1", None, 6), ("l:1", Some(r#"{"v":1,"n":6}"#), 7)], false).await.unwrap();
        assert_eq!(read(&source, "l:1").await.unwrap(), r#"{"v":1,"n":6}"#, "but for a deletion that waits");
        let first = letters(&source).await.remove(0);
        source.replay(&first).await.unwrap();
        release(&source, "l").await;
        assert_eq!(place.one("select count(*) || ' ' || max(n) from l").await, "1 6");
        // The same again: nothing is applied twice.
        release(&source, "l").await;
        assert_eq!(letters(&source).await, []);
    }
}

#[tokio::test]
async fn a_released_write_that_is_refused_is_the_next_that_others_wait_behind() {
    for place in places().await {
        let source = waiting(&place).await;
        poison(&source, ("u:1", Some(r#"{"name":"p"}"#), 1)).await;
        write(&source, &[("u:1", None, 2), ("u:1", Some(r#"{"age":-1}"#), 3)], false).await.unwrap();
        write(&source, &[("u:1", None, 4), ("u:1", Some(r#"{"age":-2}"#), 5)], false).await.unwrap();
        let first = letters(&source).await.remove(0);
        source.drop_dead_letters(&Letters { ids: vec![first.id], ..Letters::default() }).await.unwrap();
        let all = source.released_of("u", "u:1").await.unwrap();
        let mut refused = 0;
        for letter in &all {
            if let Err(error) = source.apply_letter(letter).await {
                source.refuse(letter, &error).await.unwrap();
                refused += 1;
                break;
            }
        }
        assert_eq!(refused, 1);
        let left = letters(&source).await;
        assert!(left.len() == 1 && !left[0].held && left[0].code == "23514", "{left:?}");
        assert_eq!(read(&source, "u:1").await, None, "readers see the table");
        assert_eq!(write(&source, &[("u:1", Some(r#"{"age":4}"#), 6)], false).await.unwrap().waiting, 1);
    }
}

#[tokio::test]
async fn beyond_the_limit_writes_are_applied_and_the_letter_says_so() {
    for place in places().await {
        let source = open(&place, OnPoison::Wait, 2).await;
        for n in 1..=3 {
            poison(&source, (&format!("u:{n}"), Some(r#"{"age":1}"#), 1)).await;
        }
        for n in 1..=3 {
            let commit =
                write(&source, &[(&format!("u:{n}"), Some(r#"{"age":2}"#), 2)], false).await.unwrap();
            assert_eq!(commit.waiting, usize::from(n < 3));
            assert_eq!(commit.passed.len(), usize::from(n == 3), "{commit:?}");
        }
        // A key of which one waits goes on: it is merged.
        assert_eq!(write(&source, &[("u:1", Some(r#"{"age":3}"#), 3)], false).await.unwrap().waiting, 1);
        assert_eq!(write(&source, &[("u:3", Some(r#"{"age":3}"#), 3)], false).await.unwrap().waiting, 0);
        assert_eq!(place.one("select count(*) || ' ' || max(age) from u").await, "1 3");
        // Rows of an append mapping are not merged.
        poison(&source, ("l:1", Some(r#"{"v":1}"#), 1)).await;
        for version in 2..=5 {
            let commit = write(&source, &[("l:1", Some(r#"{"v":2}"#), version)], false).await.unwrap();
            assert_eq!(commit.waiting, usize::from(version < 4));
        }
        assert_eq!(place.one("select count(*) from l").await, "2");
    }
}

#[tokio::test]
async fn a_write_through_is_refused_instead_of_waiting() {
    for place in places().await {
        let source = waiting(&place).await;
        poison(&source, ("u:1", Some(r#"{"age":1}"#), 1)).await;
        let letter = letters(&source).await[0].id;
        let writes = [("u:2", Some(r#"{"age":2}"#), 2), ("u:1", Some(r#"{"age":2}"#), 3)];
        let error = write(&source, &writes, true).await.unwrap_err();
        assert_eq!(error, SourceError::Waits { letter });
        assert_eq!(place.one("select count(*) from u").await, "0", "all or none");
        write(&source, &writes[..1], true).await.unwrap();
        assert_eq!(letters(&source).await.len(), 1);
    }
}

#[tokio::test]
async fn a_change_of_the_policy_forgets_nothing() {
    for place in places().await {
        let source = waiting(&place).await;
        poison(&source, ("c:1", Some(r#"{"name":"p"}"#), 1)).await;
        write(&source, &[("c:1", Some(r#"{"name":"waits"}"#), 2)], false).await.unwrap();
        // What waits is seen, and released, though later writes would not wait any more.
        let flag = open(&place, OnPoison::Flag, 0).await;
        flag.count_dead_letters().await.unwrap();
        assert_eq!(read(&flag, "c:1").await.unwrap(), r#"{"name":"waits"}"#);
        let commit = write(&flag, &[("c:1", Some(r#"{"name":"passes"}"#), 3)], false).await.unwrap();
        assert!(commit.waiting == 0 && !commit.passed.is_empty(), "{commit:?}");
        assert_eq!(read(&flag, "c:1").await.unwrap(), r#"{"id":1,"name":"passes"}"#);
        let all = letters(&source).await;
        source.replay(&all[0]).await.unwrap();
        release(&source, "c").await;
        assert_eq!(read(&source, "c:1").await.unwrap(), r#"{"id":1,"name":"passes"}"#);
        assert_eq!(letters(&source).await, []);
    }
}

/// Whatever is written, in whatever batches: once the letter is replayed the row is as if nothing had waited.
#[tokio::test]
async fn what_has_waited_comes_to_the_same_as_what_has_not() {
    for place in places().await {
        let source = waiting(&place).await;
        let mut random = StdRng::seed_from_u64(11);
        for id in 1..=12 {
            let (key, model) = (format!("u:{id}"), format!("u:{}", 100 + id));
            poison(&source, (&key, Some(r#"{"name":"p","city":"P"}"#), 1)).await;
            write(&source, &[(&model, Some(r#"{"name":"p","city":"P"}"#), 1)], false).await.unwrap();
            let mut version = 1;
            for _ in 0..random.random_range(1..10) {
                let bodies: Vec<Option<String>> = (0..random.random_range(1..4))
                    .map(|_| {
                        let n = random.random_range(0..100);
                        match random.random_range(0..5) {
                            0 => None,
                            1 => Some(format!(r#"{{"name":"n{n}"}}"#)),
                            2 => Some(format!(r#"{{"age":{n},"city":"c{n}"}}"#)),
                            3 => Some(r#"{"city":null}"#.to_owned()),
                            _ => Some(format!(r#"{{"name":"n{n}","age":{n}}}"#)),
                        }
                    })
                    .collect();
                for key in [&key, &model] {
                    let versions = version + 1..;
                    let writes: Vec<Wrote<'_>> = bodies
                        .iter()
                        .zip(versions)
                        .map(|(body, v)| (key.as_str(), body.as_deref(), v))
                        .collect();
                    write(&source, &writes, false).await.unwrap();
                }
                version += bodies.len() as u64;
            }
        }
        for key in (1..=12).map(|id| format!("u:{id}")) {
            let of_key = letters(&source).await.into_iter().filter(|letter| letter.key == key).count();
            assert!(of_key <= 3, "of {key} {of_key}: behind the first a deletion and a row at most");
        }
        for letter in letters(&source).await.iter().filter(|letter| !letter.held) {
            source.replay(letter).await.unwrap();
        }
        release(&source, "u").await;
        let differ = "select count(*) from u a full join u b on b.id = a.id + 100 where (a.id < 100 or b.id > 100) \
                      and (coalesce(a.name, '-') || coalesce(a.age, -1) || coalesce(a.city, '-')) is distinct from \
                      (coalesce(b.name, '-') || coalesce(b.age, -1) || coalesce(b.city, '-'))";
        assert_eq!(place.one(differ).await, "0");
        assert_ne!(place.one("select count(*) from u where id < 100").await, "0");
    }
}
