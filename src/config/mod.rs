//! The configuration: what can be set, and the checked values that were.
//!
//! Must not know: what any of it is used for.
//!
//! `settings` defines every key once, in the types of `kind` and `compound`; `define` turns a definition into a struct field and a row
//! of the table. `mapping` has those of a `[[mapping]]`, `route` those of a `[[route]]`, which `compile` takes apart; `inline` has the types that are small tables. `load` reads the file and the environment by that table and collects every mistake; `rules` checks
//! what spans several keys; `reference` writes the documents.

mod access;
mod compile;
mod compound;
mod define;
mod environment;
mod expand;
mod inline;
mod kind;
mod live;
mod load;
mod mapping;
mod nearest;
mod nested;
pub mod postgres_url;
mod problem;
mod raw;
mod reference;
mod route;
mod rules;
mod secret;
mod settings;
mod units;

use define::{Section, Setting};

pub use access::{AclConfig, ScriptPolicy, TlsConfig, TlsVersion};
pub use compile::{Action, Bind, Compiled, Invalidation, Outcome, compile};
pub use define::Definition;
pub use environment::Environment;
pub use inline::{Dependency, WarmUp};
pub use kind::Words;
pub use live::{Live, NEVER};
pub use mapping::{
    BadKey, CachePolicy, Durability, MappingConfig, OnPoison, ValueFormat, WriteMode, WritePolicy,
};
pub use nested::Nested;
pub use problem::{ConfigErrors, Place, Problem};
pub use reference::{json_schema, proxy_toml, reference_page};
pub use route::{
    AuthConfig, OUTCOMES, OutcomeConfig, ParamConfig, ParamFrom, ParamKind, RouteAuth, RouteConfig,
    RouteMethod,
};
pub use secret::Secret;
pub use settings::{
    DatabaseConfig, DevConfig, FacadeAccess, HttpConfig, JournalConfig, LimitsConfig, LogConfig, LogFormat,
    ReadThroughConfig, ServerConfig, UpstreamConfig, UpstreamMode, WriteBehindConfig,
};

/// One table of the file, with its settings.
struct SectionTable {
    name: &'static str,
    doc: &'static str,
    settings: Vec<Setting<Config>>,
}

/// The settings of section `S`, applied to the configuration that contains it.
fn table<S: Section>(field: fn(&mut Config) -> &mut S) -> SectionTable {
    let settings = S::settings().into_iter().map(|setting| Setting {
        definition: setting.definition,
        apply: Box::new(move |config: &mut Config, raw: &raw::Raw<'_>| (setting.apply)(field(config), raw)),
        show: Box::new(move |config: &mut Config| (setting.show)(field(config))),
    });
    SectionTable { name: S::NAME, doc: S::DOC, settings: settings.collect() }
}

macro_rules! config {
    ($( $field:ident: $Section:ty, )+) => {
        /// All settings, checked.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Config {
            $(
                #[doc = concat!("`[", stringify!($field), "]`")]
                pub $field: $Section,
            )+
            /// `[[mapping]]`, in the order of the file.
            pub mappings: Vec<MappingConfig>,
            /// `[[route]]`, in the order of the file.
            pub routes: Vec<RouteConfig>,
        }

        /// Every table of the file but the repeated ones.
        fn sections() -> Vec<SectionTable> {
            vec![$( table(|config| &mut config.$field) ),+]
        }
    };
}

config! {
    server: ServerConfig,
    tls: TlsConfig,
    acl: AclConfig,
    http: HttpConfig,
    auth: AuthConfig,
    upstream: UpstreamConfig,
    limits: LimitsConfig,
    database: DatabaseConfig,
    read_through: ReadThroughConfig,
    write_behind: WriteBehindConfig,
    journal: JournalConfig,
    log: LogConfig,
    dev: DevConfig,
}

impl Config {
    /// Every setting but those of mappings, as `section.key` and its value in TOML (a single text without its quotes).
    /// A secret is shown as if it were unset.
    pub fn values(&self) -> Vec<(String, String)> {
        let mut config = self.clone();
        let settings = sections().into_iter().flat_map(|section| section.settings);
        let shown = settings.map(|setting| {
            let value = (setting.show)(&mut config);
            let bare = value.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            (setting.definition.path(), bare.unwrap_or(&value).to_owned())
        });
        shown.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        let mut variables = std::collections::BTreeSet::new();
        let definitions =
            sections().into_iter().flat_map(|section| section.settings).map(|setting| setting.definition);
        for definition in
            definitions.chain(MappingConfig::settings().into_iter().map(|setting| setting.definition))
        {
            let path = definition.path();
            assert!(variables.insert(definition.variable()), "{path}: two settings share a variable");
            assert!(definition.doc.trim_end().ends_with('.'), "{path}: the doc is no sentence");
            assert!(!definition.expects.is_empty(), "{path}");
            let shown = definition.default.len().max(definition.example.len());
            assert!(shown > 0, "{path}: neither default nor example");
            assert!(
                !definition.required || definition.section == "mapping",
                "{path}: a global key needs a default"
            );
        }
    }

    #[test]
    fn defaults_pass_their_own_checks() {
        for setting in sections().into_iter().flat_map(|section| section.settings) {
            let (definition, mut config) = (&setting.definition, Config::default());
            for written in
                [&definition.default, &definition.example].into_iter().filter(|text| !text.is_empty())
            {
                let line = format!("value = {written}");
                let table = toml::de::DeTable::parse(&line).unwrap();
                let raw = raw::Raw::Toml(table.get_ref()["value"].get_ref());
                assert_eq!((setting.apply)(&mut config, &raw), Ok(()), "{}: {written}", definition.path());
            }
        }
    }
}
