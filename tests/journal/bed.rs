//! A journal of texts, and a sink that remembers what it was told.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use dsproxy::journal::{Durable, Item, Journal, JournalError, JournalOptions, OpenError, Opened, Sink};

/// A text with so many entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String, pub u32);

impl Item for Text {
    fn size(&self) -> usize {
        self.0.len()
    }
    fn encode(&mut self, _: u64, out: &mut Vec<u8>) -> u32 {
        out.extend_from_slice(self.0.as_bytes());
        self.1
    }
}

#[derive(Debug, PartialEq)]
pub enum Told {
    Durable(u64, String),
    Failed(String, JournalError),
    Poisoned(String),
}

pub struct Teller(pub mpsc::Sender<Told>);

impl Sink<Text> for Teller {
    fn durable(&mut self, items: &mut Vec<Durable<Text>>) {
        for Durable { first, item } in items.drain(..) {
            let _ = self.0.send(Told::Durable(first, item.0));
        }
    }
    fn failed(&mut self, items: Vec<Text>, error: &JournalError) {
        for item in items {
            let _ = self.0.send(Told::Failed(item.0, error.clone()));
        }
    }
    fn poisoned(&self, reason: &str) {
        let _ = self.0.send(Told::Poisoned(reason.to_owned()));
    }
}

pub fn small() -> JournalOptions {
    JournalOptions { segment_bytes: 4096, ..JournalOptions::default() }
}

pub fn open(directory: &Path, options: JournalOptions) -> Result<Opened, OpenError> {
    Journal::open(directory, options)
}

pub fn start(directory: &Path, options: JournalOptions) -> (Journal<Text>, mpsc::Receiver<Told>) {
    let (send, told) = mpsc::channel();
    (open(directory, options).unwrap().start(Teller(send)).unwrap(), told)
}

pub fn next(told: &mpsc::Receiver<Told>) -> Told {
    told.recv_timeout(Duration::from_secs(20)).unwrap()
}

pub fn append(journal: &Journal<Text>, text: impl Into<String>) {
    journal.append(Text(text.into(), 1)).unwrap();
}

/// What is there: first sequence and text of every record.
pub fn records(opened: &Opened) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    opened
        .replay(|record| all.push((record.first, String::from_utf8(record.payload.to_vec()).unwrap())))
        .unwrap();
    all
}

pub fn files(directory: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = all.filter(|path| path.extension().is_some_and(|e| e == "journal")).collect();
    files.sort();
    files
}
