//! What several commands on one key come to together: the value after them, and the one write that makes it so.
//!
//! Must not know: commands, the cache, when the write happens.

use super::compute::Effect;
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
        Self { bound, ids, current, row: None, deleted: false, expires_at: None }
    }

    /// The value as the next command sees it.
    pub fn current(&self) -> Option<&Value> {
        self.current.as_ref()
    }

    /// Whether something is to be written.
    pub fn changes(&self) -> bool {
        self.deleted || self.row.is_some()
    }

    /// Whether another command may join: a deletion is a write of its own.
    pub fn is_open(&self) -> bool {
        !self.deleted
    }

    /// Takes what one command does, if the table can take it; otherwise nothing happens, and the error says why.
    pub fn take(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::None => {}
            Effect::Put(value, expires_at) => {
                self.put(value)?;
                self.expires_at = expires_at;
            }
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
        self.row = Some(match self.row.take() {
            None => row,
            // A document may name some of the columns only: those of the one before it stay, as if each were written.
            Some(before) => before.and_then(row),
        });
        self.current = Some(Value::Text(value));
        Ok(())
    }

    /// The write, where there is one.
    pub fn finish(self) -> Option<Outcome> {
        let expires_at = self.expires_at;
        if self.deleted {
            return Some(Outcome { write: Write::Delete { ids: self.ids }, value: None, expires_at });
        }
        let (row, value) = (self.row?, self.current?);
        let seen = match &value {
            Value::Text(text) => text.clone(),
            Value::Hash(fields) => crate::mapping::document_of(fields),
        };
        Some(Outcome { write: Write::Put { row, value: seen }, value: Some(value), expires_at })
    }
}
