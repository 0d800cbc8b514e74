//! Compresses answers for clients that accept gzip.
//!
//! Must not know: routes.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::Response;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};

/// Types that gain something.
const TYPES: [&str; 4] = ["application/json", "application/problem+json", "text/", "application/javascript"];

/// Whether an `Accept-Encoding` takes gzip.
pub fn accepts(header: Option<&str>) -> bool {
    let mut gzip = None;
    for part in header.unwrap_or_default().split(',') {
        let mut pieces = part.split(';').map(str::trim);
        let name = pieces.next().unwrap_or_default();
        let quality = pieces.find_map(|piece| piece.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok());
        if name.eq_ignore_ascii_case("gzip") || (name == "*" && gzip.is_none()) {
            gzip = Some(quality.unwrap_or(1.0) > 0.0);
        }
    }
    gzip.unwrap_or(false)
}

/// The answer, compressed where that is worth it: `min` is the least size in bytes, 0 for never.
pub fn compressed(response: Response<Full<Bytes>>, min: usize, accepted: bool) -> Response<Full<Bytes>> {
    let size = response.body().size_hint().lower() as usize;
    if min == 0
        || size < min
        || response.headers().contains_key(CONTENT_ENCODING)
        || !gains(response.headers())
    {
        return response;
    }
    let (mut head, body) = response.into_parts();
    head.headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    if !accepted {
        return Response::from_parts(head, body);
    }
    let Some(plain) = take(body) else { return Response::from_parts(head, Full::default()) };
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    // Writing to memory does not fail.
    let squeezed = encoder.write_all(&plain).and_then(|()| encoder.finish());
    match squeezed {
        Ok(bytes) => {
            head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Response::from_parts(head, Full::from(bytes))
        }
        Err(_) => Response::from_parts(head, Full::from(plain)),
    }
}

fn gains(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    TYPES.iter().any(|known| kind.starts_with(known))
}

/// The bytes of a body that is there as a whole.
fn take(body: Full<Bytes>) -> Option<Bytes> {
    use http_body_util::BodyExt;
    use std::task::{Context, Poll, Waker};
    let mut body = body;
    let mut frame = std::pin::pin!(body.frame());
    match frame.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_who_accepts_gzip() {
        for yes in ["gzip", "deflate, gzip;q=0.5", "*", "GZIP"] {
            assert!(accepts(Some(yes)), "{yes}");
        }
        for no in ["", "identity", "gzip;q=0", "br", "*, gzip;q=0"] {
            assert!(!accepts(Some(no)), "{no}");
        }
        assert!(!accepts(None));
    }
}
