//! Loads from read replicas: only from one that has seen all that the primary had when the load began.
//!
//! Must not know: who waits for rows, what was written.
//!
//! A replica that merely lags little would bring back what a row was before it was written or invalidated. So the primary
//! is asked how far its log has come, and a replica is used once it has replayed that: what it answers then is as new as what
//! the primary would have answered. One that takes longer, fails, or is no replica any more rests for a while.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::pool::Postgres;
use super::{Plan, load};
use crate::mapping::Match;
use crate::source::backend::{LoadedKey, ReplicaCounts};
use crate::source::error::SourceError;

/// How long a replica rests before it is looked at again.
const REST: Duration = Duration::from_secs(1);
/// First pause before a replica is asked again how far it is.
const FIRST_PAUSE: Duration = Duration::from_micros(500);

/// The replicas of a primary.
pub(super) struct Replicas {
    all: Vec<Arc<Replica>>,
    next: AtomicUsize,
    /// Longest time that a load waits for one.
    wait: Duration,
    served: AtomicU64,
    behind: AtomicU64,
    failed: AtomicU64,
}

struct Replica {
    postgres: Postgres,
    rests: AtomicBool,
    /// Looks whether it is back.
    probe: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl std::fmt::Debug for Replicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicas").field("count", &self.all.len()).finish_non_exhaustive()
    }
}

impl Replicas {
    /// They are connected to when they are first needed.
    pub fn new(all: Vec<Postgres>, wait: Duration) -> Self {
        let replica =
            |postgres| Arc::new(Replica { postgres, rests: AtomicBool::new(false), probe: Mutex::default() });
        Self {
            all: all.into_iter().map(replica).collect(),
            next: AtomicUsize::new(0),
            wait,
            served: AtomicU64::new(0),
            behind: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// The rows of `keys` from a replica; `None`: the primary is to be asked.
    pub async fn load(&self, primary: &Postgres, plan: &Plan, keys: &[Match<'_>]) -> Option<Vec<LoadedKey>> {
        let replica = self.pick()?;
        let count = |of: &AtomicU64| of.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(self.wait, caught_up(primary, &replica.postgres)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => {
                count(&self.behind);
                replica.rest("it is behind the primary");
                return None;
            }
            Ok(Err(error)) => {
                count(&self.failed);
                replica.rest(&error.to_string());
                return None;
            }
        }
        match load::load(&replica.postgres, plan, keys).await {
            Ok(rows) => {
                count(&self.served);
                Some(rows)
            }
            Err(error) => {
                count(&self.failed);
                replica.rest(&error.to_string());
                None
            }
        }
    }

    /// One that does not rest, in turn.
    fn pick(&self) -> Option<&Arc<Replica>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn =
            (0..self.all.len()).filter_map(|n| self.all.get((first.wrapping_add(n)) % self.all.len()));
        in_turn.into_iter().find(|replica| !replica.rests.load(Ordering::Acquire))
    }

    /// What became of loads.
    pub fn counts(&self) -> ReplicaCounts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ReplicaCounts { served: get(&self.served), behind: get(&self.behind), failed: get(&self.failed) }
    }

    /// Closes their connections.
    pub fn close(&self) {
        for replica in &self.all {
            replica.probe().take();
            replica.postgres.close();
        }
    }

    /// Statements are prepared anew when they are next needed.
    pub fn forget_statements(&self) {
        self.all.iter().for_each(|replica| replica.postgres.forget_statements());
    }
}

impl Replica {
    fn probe(&self) -> std::sync::MutexGuard<'_, Option<AbortOnDropHandle<()>>> {
        self.probe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is not used until it answers again, after a pause.
    fn rest(self: &Arc<Self>, why: &str) {
        if self.rests.swap(true, Ordering::AcqRel) {
            return;
        }
        warn!(why, "a read replica is left out; rows are loaded from the primary");
        let replica = Arc::downgrade(self);
        let look = async move {
            loop {
                tokio::time::sleep(REST).await;
                let Some(replica) = replica.upgrade() else { return };
                if replica.postgres.ping().await.is_ok() {
                    replica.rests.store(false, Ordering::Release);
                    return info!("a read replica is tried again");
                }
            }
        };
        *self.probe() = Some(AbortOnDropHandle::new(tokio::spawn(look)));
    }
}

/// Waits until `replica` has replayed all that `primary` has in its log now; false when it is no replica.
async fn caught_up(primary: &Postgres, replica: &Postgres) -> Result<bool, SourceError> {
    // What is acknowledged is in the log; with synchronous_commit = off it need not be flushed, therefore "insert".
    let sql = "select pg_current_wal_insert_lsn()::text";
    let client = primary.reader().await?;
    let work = async |client: &mut deadpool_postgres::Object| {
        let statement = client.prepare_cached(sql).await?;
        Ok(client.query_one(&statement, &[]).await?.try_get::<_, String>(0)?)
    };
    let end = primary.bounded(client, work).await?;
    let mut pause = FIRST_PAUSE;
    loop {
        let sql = "select pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)";
        let client = replica.reader().await?;
        let work = async |client: &mut deadpool_postgres::Object| {
            let statement = client.prepare_cached(sql).await?;
            let row = client.query_one(&statement, &[&end]).await?;
            Ok((row.try_get::<_, bool>(0)?, row.try_get::<_, bool>(1)?))
        };
        match replica.bounded(client, work).await? {
            (false, _) => return Ok(false),
            (true, true) => return Ok(true),
            (true, false) => tokio::time::sleep(pause).await,
        }
        pause *= 2;
    }
}
