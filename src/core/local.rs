//! Commands that the proxy answers itself: the connection's own state, and questions about the server.
//!
//! Must not know: upstreams. Source of words and shapes: Redis 7.0.

use super::Core;
use super::client::Kind;
use crate::command::{self, COMMANDS, Command};
use crate::resp::{Args, push_array_header, push_bulk, push_error, push_integer, push_nil, push_simple};
use crate::slot;
use std::time::{SystemTime, UNIX_EPOCH};

const SYNTAX: &str = "ERR syntax error";
const WRONG_PASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// An error's text, beginning with its code.
type Refusal = String;

impl Core {
    /// Runs one of them.
    pub(super) fn run_local(&mut self, index: usize, command: &'static Command, args: &Args<'_>) {
        let mut reply = self.spare.pop().unwrap_or_default();
        let verdict = match command.name {
            "ping" => ping(args, &mut reply),
            "echo" => {
                push_bulk(&mut reply, args.get(1).unwrap_or_default());
                Ok(())
            }
            "quit" => self.quit(index, &mut reply),
            "reset" => self.reset(index, &mut reply),
            "select" => select(args, &mut reply),
            "hello" => self.hello(index, args, &mut reply),
            "auth" => self.auth(index, args, &mut reply),
            "config|get" => {
                self.config_get(index, args, &mut reply);
                Ok(())
            }
            "info" => {
                let text = self.info();
                push_bulk(&mut reply, text.as_bytes());
                Ok(())
            }
            "time" => {
                time(&mut reply);
                Ok(())
            }
            "readonly" | "readwrite" => {
                push_simple(&mut reply, "OK");
                Ok(())
            }
            "cluster|keyslot" => {
                push_integer(&mut reply, i64::from(slot::slot(args.get(2).unwrap_or_default())));
                Ok(())
            }
            name if name.starts_with("client|") => self.client_command(index, command, args, &mut reply),
            name if name.starts_with("command") => {
                command_command(command, args, self.protocol(index), &mut reply)
            }
            name if name.starts_with("cluster") => {
                Err("ERR This instance has cluster support disabled".into())
            }
            _ => Err(unsupported(command)),
        };
        if let Err(text) = verdict {
            reply.clear();
            push_error(&mut reply, &text);
        }
        self.answer_now(index, Some(command), &reply);
        super::recycle(reply, &mut self.spare);
    }

    fn protocol(&self, index: usize) -> u8 {
        self.clients.get(index).map_or(2, |client| client.session.protocol)
    }

    fn quit(&mut self, index: usize, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        if let Some(client) = self.clients.get_mut(index) {
            client.closing = true;
        }
        push_simple(reply, "OK");
        Ok(())
    }

    fn reset(&mut self, index: usize, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let authenticated = self.options.password.is_none();
        self.unwatch(index);
        if let Some(client) = self.clients.get_mut(index) {
            client.session.protocol = 2;
            client.session.names = None;
            client.transaction = None;
            client.session.authenticated = authenticated || client.kind != Kind::Socket;
        }
        push_simple(reply, "RESET");
        Ok(())
    }

    /// `HELLO [protover [AUTH username password] [SETNAME clientname]]`
    fn hello(&mut self, index: usize, args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
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
                    if !self.password_fits(user, password) {
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
            return Err("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time".into());
        }
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        client.session.protocol = protocol;
        client.session.authenticated = true;
        if let Some(name) = name {
            client.session.names_mut().name = name;
        }
        let id = client.session.id;
        self.greet(protocol, id, reply);
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

    /// Compares in constant time for passwords of one length.
    fn password_fits(&self, user: &[u8], password: &[u8]) -> bool {
        let Some(expected) = &self.options.password else { return user == b"default" };
        let expected = expected.expose().as_bytes();
        let difference = expected.iter().zip(password).fold(0, |sum, (a, b)| sum | (a ^ b));
        user == b"default" && expected.len() == password.len() && difference == 0
    }

    /// `AUTH [username] password`
    fn auth(&mut self, index: usize, args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let (user, password) = match (args.get(1), args.get(2), args.len()) {
            (Some(password), None, 2) => (&b"default"[..], password),
            (Some(user), Some(password), 3) => (user, password),
            _ => return Err(SYNTAX.into()),
        };
        if self.options.password.is_none() && args.len() == 2 {
            return Err("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?".into());
        }
        if !self.password_fits(user, password) {
            return Err(WRONG_PASS.into());
        }
        if let Some(client) = self.clients.get_mut(index) {
            client.session.authenticated = true;
        }
        push_simple(reply, "OK");
        Ok(())
    }

    fn client_command(
        &mut self,
        index: usize,
        command: &Command,
        args: &Args<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let now = self.now;
        let protocol = self.protocol(index);
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        let session = &mut client.session;
        match command.short_name() {
            "id" => push_integer(reply, session.id as i64),
            "getname" => match session.name() {
                b"" => push_nil(reply, protocol),
                name => push_bulk(reply, name),
            },
            "setname" => {
                session.names_mut().name = checked_name(args.get(2).unwrap_or_default())?;
                push_simple(reply, "OK");
            }
            "setinfo" => {
                let value = checked_name(args.get(3).unwrap_or_default()).map_err(
                    |_| "ERR lib-name and lib-ver cannot contain spaces, newlines or special characters.",
                )?;
                let option = args.get(2).unwrap_or_default();
                if option.eq_ignore_ascii_case(b"LIB-NAME") {
                    session.names_mut().lib_name = value;
                } else if option.eq_ignore_ascii_case(b"LIB-VER") {
                    session.names_mut().lib_version = value;
                } else {
                    return Err(format!("ERR Unrecognized option '{}'", option.escape_ascii()));
                }
                push_simple(reply, "OK");
            }
            "info" => push_bulk(reply, describe(session, now).as_bytes()),
            "no-evict" | "no-touch" => {
                match args.get(2).unwrap_or_default().to_ascii_lowercase().as_slice() {
                    b"on" | b"off" => push_simple(reply, "OK"),
                    _ => return Err(SYNTAX.into()),
                }
            }
            _ => return Err(unsupported(command)),
        }
        Ok(())
    }

    /// `CONFIG GET pattern...`: the settings that clients look at. The proxy stores nothing itself, hence `save ""`.
    fn config_get(&self, index: usize, args: &Args<'_>, reply: &mut Vec<u8>) {
        let known = [
            ("save", String::new()),
            ("appendonly", "no".into()),
            ("databases", "1".into()),
            ("maxmemory", "0".into()),
            ("timeout", "0".into()),
            ("port", self.options.about.port.to_string()),
            ("proto-max-bulk-len", self.options.request.bulk_bytes.to_string()),
        ];
        let asked =
            |name: &str| args.iter().skip(2).any(|p| p == b"*" || p.eq_ignore_ascii_case(name.as_bytes()));
        let answers: Vec<_> = known.iter().filter(|(name, _)| asked(name)).collect();
        push_map_header(reply, answers.len(), self.protocol(index));
        for (name, value) in answers {
            push_bulk(reply, name.as_bytes());
            push_bulk(reply, value.as_bytes());
        }
    }

    fn info(&self) -> String {
        let about = &self.options.about;
        format!(
            "# Server\r\nredis_version:{}\r\nredis_mode:standalone\r\nos:Linux\r\narch_bits:64\r\nprocess_id:{}\r\n\
             tcp_port:{}\r\nuptime_in_seconds:{}\r\n\r\n# Clients\r\nconnected_clients:{}\r\n\r\n\
             # Persistence\r\nloading:0\r\n\r\n# Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n\
             # Cluster\r\ncluster_enabled:0\r\n\r\n# Proxy\r\ndsproxy_version:{}\r\nworkers:{}\r\nupstream_nodes:{}\r\n",
            about.redis_version,
            std::process::id(),
            about.port,
            self.now / 1_000_000,
            self.stats.clients.get(),
            env!("CARGO_PKG_VERSION"),
            about.workers,
            self.routes.topology().nodes().len(),
        )
    }
}

fn ping(args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
    match (args.get(1), args.len()) {
        (None, _) => push_simple(reply, "PONG"),
        (Some(message), 2) => push_bulk(reply, message),
        _ => return Err("ERR wrong number of arguments for 'ping' command".into()),
    }
    Ok(())
}

fn select(args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
    let number: Option<i64> = args.get(1).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    match number {
        Some(0) => push_simple(reply, "OK"),
        Some(_) => return Err("ERR SELECT is not allowed in cluster mode".into()),
        None => return Err("ERR value is not an integer or out of range".into()),
    }
    Ok(())
}

fn time(reply: &mut Vec<u8>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    push_array_header(reply, 2);
    push_bulk(reply, now.as_secs().to_string().as_bytes());
    push_bulk(reply, now.subsec_micros().to_string().as_bytes());
}

/// `COMMAND [COUNT | LIST | DOCS ... | GETKEYS ...]`
fn command_command(
    command: &Command,
    args: &Args<'_>,
    protocol: u8,
    reply: &mut Vec<u8>,
) -> Result<(), Refusal> {
    match command.name {
        "command" => {
            push_array_header(reply, COMMANDS.len());
            COMMANDS.iter().for_each(|command| push_command_info(command, protocol, reply));
        }
        "command|info" => {
            push_array_header(reply, args.len() - 2);
            for name in args.iter().skip(2) {
                match command::lookup(name) {
                    Some(command) => push_command_info(command, protocol, reply),
                    None => reply.extend_from_slice(if protocol >= 3 { b"_\r\n" } else { b"*-1\r\n" }),
                }
            }
        }
        "command|count" => push_integer(reply, COMMANDS.len() as i64),
        "command|list" if args.len() == 2 => {
            push_array_header(reply, COMMANDS.len());
            COMMANDS.iter().for_each(|command| push_bulk(reply, command.name.as_bytes()));
        }
        // Clients use this for hints only; an empty answer means "no hints".
        "command|docs" => push_map_header(reply, 0, protocol),
        "command|getkeys" => return get_keys(args, reply),
        _ => return Err(unsupported(command)),
    }
    Ok(())
}

/// One element of `COMMAND`: name, arity, flags, first key, last key, step, ACL categories, hints, key specs and
/// subcommands (the last three empty).
fn push_command_info(command: &Command, protocol: u8, reply: &mut Vec<u8>) {
    let set = |reply: &mut Vec<u8>, names: &[&str]| {
        push_array_header(reply, names.len());
        if protocol >= 3
            && let Some(kind) = reply.iter().rposition(|b| *b == b'*')
        {
            reply[kind] = b'~';
        }
        names.iter().for_each(|name| push_simple(reply, name));
    };
    push_array_header(reply, 10);
    push_bulk(reply, command.name.as_bytes());
    push_integer(reply, i64::from(command.arity));
    set(reply, &command.flags.names().collect::<Vec<_>>());
    for position in [command.range.first, command.range.last, command.range.step] {
        push_integer(reply, i64::from(position));
    }
    set(reply, &command.categories.names().collect::<Vec<_>>());
    push_array_header(reply, 0);
    push_array_header(reply, 0);
    push_array_header(reply, 0);
}

fn get_keys(args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
    let inner: Vec<&[u8]> = args.iter().skip(2).collect();
    let mut frame = Vec::new();
    crate::resp::push_command(&mut frame, inner.iter().copied());
    let mut scanner = crate::resp::RequestScanner::default();
    let scanned = scanner.scan(&frame, &crate::resp::RequestLimits::default());
    let inner = Args::new(&frame, scanner.spans());
    let command = match (scanned, command::resolve(&inner)) {
        (Ok(_), Ok(command)) => command,
        (_, Err(command::ResolveError::WrongArity(_))) => {
            return Err("ERR Invalid number of arguments specified for command".into());
        }
        _ => return Err("ERR Invalid command specified".into()),
    };
    let mut keys = Vec::new();
    command.keys(&inner, &mut keys).map_err(|error| format!("ERR {error}"))?;
    if keys.is_empty() {
        return Err("ERR The command has no key arguments".into());
    }
    push_array_header(reply, keys.len());
    keys.iter().for_each(|at| push_bulk(reply, inner.get(*at as usize).unwrap_or_default()));
    Ok(())
}

/// A map in RESP3, the flat array of RESP2 otherwise.
fn push_map_header(reply: &mut Vec<u8>, pairs: usize, protocol: u8) {
    if protocol >= 3 {
        reply.extend_from_slice(format!("%{pairs}\r\n").as_bytes());
    } else {
        push_array_header(reply, pairs * 2);
    }
}

fn unsupported(command: &Command) -> Refusal {
    format!("ERR '{}' is not supported by this proxy yet", command.name)
}

/// A client name: printable, without blanks.
fn checked_name(name: &[u8]) -> Result<Vec<u8>, Refusal> {
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        Ok(name.to_vec())
    } else {
        Err("ERR Client names cannot contain spaces, newlines or special characters.".into())
    }
}

fn describe(session: &super::session::Session, now: u64) -> String {
    let names = session.names.as_deref().cloned().unwrap_or_default();
    format!(
        "id={} addr={} laddr= fd=0 name={} age={} idle=0 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 resp={} lib-name={} lib-ver={}\n",
        session.id,
        session.peer.as_deref().unwrap_or(""),
        String::from_utf8_lossy(&names.name),
        now.saturating_sub(session.since) / 1_000_000,
        session.protocol,
        String::from_utf8_lossy(&names.lib_name),
        String::from_utf8_lossy(&names.lib_version),
    )
}
