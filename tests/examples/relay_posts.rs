//! `examples/relay-posts`.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::bed::{Example, cluster};
use crate::support::{Http, Resp, Value, eventually};

const SECRET: &str = "a-secret-of-at-least-32-bytes-for-tests";

pub fn start() -> Example {
    Example::start("relay-posts", |stack, db, http| {
        let own = vec![
            ("PORT", http.to_string()),
            ("DATABASE_URL", db.url().to_owned()),
            ("JWT_SECRET", SECRET.to_owned()),
        ];
        [cluster(stack), own].concat()
    })
}

/// Registers a user and gives the header of their token.
pub fn enter(example: &Example, name: &str) -> String {
    let body = json!({"username": name, "email": format!("{name}@example.com"), "password": "password123"});
    let user = example.send("POST", "/api/auth/users", &body.to_string());
    assert_eq!((user.status, user.json()["user"]["username"].as_str()), (201, Some(name)));
    let body = json!({"email": format!("{name}@example.com"), "password": "password123"});
    let login = example.send("POST", "/api/auth/login", &body.to_string());
    assert_eq!(login.status, 200, "{login:?}");
    format!("Authorization: Bearer {}\r\n", login.json()["token"].as_str().unwrap())
}

#[test]
fn posts_are_cached_until_somebody_posts_or_votes() {
    let example = start();
    let token = enter(&example, "testuser");
    let send = |method: &str, path: &str, body: &str| example.send_with(method, path, &token, body);
    let list = |path: &str| -> (bool, Vec<Json>) {
        let answer = send("GET", path, "");
        assert_eq!(answer.status, 200, "{answer:?}");
        (answer.json()["from_cache"].as_bool().unwrap(), answer.json()["posts"].as_array().unwrap().clone())
    };
    let post = send("POST", "/api/posts", r#"{"title":"Cache Test","url":"https://example.com"}"#);
    assert_eq!(post.status, 201, "{post:?}");
    let id = post.json()["post"]["id"].as_i64().unwrap();
    let user = post.json()["post"]["user_id"].as_i64().unwrap();
    let paths = ["/api/posts".to_owned(), format!("/api/users/{user}/posts"), "/api/posts/top".to_owned()];
    let fresh_then_cached = |what: &str| {
        for path in &paths {
            assert!(!list(path).0, "{what}: {path} is outdated");
            let (cached, posts) = list(path);
            assert!(cached && posts.len() == 1, "{what}: {path} {posts:?}");
        }
    };
    fresh_then_cached("after the post");
    assert_eq!(list("/api/posts").1[0]["author"], "testuser");
    for (method, votes) in [("POST", 1), ("POST", 1), ("DELETE", 0), ("DELETE", 0)] {
        let voted = send(method, &format!("/api/posts/{id}/upvote"), "");
        assert_eq!((voted.status, voted.json()["post"]["upvotes"].as_i64()), (200, Some(votes)), "{voted:?}");
        fresh_then_cached(method);
        assert_eq!(list("/api/posts").1[0]["upvotes"], votes);
    }
    assert_eq!(send("POST", "/api/posts/999/upvote", "").status, 404);
    let ttl = example.redis().cmd(&["TTL", "posts:all"]);
    assert!(matches!(ttl, Value::Int(200..=330)), "{ttl:?}");
    for key in ["posts:all", &format!("posts:user:{user}"), "posts:top:10"] {
        assert_eq!(example.redis().cmd(&["EXISTS", key]), Value::Int(1), "{key}");
    }
    assert!(example.metric("cache_hits_total{key=\"posts:all\",mapping=\"posts_all\"}") >= 5.0);
    assert!(example.metric("cache_misses_total{key=\"posts:all\",mapping=\"posts_all\"}") >= 5.0);
    assert!(example.metric("cache_operation_duration_ms_count{operation=\"get\"}") >= 30.0);
    let health = example.get("/health").json();
    assert_eq!(health["dependencies"]["redis"]["status"], "up");
    let cluster = example.get("/api/v1/cache/stats").json()["cluster"].clone();
    assert!(cluster["keys"].is_i64() && cluster["memory_bytes"].is_u64(), "{cluster}");
}

#[test]
fn a_write_is_in_the_database_and_the_cache_or_nowhere() {
    let example = start();
    let token = enter(&example, "testuser");
    let send = |method: &str, path: &str, body: &str| example.send_with(method, path, &token, body);
    let title = |id: i64| example.one(&format!("select title from posts where id = {id}"));
    let list_is_cached = || send("GET", "/api/posts", "").json()["from_cache"] == true;
    let waiting = || example.metric("dsproxy_queue_rows{mapping=\"post\"}");

    // Statements of routes: the row is committed, and the cache has it, when the answer comes.
    let post = send("POST", "/api/posts", r#"{"title":"first","url":"https://example.com"}"#);
    let id = post.json()["post"]["id"].as_i64().unwrap();
    let (key, user) = (format!("post:{id}"), post.json()["post"]["user_id"].as_i64().unwrap());
    let cached = || -> Json { serde_json::from_str(&example.in_redis(&["GET", &key]).text()).unwrap() };
    assert_eq!((title(id).as_deref(), cached()["title"].as_str()), (Some("first"), Some("first")));
    send("POST", &format!("/api/posts/{id}/upvote"), "");
    assert_eq!(cached()["upvotes"], 1);
    let read = send("GET", &format!("/api/posts/{id}"), "").json();
    assert_eq!((&read["from_cache"], &read["post"]["upvotes"]), (&json!(true), &json!(1)));

    // Redis clients: the same, and the lists show it.
    send("GET", "/api/posts", "");
    assert!(list_is_cached());
    for n in 0..10 {
        let name = format!("title {n}");
        let row = json!({"title": name, "url": "https://example.com", "user_id": user}).to_string();
        let set = example.redis().cmd(&["SET", &key, &row]);
        assert_eq!((set.text().as_str(), title(id)), ("OK", Some(name.clone())));
        assert_eq!((cached()["title"].as_str(), waiting()), (Some(name.as_str()), 0.0));
        let list = send("GET", "/api/posts", "").json();
        assert_eq!((&list["from_cache"], &list["posts"][0]["title"]), (&json!(false), &json!(name)));
    }

    // What cannot be committed changes nothing: no such user, a vote for no post.
    assert!(list_is_cached());
    let refused = example.redis().cmd(&["SET", &key, r#"{"title":"lost","url":"https://x","user_id":999}"#]);
    assert!(refused.error().contains("nothing was written"), "{refused:?}");
    assert_eq!(send("POST", "/api/posts/999/upvote", "").status, 404);
    assert_eq!(title(id).as_deref(), Some("title 9"));
    let read = send("GET", &format!("/api/posts/{id}"), "").json();
    assert_eq!((&read["post"]["title"], &read["post"]["upvotes"]), (&json!("title 9"), &json!(1)));
    assert!(list_is_cached());
    // Nor does anything stay behind when the database is away.
    example.stack.stop("postgres");
    let row = json!({"title": "lost", "url": "https://x", "user_id": user}).to_string();
    let refused = example.redis().cmd(&["SET", &key, &row]);
    assert!(matches!(refused, Value::Error(_)), "{refused:?}");
    example.stack.start_server("postgres");
    eventually(Duration::from_secs(20), "the database is back", || {
        send("GET", &format!("/api/posts/{id}"), "").status == 200
    });
    let read = send("GET", &format!("/api/posts/{id}"), "").json();
    assert_eq!((&read["post"]["title"], title(id).as_deref()), (&json!("title 9"), Some("title 9")));
}

#[test]
fn what_is_read_is_there_before_and_stays_there() {
    let mut example = start();
    let token = enter(&example, "testuser");
    for n in 0..3 {
        let body = json!({"title": format!("post {n}"), "url": "https://example.com"}).to_string();
        assert_eq!(example.send_with("POST", "/api/posts", &token, &body).status, 201);
    }
    // Warm-up: after a start with an empty cache, the newest posts and each of them are there without a reader.
    for node in example.stack.redis_nodes() {
        let _ = Resp::connect(&*node).cmd(&["FLUSHALL"]);
    }
    example.restart_with(&[("CACHE_TTL_SECONDS", "2")]);
    for key in ["posts:all", "post:1", "post:2", "post:3"] {
        eventually(Duration::from_secs(20), key, || example.in_redis(&["EXISTS", key]) == Value::Int(1));
    }
    // Refresh-ahead: over several lives of the entry no reader ever waits for the database.
    let list = || example.send_with("GET", "/api/posts", &token, "").json();
    eventually(Duration::from_secs(5), "it is cached", || list()["from_cache"] == true);
    let loads = "dsproxy_queries_total{kind=\"load\",mapping=\"posts_all\",outcome=\"ok\"}";
    let (before, started) = (example.metric(loads), Instant::now());
    while started.elapsed() < Duration::from_secs(5) {
        let list = list();
        assert_eq!((&list["from_cache"], list["posts"].as_array().unwrap().len()), (&json!(true), 3));
        std::thread::sleep(Duration::from_millis(2));
    }
    let loads = example.metric(loads) - before;
    assert!((2.0..=50.0).contains(&loads), "{loads} loads in the background in 5 s of a life of 2 s");
}

#[test]
fn strangers_and_expired_tokens_are_refused() {
    let example = start();
    enter(&example, "testuser");
    let refused = |answer: Http| {
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{answer:?}")
    };
    refused(example.get("/api/posts"));
    // Nor is there a way around the token.
    for path in ["/read?key=posts:all", "/api/v1/explain?cmd=GET%20posts:all"] {
        assert_eq!(example.get(path).status, 404, "{path}");
    }
    for (path, body) in [
        ("/write", r#"{"key":"posts:all","value":"[]"}"#),
        ("/mget", r#"{"keys":["posts:all"]}"#),
        ("/api/v1/cache/invalidate", r#"{"pattern":"*"}"#),
    ] {
        assert_eq!(example.send("POST", path, body).status, 404, "{path}");
    }
    refused(example.send("POST", "/api/posts", "{}"));
    let signed = |claims: Json, secret: &str| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        format!("Authorization: Bearer {token}\r\n")
    };
    let list = |header: &str| example.send_with("GET", "/api/posts", header, "");
    assert_eq!(list(&signed(json!({"sub": "1", "exp": 9_999_999_999_i64}), SECRET)).status, 200);
    refused(list(&signed(json!({"sub": "1", "exp": 1_000_000_000}), SECRET)));
    refused(list(&signed(json!({"sub": "1"}), SECRET)));
    refused(list(&signed(
        json!({"sub": "1", "exp": 9_999_999_999_i64}),
        "another-secret-of-at-least-32-bytes",
    )));
    refused(list("Authorization: Basic dXNlcjpwYXNz\r\n"));
    let wrong = r#"{"email":"testuser@example.com","password":"wrong"}"#;
    let login = example.send("POST", "/api/auth/login", wrong);
    assert_eq!((login.status, login.json()), (401, json!({"error": "wrong email or password"})));
    let twice = r#"{"username":"testuser","email":"other@example.com","password":"password123"}"#;
    assert_eq!(example.send("POST", "/api/auth/users", twice).status, 409);
    let short = r#"{"username":"x","email":"other@example.com","password":"password123"}"#;
    assert_eq!(example.send("POST", "/api/auth/users", short).status, 400);
}
