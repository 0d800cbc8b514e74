//! The way to the nodes over TLS: a cluster that speaks nothing else.

use crate::certificates::Certificates;
use crate::support::{PlainRedis, Proxy, Resp, Value, eventually};
use dsproxy::embedded::free_ports;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Three primaries that speak TLS only, and ask for certificates.
struct Cluster {
    certificates: Certificates,
    _nodes: Vec<PlainRedis>,
    addrs: Vec<String>,
}

impl Cluster {
    fn start() -> Self {
        let certificates = Certificates::new();
        certificates.make("node", &["127.0.0.1"]);
        certificates.make("proxy", &[]);
        let path = |name: &str| certificates.path(name).display().to_string();
        let (mut nodes, mut ports) = (Vec::new(), Vec::new());
        // A bus port of its own for each: ten thousand above may be somebody else's.
        for pair in free_ports(6).unwrap().chunks_exact(2) {
            let (port, bus_port) = (pair[0], pair[1]);
            let tls = [
                ("--tls-cert-file", path("node.pem")),
                ("--tls-key-file", path("node.key")),
                ("--tls-ca-cert-file", path("ca.pem")),
                ("--tls-auth-clients", "yes".into()),
                ("--tls-cluster", "yes".into()),
                ("--cluster-enabled", "yes".into()),
                ("--cluster-port", bus_port.to_string()),
                ("--tls-port", port.to_string()),
                ("--port", "0".into()),
                ("--requirepass", "upstream-secret".into()),
            ];
            let args: Vec<&str> = tls.iter().flat_map(|(name, value)| [*name, value.as_str()]).collect();
            nodes.push(PlainRedis::start_at(port, &args));
            ports.push(port);
        }
        let addrs: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let cluster = Self { certificates, _nodes: nodes, addrs };
        let mut create = vec!["--cluster".to_owned(), "create".to_owned(), "--cluster-yes".to_owned()];
        create.extend(cluster.addrs.iter().cloned());
        let said = cluster.cli(&create);
        assert!(said.contains("All 16384 slots covered"), "{said}");
        cluster
    }

    fn cli(&self, args: &[String]) -> String {
        let path = |name: &str| self.certificates.path(name);
        let mut cli = Command::new("timeout");
        cli.args(["60", "redis-cli", "--no-auth-warning", "-a", "upstream-secret", "--tls", "--cacert"])
            .arg(path("ca.pem"));
        cli.arg("--cert").arg(path("proxy.pem")).arg("--key").arg(path("proxy.key")).args(args);
        let output = cli.output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn config(&self, tls: &str) -> String {
        let dir = self.certificates.dir().display().to_string();
        format!("[upstream]\nnodes = {:?}\npassword = \"upstream-secret\"\ntls = true\n{tls}\n", self.addrs)
            .replace("$DIR", &dir)
    }
}

const MUTUAL: &str =
    "tls_ca = \"$DIR/ca.pem\"\ntls_certificate = \"$DIR/proxy.pem\"\ntls_key = \"$DIR/proxy.key\"";

#[test]
fn a_cluster_is_reached_over_mutual_tls() {
    let cluster = Cluster::start();
    let proxy = Proxy::start(&cluster.config(MUTUAL));
    let mut client = proxy.connect();
    eventually(PATIENCE, "the cluster serves", || {
        client.cmd(&["SET", "a", "1"]) == Value::Simple("OK".into())
    });
    for n in 0..200 {
        assert_eq!(client.cmd(&["SET", &format!("k{n}"), &n.to_string()]).text(), "OK");
    }
    assert_eq!(client.cmd(&["DBSIZE"]).int(), 201);
    let large = vec![b'x'; 5 << 20];
    assert_eq!(client.cmd(&[&b"SET"[..], b"large", &large]).text(), "OK");
    assert_eq!(client.cmd(&["GET", "large"]), Value::Bulk(large));
    for words in [&["MULTI"][..], &["INCR", "{x}n"], &["GET", "{x}n"]] {
        client.cmd(words);
    }
    assert_eq!(client.cmd(&["EXEC"]).items().len(), 2);
    // Connections of one client's own, and those for pub/sub.
    let mut blocked = proxy.connect();
    blocked.send(&["BLPOP", "list", "0"]);
    let mut subscriber = proxy.connect();
    assert_eq!(subscriber.cmd(&["SUBSCRIBE", "news"]).items().len(), 3);
    assert_eq!(client.cmd(&["PUBLISH", "news", "m"]).int(), 1);
    assert_eq!(subscriber.recv().items()[2].text(), "m");
    client.cmd(&["RPUSH", "list", "v"]);
    assert_eq!(blocked.recv().items()[1].text(), "v");
    let pipeline: Vec<Vec<String>> =
        (0..2000).map(|n| vec!["GET".to_owned(), format!("k{}", n % 200)]).collect();
    for (n, reply) in client.pipeline(&pipeline).iter().enumerate() {
        assert_eq!(reply.text(), (n % 200).to_string());
    }
    wrong_ways(&cluster);
    names(&cluster);
}

/// Without the right certificates nothing starts, and the error says why.
fn wrong_ways(cluster: &Cluster) {
    let other = Certificates::new();
    let foreign =
        format!("tls_ca = \"{}\"\n{}", other.path("ca.pem").display(), MUTUAL.split_once('\n').unwrap().1);
    for (what, tls, expected) in [
        ("no certificate", "tls_ca = \"$DIR/ca.pem\"", "no Redis node answers"),
        ("another authority", foreign.as_str(), "certificate"),
        ("another name", &format!("{MUTUAL}\ntls_server_name = \"redis.example\""), "certificate"),
        ("half an identity", "tls_ca = \"$DIR/ca.pem\"\ntls_key = \"$DIR/proxy.key\"", "go together"),
    ] {
        let mut proxy = Proxy::spawn(&cluster.config(tls));
        assert!(!proxy.wait_exit().success(), "{what}");
        assert!(proxy.log().contains(expected), "{what}: {}", proxy.log());
        assert!(!proxy.log().contains("upstream-secret"));
    }
    let plain = cluster.config("").replace("tls = true\n", "");
    assert!(!Proxy::spawn(&plain).wait_exit().success());
}

/// A certificate without the node's name is enough where that is said.
fn names(cluster: &Cluster) {
    let proxy = Proxy::start(
        &cluster.config(&format!("{MUTUAL}\ntls_server_name = \"redis.example\"\ntls_verify_names = false")),
    );
    assert_eq!(Resp::connect(proxy.addr()).cmd(&["GET", "a"]).text(), "1");
}
