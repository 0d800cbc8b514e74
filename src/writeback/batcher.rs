//! Brings the writes of one mapping to the database, batch after batch.
//!
//! Must not know: where writes come from.
//!
//! One batch of a lane is under way at a time, so writes of a key keep their order. Few writes leave together, whatever
//! their lanes; under a backlog each lane has a batch of its own, and they leave at the same time. A failure that may pass
//! is retried for ever; a row that the database refuses is found by halving the batch, and its neighbours are applied.
//!
//! Where many write, a batch waits until `batch_pause` after the beginning of the one before, unless it is full: the larger it
//! is, the cheaper is each row for the database, the nodes and the proxy.
//!
//! While the cache is told of one round of batches the next one is committed: the two keep different servers busy. A lane's
//! writes are told in their order, too, one round after the other.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::entry::Entry;
use super::queue::{Due, Queue};
use super::record::{LANES, lane_of_sum};
use super::shared::Shared;
use crate::failpoint;
use crate::mapping::MappingId;
use crate::source::{Applied, Backoff, Batch, Commit, Once, Refused, SourceError, Touched, Versioned};

/// Runs until the proxy closes and nothing waits.
pub(super) async fn run(shared: Arc<Shared>, mapping: MappingId) {
    let Some(queue) = shared.queue(mapping) else { return };
    let mut telling = JoinSet::new();
    let most = shared.options.max_batch_rows.max(1);
    let mut pause = Instant::now();
    while due(queue, most, pause).await {
        pause = Instant::now() + shared.options.batch_pause;
        let batches = queue.batches(most);
        // Tasks of their own, so that they use several cores; they end with this one.
        let mut flushes = JoinSet::new();
        for batch in batches {
            let shared = shared.clone();
            flushes.spawn(async move {
                let pieces = match shared.queue(mapping) {
                    Some(queue) => flush(&shared, mapping, queue, &batch).await,
                    None => Vec::new(),
                };
                (batch, pieces)
            });
        }
        let committed = flushes.join_all().await;
        std::mem::take(&mut telling).join_all().await;
        for (batch, pieces) in committed {
            let shared = shared.clone();
            telling.spawn(async move {
                let Some(queue) = shared.queue(mapping) else { return };
                for (range, outcome) in pieces {
                    settle(&shared, mapping, queue, batch.get(range).unwrap_or_default(), outcome).await;
                }
            });
        }
    }
    telling.join_all().await;
}

/// Waits for the next batch; `false` when there will be none.
async fn due(queue: &Queue, full: usize, pause: Instant) -> bool {
    loop {
        match queue.due(full, pause) {
            Due::Now => return true,
            Due::Never => return false,
            Due::Idle => queue.woken().await,
            Due::At(at) => {
                // Elapsed or woken: either way the question is asked again.
                let _ = tokio::time::timeout_at(at.into(), queue.woken()).await;
            }
        }
    }
}

/// Applies `batch`, in pieces where it must be, which are answered in their order: what became of each. When this returns
/// every row is committed or rejected; when it is dropped the rest still waits in the queue.
async fn flush(
    shared: &Shared,
    mapping: MappingId,
    queue: &Queue,
    batch: &[Arc<Entry>],
) -> Vec<(Range<usize>, Outcome)> {
    let (mut left, mut done) = (vec![(0, batch.len())], Vec::new());
    while let Some((start, end)) = left.pop() {
        let piece = batch.get(start..end).unwrap_or_default();
        let outcome = match apply(shared, mapping, piece, None).await {
            Ok(commit) => Outcome::Committed(commit),
            Err(_) if piece.len() > 1 => {
                let middle = start + piece.len() / 2;
                left.extend([(middle, end), (start, middle)]); // the first half first: order per key
                continue;
            }
            Err(refusal) => {
                for entry in piece {
                    reject(shared, mapping, entry, &refusal);
                }
                // Its dead letter cannot be refused for what is in it; whatever else it is, it passes.
                while apply(shared, mapping, piece, Some(&refusal)).await.is_err() {
                    tokio::time::sleep(shared.options.retry_most).await;
                }
                Outcome::Rejected
            }
        };
        queue.applied(piece);
        done.push((start..end, outcome));
    }
    done
}

/// What became of a piece.
enum Outcome {
    /// It is committed.
    Committed(Commit),
    /// It is in the dead letters.
    Rejected,
}

/// The piece is committed, or was rejected: the cache is told, then readers are on their own, then the journal may forget it.
async fn settle(shared: &Shared, mapping: MappingId, queue: &Queue, piece: &[Arc<Entry>], outcome: Outcome) {
    failpoint::hit("flush.committed");
    queue.arrived(piece).await;
    let mut told = queue.to_tell(piece, matches!(outcome, Outcome::Rejected));
    let mut touched = Touched::default();
    if let Outcome::Committed(commit) = outcome {
        touched = commit.touched;
        // Of several writes of one key the last one counts, and all of them have the same answer.
        let counting = piece.iter().filter(|entry| entry.counts()).map(|entry| &entry.key);
        let mut held: FxHashMap<_, _> = counting.zip(commit.held).collect();
        told.iter_mut().for_each(|committed| committed.held = held.remove(&committed.key));
    }
    queue.keep_recent(&told, &shared.options);
    let (untold, ()) = tokio::join!(
        shared.observer.committed(mapping, told.clone()),
        touch(shared, mapping, queue, touched, piece.iter().map(|entry| entry.sequence).min()),
    );
    failpoint::hit("flush.told");
    queue.settle(piece, &told, untold, shared.options.max_untold / LANES, &shared.budget);
    failpoint::hit("flush.settled");
    shared.trim();
}

/// Outdates what depends on the touched rows, or keeps it in mind until that is done.
async fn touch(shared: &Shared, mapping: MappingId, queue: &Queue, touched: Touched, oldest: Option<u64>) {
    if !touched.is_nothing() && !shared.observer.touched(mapping, touched.clone()).await {
        queue.keep_untouched(touched, oldest.unwrap_or_default());
    }
}

/// Tells the cache again what it could not be told, until the proxy ends.
pub(super) async fn retell(shared: Arc<Shared>, mapping: MappingId) {
    let Some(queue) = shared.queue(mapping) else { return };
    let mut backoff = Backoff::new(shared.options.retry_first, shared.options.retry_most);
    let most = shared.options.max_untold / LANES;
    loop {
        queue.forget_retold(shared.options.longest_read);
        let untold = queue.untold(shared.options.max_batch_rows, most);
        if untold.is_empty() && queue.untouched().is_none() {
            backoff = Backoff::new(shared.options.retry_first, shared.options.retry_most);
            tokio::time::sleep(shared.options.retry_most.min(RETELL)).await;
            continue;
        }
        tokio::time::sleep(backoff.next_wait()).await;
        if let Some(touched) = queue.untouched()
            && shared.observer.touched(mapping, touched.clone()).await
        {
            queue.forget_untouched(&touched);
        }
        let still = shared.observer.committed(mapping, untold.clone()).await;
        for committed in untold.iter().filter(|committed| !still.iter().any(|s| s.key == committed.key)) {
            queue.lane(&committed.key).told(committed, most);
        }
        shared.trim();
    }
}

/// Time between two looks for keys that the cache could not be told of.
const RETELL: Duration = Duration::from_millis(100);

fn reject(shared: &Shared, mapping: MappingId, entry: &Entry, refusal: &SourceError) {
    let column = match refusal {
        SourceError::BadData { column, constraint, .. } => column.as_deref().or(constraint.as_deref()),
        _ => None,
    };
    error!(
        mapping = name(shared, mapping),
        key = %String::from_utf8_lossy(&entry.key),
        column = column.unwrap_or("-"),
        sqlstate = refusal.code().unwrap_or("-"),
        error = %refusal,
        "the database refused a row; it goes to the dead letters (`dsproxy dlq`)"
    );
    shared.observer.rejected(mapping, &entry.key, refusal);
}

/// One transaction, until it is committed: the rows of `piece`, or, when they are refused, their dead letters. An error means:
/// this piece as it is will never be.
async fn apply(
    shared: &Shared,
    mapping: MappingId,
    piece: &[Arc<Entry>],
    refusal: Option<&SourceError>,
) -> Result<Commit, SourceError> {
    failpoint::hit("flush.begin");
    let counting = || piece.iter().filter(|entry| entry.counts());
    let (mut writes, mut refused) = (Vec::new(), Vec::new());
    for entry in counting() {
        let value = entry.value.as_ref();
        let write = Versioned { change: &entry.change, version: entry.version, value };
        match refusal {
            None => writes.push(write),
            Some(error) => refused.push(Refused { key: &entry.key, write, error }),
        }
    }
    let applied = advance(shared, piece);
    let once = applied.as_ref().map_or(Once::Nothing, Once::Advance);
    let alone = shared.solitude.now();
    let batch = Batch { writes: &writes, refused: &refused, once, through: false, alone: alone.as_ref() };
    let mut backoff = Backoff::new(shared.options.retry_first, shared.options.retry_most);
    loop {
        let started = Instant::now();
        let failure = match shared.source.commit(mapping, &batch).await {
            Ok(commit) => {
                if commit.waiting > 0 {
                    shared.observer.held(mapping, commit.waiting, &commit.behind);
                }
                if commit.company {
                    shared.solitude.ended(shared.clock.last());
                }
                if !commit.passed.is_empty() {
                    shared.observer.passed(mapping, &commit.passed);
                }
                shared.observer.flushed(mapping, piece.len(), started.elapsed());
                if backoff.attempts() > 0 {
                    note(shared, mapping, None);
                    info!(
                        mapping = name(shared, mapping),
                        attempts = backoff.attempts(),
                        "writing works again"
                    );
                }
                return Ok(commit);
            }
            Err(failure @ SourceError::Fenced { .. }) => {
                shared.fence(&failure);
                // What waits is another proxy's now. Only the end of this one ends this.
                return std::future::pending().await;
            }
            Err(failure) => failure,
        };
        let too_slow = failure.code() == Some("57014");
        if matches!(failure, SourceError::BadData { .. }) || (too_slow && piece.len() > 1) {
            return Err(failure); // halved by the caller
        }
        // A schema that does not fit is waited for as well: rows are not dropped because a table is being rebuilt.
        let wait = backoff.next_wait();
        warn!(
            mapping = name(shared, mapping),
            rows = piece.len(),
            attempt = backoff.attempts(),
            wait_ms = wait.as_millis() as u64,
            error = %failure,
            "cannot write to the database; the rows wait"
        );
        note(shared, mapping, Some(&failure));
        shared.observer.retrying(mapping, &failure, wait);
        tokio::time::sleep(wait).await;
    }
}

/// What `/api/v1/writeback` says of the batches of this mapping.
fn note(shared: &Shared, mapping: MappingId, failure: Option<&SourceError>) {
    if let Some(queue) = shared.queue(mapping) {
        queue.note_retry(failure.map(SourceError::to_string));
    }
}

/// How far the journal is applied with `piece`, where it is journaled.
fn advance(shared: &Shared, piece: &[Arc<Entry>]) -> Option<Applied> {
    let (source, epoch) = shared.claim()?;
    let mut offsets = [0; LANES];
    for entry in piece {
        if let Some(offset) = offsets.get_mut(lane_of_sum(entry.sum)) {
            *offset = entry.sequence.max(*offset);
        }
    }
    let offsets: Vec<_> = (0..).zip(offsets).filter(|(_, offset)| *offset > 0).collect();
    (!offsets.is_empty()).then_some(Applied { source, epoch, offsets })
}

fn name(shared: &Shared, mapping: MappingId) -> &str {
    shared.source.mappings().get(mapping).map_or("?", |m| &m.name)
}
