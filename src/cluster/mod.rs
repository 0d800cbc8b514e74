//! The upstream side: who owns which slot, what was sent to a node, what it still owes us.
//!
//! Must not know: clients, mappings, sockets.

mod batched;
mod discovery;
mod eviction;
mod gateway;
mod log;
mod topology;
mod upstream;

pub use discovery::{Discovery, DiscoveryError, UpstreamOptions};
pub use eviction::{Evicting, evicting};
pub use gateway::{Call, Calls, Gateway, GatewayError, Job, Origin, Served};
pub use topology::{Node, NodeAddr, Topology, TopologyError, client_addr};
pub use upstream::{Entry, Link, Lost, Owner, Upstream};
