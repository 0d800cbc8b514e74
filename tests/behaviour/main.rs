//! The same script against a plain Redis server and against the proxy over a cluster: replies must be the same byte for
//! byte, in both dialects. What may differ stands in `exceptions.rs`, with its reason.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dsproxy::command::{self, Command};
use dsproxy::embedded::free_ports;
use dsproxy::embedded::keeper::KeeperOptions;
use dsproxy::embedded::process::{DeathSignal, Launch, Supervised};
use dsproxy::resp::{Args, ReplyScanner, Scan, Span, push_command};

#[path = "../command_table/samples.rs"]
mod samples;
#[path = "../support/mod.rs"]
mod support;

mod exceptions;
mod script;

use support::{PrivateStack, Proxy};

const PATIENCE: Duration = Duration::from_secs(20);

/// A command, or a line of the script, whose replies may differ.
pub struct Difference {
    command: &'static str,
    #[expect(dead_code, reason = "for readers")]
    reason: &'static str,
}

/// How two replies are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compare {
    Exact,
    /// The order of the elements means nothing.
    Unordered,
    /// Only their first bytes.
    Kind,
}

struct Plain {
    process: Supervised,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Plain {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_ports(1).unwrap()[0];
        let args = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let launch = Launch {
            name: "redis".to_owned(),
            program: PathBuf::from("redis-server"),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            cwd: dir.path().to_owned(),
            log: dir.path().join("log"),
            user: None,
            death_signal: DeathSignal::Kill,
        };
        let process = Supervised::spawn(&launch).unwrap();
        support::eventually(PATIENCE, "the plain server listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { process, port, _dir: dir }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.process.signal(rustix::process::Signal::KILL);
    }
}

/// A connection that shows replies as they are on the wire.
struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    fn connect(port: u16, protocol: u8) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut wire = Self { stream, buffer: Vec::new() };
        if protocol == 3 {
            wire.ask(&["HELLO", "3"]);
        }
        wire
    }

    /// The reply, whole; says so when none comes.
    fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Vec<u8> {
        let mut request = Vec::new();
        push_command(&mut request, words.iter().map(AsRef::as_ref));
        if self.stream.write_all(&request).is_err() {
            return b"(closed)".to_vec();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(Scan::Complete(end)) = ReplyScanner::default().scan(&self.buffer) {
                return self.buffer.drain(..end).collect();
            }
            let mut chunk = [0; 64 << 10];
            match self.stream.read(&mut chunk) {
                Ok(n) if n > 0 && Instant::now() < deadline => self.buffer.extend_from_slice(&chunk[..n]),
                Ok(0) => return b"(closed)".to_vec(),
                _ => return b"(no reply)".to_vec(),
            }
        }
    }
}

/// The elements of an aggregate, in any order: the frames on its first level, sorted.
fn sorted(reply: &[u8]) -> Vec<Vec<u8>> {
    let Some(header) = reply.iter().position(|byte| *byte == b'\n') else { return vec![reply.to_vec()] };
    let mut parts = vec![reply[..=header].to_vec()];
    let mut at = header + 1;
    while let Some(Ok(Scan::Complete(length))) =
        reply.get(at..).filter(|rest| !rest.is_empty()).map(|rest| ReplyScanner::default().scan(rest))
    {
        parts.push(reply[at..at + length].to_vec());
        at += length;
    }
    parts[1..].sort();
    parts
}

fn same(how: Compare, ours: &[u8], theirs: &[u8]) -> bool {
    match how {
        Compare::Exact => ours == theirs,
        Compare::Unordered => sorted(ours) == sorted(theirs),
        Compare::Kind => ours.first() == theirs.first(),
    }
}

fn with_args<R>(words: &[String], use_args: impl FnOnce(&Args<'_>) -> R) -> R {
    let (mut frame, mut spans) = (Vec::new(), Vec::new());
    for word in words {
        let start = frame.len() as u32;
        frame.extend_from_slice(word.as_bytes());
        spans.push(Span { start, end: frame.len() as u32 });
    }
    use_args(&Args::new(&frame, &spans))
}

/// The command that a line uses, if there is one.
fn command_of(words: &[String]) -> Option<&'static Command> {
    with_args(words, |args| {
        let command = command::lookup(args.name())?;
        Some(command.subcommand(args).unwrap_or(command))
    })
}

fn is_exempt(command: &Command) -> bool {
    let container = command.name.split('|').next().unwrap();
    exceptions::COMMANDS.iter().any(|d| d.command == command.name || d.command == container)
}

fn is_excepted(line: &str) -> bool {
    exceptions::LINES.iter().any(|excepted| excepted.command == line)
}

/// A line's words: `@x` is a key, quotes hold blanks together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted) = (Vec::new(), String::new());
    for part in line.split(' ') {
        if !quoted.is_empty() {
            quoted = format!("{quoted} {part}");
        } else if part.starts_with('\'') && (part.len() == 1 || !part.ends_with('\'')) {
            quoted = part.to_owned();
        } else {
            words.push(part.to_owned());
        }
        if quoted.len() > 1 && quoted.ends_with('\'') {
            words.push(std::mem::take(&mut quoted));
        }
    }
    assert!(quoted.is_empty(), "no end of a quotation: {line}");
    let plain = |word: String| match word.strip_prefix('@') {
        Some(key) => format!("{{t}}{key}"),
        None => {
            word.strip_prefix('\'').and_then(|w| w.strip_suffix('\'')).map_or(word.clone(), str::to_owned)
        }
    };
    words.into_iter().map(plain).collect()
}

/// Both servers, and what was found to differ.
struct Bed {
    plain: Plain,
    proxy: Proxy,
    _stack: PrivateStack,
    differences: Vec<String>,
}

impl Bed {
    fn start() -> Self {
        let stack = PrivateStack::start(KeeperOptions { with_postgres: false, ..KeeperOptions::default() });
        let proxy = Proxy::for_nodes(&stack.redis_nodes(), None, "");
        Self { plain: Plain::start(), proxy, _stack: stack, differences: Vec::new() }
    }

    /// A new connection to each, in this dialect; the proxy first.
    fn connect(&self, protocol: u8) -> (Wire, Wire) {
        (Wire::connect(self.proxy.addr().1, protocol), Wire::connect(self.plain.port, protocol))
    }

    fn flush(&self) {
        let (mut ours, mut theirs) = self.connect(2);
        for wire in [&mut ours, &mut theirs] {
            assert_eq!(wire.ask(&["FLUSHALL"]), b"+OK\r\n");
        }
    }

    fn compare(&mut self, (ours, theirs): &mut (Wire, Wire), protocol: u8, how: Compare, words: &[String]) {
        let (our, their) = (ours.ask(words), theirs.ask(words));
        if !same(how, &our, &their) {
            let shown = |reply: &[u8]| reply[..reply.len().min(900)].escape_ascii().to_string();
            self.differences.push(format!(
                "RESP{protocol} {}\n   ours: {}\n  plain: {}",
                words.join(" "),
                shown(&our),
                shown(&their)
            ));
        }
    }

    fn finish(self) {
        let count = self.differences.len();
        assert!(count == 0, "{count} replies differ:\n{}", self.differences.join("\n"));
    }
}

fn scenes() -> Vec<Vec<(Compare, Vec<String>)>> {
    let line = |line: &str| match (line.strip_prefix("~ "), line.strip_prefix("? ")) {
        (Some(rest), _) => (Compare::Unordered, words(rest)),
        (_, Some(rest)) => (Compare::Kind, words(rest)),
        _ => (Compare::Exact, words(line)),
    };
    script::SCENES.trim().split("\n\n").map(|scene| scene.lines().map(line).collect()).collect()
}

#[test]
fn every_command_has_a_line_or_a_reason() {
    let used: BTreeSet<&str> =
        scenes().iter().flatten().filter_map(|(_, words)| command_of(words)).map(|c| c.name).collect();
    let missing: Vec<_> = command::all()
        .filter(|command| command.subcommands.is_empty() && !is_exempt(command))
        .map(|command| command.name)
        .filter(|name| !used.contains(name))
        .collect();
    assert!(missing.is_empty(), "neither a line in script.rs nor a reason in exceptions.rs: {missing:?}");
    for difference in exceptions::COMMANDS {
        assert!(
            command::lookup_full(difference.command.as_bytes()).is_some(),
            "{}: an exception for no command",
            difference.command
        );
        assert!(!used.contains(difference.command), "{}: both a line and a reason", difference.command);
    }
}

#[test]
fn the_script_reads_the_same() {
    let mut bed = Bed::start();
    for scene in scenes() {
        for protocol in [2, 3] {
            bed.flush();
            let mut wires = bed.connect(protocol);
            for (how, words) in &scene {
                if !is_excepted(&words.join(" ")) {
                    bed.compare(&mut wires, protocol, *how, words);
                }
            }
        }
    }
    bed.finish();
}

#[test]
fn the_table_reads_the_same() {
    let mut bed = Bed::start();
    for protocol in [2, 3] {
        let mut wires = bed.connect(protocol);
        // A container lists its subcommands in an order that means nothing.
        let of_redis = |c: &&command::Command| c.since < "7.2" && c.subcommands.is_empty();
        for command in command::all().filter(of_redis) {
            let words = ["COMMAND", "INFO", command.name].map(str::to_owned);
            bed.compare(&mut wires, protocol, Compare::Exact, &words);
        }
    }
    bed.finish();
}

#[test]
fn wrong_arguments_read_the_same() {
    let mut bed = Bed::start();
    let mut lines: Vec<Vec<String>> = Vec::new();
    // Too few and too many arguments of every command.
    for command in command::all().filter(|command| command.since < "7.2") {
        let name: Vec<String> = command.name.split('|').map(str::to_owned).collect();
        let wanted = usize::from(command.arity.unsigned_abs());
        if wanted > name.len() {
            lines.push(name.clone());
        }
        if command.arity > 0 && command.subcommands.is_empty() {
            let mut many = name.clone();
            many.resize(wanted + 1, "x".to_owned());
            lines.push(many);
        }
        if !command.subcommands.is_empty() {
            lines.push(vec![name[0].clone(), "nosuch".to_owned()]);
        }
    }
    lines.retain(|words| !is_excepted(&words.join(" ")));
    // Keys of one slot, missing or malformed.
    for sample in samples::VALID.iter().chain(samples::MALFORMED) {
        if is_excepted(sample) {
            continue;
        }
        let mut words = words(sample);
        if command_of(&words).is_none_or(is_exempt) {
            continue;
        }
        let keys = with_args(&words, |args| {
            let mut keys = Vec::new();
            command::resolve(args).ok().and_then(|command| command.keys(args, &mut keys).ok()).map(|()| keys)
        });
        for at in keys.unwrap_or_default() {
            words[at as usize] = format!("{{t}}{}", words[at as usize]);
        }
        lines.push(words);
    }
    for protocol in [2, 3] {
        for words in &lines {
            bed.flush();
            let mut wires = bed.connect(protocol);
            bed.compare(&mut wires, protocol, Compare::Exact, words);
        }
    }
    bed.finish();
}
