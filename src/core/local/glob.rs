//! Patterns as in `KEYS` and `CONFIG GET`: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
//!
//! Must not know: what is matched. Source: `stringmatchlen` of Redis (util.c), letter case ignored.

/// True when `text` fits the pattern. Linear in `pattern * text`, whatever the client sends.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last `*` does not fit: that `*` takes one byte more.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        match (one(pattern, p, text[t]), star) {
            (Some(next), _) => (p, t) = (next, t + 1),
            (None, Some((after, from))) => {
                (p, t) = (after, from + 1);
                star = Some((after, from + 1));
            }
            (None, None) => return false,
        }
    }
    pattern[p.min(pattern.len())..].iter().all(|byte| *byte == b'*')
}

/// Where the pattern goes on after the element at `p`, if `byte` fits that.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    let same = |a: u8, b: u8| a.eq_ignore_ascii_case(&b);
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => {
            let (fits, next) = class(pattern, p + 1, byte.to_ascii_lowercase());
            fits.then_some(next)
        }
        b'\\' if p + 1 < pattern.len() => same(pattern[p + 1], byte).then_some(p + 2),
        literal => same(literal, byte).then_some(p + 1),
    }
}

/// Whether a byte is in the class that begins at `p`, and where the class ends; one without `]` ends with the pattern.
fn class(pattern: &[u8], mut p: usize, byte: u8) -> (bool, usize) {
    let negated = pattern.get(p) == Some(&b'^');
    if negated {
        p += 1;
    }
    let mut found = false;
    while let Some(&first) = pattern.get(p) {
        match (first, pattern.get(p + 1), pattern.get(p + 2)) {
            (b']', _, _) => return (found != negated, p + 1),
            (b'\\', Some(literal), _) => {
                found |= literal.eq_ignore_ascii_case(&byte);
                p += 2;
            }
            (from, Some(b'-'), Some(to)) => {
                let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                p += 3;
            }
            (literal, _, _) => {
                found |= literal.eq_ignore_ascii_case(&byte);
                p += 1;
            }
        }
    }
    (found != negated, pattern.len())
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn fits_like_redis() {
        let fits = [
            ("*", ""),
            ("", ""),
            ("a*", "abc"),
            ("*c", "abc"),
            ("a*b*c", "aXbXbXc"),
            ("MAX*", "maxmemory"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[^a]x", "bx"),
            ("[c-a]x", "bx"),
            ("\\*", "*"),
            ("[\\]]", "]"),
            ("a**", "a"),
            ("[ab", "b"),
        ];
        for (pattern, text) in fits {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        let does_not_fit = [
            ("", "a"),
            ("a", ""),
            ("a?", "a"),
            ("[^a]x", "ax"),
            ("\\*", "a"),
            ("a*b", "abc"),
            ("[a-c]", "d"),
        ];
        for (pattern, text) in does_not_fit {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        assert!(!matches("a*".repeat(5000).as_bytes(), "a".repeat(4000).as_bytes()));
    }
}
