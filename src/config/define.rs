//! `settings!`: one definition of a section makes its struct, its defaults, its docs and the table that the parser, the
//! reference page, the JSON schema and `proxy.toml` are made from.
//!
//! Must not know: any particular setting.

use super::kind::{Kind, Refused};
use super::raw::Raw;
use std::rc::Rc;

/// A struct made by `settings!`: one table of the configuration file.
pub trait Section: Default + Sized + 'static {
    /// The table's name in the file.
    const NAME: &'static str;
    /// What it configures, in Markdown.
    const DOC: &'static str;
    /// Its settings, in the order of their definition.
    fn settings() -> Vec<Setting<Self>>;
}

/// Puts a raw value into the section it belongs to.
type Apply<S> = Box<dyn Fn(&mut S, &Raw<'_>) -> Result<(), Refused>>;

/// Writes the value that a section has as TOML.
type Show<S> = Box<dyn Fn(&mut S) -> String>;

/// One setting of a section: what is known about it and how it is set.
pub struct Setting<S> {
    /// What the documents need.
    pub definition: Definition,
    /// What the parser needs.
    pub apply: Apply<S>,
    /// How it is shown; empty when it is unset.
    pub show: Show<S>,
}

/// What is known about one setting, whatever its type.
#[derive(Debug)]
pub struct Definition {
    /// Name of the section.
    pub section: &'static str,
    /// Name of the setting.
    pub key: &'static str,
    /// What it does, in Markdown.
    pub doc: &'static str,
    /// What may be written, as the end of a sentence: "a whole number from 1 to 8".
    pub expects: String,
    /// The default in TOML; empty when unset.
    pub default: String,
    /// A value for the documents where there is no default, in TOML.
    pub example: String,
    /// Whether it has to be given.
    pub required: bool,
    /// Whether its value must never be shown.
    pub secret: bool,
    /// JSON schema of the value, without the description.
    pub schema: serde_json::Value,
}

impl Definition {
    /// `section.key`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// The environment variable that overrides it.
    pub fn variable(&self) -> String {
        format!("DSPROXY_{}_{}", self.section, self.key).to_ascii_uppercase()
    }
}

impl<S: Section> Setting<S> {
    /// A setting of type `kind` that lives where `field` points.
    pub fn new<K: Kind + 'static>(
        key: &'static str,
        doc: &'static str,
        kind: K,
        field: fn(&mut S) -> &mut K::Value,
    ) -> Self {
        let definition = Definition {
            section: S::NAME,
            key,
            doc,
            expects: kind.expects(),
            default: kind.render(field(&mut S::default())),
            example: kind.example(),
            required: kind.required(),
            secret: kind.secret(),
            schema: kind.schema(),
        };
        let kind = Rc::new(kind);
        let shown = kind.clone();
        let apply = move |section: &mut S, raw: &Raw<'_>| {
            *field(section) = kind.read(raw)?;
            Ok(())
        };
        let show = move |section: &mut S| shown.render(field(section));
        Self { definition, apply: Box::new(apply), show: Box::new(show) }
    }
}

/// Defines sections. Each field reads: `/// doc`, `name: type = default, kind;`.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        $Name:ident in $section:literal {
            $( $(#[doc = $doc:literal])+ $field:ident: $Type:ty = $default:expr, $kind:expr; )+
        }
    )+) => {$(
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name {
            $( $(#[doc = $doc])+ pub $field: $Type, )+
        }

        impl Default for $Name {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $crate::config::define::Section for $Name {
            const NAME: &'static str = $section;
            const DOC: &'static str = concat!($($section_doc, "\n"),+);

            fn settings() -> Vec<$crate::config::define::Setting<Self>> {
                vec![$(
                    $crate::config::define::Setting::new(
                        stringify!($field),
                        concat!($($doc, "\n"),+),
                        $kind,
                        |section: &mut Self| &mut section.$field,
                    )
                ),+]
            }
        }
    )+};
}

/// Defines an enum whose values are words of the configuration file.
macro_rules! words {
    ($(
        $(#[doc = $enum_doc:literal])+
        $Name:ident {
            $( $(#[doc = $doc:literal])+ $Variant:ident = $word:literal, )+
            $(later $later:literal,)*
        }
    )+) => {$(
        $(#[doc = $enum_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Name {
            $( $(#[doc = $doc])+ $Variant, )+
        }

        impl $crate::config::kind::Words for $Name {
            const WORDS: &'static [(&'static str, Self)] = &[$( ($word, Self::$Variant) ),+];
            const LATER: &'static [&'static str] = &[$($later),*];
        }
    )+};
}

pub(super) use {settings, words};
