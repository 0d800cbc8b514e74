//! `POST /api/v1/cache/invalidate`: drops entries of mapped keys, by name or by pattern.
//!
//! Must not know: how an entry is dropped.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::error::ApiError;
use super::facade;
use super::routes::{Answer, Call, json_answer};

/// Its path.
pub const PATH: &str = "/api/v1/cache/invalidate";

/// What is to be dropped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// These keys.
    keys: Option<Vec<String>>,
    /// Every key that matches, as with `KEYS`.
    pattern: Option<String>,
}

/// Answers with the number of entries that were dropped, once they are, and nothing older is stored any more.
pub async fn invalidate(call: Call) -> Answer {
    facade::admit(&call)?;
    let request: Request =
        serde_json::from_slice(&call.body).map_err(|error| ApiError::Malformed(error.to_string()))?;
    let Some(reads) = call.state.reads.clone() else {
        return Err(ApiError::NotFound("no mapping is configured".into()));
    };
    // A task of its own: a client that goes away does not end it halfway.
    let work = tokio::spawn(async move {
        match (request.keys, request.pattern) {
            (Some(keys), None) => {
                let keys: Vec<Bytes> = keys.into_iter().map(Bytes::from).collect();
                Ok(reads.invalidate(&keys).await)
            }
            (None, Some(pattern)) if !pattern.is_empty() => {
                Ok(reads.invalidate_pattern(pattern.as_bytes()).await)
            }
            _ => Err(ApiError::Malformed("give either `keys` or a `pattern`".into())),
        }
    });
    let done = work.await.map_err(|error| ApiError::Internal(error.to_string()))??;
    if done.failed > 0 {
        let text = format!("the cluster did not answer for {} keys or nodes; try again", done.failed);
        return Err(ApiError::Unavailable(text));
    }
    Ok(json_answer(hyper::StatusCode::OK, &json!({ "dropped": done.dropped })))
}
