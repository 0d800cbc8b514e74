//! `GET /api/v1/explain?cmd=GET%20user:1`: what becomes of a command, as `PROXY EXPLAIN` says it.
//!
//! Must not know: how it is found out.

use hyper::StatusCode;
use redis_protocol::resp3::types::BytesFrame;
use serde_json::{Map, Value as Json, json};

use super::error::ApiError;
use super::routes::{Answer, Call, json_answer};
use super::{facade, query};
use crate::command;
use crate::resp::{Args, RequestLimits, RequestScanner};

/// Its path.
pub const PATH: &str = "/api/v1/explain";

/// Answers with one member per thing that is known; those who may read any key may ask.
pub async fn explain(call: Call) -> Answer {
    facade::admit(&call)?;
    let line = query::only_parameter(call.head.uri.query(), "cmd")?;
    let words = words(&line)?;
    if call.state.reads.is_none() {
        return Err(ApiError::NotFound("no mapping is configured".into()));
    }
    let mut args: Vec<&[u8]> = vec![b"PROXY", b"EXPLAIN"];
    args.extend(words.iter().map(Vec::as_slice));
    match facade::backend(&call)?.call(&args).await?.0 {
        // What is wrong with the command was told before: the cluster does not answer.
        BytesFrame::SimpleError { data, .. } => Err(ApiError::Unavailable(data.to_string())),
        reply => Ok(json_answer(StatusCode::OK, &shown(&reply))),
    }
}

/// The words of a command line, with quotes as in redis-cli; of a command that names a key.
fn words(line: &str) -> Result<Vec<Vec<u8>>, ApiError> {
    let wrong = |text: String| ApiError::Malformed(format!("`cmd`: {text}"));
    let limits = RequestLimits::default();
    let inline = RequestScanner::unpack_inline(line.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    let inline = inline.ok_or_else(|| wrong("expected a command, such as GET user:1".to_owned()))?;
    let mut scanner = RequestScanner::default();
    scanner.scan(&inline.0, &limits).map_err(|error| wrong(error.to_string()))?;
    let args = Args::new(&inline.0, scanner.spans());
    let command = command::resolve(&args)
        .map_err(|error| wrong(String::from_utf8_lossy(&error.message(&args)).into_owned()))?;
    let mut keys = Vec::new();
    if command.keys(&args, &mut keys).is_err() || keys.is_empty() {
        return Err(wrong(format!("'{}' names no key: there is nothing to explain", command.name)));
    }
    Ok(args.iter().map(<[u8]>::to_vec).collect())
}

/// The pairs of the reply; the columns, of which there may be several, in an object of their own.
fn shown(reply: &BytesFrame) -> Json {
    let (mut members, mut columns) = (Map::new(), Map::new());
    let texts: Vec<String> = match reply {
        BytesFrame::Array { data, .. } => data.iter().map(text).collect(),
        _ => Vec::new(),
    };
    for pair in texts.chunks_exact(2) {
        let [name, value] = pair else { continue };
        if name == "column" {
            let (column, value) = value.split_once(" = ").unwrap_or((value, ""));
            columns.insert(column.to_owned(), json!(value));
            continue;
        }
        let counts = name.ends_with("_ms") || matches!(name.as_str(), "slot" | "other_keys");
        let number = value.parse::<i64>().ok().filter(|_| counts);
        members.insert(name.clone(), number.map_or_else(|| json!(value), |number| json!(number)));
    }
    if !columns.is_empty() {
        members.insert("columns".to_owned(), Json::Object(columns));
    }
    Json::Object(members)
}

fn text(frame: &BytesFrame) -> String {
    match frame {
        BytesFrame::BlobString { data, .. } | BytesFrame::SimpleString { data, .. } => {
            String::from_utf8_lossy(data).into_owned()
        }
        _ => String::new(),
    }
}
