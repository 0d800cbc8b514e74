//! Attacks the codec: properties, garbage, limits, and the answers of a real Redis to the same bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use dsproxy::resp::{Args, ProtocolError, RequestLimits, RequestScanner, Scan};

#[path = "resp_codec/regressions.rs"]
mod regressions;
#[path = "resp_codec/replies.rs"]
mod replies;
#[path = "resp_codec/requests.rs"]
mod requests;
#[path = "resp_codec/server.rs"]
mod server;

/// The arguments of the request that `bytes` are; `None` while it is unfinished.
fn request(bytes: &[u8], limits: &RequestLimits) -> Result<Option<Vec<Vec<u8>>>, ProtocolError> {
    let mut scanner = RequestScanner::default();
    let Scan::Complete(end) = scanner.scan(bytes, limits)? else { return Ok(None) };
    if !scanner.is_inline() {
        return Ok(Some(Args::new(&bytes[..end], scanner.spans()).iter().map(<[u8]>::to_vec).collect()));
    }
    match RequestScanner::unpack_inline(&bytes[..end])? {
        Some(inline) => request(&inline.0, limits),
        None => Ok(Some(Vec::new())),
    }
}
