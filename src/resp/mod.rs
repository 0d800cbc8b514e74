//! The wire format: finding frame boundaries in untrusted bytes, decoding what we must understand, encoding what we say.
//!
//! Must not know: commands, keys, connections.
//!
//! Untrusted bytes meet [`RequestScanner`] and [`ReplyScanner`] first: iterative, resumable, limited in size and
//! depth. `redis-protocol` only ever sees whole frames that these have accepted.

mod args;
mod inline;
mod reply;
mod request;
mod write;

pub use args::{Args, Span};
pub use reply::{MalformedReply, ReplyScanner, bulk_string, decode_reply, is_nil};
pub use request::{Inline, ProtocolError, RequestLimits, RequestScanner};
pub use write::{
    push_array_header, push_bulk, push_bulk_number, push_command, push_error, push_integer, push_nil,
    push_simple,
};

/// What a scanner found at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// A whole frame ends at this offset.
    Complete(usize),
    /// The frame is unfinished; nothing can change before the buffer holds at least this many bytes.
    Incomplete(usize),
}
