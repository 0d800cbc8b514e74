//! dsproxy.

pub mod embedded;
pub mod resp;
pub mod slot;
