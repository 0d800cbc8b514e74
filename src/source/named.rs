//! Finds the parameters in SQL that an operator wrote: `$name` and `$1`.
//!
//! Must not know: what a parameter stands for, which database will read the SQL.
//!
//! Texts, quoted names, comments and dollar quotes are left alone, so `'$5'` stays a text.

use crate::mapping::{Format, Mapping};

/// A part of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'s> {
    /// SQL.
    Sql(&'s str),
    /// `$name`.
    Name(&'s str),
    /// `$1`, counted from one as written.
    Number(usize),
}

/// Cuts `sql` at its parameters.
pub(super) fn pieces(sql: &str) -> Vec<Piece<'_>> {
    let bytes = sql.as_bytes();
    let (mut pieces, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(byte) = bytes.get(at) {
        let rest = &sql[at..];
        at = match byte {
            b'\'' => {
                at + quoted(
                    rest,
                    b'\'',
                    at > 0 && matches!(bytes.get(at - 1), Some(b'e' | b'E')) && !word_before(bytes, at - 1),
                )
            }
            b'"' => at + quoted(rest, b'"', false),
            b'-' if rest.starts_with("--") => at + rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => at + comment(rest),
            b'$' if !word_before(bytes, at) => match parameter(rest) {
                Some((piece, length)) => {
                    pieces.push(Piece::Sql(&sql[start..at]));
                    pieces.push(piece);
                    start = at + length;
                    start
                }
                None => at + dollar_quoted(rest),
            },
            _ => at + 1 + trailing(bytes, at),
        };
    }
    pieces.push(Piece::Sql(&sql[start..]));
    pieces.retain(|piece| *piece != Piece::Sql(""));
    pieces
}

/// How an own `load` takes the ids of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadParameters {
    /// `$1`: the array of all ids.
    Arrays,
    /// `$name`: one key's values.
    Names,
}

/// Which parameters an own `load` of `mapping` uses; a message when they do not go together.
pub(super) fn check_load(mapping: &Mapping, own: &str) -> Result<LoadParameters, String> {
    let ids: Vec<&str> = mapping.template.placeholders().map(|(name, _)| name).collect();
    let (mut names, mut numbers) = (false, false);
    for piece in pieces(own) {
        match piece {
            Piece::Sql(_) => {}
            Piece::Number(_) => numbers = true,
            Piece::Name(name) if ids.contains(&name) => names = true,
            Piece::Name(name) => {
                return Err(format!(
                    "`load` has the parameter ${name}; the key has the placeholders: {}",
                    ids.join(", ")
                ));
            }
        }
    }
    match (names, numbers) {
        (true, true) => {
            Err("`load` mixes parameters by name ($id) with arrays by number ($1); use one kind".into())
        }
        (true, false) => Ok(LoadParameters::Names),
        (false, _) if ids.is_empty() => Ok(LoadParameters::Names),
        (false, _) if mapping.format == Format::List => {
            Err(format!("`load` of a list takes its parameters by name, such as ${}", ids.join(", $")))
        }
        (false, _) => Ok(LoadParameters::Arrays),
    }
}

/// The message for a column that an own `load` lacks.
pub(super) fn missing_column(name: &str, names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    format!("`load` must return a column \"{name}\"; it returns: {}", names.join(", "))
}

/// Bytes that belong to the character at `at` after its first one: slices must begin at characters.
fn trailing(bytes: &[u8], at: usize) -> usize {
    bytes.get(at + 1..).unwrap_or_default().iter().take_while(|byte| **byte & 0xC0 == 0x80).count()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Whether the byte before `at` belongs to a name, in which `$` and digits may stand.
fn word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && bytes.get(at - 1).is_some_and(|byte| is_word(*byte) || *byte == b'$')
}

/// Length of a quoted text at the start of `rest`; to the end when it is not closed.
fn quoted(rest: &str, quote: u8, escapes: bool) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'\\' if escapes => 2,
            byte if *byte == quote && bytes.get(at + 1) == Some(&quote) => 2,
            byte if *byte == quote => return at + 1,
            _ => 1,
        };
    }
    bytes.len()
}

/// Length of a comment, with the comments in it.
fn comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        at += match bytes.get(at..at + 2) {
            Some(b"/*") => {
                depth += 1;
                2
            }
            Some(b"*/") => {
                depth -= 1;
                if depth == 0 {
                    return at + 2;
                }
                2
            }
            _ => 1,
        };
    }
    bytes.len()
}

/// `$name` or `$1` at the start of `rest`, and its length; `None` for the start of a dollar quote or a lone `$`.
fn parameter(rest: &str) -> Option<(Piece<'_>, usize)> {
    let word = rest[1..].bytes().take_while(|byte| is_word(*byte)).count();
    let name = &rest[1..1 + word];
    if name.bytes().next()?.is_ascii_digit() {
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        return Some((Piece::Number(name[..digits].parse().ok()?), 1 + digits));
    }
    (rest.as_bytes().get(1 + word) != Some(&b'$')).then_some((Piece::Name(name), 1 + word))
}

/// Length of `$tag$ .. $tag$`, or of a lone `$`.
fn dollar_quoted(rest: &str) -> usize {
    let word = rest[1..].bytes().take_while(|byte| is_word(*byte)).count();
    if rest.as_bytes().get(1 + word) != Some(&b'$') {
        return 1;
    }
    let tag = &rest[..word + 2];
    rest[tag.len()..].find(tag).map_or(rest.len(), |end| tag.len() + end + tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(sql: &str) -> Vec<Piece<'_>> {
        pieces(sql).into_iter().filter(|piece| !matches!(piece, Piece::Sql(_))).collect()
    }

    #[test]
    fn parameters_are_found_and_nothing_else() {
        use Piece::{Name, Number, Sql};
        assert_eq!(
            pieces("a = $user_id and b=$2::int"),
            [Sql("a = "), Name("user_id"), Sql(" and b="), Number(2), Sql("::int")]
        );
        assert_eq!(found("limit $limit+1 offset $offset"), [Name("limit"), Name("offset")]);
        for none in [
            "'$a' || 'it''s $b'",
            "\"$a\" -- $b",
            "/* $a /* $b */ $c */ x",
            "$$ $a $$, $tag$ $a $ $b $tag$",
            "name$a + x$1",
            "E'\\' $a'",
            "'open $a",
            "$",
            "a $ b",
        ] {
            assert_eq!(found(none), [], "{none}");
        }
        assert_eq!(found("-- $a\n$b"), [Name("b")]);
        assert_eq!(found("'\\' || $a"), [Name("a")], "a backslash is nothing special in a plain text");
        assert_eq!(found("ü$a, $ä"), [Name("ä")]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(sql in "[a$1'\"/*\\-\n ü\\\\E]{0,40}") {
            let back: String = pieces(&sql).iter().map(|piece| match piece {
                Piece::Sql(text) => (*text).to_owned(),
                Piece::Name(name) => format!("${name}"),
                Piece::Number(number) => format!("${number}"),
            }).collect();
            // `$01` is `$1`: compare without the zeros this alphabet cannot make.
            prop_assert_eq!(back, sql);
        }
    }
}
