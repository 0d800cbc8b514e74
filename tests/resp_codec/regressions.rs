//! One test per mistake that was found and corrected.

use super::request;
use dsproxy::resp::{ProtocolError, RequestLimits};

fn with_defaults(bytes: &[u8]) -> Result<Option<Vec<Vec<u8>>>, ProtocolError> {
    request(bytes, &RequestLimits::default())
}

/// Frames are forwarded as they came: a header that Redis refuses would end the connection all clients share.
#[test]
fn a_header_ends_with_cr_and_lf() {
    assert_eq!(with_defaults(b"*1\n$4\r\nPING\r\n"), Err(ProtocolError::BadCount));
    assert_eq!(with_defaults(b"*1\r\n$4\nPING\r\n"), Err(ProtocolError::BadLength));
    assert_eq!(with_defaults(b"*\n"), Err(ProtocolError::BadCount));
    assert_eq!(with_defaults(b"*\r\n"), Err(ProtocolError::BadCount));
    assert_eq!(with_defaults(b"*1\r\n$\n"), Err(ProtocolError::BadLength));
    assert_eq!(with_defaults(b"*1\r\r\n$4\r\nPING\r\n"), Err(ProtocolError::BadCount));
}
