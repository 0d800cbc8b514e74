//! Bad input at start: one clear message with cause and cure, exit code not 0, soon.

use dsproxy::embedded::free_ports;

use crate::run::{assert_says, complaint, run};
use crate::support::{Database, SharedStack};

const USERS: &str = "create table users (id bigint primary key, name text not null)";

const MAPPING: &str =
    "[[mapping]]\nname = \"user\"\nkey = \"user:{id}\"\ntable = \"users\"\nid = \"bigint\"\n";

/// A configuration for these servers, on free ports.
pub fn config(nodes: &[String], url: &str, more: &str) -> String {
    let ports = free_ports(2).unwrap();
    format!(
        "[server]\nlisten = \"127.0.0.1:{}\"\n[http]\nlisten = \"127.0.0.1:{}\"\n[upstream]\nnodes = {nodes:?}\n\
         connect_timeout = \"500ms\"\n[database]\nurl = {url:?}\nconnect_timeout = \"1s\"\n{more}",
        ports[0], ports[1]
    )
}

pub fn servers() -> (SharedStack, Database) {
    let stack = SharedStack::get();
    let db = stack.fresh_database();
    (stack, db)
}

/// Both `serve` and `check` say it.
#[track_caller]
pub fn assert_refused(config: &str, parts: &[&str]) {
    for verb in ["serve", "check"] {
        assert_says(&complaint(verb, config), parts);
    }
}

#[test]
fn a_broken_file_is_refused_with_the_place_of_each_mistake() {
    assert_refused("[server\nlisten = 1", &["proxy.toml:1:8", "dsproxy: "]);
    assert_refused("[server]\nlisten = \"127.0.0.1:\nworkers = 1", &["proxy.toml:2:"]);
    assert_refused(
        "[server]\nworkrs = 1\n[limitz]\nargs = 1\n[upstream]\nnodes = [\"a:1\"]\ncommand_timeout = \"5\"\n\
         [read_through]\nttl_jitter = 7\n[http]\nlisten = \"nowhere\"\n",
        &[
            "proxy.toml:2:1",
            "did you mean `workers`?",
            "proxy.toml:3:2",
            "did you mean [limits]?",
            "proxy.toml:7:19",
            "proxy.toml:9:14",
            "proxy.toml:11:10",
        ],
    );
    let dir = tempfile::tempdir().unwrap();
    let ran = run(dir.path(), &["serve", "--config", "missing.toml"]);
    assert!(!ran.success);
    assert_says(&ran.err, &["missing.toml"]);
    let ran = run(dir.path(), &["serve"]);
    assert!(!ran.success);
    assert_says(&ran.err, &["upstream.nodes", "REDIS_NODES"]);
    let ran = run(dir.path(), &["sevre"]);
    assert!(!ran.success);
    assert_says(&ran.err, &["sevre", "serve"]);
}

#[test]
fn an_unreachable_database_or_cluster_is_named_with_the_cure() {
    let (stack, db) = servers();
    let nobody = format!("127.0.0.1:{}", free_ports(1).unwrap()[0]);
    let url = format!("postgres://me:hunter2@{nobody}/app");
    let text = config(stack.redis_nodes(), &url, MAPPING);
    assert_refused(&text, &["database", "refused", "DATABASE_URL"]);
    assert!(!complaint("serve", &text).contains("hunter2"));
    db.execute(USERS);
    let text = config(std::slice::from_ref(&nobody), db.url(), MAPPING);
    assert_refused(&text, &[&nobody, "refused", "REDIS_NODES"]);
    // Both at once.
    let text = config(std::slice::from_ref(&nobody), &url, MAPPING);
    assert_refused(&text, &[&nobody, "REDIS_NODES", "DATABASE_URL"]);
}

#[test]
fn a_wrong_password_is_said_and_not_shown() {
    let (stack, db) = servers();
    let (head, tail) = db.url().split_once('@').unwrap();
    let (user, _) = head.rsplit_once(':').unwrap();
    let text = config(stack.redis_nodes(), &format!("{user}:hunter2@{tail}"), MAPPING);
    assert_refused(&text, &["password authentication failed", "DATABASE_URL"]);
    let nonsense = config(stack.redis_nodes(), "postgres://me:hunter2@:x:y", MAPPING);
    for (verb, text) in [("serve", &text), ("check", &text), ("serve", &nonsense), ("check", &nonsense)] {
        let said = complaint(verb, text);
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert_says(&complaint("serve", &nonsense), &["postgres://user:password@"]);
}

#[test]
fn a_database_that_does_not_fit_the_mappings_is_described() {
    let (stack, db) = servers();
    db.execute(USERS);
    db.execute("create table logs (user_id text, value text)");
    let more = "[[mapping]]\nname = \"gone\"\nkey = \"gone:{id}\"\ntable = \"user\"\nid = \"bigint\"\n\
         [[mapping]]\nname = \"column\"\nkey = \"column:{id}\"\ntable = \"users\"\nid = \"bigint\"\nformat = \"text\"\n\
         column = \"nam\"\n\
         [[mapping]]\nname = \"index\"\nkey = \"index:{user_id}\"\ntable = \"logs\"\nid = \"text\"\nwrite = \"behind\"\n\
         [[mapping]]\nname = \"type\"\nkey = \"type:{id}\"\ntable = \"users\"\nid = \"uuid\"\n";
    let text = config(stack.redis_nodes(), db.url(), more);
    assert_refused(
        &text,
        &[
            "mapping \"gone\": table \"user\" does not exist (did you mean \"users\"?)",
            "mapping \"column\": ",
            "\"nam\"",
            "did you mean \"name\"?",
            "mapping \"index\": mode = \"upsert\" needs a unique index on exactly (user_id)",
            "mapping \"type\": ",
            "bigint",
        ],
    );
}

#[test]
fn templates_that_overlap_are_refused_with_a_key_that_both_match() {
    let (stack, db) = servers();
    db.execute(USERS);
    let more = format!(
        "{MAPPING}[[mapping]]\nname = \"b\"\nkey = \"user:{{name}}\"\ntable = \"users\"\nid = \"text\"\n"
    );
    let text = config(stack.redis_nodes(), db.url(), &more);
    assert_refused(&text, &["user:{name}", "user:{id}", "for example \"user:1\"", "literal"]);
    // With the servers away all of it is said.
    let nobody = format!("127.0.0.1:{}", free_ports(1).unwrap()[0]);
    let text = config(std::slice::from_ref(&nobody), &format!("postgres://me@{nobody}/x"), &more);
    assert_refused(&text, &["for example \"user:1\"", "REDIS_NODES", "DATABASE_URL"]);
}

#[test]
fn taken_ports_are_named_with_the_setting() {
    let stack = SharedStack::get();
    let taken: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addrs: Vec<String> = taken.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect();
    let text = format!(
        "[server]\nlisten = \"{}\"\n[http]\nlisten = \"{}\"\n[upstream]\nnodes = {:?}\n",
        addrs[0],
        addrs[1],
        stack.redis_nodes()
    );
    let said = complaint("serve", &text);
    assert_says(
        &said,
        &[&addrs[0], &addrs[1], "taken by another program", "[server] listen", "[http] listen"],
    );
}

#[test]
fn check_shows_the_routes_when_all_is_well() {
    let (stack, db) = servers();
    db.execute(USERS);
    let dir = tempfile::tempdir().unwrap();
    let more = format!(
        "{MAPPING}[[mapping]]\nname = \"own\"\nkey = \"own:{{id}}\"\nid = \"bigint\"\n\
         load = \"select id, name from users where id = any($1)\"\n"
    );
    std::fs::write(dir.path().join("proxy.toml"), config(stack.redis_nodes(), db.url(), &more)).unwrap();
    let ran = run(dir.path(), &["check"]);
    assert!(ran.success, "{ran:?}");
    assert_says(
        &ran.out,
        &["configuration: ok", "3 node(s)", "user:{id} -> user -> users", "own:{id} -> own -> (custom load)"],
    );
    for node in stack.redis_nodes() {
        assert_says(&ran.out, &[node]);
    }
    assert!(!ran.out.contains("postgres://"), "{}", ran.out);
}
