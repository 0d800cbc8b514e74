//! `CONFIG`: our settings under their own names, and what clients read under the names of Redis.
//!
//! Must not know: how settings are parsed at start.
//!
//! What cannot be set here says so: nothing is accepted and then ignored.

use super::super::Core;
use super::{Refusal, integer, is, push_map_header, unsupported};
use crate::command::Command;
use crate::config::{Live, NEVER};
use crate::glob;
use crate::resp::{Args, push_bulk, push_simple};

/// A setting that can change while we run: our name, that of Redis, the value shown, and how a text becomes a value.
struct Changeable {
    name: &'static str,
    redis_name: &'static str,
    show: fn(&Live) -> String,
    /// Checks a value; what to do when all are right.
    read: fn(&[u8]) -> Option<u64>,
    set: fn(&Live, u64),
}

const CHANGEABLE: [Changeable; 4] = [
    Changeable {
        name: "server.max_clients",
        redis_name: "maxclients",
        show: |live| live.max_clients.get().to_string(),
        read: |text| in_range(text, 1, 1_000_000),
        set: |live, value| live.max_clients.set(value),
    },
    Changeable {
        name: "server.client_idle_timeout",
        redis_name: "timeout",
        show: |live| match live.idle_us.get() {
            NEVER => "0".to_owned(),
            us => (us / 1_000_000).to_string(),
        },
        read: |text| {
            let seconds = in_range(text, 0, 7 * 24 * 3600)?;
            Some(if seconds == 0 { NEVER } else { seconds * 1_000_000 })
        },
        set: |live, value| live.idle_us.set(value),
    },
    Changeable {
        name: "server.slowlog_threshold",
        redis_name: "slowlog-log-slower-than",
        show: |live| match live.slow_us.get() {
            NEVER => "-1".to_owned(),
            us => us.to_string(),
        },
        read: |text| match integer(text)? {
            -1 => Some(NEVER),
            us => u64::try_from(us).ok(),
        },
        set: |live, value| live.slow_us.set(value),
    },
    Changeable {
        name: "server.slowlog_entries",
        redis_name: "slowlog-max-len",
        show: |live| live.slow_entries.get().to_string(),
        read: |text| in_range(text, 0, 100_000),
        set: |live, value| live.slow_entries.set(value),
    },
];

fn in_range(text: &[u8], least: u64, most: u64) -> Option<u64> {
    integer(text).and_then(|number| u64::try_from(number).ok()).filter(|n| (least..=most).contains(n))
}

impl Core {
    pub(super) fn config_command(
        &mut self,
        command: &Command,
        args: &Args<'_>,
        protocol: u8,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        match command.short_name() {
            "get" => self.config_get(args, protocol, reply),
            "set" => return self.config_set(args, reply),
            "resetstat" => {
                self.process.reset_totals();
                push_simple(reply, "OK");
            }
            "rewrite" => {
                return Err(
                    "ERR dsproxy: the configuration file is never rewritten; change it by hand".into()
                );
            }
            _ => return Err(unsupported(command)),
        }
        Ok(())
    }

    /// `CONFIG GET pattern ...`
    fn config_get(&self, args: &Args<'_>, protocol: u8, reply: &mut Vec<u8>) {
        let mut known = self.redis_settings();
        known.extend(self.process.settings.iter().map(|(name, value)| {
            let now = CHANGEABLE.iter().find(|change| change.name == name);
            (name.clone(), now.map_or_else(|| value.clone(), |change| (change.show)(&self.process.live)))
        }));
        let asked = |name: &str| {
            args.iter().skip(2).any(|pattern| glob::matches_in_any_case(pattern, name.as_bytes()))
        };
        let answers: Vec<_> = known.iter().filter(|(name, _)| asked(name)).collect();
        push_map_header(reply, answers.len(), protocol);
        for (name, value) in answers {
            push_bulk(reply, name.as_bytes());
            push_bulk(reply, value.as_bytes());
        }
    }

    /// What clients and monitoring agents read, as it is true of the proxy: it stores nothing itself.
    fn redis_settings(&self) -> Vec<(String, String)> {
        let own = |name: &str| {
            self.process.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        let bind = own("server.listen").and_then(|listen| listen.rsplit_once(':')).map_or("", |(ip, _)| ip);
        let fixed = [
            ("save", String::new()),
            ("appendonly", "no".to_owned()),
            ("appendfsync", "everysec".to_owned()),
            ("databases", "1".to_owned()),
            ("maxmemory", "0".to_owned()),
            ("maxmemory-policy", "noeviction".to_owned()),
            ("port", self.options.about.port.to_string()),
            (
                "tls-port",
                own("tls.listen")
                    .and_then(|tls| tls.rsplit_once(':'))
                    .map_or("0", |(_, port)| port)
                    .to_owned(),
            ),
            ("bind", bind.to_owned()),
            ("cluster-enabled", "no".to_owned()),
            ("proto-max-bulk-len", self.options.request.bulk_bytes.to_string()),
            ("client-query-buffer-limit", self.options.request.frame_bytes.to_string()),
            ("io-threads", self.options.about.workers.to_string()),
            ("latency-monitor-threshold", "0".to_owned()),
            ("requirepass", String::new()),
        ];
        let changeable =
            CHANGEABLE.iter().map(|change| (change.redis_name.to_owned(), (change.show)(&self.process.live)));
        fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(changeable).collect()
    }

    /// `CONFIG SET name value ...`: all or none.
    fn config_set(&self, args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        if !args.len().is_multiple_of(2) {
            return Err("ERR wrong number of arguments for 'config|set' command".into());
        }
        let failed = |name: &[u8], why: &str| {
            let name = name.escape_ascii();
            format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
        };
        let mut changes: Vec<(&Changeable, u64)> = Vec::new();
        for at in (2..args.len()).step_by(2) {
            let (name, value) = (args.get(at).unwrap_or_default(), args.get(at + 1).unwrap_or_default());
            let Some(change) =
                CHANGEABLE.iter().find(|change| is(name, change.name) || is(name, change.redis_name))
            else {
                let known = self.redis_settings().into_iter().chain(self.process.settings.iter().cloned());
                if known.into_iter().any(|(known, _)| is(name, &known)) {
                    return Err(failed(name, "can't be set while dsproxy runs"));
                }
                let name = name.escape_ascii();
                return Err(format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'"));
            };
            if changes.iter().any(|(known, _)| known.name == change.name) {
                return Err(failed(name, "duplicate parameter"));
            }
            let value = (change.read)(value);
            changes.push((change, value.ok_or_else(|| failed(name, "argument is out of range"))?));
        }
        for (change, value) in changes {
            (change.set)(&self.process.live, value);
        }
        push_simple(reply, "OK");
        Ok(())
    }
}
