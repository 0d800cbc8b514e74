//! The template of an answer: JSON whose texts may hold `{placeholders}`.
//!
//! Must not know: where the values come from.
//!
//! A text that is one placeholder (`"{row}"`) becomes that value, whatever its JSON type; in a longer text
//! (`"ok:{source}"`) the placeholder becomes characters of the text, escaped as JSON needs it. So no value can end a text
//! or add a member. Everything is taken apart once, at start; `{{` and `}}` stand for braces.

use super::node::Node;

/// What a placeholder stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placeholder {
    /// The row, or the value of a key.
    Row,
    /// One member of the row.
    Field(String),
    /// All rows, as a list.
    Rows,
    /// Whether the answer came from the cache.
    FromCache,
    /// `redis`, or the name of the database.
    Source,
    /// Milliseconds that the answer took.
    DurationMs,
    /// Whether there are rows behind the last one.
    HasMore,
    /// Request id, duration and source together.
    Metadata,
    /// The request's id.
    RequestId,
    /// The time, RFC 3339 in UTC.
    Now,
    /// What went wrong.
    Error,
    /// The status code.
    Status,
    /// A signed bearer token for the row.
    Token,
    /// A parameter of the route.
    Param(String),
}

impl Placeholder {
    /// Those that are not named by the route.
    const FIXED: [(&'static str, Self); 13] = [
        ("row", Self::Row),
        ("rows", Self::Rows),
        ("from_cache", Self::FromCache),
        ("cache_hit", Self::FromCache),
        ("source", Self::Source),
        ("duration_ms", Self::DurationMs),
        ("has_more", Self::HasMore),
        ("metadata", Self::Metadata),
        ("request_id", Self::RequestId),
        ("now", Self::Now),
        ("error", Self::Error),
        ("status", Self::Status),
        ("token", Self::Token),
    ];

    /// Reads a name: one of the fixed ones, `row.MEMBER`, or one of the route's parameters.
    fn parse(name: &str, params: &[&str]) -> Option<Self> {
        if let Some((_, fixed)) = Self::FIXED.iter().find(|(known, _)| *known == name) {
            return Some(fixed.clone());
        }
        if let Some(member) = name.strip_prefix("row.") {
            return (!member.is_empty()).then(|| Self::Field(member.to_owned()));
        }
        params.contains(&name).then(|| Self::Param(name.to_owned()))
    }

    /// Whether `name` is taken, so that no parameter may have it.
    pub fn is_fixed(name: &str) -> bool {
        Self::FIXED.iter().any(|(known, _)| *known == name)
    }
}

/// Why a template is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// No JSON.
    #[error("is no JSON: {0}")]
    Json(String),
    /// `"{a"`.
    #[error("has an unbalanced brace in {0:?}; write {{{{ and }}}} for braces")]
    Brace(String),
    /// A placeholder that stands for nothing.
    #[error("has the unknown placeholder {{{0}}}: there are {1}")]
    Unknown(String, String),
}

/// Gives the values of placeholders.
pub trait Values {
    /// Appends the value as JSON.
    fn push_json(&self, placeholder: &Placeholder, out: &mut Vec<u8>);
    /// The value as characters.
    fn text(&self, placeholder: &Placeholder) -> String;
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Copied as it stands.
    Literal(Vec<u8>),
    /// Replaced by its JSON value.
    Value(Placeholder),
    /// Replaced by its characters, within a JSON text.
    Characters(Placeholder),
}

/// A template, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    parts: Vec<Part>,
    node: Node,
}

impl Shape {
    /// Reads a template; `params` are the route's own placeholders.
    pub fn parse(source: &str, params: &[&str]) -> Result<Self, ShapeError> {
        let node: Node = serde_json::from_str(source).map_err(|error| ShapeError::Json(error.to_string()))?;
        let mut shape = Self { parts: vec![Part::Literal(Vec::new())], node: Node::Null };
        shape.take_apart(&node, params)?;
        Ok(Self { node, ..shape })
    }

    /// The answer with these values.
    pub fn render(&self, values: &impl Values) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        for part in &self.parts {
            match part {
                Part::Literal(bytes) => out.extend_from_slice(bytes),
                Part::Value(placeholder) => values.push_json(placeholder, &mut out),
                Part::Characters(placeholder) => push_escaped(&values.text(placeholder), &mut out),
            }
        }
        out
    }

    /// The placeholders in it.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Value(placeholder) | Part::Characters(placeholder) => Some(placeholder),
        })
    }

    /// Whether it shows several rows.
    pub fn shows_rows(&self) -> bool {
        self.placeholders().any(|placeholder| matches!(placeholder, Placeholder::Rows | Placeholder::HasMore))
    }

    /// A JSON schema of what it renders to; `of` gives the schema of a placeholder's value.
    pub fn schema(&self, of: &dyn Fn(&Placeholder) -> serde_json::Value) -> serde_json::Value {
        self.node.schema(of)
    }

    fn literal(&mut self, bytes: &[u8]) {
        match self.parts.last_mut() {
            Some(Part::Literal(last)) => last.extend_from_slice(bytes),
            _ => self.parts.push(Part::Literal(bytes.to_vec())),
        }
    }

    fn take_apart(&mut self, node: &Node, params: &[&str]) -> Result<(), ShapeError> {
        match node {
            Node::Null => self.literal(b"null"),
            Node::Plain(plain) => self.literal(plain.to_string().as_bytes()),
            Node::Text(text) => self.text(text, params)?,
            Node::List(list) => {
                for (at, node) in list.iter().enumerate() {
                    self.literal(if at == 0 { b"[" } else { b"," });
                    self.take_apart(node, params)?;
                }
                self.literal(if list.is_empty() { b"[]" } else { b"]" });
            }
            Node::Object(members) => {
                for (at, (name, node)) in members.iter().enumerate() {
                    self.literal(if at == 0 { b"{" } else { b"," });
                    let mut quoted = Vec::new();
                    push_json_text(name, &mut quoted);
                    self.literal(&quoted);
                    self.literal(b":");
                    self.take_apart(node, params)?;
                }
                self.literal(if members.is_empty() { b"{}" } else { b"}" });
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str, params: &[&str]) -> Result<(), ShapeError> {
        let pieces = pieces(text, params)?;
        if let [Piece::Placeholder(only)] = pieces.as_slice() {
            self.parts.push(Part::Value(only.clone()));
            return Ok(());
        }
        self.literal(b"\"");
        for piece in pieces {
            match piece {
                Piece::Placeholder(placeholder) => self.parts.push(Part::Characters(placeholder)),
                Piece::Literal(text) => {
                    let mut escaped = Vec::new();
                    push_escaped(&text, &mut escaped);
                    self.literal(&escaped);
                }
            }
        }
        self.literal(b"\"");
        Ok(())
    }
}

/// A text with placeholders that is no JSON: a key, a pattern of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextShape(Vec<Piece>);

impl TextShape {
    /// Reads a template; `params` are the route's own placeholders.
    pub fn parse(source: &str, params: &[&str]) -> Result<Self, ShapeError> {
        pieces(source, params).map(Self)
    }

    /// The text; what each placeholder gives goes through `escape`.
    pub fn render(&self, values: &impl Values, escape: fn(String) -> String) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Placeholder(placeholder) => escape(values.text(placeholder)),
        };
        self.0.iter().map(text).collect()
    }

    /// The placeholders in it.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Placeholder(placeholder) => Some(placeholder),
        })
    }

    /// Whether a literal part has one of these characters.
    pub fn has(&self, characters: &[char]) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Literal(text) if text.contains(characters)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Placeholder(Placeholder),
}

/// Splits a text at its placeholders.
fn pieces(text: &str, params: &[&str]) -> Result<Vec<Piece>, ShapeError> {
    let unbalanced = || ShapeError::Brace(text.to_owned());
    let (mut found, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let from = &rest[at..];
        if let Some(after) = from.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = from.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else {
            let (name, after) =
                from.strip_prefix('{').and_then(|t| t.split_once('}')).ok_or_else(unbalanced)?;
            let placeholder = Placeholder::parse(name, params).ok_or_else(|| unknown(name, params))?;
            if !literal.is_empty() {
                found.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            found.push(Piece::Placeholder(placeholder));
            rest = after;
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        found.push(Piece::Literal(literal));
    }
    Ok(found)
}

fn unknown(name: &str, params: &[&str]) -> ShapeError {
    let fixed = Placeholder::FIXED.iter().map(|(name, _)| *name);
    let known: Vec<&str> = fixed.chain(["row.MEMBER"]).chain(params.iter().copied()).collect();
    ShapeError::Unknown(name.to_owned(), known.join(", "))
}

/// Appends `text` as a JSON text with its quotes.
pub fn push_json_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    push_escaped(text, out);
    out.push(b'"');
}

fn push_escaped(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
}

impl Placeholder {
    /// The placeholder that is the whole text, in a template that has been checked.
    pub(super) fn parse_alone(text: &str) -> Option<Self> {
        let name = text.strip_prefix('{')?.strip_suffix('}')?;
        (!name.contains(['{', '}'])).then(|| Self::parse(name, &[name])).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Fixed<'a>(&'a str);

    impl Values for Fixed<'_> {
        fn push_json(&self, placeholder: &Placeholder, out: &mut Vec<u8>) {
            match placeholder {
                Placeholder::Row => out.extend_from_slice(br#"{"id":1}"#),
                _ => push_json_text(self.0, out),
            }
        }
        fn text(&self, _: &Placeholder) -> String {
            self.0.to_owned()
        }
    }

    #[test]
    fn values_take_the_place_of_placeholders() {
        let shape = Shape::parse(
            r#"{"z": 1, "row": "{row}", "m": "ok:{source}!", "list": [true, null, 1.5, {}], "b": "{{x}}", "k": "{limit}"}"#,
            &["limit"],
        )
        .unwrap();
        assert_eq!(
            String::from_utf8(shape.render(&Fixed("re\"dis"))).unwrap(),
            r#"{"z":1,"row":{"id":1},"m":"ok:re\"dis!","list":[true,null,1.5,{}],"b":"{x}","k":"re\"dis"}"#
        );
        assert!(!shape.shows_rows() && Shape::parse("\"{rows}\"", &[]).unwrap().shows_rows());
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text| Shape::parse(text, &["id"]).unwrap_err().to_string();
        assert!(error("{").starts_with("is no JSON"));
        assert!(error("[\"{row\"]").contains("unbalanced"));
        assert!(error("[\"a}\"]").contains("unbalanced"));
        let unknown = error("[\"{rwo}\"]");
        assert!(unknown.contains("{rwo}") && unknown.contains("row.MEMBER, id"), "{unknown}");
    }

    proptest! {
        #[test]
        fn no_value_breaks_out_of_its_place(value in "\\PC{0,8}|[\"\\\\{}\\x00-\\x1f]{0,8}") {
            let shape = Shape::parse(r#"{"a": "x{error}y", "b": "{error}"}"#, &[]).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&shape.render(&Fixed(&value))).unwrap();
            prop_assert_eq!(json, serde_json::json!({"a": format!("x{value}y"), "b": value}));
        }
    }
}
