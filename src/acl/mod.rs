//! Who may do what: users with their rules, and what nobody may do.
//!
//! Must not know: connections, files, who asks.
//!
//! Everything here is pure. The rules, their texts and their meaning are those of Redis 7.0 (Redis docs, "ACL"; `acl.c`):
//! a user is a set of selectors, a selector a set of commands, key patterns and channel patterns; a command may run when
//! one selector allows all of it.

mod deny;
mod describe;
mod log;
mod rule;
mod selector;
mod user;
mod users;

pub use deny::{DenyError, Policy, Refused};
pub use log::{Context, Entry, Log};
pub use rule::RuleError;
pub use selector::Selector;
pub use user::{Secrecy, User};
pub use users::{Users, UsersError, joined_selectors};

use crate::command::{Command, Flags, KeyFlags};
use crate::resp::Args;

/// The user that every connection begins as.
pub const DEFAULT: &[u8] = b"default";

/// Why a command may not run, and the argument that is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// The command itself.
    Command,
    /// The key at this argument.
    Key(usize),
    /// The channel at this argument.
    Channel(usize),
}

impl Denied {
    /// The error of a command that was sent, in Redis' words.
    pub fn error(self, command: &Command) -> String {
        match self {
            Self::Command => {
                format!("NOPERM this user has no permissions to run the '{}' command", command.name)
            }
            Self::Key(_) => {
                "NOPERM this user has no permissions to access one of the keys used as arguments".to_owned()
            }
            Self::Channel(_) => {
                "NOPERM this user has no permissions to access one of the channels used as arguments"
                    .to_owned()
            }
        }
    }

    /// What `ACL DRYRUN` says.
    pub fn verdict(self, command: &Command, args: &Args<'_>) -> String {
        let shown = |at: usize| String::from_utf8_lossy(args.get(at).unwrap_or_default()).into_owned();
        match self {
            Self::Command => format!("This user has no permissions to run the '{}' command", command.name),
            Self::Key(at) => format!("This user has no permissions to access the '{}' key", shown(at)),
            Self::Channel(at) => {
                format!("This user has no permissions to access the '{}' channel", shown(at))
            }
        }
    }

    /// Why a queued command may not run any more, in the words of `EXEC`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Command => "no permission to execute the command or subcommand",
            Self::Key(_) => "no permission to touch the specified keys",
            Self::Channel(_) => {
                "no permission to access one of the channels used as arguments to the command"
            }
        }
    }

    /// As metrics and `ACL LOG` call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Key(_) => "key",
            Self::Channel(_) => "channel",
        }
    }

    /// What `ACL LOG` shows of it: the command, the key, or the channel.
    pub fn object(self, command: &Command, args: &Args<'_>) -> Vec<u8> {
        match self {
            Self::Command => command.name.as_bytes().to_vec(),
            Self::Key(at) | Self::Channel(at) => args.get(at).unwrap_or_default().to_vec(),
        }
    }
}

/// A request as its rules see it: the keys are looked for once, whatever the number of selectors.
pub struct Asked<'a> {
    /// The command (the subcommand of a container).
    pub command: &'static Command,
    /// All its arguments.
    pub args: &'a Args<'a>,
    keys: std::cell::OnceCell<Vec<(u32, KeyFlags)>>,
}

impl<'a> Asked<'a> {
    /// A request.
    pub fn new(command: &'static Command, args: &'a Args<'a>) -> Self {
        Self { command, args, keys: std::cell::OnceCell::new() }
    }

    /// Its keys; none when they cannot be told, which a node refuses to run, too.
    fn keys(&self) -> &[(u32, KeyFlags)] {
        self.keys.get_or_init(|| {
            let mut keys = Vec::new();
            if self.command.takes_keys() {
                let _ = self.command.keys_with_flags(self.args, &mut keys);
            }
            keys
        })
    }

    /// Its channels, and whether they are patterns.
    fn channels(&self) -> Option<(std::ops::Range<usize>, bool)> {
        match self.command.name {
            "publish" | "spublish" => Some((1..2, false)),
            "subscribe" | "ssubscribe" => Some((1..self.args.len(), false)),
            "psubscribe" => Some((1..self.args.len(), true)),
            _ => None,
        }
    }

    /// True for commands that every connection may send, since they are about who it is.
    fn is_free(&self) -> bool {
        self.command.flags.contains(Flags::NO_AUTH)
    }
}
