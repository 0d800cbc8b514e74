//! JSON whose members keep the order in which they were written.
//!
//! Must not know: placeholders, but for the schema of what they become.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::shape::Placeholder;

/// JSON whose members keep their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Null,
    /// A number or a truth value.
    Plain(serde_json::Value),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// A JSON schema of what it renders to.
    pub(super) fn schema(&self, of: &dyn Fn(&Placeholder) -> serde_json::Value) -> serde_json::Value {
        use serde_json::json;
        match self {
            Self::Null => json!({"type": "null"}),
            Self::Plain(value) => json!({"const": value}),
            Self::Text(text) => match Placeholder::parse_alone(text) {
                Some(placeholder) => of(&placeholder),
                None if text.contains('{') => json!({"type": "string"}),
                None => json!({"const": text}),
            },
            Self::List(list) => json!({"type": "array", "minItems": list.len(), "maxItems": list.len()}),
            Self::Object(members) => {
                let properties: serde_json::Map<_, _> =
                    members.iter().map(|(name, node)| (name.clone(), node.schema(of))).collect();
                let required: Vec<&String> = members.iter().map(|(name, _)| name).collect();
                json!({"type": "object", "properties": properties, "required": required})
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = sequence.next_element()? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }
}
