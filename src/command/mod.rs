//! The command table: what every Redis command is called, takes, touches, and how the proxy runs it.
//!
//! Must not know: connections, slots, mappings, how a command is carried out.
//!
//! [`resolve`] is the whole of it for one request: the command (or subcommand), or why there is none in Redis' own
//! words. A GET goes through [`lookup`] and [`Command::first_key`] only.

mod error;
mod flags;
mod keys;
mod learned;
mod lookup;
mod reference;
mod table;

pub use error::{ResolveError, unknown_command_error, unknown_subcommand_error, wrong_arity_error};
pub use flags::{Categories, Flags, KeyFlags};
pub use keys::{Begin, Find, Finder, KeyError, KeyRange, KeySpec};
pub use learned::Learned;
pub use lookup::lookup;
pub use reference::reference_page;
pub use table::{COMMANDS, ID_COUNT};

use crate::resp::Args;

/// One command, or one subcommand of a container command such as `CONFIG`.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Dense: `0..COMMANDS.len()` for top-level commands, up to [`ID_COUNT`] for subcommands. Good as an array index;
    /// not stable between builds.
    pub id: u16,
    /// Number of arguments, the name (and the subcommand's) included; negative: at least that many.
    pub arity: i16,
    /// See [`Command::first_key`]; 0 when there is no such key.
    fixed_key: u16,
    /// How the proxy runs it; see [`Command::class_of`] for those that depend on their arguments.
    pub class: Class,
    /// Its flags.
    pub flags: Flags,
    /// Its ACL categories, those that follow from the flags included.
    pub categories: Categories,
    /// Lowercase: `get`; of a subcommand with its container: `config|get`.
    pub name: &'static str,
    /// Where its keys are.
    pub keys: &'static [KeySpec],
    finder: Finder,
    /// The same for old clients: first, last, step.
    pub range: KeyRange,
    /// Redis' command tips, such as `request_policy:all_shards`.
    pub tips: &'static [&'static str],
    /// Why it has its class; of a refused command, the reason to give. Empty where a key says it all.
    pub note: &'static str,
    /// The version of Redis it appeared in.
    pub since: &'static str,
    /// What it does, in Redis' words.
    pub summary: &'static str,
    /// The group `COMMAND DOCS` puts it in.
    pub group: &'static str,
    /// What a container command contains; empty for all others.
    pub subcommands: &'static [Command],
}

/// How the proxy runs a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Forwarded as it is to the owner of its keys' slot, which must be one (else CROSSSLOT); without keys, to any
    /// primary.
    Single,
    /// One part per slot, the replies merged.
    Split(Merge),
    /// Concerns every primary.
    FanOut,
    /// Opens, closes or guards a transaction.
    Transaction,
    /// May wait on the server for as long as the client asked.
    Blocking,
    /// [`Class::Blocking`] when this option is given, else [`Class::Single`].
    BlockingIf(&'static str),
    /// Subscribes or publishes.
    PubSub,
    /// Runs a script or function; routed like [`Class::Single`].
    Script,
    /// Answered by the proxy itself.
    Local,
    /// Not available through the proxy; the note of the command says why.
    Refused,
}

/// How the replies to the parts of a split command become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// One element per key, in the order of the request.
    Array,
    /// `OK` when every part said so.
    AllOk,
    /// The sum of the parts' integers.
    Sum,
}

/// The command that `args` calls for, a container's subcommand where there is one, with its number of arguments checked.
///
/// # Errors
///
/// What Redis would answer instead; see [`ResolveError::message`].
#[inline]
pub fn resolve(args: &Args<'_>) -> Result<&'static Command, ResolveError> {
    let command = lookup(args.name()).ok_or(ResolveError::UnknownCommand)?;
    let command = if command.subcommands.is_empty() || args.len() == 1 {
        command
    } else {
        command.subcommand(args).ok_or(ResolveError::UnknownSubcommand)?
    };
    if command.arity_ok(args.len()) { Ok(command) } else { Err(ResolveError::WrongArity(command)) }
}

/// The command with this full name, a subcommand's written with a bar (`config|get`), in any letter case.
pub fn lookup_full(name: &[u8]) -> Option<&'static Command> {
    let mut parts = name.splitn(2, |&byte| byte == b'|');
    let command = lookup(parts.next()?)?;
    match parts.next() {
        Some(subcommand) => command.subcommand_named(subcommand),
        None => Some(command),
    }
}

/// Every command and subcommand, a container before what it contains.
pub fn all() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().flat_map(|command| std::iter::once(command).chain(command.subcommands))
}

/// The full name of the command with this [`Command::id`].
pub fn name_of(id: u16) -> Option<&'static str> {
    all().find(|command| command.id == id).map(|command| command.name)
}

/// Whether the command with this [`Command::id`] answers what keys hold.
pub fn reads(id: u16) -> bool {
    static READS: std::sync::LazyLock<Vec<bool>> = std::sync::LazyLock::new(|| {
        let mut reads = Vec::new();
        for command in all() {
            let at = usize::from(command.id);
            reads.resize(reads.len().max(at + 1), false);
            if let Some(slot) = reads.get_mut(at) {
                *slot = command.is_readonly() || command.name == "getex";
            }
        }
        reads
    });
    READS.get(usize::from(id)).copied().unwrap_or_default()
}

/// Two rows are equal when they are the same row.
impl PartialEq for Command {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Command {}

impl Command {
    /// True when `argc` arguments, the command name included, are as many as it takes.
    #[inline]
    pub fn arity_ok(&self, argc: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { argc >= wanted } else { argc == wanted }
    }

    /// The subcommand that the second argument names; `None` if it names none, or this is no container.
    pub fn subcommand(&self, args: &Args<'_>) -> Option<&'static Command> {
        self.subcommand_named(args.get(1)?)
    }

    fn subcommand_named(&self, name: &[u8]) -> Option<&'static Command> {
        self.subcommands.iter().find(|command| command.short_name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The name without that of the container: `get` of `config|get`.
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, name)| name)
    }

    /// The class for these arguments: that of the subcommand for a container, and [`Class::BlockingIf`] decided.
    #[inline]
    pub fn class_of(&self, args: &Args<'_>) -> Class {
        match self.class {
            Class::BlockingIf(_) => self.class_by_arguments(args),
            class if self.subcommands.is_empty() => class,
            _ => self.class_by_arguments(args),
        }
    }

    fn class_by_arguments(&self, args: &Args<'_>) -> Class {
        let command = self.subcommand(args).unwrap_or(self);
        match command.class {
            Class::BlockingIf(option) if command.has_option(option, args) => Class::Blocking,
            Class::BlockingIf(_) => Class::Single,
            class => class,
        }
    }

    /// True when it may change data. A container itself is neither; ask its subcommand.
    #[inline]
    pub fn is_write(&self) -> bool {
        self.flags.contains(Flags::WRITE)
    }

    /// True when it reads keys and changes none.
    #[inline]
    pub fn is_readonly(&self) -> bool {
        self.flags.contains(Flags::READONLY)
    }

    /// True when `option` stands before the keyword its keys follow; after it everything is a key or an id.
    fn has_option(&self, option: &str, args: &Args<'_>) -> bool {
        let Some(Begin::Keyword { keyword, from }) = self.keys.first().map(|spec| spec.begin) else {
            return false;
        };
        let end = keys::keyword_position(args, keyword, from).unwrap_or(args.len());
        let start = usize::from(from.unsigned_abs());
        (start..end).any(|at| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(option.as_bytes())))
    }
}

#[cfg(test)]
mod tests;
