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
    /// So many of its arguments come first, and are the same for all keys where there are many.
    pub(super) common: usize,
    /// The first arguments of a request that runs it for one key, encoded.
    pub(super) of_one_key: Box<[u8]>,
}

/// What is done for a key is the function `run`; a script calls it for the one that it is given, or for each of many. So many
/// `$common` arguments come first, which are the same for all of these.
macro_rules! text {
    ($body:literal, $how:literal, $common:literal, $open:ident) => {
        concat!(
            "local common = ",
            $common,
            "\n",
            include_str!("lua/prelude.lua"),
            "local function run()\n",
            opening!($open),
            include_str!($body),
            "end\n",
            include_str!($how)
        )
    };
}

/// What comes before a script's own lines.
macro_rules! opening {
    // It reads the sidecar.
    (reads) => {
        "open()\n"
    };
    // It reads the sidecar, and changes fields of it.
    (writes) => {
        "open()\nwiden()\n"
    };
    // It sees to that itself.
    (itself) => {
        ""
    };
}

macro_rules! scripts {
    ($($name:ident = $common:literal, $text:expr;)+) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new($text, $common));)+

        /// All of them.
        pub fn scripts() -> Vec<&'static Script> {
            vec![$(&$name),+]
        }
    };
}

scripts! {
    LEASE = 3, text!("lua/lease.lua", "lua/one.lua", 3, itself);
    FILL = 5, text!("lua/fill.lua", "lua/one.lua", 5, itself);
    APPLY = 0, text!("lua/apply.lua", "lua/one.lua", 0, writes);
    FLUSHED = 1, text!("lua/flushed.lua", "lua/one.lua", 1, itself);
    BEGIN_THROUGH = 0, text!("lua/begin_through.lua", "lua/one.lua", 0, writes);
    END_THROUGH = 0, text!("lua/end_through.lua", "lua/one.lua", 0, writes);
    INVALIDATE = 2, text!("lua/invalidate.lua", "lua/one.lua", 2, writes);
    LOOK = 0, text!("lua/look.lua", "lua/one.lua", 0, reads);
    STAMP = 0, text!("lua/stamp.lua", "lua/one.lua", 0, writes);
    LIVE = 0, text!("lua/live.lua", "lua/one.lua", 0, writes);
    PROBE = 0, text!("lua/probe.lua", "lua/one.lua", 0, writes);
    CLAIM = 0, text!("lua/claim.lua", "lua/one.lua", 0, itself);
    LEASE_MANY = 3, text!("lua/lease.lua", "lua/many.lua", 3, itself);
    FILL_MANY = 5, text!("lua/fill.lua", "lua/many.lua", 5, itself);
    FLUSHED_MANY = 1, text!("lua/flushed.lua", "lua/many.lua", 1, itself);
    INVALIDATE_MANY = 2, text!("lua/invalidate.lua", "lua/many.lua", 2, writes);
    APPLY_TEXT = 0, concat!(include_str!("lua/apply_text.lua"), text!("lua/apply.lua", "lua/one.lua", 0, writes));
}

/// The scripts that have a form for many keys, with it.
pub(super) fn pairs() -> [(&'static Script, &'static Script); 4] {
    [(&LEASE, &LEASE_MANY), (&FILL, &FILL_MANY), (&FLUSHED, &FLUSHED_MANY), (&INVALIDATE, &INVALIDATE_MANY)]
}

impl Script {
    fn new(body: &'static str, common: usize) -> Self {
        let sha = Sha1::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let of_one_key = format!("$7\r\nEVALSHA\r\n$40\r\n{sha}\r\n$1\r\n2\r\n");
        Self { body, sha, common, of_one_key: of_one_key.into_bytes().into() }
    }
}
