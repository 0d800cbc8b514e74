//! dsproxy.

pub mod resp;
pub mod slot;
