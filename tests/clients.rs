//! Real clients with their default settings against the running proxy.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use redis::{AsyncCommands as _, Commands as _};
use support::{Proxy, SharedStack};

/// A proxy on the shared cluster, 30 keys over all its shards, and their values.
fn start() -> (SharedStack, Proxy, Vec<String>, Vec<String>) {
    let stack = SharedStack::get();
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, "");
    let keys = (0..30).map(|n| format!("{}{n}", stack.key_prefix())).collect();
    let values = (0..30).map(|n| format!("value-{n}")).collect();
    (stack, proxy, keys, values)
}

fn url(proxy: &Proxy, query: &str) -> String {
    let (host, port) = proxy.addr();
    format!("redis://{host}:{port}/{query}")
}

#[test]
fn redis_rs_blocking() {
    let (_stack, proxy, keys, values) = start();
    for protocol in ["", "?protocol=resp3"] {
        let mut client = redis::Client::open(url(&proxy, protocol)).unwrap().get_connection().unwrap();
        let pong: String = redis::cmd("PING").query(&mut client).unwrap();
        assert_eq!(pong, "PONG");
        client.set::<_, _, ()>(&keys[0], &values[0]).unwrap();
        assert_eq!(client.get::<_, String>(&keys[0]).unwrap(), values[0]);
        assert_eq!(client.get::<_, Option<String>>(format!("{}none", keys[0])).unwrap(), None);

        let mut pipeline = redis::pipe();
        keys.iter().zip(&values).for_each(|(key, value)| {
            pipeline.set(key, value).ignore();
        });
        keys.iter().for_each(|key| {
            pipeline.get(key);
        });
        assert_eq!(pipeline.query::<Vec<String>>(&mut client).unwrap(), values);

        let mut asked = keys.clone();
        asked.extend([keys[3].clone(), format!("{}none", keys[0])]);
        let mut wanted: Vec<Option<String>> = values.iter().cloned().map(Some).collect();
        wanted.extend([Some(values[3].clone()), None]);
        assert_eq!(client.mget::<_, Vec<Option<String>>>(&asked).unwrap(), wanted);
        assert_eq!(client.del::<_, usize>(&keys).unwrap(), keys.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_rs_multiplexed() {
    let (_stack, proxy, keys, values) = start();
    for protocol in ["", "?protocol=resp3"] {
        let client = redis::Client::open(url(&proxy, protocol)).unwrap();
        let client = client.get_multiplexed_async_connection().await.unwrap();
        let sets = keys.iter().zip(&values).map(|(key, value)| {
            let (mut client, key, value) = (client.clone(), key.clone(), value.clone());
            tokio::spawn(async move { client.set::<_, _, ()>(key, value).await.unwrap() })
        });
        for set in sets.collect::<Vec<_>>() {
            set.await.unwrap();
        }
        // Many tasks over one connection: each gets its own answer.
        let gets = (0..300).map(|n: usize| {
            let (mut client, key, value) = (client.clone(), keys[n % 30].clone(), values[n % 30].clone());
            tokio::spawn(async move { assert_eq!(client.get::<_, String>(key).await.unwrap(), value) })
        });
        for get in gets.collect::<Vec<_>>() {
            get.await.unwrap();
        }
        let mut client = client;
        let mut pipeline = redis::pipe();
        keys.iter().for_each(|key| {
            pipeline.get(key);
        });
        assert_eq!(pipeline.query_async::<Vec<String>>(&mut client).await.unwrap(), values);
        assert_eq!(client.mget::<_, Vec<String>>(&keys).await.unwrap(), values);
        assert_eq!(client.del::<_, usize>(&keys).await.unwrap(), keys.len());
    }
}

/// Runs one of the clients in tests/clients, which installs itself when it has not been used before.
#[track_caller]
fn run_script(client: &str) {
    let (_stack, proxy, ..) = start();
    let (host, port) = proxy.addr();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/run.sh");
    let started = Instant::now();
    let output = Command::new(script)
        .arg(client)
        .env("PROXY_ADDR", format!("{host}:{port}"))
        .output()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains(": ok"), "{client}: {}\n{text}", output.status);
    assert!(started.elapsed() < Duration::from_secs(110), "the runner kills a test after 120 s");
}

#[test]
fn redis_py() {
    run_script("redis_py");
}

#[test]
fn ioredis() {
    run_script("ioredis");
}

#[test]
fn node_redis() {
    run_script("node_redis");
}
