//! Runs one statement of a route in Postgres.
//!
//! Must not know: who sent the parameters.
//!
//! Parameters go as text in the types that Postgres infers when it prepares the statement, so each type is read by
//! Postgres itself and nothing becomes part of the SQL. Rows come back as `row_to_json` writes them. Each statement is a
//! transaction of its own, begun and committed by the server.

use std::borrow::Cow;
use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use deadpool_postgres::Object;
use futures_core::Stream as _;
use serde_json::value::RawValue;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};

use super::pool::Postgres;
use crate::source::error::SourceError;
use crate::source::statement::{Param, Rows, Statement, answer_too_large, same_name_twice};

/// Statements remembered per connection; beyond it (statements come from the configuration) they are prepared each time.
const REMEMBERED_STATEMENTS: usize = 256;

pub(super) async fn run(
    postgres: &Postgres,
    statement: &Statement,
    params: &[Param<'_>],
) -> Result<Rows, SourceError> {
    let client = postgres.for_statement().await?;
    let most = postgres.max_value_bytes();
    postgres.bounded(client, async |client| execute(client, statement.sql(), params, most).await).await
}

/// Prepares it, on one connection, without running it.
pub(super) async fn describe(postgres: &Postgres, statement: &Statement) -> Result<Vec<String>, SourceError> {
    let client = postgres.for_statement().await?;
    let look = async |client: &mut Object| {
        let bare = prepare(client, statement.sql()).await?;
        let columns = columns_of(&bare)?;
        if !columns.is_empty() {
            prepare(client, &as_json(statement.sql())).await?;
        }
        Ok(columns)
    };
    postgres.bounded(client, look).await
}

fn columns_of(bare: &tokio_postgres::Statement) -> Result<Vec<String>, SourceError> {
    let columns: Vec<String> = bare.columns().iter().map(|column| column.name().to_owned()).collect();
    same_name_twice(&columns)?;
    Ok(columns)
}

/// The statement whose rows are JSON. The line break ends a comment on its last line.
fn as_json(sql: &str) -> String {
    format!("with q as ({sql}\n) select row_to_json(q)::text from q")
}

async fn execute(
    client: &mut Object,
    sql: &str,
    params: &[Param<'_>],
    most: usize,
) -> Result<Rows, SourceError> {
    let bare = prepare(client, sql).await?;
    let columns = columns_of(&bare)?;
    // Texts first: the types say what a JSON value means.
    let texts = params
        .iter()
        .zip(bare.params())
        .map(|(param, ty)| text(param, ty).map(TextParam))
        .collect::<Result<Vec<_>, _>>()?;
    if texts.len() != bare.params().len() {
        let message = format!("the statement has {} parameters", bare.params().len());
        return Err(SourceError::schema("08P01", message));
    }
    let params: Vec<&(dyn ToSql + Sync)> = texts.iter().map(|text| text as &(dyn ToSql + Sync)).collect();
    if columns.is_empty() {
        let affected = client.execute(&bare, &params).await?;
        return Ok(Rows { affected, ..Rows::default() });
    }
    let wrapped = prepare(client, &as_json(sql)).await?;
    let mut stream = pin!(client.query_raw(&wrapped, params).await?);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        let row = row?;
        let json: &str = row.try_get(0)?;
        bytes += json.len();
        if bytes > most {
            return Err(answer_too_large(most));
        }
        rows.push(Bytes::copy_from_slice(json.as_bytes()));
    }
    let affected = rows.len() as u64;
    Ok(Rows { columns, rows, affected })
}

async fn prepare(client: &Object, sql: &str) -> Result<tokio_postgres::Statement, SourceError> {
    Ok(match client.statement_cache.size() < REMEMBERED_STATEMENTS {
        true => client.prepare_cached(sql).await?,
        false => client.prepare(sql).await?,
    })
}

/// A parameter in Postgres' text form.
#[derive(Debug)]
struct TextParam<'p>(Option<Cow<'p, str>>);

impl ToSql for TextParam<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Some(text) = &self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

fn text<'p>(param: &'p Param<'_>, ty: &Type) -> Result<Option<Cow<'p, str>>, SourceError> {
    let text = match param {
        Param::Null => return Ok(None),
        Param::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
        Param::Int(value) => Cow::Owned(value.to_string()),
        Param::Text(text) => Cow::Borrowed(*text),
        Param::Json(json) => match of_json(json, ty)? {
            Some(text) => text,
            None => return Ok(None),
        },
    };
    match text.contains('\0') {
        true => Err(SourceError::bad_data("22021", "a parameter contains a NUL character")),
        false => Ok(Some(text)),
    }
}

fn of_json<'p>(json: &'p RawValue, ty: &Type) -> Result<Option<Cow<'p, str>>, SourceError> {
    let raw = json.get();
    if raw == "null" {
        return Ok(None);
    }
    let base = match ty.kind() {
        Kind::Domain(base) => base,
        _ => ty,
    };
    Ok(Some(match base.kind() {
        _ if *base == Type::JSON || *base == Type::JSONB => Cow::Borrowed(raw),
        Kind::Array(of) if raw.starts_with('[') => Cow::Owned(array(json, of)?),
        _ if raw.starts_with('"') => Cow::Owned(serde_json::from_str(raw).map_err(not_text)?),
        _ => Cow::Borrowed(raw),
    }))
}

fn not_text(_: serde_json::Error) -> SourceError {
    SourceError::bad_data("22P05", "a parameter is no valid text (a lone surrogate?)")
}

/// `{"a","b",NULL}`, every element quoted, so its text needs no second look.
fn array(json: &RawValue, of: &Type) -> Result<String, SourceError> {
    let elements: Vec<&RawValue> = serde_json::from_str(json.get()).map_err(not_text)?;
    let is_json = *of == Type::JSON || *of == Type::JSONB;
    let mut out = String::from("{");
    for (i, element) in elements.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        if element.get().starts_with('[') && !is_json {
            out.push_str(&array(element, of)?);
            continue;
        }
        let Some(text) = of_json(element, of)? else {
            out.push_str("NULL");
            continue;
        };
        out.push('"');
        for c in text.chars() {
            if matches!(c, '"' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out.push('"');
    }
    out.push('}');
    Ok(out)
}
