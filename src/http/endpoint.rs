//! Runs one configured route: token, parameters, key or statement, answer.
//!
//! Must not know: connections, how a route is found.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, IF_NONE_MATCH};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::{Map, Value as Json};

use super::HttpState;
use super::answer::{self, Facts, Found};
use super::auth::Claims;
use super::backend::Backend;
use super::deadline::Deadline;
use super::error::ApiError;
use super::input::{Given, Input, collect};
use super::site::Endpoint;
use crate::cluster::Served;
use crate::config::{Action, Bind, Compiled, RouteMethod};
use crate::route::{In, ParamValue, Placeholder, Values, push_json_text};
use crate::source::{Rows, Statement};

/// A request that has found its route.
pub struct Visit<'a> {
    /// The route.
    pub endpoint: &'a Endpoint,
    /// The raw values of the parameters of its path.
    pub path: Vec<String>,
    /// Method, URL and headers.
    pub head: Parts,
    /// The request's id.
    pub id: &'a str,
    /// When it came.
    pub start: Instant,
    /// The timer of its connection.
    pub deadline: &'a Deadline,
}

/// Answers it. Every failure takes the shape that the route gives it.
pub async fn run(
    state: &HttpState,
    visit: Visit<'_>,
    body: Result<Bytes, ApiError>,
) -> Response<Full<Bytes>> {
    let Visit { endpoint, path, head, id, start, deadline } = visit;
    let route = &endpoint.route;
    let mut input = Input::default();
    let source = state.site.backend.as_ref().map_or("none", Backend::source_name);
    let outcome = match prepare(state, route, &path, &head, body) {
        Ok((collected, body)) => {
            input = collected;
            act(state, route, &input, body, deadline).await
        }
        Err(error) => Err(error),
    };
    let facts = Facts { input: &input, start, request_id: id, source };
    let answered = outcome.and_then(|found| {
        let (response, rows) = answer::success(route, &found, &facts)?;
        Ok((response, rows, found))
    });
    match answered {
        Ok((mut response, rows, found)) => {
            count(endpoint, &input, &found, rows);
            let safe = head.method == Method::GET || head.method == Method::HEAD;
            if safe && response.status() == StatusCode::OK {
                let validator = answer::validator(&found.json);
                if text(&head.headers, IF_NONE_MATCH).is_some_and(|h| answer::names_validator(h, &validator))
                {
                    return answer::not_modified(&validator);
                }
                answer::mark(&mut response, &validator);
            }
            response
        }
        Err(error) => {
            if error.status().is_server_error() {
                tracing::warn!(request = id, route = route.name, %error, "request failed");
            }
            answer::failure(route, &error, &facts)
        }
    }
}

/// Counts an answer where the route asks for it.
fn count(endpoint: &Endpoint, input: &Input, found: &Found, rows: usize) {
    let (Some(tally), Some(served)) = (&endpoint.tally, found.served) else { return };
    let value = tally.by().and_then(|name| input.get(name)?.to_text()).unwrap_or_default();
    tally.count(served.is_from_cache(), rows, &value);
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Who asks, and for what. The token comes first: a stranger learns nothing about parameters.
fn prepare(
    state: &HttpState,
    route: &Compiled,
    path: &[String],
    head: &Parts,
    body: Result<Bytes, ApiError>,
) -> Result<(Input, Bytes), ApiError> {
    let claims = match route.bearer {
        true => state.site.auth.check(text(&head.headers, AUTHORIZATION))?,
        false => Claims::new(),
    };
    let body = body?;
    let path = route.path.parameters().zip(path.iter().map(String::as_str)).collect();
    let input = collect(&route.params, head, &Given { path, body: &body, claims: &claims })?;
    Ok((input, body))
}

async fn act(
    state: &HttpState,
    route: &Arc<Compiled>,
    input: &Input,
    body: Bytes,
    deadline: &Deadline,
) -> Result<Found, ApiError> {
    let limit = route.timeout.unwrap_or(state.config.request_timeout);
    let backend = state.site.backend.as_ref();
    let backend = backend.ok_or_else(|| ApiError::Internal("there is no database".to_owned()))?;
    let late = |_| ApiError::Timeout(limit);
    let mut found = if route.method == RouteMethod::Get {
        deadline.within(limit, work(backend, route, input, &body)).await.map_err(late)??
    } else {
        // A task of its own: a client that goes away must not leave a write half done.
        let (backend, route, input) = (backend.clone(), Arc::clone(route), input.clone());
        let writing = tokio::spawn(async move { work(&backend, &route, &input, &body).await });
        let written = deadline.within(limit, writing).await.map_err(late)?;
        written.map_err(|error| ApiError::Internal(error.to_string()))??
    };
    if shows(route, &Placeholder::Token) {
        found.token = state.site.auth.sign(&subject(&found.json), Claims::new());
    }
    Ok(found)
}

/// Whether the usual answer shows this.
fn shows(route: &Compiled, wanted: &Placeholder) -> bool {
    let ok = route.outcomes.iter().find(|outcome| outcome.name == "ok");
    let shape = ok.and_then(|outcome| outcome.shape.as_ref());
    shape.is_some_and(|shape| shape.placeholders().any(|placeholder| placeholder == wanted))
}

/// Whom a token is for: the member `id` of the row.
fn subject(row: &[u8]) -> String {
    let row: Map<String, Json> = serde_json::from_slice(row).unwrap_or_default();
    match row.get("id") {
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

async fn work(backend: &Backend, route: &Compiled, input: &Input, body: &[u8]) -> Result<Found, ApiError> {
    match &route.action {
        Action::Mapping { mapping, key } => {
            let ids: Vec<String> = key
                .iter()
                .filter_map(|at| input.at(*at))
                .map(|id| id.to_text().unwrap_or_default())
                .collect();
            let key = backend.key(mapping, &ids).ok_or_else(|| {
                let shown = ids.join(", ");
                ApiError::Malformed(format!("{shown:?} is no key of `{mapping}`"))
            })?;
            match route.method {
                RouteMethod::Get => read(backend, route, &key).await,
                RouteMethod::Delete => Box::pin(backend.delete(&key)).await.map(|_| Found::default()),
                RouteMethod::Post | RouteMethod::Put | RouteMethod::Patch => {
                    let value = value(route, input, body)?;
                    Box::pin(backend.set(&key, &value)).await?;
                    Ok(Found { json: as_json(value.into()), ..Found::default() })
                }
            }
        }
        // Boxed: what a statement keeps in the meantime would be moved with every hit, too.
        Action::Statement { statement, params } => {
            Box::pin(run_statement(backend, route, input, statement, params)).await
        }
    }
}

async fn run_statement(
    backend: &Backend,
    route: &Compiled,
    input: &Input,
    statement: &Statement,
    params: &[Bind],
) -> Result<Found, ApiError> {
    let values = params.iter().filter_map(|bind| match bind {
        Bind::Value(at) => input.at(*at).map(Cow::Borrowed),
        Bind::Given(at) => input.at(*at).map(|is| Cow::Owned(ParamValue::Boolean(is.is_given()))),
    });
    let rows = backend.statement(statement, &values.collect::<Vec<_>>()).await?;
    if let Some(mapping) = &route.writes {
        for row in &rows.rows {
            backend.written(mapping, &serde_json::from_slice(row).unwrap_or_default()).await;
        }
    }
    let found = rows_found(route, &rows)?;
    invalidate(backend, route, input, &found).await;
    Ok(found)
}

/// What a statement returned, as the route shows it.
fn rows_found(route: &Compiled, rows: &Rows) -> Result<Found, ApiError> {
    let served = (route.method == RouteMethod::Get).then_some(Served::Bypass);
    if lists(route) {
        let json = [b"[", rows.rows.join(&b","[..]).as_slice(), b"]"].concat();
        return Ok(Found { json: json.into(), list: true, served, token: None });
    }
    match rows.rows.first() {
        Some(row) => Ok(Found { json: row.clone(), list: false, served, token: None }),
        None if rows.columns.is_empty() && rows.affected > 0 => Ok(Found::default()),
        None => Err(ApiError::NotFound("there is no such row".to_owned())),
    }
}

/// Drops what the statement has made untrue.
async fn invalidate(backend: &Backend, route: &Compiled, input: &Input, found: &Found) {
    if route.invalidates.is_empty() {
        return;
    }
    let row: Map<String, Json> = serde_json::from_slice(&found.json).unwrap_or_default();
    let values = KeyValues { input, row: &row };
    for invalidation in &route.invalidates {
        match invalidation.pattern {
            true => backend.forget_pattern(&invalidation.text.render(&values, escape_glob)).await,
            false => backend.forget(&invalidation.text.render(&values, |text| text)).await,
        }
    }
}

/// The placeholders of a key: parameters, and members of the row.
struct KeyValues<'a> {
    input: &'a Input,
    row: &'a Map<String, Json>,
}

impl Values for KeyValues<'_> {
    fn push_json(&self, placeholder: &Placeholder, out: &mut Vec<u8>) {
        push_json_text(&self.text(placeholder), out);
    }

    fn text(&self, placeholder: &Placeholder) -> String {
        match placeholder {
            Placeholder::Param(name) => {
                self.input.get(name).and_then(ParamValue::to_text).unwrap_or_default()
            }
            Placeholder::Field(name) => match self.row.get(name) {
                Some(Json::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            },
            _ => String::new(),
        }
    }
}

/// A text that stands for itself in a pattern of keys.
fn escape_glob(text: String) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

async fn read(backend: &Backend, route: &Compiled, key: &str) -> Result<Found, ApiError> {
    let (value, served) = backend.get(key).await?;
    match served.is_from_cache() {
        true => tracing::debug!(key, "Cache HIT"),
        false => tracing::debug!(key, "Cache MISS - fetching from source"),
    }
    let list = lists(route);
    match value {
        Some(value) => Ok(Found { json: as_json(value), list, served: Some(served), token: None }),
        None if list => {
            Ok(Found { json: Bytes::from_static(b"[]"), list, served: Some(served), token: None })
        }
        None => Err(ApiError::NotFound("there is no such row".to_owned())),
    }
}

/// Whether the usual answer shows several rows.
fn lists(route: &Compiled) -> bool {
    let ok = route.outcomes.iter().find(|outcome| outcome.name == "ok");
    ok.and_then(|outcome| outcome.shape.as_ref()).is_some_and(|shape| shape.shows_rows())
}

/// A value as JSON: what is no JSON of its own is a JSON text.
fn as_json(value: Bytes) -> Bytes {
    match value.first() {
        Some(b'{' | b'[') => value,
        _ => {
            let mut json = Vec::with_capacity(value.len() + 2);
            push_json_text(&String::from_utf8_lossy(&value), &mut json);
            json.into()
        }
    }
}

/// What is written: the body's parameters as an object; the one of a `text` mapping as it is; the whole body where the
/// route declares none of it.
fn value(route: &Compiled, input: &Input, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let Action::Mapping { key, .. } = &route.action else { return Ok(Vec::new()) };
    let parts: Vec<_> =
        route.params.iter().enumerate().filter(|(_, param)| param.place == In::Body).collect();
    if parts.is_empty() {
        let object: Map<String, Json> = serde_json::from_slice(body)
            .map_err(|error| ApiError::Malformed(format!("the body is no JSON object: {error}")))?;
        return Ok(Json::Object(object).to_string().into_bytes());
    }
    let given = parts.into_iter().filter(|(at, _)| !key.contains(at));
    let mut value = vec![b'{'];
    for (at, param) in given {
        let Some(part) = input.at(at).filter(|part| ParamValue::is_given(part)) else { continue };
        if value.len() > 1 {
            value.push(b',');
        }
        push_json_text(&param.name, &mut value);
        value.push(b':');
        part.push_json(&mut value);
    }
    value.push(b'}');
    Ok(value)
}
