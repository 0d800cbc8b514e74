//! HTTP routes as values: path patterns, parameters, response shapes.
//!
//! Must not know: HTTP, configuration files, where rows come from. Everything here is pure.
//!
//! `path` matches URLs, `param` checks what a client gave, `shape` is the template of an answer (`node` its JSON).

mod node;
mod param;
mod path;
mod shape;

pub use param::{In, Param, ParamType, ParamValue, whole};
pub use path::{Path, PathError};
pub use shape::{Placeholder, Shape, ShapeError, TextShape, Values, push_json_text};

/// Whether `name` can be a parameter's name: letters, digits and `_`, not beginning with a digit, at most 64 long.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
