//! One test per mistake that was found and corrected.

use super::request;
use dsproxy::resp::{MalformedReply, ProtocolError, RequestLimits, decode_reply};
use redis_protocol::resp3::types::BytesFrame;

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

/// `split_words` made empty words of a NUL without end, until memory ended.
#[test]
fn a_nul_in_an_inline_request_is_refused() {
    assert_eq!(with_defaults(b"PING \0\r\n"), Err(ProtocolError::InlineNul));
    assert_eq!(with_defaults(b"\0\n"), Err(ProtocolError::InlineNul));
    assert_eq!(with_defaults(b"ECHO \"a\0\"\n"), Err(ProtocolError::InlineNul));
    // Nothing is wrong with it in an argument with a length.
    assert_eq!(with_defaults(b"*1\r\n$1\r\n\0\r\n"), Ok(Some(vec![vec![0]])));
}

/// The two rarer blanks of C are skipped between words, but belong to a word that has begun.
#[test]
fn vertical_tab_and_form_feed_do_not_end_a_word() {
    let words = with_defaults(b"ECHO \x0b\x0ca\x0bb\x0cc\r\n");
    assert_eq!(words, Ok(Some(vec![b"ECHO".to_vec(), b"a\x0bb\x0cc".to_vec()])));
}

/// A value that looks like a line of an access log is no HTTP request.
#[test]
fn http_is_told_by_its_method() {
    for line in ["GET / HTTP/1.1\r\n", "POST /write HTTP/1.0\r\n", "PRI * HTTP/2.0\r\n", "host: a\n"] {
        assert_eq!(with_defaults(line.as_bytes()), Err(ProtocolError::Http), "{line}");
    }
    let words = with_defaults(b"LPUSH log \"GET / HTTP/1.1\"\r\n").unwrap().unwrap();
    assert_eq!(words, [&b"LPUSH"[..], b"log", b"GET / HTTP/1.1"]);
}

/// Redis refuses a line when more than 64 KiB came without LF, so that many are allowed before it.
#[test]
fn the_inline_limit_does_not_count_the_lf() {
    let limits = RequestLimits::default();
    let mut line = vec![b'a'; limits.inline_bytes];
    line.push(b'\n');
    assert_eq!(request(&line, &limits).unwrap().unwrap(), [&line[..limits.inline_bytes]]);
    line.insert(0, b'a');
    assert_eq!(request(&line, &limits), Err(ProtocolError::InlineTooLong));
}

/// An attribute was taken for a value of the array around it, which hid all nesting behind one from the depth check:
/// `redis-protocol` then recursed to the end of the stack.
#[test]
fn attributes_do_not_hide_nesting() {
    let mut reply = b"*1\r\n|1\r\n+a\r\n+b\r\n".repeat(2000);
    reply.extend_from_slice(b":1\r\n");
    assert_eq!(decode_reply(&reply), Err(MalformedReply));
    let mut reply = b"|0\r\n".repeat(10_000);
    reply.extend_from_slice(b":1\r\n");
    assert_eq!(decode_reply(&reply), Err(MalformedReply));
}

/// RESP2's "no value" was understood only when it was the whole reply.
#[test]
fn nils_inside_a_reply_are_understood() {
    let decoded = decode_reply(b"*4\r\n$-1\r\n*-1\r\n$3\r\n$-1\r\n*1\r\n_\r\n").unwrap();
    let BytesFrame::Array { data, .. } = decoded else { panic!("{decoded:?}") };
    let [BytesFrame::Null, BytesFrame::Null, BytesFrame::BlobString { data: text, .. }, last] = &data[..]
    else {
        panic!("{data:?}")
    };
    assert_eq!(text, "$-1");
    assert_eq!(*last, BytesFrame::Array { data: vec![BytesFrame::Null], attributes: None });
    assert_eq!(decode_reply(b"$-1\r\n"), Ok(BytesFrame::Null));
}
