//! Asks nodes whether they evict keys that have no expiry.
//!
//! Must not know: which keys these are, who is told.

use super::discovery::{UpstreamOptions, question};

/// A node that may evict any key when its memory is full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evicting {
    /// `host:port`.
    pub node: String,
    /// Its `maxmemory-policy`.
    pub policy: String,
}

/// How one node evicts; `None`: only keys that have an expiry, or none.
///
/// # Errors
/// Why it does not say.
pub async fn evicting(node: &str, options: &UpstreamOptions) -> Result<Option<Evicting>, String> {
    // INFO needs fewer rights than CONFIG GET, which managed servers refuse.
    let info = question(node, options, &[b"INFO", b"memory"]).await?;
    let policy =
        info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).unwrap_or_default().trim();
    let evicts = policy.starts_with("allkeys-");
    Ok(evicts.then(|| Evicting { node: node.to_owned(), policy: policy.to_owned() }))
}
