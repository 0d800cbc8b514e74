//! Requests of one script for many keys of a node, as one request: a node, and who waits for it, has less to do then.
//!
//! Must not know: which node owns what, connections.
//!
//! Each key is done by itself, with a reply of its own. What a node does not own, or does not let a script touch that names
//! other keys, is an error in the place of that reply.

use super::reply::{bulk, line, number};
use super::script::{Script, pairs};
use crate::resp::{ReplyScanner, Scan, push_array_header, push_bulk};
use crate::slot::slot;
use bytes::Bytes;
use rustc_hash::FxHashMap;

/// Keys of one request at most: a node does them in one piece, and others wait meanwhile.
const MOST: usize = 32;
/// Bytes of one request, beyond which no key is added.
const MOST_BYTES: usize = 64 << 10;

/// Some requests, as one.
#[derive(Debug)]
pub struct Together {
    many: &'static Script,
    /// An entry: it says where this runs.
    key: Vec<u8>,
    /// Arguments of each key, with its sidecar.
    each: usize,
    /// The arguments that all of them share, encoded.
    common: Vec<u8>,
    /// Those of the keys, encoded.
    bytes: Vec<u8>,
    /// Positions of the requests that it stands for, in the order of their replies.
    pub members: Vec<usize>,
}

/// One of this module's requests.
struct Single<'r> {
    many: &'static Script,
    key: &'r [u8],
    /// Encoded.
    sidecar: &'r [u8],
    common: &'r [u8],
    own: &'r [u8],
    /// The number of the key's own arguments, with its sidecar.
    each: usize,
}

/// Puts requests of the same script together whose keys are on the same node, which `node` tells by the slot. What cannot be
/// joined with any other is in none.
pub fn together(requests: &[Vec<u8>], node: impl Fn(u16) -> Option<usize>) -> Vec<Together> {
    let pairs = pairs();
    let mut all: Vec<Together> = Vec::new();
    let mut open: FxHashMap<(usize, *const Script, &[u8], usize), usize> = FxHashMap::default();
    for (at, request) in requests.iter().enumerate() {
        let Some(single) = read(request, &pairs) else { continue };
        let Some(node) = node(slot(single.key)) else { continue };
        let kind = (node, std::ptr::from_ref(single.many), single.common, single.each);
        let place = open.entry(kind).or_insert(usize::MAX);
        let has_room = |it: &Together| it.members.len() < MOST && it.bytes.len() < MOST_BYTES;
        if !all.get(*place).is_some_and(has_room) {
            *place = all.len();
            let length = single.sidecar.len() + single.own.len() + 8;
            let bytes = Vec::with_capacity(MOST * length.min(MOST_BYTES / MOST));
            let (key, common) = (single.key.to_vec(), single.common.to_vec());
            all.push(Together {
                many: single.many,
                key,
                each: single.each,
                common,
                bytes,
                members: Vec::new(),
            });
        }
        if let Some(together) = all.get_mut(*place) {
            together.bytes.extend_from_slice(single.sidecar);
            together.bytes.extend_from_slice(single.own);
            together.members.push(at);
        }
    }
    all.retain(|together| together.members.len() > 1);
    all
}

impl Together {
    /// The request.
    pub fn request(&self) -> Vec<u8> {
        let mut request = Vec::with_capacity(self.bytes.len() + self.common.len() + self.key.len() + 100);
        push_array_header(&mut request, 5 + self.many.common + self.members.len() * self.each);
        let each = self.each.to_string();
        for part in [&b"EVALSHA"[..], self.many.sha.as_bytes(), b"1", &self.key, each.as_bytes()] {
            push_bulk(&mut request, part);
        }
        request.extend_from_slice(&self.common);
        request.extend_from_slice(&self.bytes);
        request
    }

    /// The reply of each member; `None` when this is no reply to [`Self::request`], but an error.
    pub fn replies(&self, reply: &Bytes) -> Option<Vec<Bytes>> {
        let head = format!("*{}\r\n", self.members.len());
        let mut at = reply.starts_with(head.as_bytes()).then_some(head.len())?;
        let mut replies = Vec::with_capacity(self.members.len());
        for _ in &self.members {
            let Ok(Scan::Complete(length)) = ReplyScanner::default().scan(reply.get(at..)?) else {
                return None;
            };
            replies.push(reply.slice(at..at + length));
            at += length;
        }
        Some(replies)
    }
}

fn read<'r>(request: &'r [u8], pairs: &[(&'static Script, &'static Script)]) -> Option<Single<'r>> {
    let (count, rest) = line(request.strip_prefix(b"*")?)?;
    let (name, rest) = bulk(rest)?;
    let (sha, rest) = bulk(rest)?;
    let (keys, rest) = bulk(rest)?;
    let (_, many) = pairs.iter().find(|(one, _)| one.sha.as_bytes() == sha)?;
    if name != b"EVALSHA" || keys != b"2" {
        return None;
    }
    let (key, after_key) = bulk(rest)?;
    let (_, after_sidecar) = bulk(after_key)?;
    let own = (0..many.common).try_fold(after_sidecar, |rest, _| Some(bulk(rest)?.1))?;
    Some(Single {
        many,
        key,
        sidecar: before(after_key, after_sidecar)?,
        common: before(after_sidecar, own)?,
        own,
        each: usize::try_from(number(count)?).ok()?.checked_sub(4 + many.common)?,
    })
}

/// What of `all` comes before its end `rest`.
fn before<'r>(all: &'r [u8], rest: &[u8]) -> Option<&'r [u8]> {
    all.get(..all.len().checked_sub(rest.len())?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is a panic")]
mod tests {
    use super::super::{Token, invalidate, look, release};
    use super::*;
    use std::time::Duration;

    fn drops(keys: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
        keys.into_iter().map(|n| invalidate(format!("k:{n}").as_bytes(), Duration::ZERO)).collect()
    }

    #[test]
    fn requests_of_one_script_and_one_node_are_joined() {
        let mut requests = drops(0..3);
        requests.push(release(b"k:3", Token::random()));
        requests.push(look(b"k:4"));
        requests.push(b"*1\r\n$4\r\nPING\r\n".to_vec());
        let joined = together(&requests, |_| Some(0));
        assert_eq!(joined.len(), 1, "there is but one release, and nothing else has a form for many");
        assert_eq!(joined[0].members, [0, 1, 2]);
        let by_key = |slot| Some(usize::from(slot == crate::slot::slot(b"k:1")));
        assert_eq!(together(&requests, by_key)[0].members, [0, 2]);
        assert!(together(&requests, |_| None).is_empty());
    }

    #[test]
    fn no_request_is_too_large() {
        let joined = together(&drops(0..2 * MOST + 1), |_| Some(0));
        assert_eq!(joined.iter().map(|it| it.members.len()).collect::<Vec<_>>(), [MOST, MOST]);
        let long = vec![b'k'; MOST_BYTES];
        let requests = vec![invalidate(&long, Duration::ZERO); 3];
        assert!(together(&requests, |_| Some(0)).is_empty());
    }

    #[test]
    fn replies_are_told_apart() {
        let joined = together(&drops(0..3), |_| Some(0));
        let reply = Bytes::from_static(b"*3\r\n*2\r\n$1\r\na\r\n:1\r\n-ERR no\r\n$-1\r\n");
        let replies = joined[0].replies(&reply).unwrap();
        assert_eq!(replies, [&b"*2\r\n$1\r\na\r\n:1\r\n"[..], b"-ERR no\r\n", b"$-1\r\n"]);
        for strange in [&b"-ERR unknown\r\n"[..], b"*2\r\n:1\r\n:1\r\n", b"*3\r\n:1\r\n:2\r\n", b""] {
            assert_eq!(joined[0].replies(&Bytes::from_static(strange)), None);
        }
    }
}
