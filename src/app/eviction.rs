//! Warns of nodes that may evict entries whose write is not in the database yet.
//!
//! Must not know: how a node is asked.
//!
//! Such entries have no expiry, so `volatile-*` leaves them alone. Under `allkeys-*` they may go; the proxy that took the write
//! shows it all the same, but readers of other proxies may be given the older row until it is in the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Evicting, Topology, UpstreamOptions, evicting};
use crate::health::Health;
use crate::metrics::Metrics;

/// Longest time between two looks; a change of the topology is looked at at once.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What a human is told.
pub(super) fn warning(Evicting { node, policy }: &Evicting) -> String {
    format!(
        "Redis node {node} has maxmemory-policy {policy}: it may evict entries whose write is not in the database yet, and \
         readers of other proxies are given the older row until it is; set maxmemory-policy to volatile-lru (these entries \
         have no expiry, so they stay) or noeviction"
    )
}

/// The nodes of `topology` that may; those that do not say are left out.
pub(super) async fn look(topology: &Topology, options: &UpstreamOptions) -> Vec<Evicting> {
    ask(topology, options).await.into_values().filter_map(|answer| answer.unwrap_or(None)).collect()
}

async fn ask(
    topology: &Topology,
    options: &UpstreamOptions,
) -> BTreeMap<String, Result<Option<Evicting>, String>> {
    let mut asked = tokio::task::JoinSet::new();
    for node in topology.nodes() {
        let (node, options) = (node.addr.to_string(), options.clone());
        asked.spawn(async move {
            let answer = evicting(&node, &options).await;
            (node, answer)
        });
    }
    asked.join_all().await.into_iter().collect()
}

/// Looks after them.
pub(super) struct Watch {
    topology: watch::Receiver<Arc<Topology>>,
    options: UpstreamOptions,
    health: Arc<Health>,
    /// How many there are.
    nodes: IntGauge,
}

impl Watch {
    pub fn new(
        topology: watch::Receiver<Arc<Topology>>,
        options: UpstreamOptions,
        health: &Arc<Health>,
        metrics: &Metrics,
    ) -> Self {
        Self { topology, options, health: health.clone(), nodes: metrics.evicting_nodes.clone() }
    }

    /// Until `stop`: each node is warned of once, as long as it stays so.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut known: BTreeSet<Evicting> = BTreeSet::new();
        loop {
            let topology = self.topology.borrow_and_update().clone();
            let mut found = BTreeSet::new();
            for (node, answer) in ask(&topology, &self.options).await {
                match answer {
                    Ok(evicting) => found.extend(evicting),
                    // It stands as it was, until the node says something else.
                    Err(reason) => {
                        tracing::debug!(node, reason, "cannot ask for maxmemory-policy");
                        found.extend(known.iter().filter(|evicting| evicting.node == node).cloned());
                    }
                }
            }
            for new in found.difference(&known) {
                tracing::warn!("{}", warning(new));
            }
            for gone in known.difference(&found) {
                tracing::info!(node = gone.node, "maxmemory-policy is no longer {}", gone.policy);
            }
            self.nodes.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
            self.health.warn(found.iter().map(warning).collect());
            known = found;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.topology.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}
