//! The HTTP side server: metrics, health, and a small REST facade.
//!
//! Must not know: where a write goes, where a read comes from: [`Facade`] holds what does.
//!
//! `server` accepts and drains connections, `router` finds the route of a request, `routes` has the handlers, `error`
//! turns failures into answers. The routes of the configuration: `site` holds them, `endpoint` runs one, `input` reads its
//! parameters, `backend` reaches its data, `answer` shapes what it answers, `auth` knows who asks, `openapi` describes them all, with those of the
//! proxy itself (`own_paths`). `writeback` and `dead_letters` show what waits for the database, and what it refused.

mod answer;
mod auth;
mod backend;
mod cache_stats;
mod compress;
mod cors;
mod dead_letters;
mod deadline;
mod endpoint;
mod error;
mod explain;
mod facade;
mod input;
mod invalidate;
mod members;
mod openapi;
mod own_paths;
mod own_writes;
mod pages;
mod query;
mod router;
mod routes;
mod server;
mod site;
mod stall;
mod writeback;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use serde::Deserialize;

use crate::cache::ReadThrough;
use crate::config::HttpConfig;
use crate::health::Health;
use crate::metrics::Metrics;

pub use auth::Auth;
pub use backend::Backend;
pub use cache_stats::{CacheCounts, CacheStats};
pub use error::ApiError;
pub use facade::USER_DATA;
pub use server::serve;
pub use site::{Site, method_of};
pub use writeback::Writeback;

/// A future that is handed over as a value.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the server works with.
pub struct HttpState {
    /// Its limits.
    pub config: HttpConfig,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What `/health/ready` shows.
    pub health: Arc<Health>,
    /// What `/write` and `/read` do.
    pub facade: Facade,
    /// The routes of the configuration.
    pub site: Site,
    /// What fills the cache, where there are mappings.
    pub reads: Option<ReadThrough>,
    /// What `/api/v1/writeback` and `/api/v1/dlq` ask, where there are mappings.
    pub writeback: Option<Writeback>,
    /// What `/api/v1/cache/stats` shows.
    pub cache: CacheStats,
    /// Requests so far that came without an id of their own.
    pub requests: AtomicU64,
    /// The process, which is part of those ids. To ask for it is a system call.
    pub process: u32,
}

/// Accepts a value. `Ok` promises as much as the answer `accepted` does.
pub type Write = dyn Fn(WriteRequest) -> BoxFuture<Result<(), ApiError>> + Send + Sync;

/// The latest value of a user.
pub type Read = dyn Fn(String) -> BoxFuture<Result<Option<Bytes>, ApiError>> + Send + Sync;

/// The two operations of the REST facade. Their futures are dropped when the client has gone or its time is up.
#[derive(Clone)]
pub struct Facade {
    /// What `POST /write` does.
    pub write: Arc<Write>,
    /// What `GET /read` does.
    pub read: Arc<Read>,
}

impl Facade {
    /// A facade made of two async functions.
    pub fn new<W, R, WF, RF>(write: W, read: R) -> Self
    where
        W: Fn(WriteRequest) -> WF + Send + Sync + 'static,
        R: Fn(String) -> RF + Send + Sync + 'static,
        WF: Future<Output = Result<(), ApiError>> + Send + 'static,
        RF: Future<Output = Result<Option<Bytes>, ApiError>> + Send + 'static,
    {
        Self {
            write: Arc::new(move |request| Box::pin(write(request))),
            read: Arc::new(move |user_id| Box::pin(read(user_id))),
        }
    }
}

/// The body of `POST /write`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteRequest {
    /// Whose value.
    pub user_id: String,
    /// The value.
    pub value: String,
    /// When it was written, by the client's clock; generated when absent.
    #[serde(default, deserialize_with = "facade::whole_number")]
    pub ts: Option<i64>,
}
