//! Questions that a thread of the data path cannot answer: it hands them to the back side.
//!
//! Must not know: who answers.

use super::Loads;
use crate::core::ClientKey;
use crate::mapping::MappingId;
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a client asks of the proxy itself.
#[derive(Debug)]
pub enum Question {
    /// What becomes of a command.
    Explain {
        /// Its name.
        command: &'static str,
        /// The first of its keys.
        key: Bytes,
        /// How many keys it names.
        keys: usize,
        /// The slot of the first key.
        slot: u16,
        /// The node that owns this slot, as `host:port`.
        node: String,
    },
    /// Drop the entries of mapped keys that match this glob.
    Invalidate {
        /// The glob.
        pattern: Bytes,
    },
    /// Bring what was written before to the database; how many writes are left when the time is over.
    Flush {
        /// Of this mapping only.
        mapping: Option<MappingId>,
        /// Longest time to wait; none: the configured one.
        timeout: Option<Duration>,
        /// Ends with a word when the answer is wanted now, without one when nobody wants it any more.
        stopped: oneshot::Receiver<()>,
    },
    /// How many keys the cluster has, the proxy's own left out.
    Keys,
}

/// The back side, as the data path asks it.
pub trait Admin: Send + Sync {
    /// Answers `question` in RESP of version `protocol`, by calling `done` once, from any thread, unless nobody wants the answer any more. Must not block.
    fn ask(&self, question: Question, protocol: u8, done: Box<dyn FnOnce(Vec<u8>) + Send>);
}

impl Loads {
    /// An answer that needs nothing more.
    pub(in crate::core) fn said(client: ClientKey, seq: u32, reply: Vec<u8>) -> Self {
        Self { client, seq, results: Vec::new(), ask: None, said: Some(reply) }
    }
}
