//! Between the queues and the journal: a unit of writes gets its versions as it is written, and is queued once it is on the
//! disk.
//!
//! Must not know: who waits for a unit, files.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::entry::{Arrival, Stamp};
use super::record::{self, Operation, Record};
use super::shared::Shared;
use super::unit::Trial;
use super::{WriteError, record_of};
use crate::clock::{Clock, STEP};
use crate::journal::{Durable, Item, JournalError, Sink};
use crate::mapping::MappingId;

/// Told once what became of a unit: the versions of its writes, or why there are none. May be called from any thread and must
/// not block.
pub type Done = Box<dyn FnOnce(Result<Vec<u64>, WriteError>) + Send>;

/// A unit on its way into the journal.
pub struct Staged {
    payload: Vec<u8>,
    arrivals: Vec<(MappingId, Arrival)>,
    entries: u32,
    version: u64,
    clock: Arc<Clock>,
    done: Option<Done>,
}

impl Staged {
    /// `trial`: of a unit that counts only once it is confirmed.
    pub(super) fn new(
        shared: &Shared,
        writes: Vec<super::KeyWrite>,
        trial: Option<Trial>,
        done: Done,
    ) -> Result<Self, WriteError> {
        let mut records = Vec::with_capacity(writes.len());
        for write in &writes {
            let queue = shared.queue(write.mapping).ok_or(WriteError::ReadOnly)?;
            let fence = trial.map(|trial| trial.fence);
            records.push(Record { fence, ..record_of(&queue.bound, write) });
        }
        let unit = trial.map(|trial| trial.unit);
        let arrival = |write: super::KeyWrite| (write.mapping, Arrival::new(write).of_unit(unit));
        let arrivals: Vec<_> = writes.into_iter().map(arrival).collect();
        let entries = arrivals.len() as u32;
        let (payload, clock) = (record::encode(&records), shared.clock.clone());
        Ok(Self { payload, arrivals, entries, version: 0, clock, done: Some(done) })
    }

    /// Says that the conditional write with this version never was; nobody waits for it.
    pub(super) fn withdraw(shared: &Shared, version: u64) -> Self {
        Self::verdicts(shared, vec![Operation::Withdraw(version)], None)
    }

    /// Says what counts of what was written before.
    pub(super) fn verdicts(shared: &Shared, verdicts: Vec<Operation>, done: Option<Done>) -> Self {
        let records: Vec<Record> = verdicts.into_iter().map(Record::verdict).collect();
        let (payload, clock) = (record::encode(&records), shared.clock.clone());
        Self { payload, arrivals: Vec::new(), entries: records.len() as u32, version: 0, clock, done }
    }

    /// Rows and bytes that it takes of the limits.
    pub(super) fn size_of_rows(&self) -> (usize, usize) {
        (self.arrivals.len(), self.arrivals.iter().map(|(_, arrival)| arrival.size).sum())
    }
}

impl Item for Staged {
    fn size(&self) -> usize {
        self.payload.len()
    }

    fn encode(&mut self, _first: u64, out: &mut Vec<u8>) -> u32 {
        self.version = self.clock.take(u64::from(self.entries));
        record::set_version(&mut self.payload, self.version);
        out.append(&mut self.payload);
        self.entries
    }
}

/// Takes what is on the disk into the queues, in the journal's order.
pub(super) struct Intake(pub(super) Weak<Shared>);

impl Sink<Staged> for Intake {
    fn durable(&mut self, items: &mut Vec<Durable<Staged>>) {
        let Some(shared) = self.0.upgrade() else { return items.clear() };
        for Durable { first, item } in items.drain(..) {
            let (count, version) = (u64::from(item.entries), item.version);
            let versions: Vec<u64> = (0..count).map(|at| version + at * STEP).collect();
            let outcome = take_in(&shared, first, &versions, item.arrivals).map(|()| versions);
            shared.taken_in(first + count - 1, version + (count - 1) * STEP);
            shared.landed();
            if let Some(done) = item.done {
                shared.pace.tell(&shared, done, outcome);
            }
        }
    }

    fn failed(&mut self, items: Vec<Staged>, error: &JournalError) {
        let Some(shared) = self.0.upgrade() else { return };
        for item in items {
            let (rows, bytes) = item.size_of_rows();
            shared.budget.give_back(rows, bytes);
            shared.landed();
            if let Some(done) = item.done {
                shared.pace.tell(&shared, done, Err(WriteError::Journal(error.clone())));
            }
        }
    }

    fn poisoned(&self, reason: &str) {
        if let Some(shared) = self.0.upgrade() {
            shared.observer.poisoned(reason);
        }
    }
}

/// Queues what a unit has become in the journal.
fn take_in(
    shared: &Shared,
    first: u64,
    versions: &[u64],
    arrivals: Vec<(MappingId, Arrival)>,
) -> Result<(), WriteError> {
    let (mut outcome, mut taken) = (Ok(()), Vec::new());
    for ((version, sequence), (mapping, arrival)) in versions.iter().copied().zip(first..).zip(arrivals) {
        let stamp = Stamp::Journaled { version, sequence };
        let (size, one) = (arrival.size, arrival.in_trial().then(|| (mapping, arrival.key.clone(), version)));
        let pushed = match (&outcome, &one) {
            (Err(error), Some(_)) => Err(WriteError::clone(error)),
            _ => shared.queue(mapping).ok_or(WriteError::ReadOnly).and_then(|q| q.push(arrival, stamp)),
        };
        match pushed {
            Ok(_) => taken.extend(one),
            Err(error) => {
                // A conditional write that another has outrun: it is in the journal, so it is taken back there.
                shared.budget.give_back(1, size);
                shared.withdraw(version);
                outcome = Err(error);
            }
        }
    }
    if outcome.is_err() {
        shared.take_back(&taken);
    }
    outcome
}

/// What somebody is still to be told.
type Held = (Done, Result<Vec<u64>, WriteError>);

/// Slows acknowledgements down while too much waits for the database: who is told late writes late again. The order stays.
#[derive(Default)]
pub(super) struct Pace {
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    held: VecDeque<Held>,
    /// A task lets them through; whatever comes meanwhile stands behind.
    runs: bool,
}

/// Longest pause between two handfuls of acknowledgements.
const LONGEST: Duration = Duration::from_millis(50);
/// Acknowledgements let through between two pauses.
const HANDFUL: usize = 64;

impl Pace {
    /// Tells now, or, above the high-water mark, in a moment.
    fn tell(&self, shared: &Arc<Shared>, done: Done, outcome: Result<Vec<u64>, WriteError>) {
        let mut line = self.lock();
        if !line.runs && shared.pressure() < shared.options.high_water {
            drop(line);
            return done(outcome);
        }
        line.held.push_back((done, outcome));
        if !std::mem::replace(&mut line.runs, true) {
            let shared = shared.clone();
            shared.runtime.clone().spawn(async move { shared.pace.let_through(&shared).await });
        }
    }

    async fn let_through(&self, shared: &Shared) {
        loop {
            let mark = shared.options.high_water;
            let above = ((shared.pressure() - mark) / (1.0 - mark).max(0.001)).clamp(0.0, 1.0);
            tokio::time::sleep(LONGEST.mul_f64(above)).await;
            let some: Vec<Held> = {
                let mut line = self.lock();
                let most = if above > 0.0 { HANDFUL } else { usize::MAX };
                let count = most.min(line.held.len());
                line.runs = count > 0;
                line.held.drain(..count).collect()
            };
            if some.is_empty() {
                return;
            }
            some.into_iter().for_each(|(done, outcome)| done(outcome));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
