//! Commands that compute a value from the one that is there: as Redis does, and no update is lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::bed::{Bed, NO_CLOCK, PATIENCE, user};
use crate::reading::{node_of, with_key};
use crate::support::{Proxy, Value, eventually};

const MORE: &str = r#"
[[mapping]]
name = "word"
key = "PREFIXword:{id}"
table = "words"
id = "bigint"
format = "text"
column = "word"
write = "behind"
[[mapping]]
name = "number"
key = "PREFIXnumber:{id}"
table = "words"
id = "bigint"
format = "text"
column = "n"
write = "behind"
[[mapping]]
name = "price"
key = "PREFIXprice:{id}"
table = "words"
id = "bigint"
format = "text"
column = "price"
write = "behind"
"#;

fn bed(more: &str) -> Bed {
    Bed::start_with(
        &format!("{more}\n{MORE}"),
        "create table words (id bigint primary key, word text, n bigint, price numeric(12, 4))",
    )
}

/// Flushed while the commands run.
const QUICK: &str = "[write_behind]\nbatch_interval = \"30ms\"\n";

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `lines` on a mapped key and on a plain one that begin with `value`, and compares every reply and every value.
fn same_as_redis(bed: &Bed, key: &str, column: &str, value: Option<&str>, lines: &[&str]) {
    let (mapped, plain) = (bed.key(key), bed.key("plain"));
    let id = key.split(':').next_back().unwrap();
    for (protocol, cached) in [("2", true), ("3", false)] {
        let mut node = node_of(bed, &plain, protocol);
        let mut proxied = bed.proxy.connect();
        proxied.cmd(&["HELLO", protocol]);
        node.cmd(&["DEL", &plain]);
        proxied.cmd(&["DEL", &mapped]);
        if let Some(value) = value {
            node.cmd(&["SET", &plain, value]);
            proxied.cmd(&["SET", &mapped, value]);
        }
        for line in lines {
            if !cached {
                // The cache loses it: what the process knows counts.
                bed.direct(&["DEL", &format!("@{key}")]);
            }
            let said = proxied.cmd_raw(&with_key(line, &mapped));
            let wanted = node.cmd_raw(&with_key(line, &plain));
            assert_eq!(show(&said), show(&wanted), "{line} on {value:?} in RESP{protocol}");
            let (is, should) = (proxied.cmd_raw(&["GET", &mapped]), node.cmd_raw(&["GET", &plain]));
            assert_eq!(show(&is), show(&should), "after {line} on {value:?} in RESP{protocol}");
        }
        let should = match node.cmd(&["GET", &plain]) {
            Value::Nil => None,
            value => Some(value.text()),
        };
        eventually(PATIENCE, "the row is what Redis has", || {
            let column = format!("select {column}::text from words where id = {id}");
            bed.db.query(&column).first().and_then(|row| row[0].clone()) == should
        });
    }
}

const STRINGS: &[&str] = &[
    "APPEND @KEY x",
    "APPEND @KEY yz",
    "SETRANGE @KEY 1 Q",
    "SETRANGE @KEY 0 RS",
    "SETRANGE @KEY 2 longer-than-before",
    "SETRANGE @KEY 0 ",
    "SETRANGE @KEY -1 x",
    "SETRANGE @KEY x x",
    "SETRANGE @KEY 536870912 x",
    "INCR @KEY",
    "INCRBY @KEY x",
    "INCRBYFLOAT @KEY 1",
    "SETNX @KEY never",
    "SET @KEY never NX",
    "SET @KEY never NX GET",
    "SET @KEY a XX",
    "SET @KEY b XX GET",
    "SET @KEY c GET",
    "SET @KEY c get xx EX 100",
    "SET @KEY d NX XX",
    "SET @KEY d GET EX",
    "SET @KEY d GET EX 0",
    "SET @KEY d GET EX x",
    "GETEX @KEY EX 100",
    "GETEX @KEY pxat 99999999999999",
    "GETEX @KEY PERSIST",
    "GETEX @KEY EX 0",
    "GETEX @KEY PX -1",
    "GETEX @KEY EX x",
    "GETEX @KEY EX",
    "GETEX @KEY PERSIST 1",
    "GETEX @KEY EX 10 PX 10",
    "SET @KEY d GET KEEPTTL",
    "SET @KEY d GET KEEPTTL EX 5",
    "GETSET @KEY e",
    "GETDEL @KEY",
    "GETDEL @KEY",
    "SET @KEY f XX",
    "SET @KEY f XX GET",
    "SETRANGE @KEY 0 ",
    "SETRANGE @KEY 0 front",
    "GETDEL @KEY",
    "GETSET @KEY g",
    "GETDEL @KEY",
    "SETNX @KEY h",
    "MSETNX @KEY never",
    "GETDEL @KEY",
    "MSETNX @KEY h",
    "GETDEL @KEY",
    "SET @KEY i NX GET",
    "GETDEL @KEY",
    "SET @KEY j NX",
    "GETDEL @KEY",
    "SET @KEY k GET",
    "GETDEL @KEY",
    "APPEND @KEY l",
    "INCR",
    "SETRANGE @KEY 1",
];

const NUMBERS: &[&str] = &[
    "INCR @KEY",
    "DECR @KEY",
    "DECR @KEY",
    "INCRBY @KEY 41",
    "DECRBY @KEY 1000",
    "INCRBY @KEY -5",
    "DECRBY @KEY -5",
    "INCRBY @KEY 1.5",
    "INCRBY @KEY +1",
    "INCRBY @KEY 01",
    "INCRBY @KEY 9223372036854775808",
    "DECRBY @KEY -9223372036854775808",
    "INCRBY @KEY 9223372036854775807",
    "INCRBY @KEY 9223372036854775807",
    "INCRBY @KEY 9223372036854775807",
    "DECRBY @KEY 9223372036854775807",
    "DECRBY @KEY 9223372036854775807",
    "DECRBY @KEY 9223372036854775807",
    "APPEND @KEY 7",
    "SETRANGE @KEY 0 1",
    "GETSET @KEY 12",
    "STRLEN @KEY",
    "INCRBYFLOAT @KEY 3",
];

#[test]
fn strings_are_what_redis_makes_of_them() {
    let bed = bed(QUICK);
    for (id, value) in
        [(1, None), (2, Some("")), (3, Some("abc")), (4, Some("Ada \u{e4}\u{20ac}")), (5, Some("17"))]
    {
        // A text of UTF-8 cannot be cut in the middle of a character: there Redis' and ours part.
        let whole = |line: &&&str| id != 4 || !line.starts_with("SETRANGE");
        let lines: Vec<&str> = STRINGS.iter().filter(whole).copied().collect();
        let lines = match value {
            None => [
                &["GETDEL @KEY", "INCR @KEY", "GETDEL @KEY", "INCRBYFLOAT @KEY 0.1", "DECRBY @KEY 3"],
                &lines[..],
            ]
            .concat(),
            Some(_) => lines,
        };
        // `HSET` on no value would make a hash of the key; there is one here.
        same_as_redis(&bed, &format!("word:{id}"), "word", value, &lines);
    }
}

#[test]
fn numbers_are_what_redis_makes_of_them() {
    let bed = bed(QUICK);
    for (id, value) in [(1, None), (2, Some("0")), (3, Some("-17")), (4, Some("9223372036854775806"))] {
        same_as_redis(&bed, &format!("number:{id}"), "n", value, NUMBERS);
        same_as_redis(&bed, &format!("word:{id}"), "word", value, NUMBERS);
    }
}

#[test]
fn sums_of_floats_have_the_digits_of_redis() {
    let bed = bed(QUICK);
    let mut lines: Vec<String> = [
        "0.1",
        "0.2",
        "-0.3",
        "1e3",
        "-1e-5",
        ".5",
        "5.",
        "+1",
        "1e17",
        "-1e17",
        "3.0e0",
        "abc",
        "",
        "1e",
        "inf",
        "-inf",
        "nan",
        "1e4932",
        "1e5000",
        "1e-5000",
        "12345678901234567890.123456789",
        "-12345678901234567890.123456789",
        "0",
        "-0",
        " 1",
        "1 ",
    ]
    .iter()
    .map(|by| format!("INCRBYFLOAT @KEY {by}"))
    .collect();
    // The same numbers every time.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..300 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let (whole, digits) =
            ((seed >> 40) as i64 - (1 << 23), (seed & 0xffff_ffff) % 10_u64.pow((seed % 9) as u32 + 1));
        lines.push(format!("INCRBYFLOAT @KEY {whole}.{digits}e{}", (seed >> 33) as i64 % 12 - 6));
    }
    let lines: Vec<&str> =
        lines.iter().map(String::as_str).filter(|line| line.split(' ').count() == 3).collect();
    same_as_redis(&bed, "word:1", "word", Some("10.50"), &lines);
    same_as_redis(&bed, "word:2", "word", Some("3.0e3"), &lines[..20]);
    same_as_redis(&bed, "word:3", "word", Some("abc"), &lines[..3]);
}

#[test]
fn what_the_table_cannot_take_is_refused_and_nothing_happens() {
    let bed = bed(NO_CLOCK);
    bed.db.execute("insert into words values (1, 'abc', 5, 1.5)");
    for (line, wanted) in [
        (&["APPEND", "@number:1", "x"][..], "mapping 'number': column 'n'"),
        (&["SETRANGE", "@number:1", "0", "x"], "mapping 'number': column 'n'"),
        (&["SET", "@number:1", "x", "GET"], "mapping 'number': column 'n'"),
        (&["INCRBYFLOAT", "@number:1", "0.5"], "mapping 'number': column 'n'"),
        (&["INCRBYFLOAT", "@price:1", "123456789"], "mapping 'price': column 'price'"),
        (&["SETRANGE", "@word:1", "100000000", "x"], "NUL"),
        (&["APPEND", "@user:1", "x"], "mapping 'user'"),
        (&["SET", "@user:1", r#"{"nam":"x"}"#, "XX"], "'nam'"),
        (&["INCR", "@user:1"], "ERR value is not an integer or out of range"),
        (&["SETNX", "@post:1", "x"], "mapping 'post' is read-only"),
        (&["GETDEL", "@post:1"], "mapping 'post' is read-only"),
        (&["INCR", "@user_data:1"], "mapping 'user_data'"),
    ] {
        let reply = bed.run(line);
        assert!(reply.error().contains(wanted), "{line:?}: {reply:?}");
    }
    assert_eq!(
        (bed.get("number:1"), bed.get("word:1"), bed.get("user:1")),
        ("5".into(), "abc".into(), user(1))
    );
    assert_eq!(bed.get("price:1"), "1.5000");
    assert_eq!(bed.waiting("number") + bed.waiting("word") + bed.waiting("user") + bed.waiting("price"), 0.0);
}

#[test]
fn documents_are_swapped_and_deleted_as_a_whole() {
    let bed = bed("[write_behind]\nbatch_interval = \"1s\"\n");
    let (ada, eve) = (r#"{"name":"Ada"}"#, r#"{"name":"Eve","age":9}"#);
    assert_eq!(bed.run(&["GETSET", "@user:1", ada]).text(), user(1));
    assert_eq!(bed.run(&["SET", "@user:1", eve, "GET"]).text(), ada);
    assert_eq!(bed.run(&["SETNX", "@user:1", ada]).int(), 0);
    assert_eq!(bed.run(&["SET", "@user:1", ada, "NX"]), Value::Nil);
    assert_eq!(bed.run(&["APPEND", "@user:1", " "]).int(), eve.len() as i64 + 1);
    assert_eq!(bed.run(&["GETDEL", "@user:2"]).text(), user(2));
    assert_eq!(bed.run(&["GETDEL", "@user:2"]), Value::Nil);
    assert_eq!(bed.run(&["SETNX", "@user:999", ada]).int(), 1);
    assert_eq!(bed.run(&["GET", "@user:2"]), Value::Nil);
    let rows = || {
        bed.one("select string_agg(id || name || coalesce(age, 0), ' ' order by id) from users where id in (1, 2, 999)")
    };
    eventually(PATIENCE, "the rows are written", || rows().as_deref() == Some("1Eve9 999Ada0"));
}

#[test]
fn commands_of_one_connection_keep_their_order() {
    let bed = bed(NO_CLOCK);
    let lines = [
        "SET @number:1 5",
        "INCR @number:1",
        "GET @number:1",
        "INCR @number:1",
        "INCR @number:1",
        "SET @number:1 100",
        "GET @number:1",
        "INCRBY @number:1 7",
        "DEL @number:1",
        "GET @number:1",
        "INCR @number:1",
        "MGET @number:1",
        "SET @number:1 1 GET",
        "SETNX @number:1 2",
        "DECR @number:1",
        "INCR @number:2",
        "INCR @number:3",
        "EXISTS @number:1",
    ];
    let commands: Vec<Vec<String>> =
        lines.iter().map(|line| bed.args(&line.split(' ').collect::<Vec<_>>())).collect();
    let wanted = [
        "+OK", ":6", "$6", ":7", ":8", "+OK", "$100", ":107", ":1", "nil", ":1", "*1", "$1", ":0", ":0",
        ":1", ":1", ":1",
    ];
    for _ in 0..5 {
        bed.run(&["DEL", "@number:1", "@number:2", "@number:3"]);
        let replies = bed.proxy.connect().pipeline(&commands);
        let said: Vec<String> = replies
            .iter()
            .map(|reply| match reply {
                Value::Int(number) => format!(":{number}"),
                Value::Simple(text) => format!("+{text}"),
                Value::Bulk(text) => format!("${}", show(text)),
                Value::Nil => "nil".to_owned(),
                Value::Array(items) => format!("*{}", items[0].text()),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(said, wanted);
    }
}

/// Counts up from many connections to `proxies`, while entries vanish and others write; answers what was acknowledged.
fn count_up(bed: &Bed, proxies: &[&Proxy], key: &str, evict: bool) -> u64 {
    let (done, end) = (AtomicU64::new(0), Instant::now() + Duration::from_millis(1500));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..64)
            .map(|n| {
                let (mut client, done) = (proxies[n % proxies.len()].connect(), &done);
                let incr = bed.args(&["INCR", &format!("@{key}")]);
                scope.spawn(move || {
                    while Instant::now() < end {
                        match client.cmd(&incr) {
                            Value::Int(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        while evict && writers.iter().any(|writer| !writer.is_finished()) {
            let key = format!("@{key}");
            bed.direct(&["DEL", &key]);
            std::thread::sleep(Duration::from_millis(7));
        }
    });
    done.into_inner()
}

#[test]
fn no_increment_is_lost_among_sixty_four_connections() {
    let bed = bed(&format!("[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 4\n{QUICK}"));
    let done = count_up(&bed, &[&bed.proxy], "number:1", false);
    assert!(done > 64, "{done}");
    assert_eq!(bed.get("number:1"), done.to_string());
    // Evicted while they are not in the database yet, and after.
    let more = count_up(&bed, &[&bed.proxy], "number:1", true);
    let sum = (done + more).to_string();
    assert_eq!(bed.get("number:1"), sum);
    eventually(PATIENCE, "the row has it", || {
        bed.one("select n from words where id = 1").as_deref() == Some(&sum)
    });
}

#[test]
fn no_increment_is_lost_between_two_proxies() {
    let bed = bed(&format!("[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 2\n{QUICK}"));
    let other = bed.twin();
    let done = count_up(&bed, &[&bed.proxy, &other], "number:1", false);
    assert!(done > 64, "{done}");
    let sum = done.to_string();
    assert_eq!(
        (bed.get("number:1"), other.connect().cmd(&bed.args(&["GET", "@number:1"])).text()),
        (sum.clone(), sum.clone())
    );
    eventually(PATIENCE, "the row has it", || {
        bed.one("select n from words where id = 1").as_deref() == Some(&sum)
    });
    let conflicts = |proxy: &Proxy| proxy.metric("dsproxy_modify_conflicts_total{mapping=\"number\"}");
    assert!(conflicts(&bed.proxy) + conflicts(&other) > 0.0, "they have not met");
}

#[test]
fn a_killed_proxy_keeps_every_acknowledged_increment() {
    let mut bed = Bed::durable_with(
        &format!("{QUICK}{MORE}"),
        "create table words (id bigint primary key, word text, n bigint, price numeric(12, 4))",
    );
    let (acknowledged, attempted) = (AtomicU64::new(0), AtomicU64::new(0));
    for round in 0..3 {
        std::thread::scope(|scope| {
            for _ in 0..16 {
                let (mut client, incr) = (bed.proxy.connect(), bed.args(&["INCR", "@number:1"]));
                let (acknowledged, attempted) = (&acknowledged, &attempted);
                scope.spawn(move || {
                    loop {
                        attempted.fetch_add(1, Ordering::Relaxed);
                        match client.try_cmd(&incr) {
                            Some(Value::Int(_)) => drop(acknowledged.fetch_add(1, Ordering::Relaxed)),
                            Some(other) => panic!("{other:?}"),
                            None => return,
                        }
                    }
                });
            }
            let enough = acknowledged.load(Ordering::Relaxed) + 30 + 40 * round;
            eventually(PATIENCE, "some are acknowledged", || acknowledged.load(Ordering::Relaxed) > enough);
            bed.proxy.signal(rustix::process::Signal::KILL);
        });
        bed.restart();
        let count: u64 = bed.get("number:1").parse().unwrap();
        let (least, most) = (acknowledged.load(Ordering::Relaxed), attempted.load(Ordering::Relaxed));
        assert!((least..=most).contains(&count), "{least} <= {count} <= {most}");
        let row = || bed.one("select n from words where id = 1").and_then(|n| n.parse::<u64>().ok());
        eventually(PATIENCE, "the row has what readers see", || row() == bed.get("number:1").parse().ok());
    }
}
