//! Hits of keys that have writes waiting here: whether what the cluster holds is what was written last.
//!
//! Must not know: how the cluster lost a write, the database.
//!
//! The cluster may have lost the entry of a write that waits for the database (an eviction, a failover), and another proxy may
//! have loaded the older row again. So a hit of such a key is compared with what waits. Mostly it is that, and nothing
//! more happens; otherwise the version beside the entry says which of the two is newer ([`ReadThrough::recheck`]): another
//! proxy may have written the key, too. Where nothing waits this costs the look at two counters, and plain keys nothing.

use super::super::{ClientKey, Core};
use super::evaluate::{Verdict, evaluate, evaluate_absent};
use super::read::Ask;
use crate::cache::{Loaded, Miss, ReadThrough};
use crate::cluster::{Entry, Owner};
use crate::command;
use crate::resp::{Args, RequestLimits, RequestScanner, is_nil, push_bulk};
use crate::slot;
use crate::writeback::{Pending, WriteBehind};
use bytes::Bytes;

impl Core {
    /// A read of a mapped key was answered by the cluster. True when that is not what waits here for the key: then it is found
    /// out which of the two is the newer one, and the client is answered with that.
    #[cold]
    pub(in crate::core) fn verify_hit(&mut self, entry: &Entry, request: &[u8], reply: &[u8]) -> bool {
        let Owner::Client { index, serial, seq, .. } = entry.owner else { return false };
        if reply.first() == Some(&b'-') {
            return false;
        }
        let mut scanner = RequestScanner::default();
        if scanner.scan(request, &RequestLimits::default()).is_err() {
            return false;
        }
        let args = Args::new(request, scanner.spans());
        let client = ClientKey { index, serial };
        let (Ok(command), Some(data)) = (command::resolve(&args), &self.data) else { return false };
        let Some(key) = command.first_key(&args).and_then(|first| args.get(first)) else { return false };
        if entry.attempts > 0 {
            // Its node did not answer, or has passed it on: another one may have taken over.
            data.writes.doubt_key(entry.mapping, key);
        }
        let Some((pending, _)) = data.writes.unflushed(entry.mapping, key) else { return false };
        let Some(protocol) = self.client(client).map(|client| client.session.protocol) else { return false };
        let (written, name) = (loaded(pending), command.name);
        let mut expected = Vec::new();
        let said = match &written {
            Loaded::Absent => evaluate_absent(name, &args, protocol, &mut expected),
            written => evaluate(name, &args, written, protocol, &mut expected),
        };
        // What only a node can say of an entry, such as how long it lives, is not about its value.
        if said == Verdict::Ask || expected == reply {
            return false;
        }
        // What waits is what its client has asked for after this read: that it must not see yet.
        if self.writes_later(entry, key) {
            return false;
        }
        let (mapping, key) = (entry.mapping, Bytes::copy_from_slice(key));
        let ask = (name != "get").then(|| {
            let mut absent = Vec::new();
            let _ = evaluate_absent(name, &args, protocol, &mut absent);
            let mappings = data.source.mappings();
            let stored = mappings.get(mapping).is_some_and(|mapping| mapping.cache);
            let slot = slot::slot(&key);
            Box::new(Ask { command, request: request.to_vec(), reply: absent, slot, stored })
        });
        self.load_from(client, seq, entry.at, vec![(mapping, key)], ask, ReadThrough::recheck)
    }
}

/// Whether `element`, of the reply to an `MGET`, is not what waits for the key. `None` in the place of an element: the key
/// counts as one that is there.
pub(super) fn differs(writes: &WriteBehind, mapping: u16, key: &[u8], element: Option<&[u8]>) -> bool {
    let Some((pending, _)) = writes.unflushed(mapping, key) else { return false };
    match (loaded(pending), element) {
        (Loaded::Absent, None) => true,
        (_, None) => false,
        (Loaded::Value(value), Some(element)) => {
            let mut expected = Vec::with_capacity(value.len() + 16);
            push_bulk(&mut expected, &value);
            expected != element
        }
        (_, Some(element)) => !is_nil(element),
    }
}

/// How keys are loaded that the cluster has not got. A value that waits here is the answer, unless another proxy has deleted
/// the key since: that is asked first.
pub(super) fn load_of(writes: &WriteBehind, keys: &[(u16, Bytes)]) -> impl Fn(&ReadThrough, Miss) + use<> {
    let waits = |(mapping, key): &(u16, Bytes)| {
        matches!(writes.unflushed(*mapping, key), Some((Pending::Value(_) | Pending::Fields(_), _)))
    };
    match writes.has_unflushed() && keys.iter().any(waits) {
        true => ReadThrough::recheck,
        false => ReadThrough::load,
    }
}

/// What waits, as a reader sees it.
fn loaded(pending: Pending) -> Loaded {
    match pending {
        Pending::Value(value) | Pending::Newest(value, _) => Loaded::Value(value),
        Pending::Fields(fields) => Loaded::Hash(fields),
        Pending::Deleted => Loaded::Absent,
    }
}
