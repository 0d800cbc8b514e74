//! Routes over statements, in both databases, and how HTTP itself is spoken to them.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value as Json, json};

use crate::support::{Database, Http, Proxy, SharedStack};

const TABLE: &str =
    "create table things (id integer primary key, name text not null, note text, size integer)";

const ROUTES: &str = r#"
[http]
listen = "127.0.0.1:$HTTP_PORT"
cors_origins = ["https://app.example"]
compress_min = 200
[[route]]
name = "create"
method = "POST"
path = "/things"
sql = "insert into things (id, name, note, size) values ($id, $name, $note, $size) returning *"
params = { id = { kind = "integer" }, name = { min = 1 }, note = { required = false }, size = { kind = "integer", required = false } }
on = { ok = { status = 201 } }
[[route]]
name = "update"
method = "PATCH"
path = "/things/{id}"
sql = """update things set name = coalesce($name, name), note = case when $note_given then $note else note end,
  size = case when $size_given then $size else size end where id = $id returning *"""
params = { id = { kind = "integer" }, name = { min = 1, required = false }, note = { required = false }, size = { kind = "integer", required = false } }
[[route]]
name = "get"
path = "/things/{id}"
sql = "select * from things where id = $id"
params = { id = { kind = "integer" } }
[[route]]
name = "delete"
method = "DELETE"
path = "/things/{id}"
sql = "delete from things where id = $id"
params = { id = { kind = "integer" } }
on = { ok = { status = 204 } }
"#;

struct Bed {
    proxy: Proxy,
    port: u16,
    _db: Option<Database>,
    _dir: tempfile::TempDir,
    _stack: SharedStack,
}

fn start(sqlite: bool) -> Bed {
    let stack = SharedStack::get();
    let dir = tempfile::tempdir().unwrap();
    let (url, db) = match sqlite {
        true => {
            let file = dir.path().join("things.db");
            rusqlite::Connection::open(&file).unwrap().execute_batch(TABLE).unwrap();
            (format!("sqlite:{}", file.display()), None)
        }
        false => {
            let db = stack.fresh_database();
            db.execute(TABLE);
            (db.url().to_owned(), Some(db))
        }
    };
    let proxy = Proxy::for_nodes(stack.redis_nodes(), Some(&url), ROUTES);
    let port = proxy.http_port();
    Bed { proxy, port, _db: db, _dir: dir, _stack: stack }
}

impl Bed {
    fn send(&self, method: &str, path: &str, body: &str) -> Http {
        self.proxy.http(method, path, "", body)
    }

    /// What the server says to these bytes, until it closes.
    fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(bytes.as_ref()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn crud(bed: &Bed) {
    let made = bed.send("POST", "/things", r#"{"id":1,"name":"a","note":"n","size":5}"#);
    let row = |name: &str, note: Json, size: Json| json!({"id": 1, "name": name, "note": note, "size": size});
    assert_eq!((made.status, made.json()), (201, row("a", json!("n"), json!(5))));
    assert_eq!(bed.send("POST", "/things", r#"{"id":1,"name":"again"}"#).status, 409);
    // What is not named stays, what is null becomes so.
    for (body, expected) in [
        ("{}", row("a", json!("n"), json!(5))),
        (r#"{"name":"b"}"#, row("b", json!("n"), json!(5))),
        (r#"{"note":null}"#, row("b", json!(null), json!(5))),
        (r#"{"note":"","size":null}"#, row("b", json!(""), json!(null))),
        (r#"{"size":0,"name":null}"#, row("b", json!(""), json!(0))),
    ] {
        let changed = bed.send("PATCH", "/things/1", body);
        assert_eq!((changed.status, changed.json()), (200, expected), "{body}");
    }
    // Of what is not there: 404, as many times as it is asked.
    assert_eq!(bed.send("PATCH", "/things/2", "{}").status, 404);
    assert_eq!(bed.send("DELETE", "/things/2", "").status, 404);
    assert_eq!(bed.send("DELETE", "/things/1", "").status, 204);
    for method in ["DELETE", "GET"] {
        let gone = bed.send(method, "/things/1", "");
        assert_eq!((gone.status, gone.header("content-type")), (404, "application/problem+json"));
    }
}

#[test]
fn rows_are_made_changed_in_part_and_deleted_in_postgres() {
    crud(&start(false));
}

#[test]
fn rows_are_made_changed_in_part_and_deleted_in_sqlite() {
    crud(&start(true));
}

#[test]
fn http_is_spoken_as_it_should_be() {
    let bed = start(true);
    let long = format!(r#"{{"id":1,"name":"{}"}}"#, "x".repeat(500));
    assert_eq!(bed.send("POST", "/things", &long).status, 201);
    // HEAD says what GET would, without the body.
    let get = bed.send("GET", "/things/1", "");
    let head = bed.send("HEAD", "/things/1", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for name in ["etag", "content-length", "content-type", "vary"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    assert!(get.header("etag").starts_with("W/\""), "{}", get.head);
    // The same validator whatever the encoding, and a 304 for both.
    let with = |headers: &str| bed.proxy.http("GET", "/things/1", headers, "");
    let packed = with("Accept-Encoding: gzip\r\n");
    assert_eq!((packed.header("content-encoding"), packed.header("etag")), ("gzip", get.header("etag")));
    assert!(packed.header("vary").contains("accept-encoding"), "{}", packed.head);
    for more in ["", "Accept-Encoding: gzip\r\n"] {
        for tag in [get.header("etag"), "*", &format!("\"x\", {}", get.header("etag"))] {
            let again = with(&format!("{more}If-None-Match: {tag}\r\n"));
            assert_eq!(
                (again.status, again.body.as_str(), again.header("etag")),
                (304, "", get.header("etag"))
            );
        }
    }
    assert_eq!(with("If-None-Match: W/\"0000000000000000\"\r\n").status, 200);
    // A method that is not there names those that are; a path that is not there is not found, whatever the method.
    let wrong = bed.send("PUT", "/things/1", "{}");
    assert_eq!((wrong.status, wrong.header("allow")), (405, "PATCH, GET, HEAD, DELETE"));
    for method in ["GET", "PUT", "PATCH", "DELETE", "POST", "OPTIONS", "TRACE", "PROPFIND"] {
        assert_eq!(bed.send(method, "/nothing", "").status, 404, "{method}");
    }
    for path in [
        "/things/../things/1",
        "/things/%2e%2e",
        "/things/1/",
        "//things/1",
        "/things/1/..",
        "/..%2fthings",
        "/things/%00",
    ] {
        assert!(matches!(bed.send("GET", path, "").status, 400 | 404), "{path}");
    }
    // Other origins.
    let ask = |origin: &str| {
        let headers = format!("Origin: {origin}\r\nAccess-Control-Request-Method: PATCH\r\n");
        bed.proxy.http("OPTIONS", "/things/1", &headers, "")
    };
    let allowed = ask("https://app.example");
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://app.example");
    assert!(allowed.header("access-control-allow-methods").contains("PATCH"), "{}", allowed.head);
    assert!(allowed.header("access-control-allow-headers").contains("authorization"), "{}", allowed.head);
    assert_eq!(ask("https://evil.example").header("access-control-allow-origin"), "");
}

#[test]
fn malformed_chunks_and_pipelines_harm_nobody() {
    let bed = start(true);
    let head = "POST /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let body = r#"{"id":1,"name":"a"}"#;
    let chunked = |chunks: &str| bed.raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}"));
    let good = format!("{:x};ext=1\r\n{body}\r\n0\r\nTrailer: t\r\n\r\n", body.len());
    assert!(chunked(&good).starts_with("HTTP/1.1 201"), "{}", chunked(&good));
    for wrong in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "5\r\nabcdefgh\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n",
    ] {
        assert!(chunked(wrong).starts_with("HTTP/1.1 400"), "{wrong:?}: {}", chunked(wrong));
    }
    // Two lengths of one body: neither is believed.
    let smuggled = format!(
        "{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /things/1 HTTP/1.1\r\n\r\n"
    );
    assert!(bed.raw(&smuggled).matches("HTTP/1.1").count() <= 1, "{}", bed.raw(&smuggled));
    let get = "GET /things/1 HTTP/1.1\r\nHost: x\r\n\r\n";
    let post = format!("POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let last = "GET /things/2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = bed.raw([get, get, &post, get, last].concat());
    let statuses: Vec<&str> =
        answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect();
    assert_eq!(statuses, ["200", "200", "409", "200", "404"], "in their order");
    let huge = format!("GET /things/1 HTTP/1.1\r\nHost: x\r\nX-Huge: {}\r\n\r\n", "y".repeat(100_000));
    assert!(bed.raw(huge).starts_with("HTTP/1.1 431"));
    assert_eq!(bed.send("GET", "/things/1", "").status, 200);
}
