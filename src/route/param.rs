//! Parameters of a route: what a client may give, checked.
//!
//! Must not know: where in a request the text stood.

use regex::Regex;
use serde_json::Value as Json;

use super::shape::push_json_text;

/// Longest text that is quoted in a message.
const QUOTED: usize = 60;

/// Where a parameter is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum In {
    /// In the path.
    Path,
    /// In the query.
    Query,
    /// A member of the JSON body.
    Body,
    /// A header.
    Header,
    /// A claim of the bearer token.
    Claim,
}

/// Type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamType {
    /// Text.
    Text,
    /// Whole number of 64 bits.
    Integer,
    /// Number.
    Number,
    /// True or false.
    Boolean,
    /// Any JSON value (in bodies).
    Json,
}

/// One value, checked.
#[derive(Debug, Clone, PartialEq)]
pub enum ParamValue {
    /// Not given, and there is no default.
    Absent,
    /// `null`, where the parameter may be.
    Null,
    /// Text.
    Text(String),
    /// Whole number.
    Integer(i64),
    /// Number.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// Any JSON value.
    Json(Json),
}

/// One parameter.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Where it is given.
    pub place: In,
    /// Its type.
    pub ty: ParamType,
    /// What the whole text must match.
    pub pattern: Option<Regex>,
    /// The pattern as written.
    pub pattern_source: Option<String>,
    /// Least value of a number, or least characters of a text.
    pub min: Option<f64>,
    /// Most.
    pub max: Option<f64>,
    /// Whether it has to be given.
    pub required: bool,
    /// What an absent one is.
    pub default: Option<ParamValue>,
}

impl Param {
    /// Reads the text of a path, query, header or claim.
    pub fn read_text(&self, text: &str) -> Result<ParamValue, String> {
        let value = match self.ty {
            ParamType::Text => Some(ParamValue::Text(text.to_owned())),
            // As in a body: whatever JSON takes for a whole number is one (`5.0`), and nothing else (`+5`, `007`).
            ParamType::Integer => number(text).and_then(|number| whole(&number)).map(ParamValue::Integer),
            ParamType::Number => {
                let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
                number.filter(|_| !text.starts_with('+')).map(ParamValue::Number)
            }
            ParamType::Boolean => text.parse().ok().map(ParamValue::Boolean),
            ParamType::Json => serde_json::from_str(text).ok().map(ParamValue::Json),
        };
        self.check(value.ok_or_else(|| self.refused(text))?)
    }

    /// Reads a member of a JSON body.
    pub fn read_json(&self, json: &Json) -> Result<ParamValue, String> {
        let value = match (self.ty, json) {
            (ParamType::Json, json) => Some(ParamValue::Json(json.clone())),
            (_, Json::Null) if self.may_be_null() => return Ok(ParamValue::Null),
            (ParamType::Text, Json::String(text)) => Some(ParamValue::Text(text.clone())),
            (ParamType::Boolean, Json::Bool(value)) => Some(ParamValue::Boolean(*value)),
            (ParamType::Integer, Json::Number(number)) => whole(number).map(ParamValue::Integer),
            (ParamType::Number, Json::Number(number)) => number.as_f64().map(ParamValue::Number),
            _ => None,
        };
        self.check(value.ok_or_else(|| self.refused(&json.to_string()))?)
    }

    /// Whether `null` is a value of it: one that has a default is that, or something else.
    pub fn may_be_null(&self) -> bool {
        !self.required && self.default.is_none()
    }

    /// What an absent one is.
    pub fn absent(&self) -> Result<ParamValue, String> {
        match &self.default {
            Some(value) => Ok(value.clone()),
            None if self.required => Err(format!("`{}` is missing", self.name)),
            None => Ok(ParamValue::Absent),
        }
    }

    /// What it has to be, as the end of a sentence.
    pub fn expects(&self) -> String {
        let mut text = match self.ty {
            ParamType::Text => "a text",
            ParamType::Integer => "a whole number",
            ParamType::Number => "a number",
            ParamType::Boolean => "true or false",
            ParamType::Json => "a JSON value",
        }
        .to_owned();
        let unit = if self.ty == ParamType::Text { " characters" } else { "" };
        match (self.min, self.max) {
            (Some(min), Some(max)) => text.push_str(&format!(" from {min} to {max}{unit}")),
            (Some(min), None) => text.push_str(&format!(" of at least {min}{unit}")),
            (None, Some(max)) => text.push_str(&format!(" of at most {max}{unit}")),
            (None, None) => {}
        }
        if let Some(pattern) = &self.pattern_source {
            text.push_str(&format!(" that matches {pattern}"));
        }
        text
    }

    fn refused(&self, text: &str) -> String {
        let shown: String = text.chars().take(QUOTED).collect();
        format!("`{}` is {shown:?}: expected {}", self.name, self.expects())
    }

    fn check(&self, value: ParamValue) -> Result<ParamValue, String> {
        let measure = match &value {
            ParamValue::Text(text) if text.contains('\0') => {
                return Err(format!("{}, without the character NUL", self.refused(text)));
            }
            ParamValue::Text(text) => Some(text.chars().count() as f64),
            ParamValue::Integer(number) => Some(*number as f64),
            ParamValue::Number(number) => Some(*number),
            _ => None,
        };
        let too_small = self.min.zip(measure).is_some_and(|(min, is)| is < min);
        let too_large = self.max.zip(measure).is_some_and(|(max, is)| is > max);
        let strange = match (&self.pattern, &value) {
            (Some(pattern), ParamValue::Text(text)) => !pattern.is_match(text),
            _ => false,
        };
        if too_small || too_large || strange {
            return Err(self.refused(&value.to_text().unwrap_or_default()));
        }
        Ok(value)
    }
}

impl ParamValue {
    /// The value as text; `None` for one that is absent or null.
    pub fn to_text(&self) -> Option<String> {
        match self {
            Self::Absent | Self::Null => None,
            Self::Text(text) => Some(text.clone()),
            Self::Integer(number) => Some(number.to_string()),
            Self::Number(number) => Some(number.to_string()),
            Self::Boolean(value) => Some(value.to_string()),
            Self::Json(json) => Some(json.to_string()),
        }
    }

    /// Appends the value as JSON.
    pub fn push_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => push_json_text(text, out),
            Self::Absent | Self::Null => out.extend_from_slice(b"null"),
            other => out.extend_from_slice(other.to_text().unwrap_or_default().as_bytes()),
        }
    }

    /// Whether a client or a default gave it.
    pub fn is_given(&self) -> bool {
        *self != Self::Absent
    }
}

/// The number of JSON that a text is.
fn number(text: &str) -> Option<serde_json::Number> {
    let begins = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    serde_json::from_str(text).ok().filter(|_| begins && text.ends_with(|c: char| c.is_ascii_digit()))
}

/// The whole number that a number of JSON is: 5 and 5.0 are the same.
pub fn whole(number: &serde_json::Number) -> Option<i64> {
    let exact = |number: f64| (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64);
    number.as_i64().or_else(|| number.as_f64().filter(|_| number.is_f64()).and_then(exact))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn param(ty: ParamType) -> Param {
        Param {
            name: "p".into(),
            place: In::Query,
            ty,
            pattern: None,
            pattern_source: None,
            min: None,
            max: None,
            required: true,
            default: None,
        }
    }

    #[test]
    fn whole_numbers_have_one_form_and_a_range() {
        let p = Param { min: Some(0.0), max: Some(100.0), ..param(ParamType::Integer) };
        assert_eq!(p.read_text("50"), Ok(ParamValue::Integer(50)));
        assert_eq!(p.read_json(&json!(5.0)), Ok(ParamValue::Integer(5)));
        assert_eq!(
            (p.read_text("5.0"), p.read_text("1e1")),
            (Ok(ParamValue::Integer(5)), Ok(ParamValue::Integer(10)))
        );
        assert_eq!(p.read_text("-0"), Ok(ParamValue::Integer(0)));
        for wrong in [
            "-1",
            "101",
            "",
            "007",
            "+5",
            "1e3",
            "5.5",
            "5.",
            " 5",
            "5 ",
            "99999999999999999999",
            "1;drop table x",
            "٣",
        ] {
            assert!(p.read_text(wrong).is_err(), "{wrong}");
        }
        for wrong in [json!("5"), json!(5.5), json!(null), json!([5]), json!(true)] {
            assert!(p.read_json(&wrong).is_err(), "{wrong}");
        }
        assert_eq!(p.read_text("101").unwrap_err(), "`p` is \"101\": expected a whole number from 0 to 100");
    }

    #[test]
    fn texts_match_as_a_whole() {
        let pattern = Regex::new("^(?:[A-Za-z0-9_-]{1,20})$").unwrap();
        let p = Param { pattern: Some(pattern), ..param(ParamType::Text) };
        assert!(p.read_text("some_id-1").is_ok());
        for wrong in ["", "a b", "a'--", "aaaaaaaaaaaaaaaaaaaaa", "a\n", "ü"] {
            assert!(p.read_text(wrong).is_err(), "{wrong:?}");
        }
        assert!(param(ParamType::Text).read_text("a\0").is_err());
    }

    #[test]
    fn absent_and_null_are_two_things() {
        let p = Param { required: false, ..param(ParamType::Text) };
        assert_eq!((p.absent(), p.read_json(&json!(null))), (Ok(ParamValue::Absent), Ok(ParamValue::Null)));
        assert!(
            param(ParamType::Text).absent().is_err()
                && param(ParamType::Text).read_json(&json!(null)).is_err()
        );
    }
}
