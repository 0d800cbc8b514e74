//! dsproxy.

pub mod command;
pub mod config;
pub mod health;
pub mod http;
pub mod metrics;
pub mod resp;
pub mod slot;
