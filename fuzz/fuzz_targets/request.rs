//! Requests: however the bytes are cut, the answer is the same, and what is accepted is the one canonical spelling.
#![no_main]

use dsproxy::resp::{Args, ProtocolError, RequestLimits, RequestScanner, Scan, push_command};
use libfuzzer_sys::fuzz_target;
use redis_protocol::resp2::{self, types::Resp2Frame};

fuzz_target!(|data: &[u8]| {
    let Some(([step, small], data)) = data.split_first_chunk::<2>() else { return };
    let limits = if *small % 2 == 0 {
        RequestLimits::default()
    } else {
        RequestLimits { inline_bytes: 24, args: 4, bulk_bytes: 16, frame_bytes: 64, stranger: false }
    };
    let mut whole = RequestScanner::default();
    let result = whole.scan(data, &limits);
    let mut pieces = RequestScanner::default();
    assert_eq!(result, in_pieces(&mut pieces, data, &limits, usize::from(*step) % 7 + 1));
    match result {
        Ok(Scan::Complete(end)) => {
            assert!(0 < end && end <= data.len());
            assert_eq!(whole.spans(), pieces.spans());
            assert_eq!(whole.is_inline(), pieces.is_inline());
            check_frame(&data[..end], &whole, &limits);
        }
        Ok(Scan::Incomplete(need)) => assert!(need > data.len()),
        Err(error) => assert!(error.to_string().starts_with("Protocol error: ")),
    }
});

fn in_pieces(
    scanner: &mut RequestScanner,
    data: &[u8],
    limits: &RequestLimits,
    step: usize,
) -> Result<Scan, ProtocolError> {
    let mut have = 0;
    loop {
        match scanner.scan(&data[..have], limits)? {
            Scan::Complete(end) => return Ok(Scan::Complete(end)),
            Scan::Incomplete(need) => {
                assert!(need > have);
                if have == data.len() {
                    return Ok(Scan::Incomplete(need));
                }
            }
        }
        have = (have + step).min(data.len());
    }
}

fn check_frame(frame: &[u8], scanner: &RequestScanner, limits: &RequestLimits) {
    if scanner.is_inline() {
        assert_eq!(frame.iter().position(|byte| *byte == b'\n'), Some(frame.len() - 1));
        return;
    }
    let args = Args::new(frame, scanner.spans());
    if args.is_empty() {
        return;
    }
    assert!(args.len() <= limits.args && frame.len() <= limits.frame_bytes);
    assert!(args.iter().all(|arg| arg.len() <= limits.bulk_bytes));
    // A second parser downstream gets these bytes: there must be one way to read them.
    let mut canonical = Vec::new();
    push_command(&mut canonical, args.iter().collect::<Vec<_>>());
    assert_eq!(canonical, frame);
    let mut encoded = format!("*{}\r\n", args.len()).into_bytes();
    (0..args.len()).for_each(|at| encoded.extend_from_slice(args.encoded(at).unwrap()));
    assert_eq!(encoded, frame);
    let (decoded, used) = resp2::decode::decode(frame).unwrap().unwrap();
    assert_eq!(used, frame.len());
    let resp2::types::OwnedFrame::Array(items) = decoded else { panic!("no array") };
    assert!(items.iter().map(|item| item.as_bytes().unwrap()).eq(args.iter()));
}
