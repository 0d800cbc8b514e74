//! `ACL`: the users of the proxy, as Redis 7.0 shows and changes its own.
//!
//! Must not know: how rules are applied.

use super::super::Core;
use super::super::guard::now_ms;
use super::super::peers::Question;
use super::{
    NO_INTEGER, Refusal, Said, Verdict, integer, is, push_double, push_map_header, push_set_header,
    unsupported,
};
use crate::acl::{Asked, Entry, Selector, User, joined_selectors};
use crate::command::{self, Categories, Command, ResolveError};
use crate::resp::{Args, push_array_header, push_bulk, push_integer, push_nil, push_simple};
use std::io::Read;

/// Bits of `ACL GENPASS` unless told otherwise, and the most it gives.
const BITS: (i64, i64) = (256, 4096);
/// Entries of `ACL LOG` unless told otherwise.
const ENTRIES: i64 = 10;

const NO_FILE: &str = "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in the Redis configuration.";

impl Core {
    pub(super) fn acl_command(
        &mut self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let protocol = self.protocol(index);
        match command.short_name() {
            "whoami" => {
                push_bulk(reply, self.clients.get(index).map_or(b"", |client| client.session.username()));
            }
            "cat" => cat(args, reply)?,
            "genpass" => generate(args, reply)?,
            "list" => push_all(reply, self.process.access.users().lines().iter().map(Vec::as_slice)),
            "users" => push_all(reply, self.process.access.users().iter().map(|user| user.name())),
            "getuser" => match self.process.access.users().get(args.get(2).unwrap_or_default()) {
                Some(user) => push_user(reply, user, protocol),
                None => push_nil(reply, protocol),
            },
            "dryrun" => self.dry_run(args, reply)?,
            "log" => self.acl_log(args, protocol, reply)?,
            "setuser" => {
                self.set_user(args)?;
                return Ok(self.tell_rules(index, command, |_, _, reply| push_simple(reply, "OK")));
            }
            "deluser" => return self.delete_users(index, command, args),
            "load" => {
                let file = self.process.access.file().ok_or(NO_FILE)?;
                self.process.access.load(file).map_err(|error| format!("ERR {error}"))?;
                return Ok(self.tell_rules(index, command, |_, _, reply| push_simple(reply, "OK")));
            }
            "save" => {
                let file = self.process.access.file().ok_or(NO_FILE)?;
                self.process.access.save(file).map_err(|error| {
                    tracing::warn!(file = %file.display(), %error, "cannot save the ACL file");
                    "ERR There was an error trying to save the ACLs. Please check the server logs for more information"
                })?;
                push_simple(reply, "OK");
            }
            _ => return Err(unsupported(command)),
        }
        Ok(Said::Reply)
    }

    /// Has every worker look at the users again; the client is answered when all have.
    fn tell_rules(
        &mut self,
        index: usize,
        command: &'static Command,
        finish: super::super::peers::Finish,
    ) -> Said {
        let asker = self.clients.get(index).map_or(0, |client| client.session.id);
        self.ask_all(index, command, &Question::Rules { asker, deleted: 0 }, finish);
        Said::Elsewhere
    }

    /// `ACL SETUSER name [rule ...]`: all rules or none.
    fn set_user(&self, args: &Args<'_>) -> Result<(), Refusal> {
        let name = args.get(2).unwrap_or_default();
        if name.iter().any(|byte| byte.is_ascii_whitespace() || *byte == 0) {
            return Err("ERR Usernames can't contain spaces or null characters".into());
        }
        let rules: Vec<&[u8]> = args.iter().skip(3).collect();
        let rules = joined_selectors(&rules).map_err(|open| {
            let at = rules.get(open).copied().unwrap_or_default();
            format!(
                "ERR Unmatched parenthesis in acl selector starting at '{}'.",
                String::from_utf8_lossy(at)
            )
        })?;
        let access = &self.process.access;
        access.change(|users| {
            let mut user = users.get(name).map_or_else(|| User::new(name), |user| User::clone(user));
            for rule in rules {
                user.apply(&rule, &access.learned).map_err(|error| {
                    // Redis shows the rule whatever it is; one that may hold a password is not repeated here.
                    let shown = match rule.first() {
                        Some(b'>' | b'<' | b'#' | b'!') => {
                            String::from_utf8_lossy(&rule[..1]).into_owned() + "..."
                        }
                        _ => String::from_utf8_lossy(&rule).into_owned(),
                    };
                    format!("ERR Error in ACL SETUSER modifier '{shown}': {error}")
                })?;
            }
            users.put(user);
            Ok(())
        })
    }

    /// `ACL DELUSER name ...`
    fn delete_users(&mut self, index: usize, command: &'static Command, args: &Args<'_>) -> Verdict {
        if args.iter().skip(2).any(|name| name == crate::acl::DEFAULT) {
            return Err("ERR The 'default' user cannot be removed".into());
        }
        let deleted = self.process.access.change(|users| {
            Ok::<_, Refusal>(args.iter().skip(2).filter(|name| users.remove(name)).count())
        })?;
        let asker = self.clients.get(index).map_or(0, |client| client.session.id);
        let question = Question::Rules { asker, deleted: deleted as u64 };
        self.ask_all(index, command, &question, |answer, _, reply| {
            push_integer(reply, answer.count as i64);
        });
        Ok(Said::Elsewhere)
    }

    /// `ACL DRYRUN name command [argument ...]`
    fn dry_run(&self, args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let shown = |at: usize| String::from_utf8_lossy(args.get(at).unwrap_or_default()).into_owned();
        let users = self.process.access.users();
        let user = users.get(args.get(2).unwrap_or_default());
        let user = user.ok_or_else(|| format!("ERR User '{}' not found", shown(2)))?;
        let asked = args.from(3);
        let command = match self.process.learned.resolve(&asked) {
            Ok(command) => command,
            Err(ResolveError::WrongArity(command)) => return Err(command::wrong_arity_error(command)),
            Err(_) => return Err(format!("ERR Command '{}' not found", shown(3))),
        };
        match user.check(&Asked::new(command, &asked)) {
            Ok(()) => push_simple(reply, "OK"),
            Err(denied) => push_bulk(reply, denied.verdict(command, &asked).as_bytes()),
        }
        Ok(())
    }

    /// `ACL LOG [count | RESET]`
    fn acl_log(&self, args: &Args<'_>, protocol: u8, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        if args.len() > 3 {
            let text = "ERR unknown subcommand or wrong number of arguments for 'LOG'. Try ACL HELP.";
            return Err(text.into());
        }
        let mut log = self.process.access.log();
        let count = match args.get(2) {
            None => ENTRIES,
            Some(word) if is(word, "reset") => {
                log.clear();
                push_simple(reply, "OK");
                return Ok(());
            }
            Some(count) => integer(count).ok_or(NO_INTEGER)?.max(0),
        };
        let entries = log.newest(usize::try_from(count).unwrap_or_default());
        push_array_header(reply, entries.len());
        entries.for_each(|entry| push_entry(reply, entry, protocol));
        Ok(())
    }
}

fn push_entry(reply: &mut Vec<u8>, entry: &Entry, protocol: u8) {
    push_map_header(reply, 7, protocol);
    push_bulk(reply, b"count");
    push_integer(reply, entry.count as i64);
    let age = now_ms().saturating_sub(entry.at_ms) as f64 / 1000.0;
    let texts: [(&str, &[u8]); 4] = [
        ("reason", entry.reason.as_bytes()),
        ("context", entry.context.name().as_bytes()),
        ("object", &entry.object),
        ("username", &entry.username),
    ];
    for (name, value) in texts {
        push_bulk(reply, name.as_bytes());
        push_bulk(reply, value);
    }
    push_bulk(reply, b"age-seconds");
    push_double(reply, age, protocol);
    push_bulk(reply, b"client-info");
    push_bulk(reply, entry.client.as_bytes());
}

fn push_user(reply: &mut Vec<u8>, user: &User, protocol: u8) {
    let (root, others) = user.parts();
    push_map_header(reply, 6, protocol);
    push_bulk(reply, b"flags");
    let flags = user.flags();
    push_set_header(reply, flags.len(), protocol);
    flags.iter().for_each(|flag| push_bulk(reply, flag.as_bytes()));
    push_bulk(reply, b"passwords");
    push_array_header(reply, user.passwords().len());
    user.passwords().iter().for_each(|password| push_bulk(reply, password.expose().as_bytes()));
    push_selector(reply, root);
    push_bulk(reply, b"selectors");
    push_array_header(reply, others.len());
    for selector in others {
        push_map_header(reply, 3, protocol);
        push_selector(reply, selector);
    }
}

/// Three pairs.
fn push_selector(reply: &mut Vec<u8>, selector: &Selector) {
    push_bulk(reply, b"commands");
    push_bulk(reply, selector.describe_commands().as_bytes());
    push_bulk(reply, b"keys");
    push_bulk(reply, &selector.describe_keys());
    push_bulk(reply, b"channels");
    push_bulk(reply, &selector.describe_channels());
}

fn push_all<'a>(reply: &mut Vec<u8>, items: impl Iterator<Item = &'a [u8]>) {
    let items: Vec<_> = items.collect();
    push_array_header(reply, items.len());
    items.iter().for_each(|item| push_bulk(reply, item));
}

/// `ACL CAT [category]`
fn cat(args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
    if args.len() > 3 {
        let text = "ERR unknown subcommand or wrong number of arguments for 'CAT'. Try ACL HELP.";
        return Err(text.into());
    }
    let Some(name) = args.get(2) else {
        push_all(reply, Categories::all().map(str::as_bytes));
        return Ok(());
    };
    let wanted =
        std::str::from_utf8(name).ok().and_then(|name| Categories::named(&name.to_ascii_lowercase()));
    let Some(wanted) = wanted else {
        return Err(format!("ERR Unknown category '{}'", name.escape_ascii()));
    };
    let fitting = command::all().filter(|command| command.categories.contains(wanted));
    push_all(reply, fitting.map(|command| command.name.as_bytes()));
    Ok(())
}

/// `ACL GENPASS [bits]`
fn generate(args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
    let bits = match args.get(2) {
        Some(bits) => integer(bits).ok_or(NO_INTEGER)?,
        None => BITS.0,
    };
    if args.len() > 3 || !(1..=BITS.1).contains(&bits) {
        let text = "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096";
        return Err(text.into());
    }
    let digits = (bits as usize).div_ceil(4);
    let mut random = vec![0; digits.div_ceil(2)];
    let filled = std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random));
    filled.map_err(|error| format!("ERR dsproxy: the system gives no random numbers: {error}"))?;
    let mut text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    push_bulk(reply, text.as_bytes());
    Ok(())
}
