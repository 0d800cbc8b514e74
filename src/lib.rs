//! dsproxy.

pub mod app;
pub mod cache;
pub mod cluster;
pub mod command;
pub mod config;
pub mod core;
pub mod embedded;
pub mod health;
pub mod http;
pub mod mapping;
pub mod metrics;
pub mod resp;
pub mod slot;
pub mod source;
pub mod worker;
pub mod writeback;
