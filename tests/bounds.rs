//! Every bound of what a client may take, in one table: the setting, what goes beyond it, what the client is told, and the
//! metric that shows it. A setting of `[limits]` without a row fails the test.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

mod support;

use dsproxy::config::Config;
use dsproxy::resp::push_command;
use support::{PlainRedis, Proxy, Resp, SharedStack, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the client finds at the bound.
enum Told {
    /// An error with these words.
    Error(&'static str),
    /// This error, then the connection is closed.
    Closed(&'static str),
    /// Nothing: it is not read for a while, and has all its replies in the end.
    Waits,
}

struct Bound {
    /// Settings that make it, in `proxy.toml`.
    settings: &'static [(&'static str, &'static str)],
    /// Goes beyond it; gives the client that has.
    attack: fn(&Bed) -> Resp,
    told: Told,
    /// A metric and what it must reach. Empty: there is none, since nothing is kept.
    metric: (&'static str, f64),
}

struct Bed {
    proxy: Proxy,
    prefix: String,
}

impl Bed {
    fn key(&self) -> String {
        format!("{}k", self.prefix)
    }

    /// Sends bytes as they are.
    fn raw(&self, bytes: &[u8]) -> Resp {
        let mut client = self.proxy.connect();
        client.send_raw(bytes);
        client
    }

    fn many(&self, count: usize, size: usize) -> Resp {
        let mut request = Vec::new();
        push_command(&mut request, vec![vec![b'x'; size]; count].iter().map(Vec::as_slice));
        self.raw(&request)
    }

    /// A client with `count` commands in one piece, whose replies it reads only then.
    fn pipeline(&self, count: usize, value: usize) -> Resp {
        let mut client = self.proxy.connect();
        client.cmd(&["SET", &self.key(), &"v".repeat(value)]);
        let mut requests = Vec::new();
        (0..count).for_each(|_| push_command(&mut requests, [&b"GET"[..], self.key().as_bytes()]));
        let mut stream = client.stream().try_clone().unwrap();
        let writer = std::thread::spawn(move || stream.write_all(&requests).unwrap());
        for _ in 0..count {
            assert_eq!(client.recv().text().len(), value);
        }
        writer.join().unwrap();
        client
    }
}

const KB: usize = 1 << 10;
const MB: usize = 1 << 20;

const PROTOCOL: (&str, f64) = ("dsproxy_protocol_errors_total", 1.0);
const PAUSES: (&str, f64) = ("dsproxy_client_pauses_total", 1.0);
const SLOW: (&str, f64) = ("dsproxy_slow_clients_closed_total", 1.0);

const BOUNDS: &[Bound] = &[
    Bound {
        settings: &[("limits.inline", "1KB")],
        attack: |bed| bed.raw(&[b'x'; 2 * KB]),
        told: Told::Closed("ERR Protocol error: too big inline request"),
        metric: PROTOCOL,
    },
    Bound {
        settings: &[("limits.args", "16")],
        attack: |bed| bed.many(17, 1),
        told: Told::Closed("ERR Protocol error: invalid multibulk length"),
        metric: PROTOCOL,
    },
    Bound {
        settings: &[("limits.bulk", "2KB")],
        attack: |bed| bed.many(2, 4 * KB),
        told: Told::Closed("ERR Protocol error: invalid bulk length"),
        metric: PROTOCOL,
    },
    Bound {
        settings: &[("limits.query_buffer", "8KB"), ("limits.bulk", "4KB"), ("limits.inline", "4KB")],
        attack: |bed| bed.many(5, 2 * KB),
        told: Told::Closed("ERR Protocol error: request larger than the query buffer limit"),
        metric: PROTOCOL,
    },
    // What MULTI queues is a query that is not run yet.
    Bound {
        settings: &[("limits.query_buffer", "8KB"), ("limits.bulk", "4KB"), ("limits.inline", "4KB")],
        attack: |bed| {
            let mut client = bed.proxy.connect();
            client.cmd(&["MULTI"]);
            for _ in 0..2 {
                assert_eq!(client.cmd(&["SET", &bed.key(), &"v".repeat(3 * KB)]).text(), "QUEUED");
            }
            client.send(&["SET", &bed.key(), &"v".repeat(3 * KB)]);
            client
        },
        told: Told::Error("ERR the transaction is larger than the query buffer limit"),
        metric: ("dsproxy_error_replies_total{code=\"ERR\"}", 1.0),
    },
    Bound {
        settings: &[("limits.inflight_per_client", "4")],
        attack: |bed| bed.pipeline(2_000, 8),
        told: Told::Waits,
        metric: PAUSES,
    },
    Bound {
        settings: &[("limits.client_output_pause", "4KB")],
        attack: |bed| {
            // Answered at once, so that replies pile up while one piece of requests is run.
            let mut client = bed.proxy.connect();
            let mut requests = Vec::new();
            (0..50).for_each(|_| push_command(&mut requests, [&b"ECHO"[..], &[b'e'; KB]]));
            client.send_raw(&requests);
            (0..50).for_each(|_| assert_eq!(client.recv().text().len(), KB));
            client
        },
        told: Told::Waits,
        metric: PAUSES,
    },
    Bound {
        settings: &[("limits.upstream_inflight", "16"), ("limits.inflight_per_client", "100000")],
        attack: |bed| bed.pipeline(2_000, 8),
        told: Told::Waits,
        metric: PAUSES,
    },
    Bound {
        settings: &[("limits.upstream_buffer", "64KB")],
        attack: |bed| {
            let mut client = bed.proxy.connect();
            let value = "v".repeat(16 * KB);
            let commands: Vec<Vec<&str>> = vec![vec!["ECHO", "x"]; 1];
            client.pipeline(&commands);
            let (key, sets) = (bed.key(), 200);
            let mut requests = Vec::new();
            (0..sets).for_each(|_| push_command(&mut requests, [b"SET", key.as_bytes(), value.as_bytes()]));
            client.send_raw(&requests);
            (0..sets).for_each(|_| assert_eq!(client.recv().text(), "OK"));
            client
        },
        told: Told::Waits,
        metric: PAUSES,
    },
    Bound {
        settings: &[("limits.client_output_max", "4MB"), ("limits.client_output_pause", "1MB")],
        attack: |bed| {
            bed.proxy.connect().cmd(&["SET", &bed.key(), &"v".repeat(32 * MB)]);
            let mut client = bed.proxy.connect();
            client.send(&["GET", &bed.key()]);
            eventually(PATIENCE, "it is closed", || bed.proxy.metric(SLOW.0) == 1.0);
            client
        },
        told: Told::Closed(""),
        metric: SLOW,
    },
    // What many nodes answer is put together first, and must not be more than can be written.
    Bound {
        settings: &[("limits.client_output_max", "1MB"), ("limits.client_output_pause", "1MB")],
        attack: |bed| {
            let mut client = bed.proxy.connect();
            let keys: Vec<String> = (0..30).map(|n| format!("{}{n}", bed.key())).collect();
            keys.iter().for_each(|key| drop(client.cmd(&["SET", key, &"v".repeat(100 * KB)])));
            client.send(&[vec!["MGET".to_owned()], keys].concat());
            client
        },
        told: Told::Error(
            "ERR dsproxy: the replies of the nodes are larger together than limits.client_output_max",
        ),
        metric: ("dsproxy_error_replies_total{code=\"ERR\"}", 1.0),
    },
    Bound {
        settings: &[("limits.client_stall_timeout", "500ms")],
        attack: |bed| {
            bed.proxy.connect().cmd(&["SET", &bed.key(), &"v".repeat(32 * MB)]);
            let mut client = bed.proxy.connect();
            client.send(&["GET", &bed.key()]);
            eventually(PATIENCE, "it is closed", || bed.proxy.metric(SLOW.0) == 1.0);
            client
        },
        told: Told::Closed(""),
        metric: SLOW,
    },
    Bound {
        settings: &[("limits.request_timeout", "1s")],
        attack: |bed| bed.raw(b"*2\r\n$3\r\nGET\r\n$500\r\nxx"),
        told: Told::Closed(""),
        metric: ("dsproxy_rejected_connections_total{reason=\"request_timeout\"}", 1.0),
    },
    Bound {
        settings: &[("limits.login_timeout", "1s"), ("server.password", "pw")],
        attack: |bed| bed.raw(b""),
        told: Told::Closed(""),
        metric: ("dsproxy_rejected_connections_total{reason=\"login_timeout\"}", 1.0),
    },
    Bound {
        settings: &[("limits.subscriptions_per_client", "2")],
        attack: |bed| {
            let mut client = bed.proxy.connect();
            client.send(&["SUBSCRIBE", "a", "b"]);
            (0..2).for_each(|_| drop(client.recv()));
            client.send(&["PSUBSCRIBE", "c"]);
            client
        },
        told: Told::Error("too many (limits.subscriptions_per_client)"),
        metric: ("dsproxy_subscriptions", 2.0),
    },
    Bound {
        settings: &[("limits.dedicated_connections", "1"), ("server.workers", "1")],
        attack: |bed| {
            let mut first = bed.proxy.connect();
            first.send(&["BLPOP", &bed.key(), "5"]);
            eventually(PATIENCE, "it blocks", || bed.proxy.metric("dsproxy_blocked_clients") == 1.0);
            // It keeps its place until the end of the test.
            std::mem::forget(first);
            let mut client = bed.proxy.connect();
            client.send(&["WATCH", &bed.key()]);
            client
        },
        told: Told::Error("blocked or watching already (limits.dedicated_connections)"),
        metric: ("dsproxy_dedicated_connections", 1.0),
    },
    Bound {
        settings: &[("limits.monitors", "1")],
        attack: |bed| {
            let mut first = bed.proxy.connect();
            first.cmd(&["MONITOR"]);
            std::mem::forget(first);
            let mut client = bed.proxy.connect();
            client.send(&["MONITOR"]);
            client
        },
        told: Told::Error("look on already (limits.monitors)"),
        metric: ("dsproxy_monitoring_clients", 1.0),
    },
    Bound {
        settings: &[("limits.monitor_lines", "5")],
        attack: |bed| {
            let mut monitor = bed.proxy.connect();
            monitor.cmd(&["MONITOR"]);
            let mut other = bed.proxy.connect();
            (0..50).for_each(|_| drop(other.cmd(&["PING"])));
            let mut shown = 0;
            while !monitor.recv().text().contains("(dropped)") {
                shown += 1;
            }
            assert!(shown <= 10, "{shown} lines");
            other
        },
        told: Told::Waits,
        metric: ("dsproxy_monitor_dropped_lines_total", 1.0),
    },
    Bound {
        settings: &[("limits.client_pause", "1s")],
        attack: |bed| bed.raw(b"CLIENT PAUSE 1001\r\n"),
        told: Told::Error("1000 ms at most (limits.client_pause)"),
        metric: ("dsproxy_error_replies_total{code=\"ERR\"}", 1.0),
    },
    Bound {
        settings: &[("limits.script_store", "1KB")],
        attack: |bed| {
            let mut client = bed.proxy.connect();
            for n in 0..20 {
                client.cmd(&["SCRIPT", "LOAD", &format!("return '{n}{}'", "x".repeat(500))]);
            }
            client
        },
        told: Told::Waits,
        metric: ("dsproxy_kept_scripts", 1.0),
    },
    Bound {
        settings: &[("server.max_clients", "2")],
        attack: |bed| {
            for _ in 0..2 {
                let mut client = bed.proxy.connect();
                client.cmd(&["PING"]);
                std::mem::forget(client);
            }
            bed.proxy.connect()
        },
        told: Told::Closed("ERR max number of clients reached"),
        metric: ("dsproxy_rejected_connections_total{reason=\"max_clients\"}", 1.0),
    },
    Bound {
        settings: &[("server.client_idle_timeout", "1s")],
        attack: |bed| bed.raw(b""),
        told: Told::Closed(""),
        metric: ("dsproxy_client_connections_total", 1.0),
    },
    Bound {
        settings: &[("tls.max_handshakes", "1"), ("server.proxy_protocol", "127.0.0.0/8")],
        attack: |bed| {
            // Neither says whom it speaks for.
            std::mem::forget(bed.raw(b"PROXY"));
            eventually(PATIENCE, "one shakes hands", || bed.proxy.metric("dsproxy_tls_handshakes") == 1.0);
            bed.raw(b"PROXY")
        },
        told: Told::Closed(""),
        metric: ("dsproxy_rejected_connections_total{reason=\"handshakes\"}", 1.0),
    },
];

fn config(settings: &[(&str, &str)]) -> String {
    let mut config = String::new();
    for section in ["server", "limits", "tls"] {
        let mut lines = vec![format!("[{section}]")];
        if section == "server" {
            lines.push("listen = \"127.0.0.1:$PORT\"".to_owned());
        }
        for (setting, value) in settings {
            let (of, key) = setting.split_once('.').unwrap();
            let shown = match value.parse::<u64>() {
                _ if key == "proxy_protocol" => format!("[{value:?}]"),
                Ok(number) => number.to_string(),
                Err(_) => format!("{value:?}"),
            };
            if of == section {
                lines.push(format!("{key} = {shown}"));
            }
        }
        config.push_str(&format!("{}\n", lines.join("\n")));
    }
    config
}

fn attack(bound: &Bound, stack: &SharedStack, number: usize) {
    let name = bound.settings[0].0;
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, &config(bound.settings));
    let bed = Bed { proxy, prefix: format!("{}{number}:", stack.key_prefix()) };
    let mut client = (bound.attack)(&bed);
    match bound.told {
        Told::Error(words) => {
            let told = client.recv();
            assert!(matches!(&told, Value::Error(text) if text.contains(words)), "{name}: {told:?}");
            // And it goes on.
            client.send(&["PING"]);
            client.recv();
        }
        Told::Closed(words) => {
            let all = client.recv_to_end();
            let text = String::from_utf8_lossy(&all[..all.len().min(200)]).into_owned();
            let matches = if words.is_empty() { !text.starts_with('-') } else { text.contains(words) };
            assert!(matches, "{name}: {text:?}");
        }
        Told::Waits => assert_eq!(client.cmd(&["PING"]).text(), "PONG", "{name}"),
    }
    let (metric, least) = bound.metric;
    eventually(PATIENCE, &format!("{name}: {metric}"), || bed.proxy.metric(metric) >= least);
}

#[test]
fn every_bound_holds_is_told_and_is_counted() {
    let stack = SharedStack::get();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(bound) = BOUNDS.get(number) else { return };
                    attack(bound, &stack, number);
                }
            });
        }
    });
}

#[test]
fn every_setting_of_limits_has_a_row() {
    let attacked: BTreeSet<&str> =
        BOUNDS.iter().flat_map(|bound| bound.settings).map(|(setting, _)| *setting).collect();
    let all = Config::default().values();
    let missing: Vec<&String> = all
        .iter()
        .map(|(setting, _)| setting)
        .filter(|setting| setting.starts_with("limits."))
        .filter(|setting| !attacked.contains(setting.as_str()))
        .collect();
    assert!(missing.is_empty(), "nobody attacks {missing:?}");
}

/// Unless they are set, bounds are where Redis has them, to the byte.
#[test]
fn the_defaults_are_told_as_redis_tells_them() {
    let (stack, redis) = (SharedStack::get(), PlainRedis::start(&[]));
    let proxy = Proxy::for_nodes(stack.redis_nodes(), None, "");
    let line = |length: usize| [vec![b'x'; length], b"\r\n".to_vec()].concat();
    for (what, bytes) in [
        ("a gigabyte", b"*2\r\n$3\r\nGET\r\n$1073741824\r\n".to_vec()),
        ("one byte too many", b"*2\r\n$3\r\nGET\r\n$536870913\r\n".to_vec()),
        ("no length", b"*2\r\n$3\r\nGET\r\n$-1\r\n".to_vec()),
        ("many arguments", b"*2147483648\r\n".to_vec()),
        ("an endless line", vec![b'x'; 200_000]),
        ("a long line", line(100_000)),
    ] {
        let told = |addr: (&str, u16)| {
            let mut client = Resp::connect(addr);
            let _ = client.stream().write_all(&bytes);
            String::from_utf8_lossy(&client.recv_to_end()).into_owned()
        };
        assert_eq!(told(proxy.addr()), told(redis.addr()), "{what}");
    }
    // What fits, fits: a line of almost 64 kB.
    let mut client = proxy.connect();
    client.send_raw(&[b"ECHO ".to_vec(), line(65_000)].concat());
    assert_eq!(client.recv().text().len(), 65_000);
}
