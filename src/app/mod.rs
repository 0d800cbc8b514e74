//! The only place that wires: builds everything up in dependency order, and drains it in reverse.
//!
//! Must not know: arguments, how any part works.

mod admin;
mod applied;
mod check;
mod data;
mod database;
mod datagen;
mod dev;
mod dlq;
mod doors;
mod eviction;
mod facade;
mod ids;
mod instance;
mod journal;
mod probe;
mod route_check;
mod security;
mod server;
mod specs;
mod threads;
mod through;
mod tried;
mod versions;
mod warm;
mod warm_link;
mod warm_verb;
mod writes;

pub use check::{MigrateFailure, MigrateStep, check, migrate};
pub use datagen::{DataSet, DatagenError, Skew, Social, datagen};
pub use dev::{DevError, DevSource, dev};
pub use dlq::{DlqFailure, DlqStep, dlq};
pub use journal::{JournalFailure, JournalStep, adopt, journal};
pub use probe::{ProbeError, probe};
pub use server::{Addresses, Server};
pub use warm_verb::{WarmFailure, WarmOptions, warm};

use crate::cluster::DiscoveryError;
use crate::config::Config;
use crate::source::{OpenError, SourceError};
use crate::worker::ListenError;
use thiserror::Error;

/// One reason why the proxy cannot start. Each text names the cause and the cure.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The upstream is not there, or not as configured.
    #[error(transparent)]
    Upstream(#[from] DiscoveryError),
    /// The database is not there.
    #[error("the database of [database] url is not usable: {0}; start it, or correct DATABASE_URL")]
    Database(#[from] SourceError),
    /// Mappings do not fit each other, or their tables.
    #[error("{0}")]
    Mapping(String),
    /// Routes do not fit the database.
    #[error("{0}")]
    Route(String),
    /// A file that the HTTP side needs.
    #[error("{0}")]
    Http(String),
    /// Users, the deny list or certificates are wrong.
    #[error("{0}")]
    Access(String),
    /// The system refuses a thread or a socket.
    #[error("the system refuses a thread or a socket: {0}")]
    System(#[from] std::io::Error),
    /// The file that says who this proxy is cannot be used.
    #[error("cannot use {path}, which says whose journal it is: {error}")]
    Instance {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] crate::journal::OpenError),
    /// The journal holds what this configuration cannot write.
    #[error(transparent)]
    Restore(crate::writeback::RestoreError),
    /// Our fault: two metrics of one name.
    #[error("the metrics are inconsistent: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Every reason found, not just the first.
#[derive(Debug, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct StartErrors(pub Vec<StartError>);

impl From<StartError> for StartErrors {
    fn from(error: StartError) -> Self {
        Self(vec![error])
    }
}

/// One reason is a list of reasons.
macro_rules! single_reasons {
    ($($Error:ty),+) => {
        $(impl From<$Error> for StartErrors {
            fn from(error: $Error) -> Self {
                StartError::from(error).into()
            }
        })+
    };
}

single_reasons!(ListenError, DiscoveryError, SourceError, std::io::Error, prometheus::Error);

impl From<OpenError> for StartErrors {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Source(error) => error.into(),
            OpenError::Misfits(texts) => Self(texts.into_iter().map(StartError::Mapping).collect()),
        }
    }
}

/// Why serving ended other than well.
#[derive(Debug, Error)]
pub enum ServeError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartErrors),
    /// Rows that could not be written at the end.
    #[error("{0} rows could not be written to the database before the end")]
    RowsLeft(usize),
}

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(config: &Config) -> Result<(), ServeError> {
    let server = Server::start(config).await?;
    let addresses = server.addresses();
    tracing::info!(resp = ?addresses.resp, http = ?addresses.http, tls = ?addresses.tls, "serving");
    match server.run(shutdown_signal()).await {
        0 => Ok(()),
        left => Err(ServeError::RowsLeft(left)),
    }
}

/// Completes at SIGTERM or SIGINT.
async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "cannot wait for signals; stop the proxy with SIGKILL");
            std::future::pending::<()>().await;
        }
    }
}
