//! The words in which the rows of the table are written.
//!
//! Must not know: any particular command.

pub(super) use super::super::Class::{
    Blocking, BlockingIf, FanOut, Local, PubSub, Refused, Script, Single, Split, Transaction,
};
pub(super) use super::super::flags::{category, flag, key_flag::*};
pub(super) use super::super::keys::Finder;
pub(super) use super::super::{Command, Merge};

use super::super::flags::{Categories, Flags, KeyFlags};
use super::super::keys::{Begin, Find, KeySpec};
use super::super::{Class, KeyRange};

/// A row: name, arity, flags, the ACL categories that do not follow from the flags, class.
pub(super) const fn command(
    name: &'static str,
    arity: i16,
    flags: u32,
    categories: u32,
    class: Class,
) -> Command {
    Command {
        id: 0,
        name,
        arity,
        flags: Flags::new(flags),
        categories: Categories::with_implied(categories, flags),
        class,
        range: KeyRange::NONE,
        fixed_key: 0,
        finder: Finder::Specs,
        keys: &[],
        tips: &[],
        note: "",
        since: "",
        summary: "",
        group: "",
        subcommands: &[],
    }
}

impl Command {
    /// Where its keys are.
    pub(super) const fn keys_at(mut self, specs: &'static [KeySpec]) -> Self {
        self.keys = specs;
        self.range = KeyRange::of(specs);
        self.fixed_key = KeySpec::fixed_single_key(specs);
        self
    }

    /// That key specs alone do not find its keys.
    pub(super) const fn found_by(mut self, finder: Finder) -> Self {
        self.finder = finder;
        if !matches!(finder, Finder::FirstArgument) {
            self.fixed_key = 0;
        }
        self
    }

    /// How Redis advises cluster clients to send it (Redis docs, "Redis command tips").
    pub(super) const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    /// The version it appeared in; what it does.
    pub(super) const fn docs(mut self, since: &'static str, summary: &'static str) -> Self {
        self.since = since;
        self.summary = summary;
        self
    }

    /// Why it has its class.
    pub(super) const fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }

    /// That it only contains these.
    pub(super) const fn containing(mut self, subcommands: &'static [Command]) -> Self {
        self.subcommands = subcommands;
        self
    }
}

/// One key, argument `index`.
pub(super) const fn at(flags: u32, index: u16) -> KeySpec {
    span(flags, index, 0, 1)
}

/// Keys from argument `index` on, every `step`, up to `last`: relative to `index`, or to the end when negative.
pub(super) const fn span(flags: u32, index: u16, last: i16, step: u16) -> KeySpec {
    spec(flags, Begin::Index(index), Find::Range { last, step, limit: 0 })
}

/// A count at argument `index`, then that many keys.
pub(super) const fn counted(flags: u32, index: u16) -> KeySpec {
    spec(flags, Begin::Index(index), Find::KeyNum { count_at: 0, first: 1, step: 1 })
}

/// One key after the word `keyword`, looked for from argument `from` on (from the end backwards when negative).
pub(super) const fn keyword(flags: u32, keyword: &'static str, from: i16) -> KeySpec {
    spec(flags, Begin::Keyword { keyword, from }, Find::Range { last: 0, step: 1, limit: 0 })
}

/// Keys that only the command's own [`Finder`] can tell.
pub(super) const fn unknown(flags: u32) -> KeySpec {
    spec(flags, Begin::Unknown, Find::Unknown)
}

const fn spec(flags: u32, begin: Begin, find: Find) -> KeySpec {
    KeySpec { flags: KeyFlags::new(flags), begin, find, notes: "" }
}

impl KeySpec {
    /// All arguments from the keyword to the end.
    pub(super) const fn to_end(mut self) -> Self {
        self.find = Find::Range { last: -1, step: 1, limit: 0 };
        self
    }

    /// The first half of the arguments after the keyword.
    pub(super) const fn first_half(mut self) -> Self {
        self.find = Find::Range { last: -1, step: 1, limit: 2 };
        self
    }

    /// Redis' own remark on the spec.
    pub(super) const fn notes(mut self, notes: &'static str) -> Self {
        self.notes = notes;
        self
    }
}
