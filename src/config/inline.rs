//! Settings that are written as a small table: `{ limit = 100 }`.
//!
//! Must not know: any particular setting, where a value came from.

use serde_json::{Value as Json, json};

use super::kind::{Kind, Refused};
use super::raw::Raw;

/// Refuses with a reason.
fn refuse<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(Some(why.into())))
}

fn entries<'r>(raw: &'r Raw<'_>) -> Result<Vec<(&'r str, Raw<'r>)>, Refused> {
    raw.entries().ok_or(Refused(None))
}

/// Whether `name` can be a placeholder or a member: it is not cut or quoted anywhere.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 63 && !name.contains(['\0', '"'])
}

/// Names and texts, in the order in which they are written.
pub struct Pairs {
    /// What a text is.
    pub text: &'static str,
    /// One pair, in TOML.
    pub example: &'static str,
}

impl Kind for Pairs {
    type Value = Vec<(String, String)>;
    fn read(&self, raw: &Raw<'_>) -> Result<Self::Value, Refused> {
        let pair = |(name, raw): &(&str, Raw<'_>)| match raw.text() {
            _ if !is_name(name) => refuse(format!("the name {name:?} is not right")),
            Some(text) if !text.trim().is_empty() && !text.contains('\0') => {
                Ok(((*name).to_owned(), text.to_owned()))
            }
            _ => refuse(format!("`{name}` is {}: expected {}", raw.shown(), self.text)),
        };
        entries(raw)?.iter().map(pair).collect()
    }
    fn render(&self, value: &Self::Value) -> String {
        let pair =
            |(name, text): &(String, String)| format!("{name:?} = {}", toml::Value::String(text.clone()));
        match value.is_empty() {
            true => String::new(),
            false => format!("{{ {} }}", value.iter().map(pair).collect::<Vec<_>>().join(", ")),
        }
    }
    fn expects(&self) -> String {
        format!("a table of names, each with {}", self.text)
    }
    fn schema(&self) -> Json {
        json!({"type": "object", "additionalProperties": {"type": "string"}})
    }
    fn example(&self) -> String {
        self.example.to_owned()
    }
}

/// Names and the largest number that each may be.
pub struct Limits;

impl Kind for Limits {
    type Value = Vec<(String, u64)>;
    fn read(&self, raw: &Raw<'_>) -> Result<Self::Value, Refused> {
        let limit = |(name, raw): &(&str, Raw<'_>)| match raw.integer().and_then(|n| u64::try_from(n).ok()) {
            Some(most) if is_name(name) => Ok(((*name).to_owned(), most)),
            _ => refuse(format!("`{name}` is {}: expected a whole number from 0", raw.shown())),
        };
        entries(raw)?.iter().map(limit).collect()
    }
    fn render(&self, value: &Self::Value) -> String {
        match value.is_empty() {
            true => String::new(),
            false => {
                let limits: Vec<_> = value.iter().map(|(name, most)| format!("{name} = {most}")).collect();
                format!("{{ {} }}", limits.join(", "))
            }
        }
    }
    fn expects(&self) -> String {
        "a table of names, each with a whole number from 0".to_owned()
    }
    fn schema(&self) -> Json {
        json!({"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}})
    }
    fn example(&self) -> String {
        "{ offset = 10000, limit = 100 }".to_owned()
    }
}

/// On which mapping's rows the values of another depend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Name of the mapping that is written.
    pub mapping: String,
    /// The placeholder that both have in common; without it every write makes every value stale.
    pub by: Option<String>,
}

/// `{ mapping = "post", by = "user_id" }`.
pub struct DependencyTable;

impl Kind for DependencyTable {
    type Value = Dependency;
    fn read(&self, raw: &Raw<'_>) -> Result<Dependency, Refused> {
        let mut found = Dependency { mapping: String::new(), by: None };
        for (name, raw) in entries(raw)? {
            match (name, raw.text()) {
                ("mapping", Some(text)) => found.mapping = text.to_owned(),
                ("by", Some(text)) => found.by = Some(text.to_owned()),
                ("mapping" | "by", None) => return refuse(format!("`{name}` is {}", raw.shown())),
                _ => return refuse(format!("it has no key `{name}`")),
            }
        }
        if found.mapping.is_empty() { refuse("it names no `mapping`") } else { Ok(found) }
    }
    fn render(&self, value: &Dependency) -> String {
        let by = value.by.as_ref().map(|by| format!(", by = {by:?}")).unwrap_or_default();
        format!("{{ mapping = {:?}{by} }}", value.mapping)
    }
    fn expects(&self) -> String {
        "a table with `mapping`, and `by` where not every row concerns every key".to_owned()
    }
    fn schema(&self) -> Json {
        let text = json!({"type": "string"});
        json!({"type": "object", "properties": {"mapping": text, "by": text}, "required": ["mapping"],
            "additionalProperties": false})
    }
    fn example(&self) -> String {
        "{ mapping = \"post\", by = \"user_id\" }".to_owned()
    }
}

/// Rows that are loaded before anybody asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmUp {
    /// A condition on the table's rows, in SQL; `where` in the file.
    pub filter: Option<String>,
    /// Rows at most.
    pub limit: Option<u64>,
    /// Rows per second at most.
    pub rate: Option<u64>,
}

/// `true`, `false`, or `{ where = "...", limit = 10000, rate = 1000 }`.
pub struct WarmUpTable;

impl Kind for WarmUpTable {
    type Value = Option<WarmUp>;
    fn read(&self, raw: &Raw<'_>) -> Result<Option<WarmUp>, Refused> {
        if let Some(wanted) = raw.boolean() {
            return Ok(wanted.then(WarmUp::default));
        }
        let mut found = WarmUp::default();
        for (name, raw) in entries(raw)? {
            let number = || raw.integer().and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
            match (name, raw.text(), number()) {
                ("where", Some(text), _) if !text.trim().is_empty() => found.filter = Some(text.to_owned()),
                ("limit", _, Some(number)) => found.limit = Some(number),
                ("rate", _, Some(number)) => found.rate = Some(number),
                ("where" | "limit" | "rate", ..) => {
                    return refuse(format!("`{name}` is {}", raw.shown()));
                }
                _ => return refuse(format!("it has no key `{name}`")),
            }
        }
        Ok(Some(found))
    }
    fn render(&self, value: &Option<WarmUp>) -> String {
        let Some(warm) = value else { return "false".to_owned() };
        let filter =
            warm.filter.as_ref().map(|text| format!("where = {}", toml::Value::String(text.clone())));
        let limit = warm.limit.map(|limit| format!("limit = {limit}"));
        let rate = warm.rate.map(|rate| format!("rate = {rate}"));
        match [filter, limit, rate].into_iter().flatten().collect::<Vec<_>>() {
            given if given.is_empty() => "true".to_owned(),
            given => format!("{{ {} }}", given.join(", ")),
        }
    }
    fn expects(&self) -> String {
        "true, false, or a table with `where` (a condition in SQL), `limit` (rows) and `rate` (rows per second)"
            .to_owned()
    }
    fn schema(&self) -> Json {
        let number = json!({"type": "integer", "minimum": 1});
        json!({"anyOf": [{"type": "boolean"}, {"type": "object", "additionalProperties": false, "properties":
            {"where": {"type": "string"}, "limit": number, "rate": number}}]})
    }
}
