//! The routes: one line each in [`ROUTES`], and their handlers.
//!
//! Must not know: connections, limits.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::{Map, Value as Json, json};

use super::error::ApiError;
use super::own_paths::Own;
use super::{BoxFuture, HttpState, dead_letters, explain, facade, invalidate, openapi, pages, writeback};
use crate::config::FacadeAccess;
use crate::health::{Condition, Dependency};
use crate::metrics;

/// What a handler yields.
pub type Answer = Result<Response<Full<Bytes>>, ApiError>;

/// A request whose body has been read.
pub struct Call {
    /// What the server works with.
    pub state: Arc<HttpState>,
    /// Method, URL and headers.
    pub head: Parts,
    /// The body; empty for methods that have none.
    pub body: Bytes,
}

/// One route.
pub struct Route {
    /// Its method. A GET route answers HEAD too.
    pub method: Method,
    /// Its path, also the `route` label of the metrics.
    pub path: &'static str,
    /// What answers it.
    pub handler: fn(Call) -> BoxFuture<Answer>,
}

/// Every route.
pub static ROUTES: [Route; 24] = [
    Route { method: Method::GET, path: "/metrics", handler: |call| Box::pin(show_metrics(call)) },
    Route { method: Method::GET, path: "/ping", handler: |call| Box::pin(ping(call)) },
    Route { method: Method::GET, path: "/health/live", handler: |call| Box::pin(live(call)) },
    Route { method: Method::GET, path: "/health/ready", handler: |call| Box::pin(ready(call)) },
    Route { method: Method::POST, path: "/write", handler: |call| Box::pin(facade::write(call)) },
    Route { method: Method::GET, path: "/read", handler: |call| Box::pin(facade::read(call)) },
    Route { method: Method::DELETE, path: "/read", handler: |call| Box::pin(facade::delete(call)) },
    Route { method: Method::POST, path: "/mget", handler: |call| Box::pin(facade::mget(call)) },
    Route { method: Method::GET, path: "/health", handler: |call| Box::pin(ready(call)) },
    Route { method: Method::GET, path: STATS, handler: |call| Box::pin(cache_stats(call)) },
    Route { method: Method::POST, path: STATS_RESET, handler: |call| Box::pin(reset_cache_stats(call)) },
    Route { method: Method::GET, path: "/openapi.json", handler: |call| Box::pin(show_openapi(call)) },
    Route { method: Method::GET, path: "/swagger", handler: |call| Box::pin(pages::swagger(call)) },
    Route { method: Method::GET, path: "/swagger/", handler: |call| Box::pin(pages::swagger(call)) },
    Route {
        method: Method::GET,
        path: "/swagger/swagger-ui.css",
        handler: |call| Box::pin(pages::swagger_css(call)),
    },
    Route {
        method: Method::GET,
        path: "/swagger/swagger-ui-bundle.js",
        handler: |call| Box::pin(pages::swagger_js(call)),
    },
    Route { method: Method::GET, path: explain::PATH, handler: |call| Box::pin(explain::explain(call)) },
    Route { method: Method::GET, path: "/dashboard", handler: |call| Box::pin(pages::dashboard(call)) },
    Route { method: Method::GET, path: "/dashboard/events", handler: |call| Box::pin(pages::events(call)) },
    Route {
        method: Method::POST,
        path: invalidate::PATH,
        handler: |call| Box::pin(invalidate::invalidate(call)),
    },
    Route { method: Method::GET, path: writeback::PATH, handler: |call| Box::pin(writeback::show(call)) },
    Route {
        method: Method::GET,
        path: dead_letters::PATH,
        handler: |call| Box::pin(dead_letters::list(call)),
    },
    Route {
        method: Method::DELETE,
        path: dead_letters::PATH,
        handler: |call| Box::pin(dead_letters::discard(call)),
    },
    Route {
        method: Method::POST,
        path: dead_letters::REPLAY,
        handler: |call| Box::pin(dead_letters::replay(call)),
    },
];

const STATS: &str = "/api/v1/cache/stats";
const STATS_RESET: &str = "/api/v1/cache/stats/reset";

async fn show_metrics(call: Call) -> Answer {
    let text = call.state.metrics.render().map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(answer(StatusCode::OK, metrics::CONTENT_TYPE, text))
}

async fn ping(_: Call) -> Answer {
    Ok(text(StatusCode::OK, "pong"))
}

async fn live(_: Call) -> Answer {
    Ok(answer(StatusCode::OK, "application/json", format!("{}\n", json!({"status": "live"}))))
}

async fn ready(call: Call) -> Answer {
    let health = &call.state.health;
    let dependencies: Map<String, Json> = Dependency::ALL
        .into_iter()
        .map(|dependency| {
            let condition = match health.get(dependency) {
                Condition::Off => json!({"status": "off"}),
                Condition::Starting => json!({"status": "starting"}),
                Condition::Up => json!({"status": "up"}),
                Condition::Down(reason) => json!({"status": "down", "reason": reason}),
            };
            (dependency.name().to_owned(), condition)
        })
        .collect();
    let (status, word) = match (health.is_draining(), health.is_ready()) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, true) => (StatusCode::OK, "ready"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let body = json!({"status": word, "dependencies": dependencies, "warnings": health.warnings()});
    Ok(answer(status, "application/json", format!("{body}\n")))
}

async fn cache_stats(call: Call) -> Answer {
    let stats = call.state.cache.json(call.state.site.backend.as_ref()).await;
    Ok(answer(StatusCode::OK, "application/json", format!("{stats}\n")))
}

async fn reset_cache_stats(call: Call) -> Answer {
    call.state.cache.reset();
    Ok(answer(
        StatusCode::OK,
        "application/json",
        format!("{}\n", json!({"message": "cache statistics reset"})),
    ))
}

/// A JSON document.
pub fn json_answer(status: StatusCode, body: &Json) -> Response<Full<Bytes>> {
    answer(status, "application/json", format!("{body}\n"))
}

async fn show_openapi(call: Call) -> Answer {
    let state = &call.state;
    let own = Own {
        facade: state.config.facade != FacadeAccess::Off,
        bearer: state.config.facade == FacadeAccess::Bearer,
        user_data: state.site.backend.as_ref().is_some_and(|backend| backend.has_mapping(facade::USER_DATA)),
    };
    let document = openapi::document(&state.site, own);
    Ok(answer(StatusCode::OK, "application/json", format!("{document:#}\n")))
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", body)
}

pub(super) fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A stored value is somebody else's text: no browser may take it for a page.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
