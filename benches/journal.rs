//! How fast the journal takes records: `cargo bench --bench journal`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use dsproxy::journal::{Durable, Item, Journal, JournalError, JournalOptions, Sink};

/// A write, and who waits for it.
#[derive(Debug)]
struct Wait(mpsc::SyncSender<()>);

impl Item for Wait {
    fn size(&self) -> usize {
        150
    }
    fn encode(&mut self, _: u64, out: &mut Vec<u8>) -> u32 {
        out.extend_from_slice(&[b'x'; 150]);
        1
    }
}

struct Answer;

impl Sink<Wait> for Answer {
    fn durable(&mut self, items: &mut Vec<Durable<Wait>>) {
        for durable in items.drain(..) {
            let _ = durable.item.0.send(());
        }
    }
    fn failed(&mut self, _: Vec<Wait>, error: &JournalError) {
        panic!("{error}");
    }
    fn poisoned(&self, _: &str) {}
}

/// `writers` writes are always on their way, from `threads` threads.
fn round(place: &std::path::Path, threads: usize, writers: usize) {
    let options = JournalOptions { max_bytes: 64 << 30, ..JournalOptions::default() };
    let metrics = options.metrics.clone();
    let journal: Journal<Wait> = Journal::open(place, options).unwrap().start(Answer).unwrap();
    let time = Duration::from_secs(2);
    let started = Instant::now();
    let total: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                let journal = journal.clone();
                scope.spawn(move || {
                    let (send, answers) = mpsc::sync_channel(writers);
                    let mut done = 0;
                    for _ in 0..writers / threads {
                        journal.append(Wait(send.clone())).unwrap();
                    }
                    while started.elapsed() < time {
                        answers.recv().unwrap();
                        done += 1;
                        // As a worker does: whatever is answered meanwhile goes on, too.
                        let mut more = 1;
                        while answers.try_recv().is_ok() {
                            (done, more) = (done + 1, more + 1);
                        }
                        for _ in 0..more {
                            journal.append(Wait(send.clone())).unwrap();
                        }
                    }
                    done
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let rate = total as f64 / started.elapsed().as_secs_f64();
    let (syncs, seconds) = (metrics.fsync.get_sample_count(), metrics.fsync.get_sample_sum());
    journal.trim(journal.stats().synced + 1);
    journal.close();
    println!(
        "{writers} writers on {threads} threads: {rate:.0} records/s, {:.1} records per sync, {:.0} us per sync",
        total as f64 / syncs as f64,
        seconds / syncs as f64 * 1e6
    );
}

fn main() {
    // In the working directory: a temporary one may be in memory.
    let place = tempfile::tempdir_in(".").unwrap();
    for (threads, writers) in [(1, 1), (2, 64), (2, 256)] {
        round(place.path(), threads, writers);
    }
}
