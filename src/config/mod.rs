//! The configuration: what can be set, and the checked values that were.
//!
//! Must not know: what any of it is used for.

mod define;
mod kind;
mod nearest;
mod raw;
mod secret;
mod settings;
mod units;

pub use kind::Words;
pub use secret::Secret;
pub use settings::{
    CachePolicy, DatabaseConfig, DevConfig, HttpConfig, LimitsConfig, LogConfig, LogFormat, MappingConfig,
    ReadThroughConfig, ServerConfig, UpstreamConfig, UpstreamMode, ValueFormat, WriteBehindConfig, WriteMode,
    WritePolicy,
};

/// All settings, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[upstream]`
    pub upstream: UpstreamConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[database]`
    pub database: DatabaseConfig,
    /// `[read_through]`
    pub read_through: ReadThroughConfig,
    /// `[write_behind]`
    pub write_behind: WriteBehindConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[dev]`
    pub dev: DevConfig,
    /// `[[mapping]]`
    pub mappings: Vec<MappingConfig>,
}
