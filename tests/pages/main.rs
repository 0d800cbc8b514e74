//! The dashboard and Swagger UI, loaded with their own scripts against a running proxy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

#[path = "../support/mod.rs"]
mod support;

use std::process::Command;

use support::{Proxy, SharedStack};

const CONFIG: &str = r#"
[http]
listen = "127.0.0.1:$HTTP_PORT"
[[mapping]]
name = "user"
key = "PREFIXuser:{id}"
table = "users"
id = "bigint"
[[route]]
name = "get_user"
path = "/users/{id}"
mapping = "user"
params = { id = { kind = "integer" } }
[[route]]
name = "create_user"
method = "POST"
path = "/users"
sql = "insert into users (name) values ($name) returning *"
params = { name = { min = 1 } }
writes = "user"
"#;

#[test]
fn pages_show_what_happens_and_ask_nobody_else() {
    let stack = SharedStack::get();
    let db = stack.fresh_database();
    db.execute("create table users (id bigserial primary key, name text not null); insert into users (name) values ('Ada')");
    let config = CONFIG.replace("PREFIX", stack.key_prefix());
    let proxy = Proxy::for_nodes(stack.redis_nodes(), Some(db.url()), &config);
    assert_eq!(proxy.get("/users/1").status, 200);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pages/run.sh");
    let base = format!("http://127.0.0.1:{}", proxy.http_port());
    let output = Command::new(script)
        .args([base.as_str(), "/users/1"])
        .output()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("pages: ok"), "{text}");
}
