//! The options of a `SET` that is queued before Redis sees it.
//!
//! Must not know: mappings, clients.

use crate::command::Command;
use crate::resp::Args;
use std::time::{SystemTime, UNIX_EPOCH};

/// Refuses what Redis would refuse, in its words: the row is queued before Redis sees the command.
/// Answers when the entry is to expire (ms since 1970), if the command says so.
pub(in crate::core) fn check_set_options(args: &Args<'_>, command: &Command) -> Result<Option<u64>, String> {
    if command.name != "set" {
        let unit = if command.name == "setex" { 1000 } else { 1 };
        return check_expiry(args.get(2).unwrap_or_default(), unit, false, command).map(Some);
    }
    let mut expiry = None;
    let mut keep_ttl = false;
    let mut options = args.iter().skip(3);
    while let Some(option) = options.next() {
        let option = String::from_utf8_lossy(option).to_ascii_uppercase();
        match option.as_str() {
            "NX" | "XX" | "GET" => {
                return Err(format!(
                    "ERR SET with {option} is not supported on mapped keys yet; use plain SET"
                ));
            }
            "KEEPTTL" if expiry.is_none() => keep_ttl = true,
            "EX" | "EXAT" | "PX" | "PXAT" if expiry.is_none() && !keep_ttl => {
                let unit = if option.starts_with('E') { 1000 } else { 1 };
                expiry = Some((options.next().ok_or("ERR syntax error")?, unit, option.ends_with("AT")));
            }
            _ => return Err("ERR syntax error".to_owned()),
        }
    }
    expiry.map(|(time, unit, absolute)| check_expiry(time, unit, absolute, command)).transpose()
}

/// `time` in units of so many ms, from now on or since 1970, as ms since 1970.
fn check_expiry(time: &[u8], unit: i64, absolute: bool, command: &Command) -> Result<u64, String> {
    let text = std::str::from_utf8(time).unwrap_or_default();
    // Only the spelling that Redis writes itself: no plus, no leading zeros.
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    let number = number.ok_or("ERR value is not an integer or out of range")?;
    let now = unix_seconds().saturating_mul(1000) as i64;
    let far = number.checked_mul(unit).and_then(|ms| ms.checked_add(now)).is_none();
    match number <= 0 || far {
        true => Err(format!("ERR invalid expire time in '{}' command", command.name)),
        false if absolute => Ok((number * unit) as u64),
        false => Ok((number * unit + now) as u64),
    }
}

/// Seconds since the Unix epoch.
pub(in crate::core) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
