//! Finds what contradicts itself, or another mapping, in what is declared.
//!
//! Must not know: whether the tables exist.

use std::time::Duration;

use super::overlap;
use super::set::{Dependent, Mapping, MappingError};
use super::spec::{Format, MappingSpec, OnPoison, StoreMode, WriteMode};

/// Settings of one mapping that do not go together.
pub(super) fn contradictions(spec: &MappingSpec) -> Vec<String> {
    let mut found = Vec::new();
    let mut refuse = |wrong: bool, message: &str| wrong.then(|| found.push(message.to_owned()));
    let writes = spec.write != WriteMode::None;
    let append = spec.mode == StoreMode::Append;
    refuse(spec.name.trim().is_empty(), "needs a name");
    refuse(
        spec.table.is_none() && spec.load.is_none(),
        "names no table; set `table`, or `load` with own SQL",
    );
    refuse(
        spec.table.is_none() && spec.load.is_some() && writes,
        "writes but names no table; set `table`, or write = \"none\"",
    );
    refuse(
        spec.format == Format::Text && spec.column.is_none(),
        "format = \"text\" shows one column; name it with `column`",
    );
    refuse(
        spec.format == Format::Json && spec.column.is_some(),
        "`column` goes with format = \"text\"; remove it, or change the format",
    );
    refuse(
        append && spec.order_by.is_none(),
        "mode = \"append\" keeps many rows per key; say with `order_by` which column tells the newest",
    );
    refuse(
        writes && !append && spec.order_by.is_some(),
        "`order_by` picks the newest of many rows, mode = \"upsert\" keeps one; remove `order_by`, or use mode = \"append\"",
    );
    refuse(
        spec.version_column.is_some() && (!writes || append),
        "`version_column` guards rows that are replaced: it goes with write = \"behind\" and mode = \"upsert\"",
    );
    refuse(
        spec.version_table && spec.version_column.is_none(),
        "`version_table` goes with `version_column`: without that versions are in the table anyway",
    );
    refuse(
        spec.on_poison == OnPoison::Wait && !writes,
        "`on_poison` is about writes: it goes with write = \"behind\"",
    );
    let list = spec.format == Format::List;
    refuse(
        list && writes,
        "format = \"list\" shows several rows and cannot be written; set write = \"none\"",
    );
    refuse(list && spec.table.is_some(), "format = \"list\" shows what its `load` finds; remove `table`");
    refuse(
        list && spec.load.is_none(),
        "format = \"list\" needs `load`: the SELECT that finds its rows, in their order",
    );
    refuse(!list && spec.of.is_some(), "`of` goes with format = \"list\"; remove it, or change the format");
    refuse(
        !spec.columns.is_empty()
            && (writes || spec.load.is_some() || spec.order_by.is_some() || spec.format == Format::Text),
        "`columns` shows the rows of a `table` otherwise than they are: it goes with write = \"none\", with format = \"json\" or \
         \"hash\", and without `load` and `order_by`",
    );
    let constant = !spec.key.contains('{');
    refuse(
        constant && !list && spec.load.is_none(),
        "the key has no placeholder, so it stands for no particular row; say with `load` which rows it shows",
    );
    refuse(spec.max_key < spec.key.len().min(16), "`max_key` is too short for any key");
    refuse(
        spec.fill.stale > Duration::ZERO && spec.ttl.is_zero(),
        "`stale_while_revalidate` begins when the time to live ends; with ttl = \"0\" it never does",
    );
    found
}

pub(super) fn overlaps(mappings: &[Mapping]) -> Vec<MappingError> {
    let mut errors = Vec::new();
    for (i, a) in mappings.iter().enumerate() {
        for b in &mappings[i + 1..] {
            if let Some(key) = overlap::common_key(&a.template, &b.template) {
                let message = format!(
                    "the key template \"{}\" can match the same key as \"{}\" of mapping \"{}\", for example \
                     \"{key}\"; make the templates differ in a literal",
                    b.template.source(),
                    a.template.source(),
                    a.name
                );
                errors.push(MappingError { mapping: b.name.clone(), message });
            }
        }
    }
    errors
}

/// A mapping's `of` and `invalidate_on`, as declared.
type References = (Option<String>, Option<(String, Option<String>)>);

/// Resolves the names of mappings in other mappings.
pub(super) fn references(mappings: &mut [Mapping], declared: &[References]) -> Vec<MappingError> {
    let mut errors = Vec::new();
    for (at, (of, on)) in declared.iter().enumerate() {
        let Some(mapping) = mappings.get(at) else { continue };
        let mut refuse = |message| errors.push(MappingError { mapping: mapping.name.clone(), message });
        let named = |name: &str| mappings.iter().find(|other| other.name == name);
        let of = of.as_ref().and_then(|name| match named(name) {
            Some(other) if other.format == Format::Json => {
                let ids = other.template.placeholders().map(|(name, _)| name.to_owned());
                Some((other.id, ids.collect::<Vec<_>>()))
            }
            Some(_) => {
                refuse(format!(
                    "`of` names \"{name}\", whose format is not \"json\": a list can show no other"
                ));
                None
            }
            None => {
                refuse(format!("`of` names \"{name}\", which is no mapping"));
                None
            }
        });
        let on = on.as_ref().and_then(|(name, by)| {
            let Some(other) = named(name) else {
                refuse(format!("`invalidate_on` names \"{name}\", which is no mapping"));
                return None;
            };
            if let Some(by) = by
                && !mapping.template.placeholders().any(|(name, _)| name == by)
            {
                refuse(format!("`invalidate_on` has by = \"{by}\", which is no placeholder of its key"));
                return None;
            }
            if other.write == WriteMode::None && other.table.is_none() {
                refuse(format!("`invalidate_on` names \"{name}\", which has no table and is never written"));
            }
            Some(Dependent { mapping: other.id, by: by.clone() })
        });
        if let Some(mapping) = mappings.get_mut(at) {
            (mapping.of, mapping.listed) = of.map_or((None, Vec::new()), |(id, columns)| (Some(id), columns));
            mapping.invalidate_on = on;
        }
    }
    for dependent in mappings.iter().filter_map(|mapping| mapping.invalidate_on.clone()).collect::<Vec<_>>() {
        let Some(mapping) = mappings.get_mut(usize::from(dependent.mapping)) else { continue };
        let watched = mapping.watched.get_or_insert_default();
        watched.extend(dependent.by.filter(|by| !watched.contains(by)));
    }
    errors
}
