//! Turns a loaded row into the fields of a Redis hash.
//!
//! Must not know: tables, how the row was loaded.
//!
//! A row is loaded as one JSON object whatever the mapping's format, so each column looks in a hash as it does in JSON:
//! numbers with every digit, times in RFC 3339, `true` and `false`; a text without its quotes, and nothing for NULL.

use bytes::Bytes;

use super::document::parse_object;

/// The fields of `row`, a JSON object, in their order; a NULL has none. An error is a message.
pub fn fields_of(row: &[u8]) -> Result<Vec<(Bytes, Bytes)>, String> {
    let row = std::str::from_utf8(row).map_err(|_| "the row is no UTF-8".to_owned())?;
    let mut fields = Vec::new();
    for (name, raw) in parse_object(row)? {
        let json = raw.get();
        let text = match json.as_bytes().first() {
            Some(b'n') => continue,
            Some(b'"') => serde_json::from_str::<String>(json).map_err(|error| error.to_string())?.into(),
            _ => Bytes::copy_from_slice(json.as_bytes()),
        };
        fields.push((Bytes::from(name), text));
    }
    Ok(fields)
}

/// The fields of a hash as the document that [`fields_of`] reads back; every value is a text in it.
pub fn document_of(fields: &[(Bytes, Bytes)]) -> Bytes {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let members = fields.iter().map(|(name, value)| {
        let quoted = |text: String| serde_json::Value::String(text).to_string();
        format!("{}:{}", quoted(text(name)), quoted(text(value)))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(",")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_look_as_they_do_in_json_but_for_quotes_and_null() {
        let row = r#"{"id":9007199254740993,"name":"A\u00e4\n\"x\"","ok":true,"gone":null,"price":1.50,"tags":["a",1],"empty":""}"#;
        let fields = fields_of(row.as_bytes()).unwrap();
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let shown: Vec<_> = fields.iter().map(|(name, value)| (text(name), text(value))).collect();
        let want = [
            ("id", "9007199254740993"),
            ("name", "A\u{e4}\n\"x\""),
            ("ok", "true"),
            ("price", "1.50"),
            ("tags", r#"["a",1]"#),
            ("empty", ""),
        ];
        assert_eq!(shown, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(fields_of(&document_of(&fields)), Ok(fields));
        assert!(fields_of(b"[1]").is_err() && fields_of(b"\xff").is_err());
    }
}
