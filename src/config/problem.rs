//! The mistakes of a configuration, each with the place where it was made.
//!
//! Must not know: how they were found.

use std::fmt;

/// Where a mistake was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File(String),
    /// A position in the file; line and column count from 1, columns in characters.
    Position {
        /// Path of the file as it was given.
        file: String,
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// Nowhere in particular: something is missing.
    Nowhere,
}

impl Place {
    /// The position of byte `offset` of `text`.
    pub(super) fn at(file: &str, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self::Position {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => formatter.write_str(file),
            Self::Position { file, line, column } => write!(formatter, "{file}:{line}:{column}"),
            Self::Variable(name) => write!(formatter, "environment variable {name}"),
            Self::Nowhere => formatter.write_str("configuration"),
        }
    }
}

/// One mistake, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong and what would be right. Never contains a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)
    }
}

/// Every mistake of a configuration, in the order of the file, then those of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(formatter, "the configuration has {count} mistake{plural}:")?;
        self.0.iter().try_for_each(|problem| write!(formatter, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigErrors {}
