//! Finds a key that two templates would both match.
//!
//! Must not know: mappings, names.
//!
//! Each template is a small automaton; a breadth-first walk over pairs of states finds the shortest common key. Inside
//! a placeholder the automaton guesses where it ends, while a Knuth-Morris-Pratt counter makes sure that the guess is
//! the FIRST occurrence of the ending literal, exactly as `Template::find` reads keys. Only number ranges, lengths and
//! UTF-8 are widened, so a common key may be reported that is out of range, but never missed.

use std::collections::{HashMap, VecDeque};

use super::template::{IdType, Template};

/// A key that both match, if there is one.
pub(super) fn common_key(a: &Template, b: &Template) -> Option<String> {
    let (a, b) = (Automaton::new(a), Automaton::new(b));
    let alphabet = alphabet(&a, &b);
    let start = (State::Prefix(0), State::Prefix(0));
    let mut came_from: HashMap<(State, State), ((State, State), u8)> = HashMap::new();
    let mut queue: VecDeque<(State, State)> = a
        .enter(start.0)
        .into_iter()
        .flat_map(|x| b.enter(start.1).into_iter().map(move |y| (x, y)))
        .collect();
    let roots: Vec<_> = queue.iter().copied().collect();
    while let Some(at) = queue.pop_front() {
        if a.accepts(at.0) && b.accepts(at.1) {
            return Some(spell(&came_from, &roots, at));
        }
        for byte in &alphabet {
            for x in a.step(at.0, *byte) {
                for y in b.step(at.1, *byte) {
                    if !roots.contains(&(x, y)) && !came_from.contains_key(&(x, y)) {
                        came_from.insert((x, y), (at, *byte));
                        queue.push_back((x, y));
                    }
                }
            }
        }
    }
    None
}

type Trail = HashMap<(State, State), ((State, State), u8)>;

fn spell(came_from: &Trail, roots: &[(State, State)], mut at: (State, State)) -> String {
    let mut bytes = Vec::new();
    while !roots.contains(&at) {
        let Some((before, byte)) = came_from.get(&at) else { break };
        bytes.push(*byte);
        at = *before;
    }
    bytes.reverse();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Bytes that no literal and no type tells apart behave alike: one of them is enough.
fn alphabet(a: &Automaton<'_>, b: &Automaton<'_>) -> Vec<u8> {
    let literals = |t: &Template| {
        let mut all: Vec<u8> = t.prefix.bytes().collect();
        all.extend(t.placeholders.iter().flat_map(|p| p.until.bytes()));
        all
    };
    // Digits and letters first, so that the example reads well.
    let mut bytes: Vec<u8> = b"1023456789abcdef-".to_vec();
    bytes.extend(literals(a.template));
    bytes.extend(literals(b.template));
    bytes.extend((b'g'..=b'z').chain(b'!'..=b'~').find(|c| !bytes.contains(c)));
    let mut seen = [false; 256];
    bytes.retain(|byte| !std::mem::replace(&mut seen[usize::from(*byte)], true));
    bytes
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    /// So many bytes of the leading literal are read.
    Prefix(usize),
    /// Inside placeholder `p`; `kmp` bytes of its ending literal are read, if they turn out to be that.
    In {
        p: usize,
        kmp: usize,
        text: Text,
    },
    /// Placeholder `p` has ended; `read` bytes of its ending literal are read.
    Out {
        p: usize,
        kmp: usize,
        read: usize,
    },
    End,
}

/// Where the text of a placeholder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Text {
    Empty,
    Minus,
    Zero,
    /// So many bytes; counted for UUIDs only.
    Some(u8),
}

impl Text {
    fn step(self, ty: IdType, byte: u8) -> Option<Self> {
        match (ty, self) {
            (IdType::Text | IdType::Varchar(_), _) => (byte != 0).then_some(Text::Some(0)),
            (IdType::Uuid, state) => {
                let at = if let Text::Some(n) = state { n } else { 0 };
                let fits = match at {
                    8 | 13 | 18 | 23 => byte == b'-',
                    _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                };
                (at < 36 && fits).then_some(Text::Some(at + 1))
            }
            (_, Text::Empty) if byte == b'-' => Some(Text::Minus),
            (_, Text::Empty) if byte == b'0' => Some(Text::Zero),
            (_, Text::Empty | Text::Minus) => matches!(byte, b'1'..=b'9').then_some(Text::Some(0)),
            (_, Text::Some(_)) => byte.is_ascii_digit().then_some(Text::Some(0)),
            (_, Text::Zero) => None,
        }
    }

    fn complete(self, ty: IdType) -> bool {
        match self {
            Text::Empty | Text::Minus => false,
            Text::Zero => ty.is_integer(),
            Text::Some(n) => ty != IdType::Uuid || n == 36,
        }
    }
}

struct Automaton<'t> {
    template: &'t Template,
}

impl<'t> Automaton<'t> {
    fn new(template: &'t Template) -> Self {
        Self { template }
    }

    /// A state, normalised: a finished prefix is the start of the first placeholder.
    fn enter(&self, state: State) -> Option<State> {
        match state {
            State::Prefix(n) if n == self.template.prefix.len() => {
                match self.template.placeholders.is_empty() {
                    true => Some(State::End),
                    false => Some(State::In { p: 0, kmp: 0, text: Text::Empty }),
                }
            }
            other => Some(other),
        }
    }

    fn accepts(&self, state: State) -> bool {
        match state {
            State::End => true,
            State::In { p, text, .. } => {
                let last = &self.template.placeholders[p];
                last.until.is_empty() && text.complete(last.ty)
            }
            _ => false,
        }
    }

    fn after(&self, p: usize) -> State {
        if p + 1 < self.template.placeholders.len() {
            State::In { p: p + 1, kmp: 0, text: Text::Empty }
        } else {
            State::End
        }
    }

    fn step(&self, state: State, byte: u8) -> Vec<State> {
        match state {
            State::End => vec![],
            State::Prefix(n) => {
                let fits = self.template.prefix.as_bytes()[n] == byte;
                if fits { self.enter(State::Prefix(n + 1)).into_iter().collect() } else { vec![] }
            }
            State::In { p, kmp, text } => self.step_inside(p, kmp, text, byte),
            State::Out { p, kmp, read } => {
                let until = self.template.placeholders[p].until.as_bytes();
                if until[read] != byte { vec![] } else { self.read_literal(p, kmp, read, byte) }
            }
        }
    }

    fn step_inside(&self, p: usize, kmp: usize, text: Text, byte: u8) -> Vec<State> {
        let placeholder = &self.template.placeholders[p];
        let until = placeholder.until.as_bytes();
        let mut next = Vec::new();
        let advanced = kmp_step(until, kmp, byte);
        // Staying inside is right only while the ending literal has not occurred.
        if (until.is_empty() || advanced < until.len())
            && let Some(text) = text.step(placeholder.ty, byte)
        {
            next.push(State::In { p, kmp: advanced, text });
        }
        if until.first() == Some(&byte) && text.complete(placeholder.ty) {
            next.extend(self.read_literal(p, kmp, 0, byte));
        }
        next
    }

    fn read_literal(&self, p: usize, kmp: usize, read: usize, byte: u8) -> Vec<State> {
        let until = self.template.placeholders[p].until.as_bytes();
        let kmp = kmp_step(until, kmp, byte);
        let read = read + 1;
        if read == until.len() {
            vec![self.after(p)]
        } else if kmp == until.len() {
            vec![] // the literal occurred earlier than guessed
        } else {
            vec![State::Out { p, kmp, read }]
        }
    }
}

/// Longest prefix of `literal` that ends the text read so far. Literals are short: the failure function is searched.
fn kmp_step(literal: &[u8], matched: usize, byte: u8) -> usize {
    if literal.is_empty() {
        return 0;
    }
    let mut read: Vec<u8> = literal[..matched].to_vec();
    read.push(byte);
    (0..=read.len().min(literal.len())).rev().find(|n| read.ends_with(&literal[..*n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn common(a: (&str, &str), b: (&str, &str)) -> Option<String> {
        let (a, b) = (Template::parse(a.0, a.1).unwrap(), Template::parse(b.0, b.1).unwrap());
        let key = common_key(&a, &b);
        if let Some(key) = &key {
            assert!(a.find(key.as_bytes()).is_some() && b.find(key.as_bytes()).is_some(), "{key}");
        }
        key
    }

    #[test]
    fn types_and_literals_decide() {
        assert_eq!(common(("user:{id}", "bigint"), ("user:{name}", "text")).as_deref(), Some("user:1"));
        assert!(common(("user:{id}", "bigint"), ("user:{id}:posts", "bigint")).is_none());
        assert!(common(("user:{id}", "text"), ("user:{id}:posts", "bigint")).is_some());
        assert!(common(("user:{id}", "text"), ("post:{id}", "text")).is_none());
        assert!(common(("u:{n}:{id}", "text,int"), ("u:{n}:posts:{id}", "text,int")).is_none());
        assert!(common(("u:{n}:{id}", "text"), ("u:{n}:posts:{id}", "text,int")).is_some());
        assert!(common(("o:{id}", "uuid"), ("o:{id}", "int")).is_none());
        assert!(common(("o:{id}", "uuid"), ("o:{a}-{b}", "text")).is_some());
        assert!(common(("{id}", "text"), ("{id}:x", "text")).is_some());
    }

    proptest! {
        #[test]
        fn no_common_key_is_missed(
            a in "[ab]{0,2}\\{x\\}[ab]{0,3}", b in "[ab]{0,2}\\{x\\}[ab]{1,2}\\{y\\}[ab]{0,2}",
            ta in 0..3usize, tb in 0..3usize, key in "[ab01-]{1,10}",
        ) {
            let types = ["text", "int", "varchar(4)"];
            let (a, b) = (Template::parse(&a, types[ta]).unwrap(), Template::parse(&b, types[tb]).unwrap());
            if a.find(key.as_bytes()).is_some() && b.find(key.as_bytes()).is_some() {
                prop_assert!(common_key(&a, &b).is_some(), "{key}");
            }
        }

        #[test]
        fn a_reported_key_is_common(a in "[ab]{0,2}\\{x\\}[ab]{0,3}", b in "[ab]{0,2}\\{x\\}[ab]{1,2}\\{y\\}[ab]{0,2}") {
            let (a, b) = (Template::parse(&a, "text").unwrap(), Template::parse(&b, "text").unwrap());
            if let Some(key) = common_key(&a, &b) {
                prop_assert!(a.find(key.as_bytes()).is_some() && b.find(key.as_bytes()).is_some(), "{key}");
            }
        }
    }
}
