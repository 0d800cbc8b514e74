//! What a client has told about itself.
//!
//! Must not know: its requests.

use crate::acl::{DEFAULT, User};
use std::sync::Arc;

/// State of a connection that commands such as `HELLO` and `CLIENT` set and show.
#[derive(Clone, Debug)]
pub struct Session {
    /// RESP dialect: 2 or 3.
    pub protocol: u8,
    /// It has logged in, or needs not.
    pub authenticated: bool,
    /// It may run every command: nothing has to be looked at.
    pub free: bool,
    /// Who it is; nobody for calls of the program itself.
    pub user: Option<Arc<User>>,
    /// Unique number, for `CLIENT ID`.
    pub id: u64,
    /// What `CLIENT SETNAME` and `SETINFO` said; boxed, because most clients say nothing.
    pub names: Option<Box<Names>>,
    /// Where it comes from, for `CLIENT INFO`; empty for calls of the program itself.
    pub peer: Option<Box<str>>,
    /// The address of ours that it has connected to.
    pub local: Option<Box<str>>,
    /// It has come over TLS.
    pub encrypted: bool,
    /// When it connected, in microseconds of the core's clock.
    pub since: u64,
}

/// Names that a client has given.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_version: Vec<u8>,
}

impl Session {
    /// A new session in the old dialect, as Redis starts it; nobody yet.
    pub fn new(id: u64, peer: Option<Box<str>>, since: u64) -> Self {
        let (authenticated, free, user) = (false, false, None);
        Self {
            protocol: 2,
            authenticated,
            free,
            user,
            id,
            names: None,
            peer,
            local: None,
            encrypted: false,
            since,
        }
    }

    /// The name given by `CLIENT SETNAME`, empty when there is none.
    pub fn name(&self) -> &[u8] {
        self.names.as_ref().map_or(&[], |names| &names.name)
    }

    /// The name of its user.
    pub fn username(&self) -> &[u8] {
        self.user.as_ref().map_or(DEFAULT, |user| user.name())
    }

    /// The names, to be set.
    pub fn names_mut(&mut self) -> &mut Names {
        self.names.get_or_insert_default()
    }
}
