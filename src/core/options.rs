//! What a core is told at its start.
//!
//! Must not know: where the values come from.

use crate::resp::RequestLimits;

/// Bounds and times of a core.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// Bounds on one request.
    pub request: RequestLimits,
    /// Most unanswered requests of one client; beyond it the client is not read.
    pub inflight_per_client: usize,
    /// Unwritten reply bytes of one client beyond which it is not read.
    pub output_pause: usize,
    /// Unwritten reply bytes of one client beyond which it is closed.
    pub output_max: usize,
    /// Most unanswered requests on one upstream connection.
    pub upstream_inflight: usize,
    /// Most bytes of unanswered requests on one upstream connection.
    pub upstream_buffer: usize,
    /// Most connections that clients have for themselves, to watch keys or to wait in a blocking command.
    pub dedicated_connections: usize,
    /// One that nobody needs for so long is closed, in microseconds.
    pub dedicated_idle_us: u64,
    /// Redirects and retries of one request before its error is passed on.
    pub max_retries: u8,
    /// Most channels and patterns that one client subscribes to.
    pub subscriptions_per_client: usize,
    /// After this long without a reply a request is answered with an error, in microseconds.
    pub command_timeout_us: u64,
    /// First and longest pause between two attempts to connect, in microseconds.
    pub backoff_us: (u64, u64),
    /// Credentials for the nodes.
    pub upstream_auth: Option<UpstreamAuth>,
    /// A client may take this long for each step of a request, in microseconds.
    pub request_timeout_us: u64,
    /// A client that must log in may take this long to do so, in microseconds.
    pub login_timeout_us: u64,
    /// What `INFO`, `HELLO` and friends say about this process.
    pub about: About,
}

/// Credentials for the nodes. Never printed.
#[derive(Clone, Debug)]
pub struct UpstreamAuth {
    /// User name, if any.
    pub username: Option<String>,
    /// Password.
    pub password: crate::config::Secret,
}

/// Facts about this process that clients may ask for.
#[derive(Clone, Debug)]
pub struct About {
    /// Version of the Redis servers behind us, which is also what clients should take us for.
    pub redis_version: String,
    /// Port that clients connect to.
    pub port: u16,
    /// Number of data workers.
    pub workers: usize,
    /// Index of this worker: makes client ids unique.
    pub worker: usize,
}
