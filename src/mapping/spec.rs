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
    /// A Redis hash: one field per column that is not NULL.
    Hash,
    /// Rows in their order: a JSON array of the ids of another mapping (`of`), or of the rows themselves.
    List,
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

/// What a key is that looks like one of a mapping but cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKey {
    /// Plain Redis.
    Nil,
    /// A mistake that the client is told.
    Error,
}

/// What has to survive before a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the proxy.
    Journal,
    /// Nothing.
    Memory,
    /// It is in the database.
    Database,
}

/// What becomes of later writes of a key of which the database has refused one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPoison {
    /// They are applied; the dead letter says so.
    Flag,
    /// They wait behind it.
    Wait,
}

/// How long values, and what is known of them, live in the cache, and how they are loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct FillPolicy {
    /// How long it is remembered that there is no row; zero = not at all.
    pub negative_ttl: Duration,
    /// Part of the time to live that is varied at random; `None` = as for all mappings.
    pub ttl_jitter: Option<f64>,
    /// XFetch's beta; zero = a value is loaded anew only when it is gone.
    pub refresh_ahead: f64,
    /// How long after its time to live a value may still be served while it is loaded anew; zero = not at all.
    pub stale: Duration,
    /// How long one proxy may load a key before another may; `None` = longer than the statement timeout.
    pub lease: Option<Duration>,
    /// How long a client waits for a load; `None` = as for all mappings.
    pub timeout: Option<Duration>,
    /// Keys per query at most; `None` = as for all mappings.
    pub max_batch: Option<usize>,
}

impl Default for FillPolicy {
    fn default() -> Self {
        Self {
            negative_ttl: Duration::from_secs(10),
            ttl_jitter: None,
            refresh_ahead: 0.0,
            stale: Duration::ZERO,
            lease: None,
            timeout: None,
            max_batch: None,
        }
    }
}

/// One `[[mapping]]` as declared.
#[derive(Debug, Clone, PartialEq)]
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
    /// Of a list: the mapping whose objects it lists.
    pub of: Option<String>,
    /// The members of the value: name and SQL expression over the table's columns. Empty: all columns.
    pub columns: Vec<(String, String)>,
    /// The largest number that a placeholder may be, by its name.
    pub max: Vec<(String, u64)>,
    /// What a key is whose placeholders do not fit their types.
    pub on_bad_key: BadKey,
    /// Longest key in bytes.
    pub max_key: usize,
    /// The mapping whose writes make the values stale, and the placeholder that tells which of them.
    pub invalidate_on: Option<(String, Option<String>)>,
    /// The column that tells the newer of two writes of a row.
    pub version_column: Option<String>,
    /// Versions are kept in the proxy's own table as well.
    pub version_table: bool,
    /// What has to survive before a write is acknowledged.
    pub durability: Durability,
    /// What becomes of later writes of a key that has a dead letter.
    pub on_poison: OnPoison,
    /// Writes that may wait behind dead letters; beyond it later ones are applied.
    pub max_held: usize,
    /// How values are filled.
    pub fill: FillPolicy,
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
            of: None,
            columns: Vec::new(),
            max: Vec::new(),
            on_bad_key: BadKey::Nil,
            max_key: 1024,
            invalidate_on: None,
            version_column: None,
            version_table: false,
            durability: Durability::Journal,
            on_poison: OnPoison::Flag,
            max_held: 10_000,
            fill: FillPolicy::default(),
        }
    }
}
