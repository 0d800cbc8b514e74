//! `MONITOR`: what clients ask, shown to those that look on.
//!
//! Must not know: what becomes of a command.
//!
//! While nobody looks on, a command pays nothing: as soon as somebody does, no client is *free* any more (see `guard.rs`), and
//! only commands of clients that are not come here. Whoever has a line to show takes it off the budget of each that looks on:
//! lines per second, and bytes under way to it. What exceeds them is counted and told in a line of its own.

use super::client::Client;
use super::peers::Question;
use super::{ClientKey, Core, Kind};
use crate::command::{Class, Command, Flags};
use crate::config::Config;
use crate::resp::{Args, push_simple};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of one line after which what follows is left out.
const LINE_BYTES: usize = 16 << 10;
/// Bytes under way from the other workers to one that looks on.
const UNDER_WAY: usize = 4 << 20;
/// Budgets are filled up once in this many microseconds.
const SECOND: u64 = 1_000_000;
const HIDDEN: &[u8] = b"(redacted)";

/// One client that looks on.
#[derive(Debug)]
pub(super) struct Monitor {
    worker: usize,
    client: ClientKey,
    /// Lines that it may still be shown before the budget is filled up.
    left: AtomicU64,
    /// Lines that it was not shown since it was last told so.
    dropped: AtomicU64,
    /// Bytes of lines that have not arrived.
    under_way: AtomicUsize,
    /// When the budget was filled, by the clock of its worker.
    filled_at: AtomicU64,
}

/// All that look on.
#[derive(Debug)]
pub(super) struct Monitors {
    is_on: AtomicBool,
    all: ArcSwap<Vec<Arc<Monitor>>>,
    most: usize,
    lines_per_second: u64,
}

impl Monitors {
    /// Nobody yet; bounded as configured.
    pub fn new(config: &Config) -> Self {
        Self {
            is_on: AtomicBool::new(false),
            all: ArcSwap::default(),
            most: config.limits.monitors,
            lines_per_second: config.limits.monitor_lines as u64,
        }
    }

    /// Somebody looks on.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// False when there are too many.
    fn add(&self, worker: usize, client: ClientKey, now: u64) -> bool {
        let monitor = Arc::new(Monitor {
            worker,
            client,
            left: AtomicU64::new(self.lines_per_second),
            dropped: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            filled_at: AtomicU64::new(now),
        });
        let before = self.all.rcu(|all| {
            let fits = (all.len() < self.most).then(|| monitor.clone());
            all.iter().cloned().chain(fits).collect::<Vec<_>>()
        });
        self.is_on.store(!self.all.load().is_empty(), Relaxed);
        before.len() < self.most
    }

    fn remove(&self, worker: usize, client: ClientKey) {
        let is_other = |monitor: &&Arc<Monitor>| (monitor.worker, monitor.client) != (worker, client);
        self.all.rcu(|all| all.iter().filter(is_other).cloned().collect::<Vec<_>>());
        self.is_on.store(!self.all.load().is_empty(), Relaxed);
    }
}

impl Monitor {
    /// Takes a line off the budget; false when it must be dropped.
    fn takes(&self, bytes: usize) -> bool {
        let fits = self.under_way.load(Relaxed) + bytes <= UNDER_WAY
            && self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        if fits {
            self.under_way.fetch_add(bytes, Relaxed);
        } else {
            self.dropped.fetch_add(1, Relaxed);
        }
        fits
    }
}

impl Core {
    /// `MONITOR`: answered once all workers know. `None` when the client looks on already, which Redis does not answer.
    pub(super) fn begin_monitor(&mut self, index: usize, command: &'static Command) -> Result<(), String> {
        let (worker, now) = (self.options.about.worker, self.now);
        let Some(client) = self.clients.get_mut(index).filter(|client| client.monitors.is_none()) else {
            return Ok(());
        };
        let key = ClientKey { index: index as u32, serial: client.serial };
        if !self.process.monitors.add(worker, key, now) {
            let most = self.process.monitors.most;
            return Err(format!("ERR dsproxy: {most} clients look on already (limits.monitors)"));
        }
        client.monitors = Some(client.next_seq());
        self.stats.monitors.add(1);
        self.ask_all(index, command, &Question::Monitors, |_, _, reply| push_simple(reply, "OK"));
        Ok(())
    }

    /// The client is gone, or was reset.
    pub(super) fn end_monitor(&mut self, key: ClientKey) {
        self.process.monitors.remove(self.options.about.worker, key);
        self.stats.monitors.sub(1);
        if !self.process.monitors.is_on() {
            self.look_at_all_again();
            self.tell_others_to_look();
        }
    }

    /// Shows a command that is about to run. Those that Redis does not show are not shown here: of administrators, and
    /// those that are refused.
    #[cold]
    pub(super) fn show(&mut self, index: usize, command: &'static Command, class: Class, args: &Args<'_>) {
        let is_hidden = command.flags.contains(Flags::ADMIN) || command.flags.contains(Flags::SKIP_MONITOR);
        if !self.process.monitors.is_on() || is_hidden || class == Class::Refused {
            return;
        }
        let Some(client) = self.clients.get(index).filter(|client| client.kind != Kind::Internal) else {
            return;
        };
        let line = line(client.session.peer.as_deref().unwrap_or("http:0"), command, args);
        let all = self.process.monitors.all.load_full();
        for monitor in all.iter() {
            if !monitor.takes(line.len()) {
                self.stats.monitor_dropped.add(1);
            } else if monitor.worker == self.options.about.worker {
                self.shown(monitor.client, &line);
            } else {
                self.tell_shown(monitor.worker, monitor.client, &line);
            }
        }
    }

    /// A line has come for a client of this worker.
    pub(super) fn shown(&mut self, key: ClientKey, line: &[u8]) {
        let (here, pause) = (self.options.about.worker, self.options.output_pause);
        let all = self.process.monitors.all.load();
        let Some(monitor) = all.iter().find(|m| m.worker == here && m.client == key) else { return };
        monitor.under_way.fetch_sub(line.len(), Relaxed);
        let Some(client) = self.clients.get_mut(key.index as usize).filter(|c| c.serial == key.serial) else {
            return;
        };
        if !client.is_looking_on() {
            return;
        }
        if client.unread() + line.len() > pause {
            monitor.dropped.fetch_add(1, Relaxed);
            return self.stats.monitor_dropped.add(1);
        }
        client.say(line);
        self.touch(key.index as usize);
    }

    /// Fills up the budgets of this worker's clients, and tells them what they were not shown.
    pub(super) fn monitor_tick(&mut self) {
        if !self.process.monitors.is_on() {
            return;
        }
        let (here, now, rate) = (self.options.about.worker, self.now, self.process.monitors.lines_per_second);
        let all = self.process.monitors.all.load_full();
        for monitor in all.iter().filter(|monitor| monitor.worker == here) {
            if now.saturating_sub(monitor.filled_at.load(Relaxed)) < SECOND {
                continue;
            }
            monitor.filled_at.store(now, Relaxed);
            monitor.left.store(rate, Relaxed);
            let Some(client) = self.client_mut(monitor.client).filter(|client| client.is_looking_on()) else {
                continue;
            };
            let dropped = monitor.dropped.swap(0, Relaxed);
            if dropped > 0 {
                let mut line = stamp("dsproxy:0");
                line.extend_from_slice(format!(" \"(dropped)\" \"{dropped}\"\r\n").as_bytes());
                client.say(&line);
                self.touch(monitor.client.index as usize);
            }
        }
    }
}

impl Client {
    /// `MONITOR` is answered, and it stays.
    fn is_looking_on(&self) -> bool {
        !self.closing && self.monitors.is_some_and(|seq| !self.is_open(seq))
    }
}

/// `+1339518083.107412 [0 127.0.0.1:60866]`
fn stamp(peer: &str) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("+{}.{:06} [0 {peer}]", now.as_secs(), now.subsec_micros()).into_bytes()
}

/// The whole line (`replicationFeedMonitors` of Redis). Passwords are not in it.
fn line(peer: &str, command: &Command, args: &Args<'_>) -> Vec<u8> {
    let mut out = stamp(peer);
    let secret = match command.name {
        "auth" => 1..args.len(),
        "hello" => {
            let at = args.iter().position(|arg| arg.eq_ignore_ascii_case(b"auth"));
            at.map_or(0..0, |at| at + 1..at + 3)
        }
        _ => 0..0,
    };
    for (at, arg) in args.iter().enumerate() {
        if out.len() > LINE_BYTES {
            out.extend_from_slice(format!(" \"... ({} more arguments)\"", args.len() - at).as_bytes());
            break;
        }
        out.push(b' ');
        push_quoted(&mut out, if secret.contains(&at) { HIDDEN } else { arg });
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// As `sdscatrepr` of Redis, shortened.
fn push_quoted(out: &mut Vec<u8>, arg: &[u8]) {
    let (shown, rest) = arg.split_at(arg.len().min(LINE_BYTES));
    out.push(b'"');
    for byte in shown {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(*byte),
            other => out.extend_from_slice(format!("\\x{other:02x}").as_bytes()),
        }
    }
    if !rest.is_empty() {
        out.extend_from_slice(format!("... ({} more bytes)", rest.len()).as_bytes());
    }
    out.push(b'"');
}
