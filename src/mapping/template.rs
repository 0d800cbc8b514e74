//! Key templates such as `user:{id}`: parses keys into id values.
//!
//! Must not know: tables, which mapping a template belongs to.
//!
//! A placeholder takes the non-empty text up to the first occurrence of the literal that follows it (or the rest of the
//! key) and accepts it only in the canonical form of its type. So each key has at most one reading and each reading
//! one key: `user:007` is not another name of `user:7`, it is no mapped key at all.

use std::fmt;

/// Most placeholders a template may have.
pub const MAX_PLACEHOLDERS: usize = 8;

/// Type of a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdType {
    /// 16 bit integer.
    SmallInt,
    /// 32 bit integer.
    Int,
    /// 64 bit integer.
    BigInt,
    /// Any text: valid UTF-8 without NUL.
    Text,
    /// Text of at most this many characters.
    Varchar(u32),
    /// Lower-case UUID with hyphens.
    Uuid,
}

impl IdType {
    /// Parses a declared type name.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        Some(match name.as_str() {
            "smallint" | "int2" => Self::SmallInt,
            "int" | "integer" | "int4" => Self::Int,
            "bigint" | "int8" => Self::BigInt,
            "text" | "varchar" | "character varying" => Self::Text,
            "uuid" => Self::Uuid,
            other => {
                let rest =
                    other.strip_prefix("varchar").or_else(|| other.strip_prefix("character varying"))?;
                let length = rest.trim().strip_prefix('(')?.strip_suffix(')')?.trim().parse().ok()?;
                return (length > 0).then_some(Self::Varchar(length));
            }
        })
    }

    /// The names `parse` knows, for messages.
    pub const NAMES: &str = "smallint, int, bigint, text, varchar(n), uuid";

    /// Whether `text` is a value of this type in its canonical form.
    pub fn accepts(self, text: &[u8]) -> Option<&str> {
        let ok = match self {
            Self::SmallInt => canonical_integer(text, b"32767", b"32768"),
            Self::Int => canonical_integer(text, b"2147483647", b"2147483648"),
            Self::BigInt => canonical_integer(text, b"9223372036854775807", b"9223372036854775808"),
            Self::Text | Self::Varchar(_) => !text.is_empty() && memchr::memchr(0, text).is_none(),
            Self::Uuid => is_canonical_uuid(text),
        };
        let text = if ok { std::str::from_utf8(text).ok()? } else { return None };
        match self {
            Self::Varchar(n) if text.chars().count() > n as usize => None,
            _ => Some(text),
        }
    }

    /// Whether it is one of the integers.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::SmallInt | Self::Int | Self::BigInt)
    }
}

impl fmt::Display for IdType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SmallInt => f.write_str("smallint"),
            Self::Int => f.write_str("int"),
            Self::BigInt => f.write_str("bigint"),
            Self::Text => f.write_str("text"),
            Self::Varchar(n) => write!(f, "varchar({n})"),
            Self::Uuid => f.write_str("uuid"),
        }
    }
}

/// `0`, or an optional minus and digits that do not start with zero, within the limits (given as digits: numbers of
/// equal length compare like text).
fn canonical_integer(text: &[u8], max: &[u8], min: &[u8]) -> bool {
    let (digits, limit) = match text {
        [b'-', digits @ ..] => (digits, min),
        digits => (digits, max),
    };
    match digits {
        [b'0'] => limit == max,
        [b'1'..=b'9', rest @ ..] => {
            rest.iter().all(u8::is_ascii_digit)
                && (digits.len() < limit.len() || (digits.len() == limit.len() && digits <= limit))
        }
        _ => false,
    }
}

fn is_canonical_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// Why a template is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("has an unbalanced brace; write placeholders as {{name}}")]
    Brace,
    /// `{}` or a name that is no identifier.
    #[error("has the placeholder {{{0}}}, which is not a column name")]
    Name(String),
    /// The same name twice.
    #[error("names the placeholder {{{0}}} twice")]
    Duplicate(String),
    /// `{a}{b}`.
    #[error(
        "is ambiguous: {{{0}}} and {{{1}}} touch, so a key can be split in more than one way; put a literal between them"
    )]
    Touching(String, String),
    /// Too many placeholders.
    #[error("must have at most {MAX_PLACEHOLDERS} placeholders, it has {0}")]
    Count(usize),
    /// Nothing at all.
    #[error("is empty")]
    Empty,
    /// `max` of something else than a number of the key.
    #[error("has no placeholder {{{0}}} of a number type, which `max` names")]
    Max(String),
    /// The id type list does not fit.
    #[error("has {placeholders} placeholders but `id` names {types} types; name one for all, or one each")]
    Types {
        /// Placeholders in the template.
        placeholders: usize,
        /// Types given.
        types: usize,
    },
    /// Unknown type.
    #[error("has the unknown id type \"{0}\"; known are {known}", known = IdType::NAMES)]
    UnknownType(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placeholder {
    pub(super) name: String,
    pub(super) ty: IdType,
    /// The largest number that it may be; it is not negative then.
    pub(super) max: Option<u64>,
    /// The literal that ends it; empty only for the last one of a template that ends with a placeholder.
    pub(super) until: String,
}

impl Placeholder {
    /// Whether `text` is one of its values in its canonical form.
    fn accepts<'k>(&self, text: &'k [u8]) -> Option<&'k str> {
        let text = self.ty.accepts(text)?;
        match self.max {
            Some(most) => text.parse().is_ok_and(|number: u64| number <= most).then_some(text),
            None => Some(text),
        }
    }
}

/// A parsed key template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    source: String,
    pub(super) prefix: String,
    pub(super) placeholders: Vec<Placeholder>,
}

/// The id values of a key, in the order of the template's placeholders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match<'k> {
    values: [&'k str; MAX_PLACEHOLDERS],
    len: u8,
}

impl<'k> Match<'k> {
    /// The id values.
    pub fn ids(&self) -> &[&'k str] {
        &self.values[..usize::from(self.len)]
    }
}

impl Template {
    /// Parses `source`; `types` is one type name, or a comma-separated list with one per placeholder.
    pub fn parse(source: &str, types: &str) -> Result<Self, TemplateError> {
        let (prefix, mut names) = split(source)?;
        let count = names.len();
        if source.is_empty() {
            return Err(TemplateError::Empty);
        }
        if count > MAX_PLACEHOLDERS {
            return Err(TemplateError::Count(count));
        }
        let types = parse_types(types, count)?;
        if let Some(i) = (1..count).find(|i| names[i - 1].1.is_empty()) {
            return Err(TemplateError::Touching(names[i - 1].0.clone(), names[i].0.clone()));
        }
        if let Some(i) = (1..count).find(|i| names[..*i].iter().any(|(name, _)| *name == names[*i].0)) {
            return Err(TemplateError::Duplicate(names[i].0.clone()));
        }
        let placeholders = names
            .drain(..)
            .zip(types)
            .map(|((name, until), ty)| Placeholder { name, ty, max: None, until })
            .collect();
        Ok(Self { source: source.to_owned(), prefix, placeholders })
    }

    /// The same, with the largest numbers that placeholders may be.
    pub fn bounded(mut self, limits: &[(String, u64)]) -> Result<Self, TemplateError> {
        for (name, most) in limits {
            let placeholder = self.placeholders.iter_mut().find(|p| p.name == *name && p.ty.is_integer());
            placeholder.ok_or_else(|| TemplateError::Max(name.clone()))?.max = Some(*most);
        }
        Ok(self)
    }

    /// The template as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names and types of the placeholders, in order.
    pub fn placeholders(&self) -> impl ExactSizeIterator<Item = (&str, IdType)> {
        self.placeholders.iter().map(|p| (p.name.as_str(), p.ty))
    }

    /// Reads `key`; `None` if it is not exactly a key of this template. Allocates nothing.
    #[inline]
    pub fn find<'k>(&self, key: &'k [u8]) -> Option<Match<'k>> {
        let mut rest = key.strip_prefix(self.prefix.as_bytes())?;
        let mut found = Match { values: [""; MAX_PLACEHOLDERS], len: self.placeholders.len() as u8 };
        for (placeholder, value) in self.placeholders.iter().zip(&mut found.values) {
            let until = placeholder.until.as_bytes();
            let (text, after) = match until {
                [] => (rest, &rest[rest.len()..]),
                _ => {
                    let end = memchr::memmem::find(rest, until)?;
                    (&rest[..end], &rest[end + until.len()..])
                }
            };
            *value = placeholder.accepts(text)?;
            rest = after;
        }
        rest.is_empty().then_some(found)
    }

    /// What stands in the places of the placeholders, for messages: `id: bigint, limit: int up to 50`.
    pub fn expects(&self) -> String {
        let one = |p: &Placeholder| {
            let most = p.max.map(|most| format!(" from 0 to {most}")).unwrap_or_default();
            format!("{}: {}{most}", p.name, p.ty)
        };
        self.placeholders.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Whether `key` has the literals of this template, whatever stands in the places of its placeholders.
    pub fn resembles(&self, key: &[u8]) -> bool {
        let Some(mut rest) = key.strip_prefix(self.prefix.as_bytes()) else { return false };
        for placeholder in &self.placeholders {
            let until = placeholder.until.as_bytes();
            rest = match memchr::memmem::find(rest, until) {
                _ if until.is_empty() => &[],
                Some(end) => &rest[end + until.len()..],
                None => return false,
            };
        }
        rest.is_empty()
    }

    /// A glob, as `KEYS` has it, that every key of this template matches.
    pub fn pattern(&self) -> String {
        let literals = self.placeholders.iter().map(|placeholder| placeholder.until.as_str());
        let escaped = |literal: &str| {
            let special = |c| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-');
            literal
                .chars()
                .flat_map(|c| special(c).then_some('\\').into_iter().chain([c]))
                .collect::<String>()
        };
        literals.fold(escaped(&self.prefix), |pattern, literal| pattern + "*" + &escaped(literal))
    }

    /// Builds the key of `ids`; `None` if no key of this template stands for them (wrong count or form, or a text that
    /// contains the literal which ends it).
    pub fn build<S: AsRef<str>>(&self, ids: &[S]) -> Option<String> {
        if ids.len() != self.placeholders.len() {
            return None;
        }
        let mut key = self.prefix.clone();
        for (placeholder, id) in self.placeholders.iter().zip(ids) {
            key.push_str(id.as_ref());
            key.push_str(&placeholder.until);
        }
        // Reading back is the definition of a right key: it catches every form that would be split differently.
        let same = {
            let found = self.find(key.as_bytes())?;
            found.ids().iter().zip(ids).all(|(a, b)| *a == b.as_ref())
        };
        same.then_some(key)
    }
}

/// Splits into the leading literal, and the placeholders with the literal after each.
fn split(source: &str) -> Result<(String, Vec<(String, String)>), TemplateError> {
    let mut pieces = source.split('{');
    let prefix = pieces.next().unwrap_or_default();
    if prefix.contains('}') {
        return Err(TemplateError::Brace);
    }
    let mut names = Vec::new();
    for piece in pieces {
        let (name, literal) = piece.split_once('}').ok_or(TemplateError::Brace)?;
        if literal.contains('}') {
            return Err(TemplateError::Brace);
        }
        let first_ok = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
        if !first_ok || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            return Err(TemplateError::Name(name.to_owned()));
        }
        names.push((name.to_owned(), literal.to_owned()));
    }
    Ok((prefix.to_owned(), names))
}

fn parse_types(types: &str, placeholders: usize) -> Result<Vec<IdType>, TemplateError> {
    if placeholders == 0 && types.trim().is_empty() {
        return Ok(Vec::new());
    }
    let parsed: Result<Vec<_>, _> = types
        .split(',')
        .map(|name| IdType::parse(name).ok_or_else(|| TemplateError::UnknownType(name.trim().to_owned())))
        .collect();
    match parsed? {
        one if one.len() == 1 && placeholders > 0 => Ok(vec![one[0]; placeholders]),
        each if each.len() == placeholders => Ok(each),
        other => Err(TemplateError::Types { placeholders, types: other.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(template: &Template, key: &str) -> Option<Vec<String>> {
        template.find(key.as_bytes()).map(|m| m.ids().iter().map(|s| (*s).to_owned()).collect())
    }

    #[test]
    fn only_canonical_integers_are_keys() {
        let t = Template::parse("user:{id}", "bigint").unwrap();
        for good in ["0", "7", "-1", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(ids(&t, &format!("user:{good}")), Some(vec![good.to_owned()]));
        }
        for bad in
            ["", "007", "+7", "-0", "7 ", " 7", "1.0", "0x1", "９", "-", "9223372036854775808", "abc", "7:x"]
        {
            assert_eq!(ids(&t, &format!("user:{bad}")), None, "{bad}");
        }
        assert_eq!(ids(&t, "-9223372036854775809"), None);
        let t = Template::parse("{id}", "smallint").unwrap();
        assert!(ids(&t, "32767").is_some() && ids(&t, "-32768").is_some() && ids(&t, "32768").is_none());
    }

    #[test]
    fn uuid_and_varchar_have_one_form() {
        let t = Template::parse("o:{id}", "uuid").unwrap();
        assert!(ids(&t, "o:123e4567-e89b-12d3-a456-426614174000").is_some());
        assert!(ids(&t, "o:123E4567-e89b-12d3-a456-426614174000").is_none());
        assert!(ids(&t, "o:123e4567e89b12d3a456426614174000").is_none());
        let t = Template::parse("o:{id}", "varchar(3)").unwrap();
        assert!(ids(&t, "o:äöü").is_some() && ids(&t, "o:abcd").is_none());
        assert!(t.find(b"o:\xff").is_none() && t.find(b"o:a\0").is_none());
    }

    #[test]
    fn several_placeholders_split_at_the_first_literal() {
        let t = Template::parse("u:{a}:p:{b}", "text, int").unwrap();
        assert_eq!(ids(&t, "u:x:p:5"), Some(vec!["x".into(), "5".into()]));
        assert_eq!(ids(&t, "u:x:p:y:p:5"), None);
        assert_eq!(t.build(&["x:p:y", "5"]), None);
        assert_eq!(ids(&t, "u::p:5"), None);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |key: &str, ty: &str| Template::parse(key, ty).unwrap_err().to_string();
        assert!(error("a{b", "int").contains("unbalanced"));
        assert!(error("a}b{c}", "int").contains("unbalanced"));
        assert!(error("{a}{b}", "int").contains("ambiguous"));
        assert!(error("{a}:{a}", "int").contains("twice"));
        assert!(error("plain", "int").contains("0 placeholders") && error("", "").contains("empty"));
        assert!(error("{a}:{b}:{c}", "int,int").contains("3 placeholders"));
        assert!(error("{a}", "float").contains("unknown id type \"float\""));
        assert!(error("{1a}", "int").contains("not a column name"));
    }

    proptest! {
        #[test]
        fn integers_round_trip(a: i64, b: i16) {
            let t = Template::parse("x{a}-{b}", "bigint,smallint").unwrap();
            let given = [a.to_string(), b.to_string()];
            // A negative first id starts with the literal that would end it: no key stands for it.
            match t.build(&given) {
                Some(key) => prop_assert_eq!(ids(&t, &key), Some(given.to_vec())),
                None => prop_assert!(a < 0),
            }
        }

        #[test]
        fn a_key_that_reads_builds_itself(key in "(a:|a|aa)?[a:]{0,12}") {
            for source in ["a:{x}", "a{x}aa{y}", "{x}:a", "a:{x}:{y}:a"] {
                let t = Template::parse(source, "text").unwrap();
                if let Some(found) = t.find(key.as_bytes()) {
                    prop_assert_eq!(t.build(found.ids()), Some(key.clone()));
                }
            }
        }

        #[test]
        fn texts_round_trip_or_are_refused(x in "\\PC{1,8}", y in "\\PC{1,8}") {
            let t = Template::parse("k/{x}/{y}", "text").unwrap();
            match t.build(&[&x, &y]) {
                Some(key) => prop_assert_eq!(ids(&t, &key), Some(vec![x, y])),
                None => prop_assert!(x.contains('/')),
            }
        }
    }
}
