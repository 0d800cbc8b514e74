//! `/write`, `/read` and `/mget`: the values of one mapping by `user_id`, or any key by `key`.
//!
//! Must not know: where a value is kept.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, IF_NONE_MATCH};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Value as Json, json};

use super::backend::Backend;
use super::error::ApiError;
use super::routes::{Answer, Call, answer, text};
use super::{WriteRequest, answer as answers, query};
use crate::config::FacadeAccess;
use crate::route::whole;

/// The mapping of `user_id`s.
pub const USER_DATA: &str = "user_data";

/// Most keys of one `/mget`.
pub const MGET_KEYS: usize = 1000;

/// The body of `POST /write` for any key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyWrite {
    key: String,
    value: String,
    /// Seconds.
    #[serde(default, deserialize_with = "whole_number")]
    ttl: Option<i64>,
}

/// A whole number as JSON has it: 5 and 5.0 are the same.
pub(super) fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let wrong = || D::Error::custom(format!("{number} is not a whole number of 64 bits"));
    whole(&number).map(Some).ok_or_else(wrong)
}

/// The body of `POST /mget`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<String>,
}

/// Who may use the facade.
pub(super) fn admit(call: &Call) -> Result<(), ApiError> {
    match call.state.config.facade {
        FacadeAccess::Open => Ok(()),
        FacadeAccess::Off => Err(ApiError::NotFound("the facade is switched off (http.facade)".to_owned())),
        FacadeAccess::Bearer => {
            let header = call.head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            call.state.site.auth.check(header).map(|_| ())
        }
    }
}

pub(super) fn backend(call: &Call) -> Result<&Backend, ApiError> {
    call.state.site.backend.as_ref().ok_or_else(|| ApiError::NotFound("there is no cluster".to_owned()))
}

/// A JSON object as `T`: serde would take a list of the fields as well, by position.
fn object<T: serde::de::DeserializeOwned>(body: &[u8], what: &str) -> Result<T, ApiError> {
    let malformed = |error: String| ApiError::Malformed(format!("the body is not {what}: {error}"));
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(malformed("expected an object with `user_id` (or `key`) and `value`".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))
}

/// Whether an object has the member `key`, and so is about any key.
fn names_key(body: &[u8]) -> bool {
    serde_json::from_slice::<Json>(body).is_ok_and(|json| json.get("key").is_some())
}

pub async fn write(call: Call) -> Answer {
    admit(&call)?;
    if names_key(&call.body) {
        let KeyWrite { key, value, ttl } = object(&call.body, "a write request")?;
        check("key", &key, false)?;
        check("value", &value, true)?;
        let backend = backend(&call)?;
        match ttl {
            None => backend.set(&key, value.as_bytes()).await?,
            Some(ttl) => match u32::try_from(ttl) {
                Ok(seconds) if seconds > 0 => backend.set_for(&key, value.as_bytes(), seconds).await?,
                _ => {
                    let text = format!("`ttl` is {ttl}: expected seconds, from 1 to {}", u32::MAX);
                    return Err(ApiError::Malformed(text));
                }
            },
        }
        return Ok(text(StatusCode::ACCEPTED, "accepted"));
    }
    let request: WriteRequest = object(&call.body, "a write request")?;
    check("user_id", &request.user_id, false)?;
    check("value", &request.value, true)?;
    (call.state.facade.write)(request).await?;
    Ok(text(StatusCode::ACCEPTED, "accepted"))
}

/// Texts of requests hold no NUL: no database stores it, and a text that depends on where it goes would surprise.
fn check(name: &str, text: &str, may_be_empty: bool) -> Result<(), ApiError> {
    if text.contains('\0') {
        return Err(ApiError::Malformed(format!("`{name}` has a NUL character")));
    }
    match text.is_empty() && !may_be_empty {
        true => Err(ApiError::Malformed(format!("the body is not a write request: `{name}` is empty"))),
        false => Ok(()),
    }
}

/// Whether the query is about a key.
fn asks_for_key(call: &Call) -> bool {
    query::pairs(call.head.uri.query()).is_ok_and(|pairs| pairs.iter().any(|(name, _)| name == "key"))
}

pub async fn read(call: Call) -> Answer {
    admit(&call)?;
    let value = if asks_for_key(&call) {
        let key = query::only_parameter(call.head.uri.query(), "key")?;
        backend(&call)?.get(&key).await?.0
    } else {
        let user_id = query::only_parameter(call.head.uri.query(), "user_id")?;
        (call.state.facade.read)(user_id).await?
    };
    let Some(value) = value else {
        return Err(ApiError::NotFound("there is no value of this user or key".to_owned()));
    };
    let validator = answers::validator(&value);
    let known = call.head.headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| answers::names_validator(known, &validator)) {
        return Ok(answers::not_modified(&validator));
    }
    let mut response = text(StatusCode::OK, value);
    answers::mark(&mut response, &validator);
    Ok(response)
}

pub async fn delete(call: Call) -> Answer {
    admit(&call)?;
    let key = query::only_parameter(call.head.uri.query(), "key")?;
    let deleted = backend(&call)?.delete(&key).await?;
    Ok(answer(StatusCode::OK, "application/json", format!("{}\n", json!({"deleted": deleted}))))
}

pub async fn mget(call: Call) -> Answer {
    admit(&call)?;
    let Keys { keys } = object(&call.body, "a list of `keys`")?;
    if keys.is_empty() || keys.len() > MGET_KEYS {
        return Err(ApiError::Malformed(format!("`keys` has {}: expected 1 to {MGET_KEYS}", keys.len())));
    }
    let values = backend(&call)?.get_all(&keys).await?;
    let shown = |value: Option<Bytes>| value.map(|value| String::from_utf8_lossy(&value).into_owned());
    let values: Vec<Option<String>> = values.into_iter().map(shown).collect();
    Ok(answer(StatusCode::OK, "application/json", format!("{}\n", json!({"values": values}))))
}
