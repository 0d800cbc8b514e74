//! What a client knows of its own keys, and so which replies can be its own.

use std::collections::HashMap;

use crate::support::Value;

/// The values that a key may have: one, unless a write of it ended in doubt. `None` is no value.
type Candidates = Vec<Option<String>>;

/// The keys of one client; nobody else touches them.
#[derive(Default)]
pub struct Model {
    keys: HashMap<String, Candidates>,
    /// Nodes die with what their replicas do not have yet: a key may go back to any value that it had.
    lossy: bool,
}

/// The one reply that can follow.
#[derive(Debug)]
pub enum Expect {
    /// This.
    Is(Value),
    /// An error with this in it.
    Refused(String),
    /// `+OK` of a write of these.
    Wrote(Vec<(String, Option<String>)>),
    /// The value of a key.
    Value(String),
    /// The values of some.
    Values(Vec<String>),
    /// How many of these were there, and are gone now.
    Removed(Vec<String>),
    /// How many of these are there.
    Counted(Vec<String>),
    /// The replies of a transaction; with a watch it may also come to nothing, when the cluster changes.
    All(Vec<Expect>, bool),
    /// `HELLO` in this dialect.
    Hello(i64),
    /// `subscribe` or `unsubscribe` for this channel.
    Subscription(&'static str, String),
    /// This, of a list that was pushed to just before.
    Popped(Value),
    /// Any number: `PUBLISH`.
    Number,
}

/// Errors that a change of the cluster may cause; they say that nothing is certain.
const EXCUSES: [&str; 8] =
    ["ERR dsproxy", "CLUSTERDOWN", "TRYAGAIN", "LOADING", "MASTERDOWN", "EXECABORT", "NOSCRIPT", "UNBLOCKED"];

impl Model {
    /// What a client knows that has done nothing yet.
    pub fn new(lossy: bool) -> Self {
        Self { lossy, ..Self::default() }
    }

    /// From now on this is the value of a key.
    fn settle(&mut self, key: &str, value: Option<String>) {
        let lossy = self.lossy;
        let candidates = self.candidates(key);
        if !lossy {
            candidates.clear();
        }
        if !candidates.contains(&value) {
            candidates.push(value);
        }
    }

    fn candidates(&mut self, key: &str) -> &mut Candidates {
        self.keys.entry(key.to_owned()).or_insert_with(|| vec![None])
    }

    /// Holds a reply against what is expected. Says true when it was an error of the cluster's trouble.
    pub fn check(&mut self, expect: &Expect, reply: &Value, troubled: bool) -> Result<bool, String> {
        if let (true, Value::Error(text)) = (troubled, reply)
            && EXCUSES.iter().any(|excuse| text.starts_with(excuse))
        {
            self.doubt(expect);
            return Ok(true);
        }
        let fits = match (expect, reply) {
            (Expect::Is(wanted), reply) => wanted == reply,
            // The push before it may have failed.
            (Expect::Popped(_), Value::Nil) => troubled,
            (Expect::Popped(wanted), reply) => wanted == reply,
            (Expect::Refused(part), Value::Error(text)) => text.contains(part.as_str()),
            (Expect::Wrote(pairs), Value::Simple(text)) => {
                pairs.iter().for_each(|(key, value)| self.settle(key, value.clone()));
                text == "OK"
            }
            (Expect::Value(key), reply) => self.saw(key, reply),
            (Expect::Values(keys), Value::Array(items)) => {
                keys.len() == items.len() && keys.iter().zip(items).all(|(key, item)| self.saw(key, item))
            }
            (Expect::Counted(keys), Value::Int(count)) => self.range(keys).contains(count),
            (Expect::Removed(keys), Value::Int(count)) => {
                let range = self.range(keys);
                keys.iter().for_each(|key| self.settle(key, None));
                range.contains(count)
            }
            (Expect::All(_, true), Value::Nil) => troubled,
            (Expect::All(parts, _), Value::Array(items)) => {
                if parts.len() != items.len() {
                    return Err("so many replies".into());
                }
                for (part, item) in parts.iter().zip(items) {
                    self.check(part, item, false)?;
                }
                true
            }
            (Expect::Hello(proto), Value::Map(pairs)) => {
                *proto == 3 && pairs.contains(&("proto".into(), Value::Int(3)))
            }
            (Expect::Hello(proto), Value::Array(items)) => {
                *proto == 2 && items[4..6] == ["proto".into(), Value::Int(2)]
            }
            (Expect::Subscription(kind, channel), Value::Array(items) | Value::Push(items)) => {
                items.len() == 3 && items[..2] == [Value::from(*kind), channel.as_str().into()]
            }
            (Expect::Number, Value::Int(_)) => true,
            _ => false,
        };
        match fits {
            true => Ok(false),
            false => Err(format!("wanted {expect:?}")),
        }
    }

    /// A key was read: from now on that is its value.
    fn saw(&mut self, key: &str, reply: &Value) -> bool {
        let value = match reply {
            Value::Nil => None,
            Value::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => return false,
        };
        if !self.candidates(key).contains(&value) {
            return false;
        }
        self.settle(key, value);
        true
    }

    /// At least and at most so many of them are there; one named twice counts twice in `EXISTS`, and once in `DEL`, so no
    /// key is.
    fn range(&mut self, keys: &[String]) -> std::ops::RangeInclusive<i64> {
        let (mut least, mut most) = (0, 0);
        for key in keys {
            let candidates = self.candidates(key);
            least += i64::from(candidates.iter().all(Option::is_some));
            most += i64::from(candidates.iter().any(Option::is_some));
        }
        least..=most
    }

    /// It is not known whether the command ran.
    fn doubt(&mut self, expect: &Expect) {
        match expect {
            Expect::Wrote(pairs) => {
                for (key, value) in pairs {
                    self.candidates(key).push(value.clone());
                }
            }
            Expect::Removed(keys) => keys.iter().for_each(|key| self.candidates(key).push(None)),
            Expect::All(parts, _) => parts.iter().for_each(|part| self.doubt(part)),
            _ => {}
        }
    }

    /// What a key may hold now; for the report of a failure.
    pub fn knows(&self) -> String {
        format!("{:?}", self.keys)
    }
}
