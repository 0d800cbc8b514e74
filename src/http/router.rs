//! Brings a request to its route: method and path, body within the limits, a time for it all, and the metrics of it.
//!
//! Must not know: what a route does.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::header::{ACCEPT_ENCODING, HeaderValue};
use hyper::{Method, Request, Response};
use tokio::time::timeout;

use super::deadline::Deadline;
use super::endpoint::{self, Visit};
use super::error::ApiError;
use super::routes::{Answer, Call, ROUTES, Route};
use super::site::{Endpoint, Found};
use super::{HttpState, compress, cors};

/// Bytes of a body read beyond the limit so that the answer reaches its client, and the time that this may take.
const DISCARDED_BYTES: usize = 16 << 20;
const DISCARD_TIME: Duration = Duration::from_millis(500);

/// The header of a request's id, in requests and answers.
const REQUEST_ID: &str = "x-request-id";

/// The `route` label of requests that match none.
const UNMATCHED: &str = "unmatched";

/// The `route` label of requests that ask what may be asked (CORS).
const PREFLIGHT: &str = "preflight";

/// Answers one request. Every failure becomes an answer here, or in `endpoint` for the routes of the configuration.
pub async fn respond<B>(
    state: Arc<HttpState>,
    request: Request<B>,
    deadline: &Deadline,
) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let start = Instant::now();
    let id = request_id(&state, &request);
    let headers = request.headers();
    let origin = cors::allowed(&state.config.cors_origins, headers);
    let gzip = compress::accepts(headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()));
    let (label, mut response) =
        match (origin.is_some() && cors::is_preflight(request.method(), headers), request) {
            (true, request) => (Label::Fixed(PREFLIGHT), preflight(&state, request.uri().path())),
            (false, request) => answered(&state, request, &id, (start, deadline)).await,
        };
    if let Some(origin) = origin {
        cors::allow(response.headers_mut(), origin);
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let response = compress::compressed(response, state.config.compress_min, gzip);
    label.count(&state, response.status().as_u16(), start.elapsed());
    response
}

/// The `route` label of a request, with its counters where they are at hand.
enum Label {
    Site(Arc<Endpoint>),
    Own(&'static Route),
    Fixed(&'static str),
    Path(String),
}

impl Label {
    fn text(&self) -> &str {
        match self {
            Self::Site(endpoint) => endpoint.route.path.source(),
            Self::Own(route) => route.path,
            Self::Fixed(text) => text,
            Self::Path(text) => text,
        }
    }

    fn count(&self, state: &HttpState, status: u16, elapsed: Duration) {
        match self {
            Self::Site(endpoint) => endpoint.counter.observe(status, elapsed),
            _ => match state.site.counters.get(self.text()) {
                Some(counter) => counter.observe(status, elapsed),
                None => state.metrics.http.route(self.text()).observe(status, elapsed),
            },
        }
    }
}

/// The answer, and the label of its route.
async fn answered<B>(
    state: &Arc<HttpState>,
    request: Request<B>,
    id: &str,
    (start, deadline): (Instant, &Deadline),
) -> (Label, Response<Full<Bytes>>)
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let site = state.site.find(request.method(), request.uri().path());
    let (label, answer) = match site {
        Found::Route(endpoint, path) => {
            let (head, body) = request.into_parts();
            let body = match head.method {
                Method::GET | Method::HEAD => Ok(Bytes::new()),
                _ => Box::pin(whole_body(state, body)).await,
            };
            let visit = Visit { endpoint: &endpoint, path, head, id, start, deadline };
            let response = endpoint::run(state, visit, body).await;
            return (Label::Site(endpoint), response);
        }
        Found::Methods(label, methods) => match find(request.method(), request.uri().path()) {
            Ok(route) => {
                (Label::Own(route), Box::pin(run(Arc::clone(state), route, request, deadline)).await)
            }
            Err((_, error)) => {
                let mut allowed = methods.join(", ");
                if let ApiError::MethodNotAllowed(more) = error {
                    allowed = format!("{allowed}, {more}");
                }
                (Label::Path(label), Err(ApiError::MethodNotAllowed(allowed)))
            }
        },
        Found::Nothing => match find(request.method(), request.uri().path()) {
            Ok(route) => {
                (Label::Own(route), Box::pin(run(Arc::clone(state), route, request, deadline)).await)
            }
            Err((label, error)) => (Label::Fixed(label), Err(error)),
        },
    };
    let response = answer.unwrap_or_else(|error| {
        if error.status().is_server_error() {
            tracing::warn!(request = id, route = label.text(), %error, "request failed");
        }
        error.response()
    });
    (label, response)
}

/// What may be asked of a path.
fn preflight(state: &HttpState, path: &str) -> Response<Full<Bytes>> {
    // No route has this method, so that what is found are the methods that there are.
    let none = Method::OPTIONS;
    let mut methods: Vec<String> = Vec::new();
    if let Found::Methods(_, found) = state.site.find(&none, path) {
        methods.extend(found.into_iter().map(str::to_owned));
    }
    if let Err((_, ApiError::MethodNotAllowed(found))) = find(&none, path) {
        methods.push(found);
    }
    cors::preflight(&methods.join(", "))
}

/// The id by which a request is found in the log: the caller's own where it gave a reasonable one.
fn request_id<B>(state: &HttpState, request: &Request<B>) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let reasonable = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    match given.filter(reasonable) {
        Some(id) => id.to_owned(),
        None => format!("http-{}-{}", state.process, state.requests.fetch_add(1, Ordering::Relaxed)),
    }
}

/// The route of a request, or the label and the error of one that has none.
fn find(method: &Method, path: &str) -> Result<&'static Route, (&'static str, ApiError)> {
    let wanted = if method == Method::HEAD { &Method::GET } else { method };
    let mut there = ROUTES.iter().filter(|route| route.path == path).peekable();
    let Some(first) = there.peek().map(|route| route.path) else {
        let paths = ROUTES.iter().map(|route| route.path).collect::<Vec<_>>().join(", ");
        return Err((UNMATCHED, ApiError::NotFound(format!("there is no such path; there are {paths}"))));
    };
    let mut allowed = Vec::new();
    for route in there {
        if route.method == *wanted {
            return Ok(route);
        }
        allowed.push(route.method.as_str());
        if route.method == Method::GET {
            allowed.push(Method::HEAD.as_str());
        }
    }
    Err((first, ApiError::MethodNotAllowed(allowed.join(", "))))
}

async fn run<B>(
    state: Arc<HttpState>,
    route: &'static Route,
    request: Request<B>,
    deadline: &Deadline,
) -> Answer
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limit = state.config.request_timeout;
    let (head, body) = request.into_parts();
    // A body that GET does not ask for is left unread; hyper closes the connection behind the answer.
    let body = match route.method {
        Method::GET => Bytes::new(),
        _ => whole_body(&state, body).await?,
    };
    let answer = (route.handler)(Call { state, head, body });
    deadline.within(limit, answer).await.map_err(|_| ApiError::Timeout(limit))?
}

/// The body, within its limits.
async fn whole_body<B>(state: &HttpState, body: B) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limit = state.config.request_timeout;
    let reading = read_body(body, state.config.max_body, DISCARD_TIME.min(limit / 4));
    timeout(limit, reading).await.map_err(|_| ApiError::Slow(limit))?
}

async fn read_body<B>(body: B, limit: usize, patience: Duration) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = pin!(body);
    if body.size_hint().lower() > limit.saturating_add(DISCARDED_BYTES) as u64 {
        return Err(ApiError::TooLarge(limit));
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ApiError::Malformed(format!("the body cannot be read: {}", error.into())))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            drop(bytes);
            // Cancelled by its timeout, it leaves nothing behind but an unread body.
            let _ = timeout(patience, discard(body)).await;
            return Err(ApiError::TooLarge(limit));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Reads on in a body that is too long, up to a bound: closing on unread bytes resets the connection, and the client
/// would not see why.
async fn discard<B: Body<Data = Bytes>>(mut body: Pin<&mut B>) {
    let mut discarded = 0;
    while let Some(Ok(frame)) = body.frame().await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > DISCARDED_BYTES {
            return;
        }
    }
}
