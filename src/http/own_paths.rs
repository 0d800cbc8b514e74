//! Describes the proxy's own endpoints, as the OpenAPI document does those of the configuration.
//!
//! Must not know: how an endpoint is run.

use serde_json::{Map, Value as Json, json};

/// Which of them there are.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// `/read`, `/write` and `/mget` of any key.
    pub facade: bool,
    /// They ask for a token.
    pub bearer: bool,
    /// The mapping of `user_id`s.
    pub user_data: bool,
}

/// Adds them to `paths`; what the configuration has put there stays.
pub fn describe(own: Own, paths: &mut Map<String, Json>) {
    let mut add = |path: &str, method: &str, operation: Json| {
        let there = paths.entry(path.to_owned()).or_insert_with(|| json!({}));
        if there.get(method).is_none() {
            there[method] = operation;
        }
    };
    let text = || json!({"text/plain": {"schema": {"type": "string"}}});
    add("/ping", "get", operation("ping", "Whether anybody is there", &[(200, "pong", text())]));
    add(
        "/metrics",
        "get",
        operation("metrics", "All metrics, for Prometheus", &[(200, "the metrics", text())]),
    );
    for (path, name) in
        [("/health", "health"), ("/health/ready", "health_ready"), ("/health/live", "health_live")]
    {
        add(path, "get", health(name));
    }
    add(
        "/api/v1/cache/stats",
        "get",
        operation("cache_stats", "What the cache did", &[(200, "statistics", stats())]),
    );
    add(
        "/api/v1/cache/stats/reset",
        "post",
        operation(
            "reset_cache_stats",
            "Counts from now on",
            &[(200, "reset", object(&[("message", json!({"type": "string"}))]))],
        ),
    );
    if own.facade {
        explain(own, &mut add);
        facade(own, &mut add);
        super::own_writes::describe(own, &mut add);
    }
}

/// What becomes of a command.
fn explain(own: Own, add: &mut impl FnMut(&str, &str, Json)) {
    let known = json!({"type": "object", "additionalProperties": {"type": ["string", "integer", "object"]},
        "properties": {"slot": {"type": "integer", "minimum": 0, "maximum": 16383}}});
    let known = json!({"application/json": {"schema": known}});
    let mut explain = operation(
        "explain",
        "What becomes of a command: mapping, node, state of the entry, SQL of a miss",
        &[(200, "what is known", known)],
    );
    explain["parameters"] = json!([{"name": "cmd", "in": "query", "required": true, "example": "GET user:1",
        "description": "a command that names a key, as redis-cli takes it; of which the pattern shows the simplest", "schema": {"type": "string", "pattern": "^(GET|TTL|TYPE|EXISTS|STRLEN|HGETALL) [A-Za-z0-9:._-]+$"}}]);
    for (status, what) in [
        ("400", "no command that names a key"),
        ("404", "no mapping is configured"),
        ("503", "the cluster does not answer"),
        ("504", "no answer in time"),
    ] {
        explain["responses"][status] = problem(what);
    }
    if own.bearer {
        explain["responses"]["401"] = problem("no token that is accepted");
        explain["security"] = json!([{"bearer": []}]);
    }
    add("/api/v1/explain", "get", explain);
}

/// The endpoints of any key.
fn facade(own: Own, add: &mut impl FnMut(&str, &str, Json)) {
    let mut add = |path: &str, method: &str, mut operation: Json| {
        operation["responses"]["400"] = problem("the request is wrong");
        operation["responses"]["503"] = problem("something is away");
        operation["responses"]["504"] = problem("no answer in time");
        if method == "post" {
            for status in ["408", "413", "422"] {
                operation["responses"][status] = problem("the body is wrong");
            }
        }
        if own.bearer {
            operation["responses"]["401"] = problem("no token that is accepted");
            operation["security"] = json!([{"bearer": []}]);
        }
        add(path, method, operation);
    };
    let value = || json!({"*/*": {"schema": {}}});
    let mut read = operation("read", "The value of a key", &[(200, "the value", value())]);
    read["parameters"] = json!([which(own)]);
    read["responses"]["404"] = problem("there is none");
    read["responses"]["304"] = json!({"description": "the client has it already"});
    add("/read", "get", read);
    let deleted = object(&[("deleted", json!({"type": "integer"}))]);
    let mut delete = operation("delete", "Deletes a key", &[(200, "how many there were", deleted)]);
    delete["parameters"] = json!([{"name": "key", "in": "query", "required": true, "schema": key()}]);
    delete["responses"]["409"] = problem("this key cannot be deleted");
    add("/read", "delete", delete);
    let accepted = json!({"text/plain": {"schema": {"const": "accepted"}}});
    let mut write = operation("write", "Writes a value", &[(202, "accepted", accepted)]);
    write["requestBody"] = body(writes(own));
    add("/write", "post", write);
    let values = object(&[("values", json!({"type": "array", "items": {"type": ["string", "null"]}}))]);
    let mut mget = operation("mget", "The values of many keys", &[(200, "null where there is none", values)]);
    let keys = json!({"type": "array", "minItems": 1, "maxItems": super::facade::MGET_KEYS, "items": {"type": "string"}});
    mget["requestBody"] = body(closed(json!({"keys": keys}), &["keys"]));
    add("/mget", "post", mget);
}

/// The query of `/read`: one of two parameters, which OpenAPI can only say of an object that is spread out.
fn which(own: Own) -> Json {
    let by_key = closed(json!({"key": key()}), &["key"]);
    if !own.user_data {
        return json!({"name": "key", "in": "query", "required": true, "schema": key()});
    }
    let by_user = closed(json!({"user_id": key()}), &["user_id"]);
    json!({"name": "which", "in": "query", "required": true, "style": "form", "explode": true,
        "schema": {"oneOf": [by_key, by_user]}})
}

/// The bodies of `/write`.
fn writes(own: Own) -> Json {
    let ttl =
        json!({"type": ["integer", "null"], "minimum": 1, "maximum": u32::MAX, "description": "seconds"});
    let by_key = closed(json!({"key": key(), "value": text(), "ttl": ttl}), &["key", "value"]);
    if !own.user_data {
        return by_key;
    }
    let ts = json!({"type": ["integer", "null"], "minimum": i64::MIN, "maximum": i64::MAX, "description": "now, if absent"});
    let by_user = closed(json!({"user_id": key(), "value": text(), "ts": ts}), &["user_id", "value"]);
    json!({"oneOf": [by_user, by_key]})
}

/// A text of a request: any, but for the character that no database stores.
pub(super) fn text() -> Json {
    json!({"type": "string", "pattern": NO_NUL})
}

/// Texts without the character NUL.
pub const NO_NUL: &str = "^[^\\u0000]*$";

fn key() -> Json {
    json!({"type": "string", "minLength": 1, "pattern": NO_NUL})
}

pub(super) fn operation(id: &str, summary: &str, answers: &[(u16, &str, Json)]) -> Json {
    let responses: Map<String, Json> = answers
        .iter()
        .map(|(status, what, content)| (status.to_string(), json!({"description": what, "content": content})))
        .collect();
    json!({"operationId": format!("dsproxy_{id}"), "summary": summary, "tags": ["dsproxy"], "responses": responses})
}

fn health(id: &str) -> Json {
    let state = object(&[("status", json!({"type": "string"}))]);
    operation(id, "How it is", &[(200, "well", state.clone()), (503, "not well, with the reasons", state)])
}

fn stats() -> Json {
    let count = || json!({"type": "integer", "minimum": 0});
    let names = ["hits", "misses", "sets", "deletes", "errors"];
    let mut members: Vec<(&str, Json)> = names.into_iter().map(|name| (name, count())).collect();
    members.push(("hit_rate", json!({"type": "number", "minimum": 0, "maximum": 1})));
    let counts = &object(&members)["application/json"]["schema"];
    object(&[
        ("cache_stats", counts.clone()),
        ("mappings", json!({"type": "object", "additionalProperties": counts})),
        ("cluster", json!({"type": ["object", "null"]})),
        ("timestamp", json!({"type": "string", "format": "date-time"})),
    ])
}

/// A JSON object that has all of these members, as the content of an answer.
pub(super) fn object(members: &[(&str, Json)]) -> Json {
    let properties: Map<String, Json> =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let required: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    json!({"application/json": {"schema": {"type": "object", "properties": properties, "required": required}}})
}

/// An object of these members and no others.
pub(super) fn closed(properties: Json, required: &[&str]) -> Json {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn body(schema: Json) -> Json {
    json!({"required": true, "content": {"application/json": {"schema": schema}}})
}

pub(super) fn problem(what: &str) -> Json {
    json!({"description": what,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}})
}
