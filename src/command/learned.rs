//! Commands that the table does not know, taken from what a node says at start: modules, newer servers.
//!
//! Must not know: how the node was asked.
//!
//! They are looked up only after the table has failed, so that a known command pays nothing for them. What is learned
//! lives as long as the process: it is made once, and rows of the table live as long, too.

use super::flags::{Categories, Flags, KeyFlags};
use super::keys::{Begin, Find, Finder, KeyRange, KeySpec};
use super::{Class, Command, ID_COUNT, ResolveError, lookup, resolve};
use crate::resp::Args;
use redis_protocol::resp3::types::BytesFrame;
use std::collections::HashMap;

const REFUSED: &str = "Unknown to the proxy, and for administrators: ask the nodes.";
const UNROUTABLE: &str = "Unknown to the proxy, and its keys cannot be told from what the server says of it.";

/// Commands beyond the table, by lowercase name; subcommands of known containers by full name.
#[derive(Debug, Default)]
pub struct Learned(HashMap<Vec<u8>, &'static Command>);

impl Learned {
    /// From the reply to `COMMAND`. What cannot be understood is left out.
    pub fn new(reply: &BytesFrame) -> Self {
        let mut learned = HashMap::new();
        for entry in items(reply) {
            let Some(name) = items(entry).first().and_then(text).map(str::to_ascii_lowercase) else {
                continue;
            };
            match lookup(name.as_bytes()) {
                None => {
                    if let Some(command) = learn(entry) {
                        learned.insert(name.into_bytes(), leak(command));
                    }
                }
                // Only what has keys of its own can be routed without knowing what it does.
                Some(known) if !known.subcommands.is_empty() => {
                    let more = items(entry).get(9).map(items).unwrap_or_default().iter().filter_map(learn);
                    for command in more.filter(|c| c.takes_keys() && c.class != Class::Refused) {
                        if super::lookup_full(command.name.as_bytes()).is_none() {
                            learned.insert(command.name.as_bytes().to_vec(), leak(command));
                        }
                    }
                }
                Some(_) => {}
            }
        }
        Self(learned)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when the table knows everything that the servers do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Like [`resolve`], for all commands.
    ///
    /// # Errors
    /// Those of [`resolve`].
    #[inline]
    pub fn resolve(&self, args: &Args<'_>) -> Result<&'static Command, ResolveError> {
        match resolve(args) {
            Err(error) if !self.0.is_empty() => self.resolve_learned(args, error),
            resolved => resolved,
        }
    }

    #[cold]
    fn resolve_learned(
        &self,
        args: &Args<'_>,
        error: ResolveError,
    ) -> Result<&'static Command, ResolveError> {
        let mut name = args.name().to_ascii_lowercase();
        let command = match error {
            ResolveError::UnknownCommand => self.0.get(&name).ok_or(error)?,
            ResolveError::UnknownSubcommand => {
                name.push(b'|');
                name.extend_from_slice(&args.get(1).unwrap_or_default().to_ascii_lowercase());
                self.0.get(&name).ok_or(error)?
            }
            ResolveError::WrongArity(_) => return Err(error),
        };
        let command = match command.subcommands.is_empty() || args.len() == 1 {
            true => *command,
            false => command.subcommand(args).ok_or(ResolveError::UnknownSubcommand)?,
        };
        if command.arity_ok(args.len()) { Ok(command) } else { Err(ResolveError::WrongArity(command)) }
    }

    /// The command with this full name.
    pub fn lookup_full(&self, name: &[u8]) -> Option<&'static Command> {
        super::lookup_full(name).or_else(|| self.0.get(&name.to_ascii_lowercase()).copied())
    }

    /// All commands and subcommands beyond the table.
    pub fn all(&self) -> impl Iterator<Item = &'static Command> {
        self.0.values().flat_map(|command| std::iter::once(*command).chain(command.subcommands))
    }

    /// All commands of the servers' top level beyond the table.
    pub fn commands(&self) -> impl Iterator<Item = &'static Command> {
        self.0.values().copied().filter(|command| !command.name.contains('|'))
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// One element of a `COMMAND` reply: name, arity, flags, first, last, step, and from Redis 6 and 7 on categories, tips,
/// key specs, subcommands.
fn learn(entry: &BytesFrame) -> Option<Command> {
    let fields = items(entry);
    let name = fields.first().and_then(text)?.to_ascii_lowercase();
    let number = |at: usize| fields.get(at).and_then(integer).and_then(|number| i16::try_from(number).ok());
    let flags = bits::<Flags>(fields.get(2), Flags::named)?;
    let categories =
        bits::<Categories>(fields.get(6), |name| Categories::named(name.trim_start_matches('@')))?;
    let range = KeyRange { first: number(3)?, last: number(4)?, step: number(5)? };
    let subcommands: Vec<Command> =
        fields.get(9).map(items).unwrap_or_default().iter().filter_map(learn).collect();
    let specs: Option<Vec<KeySpec>> =
        fields.get(8).map(items).unwrap_or_default().iter().map(key_spec).collect();
    let keys = match specs {
        Some(specs) if !specs.is_empty() => Some(specs),
        _ if range.first > 0 => Some(vec![legacy_spec(range)]),
        Some(_) => Some(Vec::new()),
        None => None,
    };
    let unroutable = keys.is_none() || keys.as_ref().is_some_and(Vec::is_empty) && is_movable(flags);
    let (class, note) = match () {
        () if !subcommands.is_empty() => (Class::Local, ""),
        () if unroutable => (Class::Refused, UNROUTABLE),
        () if flags.contains(Flags::ADMIN) => (Class::Refused, REFUSED),
        () if flags.contains(Flags::BLOCKING) => (Class::Blocking, ""),
        () => (Class::Single, ""),
    };
    let keys: &'static [KeySpec] = Vec::leak(keys.unwrap_or_default());
    Some(Command {
        // Counted with those that nobody knows.
        id: ID_COUNT as u16,
        arity: number(1)?,
        fixed_key: KeySpec::fixed_single_key(keys),
        class,
        flags,
        categories,
        name: String::leak(name),
        keys,
        finder: Finder::Specs,
        range,
        tips: &[],
        note,
        since: "",
        summary: "Learned from the server",
        group: "module",
        subcommands: Vec::leak(subcommands),
    })
}

fn is_movable(flags: Flags) -> bool {
    flags.contains(Flags::MOVABLEKEYS)
}

/// A key spec of the reply, whose maps are flat arrays in RESP2; `None` when it cannot be followed.
fn key_spec(frame: &BytesFrame) -> Option<KeySpec> {
    let (begin, find) = (field(frame, "begin_search")?, field(frame, "find_keys")?);
    let number =
        |map: &BytesFrame, name: &str| field(map, "spec").and_then(|spec| integer(field(spec, name)?));
    let small =
        |map: &BytesFrame, name: &str| number(map, name).and_then(|number| u16::try_from(number).ok());
    let signed =
        |map: &BytesFrame, name: &str| number(map, name).and_then(|number| i16::try_from(number).ok());
    let begin = match field(begin, "type").and_then(text)? {
        "index" => Begin::Index(small(begin, "index")?),
        "keyword" => Begin::Keyword {
            keyword: String::leak(field(field(begin, "spec")?, "keyword").and_then(text)?.to_owned()),
            from: signed(begin, "startfrom")?,
        },
        _ => return None,
    };
    let find = match field(find, "type").and_then(text)? {
        "range" => Find::Range {
            last: signed(find, "lastkey")?,
            step: small(find, "keystep")?,
            limit: small(find, "limit")?,
        },
        "keynum" => Find::KeyNum {
            count_at: small(find, "keynumidx")?,
            first: small(find, "firstkey")?,
            step: small(find, "keystep")?,
        },
        _ => return None,
    };
    let flags = bits::<KeyFlags>(field(frame, "flags"), KeyFlags::named)?;
    Some(KeySpec { flags, begin, find, notes: "" })
}

/// What servers before 7.0 say of keys, and modules without specs.
fn legacy_spec(range: KeyRange) -> KeySpec {
    let last = if range.last < 0 { range.last } else { range.last - range.first };
    let step = range.step.unsigned_abs().max(1);
    KeySpec {
        flags: KeyFlags::RW,
        begin: Begin::Index(range.first.unsigned_abs()),
        find: Find::Range { last, step, limit: 0 },
        notes: "",
    }
}

/// The set of the bits that are named; names that nobody knows are left out.
fn bits<T: Default + std::ops::BitOr<Output = T>>(
    names: Option<&BytesFrame>,
    named: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let names = names.map(items).unwrap_or_default();
    Some(names.iter().filter_map(text).filter_map(named).fold(T::default(), |all, bit| all | bit))
}

fn items(frame: &BytesFrame) -> &[BytesFrame] {
    match frame {
        BytesFrame::Array { data, .. } => data,
        _ => &[],
    }
}

fn text(frame: &BytesFrame) -> Option<&str> {
    match frame {
        BytesFrame::BlobString { data, .. } | BytesFrame::SimpleString { data, .. } => {
            std::str::from_utf8(data).ok()
        }
        _ => None,
    }
}

fn integer(frame: &BytesFrame) -> Option<i64> {
    match frame {
        BytesFrame::Number { data, .. } => Some(*data),
        _ => None,
    }
}

/// The value of `name` in a map.
fn field<'a>(map: &'a BytesFrame, name: &str) -> Option<&'a BytesFrame> {
    let pairs = items(map).chunks_exact(2);
    pairs.into_iter().find(|pair| text(&pair[0]) == Some(name)).map(|pair| &pair[1])
}
