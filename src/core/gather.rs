//! Puts the replies to the parts of a command together: parts by slot, or one per primary.
//!
//! Must not know: where the parts went.

use super::keyspace::Info;
use super::mapped::push_visible;
use super::pubsub::Tally;
use super::scan::Cursor;
use crate::command::Merge;
use crate::resp::{ReplyScanner, Scan, push_array_header, push_bulk, push_error, push_integer, push_nil};
use bytes::Bytes;

/// The client could not be written a reply of this size: it would be closed.
const TOO_LARGE: &[u8] = b"-ERR dsproxy: the replies of the nodes are larger together than limits.client_output_max; ask for less at a time\r\n";

/// How replies become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Parts by slot.
    Keys(Merge),
    /// Parts by slot of an `MGET`, whose values are put into one JSON array; what is nil is left out.
    Objects,
    /// All elements of all arrays.
    Concat,
    /// Any one, when none is an error.
    First,
    /// Any one that is no error.
    AnyOk,
    /// Arrays of zeros and ones: one where all have one.
    Least,
    /// One that is not nil, chosen by this number.
    Pick(u64),
    /// What [`Gather::tally`] makes of them.
    Tally,
    /// What [`Gather::info`] makes of them.
    Info,
    /// The reply of one of so many nodes to `SCAN` at this cursor.
    Cursor(Cursor, u64),
    /// What the nodes say of the cluster at the end of a `SCAN`.
    Layout(Cursor),
}

/// One part: keys of one slot.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: u32,
    count: u32,
}

/// A split command that waits for its parts.
#[derive(Debug)]
pub struct Gather {
    join: Join,
    /// Bytes of the reply beyond which the command fails.
    most_bytes: usize,
    parts_left: usize,
    parts: Vec<Part>,
    /// Positions of keys in the client's order, grouped by part.
    order: Vec<u32>,
    /// Where the element for each key lies in `data`.
    elements: Vec<(u32, u32)>,
    data: Vec<u8>,
    /// Answers to `CLUSTER NODES`.
    views: Vec<String>,
    sum: i64,
    error: Option<Vec<u8>>,
    /// Keys of the command that belong to a mapping; after the parts are here, those that were not found.
    pub mapped: Vec<MappedKey>,
    /// Positions of keys with a part of their own that did not count.
    uncounted: Vec<u32>,
    /// Whether the proxy's own keys are left out of lists of keys.
    pub hides: bool,
    /// Numbers of subscribers.
    pub tally: Option<Tally>,
    /// An `INFO` that waits for its keyspace.
    pub info: Option<Box<Info>>,
}

/// A key that belongs to a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedKey {
    /// Its position among the keys of the command.
    pub position: u32,
    /// Its mapping.
    pub mapping: u16,
    /// The key.
    pub key: Bytes,
}

/// Mapping and key of each.
type Pairs = Vec<(u16, Bytes)>;

impl Gather {
    /// A gather without parts, for replies of at most so many bytes; reuse one with [`Self::reset`].
    pub fn new(most_bytes: usize) -> Self {
        Self {
            join: Join::First,
            most_bytes,
            parts_left: 0,
            parts: Vec::new(),
            order: Vec::new(),
            elements: Vec::new(),
            data: Vec::new(),
            views: Vec::new(),
            sum: 0,
            error: None,
            mapped: Vec::new(),
            uncounted: Vec::new(),
            hides: false,
            tally: None,
            info: None,
        }
    }

    /// Bytes that it would hold on to if it were kept for reuse.
    pub fn capacity(&self) -> usize {
        self.data.capacity()
            + self.elements.capacity() * size_of::<(u32, u32)>()
            + self.order.capacity() * size_of::<u32>()
            + self.parts.capacity() * size_of::<Part>()
    }

    /// Begins a command over `keys` keys.
    pub fn reset(&mut self, join: Join, keys: usize) {
        self.join = join;
        self.parts_left = 0;
        self.parts.clear();
        self.order.clear();
        self.elements.clear();
        if matches!(join, Join::Keys(Merge::Array) | Join::Objects) {
            self.elements.resize(keys, (0, 0));
        }
        self.data.clear();
        self.views.clear();
        self.sum = 0;
        self.error = None;
        self.mapped.clear();
        self.uncounted.clear();
        self.hides = false;
        self.tally = None;
        self.info = None;
    }

    /// Adds a part that covers the keys at these positions; its number.
    pub fn add_part(&mut self, positions: impl Iterator<Item = u32>) -> u32 {
        let first = self.order.len() as u32;
        self.order.extend(positions);
        self.parts.push(Part { first, count: self.order.len() as u32 - first });
        self.parts_left += 1;
        (self.parts.len() - 1) as u32
    }

    /// The mapped keys of a part.
    pub fn mapped_of(&self, part: u32) -> impl Iterator<Item = &MappedKey> {
        let Part { first, count } =
            self.parts.get(part as usize).copied().unwrap_or(Part { first: 0, count: 0 });
        let positions = self.order.get(first as usize..(first + count) as usize).unwrap_or_default();
        self.mapped.iter().filter(|mapped| positions.contains(&mapped.position))
    }

    /// Takes the reply to a part. True when it was the last one.
    pub fn take(&mut self, part: u32, reply: &[u8]) -> bool {
        self.parts_left = self.parts_left.saturating_sub(1);
        if reply.first() == Some(&b'-') {
            self.error.get_or_insert_with(|| reply.to_vec());
        } else if self.data.len() + reply.len() > self.most_bytes {
            // What is gathered could not be written to the client anyway, and must not be held until all are here.
            self.data = Vec::new();
            self.elements.fill((0, 0));
            self.error.get_or_insert_with(|| TOO_LARGE.to_vec());
        } else if self.take_ok(part, reply).is_none() {
            self.error.get_or_insert_with(|| {
                b"-ERR dsproxy: a node answered a part of this command with an unexpected reply\r\n".to_vec()
            });
        }
        self.parts_left == 0
    }

    fn take_ok(&mut self, part: u32, reply: &[u8]) -> Option<()> {
        match self.join {
            Join::Keys(Merge::AllOk) => (reply.first() == Some(&b'+')).then_some(()),
            Join::Keys(Merge::Sum) => {
                let digits = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
                self.sum += std::str::from_utf8(digits).ok()?.parse::<i64>().ok()?;
                if digits == b"0" && !self.mapped.is_empty() {
                    let Part { first, count } = *self.parts.get(part as usize)?;
                    self.uncounted.extend(self.order.get(first as usize..(first + count) as usize)?);
                }
                Some(())
            }
            Join::Keys(Merge::Array) | Join::Objects => self.take_elements(part, reply),
            Join::Concat => self.take_all(reply),
            Join::First | Join::AnyOk => {
                self.data.clear();
                self.data.extend_from_slice(reply);
                Some(())
            }
            Join::Least => self.take_least(reply),
            Join::Tally => self.tally.as_mut()?.take(reply),
            Join::Info => {
                let text = text_of(reply)?;
                self.info.as_mut()?.take(&text)
            }
            Join::Pick(_) => {
                if !crate::resp::is_nil(reply) {
                    self.elements.push((self.data.len() as u32, reply.len() as u32));
                    self.data.extend_from_slice(reply);
                }
                Some(())
            }
            Join::Cursor(cursor, nodes) => self.take_cursor(reply, cursor, nodes),
            Join::Layout(_) => self.take_view(reply),
        }
    }

    fn take_all(&mut self, reply: &[u8]) -> Option<()> {
        let end = memchr::memchr(b'\n', reply)? + 1;
        let count: i64 = std::str::from_utf8(reply.get(1..end - 2)?).ok()?.parse().ok()?;
        let count = matches!(reply.first(), Some(b'*' | b'~')).then_some(count)?;
        let elements = reply.get(end..)?;
        self.sum += match self.hides {
            true => push_visible(elements, &mut self.data)?,
            false => {
                self.data.extend_from_slice(elements);
                count
            }
        };
        Some(())
    }

    /// Two such replies differ in nothing but their digits.
    fn take_least(&mut self, reply: &[u8]) -> Option<()> {
        if self.data.is_empty() {
            self.data.extend_from_slice(reply);
        } else if self.data.len() == reply.len() {
            self.data.iter_mut().zip(reply).for_each(|(least, byte)| *least = (*least).min(*byte));
        } else {
            return None;
        }
        Some(())
    }

    /// `*2`, the cursor as a bulk string, the keys.
    fn take_cursor(&mut self, reply: &[u8], asked: Cursor, nodes: u64) -> Option<()> {
        let body = reply.strip_prefix(b"*2\r\n")?;
        let Ok(Scan::Complete(end)) = ReplyScanner::default().scan(body) else { return None };
        let (cursor, keys) = body.split_at(end);
        let digits = cursor.get(memchr::memchr(b'\n', cursor)? + 1..cursor.len() - 2)?;
        let cursor: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let next = asked.after(cursor, nodes)?;
        self.data.extend_from_slice(b"*2\r\n");
        push_bulk(&mut self.data, next.to_string().as_bytes());
        if !self.hides {
            self.data.extend_from_slice(keys);
            return Some(());
        }
        let mut visible = Vec::new();
        let elements = keys.get(memchr::memchr(b'\n', keys)? + 1..)?;
        let count = push_visible(elements, &mut visible)?;
        push_array_header(&mut self.data, count as usize);
        self.data.extend_from_slice(&visible);
        Some(())
    }

    fn take_view(&mut self, reply: &[u8]) -> Option<()> {
        self.views.push(text_of(reply)?);
        Some(())
    }

    /// No part that is missing is waited for any longer.
    pub fn give_up(&mut self, text: &str) {
        let mut error = Vec::new();
        push_error(&mut error, text);
        self.error.get_or_insert(error);
    }

    /// The nodes' views of the cluster, once all are here, of a `SCAN` that has come to its end.
    fn end_of_scan(&self) -> Option<(u64, bool)> {
        let Join::Layout(cursor) = self.join else { return None };
        cursor.at_end(&self.views)
    }

    /// True when the cluster is another one than the command was sent to.
    pub fn is_outdated(&self) -> bool {
        !self.failed() && self.end_of_scan().is_some_and(|(_, changed)| changed)
    }

    fn take_elements(&mut self, part: u32, reply: &[u8]) -> Option<()> {
        if reply.first() != Some(&b'*') {
            return None;
        }
        let Part { first, count } = *self.parts.get(part as usize)?;
        let mut at = memchr::memchr(b'\n', reply)? + 1;
        let mut scanner = ReplyScanner::default();
        for position in self.order.get(first as usize..(first + count) as usize)? {
            let Ok(Scan::Complete(length)) = scanner.scan(&reply[at..]) else { return None };
            let start = self.data.len() as u32;
            self.data.extend_from_slice(&reply[at..at + length]);
            *self.elements.get_mut(*position as usize)? = (start, length as u32);
            at += length;
        }
        (at == reply.len()).then_some(())
    }

    /// The values of all elements, each a JSON document, as one JSON array.
    fn objects(&self) -> Vec<u8> {
        let mut array = vec![b'['];
        for position in 0..self.elements.len() {
            let element = self.element(position as u32);
            let value =
                memchr::memchr(b'\n', element).and_then(|end| element.get(end + 1..)?.strip_suffix(b"\r\n"));
            let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
            if array.len() > 1 {
                array.push(b',');
            }
            array.extend_from_slice(value);
        }
        array.push(b']');
        array
    }

    /// The element at `position`, as far as it has arrived.
    pub fn element(&self, position: u32) -> &[u8] {
        let Some((start, length)) = self.elements.get(position as usize) else { return &[] };
        self.data.get(*start as usize..(*start + *length) as usize).unwrap_or_default()
    }

    /// Makes a nil of each mapped element that is not to be believed, or has it not count; whether there was any. `doubtful`
    /// is given mapping, key and element, none where the key has counted.
    pub fn distrust(&mut self, doubtful: impl Fn(u16, &[u8], Option<&[u8]>) -> bool) -> bool {
        let counts = self.join == Join::Keys(Merge::Sum);
        let is_meant = |mapped: &&MappedKey| match counts {
            true => !self.uncounted.contains(&mapped.position) && doubtful(mapped.mapping, &mapped.key, None),
            false => doubtful(mapped.mapping, &mapped.key, Some(self.element(mapped.position))),
        };
        let meant: Vec<u32> = self.mapped.iter().filter(is_meant).map(|mapped| mapped.position).collect();
        for position in &meant {
            if counts {
                self.sum -= 1;
                self.uncounted.push(*position);
            } else if let Some(element) = self.elements.get_mut(*position as usize) {
                let start = self.data.len();
                push_nil(&mut self.data, 2);
                *element = (start as u32, (self.data.len() - start) as u32);
            }
        }
        !meant.is_empty()
    }

    /// Once all parts are here: the mapped keys that have a value, and those that have none.
    pub fn split_mapped(&mut self) -> (Pairs, Pairs) {
        let (nils, hits): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.mapped).into_iter().partition(|mapped| match self.join {
                Join::Keys(Merge::Sum) => self.uncounted.contains(&mapped.position),
                _ => crate::resp::is_nil(self.element(mapped.position)),
            });
        let missing = nils.iter().map(|mapped| (mapped.mapping, mapped.key.clone())).collect();
        self.mapped = nils;
        (hits.into_iter().map(|mapped| (mapped.mapping, mapped.key)).collect(), missing)
    }

    /// Puts loaded elements in the place of the nils (or counts those that are not nil), in the order of [`Self::split_mapped`]. One that is an error
    /// makes the whole command fail: a value that could not be loaded is not nil.
    pub fn fill<T>(&mut self, loaded: &[T], encode: impl Fn(&mut Vec<u8>, &T)) {
        for (mapped, value) in std::mem::take(&mut self.mapped).iter().zip(loaded) {
            let start = self.data.len();
            encode(&mut self.data, value);
            if self.data.get(start) == Some(&b'-') {
                let error = self.data.split_off(start);
                self.error.get_or_insert(error);
            } else if self.join == Join::Keys(Merge::Sum) {
                self.sum +=
                    i64::from(self.data.get(start..).is_some_and(|reply| !crate::resp::is_nil(reply)));
            } else if let Some(element) = self.elements.get_mut(mapped.position as usize) {
                *element = (start as u32, (self.data.len() - start) as u32);
            }
        }
    }

    /// True when a part failed.
    pub fn failed(&self) -> bool {
        self.error.is_some()
    }

    /// Appends the merged reply.
    pub fn finish(&self, out: &mut Vec<u8>, protocol: u8) {
        if let Some(info) = &self.info {
            return info.finish(self.error.as_deref(), out, protocol);
        }
        let spoiled = self.join != Join::AnyOk || self.data.is_empty();
        if let Some(error) = self.error.as_ref().filter(|_| spoiled) {
            out.extend_from_slice(error);
            return;
        }
        match self.join {
            Join::Keys(Merge::AllOk) => out.extend_from_slice(b"+OK\r\n"),
            Join::Keys(Merge::Sum) => push_integer(out, self.sum),
            Join::Info => {}
            Join::Tally => self.tally.iter().for_each(|tally| tally.finish(out)),
            Join::Concat => {
                push_array_header(out, self.sum.max(0) as usize);
                out.extend_from_slice(&self.data);
            }
            Join::First | Join::AnyOk | Join::Least | Join::Cursor(..) => out.extend_from_slice(&self.data),
            Join::Layout(_) => match self.end_of_scan() {
                Some((cursor, _)) => {
                    out.extend_from_slice(b"*2\r\n");
                    push_bulk(out, cursor.to_string().as_bytes());
                    push_array_header(out, 0);
                }
                None => out.extend_from_slice(b"-ERR dsproxy: a node's CLUSTER NODES cannot be read\r\n"),
            },
            Join::Pick(random) => {
                let count = (self.elements.len() as u64).max(1);
                match self.element((random % count) as u32) {
                    b"" => push_nil(out, protocol),
                    element => out.extend_from_slice(element),
                }
            }
            Join::Objects => push_bulk(out, &self.objects()),
            Join::Keys(Merge::Array) => {
                push_array_header(out, self.elements.len());
                for position in 0..self.elements.len() {
                    out.extend_from_slice(self.element(position as u32));
                }
            }
        }
    }
}

/// A bulk string, or a verbatim one without its `txt:`.
fn text_of(reply: &[u8]) -> Option<String> {
    let text = reply.get(memchr::memchr(b'\n', reply)? + 1..)?.strip_suffix(b"\r\n")?;
    let text = if reply.first() == Some(&b'=') { text.get(4..)? } else { text };
    matches!(reply.first(), Some(b'$' | b'=')).then(|| String::from_utf8(text.to_vec()).ok())?
}
