//! Routes that do not fit the database are told at start, in Postgres and in SQLite, all of them at once.

use dsproxy::embedded::free_ports;

use crate::mistakes::{assert_refused, config, servers};
use crate::run::{assert_says, run};

const TABLES: &str = "create table users (id integer primary key, name text not null, team integer not null);
create table posts (id integer primary key, user_id integer not null)";

const MAPPINGS: &str = r#"
[[mapping]]
name = "user"
key = "user:{id}"
table = "users"
id = "int"
[[mapping]]
name = "team"
key = "team:{team}"
format = "list"
id = "int"
load = "select id, name from users where team = $team"
invalidate_on = { mapping = "user", by = "team" }
"#;

const WRONG: &str = r#"
[[route]]
name = "no_table"
path = "/a"
sql = "select * from usres"
[[route]]
name = "no_column"
method = "POST"
path = "/b"
sql = "insert into users (id, nmae, team) values ($id, $name, 1) returning id, team"
params = { id = { kind = "integer" }, name = { min = 1 } }
writes = "user"
[[route]]
name = "typo"
path = "/c"
sql = "selct 1"
[[route]]
name = "not_returned"
method = "POST"
path = "/d"
sql = "insert into users (id, name, team) values ($id, $name, 1) returning id"
params = { id = { kind = "integer" }, name = { min = 1 } }
writes = "user"
invalidates = ["other:{row.name}"]
on = { ok = { body = '{"name": "{row.name}"}' } }
[[route]]
name = "returns_nothing"
method = "DELETE"
path = "/e/{id}"
params = { id = { kind = "integer" } }
sql = "delete from users where id = $id"
writes = "user"
[[route]]
name = "no_member"
path = "/f/{id}"
params = { id = { kind = "integer" } }
mapping = "user"
on = { ok = { body = '{"name": "{row.nmae}"}' } }
[[route]]
name = "twice"
path = "/g"
sql = "select 1 as a, 2 as a"
"#;

const SAID: &[&str] = &[
    "usres",
    "nmae",
    "syntax error",
    "route \"not_returned\": `on.ok` shows {row.name}, and there is only id",
    "route \"not_returned\": `invalidates` shows {row.name}, and there is only id",
    "route \"not_returned\": `writes`: mapping \"team\" depends on the column team of each written row, and there is only id",
    "route \"returns_nothing\": `writes`: the key \"user:{id}\" needs the column id",
    "the statement returns nothing: add `returning`",
    "route \"no_member\": `on.ok` shows {row.nmae}, and there is only id, name, team",
    "two columns named \"a\"",
];

fn names() -> impl Iterator<Item = String> {
    ["no_table", "no_column", "typo", "not_returned", "returns_nothing", "no_member", "twice"]
        .into_iter()
        .map(|name| format!("route \"{name}\""))
}

#[test]
fn in_postgres() {
    let (stack, db) = servers();
    db.execute(TABLES);
    let said: Vec<String> = names().chain(SAID.iter().map(|part| (*part).to_owned())).collect();
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    assert_refused(&config(stack.redis_nodes(), db.url(), &format!("{MAPPINGS}{WRONG}")), &said);
    // A table that goes away is told at the next start.
    let good = "[[route]]\nname = \"posts\"\npath = \"/p\"\nsql = \"select id from posts where user_id = $user_id\"\n\
        params = { user_id = { kind = \"integer\" } }\non = { ok = { body = '{\"posts\": \"{rows}\"}' } }\n";
    let text = config(stack.redis_nodes(), db.url(), &format!("{MAPPINGS}{good}"));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("proxy.toml"), &text).unwrap();
    let ran = run(dir.path(), &["check"]);
    assert!(ran.success, "{ran:?}");
    assert_says(&ran.out, &["route: GET /p -> posts"]);
    db.execute("drop table posts");
    assert_refused(&text, &["route \"posts\"", "posts", "does not exist"]);
}

#[test]
fn in_sqlite() {
    let (stack, _db) = servers();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(format!("{}.db", free_ports(1).unwrap()[0]));
    rusqlite::Connection::open(&file).unwrap().execute_batch(TABLES).unwrap();
    let url = format!("sqlite:{}", file.display());
    let said: Vec<String> = names().chain(SAID.iter().map(|part| (*part).to_owned())).collect();
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    assert_refused(&config(stack.redis_nodes(), &url, &format!("{MAPPINGS}{WRONG}")), &said);
    // Nothing was run by looking at it.
    let users: i64 = rusqlite::Connection::open(&file)
        .unwrap()
        .query_row("select count(*) from users", [], |row| row.get(0))
        .unwrap();
    assert_eq!(users, 0);
}
