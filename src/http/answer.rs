//! Makes the answer of a route: the values of its placeholders, its status, its validator.
//!
//! Must not know: how the rows were got.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use serde_json::value::RawValue;
use sha1::{Digest, Sha1};

use super::error::ApiError;
use super::input::Input;
use super::members::Members;
use crate::cluster::Served;
use crate::config::Compiled;
use crate::route::{Placeholder, Values, push_json_text};

/// What a route found.
#[derive(Debug, Default)]
pub struct Found {
    /// The row or rows as JSON: an object, a list, or the text of a value as a JSON text.
    pub json: Bytes,
    /// Whether `json` is a list of rows.
    pub list: bool,
    /// Where it was found; `None` for what was written.
    pub served: Option<Served>,
    /// A token made for the row.
    pub token: Option<String>,
}

/// What every placeholder is made from.
pub struct Facts<'a> {
    /// The route's parameters.
    pub input: &'a Input,
    /// When the request came.
    pub start: Instant,
    /// Its id.
    pub request_id: &'a str,
    /// The name of what stands behind the cache.
    pub source: &'static str,
}

/// The values of the placeholders of one answer.
struct Sheet<'a> {
    facts: &'a Facts<'a>,
    row: Cow<'a, [u8]>,
    members: Members<'a>,
    rows: Vec<&'a RawValue>,
    has_more: bool,
    served: Option<Served>,
    token: Option<&'a str>,
    error: String,
    status: u16,
}

/// The answer for what was found, and how many rows it is about.
pub fn success(
    route: &Compiled,
    found: &Found,
    facts: &Facts<'_>,
) -> Result<(Response<Full<Bytes>>, usize), ApiError> {
    let outcome = route.outcomes.iter().find(|outcome| outcome.name == "ok");
    let status = outcome.and_then(|outcome| outcome.status).unwrap_or(200);
    let Some(shape) = outcome.and_then(|outcome| outcome.shape.as_ref()) else {
        let nothing = Bytes::from_static(b"null");
        return Ok((json(status, if found.json.is_empty() { nothing } else { found.json.clone() }), 1));
    };
    let broken = |error: serde_json::Error| ApiError::Internal(format!("the value is no JSON: {error}"));
    let mut sheet = Sheet::of(facts, status);
    sheet.served = found.served;
    sheet.token = found.token.as_deref();
    sheet.row = Cow::Borrowed(&found.json);
    let fields = shape.placeholders().any(|placeholder| matches!(placeholder, Placeholder::Field(_)));
    let mut rows = usize::from(!found.json.is_empty());
    if found.list {
        sheet.rows = serde_json::from_slice(&found.json).map_err(broken)?;
        if let Some(limit) = limit(facts.input) {
            sheet.has_more = sheet.rows.len() > limit;
            sheet.rows.truncate(limit);
        }
        rows = sheet.rows.len();
    } else if fields && found.json.first() == Some(&b'{') {
        sheet.members = serde_json::from_slice(&found.json).map_err(broken)?;
    }
    Ok((json(status, shape.render(&sheet).into()), rows))
}

/// The answer for a failure.
pub fn failure(route: &Compiled, error: &ApiError, facts: &Facts<'_>) -> Response<Full<Bytes>> {
    let outcome = route.outcomes.iter().find(|outcome| outcome.name == error.outcome());
    let given = outcome.and_then(|outcome| outcome.status);
    let status = given.unwrap_or(error.status().as_u16());
    let mut response = match outcome.and_then(|outcome| outcome.shape.as_ref()) {
        Some(shape) => {
            let mut sheet = Sheet::of(facts, status);
            sheet.error = error.to_string();
            json(status, shape.render(&sheet).into())
        }
        None => {
            let mut response = error.response();
            *response.status_mut() = code(status);
            response
        }
    };
    error.add_headers(response.headers_mut());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A weak validator of what was found: two answers that differ in times and places only are the same to a client.
pub fn validator(json: &[u8]) -> String {
    let digest = Sha1::digest(json);
    let hex = digest.iter().take(8).flat_map(|byte| [byte >> 4, byte & 15]);
    let hex = hex.filter_map(|digit| char::from_digit(u32::from(digit), 16));
    let mut validator = String::with_capacity(20);
    validator.push_str("W/\"");
    validator.extend(hex);
    validator.push('"');
    validator
}

/// Whether an `If-None-Match` names this validator.
pub fn names_validator(header: &str, validator: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    header.trim() == "*" || header.split(',').any(|tag| opaque(tag) == opaque(validator))
}

/// Says that the client has it already.
pub fn not_modified(validator: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    mark(&mut response, validator);
    response
}

/// Adds the validator to an answer.
pub fn mark(response: &mut Response<Full<Bytes>>, validator: &str) {
    if let Ok(value) = HeaderValue::from_str(validator) {
        response.headers_mut().insert(ETAG, value);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn json(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    // 204 and 304 have no body.
    let empty = matches!(status, 204 | 304);
    let mut response = Response::new(Full::new(if empty { Bytes::new() } else { body }));
    *response.status_mut() = code(status);
    let headers = response.headers_mut();
    if !empty {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The page size, where the route has one.
fn limit(input: &Input) -> Option<usize> {
    match input.get("limit")? {
        crate::route::ParamValue::Integer(limit) => usize::try_from(*limit).ok(),
        _ => None,
    }
}

impl<'a> Sheet<'a> {
    fn of(facts: &'a Facts<'a>, status: u16) -> Self {
        Self {
            facts,
            row: Cow::Borrowed(b"null"),
            members: Members::default(),
            rows: Vec::new(),
            has_more: false,
            served: None,
            token: None,
            error: String::new(),
            status,
        }
    }

    fn is_from_cache(&self) -> bool {
        self.served.is_some_and(Served::is_from_cache)
    }

    fn source(&self) -> &'static str {
        if self.is_from_cache() { "redis" } else { self.facts.source }
    }

    fn milliseconds(&self) -> u128 {
        self.facts.start.elapsed().as_millis()
    }

    fn push_metadata(&self, out: &mut Vec<u8>) {
        let micros = self.facts.start.elapsed().as_micros();
        // Writing to memory does not fail.
        let _ = write!(out, "{{\"duration_ms\":{}.{:03},\"request_id\":", micros / 1000, micros % 1000);
        push_json_text(self.facts.request_id, out);
        out.extend_from_slice(b",\"source\":");
        push_json_text(self.source(), out);
        out.extend_from_slice(b",\"timestamp\":");
        push_json_text(&timestamp(SystemTime::now()), out);
        out.push(b'}');
    }
}

impl Values for Sheet<'_> {
    fn push_json(&self, placeholder: &Placeholder, out: &mut Vec<u8>) {
        match placeholder {
            Placeholder::Row if self.row.is_empty() => out.extend_from_slice(b"null"),
            Placeholder::Row => out.extend_from_slice(&self.row),
            Placeholder::Field(name) => {
                out.extend_from_slice(self.members.get(name).unwrap_or("null").as_bytes());
            }
            Placeholder::Rows => {
                out.push(b'[');
                for (at, row) in self.rows.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(row.get().as_bytes());
                }
                out.push(b']');
            }
            Placeholder::FromCache => out.extend_from_slice(boolean(self.is_from_cache())),
            Placeholder::HasMore => out.extend_from_slice(boolean(self.has_more)),
            Placeholder::DurationMs => out.extend_from_slice(self.milliseconds().to_string().as_bytes()),
            Placeholder::Status => out.extend_from_slice(self.status.to_string().as_bytes()),
            Placeholder::Metadata => self.push_metadata(out),
            Placeholder::Param(name) => match self.facts.input.get(name) {
                Some(value) => value.push_json(out),
                None => out.extend_from_slice(b"null"),
            },
            Placeholder::Token => match self.token {
                Some(token) => push_json_text(token, out),
                None => out.extend_from_slice(b"null"),
            },
            Placeholder::Source | Placeholder::RequestId | Placeholder::Now | Placeholder::Error => {
                push_json_text(&self.text(placeholder), out);
            }
        }
    }

    fn text(&self, placeholder: &Placeholder) -> String {
        match placeholder {
            Placeholder::Source => self.source().to_owned(),
            Placeholder::RequestId => self.facts.request_id.to_owned(),
            Placeholder::Now => timestamp(SystemTime::now()),
            Placeholder::Error => self.error.clone(),
            Placeholder::Token => self.token.unwrap_or_default().to_owned(),
            Placeholder::Param(name) => {
                self.facts.input.get(name).and_then(crate::route::ParamValue::to_text).unwrap_or_default()
            }
            other => {
                let mut json = Vec::new();
                self.push_json(other, &mut json);
                bare(&json)
            }
        }
    }
}

fn boolean(value: bool) -> &'static [u8] {
    if value { b"true" } else { b"false" }
}

/// A JSON value as characters: a text without its quotes.
pub fn bare(json: &[u8]) -> String {
    match serde_json::from_slice::<String>(json) {
        Ok(text) => text,
        Err(_) => String::from_utf8_lossy(json).into_owned(),
    }
}

/// A time as RFC 3339 in UTC, to the second.
pub fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date of the Gregorian calendar, by eras of 400 years that begin in March
    // (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_705_314_600, "2024-01-15T10:30:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn validators_are_compared_weakly() {
        let tag = validator(b"{}");
        let strong = tag.trim_start_matches("W/").to_owned();
        assert!(names_validator(&format!("\"x\", {tag}"), &tag) && names_validator(&strong, &tag));
        assert!(names_validator("*", &tag) && !names_validator("\"x\"", &tag));
        assert_ne!(tag, validator(b"{ }"));
    }
}
