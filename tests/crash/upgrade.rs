//! A proxy that finds a journal of another version of the program.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dsproxy::journal::{Durable, Item, Journal, JournalError, JournalOptions, Sink};
use dsproxy::writeback::record::{self, Operation, Record};

use crate::check::Store;
use crate::support::{Resp, SharedStack};
use crate::victim::{Setup, Victim};

/// A payload as it is.
struct Raw(Vec<u8>, u32);

impl Item for Raw {
    fn size(&self) -> usize {
        self.0.len()
    }
    fn encode(&mut self, _: u64, out: &mut Vec<u8>) -> u32 {
        out.append(&mut self.0);
        self.1
    }
}

struct Silent;

impl Sink<Raw> for Silent {
    fn durable(&mut self, items: &mut Vec<Durable<Raw>>) {
        items.clear();
    }
    fn failed(&mut self, _: Vec<Raw>, error: &JournalError) {
        panic!("{error}");
    }
    fn poisoned(&self, reason: &str) {
        panic!("{reason}");
    }
}

fn write(mapping: &str, key: String, operation: Operation) -> Record {
    Record {
        mapping: mapping.into(),
        key: key.into(),
        operation,
        value: Bytes::from_static(b"v"),
        base: None,
        fence: None,
    }
}

fn named(columns: &[(&str, &str)]) -> Vec<record::Named> {
    columns.iter().map(|(name, text)| (Box::from(*name), Some(Box::from(*text)))).collect()
}

/// The journal of a proxy that died, with `format` as the format of its records: two rows in one unit, one of which is deleted
/// later, and a row of the log.
fn journal(directory: &Path, prefix: &str, format: u8) {
    let options = JournalOptions { segment_bytes: 4096, ..JournalOptions::default() };
    let journal = Journal::open(directory, options).unwrap().start(Silent).unwrap();
    let row = |n: u32| {
        let columns = named(&[("writer", "1"), ("seq", &n.to_string())]);
        write("kv", format!("{prefix}kv:{n}"), Operation::Put(columns))
    };
    let entry = write("log", format!("{prefix}log:1"), Operation::Append(named(&[("value", "old")])));
    let gone = write("kv", format!("{prefix}kv:1"), Operation::Delete);
    for (version, unit) in
        [(1_700_000_000_000_000_u64, vec![row(1), row(2)]), (1_700_000_000_000_007, vec![entry, gone])]
    {
        let mut payload = record::encode(&unit);
        payload[0] = format;
        record::set_version(&mut payload, version);
        assert!(journal.append(Raw(payload, unit.len() as u32)).is_ok());
    }
    journal.close();
}

fn proxy(stack: &SharedStack, store: &Store, data: &Path) -> Victim {
    Victim::new(Setup::new(stack.redis_nodes(), &store.url()).prefix(stack.key_prefix()).data(data))
}

#[test]
fn a_journal_of_an_older_version_is_applied_once() {
    let (stack, data) = (SharedStack::get(), tempfile::tempdir().unwrap());
    let store = Store::postgres(stack.fresh_database());
    // Format 1: before versions had the number of their writer.
    journal(data.path(), stack.key_prefix(), 1);
    let mut proxy = proxy(&stack, &store, data.path());
    for round in 0..2 {
        proxy.start(None);
        proxy.wait_flushed(Duration::from_secs(20));
        assert_eq!(store.rows("select id, seq from kv"), [["2", "2"]], "round {round}");
        assert_eq!(store.rows("select value from log"), [["old"]], "round {round}");
        proxy.kill();
    }
    // Newer writes win over the old ones.
    proxy.start(None);
    let (mut client, key) =
        (Resp::connect(("127.0.0.1", proxy.port())), format!("{}kv:2", stack.key_prefix()));
    assert_eq!(client.cmd(&["SET", &key, r#"{"writer":1,"seq":99}"#]).text(), "OK");
    proxy.wait_flushed(Duration::from_secs(20));
    assert_eq!(store.rows("select id, seq from kv"), [["2", "99"]]);
}

#[test]
fn a_journal_of_a_newer_version_is_refused_and_left_alone() {
    let (stack, data) = (SharedStack::get(), tempfile::tempdir().unwrap());
    let store = Store::postgres(stack.fresh_database());
    journal(data.path(), stack.key_prefix(), 250);
    let bytes = || {
        let files = std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|e| e == "journal"));
        files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let before = bytes();
    let mut proxy = proxy(&stack, &store, data.path());
    proxy.spawn(None);
    let text = proxy.wait_end();
    assert!(text.contains("format 250, which this version of dsproxy cannot read"), "{text}");
    assert_eq!(bytes(), before, "nothing is touched");
    assert!(store.rows("select id from kv").is_empty());
}
