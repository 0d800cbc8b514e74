//! Checks one `[[route]]` and takes it apart.
//!
//! Must not know: HTTP, how a route is run.

use std::time::Duration;

use super::route::{
    OUTCOMES, OutcomeConfig, ParamConfig, ParamFrom, ParamKind, RouteAuth, RouteConfig, RouteMethod,
};
use super::{Config, MappingConfig};
use crate::route::{In, Param, ParamType, Path, Placeholder, Shape, TextShape};
use crate::sql::Statement;

/// A route, ready to run.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Its name.
    pub name: String,
    /// Its method.
    pub method: RouteMethod,
    /// Its path.
    pub path: Path,
    /// What it does.
    pub summary: Option<String>,
    /// What it runs.
    pub action: Action,
    /// Its parameters.
    pub params: Vec<Param>,
    /// Its answers, as in [`OUTCOMES`].
    pub outcomes: Vec<Outcome>,
    /// The mapping whose rows its statement writes.
    pub writes: Option<String>,
    /// What else is no longer true afterwards.
    pub invalidates: Vec<Invalidation>,
    /// Names of its own counters, of `hits`, `misses` and `rows`, and the parameter `by` which is counted.
    pub count: Vec<(String, String)>,
    /// Whether a bearer token is asked for.
    pub bearer: bool,
    /// How long an answer may take, where it differs from all others.
    pub timeout: Option<Duration>,
}

/// What a route runs.
#[derive(Debug, Clone)]
pub enum Action {
    /// Reads, writes or deletes a key of a mapping; which of them is the method's choice.
    Mapping {
        /// Name of the mapping.
        mapping: String,
        /// Indexes (into the parameters) of the placeholders of its key.
        key: Vec<usize>,
    },
    /// Runs a statement.
    Statement {
        /// The statement.
        statement: Statement,
        /// What each of its parameters is.
        params: Vec<Bind>,
    },
}

/// What a parameter of a statement is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// The value of the parameter of this index.
    Value(usize),
    /// Whether that was given: `$name_given` tells an absent `name` from one that is null.
    Given(usize),
}

/// One answer of a route.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// Its status; of an outcome with its usual status the exact one is decided by what went wrong.
    pub status: Option<u16>,
    /// Its body, where it is not the usual one.
    pub shape: Option<Shape>,
}

/// A key, or all keys of a pattern.
#[derive(Debug, Clone)]
pub struct Invalidation {
    /// The text.
    pub text: TextShape,
    /// Whether it is a pattern.
    pub pattern: bool,
}

/// A mistake of a route: the setting (and the entry of it, where it is a table) and what is wrong.
pub(super) struct Mistake {
    pub key: &'static str,
    pub entry: Option<String>,
    pub message: String,
}

/// Paths that no route may take.
const RESERVED: [&str; 13] = [
    "/api/v1/writeback",
    "/api/v1/dlq",
    "/api/v1/dlq/replay",
    "/api/v1/cache/invalidate",
    "/api/v1/explain",
    "/metrics",
    "/ping",
    "/health/live",
    "/health/ready",
    "/openapi.json",
    "/dashboard",
    "/api/v1/cache/stats",
    "/api/v1/cache/stats/reset",
];

/// Takes every route apart. Without mistakes, which loading the configuration has made sure of, there is one for each.
pub fn compile(config: &Config) -> Vec<Compiled> {
    config.routes.iter().filter_map(|route| Compiler::new(route, config).run().ok()).collect()
}

/// What is wrong with a route.
pub(super) fn mistakes(route: &RouteConfig, config: &Config) -> Vec<Mistake> {
    Compiler::new(route, config).run().err().unwrap_or_default()
}

/// Whether two routes answer the same requests.
pub(super) fn clash(a: &RouteConfig, b: &RouteConfig) -> bool {
    let (Ok(a_path), Ok(b_path)) = (Path::parse(&a.path), Path::parse(&b.path)) else { return false };
    a.method == b.method && a_path.clashes_with(&b_path)
}

struct Compiler<'a> {
    route: &'a RouteConfig,
    config: &'a Config,
    mistakes: Vec<Mistake>,
}

impl<'a> Compiler<'a> {
    fn new(route: &'a RouteConfig, config: &'a Config) -> Self {
        Self { route, config, mistakes: Vec::new() }
    }

    fn wrong(&mut self, key: &'static str, entry: Option<&str>, message: impl Into<String>) {
        self.mistakes.push(Mistake { key, entry: entry.map(str::to_owned), message: message.into() });
    }

    fn run(mut self) -> Result<Compiled, Vec<Mistake>> {
        let route = self.route;
        let path = Path::parse(&route.path).map_err(|error| self.wrong("path", None, error.to_string())).ok();
        if RESERVED.contains(&route.path.as_str()) {
            self.wrong("path", None, "is the proxy's own path: choose another");
        }
        let params = self.params(path.as_ref());
        let action = self.action(&params);
        let names: Vec<&str> = params.iter().map(|param| param.name.as_str()).collect();
        let outcomes = OUTCOMES.iter().map(|(name, _)| self.outcome(name, &names)).collect();
        let invalidates = self.invalidates(&names);
        self.writes();
        self.count(&names);
        match (path, action) {
            (Some(path), Some(action)) if self.mistakes.is_empty() => Ok(Compiled {
                name: route.name.clone(),
                method: route.method,
                path,
                summary: route.summary.clone(),
                action,
                params,
                outcomes,
                writes: route.writes.clone(),
                invalidates,
                count: route.count.clone(),
                bearer: route.auth == RouteAuth::Bearer,
                timeout: route.timeout,
            }),
            _ => Err(self.mistakes),
        }
    }

    /// The declared parameters, and those of the path that are not declared.
    fn params(&mut self, path: Option<&Path>) -> Vec<Param> {
        let route = self.route;
        let in_path: Vec<&str> = path.map(|path| path.parameters().collect()).unwrap_or_default();
        let mut params = Vec::new();
        for (name, given) in route.params.iter() {
            let place = self.place(name, given, &in_path);
            params.push(self.param(name, given, place));
        }
        let declared = |name: &&&str| route.params.get(name).is_none();
        for name in in_path.iter().filter(declared) {
            if Placeholder::is_fixed(name) {
                self.wrong(
                    "path",
                    None,
                    format!("has the parameter {{{name}}}, which means something else in answers"),
                );
            }
            params.push(self.param(name, &ParamConfig::default(), In::Path));
        }
        params
    }

    fn place(&mut self, name: &str, given: &ParamConfig, in_path: &[&str]) -> In {
        let has_body = matches!(self.route.method, RouteMethod::Post | RouteMethod::Put | RouteMethod::Patch);
        let place = match given.from {
            None if in_path.contains(&name) => In::Path,
            None if has_body => In::Body,
            None | Some(ParamFrom::Query) => In::Query,
            Some(ParamFrom::Path) => In::Path,
            Some(ParamFrom::Body) => In::Body,
            Some(ParamFrom::Header) => In::Header,
            Some(ParamFrom::Claim) => In::Claim,
        };
        if (place == In::Path) != in_path.contains(&name) {
            let message = match place {
                In::Path => "is taken from the path, which does not name it",
                _ => "stands in the path: remove its `from`",
            };
            self.wrong("params", Some(name), message);
        }
        if place == In::Body && !has_body {
            self.wrong(
                "params",
                Some(name),
                format!("is taken from the body, which {:?} has not", self.route.method),
            );
        }
        if place == In::Claim && self.route.auth != RouteAuth::Bearer {
            self.wrong("params", Some(name), "is a claim of the token: set auth = \"bearer\"");
        }
        if Placeholder::is_fixed(name) {
            self.wrong(
                "params",
                Some(name),
                "has a name that means something else in answers: choose another",
            );
        }
        place
    }

    fn param(&mut self, name: &str, given: &ParamConfig, place: In) -> Param {
        let ty = match given.kind {
            ParamKind::Text => ParamType::Text,
            ParamKind::Integer => ParamType::Integer,
            ParamKind::Number => ParamType::Number,
            ParamKind::Boolean => ParamType::Boolean,
            ParamKind::Json => ParamType::Json,
        };
        let anchored = given.pattern.as_ref().map(|pattern| format!("^(?:{pattern})$"));
        let mut param = Param {
            name: name.to_owned(),
            place,
            ty,
            // Checked when it was read.
            pattern: anchored.and_then(|pattern| regex::Regex::new(&pattern).ok()),
            pattern_source: given.pattern.clone(),
            min: given.min,
            max: given.max,
            required: given.required && given.default.is_none(),
            default: None,
        };
        if param.min.zip(param.max).is_some_and(|(min, max)| min > max) {
            self.wrong("params", Some(name), "has a `min` that is more than its `max`");
        }
        if let Some(default) = &given.default {
            match param.read_text(default) {
                Ok(value) => param.default = Some(value),
                Err(message) => self.wrong("params", Some(name), format!("has a wrong default: {message}")),
            }
        }
        param
    }

    fn action(&mut self, params: &[Param]) -> Option<Action> {
        let route = self.route;
        let index = |name: &str| params.iter().position(|param| param.name == name);
        match (&route.mapping, &route.sql) {
            (Some(mapping), None) => {
                let Some(found) = self.config.mappings.iter().find(|known| known.name == *mapping) else {
                    self.wrong("mapping", None, format!("names \"{mapping}\", and no mapping has this name"));
                    return None;
                };
                let (mut key, before) = (Vec::new(), self.mistakes.len());
                for name in placeholders(found) {
                    match index(name) {
                        Some(at) => key.push(at),
                        None => self.wrong(
                            "mapping",
                            None,
                            format!(
                                "needs {{{name}}} for the key \"{}\": add the parameter `{name}`",
                                found.key
                            ),
                        ),
                    }
                }
                (self.mistakes.len() == before).then(|| Action::Mapping { mapping: mapping.clone(), key })
            }
            (None, Some(sql)) => match Statement::parse(sql) {
                Err(error) => {
                    self.wrong("sql", None, error.to_string());
                    None
                }
                Ok(statement) if statement.names().len() < statement.parameters() => {
                    // Which parameter a number is depends on an order that nobody sees.
                    self.wrong("sql", None, "has parameters by number ($1): name them, as in $id");
                    None
                }
                Ok(statement) => {
                    let (mut found, before) = (Vec::new(), self.mistakes.len());
                    for name in statement.names() {
                        let given = || name.strip_suffix("_given").and_then(index).map(Bind::Given);
                        match index(name).map(Bind::Value).or_else(given) {
                            Some(bind) => found.push(bind),
                            None => self.wrong(
                                "sql",
                                None,
                                format!("has ${name}, and the route has no such parameter"),
                            ),
                        }
                    }
                    (self.mistakes.len() == before).then_some(Action::Statement { statement, params: found })
                }
            },
            (Some(_), Some(_)) => {
                self.wrong("sql", None, "stands beside `mapping`: remove one of them");
                None
            }
            (None, None) => {
                self.wrong("", None, "has neither `mapping` nor `sql`: name what it reads or runs");
                None
            }
        }
    }

    fn outcome(&mut self, name: &'static str, params: &[&str]) -> Outcome {
        let default = OutcomeConfig::default();
        let given = self.route.on.get(name).unwrap_or(&default);
        let shape = given.body.as_ref().and_then(|body| match Shape::parse(body, params) {
            Ok(shape) => Some(shape),
            Err(error) => {
                self.wrong("on", Some(name), format!("has a body that {error}"));
                None
            }
        });
        if shape.as_ref().is_some_and(|shape| shape.placeholders().any(|p| *p == Placeholder::Token))
            && self.config.auth.jwt_secret.is_none()
        {
            self.wrong("on", Some(name), "shows {token}, which needs auth.jwt_secret");
        }
        Outcome { name, status: given.status.and_then(|status| u16::try_from(status).ok()), shape }
    }

    fn writes(&mut self) {
        let Some(writes) = &self.route.writes else { return };
        if !self.config.mappings.iter().any(|known| known.name == *writes) {
            self.wrong("writes", None, format!("names \"{writes}\", and no mapping has this name"));
        }
        if self.route.sql.is_none() {
            self.wrong("writes", None, "goes with `sql`: a route with a `mapping` knows what it writes");
        }
    }

    fn count(&mut self, params: &[&str]) {
        for (what, name) in &self.route.count {
            match what.as_str() {
                "by" if params.contains(&name.as_str()) => {}
                "by" => {
                    self.wrong("count", None, format!("is by {name:?}, and the route has no such parameter"))
                }
                "hits" | "misses" | "rows" if crate::route::is_name(name) => {}
                "hits" | "misses" | "rows" => {
                    self.wrong("count", None, format!("{name:?} cannot be the name of a metric"))
                }
                _ => {
                    self.wrong("count", None, format!("has no {what:?}: there are hits, misses, rows and by"))
                }
            }
        }
    }

    fn invalidates(&mut self, params: &[&str]) -> Vec<Invalidation> {
        let mut found = Vec::new();
        for text in &self.route.invalidates {
            match TextShape::parse(text, params) {
                Ok(text) => {
                    let pattern = text.has(&['*', '?', '[']);
                    found.push(Invalidation { text, pattern });
                }
                Err(error) => self.wrong("invalidates", None, format!("{text:?} {error}")),
            }
        }
        found
    }
}

/// Names of the placeholders of a mapping's key.
fn placeholders(mapping: &MappingConfig) -> impl Iterator<Item = &str> {
    mapping.key.split('{').skip(1).filter_map(|piece| piece.split_once('}')).map(|(name, _)| name)
}
