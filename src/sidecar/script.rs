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
}

macro_rules! scripts {
    ($($name:ident = $file:literal),+ $(,)?) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!(include_str!("lua/prelude.lua"), include_str!($file))));)+

        /// All of them.
        pub fn scripts() -> Vec<&'static Script> {
            vec![$(&$name),+]
        }
    };
}

scripts! {
    LEASE = "lua/lease.lua",
    FILL = "lua/fill.lua",
    APPLY = "lua/apply.lua",
    FLUSHED = "lua/flushed.lua",
    BEGIN_THROUGH = "lua/begin_through.lua",
    END_THROUGH = "lua/end_through.lua",
    INVALIDATE = "lua/invalidate.lua",
    LOOK = "lua/look.lua",
    STAMP = "lua/stamp.lua",
    LIVE = "lua/live.lua",
    PROBE = "lua/probe.lua",
    CLAIM = "lua/claim.lua",
}

impl Script {
    fn new(body: &'static str) -> Self {
        let sha = Sha1::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { body, sha }
    }
}
