//! `dsproxy warm`: has a running proxy load rows into the cache.
//!
//! Must not know: the command line; how a row is loaded: it reads the keys as any client would.
//!
//! Behind each page a checkpoint is kept in the data directory, so that a run that was broken off goes on where it was.

use super::StartErrors;
use super::database;
use super::ids::{IdPages, PAGE};
use super::warm_link::{Link, LinkOptions, Place};
use crate::config::Config;
use crate::mapping::Mapping;
use crate::resp::push_command;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::time::timeout;

/// Pages per second at least when there is a rate: a page is no longer than that.
const PAGES_PER_SECOND: u64 = 5;
/// How long a page may take. The proxy's own timeouts are far shorter: it is for one that hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// What is to be loaded.
#[derive(Clone, Debug, clap::Args)]
pub struct WarmOptions {
    /// Name of the mapping
    pub mapping: String,
    /// Only rows that this condition (SQL) holds for
    #[arg(long = "where", value_name = "SQL")]
    pub filter: Option<String>,
    /// Rows at most, those of a run that was broken off included
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Rows per second at most
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
    /// Begin at the first row, though a run was broken off
    #[arg(long)]
    pub restart: bool,
    /// Where the proxy is.
    #[command(flatten)]
    pub link: LinkOptions,
}

/// Why not all was loaded.
#[derive(Debug, Error)]
pub enum WarmFailure {
    /// The database.
    #[error(transparent)]
    Start(#[from] StartErrors),
    /// Such a mapping cannot be warmed.
    #[error("{0}")]
    Mapping(String),
    /// No proxy.
    #[error("no proxy answers at {0}: {1}; start it, or name another by --address or --socket")]
    Proxy(Place, io::Error),
    /// The ids cannot be read, or a row cannot be loaded.
    #[error("{text}; {done} rows are loaded: the same command goes on from there")]
    BrokenOff {
        /// Why.
        text: String,
        /// Rows that are loaded.
        done: u64,
    },
    /// The checkpoint cannot be kept.
    #[error("cannot keep the checkpoint {0}: {1}")]
    Checkpoint(PathBuf, io::Error),
}

/// How far a run has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Checkpoint {
    /// The condition of the run; another one is another run.
    filter: Option<String>,
    /// The ids of the last row that is loaded.
    after: Vec<String>,
    /// Rows that are loaded.
    rows: u64,
}

impl Checkpoint {
    fn read(path: &Path, filter: Option<&str>) -> Option<Self> {
        let text = std::fs::read(path).ok()?;
        serde_json::from_slice(&text).ok().filter(|found: &Self| found.filter.as_deref() == filter)
    }

    /// Whole or not at all: a crash leaves the one before.
    fn keep(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let fresh = path.with_extension("tmp");
        std::fs::write(&fresh, serde_json::to_vec(self)?)?;
        std::fs::rename(fresh, path)
    }
}

/// Loads the rows; a line that says how many.
///
/// # Errors
/// [`WarmFailure`]; what is loaded stays.
pub async fn warm(config: &Config, options: &WarmOptions) -> Result<String, WarmFailure> {
    let unknown =
        || WarmFailure::Mapping(format!("there is no mapping `{}` in the configuration", options.mapping));
    let source = database::open_source(config).await?.ok_or_else(unknown)?;
    let mapping = source.mappings().by_name(&options.mapping).ok_or_else(unknown)?;
    if !mapping.cache {
        return Err(WarmFailure::Mapping(format!("mapping `{}` is not cached", mapping.name)));
    }
    let filter = options.filter.as_deref();
    let ids = IdPages::new(&source, mapping.id, filter).map_err(WarmFailure::Mapping)?;
    let place = Place::of(config, &options.link);
    let link = Link::connect(&place, config, &options.link).await;
    let mut link = link.map_err(|error| WarmFailure::Proxy(place, error))?;
    let path = Path::new(&config.journal.data_dir).join(format!("warm-{}.json", mapping.name));
    let found = Checkpoint::read(&path, filter).filter(|_| !options.restart);
    let mut state =
        found.unwrap_or_else(|| Checkpoint { filter: options.filter.clone(), ..Checkpoint::default() });
    let (begun, resumed) = (Instant::now(), state.rows);
    // Only the bar wants the number: without it there is just no end to see.
    let count = ids.count().await.ok().map(|count| count.min(options.limit.unwrap_or(u64::MAX)));
    let mut progress = Progress::new(&mapping.name, count, resumed);
    loop {
        let broken = |text: String| WarmFailure::BrokenOff { text, done: state.rows };
        let page_begun = Instant::now();
        let page = match room(options, state.rows) {
            0 => Vec::new(),
            room => ids.next(&state.after, room).await.map_err(broken)?,
        };
        let Some(last) = page.last().cloned() else { break };
        timeout(PATIENCE, read(&mut link, mapping, &page))
            .await
            .unwrap_or_else(|_| Err("the proxy does not answer".to_owned()))
            .map_err(broken)?;
        state.rows += page.len() as u64;
        state.after = last;
        state.keep(&path).map_err(|error| WarmFailure::Checkpoint(path.clone(), error))?;
        progress.at(state.rows);
        if let Some(rate) = options.rate {
            let due = Duration::from_secs_f64(page.len() as f64 / rate as f64);
            tokio::time::sleep(due.saturating_sub(page_begun.elapsed())).await;
        }
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(WarmFailure::Checkpoint(path, error));
        }
        _ => progress.end(),
    }
    let (name, rows, took) = (&mapping.name, state.rows - resumed, begun.elapsed().as_secs_f64());
    let before = if resumed > 0 { format!(" after {resumed} of a run before") } else { String::new() };
    Ok(format!("warm {name}: {rows} rows{before} in {took:.1} s\n"))
}

/// Rows of the next page.
fn room(options: &WarmOptions, done: u64) -> u64 {
    let by_rate = options.rate.map_or(PAGE, |rate| (rate / PAGES_PER_SECOND).max(1));
    PAGE.min(by_rate).min(options.limit.unwrap_or(u64::MAX).saturating_sub(done))
}

/// Reads the keys of a page, all sent at once: the proxy loads in one query what it does not have.
async fn read(link: &mut Link, mapping: &Mapping, page: &[Vec<String>]) -> Result<(), String> {
    let (mut request, mut count) = (Vec::new(), 0);
    // An id that no key can have (a text with the literal that would end it) is nobody's key.
    for key in page.iter().filter_map(|ids| mapping.template.build(ids)) {
        push_command(&mut request, [&b"EXISTS"[..], key.as_bytes()]);
        count += 1;
    }
    link.ask(&request, count).await
}

/// A bar on a terminal, lines elsewhere.
struct Progress {
    bar: ProgressBar,
    name: String,
    said: Instant,
}

impl Progress {
    fn new(name: &str, count: Option<u64>, done: u64) -> Self {
        let bar = count.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let bar = bar.with_prefix(name.to_owned()).with_position(done);
        // The template is a constant that is right.
        let style =
            ProgressStyle::with_template("{prefix} [{bar:40}] {human_pos}/{human_len} {per_sec} {eta}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.reset_eta();
        Self { bar, name: name.to_owned(), said: Instant::now() }
    }

    fn at(&mut self, rows: u64) {
        self.bar.set_position(rows);
        if self.bar.is_hidden() && self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            let of = self.bar.length().map(|count| format!(" of {count}")).unwrap_or_default();
            // Nobody reads it: then nobody does.
            let _ = io::Write::write_fmt(
                &mut io::stderr(),
                format_args!("warm {}: {rows}{of} rows\n", self.name),
            );
        }
    }

    fn end(&self) {
        self.bar.finish();
    }
}
