//! Who writes: numbers that nobody else has, and versions that nobody needs any more; in both databases.

use dsproxy::clock::{Clock, STEP, WRITERS};
use dsproxy::source::{Batch, Letters, Once, Refused, Source, SourceError, Standing, Versioned, Writer};

use crate::ledger::{Place, commit, put};

fn writer(id: &str, epoch: i64, journaled: bool) -> Writer {
    Writer { id: id.to_owned(), epoch, journaled }
}

async fn bound(source: &Source, writer: &Writer, needed: Option<u64>) -> u64 {
    let Standing { known, bound } = source.note(writer, needed, 1).await.unwrap();
    assert!(known, "{writer:?}");
    bound
}

#[tokio::test]
async fn no_two_writers_have_one_number_and_each_keeps_its_own() {
    for place in Place::both().await {
        let source = place.source().await;
        let [a, b] = [writer("a", 1, true), writer("b", 1, true)];
        let (first, second) = tokio::join!(source.register(&a), source.register(&b));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_ne!(first.number, second.number);
        // The same microsecond, another version: what made two writes of one key undecidable.
        let (one, other) = (Clock::default(), Clock::default());
        one.set_writer(first.number);
        other.set_writer(second.number);
        let both = [one.take(1000), other.take(1000)].map(|first| (0..1000).map(move |at| first + at * STEP));
        let mut all: Vec<u64> = both.into_iter().flatten().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2000);
        // A restart has the number of before, and hears how far it was.
        source.note(&a, Some(7), 99).await.unwrap();
        let again = source.register(&writer("a", 2, true)).await.unwrap();
        assert_eq!((again.number, again.last), (first.number, 99));
        // The process of before is told that it is not the one any more, and does not move the bound.
        assert!(!source.note(&a, Some(1_000_000), 1_000_000).await.unwrap().known);
        assert_eq!(bound(&source, &b, Some(50)).await, 7);
    }
}

#[tokio::test]
async fn when_all_numbers_are_taken_only_what_is_gone_without_a_journal_gives_way() {
    for place in Place::both().await {
        let source = place.source().await;
        let all = format!(
            "insert into dsproxy_writers (number, id, epoch, journaled, needed, last) \
             with recursive n(n) as (select 0 union all select n + 1 from n where n < {WRITERS} - 1) \
             select n, cast(n as text), 1, n % 2 = 0, 0, 0 from n"
        );
        place.execute(&all).await;
        let full = source.register(&writer("new", 1, true)).await.unwrap_err();
        assert!(
            matches!(&full, SourceError::Schema { .. }) && full.to_string().contains("dsproxy_writers"),
            "{full}"
        );
        // One without a journal has ended; its successor's clock is moved beyond what it has given.
        source.note(&writer("777", 1, false), None, 123_456).await.unwrap();
        let seat = source.register(&writer("new", 1, true)).await.unwrap();
        assert_eq!((seat.number, seat.last), (777, 123_456));
        // One with a journal has ended as well: its journal may be started again.
        source.note(&writer("778", 1, true), None, 1).await.unwrap();
        assert!(source.register(&writer("newer", 1, true)).await.is_err());
    }
}

#[tokio::test]
async fn versions_go_when_no_writer_and_no_dead_letter_needs_them() {
    for place in Place::both().await {
        let source = place.source().await;
        let count = "select count(*) from dsproxy_versions";
        let [alive, dead] = [writer("alive", 1, true), writer("dead", 1, true)];
        source.register(&alive).await.unwrap();
        for key in 1..=3 {
            let rows = [put(&source, &format!("u:{key}"), r#"{"age":1}"#)];
            commit(&source, &rows, &[key * 10], Once::Nothing).await.unwrap();
        }
        assert_eq!(bound(&source, &alive, Some(25)).await, 25);
        source.register(&dead).await.unwrap();
        assert_eq!(bound(&source, &alive, Some(25)).await, 0, "nobody knows yet what its journal holds");
        bound(&source, &dead, Some(15)).await;
        assert_eq!(bound(&source, &alive, Some(25)).await, 15);
        assert_eq!(source.prune(15).await.unwrap(), 1);
        // A dead letter of version 12 may be applied to any key of its mapping: what guards them stays.
        let error = SourceError::BadData {
            message: "m".into(),
            code: "23514".into(),
            column: None,
            constraint: None,
        };
        let bad = put(&source, "u:3", r#"{"age":1}"#).1;
        let refused = [Refused {
            key: b"u:3",
            write: Versioned { change: &bad, version: 12, value: None },
            error: &error,
        }];
        source
            .commit(
                0,
                &Batch { writes: &[], refused: &refused, once: Once::Nothing, through: false, alone: None },
            )
            .await
            .unwrap();
        assert_eq!(source.prune(100).await.unwrap(), 0);
        assert_eq!(place.one(count).await, "2");
        source.drop_dead_letters(&Letters::default()).await.unwrap();
        // Its journal is lost: nobody waits for it any more.
        source.journal_lost("dead").await.unwrap();
        assert_eq!(bound(&source, &alive, Some(25)).await, 25);
        assert_eq!(source.prune(25).await.unwrap(), 1);
        assert_eq!(place.one(count).await, "1");
        // All have ended with everything applied.
        let end = bound(&source, &alive, None).await;
        assert!(end > 1 << 60);
        assert_eq!(source.prune(end).await.unwrap(), 1);
    }
}
