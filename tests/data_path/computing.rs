//! Commands that compute from the value of a mapped key, inside of `MULTI`: they answer what Redis answers, all of a transaction
//! happens once or not at all, and nobody's change is lost.

use crate::bed::{Bed, NO_CLOCK, PATIENCE};
use crate::support::{Proxy, Resp, Value, eventually};

const MORE: &str = r#"
[[mapping]]
name = "number"
key = "PREFIXnumber:{id}"
table = "numbers"
id = "text"
format = "text"
column = "n"
write = "behind"
[[mapping]]
name = "word"
key = "PREFIXword:{id}"
table = "words"
id = "text"
format = "text"
column = "w"
write = "behind"
[[mapping]]
name = "deck"
key = "PREFIXdeck:{id}"
table = "decks"
id = "text"
format = "hash"
write = "behind"
[[mapping]]
name = "line"
key = "PREFIXline:{id}"
table = "lines"
id = "text"
format = "text"
column = "l"
write = "behind"
mode = "append"
order_by = "n"
"#;
const TABLES: &str = "create table numbers (id text primary key, n bigint); \
    create table words (id text primary key, w text); \
    create table decks (id text primary key, a text, b bigint); \
    create table lines (n bigserial primary key, id text, l text)";

fn config(more: &str) -> String {
    format!("{more}\n{MORE}")
}

fn number(name: &str) -> String {
    format!("@number:{{s}}{name}")
}

fn row(bed: &Bed, name: &str) -> Option<String> {
    bed.one(&format!("select n::text from numbers where id = '{{s}}{name}'"))
}

fn flush(proxy: &Proxy) {
    assert_eq!(proxy.connect().cmd(&["PROXY", "FLUSH"]).int(), 0);
}

/// Runs these commands as one transaction.
fn exec(client: &mut Resp, bed: &Bed, commands: &[&[&str]]) -> Value {
    assert_eq!(client.cmd(&["MULTI"]).text(), "OK");
    for command in commands {
        assert_eq!(client.cmd(&bed.args(command)).text(), "QUEUED", "{command:?}");
    }
    client.cmd(&["EXEC"])
}

#[test]
fn a_transaction_answers_what_redis_answers() {
    let bed = Bed::start_with(&config(NO_CLOCK), TABLES);
    let transactions: &[&[&[&str]]] = &[
        &[
            &["INCR", "N"],
            &["GET", "N"],
            &["INCRBY", "N", "10"],
            &["DECR", "N"],
            &["DECRBY", "N", "5"],
            &["GET", "N"],
        ],
        &[&["SET", "N", "7"], &["INCR", "N"], &["DEL", "N"], &["INCR", "N"], &["EXISTS", "N"], &["GET", "N"]],
        &[
            &["INCR", "M"],
            &["INCR", "N"],
            &["INCR", "M"],
            &["MGET", "M", "N"],
            &["INCR", "PLAIN"],
            &["GET", "PLAIN"],
        ],
        &[
            &["APPEND", "W", "x"],
            &["APPEND", "W", "yz"],
            &["STRLEN", "W"],
            &["SETRANGE", "W", "1", "--"],
            &["GET", "W"],
        ],
        &[
            &["SETNX", "W", "no"],
            &["SETNX", "V", "yes"],
            &["GETSET", "V", "again"],
            &["GETDEL", "V"],
            &["GET", "V"],
        ],
        &[
            &["SET", "V", "1", "XX"],
            &["SET", "V", "2", "NX"],
            &["SET", "V", "3", "NX"],
            &["SET", "V", "4", "GET"],
            &["GET", "V"],
        ],
        &[
            &["MSETNX", "U", "1"],
            &["MSETNX", "U", "2"],
            &["GET", "U"],
            &["DEL", "U"],
            &["MSETNX", "U", "3"],
            &["GET", "U"],
        ],
        // What fails answers its error in its place, and the rest is executed.
        &[
            &["INCR", "W"],
            &["APPEND", "W", "!"],
            &["HSET", "W", "a", "b"],
            &["GET", "W"],
            &["INCRBY", "N", "x"],
            &["INCR", "N"],
        ],
        &[&["INCRBYFLOAT", "V", "0.5"], &["INCRBYFLOAT", "V", "-1e2"], &["GET", "V"]],
        &[
            &["HSET", "D", "a", "x", "b", "1"],
            &["HINCRBY", "D", "b", "41"],
            &["HGET", "D", "b"],
            &["HSETNX", "D", "a", "y"],
        ],
        &[
            &["HDEL", "D", "a"],
            &["HEXISTS", "D", "a"],
            &["HSETNX", "D", "a", "z"],
            &["HMSET", "D", "b", "5"],
            &["HMGET", "D", "a", "b"],
        ],
        &[
            &["DEL", "D"],
            &["HSET", "D", "b", "9"],
            &["HINCRBY", "D", "b", "1"],
            &["HGET", "D", "b"],
            &["INCR", "D"],
        ],
        &[&["GET", "N"], &["SETNX", "N", "nothing happens"], &["SET", "N", "nor here", "NX"]],
    ];
    for protocol in ["2", "3"] {
        bed.db.execute("truncate numbers, words, decks");
        bed.db.execute("insert into numbers values ('{s}n', 40); insert into words values ('{s}w', 'abc')");
        let (mut client, mut plain) = (bed.proxy.connect(), bed.proxy.connect());
        for client in [&mut client, &mut plain] {
            client.cmd(&["HELLO", protocol]);
        }
        let names = [
            ("N", "@number:{s}n", "{s}n"),
            ("M", "@number:{s}m", "{s}m"),
            ("W", "@word:{s}w", "{s}w"),
            ("V", "@word:{s}v", "{s}v"),
            ("U", "@word:{s}u", "{s}u"),
            ("D", "@deck:{s}d", "{s}d"),
            ("PLAIN", "{s}plain:a", "{s}plain:b"),
        ];
        for (_, mapped, other) in &names {
            client.cmd(&bed.args(&["PROXY", "INVALIDATE", mapped]));
            plain.cmd(&["DEL", other]);
        }
        client.cmd(&["DEL", "{s}plain:a"]);
        plain.cmd(&["SET", "{s}n", "40"]);
        plain.cmd(&["SET", "{s}w", "abc"]);
        for commands in transactions {
            let named = |mapped: bool| -> Vec<Vec<&str>> {
                let name = |word: &&'static str| match names.iter().find(|(name, ..)| name == word) {
                    Some((_, key, other)) => {
                        if mapped {
                            *key
                        } else {
                            *other
                        }
                    }
                    None => *word,
                };
                commands.iter().map(|command| command.iter().map(name).collect()).collect()
            };
            let (mapped, other) = (named(true), named(false));
            let slices = |commands: &[Vec<&'static str>]| commands.to_vec();
            let (mapped, other) = (slices(&mapped), slices(&other));
            let mapped: Vec<&[&str]> = mapped.iter().map(Vec::as_slice).collect();
            let other: Vec<&[&str]> = other.iter().map(Vec::as_slice).collect();
            let (said, redis) = (exec(&mut client, &bed, &mapped), exec(&mut plain, &bed, &other));
            assert_eq!(said, redis, "RESP{protocol} {commands:?}");
        }
        flush(&bed.proxy);
        // And the database has what the cache has.
        let at_last = plain.cmd(&["MGET", "{s}n", "{s}m", "{s}w", "{s}v", "{s}u"]);
        let stored = "select array[(select n::text from numbers where id = '{s}n'), (select n::text from numbers where id = '{s}m'), \
            (select w from words where id = '{s}w'), (select w from words where id = '{s}v'), (select w from words where id = '{s}u')]::text";
        let text = |value: &Value| if *value == Value::Nil { "NULL".to_owned() } else { value.text() };
        let expected: Vec<String> = at_last.items().iter().map(text).collect();
        assert_eq!(bed.one(stored), Some(format!("{{{}}}", expected.join(","))));
        assert_eq!(
            bed.one("select concat_ws(',', a, b) from decks where id = '{s}d'").as_deref(),
            Some("10")
        );
    }
}

#[test]
fn what_a_mapping_cannot_take_is_refused_as_it_is_queued() {
    let bed = Bed::start_with(&config(NO_CLOCK), TABLES);
    let mut client = bed.proxy.connect();
    let refused: &[(&[&str], &str)] = &[
        (&["APPEND", "@line:{s}a", "x"], "it appends rows"),
        (&["GETEX", "@number:{s}a", "EX", "5"], "not supported on keys of mapping 'number' inside of MULTI"),
        (&["MSETNX", "@number:{s}a", "1", "@number:{s}b", "2"], "inside of MULTI"),
        (&["LPUSH", "@number:{s}a", "1"], "not supported on keys of mapping 'number'"),
    ];
    for (command, words) in refused {
        assert_eq!(client.cmd(&["MULTI"]).text(), "OK");
        assert_eq!(client.cmd(&bed.args(&["INCR", "@number:{s}a"])).text(), "QUEUED");
        let said = client.cmd(&bed.args(command));
        assert!(said.error().contains(words), "{command:?}: {said:?}");
        assert!(client.cmd(&["EXEC"]).error().starts_with("EXECABORT"), "{command:?}");
    }
    // What the column does not take is said in its place, and nothing of it happens.
    let said = exec(&mut client, &bed, &[&["APPEND", "@number:{s}a", "x"], &["INCR", "@number:{s}a"]]);
    assert!(said.items()[0].error().contains("not an integer"), "{said:?}");
    assert_eq!(said.items()[1], Value::Int(1));
    flush(&bed.proxy);
    assert_eq!(row(&bed, "a").as_deref(), Some("1"));
}

#[test]
fn nobodys_change_is_lost_and_plain_keys_change_once() {
    let bed = Bed::start_with(&config("[write_behind]\nbatch_interval = \"10ms\"\n"), TABLES);
    let twin = bed.twin();
    bed.run(&["DEL", "{s}once"]);
    const CLIENTS: i64 = 6;
    const EACH: i64 = 20;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (bed, twin) = (&bed, &twin);
            scope.spawn(move || {
                let mut proxy = if client % 2 == 0 { bed.proxy.connect() } else { twin.connect() };
                let (a, b) = (number("a"), number("b"));
                for _ in 0..EACH {
                    let commands: &[&[&str]] = &[
                        &["INCR", &a],
                        &["INCR", "{s}once"],
                        &["DECRBY", &b, "2"],
                        &["GET", &a],
                        &["INCR", &a],
                    ];
                    let said = exec(&mut proxy, bed, commands);
                    let items = said.items();
                    // Between its two increments nobody else has come in.
                    let first = items[0].int();
                    assert_eq!((items[3].text(), items[4].int()), (first.to_string(), first + 1), "{said:?}");
                    assert_eq!(
                        (first % 2, items[1].int() * 2, items[2].int()),
                        (1, first + 1, -first - 1),
                        "{said:?}"
                    );
                }
            });
        }
    });
    flush(&bed.proxy);
    flush(&twin);
    let all = CLIENTS * EACH;
    for proxy in [&bed.proxy, &twin] {
        let mut client = proxy.connect();
        let seen = ["a", "b"].map(|name| client.cmd(&bed.args(&["GET", &number(name)])).text());
        assert_eq!(seen, [(2 * all).to_string(), (-2 * all).to_string()]);
    }
    assert_eq!(bed.run(&["GET", "{s}once"]).text(), all.to_string());
    assert_eq!((row(&bed, "a"), row(&bed, "b")), (Some((2 * all).to_string()), Some((-2 * all).to_string())));
    let conflicts = |proxy: &Proxy| proxy.metric("dsproxy_modify_conflicts_total{mapping=\"number\"}");
    assert!(conflicts(&bed.proxy) + conflicts(&twin) > 0.0, "nobody met anybody");
}

#[test]
fn who_watches_keys_is_told_that_they_have_changed() {
    let bed = Bed::start_with(&config(NO_CLOCK), TABLES);
    let (mut client, mut other, key) = (bed.proxy.connect(), bed.proxy.connect(), number("a"));
    for (change, executed) in [(Some("@number:{s}a"), false), (Some("@number:{s}z"), false), (None, true)] {
        client.cmd(&bed.args(&["WATCH", "@number:{s}z"]));
        client.cmd(&["MULTI"]);
        client.cmd(&bed.args(&["INCR", &key]));
        if let Some(change) = change {
            other.cmd(&bed.args(&["INCR", change]));
        }
        let said = client.cmd(&["EXEC"]);
        match change {
            // Not what it watches: it is computed from that.
            Some("@number:{s}a") => assert_eq!(said.items(), [Value::Int(2)]),
            _ if executed => assert_eq!(said.items(), [Value::Int(3)]),
            _ => assert_eq!(said, Value::Nil),
        }
    }
    // Pipelined, with others behind and before it.
    for args in
        [&["INCR", key.as_str()][..], &["MULTI"], &["INCR", &key], &["EXEC"], &["GET", &key], &["INCR", &key]]
    {
        client.send(&bed.args(args));
    }
    let said: Vec<Value> = (0..6).map(|_| client.recv()).collect();
    assert_eq!(said[0], Value::Int(4));
    assert_eq!(said[3].items(), [Value::Int(5)]);
    assert_eq!((&said[4], &said[5]), (&"5".into(), &Value::Int(6)));
}

#[test]
fn a_proxy_that_dies_at_exec_leaves_all_or_nothing() {
    let mut bed = Bed::durable_with(&config(NO_CLOCK), TABLES);
    for (point, done) in [("trial.durable", false), ("trial.applied", true), ("journal.durable:2", true)] {
        bed.crash_to_die_at(point);
        let mut client = bed.proxy.connect();
        client.cmd(&["MULTI"]);
        client.cmd(&bed.args(&["INCR", &number("a")]));
        client.cmd(&bed.args(&["DECR", &number("b")]));
        assert_eq!(client.try_cmd(&["EXEC"]), None, "{point}: it dies before it answers");
        bed.restart();
        let wanted = if done { ["1", "-1"].map(Value::from) } else { [const { Value::Nil }; 2] };
        let seen = [number("a"), number("b")].map(|key| bed.run(&["GET", &key]));
        assert_eq!(seen, wanted, "{point}");
        flush(&bed.proxy);
        let rows = [row(&bed, "a"), row(&bed, "b")].map(|row| row.map_or(Value::Nil, |row| (&*row).into()));
        assert_eq!(rows, wanted, "{point}");
        bed.run(&["DEL", &number("a"), &number("b")]);
        flush(&bed.proxy);
    }
}

#[test]
fn who_goes_or_cannot_be_served_leaves_nothing_behind() {
    let bed = Bed::start_with(
        &config(
            "[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 1\n[limits]\ndedicated_connections = 1\n[write_behind]\nbatch_interval = \"10ms\"\n",
        ),
        TABLES,
    );
    let key = number("a");
    // The one connection that there may be is taken.
    let mut blocked = bed.proxy.connect();
    blocked.send(&["BLPOP", "{s}never", "0"]);
    let mut client = bed.proxy.connect();
    eventually(PATIENCE, "it is refused in words", || {
        format!("{:?}", exec(&mut client, &bed, &[&["INCR", &key]])).contains("limits.dedicated_connections")
    });
    drop(blocked);
    eventually(PATIENCE, "the connection is free", || {
        !matches!(exec(&mut client, &bed, &[&["INCR", &key]]), Value::Error(_))
    });
    for _ in 0..20 {
        let mut leaver = bed.proxy.connect();
        leaver.cmd(&["MULTI"]);
        leaver.cmd(&bed.args(&["INCR", &key]));
        leaver.send(&["EXEC"]);
    }
    eventually(PATIENCE, "others are served", || {
        matches!(exec(&mut client, &bed, &[&["GETSET", &key, "5"]]), Value::Array(_))
    });
    eventually(PATIENCE, "cache and database agree", || {
        flush(&bed.proxy);
        let cached = bed.get(&key[1..]);
        row(&bed, "a") == Some(cached)
    });
}
