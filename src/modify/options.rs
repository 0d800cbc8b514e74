//! The options of `SET` and its kin.
//!
//! Must not know: keys, values, clients.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a `SET` asks for beside its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// When the entry is to expire, ms since 1970.
    pub expires_at: Option<u64>,
    /// Only where there is no value.
    pub nx: bool,
    /// Only where there is one.
    pub xx: bool,
    /// The old value is the answer.
    pub get: bool,
}

impl SetOptions {
    /// Whether what happens depends on the value that is there.
    pub fn looks_first(&self) -> bool {
        self.nx || self.xx || self.get
    }
}

/// Reads the options of `SET key value ...` (`args` begins with the command's name). An error is Redis' text.
pub fn set_options<'a>(args: impl Iterator<Item = &'a [u8]>) -> Result<SetOptions, String> {
    let mut found = SetOptions::default();
    let (mut expiry, mut keep_ttl) = (None, false);
    let mut options = args.skip(3);
    let syntax = || "ERR syntax error".to_owned();
    while let Some(option) = options.next() {
        let option = String::from_utf8_lossy(option).to_ascii_uppercase();
        match option.as_str() {
            "NX" if !found.xx => found.nx = true,
            "XX" if !found.nx => found.xx = true,
            "GET" => found.get = true,
            "KEEPTTL" if expiry.is_none() => keep_ttl = true,
            "EX" | "EXAT" | "PX" | "PXAT" if expiry.is_none() && !keep_ttl => {
                let unit = if option.starts_with('E') { 1000 } else { 1 };
                expiry = Some((options.next().ok_or_else(syntax)?, unit, option.ends_with("AT")));
            }
            _ => return Err(syntax()),
        }
    }
    if let Some((time, unit, absolute)) = expiry {
        found.expires_at = Some(expiry_of(time, unit, absolute, "set")?);
    }
    Ok(found)
}

/// `time` in units of so many ms, from now on or since 1970, as ms since 1970. An error is Redis' text.
pub fn expiry_of(time: &[u8], unit: i64, absolute: bool, command: &str) -> Result<u64, String> {
    let number = integer(time).ok_or("ERR value is not an integer or out of range")?;
    let now = since_epoch().as_millis() as i64;
    let far = number.checked_mul(unit).and_then(|ms| ms.checked_add(now)).is_none();
    match number <= 0 || far {
        true => Err(format!("ERR invalid expire time in '{command}' command")),
        false if absolute => Ok((number * unit) as u64),
        false => Ok((number * unit + now) as u64),
    }
}

/// A number in the only spelling that Redis writes itself: no plus, no leading zeros.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

/// Seconds since the Unix epoch.
pub fn unix_seconds() -> u64 {
    since_epoch().as_secs()
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
