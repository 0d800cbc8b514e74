//! The settings of one `[[mapping]]`.
//!
//! Must not know: how a setting is parsed, documented or overridden.

use std::time::Duration;

use super::compound::{List, Optional, Required};
use super::define::{settings, words};
use super::inline::{Dependency, DependencyTable, Limits, Pairs, WarmUp, WarmUpTable};
use super::kind::{Count, Fraction, Size, Text};
use super::kind::{Flag, choice, duration, duration_or};
use super::settings::{hours, ms, secs, some_text};

pub(super) const NAME: Text = Text {
    expects: "a name of letters, digits, `_` and `-`, at most 64 long",
    example: "user",
    check: |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    },
};
const KEY: Text = some_text("a key template with its {placeholders}", "user:{id}");
const TABLE: Text = some_text("the name of a table, with its schema where needed", "users");
const COLUMN: Text = some_text("the name of a column", "value");
const TYPE: Text = some_text("the name of a Postgres type, such as bigint, text or uuid", "bigint");
const LOAD: Text = some_text("a SELECT statement", "select id, name from users where id = any($1)");

words! {
    /// What the value of a mapped key looks like.
    ValueFormat {
        /// A JSON object with one member per column.
        Json = "json",
        /// The text of one column.
        Text = "text",
        /// A Redis hash with one field per column; a column that is NULL has none.
        Hash = "hash",
        /// Rows in their order: objects of another mapping (`of`), or an array of rows.
        List = "list",
    }

    /// What a write of a mapped key does to the database.
    WritePolicy {
        /// Nothing: the mapping is read-only and writes are refused.
        None = "none",
        /// Answered at once, written to the database in batches.
        Behind = "behind",
        later "through",
    }

    /// How a written row enters its table.
    WriteMode {
        /// It replaces the row of the same id.
        Upsert = "upsert",
        /// It is added; the newest row of an id is the one that is read.
        Append = "append",
    }

    /// Whether loaded values are stored in Redis.
    CachePolicy {
        /// They are.
        On = "on",
        /// They are loaded once per burst of readers, and never stored.
        Off = "off",
    }

    /// What a key is that looks like one of a mapping, but whose placeholders cannot be of their types.
    BadKey {
        /// A plain Redis key, which mostly does not exist.
        Nil = "nil",
        /// A mistake: commands that name it are refused.
        Error = "error",
    }

    /// What has to survive before a write is acknowledged.
    Durability {
        /// A crash of the proxy: the write is in its journal.
        Journal = "journal",
        /// Nothing: what waits is lost with the proxy.
        Memory = "memory",
        /// The write is in the database.
        Database = "database",
    }
}

words! {
    /// What becomes of later writes of a key of which the database has refused one.
    OnPoison {
        /// They are applied; the dead letter says so.
        Flag = "flag",
        /// They wait behind it, in their order, until it is replayed or dropped.
        Wait = "wait",
    }
}

settings! {
    /// A family of keys that stand for rows of a table. A key that matches no mapping is plain Redis.
    MappingConfig in "mapping" {
        /// Name of the mapping, in metrics and messages. Each is used once.
        name: String = String::new(), Required(NAME);
        /// Template of its keys. Each `{placeholder}` is the column of that name.
        key: String = String::new(), Required(KEY);
        /// Table of its rows. Needed unless `load` is given.
        table: Option<String> = None, Optional(TABLE);
        /// Types of the key's placeholders, in their order; one text when all have the same. A key without placeholders has
        /// none.
        id: Vec<String> = Vec::new(), List(TYPE);
        /// What the value looks like: `json` (an object with one member per column), `text` (one column), `hash` (a Redis hash
        /// with one field per column) or `list` (rows in their order).
        format: ValueFormat = ValueFormat::Json, choice::<ValueFormat>();
        /// The column that is the value, for `format = "text"`.
        column: Option<String> = None, Optional(COLUMN);
        /// The column by which the newest row of an id is found, for `mode = "append"`.
        order_by: Option<String> = None, Optional(Text { example: "ts", ..COLUMN });
        /// Custom SQL that loads the rows, instead of the one made from `table`: either with the ids of many keys as arrays in
        /// `$1`.. (`where id = any($1)`), or with the placeholders of one key by name (`where id = $id`).
        load: Option<String> = None, Optional(LOAD);
        /// How long a loaded value stays in Redis.
        ttl: Duration = secs(300), duration_or("no expiry", ms(1)..=hours(24 * 365));
        /// What a write does to the database: `none` (writes are refused) or `behind` (written in batches).
        write: WritePolicy = WritePolicy::None, choice::<WritePolicy>();
        /// How a written row enters the table: `upsert` (replaces the row of its id) or `append` (is added).
        mode: WriteMode = WriteMode::Upsert, choice::<WriteMode>();
        /// Waiting rows of this mapping that start a flush. Unset: `write_behind.batch_rows`.
        batch_rows: Option<usize> = None, Optional(Count(1..=100_000));
        /// Longest time that a row of this mapping waits before a flush is started. Unset: `write_behind.batch_interval`.
        batch_interval: Option<Duration> = None, Optional(duration(ms(1)..=hours(1)));
        /// Whether loaded values are stored in Redis.
        cache: CachePolicy = CachePolicy::On, choice::<CachePolicy>();
        /// Of `format = "list"`: the mapping whose objects it lists. The entry then holds their ids only, and each object is
        /// cached once, however many lists it is in. Without it the entry holds the rows themselves.
        of: Option<String> = None, Optional(Text { example: "post", ..NAME });
        /// The members of the value, each with the column or SQL expression that it comes from, instead of all columns of the
        /// table. Such a mapping is read-only.
        columns: Vec<(String, String)> = Vec::new(), Pairs {
            text: "a column or an SQL expression over the table's columns",
            example: "{ title = \"post_title\", excerpt = \"left(content, 100)\" }",
        };
        /// The largest number that each of these placeholders may be; they may not be negative then.
        max: Vec<(String, u64)> = Vec::new(), Limits;
        /// What a key is whose placeholders do not fit their types (`user:abc` where a number is due): `nil` (a plain Redis key,
        /// which mostly does not exist; no query is run) or `error`.
        on_bad_key: BadKey = BadKey::Nil, choice::<BadKey>();
        /// Longest key in bytes. A longer one fits no row, and is treated as `on_bad_key` says.
        max_key: usize = 1 << 10, Size(16..=64 << 10);
        /// Which writes make the values stale: those of rows of another mapping; with `by` only of rows that have the value of
        /// this placeholder in the column of its name.
        invalidate_on: Option<Dependency> = None, Optional(DependencyTable);
        /// How long it is remembered that there is no row.
        negative_ttl: Duration = secs(10), duration_or("it is asked for each time", ms(1)..=hours(24));
        /// Part of the time to live that is varied at random. Unset: `read_through.ttl_jitter`.
        ttl_jitter: Option<f64> = None, Optional(Fraction(0.0..=0.5));
        /// How early a value that is read is loaded anew before it expires, as XFetch's beta: `1.0` is a good one, more is
        /// earlier, `0.0` is never. A load counts as one that takes 2 % of the time to live at least.
        refresh_ahead: f64 = 0.0, Fraction(0.0..=10.0);
        /// How long after its time to live a value may still be served while a newer one is loaded, or cannot be.
        stale_while_revalidate: Duration = secs(0), duration_or("not at all", ms(1)..=hours(24 * 365));
        /// How long one proxy may load a key before another may do it too. Unset: longer than the statement timeout.
        lease: Option<Duration> = None, Optional(duration(ms(50)..=hours(1)));
        /// How long a client waits for a load. Unset: `read_through.timeout`.
        timeout: Option<Duration> = None, Optional(duration(ms(10)..=hours(1)));
        /// Keys that one query loads at most. Unset: `read_through.max_batch`.
        max_batch: Option<usize> = None, Optional(Count(1..=100_000));
        /// A bigint column that holds the version of a row's last write: an older write never replaces a newer one. It is no part of
        /// the value. `dsproxy migrate create --version-column MAPPING` writes the migration that adds it. Unset: versions
        /// are kept beside the table, in `dsproxy_versions`.
        version_column: Option<String> = None, Optional(Text { example: "version", ..COLUMN });
        /// Whether versions are kept in `dsproxy_versions` as well as in `version_column`: for the time in which proxies that have that
        /// setting, and such that have not, write the mapping beside each other.
        version_table: bool = false, Flag;
        /// What has to survive before a write is acknowledged: `journal` (the proxy's crash), `memory` (nothing) or `database`
        /// (written through: the commit comes before the acknowledgement).
        durability: Durability = Durability::Journal, choice::<Durability>();
        /// What becomes of later writes of a key of which the database has refused one: `flag` (they are applied, and the dead
        /// letter says so) or `wait` (they wait behind it, up to `write_behind.max_held`; readers see them meanwhile). With
        /// `durability = "database"` such a write is refused instead of waiting. All proxies should say the same.
        on_poison: OnPoison = OnPoison::Flag, choice::<OnPoison>();
        /// Whether rows are loaded into the cache at start, in the background: `true` (all), or
        /// `{ where = "...", limit = 10000, rate = 1000 }`. Where the key has no placeholder, the entry of this one key.
        warm: Option<WarmUp> = None, WarmUpTable;
    }
}
