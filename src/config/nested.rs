//! Tables within a repeated table, `[route.params.NAME]`, and what may stand in them.
//!
//! Must not know: any particular section.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::define::Section;
use super::kind::{Kind, Refused};
use super::nearest::nearest;
use super::raw::Raw;
use super::reference;

/// Sections by name, with their mistakes and the places of both.
#[derive(Clone, Debug, PartialEq)]
pub struct Nested<S> {
    entries: BTreeMap<String, (usize, S)>,
    mistakes: Vec<(usize, String)>,
}

impl<S> Default for Nested<S> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), mistakes: Vec::new() }
    }
}

impl<S> Nested<S> {
    /// Each entry with its name, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &S)> {
        self.entries.iter().map(|(name, (_, section))| (name.as_str(), section))
    }

    /// The entry of this name.
    pub fn get(&self, name: &str) -> Option<&S> {
        self.entries.get(name).map(|(_, section)| section)
    }

    /// Where the entry stands, as an offset of the file.
    pub(super) fn offset(&self, name: &str) -> Option<usize> {
        self.entries.get(name).map(|(offset, _)| *offset)
    }

    /// What is wrong inside, with offsets of the file.
    pub(super) fn mistakes(&self) -> &[(usize, String)] {
        &self.mistakes
    }
}

/// The kind of [`Nested`].
pub struct Named<S> {
    /// Names that an entry may have; empty for any identifier.
    pub names: &'static [&'static str],
    /// An example, as TOML.
    pub example: &'static str,
    /// What it is made of.
    pub of: std::marker::PhantomData<S>,
}

impl<S: Section> Named<S> {
    fn entry(&self, name: &str, value: &DeValue<'_>, at: usize, found: &mut Nested<S>) {
        let mut wrong =
            |at: usize, text: String| found.mistakes.push((at, format!("{}.{name}: {text}", S::NAME)));
        let known = match self.names {
            [] => crate::route::is_name(name),
            names => names.contains(&name),
        };
        if !known {
            let near = nearest(name, self.names.iter().copied());
            let hint = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
            wrong(at, format!("no such name{hint}{}", self.known()));
        }
        let DeValue::Table(table) = value else {
            return wrong(at, "expected a table".to_owned());
        };
        let (settings, mut section) = (S::settings(), S::default());
        for (key, value) in table {
            let (key_name, at): (&str, usize) = (key.get_ref(), value.span().start);
            let Some(setting) = settings.iter().find(|setting| setting.definition.key == key_name) else {
                let near = nearest(key_name, settings.iter().map(|setting| setting.definition.key));
                let hint = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
                wrong(key.span().start, format!("has no key `{key_name}`{hint}"));
                continue;
            };
            // A number may be written as a text, so that a variable can stand for it.
            let raw = Raw::Toml(value.get_ref());
            let applied = (setting.apply)(&mut section, &raw).or_else(|refused| match value.get_ref() {
                DeValue::String(text) => (setting.apply)(&mut section, &Raw::Text(text)).map_err(|_| refused),
                _ => Err(refused),
            });
            if let Err(Refused(hint)) = applied {
                let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                wrong(
                    at,
                    format!("`{key_name}` is {}: expected {}{hint}", raw.shown(), setting.definition.expects),
                );
            }
        }
        found.entries.insert(name.to_owned(), (at, section));
    }

    fn known(&self) -> String {
        match self.names {
            [] => ": a name has letters, digits and `_`".to_owned(),
            names => format!(": there are {}", names.join(", ")),
        }
    }
}

impl<S: Section + Clone> Kind for Named<S> {
    type Value = Nested<S>;
    fn read(&self, raw: &Raw<'_>) -> Result<Nested<S>, Refused> {
        let Raw::Toml(DeValue::Table(table)) = raw else { return Err(Refused(None)) };
        let mut found = Nested::default();
        for (name, value) in table.iter() {
            self.entry(name.get_ref(), value.get_ref(), name.span().start, &mut found);
        }
        Ok(found)
    }
    fn render(&self, _: &Nested<S>) -> String {
        String::new()
    }
    fn expects(&self) -> String {
        format!(
            "tables [{}.NAME]{}",
            S::NAME,
            if self.names.is_empty() { String::new() } else { self.known() }
        )
    }
    fn schema(&self) -> Json {
        let settings = S::settings();
        let of = reference::object(S::DOC, settings.iter().map(|setting| &setting.definition));
        match self.names {
            [] => json!({"type": "object", "additionalProperties": of}),
            names => {
                let properties: serde_json::Map<_, _> =
                    names.iter().map(|name| ((*name).to_owned(), of.clone())).collect();
                json!({"type": "object", "additionalProperties": false, "properties": properties})
            }
        }
    }
    fn example(&self) -> String {
        self.example.to_owned()
    }
}

/// A text, a number or a truth value, as a text.
pub struct Scalar;

impl Kind for Scalar {
    type Value = String;
    fn read(&self, raw: &Raw<'_>) -> Result<String, Refused> {
        let number = || raw.number().map(|number| number.to_string());
        let boolean = || raw.boolean().map(|value| value.to_string());
        raw.text().map(str::to_owned).or_else(number).or_else(boolean).ok_or(Refused(None))
    }
    fn render(&self, value: &String) -> String {
        toml::Value::String(value.clone()).to_string()
    }
    fn expects(&self) -> String {
        "a text, a number, true or false".to_owned()
    }
    fn schema(&self) -> Json {
        json!({"type": ["string", "number", "boolean"]})
    }
    fn example(&self) -> String {
        "50".to_owned()
    }
}
