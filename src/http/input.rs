//! Collects a route's parameters from a request.
//!
//! Must not know: what they are for.

use hyper::http::request::Parts;
use serde_json::{Map, Value as Json};

use super::auth::Claims;
use super::error::ApiError;
use super::query;
use crate::route::{In, Param, ParamValue};

/// The values of a route's parameters, in their order.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// Name and value of each.
    pub values: Vec<(String, ParamValue)>,
}

impl Input {
    /// The value of the parameter of this name.
    pub fn get(&self, name: &str) -> Option<&ParamValue> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The value of parameter number `index`.
    pub fn at(&self, index: usize) -> Option<&ParamValue> {
        self.values.get(index).map(|(_, value)| value)
    }
}

/// What a request gives, besides its head.
pub struct Given<'a> {
    /// Names and raw values of the path's parameters.
    pub path: Vec<(&'a str, &'a str)>,
    /// The body.
    pub body: &'a [u8],
    /// The claims of the token.
    pub claims: &'a Claims,
}

/// Reads and checks every parameter. Whatever else a client gives in the query or the body is refused: an ignored
/// parameter hides a typing mistake.
pub fn collect(params: &[Param], head: &Parts, given: &Given<'_>) -> Result<Input, ApiError> {
    let query = query::pairs(head.uri.query())?;
    let of = |place: In| params.iter().filter(move |param| param.place == place);
    for (at, (name, _)) in query.iter().enumerate() {
        if !of(In::Query).any(|param| param.name == *name) {
            let known: Vec<_> = of(In::Query).map(|param| format!("`{}`", param.name)).collect();
            let hint = match known.as_slice() {
                [] => "this path takes none".to_owned(),
                known => format!("expected {}", known.join(", ")),
            };
            return Err(ApiError::Malformed(format!("unknown parameter {name:?}: {hint}")));
        }
        if query.iter().skip(at + 1).any(|(other, _)| other == name) {
            return Err(ApiError::Malformed(format!("the parameter `{name}` is given twice")));
        }
    }
    let body = match of(In::Body).next() {
        Some(_) => members(given.body, params)?,
        None => Map::new(),
    };
    let mut input = Input::default();
    for param in params {
        let value = read(param, head, given, &query, &body)?;
        input.values.push((param.name.clone(), value));
    }
    Ok(input)
}

fn read(
    param: &Param,
    head: &Parts,
    given: &Given<'_>,
    query: &[(String, String)],
    body: &Map<String, Json>,
) -> Result<ParamValue, ApiError> {
    let text = match param.place {
        In::Path => {
            let raw = given.path.iter().find(|(name, _)| *name == param.name).map(|(_, raw)| *raw);
            raw.map(query::decode_path).transpose()?
        }
        In::Query => query.iter().find(|(name, _)| *name == param.name).map(|(_, text)| text.clone()),
        In::Header => {
            let header = head.headers.get(param.name.replace('_', "-"));
            header.and_then(|value| value.to_str().ok()).map(str::to_owned)
        }
        In::Claim => match given.claims.get(&param.name) {
            Some(Json::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
            None => None,
        },
        In::Body => {
            let value = match body.get(&param.name) {
                Some(json) => param.read_json(json),
                None => param.absent(),
            };
            return value.map_err(ApiError::Malformed);
        }
    };
    let value = match text {
        Some(text) => param.read_text(&text),
        None => param.absent(),
    };
    value.map_err(|message| match param.place {
        In::Claim => ApiError::Unauthorized(format!("the token's claim {message}")),
        _ => ApiError::Malformed(message),
    })
}

/// The members of a body that is a JSON object of known ones.
fn members(body: &[u8], params: &[Param]) -> Result<Map<String, Json>, ApiError> {
    let malformed = |error: String| ApiError::Malformed(format!("the body is wrong: {error}"));
    let all_optional = params.iter().filter(|param| param.place == In::Body).all(|param| !param.required);
    if body.is_empty() && all_optional {
        return Ok(Map::new());
    }
    let json: Json = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    let Json::Object(members) = json else { return Err(malformed("expected a JSON object".to_owned())) };
    let known = |name: &&String| params.iter().any(|p| p.place == In::Body && p.name == **name);
    if let Some(name) = members.keys().find(|name| !known(name)) {
        let names: Vec<_> =
            params.iter().filter(|p| p.place == In::Body).map(|p| format!("`{}`", p.name)).collect();
        return Err(malformed(format!("unknown field {name:?}: expected {}", names.join(", "))));
    }
    Ok(members)
}
