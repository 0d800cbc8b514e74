//! Turns changed fields of a hash into the part of a row that changes.
//!
//! Must not know: when or how it will be stored.
//!
//! A field looks as [`super::fields_of`] shows it: the texts of columns, JSON for arrays and JSON columns, and no field for
//! NULL. Only the columns of changed fields are written. What else a new row could not do without is given beside them, for
//! the case that the row is gone; an existing row keeps its own.

use super::bind::Bound;
use super::document::{Check, Row, ValueError};
use super::schema::ColumnType;
use super::value;
use bytes::Bytes;
use serde_json::value::RawValue;

/// Name and value of fields.
type Fields = [(Bytes, Bytes)];

impl Row {
    /// Checks changed fields of a hash (`None`: the field is removed), of which `whole` are all fields afterwards.
    pub fn patch(
        bound: &Bound,
        ids: &[Box<str>],
        changes: &[(Bytes, Option<Bytes>)],
        whole: &Fields,
    ) -> Result<Self, ValueError> {
        let check = Check::new(bound)?;
        for (id, index) in ids.iter().zip(&bound.id_columns) {
            let Some(column) = check.table.columns.get(usize::from(*index)) else { continue };
            value::check_text(&column.ty, id).map_err(|message| check.column(&column.name, message))?;
        }
        let mut row = Self { ids: ids.into(), columns: Vec::new(), keep: Vec::new() };
        for (name, value) in changes {
            let name = std::str::from_utf8(name).map_err(|_| check.document("a field is not valid UTF-8"))?;
            let index = check.writable(name)?;
            let id = bound.id_columns.iter().position(|column| *column == index);
            match (id, value) {
                (Some(_), None) => {
                    return Err(
                        check.column(name, "is the id in the key and cannot be removed; DEL deletes the row")
                    );
                }
                (Some(at), Some(text)) => {
                    let text = String::from_utf8_lossy(text);
                    check.same_id(name, Some(&text), ids.get(at).map_or("", |id| id))?;
                }
                (None, value) => {
                    let text =
                        value.as_ref().map(|value| column_text(&check, index, value)).transpose()?.flatten();
                    row.columns.retain(|(given, _)| *given != index);
                    row.columns.push((index, text));
                }
            }
        }
        row.columns.sort_unstable_by_key(|(index, _)| *index);
        row.complete(&check, whole)?;
        Ok(row)
    }

    /// All columns of the hash `whole`, NULL where it has no field.
    pub fn of_fields(bound: &Bound, ids: &[Box<str>], whole: &Fields) -> Result<Self, ValueError> {
        let check = Check::new(bound)?;
        let columns = check.table.columns.iter().enumerate();
        let given = columns.filter(|(at, column)| {
            let at = *at as u16;
            let own = bound.id_columns.contains(&at) || bound.version_column == Some(at);
            !column.generated && !column.identity_always && !own
        });
        let changes: Vec<(Bytes, Option<Bytes>)> = given
            .filter_map(|(_, column)| {
                let field = whole.iter().find(|(name, _)| *name == column.name.as_bytes());
                let value = field.map(|(_, value)| value.clone());
                (value.is_some() || !column.not_null).then(|| (Bytes::from(column.name.clone()), value))
            })
            .collect();
        Self::patch(bound, ids, &changes, whole)
    }

    /// Adds what a new row needs; refuses what no row may be.
    fn complete(&mut self, check: &Check<'_>, whole: &Fields) -> Result<(), ValueError> {
        for (at, column) in check.table.columns.iter().enumerate().filter(|(_, c)| c.not_null && !c.generated)
        {
            let index = at as u16;
            if check.bound.id_columns.contains(&index) {
                continue;
            }
            match self.columns.binary_search_by_key(&index, |(given, _)| *given) {
                Ok(at) if self.columns.get(at).is_some_and(|(_, text)| text.is_none()) => {
                    return Err(check.column(&column.name, "is null, but it is NOT NULL"));
                }
                Ok(_) => {}
                Err(_) if column.has_default => {}
                Err(_) => {
                    let field = whole.iter().find(|(name, _)| *name == column.name.as_bytes());
                    let text =
                        field.map(|(_, value)| column_text(check, index, value)).transpose()?.flatten();
                    let missing =
                        || check.column(&column.name, "is missing; it is NOT NULL and has no default");
                    self.keep.push((index, Some(text.ok_or_else(missing)?)));
                }
            }
        }
        Ok(())
    }
}

/// The database text of a field; `None` is NULL.
fn column_text(check: &Check<'_>, index: u16, field: &[u8]) -> Result<Option<Box<str>>, ValueError> {
    let Some(column) = check.table.columns.get(usize::from(index)) else { return Ok(None) };
    let refuse = |message: String| check.column(&column.name, message);
    let text = std::str::from_utf8(field).map_err(|_| refuse("is not valid UTF-8".to_owned()))?;
    match column.ty {
        ColumnType::Array(_) | ColumnType::Json | ColumnType::Jsonb => {
            let raw: &RawValue =
                serde_json::from_str(text).map_err(|_| refuse("is not valid JSON".to_owned()))?;
            value::from_json(&column.ty, raw).map_err(refuse)
        }
        _ => {
            value::check_text(&column.ty, text).map_err(refuse)?;
            Ok(Some(text.into()))
        }
    }
}
