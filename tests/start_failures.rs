//! What is wrong at start gets one clear message that names the cause and the cure, and no port stays open.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dsproxy::embedded::free_ports;
use support::{Proxy, Resp, SharedStack, eventually};

/// The whole log of a proxy that must not come up.
#[track_caller]
fn refusal(config: &str) -> String {
    let mut proxy = Proxy::spawn(config);
    let status = proxy.wait_exit();
    let log = proxy.log();
    assert!(!status.success(), "{log}");
    assert!(!log.contains("panicked") && !log.contains("RUST_BACKTRACE"), "{log}");
    assert!(TcpStream::connect(proxy.addr()).is_err());
    log
}

#[track_caller]
fn assert_says(log: &str, parts: &[&str]) {
    for part in parts {
        assert_eq!(log.matches(part).count(), 1, "{part:?} is not said once in:\n{log}");
    }
}

/// A bare `redis-server`, gone with the value.
struct Redis(Child, u16);

impl Redis {
    fn start(args: &[&str]) -> Self {
        let ports = free_ports(2).unwrap();
        let port = ports[0];
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--cluster-port",
                &ports[1].to_string(),
                "--save",
                "",
                "--dir",
                "/tmp",
                "--bind",
                "127.0.0.1",
            ])
            .args(args)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let redis = Self(child, port);
        eventually(Duration::from_secs(10), "redis-server answers", || {
            let Ok(mut redis) = Resp::try_connect(redis.addr().as_str()) else { return false };
            redis.send(&["PING"]);
            redis.try_recv().is_ok()
        });
        redis
    }

    fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.1)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn no_node_answers() {
    let ports = free_ports(2).unwrap();
    let log =
        refusal(&format!("[upstream]\nnodes = [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]", ports[0], ports[1]));
    assert_says(
        &log,
        &["no Redis node answers", "correct [upstream] nodes", &ports[0].to_string(), &ports[1].to_string()],
    );
}

#[test]
fn a_node_that_accepts_and_says_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap();
    let log = refusal(&format!("[upstream]\nnodes = [\"{addr}\"]\nconnect_timeout = \"200ms\""));
    assert_says(&log, &["no Redis node answers", &addr.to_string(), "no answer within 200ms"]);
}

#[test]
fn a_plain_server_is_no_cluster() {
    let redis = Redis::start(&[]);
    let log = refusal(&format!("[upstream]\nnodes = [\"{}\"]", redis.addr()));
    assert_says(&log, &["without cluster mode", "mode = \"single\"", &redis.addr()]);
}

#[test]
fn a_cluster_node_is_no_single_server() {
    let stack = SharedStack::get();
    let log = refusal(&format!("[upstream]\nmode = \"single\"\nnodes = [{:?}]", stack.redis_nodes()[0]));
    assert_says(&log, &["is a node of a Redis Cluster", "mode = \"cluster\""]);
}

#[test]
fn a_half_created_cluster() {
    let file = tempfile::tempdir().unwrap();
    let nodes = file.path().join("nodes.conf");
    let redis = Redis::start(&["--cluster-enabled", "yes", "--cluster-config-file", nodes.to_str().unwrap()]);
    let mut admin = Resp::connect(redis.addr().as_str());
    let config = format!("[upstream]\nnodes = [\"{}\"]", redis.addr());
    assert_says(&refusal(&config), &["16384 of 16384 slots have no owner (first: 0)", "CLUSTER ADDSLOTS"]);
    admin.cmd(&["CLUSTER", "ADDSLOTSRANGE", "0", "9999", "10001", "16383"]);
    assert_says(&refusal(&config), &["1 of 16384 slots have no owner (first: 10000)"]);
}

#[test]
fn wrong_password_for_the_nodes() {
    let redis = Redis::start(&["--requirepass", "right"]);
    let single = format!("[upstream]\nmode = \"single\"\nnodes = [\"{}\"]\n", redis.addr());
    assert!(refusal(&single).contains("NOAUTH"));
    let log = refusal(&format!("{single}password = \"wrong-secret\""));
    assert!(log.contains("WRONGPASS") && !log.contains("wrong-secret"), "{log}");
}

#[test]
fn taken_ports_are_both_named() {
    let stack = SharedStack::get();
    let (resp, http) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (resp, http) = ((resp.local_addr().unwrap(), resp), (http.local_addr().unwrap(), http));
    let log = refusal(&format!(
        "[server]\nlisten = \"{}\"\n[http]\nlisten = \"{}\"\n[upstream]\nnodes = {:?}",
        resp.0,
        http.0,
        stack.redis_nodes()
    ));
    let (resp, http) = (resp.0.to_string(), http.0.to_string());
    assert_says(
        &log,
        &[
            &format!("{resp} is taken"),
            &format!("{http} is taken"),
            "DSPROXY_SERVER_LISTEN",
            "DSPROXY_HTTP_LISTEN",
        ],
    );
}

/// Configuration errors come before anything else: the port that is taken is not even tried.
#[test]
fn configuration_errors_come_first_and_all_together() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "[server]\nlisten = \"{}\"\nworkerz = 2\nmax_clients = -1\n[upstream]\nnodes = [\"nowhere\"]\n[limits]\nbulk = \"x\"",
        taken.local_addr().unwrap()
    );
    let log = refusal(&config);
    for part in [
        "proxy.toml:3",
        "workerz",
        "workers",
        "proxy.toml:4",
        "max_clients",
        "proxy.toml:6",
        "nowhere",
        "proxy.toml:8",
        "bulk",
    ] {
        assert!(log.contains(part), "{part:?} is missing in:\n{log}");
    }
    assert!(!log.contains("is taken"), "{log}");
}

#[test]
fn single_mode_serves_one_plain_redis() {
    let redis = Redis::start(&[]);
    let mut proxy = Proxy::start(&format!("[upstream]\nmode = \"single\"\nnodes = [\"{}\"]", redis.addr()));
    let mut client = proxy.connect();
    assert_eq!(client.cmd(&["MSET", "a", "1", "b", "2", "c", "3"]).text(), "OK");
    assert_eq!(client.cmd(&["MGET", "c", "b", "a"]).items().len(), 3);
    assert!(proxy.stop().success());
}
