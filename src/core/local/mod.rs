//! Commands that the proxy answers itself: which file answers which.
//!
//! Must not know: upstreams. Source of words and shapes: Redis 7.0.

mod acl;
mod client;
mod cluster;
mod command;
mod connection;
mod diagnose;
mod info;
mod proxy;
mod settings;

pub(super) use client::{Filter, describe};
pub(super) use info::Sections;

use super::Core;
use crate::command::Command;
use crate::resp::{Args, push_array_header, push_bulk, push_error, push_integer, push_simple};
use std::time::{SystemTime, UNIX_EPOCH};

const SYNTAX: &str = "ERR syntax error";
pub(super) const NO_INTEGER: &str = "ERR value is not an integer or out of range";

/// An error's text, beginning with its code.
type Refusal = String;

/// What became of a command.
type Verdict = Result<Said, Refusal>;

/// Where the reply is.
enum Said {
    /// In the buffer.
    Reply,
    /// It is on its way some other way, or there is none.
    Elsewhere,
}

impl Core {
    /// Runs one of them.
    pub(super) fn run_local(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        let mut reply = self.spare.pop().unwrap_or_default();
        match self.answer(index, command, args, &mut reply) {
            Ok(Said::Reply) => self.answer_now(index, Some(command), &reply),
            Ok(Said::Elsewhere) => {}
            Err(text) => {
                reply.clear();
                push_error(&mut reply, &text);
                self.answer_now(index, Some(command), &reply);
            }
        }
        super::recycle(reply, &mut self.spare);
    }

    fn answer(
        &mut self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let protocol = self.protocol(index);
        let container = command.name.split_once('|').map_or(command.name, |(container, _)| container);
        let said = match container {
            "ping" => self.ping(index, args, reply),
            "echo" => {
                push_bulk(reply, args.get(1).unwrap_or_default());
                Ok(())
            }
            "quit" => self.quit(index, reply),
            "reset" => self.reset(index, reply),
            "select" => select(args, reply),
            "hello" => self.hello(index, args, reply),
            "auth" => self.auth(index, args, reply),
            "config" => self.config_command(command, args, protocol, reply),
            "time" => {
                time(reply);
                Ok(())
            }
            "role" => {
                push_array_header(reply, 3);
                push_bulk(reply, b"master");
                push_integer(reply, 0);
                push_array_header(reply, 0);
                Ok(())
            }
            // Sent by cluster-aware clients; there is nothing they could change here.
            "readonly" | "readwrite" | "asking" => {
                push_simple(reply, "OK");
                Ok(())
            }
            "info" => {
                let here = self.run_info(index, command, args, reply);
                return Ok(if here { Said::Reply } else { Said::Elsewhere });
            }
            "monitor" => return self.begin_monitor(index, command).map(|()| Said::Elsewhere),
            "client" => return self.client_command(index, command, args, reply),
            "proxy" => return self.proxy_command(index, command, args, reply),
            "cluster" => return self.cluster_command(index, command, args, reply),
            "command" => command::command_command(command, &self.process.learned, args, protocol, reply),
            "acl" => return self.acl_command(index, command, args, reply),
            "slowlog" | "latency" | "memory" => self.diagnose(command, args, protocol, reply),
            _ => Err(unsupported(command)),
        };
        said.map(|()| Said::Reply)
    }

    fn protocol(&self, index: usize) -> u8 {
        self.clients.get(index).map_or(2, |client| client.session.protocol)
    }
}

fn select(args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
    match args.get(1).and_then(integer) {
        Some(0) => push_simple(reply, "OK"),
        Some(1..=15) => return Err("ERR SELECT is not allowed in cluster mode".into()),
        Some(number) if i32::try_from(number).is_ok() => return Err("ERR DB index is out of range".into()),
        _ => return Err(NO_INTEGER.into()),
    }
    Ok(())
}

fn time(reply: &mut Vec<u8>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    push_array_header(reply, 2);
    push_bulk(reply, now.as_secs().to_string().as_bytes());
    push_bulk(reply, now.subsec_micros().to_string().as_bytes());
}

/// A number as Redis reads it: nothing but an optional minus and digits, no leading zeros (`string2ll`, util.c).
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let plain = digits.iter().all(u8::is_ascii_digit) && (digits[..] == *b"0" || !digits.starts_with(b"0"));
    if !plain || text == b"-0" {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A map in RESP3, the flat array of RESP2 otherwise.
fn push_map_header(reply: &mut Vec<u8>, pairs: usize, protocol: u8) {
    if protocol >= 3 {
        reply.extend_from_slice(format!("%{pairs}\r\n").as_bytes());
    } else {
        push_array_header(reply, pairs * 2);
    }
}

/// A set in RESP3, an array otherwise.
fn push_set_header(reply: &mut Vec<u8>, count: usize, protocol: u8) {
    if protocol >= 3 {
        reply.extend_from_slice(format!("~{count}\r\n").as_bytes());
    } else {
        push_array_header(reply, count);
    }
}

/// Text for people: a verbatim string in RESP3, a bulk string otherwise.
pub(super) fn push_text(reply: &mut Vec<u8>, text: &str, protocol: u8) {
    if protocol >= 3 {
        reply.extend_from_slice(format!("={}\r\ntxt:{text}\r\n", text.len() + 4).as_bytes());
    } else {
        push_bulk(reply, text.as_bytes());
    }
}

/// A number with a fraction: a double in RESP3, a bulk string otherwise.
fn push_double(reply: &mut Vec<u8>, number: f64, protocol: u8) {
    if protocol >= 3 {
        reply.extend_from_slice(format!(",{number}\r\n").as_bytes());
    } else {
        push_bulk(reply, number.to_string().as_bytes());
    }
}

fn unsupported(command: &Command) -> Refusal {
    format!("ERR '{}' is not supported by this proxy", command.name)
}

fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_redis_reads_them() {
        for (text, number) in [("0", Some(0)), ("-7", Some(-7)), ("10", Some(10))] {
            assert_eq!(integer(text.as_bytes()), number, "{text}");
        }
        for text in ["", "-", "-0", "01", "+1", " 1", "1x", "9223372036854775808"] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }
}
