//! Order, group commit, limits, trimming.

use std::sync::mpsc;
use std::time::Duration;

use dsproxy::journal::{Durable, Item, Journal, JournalError, JournalOptions, Sink, inspect};

use crate::bed::{Teller, Text, Told, append, files, next, open, records, small, start};

#[test]
fn records_come_back_in_order_over_many_segments_and_starts() {
    let place = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..4 {
        let (journal, told) = start(place.path(), small());
        for n in 0..50 {
            let text = format!("{round} {}", "x".repeat(n * 7));
            append(&journal, &text);
            let sequence = expected.len() as u64 + 1;
            assert_eq!(next(&told), Told::Durable(sequence, text.clone()));
            expected.push((sequence, text));
        }
        if round % 2 == 0 {
            journal.close();
        }
        if round % 2 == 1 {
            break;
        }
    }
    // The second one was not closed; what it wrote is read by a copy, as after a kill.
    let copy = tempfile::tempdir().unwrap();
    for file in files(place.path()) {
        std::fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    assert_eq!(records(&open(copy.path(), small()).unwrap()), expected);
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own() {
    let place = tempfile::tempdir().unwrap();
    let (journal, told) = start(place.path(), small());
    let large = "L".repeat(100_000);
    for text in ["before", &large, "after"] {
        append(&journal, text);
        next(&told);
    }
    journal.close();
    let found = records(&open(place.path(), small()).unwrap());
    assert_eq!(found, [(1, "before".into()), (2, large), (3, "after".into())]);
}

#[test]
fn a_thread_that_looks_before_it_sleeps_misses_nothing() {
    let place = tempfile::tempdir().unwrap();
    let options = JournalOptions { busy_poll: Duration::from_micros(300), ..small() };
    let (journal, told) = start(place.path(), options);
    // While it looks, as it is about to sleep, and when it does.
    for n in 1..=300_u64 {
        std::thread::sleep(Duration::from_micros(n * 2));
        append(&journal, n.to_string());
        assert_eq!(next(&told), Told::Durable(n, n.to_string()));
    }
    journal.close();
    assert_eq!(open(place.path(), small()).unwrap().last(), 300);
}

#[test]
fn a_record_of_several_entries_takes_as_many_sequences() {
    let place = tempfile::tempdir().unwrap();
    let (journal, told) = start(place.path(), small());
    journal.append(Text("transaction".into(), 3)).unwrap();
    append(&journal, "next");
    assert_eq!(next(&told), Told::Durable(1, "transaction".into()));
    assert_eq!(next(&told), Told::Durable(4, "next".into()));
    assert_eq!(journal.stats().entries, 4);
    journal.close();
    assert_eq!(open(place.path(), small()).unwrap().last(), 4);
}

#[test]
fn an_empty_journal_opens_again_and_again_without_growing() {
    let place = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        start(place.path(), small()).0.close();
        assert_eq!(files(place.path()).len(), 1);
    }
}

#[test]
fn the_limits_refuse_with_the_reason_and_trimming_makes_room() {
    let place = tempfile::tempdir().unwrap();
    let options = JournalOptions { max_bytes: 3000, max_age: Duration::from_secs(3600), ..small() };
    let (journal, told) = start(place.path(), options);
    append(&journal, "x".repeat(1000));
    append(&journal, "y".repeat(1000));
    next(&told);
    next(&told);
    assert!(journal.pressure() > 0.6, "{}", journal.pressure());
    let refused = journal.append(Text("z".repeat(1000), 1)).unwrap_err();
    assert_eq!(refused.item.0.len(), 1000, "the item comes back");
    assert!(matches!(refused.error, JournalError::Full { limit: 3000, .. }), "{}", refused.error);
    let refused = journal.append(Text("z".repeat(4000), 1)).unwrap_err();
    assert!(matches!(refused.error, JournalError::TooLarge { .. }), "{}", refused.error);
    journal.trim(3);
    while journal.append(Text("z".repeat(1000), 1)).is_err() {
        std::thread::yield_now();
    }
    assert_eq!(next(&told), Told::Durable(3, "z".repeat(1000)));
    journal.close();
    let refused = journal.append(Text("late".into(), 1)).unwrap_err();
    assert_eq!(refused.error, JournalError::Closed);
}

#[test]
fn a_record_that_waits_too_long_stops_new_ones() {
    let place = tempfile::tempdir().unwrap();
    let (journal, told) =
        start(place.path(), JournalOptions { max_age: Duration::from_millis(20), ..small() });
    append(&journal, "old");
    next(&told);
    let refused = loop {
        if let Err(refused) = journal.append(Text("new".into(), 1)) {
            break refused;
        }
        std::thread::yield_now();
    };
    assert!(matches!(refused.error, JournalError::TooOld { .. }), "{}", refused.error);
    journal.close();
}

/// Holds the journal's thread until it is let go.
struct Gate(mpsc::Receiver<()>);

impl Sink<Text> for Gate {
    fn durable(&mut self, items: &mut Vec<Durable<Text>>) {
        items.clear();
        let _ = self.0.recv();
    }
    fn failed(&mut self, _: Vec<Text>, _: &JournalError) {}
    fn poisoned(&self, _: &str) {}
}

#[test]
fn a_disk_that_is_too_slow_is_not_waited_for_without_bound() {
    let place = tempfile::tempdir().unwrap();
    let (open_gate, gate) = mpsc::channel();
    let options = JournalOptions { inbox_records: 10, ..small() };
    let journal = open(place.path(), options).unwrap().start(Gate(gate)).unwrap();
    let mut taken = 0;
    let refused = loop {
        match journal.append(Text("x".into(), 1)) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
        assert!(taken <= 30);
    };
    assert_eq!(refused.error, JournalError::Busy { waiting: 10 });
    drop(open_gate);
    journal.close();
}

#[test]
fn what_waits_while_a_sync_runs_is_one_batch() {
    let place = tempfile::tempdir().unwrap();
    let (open_gate, gate) = mpsc::channel();
    let options = small();
    let metrics = options.metrics.clone();
    let journal = open(place.path(), options).unwrap().start(Gate(gate)).unwrap();
    append(&journal, "first");
    while journal.stats().synced < 1 {
        std::thread::yield_now();
    }
    for n in 0..50 {
        append(&journal, format!("{n}"));
    }
    drop(open_gate);
    journal.close();
    assert_eq!(metrics.fsync.get_sample_count(), 2, "one sync for the first, one for the other fifty");
}

/// An item whose encoder has a bug.
#[derive(Debug)]
struct Broken;

impl Item for Broken {
    fn size(&self) -> usize {
        1
    }
    fn encode(&mut self, _: u64, _: &mut Vec<u8>) -> u32 {
        panic!("a bug")
    }
}

impl Sink<Broken> for () {
    fn durable(&mut self, _: &mut Vec<Durable<Broken>>) {}
    fn failed(&mut self, _: Vec<Broken>, _: &JournalError) {}
    fn poisoned(&self, _: &str) {}
}

#[test]
fn a_bug_in_an_item_poisons_instead_of_hanging() {
    let place = tempfile::tempdir().unwrap();
    let journal: Journal<Broken> = open(place.path(), small()).unwrap().start(()).unwrap();
    journal.append(Broken).unwrap();
    while journal.stats().poisoned.is_none() {
        std::thread::yield_now();
    }
    assert!(matches!(journal.append(Broken).unwrap_err().error, JournalError::Poisoned(_)));
    journal.close();
}

#[test]
fn inspect_prints_every_record_by_the_callers_printer() {
    let place = tempfile::tempdir().unwrap();
    let (send, told) = mpsc::channel();
    let journal = open(place.path(), small()).unwrap().start(Teller(send)).unwrap();
    append(&journal, "hello");
    next(&told);
    journal.close();
    let mut out = Vec::new();
    let damaged =
        inspect(place.path(), &mut out, &|payload| String::from_utf8_lossy(payload).to_uppercase()).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        damaged == 0 && text.contains("HELLO") && text.contains("1 records") && text.contains("closed"),
        "{text}"
    );
}
