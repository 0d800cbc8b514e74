//! Rules as text: the few that give a user again, as `ACL LIST` and `ACL GETUSER` show them.
//!
//! Must not know: how rules are read.

use super::selector::{KeyPattern, Selector};
use super::user::User;
use crate::command::{self, Categories, Command, Learned};
use std::fmt::Write as _;

impl Selector {
    /// Its rules about commands: `+@all` or `-@all`, then what differs from it.
    ///
    /// As Redis does it: the categories that fit best, then single commands (in the order of our table).
    pub fn describe_commands(&self) -> String {
        let nothing_learned = Learned::default();
        let adds = !self.bits.has_future();
        let mut text = String::from(if adds { "-@all" } else { "+@all" });
        let mut fake = Self::default();
        fake.bits.fill(!adds);
        let mut left = Self { bits: self.bits.clone(), ..Self::default() };
        let mut applied: Vec<Categories> = Vec::new();
        while let Some((name, category)) = left.best_category(adds, &applied) {
            let _ = write!(text, " {}@{name}", sign(adds));
            fake.change_category(category, adds, &nothing_learned);
            left.change_category(category, !adds, &nothing_learned);
            applied.push(category);
        }
        for command in &command::COMMANDS {
            self.describe_single(command, &mut fake, &mut text);
            command.subcommands.iter().for_each(|sub| self.describe_single(sub, &mut fake, &mut text));
        }
        for (name, allowed) in &self.learned {
            let _ = write!(text, " {}{name}", sign(*allowed));
        }
        text
    }

    fn describe_single(&self, command: &'static Command, fake: &mut Self, text: &mut String) {
        let id = usize::from(command.id);
        let allowed = self.bits.get(id);
        if allowed != fake.bits.get(id) {
            let _ = write!(text, " {}{}", sign(allowed), command.name);
            fake.change(command, allowed);
        }
        for first in self.first_args.get(&command.id).filter(|_| !allowed).into_iter().flatten() {
            let _ = write!(text, " +{}|{}", command.name, String::from_utf8_lossy(first));
        }
    }

    /// The category that has most in common with what is left, if it has more in common than not.
    fn best_category(&self, adds: bool, applied: &[Categories]) -> Option<(&'static str, Categories)> {
        let mut best: Option<(usize, usize, &'static str, Categories)> = None;
        for name in Categories::all() {
            let Some(category) = Categories::named(name).filter(|category| !applied.contains(category))
            else {
                continue;
            };
            let of_it = command::all().filter(|command| command.categories.contains(category));
            let (mut same, mut different) = (0, 0);
            for command in of_it {
                *(if self.bits.get(usize::from(command.id)) == adds { &mut same } else { &mut different }) +=
                    1;
            }
            let is_better = best.is_none_or(|(best_different, best_same, ..)| {
                different < best_different || different == best_different && same > best_same
            });
            if same > different && is_better {
                best = Some((different, same, name, category));
            }
        }
        best.map(|(_, _, name, category)| (name, category))
    }

    /// Its rules about keys.
    pub fn describe_keys(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        join(self.keys.iter().map(|known| {
            let prefix: &[u8] = match known {
                KeyPattern { read: true, write: true, .. } => b"~",
                KeyPattern { read: true, .. } => b"%R~",
                _ => b"%W~",
            };
            [prefix, &known.pattern].concat()
        }))
    }

    /// Its rules about channels.
    pub fn describe_channels(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        join(self.channels.iter().map(|pattern| [b"&", &**pattern].concat()))
    }

    fn describe(&self) -> Vec<u8> {
        let channels = self.describe_channels();
        let reset: &[u8] = if self.all_channels { b"" } else { b"resetchannels" };
        let parts = [self.describe_keys(), reset.to_vec(), channels, self.describe_commands().into_bytes()];
        join(parts.into_iter().filter(|part| !part.is_empty()))
    }
}

impl User {
    /// The words for its state, as `ACL GETUSER` lists them.
    pub fn flags(&self) -> Vec<&'static str> {
        let sanitize =
            self.sanitize.map(|does| if does { "sanitize-payload" } else { "skip-sanitize-payload" });
        let words =
            [Some(if self.enabled { "on" } else { "off" }), self.no_password.then_some("nopass"), sanitize];
        words.into_iter().flatten().collect()
    }

    /// The root selector, then the others.
    pub fn parts(&self) -> (&Selector, &[Selector]) {
        (&self.root, &self.selectors)
    }

    /// Everything about the user but its name, as rules that give it again. Holds the hashes of its passwords.
    pub fn describe(&self) -> Vec<u8> {
        let flags = self.flags().into_iter().map(|flag| flag.as_bytes().to_vec());
        let passwords =
            self.passwords().iter().map(|password| format!("#{}", password.expose()).into_bytes());
        let selectors = self.selectors.iter().map(|selector| [b"(", &*selector.describe(), b")"].concat());
        join(flags.chain(passwords).chain([self.root.describe()]).chain(selectors))
    }
}

fn sign(adds: bool) -> char {
    if adds { '+' } else { '-' }
}

fn join(words: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    words.collect::<Vec<_>>().join(&b' ')
}
