//! Real clients against the running proxy: plain and for clusters, in both dialects; `make test-clients` runs them.
//!
//! Each does data types, pipelines, transactions, pub/sub, blocking commands, scripts, a scan and a reconnect, with its
//! own handshake and health check. Clients for clusters meet one node that owns every slot.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

#[path = "../doors/certificates.rs"]
mod certificates;
mod fred_rs;
mod redis_rs;
#[path = "../support/mod.rs"]
mod support;

use certificates::Certificates;
use dsproxy::embedded::free_ports;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Proxy, SharedStack};

/// A proxy on the shared cluster, and the data of one client.
struct Bed {
    stack: SharedStack,
    proxy: Proxy,
    /// 30 keys over all shards.
    keys: Vec<String>,
    values: Vec<String>,
    /// Over TLS only, as [`USER`].
    secured: Option<Secured>,
}

/// Who clients over TLS are; `default` is off then.
const USER: (&str, &str) = ("app", "change-me");

/// The door for clients over TLS.
struct Secured {
    certificates: Certificates,
    port: u16,
}

impl Bed {
    fn start() -> Self {
        let stack = SharedStack::get();
        let proxy = Proxy::for_nodes(stack.redis_nodes(), None, "");
        Self::over(stack, proxy, None)
    }

    fn start_secured() -> Self {
        let (stack, certificates) = (SharedStack::get(), Certificates::new());
        certificates.make("proxy", &["localhost", "127.0.0.1"]);
        let (dir, port) = (certificates.dir().display(), free_ports(1).unwrap()[0]);
        let (user, password) = USER;
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:$PORT\"\nplain = false\n\
             [tls]\nlisten = \"127.0.0.1:{port}\"\ncertificate = \"{dir}/proxy.pem\"\nkey = \"{dir}/proxy.key\"\n\
             [acl]\nusers = [\"default off\", \"{user} on >{password} ~* &* +@all\"]\n"
        );
        let proxy = Proxy::for_nodes(stack.redis_nodes(), None, &config);
        Self::over(stack, proxy, Some(Secured { certificates, port }))
    }

    fn over(stack: SharedStack, proxy: Proxy, secured: Option<Secured>) -> Self {
        let keys = (0..30).map(|n| format!("{}{n}", stack.key_prefix())).collect();
        let values = (0..30).map(|n| format!("value-{n}")).collect();
        Self { stack, proxy, keys, values, secured }
    }

    /// A key in the slot of all others that this makes.
    fn tagged(&self, name: &str) -> String {
        format!("{{{}}}{name}", self.stack.key_prefix())
    }

    fn url(&self, query: &str) -> String {
        let (host, port) = self.proxy.addr();
        format!("redis://{host}:{port}/{query}")
    }

    /// Closes the connection with this `CLIENT ID` from outside.
    fn cut(&self, id: i64) {
        let killed = self.proxy.connect().cmd(&["CLIENT", "KILL", "ID", &id.to_string()]);
        assert_eq!(killed, support::Value::Int(1));
    }
}

/// Runs one of the clients in this folder, which installs itself when it has not been used before.
#[track_caller]
fn run_script(client: &str, bed: &Bed) {
    let (host, port) = bed.proxy.addr();
    let port = bed.secured.as_ref().map_or(port, |secured| secured.port);
    let ca = bed.secured.as_ref().map(|secured| secured.certificates.path("ca.pem"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/run.sh");
    let started = Instant::now();
    let output = Command::new(script)
        .arg(client)
        .env("PROXY_ADDR", format!("{host}:{port}"))
        .env("PROXY_CA", ca.unwrap_or_default())
        .env("PROXY_USER", USER.0)
        .env("PROXY_PASSWORD", USER.1)
        .output()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains(": ok"), "{client}: {}\n{text}", output.status);
    assert!(started.elapsed() < Duration::from_secs(110), "the runner kills a test after 120 s");
}

#[test]
fn redis_py() {
    run_script("redis_py", &Bed::start());
}

#[test]
fn redis_py_over_tls_as_a_user() {
    run_script("redis_py", &Bed::start_secured());
}

#[test]
fn ioredis() {
    run_script("ioredis", &Bed::start());
}

#[test]
fn ioredis_over_tls_as_a_user() {
    run_script("ioredis", &Bed::start_secured());
}

#[test]
fn node_redis() {
    run_script("node_redis", &Bed::start());
}

#[test]
fn node_redis_over_tls_as_a_user() {
    run_script("node_redis", &Bed::start_secured());
}
