//! The lines of commands before their keys.
//!
//! Must not know: what a command does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntGauge;
use rustc_hash::FxHashMap;

use super::compute::Asked;
use super::round::{Round, round};
use super::{Done, Shared};
use crate::mapping::MappingId;
use crate::resp::push_error;

/// Commands that make one write together, at most.
const TOGETHER: usize = 1024;
/// Longest pause before a command is computed anew.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// One command that waits for its reply; it gets one whatever happens.
pub(super) struct Job {
    pub asked: Asked,
    done: Option<Done>,
    waiting: IntGauge,
}

impl Job {
    pub fn new(asked: Asked, done: Done, waiting: IntGauge) -> Self {
        waiting.inc();
        Self { asked, done: Some(done), waiting }
    }

    pub fn answer(mut self, reply: Vec<u8>) {
        if let Some(done) = self.done.take() {
            done(reply);
        }
    }

    pub fn fail(self, text: &str) {
        let mut reply = Vec::new();
        push_error(&mut reply, text);
        self.answer(reply);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.waiting.dec();
        if let Some(done) = self.done.take() {
            let mut reply = Vec::new();
            push_error(&mut reply, "ERR the proxy is shutting down; the outcome of the command is unknown");
            done(reply);
        }
    }
}

/// Key of a line.
type Place = (MappingId, Bytes);

/// One line per key that has a task.
#[derive(Default)]
pub(super) struct Lines {
    by_key: Mutex<FxHashMap<Place, VecDeque<Job>>>,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<Place, VecDeque<Job>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a command at the end of its line; true when the line is new, and needs a task.
    pub fn join(&self, mapping: MappingId, key: &Bytes, job: Job) -> bool {
        let mut lines = self.lock();
        let line = lines.entry((mapping, key.clone()));
        let is_new = matches!(line, std::collections::hash_map::Entry::Vacant(_));
        line.or_default().push_back(job);
        is_new
    }

    /// The first commands of a line, or nothing: then the line is gone.
    fn take(&self, place: &Place) -> Vec<Job> {
        let mut lines = self.lock();
        let Some(line) = lines.get_mut(place) else { return Vec::new() };
        if line.is_empty() {
            lines.remove(place);
            return Vec::new();
        }
        let count = line.len().min(TOGETHER);
        line.drain(..count).collect()
    }
}

/// A task that ends early (a panic, the end of the runtime) lets go of its line.
struct Task<'s> {
    lines: &'s Lines,
    place: Place,
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        let left = self.lines.lock().remove(&self.place);
        drop(left); // outside of the lock: each of them is answered
    }
}

/// Runs the commands of one key until none is left.
pub(super) async fn serve(shared: Arc<Shared>, mapping: MappingId, key: Bytes) {
    let task = Task { lines: &shared.lines, place: (mapping, key) };
    loop {
        let jobs = shared.lines.take(&task.place);
        if jobs.is_empty() {
            break;
        }
        run(&shared, mapping, &task.place.1, jobs).await;
    }
    std::mem::forget(task); // `take` has removed the line, under the lock that saw it empty
}

/// Runs these commands, in their order, until each is answered.
async fn run(shared: &Shared, mapping: MappingId, key: &Bytes, mut jobs: Vec<Job>) {
    let deadline = tokio::time::Instant::now() + shared.options.timeout;
    let mut pause = Duration::from_millis(1);
    while !jobs.is_empty() {
        let asked: Vec<&Asked> = jobs.iter().map(|job| &job.asked).collect();
        match round(shared, mapping, key, &asked, deadline).await {
            Round::Done(replies) => {
                pause = Duration::from_millis(1);
                let rest = jobs.split_off(replies.len().min(jobs.len()));
                jobs.into_iter().zip(replies).for_each(|(job, reply)| job.answer(reply));
                jobs = rest;
            }
            Round::Failed(text) => return jobs.into_iter().for_each(|job| job.fail(&text)),
            Round::Outrun => {
                if let Some(metrics) = shared.metrics.get(usize::from(mapping)) {
                    metrics.conflicts.inc();
                }
                if tokio::time::Instant::now() > deadline {
                    let text = shared.outrun_too_often();
                    return jobs.into_iter().for_each(|job| job.fail(&text));
                }
                tokio::time::sleep(pause.mul_f64(rand::random_range(0.0..1.0))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
