//! What an operator declares about one mapping, before anything is checked.
//!
//! Must not know: where it was written down (proxy.toml, a test).

use std::time::Duration;

/// How the value of a key looks to Redis clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object of the row's columns.
    Json,
    /// The text of one column.
    Text,
}

/// What a write of a mapped key does to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Writes are refused: the mapping is read-only.
    None,
    /// Acknowledged first, written to the database in batches.
    Behind,
}

/// How a row is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreMode {
    /// One row per key: inserted, or updated where it exists.
    Upsert,
    /// One row per write; a reader sees the newest by `order_by`.
    Append,
}

/// One `[[mapping]]` as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingSpec {
    /// Unique name, used in metrics and messages.
    pub name: String,
    /// Key template, such as `user:{id}`; the placeholders are named after the id columns.
    pub key: String,
    /// Table, schema-qualified or not. Needed unless `load` is given, and always for writing.
    pub table: Option<String>,
    /// Type of the placeholders: one for all of them, or one per placeholder, separated by commas.
    pub id: String,
    /// How values look.
    pub format: Format,
    /// The column of a `text` mapping.
    pub column: Option<String>,
    /// The column that tells which of several rows with the same id is the newest.
    pub order_by: Option<String>,
    /// Own SQL instead of the generated `select`: `$1` is the array of ids (`$2`.. for further placeholders).
    pub load: Option<String>,
    /// Life time of a cached value; zero = no expiry.
    pub ttl: Duration,
    /// What writes do.
    pub write: WriteMode,
    /// How rows are stored.
    pub mode: StoreMode,
    /// `false`: load with single flight but never store in the cache.
    pub cache: bool,
}

impl MappingSpec {
    /// A read-only JSON mapping with a five minute TTL, as the documented defaults are.
    pub fn new(name: &str, key: &str, table: &str, id: &str) -> Self {
        Self {
            name: name.into(),
            key: key.into(),
            table: Some(table.into()),
            id: id.into(),
            format: Format::Json,
            column: None,
            order_by: None,
            load: None,
            ttl: Duration::from_secs(300),
            write: WriteMode::None,
            mode: StoreMode::Upsert,
            cache: true,
        }
    }
}
