//! What `apply` and `flushed` do mostly, in few steps, is what all of their steps would have done.

use dsproxy::sidecar::{Change, Committed, apply, flushed, parse_applied, parse_flushed};

use crate::node::{LONG, Node, text};
use crate::support::Value as Reply;

/// A field that no script knows: beside it nothing is done in few steps.
const STRANGE: &str = "zz";

#[derive(Debug, Clone, Copy)]
struct State {
    version: Option<&'static str>,
    dirty: Option<&'static str>,
    /// Another field, with the one that goes with it.
    more: &'static [&'static str],
    entry: bool,
    expires: bool,
}

impl State {
    fn all() -> Vec<Self> {
        let more: [&[&str]; 7] =
            [&[], &["f", "1"], &["l", "t", "le", "1"], &["n", "1"], &["g", "a"], &["c", "1"], &["e", "0"]];
        let mut all = Vec::new();
        for version in [None, Some("5"), Some("7"), Some("11")] {
            for dirty in [None, Some("p"), Some("x")] {
                for more in more {
                    for (entry, expires) in [(false, false), (true, false), (false, true), (true, true)] {
                        all.push(Self { version, dirty, more, entry, expires });
                    }
                }
            }
        }
        all
    }

    fn set(self, node: &mut Node, strange: bool) {
        node.on_key("DEL", &[]);
        node.on_side("DEL", &[]);
        let version = self.version.map(|version| ["v", version]);
        let dirty = self.dirty.map(|dirty| ["d", dirty]);
        let mut fields: Vec<&str> = version.into_iter().chain(dirty).flatten().collect();
        fields.extend(self.more);
        let known = !fields.is_empty();
        if strange {
            fields.extend([STRANGE, "1"]);
        }
        if !fields.is_empty() {
            node.on_side("HSET", &fields);
        }
        if self.entry {
            node.on_key("SET", &["before"]);
        }
        if self.expires && known {
            node.on_side("PEXPIRE", &["20000"]);
            node.on_key("PEXPIRE", &["20000"]);
        }
    }
}

/// What is left: the entry, the fields, and how long both live, in steps of 10 s.
type Left = (Option<String>, Vec<(String, String)>, (i64, i64));

fn left(node: &mut Node) -> Left {
    node.on_side("HDEL", &[STRANGE]);
    let Reply::Array(fields) = node.on_side("HGETALL", &[]) else { panic!("no hash") };
    let texts: Vec<String> = fields.iter().map(Reply::text).collect();
    let mut fields: Vec<_> = texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    fields.sort();
    let (entry, side) = node.lives();
    let steps = |life: i64| if life < 0 { life } else { (life + 5_000) / 10_000 };
    (node.get(), fields, (steps(entry), steps(side)))
}

#[test]
fn few_steps_come_to_the_same() {
    let mut node = Node::new();
    let value = text("after");
    let mut quick = 0;
    let requests = |key: &[u8]| {
        [
            apply(key, 7, Change::Put(&value), None),
            flushed(key, 7, Committed::Row(&value), Some(LONG)),
            flushed(key, 7, Committed::Row(&value), None),
        ]
    };
    for state in State::all() {
        for at in 0..3 {
            let mut outcomes = Vec::new();
            for strange in [false, true] {
                state.set(&mut node, strange);
                let request = requests(node.key())[at].clone();
                let reply = node.run(request);
                assert!(!strange || reply != b":1\r\n", "{state:?} {at}");
                quick += usize::from(reply == b":1\r\n");
                let said = match at {
                    0 => format!("{:?}", parse_applied(&reply).unwrap()),
                    _ => format!("{:?}", parse_flushed(&reply).unwrap()),
                };
                outcomes.push((said, left(&mut node)));
            }
            assert_eq!(outcomes[0], outcomes[1], "{state:?}, request {at}");
        }
    }
    assert!(quick > 40, "{quick} of them in few steps");
}
