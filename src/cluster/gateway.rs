//! A handle by which the rest of the program runs a Redis command through the proxy's own data path.
//!
//! Must not know: who runs the command (a worker takes the calls off the channel).

pub use crate::metrics::Served;

use super::batched::Joining;
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// On whose behalf a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// As if a client had sent it: mapped keys are read through and written behind.
    Client,
    /// The proxy's own business: a plain command to the cluster.
    Internal,
}

/// One command on its way to a worker.
#[derive(Debug)]
pub struct Call {
    /// On whose behalf.
    pub origin: Origin,
    /// One RESP request.
    pub request: Vec<u8>,
    /// Where the raw RESP2 reply goes, with where its mapped keys were found. Dropping it abandons the call.
    pub reply: oneshot::Sender<(Bytes, Served)>,
}

/// Commands that are handed over and answered together.
#[derive(Debug)]
pub struct Calls {
    /// On whose behalf.
    pub origin: Origin,
    /// RESP requests; each runs by itself.
    pub requests: Vec<Vec<u8>>,
    /// Where the raw RESP2 replies go, in the order of the requests.
    pub reply: oneshot::Sender<Vec<Bytes>>,
}

/// What a worker takes off its queue.
#[derive(Debug)]
pub enum Job {
    /// One command.
    One(Call),
    /// Many.
    Many(Calls),
}

/// Commands handed to one worker at a time by [`Gateway::call_many`]: few enough not to keep it from its clients.
const HANDFUL: usize = 128;

/// Calls that wait together for one worker before the next one gets some.
const TOGETHER: usize = 32;

/// Threads that have a worker of their own, and its queue.
type Homes = Vec<(ThreadId, mpsc::Sender<Job>)>;

/// Why a call got no reply.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum GatewayError {
    /// The worker's queue is full; a retry may help.
    #[error("the proxy is overloaded: too many internal commands wait")]
    Overloaded,
    /// The workers have stopped.
    #[error("the proxy is shutting down")]
    Closed,
}

/// Spreads calls over the workers. Cheap to clone.
///
/// Threads may have a worker of their own: what is called on such a thread is run there, so that neither the call nor its
/// reply wakes another thread.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Those that take calls of every other thread.
    workers: Arc<[mpsc::Sender<Job>]>,
    own: Arc<OnceLock<Homes>>,
    next: Arc<AtomicUsize>,
    pub(super) joining: Arc<Joining>,
}

impl Gateway {
    /// A gateway to these workers' queues.
    pub fn new(workers: Vec<mpsc::Sender<Job>>) -> Self {
        Self { workers: workers.into(), own: Arc::default(), next: Arc::default(), joining: Arc::default() }
    }

    /// Says which threads have a worker of their own, and its queue; once.
    pub fn at_home(&self, own: Vec<(ThreadId, mpsc::Sender<Job>)>) {
        let _ = self.own.set(own);
    }

    /// Runs one command and returns its raw RESP2 reply. Every call ends within the command timeout of the upstream
    /// plus that of a load. Dropping the future abandons the reply, not the command.
    ///
    /// # Errors
    /// [`GatewayError`] when no worker took it.
    pub async fn call(&self, origin: Origin, request: Vec<u8>) -> Result<Bytes, GatewayError> {
        Ok(self.call_served(origin, request).await?.0)
    }

    /// The same, and where the answer came from: of a read of mapped keys the longest way that one of them came; of
    /// any other command [`Served::Bypass`].
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_served(
        &self,
        origin: Origin,
        request: Vec<u8>,
    ) -> Result<(Bytes, Served), GatewayError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call { origin, request, reply })?;
        answer.await.map_err(|_| GatewayError::Closed)
    }

    /// Runs many commands, independent of each other, and returns their replies in order: cheaper than many calls, since
    /// a worker takes a handful at once and answers it at once. Ends, and is dropped, like [`Self::call`].
    ///
    /// # Errors
    /// Per command: [`GatewayError`] when no worker took it.
    pub async fn call_many(
        &self,
        origin: Origin,
        requests: Vec<Vec<u8>>,
    ) -> Vec<Result<Bytes, GatewayError>> {
        let mut replies = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        let mut handed = Vec::new();
        while requests.peek().is_some() {
            let requests: Vec<_> = requests.by_ref().take(HANDFUL).collect();
            let (reply, answer) = oneshot::channel();
            let count = requests.len();
            handed
                .push((count, self.hand_over(Job::Many(Calls { origin, requests, reply })).map(|()| answer)));
        }
        for (count, answer) in handed {
            let answers = match answer {
                Ok(answer) => answer.await.map_err(|_| GatewayError::Closed),
                Err(error) => Err(error),
            };
            match answers {
                Ok(answers) => replies.extend(answers.into_iter().map(Ok)),
                Err(error) => replies.extend(std::iter::repeat_n(Err(error), count)),
            }
        }
        replies
    }

    /// Hands over a call without waiting.
    ///
    /// # Errors
    /// [`GatewayError`] when no worker took it.
    pub fn send(&self, call: Call) -> Result<(), GatewayError> {
        self.hand_over(Job::One(call))
    }

    fn hand_over(&self, job: Job) -> Result<(), GatewayError> {
        let queue = self.queue_here().or_else(|| self.next_queue()).ok_or(GatewayError::Closed)?;
        queue.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => GatewayError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => GatewayError::Closed,
        })
    }

    fn queue_here(&self) -> Option<&mpsc::Sender<Job>> {
        let own = self.own.get()?;
        let here = std::thread::current().id();
        own.iter().find(|(thread, _)| *thread == here).map(|(_, queue)| queue)
    }

    fn next_queue(&self) -> Option<&mpsc::Sender<Job>> {
        if self.workers.is_empty() {
            return None;
        }
        // A worker whose queue holds something has been woken and has not looked yet: what joins it costs no other wake-up,
        // and leaves for the nodes in the same write. The next one's turn comes when this one is busy enough.
        let mut turn = self.next.load(Ordering::Relaxed);
        let waiting = |turn: usize| {
            let queue = &self.workers[turn % self.workers.len()];
            queue.max_capacity() - queue.capacity()
        };
        if !(1..TOGETHER).contains(&waiting(turn)) {
            turn = self.next.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        }
        self.workers.get(turn % self.workers.len())
    }
}
