//! What several commands on one key come to together: the value after them, and the one write that makes it so.
//!
//! Must not know: commands, the cache, when the write happens.

use super::compute::{Asked, Effect};
use super::options::unix_seconds;
use crate::mapping::{Bound, Format, Match, Row};
use crate::sidecar::Value;
use crate::writeback::Write;
use bytes::Bytes;

/// A value that commands change, one after the other.
pub(super) struct Draft<'b> {
    bound: &'b Bound,
    ids: Box<[Box<str>]>,
    /// The value as the next command sees it.
    current: Option<Value>,
    /// The row to be written.
    row: Option<Row>,
    deleted: bool,
    expires_at: Option<u64>,
    /// When the entry expires though nothing is written.
    life: Option<u64>,
}

/// The write that a draft comes to.
pub(super) struct Outcome {
    /// What happens to the row.
    pub write: Write,
    /// What the cache holds then.
    pub value: Option<Value>,
    /// When the entry expires, ms since 1970.
    pub expires_at: Option<u64>,
}

impl<'b> Draft<'b> {
    pub fn new(bound: &'b Bound, found: &Match<'_>, current: Option<Value>) -> Self {
        let ids = found.ids().iter().map(|id| Box::from(*id)).collect();
        Self { bound, ids, current, row: None, deleted: false, expires_at: None, life: None }
    }

    /// The value as the next command sees it.
    pub fn current(&self) -> Option<&Value> {
        self.current.as_ref()
    }

    /// Whether something is to be written.
    pub fn changes(&self) -> bool {
        self.deleted || self.row.is_some()
    }

    /// Whether another command may join: a deletion is a write of its own, and a life is given to a value that is there.
    pub fn is_open(&self, next: &Asked) -> bool {
        !self.deleted && self.life.is_none() && !(self.changes() && next.name == "getex")
    }

    /// When the entry is to expire though nothing is written, ms since 1970; 0 = never.
    pub fn life(&self) -> Option<u64> {
        self.life
    }

    /// Takes what one command does, if the table can take it; otherwise nothing happens, and the error says why.
    pub fn take(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::None => {}
            Effect::Live(ends) => self.life = Some(ends),
            Effect::Put(value, expires_at) => {
                self.put(value)?;
                self.expires_at = expires_at;
            }
            Effect::Fields(changes) => self.patch(&changes)?,
            Effect::Delete => {
                (self.current, self.row, self.deleted) = (None, None, true);
                self.expires_at = None;
            }
        }
        Ok(())
    }

    fn put(&mut self, value: Bytes) -> Result<(), String> {
        if self.bound.mapping.format == Format::Hash {
            return Err(format!(
                "ERR mapping '{}' holds hashes, which a string cannot replace; use HSET, or DEL and HSET",
                self.bound.mapping.name
            ));
        }
        let row = Row::parse_at(self.bound, &self.ids, &value, unix_seconds())
            .map_err(|error| format!("ERR {error}"))?;
        self.add(row);
        self.current = Some(Value::Text(value));
        Ok(())
    }

    fn patch(&mut self, changes: &[(Bytes, Option<Bytes>)]) -> Result<(), String> {
        if self.bound.mapping.format != Format::Hash {
            return Err(format!(
                "ERR mapping '{}' holds strings, of which no command on hashes makes one; use SET",
                self.bound.mapping.name
            ));
        }
        let mut fields = match &self.current {
            Some(Value::Hash(fields)) => fields.clone(),
            // A row has its id.
            _ => {
                let names =
                    self.bound.mapping.template.placeholders().map(|(name, _)| Bytes::from(name.to_owned()));
                names.zip(self.ids.iter().map(|id| Bytes::from(id.to_string()))).collect()
            }
        };
        for (name, value) in changes {
            let at = fields.iter().position(|(field, _)| field == name);
            match (at, value) {
                (Some(at), Some(value)) => {
                    if let Some((_, old)) = fields.get_mut(at) {
                        *old = value.clone();
                    }
                }
                (Some(at), None) => drop(fields.remove(at)),
                (None, Some(value)) => fields.push((name.clone(), value.clone())),
                (None, None) => {}
            }
        }
        let row =
            Row::patch(self.bound, &self.ids, changes, &fields).map_err(|error| format!("ERR {error}"))?;
        self.add(row);
        (self.current, self.expires_at) = (Some(Value::Hash(fields)), None);
        Ok(())
    }

    /// A write may name some of the columns only: those of the one before it stay, as if each were written by itself.
    fn add(&mut self, row: Row) {
        self.row = Some(match self.row.take() {
            None => row,
            Some(before) => before.and_then(row),
        });
    }

    /// The write, where there is one. `whole`: of a hash, all columns are written, since the value that it was computed from is
    /// not in the database yet, and may come there later, or not at all, because this one is newer.
    pub fn finish(self, whole: bool) -> Option<Outcome> {
        let expires_at = self.expires_at;
        if self.deleted {
            return Some(Outcome { write: Write::Delete { ids: self.ids }, value: None, expires_at });
        }
        let (mut row, value) = (self.row?, self.current?);
        if let (true, Value::Hash(fields)) = (whole, &value)
            && let Ok(all) = Row::of_fields(self.bound, &self.ids, fields)
        {
            row = all;
        }
        let seen = match &value {
            Value::Text(text) => text.clone(),
            Value::Hash(fields) => crate::mapping::document_of(fields),
        };
        Some(Outcome { write: Write::Put { row, value: seen }, value: Some(value), expires_at })
    }
}
