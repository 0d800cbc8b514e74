//! Appends the few RESP shapes the proxy answers itself.
//!
//! Must not know: why it answers.

fn push_number(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

#[inline]
fn push_header(out: &mut Vec<u8>, kind: u8, number: i64) {
    // Most numbers are short.
    match number {
        0..10 => return out.extend_from_slice(&[kind, b'0' + number as u8, b'\r', b'\n']),
        10..100 => {
            let (tens, ones) = (b'0' + (number / 10) as u8, b'0' + (number % 10) as u8);
            return out.extend_from_slice(&[kind, tens, ones, b'\r', b'\n']);
        }
        _ => {}
    }
    out.push(kind);
    push_number(out, number);
    out.extend_from_slice(b"\r\n");
}

/// `*<count>`: the header of an array of `count` values.
pub fn push_array_header(out: &mut Vec<u8>, count: usize) {
    push_header(out, b'*', count as i64);
}

/// A bulk string.
pub fn push_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 24);
    push_header(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A bulk string that is a number.
pub fn push_bulk_number(out: &mut Vec<u8>, number: u64) {
    let digits = number.checked_ilog10().map_or(1, |log| log as usize + 1);
    push_header(out, b'$', digits as i64);
    let end = out.len() + digits;
    out.resize(end, b'0');
    let mut rest = number;
    for digit in out.iter_mut().rev().take(digits) {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(b"\r\n");
}

/// A simple string. `text` must hold no CR or LF.
pub fn push_simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An error; CR and LF in `text` become blanks, so that no text can break the framing.
pub fn push_error(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    out.push(b'-');
    out.extend(text.as_ref().iter().copied().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
}

/// An integer.
pub fn push_integer(out: &mut Vec<u8>, number: i64) {
    push_header(out, b':', number);
}

/// "No value" in the dialect of the connection: `protocol` is 2 or 3.
pub fn push_nil(out: &mut Vec<u8>, protocol: u8) {
    out.extend_from_slice(if protocol >= 3 { b"_\r\n" } else { b"$-1\r\n" });
}

/// A request: an array of bulk strings.
pub fn push_command<'a, I>(out: &mut Vec<u8>, args: I)
where
    I: IntoIterator<Item = &'a [u8]>,
    I::IntoIter: ExactSizeIterator,
{
    let args = args.into_iter();
    push_array_header(out, args.len());
    for arg in args {
        push_bulk(out, arg);
    }
}
