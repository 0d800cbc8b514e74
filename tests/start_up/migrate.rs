//! `dsproxy migrate`, each verb by the program.

use std::path::Path;

use crate::run::{Ran, assert_says, run};
use crate::support::{Database, SharedStack};

struct Place {
    dir: tempfile::TempDir,
    db: Database,
    _stack: SharedStack,
}

impl Place {
    fn new() -> Self {
        let stack = SharedStack::get();
        let db = stack.fresh_database();
        let dir = tempfile::tempdir().unwrap();
        let config =
            format!("[upstream]\nnodes = {:?}\n[database]\nurl = {:?}\n", stack.redis_nodes(), db.url());
        std::fs::write(dir.path().join("proxy.toml"), config).unwrap();
        std::fs::create_dir(dir.path().join("migrations")).unwrap();
        Self { dir, db, _stack: stack }
    }

    fn write(&self, name: &str, sql: &str) {
        std::fs::write(self.dir.path().join("migrations").join(name), sql).unwrap();
    }

    fn migrate(&self, args: &[&str]) -> Ran {
        run(self.dir.path(), &[&["migrate"], args].concat())
    }

    #[track_caller]
    fn good(&self, args: &[&str]) -> String {
        let ran = self.migrate(args);
        assert!(ran.success, "{ran:?}");
        ran.out
    }

    #[track_caller]
    fn bad(&self, args: &[&str]) -> String {
        let ran = self.migrate(args);
        assert!(!ran.success, "{ran:?}");
        ran.err
    }

    fn tables(&self) -> Vec<Option<String>> {
        let sql = "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace \
                   and relname <> 'dsproxy_migrations' order by 1";
        self.db.query(sql).into_iter().map(|mut row| row.remove(0)).collect()
    }
}

fn names(list: &[&str]) -> Vec<Option<String>> {
    list.iter().map(|name| Some((*name).to_owned())).collect()
}

#[test]
fn versions_go_up_and_down_and_where_they_are_told() {
    let place = Place::new();
    for (n, table) in [(1, "a"), (2, "b"), (3, "c")] {
        place.write(&format!("000{n}_{table}.up.sql"), &format!("create table {table} (id int);"));
        place.write(&format!("000{n}_{table}.down.sql"), &format!("drop table {table};"));
    }
    let status = place.good(&["status"]);
    assert_eq!(status.matches("not applied").count(), 3, "{status}");
    assert_eq!(place.good(&["up"]), "done: 1\ndone: 2\ndone: 3\n");
    assert_eq!(place.good(&["up"]), "nothing to do\n");
    assert_eq!(place.tables(), names(&["a", "b", "c"]));
    assert_eq!(place.good(&["down"]), "done: 3\n");
    assert_eq!(place.good(&["down", "2"]), "done: 2\ndone: 1\n");
    assert_eq!(place.tables(), names(&[]));
    assert_eq!(place.good(&["goto", "2"]), "done: 1\ndone: 2\n");
    assert_eq!(place.good(&["goto", "1"]), "done: 2\n");
    let status = place.good(&["status"]);
    assert_eq!((status.matches("not applied").count(), status.lines().count()), (2, 3), "{status}");
    assert_says(&place.bad(&["goto", "9"]), &["no version 9", "known versions: 1, 2, 3"]);
    // Said to be applied, without running anything.
    assert_says(&place.good(&["force", "3"]), &["version 3"]);
    assert_eq!((place.good(&["up"]).as_str(), place.tables()), ("nothing to do\n", names(&["a"])));
}

#[test]
fn a_mistake_in_a_file_is_named_with_its_line_and_leaves_nothing() {
    let place = Place::new();
    place.write("0001_a.up.sql", "create table a (id int);\ncreate tabel b (id int);\n");
    place.write("0001_a.down.sql", "drop table a;");
    assert_says(&place.bad(&["up"]), &["0001_a.up.sql", "line 2", "nothing of it was applied"]);
    assert_eq!(place.tables(), names(&[]));
    // Half-way, where it cannot be undone.
    place.write("0001_a.up.sql", "-- dsproxy: no transaction\ncreate tabel b (id int);\n");
    assert_says(&place.bad(&["up"]), &["0001_a.up.sql", "migrate force"]);
    assert_says(&place.bad(&["up"]), &["version 1 is dirty", "migrate force"]);
    assert_says(&place.good(&["status"]), &["broken off half-way"]);
    place.good(&["force", "0"]);
    place.write("0001_a.up.sql", "create table a (id int);");
    assert_eq!(place.good(&["up"]), "done: 1\n");
    place.write("0002_b.up.sql", "select 1;");
    assert_says(&place.bad(&["up"]), &["version 2 (b) has no .down.sql"]);
}

#[test]
fn create_writes_the_next_pair() {
    let place = Place::new();
    let said = place.good(&["create", "Add users!"]);
    assert_says(&said, &["0001_add_users_.up.sql", "0001_add_users_.down.sql"]);
    assert_says(&place.good(&["create", "more"]), &["0002_more.up.sql"]);
    assert_eq!(place.good(&["up"]), "done: 1\ndone: 2\n", "empty files are no mistake");
}

const GUARDED: &str = "[[mapping]]\nname = \"user\"\nkey = \"user:{id}\"\ntable = \"Users\"\nid = \"bigint\"\nwrite = \"behind\"\n";

/// Adds the column by the helper, checks the mapping with it, and takes it away again.
#[track_caller]
fn adds_a_version_column(config: &str, dir: &Path) {
    let migrate = |args: &[&str]| run(dir, &[&["migrate"], args].concat());
    let file = dir.join("proxy.toml");
    std::fs::write(&file, format!("{config}{GUARDED}version_column = \"rev\"\n")).unwrap();
    let refused = run(dir, &["check"]).err;
    assert_says(&refused, &["names \"rev\"", "migrate create --version-column user"]);
    assert_says(&migrate(&["create", "--version-column", "user"]).out, &["_user_version.up.sql"]);
    assert_says(&migrate(&["up"]).out, &["the proxy's own tables are up to date"]);
    let checked = run(dir, &["check"]);
    assert!(checked.success, "{checked:?}");
    assert_says(&checked.out, &["the proxy's own tables: ok"]);
    assert!(migrate(&["down"]).success);
    assert_eq!(run(dir, &["check"]).err, refused);
    // Where the mapping does not say it yet.
    std::fs::write(&file, format!("{config}{GUARDED}")).unwrap();
    let said = migrate(&["create", "again", "--version-column", "user"]).out;
    assert_says(&said, &["version_column = \"version\" in mapping \"user\"", "_again.down.sql"]);
    assert!(migrate(&["up"]).success);
    assert_says(&migrate(&["create", "--version-column", "usr"]).err, &["usr", "no mapping of this name"]);
    assert!(!migrate(&["create"]).success, "a name is needed");
}

#[test]
fn create_adds_a_version_column_in_both_databases() {
    let place = Place::new();
    place.db.execute("create table \"Users\" (id bigint primary key, name text)");
    let config = std::fs::read_to_string(place.dir.path().join("proxy.toml")).unwrap();
    adds_a_version_column(&config, place.dir.path());
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("migrations")).unwrap();
    let file = dir.path().join("app.db");
    let table = "create table \"Users\" (id bigint primary key, name text)";
    rusqlite::Connection::open(&file).unwrap().execute_batch(table).unwrap();
    let nodes = SharedStack::get().redis_nodes().to_vec();
    let url = format!("sqlite:{}", file.display());
    adds_a_version_column(&format!("[upstream]\nnodes = {nodes:?}\n[database]\nurl = {url:?}\n"), dir.path());
}

#[test]
fn a_missing_directory_or_database_is_named() {
    let place = Place::new();
    assert_says(&place.bad(&["--migrations", "nowhere", "up"]), &["nowhere"]);
    let empty = tempfile::tempdir().unwrap();
    std::fs::create_dir(empty.path().join("migrations")).unwrap();
    let text = "[upstream]\nnodes = [\"127.0.0.1:1\"]\n";
    let file = empty.path().join("proxy.toml");
    std::fs::write(&file, text).unwrap();
    let up = |dir: &Path| run(dir, &["migrate", "up"]);
    assert_says(&up(empty.path()).err, &["DATABASE_URL"]);
    std::fs::write(&file, format!("{text}[database]\nurl = \"postgres://me:hunter2@127.0.0.1:1/x\"\n"))
        .unwrap();
    let ran = up(empty.path());
    assert!(!ran.success && !ran.err.contains("hunter2"), "{ran:?}");
    assert_says(&ran.err, &["refused"]);
}

#[test]
fn a_sqlite_file_is_migrated_without_any_server() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("app.db").display());
    let config = format!("[upstream]\nnodes = [\"127.0.0.1:1\"]\n[database]\nurl = {url:?}\n");
    std::fs::write(dir.path().join("proxy.toml"), config).unwrap();
    let migrations = dir.path().join("migrations");
    std::fs::create_dir(&migrations).unwrap();
    std::fs::write(migrations.join("0001_a.up.sql"), "create table a (id int);").unwrap();
    std::fs::write(migrations.join("0001_a.down.sql"), "drop table a;").unwrap();
    let migrate = |args: &[&str]| run(dir.path(), &[&["migrate"], args].concat());
    assert_eq!(migrate(&["up"]).out, "done: 1\n");
    assert_eq!(migrate(&["up"]).out, "nothing to do\n");
    let status = migrate(&["status"]).out;
    assert!(status.contains("applied 20") && status.contains('Z'), "{status}");
    assert_eq!(migrate(&["down"]).out, "done: 1\n");
    std::fs::write(migrations.join("0001_a.up.sql"), "create table a (id int);\n\ncreate tabel b;").unwrap();
    let ran = migrate(&["up"]);
    assert!(!ran.success, "{ran:?}");
    assert_says(&ran.err, &["0001_a.up.sql", "line 3", "nothing of it was applied"]);
}
