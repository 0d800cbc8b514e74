//! Reads the query of a URL.
//!
//! Must not know: which parameters there are.

use super::error::ApiError;

/// All pairs of `query`, decoded.
pub fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, ApiError> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let decoded = pairs.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(key)?, decode(value)?))
    });
    decoded.collect()
}

/// Decodes a segment of a path, where `+` is a plus.
pub fn decode_path(segment: &str) -> Result<String, ApiError> {
    decode(&segment.replace('+', "%2B"))
}

/// The value of the one parameter `name` of `query`. Anything else in the query is refused: an ignored parameter hides a
/// typing mistake.
pub fn only_parameter(query: Option<&str>, name: &str) -> Result<String, ApiError> {
    let mut found = None;
    for (key, value) in pairs(query)? {
        if key != name {
            return Err(ApiError::Malformed(format!("unknown parameter {key:?}: expected `{name}`")));
        }
        if found.replace(value).is_some() {
            return Err(ApiError::Malformed(format!("the parameter `{name}` is given twice")));
        }
    }
    match found {
        Some(value) if value.is_empty() => {
            Err(ApiError::Malformed(format!("the parameter `{name}` is empty")))
        }
        Some(value) if value.contains('\0') => {
            Err(ApiError::Malformed(format!("the parameter `{name}` has a NUL character")))
        }
        Some(value) => Ok(value),
        None => Err(ApiError::Malformed(format!("the parameter `{name}` is missing"))),
    }
}

/// Decodes `%41` to `A` and `+` to a space. The result has to be UTF-8.
fn decode(text: &str) -> Result<String, ApiError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                match (digit(bytes.next()), digit(bytes.next())) {
                    // Two hexadecimal digits are at most 255.
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => {
                        return Err(ApiError::Malformed(
                            "% is not followed by two hexadecimal digits".to_owned(),
                        ));
                    }
                }
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| ApiError::Malformed("the URL is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_the_parameter() {
        let read = |query| only_parameter(Some(query), "user_id");
        assert_eq!(read("user_id=user1"), Ok("user1".to_owned()));
        assert_eq!(read("user%5Fid=a+b%2Bc%26%C3%A9&"), Ok("a b+c&\u{e9}".to_owned()));
        assert_eq!(read("user_id=a=b"), Ok("a=b".to_owned()));
    }

    #[test]
    fn refuses_everything_else() {
        for query in [
            "",
            "user_id",
            "user_id=",
            "user_id=1&user_id=2",
            "user=1",
            "user_id=1&x=2",
            "user_id=%",
            "user_id=%4",
        ] {
            assert!(only_parameter(Some(query), "user_id").is_err(), "{query}");
        }
        for query in ["user_id=%zz", "user_id=%+1", "user_id=%FF", "user_id=%C3"] {
            assert!(only_parameter(Some(query), "user_id").is_err(), "{query}");
        }
        assert!(only_parameter(None, "user_id").is_err());
    }
}
