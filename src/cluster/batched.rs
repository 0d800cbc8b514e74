//! Scripts of the sidecar for many keys: those of one node go to it together.
//!
//! Must not know: what the scripts do, connections.
//!
//! Where a node refuses a key (its slot is moving, or the server lets no script touch a key that it has not named) the key's own
//! request is run as it is.

use super::{Gateway, GatewayError, Origin, Topology};
use crate::sidecar::{Together, together};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// After a refusal of most keys of a request every key goes by itself for so long.
const APART: Duration = Duration::from_secs(2);

/// Whether requests may be joined.
#[derive(Debug)]
pub(super) struct Joining {
    topology: OnceLock<watch::Receiver<Arc<Topology>>>,
    since: Instant,
    /// Not before this time, ms from `since`.
    apart_until: AtomicU64,
}

impl Default for Joining {
    fn default() -> Self {
        Self { topology: OnceLock::new(), since: Instant::now(), apart_until: AtomicU64::new(0) }
    }
}

impl Joining {
    fn now(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }

    /// The requests that go together; none where that was refused a moment ago.
    fn plan(&self, requests: &[Vec<u8>]) -> Vec<Together> {
        let Some(topology) = self.topology.get().filter(|_| requests.len() > 1) else { return Vec::new() };
        if self.now() < self.apart_until.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let topology = topology.borrow().clone();
        together(requests, |slot| topology.owner(slot))
    }

    fn refused(&self) {
        self.apart_until.store(self.now() + APART.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Gateway {
    /// Says which node owns what from now on; once.
    pub fn follow(&self, topology: watch::Receiver<Arc<Topology>>) {
        let _ = self.joining.topology.set(topology);
    }

    /// As [`Self::call_many`] of [`Origin::Internal`], for requests of [`crate::sidecar`].
    ///
    /// # Errors
    /// As there.
    pub async fn run_scripts(&self, requests: Vec<Vec<u8>>) -> Vec<Result<Bytes, GatewayError>> {
        let joined = self.joining.plan(&requests);
        if joined.is_empty() {
            return self.call_many(Origin::Internal, requests).await;
        }
        let mut answers: Vec<Option<Result<Bytes, GatewayError>>> = vec![None; requests.len()];
        let mut is_member = vec![false; requests.len()];
        joined.iter().flat_map(|it| &it.members).for_each(|at| is_member[*at] = true);
        let (mut requests, mut singles): (Vec<_>, Vec<_>) = (requests, Vec::new());
        let mut first: Vec<Vec<u8>> = joined.iter().map(Together::request).collect();
        for (at, _) in is_member.iter().enumerate().filter(|(_, is_member)| !**is_member) {
            singles.push(at);
            first.push(std::mem::take(&mut requests[at]));
        }
        let mut replies = self.call_many(Origin::Internal, first).await.into_iter();
        let mut again = Vec::new();
        for (together, reply) in joined.iter().zip(replies.by_ref()) {
            self.joining.hand_out(together, reply, &mut answers, &mut again);
        }
        singles.into_iter().zip(replies).for_each(|(at, reply)| answers[at] = Some(reply));
        if !again.is_empty() {
            let retried = again.iter().map(|at| std::mem::take(&mut requests[*at])).collect();
            let replies = self.call_many(Origin::Internal, retried).await;
            again.into_iter().zip(replies).for_each(|(at, reply)| answers[at] = Some(reply));
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Err(GatewayError::Closed))).collect()
    }
}

impl Joining {
    /// Gives each member its reply; those that are to run by themselves are added to `again`.
    fn hand_out(
        &self,
        together: &Together,
        reply: Result<Bytes, GatewayError>,
        answers: &mut [Option<Result<Bytes, GatewayError>>],
        again: &mut Vec<usize>,
    ) {
        let members = &together.members;
        let replies = match &reply {
            Ok(whole) => together.replies(whole),
            Err(_) => None,
        };
        let Some(replies) = replies else {
            // The node cannot be reached, or runs no such thing: nobody waits twice for the first.
            self.refused();
            return members.iter().for_each(|at| answers[*at] = Some(reply.clone()));
        };
        let before = again.len();
        for (at, reply) in members.iter().zip(replies) {
            match reply.starts_with(b"-") {
                true => again.push(*at),
                false => answers[*at] = Some(Ok(reply)),
            }
        }
        if 2 * (again.len() - before) > members.len() {
            self.refused();
        }
    }
}
