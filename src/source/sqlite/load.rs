//! Loads the rows of many keys from SQLite.
//!
//! Must not know: who waits for them.
//!
//! Our own statement gets all ids as one JSON array (`json_each`); an own `load` gets them the same way in `$1`, or is run
//! once per key, in one read transaction, where it names its parameters.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{CachedStatement, Connection, Row, Rows};
use rustc_hash::FxHashMap;

use super::describe::ident;
use super::{Plan, Sqlite, value};
use crate::mapping::{Bound, Column, ColumnType, Format, IdType, Match, Table};
use crate::source::backend::{LoadedKey, LoadedRow, newest, too_large};
use crate::source::error::SourceError;
use crate::source::own_load::LoadParameters;

/// The statement of one mapping.
#[derive(Debug)]
pub(super) enum LoadPlan {
    /// Our own: `?1` is the JSON array of ids (of arrays of ids, where there are several placeholders); answers the
    /// position from 0, then the columns of the table.
    Generated(String),
    /// The operator's, with `$1`.. as JSON arrays; answers by id.
    ByIds(String),
    /// The operator's, with `$name`; run once per key.
    ByName(String),
}

impl LoadPlan {
    pub fn generated(bound: &Bound, table: &Table) -> Self {
        let column = |at: &u16| table.columns.get(usize::from(*at)).map_or("", |c| c.name.as_str());
        if !bound.mapping.columns.is_empty() {
            return Self::computed(bound, table);
        }
        let ids: Vec<String> = bound.id_columns.iter().map(|id| ident(column(id))).collect();
        let on = joined_on(&ids);
        let columns: Vec<String> = bound.shown(table).map(|c| format!("t.{}", ident(&c.name))).collect();
        let columns = columns.join(", ");
        // CROSS JOIN keeps SQLite from turning the loops around: ids outside, the index inside.
        let from = match &bound.order_column {
            None => format!("cross join {} t on {on}", table.sql_name),
            Some(order) => {
                let keys = table.primary_key.iter().map(|key| format!(", t.{} desc", ident(column(key))));
                let order = format!("t.{} desc nulls last{}", ident(column(order)), keys.collect::<String>());
                format!(
                    "cross join {0} t on t.rowid = (select t.rowid from {0} t where {on} order by {order} limit 1)",
                    table.sql_name
                )
            }
        };
        Self::Generated(format!("select k.key, {columns} from json_each(?1) k {from}"))
    }

    /// The members of the value are expressions: evaluated where the names of `json_each` cannot be meant.
    fn computed(bound: &Bound, table: &Table) -> Self {
        let members = &bound.mapping.columns;
        let names: Vec<String> = members.iter().map(|(name, _)| format!("t.{}", ident(name))).collect();
        let ids = bound.id_columns.iter().filter_map(|at| table.columns.get(usize::from(*at)));
        let ids: Vec<(String, String)> =
            ids.enumerate().map(|(at, column)| (format!("dsproxy_id{at}"), ident(&column.name))).collect();
        let renamed: Vec<String> = ids.iter().map(|(id, column)| format!("{column} as {id}")).collect();
        let ids: Vec<String> = ids.into_iter().map(|(id, _)| id).collect();
        let given: Vec<String> =
            members.iter().map(|(name, sql)| format!("{sql} as {}", ident(name))).collect();
        Self::Generated(format!(
            "select k.key, {} from json_each(?1) k cross join (select {}, {} from {}) t on {}",
            names.join(", "),
            renamed.join(", "),
            given.join(", "),
            table.sql_name,
            joined_on(&ids)
        ))
    }

    /// Its SQL.
    pub fn sql(&self) -> &str {
        match self {
            Self::Generated(sql) | Self::ByIds(sql) | Self::ByName(sql) => sql,
        }
    }

    pub fn own(parameters: LoadParameters, own: &str) -> Self {
        match parameters {
            LoadParameters::Arrays => Self::ByIds(own.to_owned()),
            LoadParameters::Names => Self::ByName(own.to_owned()),
        }
    }
}

/// The condition that columns of `t` are the ids of `k`.
fn joined_on(ids: &[String]) -> String {
    let one = |(at, id): (usize, &String)| match ids.len() > 1 {
        true => format!("t.{id} = json_extract(k.value, '$[{at}]')"),
        false => format!("t.{id} = k.value"),
    };
    ids.iter().enumerate().map(one).collect::<Vec<_>>().join(" and ")
}

/// The rows of `keys`, in their order, in one read transaction on one of the reading threads.
pub(super) async fn load(
    sqlite: &Sqlite,
    plan: &Plan,
    keys: &[Match<'_>],
) -> Result<Vec<LoadedKey>, SourceError> {
    load_ids(sqlite, plan, keys.iter().map(|key| key.ids().iter().map(|id| (*id).into()).collect()).collect())
        .await
}

/// The rows with these id values.
pub(super) async fn load_ids(
    sqlite: &Sqlite,
    plan: &Plan,
    keys: Vec<Box<[Box<str>]>>,
) -> Result<Vec<LoadedKey>, SourceError> {
    let (bound, load) = (plan.bound.clone(), plan.load.clone());
    let max_bytes = sqlite.max_value_bytes;
    let work = move |connection: &mut Connection| {
        let job = Job { connection, bound, keys, max_bytes };
        match &*load {
            LoadPlan::Generated(sql) => job.generated(sql),
            LoadPlan::ByIds(sql) => job.by_ids(sql),
            LoadPlan::ByName(sql) => job.by_name(sql),
        }
    };
    sqlite.loads.run(work).await
}

struct Job<'c> {
    connection: &'c mut Connection,
    bound: Arc<Bound>,
    keys: Vec<Box<[Box<str>]>>,
    max_bytes: usize,
}

impl Job<'_> {
    fn types(&self) -> Vec<IdType> {
        self.bound.mapping.template.placeholders().map(|(_, ty)| ty).collect()
    }

    fn generated(&self, sql: &str) -> Result<Vec<LoadedKey>, SourceError> {
        let types = self.types();
        let mut loaded = vec![Ok(None); self.keys.len()];
        let mut statement = self.connection.prepare_cached(sql)?;
        let fields: Vec<Field> = match self.bound.mapping.columns.is_empty() {
            true => {
                self.bound.table.iter().flat_map(|table| self.bound.shown(table)).map(Field::of).collect()
            }
            false => fields(&statement).into_iter().skip(1).collect(),
        };
        let mut rows = statement.query([ids_json(&self.keys, &types)])?;
        while let Some(row) = rows.next()? {
            let position: i64 = row.get(0)?;
            if let Some(slot) = usize::try_from(position).ok().and_then(|at| loaded.get_mut(at)) {
                newest(slot, self.read(row, 1, &fields));
            }
        }
        Ok(loaded)
    }

    fn by_ids(&self, sql: &str) -> Result<Vec<LoadedKey>, SourceError> {
        let types = self.types();
        let mut statement = self.connection.prepare_cached(sql)?;
        let fields = fields(&statement);
        for (at, ty) in types.iter().enumerate() {
            let column: Vec<Box<[Box<str>]>> =
                self.keys.iter().map(|ids| ids.get(at).cloned().into_iter().collect()).collect();
            let name = format!("${}", at + 1);
            if let Some(index) = statement.parameter_index(&name)? {
                statement.raw_bind_parameter(index, ids_json(&column, &[*ty]))?;
            }
        }
        let placeholders = self.bound.mapping.template.placeholders().map(|(name, _)| name);
        let id_fields: Option<Vec<usize>> =
            placeholders.map(|name| fields.iter().position(|field| field.name == name)).collect();
        let id_fields = id_fields.unwrap_or_default();
        let mut positions: FxHashMap<Vec<&str>, Vec<usize>> = FxHashMap::default();
        for (at, ids) in self.keys.iter().enumerate() {
            positions.entry(ids.iter().map(|id| &**id).collect()).or_default().push(at);
        }
        let mut loaded = vec![Ok(None); self.keys.len()];
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let ids = id_fields
                .iter()
                .map(|at| value::to_text(&ColumnType::Text, row.get_ref(*at)?))
                .collect::<Result<Option<Vec<String>>, SourceError>>()?;
            let Some(ids) = ids else { continue };
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            for at in positions.get(&ids).into_iter().flatten() {
                if let Some(slot) = loaded.get_mut(*at) {
                    newest(slot, self.read(row, 0, &fields));
                }
            }
        }
        Ok(loaded)
    }

    fn by_name(&self, sql: &str) -> Result<Vec<LoadedKey>, SourceError> {
        // One transaction: all keys are read from one state of the file.
        let transaction = self.connection.unchecked_transaction()?;
        let mut statement = transaction.prepare_cached(sql)?;
        let fields = fields(&statement);
        let placeholders: Vec<(String, IdType)> =
            self.bound.mapping.template.placeholders().map(|(name, ty)| (format!("${name}"), ty)).collect();
        let mut loaded = Vec::with_capacity(self.keys.len());
        for ids in &self.keys {
            for ((name, ty), id) in placeholders.iter().zip(ids) {
                if let Some(index) = statement.parameter_index(name)? {
                    statement.raw_bind_parameter(index, of_id(*ty, id))?;
                }
            }
            let mut slot = Ok(None);
            let mut rows = statement.raw_query();
            if self.bound.mapping.format == Format::List {
                let list = self.list(&mut rows, &fields);
                drop(rows);
                loaded.push(list);
                continue;
            }
            while let Some(row) = rows.next()? {
                newest(&mut slot, self.read(row, 0, &fields));
                if self.bound.mapping.order_by.is_none() {
                    break;
                }
            }
            drop(rows);
            loaded.push(slot);
        }
        Ok(loaded)
    }

    /// One JSON array: of the ids that a list mapping lists, or of its rows.
    fn list(&self, rows: &mut Rows<'_>, fields: &[Field]) -> LoadedKey {
        let mapping = &self.bound.mapping;
        let place = |name: &String| fields.iter().position(|field| field.name == *name);
        let ids: Vec<usize> = mapping.listed.iter().filter_map(place).collect();
        let mut out = String::from("[");
        while let Some(row) = rows.next()? {
            if out.len() > 1 {
                out.push(',');
            }
            match ids.as_slice() {
                [] => {
                    let values = fields.iter().enumerate().map(|(at, f)| Ok((f, row.get_ref(at)?)));
                    out.push_str(&object(values)?);
                }
                [one] => value::push_json(&mut out, &fields[*one].ty, row.get_ref(*one)?)?,
                several => {
                    out.push('[');
                    for (n, at) in several.iter().enumerate() {
                        if n > 0 {
                            out.push(',');
                        }
                        value::push_json(&mut out, &fields[*at].ty, row.get_ref(*at)?)?;
                    }
                    out.push(']');
                }
            }
            if out.len() > self.max_bytes {
                return Err(too_large(mapping, out.len(), self.max_bytes));
            }
        }
        out.push(']');
        Ok(Some(LoadedRow { value: Bytes::from(out), order: None }))
    }

    /// The row in the columns from `first` on.
    fn read(&self, row: &Row<'_>, first: usize, fields: &[Field]) -> LoadedKey {
        let mapping = &self.bound.mapping;
        let place =
            |name: &Option<String>| fields.iter().position(|field| Some(&field.name) == name.as_ref());
        let order = match place(&mapping.order_by) {
            None => None,
            Some(at) => {
                let text = value::to_text(&fields[at].ty, row.get_ref(first + at)?)?;
                text.and_then(|text| self.bound.order_key(&text))
            }
        };
        let value = match (mapping.format, place(&mapping.column)) {
            (Format::Text, Some(at)) => match value::to_text(&fields[at].ty, row.get_ref(first + at)?)? {
                Some(text) => text,
                // A text mapping whose column is NULL has no value.
                None => return Ok(None),
            },
            _ => {
                let values = fields.iter().enumerate().map(|(at, f)| Ok((f, row.get_ref(first + at)?)));
                object(values)?
            }
        };
        if value.len() > self.max_bytes {
            return Err(too_large(mapping, value.len(), self.max_bytes));
        }
        Ok(Some(LoadedRow { value: Bytes::from(value), order }))
    }
}

/// A column of an answer.
pub(super) struct Field {
    pub name: String,
    pub ty: ColumnType,
}

impl Field {
    fn of(column: &Column) -> Self {
        Self { name: column.name.clone(), ty: column.ty.clone() }
    }
}

/// Columns of an own statement: their declared types where they are columns of a table, else plain.
pub(super) fn fields(statement: &CachedStatement<'_>) -> Vec<Field> {
    statement
        .columns()
        .map(|column| Field {
            name: column.name().to_owned(),
            ty: column.decl_type().map_or(ColumnType::Text, value::column_type),
        })
        .collect()
}

/// One JSON object.
pub(super) fn object<'f, 'v>(
    values: impl Iterator<Item = Result<(&'f Field, ValueRef<'v>), rusqlite::Error>>,
) -> Result<String, SourceError> {
    let mut out = String::from("{");
    for value in values {
        let (field, value) = value?;
        if out.len() > 1 {
            out.push(',');
        }
        value::push_string(&mut out, &field.name);
        out.push(':');
        value::push_json(&mut out, &field.ty, value)?;
    }
    out.push('}');
    Ok(out)
}

fn of_id(ty: IdType, id: &str) -> Value {
    match ty.is_integer().then(|| id.parse()) {
        Some(Ok(number)) => Value::Integer(number),
        _ => Value::Text(id.to_owned()),
    }
}

/// `[1,2]`, or `[[1,"a"],[2,"b"]]` for several placeholders. Integers are canonical, so they are JSON as they are.
fn ids_json(keys: &[Box<[Box<str>]>], types: &[IdType]) -> String {
    let mut out = String::from("[");
    for (n, ids) in keys.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        if types.len() != 1 {
            out.push('[');
        }
        for (at, (id, ty)) in ids.iter().zip(types).enumerate() {
            if at > 0 {
                out.push(',');
            }
            match ty.is_integer() {
                true => out.push_str(id),
                false => value::push_string(&mut out, id),
            }
        }
        if types.len() != 1 {
            out.push(']');
        }
    }
    out.push(']');
    out
}
