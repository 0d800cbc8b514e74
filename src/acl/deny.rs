//! What nobody may do, whoever it is: the deny list, and read-only mode.
//!
//! Must not know: users.

use super::Asked;
use super::selector::Selector;
use crate::command::{Command, Flags, Learned};
use thiserror::Error;

/// Scripts begin with this when they say that they do not write (Redis docs, "Eval scripts", "Script flags").
const SHEBANG: &[u8] = b"#!lua";

/// What is refused to everybody.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Commands that write are refused.
    pub read_only: bool,
    /// What is not denied; `None` when nothing is.
    allowed: Option<Selector>,
}

/// Why a command is refused to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is on the deny list.
    Denied,
    /// It writes, or may write.
    ReadOnly,
}

/// An entry of the deny list that names nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{0}\" names no command, subcommand (`config|set`) or category (`@dangerous`)")]
pub struct DenyError(String);

impl Policy {
    /// From the entries of a deny list: `flushall`, `config|set`, `@dangerous`.
    ///
    /// # Errors
    /// The first entry that names nothing.
    pub fn new(read_only: bool, deny: &[String], learned: &Learned) -> Result<Self, DenyError> {
        let mut allowed = Selector::default();
        // `+@all` is a rule.
        let _ = allowed.apply(b"+@all", learned);
        for entry in deny {
            allowed.apply(format!("-{entry}").as_bytes(), learned).map_err(|_| DenyError(entry.clone()))?;
        }
        Ok(Self { read_only, allowed: (!deny.is_empty()).then_some(allowed) })
    }

    /// True when nothing is refused.
    pub fn is_free(&self) -> bool {
        !self.read_only && self.allowed.is_none()
    }

    /// Whether the command may run.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, asked: &Asked<'_>, script: impl FnOnce() -> Option<Vec<u8>>) -> Result<(), Refused> {
        if self.allowed.as_ref().is_some_and(|allowed| !allowed.allows_command(asked)) {
            return Err(Refused::Denied);
        }
        if self.read_only && may_write(asked, script) {
            return Err(Refused::ReadOnly);
        }
        Ok(())
    }
}

impl Refused {
    /// The error for the client.
    pub fn error(self, command: &Command) -> String {
        match self {
            Self::Denied => {
                format!(
                    "NOPERM dsproxy: the '{}' command is denied by this proxy's configuration",
                    command.name
                )
            }
            Self::ReadOnly => {
                "READONLY You can't write against a read only proxy (dsproxy: acl.read_only)".into()
            }
        }
    }

    /// As metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::ReadOnly => "read_only",
        }
    }
}

/// True for what changes data, and for scripts unless they say that they do not.
fn may_write(asked: &Asked<'_>, script: impl FnOnce() -> Option<Vec<u8>>) -> bool {
    let command = asked.command;
    match command.name {
        "eval" => !says_no_writes(asked.args.get(1).unwrap_or_default()),
        "evalsha" => !script().is_some_and(|body| says_no_writes(&body)),
        "fcall" => true,
        // What it does is known to the servers only.
        _ if command.group == "module" => !command.flags.contains(Flags::READONLY),
        "publish" | "spublish" => false,
        _ => command.flags.contains(Flags::WRITE),
    }
}

/// True for a script whose first line is `#!lua flags=...no-writes...`.
fn says_no_writes(body: &[u8]) -> bool {
    let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.starts_with(SHEBANG)
        && line
            .split(|byte| *byte == b' ')
            .filter_map(|word| word.strip_prefix(b"flags="))
            .any(|flags| flags.split(|byte| *byte == b',').any(|flag| flag.trim_ascii_end() == b"no-writes"))
}
