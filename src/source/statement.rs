//! Statements that come from configuration, with parameters that come from clients.
//!
//! Must not know: who wrote them, which database runs them.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::error::SourceError;
use super::named::{Piece, pieces};

/// One SQL statement with parameters `$name` (or `$1`..). Values are bound, never made part of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// With `$1`.. for every parameter.
    sql: String,
    /// Names of the parameters, by position; empty when they are numbered.
    names: Vec<String>,
    /// How many parameters there are.
    count: usize,
}

/// Why a statement is refused before a database sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// `$name` and `$1` in one statement.
    #[error("mixes named parameters (${0}) with numbered ones (${1}); use one kind")]
    Mixed(String, usize),
    /// `$0`, or a number beyond the limit.
    #[error("has the parameter ${0}; numbers go from 1 to {MAX_PARAMETERS}")]
    Number(usize),
    /// Nothing but blanks.
    #[error("is empty")]
    Empty,
}

/// Most parameters of one statement.
pub const MAX_PARAMETERS: usize = 1000;

impl Statement {
    /// Finds the parameters of `sql`. A name may stand several times; it is one parameter.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn parse(sql: &str) -> Result<Self, StatementError> {
        let trimmed = sql.trim().trim_end_matches(';').trim_end();
        let (mut text, mut names, mut highest) = (String::with_capacity(sql.len()), Vec::<String>::new(), 0);
        if trimmed.is_empty() {
            return Err(StatementError::Empty);
        }
        for piece in pieces(trimmed) {
            match piece {
                Piece::Sql(sql) => text.push_str(sql),
                Piece::Number(number) => {
                    if !(1..=MAX_PARAMETERS).contains(&number) {
                        return Err(StatementError::Number(number));
                    }
                    highest = highest.max(number);
                    text.push_str(&format!("${number}"));
                }
                Piece::Name(name) => {
                    let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
                        names.push(name.to_owned());
                        names.len() - 1
                    });
                    text.push_str(&format!("${}", at + 1));
                }
            }
        }
        match names.first() {
            Some(name) if highest > 0 => Err(StatementError::Mixed(name.clone(), highest)),
            _ if names.len() > MAX_PARAMETERS => Err(StatementError::Number(names.len())),
            _ => Ok(Self { sql: text, count: names.len().max(highest), names }),
        }
    }

    /// Names of the parameters in the order in which their values are given; empty when they are numbered.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many values must be given.
    pub fn parameters(&self) -> usize {
        self.count
    }

    /// The text with numbered parameters.
    pub fn sql(&self) -> &str {
        &self.sql
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers() {
        let statement = Statement::parse("select $b, $a, '$c', $b ;\n").unwrap();
        assert_eq!(
            (statement.sql(), statement.names()),
            ("select $1, $2, '$c', $1", &["b".into(), "a".into()][..])
        );
        assert_eq!(Statement::parse("select $2, $1").unwrap().parameters(), 2);
        assert_eq!(Statement::parse(" ; ").unwrap_err(), StatementError::Empty);
        assert_eq!(Statement::parse("$a $1").unwrap_err(), StatementError::Mixed("a".into(), 1));
        assert_eq!(Statement::parse("$0").unwrap_err(), StatementError::Number(0));
        assert!(Statement::parse("$1001").is_err());
    }
}
