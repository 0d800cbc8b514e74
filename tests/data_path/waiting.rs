//! Keys of which a write was refused, where later writes wait behind it: nobody sees an older value, whatever dies, and
//! nothing is lost, applied twice or out of order once the dead letter is gone.

use std::process::Command;

use dsproxy::sidecar::sidecar_key;
use rustix::process::Signal;
use serde_json::Value as Json;

use crate::bed::{Bed, PATIENCE, WAIT, user};
use crate::support::{Http, Resp, Value, eventually};

/// Small batches, and nobody looks for what was left over: a test knows who lets go of what.
const QUICK: &str = "health_interval = \"1h\"\n[write_behind]\nbatch_interval = \"10ms\"\n# wait\n";
const GROWN: &str = "alter table users add constraint grown check (age >= 18)";

/// A bed on which `@user:1` has a dead letter, and what waits behind it.
fn poisoned() -> Bed {
    assert!(QUICK.contains(WAIT));
    let bed = Bed::durable(QUICK);
    bed.db.execute(GROWN);
    set(&bed, 1, r#"{"name":"bad","age":3}"#);
    eventually(PATIENCE, "it is refused", || letters(&bed).len() == 1);
    // The letter is there a moment before the cache is told.
    bed.wait_flushed();
    bed
}

fn set(bed: &Bed, id: u32, body: &str) {
    assert_eq!(bed.run(&["SET", &format!("@user:{id}"), body]).text(), "OK");
}

fn letters(bed: &Bed) -> Vec<Json> {
    let shown: Json = serde_json::from_str(&bed.proxy.get("/api/v1/dlq").body).unwrap();
    shown["dead_letters"].as_array().unwrap().clone()
}

fn held(bed: &Bed) -> usize {
    letters(bed).iter().filter(|letter| letter["waits"] == true).count()
}

/// Redis loses what it has of a key.
fn lose(bed: &Bed, key: &str) {
    let sidecar = sidecar_key(bed.key(key).as_bytes());
    bed.direct(&["DEL", &format!("@{key}")]);
    bed.direct(&["DEL", &String::from_utf8(sidecar).unwrap()]);
}

fn verb(bed: &Bed, args: &[&str]) -> String {
    let mut verb = Command::new(env!("CARGO_BIN_EXE_dsproxy"));
    let output = verb.current_dir(bed.proxy.dir()).arg("dlq").args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn row(bed: &Bed, id: u32) -> Option<String> {
    bed.one(&format!("select concat_ws(' ', name, email, age) from users where id = {id}"))
}

#[test]
fn readers_see_what_waits_whatever_dies_and_a_replay_lets_it_follow() {
    let mut bed = poisoned();
    assert_eq!(bed.get("user:1"), user(1), "what was refused is not seen");
    let second = r#"{"name":"second","email":"e"}"#;
    set(&bed, 1, second);
    set(&bed, 2, r#"{"name":"beside"}"#);
    bed.wait_flushed();
    assert_eq!((row(&bed, 1).as_deref(), row(&bed, 2).as_deref()), (Some("u1"), Some("beside")));
    assert_eq!((held(&bed), bed.get("user:1").as_str()), (1, second));
    assert_eq!(bed.proxy.metric("dsproxy_held_writes_total{mapping=\"user\"}"), 1.0);
    assert_eq!(bed.proxy.log().matches("a write waits behind a dead letter").count(), 1);
    lose(&bed, "user:1");
    assert_eq!(bed.get("user:1"), second);

    // Another proxy sees it, and its writes wait as well: at once, though it was started before there was any letter.
    let mut other = bed.beside(&[]);
    lose(&bed, "user:1");
    assert_eq!(other.run(&bed, &["GET", "@user:1"]).text(), second);
    assert_eq!(other.run(&bed, &["SET", "@user:1", r#"{"name":"third","email":"f"}"#]).text(), "OK");
    eventually(PATIENCE, "it waits", || {
        other.proxy.metric("dsproxy_held_writes_total{mapping=\"user\"}") == 1.0
    });
    other.kill();
    lose(&bed, "user:1");
    assert_eq!(bed.get("user:1"), r#"{"name":"third","email":"f"}"#);

    bed.crash();
    assert_eq!(bed.get("user:1"), r#"{"name":"third","email":"f"}"#);
    lose(&bed, "user:1");
    assert_eq!(bed.get("user:1"), r#"{"name":"third","email":"f"}"#);
    set(&bed, 1, r#"{"name":"fourth","age":44}"#);
    bed.wait_flushed();
    assert_eq!((held(&bed), row(&bed, 1).as_deref()), (1, Some("u1")), "one letter has all that waits");

    // It is refused again, and all of it stays.
    assert!(bed.proxy.post("/api/v1/dlq/replay?which=all", "").body.contains("\"waiting\":1"));
    bed.db.execute("alter table users drop constraint grown");
    let replayed = bed.proxy.post("/api/v1/dlq/replay?which=all", "");
    assert!(replayed.body.contains("\"applied\":2"), "{}", replayed.body);
    assert_eq!(row(&bed, 1).as_deref(), Some("fourth f 44"));
    let whole = r#"{"id":1,"name":"fourth","email":"f","age":44}"#;
    other.restart();
    assert_eq!((bed.get("user:1").as_str(), letters(&bed).len()), (whole, 0));
    assert_eq!(other.run(&bed, &["GET", "@user:1"]).text(), whole);
    // Nothing waits any more.
    set(&bed, 1, r#"{"name":"free"}"#);
    bed.wait_flushed();
    assert_eq!(row(&bed, 1).as_deref(), Some("free f 44"));
}

#[test]
fn the_proxy_started_before_the_letter_holds_and_shows_it_at_once() {
    let bed = Bed::durable(QUICK);
    let other = bed.beside(&[]);
    bed.db.execute(GROWN);
    set(&bed, 1, r#"{"name":"bad","age":3}"#);
    eventually(PATIENCE, "it is refused", || letters(&bed).len() == 1);
    // It has never counted the letters since: that it knows of no letter decides nothing.
    assert_eq!(other.run(&bed, &["SET", "@user:1", r#"{"name":"later"}"#]).text(), "OK");
    eventually(PATIENCE, "it waits", || held(&bed) == 1);
    lose(&bed, "user:1");
    assert_eq!(bed.get("user:1"), r#"{"name":"later"}"#);
    assert_eq!(other.run(&bed, &["GET", "@user:1"]).text(), r#"{"name":"later"}"#);
    assert_eq!(row(&bed, 1).as_deref(), Some("u1"));
}

#[test]
fn a_drop_lets_what_waits_follow_and_a_new_refusal_holds_it_again() {
    let bed = poisoned();
    set(&bed, 1, r#"{"name":"second"}"#);
    bed.wait_flushed();
    bed.run(&["DEL", "@user:1"]);
    bed.wait_flushed();
    assert!(is_nil(&bed.run(&["GET", "@user:1"])) && row(&bed, 1).is_some());
    set(&bed, 1, r#"{"name":"third","age":4}"#);
    bed.wait_flushed();
    assert_eq!(held(&bed), 2, "the deletion, and the row after it");
    let list = verb(&bed, &["list"]);
    assert_eq!(list.matches("its key waits behind dead letter").count(), 2, "{list}");

    let report = verb(&bed, &["drop", "--all"]);
    assert!(report.contains("dropped: 1") && report.contains("applied, it had waited"), "{report}");
    assert_eq!(report.matches("stays: ").count(), 1, "the third is too young: {report}");
    assert_eq!(row(&bed, 1), None, "the deletion is applied");
    eventually(PATIENCE, "readers see so", || is_nil(&bed.run(&["GET", "@user:1"])));
    set(&bed, 1, r#"{"name":"fourth","age":40}"#);
    bed.wait_flushed();
    assert_eq!((held(&bed), letters(&bed).len()), (1, 2));
    assert_eq!(bed.get("user:1"), r#"{"name":"fourth","age":40}"#);

    bed.db.execute("alter table users drop constraint grown");
    let report = verb(&bed, &["replay"]);
    assert!(report.contains(" applied\n") && report.contains("applied, it had waited"), "{report}");
    assert_eq!(row(&bed, 1).as_deref(), Some("fourth 40"));
    assert_eq!(bed.get("user:1"), r#"{"id":1,"name":"fourth","email":null,"age":40}"#);
    assert_eq!(letters(&bed).len(), 0);
}

#[test]
fn commands_that_look_first_see_what_waits_and_its_number_drops_it() {
    let bed = poisoned();
    set(&bed, 1, r#"{"name":"second"}"#);
    bed.wait_flushed();
    let third = r#"{"name":"third"}"#;
    assert_eq!(bed.run(&["SET", "@user:1", third, "GET"]).text(), r#"{"name":"second"}"#);
    bed.wait_flushed();
    lose(&bed, "user:1");
    assert!(is_nil(&bed.run(&["SET", "@user:1", "{}", "NX"])), "there is one, though no row");
    let waits = letters(&bed).iter().find(|letter| letter["waits"] == true).unwrap()["id"].clone();
    let dropped = bed.proxy.http("DELETE", &format!("/api/v1/dlq?which={waits}"), "", "");
    assert!(dropped.body.contains("\"dropped\":1"), "{}", dropped.body);
    assert_eq!(bed.get("user:1"), user(1), "readers see the row again");
}

#[test]
fn a_death_while_writes_come_to_wait_or_are_let_go_loses_and_doubles_none() {
    let mut bed = Bed::durable(&QUICK.replace("1h", "100ms"));
    bed.db.execute("alter table user_data add constraint good check (value <> 'bad')");
    let add = |bed: &Bed, value: &str| {
        let set = bed.args(&["SET", "@user_data:7", value]);
        Resp::try_connect(bed.proxy.addr()).is_ok_and(|mut client| client.try_cmd(&set).is_some())
    };
    assert!(add(&bed, "bad"));
    eventually(PATIENCE, "it is refused", || letters(&bed).len() == 1);
    bed.proxy.signal(Signal::KILL);
    bed.restart_to_die("held.kept:2");
    let sent = (2..=40).take_while(|n| add(&bed, &format!("v{n:03}"))).count();
    bed.restart();
    eventually(PATIENCE, "what was acknowledged waits", || held(&bed) >= sent);
    let kept = held(&bed);
    assert!(sent >= 1 && kept <= sent + 1, "{sent} were acknowledged, {kept} wait");
    assert_eq!(bed.one("select count(*) from user_data").as_deref(), Some("0"));

    // Somebody drops the letter, and dies while what waited follows.
    bed.proxy.signal(Signal::KILL);
    let at = kept.div_ceil(2).max(1);
    bed.proxy.wait_exit();
    bed.restart_to_die(&format!("held.release:{at}"));
    let first = letters(&bed).iter().find(|letter| letter["waits"] == false).unwrap()["id"].clone();
    let path = format!("/api/v1/dlq?which={first}");
    assert!(
        Http::try_request(bed.proxy.http_port(), "DELETE", &path, "").is_none(),
        "it dies before it answers"
    );
    bed.restart();
    let rows = || bed.one("select count(*) from user_data");
    eventually(PATIENCE, "the others follow by themselves", || rows() == Some(kept.to_string()));
    assert_eq!(letters(&bed).len(), 0);
    let turned = "select count(*) filter (where value <= before) from (select value, lag(value, 1, '') over (order by id) before from user_data) x";
    assert_eq!(bed.one(turned).as_deref(), Some("0"), "in their order");
}

#[test]
fn what_is_written_through_is_refused_until_the_letter_is_gone() {
    let mut bed = poisoned();
    set(&bed, 1, r#"{"name":"waits"}"#);
    bed.wait_flushed();
    assert!(bed.proxy.stop().success());
    bed.change_config("on_poison = \"wait\"", "on_poison = \"wait\"\ndurability = \"database\"");
    bed.restart();
    assert_eq!(bed.get("user:1"), r#"{"name":"waits"}"#);
    let id = letters(&bed)[0]["id"].to_string();
    let refused = bed.run(&["SET", "@user:1", r#"{"name":"through"}"#]);
    let expected = format!("BUSY its key waits behind dead letter {id}");
    assert!(refused.error().starts_with(&expected), "{refused:?}");
    assert_eq!(bed.get("user:1"), r#"{"name":"waits"}"#);
    set(&bed, 2, r#"{"name":"through"}"#);
    let dropped = bed.proxy.http("DELETE", &format!("/api/v1/dlq?which={id}"), "", "");
    assert!(dropped.body.contains("\"applied\":1"), "{}", dropped.body);
    set(&bed, 1, r#"{"name":"free","email":"through"}"#);
    assert_eq!(row(&bed, 1).as_deref(), Some("free through"));
}

fn is_nil(value: &Value) -> bool {
    *value == Value::Nil
}
