//! Settings of who comes in and may do what: TLS and ACL.
//!
//! Must not know: how a setting is parsed, documented or overridden.

use std::net::SocketAddr;
use std::time::Duration;

use super::compound::{List, Optional};
use super::define::{settings, words};
use super::kind::{Address, Count, Flag, Hidden, Text};
use super::kind::{choice, duration, duration_or};
use super::secret::Secret;
use super::settings::{NODE, PEM_FILE, hours, ms, secs, some_text};

/// No example port would be free everywhere.
const TLS_ADDRESS: Address = Address;

const USER_RULES: Text =
    some_text("a user's name and its rules, as in an ACL file", "reader on >change-me ~app:* +@read");
const ACL_FILE: Text = some_text("the path of a file", "users.acl");
const DENIED: Text = some_text("a command, a subcommand or a category", "flushall");

words! {
    /// A version of TLS.
    TlsVersion {
        /// 1.2
        V12 = "1.2",
        /// 1.3
        V13 = "1.3",
    }

    /// What becomes of scripts of users with limited rights.
    ScriptPolicy {
        /// They are refused.
        Refuse = "refuse",
        /// Their declared keys are checked.
        Trust = "trust",
    }
}

settings! {
    /// TLS for Redis clients, on a port of its own. Certificates are read again on SIGHUP, and when a file changes.
    TlsConfig in "tls" {
        /// Address and port for clients that speak TLS. Unset: none. Needs `certificate` and `key`.
        listen: Option<SocketAddr> = None, Optional(TLS_ADDRESS);
        /// The address that cluster-aware clients of this port are given, such as `redis.example:6390`; see `server.announce`.
        announce: Option<String> = None, Optional(NODE);
        /// The proxy's certificate, and those up to its authority (PEM).
        certificate: Option<String> = None, Optional(PEM_FILE);
        /// Its private key (PEM).
        key: Option<String> = None, Optional(PEM_FILE);
        /// Authorities of client certificates (PEM). Set: clients must show one (mutual TLS).
        client_ca: Option<String> = None, Optional(PEM_FILE);
        /// With `client_ca`: clients may come without a certificate; one that is shown must be right.
        client_optional: bool = false, Flag;
        /// The oldest version that is spoken.
        min_version: TlsVersion = TlsVersion::V12, choice::<TlsVersion>();
        /// How long a handshake may take, that of the PROXY protocol included.
        handshake_timeout: Duration = secs(5), duration(ms(50)..=secs(300));
        /// Handshakes at once; one more connection is closed.
        max_handshakes: usize = 256, Count(1..=65_536);
        /// How often files of certificates are looked at, for clients and for nodes.
        reload_interval: Duration = secs(10), duration_or("on SIGHUP only", ms(50)..=hours(24));
    }

    /// Who may do what: users with their rules, in Redis' ACL syntax, and what nobody may do.
    AclConfig in "acl" {
        /// Users, one text each: the name, then its rules. Without a line for `default`, every connection may do
        /// everything (once it has given `server.password`, if that is set).
        users: Vec<Secret> = Vec::new(), List(Hidden(USER_RULES));
        /// An ACL file instead, with lines such as `user reader on >change-me ~app:* +@read`. `ACL LOAD` reads it again,
        /// `ACL SAVE` writes it.
        file: Option<String> = None, Optional(ACL_FILE);
        /// What nobody may do, whatever the user: commands (`flushall`), subcommands (`config|set`), categories
        /// (`@dangerous`).
        deny: Vec<String> = Vec::new(), List(DENIED);
        /// Refuse everything that writes, to everybody.
        read_only: bool = false, Flag;
        /// Scripts of users with limited rights: `refuse`, or `trust`, where their declared keys are checked, but not
        /// what the script does, which nodes run with the rights of the proxy.
        scripts: ScriptPolicy = ScriptPolicy::Refuse, choice::<ScriptPolicy>();
        /// Entries that `ACL LOG` keeps.
        log_entries: usize = 128, Count(0..=100_000);
    }
}
