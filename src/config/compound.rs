//! Types of settings that are made of another one: it may stay unset, it must be given, there is a list of it.
//!
//! Must not know: any particular setting, where a value came from.

use serde_json::{Value as Json, json};

use super::kind::{Kind, OrRefused, Refused};
use super::raw::Raw;

/// A setting that may stay unset.
pub struct Optional<K>(pub K);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;
    fn read(&self, raw: &Raw<'_>) -> Result<Self::Value, Refused> {
        self.0.read(raw).map(Some)
    }
    fn render(&self, value: &Self::Value) -> String {
        value.as_ref().map(|value| self.0.render(value)).unwrap_or_default()
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
        self.0.secret()
    }
}

/// A setting that has to be given.
pub struct Required<K>(pub K);

impl<K: Kind> Kind for Required<K> {
    type Value = K::Value;
    fn read(&self, raw: &Raw<'_>) -> Result<Self::Value, Refused> {
        self.0.read(raw)
    }
    fn render(&self, _: &Self::Value) -> String {
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
    fn required(&self) -> bool {
        true
    }
    fn secret(&self) -> bool {
        self.0.secret()
    }
}

/// A list; one text stands for a list of one.
pub struct List<K>(pub K);

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;
    fn read(&self, raw: &Raw<'_>) -> Result<Self::Value, Refused> {
        raw.elements()
            .or_refused()?
            .iter()
            .map(|element| {
                self.0.read(element).map_err(|refused| {
                    if self.0.secret() {
                        return Refused(Some("an element of it is wrong".to_owned()));
                    }
                    let hint = refused.0.map(|hint| format!(": {hint}")).unwrap_or_default();
                    Refused(Some(format!("the element {} is wrong{hint}", element.shown())))
                })
            })
            .collect()
    }
    fn render(&self, value: &Self::Value) -> String {
        if value.is_empty() || self.0.secret() {
            return String::new();
        }
        format!("[{}]", value.iter().map(|element| self.0.render(element)).collect::<Vec<_>>().join(", "))
    }
    fn expects(&self) -> String {
        format!("a list, each element {}", self.0.expects())
    }
    fn schema(&self) -> Json {
        json!({"anyOf": [{"type": "array", "items": self.0.schema()}, self.0.schema()]})
    }
    fn secret(&self) -> bool {
        self.0.secret()
    }
    fn example(&self) -> String {
        format!("[{}]", self.0.example())
    }
}
