//! The texts of the scripts, and their names at a node.
//!
//! Must not know: what they do.

use sha1::{Digest, Sha1};
use std::sync::LazyLock;

/// One script.
#[derive(Debug)]
pub struct Script {
    /// Its text.
    pub body: &'static str,
    /// Its SHA1 in hexadecimal, as `EVALSHA` wants it.
    pub sha: String,
    /// The first arguments of a request that runs it for one key, encoded.
    pub(super) of_one_key: Box<[u8]>,
}

/// What is done for a key is the function `run`; a script calls it for the one that it is given, or for each of many.
macro_rules! text {
    ($body:literal, $how:literal) => {
        concat!(
            include_str!("lua/prelude.lua"),
            "local function run()\n",
            include_str!($body),
            "end\n",
            include_str!($how)
        )
    };
}

macro_rules! scripts {
    ($($name:ident = $text:expr;)+) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new($text));)+

        /// All of them.
        pub fn scripts() -> Vec<&'static Script> {
            vec![$(&$name),+]
        }
    };
}

scripts! {
    LEASE = text!("lua/lease.lua", "lua/one.lua");
    FILL = text!("lua/fill.lua", "lua/one.lua");
    APPLY = concat!(include_str!("lua/apply_text.lua"), text!("lua/apply.lua", "lua/one.lua"));
    FLUSHED = text!("lua/flushed.lua", "lua/one.lua");
    BEGIN_THROUGH = text!("lua/begin_through.lua", "lua/one.lua");
    END_THROUGH = text!("lua/end_through.lua", "lua/one.lua");
    INVALIDATE = text!("lua/invalidate.lua", "lua/one.lua");
    LOOK = text!("lua/look.lua", "lua/one.lua");
    STAMP = text!("lua/stamp.lua", "lua/one.lua");
    LIVE = text!("lua/live.lua", "lua/one.lua");
    PROBE = text!("lua/probe.lua", "lua/one.lua");
    CLAIM = text!("lua/claim.lua", "lua/one.lua");
    LEASE_MANY = text!("lua/lease.lua", "lua/many.lua");
    FILL_MANY = text!("lua/fill.lua", "lua/many.lua");
    FLUSHED_MANY = text!("lua/flushed.lua", "lua/many.lua");
    INVALIDATE_MANY = text!("lua/invalidate.lua", "lua/many.lua");
}

/// The scripts that have a form for many keys, with it.
pub(super) fn pairs() -> [(&'static Script, &'static Script); 4] {
    [(&LEASE, &LEASE_MANY), (&FILL, &FILL_MANY), (&FLUSHED, &FLUSHED_MANY), (&INVALIDATE, &INVALIDATE_MANY)]
}

impl Script {
    fn new(body: &'static str) -> Self {
        let sha = Sha1::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let of_one_key = format!("$7\r\nEVALSHA\r\n$40\r\n{sha}\r\n$1\r\n2\r\n");
        Self { body, sha, of_one_key: of_one_key.into_bytes().into() }
    }
}
