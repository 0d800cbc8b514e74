//! Pages for people: Swagger UI and the dashboard.
//!
//! Must not know: routes, metrics by name.

use std::io::Read;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, HeaderValue};
use prometheus::proto::{MetricFamily, MetricType};
use serde_json::{Map, Value as Json, json};

use super::compress;
use super::error::ApiError;
use super::routes::{Answer, Call, answer};

/// Swagger UI as its makers publish it (see assets/swagger-ui/README.md), compressed.
const SWAGGER_CSS: &[u8] = include_bytes!("../../assets/swagger-ui/swagger-ui.css.gz");
const SWAGGER_JS: &[u8] = include_bytes!("../../assets/swagger-ui/swagger-ui-bundle.js.gz");
const SWAGGER_PAGE: &str = include_str!("../../assets/swagger-ui/index.html");
const DASHBOARD: &str = include_str!("../../assets/dashboard.html");

const HTML: &str = "text/html; charset=utf-8";

/// How soon a browser asks for the next event, in milliseconds.
const NEXT_EVENT: u32 = 1000;

pub async fn swagger(_: Call) -> Answer {
    Ok(answer(StatusCode::OK, HTML, SWAGGER_PAGE))
}

pub async fn swagger_css(call: Call) -> Answer {
    asset(&call, "text/css; charset=utf-8", SWAGGER_CSS)
}

pub async fn swagger_js(call: Call) -> Answer {
    asset(&call, "application/javascript", SWAGGER_JS)
}

pub async fn dashboard(_: Call) -> Answer {
    Ok(answer(StatusCode::OK, HTML, DASHBOARD))
}

/// One event with every metric as it is now. The browser asks again by itself, which is all that a stream would do.
pub async fn events(call: Call) -> Answer {
    let families = call.state.metrics.registry().gather();
    let event = format!("retry: {NEXT_EVENT}\ndata: {}\n\n", samples(&families));
    Ok(answer(StatusCode::OK, "text/event-stream", event))
}

/// A compressed asset, unpacked for the rare client that does not take it so.
fn asset(call: &Call, content_type: &'static str, packed: &'static [u8]) -> Answer {
    let accepted = call.head.headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let mut response = if compress::accepts(accepted) {
        let mut response = answer(StatusCode::OK, content_type, Bytes::from_static(packed));
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut plain = Vec::new();
        let unpacked = flate2::read::GzDecoder::new(packed).read_to_end(&mut plain);
        unpacked.map_err(|error| ApiError::Internal(error.to_string()))?;
        answer(StatusCode::OK, content_type, plain)
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
    Ok(response)
}

/// Every counter, gauge and histogram by name: a list of labels and values.
fn samples(families: &[MetricFamily]) -> Json {
    let mut all = Map::new();
    for family in families {
        let kind = family.get_field_type();
        let samples: Vec<Json> = family
            .get_metric()
            .iter()
            .map(|metric| {
                let labels: Map<String, Json> = metric
                    .get_label()
                    .iter()
                    .map(|pair| (pair.name().to_owned(), json!(pair.value())))
                    .collect();
                match kind {
                    MetricType::COUNTER => {
                        json!({"labels": labels, "value": metric.get_counter().get_value()})
                    }
                    MetricType::GAUGE => json!({"labels": labels, "value": metric.get_gauge().get_value()}),
                    MetricType::HISTOGRAM => {
                        let histogram = metric.get_histogram();
                        let buckets: Vec<Json> = histogram
                            .get_bucket()
                            .iter()
                            .map(|bucket| json!([bucket.upper_bound(), bucket.cumulative_count()]))
                            .collect();
                        json!({"labels": labels, "count": histogram.get_sample_count(), "buckets": buckets})
                    }
                    _ => Json::Null,
                }
            })
            .collect();
        all.insert(family.name().to_owned(), Json::Array(samples));
    }
    Json::Object(all)
}
