//! The types of settings: how a raw value is read and checked, how a value is written, what to say when it is wrong.
//!
//! Must not know: any particular setting, where a value came from.

use std::fmt::Display;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::nearest::nearest;
use super::raw::Raw;
use super::secret::Secret;
use super::units::{format_duration, format_size, parse_duration, parse_size};

/// A raw value that a setting does not take; with a hint where there is more to say than what is expected.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refused(pub Option<String>);

/// A type of setting.
pub trait Kind {
    /// What it yields.
    type Value;
    /// Reads and checks a value.
    fn read(&self, raw: &Raw<'_>) -> Result<Self::Value, Refused>;
    /// Writes a value as TOML; empty when it is unset.
    fn render(&self, value: &Self::Value) -> String;
    /// What may be written, as the end of the sentence "expected ...".
    fn expects(&self) -> String;
    /// JSON schema of what may be written.
    fn schema(&self) -> Json;
    /// A value for the documents, in TOML, where there is no default.
    fn example(&self) -> String {
        String::new()
    }
    /// Whether a value has to be given.
    fn required(&self) -> bool {
        false
    }
    /// Whether the value must never be shown.
    fn secret(&self) -> bool {
        false
    }
}

fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn within<T: PartialOrd>(range: &RangeInclusive<T>, value: T) -> Result<T, Refused> {
    if range.contains(&value) { Ok(value) } else { Err(Refused::default()) }
}

/// Refuses what is absent, without a hint.
pub(super) trait OrRefused<T> {
    fn or_refused(self) -> Result<T, Refused>;
}

impl<T> OrRefused<T> for Option<T> {
    fn or_refused(self) -> Result<T, Refused> {
        self.ok_or(Refused(None))
    }
}

/// `true` or `false`.
pub struct Flag;

impl Kind for Flag {
    type Value = bool;
    fn read(&self, raw: &Raw<'_>) -> Result<bool, Refused> {
        raw.boolean().or_refused()
    }
    fn render(&self, value: &bool) -> String {
        value.to_string()
    }
    fn expects(&self) -> String {
        "true or false".to_owned()
    }
    fn schema(&self) -> Json {
        json!({"type": "boolean"})
    }
}

/// A whole number.
pub struct Count(pub RangeInclusive<usize>);

impl Kind for Count {
    type Value = usize;
    fn read(&self, raw: &Raw<'_>) -> Result<usize, Refused> {
        let number = raw.integer().and_then(|number| usize::try_from(number).ok()).or_refused()?;
        within(&self.0, number)
    }
    fn render(&self, value: &usize) -> String {
        value.to_string()
    }
    fn expects(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }
    fn schema(&self) -> Json {
        json!({"type": "integer", "minimum": self.0.start(), "maximum": self.0.end()})
    }
    fn example(&self) -> String {
        self.0.start().to_string()
    }
}

/// A part of one.
pub struct Fraction(pub RangeInclusive<f64>);

impl Kind for Fraction {
    type Value = f64;
    fn read(&self, raw: &Raw<'_>) -> Result<f64, Refused> {
        within(&self.0, raw.number().or_refused()?)
    }
    fn render(&self, value: &f64) -> String {
        format!("{value:?}")
    }
    fn expects(&self) -> String {
        format!("a number from {} to {}", self.0.start(), self.0.end())
    }
    fn schema(&self) -> Json {
        json!({"type": "number", "minimum": self.0.start(), "maximum": self.0.end()})
    }
    fn example(&self) -> String {
        format!("{:?}", self.0.start())
    }
}

/// A number of bytes.
pub struct Size(pub RangeInclusive<usize>);

impl Kind for Size {
    type Value = usize;
    fn read(&self, raw: &Raw<'_>) -> Result<usize, Refused> {
        let bytes = match raw.integer() {
            Some(number) => usize::try_from(number).ok(),
            None => raw.text().and_then(parse_size),
        };
        within(&self.0, bytes.or_refused()?)
    }
    fn render(&self, value: &usize) -> String {
        quoted(format_size(*value))
    }
    fn expects(&self) -> String {
        let (least, most) = (format_size(*self.0.start()), format_size(*self.0.end()));
        format!("a size from {least} to {most}, such as \"64kb\", \"512mb\", \"1gb\" or a number of bytes")
    }
    fn schema(&self) -> Json {
        json!({"anyOf": [
            {"type": "string", "pattern": "^[0-9]+ *([kKmMgG]?[bB])?$"},
            {"type": "integer", "minimum": self.0.start(), "maximum": self.0.end()},
        ]})
    }
}

/// A length of time.
pub struct Span {
    range: RangeInclusive<Duration>,
    /// What "0" means, where it is allowed although it is out of range.
    zero: Option<&'static str>,
}

/// A duration in `range`.
pub fn duration(range: RangeInclusive<Duration>) -> Span {
    Span { range, zero: None }
}

/// A duration in `range`, or "0" for `zero`.
pub fn duration_or(zero: &'static str, range: RangeInclusive<Duration>) -> Span {
    Span { range, zero: Some(zero) }
}

impl Kind for Span {
    type Value = Duration;
    fn read(&self, raw: &Raw<'_>) -> Result<Duration, Refused> {
        let duration = match raw.integer() {
            Some(0) => Duration::ZERO,
            Some(number) => {
                return Err(Refused(Some(format!(
                    "a duration needs its unit: \"{number}s\" or \"{number}ms\""
                ))));
            }
            None => raw.text().and_then(parse_duration).or_refused()?,
        };
        match duration {
            Duration::ZERO if self.zero.is_some() => Ok(duration),
            duration => within(&self.range, duration),
        }
    }
    fn render(&self, value: &Duration) -> String {
        quoted(format_duration(*value))
    }
    fn expects(&self) -> String {
        let (least, most) = (format_duration(*self.range.start()), format_duration(*self.range.end()));
        let zero = self.zero.map(|zero| format!(", or \"0\" ({zero})")).unwrap_or_default();
        format!("a duration from \"{least}\" to \"{most}\" (units: ms, s, m, h, d){zero}")
    }
    fn schema(&self) -> Json {
        json!({"type": "string", "pattern": "^(0|[0-9]+ *(ms|s|m|h|d))$"})
    }
    fn example(&self) -> String {
        quoted(format_duration(*self.range.start()))
    }
}

/// An IP address and port to listen on.
pub struct Address;

impl Kind for Address {
    type Value = SocketAddr;
    fn read(&self, raw: &Raw<'_>) -> Result<SocketAddr, Refused> {
        raw.text().and_then(|text| text.parse().ok()).or_refused()
    }
    fn render(&self, value: &SocketAddr) -> String {
        quoted(value)
    }
    fn expects(&self) -> String {
        "an IP address and port, such as \"127.0.0.1:6380\", \"0.0.0.0:6380\" or \"[::1]:6380\"".to_owned()
    }
    fn schema(&self) -> Json {
        json!({"type": "string", "pattern": ":[0-9]{1,5}$"})
    }
    fn example(&self) -> String {
        quoted("127.0.0.1:0")
    }
}

/// A text that passes a check.
#[derive(Clone, Copy)]
pub struct Text {
    /// What is expected.
    pub expects: &'static str,
    /// A value that is right.
    pub example: &'static str,
    /// Whether the text is right.
    pub check: fn(&str) -> bool,
}

impl Kind for Text {
    type Value = String;
    fn read(&self, raw: &Raw<'_>) -> Result<String, Refused> {
        raw.text().filter(|text| (self.check)(text)).map(str::to_owned).or_refused()
    }
    fn render(&self, value: &String) -> String {
        quoted(value)
    }
    fn expects(&self) -> String {
        self.expects.to_owned()
    }
    fn schema(&self) -> Json {
        json!({"type": "string"})
    }
    fn example(&self) -> String {
        quoted(self.example)
    }
}

/// A text that is never shown.
pub struct Hidden(pub Text);

impl Kind for Hidden {
    type Value = Secret;
    fn read(&self, raw: &Raw<'_>) -> Result<Secret, Refused> {
        self.0.read(raw).map(Secret::new)
    }
    fn render(&self, _: &Secret) -> String {
        String::new()
    }
    fn expects(&self) -> String {
        self.0.expects()
    }
    fn schema(&self) -> Json {
        self.0.schema()
    }
    fn example(&self) -> String {
        self.0.example()
    }
    fn secret(&self) -> bool {
        true
    }
}

/// An enum made by `words!`.
pub trait Words: Copy + PartialEq + 'static {
    /// Each value with its word.
    const WORDS: &'static [(&'static str, Self)];
    /// Words that are planned and not there yet.
    const LATER: &'static [&'static str];

    /// The word of this value.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// One word out of a few.
pub struct Choice<T>(PhantomData<T>);

/// One of the words of `T`.
pub fn choice<T: Words>() -> Choice<T> {
    Choice(PhantomData)
}

impl<T: Words> Kind for Choice<T> {
    type Value = T;
    fn read(&self, raw: &Raw<'_>) -> Result<T, Refused> {
        let word = raw.text().or_refused()?;
        if let Some((_, value)) = T::WORDS.iter().find(|(known, _)| *known == word) {
            return Ok(*value);
        }
        if T::LATER.contains(&word) {
            return Err(Refused(Some(format!(
                "\"{word}\" is planned, but this version does not have it yet"
            ))));
        }
        let near = nearest(word, T::WORDS.iter().map(|(known, _)| *known));
        Err(Refused(near.map(|near| format!("did you mean \"{near}\"?"))))
    }
    fn render(&self, value: &T) -> String {
        quoted(value.word())
    }
    fn expects(&self) -> String {
        T::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
    }
    fn schema(&self) -> Json {
        json!({"enum": T::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>()})
    }
}
