//! Writes the documents about the settings: the reference page, the JSON schema, the shipped `proxy.toml`.
//!
//! Must not know: any particular setting but the values that the shipped file needs to be loadable.

use serde_json::{Map, Value as Json, json};

use super::define::{Definition, Section};
use super::load::ALIASES;
use super::{MappingConfig, OutcomeConfig, ParamConfig, RouteConfig, SectionTable, sections};

/// What the shipped file sets although it has no default, so that it loads as it is.
const SHIPPED: [(&str, &str); 2] = [
    ("upstream.nodes", r#"["127.0.0.1:7000", "127.0.0.1:7001", "127.0.0.1:7002"]"#),
    ("database.url", r#""postgres://postgres@127.0.0.1:5432/postgres""#),
];

const TOML_HEAD: &str = "\
# Configuration of dsproxy: every setting, with its default.
#
# Each one can be overridden by an environment variable, DSPROXY_<SECTION>_<KEY>: DSPROXY_SERVER_LISTEN=0.0.0.0:6380.
# Also understood: DATABASE_URL, REDIS_NODES (comma separated), PROXY_ADDR, HTTP_ADDR.
# `dsproxy check` tells what is wrong with this file. Made from src/config/settings.rs, as docs/configuration.md is.
";

const SAMPLE_MAPPINGS: &str = r#"
# GET user:1 is answered from Redis, or loaded from users; SET user:1 '{"name":"Ada"}' is written to users in a batch.
[[mapping]]
name = "user"
key = "user:{id}"
table = "users"
id = "bigint"
format = "json"
ttl = "5m"
write = "behind"
mode = "upsert"

# Read-only: SET post:7 is refused.
[[mapping]]
name = "post"
key = "post:{id}"
table = "posts"
id = "bigint"
format = "json"
write = "none"

# Every write is a new row; the newest one is what is read. POST /write and GET /read use this mapping.
[[mapping]]
name = "user_data"
key = "user_data:{user_id}"
table = "user_data"
id = "text"
format = "text"
column = "value"
order_by = "ts"
write = "behind"
mode = "append"
"#;

const PAGE_HEAD: &str = "\
# Configuration

dsproxy reads one TOML file (`--config proxy.toml`), then the environment. All mistakes are reported together, before
any port is opened. The shipped [`proxy.toml`](../proxy.toml) has every setting with its default; editors can check a
file against [`proxy.schema.json`](proxy.schema.json).

- Every setting of a section can be overridden by the variable named with it; a list is written comma separated, and an
  empty variable counts as not set. A variable that starts with `DSPROXY_` and names no setting is a mistake.
- A text of the file may name variables: `${NAME}`, `${NAME:-default}`, and `${url:NAME:-default}` for a part of a URL. The
  value is read by the setting's own type afterwards; `$${` is a plain `${`.
- Durations have a unit: `500ms`, `2s`, `5m`, `1h`, `1d`, or `0`.
- Sizes count in powers of 1024: `64kb`, `512mb`, `1gb`; a plain number is bytes.
- Passwords, and the URL of the database, are never printed.
";

const PAGE_TAIL: &str =
    "\n<!-- Made from src/config/settings.rs: `UPDATE_DOCS=1 cargo test --test config` writes it anew. -->\n";

/// The reference page, in Markdown.
pub fn reference_page() -> String {
    let mut page = PAGE_HEAD.to_owned();
    page.push_str("\nWell-known variables; the specific one wins:\n\n| variable | means |\n| --- | --- |\n");
    for (alias, variable) in ALIASES {
        page.push_str(&format!("| `{alias}` | `{variable}` |\n"));
    }
    for section in sections() {
        page.push_str(&format!("\n## `[{}]`\n\n{}\n", section.name, paragraph(section.doc)));
        definitions(&section).for_each(|definition| page.push_str(&entry(definition, true)));
    }
    repeated::<MappingConfig>("[[mapping]]", &mut page);
    repeated::<RouteConfig>("[[route]]", &mut page);
    repeated::<ParamConfig>("[route.params.NAME]", &mut page);
    repeated::<OutcomeConfig>("[route.on.OUTCOME]", &mut page);
    page.push_str(PAGE_TAIL);
    page
}

/// The entry of a section that does not stand once, under `header`.
fn repeated<S: Section>(header: &str, page: &mut String) {
    page.push_str(&format!("\n## `{header}`\n\n{}\n", paragraph(S::DOC)));
    S::settings().iter().for_each(|setting| page.push_str(&entry(&setting.definition, false)));
}

/// The JSON schema (draft 2020-12) of the file.
pub fn json_schema() -> String {
    let mut properties: Map<String, Json> = sections()
        .iter()
        .map(|section| (section.name.to_owned(), object(section.doc, definitions(section))))
        .collect();
    properties.insert(MappingConfig::NAME.to_owned(), array_of::<MappingConfig>());
    properties.insert(RouteConfig::NAME.to_owned(), array_of::<RouteConfig>());
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "proxy.toml of dsproxy",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    format!("{schema:#}\n")
}

fn array_of<S: Section>() -> Json {
    let settings = S::settings();
    let items = object(S::DOC, settings.iter().map(|setting| &setting.definition));
    json!({"type": "array", "items": items})
}

/// The shipped `proxy.toml`.
pub fn proxy_toml() -> String {
    let mut file = TOML_HEAD.to_owned();
    for section in sections() {
        file.push_str(&format!("\n{}[{}]\n", comment(section.doc), section.name));
        for definition in definitions(&section) {
            let shipped =
                SHIPPED.iter().find(|(path, _)| *path == definition.path()).map(|(_, value)| *value);
            file.push_str(&comment(definition.doc));
            file.push_str(&match (shipped, definition.default.as_str()) {
                (Some(value), _) => format!("{} = {value}\n", definition.key),
                (None, "") => format!("# {} = {}\n", definition.key, definition.example),
                (None, default) => format!("{} = {default}\n", definition.key),
            });
        }
    }
    file.push_str(&commented::<MappingConfig>("[[mapping]]"));
    file.push_str(&commented::<RouteConfig>("[[route]]"));
    file.push_str(SAMPLE_MAPPINGS);
    file
}

/// The keys of a repeated section as comments: they belong under a header of their own.
fn commented<S: Section>(header: &str) -> String {
    let mut text = format!(
        "\n{}#\n# The keys of a {header} (commented out: they belong under a header):\n#\n",
        comment(S::DOC)
    );
    for setting in S::settings() {
        let definition = &setting.definition;
        let (note, value) = match (definition.required, definition.default.as_str()) {
            (true, _) => (" Required.", &definition.example),
            (false, "") => ("", &definition.example),
            (false, _) => (" Default:", &definition.default),
        };
        let (doc, key) = (paragraph(definition.doc), definition.key);
        text.push_str(&format!("#   {doc}{note}\n#     {key} = {value}\n"));
    }
    text
}

fn definitions(section: &SectionTable) -> impl Iterator<Item = &Definition> {
    section.settings.iter().map(|setting| &setting.definition)
}

/// A doc comment as one line of text.
fn paragraph(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A doc comment as lines of TOML comment.
fn comment(doc: &str) -> String {
    doc.lines().map(|line| format!("# {}\n", line.trim())).collect()
}

fn entry(definition: &Definition, overridable: bool) -> String {
    let default = match (definition.required, definition.default.as_str()) {
        (true, _) => format!("required, such as `{}`", definition.example),
        (false, "") => format!("unset; such as `{}`", definition.example),
        (false, default) => format!("default `{default}`"),
    };
    let variable = if overridable { format!("; `{}`", definition.variable()) } else { String::new() };
    let secret = if definition.secret { " Never printed." } else { "" };
    let (doc, expects) = (paragraph(definition.doc), &definition.expects);
    format!("\n### `{}`\n\n{doc}{secret}\n\n{default}{variable}\n\nTakes {expects}.\n", definition.key)
}

pub(super) fn object<'a>(doc: &str, definitions: impl Iterator<Item = &'a Definition>) -> Json {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for definition in definitions {
        let mut schema = definition.schema.clone();
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".to_owned(), paragraph(definition.doc).into());
            if let Some(default) = default_as_json(definition) {
                object.insert("default".to_owned(), default);
            }
        }
        properties.insert(definition.key.to_owned(), schema);
        if definition.required {
            required.push(definition.key);
        }
    }
    let mut object = json!({
        "type": "object",
        "description": paragraph(doc),
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn default_as_json(definition: &Definition) -> Option<Json> {
    let table: toml::Table = format!("value = {}", definition.default).parse().ok()?;
    serde_json::to_value(table.get("value")?).ok()
}
