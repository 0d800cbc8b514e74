//! Describes every route as OpenAPI 3.1, from the loaded configuration.
//!
//! Must not know: how a route is run.

use serde_json::{Map, Value as Json, json};

use super::own_paths::{self, NO_NUL, Own};
use super::site::{Site, method_of};
use crate::config::{Action, Compiled, OUTCOMES, RouteMethod};
use crate::route::{In, Param, ParamType, ParamValue, Placeholder};

/// The document.
pub fn document(site: &Site, own: Own) -> Json {
    let mut paths = Map::new();
    let bearer = own.bearer || site.routes().any(|route| route.bearer);
    for route in site.routes() {
        let path = paths.entry(route.path.source().to_owned()).or_insert_with(|| json!({}));
        path[method_of(route.method).as_str().to_ascii_lowercase()] = operation(route);
    }
    own_paths::describe(own, &mut paths);
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {"title": "dsproxy", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": {"Problem": problem()}},
    });
    if bearer {
        document["components"]["securitySchemes"] = json!({"bearer": {"type": "http", "scheme": "bearer"}});
    }
    document
}

/// A problem of RFC 9457.
fn problem() -> Json {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
    })
}

fn operation(route: &Compiled) -> Json {
    let of = |place: In| route.params.iter().filter(move |param| param.place == place);
    let shown = |place: In, name: &'static str| of(place).map(move |param| parameter(param, name));
    let parameters: Vec<Json> =
        shown(In::Path, "path").chain(shown(In::Query, "query")).chain(shown(In::Header, "header")).collect();
    let mut operation = json!({
        "operationId": route.name,
        "parameters": parameters,
        "responses": responses(route),
    });
    if let Some(summary) = &route.summary {
        operation["summary"] = json!(summary);
    }
    if let Some(body) = body(route) {
        operation["requestBody"] = body;
    }
    if route.bearer {
        operation["security"] = json!([{"bearer": []}]);
    }
    operation
}

fn parameter(param: &Param, place: &str) -> Json {
    let name = if place == "header" { param.name.replace('_', "-") } else { param.name.clone() };
    json!({"name": name, "in": place, "required": place == "path" || param.required, "schema": schema(param)})
}

/// The JSON schema of a parameter.
fn schema(param: &Param) -> Json {
    let ty = match param.ty {
        ParamType::Text => "string",
        ParamType::Integer => "integer",
        ParamType::Number => "number",
        ParamType::Boolean => "boolean",
        ParamType::Json => return json!({}),
    };
    let mut schema = json!({"type": ty});
    if param.place == In::Body && param.may_be_null() {
        schema["type"] = json!([ty, "null"]);
    }
    let (min, max) = match param.ty {
        ParamType::Text => ("minLength", "maxLength"),
        _ => ("minimum", "maximum"),
    };
    let whole = |bound: f64| if bound.fract() == 0.0 { json!(bound as i64) } else { json!(bound) };
    match (param.ty, param.place, param.min) {
        (_, _, Some(bound)) => schema[min] = whole(bound),
        // A segment of a path cannot be empty.
        (ParamType::Text, In::Path, None) => schema[min] = json!(1),
        (ParamType::Integer, _, None) => schema[min] = json!(i64::MIN),
        _ => {}
    }
    match (param.ty, param.max) {
        (_, Some(bound)) => schema[max] = whole(bound),
        (ParamType::Integer, None) => schema[max] = json!(i64::MAX),
        _ => {}
    }
    match (&param.pattern_source, param.ty) {
        (Some(pattern), _) => {
            schema["pattern"] = json!(format!("^(?:{pattern})$"));
            schema["allOf"] = json!([{"pattern": NO_NUL}]);
        }
        (None, ParamType::Text) => schema["pattern"] = json!(NO_NUL),
        _ => {}
    }
    if let Some(default) = &param.default {
        schema["default"] = match default {
            ParamValue::Integer(number) => json!(number),
            ParamValue::Number(number) => json!(number),
            ParamValue::Boolean(value) => json!(value),
            ParamValue::Json(json) => json.clone(),
            other => json!(other.to_text()),
        };
    }
    schema
}

/// The request's body, where there is one.
fn body(route: &Compiled) -> Option<Json> {
    let parts: Vec<&Param> = route.params.iter().filter(|param| param.place == In::Body).collect();
    let writes = matches!(route.method, RouteMethod::Post | RouteMethod::Put | RouteMethod::Patch);
    let whole = matches!(route.action, Action::Mapping { .. }) && writes;
    if parts.is_empty() && !whole {
        return None;
    }
    let properties: Map<String, Json> = parts.iter().map(|part| (part.name.clone(), schema(part))).collect();
    let required: Vec<&str> =
        parts.iter().filter(|part| part.required).map(|part| part.name.as_str()).collect();
    let mut object = json!({"type": "object", "properties": properties, "required": required});
    if !parts.is_empty() {
        object["additionalProperties"] = json!(false);
    }
    let needed = parts.is_empty() || !required.is_empty();
    Some(json!({"required": needed, "content": {"application/json": {"schema": object}}}))
}

fn responses(route: &Compiled) -> Json {
    let mut responses = Map::new();
    for ((name, usual), outcome) in OUTCOMES.iter().zip(&route.outcomes) {
        if (*name == "unauthorized" && !route.bearer)
            || (*name == "conflict" && route.method == RouteMethod::Get)
        {
            continue;
        }
        let mut statuses = vec![outcome.status.unwrap_or(*usual)];
        match (*name, outcome.status) {
            ("invalid", None) => statuses.extend([408, 413, 422]),
            ("error", None) => statuses.extend([503, 504]),
            _ => {}
        }
        for status in statuses {
            let mut response = json!({"description": name});
            if !matches!(status, 204 | 304) {
                response["content"] = match &outcome.shape {
                    Some(shape) => {
                        json!({"application/json": {"schema": shape.schema(&|p| placeholder(p, route))}})
                    }
                    None if *name == "ok" => json!({"application/json": {"schema": {}}}),
                    None => {
                        json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}})
                    }
                };
            }
            merge(&mut responses, status, response);
        }
    }
    if route.method == RouteMethod::Get {
        responses.insert("304".to_owned(), json!({"description": "the client has it already"}));
    }
    Json::Object(responses)
}

/// Adds a response; two outcomes may have one status, each with a body of its own type.
fn merge(responses: &mut Map<String, Json>, status: u16, response: Json) {
    let there = responses.entry(status.to_string()).or_insert_with(|| response.clone());
    let Some(content) = response.get("content").and_then(Json::as_object) else { return };
    for (kind, schema) in content {
        if there["content"].get(kind).is_none() {
            there["content"][kind] = schema.clone();
        }
    }
}

/// The JSON schema of a placeholder's value.
fn placeholder(placeholder: &Placeholder, route: &Compiled) -> Json {
    match placeholder {
        Placeholder::Row | Placeholder::Field(_) => json!({}),
        Placeholder::Rows => json!({"type": "array"}),
        Placeholder::FromCache | Placeholder::HasMore => json!({"type": "boolean"}),
        Placeholder::DurationMs => json!({"type": "integer", "minimum": 0}),
        Placeholder::Status => json!({"type": "integer"}),
        Placeholder::Metadata => json!({"type": "object"}),
        Placeholder::Source | Placeholder::RequestId | Placeholder::Error => json!({"type": "string"}),
        Placeholder::Token => json!({"type": ["string", "null"]}),
        Placeholder::Now => json!({"type": "string", "format": "date-time"}),
        Placeholder::Param(name) => match route.params.iter().find(|param| param.name == *name) {
            // In the answer to a mistake it may be missing, or not what it should be.
            Some(_) => json!({}),
            None => json!({}),
        },
    }
}
