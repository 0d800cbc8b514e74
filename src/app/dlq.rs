//! `dsproxy dlq`: writes that the database refused.
//!
//! Must not know: the command line, a running proxy.

use std::fmt::Write as _;

use thiserror::Error;

use super::StartErrors;
use super::database::open_source;
use crate::config::Config;
use crate::source::{Committed, DeadLetter, Letters, Source, SourceError};

/// Dead letters that are listed at most.
const MOST: u32 = 1000;

/// Which dead letters are meant.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// Of this mapping only
    #[arg(long)]
    mapping: Option<String>,
    /// These (none: all)
    ids: Vec<i64>,
}

/// What `dsproxy dlq` is to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DlqStep {
    /// One line for each, oldest first
    List(Which),
    /// Everything of each, its columns included
    Show(Which),
    /// Apply them; one that a newer write has outrun is dropped, one that is refused again stays
    Replay(Which),
    /// Remove them without applying them
    Drop {
        /// Which
        #[command(flatten)]
        which: Which,
        /// Yes, all of them (needed when neither ids nor a mapping are given)
        #[arg(long)]
        all: bool,
    },
}

/// Why it could not be done.
#[derive(Debug, Error)]
pub enum DlqFailure {
    /// The configuration does not fit the database, or there is none.
    #[error(transparent)]
    Start(#[from] StartErrors),
    /// The database.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No database.
    #[error("no mappings are configured, so there is nothing that could be refused")]
    NoMappings,
    /// Nothing says which are to be dropped.
    #[error("say which: ids, --mapping NAME, or --all")]
    Which,
    /// Some are refused again.
    #[error("{0}{1} are still refused, and stay")]
    StillRefused(String, usize),
}

/// Does it; a report.
///
/// # Errors
/// [`DlqFailure`].
pub async fn dlq(config: &Config, step: DlqStep) -> Result<String, DlqFailure> {
    let source = open_source(config).await?.ok_or(DlqFailure::NoMappings)?;
    source.prepare_ledger().await?;
    let mut report = String::new();
    match step {
        DlqStep::List(which) => {
            for letter in source.dead_letters(&which.letters(), MOST).await? {
                let DeadLetter { id, at, mapping, key, operation, error, .. } = letter;
                let _ = writeln!(report, "{id:>8} {at} {mapping} {operation} {key}: {error}");
            }
        }
        DlqStep::Show(which) => {
            for letter in source.dead_letters(&which.letters(), MOST).await? {
                let _ = writeln!(report, "{}", serde_json::to_string_pretty(&letter).unwrap_or_default());
            }
        }
        DlqStep::Replay(which) => replay(&source, &which.letters(), &mut report).await?,
        DlqStep::Drop { which, all } => {
            let letters = which.letters();
            if letters.mapping.is_none() && letters.ids.is_empty() && !all {
                return Err(DlqFailure::Which);
            }
            let _ = writeln!(report, "dropped: {}", source.drop_dead_letters(&letters).await?);
        }
    }
    Ok(report)
}

async fn replay(source: &Source, which: &Letters, report: &mut String) -> Result<(), DlqFailure> {
    let mut refused = 0;
    for letter in source.dead_letters(which, MOST).await? {
        let outcome = match source.replay(&letter).await {
            Ok(Committed::Unknown) => "dropped, a newer write of its key was applied".to_owned(),
            Ok(_) => "applied".to_owned(),
            Err(error @ SourceError::Unavailable { .. }) => return Err(error.into()),
            Err(error) => {
                refused += 1;
                format!("stays: {error}")
            }
        };
        let _ = writeln!(report, "{:>8} {} {}", letter.id, letter.key, outcome);
    }
    match refused {
        0 => Ok(()),
        refused => Err(DlqFailure::StillRefused(std::mem::take(report), refused)),
    }
}

impl Which {
    fn letters(self) -> Letters {
        Letters { mapping: self.mapping, ids: self.ids }
    }
}
