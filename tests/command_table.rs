//! Holds the command table against a running Redis server: `COMMAND`, `COMMAND GETKEYS`, its error texts.
//!
//! The table is that of Redis 7.0. Against another version, commands that only one side has are listed as due to the
//! version and skipped; against 7.0 every difference fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use dsproxy::command::{self, COMMANDS, Command, KeyError};
use dsproxy::resp::{Args, Span};
use redis::Value;

#[path = "command_table/samples.rs"]
mod samples;

/// A server of its own for one test; killed when dropped.
struct Server {
    _process: KillOnDrop,
    _directory: tempfile::TempDir,
    connection: redis::Connection,
}

impl Server {
    fn start() -> Self {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(server) = Self::try_start(deadline) {
                return server;
            }
            assert!(Instant::now() < deadline, "redis-server did not become ready");
        }
    }

    /// `None` if the server ended, as it does when somebody else took the port in between.
    fn try_start(deadline: Instant) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = std::process::Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ])
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server must be installed");
        let mut process = KillOnDrop(process);
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
        while Instant::now() < deadline {
            if process.0.try_wait().unwrap().is_some() {
                return None;
            }
            if let Ok(mut connection) = client.get_connection()
                && redis::cmd("PING").query::<String>(&mut connection).is_ok()
            {
                return Some(Self { _process: process, _directory: directory, connection });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Value, String> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word.as_ref());
        }
        match command.query::<Value>(&mut self.connection) {
            Ok(Value::ServerError(error)) => Err(format!("{error:?}")),
            Ok(value) => Ok(value),
            Err(error) => Err(error.to_string()),
        }
    }

    /// `7.0` of `7.0.15`.
    fn version(&mut self) -> String {
        let Value::BulkString(info) = self.ask(&["INFO", "server"]).unwrap() else { panic!("INFO") };
        let info = String::from_utf8(info).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
        line.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
    }
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Words as one request of ours.
fn with_args<W: AsRef<[u8]>, R>(words: &[W], use_args: impl FnOnce(&Args<'_>) -> R) -> R {
    let (mut frame, mut spans) = (Vec::new(), Vec::new());
    for word in words {
        let start = frame.len() as u32;
        frame.extend_from_slice(word.as_ref());
        spans.push(Span { start, end: frame.len() as u32 });
    }
    use_args(&Args::new(&frame, &spans))
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        other => panic!("not a string: {other:?}"),
    }
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        other => panic!("not an array: {other:?}"),
    }
}

fn texts(value: &Value) -> BTreeSet<String> {
    items(value).iter().map(text).collect()
}

fn integer(value: &Value) -> i64 {
    match value {
        Value::Int(integer) => *integer,
        other => panic!("not an integer: {other:?}"),
    }
}

/// True for a row that a server of `version` cannot know yet.
fn is_newer_than(command: &Command, version: &str) -> bool {
    let parse =
        |text: &str| text.split('.').take(2).map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    command.group == "proxy" || parse(command.since) > parse(version)
}

/// Collects what differs between rows of ours and entries of a `COMMAND` reply.
fn compare(ours: &[Command], theirs: &[Value], version: &str, differences: &mut Vec<String>) {
    let mut entries: BTreeMap<String, &Value> =
        theirs.iter().map(|entry| (text(&items(entry)[0]), entry)).collect();
    for command in ours {
        match entries.remove(command.name) {
            Some(entry) => compare_row(command, items(entry), version, differences),
            None if is_newer_than(command, version) => {}
            None => differences.push(format!("{}: unknown to the server", command.name)),
        }
    }
    differences.extend(entries.keys().map(|name| format!("{name}: not in the table")));
}

fn compare_row(command: &Command, entry: &[Value], version: &str, differences: &mut Vec<String>) {
    let mut expect = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            differences.push(format!("{}: {what}: ours {ours}, theirs {theirs}", command.name));
        }
    };
    let set = |names: BTreeSet<String>| format!("{names:?}");
    let range = [command.range.first, command.range.last, command.range.step].map(i64::from);
    expect("arity", command.arity.to_string(), integer(&entry[1]).to_string());
    expect("flags", set(command.flags.names().map(str::to_owned).collect()), set(texts(&entry[2])));
    expect("first/last/step", format!("{range:?}"), format!("{:?}", [3, 4, 5].map(|at| integer(&entry[at]))));
    expect(
        "categories",
        set(command.categories.names().map(|c| format!("@{c}")).collect()),
        set(texts(&entry[6])),
    );
    expect("tips", set(command.tips.iter().map(|&tip| tip.to_owned()).collect()), set(texts(&entry[7])));
    let specs: Vec<Vec<(String, String)>> = command.keys.iter().map(describe).collect();
    let their_specs: Vec<_> = items(&entry[8]).iter().map(|spec| flatten(spec, "")).collect();
    expect("key specs", format!("{specs:?}"), format!("{their_specs:?}"));
    compare(command.subcommands, items(&entry[9]), version, differences);
}

/// A key spec of a reply as sorted (path, value) pairs.
fn flatten(value: &Value, path: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for pair in items(value).chunks(2) {
        let path = format!("{path}/{}", text(&pair[0]));
        match &pair[1] {
            Value::Array(flags) if path == "/flags" => {
                pairs.push((path, format!("{:?}", flags.iter().map(text).collect::<BTreeSet<_>>())));
            }
            nested @ Value::Array(_) => pairs.extend(flatten(nested, &path)),
            Value::Int(integer) => pairs.push((path, integer.to_string())),
            other => pairs.push((path, text(other))),
        }
    }
    pairs.sort();
    pairs
}

/// A key spec of ours in the form of [`flatten`].
fn describe(spec: &command::KeySpec) -> Vec<(String, String)> {
    use command::{Begin, Find};
    let mut pairs = vec![("/flags", format!("{:?}", spec.flags.names().collect::<BTreeSet<_>>()))];
    if !spec.notes.is_empty() {
        pairs.push(("/notes", spec.notes.to_owned()));
    }
    match spec.begin {
        Begin::Index(index) => pairs.extend([
            ("/begin_search/type", "index".to_owned()),
            ("/begin_search/spec/index", index.to_string()),
        ]),
        Begin::Keyword { keyword, from } => pairs.extend([
            ("/begin_search/type", "keyword".to_owned()),
            ("/begin_search/spec/keyword", keyword.to_owned()),
            ("/begin_search/spec/startfrom", from.to_string()),
        ]),
        Begin::Unknown => pairs.push(("/begin_search/type", "unknown".to_owned())),
    }
    match spec.find {
        Find::Range { last, step, limit } => pairs.extend([
            ("/find_keys/type", "range".to_owned()),
            ("/find_keys/spec/lastkey", last.to_string()),
            ("/find_keys/spec/keystep", step.to_string()),
            ("/find_keys/spec/limit", limit.to_string()),
        ]),
        Find::KeyNum { count_at, first, step } => pairs.extend([
            ("/find_keys/type", "keynum".to_owned()),
            ("/find_keys/spec/keynumidx", count_at.to_string()),
            ("/find_keys/spec/firstkey", first.to_string()),
            ("/find_keys/spec/keystep", step.to_string()),
        ]),
        Find::Unknown => pairs.push(("/find_keys/type", "unknown".to_owned())),
    }
    let mut pairs: Vec<_> = pairs.into_iter().map(|(path, value)| (path.to_owned(), value)).collect();
    pairs.sort();
    pairs
}

#[test]
fn rows_agree_with_the_server() {
    let mut server = Server::start();
    let version = server.version();
    let reply = server.ask(&["COMMAND"]).unwrap();
    let mut differences = Vec::new();
    compare(&COMMANDS, items(&reply), &version, &mut differences);
    if version == "7.0" {
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        return;
    }
    eprintln!(
        "the server is {version}, the table is 7.0; differences due to the version:\n{}",
        differences.join("\n")
    );
    // Whatever else changes between versions, arity and first/last/step of known commands route requests.
    let routing: Vec<_> = differences
        .iter()
        .filter(|difference| difference.contains(": arity:") || difference.contains(": first/last/step:"))
        .collect();
    assert!(routing.is_empty(), "commands known to both route differently: {routing:#?}");
}

/// Every command with keys, by full name, that `version` knows.
fn commands_with_keys(version: &str) -> BTreeSet<&'static str> {
    COMMANDS
        .iter()
        .flat_map(|command| std::iter::once(command).chain(command.subcommands))
        .filter(|command| command.takes_keys() && !is_newer_than(command, version))
        .map(|command| command.name)
        .collect()
}

#[test]
fn keys_agree_with_getkeys() {
    let mut server = Server::start();
    let version = server.version();
    let mut unsampled = commands_with_keys(&version);
    for sample in samples::VALID.iter().chain(samples::MALFORMED) {
        // `''` stands for an empty argument.
        let words: Vec<&str> = sample.split(' ').map(|word| if word == "''" { "" } else { word }).collect();
        let mut request = vec!["COMMAND", "GETKEYS"];
        request.extend(&words);
        let theirs = server.ask(&request).map(|keys| items(&keys).iter().map(text).collect::<Vec<_>>());
        let ours = with_args(&words, |args| {
            let command =
                command::lookup(args.name()).unwrap_or_else(|| panic!("{sample}: not in the table"));
            unsampled.remove(command.subcommand(args).unwrap_or(command).name);
            let mut keys = Vec::new();
            command.keys(args, &mut keys).map(|()| keys)
        });
        let ours =
            ours.map(|keys| keys.iter().map(|&key| words[key as usize].to_owned()).collect::<Vec<_>>());
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(in_order(sample, ours), in_order(sample, theirs), "{sample}")
            }
            (Err(KeyError::NoKeys), Err(error)) => {
                assert!(error.contains("no key arguments"), "{sample}: {error}")
            }
            (Err(KeyError::Invalid), Err(error)) => {
                assert!(!error.contains("no key arguments"), "{sample}: {error}")
            }
            _ => panic!("{sample}: ours {ours:?}, theirs {theirs:?}"),
        }
    }
    assert!(unsampled.is_empty(), "commands with keys but without a sample: {unsampled:?}");
}

/// The keys as they are; sorted for a malformed sample, since Redis' fallbacks for a count such as `1abc` list the
/// destination last, and nothing depends on the order of the keys of a request that will be refused.
fn in_order(sample: &str, keys: &[String]) -> Vec<String> {
    let mut keys = keys.to_vec();
    if samples::MALFORMED.contains(&sample) {
        keys.sort();
    }
    keys
}

/// The error line of a reply, read from a plain socket, since a client library takes it apart.
fn error_line(stream: &mut std::net::TcpStream, words: &[Vec<u8>]) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    stream.write_all(&request).unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    assert_eq!(line[0], b'-', "{}", String::from_utf8_lossy(&line));
    line[1..line.len() - 2].to_vec()
}

#[test]
fn error_texts_agree_with_the_server() {
    let mut server = Server::start();
    let Value::Array(port) = server.ask(&["CONFIG", "GET", "port"]).unwrap() else { panic!("CONFIG GET") };
    let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{}", text(&port[1]))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (long, longer) = ("x".repeat(127), "y".repeat(300));
    let lines: Vec<Vec<&str>> = vec![
        vec!["foo"],
        vec!["foo", "a", "b"],
        vec!["FoO", ""],
        vec!["", "a"],
        vec![&longer],
        vec!["foo", &longer, "b"],
        vec!["foo", &long, "b", "c"],
        vec!["foo", "a", &long, "c"],
        vec!["foo", &longer[..121], "bcdefgh", "i"],
        vec!["foo", "line\r\nbreak", "nul\0hidden", "é"],
        vec!["fo\0o", "a"],
        vec!["get"],
        vec!["GET", "a", "b"],
        vec!["config"],
        vec!["config", "nothing"],
        vec!["CONFIG", &longer],
        vec!["Config", "not\r\nhing", "a"],
        vec!["config", "get"],
        vec!["config", "resetstat", "a"],
        vec!["object", "encoding"],
        vec!["xgroup", "create", "a"],
    ];
    for line in lines {
        let words: Vec<Vec<u8>> = line.iter().map(|word| word.as_bytes().to_vec()).collect();
        let theirs = error_line(&mut stream, &words);
        let ours =
            with_args(&words, |args| command::resolve(args).expect_err("must not resolve").message(args));
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs), "{line:?}");
    }
}
