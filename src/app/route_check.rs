//! Holds the routes of the configuration against the database before anybody is served.
//!
//! Must not know: how a route is run.

use super::{StartError, StartErrors};
use crate::config::{Action, Compiled, Config, compile};
use crate::mapping::{Format, Mapping, MappingSet};
use crate::route::Placeholder;
use crate::source::{Source, SourceError};

/// Has the database look at every statement, and compares what it answers with what the route makes of it. All mistakes
/// are reported together.
pub(super) async fn check(config: &Config, source: &Source) -> Result<(), StartErrors> {
    let mut mistakes = Vec::new();
    for route in compile(config) {
        let mut wrong = |message: String| mistakes.push(format!("route \"{}\": {message}", route.name));
        match &route.action {
            Action::Mapping { mapping, .. } => {
                let columns = source.mappings().by_name(mapping).and_then(|mapping| members(source, mapping));
                shown(&route, columns.as_deref(), &mut wrong);
            }
            Action::Statement { statement, .. } => match source.describe(statement).await {
                Err(error @ SourceError::Unavailable { .. }) => return Err(error.into()),
                Err(SourceError::Schema { message, .. } | SourceError::BadData { message, .. }) => {
                    wrong(format!("`sql`: {message}"));
                }
                Err(error) => wrong(format!("`sql`: {error}")),
                Ok(columns) => {
                    shown(&route, Some(&columns), &mut wrong);
                    written(&route, source.mappings(), &columns, &mut wrong);
                }
            },
        }
    }
    match mistakes.is_empty() {
        true => Ok(()),
        false => Err(StartErrors(mistakes.into_iter().map(StartError::Route).collect())),
    }
}

/// The members of the values of a mapping, where they are known and there are some.
fn members(source: &Source, mapping: &Mapping) -> Option<Vec<String>> {
    if mapping.format != Format::Json || mapping.load.is_some() {
        return None;
    }
    if !mapping.columns.is_empty() {
        return Some(mapping.columns.iter().map(|(name, _)| name.clone()).collect());
    }
    let table = source.bound(mapping.id)?.table.as_ref()?;
    Some(table.columns.iter().map(|column| column.name.clone()).collect())
}

/// What the usual answer and the further keys show of the row has to be there. Nothing is known without `columns`.
fn shown(route: &Compiled, columns: Option<&[String]>, wrong: &mut impl FnMut(String)) {
    let Some(columns) = columns else { return };
    let ok = route.outcomes.iter().find(|outcome| outcome.name == "ok");
    let in_answer =
        ok.iter().filter_map(|outcome| outcome.shape.as_ref()).flat_map(|shape| shape.placeholders());
    let in_keys = route.invalidates.iter().flat_map(|invalidation| invalidation.text.placeholders());
    for (setting, placeholder) in
        in_answer.map(|it| ("on.ok", it)).chain(in_keys.map(|it| ("invalidates", it)))
    {
        match placeholder {
            Placeholder::Field(name) if !columns.contains(name) => {
                wrong(format!("`{setting}` shows {{row.{name}}}, and {}", there_is(columns)));
            }
            Placeholder::Token if !columns.iter().any(|column| column == "id") => {
                wrong(format!(
                    "`{setting}` shows {{token}}, which is for the row's `id`, and {}",
                    there_is(columns)
                ));
            }
            _ => {}
        }
    }
}

/// The rows have to tell which entries are no longer true.
fn written(route: &Compiled, mappings: &MappingSet, columns: &[String], wrong: &mut impl FnMut(String)) {
    let Some(mapping) = route.writes.as_deref().and_then(|name| mappings.by_name(name)) else { return };
    let missing = |name: &str| !columns.iter().any(|column| column == name);
    for (name, _) in mapping.template.placeholders().filter(|(name, _)| missing(name)) {
        let key = mapping.template.source();
        wrong(format!(
            "`writes`: the key \"{key}\" needs the column {name} of each written row, and {}",
            there_is(columns)
        ));
    }
    for list in mappings.iter() {
        let on = list.invalidate_on.as_ref().filter(|on| on.mapping == mapping.id);
        let by = on.and_then(|on| on.by.as_deref()).filter(|by| missing(by));
        if let Some(by) = by {
            wrong(format!(
                "`writes`: mapping \"{}\" depends on the column {by} of each written row, and {}",
                list.name,
                there_is(columns)
            ));
        }
    }
}

/// The columns, as the end of a sentence.
fn there_is(columns: &[String]) -> String {
    match columns {
        [] => "the statement returns nothing: add `returning`".to_owned(),
        columns => format!("there is only {}", columns.join(", ")),
    }
}
