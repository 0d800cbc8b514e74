//! `dsproxy journal`: looks into the journal of a proxy, and takes over that of a dead one.
//!
//! Must not know: the command line.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thiserror::Error;

use super::{Server, StartErrors};
use crate::config::Config;
use crate::journal::{self, OpenError};
use crate::writeback::record::{self, Operation, Record};

/// What `dsproxy journal` is to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum JournalStep {
    /// Print every record that can be read, and where damage is
    Inspect {
        /// The proxy's data directory
        dir: PathBuf,
    },
    /// Check every byte of it, as a start does; changes nothing
    Verify {
        /// The proxy's data directory
        dir: PathBuf,
    },
    /// Write what a dead proxy's journal holds to the database, and to the cache; its proxy can write nothing any more
    Adopt {
        /// Configuration file [default: proxy.toml, when it is there]
        #[arg(long, value_name = "FILE", env = "DSPROXY_CONFIG")]
        config: Option<PathBuf>,
        /// The dead proxy's data directory
        dir: PathBuf,
    },
}

/// Why it could not be done, or what was found.
#[derive(Debug, Error)]
pub enum JournalFailure {
    /// It is damaged, or cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The directory cannot be read, or the report not be written.
    #[error(transparent)]
    Report(#[from] io::Error),
    /// Damaged segments, named in the report.
    #[error("{0} files of the journal are damaged, see above")]
    Damaged(usize),
    /// The configuration, the cluster or the database do not fit.
    #[error(transparent)]
    Start(#[from] StartErrors),
    /// Not everything could be written.
    #[error(
        "{0} writes could not be written to the database within write_behind.shutdown_timeout; they are still in the journal"
    )]
    Left(usize),
}

/// Does it; the report goes to `out`.
///
/// # Errors
/// [`JournalFailure`].
pub fn journal(step: &JournalStep, out: &mut dyn Write) -> Result<(), JournalFailure> {
    match step {
        JournalStep::Inspect { dir } => match journal::inspect(&checked(dir)?, out, &as_text)? {
            0 => Ok(()),
            damaged => Err(JournalFailure::Damaged(damaged)),
        },
        JournalStep::Verify { dir } => {
            let found = journal::verify(&checked(dir)?)?;
            let (records, entries, last) = (found.records, found.entries, found.last);
            writeln!(
                out,
                "ok: {records} records with {entries} writes in {} files, the last is {last}",
                found.segments
            )?;
            if found.torn > 0 {
                writeln!(out, "the last write was torn ({} bytes); nobody was told of it", found.torn)?;
            }
            Ok(())
        }
        JournalStep::Adopt { .. } => Ok(()), // a runtime is needed: `adopt`
    }
}

/// Starts a proxy over the journal in `dir` that takes no clients, and ends it when everything is written.
///
/// # Errors
/// [`JournalFailure`].
pub async fn adopt(mut config: Config, dir: &Path) -> Result<String, JournalFailure> {
    let dir = checked(dir)?;
    let found = journal::verify(&dir)?;
    config.journal.data_dir = dir.display().to_string();
    super::doors::close(&mut config);
    let server = Server::start(&config).await?;
    // Ending flushes: what an earlier process left is queued by now, and nothing comes in.
    match server.run(std::future::ready(())).await {
        0 => Ok(format!("everything up to write {} of {} is in the database\n", found.last, dir.display())),
        left => Err(JournalFailure::Left(left)),
    }
}

/// A directory that is not there would otherwise look like an empty journal.
fn checked(dir: &Path) -> Result<PathBuf, io::Error> {
    match std::fs::metadata(dir) {
        Ok(_) => Ok(dir.to_owned()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", dir.display()))),
    }
}

/// The writes of a payload: version, mapping, operation, key, columns. Values of rows are not shown, only their length.
fn as_text(payload: &[u8]) -> String {
    let writes = match record::decode(&Bytes::copy_from_slice(payload)) {
        Ok(decoded) => decoded,
        Err(error) => return format!("{} bytes: {error}", payload.len()),
    };
    let write = |(version, write): (u64, Record)| {
        let (operation, columns) = match &write.operation {
            Operation::Put(columns) => ("put", columns.as_slice()),
            Operation::Patch(columns, _) => ("patch", columns.as_slice()),
            Operation::Append(columns) => ("append", columns.as_slice()),
            Operation::Delete => ("delete", [].as_slice()),
            Operation::Withdraw(version) => return format!("withdraw {version}"),
            Operation::Confirm(version) => return format!("confirm {version}"),
        };
        let names: Vec<&str> = columns.iter().map(|(name, _)| &**name).collect();
        let (mapping, key, length) = (&write.mapping, write.key.escape_ascii(), write.value.len());
        let tried = if write.fence.is_some() { ", if confirmed" } else { "" };
        format!("v{version} {mapping} {operation} {key} ({}) {length} bytes{tried}", names.join(", "))
    };
    writes.into_iter().map(write).collect::<Vec<_>>().join("; ")
}
