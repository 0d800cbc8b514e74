//! Random requests, each with the replies that it must have.

use crate::model::Expect;
use crate::rng::Rng;
use crate::support::Value;

/// Hash tags that all clients share, so that one slot that moves concerns many of them.
pub const TAGS: usize = 48;
/// Channels that all clients share.
const CHANNELS: usize = 20;

/// The tag of this number, without its braces.
pub fn tag(n: usize) -> String {
    format!("g{n}")
}

/// What a client is about to send, and what must come back, in order.
#[derive(Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    pub expects: Vec<(Expect, String)>,
}

/// A client's state as far as it decides what it may ask.
pub struct Speaker {
    /// Begins keys and channels.
    pub prefix: String,
    pub id: u64,
    pub protocol: i64,
    /// The channel it is subscribed to.
    pub channel: Option<String>,
    tokens: u64,
    /// Changes the names of keys that are used once.
    fresh: u64,
}

impl Speaker {
    pub fn new(prefix: &str, id: u64) -> Self {
        Self { prefix: prefix.to_owned(), id, protocol: 2, channel: None, tokens: 0, fresh: 0 }
    }

    /// A value that no other command of any client writes; now and then a long one.
    fn token(&mut self, rng: &mut Rng) -> String {
        self.tokens += 1;
        let length = if rng.per_mille(20) { rng.below(40_000) } else { rng.below(40) };
        format!("{}-{}-{}", self.id, self.tokens, "x".repeat(length))
    }

    fn key(&self, tag_number: usize, n: usize) -> String {
        format!("{}{{{}}}:{}:{n}", self.prefix, tag(tag_number), self.id)
    }

    /// One of a few keys over several slots.
    fn any_key(&self, rng: &mut Rng) -> String {
        let n = rng.below(6);
        self.key((self.id as usize * 7 + n * 11) % TAGS, n)
    }

    /// Different keys over several slots.
    fn some_keys(&self, rng: &mut Rng) -> Vec<String> {
        let mut keys: Vec<String> = (0..rng.within(1, 5)).map(|_| self.any_key(rng)).collect();
        keys.sort();
        keys.dedup();
        // Not in the order of their slots.
        let first = rng.below(keys.len());
        keys.rotate_left(first);
        keys
    }

    /// Keys that share a slot.
    fn pair(&self) -> (String, String) {
        let tag = self.id as usize % TAGS;
        (self.key(tag, 100), self.key(tag, 101))
    }

    fn fresh_key(&mut self) -> String {
        self.fresh += 1;
        self.key(self.id as usize % TAGS, 1000 + self.fresh as usize)
    }
}

impl Batch {
    fn say(&mut self, words: &[&str], expect: Expect) {
        dsproxy::resp::push_command(&mut self.bytes, words.iter().map(|word| word.as_bytes()));
        let line: String = words.join(" ").chars().take(120).collect();
        self.expects.push((expect, line));
    }

    /// A random request.
    pub fn add(&mut self, who: &mut Speaker, rng: &mut Rng, may_block: bool) {
        if who.channel.is_some() && (who.protocol == 2 || rng.per_mille(200)) {
            return self.add_as_subscriber(who, rng);
        }
        match rng.below(20) {
            0..=3 => self.single(who, rng),
            4..=6 => self.split(who, rng),
            7 | 8 => self.transaction(who, rng, false),
            9 => self.transaction(who, rng, may_block),
            10 => self.script(who, rng),
            11 if may_block => self.blocking(who, rng),
            12 => self.subscribe(who, rng),
            13 => self.publish(who, rng),
            14 => {
                let protocol = rng.within(2, 3) as i64;
                self.say(&["HELLO", &protocol.to_string()], Expect::Hello(protocol));
                who.protocol = protocol;
            }
            15 => self.wrong(who, rng),
            _ => self.echo(who, rng),
        }
    }

    fn echo(&mut self, who: &mut Speaker, rng: &mut Rng) {
        let token = who.token(rng);
        let same = Expect::Is(token.as_str().into());
        match rng.below(3) {
            0 => self.say(&["PING", &token], same),
            1 => self.say(&["ECHO", &token], same),
            _ => {
                self.bytes.extend_from_slice(format!("echo \"{token}\"\r\n").as_bytes());
                self.expects.push((same, "inline ECHO".to_owned()));
            }
        }
    }

    fn single(&mut self, who: &mut Speaker, rng: &mut Rng) {
        let key = who.any_key(rng);
        match rng.below(3) {
            0 => {
                let token = who.token(rng);
                self.say(&["SET", &key, &token], Expect::Wrote(vec![(key.clone(), Some(token.clone()))]));
            }
            _ => self.say(&["GET", &key], Expect::Value(key.clone())),
        }
    }

    fn split(&mut self, who: &mut Speaker, rng: &mut Rng) {
        let keys = who.some_keys(rng);
        let with = |verb: &'static str| -> Vec<&str> {
            std::iter::once(verb).chain(keys.iter().map(String::as_str)).collect()
        };
        match rng.below(5) {
            0 => self.say(&with("DEL"), Expect::Removed(keys.clone())),
            1 => self.say(&with("EXISTS"), Expect::Counted(keys.clone())),
            2 => {
                let pairs: Vec<(String, Option<String>)> =
                    keys.iter().map(|key| (key.clone(), Some(who.token(rng)))).collect();
                let mut words = vec!["MSET"];
                pairs.iter().for_each(|(key, value)| words.extend([key.as_str(), value.as_deref().unwrap()]));
                self.say(&words, Expect::Wrote(pairs.clone()));
            }
            _ => self.say(&with("MGET"), Expect::Values(keys.clone())),
        }
    }

    fn transaction(&mut self, who: &mut Speaker, rng: &mut Rng, watches: bool) {
        let (a, b) = who.pair();
        let (first, second) = (who.token(rng), who.token(rng));
        let ok = || Expect::Is(Value::Simple("OK".into()));
        let queued = || Expect::Is(Value::Simple("QUEUED".into()));
        if watches {
            self.say(&["WATCH", &a, &b], ok());
            self.say(&["GET", &a], Expect::Value(a.clone()));
        }
        self.say(&["MULTI"], ok());
        self.say(&["SET", &a, &first], queued());
        self.say(&["MGET", &a, &b], queued());
        self.say(&["PING", &second], queued());
        self.say(&["SET", &b, &second], queued());
        if rng.per_mille(150) {
            return self.say(&["DISCARD"], ok());
        }
        let wrote = |key: &str, token: &str| Expect::Wrote(vec![(key.to_owned(), Some(token.to_owned()))]);
        let parts = vec![
            wrote(&a, &first),
            Expect::Values(vec![a.clone(), b.clone()]),
            Expect::Is(second.as_str().into()),
            wrote(&b, &second),
        ];
        self.say(&["EXEC"], Expect::All(parts, watches));
    }

    fn script(&mut self, who: &mut Speaker, rng: &mut Rng) {
        let (key, token) = (who.any_key(rng), who.token(rng));
        let both = Expect::Is(Value::Array(vec![key.as_str().into(), token.as_str().into()]));
        self.say(&["EVAL", "return {KEYS[1], ARGV[1]}", "1", &key, &token], both);
    }

    /// What was pushed, or nothing after a moment.
    fn blocking(&mut self, who: &mut Speaker, rng: &mut Rng) {
        let (key, token) = (who.fresh_key(), who.token(rng));
        if rng.per_mille(300) {
            return self.say(&["BLPOP", &key, "0.01"], Expect::Is(Value::Nil));
        }
        let popped = Expect::Popped(Value::Array(vec![key.as_str().into(), token.as_str().into()]));
        self.say(&["RPUSH", &key, &token], Expect::Is(Value::Int(1)));
        self.say(&["BLPOP", &key, "5"], popped);
    }

    fn publish(&mut self, who: &mut Speaker, rng: &mut Rng) {
        let (channel, token) = (channel(who, rng), who.token(rng));
        self.say(&["PUBLISH", &channel, &format!("{channel} {token}")], Expect::Number);
    }

    fn subscribe(&mut self, who: &mut Speaker, rng: &mut Rng) {
        if who.channel.is_none() {
            let channel = channel(who, rng);
            self.say(&["SUBSCRIBE", &channel], Expect::Subscription("subscribe", channel.clone()));
            who.channel = Some(channel);
        }
    }

    fn add_as_subscriber(&mut self, who: &mut Speaker, rng: &mut Rng) {
        let Some(channel) = who.channel.clone() else { return };
        let token = who.token(rng);
        match rng.below(4) {
            0 if who.protocol == 2 => {
                let refused = Expect::Refused("Can't execute 'get'".into());
                self.say(&["GET", &who.any_key(rng)], refused);
            }
            0 | 1 => {
                let pong = match who.protocol {
                    2 => Value::Array(vec!["pong".into(), token.as_str().into()]),
                    _ => token.as_str().into(),
                };
                self.say(&["PING", &token], Expect::Is(pong));
            }
            _ => {
                self.say(&["UNSUBSCRIBE"], Expect::Subscription("unsubscribe", channel));
                who.channel = None;
            }
        }
    }

    /// Errors name what was sent.
    fn wrong(&mut self, who: &mut Speaker, rng: &mut Rng) {
        let token = who.token(rng);
        let short: String = token.chars().take(20).collect();
        match rng.below(3) {
            0 => self.say(&["nosuch", &token], Expect::Refused(short)),
            1 => self.say(&[&format!("no{short}")], Expect::Refused(short)),
            _ => {
                let (a, _) = who.pair();
                self.say(&["EXISTS", &a], Expect::Counted(vec![a.clone()]));
                self.say(&["SETRANGE", &a, "-1", &token], Expect::Refused("offset is out of range".into()));
            }
        }
    }
}

fn channel(who: &Speaker, rng: &mut Rng) -> String {
    format!("{}channel:{}", who.prefix, rng.below(CHANNELS))
}
