//! Routes over mappings: the same keys as by RESP, in the shapes that the configuration gives them.

use serde_json::json;

use crate::support::{Database, Http, Proxy, SharedStack, Value};

const TABLES: &str = "create table users (user_id varchar(20) primary key, deeplink text not null default '', \
     promo_message text not null default ''); \
     insert into users values ('someid', 'app://x', 'quote \" and \\ and {row}')";

const ROUTES: &str = r#"
[http]
listen = "127.0.0.1:$HTTP_PORT"
cors_origins = ["https://app.example"]
[auth]
tokens = "${TOKENS:-sesame}"
[[mapping]]
name = "user"
key = "PREFIXuser:{user_id}"
table = "users"
id = "varchar(20)"
write = "behind"
[[route]]
name = "user"
path = "/v1/users"
mapping = "user"
timeout = "3s"
[route.params]
user_id = { pattern = "[A-Za-z0-9_-]{1,20}" }
[route.on.ok]
body = '''{"code": 200, "message": "ok:{source}", "user_id": "{row.user_id}", "deeplink": "{row.deeplink}",
  "promo_message": "{row.promo_message}", "cache_hit": "{from_cache}", "metadata": "{metadata}"}'''
[route.on.invalid]
body = '{"code": 400, "message": "invalid user_id", "cache_hit": false}'
[route.on.not_found]
body = '{"code": 404, "message": "not found", "cache_hit": false}'
[[route]]
name = "put_user"
method = "PUT"
path = "/v1/users/{user_id}"
mapping = "user"
auth = "bearer"
params = { deeplink = { max = 100 }, promo_message = { required = false } }
[[route]]
name = "raw_user"
path = "/v1/users/{user_id}"
mapping = "user"
[[route]]
name = "post_user"
method = "POST"
path = "/v1/users/{user_id}"
mapping = "user"
on = { ok = { status = 202, body = '"accepted"' } }
[[route]]
name = "delete_user"
method = "DELETE"
path = "/v1/users/{user_id}"
mapping = "user"
on = { ok = { status = 204 } }
"#;

struct Bed {
    proxy: Proxy,
    prefix: String,
    _db: Database,
    _stack: SharedStack,
}

fn start() -> Bed {
    let stack = SharedStack::get();
    let db = stack.fresh_database();
    db.execute(TABLES);
    let prefix = stack.key_prefix().to_owned();
    let routes = ROUTES.replace("PREFIX", &prefix);
    let proxy = Proxy::for_nodes(stack.redis_nodes(), Some(db.url()), &routes);
    Bed { proxy, prefix, _db: db, _stack: stack }
}

impl Bed {
    fn get(&self, path: &str) -> Http {
        self.proxy.get(path)
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

#[test]
fn a_route_answers_in_its_shape_and_shares_the_cache() {
    let bed = start();
    for (message, hit) in [("ok:postgres", false), ("ok:redis", true)] {
        let answer = bed.get("/v1/users?user_id=someid");
        let mut body = answer.json();
        assert!(body["metadata"]["request_id"].is_string() && body["metadata"]["duration_ms"].is_number());
        body.as_object_mut().unwrap().remove("metadata");
        let expected = json!({"code": 200, "message": message, "user_id": "someid", "deeplink": "app://x",
            "promo_message": "quote \" and \\ and {row}", "cache_hit": hit});
        assert_eq!((answer.status, body), (200, expected));
    }
    let missing = bed.get("/v1/users?user_id=nobody");
    assert_eq!(missing.json(), json!({"code": 404, "message": "not found", "cache_hit": false}));
    assert_eq!(missing.status, 404);
    // What RESP has written is read at once, and the other way round.
    let key = bed.key("user:someid");
    let mut client = bed.proxy.connect();
    assert_eq!(
        client.cmd(&["SET", &key, r#"{"deeplink":"app://y","promo_message":""}"#]),
        Value::Simple("OK".into())
    );
    assert_eq!(bed.get("/v1/users?user_id=someid").json()["deeplink"], "app://y");
    let put = bed.proxy.http(
        "PUT",
        "/v1/users/someid",
        "Authorization: Bearer sesame\r\n",
        r#"{"deeplink":"app://z"}"#,
    );
    assert_eq!((put.status, put.json()), (200, json!({"deeplink": "app://z"})));
    assert!(client.cmd(&["GET", &key]).text().contains("app://z"));
    let post = bed.proxy.post("/v1/users/new_one", r#"{"deeplink":"app://n"}"#);
    assert_eq!((post.status, post.body.as_str()), (202, "\"accepted\""));
    assert_eq!(bed.get("/v1/users?user_id=new_one").json()["deeplink"], "app://n");
    let deleted = bed.proxy.http("DELETE", "/v1/users/new_one", "", "");
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    assert_eq!(bed.get("/v1/users?user_id=new_one").status, 404);
}

#[test]
fn what_is_wrong_is_said_in_the_routes_words_or_as_a_problem() {
    let bed = start();
    for query in [
        "",
        "?user_id=",
        "?user_id=a%20b",
        "?user_id=%27%3B%20drop%20table%20users%3B--",
        "?user_id=%ff",
        "?user_id=%zz",
        "?user_id=aaaaaaaaaaaaaaaaaaaaa",
        "?user_id=a&user_id=b",
        "?user_id=a&x=1",
        "?user_id=..%2f..%2fetc%2fpasswd",
        "?user_id=%00",
    ] {
        let answer = bed.get(&format!("/v1/users{query}"));
        assert_eq!(
            answer.json(),
            json!({"code": 400, "message": "invalid user_id", "cache_hit": false}),
            "{query}"
        );
        assert_eq!(answer.status, 400, "{query}");
    }
    let problem = |answer: Http, status: u16, part: &str| {
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, "application/problem+json"),
            "{answer:?}"
        );
        assert!(answer.json()["detail"].as_str().unwrap().contains(part), "{part}: {answer:?}");
    };
    let put = |headers: &str, body: &str| bed.proxy.http("PUT", "/v1/users/someid", headers, body);
    let good = "Authorization: Bearer sesame\r\n";
    let stranger = put("", "{}");
    assert_eq!(stranger.header("www-authenticate"), "Bearer");
    problem(stranger, 401, "is needed");
    problem(put("Authorization: Bearer open\r\n", "{}"), 401, "not accepted");
    for (body, part) in [
        ("", "EOF"),
        ("[]", "JSON object"),
        ("{", "EOF"),
        ("{\"deeplink\":\"\u{0}\"}", "control character"),
        (r#"{"deeplink":"a\u0000"}"#, "at most 100"),
        (r#"{"deeplink":1}"#, "expected a text"),
        (r#"{"deeplink":null}"#, "expected a text"),
        (r#"{}"#, "`deeplink` is missing"),
        (r#"{"deeplink":"x","deplink":"y"}"#, "unknown field \"deplink\""),
    ] {
        problem(put(good, body), 400, part);
    }
    let long = format!(r#"{{"deeplink":"{}"}}"#, "x".repeat(101));
    problem(put(good, &long), 400, "at most 100");
    let huge = format!(r#"{{"deeplink":"{}"}}"#, "x".repeat(2 << 20));
    problem(put(good, &huge), 413, "limit");
    problem(bed.proxy.post("/v1/users/x", r#"{"deplink":"y"}"#), 422, "deplink");
    problem(bed.get("/v1/users/aaaaaaaaaaaaaaaaaaaaaaaaa"), 400, "is no key");
    problem(bed.get("/v1/users/no/such"), 404, "no such path");
    let wrong = bed.proxy.http("PATCH", "/v1/users/someid", "", "{}");
    assert_eq!(wrong.header("allow"), "PUT, GET, HEAD, POST, DELETE");
    problem(wrong, 405, "methods");
}

#[test]
fn validators_compression_and_other_origins() {
    let bed = start();
    let first = bed.get("/v1/users/someid");
    assert_eq!(first.json()["user_id"], "someid");
    let tag = first.header("etag").to_owned();
    let again =
        |tag: &str| bed.proxy.http("GET", "/v1/users/someid", &format!("If-None-Match: {tag}\r\n"), "");
    assert_eq!((again(&tag).status, again(&tag).body.as_str(), again("\"x\"").status), (304, "", 200));
    bed.proxy.post("/v1/users/someid", r#"{"deeplink":"changed"}"#);
    assert_eq!(again(&tag).status, 200);

    let origin = "Origin: https://app.example\r\n";
    let cross = bed.proxy.http("GET", "/v1/users/someid", origin, "");
    assert_eq!(cross.header("access-control-allow-origin"), "https://app.example");
    let ask = format!("{origin}Access-Control-Request-Method: PUT\r\n");
    let preflight = bed.proxy.http("OPTIONS", "/v1/users/someid", &ask, "");
    assert!(preflight.status == 204 && preflight.header("access-control-allow-methods").contains("PUT"));
    let other = bed.proxy.http("GET", "/v1/users/someid", "Origin: https://evil.example\r\n", "");
    assert_eq!((other.status, other.header("access-control-allow-origin")), (200, ""));

    let long = format!(r#"{{"deeplink":"{}"}}"#, "x".repeat(5000));
    bed.proxy.post("/v1/users/someid", &long);
    assert_eq!(bed.get("/v1/users/someid").header("content-encoding"), "");
    let small = bed.proxy.http("GET", "/v1/users/someid", "Accept-Encoding: gzip\r\n", "");
    assert_eq!((small.status, small.header("content-encoding")), (200, "gzip"));
    assert!(small.header("content-length").parse::<usize>().unwrap() < 500, "{}", small.head);
}
