//! What can go wrong while real servers run as our children, each with its cure in the message.
//!
//! Must not know: how any of it is shown.

use std::io;
use std::path::{Path, PathBuf};

/// Why the embedded stack could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A server program is absent (cure: install it).
    #[error("`{program}` is not installed; cure: `make setup`, or `apt-get install {package}`")]
    MissingProgram {
        /// The program looked for.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A server program is too old (cure: a newer one).
    #[error("`{program}` is {found}, and {wanted} is needed; install a newer one")]
    TooOld {
        /// The program, with its path.
        program: PathBuf,
        /// What it says it is.
        found: String,
        /// The oldest that will do.
        wanted: &'static str,
    },
    /// Another live process holds the directory (cure: stop that one, or use another directory).
    #[error("{} is in use by another dsproxy (pid {pid}); stop that one first, or use another directory", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, as it wrote itself down; `?` when it has not yet.
        pid: String,
    },
    /// The directory holds a stack of another shape.
    #[error(
        "{} holds a cluster of {had} and {want} was asked for; use that shape, or another directory, or remove this one",
        dir.display()
    )]
    Mismatch {
        /// The directory.
        dir: PathBuf,
        /// The shape found.
        had: String,
        /// The shape asked for.
        want: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A child ended although it should run.
    #[error("{name} ended while it was starting ({status}); the end of {}:\n{tail}", log.display())]
    Died {
        /// Which child.
        name: String,
        /// How it ended.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of this run in the log.
        tail: String,
    },
    /// Something did not become true in time.
    #[error("{what} within {seconds} s; last seen: {seen}")]
    Timeout {
        /// What was waited for, as "X did not Y".
        what: String,
        /// The deadline in seconds.
        seconds: u64,
        /// The last state observed.
        seen: String,
    },
    /// A server answered an error to one of our own commands.
    #[error("{name}: {message}")]
    Refused {
        /// Which server.
        name: String,
        /// Its words.
        message: String,
    },
    /// A child of that name does not exist in this stack.
    #[error("no child is named `{0}`; there are `redis-0`, `redis-1`, ... and `postgres`")]
    NoSuchChild(String),
}

impl StackError {
    /// For `map_err`: the io error with what was tried on which path.
    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{what} {}", path.display());
        move |source| Self::Io { what, source }
    }

    /// True when a child lost the race for a port that was free a moment ago: new ports can help.
    pub(crate) fn port_was_taken(&self) -> bool {
        matches!(self, Self::Died { tail, .. } if tail.contains("already in use"))
    }
}
