//! Statements with parameters by name: `select * from posts where user_id = $user_id`.
//!
//! Must not know: databases, types. A value never becomes part of the text.

/// Why a statement is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// `$1`: which parameter that is depends on an order nobody sees.
    #[error("has the parameter ${0}: name it, as in $id")]
    Numbered(String),
    /// A quotation or comment without an end.
    #[error("has a quotation or comment that does not end")]
    Open,
    /// Nothing to run.
    #[error("is empty")]
    Empty,
}

/// A statement whose parameters are numbered in the order of their first use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text with `$1`, `$2`, ...
    pub text: String,
    /// The name of each, in order.
    pub names: Vec<String>,
}

impl Statement {
    /// Numbers the named parameters of `source`. Quoted texts, quoted names, dollar quotations and comments are left as
    /// they are.
    pub fn parse(source: &str) -> Result<Self, SqlError> {
        let mut statement = Self { text: String::with_capacity(source.len()), names: Vec::new() };
        let mut rest = source.trim().trim_end_matches(';');
        if rest.is_empty() {
            return Err(SqlError::Empty);
        }
        while let Some(at) = rest.find(['\'', '"', '-', '/', '$', '_']) {
            let (before, from) = rest.split_at(at);
            statement.text.push_str(before);
            let inside_word = statement.text.ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let length = match from.as_bytes() {
                [b'\'', ..] => quoted(from, '\'')?,
                [b'"', ..] => quoted(from, '"')?,
                [b'-', b'-', ..] => from.find('\n').unwrap_or(from.len()),
                [b'/', b'*', ..] => from.find("*/").ok_or(SqlError::Open)? + 2,
                [b'$', ..] if !inside_word => {
                    let name: &str = word(&from[1..]);
                    match from[1 + name.len()..].starts_with('$') {
                        true => dollar_quoted(from, name)?,
                        false if name.is_empty() => 1,
                        false => {
                            statement.parameter(name)?;
                            rest = &from[1 + name.len()..];
                            continue;
                        }
                    }
                }
                _ => 1,
            };
            statement.text.push_str(&from[..length]);
            rest = &from[length..];
        }
        statement.text.push_str(rest);
        Ok(statement)
    }

    fn parameter(&mut self, name: &str) -> Result<(), SqlError> {
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(SqlError::Numbered(name.to_owned()));
        }
        let known = self.names.iter().position(|known| known == name);
        let number = known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        self.text.push_str(&format!("${}", number + 1));
        Ok(())
    }
}

/// The letters, digits and `_` that a text begins with.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Length of the quotation that `text` begins with; a doubled quote is part of it.
fn quoted(text: &str, quote: char) -> Result<usize, SqlError> {
    let mut at = 1;
    loop {
        at += text[at..].find(quote).ok_or(SqlError::Open)? + 1;
        if !text[at..].starts_with(quote) {
            return Ok(at);
        }
        at += 1;
    }
}

/// Length of the quotation `$tag$ ... $tag$` that `text` begins with.
fn dollar_quoted(text: &str, tag: &str) -> Result<usize, SqlError> {
    let mark = format!("${tag}$");
    let inside = &text[mark.len()..];
    Ok(mark.len() * 2 + inside.find(&mark).ok_or(SqlError::Open)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers() {
        let s = Statement::parse("select $a, $b_1 + $a -- $c\n where x = '$d ''$e' and \"$f\" = $b_1::int;")
            .unwrap();
        assert_eq!(s.text, "select $1, $2 + $1 -- $c\n where x = '$d ''$e' and \"$f\" = $2::int");
        assert_eq!(s.names, ["a", "b_1"]);
        let s = Statement::parse("select $q$ $a $q$, $$ $b $$, x$c, /* $d */ $e").unwrap();
        assert_eq!((s.names, s.text.ends_with("$1")), (vec!["e".to_owned()], true));
        assert_eq!(Statement::parse("select 1 - 1 / 2, a_b").unwrap().text, "select 1 - 1 / 2, a_b");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(Statement::parse("select $1"), Err(SqlError::Numbered("1".into())));
        assert_eq!(Statement::parse(" ; "), Err(SqlError::Empty));
        for open in ["select 'a", "select \"a", "select /* a", "select $x$ a"] {
            assert_eq!(Statement::parse(open), Err(SqlError::Open), "{open}");
        }
    }
}
