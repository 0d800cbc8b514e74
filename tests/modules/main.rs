//! Commands of a module that the servers have loaded: learned with their key specs, and routed by them.
//!
//! The module is `probe.c`, compiled here. What is routed wrongly would still be answered, after a redirect; so redirects
//! are counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[path = "../support/mod.rs"]
mod support;

use dsproxy::embedded::free_ports;
use support::{Proxy, Resp, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// Keys, which are spread over all nodes.
const KEYS: usize = 200;

/// Three nodes with the module. They are no embedded stack: that one loads no modules, since whoever reaches it could.
struct Cluster {
    nodes: Vec<Child>,
    addrs: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn compiled(dir: &Path) -> PathBuf {
    let library = dir.join("probe.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/modules/probe.c");
    let output =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

fn cluster() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let library = compiled(dir.path());
    let ports = free_ports(6).unwrap();
    let (ports, buses) = ports.split_at(3);
    let node = |(port, bus): (&u16, &u16)| {
        let home = dir.path().join(port.to_string());
        std::fs::create_dir(&home).unwrap();
        let own = [("port", port.to_string()), ("cluster-port", bus.to_string())];
        let fixed = [
            ("bind", "127.0.0.1"),
            ("save", ""),
            ("cluster-enabled", "yes"),
            ("cluster-announce-ip", "127.0.0.1"),
        ];
        let mut command = Command::new("redis-server");
        for (name, value) in own {
            command.arg(format!("--{name}")).arg(value);
        }
        for (name, value) in fixed {
            command.arg(format!("--{name}")).arg(value);
        }
        command.arg("--loadmodule").arg(&library).current_dir(home);
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    };
    let nodes = ports.iter().zip(buses).map(node).collect();
    let addrs: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let cluster = Cluster { nodes, addrs, _dir: dir };
    for (at, addr) in cluster.addrs.iter().enumerate() {
        eventually(PATIENCE, "the node listens", || std::net::TcpStream::connect(addr).is_ok());
        let (first, last) = (at * 16384 / 3, (at + 1) * 16384 / 3 - 1);
        let slots = ["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()];
        assert_eq!(Resp::connect(&**addr).cmd(&slots).text(), "OK");
        let epoch = ["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()];
        assert_eq!(Resp::connect(&**addr).cmd(&epoch).text(), "OK");
    }
    for (port, bus) in ports.iter().zip(buses).skip(1) {
        let meet = ["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), &bus.to_string()];
        assert_eq!(Resp::connect(&*cluster.addrs[0]).cmd(&meet).text(), "OK");
    }
    for addr in &cluster.addrs {
        let mut node = Resp::connect(&**addr);
        eventually(PATIENCE, "the nodes know one another", || {
            let info = node.cmd(&["CLUSTER", "INFO"]).text();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        });
    }
    cluster
}

fn texts(value: &Value) -> Vec<String> {
    value.items().iter().map(Value::text).collect()
}

#[test]
fn commands_of_a_module_are_routed_by_their_keys() {
    let cluster = cluster();
    let proxy = Proxy::for_nodes(&cluster.addrs, None, "");
    let mut client = proxy.connect();
    let mut run = |args: &[&str]| client.cmd(args);
    for n in 0..KEYS {
        let (key, value) = (format!("key:{n}"), format!("value:{n}"));
        let (one, two) = (format!("{{{n}}}a"), format!("{{{n}}}b"));
        // First, last and step.
        assert_eq!(texts(&run(&["PROBE.SECOND", "x", &key])), ["PROBE.SECOND", "x", &key]);
        // Key specs: as many as a number says, and behind a keyword.
        assert_eq!(run(&["MSET", &one, &value, &two, &key]).text(), "OK");
        assert_eq!(run(&["probe.counted", "2", &one, &two, "more"]).text(), value);
        assert_eq!(run(&["probe.named", "x", "y", "KEYS", &one, &two]).text(), key);
        // Subcommands, each with keys of its own.
        assert_eq!(run(&["PROBE.BOX", "PUT", &value, &key]).text(), "OK");
        assert_eq!(run(&["probe.box", "take", &key]).text(), value);
        assert_eq!(run(&["GET", &key]).text(), value, "the key is where every other command looks for it");
    }
    assert_eq!(texts(&run(&["probe.keyless", "a"])), ["probe.keyless", "a"]);
    assert_eq!(proxy.metric("dsproxy_redirects_total"), 0.0, "each went to the owner of its keys at once");

    // Many at once, in the order of their client.
    let pipeline: Vec<Vec<String>> =
        (0..KEYS).map(|n| ["PROBE.BOX", "TAKE", &format!("key:{n}")].map(str::to_owned).to_vec()).collect();
    let replies = client.pipeline(&pipeline);
    for (n, reply) in replies.iter().enumerate() {
        assert_eq!(reply.text(), format!("value:{n}"));
    }
}

#[test]
fn what_a_module_cannot_do_is_told_in_the_words_of_redis() {
    let cluster = cluster();
    let proxy = Proxy::for_nodes(&cluster.addrs, None, "");
    let mut node = Resp::connect(&*cluster.addrs[0]);
    let mut client = proxy.connect();
    // Keys of several slots; wrong arities; subcommands that there are not.
    for args in [&["PROBE.COUNTED", "2", "a", "b"][..], &["PROBE.NAMED", "x", "KEYS", "a", "b"]] {
        // Redis 7.0 itself would run it, and find nothing.
        assert!(client.cmd(args).error().starts_with("CROSSSLOT"), "{args:?}");
    }
    for args in
        [&["PROBE.COUNTED", "1"][..], &["PROBE.BOX"], &["PROBE.BOX", "TAKE"], &["PROBE.BOX", "NOTHING", "a"]]
    {
        let (through, direct) = (client.cmd(args), node.cmd(args));
        assert_eq!(through, direct, "{args:?}");
    }
    // Clients that look for keys themselves.
    for args in [
        &["PROBE.COUNTED", "2", "a", "b", "c"][..],
        &["PROBE.NAMED", "x", "KEYS", "a", "b"],
        &["PROBE.BOX", "PUT", "v", "k"],
    ] {
        let asked = [&["COMMAND", "GETKEYS"], args].concat();
        assert_eq!(client.cmd(&asked), node.cmd(&asked), "{asked:?}");
    }
    // In a transaction: with other commands of its slot, and not with those of another.
    assert_eq!(client.cmd(&["MULTI"]).text(), "OK");
    assert_eq!(client.cmd(&["PROBE.BOX", "PUT", "1", "{s}a"]).text(), "QUEUED");
    assert_eq!(client.cmd(&["INCR", "{s}a"]).text(), "QUEUED");
    assert_eq!(client.cmd(&["EXEC"]).items().last(), Some(&Value::Int(2)));
    assert_eq!(client.cmd(&["MULTI"]).text(), "OK");
    assert_eq!(client.cmd(&["PROBE.BOX", "PUT", "1", "a"]).text(), "QUEUED");
    assert!(client.cmd(&["PROBE.BOX", "PUT", "1", "b"]).error().starts_with("CROSSSLOT"));
    assert!(client.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
}
