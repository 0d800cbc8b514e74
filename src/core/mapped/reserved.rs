//! Keys that clients may not name: the proxy's own, and those that a mapping calls a mistake.
//!
//! Must not know: what the proxy keeps under its own keys.

use super::super::{Core, Kind};
use crate::command::Command;
use crate::mapping::RESERVED_PREFIX;
use crate::resp::{Args, push_command};

/// Finds a key that is not the proxy's own: at random while that is likely to work, then in the order of the table.
const RANDOM_KEY: &str = "local own = 'dsproxy:' \
    for i = 1, 64 do \
      local key = redis.call('RANDOMKEY') \
      if not key then return false end \
      if string.sub(key, 1, #own) ~= own then return key end \
    end \
    local cursor = '0' \
    for i = 1, 64 do \
      local page = redis.call('SCAN', cursor, 'COUNT', 512) \
      for _, key in ipairs(page[2]) do if string.sub(key, 1, #own) ~= own then return key end end \
      cursor = page[1] \
      if cursor == '0' then break end \
    end \
    return false";

/// True for a key of the proxy's own.
pub(in crate::core) fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(RESERVED_PREFIX.as_bytes())
}

/// A request that a node answers with a key of its own choice that is not the proxy's.
pub(in crate::core) fn push_random_key(out: &mut Vec<u8>) {
    push_command(out, [b"EVAL", RANDOM_KEY.as_bytes(), b"0"]);
}

/// Appends the keys in `elements` (bulk strings, one after the other) that are not the proxy's; how many there are.
pub(in crate::core) fn push_visible(elements: &[u8], out: &mut Vec<u8>) -> Option<i64> {
    let (mut rest, mut count) = (elements, 0);
    while !rest.is_empty() {
        let header = memchr::memchr(b'\n', rest)? + 1;
        let length: usize = std::str::from_utf8(rest.get(1..header.checked_sub(2)?)?).ok()?.parse().ok()?;
        let end = header.checked_add(length)?.checked_add(2)?;
        if !is_reserved(rest.get(header..end)?) {
            out.extend_from_slice(rest.get(..end)?);
            count += 1;
        }
        rest = rest.get(end..)?;
    }
    Some(count)
}

impl Core {
    /// Whether the proxy keeps keys of its own beside those of this client, which the client is not shown.
    pub(in crate::core) fn hides_keys(&self, index: usize) -> bool {
        self.data.is_some() && self.clients.get(index).is_some_and(|client| client.kind != Kind::Internal)
    }

    /// Why a command is refused for the sake of a key that it names.
    #[inline]
    pub(in crate::core) fn refused_key(
        &self,
        index: usize,
        command: &'static Command,
        args: &Args<'_>,
    ) -> Option<String> {
        let strict = self.data.as_ref()?.source.mappings().has_bad_keys();
        if !strict && !args.iter().skip(1).any(is_reserved) {
            return None;
        }
        self.refused_among(index, command, args)
    }

    #[cold]
    fn refused_among(&self, index: usize, command: &'static Command, args: &Args<'_>) -> Option<String> {
        let mappings = self.data.as_ref().filter(|_| self.hides_keys(index))?.source.mappings();
        let mut keys = Vec::new();
        let _ = command.keys(args, &mut keys);
        keys.iter().filter_map(|at| args.get(*at as usize)).find_map(|key| {
            if is_reserved(key) {
                return Some(format!("ERR keys under '{RESERVED_PREFIX}' are the proxy's own"));
            }
            let mapping = mappings.misfit(key).filter(|_| mappings.find_id(key).is_none())?;
            Some(format!(
                "ERR the key is none of mapping '{}': its placeholders must be {} (on_bad_key = \"error\")",
                mapping.name,
                mapping.template.expects()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_proxys_own_keys_are_left_out() {
        let mut out = Vec::new();
        let all = b"$3\r\nabc\r\n$9\r\ndsproxy:x\r\n$8\r\ndsproxy:\r\n$0\r\n\r\n$7\r\ndsproxy\r\n";
        assert_eq!(push_visible(all, &mut out), Some(3));
        assert_eq!(out, b"$3\r\nabc\r\n$0\r\n\r\n$7\r\ndsproxy\r\n");
        assert_eq!(push_visible(b"$9\r\nabc\r\n", &mut out), None);
        assert_eq!(push_visible(b":1\r\n", &mut out), None);
    }
}
