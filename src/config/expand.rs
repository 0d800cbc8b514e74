//! Variables in the file: `"${NAME}"` and `"${NAME:-default}"` become what the environment says.
//!
//! Must not know: settings.

use super::environment::Environment;
use toml::Spanned;
use toml::de::DeValue;

/// A value of the file after its variables have been put in.
pub enum Expanded<'v> {
    /// It names none.
    Same,
    /// A text that did: typed afterwards, as the text of an environment variable is.
    Text(String),
    /// A list or a table with such texts inside.
    Inside(DeValue<'v>),
}

/// Puts the variables of `environment` into a value.
///
/// # Errors
/// What is wrong with a variable; never its value.
pub fn expand<'v>(value: &DeValue<'v>, environment: &Environment) -> Result<Expanded<'v>, String> {
    Ok(match value {
        DeValue::String(text) if text.contains("${") => Expanded::Text(text_of(text, environment)?),
        DeValue::Array(_) | DeValue::Table(_) if names_any(value) => {
            Expanded::Inside(inside(value.clone(), environment)?)
        }
        _ => Expanded::Same,
    })
}

fn names_any(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::String(text) => text.contains("${"),
        DeValue::Array(array) => array.iter().any(|element| names_any(element.get_ref())),
        DeValue::Table(table) => table.iter().any(|(_, value)| names_any(value.get_ref())),
        _ => false,
    }
}

fn inside<'i>(mut value: DeValue<'i>, environment: &Environment) -> Result<DeValue<'i>, String> {
    let replace = |slot: &mut Spanned<DeValue<'i>>| -> Result<(), String> {
        let taken = std::mem::replace(slot.get_mut(), DeValue::Boolean(false));
        *slot.get_mut() = inside(taken, environment)?;
        Ok(())
    };
    match &mut value {
        DeValue::String(text) if text.contains("${") => {
            *text = text_of(text, environment)?.into();
        }
        DeValue::Array(array) => array.iter_mut().try_for_each(replace)?,
        DeValue::Table(table) => table.iter_mut().try_for_each(|(_, value)| replace(value))?,
        _ => {}
    }
    Ok(value)
}

/// Replaces each `${NAME}`, `${NAME:-default}` and `${url:NAME:-default}` (percent-encoded, for a part of a URL); `$${` is
/// a plain `${`.
fn text_of(text: &str, environment: &Environment) -> Result<String, String> {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &from[2..];
            continue;
        }
        out.push_str(before);
        let (inner, after) =
            from[2..].split_once('}').ok_or("has a `${` without its `}` (write `$${` for a plain one)")?;
        let (encoded, inner) = match inner.strip_prefix("url:").filter(|inner| !inner.starts_with('-')) {
            Some(inner) => (true, inner),
            None => (false, inner),
        };
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        if !is_variable(name) {
            return Err(format!("names the variable {name:?}: write ${{NAME}} or ${{NAME:-default}}"));
        }
        let value = environment
            .get(name)
            .or(default)
            .ok_or_else(|| format!("needs the environment variable {name}, which is not set; a default is written ${{{name}:-default}}"))?;
        match encoded {
            true => out.push_str(&percent_encoded(value)),
            false => out.push_str(value),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Result<String, String> {
        text_of(text, &Environment::from([("A", "1"), ("P", "p@ss/w:rd")]))
    }

    #[test]
    fn variables_take_the_place_of_their_names() {
        for (given, expected) in [
            ("${A}", "1"),
            ("x${A}y${A}", "x1y1"),
            ("${B:-two}${A:-x}", "two1"),
            ("${B:-}", ""),
            ("${B:-product:}id:{id}", "product:id:{id}"),
            ("$${A} costs $1", "${A} costs $1"),
            ("pg://${url:P}@h/${url:B:-d b}", "pg://p%40ss%2Fw%3Ard@h/d%20b"),
        ] {
            assert_eq!(text(given).as_deref(), Ok(expected), "{given}");
        }
        assert!(text("${B}").unwrap_err().contains("variable B, which is not set"));
        assert!(text("${A").unwrap_err().contains("without its `}`"));
        assert!(text("${1A}").unwrap_err().contains("\"1A\""));
    }
}
