//! Turns what a client writes into a row, checked against the table.
//!
//! Must not know: when or how the row will be stored.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::bind::Bound;
use super::order::OrderKey;
use super::schema::{ColumnType, Table};
use super::spec::{Format, StoreMode, WriteMode};
use super::value;

/// Why a value cannot become a row. The message names mapping and column, and never repeats the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The mapping takes no writes.
    #[error("mapping '{mapping}' is read-only (write = \"none\")")]
    ReadOnly {
        /// Name of the mapping.
        mapping: String,
    },
    /// The value as a whole.
    #[error("value does not fit mapping '{mapping}': {message}")]
    Document {
        /// Name of the mapping.
        mapping: String,
        /// What is wrong.
        message: String,
    },
    /// One column.
    #[error("value does not fit mapping '{mapping}': column '{column}' {message}")]
    Column {
        /// Name of the mapping.
        mapping: String,
        /// Name of the column.
        column: String,
        /// What is wrong.
        message: String,
    },
}

/// Columns by index with their texts; `None` is NULL.
pub type Columns = Vec<(u16, Option<Box<str>>)>;

/// A row to be written: texts that the database casts to the columns' types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The id values, in the order of the template's placeholders.
    pub ids: Box<[Box<str>]>,
    /// Other columns by index, ascending; `None` is NULL.
    pub columns: Columns,
    /// Columns, ascending and none of the others, that only a new row gets: an existing one keeps what it has.
    pub keep: Columns,
}

impl Row {
    /// Checks `body`, the value a client writes for the key with these id values.
    ///
    /// A JSON object may name some of the columns only: an existing row keeps the others, a new one takes their defaults.
    pub fn parse<S: AsRef<str>>(bound: &Bound, ids: &[S], body: &[u8]) -> Result<Self, ValueError> {
        Self::parse_with(Check::new(bound)?, ids, body)
    }

    fn parse_with<S: AsRef<str>>(check: Check<'_>, ids: &[S], body: &[u8]) -> Result<Self, ValueError> {
        let body = std::str::from_utf8(body).map_err(|_| check.document("it is not valid UTF-8"))?;
        let columns = match check.bound.mapping.format {
            Format::Json | Format::Hash => check.object(ids, body)?,
            Format::List => return Err(check.document("a list cannot be written")),
            Format::Text => check.text(body)?,
        };
        check.finish(ids, columns)
    }

    /// As [`Row::parse`], for a write that happens at `now` (seconds since the Unix epoch): where rows are appended and
    /// ordered by an integer column without a default, and the body does not give it, `now` is the order.
    pub fn parse_at<S: AsRef<str>>(
        bound: &Bound,
        ids: &[S],
        body: &[u8],
        now: u64,
    ) -> Result<Self, ValueError> {
        Self::parse_with(Check { now: Some(now), ..Check::new(bound)? }, ids, body)
    }

    /// Checks a row given column by column (as HTTP does): name and database text, `None` for NULL.
    pub fn from_columns<S: AsRef<str>>(
        bound: &Bound,
        ids: &[S],
        given: &[(&str, Option<&str>)],
    ) -> Result<Self, ValueError> {
        let check = Check::new(bound)?;
        let mut columns = Vec::with_capacity(given.len());
        for (name, text) in given {
            let index = check.writable(name)?;
            if let Some(text) = text {
                let ty = &check.table.columns[usize::from(index)].ty;
                value::check_text(ty, text).map_err(|m| check.column(name, m))?;
            }
            columns.push((index, text.map(Into::into)));
        }
        check.finish(ids, columns)
    }

    /// Place of this row among the rows of its id; `None` when the database will choose the value.
    pub fn order_key(&self, bound: &Bound) -> Option<OrderKey> {
        let wanted = bound.order_column?;
        let at = self.columns.iter().find(|(index, _)| *index == wanted)?;
        bound.order_key(at.1.as_deref()?)
    }

    /// This row and then `later`: the columns of both, the later ones first.
    #[must_use]
    pub fn and_then(self, later: Self) -> Self {
        let mut columns: BTreeMap<_, _> = self.columns.into_iter().collect();
        columns.extend(later.columns);
        let mut keep: BTreeMap<_, _> = self.keep.into_iter().collect();
        keep.extend(later.keep);
        keep.retain(|index, _| !columns.contains_key(index));
        Self { ids: later.ids, columns: columns.into_iter().collect(), keep: keep.into_iter().collect() }
    }

    /// Approximate memory it takes, bytes.
    pub fn size(&self) -> usize {
        let texts =
            self.columns.iter().chain(&self.keep).map(|(_, text)| 24 + text.as_ref().map_or(0, |t| t.len()));
        std::mem::size_of::<Self>()
            + texts.sum::<usize>()
            + self.ids.iter().map(|id| 16 + id.len()).sum::<usize>()
    }
}

pub(super) struct Check<'b> {
    pub(super) bound: &'b Bound,
    pub(super) table: &'b Table,
    /// Seconds since the Unix epoch, to order an appended row that does not say its order.
    now: Option<u64>,
}

impl<'b> Check<'b> {
    pub(super) fn new(bound: &'b Bound) -> Result<Self, ValueError> {
        match &bound.table {
            Some(table) if bound.mapping.write != WriteMode::None => Ok(Self { bound, table, now: None }),
            _ => Err(ValueError::ReadOnly { mapping: bound.mapping.name.clone() }),
        }
    }

    pub(super) fn document(&self, message: impl fmt::Display) -> ValueError {
        ValueError::Document { mapping: self.bound.mapping.name.clone(), message: message.to_string() }
    }

    pub(super) fn column(&self, column: &str, message: impl Into<String>) -> ValueError {
        let (mapping, column) = (self.bound.mapping.name.clone(), column.to_owned());
        ValueError::Column { mapping, column, message: message.into() }
    }

    /// Index of a column that exists and may be given.
    pub(super) fn writable(&self, name: &str) -> Result<u16, ValueError> {
        let Some(index) = self.table.column(name) else {
            let nearest = self.table.nearest(name);
            return Err(self.column(name, format!("does not exist in table '{}'{nearest}", self.table.name)));
        };
        let column = &self.table.columns[usize::from(index)];
        if column.generated || (column.identity_always && !self.bound.id_columns.contains(&index)) {
            return Err(self.column(name, "is generated by the database and cannot be written"));
        }
        if self.bound.version_column == Some(index) {
            return Err(self.column(name, "holds the version of the row, which only the proxy writes"));
        }
        Ok(index)
    }

    fn object<S: AsRef<str>>(&self, ids: &[S], body: &str) -> Result<Columns, ValueError> {
        let fields = parse_object(body).map_err(|e| self.document(e))?;
        let mut columns = Vec::with_capacity(fields.len());
        for (name, raw) in fields {
            let index = self.writable(&name)?;
            let ty = &self.table.columns[usize::from(index)].ty;
            let text = value::from_json(ty, raw).map_err(|m| self.column(&name, m))?;
            match self.bound.id_columns.iter().position(|c| *c == index) {
                None => columns.push((index, text)),
                Some(at) => self.same_id(&name, text.as_deref(), ids.get(at).map_or("", AsRef::as_ref))?,
            }
        }
        Ok(columns)
    }

    pub(super) fn same_id(&self, name: &str, given: Option<&str>, key: &str) -> Result<(), ValueError> {
        let same = match given {
            // Other spellings of one value: -0, upper-case UUIDs.
            Some(text) => {
                text == key
                    || (key == "0" && text == "-0")
                    || (is_uuid_like(key) && text.eq_ignore_ascii_case(key))
            }
            None => false,
        };
        if same {
            Ok(())
        } else {
            Err(self.column(name, "differs from the id in the key; leave it out, or make them equal"))
        }
    }

    fn text(&self, body: &str) -> Result<Columns, ValueError> {
        let Some(index) = self.bound.text_column else {
            return Err(self.document("the mapping names no column"));
        };
        let column = &self.table.columns[usize::from(index)];
        self.writable(&column.name)?;
        value::check_text(&column.ty, body).map_err(|m| self.column(&column.name, m))?;
        Ok(vec![(index, Some(body.into()))])
    }

    /// The order column and the time of the write, where the row is appended and needs them.
    fn order_now(&self, given: &Columns) -> Option<(u16, Option<Box<str>>)> {
        let (now, order) = (self.now?, self.bound.order_column?);
        let column = self.table.columns.get(usize::from(order))?;
        let wanted = self.bound.is_append()
            && matches!(column.ty, ColumnType::Int | ColumnType::BigInt)
            && !column.has_default
            && given.iter().all(|(index, _)| *index != order);
        wanted.then(|| (order, Some(now.to_string().into())))
    }

    fn finish<S: AsRef<str>>(&self, ids: &[S], mut columns: Columns) -> Result<Row, ValueError> {
        columns.extend(self.order_now(&columns));
        columns.sort_unstable_by_key(|(index, _)| *index);
        for (id, index) in ids.iter().zip(&self.bound.id_columns) {
            let column = &self.table.columns[usize::from(*index)];
            value::check_text(&column.ty, id.as_ref()).map_err(|m| self.column(&column.name, m))?;
        }
        for (index, column) in
            self.table.columns.iter().enumerate().filter(|(_, c)| c.not_null && !c.generated)
        {
            let index = index as u16;
            if self.bound.id_columns.contains(&index) {
                continue;
            }
            match columns.binary_search_by_key(&index, |(i, _)| *i) {
                Ok(at) if columns[at].1.is_none() => {
                    return Err(self.column(&column.name, "is null, but it is NOT NULL"));
                }
                // `insert .. on conflict` checks NOT NULL before it looks for the conflict, so this holds for updates too.
                Err(_) if !column.has_default => {
                    return Err(self.column(&column.name, "is missing; it is NOT NULL and has no default"));
                }
                _ => {}
            }
        }
        if let (StoreMode::Append, Some(order)) = (self.bound.mapping.mode, self.bound.order_column)
            && columns.iter().any(|(index, text)| *index == order && text.is_none())
        {
            return Err(self
                .column(&self.table.columns[usize::from(order)].name, "orders the rows and cannot be null"));
        }
        Ok(Row { ids: ids.iter().map(|id| id.as_ref().into()).collect(), columns, keep: Vec::new() })
    }
}

fn is_uuid_like(text: &str) -> bool {
    text.len() == 36 && text.as_bytes()[8] == b'-'
}

/// The fields of a JSON object in their order; refuses a name that comes twice.
pub(super) fn parse_object(body: &str) -> Result<Vec<(String, &RawValue)>, String> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = Vec<(String, &'de RawValue)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object of columns")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields: Self::Value = Vec::new();
            while let Some((name, raw)) = map.next_entry::<String, &'de RawValue>()? {
                if fields.iter().any(|(n, _)| *n == name) {
                    return Err(serde::de::Error::custom(format_args!("column '{name}' is given twice")));
                }
                fields.push((name, raw));
            }
            Ok(fields)
        }
    }
    if !body.trim_start().starts_with('{') {
        return Err("it must be a JSON object of columns, such as {\"name\":\"Ada\"}".into());
    }
    let mut json = serde_json::Deserializer::from_str(body);
    let fields = json.deserialize_map(Fields).map_err(|e| e.to_string())?;
    json.end().map_err(|e| e.to_string())?;
    Ok(fields)
}
