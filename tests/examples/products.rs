//! `examples/products`.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::bed::{Example, cluster};
use crate::support::{Value, eventually};

pub fn start() -> Example {
    Example::start("products", |stack, _, http| {
        let own = vec![
            ("HTTP_PORT", http.to_string()),
            ("DB_PATH", "$DIR/products.db".to_owned()),
            ("CACHE_TTL", "10m".to_owned()),
        ];
        [cluster(stack), own].concat()
    })
}

const LAPTOP: &str = r#"{"name":"Laptop","description":"High-performance laptop","price":999.99,"stock":50,"category":"Electronics"}"#;

fn stats(example: &Example) -> Json {
    example.get("/api/v1/cache/stats").json()["cache_stats"].clone()
}

/// The seed's "Testing the Cache", step by step.
#[test]
fn the_cache_counts_exactly() {
    let example = start();
    assert_eq!(example.get("/health").status, 200);
    let created = example.send("POST", "/api/v1/products", LAPTOP);
    let product = created.json()["product"].clone();
    assert_eq!(
        (created.status, product["name"].as_str(), product["price"].as_f64()),
        (201, Some("Laptop"), Some(999.99))
    );
    let id = product["id"].as_i64().unwrap();
    let path = format!("/api/v1/products/{id}");
    let read = || {
        let answer = example.get(&path).json();
        assert!(answer["duration_ms"].is_u64(), "{answer}");
        (answer["from_cache"].as_bool().unwrap(), answer["product"]["price"].as_f64().unwrap())
    };
    assert_eq!((read(), read()), ((false, 999.99), (true, 999.99)));
    let first = stats(&example);
    assert_eq!((&first["misses"], &first["hits"]), (&json!(1), &json!(1)), "{first}");
    let updated = example.send("PUT", &path, r#"{"price":899.99}"#);
    assert_eq!((updated.status, updated.json()["product"]["stock"].as_i64()), (200, Some(50)));
    assert_eq!(read(), (false, 899.99));
    let second = stats(&example);
    assert_eq!((&second["misses"], &second["hits"]), (&json!(2), &json!(1)), "{second}");
    assert_eq!(
        (&second["sets"], &second["errors"], &second["hit_rate"]),
        (&json!(2), &json!(0), &json!(0.333)),
        "{second}"
    );
    let all = example.get("/api/v1/cache/stats").json();
    assert!(
        all["timestamp"].as_str().unwrap().ends_with('Z') && all["mappings"]["product"]["hits"] == 1,
        "{all}"
    );
    assert!(
        all["cluster"]["memory_bytes"].as_u64().unwrap() > 100_000
            && all["cluster"]["keys"].as_i64().unwrap() >= 1,
        "{all}"
    );
    assert_eq!(example.send("POST", "/api/v1/cache/stats/reset", "").status, 200);
    assert_eq!(stats(&example), json!({"hits":0,"misses":0,"sets":0,"deletes":0,"errors":0,"hit_rate":0.0}));
    // The keys are those of the seed.
    assert_eq!(example.redis().cmd(&["EXISTS", &format!("product:id:{id}")]), Value::Int(1));
    let gone = example.send("DELETE", &path, "");
    assert_eq!((gone.status, example.get(&path).status), (200, 404));
    assert_eq!(example.send("DELETE", &path, "").status, 404);
    assert_eq!(example.send("PUT", &path, r#"{"price":1}"#).status, 404);
}

#[test]
fn pages_are_outdated_by_every_write() {
    let example = start();
    let page = |query: &str| {
        let answer = example.get(&format!("/api/v1/products{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        (json["products"].as_array().unwrap().len(), json["from_cache"].as_bool().unwrap())
    };
    assert_eq!((page(""), page("")), ((0, false), (0, true)));
    for n in 1..=3 {
        example.send("POST", "/api/v1/products", LAPTOP);
        assert_eq!((page("?offset=0&limit=10"), page("?offset=0&limit=10")), ((n, false), (n, true)));
    }
    assert_eq!(page("?offset=2&limit=2"), (1, false));
    example.send("PUT", "/api/v1/products/1", r#"{"name":"Other"}"#);
    assert_eq!(page("?offset=2&limit=2"), (1, false));
    assert_eq!(example.get("/api/v1/products?limit=1").json()["products"][0]["name"], "Other");
    example.send("DELETE", "/api/v1/products/1", "");
    assert_eq!(page("?offset=0&limit=10"), (2, false));
}

#[test]
fn bad_products_are_refused() {
    let example = start();
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        (r#"{"name":"x"}"#, 400),
        (r#"{"name":"","price":1}"#, 400),
        (r#"{"name":"x","price":"1"}"#, 400),
        (r#"{"name":"x","price":-1}"#, 400),
        (r#"{"name":"x","price":1,"stock":1.5}"#, 400),
        (r#"{"name":"x","price":1,"colour":"red"}"#, 400),
        (r#"{"name":null,"price":1}"#, 400),
        ("{\"name\":\"\u{fffd}\",\"price\":1e400}", 400),
    ] {
        let answer = example.send("POST", "/api/v1/products", body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(!answer.json()["detail"].as_str().unwrap().is_empty());
    }
    for query in [
        "?limit=0",
        "?limit=101",
        "?limit=-1",
        "?offset=-1",
        "?limit=ten",
        "?offset=99999999999999999999",
        "?page=1",
    ] {
        assert_eq!(example.get(&format!("/api/v1/products{query}")).status, 400, "{query}");
    }
    for id in ["0", "-1", "abc", "1;drop%20table%20products", "%2e%2e%2f", "1.5"] {
        assert_eq!(example.get(&format!("/api/v1/products/{id}")).status, 400, "{id}");
    }
    assert_eq!(example.send("PATCH", "/api/v1/products/1", "{}").status, 405);
    let evil = r#"{"name":"'); drop table products; --","price":1}"#;
    assert_eq!(example.send("POST", "/api/v1/products", evil).status, 201);
    assert_eq!(example.get("/api/v1/products/1").json()["product"]["name"], "'); drop table products; --");
}

/// "Cache errors are logged but don't fail requests."
#[test]
fn without_redis_no_request_fails() {
    let example = start();
    let expect = |method: &str, path: &str, body: &str, status: u16| {
        let begun = std::time::Instant::now();
        let answer = example.send(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{method} {path}: {:?}", begun.elapsed());
        answer
    };
    expect("POST", "/api/v1/products", LAPTOP, 201);
    for path in ["/api/v1/products/1", "/api/v1/products", "/api/v1/products/1", "/api/v1/products"] {
        expect("GET", path, "", 200);
    }
    let names = ["redis-0", "redis-1", "redis-2"];
    names.iter().for_each(|name| example.stack.kill(name));
    let product = |path: &str| expect("GET", path, "", 200).json()["product"].clone();
    for round in 0..3 {
        let made = expect("POST", "/api/v1/products", LAPTOP, 201);
        let path = format!("/api/v1/products/{}", made.json()["product"]["id"]);
        assert_eq!(product(&path)["price"], 999.99);
        let body = format!(r#"{{"price":{round}.5}}"#);
        assert_eq!(expect("PUT", &path, &body, 200).json()["product"]["stock"], 50);
        assert_eq!(product(&path)["price"], f64::from(round) + 0.5, "nothing stale");
        let list = expect("GET", "/api/v1/products", "", 200).json();
        assert_eq!((list["products"].as_array().unwrap().len(), &list["from_cache"]), (2, &json!(false)));
        expect("DELETE", &path, "", 200);
        expect("GET", &path, "", 404);
        expect("GET", "/api/v1/cache/stats", "", 200);
        expect("POST", "/api/v1/cache/stats/reset", "", 200);
    }
    expect("PUT", "/api/v1/products/1", r#"{"price":1.25}"#, 200);
    assert_eq!(example.get("/health").json()["dependencies"]["redis"]["status"], "down");
    names.iter().for_each(|name| example.stack.start_server(name));
    // They come back empty, and the proxy finds them.
    // A command that meets a node on its way back waits for it, up to upstream.command_timeout: none fails.
    let warm = || {
        let answer = example.get("/api/v1/products/1");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    eventually(Duration::from_secs(30), "the cache is used again", || warm()["from_cache"] == true);
    assert_eq!(warm()["product"]["price"], 1.25);
}

#[test]
fn the_readmes_lines_run() {
    let example = start();
    let seen = example.readme(3000);
    assert!(seen.len() >= 8, "{seen:#?}");
    assert!(seen.iter().all(|(_, output)| output.starts_with('{')), "{seen:#?}");
    assert!(seen.iter().any(|(_, output)| output.contains("\"from_cache\":true")), "{seen:#?}");
}
