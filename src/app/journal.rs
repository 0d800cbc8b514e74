//! `dsproxy journal`: looks into the journal of a proxy.
//!
//! Must not know: the command line.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::journal::{self, OpenError};

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
    }
}

/// A directory that is not there would otherwise look like an empty journal.
fn checked(dir: &Path) -> Result<PathBuf, io::Error> {
    match std::fs::metadata(dir) {
        Ok(_) => Ok(dir.to_owned()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", dir.display()))),
    }
}

/// A payload as far as it is text.
fn as_text(payload: &[u8]) -> String {
    payload.escape_ascii().to_string()
}
