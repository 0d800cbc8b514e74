//! A circuit breaker: while the database is away, callers hear so at once instead of after a timeout each.
//!
//! Must not know: what is called.
//!
//! Closed: everything passes; so many failures in a row open it. Open: nothing passes until the next probe is due, after
//! waits that grow. Half-open: one call passes as the probe; its success closes the breaker, its failure opens it again.
//! Calls that do not ask for admission (flushes, health checks) tell their outcome too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::error::SourceError;

/// When the breaker opens, and how long it stays open.
#[derive(Debug, Clone)]
pub struct BreakerOptions {
    /// Failures in a row that open it; 0 = never.
    pub failures: usize,
    /// Wait before the first probe.
    pub probe_min: Duration,
    /// Longest wait between probes.
    pub probe_max: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 10, probe_min: Duration::from_millis(500), probe_max: Duration::from_secs(10) }
    }
}

/// What the breaker does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// One call is the probe.
    HalfOpen,
    /// Calls fail at once; the next probe may start after this time.
    Open(Duration),
}

/// Numbers of a breaker since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BreakerCounts {
    /// How often it opened.
    pub opened: u64,
    /// Calls that failed at once.
    pub refused: u64,
}

/// A call that was abandoned after this time was not abandoned by a client that changed its mind.
const ABANDONED: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Breaker {
    options: BreakerOptions,
    state: Mutex<State>,
    opened: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
enum State {
    Closed { failures: usize },
    Open { probe_at: Instant, backoff: Backoff },
    HalfOpen { backoff: Backoff },
}

impl Breaker {
    pub fn new(options: BreakerOptions) -> Self {
        let state = Mutex::new(State::Closed { failures: 0 });
        Self { options, state, opened: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    /// Runs `call` if it may pass now.
    pub async fn guard<T>(
        &self,
        call: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        let pass = self.admit()?;
        let result = call.await;
        pass.told(&result);
        result
    }

    /// Runs `call` in any case, and learns from its outcome.
    pub async fn observe<T>(
        &self,
        call: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        let result = call.await;
        self.told(&result);
        result
    }

    pub fn state(&self) -> BreakerState {
        match &*self.lock() {
            State::Closed { .. } => BreakerState::Closed,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
            State::Open { probe_at, .. } => {
                BreakerState::Open(probe_at.saturating_duration_since(Instant::now()))
            }
        }
    }

    pub fn counts(&self) -> BreakerCounts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        BreakerCounts { opened: get(&self.opened), refused: get(&self.refused) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self) -> Result<Pass<'_>, SourceError> {
        let mut state = self.lock();
        let pass = |is_probe| Ok(Pass { breaker: self, since: Instant::now(), is_probe, told: false });
        let message = match &mut *state {
            State::Closed { .. } => return pass(false),
            State::Open { probe_at, backoff } => {
                let left = probe_at.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    let backoff = std::mem::replace(backoff, self.backoff());
                    *state = State::HalfOpen { backoff };
                    return pass(true);
                }
                format!("circuit open, next probe in {} ms", left.as_millis().max(1))
            }
            State::HalfOpen { .. } => "circuit half-open, a probe is under way".to_owned(),
        };
        drop(state);
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(SourceError::Unavailable { message, code: Some(SourceError::CIRCUIT_OPEN.into()) })
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.options.probe_min, self.options.probe_max)
    }

    fn told<T>(&self, result: &Result<T, SourceError>) {
        match result {
            Err(error) if error.is_outage() => self.failed(error),
            // It did not get as far as the database.
            Err(error) if error.is_local() => {}
            _ => self.succeeded(),
        }
    }

    fn succeeded(&self) {
        let mut state = self.lock();
        if !matches!(&*state, State::Closed { .. }) {
            tracing::info!("the database answers again: the circuit is closed");
        }
        *state = State::Closed { failures: 0 };
    }

    fn failed(&self, why: &dyn std::fmt::Display) {
        let mut state = self.lock();
        let backoff = match &mut *state {
            State::Closed { failures } => {
                *failures += 1;
                if self.options.failures == 0 || *failures < self.options.failures {
                    return;
                }
                self.opened.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error = %why, failures, "the database is away: the circuit is open");
                self.backoff()
            }
            State::HalfOpen { backoff } => std::mem::replace(backoff, self.backoff()),
            // A call from before it opened, or one that needs no admission: the probe stays due when it is.
            State::Open { .. } => return,
        };
        *state = self.open(backoff);
    }

    fn open(&self, mut backoff: Backoff) -> State {
        State::Open { probe_at: Instant::now() + backoff.next_wait(), backoff }
    }
}

/// A call under way.
struct Pass<'b> {
    breaker: &'b Breaker,
    since: Instant,
    is_probe: bool,
    told: bool,
}

impl Pass<'_> {
    fn told<T>(mut self, result: &Result<T, SourceError>) {
        self.told = !(self.is_probe && matches!(result, Err(error) if error.is_local()));
        self.breaker.told(result);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        if self.is_probe || self.since.elapsed() >= ABANDONED {
            self.breaker.failed(&"no answer in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> Result<(), SourceError> {
        Err(SourceError::unavailable("refused"))
    }

    fn options() -> BreakerOptions {
        BreakerOptions {
            failures: 3,
            probe_min: Duration::from_millis(20),
            probe_max: Duration::from_millis(40),
        }
    }

    async fn until_probe(breaker: &Breaker) {
        while let BreakerState::Open(left) = breaker.state()
            && !left.is_zero()
        {
            tokio::time::sleep(left).await;
        }
    }

    #[tokio::test]
    async fn it_opens_after_failures_in_a_row_and_closes_by_a_probe() {
        let breaker = Breaker::new(options());
        for _ in 0..5 {
            let _ = breaker.guard(async { away() }).await;
            let _ = breaker.guard(async { away() }).await;
            breaker.guard(async { Ok(()) }).await.unwrap();
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "a success between failures");
        for _ in 0..3 {
            let _ = breaker.guard(async { away() }).await;
        }
        let error = breaker.guard(async { Ok(()) }).await.unwrap_err();
        assert!(
            error.to_string().starts_with("database unavailable: circuit open, next probe in "),
            "{error}"
        );
        until_probe(&breaker).await;
        // One probe at a time; it fails, and the wait begins anew.
        let probe = breaker.guard(async {
            tokio::task::yield_now().await;
            away()
        });
        let second = breaker.guard(async { Ok(()) });
        let (first, second) = tokio::join!(probe, second);
        assert!(first.is_err() && second.unwrap_err().to_string().contains("a probe is under way"));
        assert!(matches!(breaker.state(), BreakerState::Open(_)));
        until_probe(&breaker).await;
        breaker.guard(async { Ok(()) }).await.unwrap();
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.counts(), BreakerCounts { opened: 1, refused: 2 });
    }

    #[tokio::test]
    async fn refusals_of_rows_are_answers_and_full_pools_are_nothing() {
        let breaker = Breaker::new(options());
        for _ in 0..10 {
            let _ = breaker.guard(async { Err::<(), _>(SourceError::bad_data("23505", "x")) }).await;
            let _ = breaker.guard(async { Err::<(), _>(SourceError::pool_busy()) }).await;
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        for _ in 0..2 {
            let _ = breaker.guard(async { away() }).await;
            let _ = breaker.guard(async { Err::<(), _>(SourceError::pool_busy()) }).await;
        }
        let _ = breaker.observe(async { away() }).await;
        assert!(matches!(breaker.state(), BreakerState::Open(_)), "a full pool is no sign of life");
        breaker.observe(async { Ok(()) }).await.unwrap();
        assert_eq!(breaker.state(), BreakerState::Closed, "a flush closes it too");
    }

    #[tokio::test]
    async fn an_abandoned_probe_lets_the_next_one_pass() {
        let breaker = Breaker::new(options());
        for _ in 0..3 {
            let _ = breaker.guard(async { away() }).await;
        }
        until_probe(&breaker).await;
        let probe = breaker.guard(std::future::pending::<Result<(), _>>());
        assert!(tokio::time::timeout(Duration::from_millis(5), probe).await.is_err());
        until_probe(&breaker).await;
        breaker.guard(async { Ok(()) }).await.unwrap();
    }
}
