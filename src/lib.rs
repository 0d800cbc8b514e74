//! dsproxy.

pub mod cache;
pub mod mapping;
pub mod resp;
pub mod slot;
pub mod source;
pub mod writeback;
