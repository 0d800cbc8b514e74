//! Requests: what `push_command` writes, however it is cut, and `redis-protocol` as a second reader.

use dsproxy::resp::{Args, ProtocolError, RequestLimits, RequestScanner, Scan, push_command, push_integer};
use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::resp2::{self, types::Resp2Frame};

use super::request;

fn args() -> impl Strategy<Value = Vec<Vec<u8>>> {
    // Bytes of the protocol itself are where framing goes wrong.
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&b"\r\n$*0123456789-"[..])];
    vec(vec(byte, 0..40), 1..12)
}

fn encode(args: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = Vec::new();
    push_command(&mut frame, args.iter().map(Vec::as_slice));
    frame
}

/// Feeds `frame` up to each of `cuts`, then whole; the scanner keeps its place in between.
fn in_pieces(frame: &[u8], cuts: &[usize]) -> RequestScanner {
    let mut scanner = RequestScanner::default();
    for cut in cuts {
        match scanner.scan(&frame[..*cut], &RequestLimits::default()) {
            Ok(Scan::Incomplete(need)) => assert!((cut + 1..=frame.len()).contains(&need), "{need} at {cut}"),
            other => panic!("{other:?} at {cut}"),
        }
    }
    assert_eq!(scanner.scan(frame, &RequestLimits::default()), Ok(Scan::Complete(frame.len())));
    scanner
}

fn found(frame: &[u8], scanner: &RequestScanner) -> Vec<Vec<u8>> {
    Args::new(frame, scanner.spans()).iter().map(<[u8]>::to_vec).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_is_found_however_it_is_cut(args in args(), cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        let frame = encode(&args);
        prop_assert_eq!(&found(&frame, &in_pieces(&frame, &[])), &args);
        for cut in 0..frame.len() {
            prop_assert_eq!(&found(&frame, &in_pieces(&frame, &[cut])), &args);
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(frame.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(&found(&frame, &in_pieces(&frame, &cuts)), &args);
        let every: Vec<usize> = (0..frame.len()).collect();
        prop_assert_eq!(&found(&frame, &in_pieces(&frame, &every)), &args);
    }

    #[test]
    fn encoded_arguments_make_the_frame_again(args in args()) {
        let frame = encode(&args);
        let scanner = in_pieces(&frame, &[]);
        let view = Args::new(&frame, scanner.spans());
        let mut again = format!("*{}\r\n", view.len()).into_bytes();
        for index in 0..view.len() {
            again.extend_from_slice(view.encoded(index).unwrap());
        }
        prop_assert_eq!(&again, &frame);
        prop_assert_eq!(view.encoded(view.len()), None);
        prop_assert_eq!(view.get(view.len()), None);
        prop_assert_eq!(view.name(), &args[0][..]);
        prop_assert_eq!(view.frame(), &frame[..]);
    }

    #[test]
    fn pipelined_requests_are_found_one_by_one(requests in vec(args(), 1..6), tail in 0..20usize) {
        let mut bytes: Vec<u8> = requests.iter().flat_map(|args| encode(args)).collect();
        let whole = bytes.len();
        bytes.extend_from_slice(&encode(&[vec![b'x'; 20]])[..tail]);
        let (mut scanner, mut at) = (RequestScanner::default(), 0);
        for args in &requests {
            let Ok(Scan::Complete(end)) = scanner.scan(&bytes[at..], &RequestLimits::default()) else {
                panic!("unfinished")
            };
            prop_assert_eq!(&found(&bytes[at..at + end], &scanner), args);
            scanner.reset();
            at += end;
        }
        prop_assert_eq!(at, whole);
        let rest = scanner.scan(&bytes[at..], &RequestLimits::default());
        prop_assert!(matches!(rest, Ok(Scan::Incomplete(need)) if need > tail));
    }

    #[test]
    fn redis_protocol_reads_the_same_request(args in args()) {
        let frame = encode(&args);
        let (decoded, used) = resp2::decode::decode(&frame).unwrap().unwrap();
        prop_assert_eq!(used, frame.len());
        let resp2::types::OwnedFrame::Array(items) = decoded else { panic!("no array") };
        prop_assert!(items.iter().map(|item| item.as_bytes().unwrap()).eq(args.iter().map(Vec::as_slice)));
    }

    #[test]
    fn integers_are_written_as_rust_writes_them(number in any::<i64>()) {
        let mut out = Vec::new();
        push_integer(&mut out, number);
        prop_assert_eq!(out, format!(":{number}\r\n").into_bytes());
    }

    #[test]
    fn garbage_is_refused_or_read_but_never_hangs(bytes in vec(any::<u8>(), 0..200)) {
        survives(&bytes);
    }

    #[test]
    fn a_damaged_request_is_refused_or_read(
        args in args(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4),
    ) {
        let mut frame = encode(&args);
        for (place, byte, how) in damage {
            let at = place.index(frame.len());
            match how {
                0 => frame[at] = byte,
                1 => frame.insert(at, byte),
                _ if frame.len() > 1 => drop(frame.remove(at)),
                _ => {}
            }
        }
        survives(&frame);
    }
}

/// Reads all there is; whole and byte by byte give the same.
fn survives(bytes: &[u8]) {
    let limits =
        RequestLimits { inline_bytes: 64, args: 8, bulk_bytes: 32, frame_bytes: 128, stranger: false };
    let (mut scanner, mut rest) = (RequestScanner::default(), bytes);
    loop {
        let result = scanner.scan(rest, &limits);
        let mut slow = RequestScanner::default();
        let slow_result = (0..=rest.len())
            .map(|have| slow.scan(&rest[..have], &limits))
            .find(|result| !matches!(result, Ok(Scan::Incomplete(_))));
        match &result {
            Ok(Scan::Complete(end)) => {
                assert_eq!(slow_result, Some(result.clone()));
                assert_eq!(slow.spans(), scanner.spans());
                assert!(*end > 0);
                if scanner.is_inline() {
                    let _ = RequestScanner::unpack_inline(&rest[..*end]);
                }
                rest = &rest[*end..];
                scanner.reset();
            }
            Ok(Scan::Incomplete(need)) => {
                assert!(*need > rest.len() && slow_result.is_none());
                return;
            }
            Err(error) => {
                assert_eq!(slow_result, Some(Err(error.clone())));
                assert!(error.to_string().starts_with("Protocol error: "));
                return;
            }
        }
    }
}

#[test]
fn integers_at_the_edges() {
    let mut edges = vec![0, i64::MIN, i64::MAX, i64::MIN + 1];
    for power in 0..19 {
        let ten = 10i64.pow(power);
        edges.extend([ten - 1, ten, ten + 1, -ten + 1, -ten, -ten - 1]);
    }
    for number in edges {
        let mut out = Vec::new();
        push_integer(&mut out, number);
        assert_eq!(out, format!(":{number}\r\n").as_bytes());
    }
}

/// Tries a limit one below, at, and one above.
#[test]
fn limits_hold_to_the_byte() {
    let limits =
        RequestLimits { inline_bytes: 100, args: 5, bulk_bytes: 50, frame_bytes: 120, stranger: false };
    let of = |args: &[usize]| {
        request(&encode(&args.iter().map(|n| vec![b'a'; *n]).collect::<Vec<_>>()), &limits)
            .map(|args| args.is_some())
    };
    assert_eq!([of(&[1; 4]), of(&[1; 5]), of(&[1; 6])], [Ok(true), Ok(true), Err(ProtocolError::BadCount)]);
    assert_eq!([of(&[49]), of(&[50]), of(&[51])], [Ok(true), Ok(true), Err(ProtocolError::BadLength)]);
    // 4 for the count, then 7 for each argument beside its bytes.
    let frame = |last: usize| of(&[50, 40 + last]);
    assert_eq!(encode(&[vec![0; 50], vec![0; 50]]).len(), 118);
    assert_eq!(frame(10), Ok(true));
    let tight = |frame_bytes| {
        let limits = RequestLimits { frame_bytes, ..limits };
        request(&encode(&[vec![0; 50], vec![0; 50]]), &limits).map(|args| args.is_some())
    };
    assert_eq!([tight(117), tight(118), tight(119)], [Err(ProtocolError::FrameTooLarge), Ok(true), Ok(true)]);
    let line = |bytes: usize| {
        let limits = RequestLimits { bulk_bytes: 200, frame_bytes: 200, ..limits };
        request(&[&vec![b'a'; bytes][..], b"\n"].concat(), &limits).map(|args| args.is_some())
    };
    assert_eq!([line(99), line(100), line(101)], [Ok(true), Ok(true), Err(ProtocolError::InlineTooLong)]);
    let unfinished = |start: &str, bytes: usize| {
        request(&[start.as_bytes(), &vec![b'1'; bytes]].concat(), &limits).map(|args| args.is_some())
    };
    assert_eq!([unfinished("", 100), unfinished("*", 100)], [Ok(false), Ok(false)]);
    assert_eq!(unfinished("", 101), Err(ProtocolError::InlineTooLong));
    assert_eq!(unfinished("*", 101), Err(ProtocolError::CountLineTooLong));
    assert_eq!(unfinished("*1\r\n$", 101), Err(ProtocolError::LengthLineTooLong));
}

/// A limit is noticed from the header, before the bytes it announces have come.
#[test]
fn announced_sizes_are_refused_at_once() {
    let limits = RequestLimits::default();
    assert_eq!(request(b"*1048576\r\n", &limits), Ok(None));
    assert_eq!(request(b"*1048577\r\n", &limits), Err(ProtocolError::BadCount));
    assert_eq!(request(b"*1\r\n$536870912\r\n", &limits), Ok(None));
    assert_eq!(request(b"*1\r\n$536870913\r\n", &limits), Err(ProtocolError::BadLength));
    assert_eq!(request(b"*9223372036854775807\r\n", &limits), Err(ProtocolError::BadCount));
    let endless = RequestLimits {
        stranger: false,
        args: usize::MAX,
        bulk_bytes: usize::MAX,
        frame_bytes: usize::MAX,
        inline_bytes: usize::MAX,
    };
    assert_eq!(request(b"*1\r\n$9223372036854775807\r\n", &endless), Err(ProtocolError::FrameTooLarge));
    // Offsets are 32 bits wide, whatever the limit says.
    assert_eq!(request(b"*1\r\n$4294967295\r\n", &endless), Err(ProtocolError::FrameTooLarge));
    assert_eq!(request(b"*9223372036854775807\r\n", &endless), Ok(None));
    assert_eq!(request(b"PING\r\n", &endless), Ok(Some(vec![b"PING".to_vec()])));
}
