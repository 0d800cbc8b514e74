//! Times that end waiting, of one connection: for a request's head, and for its answer.
//!
//! Must not know: requests.
//!
//! A timer that is made and dropped for each request takes a lock of the runtime's twice. These are made once per
//! connection: moving a timer that runs further away takes none.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Whether a request is at hand, and since when none is.
pub struct Pulse {
    begun: Instant,
    busy: AtomicBool,
    /// Milliseconds after `begun`.
    idle_since: AtomicU64,
}

impl Pulse {
    /// Of a connection that has just begun.
    pub fn new() -> Self {
        Self { begun: Instant::now(), busy: AtomicBool::new(false), idle_since: AtomicU64::new(0) }
    }

    /// A request's head is there.
    pub fn begin(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }

    /// It is answered.
    pub fn end(&self) {
        self.idle_since.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.busy.store(false, Ordering::Relaxed);
    }

    /// Completes when no head has come for `limit`.
    pub async fn stopped(&self, limit: Duration) {
        loop {
            let idle = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
            let end = match self.busy.load(Ordering::Relaxed) {
                // While one is at hand, other limits hold; it is looked at again when the next could be over.
                true => Instant::now() + limit,
                false => self.begun + idle + limit,
            };
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// The time for an answer is over.
pub struct Late;

/// The timer of the answers of one connection, one after the other.
#[derive(Default)]
pub struct Deadline(Mutex<Option<Pin<Box<Sleep>>>>);

impl Deadline {
    /// Runs `work` for at most `limit`. Dropped unfinished, it drops the work.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Late> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut timer = match kept {
            Some(mut timer) => {
                timer.as_mut().reset(Instant::now() + limit);
                timer
            }
            None => Box::pin(sleep(limit)),
        };
        let mut work = pin!(work);
        let done = tokio::select! {
            biased;
            done = work.as_mut() => Ok(done),
            () = timer.as_mut() => Err(Late),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(timer);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_answer_has_its_own_time() {
        let deadline = Deadline::default();
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(10));
        for _ in 0..3 {
            assert!(deadline.within(long, sleep(short)).await.is_ok());
            assert!(deadline.within(short, std::future::pending::<()>()).await.is_err());
            assert!(deadline.within(short, async {}).await.is_ok());
        }
    }

    #[tokio::test]
    async fn a_silent_connection_is_noticed_and_a_busy_one_is_not() {
        let (pulse, limit) = (Pulse::new(), Duration::from_millis(20));
        pulse.begin();
        let busy = tokio::time::timeout(5 * limit, pulse.stopped(limit)).await;
        assert!(busy.is_err(), "a request is at hand");
        pulse.end();
        pulse.stopped(limit).await;
        assert!(pulse.begun.elapsed() >= 6 * limit);
    }
}
