//! What waits for the journal's thread.
//!
//! Must not know: files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Items on their way to the thread. Its bounds are kept by who puts something in.
pub(super) struct Inbox<I> {
    state: Mutex<State<I>>,
    filled: Condvar,
    /// There is something to do; for who looks without the lock.
    busy: AtomicBool,
}

struct State<I> {
    items: Vec<I>,
    bytes: u64,
    /// Sequences below are not needed any more.
    trim: u64,
    closed: bool,
    /// The thread sleeps; only then is waking it worth a system call.
    asleep: bool,
}

/// What the thread has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Sequences below are not needed any more.
    pub trim: u64,
    /// Nothing will come after what was taken.
    pub closed: bool,
}

/// Why an item was not put in.
pub(super) enum NotTaken<I, E> {
    Closed(I),
    Refused(I, E),
}

impl<I> Inbox<I> {
    pub fn new(trim: u64) -> Self {
        let state = State { items: Vec::new(), bytes: 0, trim, closed: false, asleep: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), busy: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `item` of about `bytes` in, unless `check` (given items and bytes that wait) refuses.
    pub fn put<E>(
        &self,
        item: I,
        bytes: u64,
        check: impl FnOnce(usize, u64) -> Result<(), E>,
    ) -> Result<(), NotTaken<I, E>> {
        let mut state = self.lock();
        if state.closed {
            return Err(NotTaken::Closed(item));
        }
        if let Err(error) = check(state.items.len(), state.bytes) {
            return Err(NotTaken::Refused(item, error));
        }
        state.items.push(item);
        state.bytes += bytes;
        self.wake(state);
        Ok(())
    }

    pub fn trim(&self, below: u64) {
        let mut state = self.lock();
        if below > state.trim {
            state.trim = below;
            self.wake(state);
        }
    }

    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State<I>>) {
        let asleep = std::mem::take(&mut state.asleep);
        self.busy.store(true, Ordering::Release);
        drop(state);
        if asleep {
            self.filled.notify_one();
        }
    }

    /// Items and bytes that wait.
    pub fn depth(&self) -> (usize, u64) {
        let state = self.lock();
        (state.items.len(), state.bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    /// Looks for something to do for so long, before [`Self::take`] sleeps: who wakes a thread pays for it, and waits for it.
    pub fn look(&self, window: Duration) {
        if window.is_zero() || self.busy.load(Ordering::Acquire) {
            return;
        }
        let started = Instant::now();
        while !self.busy.load(Ordering::Acquire) && started.elapsed() < window {
            std::hint::spin_loop();
        }
    }

    /// Waits until there is something to do, for at most `most` where that is given, then swaps all items into `taken`,
    /// which must be empty. `trimmed` is what was trimmed last.
    pub fn take(&self, taken: &mut Vec<I>, trimmed: u64, most: Option<Duration>) -> Turn {
        let mut state = self.lock();
        while state.items.is_empty() && !state.closed && state.trim <= trimmed {
            state.asleep = true;
            let Some(most) = most else {
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state = self.filled.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0;
            break;
        }
        state.asleep = false;
        self.busy.store(false, Ordering::Release);
        std::mem::swap(&mut state.items, taken);
        state.bytes = 0;
        Turn { trim: state.trim, closed: state.closed }
    }
}
