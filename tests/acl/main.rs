//! Users and their rules: the same script on a real server and on the proxy, and what the proxy adds to it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

#[path = "../command_table/samples.rs"]
mod samples;
#[path = "../support/mod.rs"]
mod support;

use support::{PlainRedis, Proxy, Resp, SharedStack, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

/// Rules that the tests hold against a server, by user.
const USERS: &[(&str, &str)] = &[
    ("full", "on nopass ~* &* +@all"),
    ("nothing", "on nopass"),
    ("reader", "on >secret-reader ~* resetchannels +@read"),
    ("app", "on >secret-app ~{t}app:* ~a &news.* +@all -@dangerous -@admin"),
    ("split", "on nopass %R~{t}r* %W~{t}w* %RW~{t}both %R~a %W~d &* +@all"),
    ("subs", "on nopass ~* &* -@all +config|get +client +object|encoding -client|list +select|0"),
    ("minus", "on nopass ~* &* +@all -config|set -flushall -@scripting +eval -select +select|0"),
    ("cats", "on nopass ~* &* -@all +@string +@hash -@write +set +@connection +@pubsub"),
    ("parts", "on nopass ~{t}x* +get (+set ~{t}y* &ch) (%R~a +mget &other.*)"),
    ("channels", "on nopass ~* &news.* &exact &[ab]* +@all"),
    ("keyless", "on nopass &* +@all"),
    ("odd", "on nopass %RW~k %R~k2 ~h?llo ~w[a-c] +@all -@all +@geo +@stream +@list +zadd"),
];

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(|word| if word == "''" { String::new() } else { word.to_owned() }).collect()
}

/// A server and the proxy, each with [`USERS`].
struct Bed {
    proxy: Proxy,
    plain: PlainRedis,
    _stack: SharedStack,
}

impl Bed {
    fn start(more: &str) -> Self {
        let stack = SharedStack::get();
        let users: Vec<String> = USERS.iter().map(|(name, rules)| format!("{name} {rules}")).collect();
        let config = format!(
            "[acl]\nusers = {users:?}\nscripts = \"trust\"\n{more}\n[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 3\n"
        );
        let proxy = Proxy::for_nodes(stack.redis_nodes(), None, &config);
        let plain = PlainRedis::start(&[]);
        let mut admin = Resp::connect(plain.addr());
        for (name, rules) in USERS {
            let command: Vec<String> =
                ["ACL", "SETUSER", name].map(str::to_owned).into_iter().chain(words(rules)).collect();
            assert_eq!(admin.cmd(&command), Value::Simple("OK".into()), "{name}");
        }
        Self { proxy, plain, _stack: stack }
    }

    /// Connections to the proxy and to the server.
    fn connect(&self) -> [Resp; 2] {
        [self.proxy.connect(), Resp::connect(self.plain.addr())]
    }

    fn connect_as(&self, user: &str, password: &str) -> [Resp; 2] {
        let mut both = self.connect();
        both.iter_mut().for_each(|one| assert_eq!(one.cmd(&["AUTH", user, password]).text(), "OK", "{user}"));
        both
    }
}

/// Sends a line to both; what differs goes into `differences`.
fn compare<W: AsRef<[u8]>>(both: &mut [Resp; 2], line: &[W], differences: &mut Vec<String>, about: &str) {
    let [ours, theirs] = both.each_mut().map(|one| one.cmd(line));
    if ours != theirs {
        let shown: Vec<_> = line.iter().map(|word| String::from_utf8_lossy(word.as_ref())).collect();
        differences.push(format!("{about}: {}\n   ours: {ours:?}\n  theirs: {theirs:?}", shown.join(" ")));
    }
}

fn none(differences: Vec<String>) {
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn categories_hold_what_they_hold_on_a_server() {
    let bed = Bed::start("");
    let mut both = bed.connect();
    let [ours, theirs] = both.each_mut().map(|one| one.cmd(&["ACL", "CAT"]));
    assert_eq!(ours, theirs);
    // Of Redis 7.2; the table has them, since clients send them whatever the server is. PROXY is our own.
    let newer = ["client|setinfo", "client|no-touch"];
    for category in ours.items() {
        let category = category.text();
        let [ours, theirs] = both.each_mut().map(|one| -> BTreeSet<String> {
            one.cmd(&["ACL", "CAT", &category]).items().iter().map(Value::text).collect()
        });
        let beyond: Vec<_> = ours
            .symmetric_difference(&theirs)
            .filter(|name| !newer.contains(&name.as_str()) && !name.starts_with("proxy"))
            .collect();
        assert!(beyond.is_empty(), "{category}: {beyond:?}");
    }
}

/// Every sample command of the table for every user: whether it is allowed, and what is said if not.
#[test]
fn every_command_is_judged_as_by_a_server() {
    let bed = Bed::start("");
    let mut both = bed.connect();
    let mut differences = Vec::new();
    let more = [
        "PUBLISH news.a m",
        "PUBLISH other m",
        "SUBSCRIBE exact other",
        "SUBSCRIBE news.1 exact",
        "PSUBSCRIBE news.*",
        "PSUBSCRIBE news.1",
        "SSUBSCRIBE abc",
        "SPUBLISH zzz m",
        "UNSUBSCRIBE other",
        "CONFIG GET *",
        "CONFIG SET a b",
        "CONFIG RESETSTAT",
        "CLIENT LIST",
        "CLIENT ID",
        "OBJECT HELP",
        "SELECT 0",
        "SELECT 1",
        "PING",
        "AUTH x",
        "HELLO",
        "FLUSHALL",
        "KEYS *",
        "SCAN 0",
        "DBSIZE",
        "MULTI",
        "EXEC",
        "ACL LIST",
        "ACL WHOAMI",
        "SORT a BY w_* GET x_*",
        "GET {t}app:1",
        "GET {t}r1",
        "SET {t}r1 v",
        "SET {t}w1 v",
        "SET {t}w1 v GET",
        "GET {t}w1",
        "SET {t}both v GET",
        "STRLEN {t}w1",
        "COPY {t}r1 {t}w1",
        "COPY {t}w1 {t}r1",
        "MGET {t}x1 a",
        "SET {t}y1 v",
        "GET hello",
        "LPUSH wb 1",
        "LPUSH wd 1",
        "GEORADIUS a 1 2 3 m STORE d",
        "GEORADIUS d 1 2 3 m STORE a",
        "nosuch",
        "GET",
        "SUBSCRIBE",
    ];
    // Redis finds the keys of this one in another order.
    let is_compared = |sample: &&&str| **sample != "ZUNIONSTORE d 1abc k";
    for sample in samples::VALID.iter().chain(samples::MALFORMED).chain(&more).filter(is_compared) {
        for (user, _) in USERS {
            let mut line = vec!["ACL".to_owned(), "DRYRUN".to_owned(), (*user).to_owned()];
            line.extend(words(sample));
            compare(&mut both, &line, &mut differences, "dryrun");
        }
    }
    none(differences);
}

#[test]
fn users_are_shown_as_on_a_server() {
    let bed = Bed::start("");
    let mut both = bed.connect();
    let mut differences = Vec::new();
    compare(&mut both, &["ACL", "USERS"], &mut differences, "");
    for name in ["full", "nothing", "reader", "app", "split", "keyless", "channels", "default", "nosuch"] {
        compare(&mut both, &["ACL", "GETUSER", name], &mut differences, "");
    }
    both.iter_mut().for_each(|one| drop(one.cmd(&["HELLO", "3"])));
    compare(&mut both, &["ACL", "GETUSER", "parts"], &mut differences, "RESP3");
    compare(&mut both, &["ACL", "GETUSER", "nosuch"], &mut differences, "RESP3");
    // Single commands stand in the order of a table, which differs: compared as sets of words.
    let lists = both.each_mut().map(|one| -> Vec<BTreeSet<String>> {
        let list = one.cmd(&["ACL", "LIST"]);
        list.items().iter().map(|line| words(&line.text()).into_iter().collect()).collect()
    });
    for (ours, theirs) in lists[0].iter().zip(&lists[1]) {
        if ours != theirs {
            differences.push(format!("ours: {ours:?}\ntheirs: {theirs:?}"));
        }
    }
    none(differences);
}

/// Whatever rules are given: accepted or refused in the same words, and the same rules afterwards.
#[test]
fn random_rules_are_taken_as_by_a_server() {
    use rand::prelude::*;
    const RULES: &[&str] = &[
        "on",
        "off",
        "ON",
        "nopass",
        "resetpass",
        "reset",
        "resetkeys",
        "allkeys",
        "~*",
        "~a*",
        "~",
        "~b c",
        "%R~x",
        "%W~x",
        "%RW~y",
        "%X~z",
        "%~q",
        "%RR~q",
        "%R",
        "&*",
        "&ch",
        "&",
        "resetchannels",
        "allchannels",
        "allcommands",
        "nocommands",
        "+@all",
        "-@all",
        "+@read",
        "-@write",
        "+@nosuch",
        "-@dangerous",
        "+@FAST",
        "+get",
        "-get",
        "+nosuch",
        "-nosuch",
        "+config",
        "-config",
        "+config|get",
        "-config|set",
        "+config|nosuch",
        "-config|nosuch",
        "+config|set|x",
        "+select|0",
        "+select|",
        "-select|0",
        "+",
        "-",
        "+@",
        "(+get ~s*)",
        "(+get",
        "~t*)",
        "(",
        "()",
        "(foo)",
        "clearselectors",
        "<pw",
        "<nopw",
        "#12",
        "!12",
        "skip-sanitize-payload",
        "sanitize-payload",
        "foo",
        "",
        "%rw~lower",
        "+GET",
        "|",
        "+|x",
        "+debug|sleep",
        "#c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f2",
    ];
    let bed = Bed::start("");
    let mut both = bed.connect();
    let mut differences = Vec::new();
    let seed: u64 = rand::random();
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for round in 0..400 {
        let name = format!("r{}", round % 7);
        let mut line = vec!["ACL".to_owned(), "SETUSER".to_owned(), name.clone()];
        for _ in 0..random.random_range(0..6) {
            line.push((*RULES.choose(&mut random).unwrap()).to_owned());
        }
        let [ours, theirs] = both.each_mut().map(|one| one.cmd(&line));
        // Rules that may hold a password are not repeated.
        let shown = |reply: &Value| match reply {
            Value::Error(text) if ["'<", "'#", "'!", "'>"].iter().any(|start| text.contains(start)) => {
                text.rsplit(": ").next().unwrap().to_owned()
            }
            other => format!("{other:?}"),
        };
        if shown(&ours) != shown(&theirs) {
            differences.push(format!("seed {seed}: {line:?}\n   ours: {ours:?}\n  theirs: {theirs:?}"));
        }
        // All but the commands, which are told in another order.
        let facts = both.each_mut().map(|one| match one.cmd(&["ACL", "GETUSER", &name]) {
            Value::Array(mut fields) => {
                let commands: BTreeSet<String> = words(&fields[5].text()).into_iter().collect();
                fields.truncate(10);
                fields.remove(5);
                (fields, commands)
            }
            _ => Default::default(),
        });
        if facts[0] != facts[1] {
            differences
                .push(format!("seed {seed}: {line:?}\n   ours: {:?}\n  theirs: {:?}", facts[0], facts[1]));
            break;
        }
        for probe in ["GET a1", "SET x v", "CONFIG GET a", "SELECT 0", "PUBLISH ch m", "EVAL s 1 x", "KEYS *"]
        {
            let mut line = vec!["ACL".to_owned(), "DRYRUN".to_owned(), name.clone()];
            line.extend(words(probe));
            compare(&mut both, &line, &mut differences, &format!("seed {seed}"));
        }
    }
    none(differences);
}

/// What users are told when they really send commands; scenes begin with the user.
#[test]
fn refusals_are_told_as_by_a_server() {
    let bed = Bed::start("");
    let scenes: &[(&str, &str, &[&str])] = &[
        (
            "app",
            "secret-app",
            &[
                "SET {t}app:1 v",
                "GET {t}app:1",
                "GET {t}other",
                "MGET {t}app:1 {t}other",
                "FLUSHALL",
                "CONFIG GET a",
                "ACL LIST",
                "ACL WHOAMI",
                "PUBLISH other m",
                "PUBLISH news.1 m",
                "EVAL return 1 {t}x",
                "EVAL return(1) 1 {t}other",
                "EVAL return(1) 1 {t}app:1",
                "MULTI",
                "GET {t}app:1",
                "EXEC",
                "MULTI",
                "GET {t}other",
                "EXEC",
                "MULTI",
                "GET {t}app:1",
                "FLUSHALL",
                "DISCARD",
                "EXEC",
                "WATCH {t}other",
                "WATCH {t}app:1",
                "UNWATCH",
                "nosuch",
                "GET",
                "CONFIG NOSUCH",
                "SUBSCRIBE other",
                "PSUBSCRIBE news.1",
                "BLPOP {t}other 0",
                "XREAD BLOCK 0 STREAMS {t}other 0",
                "SORT {t}app:1 BY w_*",
                "SORT {t}app:1 GET x_*",
                "OBJECT ENCODING {t}other",
                "RESET",
                "ACL WHOAMI",
                "PING",
            ],
        ),
        (
            "reader",
            "secret-reader",
            &[
                "GET {t}app:1",
                "SET {t}app:1 v",
                "MULTI",
                "PING",
                "CLIENT ID",
                "HELLO 2 AUTH reader wrong",
                "AUTH reader wrong",
                "AUTH full anything",
                "SET {t}app:1 w",
                "ACL WHOAMI",
                "AUTH nosuch x",
                "ACL WHOAMI",
            ],
        ),
        (
            "minus",
            "",
            &[
                "SELECT 0",
                "SELECT 1",
                "CONFIG SET a b",
                "FLUSHALL",
                "MULTI",
                "FLUSHALL",
                "EXEC",
                "SCRIPT EXISTS x",
                "EVAL return(1) 0",
            ],
        ),
        (
            "subs",
            "",
            &[
                "SELECT 0",
                "CLIENT GETNAME",
                "CLIENT LIST",
                "GET a",
                "OBJECT ENCODING {t}nosuch",
                "OBJECT FREQ a",
                "PING",
            ],
        ),
        ("nothing", "", &["GET a", "PING", "AUTH default x", "GET {t}nosuch"]),
        ("nothing", "", &["MULTI", "QUIT"]),
        ("cats", "", &["SET {t}s v", "APPEND {t}s v", "GET {t}s", "MULTI", "EXEC"]),
    ];
    let mut differences = Vec::new();
    for (user, password, lines) in scenes {
        let mut both = bed.connect_as(user, password);
        for line in *lines {
            compare(&mut both, &words(line), &mut differences, user);
        }
    }
    let mut both = bed.connect();
    for line in [
        "AUTH x",
        "AUTH a b c",
        "ACL LOG x",
        "ACL LOG 1 2",
        "ACL LOAD",
        "ACL SAVE",
        "ACL DELUSER default",
        "ACL DELUSER nosuch",
        "ACL DRYRUN",
        "ACL DRYRUN zz GET a",
        "ACL GETUSER",
        "ACL SETUSER",
        "ACL WHOAMI x",
        "CLIENT KILL USER nosuch",
        "HELLO 3 AUTH a",
        "HELLO 3 AUTH a b",
        "ACL NOSUCH",
        "ACL",
    ] {
        compare(&mut both, &words(line), &mut differences, "default");
    }
    both.iter_mut().for_each(|one| drop(one.cmd(&["HELLO", "2"])));
    // What was refused stands in the log; when and by which connection differs.
    let logs = both.each_mut().map(|one| {
        let log = one.cmd(&["ACL", "LOG", "100"]);
        log.items().iter().map(|entry| entry.items()[..10].to_vec()).collect::<Vec<_>>()
    });
    assert_eq!(logs[0], logs[1]);
    assert!(logs[0].len() > 20);
    compare(&mut both, &["ACL", "LOG", "RESET"], &mut differences, "");
    compare(&mut both, &["ACL", "LOG"], &mut differences, "");
    none(differences);
}

/// When `ACL SETUSER` has answered, no connection of any data thread has the old rights.
#[test]
fn a_change_holds_for_every_connection_once_it_is_answered() {
    let bed = Bed::start("");
    let mut admin = bed.proxy.connect();
    let mut clients: Vec<Resp> = (0..9).map(|_| bed.proxy.connect()).collect();
    admin.cmd(&["ACL", "SETUSER", "live", "on", ">pw", "~*", "+@all"]);
    clients.iter_mut().for_each(|client| assert_eq!(client.cmd(&["AUTH", "live", "pw"]).text(), "OK"));
    for round in 0..30 {
        let (rule, allowed) = if round % 2 == 0 { ("-get", false) } else { ("+get", true) };
        assert_eq!(admin.cmd(&["ACL", "SETUSER", "live", rule]).text(), "OK");
        for client in &mut clients {
            let reply = client.cmd(&["GET", "{t}nosuch"]);
            assert_eq!(!matches!(reply, Value::Error(_)), allowed, "round {round}: {reply:?}");
        }
    }
    // What is queued is looked at again.
    let mut first = clients.remove(0);
    first.cmd(&["MULTI"]);
    first.cmd(&["GET", "{t}nosuch"]);
    admin.cmd(&["ACL", "SETUSER", "live", "-get"]);
    let reply = first.cmd(&["EXEC"]);
    assert!(
        reply.error().starts_with("EXECABORT") && reply.error().contains("ACLs rules changed"),
        "{reply:?}"
    );
    assert_eq!(first.cmd(&["PING"]).text(), "PONG");
    let listed = admin.cmd(&["CLIENT", "LIST"]).text();
    assert_eq!(listed.matches(" user=live ").count(), 9, "{listed}");
    let mut blocked = clients.pop().unwrap();
    blocked.send(&["BLPOP", "nobody-pushes-here", "0"]);
    // A user that is gone takes its connections along, and nobody else's.
    assert_eq!(admin.cmd(&["ACL", "DELUSER", "live", "nosuch"]).int(), 1);
    assert!(first.recv_to_end().is_empty());
    assert!(blocked.recv_to_end().is_empty());
    clients.iter_mut().for_each(|client| assert!(client.recv_to_end().is_empty()));
    assert_eq!(admin.cmd(&["PING"]).text(), "PONG");
    assert!(bed.proxy.connect().cmd(&["AUTH", "live", "pw"]).error().starts_with("WRONGPASS"));
}

#[test]
fn subscribers_lose_what_they_may_not_hear_any_more() {
    let bed = Bed::start("");
    let mut admin = bed.proxy.connect();
    admin.cmd(&["ACL", "SETUSER", "ears", "on", ">pw", "&a*", "&p.*", "+@all", "~*"]);
    let subscribe = |command: &str, channel: &str| {
        let mut client = bed.proxy.connect();
        client.cmd(&["AUTH", "ears", "pw"]);
        assert!(matches!(client.cmd(&[command, channel]), Value::Array(_)));
        client
    };
    let (mut a, mut p) = (subscribe("SUBSCRIBE", "abc"), subscribe("PSUBSCRIBE", "p.*"));
    admin.cmd(&["ACL", "SETUSER", "ears", "-flushall"]);
    assert!(a.stays_silent(Duration::from_millis(50)));
    admin.cmd(&["ACL", "SETUSER", "ears", "resetchannels", "&a*"]);
    assert!(p.recv_to_end().is_empty());
    admin.cmd(&["PUBLISH", "abc", "m"]);
    assert_eq!(a.recv().items()[2].text(), "m");
    admin.cmd(&["ACL", "SETUSER", "ears", "resetchannels"]);
    assert!(a.recv_to_end().is_empty());
}

#[test]
fn the_file_is_read_again_and_written() {
    let stack = SharedStack::get();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.acl");
    std::fs::write(
        &file,
        "user default on >first-password ~* &* +@all\n\nuser bob on >bobs-password ~b:* +@all\n",
    )
    .unwrap();
    let config = format!("[acl]\nfile = {file:?}\n[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 2\n");
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, &config);
    let mut admin = proxy.connect();
    assert_eq!(admin.cmd(&["GET", "a"]).error(), "NOAUTH Authentication required.");
    assert_eq!(admin.cmd(&["AUTH", "first-password"]).text(), "OK");
    let mut bob = proxy.connect();
    assert_eq!(bob.cmd(&["AUTH", "bob", "bobs-password"]).text(), "OK");
    for broken in ["bob on", "user bob on\nuser bob on", "user bob on +nosuch", "user bob on (+get"] {
        std::fs::write(&file, broken).unwrap();
        let reply = admin.cmd(&["ACL", "LOAD"]);
        assert!(
            reply.error().ends_with("no change to the previously active ACL rules was performed"),
            "{reply:?}"
        );
        assert!(matches!(bob.cmd(&["GET", "b:1"]), Value::Nil));
    }
    std::fs::write(&file, "user default on nopass ~* &* +@all\nuser bob on >bobs-password ~c:* +@all\n")
        .unwrap();
    assert_eq!(admin.cmd(&["ACL", "LOAD"]).text(), "OK");
    assert!(bob.cmd(&["GET", "b:1"]).error().starts_with("NOPERM"));
    assert!(matches!(proxy.connect().cmd(&["GET", "c:1"]), Value::Nil));
    admin.cmd(&["ACL", "SETUSER", "carol", "on", ">carols-password", "+get", "~c:*"]);
    let before = admin.cmd(&["ACL", "LIST"]);
    assert_eq!(admin.cmd(&["ACL", "SAVE"]).text(), "OK");
    let saved = std::fs::read_to_string(&file).unwrap();
    assert!(!saved.contains("password") && saved.contains("user carol on #"), "{saved}");
    assert_eq!(admin.cmd(&["ACL", "LOAD"]).text(), "OK");
    assert_eq!(admin.cmd(&["ACL", "LIST"]), before);
    std::fs::remove_file(&file).unwrap();
    assert!(admin.cmd(&["ACL", "LOAD"]).error().starts_with("ERR Error loading ACLs, opening file"));
    assert!(proxy.connect().cmd(&["AUTH", "carol", "carols-password"]).text() == "OK");
}

#[test]
fn nothing_that_is_secret_is_shown() {
    const SECRETS: [&str; 4] = ["hunter2-config", "hunter2-setuser", "hunter2-wrong", "hunter2-default"];
    let stack = SharedStack::get();
    let proxy = Proxy::for_nodes(
        stack.redis_nodes(),
        None,
        "[acl]\nusers = [\"eve on >hunter2-config ~* +@all\"]\n[server]\nlisten = \"127.0.0.1:$PORT\"\npassword = \"hunter2-default\"\n[log]\nlevel = \"trace\"\n",
    );
    let mut client = proxy.connect();
    assert!(client.cmd(&["AUTH", "eve", "hunter2-wrong"]).error().starts_with("WRONGPASS"));
    assert!(client.cmd(&["AUTH", "hunter2-wrong"]).error().starts_with("WRONGPASS"));
    assert_eq!(client.cmd(&["AUTH", "eve", "hunter2-config"]).text(), "OK");
    assert_eq!(client.cmd(&["AUTH", "hunter2-default"]).text(), "OK");
    let refused = client.cmd(&["ACL", "SETUSER", "x", "<hunter2-setuser"]);
    assert!(refused.error().starts_with("ERR Error in ACL SETUSER modifier"), "{refused:?}");
    client.cmd(&["ACL", "SETUSER", "x", ">hunter2-setuser", "on"]);
    client.cmd(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    client.cmd(&["ACL", "SETUSER", "x", ">hunter2-setuser", "on"]);
    let mut shown = vec![format!("{refused:?}"), proxy.log(), proxy.get("/metrics").body];
    for line in [
        "CONFIG GET *",
        "ACL LOG",
        "INFO everything",
        "CLIENT LIST",
        "SLOWLOG GET 100",
        "ACL LIST",
        "ACL GETUSER eve",
    ] {
        shown.push(format!("{:?}", client.cmd(&words(line)).text_of_all()));
    }
    for secret in SECRETS {
        assert!(shown.iter().all(|text| !text.contains(secret)), "{secret} in {shown:?}");
    }
    assert_eq!(proxy.metric("dsproxy_denied_total{reason=\"auth\"}"), 2.0);
    // A mistake in the configuration names its place, not its text.
    let broken = "[upstream]\nnodes = [\"127.0.0.1:1\"]\n[acl]\nusers = [\"eve on >hunter2-config\", 7]\n";
    let mut proxy = Proxy::spawn(broken);
    assert!(!proxy.wait_exit().success());
    assert!(proxy.log().contains("acl.users") && !proxy.log().contains("hunter2"), "{}", proxy.log());
}

trait TextOfAll {
    fn text_of_all(&self) -> String;
}

impl TextOfAll for Value {
    /// Everything in it as text, bytes as letters.
    fn text_of_all(&self) -> String {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => {
                items.iter().map(|item| item.text_of_all() + " ").collect()
            }
            Value::Bulk(_) | Value::Verbatim(_) | Value::Simple(_) => self.text(),
            other => format!("{other:?}"),
        }
    }
}

/// `dsproxy check` shows who there is, and nothing secret.
#[test]
fn check_shows_what_is_configured() {
    let stack = SharedStack::get();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.toml");
    let config = format!(
        "[upstream]\nnodes = {:?}\n[server]\nallow = [\"127.0.0.1\"]\n[acl]\nread_only = true\ndeny = [\"@dangerous\"]\nusers = [\"eve on >hunter2 ~a:* +@all\"]\n",
        stack.redis_nodes()
    );
    let check = |config: &str| {
        std::fs::write(&file, config).unwrap();
        let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_dsproxy"));
        let output = check.args(["check", "--config"]).arg(&file).current_dir(dir.path()).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let report = check(&config);
    for line in [
        "user: default (on, no password, full rights)",
        "user: eve (on, limited rights)",
        "warning: the user default needs no password",
        "read-only: ",
        "denied to everybody: @dangerous",
        "networks (allowed): 127.0.0.1",
    ] {
        assert!(report.contains(line), "no {line:?} in\n{report}");
    }
    assert!(!report.contains("hunter2"), "{report}");
    let broken = check(&config.replace("+@all\"]", "+nosuch\"]"));
    assert!(
        broken.contains("acl.users:1: Unknown command or category name in ACL")
            && !broken.contains("hunter2"),
        "{broken}"
    );
    let both = check(&format!("{config}file = \"users.acl\"\n"));
    assert!(both.contains("acl.users and acl.file are both set"), "{both}");
}

#[test]
fn what_is_denied_is_denied_to_everybody() {
    let stack = SharedStack::get();
    let config = "[acl]\ndeny = [\"flushall\", \"config|set\", \"@scripting\", \"object|freq\"]\n";
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, config);
    let mut client = proxy.connect();
    for line in [
        "FLUSHALL",
        "flushall ASYNC",
        "CONFIG SET maxclients 7",
        "EVAL return(1) 0",
        "FCALL f 0",
        "OBJECT FREQ a",
        "SCRIPT EXISTS a",
    ] {
        let reply = client.cmd(&words(line));
        assert!(reply.error().starts_with("NOPERM dsproxy: the '"), "{line}: {reply:?}");
    }
    assert!(matches!(client.cmd(&["CONFIG", "GET", "maxclients"]), Value::Array(_)));
    assert!(!matches!(client.cmd(&["OBJECT", "ENCODING", "{t}nosuch"]), Value::Error(_)));
    client.cmd(&["MULTI"]);
    assert!(client.cmd(&["FLUSHALL"]).error().starts_with("NOPERM"));
    assert!(client.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
    client.send_raw(b"FLUSHALL\r\n");
    assert!(client.recv().error().starts_with("NOPERM"));
    eventually(PATIENCE, "they are counted", || {
        proxy.metric("dsproxy_denied_total{reason=\"denied\"}") == 9.0
    });
    let mut proxy = Proxy::spawn(
        "[upstream]\nnodes = $NODES\n[acl]\ndeny = [\"nosuch\"]\n"
            .replace("$NODES", &format!("{:?}", stack.redis_nodes()))
            .as_str(),
    );
    assert!(!proxy.wait_exit().success());
    assert!(proxy.log().contains("acl.deny: \"nosuch\" names no command"), "{}", proxy.log());
}

#[test]
fn a_read_only_proxy_writes_nothing() {
    let stack = SharedStack::get();
    let key = format!("{}k", stack.key_prefix());
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, "[acl]\nread_only = true\n");
    let mut client = proxy.connect();
    let read_only = "READONLY You can't write against a read only proxy (dsproxy: acl.read_only)";
    for line in [
        "SET $ v",
        "DEL $",
        "MSET $ v",
        "FLUSHALL",
        "BLPOP $ 0",
        "EVAL return(1) 0",
        "FCALL f 0",
        "FUNCTION FLUSH",
        "GETEX $ PERSIST",
        "SORT $ STORE $",
        "PFCOUNT $ $",
    ] {
        let reply = client.cmd(&words(&line.replace('$', &key)));
        if line.starts_with("PFCOUNT") {
            assert_eq!(reply.int(), 0);
        } else {
            assert_eq!(reply.error(), read_only, "{line}");
        }
    }
    assert!(matches!(client.cmd(&["GET", &key]), Value::Nil));
    assert_eq!(client.cmd(&["EVAL_RO", "return 1", "0"]).int(), 1);
    assert_eq!(client.cmd(&["EVAL", "#!lua flags=no-writes\nreturn 1", "0"]).int(), 1);
    assert_eq!(client.cmd(&["EVAL", "#!lua flags=allow-oom\nreturn 1", "0"]).error(), read_only);
    let sha = client.cmd(&["SCRIPT", "LOAD", "#!lua flags=no-writes\nreturn 2"]).text();
    assert_eq!(client.cmd(&["EVALSHA", &sha, "0"]).int(), 2);
    assert_eq!(client.cmd(&["EVALSHA", &"0".repeat(40), "0"]).error(), read_only);
    client.cmd(&["MULTI"]);
    assert_eq!(client.cmd(&["SET", &key, "v"]).error(), read_only);
    assert!(client.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
    assert!(matches!(client.cmd(&["PUBLISH", &key, "m"]), Value::Int(_)));
}

#[test]
fn scripts_of_limited_users_are_refused_unless_trusted() {
    let stack = SharedStack::get();
    let users = "[acl]\nusers = [\"limited on nopass ~a:* +@all\", \"free on nopass ~* &* +@all\"]\n";
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, users);
    let mut client = proxy.connect();
    client.cmd(&["AUTH", "limited", ""]);
    let reply = client.cmd(&["EVAL", "return redis.call('flushall')", "0"]);
    assert!(reply.error().contains("(acl.scripts)"), "{reply:?}");
    client.cmd(&["AUTH", "free", ""]);
    assert_eq!(client.cmd(&["EVAL", "return 1", "0"]).int(), 1);
}
