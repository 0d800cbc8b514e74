//! Channels of keyspace and keyevent notifications, and the patterns that may match them.
//!
//! Must not know: who subscribes. Source: Redis documentation, "Redis keyspace notifications".

/// What keyspace and keyevent notifications begin with. A node tells them to its own clients only.
const NOTIFICATIONS: [&[u8]; 2] = [b"__keyspace@", b"__keyevent@"];

/// True for a channel that a node does not spread over the cluster.
pub(super) fn is_notification(channel: &[u8]) -> bool {
    NOTIFICATIONS.iter().any(|prefix| channel.starts_with(prefix))
}

/// True when the pattern may match such a channel; never wrongly false.
pub(super) fn may_match_notification(pattern: &[u8]) -> bool {
    NOTIFICATIONS.iter().any(|prefix| {
        for (at, expected) in prefix.iter().enumerate() {
            match pattern.get(at) {
                Some(b'?') => {}
                Some(b'*' | b'[' | b'\\') => return true,
                Some(byte) if byte == expected => {}
                _ => return false,
            }
        }
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_patterns_that_may_match_notifications() {
        for pattern in ["*", "_*", "__key*", "__keyspace@0__:*", "__keyevent@?__:set", "?_keyspace@*", "[_]*"]
        {
            assert!(may_match_notification(pattern.as_bytes()), "{pattern}");
        }
        for pattern in ["", "news.*", "__k", "__keys", "__other*", "a*"] {
            assert!(!may_match_notification(pattern.as_bytes()), "{pattern}");
        }
    }
}
