//! Builds the requests.
//!
//! Must not know: replies.

use super::script::{
    APPLY, APPLY_TEXT, BEGIN_THROUGH, END_THROUGH, FILL, FLUSHED, INVALIDATE, LEASE, LOOK, Script,
};
use super::{Token, Value, Version, sidecar_key};
use crate::resp::{push_array_header, push_bulk, push_bulk_number};
use std::time::Duration;

/// A loaded row (or that there is none) on its way into the cache.
#[derive(Clone, Copy, Debug)]
pub struct Fill<'a> {
    /// The row as readers see it; `None`: there is no row.
    pub value: Option<&'a Value>,
    /// Life of the entry, jitter included; `None` = no expiry.
    pub ttl: Option<Duration>,
    /// Life of the negative marker where there is no row; zero: none is stored.
    pub negative: Duration,
    /// The generation it was loaded under.
    pub generation: Option<&'a [u8]>,
    /// Whether an entry that is there is replaced (a refresh).
    pub replace: bool,
    /// Whether it comes from a source that may lag, such as a read replica.
    pub lags: bool,
}

/// Which entry makes a load needless.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// Any.
    Any,
    /// One that was filled under this generation.
    Of(&'a [u8]),
    /// None: the entry is to be loaded anew.
    Fresh,
}

/// What a write makes of an entry.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// It holds this.
    Put(&'a Value),
    /// There is no row any more.
    Delete,
    /// A row is appended, and the next read finds out which is the newest; nothing is stored until it is flushed.
    Append,
}

/// What the database holds for a key after a commit.
#[derive(Clone, Copy, Debug)]
pub enum Committed<'a> {
    /// What was applied to the cache before; for `flushed` only.
    AsApplied,
    /// This.
    Row(&'a Value),
    /// No row.
    Absent,
    /// What it held before: the transaction was rolled back; for `end_through` only.
    Nothing,
    /// Nobody knows: the connection was lost during the commit, or it was said before, and who did so is gone. An entry that is
    /// dirty goes.
    Unknown,
}

/// `EVALSHA` with the arguments that a script wants.
pub(super) struct Call {
    count: usize,
    /// With room for the header before them: how many they are is known last.
    args: Vec<u8>,
}

/// The longest header of a request.
const HEADER: usize = 24;

impl Call {
    pub(super) fn new(script: &Script, key: &[u8]) -> Self {
        let mut args = Vec::with_capacity(2 * key.len() + 256);
        args.extend_from_slice(&[0; HEADER]);
        args.extend_from_slice(&script.of_one_key);
        Self { count: 3, args }.arg(key).arg(sidecar_key(key))
    }

    /// Of a script with so many keys, which are the next arguments.
    pub(super) fn with_keys(script: &Script, count: usize) -> Self {
        let call = Self { count: 0, args: vec![0; HEADER] };
        call.arg("EVALSHA").arg(&script.sha).arg(count.to_string())
    }

    pub(super) fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.count += 1;
        push_bulk(&mut self.args, arg.as_ref());
        self
    }

    fn number(mut self, number: u64) -> Self {
        self.count += 1;
        push_bulk_number(&mut self.args, number);
        self
    }

    fn millis(self, duration: Duration) -> Self {
        self.number(duration.as_millis() as u64)
    }

    /// 0 stands for "no expiry", so a life that is shorter than a millisecond is one.
    fn ttl(self, ttl: Option<Duration>) -> Self {
        self.number(ttl.map_or(0, |ttl| ttl.as_millis().max(1) as u64))
    }

    fn flag(self, flag: bool) -> Self {
        self.arg(if flag { "1" } else { "0" })
    }

    pub(super) fn value(mut self, value: Option<&Value>) -> Vec<u8> {
        match value {
            None => {}
            Some(Value::Text(text)) => self = self.arg(text),
            Some(Value::Hash(fields)) => {
                self = fields.iter().fold(self, |call, (name, value)| call.arg(name).arg(value));
            }
        }
        let end = self.args.len();
        push_array_header(&mut self.args, self.count);
        let start = HEADER - (self.args.len() - end);
        self.args.copy_within(end.., start);
        self.args.truncate(end);
        self.args.drain(..start);
        self.args
    }
}

/// A hash without fields does not exist in Redis: it is no value that could be stored.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Text(_) => "s",
        Value::Hash(fields) if fields.is_empty() => "x",
        Value::Hash(_) => "h",
    }
}

/// Asks for the right to load `key` for `life`, or for what makes that needless.
pub fn lease(key: &[u8], token: Token, life: Duration, entry: Wanted<'_>) -> Vec<u8> {
    let (refresh, generation) = match entry {
        Wanted::Any => (false, &b""[..]),
        Wanted::Of(generation) => (false, generation),
        Wanted::Fresh => (true, &b""[..]),
    };
    Call::new(&LEASE, key).millis(life).flag(refresh).arg(generation).arg(token.digits()).value(None)
}

/// Asks what is there, with its version, and for nothing else; answered as [`lease`] is.
pub fn look(key: &[u8]) -> Vec<u8> {
    Call::new(&LOOK, key).value(None)
}

/// Stores what was loaded under the lease `token`, and gives the lease back.
pub fn fill(key: &[u8], token: Token, fill: &Fill<'_>) -> Vec<u8> {
    let kind = match fill.value.map(kind) {
        None | Some("x") => "a",
        Some(kind) => kind,
    };
    Call::new(&FILL, key)
        .arg(kind)
        .millis(fill.negative)
        .arg(fill.generation.unwrap_or_default())
        .flag(fill.replace)
        .flag(fill.lags)
        .arg(token.digits())
        .ttl(fill.ttl)
        .value(fill.value)
}

/// Gives the lease back without having loaded anything.
pub fn release(key: &[u8], token: Token) -> Vec<u8> {
    let call = Call::new(&FILL, key).arg("n").arg("0").arg("").flag(false).flag(false);
    call.arg(token.digits()).arg("0").value(None)
}

/// Applies a write to the cache. `ttl`: `None` marks the entry as dirty (it lives until [`flushed`]); `Some` stores one
/// that is in the database already, with this life (`Some(None)` = no expiry).
pub fn apply(key: &[u8], version: Version, change: Change<'_>, ttl: Option<Option<Duration>>) -> Vec<u8> {
    apply_after(key, version, change, ttl, None)
}

/// As [`apply`], but only if the cache knows of nothing newer than the version `base` (`None` = whatever it knows).
pub fn apply_after(
    key: &[u8],
    version: Version,
    change: Change<'_>,
    ttl: Option<Option<Duration>>,
    base: Option<Version>,
) -> Vec<u8> {
    let base = base.map_or_else(String::new, |base| base.to_string());
    apply_with(key, version, change, ttl, &base, "")
}

/// As [`apply`] of a dirty entry, but only while the key has the stamp under which the write was computed (see
/// [`super::stamp`]).
pub fn apply_if(key: &[u8], version: Version, change: Change<'_>, stamp: Token) -> Vec<u8> {
    apply_with(key, version, change, None, "", &stamp.to_string())
}

fn apply_with(
    key: &[u8],
    version: Version,
    change: Change<'_>,
    ttl: Option<Option<Duration>>,
    base: &str,
    stamp: &str,
) -> Vec<u8> {
    if let (Change::Put(Value::Text(text)), None, "", "") = (change, ttl, base, stamp) {
        return Call::new(&APPLY_TEXT, key).number(version).arg(text).value(None);
    }
    let (kind, value) = match change {
        Change::Put(value) => (kind(value), Some(value)),
        Change::Delete => ("x", None),
        Change::Append => ("a", None),
    };
    let call = Call::new(&APPLY, key).number(version).arg(kind).flag(ttl.is_none());
    call.ttl(ttl.flatten()).arg(base).arg(stamp).value(value)
}

fn committed<'a>(committed: Committed<'a>) -> (&'static str, Option<&'a Value>) {
    match committed {
        Committed::AsApplied => ("=", None),
        Committed::Row(value) => (kind(value), Some(value)),
        Committed::Absent => ("x", None),
        Committed::Nothing => ("n", None),
        Committed::Unknown => ("?", None),
    }
}

/// Says that the write `version` is in the database, where it has become `row`. The entry lives for `ttl` from now on
/// (`None` = no expiry).
pub fn flushed(key: &[u8], version: Version, row: Committed<'_>, ttl: Option<Duration>) -> Vec<u8> {
    let (kind, value) = match committed(row) {
        ("n", _) => ("?", None),
        other => other,
    };
    Call::new(&FLUSHED, key).arg(kind).number(version).ttl(ttl).value(value)
}

/// Before a write-through commits: nothing may be stored for `key` until [`end_through`], or for `life`, which must be
/// longer than the statement can take.
pub fn begin_through(key: &[u8], token: Token, life: Duration) -> Vec<u8> {
    Call::new(&BEGIN_THROUGH, key).arg(token.digits()).millis(life).value(None)
}

/// After a write-through: stores its row if nobody else wrote the key meanwhile.
pub fn end_through(
    key: &[u8],
    token: Token,
    version: Version,
    row: Committed<'_>,
    ttl: Option<Duration>,
) -> Vec<u8> {
    let (kind, value) = match committed(row) {
        ("=", _) => ("?", None),
        other => other,
    };
    let call = Call::new(&END_THROUGH, key).arg(token.digits()).arg(kind).ttl(ttl);
    call.arg(version.to_string()).value(value)
}

/// Drops the entry, its negative marker and its lease. A `tombstone` keeps out, for so long, what comes from sources that
/// may lag.
pub fn invalidate(key: &[u8], tombstone: Duration) -> Vec<u8> {
    Call::new(&INVALIDATE, key).millis(tombstone).flag(false).value(None)
}

/// The same, answered by the number of entries that were dropped: what `DEL key` becomes on a key whose mapping takes no
/// writes.
pub fn drop_entry(key: &[u8]) -> Vec<u8> {
    Call::new(&INVALIDATE, key).millis(Duration::ZERO).flag(true).value(None)
}
