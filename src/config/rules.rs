//! The rules that span several settings.
//!
//! Must not know: files, the environment; only where a value came from.

use std::collections::BTreeMap;

use super::load::{Findings, mapping_path, repeated_path};
use super::problem::Place;
use super::{
    CachePolicy, Config, MappingConfig, RouteConfig, UpstreamMode, ValueFormat, WriteMode, WritePolicy,
    compile,
};

/// Who provides Redis and Postgres.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Servers {
    /// The configuration says where they are.
    Configured,
    /// They are started by the caller, who then says where they are.
    Embedded,
}

/// A rule about global settings: what is wrong, if anything.
struct Rule {
    /// The settings that it compares. It is skipped when one of them was refused.
    keys: &'static [&'static str],
    /// Whether it is about servers that somebody else runs.
    outside: bool,
    broken: fn(&Config) -> Option<String>,
}

/// A rule about one mapping.
struct MappingRule {
    keys: &'static [&'static str],
    broken: fn(&MappingConfig) -> Option<&'static str>,
}

/// A rule that the setting `$less` must not be more than `$more`.
macro_rules! ordered {
    ($section:ident, $less:ident <= $more:ident) => {
        Rule {
            keys: &[
                concat!(stringify!($section), ".", stringify!($less)),
                concat!(stringify!($section), ".", stringify!($more)),
            ],
            outside: false,
            broken: |config| {
                let section = &config.$section;
                (section.$less > section.$more).then(|| {
                    format!(
                        "{0}.{1} is {2:?}, which is more than {0}.{3}, {4:?}: raise one or lower the other",
                        stringify!($section),
                        stringify!($less),
                        section.$less,
                        stringify!($more),
                        section.$more,
                    )
                })
            },
        }
    };
}

const RULES: &[Rule] = &[
    ordered!(upstream, reconnect_backoff_min <= reconnect_backoff_max),
    ordered!(database, breaker_probe_min <= breaker_probe_max),
    ordered!(write_behind, retry_min <= retry_max),
    ordered!(write_behind, batch_rows <= max_batch_rows),
    ordered!(write_behind, max_batch_rows <= queue_rows),
    ordered!(limits, client_output_pause <= client_output_max),
    ordered!(limits, inline <= query_buffer),
    ordered!(limits, bulk <= query_buffer),
    Rule {
        keys: &["upstream.nodes"],
        outside: true,
        broken: |config| {
            config.upstream.nodes.is_empty().then(|| {
                "upstream.nodes names no Redis node: set it to a list such as [\"127.0.0.1:7000\"], or set REDIS_NODES"
                    .to_owned()
            })
        },
    },
    Rule {
        keys: &["upstream.nodes", "upstream.mode"],
        outside: true,
        broken: |config| {
            let (mode, nodes) = (config.upstream.mode, config.upstream.nodes.len());
            (mode == UpstreamMode::Single && nodes > 1).then(|| {
                format!("upstream.mode is \"single\" but upstream.nodes names {nodes} nodes: name one, or use \"cluster\"")
            })
        },
    },
    Rule {
        keys: &["upstream.password", "upstream.username"],
        outside: true,
        broken: |config| {
            let upstream = &config.upstream;
            (upstream.username.is_some() && upstream.password.is_none()).then(|| {
                "upstream.username is set without upstream.password: set both, or the password alone"
                    .to_owned()
            })
        },
    },
    Rule {
        keys: &["database.url"],
        outside: true,
        broken: |config| {
            (config.database.url.is_none() && !config.mappings.is_empty()).then(|| {
                "there is a [[mapping]] but no database.url: set it to postgres://user:password@host:port/database, or \
                 set DATABASE_URL"
                    .to_owned()
            })
        },
    },
    Rule {
        keys: &["server.plain", "server.unix_socket", "tls.listen"],
        outside: false,
        broken: |config| {
            let way_in =
                config.server.plain || config.tls.listen.is_some() || config.server.unix_socket.is_some();
            (!way_in).then(|| {
                "server.plain is off, and there is neither tls.listen nor server.unix_socket: no client could come in"
                    .to_owned()
            })
        },
    },
    Rule {
        keys: &["database.replicas", "database.url"],
        outside: true,
        broken: |config| {
            let sqlite = config.database.url.as_ref().is_some_and(|url| url.expose().starts_with("sqlite:"));
            (sqlite && !config.database.replicas.is_empty()).then(|| {
                "database.replicas are of a Postgres, and database.url names a SQLite file: remove them"
                    .to_owned()
            })
        },
    },
    Rule {
        keys: &["http.tls_certificate", "http.tls_key", "http.tls_client_ca"],
        outside: false,
        broken: |config| {
            let http = &config.http;
            let (certificate, key) = (http.tls_certificate.is_some(), http.tls_key.is_some());
            (certificate != key || http.tls_client_ca.is_some() && !certificate)
                .then(|| "http.tls_certificate and http.tls_key go together: name both files".to_owned())
        },
    },
    Rule {
        keys: &["http.listen", "server.listen", "http.enabled", "server.plain"],
        outside: false,
        broken: |config| {
            let (http, server) = (config.http.listen, config.server.listen);
            (config.http.enabled && config.server.plain && http == server && http.port() != 0)
                .then(|| format!("http.listen and server.listen are both {http}: give each its own port"))
        },
    },
];

const MAPPING_RULES: &[MappingRule] = &[
    MappingRule {
        keys: &["table", "load"],
        broken: |mapping| {
            (mapping.table.is_none() && mapping.load.is_none()).then_some(
                "has neither `table` nor `load`: name the table of its rows, or the SELECT that loads them",
            )
        },
    },
    MappingRule {
        keys: &["warm", "table", "cache"],
        broken: |mapping| {
            let one_key = !mapping.key.contains('{');
            let no_ids = mapping.table.is_none() && !one_key;
            (mapping.warm.is_some() && (no_ids || mapping.cache == CachePolicy::Off)).then_some(
                "is to be warm, but has no `table` to take the ids from, or is not cached: remove `warm`",
            )
        },
    },
    MappingRule {
        keys: &["write", "table"],
        broken: |mapping| {
            (mapping.write != WritePolicy::None && mapping.table.is_none())
                .then_some("is written to but has no `table`: name it, or set write = \"none\"")
        },
    },
    MappingRule {
        keys: &["id"],
        broken: |mapping| match (mapping.id.is_empty(), mapping.key.contains('{')) {
            (true, true) => {
                Some("has no `id`: give the type of each placeholder of its key, such as id = \"bigint\"")
            }
            (false, false) if !mapping.key.is_empty() => {
                Some("has an `id`, but its key has no placeholder: remove it, or name a placeholder")
            }
            _ => None,
        },
    },
    MappingRule {
        keys: &["column", "format"],
        broken: |mapping| match (mapping.format, &mapping.column) {
            (ValueFormat::Text, None) => {
                Some("has format = \"text\" but no `column`: name the column that is the value")
            }
            (ValueFormat::Json | ValueFormat::Hash | ValueFormat::List, Some(_)) => {
                Some("has a `column`, which is for format = \"text\": remove one of them")
            }
            _ => None,
        },
    },
    MappingRule {
        keys: &["mode", "order_by"],
        broken: |mapping| match (mapping.mode, &mapping.order_by) {
            (WriteMode::Append, None) => Some(
                "has mode = \"append\" but no `order_by`: name the column by which the newest row is found",
            ),
            (WriteMode::Upsert, Some(_)) => {
                Some("has `order_by`, which is for mode = \"append\": remove one of them")
            }
            _ => None,
        },
    },
];

/// Checks every rule and records what is broken.
pub(super) fn check(config: &Config, servers: Servers, found: &mut Findings) {
    let applies = |rule: &&Rule| !(rule.outside && servers == Servers::Embedded);
    for rule in RULES.iter().filter(applies) {
        if rule.keys.iter().any(|key| found.is_refused(key)) {
            continue;
        }
        if let Some(message) = (rule.broken)(config) {
            let place = rule.keys.iter().find_map(|key| found.origin(key)).unwrap_or(&Place::Nowhere).clone();
            found.add(place, message);
        }
    }
    for (index, mapping) in config.mappings.iter().enumerate() {
        check_mapping(index, mapping, found);
    }
    check_unique(config, "name", |mapping| &mapping.name, found);
    check_unique(config, "key", |mapping| &mapping.key, found);
    check_routes(config, found);
}

fn check_routes(config: &Config, found: &mut Findings) {
    for (index, route) in config.routes.iter().enumerate() {
        let at = |found: &Findings, key: &str| {
            let origin = found.origin(&repeated_path("route", index, key));
            origin
                .or_else(|| found.origin(&repeated_path("route", index, "")))
                .unwrap_or(&Place::Nowhere)
                .clone()
        };
        for (offset, message) in route.params.mistakes().iter().chain(route.on.mistakes()) {
            found.add(found.place_at(*offset), message.clone());
        }
        // What was refused would only have consequences.
        let refused = |key: &str| found.is_refused(&repeated_path("route", index, key));
        let inside = !route.params.mistakes().is_empty() || !route.on.mistakes().is_empty();
        if inside || ["path", "method", "mapping", "sql", "params", "on", "auth"].into_iter().any(refused) {
            continue;
        }
        for mistake in compile::mistakes(route, config) {
            let entry = mistake.entry.as_deref();
            let offset = entry.and_then(|entry| match mistake.key {
                "params" => route.params.offset(entry),
                _ => route.on.offset(entry),
            });
            let place = offset.map_or_else(|| at(found, mistake.key), |offset| found.place_at(offset));
            let what = [mistake.key, entry.unwrap_or_default()].join(".");
            let what = what.trim_matches('.').to_owned();
            let space = if what.is_empty() { "" } else { " " };
            found.add(place, format!("route \"{}\": {what}{space}{}", route.name, mistake.message));
        }
        check_earlier_routes(config, index, route, at(found, "name"), at(found, "path"), found);
    }
}

/// Two routes must not share a name, nor answer the same requests.
fn check_earlier_routes(
    config: &Config,
    index: usize,
    route: &RouteConfig,
    name: Place,
    path: Place,
    found: &mut Findings,
) {
    let Some(earlier) = config.routes.get(..index) else { return };
    if !route.name.is_empty() && earlier.iter().any(|other| other.name == route.name) {
        found.add(name, format!("the name \"{}\" is taken by an earlier route: choose another", route.name));
    }
    if let Some(other) = earlier.iter().find(|other| compile::clash(other, route)) {
        found.add(
            path,
            format!("route \"{}\": the route \"{}\" answers these requests already", route.name, other.name),
        );
    }
}

fn check_mapping(index: usize, mapping: &MappingConfig, found: &mut Findings) {
    for rule in MAPPING_RULES {
        let paths: Vec<String> = rule.keys.iter().map(|key| mapping_path(index, key)).collect();
        if paths.iter().any(|path| found.is_refused(path)) {
            continue;
        }
        if let Some(message) = (rule.broken)(mapping) {
            let place = paths.iter().find_map(|path| found.origin(path));
            let place =
                place.or_else(|| found.origin(&mapping_path(index, ""))).unwrap_or(&Place::Nowhere).clone();
            found.add(place, format!("mapping \"{}\" {message}", mapping.name));
        }
    }
}

/// Two mappings must not share the value of `key`.
fn check_unique(config: &Config, key: &str, value: fn(&MappingConfig) -> &str, found: &mut Findings) {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, mapping) in config.mappings.iter().enumerate() {
        let value = value(mapping);
        if value.is_empty() {
            continue;
        }
        if let Some(earlier) = first.get(value) {
            let place_of = |index| found.origin(&mapping_path(index, key)).unwrap_or(&Place::Nowhere).clone();
            let (place, earlier) = (place_of(index), place_of(*earlier));
            found.add(
                place,
                format!("the {key} \"{value}\" is taken by the mapping at {earlier}: choose another"),
            );
        } else {
            first.insert(value, index);
        }
    }
}
