//! Mappings: which Redis key stands for which database row.
//!
//! Must not know: Postgres' protocol, Redis' protocol, threads, time. Everything here is pure.
//!
//! `template` turns keys into id values and back, `set` finds the mapping of a key on the hot path, `schema` describes a
//! table, `bind` holds a mapping against its table, `check` finds contradictions in what
//! is declared, `document` turns a client's value into a row, `patch` changed fields of a hash into a part of one, `fields` a loaded row into the fields of a hash, `value` checks one
//! column's value, `order` compares the values of an `order_by` column.

mod bind;
mod check;
mod document;
mod fields;
mod order;
mod overlap;
mod patch;
mod schema;
mod set;
mod spec;
mod template;
mod value;

#[cfg(test)]
mod tests;

pub use bind::{BindError, Bound, bind, shared_version};
pub use document::{Columns, Row, ValueError};
pub use fields::{document_of, fields_of};
pub use order::OrderKey;
pub use schema::{Column, ColumnType, Table};
pub use set::{Dependent, Mapping, MappingError, MappingId, MappingSet, RESERVED_PREFIX};
pub use spec::{BadKey, Durability, FillPolicy, Format, MappingSpec, OnPoison, StoreMode, WriteMode};
pub use template::{IdType, MAX_PLACEHOLDERS, Match, Template, TemplateError};
