//! Finds out whether a unit that was tried as a whole was applied to the cache, where its own reply does not say so.
//!
//! Must not know: commands, the journal, who asks.
//!
//! The keys of a unit are set together, so one that has the version of its write shows that all were. Where none has, the unit
//! was not applied, or nothing of it is left; so that it is not applied after the look either (a node that hung may still
//! have it before it), its fence and its stamps are taken away first.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::cluster::{Gateway, Origin};
use crate::sidecar::{self, Fault};
use crate::writeback::Race;

/// First pause before a node is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Whether the unit with these writes (key, version) was applied; [`Race::Unknown`] when no node says so until `deadline`.
/// `fence`: see [`crate::writeback::record::Record::fence`].
pub async fn find_out(
    gateway: &Gateway,
    clock: &Clock,
    unit: &[(Bytes, u64)],
    fence: u64,
    deadline: Instant,
) -> Race {
    let Some((first, _)) = unit.first() else { return Race::Won };
    if fence > 0 {
        let request = sidecar::fence(&sidecar::fence_key(first, fence));
        let said = |reply: &[u8]| if reply.starts_with(b"+OK") { Ok(()) } else { Err(Fault::Strange) };
        if ask(gateway, request, said, deadline).await.is_none() {
            return Race::Unknown;
        }
    }
    for (key, version) in unit {
        let Some(known) = ask(gateway, sidecar::probe(key), sidecar::parse_probed, deadline).await else {
            return Race::Unknown;
        };
        clock.observe(known);
        if known == *version {
            return Race::Won;
        }
    }
    Race::Lost
}

/// Asks until there is an answer; `None`: there was none until `deadline`.
async fn ask<T>(
    gateway: &Gateway,
    request: Vec<u8>,
    read: impl Fn(&[u8]) -> Result<T, Fault>,
    deadline: Instant,
) -> Option<T> {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Ok(reply) = gateway.call(Origin::Internal, request.clone()).await
            && let Ok(said) = read(&reply)
        {
            return Some(said);
        }
        if Instant::now() + pause > deadline {
            return None;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
