//! dsproxy.

pub mod config;
pub mod resp;
pub mod slot;
