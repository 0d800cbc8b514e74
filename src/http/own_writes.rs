//! Describes `/api/v1/writeback` and `/api/v1/dlq` in the OpenAPI document.
//!
//! Must not know: how they are run.

use serde_json::{Value as Json, json};

use super::own_paths::{Own, object, operation, problem, text};
use super::{dead_letters, writeback};
use crate::writeback::Condition;

/// Adds them by path and method.
pub fn describe(own: Own, add: &mut impl FnMut(&str, &str, Json)) {
    let mut add = |path: &str, method: &str, mut operation: Json| {
        for (status, what) in [
            ("400", "the request is wrong"),
            ("404", "there is no mapping"),
            ("503", "the database is away"),
            ("504", "no answer in time"),
        ] {
            operation["responses"][status] = problem(what);
        }
        if method != "get" {
            for status in ["408", "413"] {
                operation["responses"][status] = problem("there is a body, and it is wrong");
            }
        }
        if own.bearer {
            operation["responses"]["401"] = problem("no token that is accepted");
            operation["security"] = json!([{"bearer": []}]);
        }
        add(path, method, operation);
    };
    add(
        writeback::PATH,
        "get",
        operation("writeback", "What waits for the database", &[(200, "the queues", queues())]),
    );
    let next = || json!({"type": ["integer", "null"], "description": "where to go on with `after`"});
    let letters = json!({"type": "array", "items": letter()});
    let letters = object(&[("dead_letters", letters), ("next", next())]);
    let mut list = operation(
        "dead_letters",
        "What the database refused, oldest first",
        &[(200, "dead letters", letters)],
    );
    list["parameters"] = json!([
        query("mapping", name()),
        query("id", json!({"type": "array", "maxItems": dead_letters::MOST, "items": number()})),
        query("after", number()),
        query("limit", limit()),
    ]);
    add(dead_letters::PATH, "get", list);
    let refused = || json!({"type": "array", "items": {"type": "object"}, "description": "these are refused (again), and stay"});
    let dropped =
        object(&[("dropped", count()), ("applied", count()), ("outrun", count()), ("refused", refused())]);
    let mut discard = operation(
        "drop_dead_letters",
        "Removes dead letters without applying them, and applies what waited behind them",
        &[(200, "removed", dropped)],
    );
    discard["parameters"] = json!([which()]);
    add(dead_letters::PATH, "delete", discard);
    let replayed = object(&[
        ("applied", count()),
        ("outrun", count()),
        ("untold", count()),
        ("refused", refused()),
        ("waiting", count()),
        ("next", next()),
    ]);
    let mut replay = operation(
        "replay_dead_letters",
        "Applies dead letters, unless newer writes of their keys were",
        &[(200, "what became of them", replayed)],
    );
    replay["parameters"] = json!([which(), query("after", number()), query("limit", limit())]);
    add(dead_letters::REPLAY, "post", replay);
}

/// Which dead letters: all, those of a mapping, or these numbers.
fn which() -> Json {
    let number = format!("[0-9]{{1,{}}}", dead_letters::DIGITS);
    let most = dead_letters::MOST - 1;
    let pattern = format!("^(all|mapping:[^\\u0000]+|{number}(,{number}){{0,{most}}})$");
    json!({"name": "which", "in": "query", "required": true, "schema": {"type": "string", "pattern": pattern},
        "description": "`all`, `mapping:NAME`, or numbers as in `7,9`"})
}

fn query(name: &str, schema: Json) -> Json {
    json!({"name": name, "in": "query", "schema": schema})
}

fn name() -> Json {
    let mut name = text();
    name["minLength"] = json!(1);
    name
}

fn number() -> Json {
    json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": i64::MAX})
}

fn limit() -> Json {
    json!({"type": "integer", "minimum": 1, "maximum": dead_letters::MOST})
}

fn count() -> Json {
    json!({"type": "integer", "minimum": 0})
}

fn letter() -> Json {
    let text = || json!({"type": "string"});
    let members = [
        ("id", number()),
        ("at", text()),
        ("mapping", text()),
        ("key", text()),
        ("operation", json!({"enum": ["put", "delete"]})),
        ("version", text()),
        ("columns", json!({"type": ["object", "null"]})),
        ("code", text()),
        ("error", text()),
        (
            "later",
            json!({"type": ["string", "null"], "description": "version of a later write of its key, if any was applied"}),
        ),
        (
            "waits",
            json!({"type": "boolean", "description": "it was not refused, but waits behind one that was"}),
        ),
    ];
    object(&members)["application/json"]["schema"].clone()
}

fn queues() -> Json {
    let state = || json!({"enum": Condition::ALL.map(Condition::label)});
    let reason = || json!({"type": ["string", "null"]});
    let depth = || {
        vec![("rows", count()), ("bytes", count()), ("oldest_seconds", json!({"type": ["number", "null"]}))]
    };
    let schema = |members: &[(&str, Json)]| object(members)["application/json"]["schema"].clone();
    let mut mapping = depth();
    mapping.extend([
        ("durability", json!({"enum": ["journal", "memory", "database"]})),
        ("state", state()),
        ("reason", reason()),
        ("retrying", reason()),
        ("dead_letters", json!({"type": ["integer", "null"], "description": "as counted last, every 10 s"})),
        ("lanes", json!({"type": "array", "items": schema(&depth())})),
    ]);
    let mut all = depth();
    all.extend([
        ("state", state()),
        ("reason", reason()),
        ("pressure", json!({"type": "number", "minimum": 0})),
        ("journal", json!({"type": ["object", "null"]})),
        ("mappings", json!({"type": "object", "additionalProperties": schema(&mapping)})),
    ]);
    object(&all)
}
