//! The connection itself: `HELLO`, `AUTH`, `PING`, `QUIT`, `RESET`.
//!
//! Must not know: other clients.

use super::super::client::Mute;
use super::super::{ClientKey, Core};
use super::client::checked_name;
use super::{Refusal, SYNTAX, push_map_header};
use crate::resp::{Args, push_array_header, push_bulk, push_integer, push_simple};

const WRONG_PASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

impl Core {
    pub(super) fn ping(
        &mut self,
        _index: usize,
        args: &Args<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        match (args.get(1), args.len()) {
            (None, _) => push_simple(reply, "PONG"),
            (Some(message), 2) => push_bulk(reply, message),
            _ => return Err("ERR wrong number of arguments for 'ping' command".into()),
        }
        Ok(())
    }

    pub(super) fn quit(&mut self, index: usize, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        if let Some(client) = self.clients.get_mut(index) {
            client.closing = true;
        }
        push_simple(reply, "OK");
        Ok(())
    }

    pub(super) fn reset(&mut self, index: usize, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        self.unwatch(index);
        if let Some(client) = self.clients.get_mut(index)
            && client.monitors.take().is_some()
        {
            let key = ClientKey { index: index as u32, serial: client.serial };
            self.end_monitor(key);
        }
        if let Some(client) = self.clients.get_mut(index) {
            client.session.protocol = 2;
            client.session.names = None;
            client.transaction = None;
            client.mute = Mute::No;
        }
        self.begin_session(index);
        push_simple(reply, "RESET");
        Ok(())
    }

    /// `HELLO [protover [AUTH username password] [SETNAME clientname]]`
    pub(super) fn hello(
        &mut self,
        index: usize,
        args: &Args<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let mut protocol = self.protocol(index);
        if let Some(version) = args.get(1) {
            let number: i64 = std::str::from_utf8(version)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or("ERR Protocol version is not an integer or out of range")?;
            protocol = match number {
                2 => 2,
                3 => 3,
                _ => return Err("NOPROTO unsupported protocol version".into()),
            };
        }
        let mut authenticated = self.clients.get(index).is_some_and(|client| client.session.authenticated);
        let mut name = None;
        let mut at = 2;
        while let Some(option) = args.get(at) {
            match (args.get(at + 1), args.get(at + 2)) {
                (Some(user), Some(password)) if option.eq_ignore_ascii_case(b"AUTH") => {
                    if !self.login(index, user, password, args.name()) {
                        return Err(WRONG_PASS.into());
                    }
                    authenticated = true;
                    at += 3;
                }
                (Some(value), _) if option.eq_ignore_ascii_case(b"SETNAME") => {
                    name = Some(checked_name(value)?);
                    at += 2;
                }
                _ => return Err(format!("ERR Syntax error in HELLO option '{}'", option.escape_ascii())),
            }
        }
        if !authenticated {
            return Err("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time".into());
        }
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        let before = std::mem::replace(&mut client.session.protocol, protocol);
        let watch = client.watch.clone().filter(|_| before != protocol);
        if let Some(name) = name {
            client.session.names_mut().name = name;
        }
        let id = client.session.id;
        self.greet(protocol, id, reply);
        if let Some(watch) = watch {
            self.watch_in_dialect(&watch, protocol);
        }
        Ok(())
    }

    fn greet(&self, protocol: u8, id: u64, reply: &mut Vec<u8>) {
        push_map_header(reply, 7, protocol);
        push_bulk(reply, b"server");
        push_bulk(reply, b"redis");
        push_bulk(reply, b"version");
        push_bulk(reply, self.options.about.redis_version.as_bytes());
        push_bulk(reply, b"proto");
        push_integer(reply, i64::from(protocol));
        push_bulk(reply, b"id");
        push_integer(reply, id as i64);
        push_bulk(reply, b"mode");
        push_bulk(reply, b"standalone");
        push_bulk(reply, b"role");
        push_bulk(reply, b"master");
        push_bulk(reply, b"modules");
        push_array_header(reply, 0);
    }

    /// `AUTH [username] password`
    pub(super) fn auth(&mut self, index: usize, args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let (user, password) = match (args.get(1), args.get(2), args.len()) {
            (Some(password), None, 2) => (&b"default"[..], password),
            (Some(user), Some(password), 3) => (user, password),
            _ => return Err(SYNTAX.into()),
        };
        if args.len() == 2 && self.process.access.users().default_user().has_no_password() {
            return Err("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?".into());
        }
        if !self.login(index, user, password, args.name()) {
            return Err(WRONG_PASS.into());
        }
        push_simple(reply, "OK");
        Ok(())
    }
}
