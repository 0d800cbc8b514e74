//! `examples/hotcold-users`.

use std::time::Duration;

use serde_json::json;

use crate::bed::{Example, cluster};
use crate::support::{Resp, Value, eventually};

pub fn start() -> Example {
    Example::start("hotcold-users", |stack, db, http| {
        let own = vec![
            ("PORT", http.to_string()),
            ("DATABASE_URL", format!("{}?sslmode=disable", db.url())),
            ("REQUEST_TIMEOUT_MS", "3000".to_owned()),
        ];
        [cluster(stack), own].concat()
    })
}

fn user(example: &Example, query: &str) -> (u16, serde_json::Value) {
    let answer = example.get(&format!("/v1/users{query}"));
    let mut body = answer.json();
    let metadata = body.as_object_mut().unwrap().remove("metadata").unwrap();
    assert!(metadata.is_object(), "{metadata}");
    (answer.status, body)
}

#[test]
fn hot_and_cold_paths_have_their_codes_and_messages() {
    let mut example = start();
    let expected = |message: &str, hit: bool| {
        json!({"code": 200, "message": message, "user_id": "someid", "deeplink": "app://promo/someid",
            "promo_message": "Welcome back", "cache_hit": hit})
    };
    assert_eq!(user(&example, "?user_id=someid"), (200, expected("ok:postgres", false)));
    assert_eq!(user(&example, "?user_id=someid"), (200, expected("ok:redis", true)));
    let ttl = |example: &Example| match example.redis().cmd(&["TTL", "user:someid"]) {
        Value::Int(seconds) => seconds,
        other => panic!("{other:?}"),
    };
    assert!((3000..=4000).contains(&ttl(&example)), "{}", ttl(&example));
    let invalid = json!({"code": 400, "message": "invalid user_id", "cache_hit": false});
    for query in ["", "?user_id=", "?user_id=a%20b", "?user_id=abcdefghijklmnopqrstu", "?user_id=%27or%271"] {
        assert_eq!(user(&example, query), (400, invalid.clone()), "{query}");
    }
    let missing = json!({"code": 404, "message": "not found", "cache_hit": false});
    assert_eq!(user(&example, "?user_id=nobody"), (404, missing));
    for (_, output) in example.readme(8080) {
        assert!(
            output.contains("\"code\":200") || output.contains("swagger-ui") || output.contains("openapi"),
            "{output}"
        );
    }
    // Many at once for a cold one are one query.
    let queries = "dsproxy_queries_total{kind=\"load\",mapping=\"user\",outcome=\"ok\"}";
    let before = example.metric(queries);
    example.redis().cmd(&["DEL", "user:someid"]);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| assert_eq!(user(&example, "?user_id=someid").0, 200));
        }
    });
    assert!(example.metric(queries) - before <= 2.0, "{}", example.metric(queries) - before);
    // Without the database what is cached is still served, the rest is an internal error.
    example.stack.stop("postgres");
    assert_eq!(user(&example, "?user_id=someid"), (200, expected("ok:redis", true)));
    let failed = json!({"code": 500, "message": "internal error", "cache_hit": false});
    assert_eq!(user(&example, "?user_id=cold"), (500, failed));
    example.stack.start_server("postgres");
    eventually(Duration::from_secs(20), "the database is back", || user(&example, "?user_id=cold").0 == 404);
    // CACHE_TTL_SECONDS=0: no expiry.
    example.redis().cmd(&["DEL", "user:someid"]);
    example.restart_with(&[("CACHE_TTL_SECONDS", "0")]);
    assert_eq!(user(&example, "?user_id=someid").0, 200);
    assert_eq!(ttl(&example), -1);
}

#[test]
fn swagger_shows_the_route() {
    let example = start();
    let page = example.get("/swagger");
    assert!(page.status == 200 && page.body.contains("swagger-ui"), "{page:?}");
    for asset in ["/swagger/swagger-ui.css", "/swagger/swagger-ui-bundle.js"] {
        assert!(page.body.contains(asset));
        let plain = example.get(asset);
        assert!(plain.status == 200 && plain.body.len() > 100_000, "{asset}");
        let packed = example.send_with("GET", asset, "Accept-Encoding: gzip\r\n", "");
        assert_eq!(packed.header("content-encoding"), "gzip");
    }
    let document = example.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    let operation = &document["paths"]["/v1/users"]["get"];
    assert_eq!(operation["operationId"], "get_user");
    assert_eq!(operation["parameters"][0]["schema"]["pattern"], "^(?:[A-Za-z0-9_-]{1,20})$");
    assert!(operation["responses"]["404"].is_object());
    assert_eq!(example.get("/dashboard").status, 200);
    let events = example.get("/dashboard/events");
    assert!(
        events.body.starts_with("retry: ") && events.body.contains("dsproxy_uptime_seconds"),
        "{}",
        events.head
    );
}

/// Every variable of the seed, a value for it, and the setting that it becomes, as `CONFIG GET` shows it. (`PORT`, `DATABASE_URL`
/// and `REDIS_ADDR` are what the other tests run with.)
const VARIABLES: [(&str, &str, &str, &str); 11] = [
    ("CACHE_TTL_SECONDS", "77", "", ""),
    ("REQUEST_TIMEOUT_MS", "4321", "read_through.timeout", "4321ms"),
    ("PG_MAX_CONNS", "13", "database.max_connections", "13"),
    ("PG_HEALTHCHECK_PERIOD_SEC", "1", "database.health_interval", "1s"),
    ("PG_MAX_CONN_IDLE_TIME_SEC", "2", "database.max_idle_time", "2s"),
    ("PG_MAX_CONN_LIFETIME_SEC", "3", "database.max_lifetime", "3s"),
    ("REDIS_POOL_SIZE", "64", "limits.dedicated_connections", "64"),
    ("REDIS_MIN_IDLE_CONNS", "3", "server.workers", "3"),
    ("REDIS_POOL_TIMEOUT_MS", "1234", "read_through.cache_timeout", "1234ms"),
    ("REDIS_MAX_RETRIES", "5", "upstream.max_retries", "5"),
    ("REDIS_CONN_MAX_IDLE_SEC", "1", "upstream.dedicated_idle", "1s"),
];

#[test]
fn each_variable_sets_what_the_readme_says() {
    let mut example = start();
    let values: Vec<_> = VARIABLES.iter().map(|(variable, value, _, _)| (*variable, *value)).collect();
    example.restart_with(&values);
    for (variable, _, setting, expected) in VARIABLES.iter().filter(|variable| !variable.2.is_empty()) {
        let shown = example.redis().cmd(&["CONFIG", "GET", setting]);
        assert_eq!(shown.items().last().map(Value::text).as_deref(), Some(*expected), "{variable}");
    }
    assert_eq!(user(&example, "?user_id=someid").0, 200);
    let ttl = example.redis().cmd(&["TTL", "user:someid"]).int();
    assert!((60..=85).contains(&ttl), "{ttl}");

    // They do what they say. Connections to Postgres are closed when they are idle or old ...
    let connections = || {
        let pids = "select coalesce(string_agg(pid::text, ' '), '') from pg_stat_activity where application_name = 'dsproxy'";
        example.one(pids).unwrap()
    };
    std::thread::scope(|scope| {
        for n in 0..16 {
            let example = &example;
            scope.spawn(move || user(example, &format!("?user_id=cold{n}")));
        }
    });
    let first = connections();
    let closed = || first.split(' ').all(|pid| connections().split(' ').all(|other| other != pid));
    assert!(!closed(), "{first}");
    // ... and those to Redis that one client had for itself.
    assert_eq!(example.redis().cmd(&["BLPOP", "nothing", "0.01"]), Value::Nil);
    let dedicated = || {
        let clients = example.stack.redis_nodes().into_iter().map(|node| {
            let mut node = Resp::connect(&*node);
            node.cmd(&["CLIENT", "LIST"]).text().lines().filter(|line| line.contains(" cmd=blpop ")).count()
        });
        clients.sum::<usize>()
    };
    assert_eq!(dedicated(), 1);
    eventually(Duration::from_secs(20), "the idle connection is closed", || dedicated() == 0);
    eventually(Duration::from_secs(20), "the connections to Postgres are others", closed);
    // A connection that is made anew is as good.
    assert_eq!(example.redis().cmd(&["BLPOP", "nothing", "0.01"]), Value::Nil);
    assert_eq!(user(&example, "?user_id=cold1").0, 404);
}

#[test]
fn values_out_of_range_are_told_with_their_setting() {
    let example = start();
    for (variable, _, setting, _) in VARIABLES.iter().filter(|variable| !variable.2.is_empty()) {
        for bad in ["many", "-1"] {
            let told = example.refused_with(variable, bad);
            let (section, name) = setting.split_once('.').unwrap();
            let named = told.contains(setting) || (told.contains(section) && told.contains(name));
            assert!(named && told.contains("proxy.toml") && told.contains(bad), "{variable}={bad}: {told}");
        }
    }
    let told = example.refused_with("CACHE_TTL_SECONDS", "soon");
    assert!(told.contains("ttl") && told.contains("soon"), "{told}");
}
