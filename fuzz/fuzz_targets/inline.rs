//! Inline requests: the words are those of `sdssplitargs`, here once more as plain as the C is, one byte at a time.
#![no_main]

use dsproxy::resp::{Args, RequestLimits, RequestScanner, Scan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let unpacked = RequestScanner::unpack_inline(data);
    if data.contains(&0) {
        assert!(unpacked.is_err());
        return;
    }
    let expected = words(data);
    match (unpacked, expected) {
        (Err(_), None) => {}
        (Ok(None), Some(words)) => assert!(words.is_empty()),
        (Ok(Some(inline)), Some(words)) => {
            let mut scanner = RequestScanner::default();
            let limits = RequestLimits { args: usize::MAX, ..RequestLimits::default() };
            assert_eq!(scanner.scan(&inline.0, &limits), Ok(Scan::Complete(inline.0.len())));
            let args = Args::new(&inline.0, scanner.spans());
            assert!(args.iter().eq(words.iter().map(Vec::as_slice)));
        }
        (unpacked, expected) => panic!("{unpacked:?} is not {expected:?}"),
    }
});

/// The words of a line without NUL.
fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    // Past the end C reads the terminating NUL.
    let at = |index: usize| line.get(index).copied().unwrap_or(0);
    let blank = |byte: u8| byte == b' ' || (9..=13).contains(&byte);
    let nibble = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (mut words, mut p) = (Vec::new(), 0);
    loop {
        while blank(at(p)) {
            p += 1;
        }
        if at(p) == 0 {
            return Some(words);
        }
        let (mut word, mut quote) = (Vec::new(), None);
        loop {
            match (quote, at(p)) {
                (Some(_), 0) => return None,
                (Some(open), byte) if byte == open => {
                    if at(p + 1) != 0 && !blank(at(p + 1)) {
                        return None;
                    }
                    p += 1;
                    break;
                }
                (Some(b'"'), b'\\') if at(p + 1) == b'x' => match (nibble(at(p + 2)), nibble(at(p + 3))) {
                    (Some(high), Some(low)) => {
                        word.push(high * 16 + low);
                        p += 3;
                    }
                    _ => {
                        word.push(b'x');
                        p += 1;
                    }
                },
                (Some(b'"'), b'\\') if at(p + 1) != 0 => {
                    p += 1;
                    word.push(match at(p) {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'a' => 7,
                        other => other,
                    });
                }
                (Some(b'\''), b'\\') if at(p + 1) == b'\'' => {
                    p += 1;
                    word.push(b'\'');
                }
                (None, 0 | b' ' | b'\n' | b'\r' | b'\t') => break,
                (None, open @ (b'"' | b'\'')) => quote = Some(open),
                (_, byte) => word.push(byte),
            }
            p += 1;
        }
        words.push(word);
    }
}
