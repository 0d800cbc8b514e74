//! All users, and the text that names them: lines of an ACL file or of the configuration.
//!
//! Must not know: where the text comes from.

use super::DEFAULT;
use super::rule::{RuleError, has_blanks};
use super::user::User;
use crate::command::Learned;
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;

/// The users by name. There is always one called `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users(BTreeMap<Box<[u8]>, Arc<User>>);

/// What is wrong with a line that names a user. Shows neither the line nor its rules, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UsersError {
    /// No `user NAME` at its beginning.
    #[error("should start with user keyword followed by the username")]
    NoUser,
    /// A name that nobody could say.
    #[error("username contains invalid characters")]
    BadName,
    /// A second line for one user.
    #[error("duplicate user '{0}'")]
    Duplicate(String),
    /// An opening parenthesis without its end.
    #[error("unmatched parenthesis in selector definition")]
    Parenthesis,
    /// A rule that is none.
    #[error("{0}")]
    Rule(#[from] RuleError),
}

impl Default for Users {
    /// Only `default`, who may do everything without a password.
    fn default() -> Self {
        let user = User::unrestricted(DEFAULT);
        Self(BTreeMap::from([(user.name().into(), Arc::new(user))]))
    }
}

impl Users {
    /// The user of this name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.0.get(name)
    }

    /// The one that connections begin as.
    pub fn default_user(&self) -> Arc<User> {
        // There always is one; without it, nobody may do anything.
        self.get(DEFAULT).cloned().unwrap_or_else(|| Arc::new(User::new(DEFAULT)))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<User>> {
        self.0.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: there is `default`.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a user, or puts it in the place of the one of its name.
    pub fn put(&mut self, user: User) {
        self.0.insert(user.name().into(), Arc::new(user));
    }

    /// Removes a user; true when there was one. `default` stays.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        name != DEFAULT && self.0.remove(name).is_some()
    }

    /// Reads the lines of an ACL file; `default` is as given when no line names it.
    ///
    /// # Errors
    /// All that is wrong, by number of the line.
    pub fn from_lines<'a>(
        default: User,
        lines: impl IntoIterator<Item = &'a str>,
        learned: &Learned,
    ) -> Result<Self, Vec<(usize, UsersError)>> {
        let (mut users, mut errors) = (Self::default(), Vec::new());
        users.put(default);
        let mut named: Vec<Box<[u8]>> = Vec::new();
        for (index, line) in lines.into_iter().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            match parse(line, learned) {
                Ok(user) if named.iter().any(|name| **name == *user.name()) => {
                    let name = String::from_utf8_lossy(user.name()).into_owned();
                    errors.push((index + 1, UsersError::Duplicate(name)));
                }
                Ok(user) => {
                    named.push(user.name().into());
                    users.put(user);
                }
                Err(error) => errors.push((index + 1, error)),
            }
        }
        if errors.is_empty() { Ok(users) } else { Err(errors) }
    }

    /// The lines of an ACL file that give these users again. Holds the hashes of their passwords.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        self.iter().map(|user| [b"user ", user.name(), b" ", &*user.describe()].concat()).collect()
    }
}

/// `user NAME rule...`
fn parse(line: &str, learned: &Learned) -> Result<User, UsersError> {
    let words: Vec<&[u8]> = line.split(' ').filter(|word| !word.is_empty()).map(str::as_bytes).collect();
    let [b"user", name, rules @ ..] = words.as_slice() else { return Err(UsersError::NoUser) };
    if has_blanks(name) {
        return Err(UsersError::BadName);
    }
    let mut user = User::new(name);
    for rule in joined_selectors(rules).map_err(|_| UsersError::Parenthesis)? {
        user.apply(&rule, learned)?;
    }
    Ok(user)
}

/// Rules with each selector in one piece, where its parentheses were spread over several.
///
/// # Errors
/// The index of an opening parenthesis that is not closed.
pub fn joined_selectors(rules: &[&[u8]]) -> Result<Vec<Vec<u8>>, usize> {
    let mut joined: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (index, rule) in rules.iter().enumerate() {
        match &mut open {
            // A second one begins anew, as in Redis.
            _ if rule.starts_with(b"(") && !rule.ends_with(b")") => open = Some((index, rule.to_vec())),
            Some((_, selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(rule);
                if rule.ends_with(b")") {
                    joined.extend(open.take().map(|(_, selector)| selector));
                }
            }
            None => joined.push(rule.to_vec()),
        }
    }
    open.map_or(Ok(joined), |(index, _)| Err(index))
}
