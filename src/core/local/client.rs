//! `CLIENT`: the connections to this proxy, over all its workers.
//!
//! Must not know: how the workers are asked (`peers.rs`).

use super::super::Core;
use super::super::client::{Client, Mute};
use super::super::pause::Held;
use super::super::peers::Question;
use super::super::session::Session;
use super::{
    NO_INTEGER, Refusal, SYNTAX, Said, Verdict, integer, is, push_map_header, push_set_header, push_text,
    unsupported,
};
use crate::command::{self, Command};
use crate::resp::{Args, push_array_header, push_bulk, push_error, push_integer, push_nil, push_simple};
use std::time::Duration;

impl Core {
    pub(super) fn client_command(
        &mut self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let now = self.now;
        let Some(client) = self.clients.get_mut(index) else { return Ok(Said::Elsewhere) };
        let protocol = client.session.protocol;
        match command.short_name() {
            "id" => push_integer(reply, client.session.id as i64),
            "getname" => match client.session.name() {
                b"" => push_nil(reply, protocol),
                name => push_bulk(reply, name),
            },
            "setname" => {
                client.session.names_mut().name = checked_name(args.get(2).unwrap_or_default())?;
                push_simple(reply, "OK");
            }
            "setinfo" => set_info(&mut client.session, args, reply)?,
            "info" => push_text(reply, &describe(client, now), protocol),
            "list" => return self.client_list(index, command, args),
            "kill" => return self.client_kill(index, command, args),
            "reply" => return mute(client, args, reply),
            "no-evict" | "no-touch" => match args.get(2).unwrap_or_default() {
                // Nothing is evicted here, and no node is told: each client shares its connections with all others.
                word if is(word, "on") || is(word, "off") => push_simple(reply, "OK"),
                _ => return Err(SYNTAX.into()),
            },
            "getredir" => push_integer(reply, -1),
            "trackinginfo" => {
                push_map_header(reply, 3, protocol);
                push_bulk(reply, b"flags");
                push_set_header(reply, 1, protocol);
                push_bulk(reply, b"off");
                push_bulk(reply, b"redirect");
                push_integer(reply, -1);
                push_bulk(reply, b"prefixes");
                push_array_header(reply, 0);
            }
            "tracking" => tracking(args, reply)?,
            "caching" => {
                let text = "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled";
                return Err(text.into());
            }
            "unblock" => return self.client_unblock(index, command, args),
            "unpause" => {
                self.end_pause(index, command);
                return Ok(Said::Elsewhere);
            }
            "pause" => {
                let (held, time) = pause(args)?;
                self.begin_pause(index, command, held, time)?;
                return Ok(Said::Elsewhere);
            }
            _ => return Err(unsupported(command)),
        }
        Ok(Said::Reply)
    }

    /// `CLIENT LIST [TYPE type] [ID id ...]`, one of the two.
    fn client_list(&mut self, index: usize, command: &'static Command, args: &Args<'_>) -> Verdict {
        let mut filter = Filter::default();
        match (args.get(2), args.len()) {
            (None, _) => {}
            (Some(word), 4) if is(word, "type") => {
                filter.types = Some(ClientType::parse(args.get(3).unwrap_or_default())?);
            }
            (Some(word), 4..) if is(word, "id") => {
                let ids = args.iter().skip(3).map(|id| integer(id).ok_or("ERR Invalid client ID"));
                filter.ids = Some(ids.collect::<Result<_, _>>()?);
            }
            _ => return Err(SYNTAX.into()),
        }
        self.ask_all(index, command, &Question::List(filter), |answer, protocol, reply| {
            let text: String = answer.lines.into_iter().map(|(_, line)| line).collect();
            push_text(reply, &text, protocol);
        });
        Ok(Said::Elsewhere)
    }

    /// `CLIENT UNBLOCK id [TIMEOUT|ERROR]`
    fn client_unblock(&mut self, index: usize, command: &'static Command, args: &Args<'_>) -> Verdict {
        if args.len() > 4 {
            let text = "ERR unknown subcommand or wrong number of arguments for 'UNBLOCK'. Try CLIENT HELP.";
            return Err(text.into());
        }
        let error = match args.get(3) {
            None => false,
            Some(word) if is(word, "timeout") => false,
            Some(word) if is(word, "error") => true,
            Some(_) => return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".into()),
        };
        let id = args.get(2).and_then(integer).ok_or(NO_INTEGER)?;
        // No client has a negative one.
        let question = Question::Unblock { id: u64::try_from(id).unwrap_or(u64::MAX), error };
        self.ask_all(index, command, &question, |answer, _, reply| {
            push_integer(reply, answer.count as i64);
        });
        Ok(Said::Elsewhere)
    }

    /// `CLIENT KILL addr`, or `CLIENT KILL filter value ...`
    fn client_kill(&mut self, index: usize, command: &'static Command, args: &Args<'_>) -> Verdict {
        let asker = self.clients.get(index).map_or(0, |client| client.session.id);
        let mut filter = Filter { asker, ..Filter::default() };
        if args.len() == 3 {
            filter.addr = args.get(2).map(<[u8]>::to_vec);
            self.ask_all(index, command, &Question::Kill(filter), |answer, _, reply| match answer.count {
                0 => push_error(reply, "ERR No such client"),
                _ => push_simple(reply, "OK"),
            });
            return Ok(Said::Elsewhere);
        }
        filter.skips_asker = true;
        for at in (2..args.len()).step_by(2) {
            let (Some(option), Some(value)) = (args.get(at), args.get(at + 1)) else {
                return Err(SYNTAX.into());
            };
            if is(option, "id") {
                let id = integer(value).filter(|id| *id > 0);
                filter.ids = Some(vec![id.ok_or("ERR client-id should be greater than 0")?]);
            } else if is(option, "type") {
                filter.types = Some(ClientType::parse(value)?);
            } else if is(option, "addr") {
                filter.addr = Some(value.to_vec());
            } else if is(option, "laddr") {
                filter.local = Some(value.to_vec());
            } else if is(option, "user") {
                if self.process.access.users().get(value).is_none() {
                    return Err(format!("ERR No such user '{}'", value.escape_ascii()));
                }
                filter.user = Some(value.to_vec());
            } else if is(option, "skipme") && (is(value, "yes") || is(value, "no")) {
                filter.skips_asker = is(value, "yes");
            } else {
                return Err(SYNTAX.into());
            }
        }
        self.ask_all(index, command, &Question::Kill(filter), |answer, _, reply| {
            push_integer(reply, answer.count as i64);
        });
        Ok(Said::Elsewhere)
    }
}

/// Which clients are meant; those that fit everything that is given.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Filter {
    /// Id of the client that asks.
    pub asker: u64,
    skips_asker: bool,
    ids: Option<Vec<i64>>,
    types: Option<ClientType>,
    addr: Option<Vec<u8>>,
    local: Option<Vec<u8>>,
    user: Option<Vec<u8>>,
}

impl Filter {
    /// True for a client that is meant.
    pub fn fits(&self, client: &Client) -> bool {
        let session = &client.session;
        let is_addr = |wanted: &Option<Vec<u8>>, addr: &Option<Box<str>>| {
            wanted.as_deref().is_none_or(|wanted| addr.as_deref().unwrap_or_default().as_bytes() == wanted)
        };
        !(self.skips_asker && session.id == self.asker)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&(session.id as i64)))
            && self.types.is_none_or(|wanted| wanted == ClientType::of(client))
            && self.user.as_deref().is_none_or(|user| user == session.username())
            && is_addr(&self.addr, &session.peer)
            && is_addr(&self.local, &session.local)
    }
}

/// What `CLIENT LIST TYPE` tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientType {
    Normal,
    /// It has subscribed.
    PubSub,
    /// A kind that nobody is here: replicas, primaries.
    Other,
}

impl ClientType {
    fn of(client: &Client) -> Self {
        match &client.subscriber {
            Some(subscriber) if subscriber.counts() != [0; 3] => Self::PubSub,
            _ => Self::Normal,
        }
    }

    fn parse(name: &[u8]) -> Result<Self, Refusal> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(Self::Normal),
            b"pubsub" => Ok(Self::PubSub),
            b"slave" | b"replica" | b"master" => Ok(Self::Other),
            _ => Err(format!("ERR Unknown client type '{}'", name.escape_ascii())),
        }
    }
}

/// `CLIENT PAUSE timeout [WRITE|ALL]`, in milliseconds.
fn pause(args: &Args<'_>) -> Result<(Held, Duration), Refusal> {
    if args.len() > 4 {
        let text = "ERR unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP.";
        return Err(text.into());
    }
    let held = match args.get(3) {
        None => Held::Everything,
        Some(word) if is(word, "all") => Held::Everything,
        Some(word) if is(word, "write") => Held::Writes,
        Some(_) => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL".into()),
    };
    let time = args.get(2).and_then(integer).ok_or("ERR timeout is not an integer or out of range")?;
    let time = u64::try_from(time).map_err(|_| "ERR timeout is negative")?;
    Ok((held, Duration::from_millis(time)))
}

/// `CLIENT REPLY ON|OFF|SKIP`: of the three, only ON is answered.
fn mute(client: &mut Client, args: &Args<'_>, reply: &mut Vec<u8>) -> Verdict {
    let word = args.get(2).unwrap_or_default();
    if is(word, "on") {
        client.mute = Mute::No;
        push_simple(reply, "OK");
        return Ok(Said::Reply);
    }
    if is(word, "off") {
        client.mute = Mute::All;
    } else if is(word, "skip") {
        if client.mute != Mute::All {
            client.mute = Mute::Next;
        }
    } else {
        return Err(SYNTAX.into());
    }
    Ok(Said::Elsewhere)
}

/// `CLIENT SETINFO LIB-NAME|LIB-VER value`
fn set_info(session: &mut Session, args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
    let (option, value) = (args.get(2).unwrap_or_default(), args.get(3).unwrap_or_default());
    let is_name = is(option, "lib-name");
    if !is_name && !is(option, "lib-ver") {
        return Err(format!("ERR Unrecognized option '{}'", option.escape_ascii()));
    }
    let checked = checked_name(value).map_err(|_| {
        let option = String::from_utf8_lossy(option).to_ascii_lowercase();
        format!("ERR {option} cannot contain spaces, newlines or special characters.")
    })?;
    let names = session.names_mut();
    *(if is_name { &mut names.lib_name } else { &mut names.lib_version }) = checked;
    push_simple(reply, "OK");
    Ok(())
}

/// `CLIENT TRACKING ON|OFF ...`: invalidations of the nodes do not reach clients, so it stays off.
fn tracking(args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
    let (mut broadcast, mut prefixes, mut opt_in, mut opt_out) = (false, false, false, false);
    let mut at = 3;
    while let Some(option) = args.get(at) {
        let has_value = args.get(at + 1).is_some();
        match option.to_ascii_lowercase().as_slice() {
            b"redirect" if has_value => at += 1,
            b"prefix" if has_value => (prefixes, at) = (true, at + 1),
            b"bcast" => broadcast = true,
            b"optin" => opt_in = true,
            b"optout" => opt_out = true,
            b"noloop" => {}
            _ => return Err(SYNTAX.into()),
        }
        at += 1;
    }
    let text = match args.get(2).unwrap_or_default() {
        word if is(word, "off") => {
            push_simple(reply, "OK");
            return Ok(());
        }
        word if !is(word, "on") => SYNTAX,
        _ if prefixes && !broadcast => "ERR PREFIX option requires BCAST mode to be enabled",
        _ if broadcast && (opt_in || opt_out) => "ERR OPTIN and OPTOUT are not compatible with BCAST",
        _ if opt_in && opt_out => "ERR You can't specify both OPTIN mode and OPTOUT mode",
        _ => {
            "ERR dsproxy: CLIENT TRACKING is not available: invalidations of the nodes are not passed on to clients"
        }
    };
    Err(text.into())
}

/// A client name: printable, without blanks.
pub(super) fn checked_name(name: &[u8]) -> Result<Vec<u8>, Refusal> {
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        Ok(name.to_vec())
    } else {
        Err("ERR Client names cannot contain spaces, newlines or special characters.".into())
    }
}

/// The client's line of `CLIENT LIST`, with the fields of Redis 7.0 and the library's name and version of 7.2.
pub(in super::super) fn describe(client: &Client, now: u64) -> String {
    let session = &client.session;
    let names = session.names.as_deref().cloned().unwrap_or_default();
    let seconds = |since: u64| now.saturating_sub(since) / 1_000_000;
    let [sub, psub, ssub] = client.subscriber.as_ref().map_or([0; 3], |subscriber| subscriber.counts());
    let multi = client.transaction.as_ref().map_or(-1, |queued| i64::from(queued.len()));
    let flags = match (ClientType::of(client), multi >= 0) {
        _ if client.monitors.is_some() => "O",
        _ if client.put_off => "b",
        (ClientType::PubSub, _) => "P",
        (_, true) => "x",
        _ => "N",
    };
    let (unread, unwritten) = (client.tail.len(), client.unwritten());
    format!(
        "id={} addr={} laddr={} fd=0 name={} age={} idle={} flags={flags} db=0 sub={sub} psub={psub} ssub={ssub} multi={multi} \
         qbuf={unread} qbuf-free={} argv-mem=0 multi-mem=0 rbs={} rbp={} obl={unwritten} oll=0 omem=0 tot-mem={} \
         events=r cmd={} user={} redir=-1 resp={} lib-name={} lib-ver={}\n",
        session.id,
        session.peer.as_deref().unwrap_or_default(),
        session.local.as_deref().unwrap_or_default(),
        String::from_utf8_lossy(&names.name),
        seconds(session.since),
        seconds(client.heard_at),
        client.tail.capacity() - unread,
        client.out.capacity(),
        client.out.capacity(),
        client.tail.capacity() + client.out.capacity() + size_of::<Client>(),
        command::name_of(client.command).unwrap_or("NULL"),
        String::from_utf8_lossy(session.username()),
        session.protocol,
        String::from_utf8_lossy(&names.lib_name),
        String::from_utf8_lossy(&names.lib_version),
    )
}
