//! dsproxy.

pub mod mapping;
pub mod resp;
pub mod slot;
