//! Keeps the thread of a busy worker awake for a moment after each event.
//!
//! Must not know: what the events are.
//!
//! A thread that sleeps in `epoll_wait` needs tens of microseconds to be woken, most of all on virtual machines. With one
//! request at a time that is most of what a proxy adds. Asking the kernel again and again instead costs a core for as
//! long as requests keep coming, so it is off unless configured.

use super::Shared;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

/// When traffic was last seen, and the poller that waits for more.
#[derive(Default)]
pub(super) struct BusyPoll {
    /// Microseconds of the core's clock.
    last: u64,
    /// Set while the poller sleeps.
    asleep: Option<Waker>,
}

impl BusyPoll {
    /// Something was read from a client or a node.
    #[inline]
    pub fn traffic(&mut self, now: u64) {
        self.last = now;
        if let Some(poller) = self.asleep.take() {
            poller.wake();
        }
    }
}

/// Looks for events without sleeping until there was no traffic for `window`, whenever there is some. Ends with the
/// worker; at once when `window` is zero.
pub(super) async fn run(shared: Shared, window: Duration) {
    let window = window.as_micros() as u64;
    let quiet = || {
        let worker = shared.borrow();
        (worker.started.elapsed().as_micros() as u64).saturating_sub(worker.busy_poll.last) > window
    };
    if window == 0 {
        return;
    }
    loop {
        poll_fn(|cx| {
            if !quiet() {
                return Poll::Ready(());
            }
            shared.borrow_mut().busy_poll.asleep = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        while !quiet() {
            // Lets the runtime look for events, and return without waiting for one.
            tokio::task::yield_now().await;
        }
    }
}
