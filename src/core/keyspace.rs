//! `# Keyspace` of `INFO`: how many keys the primaries hold together.
//!
//! Must not know: the other sections.
//!
//! Agents ask for it again and again, and some clients before their first command, so what the nodes said holds for a second
//! for all workers, and an `INFO` waits for them no longer than that. Without it the section is left out, and `# Proxy`
//! says why: zero would be a lie. Who asks for the section by its name gets the error instead.

use super::client::Slot;
use super::gather::Join;
use super::local::{Sections, push_text};
use super::process::Process;
use super::{ClientKey, Core};
use crate::cluster::Owner;
use crate::command::Command;
use crate::resp::{Args, push_command, push_error};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So long what the nodes said is told again.
const FRESH: Duration = Duration::from_secs(1);
/// So long an `INFO` waits for the nodes, in microseconds.
const PATIENCE_US: u64 = 1_000_000;

/// The keys of database 0, of one node or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    keys: u64,
    expires: u64,
    /// Milliseconds that keys with an expiry have left, all together.
    left_ms: u64,
}

impl Counts {
    /// What a node says: no line stands for no key.
    fn read(text: &str) -> Option<Self> {
        let Some(line) = text.lines().find_map(|line| line.strip_prefix("db0:")) else {
            return Some(Self::default());
        };
        let field = |name: &str| {
            let mut pairs = line.split(',').filter_map(|pair| pair.split_once('='));
            pairs.find(|(known, _)| *known == name)?.1.parse::<u64>().ok()
        };
        let expires = field("expires")?;
        let left_ms = field("avg_ttl").unwrap_or(0).saturating_mul(expires);
        Some(Self { keys: field("keys")?, expires, left_ms })
    }

    fn add(&mut self, other: Self) {
        self.keys += other.keys;
        self.expires += other.expires;
        self.left_ms = self.left_ms.saturating_add(other.left_ms);
    }
}

/// What all nodes said, or why that is not known.
type Known = Result<Counts, String>;

/// What the nodes said last, for all workers.
#[derive(Debug, Default)]
pub(super) struct Keyspace(Mutex<Option<(Instant, Known)>>);

impl Keyspace {
    fn fresh(&self) -> Option<Known> {
        let last = self.lock();
        last.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, known)| known.clone())
    }

    fn learn(&self, known: Known) {
        *self.lock() = Some((Instant::now(), known));
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Known)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An `INFO` that waits for the nodes.
#[derive(Debug)]
pub(super) struct Info {
    sections: Sections,
    counts: Counts,
    process: Arc<Process>,
}

impl Info {
    /// Takes the text of one node.
    pub fn take(&mut self, text: &str) -> Option<()> {
        self.counts.add(Counts::read(text)?);
        Some(())
    }

    /// Appends the reply; `error` is that of a node.
    pub fn finish(&self, error: Option<&[u8]>, out: &mut Vec<u8>, protocol: u8) {
        let known = match error {
            None => Ok(self.counts),
            Some(error) => Err(String::from_utf8_lossy(error).trim_start_matches('-').trim_end().to_owned()),
        };
        self.process.keyspace.learn(known.clone());
        show(&self.sections, &known, out, protocol);
    }
}

/// The whole reply to an `INFO`.
fn show(sections: &Sections, known: &Known, out: &mut Vec<u8>, protocol: u8) {
    let mut text = sections.before.clone();
    let gap = |text: &mut String| {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
    };
    match known {
        Ok(counts) => {
            gap(&mut text);
            text.push_str("# Keyspace\r\n");
            let Counts { keys, expires, left_ms } = *counts;
            if keys > 0 {
                let average = left_ms / expires.max(1);
                // Writing to a string does not fail.
                let _ = write!(text, "db0:keys={keys},expires={expires},avg_ttl={average}\r\n");
            }
        }
        Err(error) if sections.insists => return push_error(out, error),
        Err(_) => {}
    }
    if !sections.after.is_empty() {
        gap(&mut text);
        text.push_str(&sections.after);
        if let Err(error) = known {
            let _ = write!(text, "keyspace_error:{error}\r\n");
        }
    }
    push_text(out, &text, protocol);
}

impl Core {
    /// `INFO [section ...]`. True when the reply is in the buffer, false when nodes are asked first.
    pub(super) fn run_info(
        &mut self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
        reply: &mut Vec<u8>,
    ) -> bool {
        let Some(client) = self.clients.get(index) else { return false };
        let (key, protocol) =
            (ClientKey { index: index as u32, serial: client.serial }, client.session.protocol);
        let sections = self.info(args);
        if !sections.keyspace {
            push_text(reply, &(sections.before + &sections.after), protocol);
            return true;
        }
        if let Some(known) = self.process.keyspace.fresh() {
            show(&sections, &known, reply, protocol);
            return true;
        }
        let nodes = self.routes.topology().nodes().len();
        let mut gather = self.new_gather(index, Join::Info);
        gather.info =
            Some(Box::new(Info { sections, counts: Counts::default(), process: self.process.clone() }));
        let seq = self.clients.get(index).map_or(0, |client| client.next_seq());
        self.infos.push((key, seq, self.now + PATIENCE_US));
        let mut request = Vec::new();
        push_command(&mut request, [&b"INFO"[..], b"keyspace"]);
        self.ask_nodes(index, command, gather, 0..nodes, &request);
        false
    }

    /// Answers each `INFO` that has waited long enough, without what did not come.
    pub(super) fn end_infos(&mut self) {
        if self.infos.is_empty() {
            return;
        }
        let now = self.now;
        let mut due = Vec::new();
        let clients = &mut self.clients;
        self.infos.retain(|(key, seq, until)| {
            let client = clients.get_mut(key.index as usize).filter(|client| client.serial == key.serial);
            let waits =
                client.is_some_and(|client| matches!(client.slot_mut(*seq), Some(Slot::Gathering(..))));
            if waits && *until <= now {
                due.push((*key, *seq));
            }
            waits && *until > now
        });
        for (key, seq) in due {
            let text = format!("ERR dsproxy: {} did not answer within a second", self.silent_nodes(key, seq));
            let Some(Slot::Gathering(_, gather)) =
                self.client_mut(key).and_then(|client| client.slot_mut(seq))
            else {
                continue;
            };
            gather.give_up(&text);
            self.finish_gather(key, seq);
        }
    }

    /// The nodes that have not answered their part of a command.
    fn silent_nodes(&mut self, key: ClientKey, seq: u32) -> String {
        let waits = |owner: Owner| matches!(owner, Owner::Client { index, serial, seq: of, .. } if (index, serial, of) == (key.index, key.serial, seq));
        let mut silent = Vec::new();
        for (_, upstream) in &mut self.upstreams {
            if upstream.entries_mut().any(|entry| waits(entry.owner)) {
                silent.push(upstream.addr.to_string());
            }
        }
        silent.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_the_average_is_that_of_all() {
        let mut counts = Counts::default();
        for text in [
            "# Keyspace\r\ndb0:keys=10,expires=2,avg_ttl=100\r\n",
            "# Keyspace\r\n",
            "# Keyspace\r\ndb0:keys=5,expires=2,avg_ttl=300,subexpiry=0\r\ndb1:keys=7,expires=0,avg_ttl=0\r\n",
        ] {
            counts.add(Counts::read(text).unwrap_or_default());
        }
        assert_eq!(counts, Counts { keys: 15, expires: 4, left_ms: 800 });
        let sections = |insists| Sections {
            before: "# A\r\na:1\r\n".to_owned(),
            after: "# Proxy\r\nb:2\r\n".to_owned(),
            keyspace: true,
            insists,
        };
        let shown = |known: Known, insists| {
            let mut out = Vec::new();
            show(&sections(insists), &known, &mut out, 2);
            String::from_utf8_lossy(&out).into_owned()
        };
        let text = shown(Ok(counts), true);
        assert!(text.ends_with("# A\r\na:1\r\n\r\n# Keyspace\r\ndb0:keys=15,expires=4,avg_ttl=200\r\n\r\n# Proxy\r\nb:2\r\n\r\n"), "{text}");
        assert!(shown(Ok(Counts::default()), false).contains("# Keyspace\r\n\r\n# Proxy"));
        let text = shown(Err("ERR x:1 is gone".to_owned()), false);
        assert!(
            !text.contains("Keyspace") && text.contains("b:2\r\nkeyspace_error:ERR x:1 is gone\r\n"),
            "{text}"
        );
        assert_eq!(shown(Err("ERR x:1 is gone".to_owned()), true), "-ERR x:1 is gone\r\n");
        for text in ["db0:keys=x,expires=1", "db0:expires=1", "db0:keys=1"] {
            assert_eq!(Counts::read(text), None, "{text}");
        }
    }
}
