//! A user: passwords and selectors.
//!
//! Must not know: how many others there are.

use super::rule::{RuleError, is};
use super::selector::Selector;
use super::{Asked, Denied};
use crate::command::Learned;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What is kept of a password: its SHA-256.
type Hash = [u8; 32];

/// One user. Passwords are kept as hashes, and never shown in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub(super) name: Box<[u8]>,
    pub(super) enabled: bool,
    pub(super) no_password: bool,
    pub(super) sanitize: Option<bool>,
    passwords: Vec<Secrecy>,
    pub(super) root: Selector,
    pub(super) selectors: Vec<Selector>,
}

/// The hash of a password; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrecy(Hash);

impl Secrecy {
    /// Of a password.
    pub fn of(password: &[u8]) -> Self {
        Self(Sha256::digest(password).into())
    }

    /// Of 64 lowercase hexadecimal digits.
    fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != 64 || !text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut hash = Hash::default();
        for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }

    /// 64 lowercase hexadecimal digits: for those who may see it.
    pub fn expose(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Debug for Secrecy {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("[redacted]")
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "User({})", self.name.escape_ascii())
    }
}

impl User {
    /// A new user, who may do nothing, not even log in.
    pub fn new(name: &[u8]) -> Self {
        Self {
            name: name.into(),
            enabled: false,
            no_password: false,
            sanitize: None,
            passwords: Vec::new(),
            root: Selector::default(),
            selectors: Vec::new(),
        }
    }

    /// The user that every connection begins as, who may do everything without a password.
    pub fn unrestricted(name: &[u8]) -> Self {
        let mut user = Self { enabled: true, no_password: true, ..Self::new(name) };
        let learned = Learned::default();
        for rule in [&b"+@all"[..], b"~*", b"&*"] {
            // These rules are right.
            let _ = user.root.apply(rule, &learned);
        }
        user
    }

    /// The name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// May log in.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// A connection is this user without saying anything.
    pub fn needs_no_password(&self) -> bool {
        self.no_password && self.enabled
    }

    /// Any password is right; `AUTH password` is then a mistake.
    pub fn has_no_password(&self) -> bool {
        self.no_password
    }

    /// True when it may do everything: nothing has to be looked at.
    pub fn is_free(&self) -> bool {
        self.selectors().any(Selector::is_free)
    }

    /// The hashes of the passwords, in the order in which they were added.
    pub fn passwords(&self) -> &[Secrecy] {
        &self.passwords
    }

    /// All selectors, the root first.
    pub(super) fn selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    /// Whether the user may log in with `password`. Takes as long whichever of the passwords is right, if any.
    pub fn accepts(&self, password: &Secrecy) -> bool {
        let fits =
            self.passwords.iter().fold(Choice::from(0), |fits, known| fits | known.0.ct_eq(&password.0));
        self.enabled && (self.no_password || bool::from(fits))
    }

    /// Applies one rule.
    ///
    /// # Errors
    /// [`RuleError`]; nothing has changed then.
    pub fn apply(&mut self, rule: &[u8], learned: &Learned) -> Result<(), RuleError> {
        match (rule.first(), rule.get(1..).unwrap_or_default()) {
            (None, _) => {}
            _ if is(rule, "on") => self.enabled = true,
            _ if is(rule, "off") => self.enabled = false,
            _ if is(rule, "skip-sanitize-payload") => self.sanitize = Some(false),
            _ if is(rule, "sanitize-payload") => self.sanitize = Some(true),
            _ if is(rule, "nopass") => self.reset_passwords(true),
            _ if is(rule, "resetpass") => self.reset_passwords(false),
            _ if is(rule, "clearselectors") => self.selectors.clear(),
            _ if is(rule, "reset") => {
                *self = Self { name: std::mem::take(&mut self.name), sanitize: Some(true), ..Self::new(b"") };
            }
            (Some(b'>'), password) => self.add_password(Secrecy::of(password)),
            (Some(b'#'), hash) => self.add_password(Secrecy::parse(hash).ok_or(RuleError::BadHash)?),
            (Some(b'<'), password) => return self.remove_password(&Secrecy::of(password)),
            (Some(b'!'), hash) => {
                return self.remove_password(&Secrecy::parse(hash).ok_or(RuleError::BadHash)?);
            }
            (Some(b'('), inner) if inner.ends_with(b")") => {
                let mut selector = Selector::default();
                let inner = inner.get(..inner.len() - 1).unwrap_or_default();
                for rule in inner.split(u8::is_ascii_whitespace).filter(|rule| !rule.is_empty()) {
                    selector.apply(rule, learned)?;
                }
                self.selectors.push(selector);
            }
            _ => return self.root.apply(rule, learned),
        }
        Ok(())
    }

    fn reset_passwords(&mut self, none_needed: bool) {
        self.passwords.clear();
        self.no_password = none_needed;
    }

    fn add_password(&mut self, password: Secrecy) {
        if !self.passwords.contains(&password) {
            self.passwords.push(password);
        }
        self.no_password = false;
    }

    fn remove_password(&mut self, password: &Secrecy) -> Result<(), RuleError> {
        let place = self.passwords.iter().position(|known| known == password);
        self.passwords.remove(place.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    /// Whether the user may do what is asked.
    ///
    /// # Errors
    /// Of what the selectors refuse, that of the one that allows most, as Redis picks it.
    pub fn check(&self, asked: &Asked<'_>) -> Result<(), Denied> {
        let mut worst = Denied::Command;
        for selector in self.selectors() {
            match selector.check(asked) {
                Ok(()) => return Ok(()),
                Err(denied) => worst = worst.max(denied),
            }
        }
        Err(worst)
    }

    /// True when some selector lets the user run this command and read any key: what `SORT ... BY` and `GET` ask for.
    pub fn reads_all_keys(&self, asked: &Asked<'_>) -> bool {
        self.selectors().any(|selector| selector.reads_all_keys() && selector.check(asked).is_ok())
    }

    /// Whether the user may hear a channel, or a pattern of channels.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.selectors().any(|selector| selector.has_all_channels())
            || self.selectors().any(|selector| selector.allows_channel(channel, is_pattern))
    }
}
