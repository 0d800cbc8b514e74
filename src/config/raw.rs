//! A value as somebody wrote it: a TOML value of the file, or the text of an environment variable.
//!
//! Must not know: which setting it is for.

use toml::de::DeValue;

/// A value before its setting has read it.
pub enum Raw<'a> {
    /// From the file.
    Toml(&'a DeValue<'a>),
    /// From the environment.
    Text(&'a str),
}

impl Raw<'_> {
    /// The text, if it is one; everything in the environment is.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Toml(DeValue::String(text)) => Some(text),
            Self::Text(text) => Some(text.trim()),
            Self::Toml(_) => None,
        }
    }

    /// The whole number, if it is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Toml(DeValue::Integer(number)) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Toml(_) => None,
        }
    }

    /// The number, if it is one; whole numbers count.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Toml(DeValue::Float(number)) => number.as_str().parse().ok(),
            Self::Toml(_) => self.integer().map(|number| number as f64),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }

    /// True or false, if it is one.
    pub fn boolean(&self) -> Option<bool> {
        match self {
            Self::Toml(value) => value.as_bool(),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }

    /// The elements of a list: a TOML array, or the comma separated parts of a variable. One text is a list of one.
    pub fn elements(&self) -> Option<Vec<Raw<'_>>> {
        match self {
            Self::Toml(DeValue::Array(array)) => {
                Some(array.iter().map(|element| Raw::Toml(element.get_ref())).collect())
            }
            Self::Toml(DeValue::String(text)) => Some(vec![Raw::Text(text)]),
            Self::Toml(_) => None,
            Self::Text(text) => {
                Some(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Raw::Text).collect())
            }
        }
    }

    /// The entries of a table, in the order in which they are written.
    pub fn entries(&self) -> Option<Vec<(&str, Raw<'_>)>> {
        let Self::Toml(DeValue::Table(table)) = self else { return None };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        Some(
            entries
                .into_iter()
                .map(|(name, value)| (&**name.get_ref(), Raw::Toml(value.get_ref())))
                .collect(),
        )
    }

    /// The value for an error message, cut to a readable length. What may be a URL with a password in the wrong place is
    /// not shown.
    pub fn shown(&self) -> String {
        if self.text().is_some_and(|text| text.contains('@')) {
            return "a text with an `@`".to_owned();
        }
        const LONGEST: usize = 60;
        let full = match self {
            Self::Toml(DeValue::String(text)) => format!("{text:?}"),
            Self::Toml(DeValue::Integer(number)) => number.to_string(),
            Self::Toml(DeValue::Float(number)) => number.to_string(),
            Self::Toml(DeValue::Boolean(value)) => value.to_string(),
            Self::Toml(DeValue::Datetime(value)) => value.to_string(),
            Self::Toml(DeValue::Array(_)) => "a list".to_owned(),
            Self::Toml(DeValue::Table(_)) => "a table".to_owned(),
            Self::Text(text) => format!("{text:?}"),
        };
        match full.char_indices().nth(LONGEST) {
            Some((cut, _)) => format!("{}...", &full[..cut]),
            None => full,
        }
    }
}
