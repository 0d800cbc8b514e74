//! SQL texts of a mapping.
//!
//! Must not know: connections. Values never become part of a text; they are parameters.

use std::fmt::Write;

use crate::mapping::{Bound, Column, Format, IdType, Mapping, Table};
use crate::sql::{Piece, pieces};

/// `name` as a quoted identifier.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `a, b` with each item made by `item`.
fn list<T>(items: impl IntoIterator<Item = T>, item: impl Fn(T) -> String) -> String {
    items.into_iter().map(item).collect::<Vec<_>>().join(", ")
}

fn columns<'t>(table: &'t Table, indexes: &'t [u16]) -> impl Iterator<Item = &'t Column> {
    indexes.iter().map(|i| &table.columns[usize::from(*i)])
}

/// Loads rows by ids: `$n` is the text array of the n-th id column. Answers (position in the arrays from 1, value as
/// text, order value as text). Needs a table.
pub(super) fn load(bound: &Bound, table: &Table) -> String {
    let ids: Vec<&Column> = columns(table, &bound.id_columns).collect();
    let arrays = list(ids.iter().enumerate(), |(i, c)| format!("${}::text[]::{}[]", i + 1, c.cast));
    let names = list(0..ids.len(), |i| format!("k{i}"));
    let on = |key: &str| {
        let equal = ids.iter().enumerate().map(|(i, c)| format!("t.{} = {key}{i}", ident(&c.name)));
        equal.collect::<Vec<_>>().join(" and ")
    };
    let value = row_value(bound, table);
    if !bound.mapping.columns.is_empty() {
        let members =
            list(&bound.mapping.columns, |(name, expression)| format!("{expression} as {}", ident(name)));
        // No name of ours may be meant where an expression names a column that is not there.
        let names = list(0..ids.len(), |i| format!("dsproxy_k{i}"));
        return format!(
            "select k.dsproxy_n, row_to_json(r)::text, null::text \
             from unnest({arrays}) with ordinality as k({names}, dsproxy_n) \
             join {} t on {} cross join lateral (select {members} from (select t.*) own) r",
            table.sql_name,
            on("k.dsproxy_k")
        );
    }
    let (source, order) = match bound.order_column {
        None => (format!("join {} t on {}", table.sql_name, on("k.k")), "null::text".to_owned()),
        Some(column) => {
            let column = &table.columns[usize::from(column)];
            let newest = newest_first(table, column);
            (
                format!(
                    "cross join lateral (select t.* from {} t where {} order by {newest} limit 1) t",
                    table.sql_name,
                    on("k.k")
                ),
                format!("t.{}::text", ident(&column.name)),
            )
        }
    };
    format!("select k.n, {value}, {order} from unnest({arrays}) with ordinality as k({names}, n) {source}")
}

/// Newest first; among equals the one inserted last, as far as a growing primary key tells.
fn newest_first(table: &Table, order: &Column) -> String {
    // `nulls last` would keep an index on (id, order desc) from being used where it is not needed.
    let nulls = if order.not_null { "" } else { " nulls last" };
    let mut sql = format!("t.{} desc{nulls}", ident(&order.name));
    for column in columns(table, &table.primary_key) {
        let _ = write!(sql, ", t.{} desc", ident(&column.name));
    }
    sql
}

/// The id columns, value and order of an own `load` statement.
pub(super) fn custom_load(bound: &Bound, own: &str) -> String {
    let ids = list(bound.mapping.template.placeholders(), |(name, _)| format!("q.{}::text", ident(name)));
    let value = match (&bound.mapping.format, &bound.mapping.column) {
        (Format::Text, Some(column)) => format!("q.{}::text", ident(column)),
        _ => "row_to_json(q)::text".to_owned(),
    };
    let order =
        bound.mapping.order_by.as_ref().map_or("null::text".into(), |c| format!("q.{}::text", ident(c)));
    // The line break ends a comment on the last line of the own SQL.
    format!("select {value}, {order}, {ids} from ({}\n) q", trim(own))
}

/// Name of the list of keys in a `load` with named parameters: unlikely to be a name in own SQL.
const KEYS: &str = "dsproxy_keys";

/// An own `load` statement with named parameters, run once per key inside of one statement. `$n` is the text array of the
/// n-th placeholder; answers (position from 1, value as text, order value as text).
pub(super) fn named_load(bound: &Bound, own: &str) -> String {
    if bound.mapping.format == Format::List {
        return list_load(&bound.mapping, own);
    }
    let value = match (&bound.mapping.format, &bound.mapping.column) {
        (Format::Text, Some(column)) => format!("q.{}::text", ident(column)),
        _ => "row_to_json(q)::text".to_owned(),
    };
    let order =
        bound.mapping.order_by.as_ref().map_or("null::text".into(), |c| format!("q.{}::text", ident(c)));
    format!("select {KEYS}.n, {value}, {order} from {}", per_key(&bound.mapping, own))
}

/// The same for a list: per key one JSON array, of the ids that it lists or of its rows.
fn list_load(mapping: &Mapping, own: &str) -> String {
    let element = match mapping.listed.as_slice() {
        [] => "row_to_json(q)".to_owned(),
        [id] => format!("to_json(q.{})", ident(id)),
        ids => format!("json_build_array({})", list(ids, |id| format!("q.{}", ident(id)))),
    };
    let (keys, own) = keys_and_own(mapping, own);
    format!(
        "select {KEYS}.n, (select '[' || coalesce(string_agg({element}::text, ','), '') || ']' from ({own}\n) q), \
         null::text from {keys}"
    )
}

/// All columns of an own `load` statement with named parameters, for looking at their names.
pub(super) fn named_columns(mapping: &Mapping, own: &str) -> String {
    format!("select q.* from {}", per_key(mapping, own))
}

fn per_key(mapping: &Mapping, own: &str) -> String {
    let (keys, own) = keys_and_own(mapping, own);
    // The line break ends a comment on the last line of the own SQL.
    format!("{keys} cross join lateral ({own}\n) q")
}

/// The list of keys, and the own statement with its columns in the place of the parameters.
fn keys_and_own(mapping: &Mapping, own: &str) -> (String, String) {
    let ids: Vec<(&str, IdType)> = mapping.template.placeholders().collect();
    let own: String = pieces(trim(own))
        .into_iter()
        .map(|piece| match piece {
            Piece::Sql(sql) => sql.to_owned(),
            Piece::Number(number) => format!("${number}"),
            // A name without a placeholder is refused before: `describe.rs`.
            Piece::Name(name) => match ids.iter().position(|(id, _)| *id == name) {
                Some(at) => format!("{KEYS}.k{at}"),
                None => format!("${name}"),
            },
        })
        .collect();
    let keys = match ids.as_slice() {
        [] => format!("(select 1::bigint as n) {KEYS}"),
        ids => {
            let arrays = list(ids.iter().enumerate(), |(i, (_, ty))| {
                format!("${}::text[]::{}[]", i + 1, id_cast(*ty))
            });
            let names = list(0..ids.len(), |i| format!("k{i}"));
            format!("unnest({arrays}) with ordinality as {KEYS}({names}, n)")
        }
    };
    (keys, own)
}

/// The type of a placeholder in SQL. A varchar has no length here: keys are checked before.
fn id_cast(ty: IdType) -> &'static str {
    match ty {
        IdType::SmallInt => "smallint",
        IdType::Int => "integer",
        IdType::BigInt => "bigint",
        IdType::Text | IdType::Varchar(_) => "text",
        IdType::Uuid => "uuid",
    }
}

/// Own SQL without the semicolon that would end a subselect.
pub(super) fn trim(own: &str) -> &str {
    own.trim().trim_end_matches(';').trim_end()
}

/// `unnest($1::text[], ..) as u(c0, ..)` and the casts of its columns to those of `given`.
fn rows(table: &Table, given: &[u16]) -> (String, String) {
    let arrays = list(1..=given.len(), |n| format!("${n}::text[]"));
    let names = list(0..given.len(), |i| format!("c{i}"));
    let casts = list(columns(table, given).enumerate(), |(i, c)| format!("u.c{i}::{}", c.cast));
    (format!("unnest({arrays}) as u({names})"), casts)
}

fn insert(table: &Table, given: &[u16]) -> String {
    let names = list(columns(table, given), |c| ident(&c.name));
    let overriding =
        if columns(table, given).any(|c| c.identity_always) { " overriding system value" } else { "" };
    let (rows, casts) = rows(table, given);
    format!("insert into {} as t ({names}){overriding} select {casts} from {rows}", table.sql_name)
}

/// Inserts rows of ids, `keep` and `set`, or updates `set` where the ids exist.
pub(super) fn upsert(bound: &Bound, table: &Table, keep: &[u16], set: &[u16]) -> String {
    let given: Vec<u16> = bound.id_columns.iter().chain(keep).chain(set).copied().collect();
    let target = list(columns(table, &bound.id_columns), |c| ident(&c.name));
    let action = match set {
        [] => "nothing".to_owned(),
        _ => {
            let assign = list(columns(table, set), |c| format!("{0} = excluded.{0}", ident(&c.name)));
            format!("update set {assign}")
        }
    };
    format!("{} on conflict ({target}) do {action}", insert(table, &given))
}

/// The id columns as texts, then the value as readers see it, of a written row `t`.
pub(super) fn returning(bound: &Bound, table: &Table) -> String {
    let ids = list(columns(table, &bound.id_columns), |c| format!("t.{}::text", ident(&c.name)));
    format!("{ids}, {}", row_value(bound, table))
}

/// These columns, as texts, of the rows with ids in the text arrays `$1`...
pub(super) fn columns_of(bound: &Bound, table: &Table, wanted: &[&Column]) -> String {
    let wanted = list(wanted, |c| format!("t.{}::text", ident(&c.name)));
    let (rows, _) = rows(table, &bound.id_columns);
    let ids = columns(table, &bound.id_columns).enumerate();
    let on: Vec<String> = ids.map(|(i, c)| format!("t.{} = u.c{i}::{}", ident(&c.name), c.cast)).collect();
    format!("select {wanted} from {} t join {rows} on {}", table.sql_name, on.join(" and "))
}

/// Locks the rows with ids in the text arrays `$1`..., sorted: the place in the arrays (from 1), and the newest version that
/// the row, or the entry of its key (in the array that is the last parameter, the mapping's name before it), knows of.
pub(super) fn lock_versions(bound: &Bound, table: &Table, version: u16) -> String {
    let ids: Vec<&Column> = columns(table, &bound.id_columns).collect();
    let arrays = list(1..=ids.len() + 1, |n| match n > ids.len() {
        true => format!("${}::text[]", n + 1),
        false => format!("${n}::text[]"),
    });
    let names = list(0..ids.len(), |i| format!("c{i}"));
    let on: Vec<String> =
        ids.iter().enumerate().map(|(i, c)| format!("t.{} = u.c{i}::{}", ident(&c.name), c.cast)).collect();
    let version = list(columns(table, &[version]), |c| ident(&c.name));
    format!(
        "select u.n, greatest(t.{version}, v.version, 0) from {} t \
         join unnest({arrays}) with ordinality as u({names}, k, n) on {} \
         left join dsproxy_versions v on v.mapping = ${} and v.key = u.k order by {} for update of t",
        table.sql_name,
        on.join(" and "),
        ids.len() + 1,
        list(&ids, |c| format!("t.{}", ident(&c.name)))
    )
}

/// The value of the row `t`.
fn row_value(bound: &Bound, table: &Table) -> String {
    match bound.text_column {
        Some(column) => format!("t.{}::text", ident(&table.columns[usize::from(column)].name)),
        None if bound.version_column.is_some() => {
            let shown = list(bound.shown(table), |c| format!("t.{}", ident(&c.name)));
            format!("(select row_to_json(r) from (select {shown}) r)::text")
        }
        None => "row_to_json(t)::text".to_owned(),
    }
}

/// Inserts rows of ids and `set`.
pub(super) fn append(bound: &Bound, table: &Table, set: &[u16]) -> String {
    let given: Vec<u16> = bound.id_columns.iter().chain(set).copied().collect();
    insert(table, &given)
}

/// Deletes by ids.
pub(super) fn delete(bound: &Bound, table: &Table) -> String {
    let ids: Vec<&Column> = columns(table, &bound.id_columns).collect();
    if let [id] = ids.as_slice() {
        return format!(
            "delete from {} t where t.{} = any($1::text[]::{}[])",
            table.sql_name,
            ident(&id.name),
            id.cast
        );
    }
    let (rows, _) = rows(table, &bound.id_columns);
    let on = ids.iter().enumerate().map(|(i, c)| format!("t.{} = u.c{i}::{}", ident(&c.name), c.cast));
    format!("delete from {} t using {rows} where {}", table.sql_name, on.collect::<Vec<_>>().join(" and "))
}
