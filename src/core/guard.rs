//! Whether a client may do what it asks: login, the rules of its user, what is refused to everybody.
//!
//! Must not know: how rules are written.
//!
//! A client for whom there is nothing to look at is *free* ([`super::session::Session::free`]): one flag, tested once per
//! command. All that is here runs for the others.

use super::client::Client;
use super::transaction::Transaction;
use super::{ClientKey, Core, Kind};
use crate::acl::{Asked, Context, Denied, Entry, User};
use crate::command::{Class, Command, Flags};
use crate::resp::{Args, RequestScanner, Scan};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const SCRIPT: &str = "NOPERM dsproxy: scripts are refused to users with limited rights, since nodes run them with the rights of the proxy (acl.scripts)";

impl Core {
    /// A new connection, or one that was reset: the default user, logged in when that needs no password.
    pub(super) fn begin_session(&mut self, index: usize) {
        let user = self.process.access.users().default_user();
        let Some(client) = self.clients.get_mut(index) else { return };
        let is_socket = client.kind == Kind::Socket;
        client.session.authenticated = !is_socket || user.needs_no_password();
        self.become_user(index, is_socket.then_some(user));
    }

    fn become_user(&mut self, index: usize, user: Option<Arc<User>>) {
        let policy = self.process.access.policy.is_free() && !self.process.monitors.is_on();
        let Some(client) = self.clients.get_mut(index) else { return };
        let session = &mut client.session;
        session.free = session.authenticated
            && (policy || client.kind == Kind::Internal)
            && user.as_ref().is_none_or(|user| user.is_free());
        session.user = user;
    }

    /// What makes a client free has changed for all.
    pub(super) fn look_at_all_again(&mut self) {
        for index in self.clients.iter().map(|(index, _)| index).collect::<Vec<_>>() {
            let user = self.clients.get(index).and_then(|client| client.session.user.clone());
            self.become_user(index, user);
        }
    }

    /// `AUTH`, `HELLO ... AUTH`: true when the client is this user from now on.
    pub(super) fn login(&mut self, index: usize, name: &[u8], password: &[u8], command: &[u8]) -> bool {
        match self.process.access.login(name, password) {
            Some(user) => {
                if let Some(client) = self.clients.get_mut(index) {
                    client.session.authenticated = true;
                }
                self.become_user(index, Some(user));
                true
            }
            None => {
                self.note_refusal(index, "auth", command.to_vec(), Some(name));
                false
            }
        }
    }

    /// Looks at a command of a client that is not free; true when it was refused, and answered.
    #[cold]
    pub(super) fn is_refused(&mut self, index: usize, command: &'static Command, args: &Args<'_>) -> bool {
        let Some(client) = self.clients.get(index) else { return true };
        if !client.session.authenticated && !command.flags.contains(Flags::NO_AUTH) {
            self.turn_down(index, command, "NOAUTH Authentication required.");
            return true;
        }
        if client.monitors.is_some() && (command.is_write() || command.is_readonly() || may_write(command)) {
            self.turn_down(index, command, "ERR Replica can't interact with the keyspace");
            return true;
        }
        let asked = Asked::new(command, args);
        let error = match self.refusal(client, &asked) {
            None => return false,
            Some(Refusal::Denied(denied)) => {
                let user = client.session.user.clone();
                self.note_refusal(
                    index,
                    denied.name(),
                    denied.object(command, args),
                    user.as_ref().map(|user| user.name()),
                );
                denied.error(command)
            }
            Some(Refusal::Other(reason, text)) => {
                self.process.access.metrics.denied(reason);
                text
            }
        };
        self.turn_down(index, command, &error);
        true
    }

    fn refusal(&self, client: &Client, asked: &Asked<'_>) -> Option<Refusal> {
        let access = &self.process.access;
        if let Some(user) = client.session.user.as_ref().filter(|user| !user.is_free()) {
            if let Err(denied) = user.check(asked) {
                return Some(Refusal::Denied(denied));
            }
            if let Some(option) = foreign_keys(asked).filter(|_| !user.reads_all_keys(asked)) {
                let text = format!("ERR {option} option of SORT denied due to insufficient ACL permissions.");
                return Some(Refusal::Other("key", text));
            }
            if asked.command.class == Class::Script && !access.trusts_scripts {
                return Some(Refusal::Other("script", SCRIPT.to_owned()));
            }
        }
        if client.kind == Kind::Internal {
            return None;
        }
        let body = || self.scripts.body(asked.args.get(1).unwrap_or_default());
        let refused = access.policy.check(asked, body).err()?;
        Some(Refusal::Other(refused.name(), refused.error(asked.command)))
    }

    /// Answers with an error, as Redis does before a command is run: a transaction that it was for is not executed.
    fn turn_down(&mut self, index: usize, command: &'static Command, error: &str) {
        self.refuse_transaction(index);
        if command.name == "exec" {
            if let Some(client) = self.clients.get_mut(index) {
                client.transaction = None;
            }
            self.unwatch(index);
            let text = format!("EXECABORT Transaction discarded because of: {error}");
            return self.answer_error(index, Some(command), text.as_bytes());
        }
        self.answer_error(index, Some(command), error.as_bytes());
    }

    fn note_refusal(&mut self, index: usize, reason: &'static str, object: Vec<u8>, user: Option<&[u8]>) {
        let access = &self.process.access;
        access.metrics.denied(reason);
        let Some(client) = self.clients.get(index) else { return };
        let in_transaction = client.transaction.is_some();
        access.note(Entry {
            count: 1,
            reason,
            context: if in_transaction { Context::Multi } else { Context::TopLevel },
            object,
            username: user.unwrap_or_default().to_vec(),
            at_ms: now_ms(),
            client: super::local::describe(client, self.now).trim_end().to_owned(),
        });
    }

    /// What of a transaction its client's user may not run any more, now that the rules have changed.
    pub(super) fn denied_by_now(&self, index: usize, queued: &Transaction) -> Option<Denied> {
        let user = self.clients.get(index)?.session.user.as_ref()?;
        if user.is_free() || queued.user.as_ref().is_some_and(|then| Arc::ptr_eq(then, user)) {
            return None;
        }
        let mut rest = queued.requests();
        let mut scanner = RequestScanner::default();
        while let Ok(Scan::Complete(length)) = scanner.scan(rest, &self.options.request) {
            let args = Args::new(rest, scanner.spans());
            let command = self.process.learned.resolve(&args).ok()?;
            if let Err(denied) = user.check(&Asked::new(command, &args)) {
                return Some(denied);
            }
            scanner.reset();
            rest = rest.get(length..).filter(|rest| !rest.is_empty())?;
        }
        None
    }

    /// The rules have changed: every client of this worker is its user as it is now. Closes those whose user is gone, and
    /// those that hear what they may not hear any more.
    pub(super) fn rules_changed(&mut self, asker: u64) {
        let users = self.process.access.users();
        let all: Vec<usize> = self.clients.iter().map(|(index, _)| index).collect();
        for index in all {
            let Some(client) = self.clients.get(index) else { continue };
            let Some(then) = client.session.user.clone() else { continue };
            let key = ClientKey { index: index as u32, serial: client.serial };
            let now = users.get(then.name());
            let stays = now.is_some_and(|user| Arc::ptr_eq(user, &then) || self.may_hear(key, user));
            match now {
                Some(user) if stays => self.become_user(index, Some(user.clone())),
                _ => self.expel(index, asker),
            }
        }
    }

    /// Closes a client; the one that asks is told before.
    fn expel(&mut self, index: usize, asker: u64) {
        let Some(client) = self.clients.get_mut(index) else { return };
        client.session.authenticated = false;
        client.session.free = false;
        if client.session.id == asker {
            client.closing = true;
        } else {
            client.gone = true;
            self.touch(index);
        }
    }
}

/// Why a command is refused.
enum Refusal {
    /// By the rules of the user.
    Denied(Denied),
    /// For another reason: as metrics call it, and the error.
    Other(&'static str, String),
}

/// It writes, though its flags do not say so (`may_replicate` of Redis).
fn may_write(command: &Command) -> bool {
    command.class == Class::Script || matches!(command.name, "publish" | "spublish")
}

/// The option by which `SORT` reads keys that it does not name.
fn foreign_keys(asked: &Asked<'_>) -> Option<&'static str> {
    if !matches!(asked.command.name, "sort" | "sort_ro") {
        return None;
    }
    let mut at = 2;
    while let Some(word) = asked.args.get(at) {
        let value = asked.args.get(at + 1).unwrap_or_default();
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        match () {
            () if is("by") && value.contains(&b'*') => return Some("BY"),
            () if is("get") && value != b"#" => return Some("GET"),
            () if is("limit") => at += 3,
            () if is("by") || is("get") || is("store") => at += 2,
            () => at += 1,
        }
    }
    None
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
