//! dsproxy.

pub mod config;
pub mod health;
pub mod metrics;
pub mod resp;
pub mod slot;
