//! `dsproxy dlq`: writes that the database refused.
//!
//! Must not know: the command line, a running proxy.

use std::collections::HashSet;
use std::fmt::Write as _;

use thiserror::Error;

use super::database::open_source;
use super::{Server, StartErrors};
use crate::cache::{Outcome, ReadThrough, Released};
use crate::config::{Config, Durability};
use crate::source::{DeadLetter, Letters, Source, SourceError};

/// Dead letters that are asked for at a time.
const MOST: u32 = 1000;
/// A directory in which there is no journal, and never will be.
const NOWHERE: &str = "/dev/null";
const UNTOLD: &str =
    "applied, but the cache could not be told: what it has of the row goes with its time to live";

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
    /// Apply them, and then what waits behind them; one that a newer write has outrun is dropped, one that is refused again
    /// stays
    Replay(Which),
    /// Remove them without applying them, and apply what waits behind them; one that waits goes only where it is named
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
    /// The database went away in between.
    #[error("{0}{1}; the others stay")]
    Away(String, SourceError),
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
            each(&source, which.letters(), |letter| {
                let DeadLetter { id, at, mapping, key, operation, error, later, .. } = letter;
                let later = later.map_or("", |_| " (its key was written again)");
                let _ = writeln!(report, "{id:>8} {at} {mapping} {operation} {key}: {error}{later}");
            })
            .await?;
        }
        DlqStep::Show(which) => {
            each(&source, which.letters(), |letter| {
                let _ = writeln!(report, "{}", serde_json::to_string_pretty(&letter).unwrap_or_default());
            })
            .await?;
        }
        DlqStep::Replay(which) => through_cache(config, Job::Replay(which.letters()), &mut report).await?,
        DlqStep::Drop { which, all } => {
            let letters = which.letters();
            if letters.mapping.is_none() && letters.ids.is_empty() && !all {
                return Err(DlqFailure::Which);
            }
            source.count_dead_letters().await?;
            match source.mappings().iter().any(|mapping| source.known_held(mapping.id) > 0) {
                true => through_cache(config, Job::Drop(letters), &mut report).await?,
                false => drop_letters(source.drop_dead_letters(&letters).await?, &[], &mut report),
            }
        }
    }
    Ok(report)
}

/// What needs a cache.
enum Job {
    Replay(Letters),
    Drop(Letters),
}

/// Does it through a proxy that takes no clients: what the cache has of the rows is outdated then, too.
async fn through_cache(config: &Config, job: Job, report: &mut String) -> Result<(), DlqFailure> {
    let mut config = config.clone();
    super::doors::close(&mut config);
    config.journal.data_dir = NOWHERE.to_owned();
    for mapping in &mut config.mappings {
        mapping.warm = None;
        // It takes no writes, so it needs no journal.
        if mapping.durability == Durability::Journal {
            mapping.durability = Durability::Memory;
        }
    }
    let server = Server::start(&config).await?;
    let outcome = match (server.reads(), job) {
        (Some(reads), Job::Replay(letters)) => replay_through(reads, letters, report).await,
        (Some(reads), Job::Drop(letters)) => match reads.drop_letters(&letters).await {
            Ok((count, released)) => {
                drop_letters(count, &released, report);
                Ok(0)
            }
            Err(error) => Err(error.into()),
        },
        (None, _) => Err(DlqFailure::NoMappings),
    };
    server.run(std::future::ready(())).await;
    match outcome? {
        0 => Ok(()),
        refused => Err(DlqFailure::StillRefused(std::mem::take(report), refused)),
    }
}

fn drop_letters(count: u64, released: &[Released], report: &mut String) {
    let _ = writeln!(report, "dropped: {count}");
    released.iter().for_each(|released| tell(released, report));
}

/// A line about a write that had waited.
fn tell(released: &Released, report: &mut String) {
    let outcome = match &released.outcome {
        Outcome::Applied => "applied, it had waited".to_owned(),
        Outcome::Outrun => "dropped, a newer write of its key was applied".to_owned(),
        Outcome::Refused(error) => format!("stays: {error}"),
    };
    let _ = writeln!(report, "{:>8} {} {outcome}", released.id, released.key);
}

/// How many are refused again.
async fn replay_through(
    reads: &ReadThrough,
    mut which: Letters,
    report: &mut String,
) -> Result<usize, DlqFailure> {
    let mut refused = 0;
    let mut over = HashSet::new();
    loop {
        let letters = reads.dead_letters(&which, MOST).await?;
        let Some(last) = letters.last() else { return Ok(refused) };
        which.after = last.id;
        for letter in &letters {
            if over.contains(&letter.id) {
                continue;
            }
            let (mut outcome, mut released) = (String::new(), Vec::new());
            match reads.replay(letter).await {
                Ok(replayed) => {
                    outcome.push_str(match (replayed.applied, replayed.told) {
                        (true, true) => "applied",
                        (true, false) => UNTOLD,
                        (false, _) => "dropped, a newer write of its key was applied",
                    });
                    released = replayed.released;
                }
                Err(error @ SourceError::Unavailable { .. }) => {
                    return Err(DlqFailure::Away(std::mem::take(report), error));
                }
                Err(error) => {
                    // What waits is not refused itself.
                    refused += usize::from(!matches!(error, SourceError::Waits { .. }));
                    let _ = write!(outcome, "stays: {error}");
                }
            }
            let _ = writeln!(report, "{:>8} {} {outcome}", letter.id, letter.key);
            for released in &released {
                over.insert(released.id);
                refused += usize::from(matches!(released.outcome, Outcome::Refused(_)));
                tell(released, report);
            }
        }
    }
}

/// Every one that is meant, page by page.
async fn each(
    source: &Source,
    mut which: Letters,
    mut show: impl FnMut(DeadLetter),
) -> Result<(), SourceError> {
    loop {
        let letters = source.dead_letters(&which, MOST).await?;
        let Some(last) = letters.last() else { return Ok(()) };
        which.after = last.id;
        letters.into_iter().for_each(&mut show);
    }
}

impl Which {
    fn letters(self) -> Letters {
        Letters { mapping: self.mapping, ids: self.ids, after: 0 }
    }
}
