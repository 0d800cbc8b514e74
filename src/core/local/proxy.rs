//! `PROXY`: what the proxy knows of its mappings.
//!
//! Must not know: databases; what has to be asked for is asked through [`Admin`].

use super::super::client::{Begun, Slot};
use super::super::{ClientKey, Core};
use super::{Refusal, Said, Verdict, push_map_header};
use crate::cluster::Served;
use crate::command::{self, Command};
use crate::core::mapped::{Loads, Question, Told};
use crate::mapping::{Format, Mapping, StoreMode, WriteMode};
use crate::resp::{
    Args, RequestLimits, RequestScanner, push_array_header, push_bulk, push_command, push_integer,
};
use crate::slot;
use bytes::Bytes;

const HELP: [&str; 15] = [
    "PROXY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "EXPLAIN <command> [<arg> ...]",
    "    Show what the command's key stands for, the state of its entry, and the SQL of a miss.",
    "FLUSH [<mapping>] [<timeout>]",
    "    Wait until what was written before is in the database; how many writes are left after so many ms.",
    "INVALIDATE <pattern>",
    "    Drop the entries of mapped keys that match the pattern.",
    "MAPPINGS",
    "    Show the mappings as they are declared.",
    "SLOWLOG [<count>]",
    "    Show slow commands with the time at the node and in the proxy.",
    "STATS [<mapping>]",
    "    Show reads by where their answers came from.",
    "HELP",
    "    Print this help.",
];

impl Core {
    /// Runs one of them.
    pub(super) fn proxy_command(
        &mut self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let protocol = self.protocol(index);
        match command.short_name() {
            "help" => {
                push_array_header(reply, HELP.len());
                HELP.iter().for_each(|line| crate::resp::push_simple(reply, line));
            }
            "mappings" => self.show_mappings(protocol, reply),
            "stats" => self.show_stats(args.get(2), protocol, reply)?,
            "slowlog" => self.show_slow(args, protocol, reply)?,
            "explain" => {
                let question = self.explain(args)?;
                self.ask_admin(index, command, question)?;
                return Ok(Said::Elsewhere);
            }
            "flush" => {
                self.flush(index, command, args)?;
                return Ok(Said::Elsewhere);
            }
            _ => {
                let pattern = Bytes::copy_from_slice(args.get(2).unwrap_or_default());
                self.ask_admin(index, command, Question::Invalidate { pattern })?;
                return Ok(Said::Elsewhere);
            }
        }
        Ok(Said::Reply)
    }

    fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        self.data.iter().flat_map(|data| data.source.mappings().iter())
    }

    fn show_mappings(&self, protocol: u8, reply: &mut Vec<u8>) {
        push_array_header(reply, self.mappings().count());
        for mapping in self.mappings() {
            let texts = describe(mapping);
            push_map_header(reply, texts.len(), protocol);
            for (name, text) in texts {
                push_bulk(reply, name.as_bytes());
                push_bulk(reply, text.as_bytes());
            }
        }
    }

    fn show_stats(&self, wanted: Option<&[u8]>, protocol: u8, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let shown: Vec<&Mapping> =
            self.mappings().filter(|m| wanted.is_none_or(|wanted| m.name.as_bytes() == wanted)).collect();
        if let (Some(wanted), true) = (wanted, shown.is_empty()) {
            return Err(format!("ERR there is no mapping '{}'", String::from_utf8_lossy(wanted)));
        }
        push_map_header(reply, shown.len(), protocol);
        for mapping in shown {
            push_bulk(reply, mapping.name.as_bytes());
            let count = |served: Served| -> u64 {
                let cells = self.process.stats.iter().filter_map(|w| w.mappings.get(usize::from(mapping.id)));
                let hits = |hits: u64| if served == Served::Hit { hits } else { 0 };
                cells.map(|cells| cells.served[served as usize].get() + hits(cells.hits.get())).sum()
            };
            push_map_header(reply, Served::ALL.len(), protocol);
            for served in Served::ALL {
                push_bulk(reply, served.label().as_bytes());
                push_integer(reply, i64::try_from(count(served)).unwrap_or(i64::MAX));
            }
        }
        Ok(())
    }

    /// What can be said of a command without asking anybody.
    fn explain(&self, args: &Args<'_>) -> Result<Question, Refusal> {
        let mut request = Vec::new();
        let words: Vec<&[u8]> = args.iter().skip(2).collect();
        push_command(&mut request, words.iter().copied());
        let mut scanner = RequestScanner::default();
        if scanner.scan(&request, &RequestLimits::default()).is_err() {
            return Err("ERR the command is too large to be explained".into());
        }
        let explained = Args::new(&request, scanner.spans());
        let command = command::resolve(&explained)
            .map_err(|error| String::from_utf8_lossy(&error.message(&explained)).into_owned())?;
        let mut keys = Vec::new();
        let _ = command.keys(&explained, &mut keys);
        let Some(key) = keys.first().and_then(|at| explained.get(*at as usize)) else {
            return Err(format!("ERR '{}' names no key: there is nothing to explain", command.name));
        };
        let slot = slot::slot(key);
        let node = self.routes.topology().owner_addr(slot).unwrap_or("none").to_owned();
        Ok(Question::Explain {
            command: command.name,
            key: Bytes::copy_from_slice(key),
            keys: keys.len(),
            slot,
            node,
        })
    }

    /// Asks the back side; the answer comes as a load does, in its turn.
    pub(in crate::core) fn ask_admin(
        &mut self,
        index: usize,
        command: &'static Command,
        question: Question,
    ) -> Result<(), Refusal> {
        let protocol = self.protocol(index);
        let Some((admin, told)) = self.data.as_ref().map(|data| (data.admin.clone(), data.told.clone()))
        else {
            return Err("ERR no mapping is configured".into());
        };
        let at = self.now;
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        let seq = client.open(Slot::Waiting(Begun { at, command: command.id }));
        let client = ClientKey { index: index as u32, serial: client.serial };
        self.stats.inflight.add(1);
        admin.ask(
            question,
            protocol,
            // The receiver is gone only when the worker has stopped: then nobody waits.
            Box::new(move |reply| drop(told.send(Told::Loads(Loads::said(client, seq, reply))))),
        );
        Ok(())
    }
}

/// A mapping in words.
fn describe(mapping: &Mapping) -> Vec<(&'static str, String)> {
    let format = match mapping.format {
        Format::Json => "json",
        Format::Text => "text",
        Format::Hash => "hash",
        Format::List => "list",
    };
    let write = match (mapping.write, mapping.mode) {
        (WriteMode::None, _) => "none".to_owned(),
        (write, mode) => {
            let mode = if mode == StoreMode::Append { "append" } else { "upsert" };
            format!("{} ({mode})", format!("{write:?}").to_lowercase())
        }
    };
    let ttl = mapping.ttl.map_or_else(|| "none".to_owned(), |ttl| format!("{ttl:?}"));
    vec![
        ("name", mapping.name.clone()),
        ("key", mapping.template.source().to_owned()),
        ("placeholders", mapping.template.expects()),
        ("format", format.to_owned()),
        ("table", mapping.table.clone().unwrap_or_else(|| "(own load)".to_owned())),
        ("ttl", ttl),
        ("negative_ttl", format!("{:?}", mapping.fill.negative_ttl)),
        ("write", write),
        ("cache", if mapping.cache { "on" } else { "off" }.to_owned()),
    ]
}
