//! `GETEX` with options on written mappings: how long an entry lives, whatever waits for the database.

use crate::bed::{Bed, NO_CLOCK, user};
use crate::support::Value;

const NEW: &str = r#"{"name":"new"}"#;

#[test]
fn the_life_of_an_entry_changes_and_its_row_does_not() {
    let bed = Bed::start("");
    let ttl = |key: &str| bed.direct(&["TTL", key]).int();
    // Cached, and not.
    bed.get("user:1");
    for key in ["@user:1", "@user:2"] {
        let n = key.rsplit(':').next().unwrap().parse().unwrap();
        assert_eq!(bed.run(&["GETEX", key, "EX", "1000"]).text(), user(n));
        assert!((990..=1000).contains(&ttl(key)), "{key}: {}", ttl(key));
        assert_eq!(bed.run(&["GETEX", key, "PX", "50000"]).text(), user(n));
        assert!((40..=50).contains(&ttl(key)));
        assert_eq!(bed.run(&["GETEX", key, "EXAT", "99999999999"]).text(), user(n));
        assert!(ttl(key) > 1_000_000);
        assert_eq!(bed.run(&["GETEX", key, "PERSIST"]).text(), user(n));
        assert_eq!(ttl(key), -1);
        // One that is over ends the entry, not the row.
        assert_eq!(bed.run(&["GETEX", key, "PXAT", "1"]).text(), user(n));
        assert_eq!(bed.direct(&["EXISTS", key]).int(), 0);
        assert_eq!(bed.get(&key[1..]), user(n));
    }
    assert_eq!(bed.run(&["GETEX", "@user:777", "EX", "10"]), Value::Nil);
    assert_eq!(bed.waiting("user"), 0.0, "nothing was written");
    let refused = bed.run(&["GETEX", "@user_data:1", "EX", "10"]);
    assert!(refused.error().contains("'user_data'"), "{refused:?}");
    // In a pipeline, in order; inside of MULTI it is refused, in words.
    let lines: [&[&str]; 4] = [
        &["SET", "@user:3", NEW],
        &["GETEX", "@user:3", "EX", "500"],
        &["DEL", "@user:3"],
        &["GETEX", "@user:3", "EX", "500"],
    ];
    let replies = bed.proxy.connect().pipeline(&lines.map(|line| bed.args(line)));
    assert_eq!((replies[1].text(), &replies[3]), (NEW.to_owned(), &Value::Nil));
    let mut client = bed.proxy.connect();
    client.cmd(&["MULTI"]);
    assert!(client.cmd(&bed.args(&["GETEX", "@user:1", "EX", "5"])).error().contains("mapping 'user'"));
    assert!(client.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
    for (line, ends) in [(&["GETEX", "@user:1"][..], 200), (&["GETEX", "@post:1", "EX", "900"], 900)] {
        bed.get(&line[1][1..]);
        client.cmd(&["MULTI"]);
        assert_eq!(client.cmd(&bed.args(line)).text(), "QUEUED");
        assert_eq!(client.cmd(&["EXEC"]).items().len(), 1);
        assert!(ttl(line[1]) <= ends);
    }
}

#[test]
fn an_entry_that_waits_for_the_database_lives_until_it_is_there() {
    let mut bed = Bed::durable(NO_CLOCK);
    for key in ["@user:1", "@user:2", "@user:3", "@user:4"] {
        assert_eq!(bed.run(&["SET", key, NEW]).text(), "OK");
    }
    assert_eq!(bed.run(&["GETEX", "@user:1", "PXAT", "1"]).text(), NEW);
    assert_eq!(bed.run(&["GETEX", "@user:2", "EX", "1000"]).text(), NEW);
    assert_eq!(bed.run(&["GETEX", "@user:3", "PERSIST"]).text(), NEW);
    // The life of a value that is replaced does not count any more.
    assert_eq!(bed.run(&["GETEX", "@user:4", "PXAT", "1"]).text(), NEW);
    assert_eq!(bed.run(&["SET", "@user:4", NEW]).text(), "OK");
    for key in ["@user:1", "@user:2", "@user:3", "@user:4"] {
        assert_eq!((bed.direct(&["TTL", key]).int(), bed.get(&key[1..]).as_str()), (-1, NEW), "{key}");
    }
    assert!(bed.proxy.stop().success(), "what waits is written at the end");
    let ttl = |key: &str| bed.direct(&["TTL", key]).int();
    assert_eq!(bed.one("select count(*) from users where name = 'new'").as_deref(), Some("4"));
    assert_eq!((ttl("@user:1"), ttl("@user:3")), (-2, -1));
    assert!((900..=1000).contains(&ttl("@user:2")) && (1..=110).contains(&ttl("@user:4")));
    bed.restart();
    assert!(bed.get("user:1").contains("new"));
}
