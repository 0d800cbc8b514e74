//! `examples/social-feed`.

use serde_json::json;

use crate::bed::Example;
use crate::support::Value;

pub fn start() -> Example {
    Example::start("social-feed", |stack, db, http| {
        vec![
            ("APP_PORT", http.to_string()),
            ("DB_URL", db.url().to_owned()),
            ("REDIS_NODES", stack.redis_nodes().join(",")),
        ]
    })
}

#[test]
fn the_second_request_of_a_page_needs_no_query() {
    let example = start();
    example.db.as_ref().unwrap().execute(
        "insert into users (username, email) select 'u' || n, 'u' || n || '@example.com' from generate_series(1, 3) n; \
         insert into posts (user_id, content) select 1 + n % 2, 'post ' || n from generate_series(1, 240) n",
    );
    let queries = || {
        let of = |mapping: &str| {
            example.metric(&format!(
                "dsproxy_queries_total{{kind=\"load\",mapping=\"{mapping}\",outcome=\"ok\"}}"
            ))
        };
        of("user_posts") + of("post")
    };
    let page = |query: &str| {
        let answer = example.get(&format!("/api/v1/users/1/posts{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let first = page("");
    assert_eq!((first["data"].as_array().unwrap().len(), &first["has_more"]), (50, &json!(true)));
    assert_eq!((&first["limit"], &first["offset"]), (&json!(50), &json!(0)));
    assert_eq!((&first["data"][0]["id"], &first["data"][0]["user_id"]), (&json!(240), &json!(1)));
    let metric = |name: &str| example.metric(&format!("{name}{{user_id=\"1\"}}"));
    assert_eq!((metric("post_list_cache_misses_total"), metric("post_list_cache_hits_total")), (1.0, 0.0));
    let before = queries();
    assert_eq!(page(""), first);
    assert_eq!(queries(), before, "a full hit");
    assert_eq!((metric("post_list_cache_misses_total"), metric("post_list_cache_hits_total")), (1.0, 1.0));
    assert_eq!(example.metric("post_object_cache_hits_total"), 50.0);
    // Objects are cached each by itself, under their own keys.
    assert_eq!(example.redis().cmd(&["EXISTS", "post:240", "post:238"]), Value::Int(2));
    let last = page("?offset=100&limit=50");
    assert_eq!((last["data"].as_array().unwrap().len(), &last["has_more"]), (20, &json!(false)));
    // A new post is on top at once; the pages of others stay.
    example.get("/api/v1/users/2/posts");
    let created = example.send("POST", "/api/v1/posts", r#"{"user_id":1,"content":"new"}"#);
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(page("")["data"][0]["content"], "new");
    let before = queries();
    example.get("/api/v1/users/2/posts");
    assert_eq!(queries(), before, "nobody else's page is outdated");
}

#[test]
fn users_and_posts_have_endpoints() {
    let example = start();
    let user = example.send("POST", "/api/v1/users", r#"{"username":"ada","email":"ada@example.com"}"#);
    assert_eq!((user.status, &user.json()["data"]["id"]), (201, &json!(1)));
    assert_eq!(example.get("/api/v1/users/1").json()["data"]["username"], "ada");
    assert_eq!(example.get("/api/v1/users/2").status, 404);
    let post = example.send("POST", "/api/v1/posts", r#"{"user_id":1,"content":"hello"}"#);
    assert_eq!(post.status, 201);
    assert_eq!(example.get("/api/v1/posts/1").json()["data"]["content"], "hello");
    let nobody = example.send("POST", "/api/v1/posts", r#"{"user_id":9,"content":"hello"}"#);
    assert_eq!((nobody.status, nobody.json()), (404, json!({"error": "no such user"})));
    assert_eq!(example.get("/api/v1/users/3/posts").json()["data"], json!([]));
    for path in [
        "/api/v1/users/0",
        "/api/v1/users/x",
        "/api/v1/users/1/posts?limit=201",
        "/api/v1/users/1/posts?offset=-1",
    ] {
        assert_eq!(example.get(path).status, 400, "{path}");
    }
    assert_eq!(example.get("/ping").body, "pong");
}

#[test]
fn sample_data_are_skewed() {
    let example = start();
    let made = example.run(&["datagen", "social", "--users", "20", "--posts", "5000", "--skew", "zipf:1.1"]);
    assert!(made.starts_with("20 users and 5000 posts in "), "{made}");
    let count =
        |sql: &str| example.db.as_ref().unwrap().query(sql)[0][0].clone().unwrap().parse::<u32>().unwrap();
    assert_eq!((count("select count(*) from users"), count("select count(*) from posts")), (20, 5000));
    let (first, last) = (
        count("select count(*) from posts where user_id = 1"),
        count("select count(*) from posts where user_id = 20"),
    );
    assert!(first > 10 * last && last > 0, "{first} {last}");
    assert_eq!(example.get("/api/v1/users/1/posts").json()["data"].as_array().unwrap().len(), 50);
    for (_, output) in example.readme(8080) {
        assert!(
            output.contains("\"has_more\":true") || output.contains("post_object_cache_hits_total"),
            "{output}"
        );
    }
}
