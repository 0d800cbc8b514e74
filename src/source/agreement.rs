//! Whether the proxies that write a mapping keep the versions of its rows in places where they see each other's.
//!
//! Must not know: SQL, how versions are compared.
//!
//! Every proxy says in `dsproxy_guards` where it keeps them, for a while, and again as long as it lives. One that would not
//! see the versions of another that lives is told so at its start: an older write of one could replace a newer one of the other.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::error::SourceError;
use crate::mapping::{Bound, WriteMode};

/// How long the word of a proxy counts.
pub const WORD: Duration = Duration::from_secs(100);

/// Where the versions of a mapping's rows are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guard {
    /// In this column of the rows; in `dsproxy_versions` for rows that are not there.
    pub column: Option<String>,
    /// In `dsproxy_versions` for all.
    pub table: bool,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.column, self.table) {
            (None, _) => f.write_str("table"),
            (Some(column), true) => write!(f, "table and column {column}"),
            (Some(column), false) => write!(f, "column {column}"),
        }
    }
}

impl FromStr for Guard {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match (text, text.strip_prefix("table and column "), text.strip_prefix("column ")) {
            ("table", ..) => Ok(Self { column: None, table: true }),
            (_, Some(column), _) => Ok(Self { column: Some(column.to_owned()), table: true }),
            (_, _, Some(column)) => Ok(Self { column: Some(column.to_owned()), table: false }),
            _ => Err(()),
        }
    }
}

impl Guard {
    /// That of a mapping whose rows are replaced.
    pub fn of(bound: &Bound) -> Option<Self> {
        let mapping = &bound.mapping;
        let guarded = mapping.write != WriteMode::None && !bound.is_append();
        let column = mapping.version_column.clone();
        guarded.then(|| Self { table: mapping.version_table || column.is_none(), column })
    }

    /// Whether each sees what the other has written: whoever has a column looks into the table, too.
    fn agrees(&self, other: &Self) -> bool {
        let both_see_table = self.table && other.table;
        let same_column = self.column.is_some() && self.column == other.column;
        both_see_table || same_column
    }

    /// In the words of an error.
    fn place(&self) -> String {
        match (&self.column, self.table) {
            (None, _) => "table dsproxy_versions".to_owned(),
            (Some(column), true) => format!("column \"{column}\" and table dsproxy_versions"),
            (Some(column), false) => format!("column \"{column}\""),
        }
    }
}

/// What another proxy has said of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub id: String,
    pub mapping: String,
    pub guard: String,
    /// Seconds for which it counts yet.
    pub left: i64,
}

/// Whether `own` guards agree with what others have `said`.
///
/// # Errors
/// [`SourceError::Schema`], with the cure.
pub(super) fn check(own: &[(String, Guard)], said: &[Said]) -> Result<(), SourceError> {
    for Said { id, mapping, guard, left } in said {
        let Some((_, mine)) = own.iter().find(|(name, _)| name == mapping) else { continue };
        // What a later version may say is not known here.
        let Ok(theirs) = guard.parse::<Guard>() else { continue };
        if !mine.agrees(&theirs) {
            return Err(SourceError::schema(
                "55000",
                format!(
                    "mapping \"{mapping}\": this proxy keeps the versions of its rows in {}, proxy {id} in {}: an older \
                     write of one could replace a newer one of the other. Give both the same `version_column`; while they \
                     change over one after the other, with version_table = true. (If proxy {id} is gone, this passes in \
                     {left} s.)",
                    mine.place(),
                    theirs.place()
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_agree_that_see_each_others_versions() {
        let all = ["table", "column v", "column w", "table and column v", "table and column w"];
        let guards: Vec<Guard> = all.iter().map(|text| text.parse().unwrap()).collect();
        for (text, guard) in all.iter().zip(&guards) {
            assert_eq!(guard.to_string(), *text);
        }
        let agreeing = [(0, 3), (0, 4), (1, 3), (2, 4), (3, 4)];
        for (at, a) in guards.iter().enumerate() {
            for (other, b) in guards.iter().enumerate() {
                let wanted = at == other || agreeing.contains(&(at.min(other), at.max(other)));
                assert_eq!(a.agrees(b), wanted, "{a} and {b}");
            }
        }
        assert!("something else".parse::<Guard>().is_err());
    }
}
