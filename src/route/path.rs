//! Path patterns such as `/api/v1/users/{id}/posts`.
//!
//! Must not know: methods, what a parameter may be.

use std::fmt;

use super::is_name;

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is no absolute path.
    #[error("begins with no `/`")]
    Relative,
    /// An empty segment, or one that cannot be part of a URL's path as it stands.
    #[error("has the segment {0:?}: a segment is a `{{parameter}}`, or letters, digits and any of `-._~:@`")]
    Segment(String),
    /// The same parameter twice.
    #[error("names the parameter {{{0}}} twice")]
    Twice(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter(String),
}

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    source: String,
    segments: Vec<Segment>,
}

impl Path {
    /// Parses a pattern.
    pub fn parse(source: &str) -> Result<Self, PathError> {
        let rest = source.strip_prefix('/').ok_or(PathError::Relative)?;
        let mut segments: Vec<Segment> = Vec::new();
        for text in rest.split('/').filter(|_| !rest.is_empty()) {
            let refused = || PathError::Segment(text.to_owned());
            let name = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
            let segment = match name {
                Some(name) if is_name(name) => Segment::Parameter(name.to_owned()),
                None if is_literal(text) => Segment::Literal(text.to_owned()),
                _ => return Err(refused()),
            };
            if let Segment::Parameter(name) = &segment
                && segments.contains(&segment)
            {
                return Err(PathError::Twice(name.clone()));
            }
            segments.push(segment);
        }
        Ok(Self { source: source.to_owned(), segments })
    }

    /// The pattern as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names of the parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// The raw (percent-encoded) values of the parameters, in order, if `path` is one of this pattern. A parameter is
    /// never empty.
    pub fn find<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        let rest = path.strip_prefix('/')?;
        if self.segments.is_empty() {
            return rest.is_empty().then(Vec::new);
        }
        let mut values = Vec::new();
        let mut given = rest.split('/');
        for segment in &self.segments {
            let text = given.next()?;
            match segment {
                Segment::Literal(literal) if literal == text => {}
                Segment::Parameter(_) if !text.is_empty() => values.push(text),
                _ => return None,
            }
        }
        given.next().is_none().then_some(values)
    }

    /// Sorts more literal patterns first: `/users/me` before `/users/{id}`.
    pub fn order(&self) -> Vec<bool> {
        self.segments.iter().map(|segment| matches!(segment, Segment::Parameter(_))).collect()
    }

    /// Whether some path is one of both patterns, and neither is the more literal one.
    pub fn clashes_with(&self, other: &Self) -> bool {
        self.order() == other.order()
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Literal(a), Segment::Literal(b)) => a == b,
                _ => true,
            })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.source)
    }
}

fn is_literal(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_parameters() {
        let path = Path::parse("/api/v1/users/{id}/posts").unwrap();
        assert_eq!(path.find("/api/v1/users/7/posts"), Some(vec!["7"]));
        assert_eq!(path.find("/api/v1/users/a%2Fb/posts"), Some(vec!["a%2Fb"]));
        for other in ["", "/", "/api/v1/users//posts", "/api/v1/users/7", "/api/v1/users/7/posts/", "/API/v1"]
        {
            assert_eq!(path.find(other), None, "{other}");
        }
        assert_eq!(Path::parse("/").unwrap().find("/"), Some(vec![]));
    }

    #[test]
    fn refuses_what_no_url_can_be() {
        for wrong in
            ["", "a", "/a b", "//", "/a/", "/..", "/{", "/{}", "/{1}", "/{a}{b}", "/x{a}", "/{a}/{a}"]
        {
            assert!(Path::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn knows_when_two_patterns_clash() {
        let path = |text| Path::parse(text).unwrap();
        assert!(path("/a/{x}").clashes_with(&path("/a/{y}")));
        assert!(!path("/a/{x}").clashes_with(&path("/a/b")));
        assert!(!path("/a/{x}").clashes_with(&path("/b/{x}")));
        assert!(path("/a/b").order() < path("/a/{x}").order());
    }
}
