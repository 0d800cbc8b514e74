//! Every reading command on a mapped key says what Redis says of a key that holds the row.

use crate::bed::{Bed, user};
use crate::support::{Resp, Value};

/// Commands on `@KEY`, which is absent from the cluster when they come.
const OF_STRINGS: &[&str] = &[
    "GET @KEY",
    "STRLEN @KEY",
    "GETRANGE @KEY 0 -1",
    "GETRANGE @KEY 2 5",
    "GETRANGE @KEY -5 -2",
    "GETRANGE @KEY -2 -5",
    "GETRANGE @KEY 5 2",
    "GETRANGE @KEY 500 600",
    "GETRANGE @KEY -500 3",
    "GETRANGE @KEY 0 99999999999",
    "GETRANGE @KEY x 1",
    "SUBSTR @KEY 1 3",
    "EXISTS @KEY",
    "EXISTS @KEY @KEY @KEY",
    "TOUCH @KEY",
    "TYPE @KEY",
    "GETBIT @KEY 0",
    "GETBIT @KEY 1",
    "GETBIT @KEY 100000",
    "GETBIT @KEY -1",
    "BITCOUNT @KEY",
    "BITCOUNT @KEY 0 -1",
    "BITCOUNT @KEY 2 5",
    "BITCOUNT @KEY 2 -3 BYTE",
    "BITCOUNT @KEY 5 30 BIT",
    "BITCOUNT @KEY -9 -2 bit",
    "BITCOUNT @KEY 9 2",
    "BITCOUNT @KEY 1 2 NIBBLE",
    "BITPOS @KEY 1",
    "BITPOS @KEY 0",
    "BITPOS @KEY 1 2",
    "BITPOS @KEY 0 2 3",
    "BITPOS @KEY 1 200",
    "BITPOS @KEY 1 3 60 BIT",
    "BITPOS @KEY 0 -8 -1 BIT",
    "BITPOS @KEY 2",
    "GETEX @KEY",
    "HGET @KEY id",
    "HGETALL @KEY",
    "HLEN @KEY",
    "HMGET @KEY a b",
    "HSCAN @KEY 0",
    "LLEN @KEY",
    "SMEMBERS @KEY",
    "ZCARD @KEY",
    "XLEN @KEY",
    "SORT_RO @KEY",
    "LRANGE @KEY 0 -1",
    "ZSCORE @KEY a",
    "SISMEMBER @KEY a",
    "PFCOUNT @KEY",
    "BITFIELD_RO @KEY GET u8 0",
    "OBJECT ENCODING @KEY",
    "OBJECT REFCOUNT @KEY",
    "LCS @KEY @KEY",
    "LCS @KEY @KEY LEN",
    "LCS @KEY @KEY IDX",
    "TTL @KEY",
];

/// The same key on the node that owns it: where a plain key lives that holds the same.
pub fn node_of(bed: &Bed, key: &str, protocol: &str) -> Resp {
    for node in &bed.nodes {
        let mut client = Resp::connect(&**node);
        client.cmd(&["HELLO", protocol]);
        if !matches!(client.cmd(&["GET", key]), Value::Error(moved) if moved.starts_with("MOVED")) {
            return client;
        }
    }
    panic!("nobody owns {key}");
}

pub fn with_key(line: &str, key: &str) -> Vec<String> {
    line.split(' ').map(|word| if word == "@KEY" { key.to_owned() } else { word.to_owned() }).collect()
}

/// Runs each command on a mapped key that the cluster lacks, and on a plain key that holds `value`, byte for byte.
fn same_as_redis(bed: &Bed, key: &str, value: &[&str], commands: &[&str]) {
    let plain = bed.key("plain");
    for protocol in ["2", "3"] {
        let mut node = node_of(bed, &plain, protocol);
        node.cmd(&["DEL", &plain]);
        let set: Vec<&str> = [value[0], &plain].into_iter().chain(value[1..].iter().copied()).collect();
        node.cmd(&set);
        node.cmd(&["EXPIRE", &plain, "100"]);
        let mut proxied = bed.proxy.connect();
        proxied.cmd(&["HELLO", protocol]);
        for line in commands {
            bed.run(&["DEL", &format!("@{key}")]);
            let said = proxied.cmd_raw(&with_key(line, &bed.key(key)));
            let wanted = node.cmd_raw(&with_key(line, &plain));
            if line.starts_with("TTL") {
                assert!(said.starts_with(b":1") || said.starts_with(b":9"), "{said:?}");
                continue;
            }
            let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(show(&said), show(&wanted), "{line} in RESP{protocol}");
        }
    }
}

#[test]
fn a_string_read_in_any_way_is_what_redis_says_of_it() {
    let more = "[[mapping]]\nname = \"name\"\nkey = \"PREFIXname:{id}\"\ntable = \"users\"\nid = \"bigint\"\n\
                format = \"text\"\ncolumn = \"name\"\nttl = \"100s\"\n";
    let bed = Bed::start(more);
    bed.db.execute(
        "update users set name = 'Ada \u{e4}\u{20ac}' where id = 7; update users set name = '' where id = 8",
    );
    same_as_redis(&bed, "name:7", &["SET", "Ada \u{e4}\u{20ac}"], OF_STRINGS);
    same_as_redis(&bed, "name:8", &["SET", ""], OF_STRINGS);
}

#[test]
fn without_a_row_each_answer_is_that_of_an_absent_key() {
    let bed = Bed::start("");
    let plain = bed.key("nosuch");
    for protocol in ["2", "3"] {
        let mut node = node_of(&bed, &plain, protocol);
        let mut proxied = bed.proxy.connect();
        proxied.cmd(&["HELLO", protocol]);
        for line in
            OF_STRINGS.iter().copied().chain(["DUMP @KEY", "PTTL @KEY", "EXPIRETIME @KEY", "HRANDFIELD @KEY"])
        {
            let said = proxied.cmd_raw(&with_key(line, &bed.key("post:999")));
            assert_eq!(said, node.cmd_raw(&with_key(line, &plain)), "{line} in RESP{protocol}");
        }
    }
}

#[test]
fn existence_is_counted_key_by_key_across_slots() {
    let bed = Bed::start("");
    bed.get("user:1");
    bed.run(&["SET", "@plain", "x"]);
    let args =
        ["EXISTS", "@user:1", "@user:2", "@user:2", "@post:3", "@user:9999", "@plain", "@nosuch", "@plain"];
    let before = bed.loads("user");
    assert_eq!(bed.run(&args).int(), 6);
    assert_eq!((bed.loads("user") - before, bed.loads("post")), (1.0, 1.0));
    assert_eq!(bed.run(&["TOUCH", "@user:1", "@user:5", "@nosuch"]).int(), 2);
    assert_eq!(bed.get("user:5"), user(5));
}

#[test]
fn what_only_a_node_can_say_is_asked_once_the_row_is_there() {
    let bed = Bed::start("");
    let dump = bed.run(&["DUMP", "@post:4"]);
    assert!(matches!(&dump, Value::Bulk(bytes) if bytes.len() > 10), "{dump:?}");
    assert!((200_000..=330_000).contains(&bed.run(&["PTTL", "@post:5"]).int()));
    assert!(bed.run(&["PEXPIRETIME", "@post:6"]).int() > 1_600_000_000_000);
    // Options of GETEX change the entry, where it holds nothing but what the database has.
    assert_eq!(bed.run(&["GETEX", "@post:7", "EX", "1000"]).text(), r#"{"id":7,"content":"p7"}"#);
    assert!((900..=1000).contains(&bed.run(&["TTL", "@post:7"]).int()));
    assert_eq!(bed.run(&["GETEX", "@user:7"]).text(), user(7));
}

#[test]
fn a_mapping_without_cache_answers_what_can_be_told_from_the_row() {
    let more = "[[mapping]]\nname = \"off\"\nkey = \"PREFIXoff:{id}\"\ntable = \"posts\"\nid = \"bigint\"\ncache = \"off\"\n";
    let bed = Bed::start(more);
    assert_eq!(bed.run(&["STRLEN", "@off:1"]).int(), 23);
    assert_eq!(bed.run(&["EXISTS", "@off:1", "@off:1", "@off:99"]).int(), 2);
    assert_eq!(bed.run(&["TYPE", "@off:1"]).text(), "string");
    assert_eq!((bed.run(&["TTL", "@off:1"]).int(), bed.run(&["TTL", "@off:99"]).int()), (-1, -2));
    assert_eq!(bed.run(&["GETEX", "@off:1", "EX", "5"]).text(), r#"{"id":1,"content":"p1"}"#);
    assert_eq!(bed.run(&["DUMP", "@off:1"]), Value::Nil);
    assert_eq!(bed.direct(&["EXISTS", "@off:1"]).int(), 0);
}

#[test]
fn a_read_whose_load_fails_is_an_error_and_never_says_absent() {
    let bed = Bed::start("");
    bed.db.execute("alter table posts rename to gone");
    for line in
        ["EXISTS @post:1", "STRLEN @post:1", "TYPE @post:1", "TTL @post:1", "DUMP @post:1", "MGET @post:1"]
    {
        let words: Vec<&str> = line.split(' ').collect();
        let said = bed.run(&words);
        assert!(said.error().contains("posts"), "{line}: {said:?}");
    }
    bed.db.execute("alter table gone rename to posts");
    assert_eq!(bed.run(&["STRLEN", "@post:1"]).int(), 23);
}

#[test]
fn the_proxys_own_keys_are_neither_shown_nor_named() {
    let bed = Bed::start("");
    for n in 0..50 {
        bed.direct(&["SET", &format!("dsproxy:{{x{n}}}:m:user:{n}"), "x"]);
    }
    bed.get("user:1");
    let own = |value: &Value| format!("{value:?}").contains("dsproxy:");
    assert!(!own(&bed.run(&["KEYS", "*"])));
    assert_eq!(bed.run(&["KEYS", "dsproxy:*"]).items(), []);
    let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
    loop {
        let page = bed.run(&["SCAN", &cursor, "COUNT", "1000"]);
        seen.extend(page.items()[1].items().to_vec());
        cursor = page.items()[0].text();
        if cursor == "0" {
            break;
        }
    }
    assert!(seen.contains(&bed.key("user:1").as_str().into()) && !seen.iter().any(own));
    for _ in 0..20 {
        assert!(!own(&bed.run(&["RANDOMKEY"])));
    }
    let mine = "dsproxy:{x1}:m:user:1";
    for line in [
        "GET K",
        "SET K v",
        "DEL K",
        "MGET a K",
        "MSET K v",
        "EXISTS K",
        "HGETALL K",
        "RENAME K {x1}b",
        "COPY {x1}b K",
        "LPUSH K v",
        "BLPOP K 1",
        "SUNIONSTORE K {x1}b",
        "OBJECT ENCODING K",
        "XADD K * a b",
        "EVAL return_1 1 K",
        "FCALL f 1 K",
        "WATCH K",
        "EXPIRE K 5",
        "XREAD STREAMS K 0",
        "SORT {x1}a STORE K",
        "BITOP AND {x1}d K",
        "ZUNIONSTORE K 1 {x1}z",
        "GEOSEARCHSTORE K {x1}g FROMLONLAT 1 1 BYRADIUS 1 m",
        "DUMP K",
        "UNLINK K",
        "TOUCH K",
        "PFMERGE K {x1}p",
        "BITFIELD K GET u8 0",
    ] {
        let words: Vec<&str> = line.split(' ').map(|word| if word == "K" { mine } else { word }).collect();
        let said = bed.run(&words);
        assert!(said.error().contains("the proxy's own"), "{line}: {said:?}");
    }
    let mut client = bed.proxy.connect();
    client.cmd(&["MULTI"]);
    assert!(client.cmd(&["GET", mine]).error().contains("own"));
    assert!(client.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
    // A value, a channel, a member may be called so.
    assert_eq!(bed.run(&["SET", "@plain", "dsproxy:x"]).text(), "OK");
    assert_eq!(bed.run(&["PUBLISH", "dsproxy:x", "y"]).int(), 0);
}

#[test]
fn a_key_that_fits_no_row_is_nil_or_a_mistake_as_configured() {
    let strict = "[[mapping]]\nname = \"strict\"\nkey = \"PREFIXstrict:{id}\"\ntable = \"users\"\nid = \"bigint\"\n\
                  on_bad_key = \"error\"\nmax = { id = 1000 }\nmax_key = 60\n";
    let bed = Bed::start(strict);
    let long = format!("@strict:{}1", "0".repeat(100));
    for key in
        ["@strict:abc", "@strict:007", "@strict:1001", "@strict:-1", "@strict:1; drop table users", &long]
    {
        for args in [vec!["GET", key], vec!["SET", key, "x"], vec!["MGET", "@a", key], vec!["EXISTS", key]] {
            let said = bed.run(&args);
            assert!(said.error().contains("none of mapping 'strict'"), "{args:?}: {said:?}");
            assert!(said.error().contains("id: bigint from 0 to 1000"));
        }
    }
    assert_eq!(bed.run(&["GET", "@strict:999"]), Value::Nil);
    assert_eq!(bed.get("strict:9"), user(9));
    assert_eq!(bed.loads("strict"), 2.0);
    assert_eq!(bed.run(&["GET", "@user:1'; drop table users; --"]), Value::Nil);
    assert_eq!(bed.loads("user"), 0.0);
}
