//! What a table looks like, as far as mapping rows to values needs it.
//!
//! Must not know: how the description was obtained.

use std::fmt;

/// Type of a column, resolved through domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnType {
    /// 16 bit integer.
    SmallInt,
    /// 32 bit integer.
    Int,
    /// 64 bit integer.
    BigInt,
    /// Exact decimal; (precision, scale) where declared.
    Numeric(Option<(u16, u16)>),
    /// 32 bit float.
    Real,
    /// 64 bit float.
    Double,
    /// Boolean.
    Bool,
    /// Text without a limit.
    Text,
    /// Text of at most this many characters (`varchar(n)`, `char(n)`).
    Varchar(u32),
    /// UUID.
    Uuid,
    /// Bytes, written `\x` and hex digits.
    Bytea,
    /// Calendar date.
    Date,
    /// Date and time without zone.
    Timestamp,
    /// Moment in time.
    Timestamptz,
    /// JSON kept as text.
    Json,
    /// Parsed JSON.
    Jsonb,
    /// Enumeration with its labels.
    Enum(Vec<String>),
    /// Array of.
    Array(Box<ColumnType>),
    /// Anything else: given as text, checked by the database only.
    Other,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name, unquoted.
    pub name: String,
    /// Resolved type.
    pub ty: ColumnType,
    /// Type as SQL names it, for messages: `character varying(20)`.
    pub declared: String,
    /// Type to cast a text to, without length: a cast to `varchar(20)` would cut silently, the assignment that follows
    /// a cast to `varchar` refuses.
    pub cast: String,
    /// NOT NULL.
    pub not_null: bool,
    /// Has a default (or is an identity).
    pub has_default: bool,
    /// GENERATED ALWAYS AS (expression): cannot be written.
    pub generated: bool,
    /// GENERATED ALWAYS AS IDENTITY: written only with OVERRIDING SYSTEM VALUE.
    pub identity_always: bool,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Quoted and schema-qualified, ready for SQL.
    pub sql_name: String,
    /// Name for messages.
    pub name: String,
    /// Columns in table order.
    pub columns: Vec<Column>,
    /// Indexes (into `columns`) of the primary key.
    pub primary_key: Vec<u16>,
    /// Column sets that a valid, immediate, non-partial unique index covers (the primary key among them).
    pub unique: Vec<Vec<u16>>,
}

impl Table {
    /// Index of the column of this name.
    pub fn column(&self, name: &str) -> Option<u16> {
        self.columns.iter().position(|c| c.name == name).map(|i| i as u16)
    }

    /// ` (did you mean "..."?)`, or nothing when no column has a similar name.
    pub(super) fn nearest(&self, name: &str) -> String {
        self.columns
            .iter()
            .map(|c| (strsim::damerau_levenshtein(&c.name, name), c))
            .filter(|(distance, c)| *distance <= 2.max(c.name.len() / 3))
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, c)| format!(" (did you mean \"{}\"?)", c.name))
            .unwrap_or_default()
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SmallInt => "smallint",
            Self::Int => "integer",
            Self::BigInt => "bigint",
            Self::Numeric(_) => "numeric",
            Self::Real => "real",
            Self::Double => "double precision",
            Self::Bool => "boolean",
            Self::Text => "text",
            Self::Varchar(n) => return write!(f, "varchar({n})"),
            Self::Uuid => "uuid",
            Self::Bytea => "bytea",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Enum(_) => "enum",
            Self::Array(of) => return write!(f, "{of}[]"),
            Self::Other => "value",
        })
    }
}
