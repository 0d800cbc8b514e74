//! Redis' glob patterns.
//!
//! Must not know: what is matched. Source: Redis documentation of `PSUBSCRIBE` and `KEYS`.

/// True when `text` matches `pattern`: `*`, `?`, `[a-z]`, `[^a]`, `\` before a literal. Takes time proportional to the
/// product of the lengths at most, whatever the pattern.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Behind the last `*`, and how much of the text it has taken.
    let mut star = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
            continue;
        }
        let Some(byte) = text.get(t) else { return p == pattern.len() };
        match (one(pattern, p, *byte), &mut star) {
            (Some(next), _) => (p, t) = (next, t + 1),
            (None, Some((behind, taken))) => {
                *taken += 1;
                (p, t) = (*behind, *taken);
            }
            (None, None) => return false,
        }
    }
}

/// Matches `byte` with the element at `p`; where the next element begins.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match (pattern.get(p)?, pattern.get(p + 1)) {
        (b'?', _) => Some(p + 1),
        (b'[', _) => class(pattern, p + 1, byte),
        (b'\\', Some(literal)) => (*literal == byte).then_some(p + 2),
        (literal, _) => (*literal == byte).then_some(p + 1),
    }
}

/// A class, which the end of the pattern ends, too.
fn class(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut found = false;
    loop {
        match (pattern.get(p), pattern.get(p + 1), pattern.get(p + 2)) {
            (None, ..) => break,
            (Some(b'\\'), Some(literal), _) => {
                found |= *literal == byte;
                p += 2;
            }
            (Some(b']'), ..) => {
                p += 1;
                break;
            }
            (Some(first), Some(b'-'), Some(last)) => {
                found |= (*first.min(last)..=*first.max(last)).contains(&byte);
                p += 3;
            }
            (Some(literal), ..) => {
                found |= *literal == byte;
                p += 1;
            }
        }
    }
    (found != negated).then_some(p)
}

/// As [`matches`], in any letter case.
pub fn matches_in_any_case(pattern: &[u8], text: &[u8]) -> bool {
    matches(&pattern.to_ascii_lowercase(), &text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_redis_does() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h*llo*", "hllo", true),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbx", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hallo", true),
            ("h[b-a]llo", "hallo", true),
            ("h[\\]]llo", "h]llo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("[abc", "b", true),
            ("a\\", "a\\", true),
            ("news.*", "news.art", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        assert!(!matches(&b"a*".repeat(50), &b"a".repeat(49)));
    }
}
