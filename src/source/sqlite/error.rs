//! SQLite's errors, in the words of the others: SQLSTATEs say whose fault it is.
//!
//! Must not know: what the caller was doing.

use rusqlite::ffi;
use rusqlite::{Error, ErrorCode};

use crate::source::error::SourceError;

impl From<Error> for SourceError {
    fn from(error: Error) -> Self {
        match error {
            Error::SqliteFailure(code, message) => failure(code, message),
            Error::SqlInputError { error, msg, .. } => failure(error, Some(msg)),
            // None of the others quotes a value: they name columns, indexes and types.
            error => Self::schema("42000", error.to_string()),
        }
    }
}

fn failure(error: ffi::Error, message: Option<String>) -> SourceError {
    let message = message.unwrap_or_else(|| error.to_string());
    let pass = |code: &str| SourceError::Unavailable {
        message: format!("{message} (SQLSTATE {code})"),
        code: Some(code.to_owned()),
    };
    let bad = |code: &str| SourceError::bad_data(code, format!("{message} (SQLSTATE {code})"));
    let schema = |code: &str| SourceError::schema(code, format!("{message} (SQLSTATE {code})"));
    match error.code {
        ErrorCode::ConstraintViolation => constraint(error.extended_code, &message),
        ErrorCode::TypeMismatch => bad("22P02"),
        ErrorCode::TooBig => bad("54000"),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
            pass("55P03")
        }
        ErrorCode::OperationInterrupted => pass("57014"),
        ErrorCode::ReadOnly => pass("25006"),
        ErrorCode::DiskFull => pass("53100"),
        ErrorCode::OutOfMemory => pass("53200"),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => pass("XX001"),
        ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::NoLargeFileSupport => pass("58030"),
        ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => schema("42501"),
        // SQLITE_ERROR: the text alone says which.
        _ if message.starts_with("no such table") => schema("42P01"),
        _ if message.contains("no such column") || message.contains("has no column named") => schema("42703"),
        _ if message.contains("syntax error") || message.starts_with("incomplete input") => schema("42601"),
        _ => schema("42000"),
    }
}

/// `UNIQUE constraint failed: users.email` names columns, never values.
fn constraint(extended: i32, message: &str) -> SourceError {
    let code = match extended {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            "23505"
        }
        ffi::SQLITE_CONSTRAINT_NOTNULL => "23502",
        ffi::SQLITE_CONSTRAINT_CHECK => "23514",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "23503",
        ffi::SQLITE_CONSTRAINT_DATATYPE => "22P02",
        ffi::SQLITE_CONSTRAINT_TRIGGER => "P0001",
        _ => "23000",
    };
    let named = message.split_once("failed: ").map(|(_, named)| named.to_owned());
    let column =
        named.as_ref().filter(|_| code == "23502").and_then(|n| n.rsplit('.').next().map(str::to_owned));
    // The values of a datatype error are quoted behind the type: `cannot store TEXT value in INTEGER column t.x` has none.
    SourceError::BadData {
        message: format!("{message} (SQLSTATE {code})"),
        code: code.into(),
        column,
        constraint: named,
    }
}
