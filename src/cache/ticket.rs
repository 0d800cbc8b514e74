//! A miss that waits for its answers: collects them, replies once, and never later than its deadline.
//!
//! Must not know: where answers come from.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Answer;

type Reply = Box<dyn FnOnce(Vec<Answer>) + Send>;

/// Counts the keys that wait, against a limit.
pub(super) struct Waiting {
    count: AtomicUsize,
    limit: usize,
    changed: Notify,
}

/// Places of a miss among the waiting keys, given back when dropped.
pub(super) struct Places {
    waiting: Arc<Waiting>,
    count: usize,
}

impl Waiting {
    pub(super) fn new(limit: usize) -> Self {
        Self { count: AtomicUsize::new(0), limit, changed: Notify::new() }
    }

    pub(super) fn take(self: &Arc<Self>, count: usize) -> Option<Places> {
        let before = self.count.fetch_add(count, Ordering::Relaxed);
        let places = Places { waiting: self.clone(), count };
        // One miss is let in even if it is larger than the limit: else it could never be answered.
        (before == 0 || before + count <= self.limit).then_some(places)
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.waiting.count.fetch_sub(self.count, Ordering::Relaxed);
        self.waiting.changed.notify_one();
    }
}

/// One miss. Dropping the last reference replies too, with an error for what is missing: nobody is stranded by a task
/// that died.
pub(super) struct Ticket {
    state: Mutex<State>,
}

struct State {
    answers: Vec<Option<Answer>>,
    missing: usize,
    open: Option<(Reply, Places)>,
}

impl Ticket {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer of the key at position `at`. The last one sends the reply.
    pub(super) fn answer(&self, at: usize, answer: Answer) {
        let mut state = self.lock();
        let Some(slot) = state.answers.get_mut(at).filter(|slot| slot.is_none()) else { return };
        *slot = Some(answer);
        state.missing -= 1;
        if state.missing == 0 {
            finish(state, "");
        }
    }

    /// Whether the reply was sent.
    pub(super) fn is_done(&self) -> bool {
        self.lock().open.is_none()
    }

    fn fail(&self, why: &str) {
        finish(self.lock(), why);
    }
}

/// Sends the reply, outside of the lock, with `why` for answers that are missing.
fn finish(mut state: MutexGuard<'_, State>, why: &str) {
    let Some((reply, places)) = state.open.take() else { return };
    let answers = std::mem::take(&mut state.answers);
    drop(state);
    drop(places);
    reply(answers.into_iter().map(|a| a.unwrap_or_else(|| Answer::failed(why))).collect());
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.fail("ERR the load of this key was interrupted");
    }
}

/// All open tickets by deadline.
pub(super) struct Tickets {
    timeout: Duration,
    /// Every ticket has the same time, so the order of issue is the order of deadlines.
    open: Mutex<VecDeque<(Instant, Weak<Ticket>)>>,
    issued: Notify,
}

impl Tickets {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, open: Mutex::default(), issued: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Weak<Ticket>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ticket for `count` answers.
    pub(super) fn issue(&self, count: usize, reply: Reply, places: Places) -> Arc<Ticket> {
        let state = State { answers: vec![None; count], missing: count, open: Some((reply, places)) };
        let ticket = Arc::new(Ticket { state: Mutex::new(state) });
        if count == 0 {
            ticket.fail("");
            return ticket;
        }
        let mut open = self.lock();
        while open.front().is_some_and(|(_, ticket)| ticket.strong_count() == 0) {
            open.pop_front();
        }
        let first = open.is_empty();
        open.push_back((Instant::now() + self.timeout, Arc::downgrade(&ticket)));
        drop(open);
        if first {
            self.issued.notify_one();
        }
        ticket
    }

    /// Fails tickets at their deadline, for ever.
    pub(super) async fn expire(&self) {
        loop {
            let next = self.lock().front().map(|(deadline, _)| *deadline);
            match next {
                None => self.issued.notified().await,
                Some(deadline) => {
                    tokio::time::sleep_until(deadline.into()).await;
                    let text = format!("ERR database unavailable: no answer within {:?}", self.timeout);
                    while let Some(ticket) = self.pop_due() {
                        if let Some(ticket) = ticket.upgrade() {
                            ticket.fail(&text);
                        }
                    }
                }
            }
        }
    }

    fn pop_due(&self) -> Option<Weak<Ticket>> {
        let mut open = self.lock();
        open.front().filter(|(deadline, _)| *deadline <= Instant::now())?;
        open.pop_front().map(|(_, ticket)| ticket)
    }

    /// Fails every open ticket.
    pub(super) fn fail_all(&self) {
        let open = std::mem::take(&mut *self.lock());
        for ticket in open.iter().filter_map(|(_, ticket)| ticket.upgrade()) {
            ticket.fail("ERR the proxy is shutting down");
        }
    }
}
