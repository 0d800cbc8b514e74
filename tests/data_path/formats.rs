//! Lists, hashes, and members that are expressions.

use crate::bed::{Bed, PATIENCE};
use crate::support::{Value, eventually};

const NOTES: &str = r#"
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
load = "select id from notes where user_id = $user_id order by id desc offset $offset limit $limit + 1"
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
columns = { headline = "upper(title)", id = "id", n = "user_id + 1", text = "left(title, 1) || '$1'" }
[[mapping]]
name = "note_hash"
key = "PREFIXhash:{id}"
table = "notes"
id = "bigint"
format = "hash"
ttl = "100s"
"#;

fn note(n: u32) -> String {
    format!(
        r#"{{"id":{n},"user_id":{},"title":"t{n}","price":{n}.50,"done":{},"extra":{{"n": {n}}},"at":"2024-05-17T07:30:00.123456+00:00"}}"#,
        n % 5,
        n.is_multiple_of(2)
    )
}

fn notes(ids: &[u32]) -> String {
    format!("[{}]", ids.iter().map(|n| note(*n)).collect::<Vec<_>>().join(","))
}

#[test]
fn a_list_holds_ids_and_answers_with_objects() {
    let bed = Bed::start(NOTES);
    bed.get("note:93");
    let before = bed.loads("note");
    assert_eq!(bed.get("user:3:notes:0:2"), notes(&[98, 93, 88]));
    assert_eq!(
        (bed.loads("page"), bed.loads("note") - before),
        (1.0, 1.0),
        "one query for the ids, one for the objects"
    );
    assert_eq!(bed.direct(&["GET", "@user:3:notes:0:2"]).text(), "[98,93,88]");
    assert_eq!(bed.get("user:3:notes:0:2"), notes(&[98, 93, 88]));
    assert_eq!((bed.loads("page"), bed.loads("note") - before), (1.0, 1.0), "from the cache");
    assert_eq!(bed.get("user:3:notes:1:1"), notes(&[93, 88]), "another page shares the objects");
    assert_eq!((bed.loads("page"), bed.loads("note") - before), (2.0, 1.0));
    // A changed object shows in every list that has it.
    bed.run(&["SET", "@note:93", r#"{"user_id":3,"title":"new","at":"2024-05-17T07:30:00Z"}"#]);
    assert!(bed.get("user:3:notes:1:1").contains("\"title\":\"new\""));
    // One that is gone is left out.
    bed.run(&["DEL", "@note:88"]);
    assert_eq!(
        bed.get("user:3:notes:0:2").matches("\"id\":").count(),
        1 + usize::from(bed.get("note:93").contains("\"id\""))
    );
    assert_eq!(bed.get("user:77:notes:0:5"), "[]");
    assert_eq!(bed.run(&["GET", "@user:3:notes:0:51"]), Value::Nil, "beyond its bound");
    assert!(bed.run(&["MGET", "@user:3:notes:0:2", "@note:1"]).error().contains("one by one"));
    assert!(bed.run(&["SET", "@user:3:notes:0:2", "[]"]).error().contains("page"));
}

#[test]
fn a_list_of_rows_needs_no_placeholder() {
    let bed = Bed::start(NOTES);
    let want = r#"[{"id":3,"title":"t3"},{"id":2,"title":"t2"},{"id":1,"title":"t1"}]"#;
    assert_eq!((bed.get("notes:all"), bed.get("notes:all")), (want.to_owned(), want.to_owned()));
    assert_eq!(bed.loads("titles"), 1.0);
    assert_eq!(bed.run(&["GET", "@notes:al"]), Value::Nil);
}

#[test]
fn members_can_be_expressions() {
    let bed = Bed::start(NOTES);
    assert_eq!(bed.get("card:7"), r#"{"headline":"T7","id":7,"n":3,"text":"t$1"}"#);
    assert_eq!(bed.run(&["GET", "@card:700"]), Value::Nil);
}

#[test]
fn a_list_with_a_generation_is_served_from_the_cache_while_nothing_changes() {
    let on = "of = \"note\"\ninvalidate_on = { mapping = \"note\", by = \"user_id\" }\n";
    let bed = Bed::start(&NOTES.replace("of = \"note\"\n", on));
    assert_eq!(bed.get("user:3:notes:0:1"), notes(&[98, 93]));
    assert_eq!(bed.get("user:3:notes:0:1"), notes(&[98, 93]));
    assert_eq!(bed.loads("page"), 1.0);
}

#[test]
fn a_hash_is_one_field_per_column() {
    let bed = Bed::start(NOTES);
    bed.db.execute("update notes set title = null where id = 5");
    let all = bed.run(&["HGETALL", "@hash:5"]);
    let texts: Vec<String> = all.items().iter().map(Value::text).collect();
    let want = [
        "id",
        "5",
        "user_id",
        "0",
        "price",
        "5.50",
        "done",
        "false",
        "extra",
        "{\"n\": 5}",
        "at",
        "2024-05-17T07:30:00.123456+00:00",
    ];
    assert_eq!(texts, want);
    eventually(PATIENCE, "the hash is in the cluster", || bed.direct(&["TYPE", "@hash:5"]).text() == "hash");
    assert_eq!(bed.direct(&["HGETALL", "@hash:5"]), all);
    assert!((85..=110).contains(&bed.run(&["TTL", "@hash:5"]).int()));
    assert_eq!(bed.run(&["HGET", "@hash:6", "price"]).text(), "6.50");
    assert_eq!(bed.run(&["HMGET", "@hash:7", "title", "nosuch"]).items(), ["t7".into(), Value::Nil]);
    assert_eq!(
        (bed.run(&["HLEN", "@hash:8"]).int(), bed.run(&["HEXISTS", "@hash:9", "title"]).int()),
        (7, 1)
    );
    assert_eq!(
        (bed.run(&["HGET", "@hash:5", "title"]), bed.run(&["HGETALL", "@hash:999"]).items().len()),
        (Value::Nil, 0)
    );
    assert!(bed.run(&["GET", "@hash:10"]).error().starts_with("WRONGTYPE"));
    assert_eq!(bed.run(&["MGET", "@hash:11", "@note:11"]).items(), [Value::Nil, note(11).as_str().into()]);
    assert_eq!(bed.run(&["TYPE", "@hash:12"]).text(), "hash");
    assert!(matches!(bed.run(&["HRANDFIELD", "@hash:13"]), Value::Bulk(_)));
    assert_eq!(bed.run(&["OBJECT", "ENCODING", "@hash:14"]).text(), "listpack");
    // A field that is not there costs no further query.
    let before = bed.loads("note_hash");
    for _ in 0..10 {
        assert_eq!(bed.run(&["HGET", "@hash:5", "nosuch"]), Value::Nil);
    }
    assert_eq!(bed.loads("note_hash"), before);
}

#[test]
fn a_mapping_is_warm_before_anybody_asks() {
    let more = "[[mapping]]\nname = \"warm\"\nkey = \"PREFIXwarm:{id}\"\ntable = \"users\"\nid = \"bigint\"\n\
                warm = { where = \"id % 2 = 0\", limit = 60 }\n\
                [[mapping]]\nname = \"all\"\nkey = \"PREFIXall:{user_id}:{id}\"\ntable = \"notes\"\nid = \"bigint\"\nwarm = true\n";
    let bed = Bed::start(more);
    let cached = |keys: &str| bed.run(&["KEYS", &bed.key(keys)]).items().len();
    eventually(PATIENCE, "both are warm", || (cached("warm:*"), cached("all:*")) == (60, 100));
    assert_eq!(
        (bed.direct(&["EXISTS", "@warm:120"]).int(), bed.direct(&["EXISTS", "@warm:122"]).int()),
        (1, 0)
    );
    assert_eq!(bed.direct(&["EXISTS", "@warm:3"]).int(), 0);
    let before = bed.loads("warm");
    bed.get("warm:60");
    assert_eq!(bed.loads("warm"), before);
}
