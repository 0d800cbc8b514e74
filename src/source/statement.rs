//! What statements of the configuration are given, and what they answer.
//!
//! Must not know: who wrote them, which database runs them.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::error::SourceError;
pub use crate::sql::{Statement, StatementError};

/// A value for a parameter. The database reads it in the type that it expects there.
#[derive(Debug, Clone, Copy)]
pub enum Param<'p> {
    /// NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A text, as of a path or a query string; `"42"` is fine for an integer.
    Text(&'p str),
    /// A JSON value, as of a body. Numbers keep every digit; arrays become arrays where the database expects one.
    Json(&'p RawValue),
}

/// Refuses two columns of one name: a JSON object could not hold both.
pub(super) fn same_name_twice(columns: &[String]) -> Result<(), SourceError> {
    match columns.iter().enumerate().find(|(at, name)| columns.iter().take(*at).any(|other| other == *name)) {
        None => Ok(()),
        Some((_, name)) => {
            let message =
                format!("the statement returns two columns named \"{name}\"; give one another name (as)");
            Err(SourceError::schema("42701", message))
        }
    }
}

/// An answer larger than the limit.
pub(super) fn answer_too_large(limit: usize) -> SourceError {
    SourceError::TooLarge(format!(
        "the statement's answer has more than {limit} bytes (database.max_value_bytes); ask for fewer rows"
    ))
}

/// What a statement answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// Names of the columns; empty for a statement that returns nothing.
    pub columns: Vec<String>,
    /// Each row as the text of a JSON object, its members in the order of the columns. Written as the values of mappings
    /// are, every type exactly.
    pub rows: Vec<Bytes>,
    /// Rows that were inserted, updated or deleted; for a query, the number of rows.
    pub affected: u64,
}
