//! Keys of which a write was refused: later writes go on, and whoever looks at the dead letter is told of them.

use std::process::Command;

use crate::bed::{Bed, PATIENCE, user};
use crate::support::eventually;
use serde_json::Value as Json;

const QUICK: &str = "[write_behind]\nbatch_interval = \"10ms\"\n";
const PASSED: &str = "dsproxy_dead_letters_passed_total{mapping=\"user\"}";

fn letters(bed: &Bed) -> Vec<Json> {
    let shown: Json = serde_json::from_str(&bed.proxy.get("/api/v1/dlq").body).unwrap();
    shown["dead_letters"].as_array().unwrap().clone()
}

/// Keys of the letters, and whether a later write has passed them.
fn passed(bed: &Bed) -> Vec<(String, bool)> {
    letters(bed).iter().map(|it| (it["key"].as_str().unwrap().to_owned(), it["later"].is_string())).collect()
}

#[test]
fn a_dead_letter_says_that_its_key_was_written_again() {
    let mut bed = Bed::durable(QUICK);
    bed.db.execute("alter table users add constraint grown check (age >= 18)");
    for n in 1..=4 {
        bed.run(&["SET", &format!("@user:{n}"), r#"{"name":"bad","age":3}"#]);
    }
    eventually(PATIENCE, "they are refused", || letters(&bed).len() == 4);
    let keys: Vec<String> = letters(&bed).iter().map(|it| it["key"].as_str().unwrap().to_owned()).collect();
    let marks = |marked: &[u32]| -> Vec<(String, bool)> {
        let is_marked = |key: &str| marked.iter().any(|n| is_of(key, *n));
        keys.iter().map(|key| (key.clone(), is_marked(key))).collect()
    };
    assert_eq!(passed(&bed), marks(&[]));

    // It goes on: the later write is applied, and told of once.
    for name in ["good", "better", "best"] {
        bed.run(&["SET", "@user:1", &format!(r#"{{"name":"{name}"}}"#)]);
        bed.wait_flushed();
    }
    assert_eq!(bed.one("select name from users where id = 1").as_deref(), Some("best"));
    assert_eq!(passed(&bed), marks(&[1]));
    assert_eq!(bed.proxy.metric(PASSED), 1.0);
    assert_eq!(bed.proxy.log().matches("whose key has a dead letter").count(), 1);

    // A proxy that was started later knows of them, too, and so does the same one after a crash. A deletion is a write.
    let beside = bed.beside(&[]);
    beside.run(&bed, &["DEL", "@user:2"]);
    eventually(PATIENCE, "another proxy marks it", || passed(&bed) == marks(&[1, 2]));
    drop(beside);
    bed.crash();
    bed.run(&["SET", "@user:3", r#"{"name":"after"}"#]);
    eventually(PATIENCE, "it is marked after a crash", || passed(&bed) == marks(&[1, 2, 3]));
    eventually(PATIENCE, "they are counted", || {
        bed.proxy.metric("dsproxy_dead_letters{mapping=\"user\"}") == 4.0
    });
    let shown: Json = serde_json::from_str(&bed.proxy.get("/api/v1/writeback").body).unwrap();
    assert_eq!(shown["mappings"]["user"]["dead_letters"], 4);

    let verb = |args: &[&str]| {
        let mut verb = Command::new(env!("CARGO_BIN_EXE_dsproxy"));
        let output = verb.current_dir(bed.proxy.dir()).arg("dlq").args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    assert_eq!(verb(&["list"]).matches("(its key was written again)").count(), 3);
    // What the mark says is so: only the fourth is applied.
    bed.db.execute("alter table users drop constraint grown");
    let report = verb(&["replay"]);
    assert_eq!(report.matches("dropped, a newer write").count(), 3, "{report}");
    assert_eq!(bed.one("select count(*) from users where name = 'bad'").as_deref(), Some("1"));
}

#[test]
fn a_death_between_a_refusal_and_the_cache_leaves_nobody_with_what_was_refused() {
    // The client's OK comes first.
    let mut bed = Bed::durable(&QUICK.replace("10ms", "200ms"));
    bed.db.execute("alter table users add constraint grown check (age >= 18)");
    bed.crash_to_die_at("flush.committed");
    let set = bed.args(&["MSET", "@user:1", r#"{"name":"bad","age":3}"#, "@user:2", r#"{"name":"good"}"#]);
    assert_eq!(bed.proxy.connect().cmd(&set).text(), "OK");
    bed.restart();
    assert_eq!(
        (letters(&bed).len(), bed.one("select name from users where id = 2").as_deref()),
        (1, Some("good"))
    );
    eventually(PATIENCE, "readers see the row", || bed.get("user:1") == user(1));
    eventually(PATIENCE, "and of what was applied the whole row", || bed.get("user:2").contains("email"));
}

fn is_of(key: &str, n: u32) -> bool {
    key.ends_with(&format!("user:{n}"))
}
