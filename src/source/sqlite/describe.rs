//! Asks SQLite what a table looks like, for holding a mapping against it at start.
//!
//! Must not know: what the mapping will be used for.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::load::LoadPlan;
use super::{Plan, value};
use crate::mapping::{Bound, Column, Mapping, Table, bind};
use crate::source::backend::{Misfits, misfit};
use crate::source::error::SourceError;
use crate::source::own_load;

/// `name` as a quoted identifier.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// How `mapping` is loaded and written, or everything that is wrong with it.
pub(super) fn plan(
    connection: &mut Connection,
    mapping: &Mapping,
) -> Result<Result<Plan, Misfits>, SourceError> {
    let mut problems = Vec::new();
    let bound = match &mapping.table {
        None => Some(Bound::without_table(mapping.clone())),
        Some(name) => match described(connection, name)? {
            None => {
                problems.push(misfit(mapping, no_such_table(connection, name)?));
                None
            }
            Some((table, has_rowid)) => {
                if mapping.order_by.is_some() && mapping.load.is_none() && !has_rowid {
                    let message = "`order_by` needs a table with a rowid (no view, not WITHOUT ROWID)";
                    problems.push(misfit(mapping, message.into()));
                }
                bind(mapping.clone(), table).map_err(|errors| problems.extend(errors)).ok()
            }
        },
    };
    let load = match &mapping.load {
        Some(own) => match own_load(connection, mapping, own)? {
            Ok(plan) => Some(plan),
            Err(errors) => {
                problems.extend(errors);
                None
            }
        },
        None => bound.as_ref().and_then(|b| Some(LoadPlan::generated(b, b.table.as_ref()?))),
    };
    Ok(match (bound, load) {
        (Some(bound), Some(load)) if problems.is_empty() => {
            Ok(Plan { bound: bound.into(), load: load.into(), recheck: Default::default() })
        }
        _ => Err(problems),
    })
}

/// The table, and whether its rows have a rowid.
fn described(connection: &Connection, name: &str) -> Result<Option<(Table, bool)>, SourceError> {
    let (schema, bare) = name.split_once('.').unwrap_or(("main", name));
    let sql = "select type, wr from pragma_table_list where schema = ?1 and name = ?2";
    let found: Option<(String, bool)> =
        connection.query_row(sql, params![schema, bare], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((kind, without_rowid)) = found else { return Ok(None) };
    let mut table = Table {
        sql_name: format!("{}.{}", ident(schema), ident(bare)),
        name: name.to_owned(),
        columns: Vec::new(),
        primary_key: Vec::new(),
        unique: Vec::new(),
    };
    read_columns(connection, schema, bare, without_rowid, &mut table)?;
    read_indexes(connection, schema, bare, &mut table)?;
    Ok(Some((table, kind == "table" && !without_rowid)))
}

fn read_columns(
    connection: &Connection,
    schema: &str,
    name: &str,
    without_rowid: bool,
    table: &mut Table,
) -> Result<(), SourceError> {
    let sql = "select name, type, \"notnull\", dflt_value is not null, pk, hidden \
               from pragma_table_xinfo(?2, ?1) where hidden <> 1 order by cid";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params![schema, name])?;
    let mut keys: Vec<(i64, u16)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (declared, key): (String, i64) = (row.get(1)?, row.get(4)?);
        if key > 0 {
            keys.push((key, table.columns.len() as u16));
        }
        table.columns.push(Column {
            name: row.get(0)?,
            ty: value::column_type(&declared),
            cast: String::new(),
            not_null: row.get(2)?,
            has_default: row.get(3)?,
            generated: row.get::<_, i64>(5)? >= 2,
            identity_always: false,
            declared: if declared.is_empty() { "untyped".into() } else { declared },
        });
    }
    keys.sort_unstable();
    table.primary_key = keys.into_iter().map(|(_, column)| column).collect();
    // A single key column declared INTEGER is the rowid: SQLite chooses it where it is not given.
    if let ([key], false) = (table.primary_key.as_slice(), without_rowid)
        && let Some(column) = table.columns.get_mut(usize::from(*key))
        && column.declared.eq_ignore_ascii_case("integer")
    {
        (column.not_null, column.has_default) = (true, true);
        table.unique.push(vec![*key]);
    }
    Ok(())
}

fn read_indexes(
    connection: &Connection,
    schema: &str,
    name: &str,
    table: &mut Table,
) -> Result<(), SourceError> {
    let sql = "select name from pragma_index_list(?2, ?1) where \"unique\" and not partial";
    let mut statement = connection.prepare(sql)?;
    let indexes: Vec<String> =
        statement.query_map(params![schema, name], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for index in indexes {
        let mut statement =
            connection.prepare("select name from pragma_index_info(?2, ?1) order by seqno")?;
        // An expression has no name.
        let columns: Vec<Option<String>> =
            statement.query_map(params![schema, index], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let positions: Option<Vec<u16>> =
            columns.iter().map(|column| column.as_deref().and_then(|column| table.column(column))).collect();
        if let Some(mut positions) = positions {
            positions.sort_unstable();
            table.unique.push(positions);
        }
    }
    Ok(())
}

fn no_such_table(connection: &Connection, name: &str) -> Result<String, SourceError> {
    let mut statement =
        connection.prepare("select name from sqlite_schema where type in ('table', 'view') limit 1000")?;
    let tables: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let near = tables
        .iter()
        .map(|table| (strsim::damerau_levenshtein(&table.to_lowercase(), &name.to_lowercase()), table))
        .filter(|(distance, table)| *distance <= 2.max(table.len() / 3))
        .min();
    Ok(match near {
        Some((_, table)) => format!("table \"{name}\" does not exist (did you mean \"{table}\"?)"),
        None => {
            format!("table \"{name}\" does not exist; create it (dsproxy migrate up), or correct `table`")
        }
    })
}

/// Prepares an own `load` statement and checks its parameters and columns.
fn own_load(
    connection: &Connection,
    mapping: &Mapping,
    own: &str,
) -> Result<Result<LoadPlan, Misfits>, SourceError> {
    let refused = |messages: Vec<String>| Ok(Err(messages.into_iter().map(|m| misfit(mapping, m)).collect()));
    let parameters = match own_load::check_load(mapping, own) {
        Ok(parameters) => parameters,
        Err(message) => return refused(vec![message]),
    };
    let statement = match connection.prepare(own) {
        Ok(statement) => statement,
        Err(error) => {
            let error = SourceError::from(error);
            if error.is_retryable() {
                return Err(error);
            }
            return refused(vec![format!("`load` is not understood: {error}")]);
        }
    };
    let mut problems = Vec::new();
    let ids: Vec<&str> = mapping.template.placeholders().map(|(name, _)| name).collect();
    let by_number = parameters == own_load::LoadParameters::Arrays;
    if by_number && statement.parameter_count() != ids.len() {
        problems.push(format!(
            "`load` has {} parameters, the key has {} placeholders; write one array per placeholder, such as \
             `where id in (select value from json_each($1))`, or name them, such as `where id = $id`",
            statement.parameter_count(),
            ids.len()
        ));
    }
    if (1..=statement.parameter_count())
        .any(|at| !known_parameter(statement.parameter_name(at), &ids, by_number))
    {
        problems.push("`load` has parameters other than $1.. or the key's placeholders by $name".into());
    }
    if !statement.readonly() {
        problems.push("`load` must only read".into());
    }
    let names: Vec<&str> = statement.column_names().collect();
    let needed = if by_number { ids.as_slice() } else { &[] };
    let wanted = needed.iter().copied().chain(mapping.column.as_deref()).chain(mapping.order_by.as_deref());
    let wanted = wanted.chain(mapping.listed.iter().map(String::as_str));
    for name in wanted.filter(|name| !names.contains(name)) {
        problems.push(own_load::missing_column(name, &names));
    }
    match problems.is_empty() {
        true => Ok(Ok(LoadPlan::own(parameters, own))),
        false => refused(problems),
    }
}

fn known_parameter(name: Option<&str>, ids: &[&str], by_number: bool) -> bool {
    let Some(name) = name.and_then(|name| name.strip_prefix('$')) else { return false };
    match by_number {
        true => name.parse().is_ok_and(|number: usize| (1..=ids.len()).contains(&number)),
        false => ids.contains(&name),
    }
}
