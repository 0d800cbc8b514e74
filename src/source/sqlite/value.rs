//! Values between texts, JSON and SQLite's storage classes.
//!
//! Must not know: statements.
//!
//! SQLite types values, not columns. A column's declared type says what is meant: integers go in as integers, `boolean`
//! as 0 and 1, `blob` as bytes (`\x` and hex digits outside), `json` as its text; the rest is text. What comes out is
//! written by its storage class, but for booleans, blobs and JSON.

use rusqlite::types::{Value, ValueRef};

use crate::mapping::ColumnType;
use crate::source::error::SourceError;

/// The type that a declared type stands for. SQLite takes any name; its own rules of affinity decide where ours do not.
pub(super) fn column_type(declared: &str) -> ColumnType {
    let name = declared.trim().to_ascii_lowercase();
    let (base, length) = match name.split_once('(') {
        Some((base, rest)) => (base.trim(), rest.trim_end_matches(')').trim().parse::<u32>().ok()),
        None => (name.as_str(), None),
    };
    match base {
        "boolean" | "bool" => ColumnType::Bool,
        "json" | "jsonb" => ColumnType::Json,
        "uuid" => ColumnType::Uuid,
        "date" => ColumnType::Date,
        "datetime" | "timestamp" => ColumnType::Timestamp,
        "timestamptz" => ColumnType::Timestamptz,
        "varchar" | "character varying" | "char" | "character" | "nvarchar" => {
            length.map_or(ColumnType::Text, ColumnType::Varchar)
        }
        // https://www.sqlite.org/datatype3.html section 3.1, in its order.
        base if base.contains("int") => ColumnType::BigInt,
        base if ["char", "clob", "text"].iter().any(|part| base.contains(part)) => ColumnType::Text,
        base if base.contains("blob") => ColumnType::Bytea,
        // Numeric is a float or an integer here: SQLite has no exact decimals.
        base if ["real", "floa", "doub", "numeric", "decimal"].iter().any(|part| base.contains(part)) => {
            ColumnType::Double
        }
        _ => ColumnType::Text,
    }
}

/// The value to be stored for a checked text.
pub(super) fn of_text(ty: &ColumnType, text: Option<&str>) -> Result<Value, SourceError> {
    let Some(text) = text else { return Ok(Value::Null) };
    let unfit = || SourceError::bad_data("22P02", format!("a value does not fit its column of type {ty}"));
    Ok(match ty {
        ColumnType::BigInt | ColumnType::Int | ColumnType::SmallInt => {
            Value::Integer(text.parse().map_err(|_| unfit())?)
        }
        ColumnType::Double | ColumnType::Real => match text {
            "NaN" => {
                let message = "SQLite cannot store NaN: it would become NULL";
                return Err(SourceError::bad_data("22003", message));
            }
            "Infinity" => Value::Real(f64::INFINITY),
            "-Infinity" => Value::Real(f64::NEG_INFINITY),
            text => match text.parse::<i64>() {
                // Whole numbers keep every digit where the column's affinity allows it.
                Ok(whole) => Value::Integer(whole),
                Err(_) => Value::Real(text.parse().map_err(|_| unfit())?),
            },
        },
        ColumnType::Bool => Value::Integer(i64::from(matches!(text, "true" | "t" | "1" | "on" | "yes"))),
        ColumnType::Bytea => Value::Blob(bytes(text).ok_or_else(unfit)?),
        _ => Value::Text(text.to_owned()),
    })
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let hex = text.strip_prefix("\\x")?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    hex.chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 + 2 * bytes.len());
    out.push_str("\\x");
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    out
}

fn real(value: f64) -> String {
    match value {
        value if value.is_finite() => {
            serde_json::Number::from_f64(value).map_or("0".into(), |n| n.to_string())
        }
        value if value > 0.0 => "Infinity".into(),
        _ => "-Infinity".into(),
    }
}

fn utf8(text: &[u8]) -> Result<&str, SourceError> {
    std::str::from_utf8(text).map_err(|_| SourceError::bad_data("22021", "a stored text is not valid UTF-8"))
}

/// The text of a value; `None` for NULL.
pub(super) fn to_text(ty: &ColumnType, value: ValueRef<'_>) -> Result<Option<String>, SourceError> {
    Ok(Some(match value {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(n @ (0 | 1)) if *ty == ColumnType::Bool => (n == 1).to_string(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(value) => real(value),
        ValueRef::Text(text) => utf8(text)?.to_owned(),
        ValueRef::Blob(bytes) => hex(bytes),
    }))
}

/// Appends a value as JSON.
pub(super) fn push_json(out: &mut String, ty: &ColumnType, value: ValueRef<'_>) -> Result<(), SourceError> {
    match value {
        ValueRef::Text(text) if *ty == ColumnType::Json => {
            let text = utf8(text)?;
            // What is no JSON after all is shown as the text that it is.
            match serde_json::from_str::<&serde_json::value::RawValue>(text) {
                Ok(json) => out.push_str(json.get()),
                Err(_) => push_string(out, text),
            }
        }
        ValueRef::Text(text) => push_string(out, utf8(text)?),
        ValueRef::Real(value) if !value.is_finite() => push_string(out, &real(value)),
        ValueRef::Blob(bytes) => push_string(out, &hex(bytes)),
        value => out.push_str(to_text(ty, value)?.as_deref().unwrap_or("null")),
    }
    Ok(())
}

/// Appends a JSON string.
pub(super) fn push_string(out: &mut String, text: &str) {
    // Writing a str as JSON cannot fail.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_are_understood() {
        for (declared, ty) in [
            ("INTEGER", ColumnType::BigInt),
            ("bigint", ColumnType::BigInt),
            ("VARCHAR(20)", ColumnType::Varchar(20)),
            ("nvarchar", ColumnType::Text),
            ("DOUBLE PRECISION", ColumnType::Double),
            ("DECIMAL(10,2)", ColumnType::Double),
            ("BOOLEAN", ColumnType::Bool),
            ("DATETIME", ColumnType::Timestamp),
            ("BLOB", ColumnType::Bytea),
            ("json", ColumnType::Json),
            ("", ColumnType::Text),
            ("whatever", ColumnType::Text),
        ] {
            assert_eq!(column_type(declared), ty, "{declared}");
        }
    }

    #[test]
    fn bytes_are_hex_outside() {
        assert_eq!(of_text(&ColumnType::Bytea, Some("\\x00fF")).unwrap(), Value::Blob(vec![0, 255]));
        assert_eq!(to_text(&ColumnType::Bytea, ValueRef::Blob(&[0, 255])).unwrap().unwrap(), "\\x00ff");
        assert!(of_text(&ColumnType::Bytea, Some("\\x0")).is_err());
        assert!(of_text(&ColumnType::Double, Some("NaN")).is_err());
    }
}
