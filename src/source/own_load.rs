//! Which parameters an own `load` statement takes, and what it has to return.
//!
//! Must not know: which database will read the SQL.

use crate::mapping::{Format, Mapping};
use crate::sql::{Piece, pieces};

/// How an own `load` takes the ids of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadParameters {
    /// `$1`: the array of all ids.
    Arrays,
    /// `$name`: one key's values.
    Names,
}

/// Which parameters an own `load` of `mapping` uses; a message when they do not go together.
pub(super) fn check_load(mapping: &Mapping, own: &str) -> Result<LoadParameters, String> {
    let ids: Vec<&str> = mapping.template.placeholders().map(|(name, _)| name).collect();
    let (mut names, mut numbers) = (false, false);
    for piece in pieces(own) {
        match piece {
            Piece::Sql(_) => {}
            Piece::Number(_) => numbers = true,
            Piece::Name(name) if ids.contains(&name) => names = true,
            Piece::Name(name) => {
                return Err(format!(
                    "`load` has the parameter ${name}; the key has the placeholders: {}",
                    ids.join(", ")
                ));
            }
        }
    }
    match (names, numbers) {
        (true, true) => {
            Err("`load` mixes parameters by name ($id) with arrays by number ($1); use one kind".into())
        }
        (true, false) => Ok(LoadParameters::Names),
        (false, _) if ids.is_empty() => Ok(LoadParameters::Names),
        (false, _) if mapping.format == Format::List => {
            Err(format!("`load` of a list takes its parameters by name, such as ${}", ids.join(", $")))
        }
        (false, _) => Ok(LoadParameters::Arrays),
    }
}

/// The message for a column that an own `load` lacks.
pub(super) fn missing_column(name: &str, names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    format!("`load` must return a column \"{name}\"; it returns: {}", names.join(", "))
}
