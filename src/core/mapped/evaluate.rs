//! What Redis would answer to a reading command on a key, from the value that the key has.
//!
//! Must not know: clients, nodes, how the value was found. Words and shapes are those of Redis 7.0.

use crate::cache::Loaded;
use crate::glob;
use crate::resp::{Args, push_array_header, push_bulk, push_error, push_integer, push_nil, push_simple};
use bytes::Bytes;

/// What Redis says of a command on a value of another kind.
pub(super) const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The reply is in the buffer.
    Said,
    /// It is for a node to say.
    Ask,
}

/// Evaluates `name` (a command as the table calls it) on `value`, which is there: a value or a hash.
pub(super) fn evaluate(
    name: &str,
    args: &Args<'_>,
    value: &Loaded,
    protocol: u8,
    out: &mut Vec<u8>,
) -> Verdict {
    let said = match (name, value) {
        ("exists" | "touch", _) => {
            push_integer(out, 1);
            Some(())
        }
        ("type", Loaded::Value(_)) => {
            push_simple(out, "string");
            Some(())
        }
        ("type", Loaded::Hash(_)) => {
            push_simple(out, "hash");
            Some(())
        }
        (_, Loaded::Value(text)) if is_of_strings(name) => of_string(name, args, text, out),
        (_, Loaded::Hash(fields)) if is_of_hashes(name) => of_hash(name, args, fields, protocol, out),
        (_, Loaded::Value(_)) if is_of_hashes(name) => wrong_type(out),
        (_, Loaded::Hash(_)) if is_of_strings(name) => wrong_type(out),
        _ => None,
    };
    if said.is_some() { Verdict::Said } else { Verdict::Ask }
}

/// The same for a key that is not there.
pub(super) fn evaluate_absent(name: &str, args: &Args<'_>, protocol: u8, out: &mut Vec<u8>) -> Verdict {
    match name {
        "exists" | "touch" | "strlen" | "getbit" | "bitcount" | "hlen" | "hexists" | "hstrlen" => {
            push_integer(out, 0)
        }
        "bitpos" => push_integer(out, if args.get(2) == Some(b"1") { -1 } else { 0 }),
        "ttl" | "pttl" | "expiretime" | "pexpiretime" => push_integer(out, -2),
        "type" => push_simple(out, "none"),
        "get" | "getex" | "hget" => push_nil(out, protocol),
        "getrange" | "substr" => push_bulk(out, b""),
        "hmget" => {
            push_array_header(out, args.len().saturating_sub(2));
            (2..args.len()).for_each(|_| push_nil(out, protocol));
        }
        "hgetall" if protocol == 3 => out.extend_from_slice(b"%0\r\n"),
        "hgetall" | "hkeys" | "hvals" => push_array_header(out, 0),
        "hscan" => {
            push_array_header(out, 2);
            push_bulk(out, b"0");
            push_array_header(out, 0);
        }
        _ => return Verdict::Ask,
    }
    Verdict::Said
}

fn wrong_type(out: &mut Vec<u8>) -> Option<()> {
    push_error(out, WRONG_TYPE);
    Some(())
}

fn is_of_strings(name: &str) -> bool {
    matches!(name, "get" | "getex" | "getrange" | "substr" | "strlen" | "getbit" | "bitcount" | "bitpos")
}

fn is_of_hashes(name: &str) -> bool {
    matches!(
        name,
        "hget" | "hmget" | "hgetall" | "hkeys" | "hvals" | "hlen" | "hexists" | "hstrlen" | "hscan"
    )
}

/// A number as Redis reads it in an argument.
fn integer(args: &Args<'_>, at: usize) -> Option<i64> {
    let text = std::str::from_utf8(args.get(at)?).ok()?;
    // Only the spelling that Redis writes itself: no plus, no leading zeros.
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

fn of_string(name: &str, args: &Args<'_>, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match name {
        "get" | "getex" => push_bulk(out, text),
        "strlen" => push_integer(out, text.len() as i64),
        "getrange" | "substr" => {
            let (start, end) = (integer(args, 2)?, integer(args, 3)?);
            push_bulk(
                out,
                range(text.len(), start, end).and_then(|(a, b)| text.get(a..=b)).unwrap_or_default(),
            );
        }
        "getbit" => {
            let offset = usize::try_from(integer(args, 2)?).ok().filter(|offset| *offset < 1 << 32)?;
            let byte = text.get(offset / 8).copied().unwrap_or_default();
            push_integer(out, i64::from(byte >> (7 - offset % 8) & 1));
        }
        "bitcount" => push_integer(out, bit_count(args, text)?),
        _ => push_integer(out, bit_position(args, text)?),
    }
    Some(())
}

/// First and last position of a range as `GETRANGE` counts it; `None` when it is empty.
fn range(length: usize, start: i64, end: i64) -> Option<(usize, usize)> {
    let length = i64::try_from(length).ok()?;
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let place = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at };
    let (start, end) = (place(start), place(end).min(length - 1));
    (length > 0 && start <= end).then_some((start as usize, end as usize))
}

/// The bits of a range of `BITCOUNT` and `BITPOS`, first and last; `Some(None)` when it is empty. The unit is the argument
/// behind the range.
fn bits(
    args: &Args<'_>,
    text: &[u8],
    start: i64,
    end: Option<i64>,
    unit: usize,
) -> Option<Option<(usize, usize)>> {
    let in_bits = match args.get(unit) {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"bit") => true,
        Some(word) if word.eq_ignore_ascii_case(b"byte") => false,
        Some(_) => return None,
    };
    if args.len() > unit + 1 {
        return None;
    }
    let length = if in_bits { text.len() * 8 } else { text.len() };
    let found = range(length, start, end.unwrap_or(-1));
    Some(found.map(|(a, b)| if in_bits { (a, b) } else { (a * 8, b * 8 + 7) }))
}

fn bit(text: &[u8], at: usize) -> bool {
    text.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1)
}

fn bit_count(args: &Args<'_>, text: &[u8]) -> Option<i64> {
    let ones = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(byte.count_ones())).sum();
    if args.len() == 2 {
        return Some(ones(text));
    }
    let (start, end) = (integer(args, 2)?, integer(args, 3)?);
    Some(match bits(args, text, start, Some(end), 4)? {
        None => 0,
        Some((a, b)) if a % 8 == 0 && b % 8 == 7 => ones(text.get(a / 8..=b / 8)?),
        Some((a, b)) => (a..=b).filter(|at| bit(text, *at)).count() as i64,
    })
}

fn bit_position(args: &Args<'_>, text: &[u8]) -> Option<i64> {
    let wanted = match args.get(2)? {
        b"0" => false,
        b"1" => true,
        _ => return None,
    };
    let start = if args.len() > 3 { integer(args, 3)? } else { 0 };
    let end = if args.len() > 4 { Some(integer(args, 4)?) } else { None };
    let Some((a, b)) = bits(args, text, start, end, 5)? else { return Some(-1) };
    // Whole bytes without the bit are passed over.
    let skip: u8 = if wanted { 0 } else { 0xFF };
    let mut at = a;
    while at <= b {
        if at % 8 == 0 && at + 7 <= b && text.get(at / 8) == Some(&skip) {
            at += 8;
        } else if bit(text, at) == wanted {
            return Some(at as i64);
        } else {
            at += 1;
        }
    }
    // A string without end is followed by zeros.
    Some(if !wanted && end.is_none() { text.len() as i64 * 8 } else { -1 })
}

fn of_hash(
    name: &str,
    args: &Args<'_>,
    fields: &[(Bytes, Bytes)],
    protocol: u8,
    out: &mut Vec<u8>,
) -> Option<()> {
    let value = |at: usize| {
        let wanted = args.get(at)?;
        fields.iter().find(|(field, _)| field == wanted).map(|(_, value)| value)
    };
    let value_or_nil = |out: &mut Vec<u8>, at: usize| match value(at) {
        Some(value) => push_bulk(out, value),
        None => push_nil(out, protocol),
    };
    match name {
        "hget" => value_or_nil(out, 2),
        "hmget" => {
            push_array_header(out, args.len() - 2);
            (2..args.len()).for_each(|at| value_or_nil(out, at));
        }
        "hlen" => push_integer(out, fields.len() as i64),
        "hexists" => push_integer(out, i64::from(value(2).is_some())),
        "hstrlen" => push_integer(out, value(2).map_or(0, |value| value.len() as i64)),
        "hkeys" => {
            push_array_header(out, fields.len());
            fields.iter().for_each(|(field, _)| push_bulk(out, field));
        }
        "hvals" => {
            push_array_header(out, fields.len());
            fields.iter().for_each(|(_, value)| push_bulk(out, value));
        }
        "hgetall" => {
            match protocol {
                3 => out.extend_from_slice(format!("%{}\r\n", fields.len()).as_bytes()),
                _ => push_array_header(out, fields.len() * 2),
            }
            push_pairs(out, fields.iter());
        }
        _ => scan(args, fields, out)?,
    }
    Some(())
}

fn push_pairs<'f>(out: &mut Vec<u8>, pairs: impl Iterator<Item = &'f (Bytes, Bytes)>) {
    for (field, value) in pairs {
        push_bulk(out, field);
        push_bulk(out, value);
    }
}

/// `HSCAN key cursor [MATCH pattern] [COUNT n]`: all at once, as Redis does for a small hash.
fn scan(args: &Args<'_>, fields: &[(Bytes, Bytes)], out: &mut Vec<u8>) -> Option<()> {
    std::str::from_utf8(args.get(2)?).ok()?.parse::<u64>().ok()?;
    let mut pattern = None;
    let mut at = 3;
    while at < args.len() {
        let (option, given) = (args.get(at)?, args.get(at + 1)?);
        if option.eq_ignore_ascii_case(b"match") {
            pattern = Some(given);
        } else if !option.eq_ignore_ascii_case(b"count") || integer(args, at + 1)? < 1 {
            return None;
        }
        at += 2;
    }
    let matching =
        || fields.iter().filter(|(field, _)| pattern.is_none_or(|pattern| glob::matches(pattern, field)));
    push_array_header(out, 2);
    push_bulk(out, b"0");
    push_array_header(out, matching().count() * 2);
    push_pairs(out, matching());
    Some(())
}

/// Whether a reply says what Redis says when the key is absent, though it may say it of a key that is there, too.
pub(in crate::core) fn may_be_absent(reply: &[u8]) -> bool {
    match reply.first() {
        Some(b':') => matches!(reply, b":0\r\n" | b":-2\r\n"),
        Some(b'+') => reply == b"+none\r\n",
        Some(b'$') => reply == b"$0\r\n\r\n" || reply == b"$-1\r\n",
        Some(b'*' | b'%' | b'~') => says_nothing(reply),
        Some(b'_') => true,
        _ => false,
    }
}

/// An empty aggregate, one of nothing but nils or zeros, an empty page of a scan, or the matches of `LCS` when there are none.
fn says_nothing(reply: &[u8]) -> bool {
    let Some(end) = memchr::memchr(b'\n', reply) else { return false };
    let body = reply.get(end + 1..).unwrap_or_default();
    let nils = body.chunks(5).all(|nil| nil == b"$-1\r\n") || body.chunks(3).all(|nil| nil == b"_\r\n");
    let zeros = body.chunks(4).all(|zero| zero == b":0\r\n");
    nils || zeros || body == b"$1\r\n0\r\n*0\r\n" || body == b"$7\r\nmatches\r\n*0\r\n$3\r\nlen\r\n:0\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{RequestLimits, RequestScanner, push_command};

    fn said(line: &str, value: &Loaded, protocol: u8) -> Option<String> {
        let mut request = Vec::new();
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        push_command(&mut request, words.iter().copied());
        let mut scanner = RequestScanner::default();
        let _ = scanner.scan(&request, &RequestLimits::default());
        let (args, mut out) = (Args::new(&request, scanner.spans()), Vec::new());
        let name = String::from_utf8_lossy(args.name()).to_lowercase();
        (evaluate(&name, &args, value, protocol, &mut out) == Verdict::Said)
            .then(|| String::from_utf8_lossy(&out).replace("\r\n", " "))
    }

    /// Strings are held against a real server in tests/data_path/reading.rs, byte for byte.
    #[test]
    fn hashes_in_both_dialects() {
        let hash = Loaded::Hash(vec![("id".into(), "7".into()), ("name".into(), "Ada".into())]);
        let two = |line: &str| said(line, &hash, 2).unwrap_or_default();
        assert_eq!(two("HGET k name"), "$3 Ada ");
        assert_eq!(two("HGET k nosuch"), "$-1 ");
        assert_eq!(said("HGET k nosuch", &hash, 3).as_deref(), Some("_ "));
        assert_eq!(two("HMGET k name x id"), "*3 $3 Ada $-1 $1 7 ");
        assert_eq!(two("HGETALL k"), "*4 $2 id $1 7 $4 name $3 Ada ");
        assert_eq!(said("HGETALL k", &hash, 3).as_deref(), Some("%2 $2 id $1 7 $4 name $3 Ada "));
        assert_eq!(
            (two("HLEN k"), two("HEXISTS k id"), two("HEXISTS k x")),
            (":2 ".into(), ":1 ".into(), ":0 ".into())
        );
        assert_eq!((two("HKEYS k"), two("HVALS k")), ("*2 $2 id $4 name ".into(), "*2 $1 7 $3 Ada ".into()));
        assert_eq!((two("HSTRLEN k name"), two("HSTRLEN k x")), (":3 ".into(), ":0 ".into()));
        assert_eq!(two("HSCAN k 0 MATCH n* COUNT 1"), "*2 $1 0 *2 $4 name $3 Ada ");
        assert_eq!(two("TYPE k"), "+hash ");
        assert!(two("GET k").starts_with("-WRONGTYPE") && two("STRLEN k").starts_with("-WRONGTYPE"));
        for line in
            ["HSCAN k 0 COUNT 0", "HSCAN k x", "HSCAN k 0 MATCH", "HRANDFIELD k", "LLEN k", "OBJECT k"]
        {
            assert_eq!(said(line, &hash, 2), None, "{line}");
        }
        assert!(
            said("HGET k a", &Loaded::Value("x".into()), 2)
                .is_some_and(|text| text.starts_with("-WRONGTYPE"))
        );
    }

    #[test]
    fn what_may_be_said_of_an_absent_key() {
        let absent = [
            ":0\r\n",
            ":-2\r\n",
            "+none\r\n",
            "$-1\r\n",
            "$0\r\n\r\n",
            "_\r\n",
            "*0\r\n",
            "%0\r\n",
            "*2\r\n$-1\r\n$-1\r\n",
            "*2\r\n_\r\n_\r\n",
            "*2\r\n$1\r\n0\r\n*0\r\n",
            "*1\r\n:0\r\n",
        ];
        absent.iter().for_each(|reply| assert!(may_be_absent(reply.as_bytes()), "{reply:?}"));
        let there = [
            ":1\r\n",
            ":-1\r\n",
            "+string\r\n",
            "$1\r\n0\r\n",
            "*1\r\n:1\r\n",
            "*2\r\n$-1\r\n$1\r\na\r\n",
            "+OK\r\n",
            "-ERR\r\n",
            "",
        ];
        there.iter().for_each(|reply| assert!(!may_be_absent(reply.as_bytes()), "{reply:?}"));
    }
}
