//! Reads the file and the environment by the table of settings.
//!
//! Must not know: any particular setting but the well-known variables' aliases.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::define::{Definition, Section, Setting};
use super::environment::Environment;
use super::expand::{Expanded, expand};
use super::nearest::nearest;
use super::problem::{ConfigErrors, Place, Problem};
use super::raw::Raw;
use super::{Config, MappingConfig, RouteConfig, SectionTable, rules, sections};

/// Variables with this prefix are ours; one that names no setting is a mistake.
const PREFIX: &str = "DSPROXY_";

/// Variables with our prefix that are no settings. Those by which tests harm a debug build (`failpoint.rs`) are refused by a
/// release build as any other mistake.
const NOT_SETTINGS: &[&str] = match cfg!(debug_assertions) {
    true => &["DSPROXY_CONFIG", "DSPROXY_FAILPOINT", "DSPROXY_POWER_CUT", "DSPROXY_LEAVE_OUT"],
    false => &["DSPROXY_CONFIG"],
};

/// Well-known names, and the setting that each stands for; the setting's own variable wins.
pub(super) const ALIASES: [(&str, &str); 4] = [
    ("DATABASE_URL", "DSPROXY_DATABASE_URL"),
    ("REDIS_NODES", "DSPROXY_UPSTREAM_NODES"),
    ("PROXY_ADDR", "DSPROXY_SERVER_LISTEN"),
    ("HTTP_ADDR", "DSPROXY_HTTP_LISTEN"),
];

/// Syntax errors that are shown; a file that is no TOML at all would otherwise fill the screen.
const SYNTAX_ERRORS_SHOWN: usize = 10;

impl Config {
    /// Loads `path`, or only the defaults without one; then the overrides of `environment`; then checks everything.
    /// All mistakes are reported together.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Self, ConfigErrors> {
        Self::load_by(path, environment, rules::Servers::Configured)
    }

    /// As [`Config::load`], for `dsproxy dev`: `upstream.nodes` and `database.url` may be missing, since the caller
    /// sets them to the servers that it has started.
    pub fn load_embedded(path: Option<&Path>, environment: &Environment) -> Result<Self, ConfigErrors> {
        Self::load_by(path, environment, rules::Servers::Embedded)
    }

    fn load_by(
        path: Option<&Path>,
        environment: &Environment,
        servers: rules::Servers,
    ) -> Result<Self, ConfigErrors> {
        let mut found = Findings::default();
        let mut config = Self::default();
        let sections = sections();
        if let Some(path) = path {
            let file = path.display().to_string();
            match read(path, &file) {
                Ok(text) => {
                    FileLoader { file, text: &text, environment, found: &mut found }
                        .load(&mut config, &sections);
                    found.file = Some((path.display().to_string(), text));
                }
                Err(problem) => {
                    found.unparsed = true;
                    found.problems.push(problem);
                }
            }
        }
        apply_environment(&mut config, environment, &sections, &mut found);
        if !found.unparsed {
            rules::check(&config, servers, &mut found);
        }
        found.problems.sort();
        if found.problems.is_empty() { Ok(config) } else { Err(ConfigErrors(found.problems)) }
    }
}

/// What loading has found out so far.
#[derive(Default)]
pub(super) struct Findings {
    /// The mistakes.
    problems: Vec<Problem>,
    /// Where each value comes from, by path (`server.listen`, `mapping#0.ttl`); a value from the defaults is absent.
    origins: BTreeMap<String, Place>,
    /// Paths whose value was refused: rules about them would only report consequences.
    refused: BTreeSet<String>,
    /// The file was not understood as a whole, so that what seems missing may be there.
    unparsed: bool,
    /// The file's name and text.
    file: Option<(String, String)>,
}

impl Findings {
    /// The place of byte `offset` of the file.
    pub(super) fn place_at(&self, offset: usize) -> Place {
        self.file.as_ref().map_or(Place::Nowhere, |(file, text)| Place::at(file, text, offset))
    }

    /// Records a mistake.
    pub(super) fn add(&mut self, place: Place, message: impl Into<String>) {
        self.problems.push(Problem { place, message: message.into() });
    }

    /// Whether the value of `path` was refused.
    pub(super) fn is_refused(&self, path: &str) -> bool {
        self.refused.contains(path)
    }

    /// Where the value of `path` was written.
    pub(super) fn origin(&self, path: &str) -> Option<&Place> {
        self.origins.get(path)
    }

    /// Applies `raw` to the setting, and records where it came from or what is wrong with it.
    fn apply<S>(&mut self, target: &mut S, setting: &Setting<S>, path: String, raw: &Raw<'_>, place: Place) {
        match (setting.apply)(target, raw) {
            Ok(()) => {
                self.refused.remove(&path);
                self.origins.insert(path, place);
            }
            Err(refused) => {
                let definition = &setting.definition;
                let shown = if definition.secret { "not right".to_owned() } else { raw.shown() };
                let hint = refused.0.map(|hint| format!(" ({hint})")).unwrap_or_default();
                let message =
                    format!("{} is {shown}: expected {}{hint}", definition.path(), definition.expects);
                self.add(place, message);
                self.refused.insert(path);
            }
        }
    }
}

/// The path of a setting of mapping number `index`.
pub(super) fn mapping_path(index: usize, key: &str) -> String {
    repeated_path(MappingConfig::NAME, index, key)
}

/// The path of a setting of the table `[[name]]` number `index`.
pub(super) fn repeated_path(name: &str, index: usize, key: &str) -> String {
    format!("{name}#{index}.{key}")
}

fn read(path: &Path, file: &str) -> Result<String, Problem> {
    let whole = |message| Problem { place: Place::File(file.to_owned()), message };
    let bytes = std::fs::read(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        Problem { place: Place::at(file, &text, valid), message: "not UTF-8 from here on".to_owned() }
    })
}

/// Applies one file to a configuration.
struct FileLoader<'a> {
    file: String,
    text: &'a str,
    environment: &'a Environment,
    found: &'a mut Findings,
}

impl FileLoader<'_> {
    fn load(&mut self, config: &mut Config, sections: &[SectionTable]) {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        self.found.unparsed = !errors.is_empty();
        for error in errors.iter().take(SYNTAX_ERRORS_SHOWN) {
            // Only the message: the error's own rendering quotes the line, which may hold a password.
            self.found.add(self.place(error.span().map_or(0, |span| span.start)), error.message());
        }
        for (key, value) in root.get_ref() {
            let name: &str = key.get_ref();
            if let Some(section) = sections.iter().find(|section| section.name == name) {
                self.section(config, section, value, sections);
            } else if name == MappingConfig::NAME {
                config.mappings = self.repeated(value, sections);
            } else if name == RouteConfig::NAME {
                config.routes = self.repeated(value, sections);
            } else {
                let known = sections
                    .iter()
                    .map(|section| section.name)
                    .chain([MappingConfig::NAME, RouteConfig::NAME]);
                let hint = match nearest(name, known) {
                    Some(near) => format!(": did you mean [{near}]?"),
                    None => belongs_elsewhere(name, sections, "this place"),
                };
                self.found.add(self.place(key.span().start), format!("unknown section [{name}]{hint}"));
            }
        }
    }

    fn section(
        &mut self,
        config: &mut Config,
        section: &SectionTable,
        value: &Spanned<DeValue<'_>>,
        all: &[SectionTable],
    ) {
        let DeValue::Table(table) = value.get_ref() else {
            let message =
                format!("{} is {}: expected a table [{0}]", section.name, Raw::Toml(value.get_ref()).shown());
            return self.found.add(self.place(value.span().start), message);
        };
        let path = |definition: &Definition| definition.path();
        self.settings(config, &section.settings, table, path, all);
    }

    /// The tables of a repeated section.
    fn repeated<S: Section>(&mut self, value: &Spanned<DeValue<'_>>, all: &[SectionTable]) -> Vec<S> {
        let (name, mut sections) = (S::NAME, Vec::new());
        let DeValue::Array(array) = value.get_ref() else {
            let message = format!("{name} is written as [[{name}]], with two brackets, once per {name}");
            self.found.add(self.place(value.span().start), message);
            return sections;
        };
        let settings = S::settings();
        for (index, element) in array.iter().enumerate() {
            let place = self.place(element.span().start);
            let mut section = S::default();
            match element.get_ref() {
                DeValue::Table(table) => {
                    let path = |definition: &Definition| repeated_path(name, index, definition.key);
                    self.settings(&mut section, &settings, table, path, all);
                    self.required(&settings, table, &place);
                }
                _ => self.found.add(place.clone(), format!("each {name} is a table [[{name}]]")),
            }
            self.found.origins.insert(repeated_path(name, index, ""), place);
            sections.push(section);
        }
        sections
    }

    fn settings<S>(
        &mut self,
        target: &mut S,
        settings: &[Setting<S>],
        table: &DeTable<'_>,
        path: impl Fn(&Definition) -> String,
        all: &[SectionTable],
    ) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let Some(setting) = settings.iter().find(|setting| setting.definition.key == name) else {
                let section = settings.first().map_or("", |setting| setting.definition.section);
                let hint = match nearest(name, settings.iter().map(|setting| setting.definition.key)) {
                    Some(near) => format!(": did you mean `{near}`?"),
                    None => belongs_elsewhere(name, all, section),
                };
                self.found
                    .add(self.place(key.span().start), format!("[{section}] has no key `{name}`{hint}"));
                continue;
            };
            let (place, path) = (self.place(value.span().start), path(&setting.definition));
            match expand(value.get_ref(), self.environment) {
                Ok(Expanded::Same) => {
                    self.found.apply(target, setting, path, &Raw::Toml(value.get_ref()), place);
                }
                Ok(Expanded::Text(text)) => {
                    self.found.apply(target, setting, path, &Raw::Text(&text), place);
                }
                Ok(Expanded::Inside(value)) => {
                    self.found.apply(target, setting, path, &Raw::Toml(&value), place);
                }
                Err(message) => {
                    self.found.add(place, format!("{} {message}", setting.definition.path()));
                    self.found.refused.insert(path);
                }
            }
        }
    }

    fn required<S>(&mut self, settings: &[Setting<S>], table: &DeTable<'_>, place: &Place) {
        let definitions = settings.iter().map(|setting| &setting.definition);
        for definition in definitions.filter(|definition| definition.required) {
            if !table.contains_key(definition.key) && !self.found.unparsed {
                let (key, expects, example) = (definition.key, &definition.expects, &definition.example);
                let section = definition.section;
                let message =
                    format!("this {section} has no `{key}`: expected {expects}, such as {key} = {example}");
                self.found.add(place.clone(), message);
            }
        }
    }

    fn place(&self, offset: usize) -> Place {
        Place::at(&self.file, self.text, offset)
    }
}

/// The hint for a key that another section has.
fn belongs_elsewhere(key: &str, all: &[SectionTable], here: &str) -> String {
    let elsewhere =
        |section: &&SectionTable| section.settings.iter().any(|setting| setting.definition.key == key);
    match all.iter().find(elsewhere) {
        Some(section) => format!(": it belongs into [{}], not {here}", section.name),
        None => String::new(),
    }
}

fn apply_environment(
    config: &mut Config,
    environment: &Environment,
    sections: &[SectionTable],
    found: &mut Findings,
) {
    let settings: BTreeMap<String, &Setting<Config>> = sections
        .iter()
        .flat_map(|section| &section.settings)
        .map(|setting| (setting.definition.variable(), setting))
        .collect();
    for (name, value) in environment.iter() {
        let target = match ALIASES.iter().find(|(alias, _)| *alias == name) {
            Some((_, target)) if environment.get(target).is_some() => continue,
            Some((_, target)) => *target,
            None if !name.starts_with(PREFIX) || NOT_SETTINGS.contains(&name) => continue,
            None => name,
        };
        let place = Place::Variable(name.to_owned());
        match settings.get(target) {
            Some(setting) => {
                found.apply(config, setting, setting.definition.path(), &Raw::Text(value), place);
            }
            None if name.starts_with("DSPROXY_MAPPING_") || name.starts_with("DSPROXY_ROUTE_") => {
                found.add(place, "mappings and routes are read from the file only");
            }
            None => {
                let near = nearest(name, settings.keys().map(String::as_str));
                let hint = near.map(|near| format!(": did you mean {near}?")).unwrap_or_default();
                found.add(place, format!("no setting has this name{hint}"));
            }
        }
    }
}
