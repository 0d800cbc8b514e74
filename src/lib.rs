//! dsproxy.

pub mod command;
pub mod resp;
pub mod slot;
