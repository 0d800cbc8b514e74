//! Asks Postgres what a table looks like, for holding a mapping against it at start.
//!
//! Must not know: what the mapping will be used for.

use deadpool_postgres::Object;
use tokio_postgres::Statement;
use tokio_postgres::types::Kind;

use super::load::LoadPlan;
use super::pool::Postgres;
use super::{Plan, params, sql};
use crate::mapping::{BindError, Bound, Column, ColumnType, Mapping, Table, WriteMode, bind};
use crate::source::backend::{Misfits, misfit};
use crate::source::error::SourceError;
use crate::source::own_load;

/// How `mapping` is loaded and written, or everything that is wrong with it.
pub(super) async fn plan(
    postgres: &Postgres,
    mapping: &Mapping,
) -> Result<Result<Plan, Misfits>, SourceError> {
    let mut problems = Vec::new();
    let bound = match &mapping.table {
        None => Some(Bound::without_table(mapping.clone())),
        Some(name) => match described(postgres, name).await? {
            None => {
                problems.push(misfit(mapping, no_such_table(postgres, name).await?));
                None
            }
            Some(table) => {
                problems.extend(missing_privileges(postgres, mapping, &table).await?);
                bind(mapping.clone(), table).map_err(|errors| problems.extend(errors)).ok()
            }
        },
    };
    let load = match &mapping.load {
        Some(own) => match own_load(postgres, mapping, bound.as_ref(), own).await? {
            Ok(plan) => Some(plan),
            Err(errors) => {
                problems.extend(errors);
                None
            }
        },
        None => bound.as_ref().and_then(|b| Some(LoadPlan::ByPosition(sql::load(b, b.table.as_ref()?)))),
    };
    if let (Some(LoadPlan::ByPosition(sql)), false) = (&load, mapping.columns.is_empty()) {
        match prepare(postgres, sql).await {
            Ok(_) => {}
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => problems.push(misfit(mapping, format!("`columns` is not understood: {error}"))),
        }
    }
    Ok(match (bound, load) {
        (Some(bound), Some(load)) if problems.is_empty() => {
            Ok(Plan { bound: bound.into(), load, recheck: Default::default() })
        }
        _ => Err(problems),
    })
}

/// `schema.table` or `table`, each part quoted; names are taken as written, without folding to lower case.
fn quoted(name: &str) -> String {
    name.splitn(2, '.').map(sql::ident).collect::<Vec<_>>().join(".")
}

async fn described(postgres: &Postgres, name: &str) -> Result<Option<Table>, SourceError> {
    let client = postgres.reader().await?;
    let sql_name = quoted(name);
    postgres
        .bounded(client, async |client| {
            let row = client.query_one("select to_regclass($1)::oid", &[&sql_name]).await?;
            let Some(oid) = row.try_get::<_, Option<u32>>(0)? else { return Ok(None) };
            let mut table = Table {
                sql_name: sql_name.clone(),
                name: name.to_owned(),
                columns: Vec::new(),
                primary_key: Vec::new(),
                unique: Vec::new(),
            };
            let numbers = read_columns(client, oid, &mut table).await?;
            read_indexes(client, oid, &numbers, &mut table).await?;
            Ok(Some(table))
        })
        .await
}

/// Fills in the columns; answers their attribute numbers.
async fn read_columns(client: &Object, oid: u32, table: &mut Table) -> Result<Vec<i16>, SourceError> {
    const SQL: &str = "select a.attname::text, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1), \
         a.attnotnull or t.typnotnull, a.atthasdef or a.attidentity <> '' or t.typdefault is not null, \
         a.attgenerated <> '', a.attidentity = 'a', a.atttypid, a.atttypmod, a.attnum \
         from pg_attribute a join pg_type t on t.oid = a.atttypid \
         where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum";
    let mut numbers = Vec::new();
    for row in client.query(SQL, &[&oid]).await? {
        let ty = resolve(client, row.try_get(7)?, row.try_get(8)?).await?;
        let generated: bool = row.try_get(5)?;
        table.columns.push(Column {
            name: row.try_get(0)?,
            ty,
            declared: row.try_get(1)?,
            cast: row.try_get(2)?,
            not_null: row.try_get(3)?,
            has_default: row.try_get::<_, bool>(4)? && !generated,
            generated,
            identity_always: row.try_get(6)?,
        });
        numbers.push(row.try_get(9)?);
    }
    Ok(numbers)
}

async fn read_indexes(
    client: &Object,
    oid: u32,
    numbers: &[i16],
    table: &mut Table,
) -> Result<(), SourceError> {
    const SQL: &str = "select i.indisprimary, array(select unnest((i.indkey::int2[])[0:i.indnkeyatts - 1])) \
         from pg_index i where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indimmediate \
         and i.indpred is null and i.indexprs is null";
    for row in client.query(SQL, &[&oid]).await? {
        let keys: Vec<i16> = row.try_get(1)?;
        let position = |key: &i16| numbers.iter().position(|n| n == key).map(|at| at as u16);
        let Some(mut columns) = keys.iter().map(position).collect::<Option<Vec<u16>>>() else { continue };
        if row.try_get(0)? {
            table.primary_key.clone_from(&columns);
        }
        columns.sort_unstable();
        table.unique.push(columns);
    }
    Ok(())
}

/// The type behind domains; arrays with the type of their elements.
async fn resolve(client: &Object, oid: u32, typmod: i32) -> Result<ColumnType, SourceError> {
    const SQL: &str = "select typname::text, typtype::text, typbasetype, typtypmod, typcategory::text, typelem, \
         array(select enumlabel::text from pg_enum where enumtypid = $1 order by enumsortorder) \
         from pg_type where oid = $1";
    let (mut oid, mut typmod, mut arrays) = (oid, typmod, 0);
    let found = loop {
        let row = client.query_one(SQL, &[&oid]).await?;
        let (kind, category): (String, String) = (row.try_get(1)?, row.try_get(4)?);
        if kind == "d" {
            (oid, typmod) = (row.try_get(2)?, row.try_get(3)?);
        } else if category == "A" {
            // The length of varchar(20)[] is that of its elements: typmod stays.
            oid = row.try_get(5)?;
            arrays += 1;
        } else if kind == "e" {
            break ColumnType::Enum(row.try_get(6)?);
        } else {
            break base_type(row.try_get(0)?, typmod);
        }
    };
    Ok((0..arrays).fold(found, |of, _| ColumnType::Array(Box::new(of))))
}

fn base_type(name: &str, typmod: i32) -> ColumnType {
    match name {
        "int2" => ColumnType::SmallInt,
        "int4" => ColumnType::Int,
        "int8" => ColumnType::BigInt,
        "numeric" => ColumnType::Numeric(numeric_limit(typmod)),
        "float4" => ColumnType::Real,
        "float8" => ColumnType::Double,
        "bool" => ColumnType::Bool,
        "text" => ColumnType::Text,
        // The modifier counts a four byte header.
        "varchar" | "bpchar" => match u32::try_from(typmod - 4) {
            Ok(length) => ColumnType::Varchar(length),
            Err(_) => ColumnType::Text,
        },
        "uuid" => ColumnType::Uuid,
        "bytea" => ColumnType::Bytea,
        "date" => ColumnType::Date,
        "timestamp" => ColumnType::Timestamp,
        "timestamptz" => ColumnType::Timestamptz,
        "json" => ColumnType::Json,
        "jsonb" => ColumnType::Jsonb,
        _ => ColumnType::Other,
    }
}

/// Precision and scale as `numerictypmodin` packs them. A negative scale, or one above the precision, sets limits that
/// are left to the database.
fn numeric_limit(typmod: i32) -> Option<(u16, u16)> {
    let packed = u32::try_from(typmod - 4).ok()?;
    let (precision, scale) = ((packed >> 16) as u16, (packed & 0x7FF) as u16);
    (scale <= precision).then_some((precision, scale))
}

async fn no_such_table(postgres: &Postgres, name: &str) -> Result<String, SourceError> {
    let client = postgres.reader().await?;
    let tables = postgres
        .bounded(client, async |client| {
            let sql = "select case when pg_table_is_visible(oid) then relname::text \
                 else relnamespace::regnamespace::text || '.' || relname end from pg_class \
                 where relkind in ('r', 'p', 'v', 'm', 'f') and relnamespace::regnamespace::text !~ '^(pg_|information_schema)' \
                 limit 1000";
            let rows = client.query(sql, &[]).await?;
            Ok(rows.iter().filter_map(|row| row.try_get::<_, String>(0).ok()).collect::<Vec<_>>())
        })
        .await?;
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

async fn missing_privileges(
    postgres: &Postgres,
    mapping: &Mapping,
    table: &Table,
) -> Result<Option<BindError>, SourceError> {
    let mut wanted = Vec::new();
    if mapping.load.is_none() {
        wanted.push("select");
    }
    if mapping.write != WriteMode::None {
        wanted.extend(["insert", "update", "delete"]);
    }
    let client = postgres.reader().await?;
    let missing: Vec<String> = postgres
        .bounded(client, async |client| {
            let sql = "select array(select p from unnest($2::text[]) p where not has_table_privilege($1, p))";
            Ok(client.query_one(sql, &[&table.sql_name, &wanted]).await?.try_get(0)?)
        })
        .await?;
    let list = missing.join(", ");
    Ok((!missing.is_empty()).then(|| {
        let message = format!(
            "the database user may not {list} on table \"{0}\"; grant it (`grant {list} on {0} to ...`)",
            table.name
        );
        misfit(mapping, message)
    }))
}

/// Prepares an own `load` statement and checks its parameters and columns.
async fn own_load(
    postgres: &Postgres,
    mapping: &Mapping,
    bound: Option<&Bound>,
    own: &str,
) -> Result<Result<LoadPlan, Misfits>, SourceError> {
    match own_load::check_load(mapping, own) {
        Err(message) => Ok(Err(vec![misfit(mapping, message)])),
        Ok(own_load::LoadParameters::Arrays) => load_by_ids(postgres, mapping, bound, own).await,
        Ok(own_load::LoadParameters::Names) => load_by_name(postgres, mapping, bound, own).await,
    }
}

async fn load_by_name(
    postgres: &Postgres,
    mapping: &Mapping,
    bound: Option<&Bound>,
    own: &str,
) -> Result<Result<LoadPlan, Misfits>, SourceError> {
    let columns = match prepare(postgres, &sql::named_columns(mapping, own)).await {
        Ok(statement) => statement,
        Err(error) if error.is_retryable() => return Err(error),
        Err(error) => return Ok(Err(vec![misfit(mapping, format!("`load` is not understood: {error}"))])),
    };
    let names: Vec<&str> = columns.columns().iter().map(|c| c.name()).collect();
    let listed = mapping.listed.iter().map(String::as_str);
    let wanted = mapping.column.as_deref().into_iter().chain(mapping.order_by.as_deref()).chain(listed);
    let missing: Misfits = wanted
        .filter(|name| !names.contains(name))
        .map(|name| misfit(mapping, own_load::missing_column(name, &names)))
        .collect();
    if !missing.is_empty() {
        return Ok(Err(missing));
    }
    let fallback = Bound::without_table(mapping.clone());
    Ok(Ok(LoadPlan::ByPosition(sql::named_load(bound.unwrap_or(&fallback), own))))
}

async fn prepare(postgres: &Postgres, sql: &str) -> Result<Statement, SourceError> {
    let client = postgres.reader().await?;
    postgres.bounded(client, async |client| Ok(client.prepare(sql).await?)).await
}

/// A `load` with one array of ids per placeholder.
async fn load_by_ids(
    postgres: &Postgres,
    mapping: &Mapping,
    bound: Option<&Bound>,
    own: &str,
) -> Result<Result<LoadPlan, Misfits>, SourceError> {
    let statement = match prepare(postgres, sql::trim(own)).await {
        Ok(statement) => statement,
        Err(error) if error.is_retryable() => return Err(error),
        Err(error) => return Ok(Err(vec![misfit(mapping, format!("`load` is not understood: {error}"))])),
    };
    let ids: Vec<&str> = mapping.template.placeholders().map(|(name, _)| name).collect();
    let mut problems = Vec::new();
    if statement.params().len() != ids.len() {
        let found = statement.params().len();
        problems.push(format!(
            "`load` has {found} parameters, the key has {} placeholders; write one array per placeholder, such as \
             `where id = any($1)`, or name them, such as `where id = $id`",
            ids.len()
        ));
    }
    let mut elements = Vec::new();
    for (at, ty) in statement.params().iter().enumerate() {
        match params::element_type(ty) {
            Some(element) => elements.push(element),
            None => {
                let hint = if matches!(ty.kind(), Kind::Array(_)) { "an array of ids" } else { "no array" };
                problems.push(format!(
                    "parameter ${0} of `load` is {hint} of type {ty}; it must be an array of integers, text or uuid, \
                     such as ${0}::bigint[]",
                    at + 1
                ));
            }
        }
    }
    let names: Vec<&str> = statement.columns().iter().map(|c| c.name()).collect();
    let wanted = ids.iter().copied().chain(mapping.column.as_deref()).chain(mapping.order_by.as_deref());
    for name in wanted.filter(|name| !names.contains(name)) {
        problems.push(own_load::missing_column(name, &names));
    }
    if !problems.is_empty() {
        return Ok(Err(problems.into_iter().map(|message| misfit(mapping, message)).collect()));
    }
    let fallback = Bound::without_table(mapping.clone());
    let sql = sql::custom_load(bound.unwrap_or(&fallback), own);
    match prepare(postgres, &sql).await {
        Ok(_) => Ok(Ok(LoadPlan::ByIds { sql, elements })),
        Err(error) if error.is_retryable() => Err(error),
        Err(error) => Ok(Err(vec![misfit(
            mapping,
            format!("`load` must be one query that works as a subselect, without a semicolon: {error}"),
        )])),
    }
}
