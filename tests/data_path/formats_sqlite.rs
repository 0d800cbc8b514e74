//! Lists, hashes, and members that are expressions, over a SQLite file.

use crate::support::{Proxy, Resp, SharedStack, Value, eventually};

use crate::bed::PATIENCE;

const TABLES: &str = "pragma journal_mode = wal;
    create table notes (id integer primary key, user_id bigint not null, title text, price numeric, done boolean, extra json);
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 100)
    insert into notes select i, i % 5, 't' || i, i + 0.5, i % 2 = 0, json_object('n', i) from n;
    update notes set title = null where id = 5;";

const MAPPINGS: &str = r#"
[[mapping]]
name = "note"
key = "PREFIXnote:{id}"
table = "notes"
id = "bigint"
write = "behind"
[[mapping]]
name = "page"
key = "PREFIXuser:{user_id}:notes:{offset}:{limit}"
id = ["bigint", "int", "int"]
max = { offset = 1000, limit = 50 }
format = "list"
of = "note"
load = "select id from notes where user_id = $user_id order by id desc limit $limit + 1 offset $offset"
invalidate_on = { mapping = "note", by = "user_id" }
[[mapping]]
name = "titles"
key = "PREFIXnotes:all"
format = "list"
load = "select id, title from notes where id <= 3 order by id desc"
[[mapping]]
name = "card"
key = "PREFIXcard:{id}"
table = "notes"
id = "bigint"
columns = { headline = "upper(title)", id = "id", n = "user_id + 1", text = "substr(title, 1, 1) || '$1'" }
[[mapping]]
name = "hash"
key = "PREFIXhash:{id}"
table = "notes"
id = "bigint"
format = "hash"
write = "behind"
"#;

fn note(n: u32) -> String {
    let (user, done) = (n % 5, n.is_multiple_of(2));
    format!(r#"{{"id":{n},"user_id":{user},"title":"t{n}","price":{n}.5,"done":{done},"extra":{{"n":{n}}}}}"#)
}

/// A proxy over a file of the test's own.
struct Place {
    proxy: Proxy,
    file: std::path::PathBuf,
    prefix: String,
    _dir: tempfile::TempDir,
    _stack: SharedStack,
}

impl Place {
    fn start() -> Self {
        let (stack, dir) = (SharedStack::get(), tempfile::tempdir().unwrap());
        let (file, prefix) = (dir.path().join("notes.db"), stack.key_prefix().to_owned());
        rusqlite::Connection::open(&file).unwrap().execute_batch(TABLES).unwrap();
        let config = format!(
            "[upstream]\nnodes = {:?}\n[database]\nurl = \"sqlite:{}\"\n[write_behind]\nbatch_interval = \"20ms\"\n{}",
            stack.redis_nodes(),
            file.display(),
            MAPPINGS.replace("PREFIX", &prefix)
        );
        Self { proxy: Proxy::start(&config), file, prefix, _dir: dir, _stack: stack }
    }

    /// Arguments that begin with `@` are keys.
    fn run(&self, args: &[&str]) -> Value {
        let own = |arg: &&str| {
            arg.strip_prefix('@').map_or_else(|| (*arg).to_owned(), |key| self.prefix.clone() + key)
        };
        let args: Vec<String> = args.iter().map(own).collect();
        let mut client: Resp = self.proxy.connect();
        client.cmd(&args)
    }

    fn one(&self, sql: &str) -> String {
        let file = rusqlite::Connection::open(&self.file).unwrap();
        file.query_row(&format!("select cast(x as text) from ({sql})"), [], |row| row.get(0)).unwrap()
    }
}

#[test]
fn lists_and_expressions_are_what_they_are_in_postgres() {
    let place = Place::start();
    let list = |ids: &[u32]| format!("[{}]", ids.iter().map(|n| note(*n)).collect::<Vec<_>>().join(","));
    for _ in 0..2 {
        assert_eq!(place.run(&["GET", "@user:3:notes:0:2"]).text(), list(&[98, 93, 88]));
        assert_eq!(place.run(&["GET", "@user:3:notes:1:1"]).text(), list(&[93, 88]));
    }
    assert_eq!(place.run(&["GET", "@user:77:notes:0:5"]).text(), "[]");
    assert_eq!(place.run(&["GET", "@user:3:notes:0:51"]), Value::Nil, "beyond its bound");
    let titles = r#"[{"id":3,"title":"t3"},{"id":2,"title":"t2"},{"id":1,"title":"t1"}]"#;
    assert_eq!(
        (0..2).map(|_| place.run(&["GET", "@notes:all"]).text()).collect::<Vec<_>>(),
        [titles, titles]
    );
    for _ in 0..2 {
        assert_eq!(place.run(&["GET", "@card:7"]).text(), r#"{"headline":"T7","id":7,"n":3,"text":"t$1"}"#);
        assert_eq!(place.run(&["GET", "@card:5"]).text(), r#"{"headline":null,"id":5,"n":1,"text":null}"#);
    }
    assert_eq!(place.run(&["GET", "@card:700"]), Value::Nil);
    assert!(place.run(&["SET", "@card:7", "{}"]).error().contains("read-only"));
    // A row that leaves a list and joins another outdates both.
    let ids = |user: u32| {
        let list: serde_json::Value =
            serde_json::from_str(&place.run(&["GET", &format!("@user:{user}:notes:0:1")]).text()).unwrap();
        list.as_array().unwrap().iter().filter_map(|row| row["id"].as_u64()).collect::<Vec<_>>()
    };
    assert_eq!((ids(3), ids(4)), (vec![98, 93], vec![99, 94]));
    assert_eq!(place.run(&["SET", "@note:98", r#"{"user_id":4}"#]).text(), "OK");
    eventually(PATIENCE, "both lists have changed", || (ids(3), ids(4)) == (vec![93, 88], vec![99, 98]));
}

#[test]
fn hashes_are_read_and_written_field_by_field() {
    let place = Place::start();
    let texts = |value: &Value| value.items().iter().map(Value::text).collect::<Vec<_>>();
    let want = ["id", "5", "user_id", "0", "price", "5.5", "done", "false", "extra", "{\"n\":5}"];
    for _ in 0..2 {
        assert_eq!(texts(&place.run(&["HGETALL", "@hash:5"])), want, "no field where the column is NULL");
    }
    assert_eq!(place.run(&["HMGET", "@hash:7", "title", "nosuch"]).items(), ["t7".into(), Value::Nil]);
    assert_eq!(place.run(&["HLEN", "@hash:8"]).int(), 6);
    assert!(place.run(&["GET", "@hash:10"]).error().starts_with("WRONGTYPE"));
    assert_eq!(place.run(&["HGETALL", "@hash:999"]).items(), []);
    assert_eq!(place.run(&["HSET", "@hash:9", "title", "new", "done", "true"]).int(), 0);
    assert_eq!(place.run(&["HDEL", "@hash:9", "extra"]).int(), 1);
    assert_eq!(place.run(&["HINCRBY", "@hash:9", "user_id", "10"]).int(), 14);
    assert!(place.run(&["HSET", "@hash:9", "user_id", "x"]).error().contains("'user_id'"));
    assert!(place.run(&["HDEL", "@hash:9", "user_id"]).error().contains("NOT NULL"));
    let row = "select title || done || user_id || coalesce(extra, '-') || price as x from notes where id = 9";
    eventually(PATIENCE, "the row is written", || place.one(row) == "new114-9.5");
    assert_eq!(place.run(&["HSET", "@hash:200", "user_id", "1"]).int(), 1);
    assert_eq!(place.run(&["DEL", "@hash:9"]).int(), 1);
    let rows = "select count(*) * 10 + sum(user_id) as x from notes where id in (9, 200)";
    eventually(PATIENCE, "both are in the file", || place.one(rows) == "11");
}
