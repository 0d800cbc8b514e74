//! Which arguments of a command are keys.
//!
//! Must not know: slots, classes.
//!
//! Follows `getKeysFromCommandWithSpecs` of Redis 7.0 (db.c), which is what `COMMAND GETKEYS` answers with: key specs
//! first, a function of the command's own where the specs fail. Two differences, both so that a request reaches a node
//! that answers it as Redis would: `PFMERGE destination` has its one key (`COMMAND GETKEYS` calls it invalid although
//! the command runs), and a key count beyond 32 bits is invalid (Redis cuts it down to 32 bits first).

use super::Command;
use super::flags::{Flags, KeyFlags};
use crate::resp::Args;

/// Where a command's keys are, in the form `COMMAND` replies describe (Redis docs, "Command key specifications").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// What happens to these keys.
    pub flags: KeyFlags,
    /// How to find where they begin.
    pub begin: Begin,
    /// How to find them from there.
    pub find: Find,
    /// Redis' own remark; mostly empty.
    pub notes: &'static str,
}

/// How to find the argument at which a key spec begins (`begin_search`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At this argument.
    Index(u16),
    /// After this word, in any letter case.
    Keyword {
        /// The word.
        keyword: &'static str,
        /// The argument to look from; negative: from the end, backwards.
        from: i16,
    },
    /// Not expressible; see [`Finder`].
    Unknown,
}

/// How to find a key spec's keys from where it begins (`find_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// Every `step`-th argument up to `last`.
    Range {
        /// Relative to the beginning; negative: counted from the end of the arguments (-1 is the last).
        last: i16,
        /// Distance between two keys.
        step: u16,
        /// With `last` -1, only the first `1/limit` of the arguments; 0 and 1 mean all.
        limit: u16,
    },
    /// As many keys as an argument says.
    KeyNum {
        /// Where that argument is, relative to the beginning.
        count_at: u16,
        /// Where the first key is, relative to the beginning.
        first: u16,
        /// Distance between two keys.
        step: u16,
    },
    /// Not expressible; see [`Finder`].
    Unknown,
}

/// What finds a command's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finder {
    /// Its key specs.
    Specs,
    /// The first argument is the one key that can be told; patterns in the others are for the server to refuse.
    FirstArgument,
    /// `SORT`: the first argument and that of the last `STORE`.
    Sort,
    /// `MIGRATE`: argument 3, or, if that is empty, everything after `KEYS`.
    Migrate,
}

/// First key, last key and step as a `COMMAND` reply gives them for old clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// Argument of the first key; 0 when there is none.
    pub first: i16,
    /// Argument of the last key; negative: counted from the end.
    pub last: i16,
    /// Distance between two keys.
    pub step: i16,
}

/// Why a request has no list of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The command takes no keys at all. Client error only for those who asked for keys.
    #[error("The command has no key arguments")]
    NoKeys,
    /// The keys cannot be told from these arguments: too few, or an impossible key count. The client's fault; any node
    /// will refuse the request in its own words, so it may be forwarded to one.
    #[error("Invalid arguments specified for command")]
    Invalid,
}

impl KeyRange {
    /// No keys.
    pub(super) const NONE: Self = Self { first: 0, last: 0, step: 0 };

    /// Derived from the specs like `populateCommandLegacyRangeSpec` (server.c) does: a single range as it is, several
    /// only as far as they are neighbours.
    pub(super) const fn of(specs: &[KeySpec]) -> Self {
        if let [only] = specs
            && let Some((first, last, step)) = only.index_range()
        {
            return Self { first, last: if last >= 0 { first + last } else { last }, step };
        }
        let mut range = Self::NONE;
        let mut index = 0;
        while index < specs.len() {
            if let Some((first, last, 1)) = specs[index].index_range()
                && (range.first == 0 || range.last == first - 1)
            {
                if range.first == 0 {
                    range.first = first;
                }
                range.last = if last >= 0 { first + last } else { last };
                range.step = 1;
            }
            index += 1;
        }
        range
    }
}

impl KeySpec {
    /// The argument of a command's only key, when it has one at a fixed place and no more; else 0.
    pub(super) const fn fixed_single_key(specs: &[KeySpec]) -> u16 {
        match specs {
            [KeySpec { begin: Begin::Index(index), find: Find::Range { last: 0, .. }, flags, .. }]
                if !flags.contains(KeyFlags::NOT_KEY) =>
            {
                *index
            }
            _ => 0,
        }
    }

    const fn index_range(&self) -> Option<(i16, i16, i16)> {
        match (self.begin, self.find) {
            (Begin::Index(index), Find::Range { last, step, .. }) => Some((index as i16, last, step as i16)),
            _ => None,
        }
    }

    /// Appends this spec's keys to `out`; `None` if the arguments do not satisfy it.
    fn collect(&self, args: &Args<'_>, out: &mut Vec<u32>) -> Option<()> {
        let argc = args.len();
        let begin = match self.begin {
            Begin::Index(index) => usize::from(index),
            Begin::Keyword { keyword, from } => match keyword_position(args, keyword, from) {
                Some(position) => position + 1,
                // An option that was not given, such as STORE.
                None => return Some(()),
            },
            Begin::Unknown => return None,
        };
        let (first, last, step) = match self.find {
            Find::Range { last, step, limit } => {
                let last = match (usize::try_from(last), limit) {
                    (Ok(last), _) => begin + last,
                    (Err(_), 0 | 1) => argc.checked_sub(usize::from(last.unsigned_abs()))?,
                    (Err(_), limit) => {
                        let share = argc.checked_sub(begin)? / usize::from(limit);
                        (begin + share).checked_sub(usize::from(last.unsigned_abs()))?
                    }
                };
                (begin, last, step)
            }
            Find::KeyNum { count_at, first, step } => {
                let count = leading_integer(args.get(begin + usize::from(count_at))?)?;
                let first = begin + usize::from(first);
                (first, first.checked_add(count.checked_sub(1)?)?, step)
            }
            Find::Unknown => return None,
        };
        if last >= argc || last < first {
            return None;
        }
        // Fits: an argument count is at most 1,048,576.
        out.extend((first..=last).step_by(usize::from(step.max(1))).map(|index| index as u32));
        Some(())
    }

    /// True for a range that begins where the arguments have already ended.
    fn is_past_the_end(&self, args: &Args<'_>) -> bool {
        self.index_range().is_some_and(|(first, last, _)| last < 0 && first as usize >= args.len())
    }
}

impl Command {
    /// Appends the indexes of the key arguments to `out` (0 is the command name), in the order `COMMAND GETKEYS`
    /// lists them, duplicates kept. `Ok` with nothing appended is a request that may have keys but has none
    /// (`EVAL script 0`). On a container command the subcommand is looked up first.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; `out` is then as it was.
    pub fn keys(&self, args: &Args<'_>, out: &mut Vec<u32>) -> Result<(), KeyError> {
        if !self.subcommands.is_empty() {
            return self.subcommand(args).ok_or(KeyError::Invalid)?.keys(args, out);
        }
        if !self.takes_keys() {
            return Err(KeyError::NoKeys);
        }
        if !self.arity_ok(args.len()) {
            return Err(KeyError::Invalid);
        }
        let before = out.len();
        let found = match self.finder {
            Finder::Specs => self.collect_specs(args, out),
            Finder::FirstArgument => push_existing(args, 1, out),
            Finder::Sort => sort_keys(args, out),
            Finder::Migrate => migrate_keys(args, out),
        };
        if found.is_none() {
            out.truncate(before);
        }
        if out.len() == before && !self.flags.contains(Flags::NO_MANDATORY_KEYS) {
            return Err(KeyError::Invalid);
        }
        Ok(())
    }

    /// Like [`Command::keys`], with what happens to each key.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; `out` is then as it was.
    pub fn keys_with_flags(&self, args: &Args<'_>, out: &mut Vec<(u32, KeyFlags)>) -> Result<(), KeyError> {
        let mut keys = Vec::new();
        self.keys(args, &mut keys)?;
        let mut flags = Vec::with_capacity(keys.len());
        let mut specs = self.keys.iter().filter(|spec| !spec.flags.contains(KeyFlags::NOT_KEY));
        match self.finder {
            Finder::Specs => {
                let mut one = Vec::new();
                for spec in specs {
                    one.clear();
                    let _ = spec.collect(args, &mut one);
                    let what = self.flags_for(spec, args);
                    flags.extend(one.iter().map(|_| what));
                }
            }
            Finder::FirstArgument | Finder::Migrate => {
                let only = specs.next().map(|spec| spec.flags).unwrap_or_default();
                flags.resize(keys.len(), only);
            }
            Finder::Sort => flags.extend([KeyFlags::RO | KeyFlags::ACCESS, KeyFlags::OW | KeyFlags::UPDATE]),
        }
        out.extend(keys.into_iter().zip(flags));
        Ok(())
    }

    /// What happens to a spec's keys with these arguments; some options change it (`setGetKeys`, `bitfieldGetKeys`).
    fn flags_for(&self, spec: &KeySpec, args: &Args<'_>) -> KeyFlags {
        let has = |words: &[&str]| {
            args.iter().skip(2).any(|arg| words.iter().any(|word| arg.eq_ignore_ascii_case(word.as_bytes())))
        };
        match self.name {
            "set" if has(&["get"]) => KeyFlags::RW | KeyFlags::ACCESS | KeyFlags::UPDATE,
            "set" => KeyFlags::OW | KeyFlags::UPDATE,
            "bitfield" if has(&["set", "incrby"]) => KeyFlags::RW | KeyFlags::ACCESS | KeyFlags::UPDATE,
            "bitfield" => KeyFlags::RO | KeyFlags::ACCESS,
            _ => spec.flags,
        }
    }

    /// The argument that is the command's only key, for the many commands that have exactly one, always at the same
    /// place (`GET`, `HSET`, `OBJECT ENCODING`); `None` for all others and when that argument is missing. The hot
    /// path's shortcut around [`Command::keys`].
    #[inline]
    pub fn first_key(&self, args: &Args<'_>) -> Option<usize> {
        let index = usize::from(self.fixed_key);
        (index != 0 && index < args.len()).then_some(index)
    }

    /// True when some argument of it can be a key; false for containers, whose subcommands differ.
    pub fn takes_keys(&self) -> bool {
        self.keys.iter().any(|spec| !spec.flags.contains(KeyFlags::NOT_KEY))
    }

    fn collect_specs(&self, args: &Args<'_>, out: &mut Vec<u32>) -> Option<()> {
        let before = out.len();
        for spec in self.keys.iter().filter(|spec| !spec.flags.contains(KeyFlags::NOT_KEY)) {
            if out.len() > before && spec.is_past_the_end(args) {
                continue;
            }
            spec.collect(args, out)?;
        }
        Some(())
    }
}

/// Where `keyword` is, looked for from `from` on; the last argument is never it, as nothing would follow.
pub(super) fn keyword_position(args: &Args<'_>, keyword: &str, from: i16) -> Option<usize> {
    let is_keyword =
        |&index: &usize| args.get(index).is_some_and(|arg| arg.eq_ignore_ascii_case(keyword.as_bytes()));
    match usize::try_from(from) {
        Ok(from) => (from..args.len().saturating_sub(1)).find(is_keyword),
        Err(_) => {
            let start = args.len().checked_sub(usize::from(from.unsigned_abs()))?;
            (2..=start).rev().find(is_keyword)
        }
    }
}

fn push_existing(args: &Args<'_>, index: usize, out: &mut Vec<u32>) -> Option<()> {
    args.get(index)?;
    out.push(index as u32);
    Some(())
}

/// `sortGetKeys`: the values of `LIMIT`, `GET` and `BY` are no keywords; the last `STORE` wins.
fn sort_keys(args: &Args<'_>, out: &mut Vec<u32>) -> Option<()> {
    push_existing(args, 1, out)?;
    let mut store = None;
    let mut index = 2;
    while let Some(arg) = args.get(index) {
        if arg.eq_ignore_ascii_case(b"limit") {
            index += 2;
        } else if arg.eq_ignore_ascii_case(b"get") || arg.eq_ignore_ascii_case(b"by") {
            index += 1;
        } else if arg.eq_ignore_ascii_case(b"store") && index + 1 < args.len() {
            store = Some(index + 1);
        }
        index += 1;
    }
    store.map_or(Some(()), |store| push_existing(args, store, out))
}

/// `migrateGetKeys`: the values of `AUTH` and `AUTH2` are no keywords; `KEYS` needs an empty key argument.
fn migrate_keys(args: &Args<'_>, out: &mut Vec<u32>) -> Option<()> {
    let mut index = 6;
    while let Some(arg) = args.get(index) {
        if arg.eq_ignore_ascii_case(b"auth") {
            index += 1;
        } else if arg.eq_ignore_ascii_case(b"auth2") {
            index += 2;
        } else if arg.eq_ignore_ascii_case(b"keys") && index + 1 < args.len() {
            return args
                .get(3)?
                .is_empty()
                .then(|| out.extend((index + 1..args.len()).map(|key| key as u32)));
        }
        index += 1;
    }
    push_existing(args, 3, out)
}

/// The positive number `text` begins with, as C's `atoi` reads it: blanks, a sign, digits, then anything.
fn leading_integer(text: &[u8]) -> Option<usize> {
    let text = text.trim_ascii_start();
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let count: i32 = std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()?;
    usize::try_from(count).ok()
}
