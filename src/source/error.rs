//! What can go wrong at the database, sorted by who can help.
//!
//! Must not know: what the caller was doing.

use tokio_postgres::error::DbError;

/// A failure of the database. Never carries the connection URL or its password, nor values of rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It could not be reached, was too slow or too busy, or undid our work in favour of another's: trying again can help.
    #[error("database unavailable: {message}")]
    Unavailable {
        /// What happened.
        message: String,
        /// SQLSTATE, where the database answered.
        code: Option<String>,
    },
    /// A row that the table does not take; trying again cannot help, leaving the row out does.
    #[error("database refused the row: {message}")]
    BadData {
        /// What happened.
        message: String,
        /// SQLSTATE.
        code: String,
        /// Column at fault, where the database names it.
        column: Option<String>,
        /// Constraint at fault, where the database names it.
        constraint: Option<String>,
    },
    /// The statement does not fit the database: a table or column is gone, a privilege is missing.
    #[error("database schema or privileges do not fit: {message}")]
    Schema {
        /// What happened.
        message: String,
        /// SQLSTATE.
        code: String,
    },
    /// Another process has taken over what this one writes for: it may write nothing more.
    #[error(
        "another proxy has taken over instance {instance} (this one has epoch {epoch}): it runs twice, or its journal was \
         adopted; nothing more is written from here"
    )]
    Fenced {
        /// The instance.
        instance: String,
        /// The epoch that is over.
        epoch: i64,
    },
    /// A write of a key that waits behind an earlier one.
    #[error("its key waits behind dead letter {letter}: replay or drop that one (`dsproxy dlq`)")]
    Waits {
        /// What it waits behind.
        letter: i64,
    },
    /// A value or an answer is larger than `database.max_value_bytes`.
    #[error("{0}")]
    TooLarge(String),
}

impl SourceError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// SQLSTATE, where the database answered.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Unavailable { code, .. } => code.as_deref(),
            Self::BadData { code, .. } | Self::Schema { code, .. } => Some(code),
            Self::TooLarge(_) => Some("54000"),
            Self::Waits { .. } => Some(Self::WAITS),
            Self::Fenced { .. } => None,
        }
    }

    /// Code of a call that the circuit breaker did not let pass. Like `LOCAL`, of no class that a database uses.
    pub const CIRCUIT_OPEN: &str = "DS001";
    const POOL_BUSY: &str = "DS002";
    const CLOSED: &str = "DS003";
    const WAITS: &str = "DS004";

    /// Whether the database is away, as opposed to one that answers with an error.
    pub fn is_outage(&self) -> bool {
        let Self::Unavailable { code, .. } = self else { return false };
        match code.as_deref() {
            // Lost, refused, or silent.
            None => true,
            // 08 connection, 53 resources, 57P starting or stopping, 58 system, XX corrupted.
            Some(code) => ["08", "53", "57P", "58", "XX"].iter().any(|class| code.starts_with(class)),
        }
    }

    /// Whether the call did not get as far as the database.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Unavailable { code: Some(code), .. } if code.starts_with("DS"))
    }

    /// No connection became free in time.
    pub(super) fn pool_busy() -> Self {
        Self::Unavailable {
            message: "all connections of the pool are busy (raise the pool size, or look for slow queries)"
                .into(),
            code: Some(Self::POOL_BUSY.into()),
        }
    }

    /// The connections were closed by us.
    pub(super) fn closed() -> Self {
        Self::Unavailable { message: "the database is closed".into(), code: Some(Self::CLOSED.into()) }
    }

    /// The statement does not fit: `code` is a SQLSTATE.
    pub(super) fn schema(code: &str, message: impl Into<String>) -> Self {
        Self::Schema { message: message.into(), code: code.into() }
    }

    /// The row or parameter does not fit: `code` is a SQLSTATE.
    pub(super) fn bad_data(code: &str, message: impl Into<String>) -> Self {
        Self::BadData { message: message.into(), code: code.into(), column: None, constraint: None }
    }

    pub(super) fn fenced(instance: &str, epoch: i64) -> Self {
        Self::Fenced { instance: instance.to_owned(), epoch }
    }

    /// A failure on our side of the connection.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable { message: message.into(), code: None }
    }

    fn from_db(error: &DbError) -> Self {
        let code = error.code().code().to_owned();
        // The primary message alone: details and hints quote the row's values.
        let message = format!("{} (SQLSTATE {code})", error.message());
        match &code[..2.min(code.len())] {
            // 22 data, 23 constraint, 44 check option, 21 cardinality, 54 a value too large for an index or a stack,
            // P0 raised by a trigger.
            "22" | "23" | "44" | "21" | "54" | "P0" => Self::BadData {
                message: Self::without_values(error, &code),
                code,
                column: error.column().map(str::to_owned),
                constraint: error.constraint().map(str::to_owned),
            },
            "42" | "0A" | "3F" => Self::Schema { message, code },
            // 08 connection, 40 rollback, 53 resources, 55 state (locks), 57 operator, 58 system, 25 read-only after a
            // failover, 28 password being changed, XX internal: all may pass.
            _ => Self::Unavailable { message, code: Some(code) },
        }
    }

    /// Messages of class 22 often quote the value (`invalid input syntax for type integer: "x"`): cut there.
    fn without_values(error: &DbError, code: &str) -> String {
        let message = error.message();
        let message = if code.starts_with("22") {
            message.split_once(": \"").map_or(message, |(head, _)| head)
        } else {
            message
        };
        format!("{message} (SQLSTATE {code})")
    }
}

impl From<tokio_postgres::Error> for SourceError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return Self::from_db(db);
        }
        // The causes say what failed (connection refused, unexpected EOF); none of them holds the connection URL.
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            message = format!("{message}: {inner}");
            cause = inner.source();
        }
        Self::unavailable(message)
    }
}

impl From<deadpool_postgres::PoolError> for SourceError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        use deadpool_postgres::{PoolError, TimeoutType};
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Timeout(TimeoutType::Wait) => Self::pool_busy(),
            PoolError::Timeout(_) => Self::unavailable("connecting took longer than the connect timeout"),
            PoolError::Closed => Self::closed(),
            other => Self::unavailable(other.to_string()),
        }
    }
}
