//! The configuration as a user meets it: files, variables, and every mistake with its cure.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use dsproxy::config::{
    CachePolicy, Config, Environment, MappingConfig, UpstreamMode, ValueFormat, WriteMode, WritePolicy,
    json_schema, proxy_toml, reference_page,
};

fn top(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Loads `text` as a file named `proxy.toml`.
fn load(text: impl AsRef<[u8]>, environment: impl Into<Environment>) -> Result<Config, Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    std::fs::write(&path, text).unwrap();
    let prefix = format!("{}/", directory.path().display());
    Config::load(Some(&path), &environment.into())
        .map_err(|errors| errors.0.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect())
}

const NONE: [(&str, &str); 0] = [];
const NODES: [(&str, &str); 1] = [("REDIS_NODES", "127.0.0.1:7000")];

#[track_caller]
fn mistakes(text: &str, environment: impl Into<Environment>) -> Vec<String> {
    load(text, environment).expect_err("must be refused")
}

#[test]
fn the_documents_are_up_to_date() {
    for (path, text) in [
        ("proxy.toml", proxy_toml()),
        ("docs/configuration.md", reference_page()),
        ("docs/proxy.schema.json", json_schema()),
    ] {
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(top(path).parent().unwrap()).unwrap();
            // Other tests read it at this moment: it must never be half a file.
            let new = top(path).with_extension("new");
            std::fs::write(&new, &text).unwrap();
            std::fs::rename(&new, top(path)).unwrap();
        }
        let there = std::fs::read_to_string(top(path)).unwrap_or_default();
        assert!(
            there == text,
            "{path} is out of date: `UPDATE_DOCS=1 cargo test --test config` writes it anew"
        );
    }
}

#[test]
fn the_shipped_file_loads_and_says_what_the_defaults_are() {
    let mut shipped = Config::load(Some(&top("proxy.toml")), &Environment::default()).unwrap();
    assert_eq!(shipped.upstream.nodes.len(), 3);
    assert!(shipped.database.url.is_some());
    let names: Vec<&str> = shipped.mappings.iter().map(|mapping| mapping.name.as_str()).collect();
    assert_eq!(names, ["user", "post", "user_data"]);
    let user_data = &shipped.mappings[2];
    assert_eq!((user_data.format, user_data.mode), (ValueFormat::Text, WriteMode::Append));
    assert_eq!((user_data.write, user_data.cache), (WritePolicy::Behind, CachePolicy::On));
    assert_eq!(user_data.id, ["text"]);
    assert_eq!(shipped.mappings[0].ttl, Duration::from_secs(300));

    shipped.upstream.nodes.clear();
    shipped.database.url = None;
    shipped.mappings.clear();
    assert_eq!(shipped, Config::default());
}

#[test]
fn what_is_commented_out_in_the_shipped_file_is_right_too() {
    let text = std::fs::read_to_string(top("proxy.toml")).unwrap();
    let live: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|l| is_assignment(l)).unwrap_or(line))
        .collect();
    load(live.join("\n"), NONE).unwrap();
}

fn is_assignment(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
}

#[test]
fn without_a_file_the_environment_is_enough() {
    let environment = Environment::from([
        ("REDIS_NODES", "10.0.0.1:7000, [::1]:7001,redis.example:7002"),
        ("DATABASE_URL", "postgres://me:hunter2@db.example:5432/app"),
        ("PROXY_ADDR", "0.0.0.0:1"),
        ("DSPROXY_SERVER_LISTEN", "0.0.0.0:2"),
        ("DSPROXY_UPSTREAM_MODE", "cluster"),
        ("DSPROXY_LIMITS_BULK", "1mb"),
        ("DSPROXY_LIMITS_INLINE", "2048"),
        ("DSPROXY_READ_THROUGH_TTL_JITTER", "0.25"),
        ("DSPROXY_WRITE_BEHIND_BATCH_INTERVAL", "750ms"),
        ("DSPROXY_HTTP_ENABLED", "false"),
        ("DSPROXY_LOG_LEVEL", "debug,hyper=off"),
        ("DSPROXY_CONFIG", "somewhere.toml"),
        ("HTTP_ADDR", ""),
        ("UNRELATED", "x"),
    ]);
    let config = Config::load(None, &environment).unwrap();
    assert_eq!(config.upstream.nodes, ["10.0.0.1:7000", "[::1]:7001", "redis.example:7002"]);
    assert_eq!(config.database.url.as_ref().unwrap().expose(), "postgres://me:hunter2@db.example:5432/app");
    assert_eq!(config.server.listen.port(), 2, "the specific variable wins");
    assert_eq!((config.limits.bulk, config.limits.inline), (1 << 20, 2048));
    assert_eq!(config.write_behind.batch_interval, Duration::from_millis(750));
    assert_eq!((config.http.enabled, config.http.listen.port()), (false, 8080));
    assert_eq!(config.read_through.ttl_jitter, 0.25);
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn the_environment_overrides_the_file() {
    let file = "[upstream]\nmode = \"single\"\nnodes = [\"a:1\"]\n[limits]\nargs = 17\n";
    let config = load(file, [("REDIS_NODES", "b:2"), ("DSPROXY_LIMITS_ARGS", "18")]).unwrap();
    assert_eq!((config.upstream.mode, config.upstream.nodes), (UpstreamMode::Single, vec!["b:2".to_owned()]));
    assert_eq!(config.limits.args, 18);
}

#[test]
fn all_mistakes_are_reported_together_with_their_places() {
    let file = r#"
[server]
listen = "localhost:6380"
wrokers = 2
max_clients = 0

[write_behind]
batchrows = 10
batch_interval = 5
queue_bytes = "12 parsecs"

[limits]
statement_timeout = "1s"

[colour]
[readthrough]

[upstream]
nodes = ["127.0.0.1:7000", "nonsense"]
mode = "clutser"
password = 12345

[[mapping]]
name = "user"
table = "users"
id = "bigint"
write = "through"
"#;
    let expected = [
        "proxy.toml:3:10: server.listen is \"localhost:6380\": expected an IP address and port, such as \
         \"127.0.0.1:6380\", \"0.0.0.0:6380\" or \"[::1]:6380\"",
        "proxy.toml:4:1: [server] has no key `wrokers`: did you mean `workers`?",
        "proxy.toml:5:15: server.max_clients is 0: expected a whole number from 1 to 1000000",
        "proxy.toml:8:1: [write_behind] has no key `batchrows`: did you mean `batch_rows`?",
        "proxy.toml:9:18: write_behind.batch_interval is 5: expected a duration from \"1ms\" to \"1h\" (units: ms, s, m, \
         h, d) (a duration needs its unit: \"5s\" or \"5ms\")",
        "proxy.toml:10:15: write_behind.queue_bytes is \"12 parsecs\": expected a size from 64kb to 64gb, such as \
         \"64kb\", \"512mb\", \"1gb\" or a number of bytes",
        "proxy.toml:13:1: [limits] has no key `statement_timeout`: it belongs into [database], not limits",
        "proxy.toml:15:2: unknown section [colour]",
        "proxy.toml:16:2: unknown section [readthrough]: did you mean [read_through]?",
        "proxy.toml:19:9: upstream.nodes is a list: expected a list, each element host:port, such as 10.0.0.1:7000 (the \
         element \"nonsense\" is wrong)",
        "proxy.toml:20:8: upstream.mode is \"clutser\": expected \"cluster\" or \"single\" (did you mean \"cluster\"?)",
        "proxy.toml:21:12: upstream.password is not right: expected the password",
        "proxy.toml:23:1: this mapping has no `key`: expected a key template with its {placeholders}, such as key = \
         \"user:{id}\"",
        "proxy.toml:27:9: mapping.write is \"through\": expected \"none\" or \"behind\" (\"through\" is planned, but this \
         version does not have it yet)",
        "environment variable DSPROXY_SERVER_LISTN: no setting has this name: did you mean DSPROXY_SERVER_LISTEN?",
        "environment variable HTTP_ADDR: http.listen is \"8080\": expected an IP address and port, such as \
         \"127.0.0.1:6380\", \"0.0.0.0:6380\" or \"[::1]:6380\"",
        "configuration: there is a [[mapping]] but no database.url: set it to postgres://user:password@host:port/database, \
         or set DATABASE_URL",
    ];
    let found = mistakes(file, [("DSPROXY_SERVER_LISTN", "127.0.0.1:1"), ("HTTP_ADDR", "8080")]);
    assert_eq!(found, expected, "{found:#?}");
}

#[test]
fn secrets_are_never_quoted() {
    let url = "postgres://me:hunter2@:nonsense";
    for file in [
        format!("[database]\nurl = \"{url}\"\n[upstream]\npassword = [\"hunter2\"]\n"),
        format!("database = \"{url}\""),
        "[upstream]\nnodes = [\"redis://:hunter2@a:1\"]".to_owned(),
        "[upstream]\nnodes = \"redis://:hunter2@a:1\"".to_owned(),
        "[server]\npassword = \"hunter2\" x".to_owned(),
        "[server]\npassword = hunter2".to_owned(),
        "[server]\npassword = \"hunter2".to_owned(),
        "[server]\npassword = 'hunter2\npassword = \"hunter2\\q\"".to_owned(),
    ] {
        let found = mistakes(&file, NODES);
        assert!(!format!("{found:?}").contains("hunter2"), "{found:#?}");
    }
    let found = mistakes("", [("DATABASE_URL", url), ("REDIS_NODES", "redis://:hunter2@a:1")]);
    assert!(found.len() == 2 && !format!("{found:?}").contains("hunter2"), "{found:#?}");
}

proptest::proptest! {
    #[test]
    fn a_damaged_file_is_refused_or_loaded_never_a_panic(at in 0..20_000usize, with in ".{0,6}", cut in 0..40usize) {
        let mut text = proxy_toml();
        let floor = |text: &str, at: usize| (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
        let start = at % text.len();
        let (start, end) = (floor(&text, start), floor(&text, start + cut));
        text.replace_range(start..end, &with);
        if let Err(found) = load(&text, NONE) {
            proptest::prop_assert!(!found.is_empty());
        }
    }
}

#[test]
fn rules_that_span_settings() {
    let broken = |text: &str| {
        let found = mistakes(text, NODES);
        assert_eq!(found.len(), 1, "{found:#?}");
        found[0].clone()
    };
    let mapped = |lines: &str| {
        let file = format!(
            "[database]\nurl = \"postgres://a@b/c\"\n[[mapping]]\nname = \"m\"\nkey = \"m:{{id}}\"\nid = \"text\"\n{lines}"
        );
        broken(&file)
    };
    assert!(
        broken("[limits]\nclient_output_max = \"512kb\"")
            .starts_with("proxy.toml:2:21: limits.client_output_pause is")
    );
    assert!(
        broken("[write_behind]\nmax_batch_rows = 49")
            .contains("write_behind.batch_rows is 50, which is more than")
    );
    assert!(
        broken("[write_behind]\nretry_min = \"6s\"")
            .starts_with("proxy.toml:2:13: write_behind.retry_min is 6s")
    );
    assert!(broken("[upstream]\nreconnect_backoff_max = \"10ms\"").contains("reconnect_backoff_min is 20ms"));
    assert!(broken("[limits]\nquery_buffer = \"1mb\"").contains("limits.bulk"));
    assert!(broken("[http]\nlisten = \"127.0.0.1:6380\"").contains("both 127.0.0.1:6380"));
    assert!(broken("[upstream]\nusername = \"me\"").contains("without upstream.password"));
    assert!(
        broken("[[mapping]]\nname = \"m\"\nkey = \"m:{id}\"\nid = \"text\"\ntable = \"t\"")
            .contains("no database.url")
    );
    assert!(mapped("").starts_with("proxy.toml:3:1: mapping \"m\" has neither `table` nor `load`"));
    assert!(mapped("load = \"select 1\"\nwrite = \"behind\"").contains("is written to but has no `table`"));
    assert!(mapped("table = \"t\"\nformat = \"text\"").contains("no `column`"));
    assert!(mapped("table = \"t\"\ncolumn = \"c\"").contains("has a `column`, which is for"));
    assert!(mapped("table = \"t\"\nmode = \"append\"").contains("no `order_by`"));
    assert!(mapped("table = \"t\"\norder_by = \"ts\"").contains("`order_by`, which is for"));
    assert!(mapped("table = \"t\"\nformat = \"hash\"\ncolumn = \"c\"").contains("has a `column`"));
    assert!(mapped("table = \"t\"\nwrite = \"through\"").contains("planned"));
    for (wrong, why) in [
        ("columns = { a = 5 }", "`a` is 5: expected a column or an SQL expression"),
        ("columns = \"a\"", "expected a table of names"),
        ("max = { id = -1 }", "`id` is -1: expected a whole number from 0"),
        ("invalidate_on = { by = \"x\" }", "it names no `mapping`"),
        ("invalidate_on = { mapping = \"m\", on = \"x\" }", "it has no key `on`"),
        ("warm = { limit = 0 }", "`limit` is 0"),
        ("warm = \"yes\"", "expected true, false, or a table"),
        ("on_bad_key = \"maybe\"", "expected \"nil\" or \"error\""),
    ] {
        let found = mapped(&format!("table = \"t\"\n{wrong}"));
        assert!(found.contains(why), "{wrong}: {found}");
    }
    let twice = "table = \"t\"\n[[mapping]]\nname = \"m\"\nkey = \"n:{id}\"\nid = \"text\"\ntable = \"t\"";
    assert!(mapped(twice).starts_with("proxy.toml:9:8: the name \"m\" is taken by the mapping at"));
    assert_eq!(mistakes("[upstream]\nmode = \"single\"", [("REDIS_NODES", "a:1,b:2")]).len(), 1);
    assert!(mistakes("", NONE)[0].starts_with("configuration: upstream.nodes names no Redis node"));
}

#[test]
fn mistakes_of_routes_come_together_with_their_lines() {
    let text = r#"
[database]
url = "postgres://me@h/app"
[[mapping]]
name = "user"
key = "user:{id}:{part}"
table = "users"
id = "text"
[[route]]
name = "a"
path = "/a/{id}"
mapping = "user"
[route.on.ok]
body = '{"x": "{rwo}"}'
[route.on.nothing]
status = 99
[[route]]
name = "b"
path = "/a/{other}"
sql = "select $missing"
[[route]]
name = "b"
path = "/a/{other}"
mapping = "usr"
params = { limit = { kind = "integer", default = 500, max = 100 } }
on = { ok = { body = '{"x": "{rwo}"}' } }
[[route]]
name = "c"
path = "metrics"
[[route]]
name = "d"
path = "/d"
sql = "select 1"
on = { ok = { body = '["{token}"]' } }
"#;
    let found = mistakes(text, NODES);
    let expected = [
        "proxy.toml:15:11: route.on.nothing: no such name",
        "proxy.toml:16:10: route.on.nothing: `status` is 99: expected a whole number from 200 to 599",
        "proxy.toml:19:8: route \"b\": the route \"a\" answers",
        "proxy.toml:20:7: route \"b\": sql has $missing",
        "proxy.toml:22:8: the name \"b\" is taken",
        "proxy.toml:23:8: route \"b\": the route \"a\" answers",
        "proxy.toml:24:11: route \"b\": mapping names \"usr\"",
        "proxy.toml:25:12: route \"b\": params.limit has a wrong default",
        "proxy.toml:26:8: route \"b\": on.ok has a body that has the unknown placeholder {rwo}",
        "proxy.toml:27:1: route \"c\": has neither",
        "proxy.toml:29:8: route \"c\": path begins with no `/`",
        "proxy.toml:34:8: route \"d\": on.ok shows {token}, which needs auth.jwt_secret",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    let fixed = text.replace("nothing]\nstatus = 99", "not_found]");
    let found = mistakes(&fixed, NODES);
    assert!(
        found.iter().any(|m| m.starts_with("proxy.toml:12:11: route \"a\": mapping needs {part}")),
        "{found:#?}"
    );
    assert!(found.iter().any(|m| m.starts_with("proxy.toml:13:11: route \"a\": on.ok has")), "{found:#?}");
}

#[test]
fn the_file_names_variables() {
    let text = r#"
[upstream]
nodes = "${REDIS_ADDR:-localhost:6379}"
mode = "${MODE:-single}"
[http]
listen = "127.0.0.1:${HTTP_PORT:-3000}"
max_connections = "${CONNECTIONS:-10}"
cors_origins = ["${ORIGIN:-*}"]
[database]
url = "postgres://${DB_USER:-postgres}:${url:DB_PASS:-postgres}@${DB_HOST:-localhost}:${DB_PORT:-5432}/${DB_NAME:-mydb}"
[[mapping]]
name = "user"
key = "${CACHE_PREFIX:-user:}{id}"
table = "users"
id = "text"
ttl = "${CACHE_TTL_SECONDS:-3600}s"
[[route]]
name = "user"
path = "/user"
mapping = "user"
params = { id = { max = "${LONGEST:-20}" } }
"#;
    let config = load(text, NONE).unwrap();
    assert_eq!((config.upstream.nodes, config.http.listen.port()), (vec!["localhost:6379".to_owned()], 3000));
    assert_eq!((config.http.max_connections, config.http.cors_origins), (10, vec!["*".to_owned()]));
    assert_eq!(config.database.url.unwrap().expose(), "postgres://postgres:postgres@localhost:5432/mydb");
    assert_eq!((config.mappings[0].key.as_str(), config.mappings[0].ttl.as_secs()), ("user:{id}", 3600));
    assert_eq!(config.routes[0].params.get("id").unwrap().max, Some(20.0));
    let environment = [
        ("MODE", "cluster"),
        ("REDIS_ADDR", "a:1,b:2"),
        ("HTTP_PORT", "8080"),
        ("CONNECTIONS", "7"),
        ("DB_PASS", "p@ss/word"),
        ("CACHE_TTL_SECONDS", "0"),
    ];
    let config = load(text, environment).unwrap();
    assert_eq!((config.upstream.nodes.len(), config.http.max_connections), (2, 7));
    assert_eq!(config.mappings[0].ttl, Duration::ZERO, "no expiry");
    assert!(config.database.url.unwrap().expose().contains(":p%40ss%2Fword@"));
    let found = mistakes(&text.replace("${DB_HOST:-localhost}", "${DB_HOST}"), [("HTTP_PORT", "many")]);
    assert!(found[0].starts_with("proxy.toml:6:10: http.listen is \"127.0.0.1:many\""), "{found:#?}");
    assert!(
        found[1].starts_with("proxy.toml:10:7: database.url needs the environment variable DB_HOST"),
        "{found:#?}"
    );
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[test]
fn a_refused_value_does_not_cause_further_mistakes() {
    let found = mistakes(
        "[database]\nurl = \"mysql://a\"\n[[mapping]]\nname = \"m\"\nkey = \"m:{id}\"\nid = \"text\"\ntable = \"t\"\n",
        NODES,
    );
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("proxy.toml:2:7: database.url is not right: expected postgres://"));
}

#[test]
fn files_that_are_no_configuration() {
    let whole =
        Config::load(Some(Path::new("/nonexistent/proxy.toml")), &Environment::default()).unwrap_err();
    assert!(whole.to_string().contains("/nonexistent/proxy.toml: cannot be read: No such file"), "{whole}");
    let found = mistakes("[server]\nlisten = \n[http\nenabled = yes\n", NONE);
    assert!(found.iter().any(|line| line.starts_with("proxy.toml:2:")), "{found:#?}");
    assert!(found.iter().any(|line| line.starts_with("proxy.toml:4:")), "{found:#?}");
    assert_eq!(
        load(b"# \xc3\xa9\n[s\xff]\n", NONE),
        Err(vec!["proxy.toml:2:3: not UTF-8 from here on".to_owned()])
    );
    for text in
        ["server = 3", "mapping = 3", "mapping = [3]", "[mapping]\nname = \"x\"", "[[server]]", "listen = 1"]
    {
        assert!(!mistakes(text, NODES).is_empty(), "{text}");
    }
    assert!(mistakes("a = \n".repeat(100).as_str(), NODES).len() < 30);
    assert!(mistakes("[log]\nlevel = \"inof\"", NODES)[0].contains("expected error, warn, info"));
    assert!(
        mistakes("", [("REDIS_NODES", "a:1"), ("DSPROXY_MAPPING_NAME", "x")])[0]
            .contains("from the file only")
    );
}

#[test]
fn the_embedded_stack_needs_no_addresses() {
    let config = Config::load_embedded(None, &Environment::default()).unwrap();
    assert_eq!((config.dev.shards, config.dev.directory.as_str()), (3, ".dsproxy"));
    let config = Config { mappings: vec![MappingConfig::default()], ..config };
    assert!(config.server.worker_count() >= 1 && config.server.worker_count() <= 8);
}
