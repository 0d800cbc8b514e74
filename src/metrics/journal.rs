//! What the journal counts and shows.
//!
//! Must not know: files, what a record is.

use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Histogram, HistogramOpts, IntCounter, Registry};

use super::register;
use super::worker::{family, gauge, identity};

/// Buckets for the time of a sync: 20 us to 5 s.
const SYNC: [f64; 16] = [
    0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// Buckets for the records of one sync.
const RECORDS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];

/// The counters of the journal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JournalMetrics {
    /// Seconds of a sync.
    pub fsync: Histogram,
    /// Records that one sync made durable.
    pub batch_records: Histogram,
    /// Bytes written.
    pub bytes: IntCounter,
    /// Records refused: a limit was reached.
    pub refused: IntCounter,
    /// Records taken and then not written: the disk failed.
    pub failed: IntCounter,
}

impl Default for JournalMetrics {
    /// Counters that nobody sees.
    fn default() -> Self {
        // Names are constants; the tests of this floor would fail on a malformed one.
        Self::build(&Registry::new()).expect("the families' names are constants, each used once")
    }
}

impl JournalMetrics {
    pub(super) fn build(registry: &Registry) -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> prometheus::Result<Histogram> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            register(registry, histogram.clone())?;
            Ok(histogram)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            register(registry, counter.clone())?;
            Ok(counter)
        };
        Ok(Self {
            fsync: histogram("dsproxy_journal_fsync_seconds", "Time of one sync of the journal.", &SYNC)?,
            batch_records: histogram(
                "dsproxy_journal_batch_records",
                "Records that one sync of the journal made durable.",
                &RECORDS,
            )?,
            bytes: counter("dsproxy_journal_written_bytes_total", "Bytes written to the journal.")?,
            refused: counter(
                "dsproxy_journal_refused_total",
                "Records that the journal refused: it was full, or its disk had failed.",
            )?,
            failed: counter(
                "dsproxy_journal_failed_total",
                "Records that the journal had taken and could not write.",
            )?,
        })
    }
}

/// How a journal stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JournalDepth {
    /// Entries that are not in the database yet.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that may wait.
    pub limit: u64,
    /// Age of the oldest.
    pub oldest: Duration,
    /// Segments on the disk.
    pub segments: u64,
    /// Whether it takes nothing any more.
    pub poisoned: bool,
}

type Ask = dyn Fn() -> JournalDepth + Send + Sync;

/// Shows how the journal stands, asked at every scrape.
pub struct JournalCollector {
    ask: Box<Ask>,
    first: Desc,
}

impl JournalCollector {
    /// `ask` gives how it stands.
    ///
    /// # Errors
    /// Never in practice: the name of the first family is a valid one.
    pub fn new(ask: impl Fn() -> JournalDepth + Send + Sync + 'static) -> prometheus::Result<Self> {
        Ok(Self { ask: Box::new(ask), first: identity("dsproxy_journal_entries")? })
    }
}

impl Collector for JournalCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.first]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let depth = (self.ask)();
        let one = |name, help, value: f64| family(name, help, vec![gauge(&[], value)], MetricType::GAUGE);
        vec![
            one(
                "dsproxy_journal_entries",
                "Journaled writes that are not in the database.",
                depth.entries as f64,
            ),
            one(
                "dsproxy_journal_bytes",
                "Bytes of the journaled writes that are not in the database.",
                depth.bytes as f64,
            ),
            one(
                "dsproxy_journal_limit_bytes",
                "Bytes at which the journal refuses writes.",
                depth.limit as f64,
            ),
            one(
                "dsproxy_journal_oldest_seconds",
                "Age of the oldest journaled write that is not in the database; 0 when there is none.",
                depth.oldest.as_secs_f64(),
            ),
            one("dsproxy_journal_segments", "Files of the journal.", depth.segments as f64),
            one(
                "dsproxy_journal_poisoned",
                "1 when a write or sync of the journal has failed and writes are refused.",
                f64::from(u8::from(depth.poisoned)),
            ),
        ]
    }
}
