//! Holds a mapping against the table it names.
//!
//! Must not know: how to ask a database; it is given the description.

use super::order::OrderKey;
use super::schema::{Column, ColumnType, Table};
use super::set::Mapping;
use super::spec::{Format, StoreMode, WriteMode};
use super::template::IdType;

/// A mistake between a mapping and its table, with the cure in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mapping \"{mapping}\": {message}")]
pub struct BindError {
    /// Name of the mapping.
    pub mapping: String,
    /// What is wrong.
    pub message: String,
}

/// A mapping that fits its table: a value of this type can be loaded and written.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The mapping.
    pub mapping: Mapping,
    /// Its table; `None` for a mapping that only has `load`.
    pub table: Option<Table>,
    /// Columns of the placeholders, in their order (empty without a table).
    pub id_columns: Vec<u16>,
    /// The column of a `text` mapping.
    pub text_column: Option<u16>,
    /// The column that tells the newest row.
    pub order_column: Option<u16>,
    /// The column that holds the version of a row's last write; it is no part of the value.
    pub version_column: Option<u16>,
}

impl Bound {
    /// A mapping without a table (own `load` SQL, read-only).
    pub fn without_table(mapping: Mapping) -> Self {
        let (text_column, order_column, version_column) = (None, None, None);
        Self { mapping, table: None, id_columns: Vec::new(), text_column, order_column, version_column }
    }

    /// The columns that a value of all columns shows.
    pub fn shown<'t>(&self, table: &'t Table) -> impl Iterator<Item = &'t Column> + use<'t> {
        let hidden = self.version_column.map(usize::from);
        table.columns.iter().enumerate().filter(move |(at, _)| Some(*at) != hidden).map(|(_, column)| column)
    }

    /// Whether several rows may stand behind one key.
    pub fn is_append(&self) -> bool {
        self.mapping.mode == StoreMode::Append
    }

    /// The columns whose values tell which values of other mappings a write makes stale.
    pub fn watched<'b>(&'b self, table: &'b Table) -> impl Iterator<Item = u16> + 'b {
        self.mapping.watched.iter().flatten().filter_map(|name| table.column(name))
    }

    /// Place of a row's text among the rows of its id.
    pub fn order_key(&self, text: &str) -> Option<OrderKey> {
        let column = self.table.as_ref()?.columns.get(usize::from(self.order_column?))?;
        OrderKey::parse(&column.ty, text)
    }
}

/// Binds `mapping` to `table`; every mistake is reported.
pub fn bind(mapping: Mapping, table: Table) -> Result<Bound, Vec<BindError>> {
    let mut problems = Vec::new();
    let id_columns = bind_ids(&mapping, &table, &mut problems);
    let text_column = mapping.column.as_deref().and_then(|c| named(&table, "column", c, &mut problems));
    let order_column = mapping.order_by.as_deref().and_then(|c| named(&table, "order_by", c, &mut problems));
    if let Some(order) = order_column {
        check_order(&table, order, &mut problems);
    }
    let version_column = bind_version(&mapping, &table, &mut problems);
    if version_column.is_some_and(|at| id_columns.contains(&at) || text_column == Some(at)) {
        problems.push("`version_column` names a column that is part of the key or the value".to_owned());
    }
    if id_columns.len() == mapping.template.placeholders().len() {
        check_uniqueness(&mapping, &table, &id_columns, &mut problems);
        check_writable(&mapping, &table, &id_columns, text_column, &mut problems);
    }
    if problems.is_empty() {
        let table = Some(table);
        return Ok(Bound { mapping, table, id_columns, text_column, order_column, version_column });
    }
    Err(problems.into_iter().map(|message| BindError { mapping: mapping.name.clone(), message }).collect())
}

fn named(table: &Table, setting: &str, name: &str, problems: &mut Vec<String>) -> Option<u16> {
    let found = table.column(name);
    if found.is_none() {
        let nearest = table.nearest(name);
        problems.push(format!(
            "`{setting}` names \"{name}\", table \"{}\" has no such column{nearest}",
            table.name
        ));
    }
    found
}

fn bind_ids(mapping: &Mapping, table: &Table, problems: &mut Vec<String>) -> Vec<u16> {
    let mut columns = Vec::new();
    for (name, ty) in mapping.template.placeholders() {
        let Some(index) = table.column(name) else {
            let nearest = table.nearest(name);
            problems.push(format!(
                "the placeholder {{{name}}} names an id column, table \"{}\" has no column \"{name}\"{nearest}",
                table.name
            ));
            continue;
        };
        let column = &table.columns[usize::from(index)];
        if let Some(cure) = misfit(ty, &column.ty) {
            problems.push(format!(
                "the placeholder {{{name}}} is declared {ty}, column \"{}.{name}\" is {}; {cure}",
                table.name, column.declared
            ));
        }
        columns.push(index);
    }
    columns
}

/// Why ids of type `id` cannot stand for a column of type `column`: the cure, or `None` when they can.
fn misfit(id: IdType, column: &ColumnType) -> Option<String> {
    let fitting = match column {
        ColumnType::SmallInt => "smallint",
        ColumnType::Int => "int",
        ColumnType::BigInt => "bigint",
        ColumnType::Text => "text",
        ColumnType::Varchar(n) => return (!is_text(id)).then(|| format!("set id = \"varchar({n})\"")),
        ColumnType::Uuid => "uuid",
        _ => return Some(format!("an id column can be of type: {}", IdType::NAMES)),
    };
    let ok = match column {
        ColumnType::SmallInt => id == IdType::SmallInt,
        ColumnType::Int => matches!(id, IdType::SmallInt | IdType::Int),
        ColumnType::BigInt => id.is_integer(),
        ColumnType::Text => is_text(id),
        _ => id == IdType::Uuid,
    };
    (!ok).then(|| format!("set id = \"{fitting}\""))
}

fn is_text(id: IdType) -> bool {
    matches!(id, IdType::Text | IdType::Varchar(_))
}

/// Mappings that write the same rows guarded by one column: a write of one would be left out where a write of the other,
/// which waits in another queue, happened to be stored first.
pub fn shared_version<'b>(bounds: impl Iterator<Item = &'b Bound> + Clone) -> Vec<BindError> {
    let place = |bound: &'b Bound| Some((&bound.table.as_ref()?.sql_name, bound.version_column?));
    let mut problems = Vec::new();
    for (at, bound) in bounds.clone().enumerate() {
        let earlier =
            bounds.clone().take(at).find(|other| place(bound).is_some() && place(other) == place(bound));
        if let Some(other) = earlier {
            let message = format!(
                "`version_column` is that of mapping \"{}\", which writes the same rows; give each a column of its own",
                other.mapping.name
            );
            problems.push(BindError { mapping: bound.mapping.name.clone(), message });
        }
    }
    problems
}

fn bind_version(mapping: &Mapping, table: &Table, problems: &mut Vec<String>) -> Option<u16> {
    let name = mapping.version_column.as_deref()?;
    let Some(index) = table.column(name) else {
        let nearest = table.nearest(name);
        problems.push(format!(
            "`version_column` names \"{name}\", table \"{}\" has no such column{nearest}; `dsproxy migrate create \
             --version-column {}` writes the migration that adds it",
            table.name, mapping.name
        ));
        return None;
    };
    let column = &table.columns[usize::from(index)];
    let of = format!("`version_column` \"{}.{name}\"", table.name);
    if column.ty != ColumnType::BigInt {
        problems.push(format!("{of} is {}, but a version is a bigint", column.declared));
    }
    if column.generated || column.identity_always {
        problems.push(format!("{of} is generated by the database, but the proxy has to write it"));
    }
    if column.not_null && !column.has_default {
        problems.push(format!(
            "{of} is NOT NULL without a default, so nobody else can insert a row; give it one: default 0"
        ));
    }
    Some(index)
}

fn check_order(table: &Table, order: u16, problems: &mut Vec<String>) {
    let column = &table.columns[usize::from(order)];
    if !OrderKey::supports(&column.ty) {
        problems.push(format!(
            "`order_by` column \"{}.{}\" is {}; the newest row can be told by an integer, date or timestamp column",
            table.name, column.name, column.declared
        ));
    }
}

fn check_uniqueness(mapping: &Mapping, table: &Table, ids: &[u16], problems: &mut Vec<String>) {
    let mut wanted = ids.to_vec();
    wanted.sort_unstable();
    let exact = table.unique.contains(&wanted);
    let at_most_one_row = table.unique.iter().any(|set| set.iter().all(|c| wanted.contains(c)));
    let names: Vec<&str> = ids.iter().map(|i| table.columns[usize::from(*i)].name.as_str()).collect();
    let (table, names) = (&table.name, names.join(", "));
    let upserts = mapping.write != WriteMode::None && mapping.mode == StoreMode::Upsert;
    if upserts && !exact {
        problems.push(format!(
            "mode = \"upsert\" needs a unique index on exactly ({names}); \
             create one (`create unique index on {table} ({names})`), or use mode = \"append\""
        ));
    } else if !at_most_one_row && mapping.order_by.is_none() && mapping.load.is_none() {
        problems.push(format!(
            "several rows of \"{table}\" may have the same ({names}); \
             create a unique index on it, or say with `order_by` which row is the newest"
        ));
    }
}

fn check_writable(
    mapping: &Mapping,
    table: &Table,
    ids: &[u16],
    text: Option<u16>,
    problems: &mut Vec<String>,
) {
    if mapping.write == WriteMode::None {
        return;
    }
    for id in ids {
        let column = &table.columns[usize::from(*id)];
        if column.generated {
            problems.push(format!(
                "the id column \"{}.{}\" is generated and cannot be written; set write = \"none\"",
                table.name, column.name
            ));
        }
    }
    // A text mapping writes its ids and one column: every other column must be able to do without a value.
    if mapping.format == Format::Text && mapping.order_by.is_none() {
        for (index, column) in table.columns.iter().enumerate() {
            let of_version = Some(column.name.as_str()) == mapping.version_column.as_deref();
            let written = ids.contains(&(index as u16)) || text == Some(index as u16) || of_version;
            if column.not_null && !column.has_default && !column.generated && !written {
                problems.push(format!(
                    "format = \"text\" writes one column, but \"{}.{}\" is NOT NULL without a default; \
                     give it a default, or use format = \"json\"",
                    table.name, column.name
                ));
            }
        }
    }
}
