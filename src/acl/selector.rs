//! A selector: which commands on which keys and channels.
//!
//! Must not know: users, passwords.

use super::rule::{RuleError, has_blanks, is};
use super::{Asked, Denied};
use crate::command::{self, Categories, Command, ID_COUNT, KeyFlags, Learned};
use crate::glob;
use std::collections::BTreeMap;

/// The bit that stands for all commands beyond the table: those of modules, and of newer servers.
const FUTURE: usize = ID_COUNT;
const WORDS: usize = FUTURE / 64 + 1;

/// Rules of one selector. `Selector::default()` allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// A bit per [`Command::id`], then [`FUTURE`].
    pub(super) bits: Bits,
    pub(super) all_commands: bool,
    /// First arguments that are allowed of commands that are not, by id.
    pub(super) first_args: BTreeMap<u16, Vec<Box<[u8]>>>,
    /// Commands beyond the table whose answer is not that of [`FUTURE`].
    pub(super) learned: BTreeMap<&'static str, bool>,
    pub(super) all_keys: bool,
    pub(super) keys: Vec<KeyPattern>,
    pub(super) all_channels: bool,
    pub(super) channels: Vec<Box<[u8]>>,
}

/// Which keys, and what may be done to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyPattern {
    pub read: bool,
    pub write: bool,
    pub pattern: Box<[u8]>,
}

/// A set of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits([u64; WORDS]);

impl Default for Bits {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl Bits {
    pub fn get(&self, id: usize) -> bool {
        self.0.get(id / 64).is_some_and(|word| word & (1 << (id % 64)) != 0)
    }

    pub fn set(&mut self, id: usize, value: bool) {
        let Some(word) = self.0.get_mut(id / 64) else { return };
        match value {
            true => *word |= 1 << (id % 64),
            false => *word &= !(1 << (id % 64)),
        }
    }

    pub fn fill(&mut self, value: bool) {
        self.0 = [if value { u64::MAX } else { 0 }; WORDS];
    }

    /// True when commands to come are allowed, too: the rules began with `+@all`.
    pub fn has_future(&self) -> bool {
        self.get(FUTURE)
    }
}

impl Selector {
    /// True when it allows everything: nothing has to be looked at.
    pub fn is_free(&self) -> bool {
        self.all_commands && self.all_keys && self.all_channels && self.learned.is_empty()
    }

    /// True when every channel is allowed.
    pub(super) fn has_all_channels(&self) -> bool {
        self.all_channels
    }

    /// Applies one rule; `learned` knows the commands beyond the table.
    ///
    /// # Errors
    /// [`RuleError`]; nothing has changed then.
    pub fn apply(&mut self, rule: &[u8], learned: &Learned) -> Result<(), RuleError> {
        match (rule.first(), rule.get(1)) {
            _ if is(rule, "allkeys") || rule == b"~*" => self.reset_keys(true),
            _ if is(rule, "resetkeys") => self.reset_keys(false),
            _ if is(rule, "allchannels") || rule == b"&*" => self.reset_channels(true),
            _ if is(rule, "resetchannels") => self.reset_channels(false),
            _ if is(rule, "allcommands") || is(rule, "+@all") => self.reset_commands(true),
            _ if is(rule, "nocommands") || is(rule, "-@all") => self.reset_commands(false),
            (Some(b'~' | b'%'), _) => return self.add_keys(rule),
            (Some(b'&'), _) => return self.add_channels(rule.get(1..).unwrap_or_default()),
            (Some(sign @ (b'+' | b'-')), Some(b'@')) => {
                let name = String::from_utf8_lossy(rule.get(2..).unwrap_or_default()).to_ascii_lowercase();
                let category = Categories::named(&name).ok_or(RuleError::Unknown)?;
                self.change_category(category, *sign == b'+', learned);
            }
            (Some(b'+'), _) => return self.allow(rule.get(1..).unwrap_or_default(), learned),
            (Some(b'-'), _) => {
                let name = rule.get(1..).unwrap_or_default();
                self.change(learned.lookup_full(name).ok_or(RuleError::Unknown)?, false);
            }
            _ => return Err(RuleError::Syntax),
        }
        Ok(())
    }

    fn reset_keys(&mut self, all: bool) {
        self.all_keys = all;
        self.keys.clear();
    }

    fn reset_channels(&mut self, all: bool) {
        self.all_channels = all;
        self.channels.clear();
    }

    fn reset_commands(&mut self, all: bool) {
        self.bits.fill(all);
        self.all_commands = all;
        self.first_args.clear();
        self.learned.clear();
    }

    /// `~pattern`, `%R~pattern`, `%W~pattern`, `%RW~pattern`.
    fn add_keys(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::KeysAfterAll);
        }
        let tilde = rule.iter().position(|byte| *byte == b'~');
        let (mut read, mut write) = (false, false);
        // Like Redis, `%RW` without a tilde is a rule for the empty pattern.
        let end = tilde.unwrap_or(rule.len());
        for byte in rule.get(1..end).unwrap_or_default() {
            match byte.to_ascii_uppercase() {
                b'R' if !read => read = true,
                b'W' if !write => write = true,
                _ => return Err(RuleError::Syntax),
            }
        }
        if rule.first() == Some(&b'~') {
            (read, write) = (true, true);
        } else if !read && !write {
            return Err(RuleError::Syntax);
        }
        let pattern = rule.get(end + 1..).unwrap_or_default();
        if has_blanks(pattern) {
            return Err(RuleError::Syntax);
        }
        match self.keys.iter_mut().find(|known| *known.pattern == *pattern) {
            Some(known) => (known.read, known.write) = (known.read || read, known.write || write),
            None => self.keys.push(KeyPattern { read, write, pattern: pattern.into() }),
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::ChannelsAfterAll);
        }
        if has_blanks(pattern) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|known| **known == *pattern) {
            self.channels.push(pattern.into());
        }
        Ok(())
    }

    /// `+command`, `+command|subcommand`, `+command|first-argument`.
    fn allow(&mut self, name: &[u8], learned: &Learned) -> Result<(), RuleError> {
        let Some(bar) = name.iter().rposition(|byte| *byte == b'|') else {
            self.change(learned.lookup_full(name).ok_or(RuleError::Unknown)?, true);
            return Ok(());
        };
        let (container, sub) = (&name[..bar], &name[bar + 1..]);
        let container = learned.lookup_full(container).ok_or(RuleError::Unknown)?;
        if container.name.contains('|') {
            return Err(RuleError::FirstArgOfSubcommand);
        }
        if sub.is_empty() {
            return Err(RuleError::Syntax);
        }
        if container.subcommands.is_empty() {
            let allowed = self.first_args.entry(container.id).or_default();
            if !allowed.iter().any(|known| known.eq_ignore_ascii_case(sub)) {
                allowed.push(sub.into());
            }
        } else {
            self.change(learned.lookup_full(name).ok_or(RuleError::Unknown)?, true);
        }
        Ok(())
    }

    /// Allows or forbids a command with all its subcommands.
    pub(super) fn change(&mut self, command: &'static Command, allow: bool) {
        for command in std::iter::once(command).chain(command.subcommands) {
            let id = usize::from(command.id);
            if id < ID_COUNT {
                self.bits.set(id, allow);
            } else {
                self.learned.insert(command.name, allow);
            }
            self.all_commands &= allow;
        }
        self.first_args.remove(&command.id);
    }

    /// Allows or forbids all commands of a category.
    pub(super) fn change_category(&mut self, category: Categories, allow: bool, learned: &Learned) {
        let all = command::all().chain(learned.all());
        all.filter(|command| command.categories.contains(category))
            .for_each(|command| self.change(command, allow));
    }

    fn allows(&self, asked: &Asked<'_>) -> bool {
        let command = asked.command;
        let id = usize::from(command.id);
        if id >= ID_COUNT {
            let container =
                || command.name.split_once('|').and_then(|(name, _)| command::lookup(name.as_bytes()));
            return self.learned.get(command.name).copied().unwrap_or_else(|| {
                container()
                    .map_or(self.bits.has_future(), |container| self.bits.get(usize::from(container.id)))
            });
        }
        self.bits.get(id)
            || self.first_args.get(&command.id).is_some_and(|allowed| {
                let first = asked.args.get(1).unwrap_or_default();
                asked.args.len() > 1 && allowed.iter().any(|known| known.eq_ignore_ascii_case(first))
            })
    }

    /// Whether it allows a request, wholly.
    ///
    /// # Errors
    /// The first thing that it does not allow.
    pub fn check(&self, asked: &Asked<'_>) -> Result<(), Denied> {
        if !self.all_commands && !asked.is_free() && !self.allows(asked) {
            return Err(Denied::Command);
        }
        if !self.all_keys {
            for (at, flags) in asked.keys() {
                let key = asked.args.get(*at as usize).unwrap_or_default();
                if !self.allows_key(key, *flags) {
                    return Err(Denied::Key(*at as usize));
                }
            }
        }
        if !self.all_channels
            && let Some((mut channels, are_patterns)) = asked.channels()
        {
            let denied = channels
                .find(|at| !self.allows_channel(asked.args.get(*at).unwrap_or_default(), are_patterns));
            return denied.map_or(Ok(()), |at| Err(Denied::Channel(at)));
        }
        Ok(())
    }

    /// Whether it allows the command, whatever its keys and channels.
    pub(super) fn allows_command(&self, asked: &Asked<'_>) -> bool {
        self.all_commands || self.allows(asked)
    }

    /// True when every key may be read, whatever its name: what `SORT ... BY` and `GET` need.
    pub(super) fn reads_all_keys(&self) -> bool {
        self.all_keys || self.keys.iter().any(|known| known.read && *known.pattern == *b"*")
    }

    fn allows_key(&self, key: &[u8], flags: KeyFlags) -> bool {
        let has = |flag| flags.contains(flag);
        let mut read = has(KeyFlags::ACCESS);
        let mut write = has(KeyFlags::INSERT) || has(KeyFlags::DELETE) || has(KeyFlags::UPDATE);
        if !read && !write && has(KeyFlags::RW) {
            // A module's command, of whose keys only the place is known.
            (read, write) = (true, true);
        }
        self.keys.iter().any(|known| {
            (known.read || !read) && (known.write || !write) && glob::matches(&known.pattern, key)
        })
    }

    /// Whether it allows a channel; a pattern to subscribe to must be one of its own patterns, letter by letter.
    pub(super) fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.all_channels
            || self.channels.iter().any(|known| match is_pattern {
                true => **known == *channel,
                false => glob::matches(known, channel),
            })
    }
}
