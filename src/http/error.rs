//! What can go wrong with a request, each with its status.
//!
//! Must not know: routes.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde_json::json;

/// A request that is not answered as it asks. Each text says what is wrong, and reaches the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The client's fault: the request cannot be understood (400).
    #[error("{0}")]
    Malformed(String),
    /// The client's fault: the value cannot be stored as asked (422).
    #[error("{0}")]
    Unprocessable(String),
    /// The client shows no token that is accepted (401).
    #[error("{0}")]
    Unauthorized(String),
    /// What the client writes contradicts what there is (409).
    #[error("{0}")]
    Conflict(String),
    /// There is no such thing (404).
    #[error("{0}")]
    NotFound(String),
    /// The path exists, the method does not (405). Holds the methods that do, as the Allow header lists them.
    #[error("the methods of this path are {0}")]
    MethodNotAllowed(String),
    /// The client's fault: the body is longer than `http.max_body` bytes (413).
    #[error("the body is longer than the limit of {0} bytes")]
    TooLarge(usize),
    /// The client's fault: the body did not arrive within `http.request_timeout` (408).
    #[error("the body did not arrive within {0:?}")]
    Slow(Duration),
    /// The proxy's queue is full or something behind it is away; the same request can work later (503).
    #[error("{0}")]
    Unavailable(String),
    /// No answer within `http.request_timeout`: the outcome is unknown (504).
    #[error("no answer within {0:?}; whether the request took effect is unknown")]
    Timeout(Duration),
    /// Our fault (500).
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The outcome of a route that this is, as `[route.on]` names it.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Unprocessable(_) | Self::TooLarge(_) | Self::Slow(_) => "invalid",
            Self::Unauthorized(_) => "unauthorized",
            Self::NotFound(_) | Self::MethodNotAllowed(_) => "not_found",
            Self::Conflict(_) => "conflict",
            Self::Unavailable(_) | Self::Timeout(_) | Self::Internal(_) => "error",
        }
    }

    /// The answer: a problem of RFC 9457.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let status = self.status();
        let problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": self.to_string(),
        });
        let mut response = Response::new(Full::from(format!("{problem}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.add_headers(headers);
        response
    }

    /// The headers that say more about it.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        match self {
            Self::Unauthorized(_) => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::MethodNotAllowed(methods) => {
                if let Ok(methods) = HeaderValue::from_str(methods) {
                    headers.insert(ALLOW, methods);
                }
            }
            Self::Unavailable(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
    }
}
