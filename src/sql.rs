//! SQL that an operator wrote, with parameters `$name` or `$1`; values are bound, never made part of the text.
//!
//! Must not know: what a parameter stands for, which database will read the SQL.
//!
//! Texts, quoted names, comments and dollar quotes are left alone, so `'$5'` stays a text.

/// A part of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'s> {
    /// SQL.
    Sql(&'s str),
    /// `$name`.
    Name(&'s str),
    /// `$1`, counted from one as written.
    Number(usize),
}

/// Cuts `sql` at its parameters.
pub fn pieces(sql: &str) -> Vec<Piece<'_>> {
    cut(sql).0
}

/// The pieces, and whether every quotation and comment has an end.
fn cut(sql: &str) -> (Vec<Piece<'_>>, bool) {
    let bytes = sql.as_bytes();
    let (mut pieces, mut start, mut at, mut closed) = (Vec::new(), 0, 0, true);
    while let Some(byte) = bytes.get(at) {
        let rest = &sql[at..];
        // The end of what begins here; without one all of the rest belongs to it.
        let mut past = |length: Option<usize>| {
            closed &= length.is_some();
            at + length.unwrap_or(rest.len())
        };
        at = match byte {
            b'\'' => {
                let marked = at > 0 && matches!(bytes.get(at - 1), Some(b'e' | b'E'));
                past(quoted(rest, b'\'', marked && !word_before(bytes, at - 1)))
            }
            b'"' => past(quoted(rest, b'"', false)),
            b'-' if rest.starts_with("--") => at + rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => past(comment(rest)),
            b'$' if !word_before(bytes, at) => match parameter(rest) {
                Some((piece, length)) => {
                    pieces.push(Piece::Sql(&sql[start..at]));
                    pieces.push(piece);
                    start = at + length;
                    start
                }
                None => past(dollar_quoted(rest)),
            },
            _ => at + 1 + trailing(bytes, at),
        };
    }
    pieces.push(Piece::Sql(&sql[start..]));
    pieces.retain(|piece| *piece != Piece::Sql(""));
    (pieces, closed)
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

/// Length of a quoted text at the start of `rest`; `None` when it is not closed.
fn quoted(rest: &str, quote: u8, escapes: bool) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'\\' if escapes => 2,
            byte if *byte == quote && bytes.get(at + 1) == Some(&quote) => 2,
            byte if *byte == quote => return Some(at + 1),
            _ => 1,
        };
    }
    None
}

/// Length of a comment, with the comments in it; `None` when it is not closed.
fn comment(rest: &str) -> Option<usize> {
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
                    return Some(at + 2);
                }
                2
            }
            _ => 1,
        };
    }
    None
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

/// Length of `$tag$ .. $tag$` (`None` when it is not closed), or of a lone `$`.
fn dollar_quoted(rest: &str) -> Option<usize> {
    let word = rest[1..].bytes().take_while(|byte| is_word(*byte)).count();
    if rest.as_bytes().get(1 + word) != Some(&b'$') {
        return Some(1);
    }
    let tag = &rest[..word + 2];
    rest[tag.len()..].find(tag).map(|end| tag.len() + end + tag.len())
}

/// One SQL statement with parameters `$name` (or `$1`..). Values are bound, never made part of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// With `$1`.. for every parameter.
    sql: String,
    /// Names of the parameters, by position; empty when they are numbered.
    names: Vec<String>,
    /// How many parameters there are.
    count: usize,
}

/// Why a statement is refused before a database sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// `$name` and `$1` in one statement.
    #[error("mixes named parameters (${0}) with numbered ones (${1}); use one kind")]
    Mixed(String, usize),
    /// `$0`, or a number beyond the limit.
    #[error("has the parameter ${0}; numbers go from 1 to {MAX_PARAMETERS}")]
    Number(usize),
    /// Nothing but blanks.
    #[error("is empty")]
    Empty,
    /// A quotation or comment without an end.
    #[error("has a quotation or comment that does not end")]
    Open,
}

/// Most parameters of one statement.
pub const MAX_PARAMETERS: usize = 1000;

impl Statement {
    /// Finds the parameters of `sql`. A name may stand several times; it is one parameter.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn parse(sql: &str) -> Result<Self, StatementError> {
        let trimmed = sql.trim().trim_end_matches(';').trim_end();
        let (mut text, mut names, mut highest) = (String::with_capacity(sql.len()), Vec::<String>::new(), 0);
        if trimmed.is_empty() {
            return Err(StatementError::Empty);
        }
        let (pieces, closed) = cut(trimmed);
        if !closed {
            return Err(StatementError::Open);
        }
        for piece in pieces {
            match piece {
                Piece::Sql(sql) => text.push_str(sql),
                Piece::Number(number) => {
                    if !(1..=MAX_PARAMETERS).contains(&number) {
                        return Err(StatementError::Number(number));
                    }
                    highest = highest.max(number);
                    text.push_str(&format!("${number}"));
                }
                Piece::Name(name) => {
                    let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
                        names.push(name.to_owned());
                        names.len() - 1
                    });
                    text.push_str(&format!("${}", at + 1));
                }
            }
        }
        match names.first() {
            Some(name) if highest > 0 => Err(StatementError::Mixed(name.clone(), highest)),
            _ if names.len() > MAX_PARAMETERS => Err(StatementError::Number(names.len())),
            _ => Ok(Self { sql: text, count: names.len().max(highest), names }),
        }
    }

    /// Names of the parameters in the order in which their values are given; empty when they are numbered.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many values must be given.
    pub fn parameters(&self) -> usize {
        self.count
    }

    /// The text with numbered parameters.
    pub fn sql(&self) -> &str {
        &self.sql
    }
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

    #[test]
    fn names_become_numbers() {
        let statement = Statement::parse("select $b, $a, '$c', $b ;\n").unwrap();
        assert_eq!(
            (statement.sql(), statement.names()),
            ("select $1, $2, '$c', $1", &["b".into(), "a".into()][..])
        );
        assert_eq!(Statement::parse("select $2, $1").unwrap().parameters(), 2);
        assert_eq!(Statement::parse(" ; ").unwrap_err(), StatementError::Empty);
        assert_eq!(Statement::parse("$a $1").unwrap_err(), StatementError::Mixed("a".into(), 1));
        assert_eq!(Statement::parse("$0").unwrap_err(), StatementError::Number(0));
        assert!(Statement::parse("$1001").is_err());
    }

    #[test]
    fn what_is_open_is_refused() {
        for open in
            ["select 'a", "select E'a\\'", "select \"a", "select /* a /* b */", "select $x$ a", "select $$"]
        {
            assert_eq!(Statement::parse(open), Err(StatementError::Open), "{open}");
        }
        for closed in ["select 'a''b'", "select 1 -- it's", "select $x$ a ' $x$, 5 / 2 - 1", "select '\\'"] {
            assert!(Statement::parse(closed).is_ok(), "{closed}");
        }
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
