//! Turns one JSON value, or one text, into the text that Postgres casts to a column's type.
//!
//! Must not know: rows, which column or mapping it works for (the caller adds the names to the message).
//!
//! Whatever can be known to fail at the database fails here, so that a client hears of it while it still waits.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::order;
use super::schema::ColumnType;

type Checked<T> = Result<T, String>;

/// The database text of a JSON value, `None` for null. The message of an error does not repeat the value.
pub(super) fn from_json(ty: &ColumnType, raw: &RawValue) -> Checked<Option<Box<str>>> {
    let json = raw.get();
    if json == "null" {
        return Ok(None);
    }
    let text: Cow<'_, str> = match ty {
        ColumnType::Json | ColumnType::Jsonb => Cow::Borrowed(json),
        ColumnType::Array(of) => Cow::Owned(array_literal(of, raw)?.0),
        ColumnType::Bool => match json {
            "true" | "false" => Cow::Borrowed(json),
            _ => return Err(format!("expects true or false, not {}", kind(json))),
        },
        ColumnType::SmallInt | ColumnType::Int | ColumnType::BigInt => match kind(json) {
            "a number" => Cow::Borrowed(json),
            other => return Err(format!("expects an integer, not {other}")),
        },
        ColumnType::Numeric(_) | ColumnType::Real | ColumnType::Double => match kind(json) {
            "a number" => Cow::Borrowed(json),
            // JSON has no number for these; Postgres renders them as text too.
            "a string" if ["\"NaN\"", "\"Infinity\"", "\"-Infinity\""].contains(&json) => {
                Cow::Borrowed(json.trim_matches('"'))
            }
            other => return Err(format!("expects a number, not {other}")),
        },
        _ => match kind(json) {
            "a string" => Cow::Owned(unescape(json)?),
            other => return Err(format!("expects a string ({ty}), not {other}")),
        },
    };
    check_text(ty, &text)?;
    Ok(Some(text.into()))
}

/// Checks a text that is to be cast to `ty`.
pub(super) fn check_text(ty: &ColumnType, text: &str) -> Checked<()> {
    if text.contains('\0') {
        return Err("contains a NUL character, which Postgres cannot store".into());
    }
    match ty {
        ColumnType::SmallInt => integer(text, i64::from(i16::MIN), i64::from(i16::MAX), ty),
        ColumnType::Int => integer(text, i64::from(i32::MIN), i64::from(i32::MAX), ty),
        ColumnType::BigInt => integer(text, i64::MIN, i64::MAX, ty),
        ColumnType::Numeric(limit) => numeric(text, *limit),
        ColumnType::Real => float(text, f64::from(f32::MAX), f64::from(f32::from_bits(1)), ty),
        ColumnType::Double => float(text, f64::MAX, f64::from_bits(1), ty),
        ColumnType::Bool => {
            let known = ["true", "false", "t", "f", "1", "0", "on", "off", "yes", "no"];
            ensure(known.contains(&text), || "is not a boolean (true or false)".into())
        }
        ColumnType::Varchar(n) => {
            // Postgres cuts trailing blanks that do not fit, and nothing else.
            let length = text.trim_end_matches(' ').chars().count();
            ensure(length <= *n as usize, || format!("has {length} characters, {n} fit"))
        }
        ColumnType::Uuid => ensure(is_uuid(text), || "is not a UUID".into()),
        ColumnType::Bytea => {
            ensure(is_hex_bytes(text), || "is not bytes in hex form (\\x and pairs of hex digits)".into())
        }
        ColumnType::Date => ensure(order::parse_date(text).is_some(), || "is not a date (YYYY-MM-DD)".into()),
        ColumnType::Timestamp | ColumnType::Timestamptz => {
            ensure(order::parse_timestamp(text).is_some(), || {
                "is not a time in RFC 3339 form (2024-05-17T09:30:00Z)".into()
            })
        }
        ColumnType::Json | ColumnType::Jsonb => json(ty, text),
        ColumnType::Enum(labels) => {
            ensure(labels.iter().any(|l| l == text), || format!("is not one of: {}", labels.join(", ")))
        }
        ColumnType::Text | ColumnType::Array(_) | ColumnType::Other => Ok(()),
    }
}

fn ensure(ok: bool, message: impl FnOnce() -> String) -> Checked<()> {
    if ok { Ok(()) } else { Err(message()) }
}

/// What a JSON text is, in the words of a message.
fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn unescape(json: &str) -> Checked<String> {
    serde_json::from_str(json).map_err(|_| "is not valid text (a lone surrogate?)".to_owned())
}

fn integer(text: &str, min: i64, max: i64, ty: &ColumnType) -> Checked<()> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    ensure(!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()), || "is not an integer".into())?;
    let fits = text.parse::<i64>().is_ok_and(|n| (min..=max).contains(&n));
    ensure(fits, || format!("is out of range for {ty} ({min} to {max})"))
}

fn is_number(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    !whole.is_empty()
        && !fraction.is_empty()
        && !exponent.is_empty()
        && digits(whole)
        && digits(fraction)
        && digits(exponent)
}

fn special(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity")
}

fn float(text: &str, max: f64, min: f64, ty: &ColumnType) -> Checked<()> {
    if special(text) {
        return Ok(());
    }
    ensure(is_number(text), || "is not a number".into())?;
    let value = text.parse::<f64>().unwrap_or(f64::INFINITY).abs();
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let zero = !mantissa.bytes().any(|b| matches!(b, b'1'..=b'9'));
    ensure(zero || (value <= max && value >= min), || format!("is out of range for {ty}"))
}

/// Digits of a numeric before the decimal point: 131,072 in Postgres (documentation, "Numeric Types").
const NUMERIC_DIGITS: i64 = 131_072;

fn numeric(text: &str, limit: Option<(u16, u16)>) -> Checked<()> {
    if text == "NaN" || (special(text) && limit.is_none()) {
        return Ok(());
    }
    ensure(is_number(text), || "is not a number".into())?;
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 =
        exponent.parse().ok().filter(|e: &i64| e.abs() < 100_000).ok_or("has too large an exponent")?;
    let whole = mantissa.trim_start_matches(['-', '+']).split('.').next().unwrap_or_default();
    let point = whole.len() as i64 + exponent;
    let digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
    let Some(first) = digits.iter().position(|d| *d != b'0') else { return Ok(()) };
    let before_point = point - first as i64;
    let room = limit.map_or(NUMERIC_DIGITS, |(precision, scale)| i64::from(precision) - i64::from(scale));
    ensure(before_point <= room, || format!("has {before_point} digits before the decimal point, {room} fit"))
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|g| g.len()).collect();
    (lengths == [8, 4, 4, 4, 12] || lengths == [32])
        && groups.iter().all(|g| g.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_hex_bytes(text: &str) -> bool {
    text.strip_prefix("\\x")
        .is_some_and(|hex| hex.len() % 2 == 0 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn json(ty: &ColumnType, text: &str) -> Checked<()> {
    serde_json::from_str::<&RawValue>(text).map_err(|_| "is not valid JSON".to_owned())?;
    // `json` keeps the text as it is; `jsonb` decodes it, which \u0000 and lone surrogates do not survive.
    if *ty == ColumnType::Jsonb { decodable_escapes(text) } else { Ok(()) }
}

fn decodable_escapes(text: &str) -> Checked<()> {
    let hex = |at: usize| text.get(at..at + 4).and_then(|h| u32::from_str_radix(h, 16).ok()).unwrap_or(0);
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(step) = memchr::memchr(b'\\', &bytes[at..]) {
        at += step + 2; // past the backslash and what it escapes
        if bytes.get(at - 1) != Some(&b'u') {
            continue;
        }
        let unit = hex(at);
        at += 4;
        match unit {
            0 => return Err("contains \\u0000, which jsonb cannot store".into()),
            0xD800..=0xDBFF
                if bytes.get(at..at + 2) == Some(b"\\u") && (0xDC00..=0xDFFF).contains(&hex(at + 2)) =>
            {
                at += 6
            }
            0xD800..=0xDFFF => return Err("contains a lone surrogate, which jsonb cannot store".into()),
            _ => {}
        }
    }
    Ok(())
}

/// `{"a","b",NULL}` and the length of each dimension. Every element is quoted, so its text needs no second look.
fn array_literal(of: &ColumnType, raw: &RawValue) -> Checked<(String, Vec<usize>)> {
    let elements: Vec<&RawValue> = serde_json::from_str(raw.get())
        .map_err(|_| format!("expects an array of {of}, not {}", kind(raw.get())))?;
    let nested = |element: &&RawValue| {
        element.get().starts_with('[') && !matches!(of, ColumnType::Json | ColumnType::Jsonb)
    };
    let mut out = String::from("{");
    let mut inner: Option<Vec<usize>> = None;
    for (i, element) in elements.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let dimensions = if nested(element) {
            let (literal, dimensions) = array_literal(of, element)?;
            out.push_str(&literal);
            dimensions
        } else {
            let value = from_json(of, element).map_err(|e| format!("has an element that {e}"))?;
            push_element(&mut out, value.as_deref());
            Vec::new()
        };
        if inner.get_or_insert_with(|| dimensions.clone()) != &dimensions {
            return Err("is an array whose inner arrays differ in length".into());
        }
    }
    out.push('}');
    let mut dimensions = vec![elements.len()];
    dimensions.extend(inner.unwrap_or_default());
    ensure(dimensions.len() == 1 || !dimensions.contains(&0), || "has an empty inner array".into())?;
    Ok((out, dimensions))
}

fn push_element(out: &mut String, value: Option<&str>) {
    let Some(value) = value else { return out.push_str("NULL") };
    out.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(ty: &ColumnType, json: &str) -> Checked<Option<Box<str>>> {
        from_json(ty, serde_json::from_str(json).unwrap())
    }

    fn good(ty: &ColumnType, json: &str, text: &str) {
        assert_eq!(convert(ty, json).unwrap().as_deref(), Some(text), "{json}");
    }

    fn bad(ty: &ColumnType, json: &str, message: &str) {
        let error = convert(ty, json).expect_err(json);
        assert!(error.contains(message), "{json}: {error}");
    }

    #[test]
    fn numbers_keep_every_digit_and_know_their_range() {
        good(&ColumnType::BigInt, "9007199254740993", "9007199254740993");
        bad(&ColumnType::BigInt, "9223372036854775808", "out of range for bigint");
        bad(&ColumnType::Int, "2147483648", "out of range for integer");
        bad(&ColumnType::Int, "1.0", "not an integer");
        bad(&ColumnType::Int, "1e3", "not an integer");
        bad(&ColumnType::Int, "\"1\"", "expects an integer, not a string");
        let price = ColumnType::Numeric(Some((6, 2)));
        good(&price, "1234.567", "1234.567");
        good(&price, "12e2", "12e2");
        good(&price, "0.00000000001", "0.00000000001");
        bad(&price, "12345", "5 digits before the decimal point, 4 fit");
        bad(&price, "1e9", "digits before the decimal point");
        bad(&price, "\"Infinity\"", "not a number");
        good(
            &ColumnType::Numeric(None),
            "3.14159265358979323846264338327950288",
            "3.14159265358979323846264338327950288",
        );
        good(&ColumnType::Double, "\"NaN\"", "NaN");
        bad(&ColumnType::Double, "1e400", "out of range");
        bad(&ColumnType::Real, "1e39", "out of range");
        good(&ColumnType::Double, "0e999", "0e999");
    }

    #[test]
    fn texts_and_their_kin() {
        good(&ColumnType::Text, r#""a\"b\u00e4\ud83d\ude00""#, "a\"bä😀");
        bad(&ColumnType::Text, r#""a\u0000""#, "NUL");
        bad(&ColumnType::Text, r#""\ud800""#, "not valid text");
        bad(&ColumnType::Text, "5", "expects a string (text), not a number");
        bad(&ColumnType::Varchar(3), "\"äöüx\"", "has 4 characters, 3 fit");
        good(&ColumnType::Varchar(3), "\"abc  \"", "abc  ");
        good(
            &ColumnType::Uuid,
            "\"123E4567-e89b-12d3-a456-426614174000\"",
            "123E4567-e89b-12d3-a456-426614174000",
        );
        bad(&ColumnType::Uuid, "\"123\"", "not a UUID");
        good(&ColumnType::Bytea, r#""\\x00ff""#, "\\x00ff");
        bad(&ColumnType::Bytea, "\"00f\"", "hex form");
        bad(&ColumnType::Timestamptz, "\"yesterday\"", "RFC 3339");
        bad(&ColumnType::Date, "\"2024-02-30\"", "not a date");
        bad(&ColumnType::Bool, "1", "expects true or false, not a number");
        let mood = ColumnType::Enum(vec!["sad".into(), "ok".into()]);
        bad(&mood, "\"glad\"", "not one of: sad, ok");
    }

    #[test]
    fn json_and_arrays() {
        good(&ColumnType::Jsonb, r#"{"a":[1,"\\u0000"]}"#, r#"{"a":[1,"\\u0000"]}"#);
        bad(&ColumnType::Jsonb, r#"{"a":"\u0000"}"#, "\\u0000");
        bad(&ColumnType::Jsonb, r#"["\ud83d x"]"#, "lone surrogate");
        good(&ColumnType::Jsonb, r#"["\ud83d\ude00"]"#, r#"["\ud83d\ude00"]"#);
        good(&ColumnType::Json, r#"["\u0000"]"#, r#"["\u0000"]"#);
        let array = |ty| ColumnType::Array(Box::new(ty));
        good(&array(ColumnType::Text), r#"["a","b\"\\,{}",null,""]"#, r#"{"a","b\"\\,{}",NULL,""}"#);
        good(&array(ColumnType::Int), "[[1,2],[3,4]]", r#"{{"1","2"},{"3","4"}}"#);
        good(&array(ColumnType::Int), "[]", "{}");
        bad(&array(ColumnType::Int), "[[1],[2,3]]", "differ in length");
        bad(&array(ColumnType::Int), "[1,\"x\"]", "has an element that expects an integer");
        bad(&array(ColumnType::Int), "{}", "expects an array of integer, not an object");
        good(&array(ColumnType::Jsonb), r#"[{"a":1},[2]]"#, r#"{"{\"a\":1}","[2]"}"#);
        assert_eq!(convert(&ColumnType::Jsonb, "null").unwrap(), None);
    }
}
