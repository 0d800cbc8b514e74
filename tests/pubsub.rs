//! Pub/sub through the running proxy, in front of real clusters.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use dsproxy::embedded::keeper::KeeperOptions;
use std::time::{Duration, Instant};
use support::{PrivateStack, Proxy, Resp, SharedStack, Value, eventually};

const WORKERS: usize = 3;
const SOON: Duration = Duration::from_secs(10);
/// Longer than a stray message would take.
const MOMENT: Duration = Duration::from_millis(200);

fn config(nodes: &[String], more: &str) -> String {
    format!(
        "[upstream]\nnodes = {nodes:?}\n[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = {WORKERS}\n{more}"
    )
}

fn proxy(stack: &SharedStack) -> Proxy {
    Proxy::start(&config(stack.redis_nodes(), ""))
}

fn three(proxy: &Proxy) -> Resp {
    let mut client = proxy.connect();
    assert!(matches!(client.cmd(&["HELLO", "3"]), Value::Map(_)));
    client
}

fn change(verb: &str, name: &str, count: i64) -> Vec<Value> {
    vec![verb.into(), name.into(), Value::Int(count)]
}

fn message(channel: &str, text: &str) -> Vec<Value> {
    vec!["message".into(), channel.into(), text.into()]
}

/// The sum of what the nodes themselves count for a channel.
fn upstream_subscribers(nodes: &[String], question: &str, channel: &str) -> i64 {
    let count = |node: &String| Resp::connect(node).cmd(&["PUBSUB", question, channel]).items()[1].int();
    nodes.iter().map(count).sum()
}

#[test]
fn both_dialects_hear_channels_patterns_and_sharded_channels() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack);
    let p = stack.key_prefix();
    let (news, art, all) = (format!("{p}news"), format!("{p}art"), format!("{p}n*"));
    let mut publisher = proxy.connect();

    let mut old = proxy.connect();
    old.send(&["SUBSCRIBE", &news, &art, &news]);
    for (name, count) in [(&news, 1), (&art, 2), (&news, 2)] {
        assert_eq!(old.recv(), Value::Array(change("subscribe", name, count)));
    }
    assert_eq!(old.cmd(&["PSUBSCRIBE", &all]), Value::Array(change("psubscribe", &all, 3)));
    assert_eq!(old.cmd(&["SSUBSCRIBE", &news]), Value::Array(change("ssubscribe", &news, 1)));
    let mut new = three(&proxy);
    assert_eq!(new.cmd(&["SUBSCRIBE", &news]), Value::Push(change("subscribe", &news, 1)));

    assert_eq!(publisher.cmd(&["PUBLISH", &news, "one"]), Value::Int(3));
    let from_pattern = vec!["pmessage".into(), all.as_str().into(), news.as_str().into(), "one".into()];
    let heard = [old.recv(), old.recv()];
    assert!(heard.contains(&Value::Array(message(&news, "one"))), "{heard:?}");
    assert!(heard.contains(&Value::Array(from_pattern)), "{heard:?}");
    assert_eq!(new.recv(), Value::Push(message(&news, "one")));

    assert_eq!(publisher.cmd(&["SPUBLISH", &news, "two"]), Value::Int(1));
    let sharded = vec!["smessage".into(), news.as_str().into(), "two".into()];
    assert_eq!(old.recv(), Value::Array(sharded));
    assert!(new.stays_silent(MOMENT));

    // RESP3 mixes messages and commands.
    assert_eq!(new.cmd(&["SET", &format!("{p}k"), "v"]), Value::Simple("OK".into()));
    assert_eq!(new.cmd(&["PUBLISH", &art, "x"]), Value::Int(1));
    assert_eq!(old.recv(), Value::Array(message(&art, "x")));
    new.send(&["PUBLISH", &news, "me"]);
    let heard = [new.recv(), new.recv()];
    assert!(
        heard.contains(&Value::Int(3)) && heard.contains(&Value::Push(message(&news, "me"))),
        "{heard:?}"
    );

    assert_eq!(proxy.metric("dsproxy_subscriptions"), 5.0);
    assert!(proxy.metric("dsproxy_messages_delivered_total") >= 7.0);
    drop(old);
    drop(new);
    eventually(SOON, "all subscriptions end", || proxy.metric("dsproxy_subscriptions") == 0.0);
    let nodes = stack.redis_nodes();
    eventually(SOON, "those at the nodes end", || upstream_subscribers(nodes, "NUMSUB", &news) == 0);
    assert_eq!(publisher.cmd(&["PUBLISH", &news, "nobody"]), Value::Int(0));
}

#[test]
fn ending_subscriptions_counts_down_as_redis_does() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack);
    let p = stack.key_prefix();
    for protocol in [2, 3] {
        let mut client = proxy.connect();
        client.cmd(&["HELLO", &protocol.to_string()]);
        let told = |items: Vec<Value>| if protocol == 3 { Value::Push(items) } else { Value::Array(items) };
        let nothing = |verb: &str, count| told(vec![verb.into(), Value::Nil, Value::Int(count)]);
        assert_eq!(client.cmd(&["UNSUBSCRIBE"]), nothing("unsubscribe", 0));
        assert_eq!(client.cmd(&["PUNSUBSCRIBE"]), nothing("punsubscribe", 0));
        assert_eq!(client.cmd(&["SUNSUBSCRIBE"]), nothing("sunsubscribe", 0));
        let (a, b) = (format!("{p}a"), format!("{p}b"));
        assert_eq!(client.cmd(&["UNSUBSCRIBE", &a]), told(change("unsubscribe", &a, 0)));
        client.send(&["SUBSCRIBE", &a, &b]);
        client.send(&["PSUBSCRIBE", &a]);
        assert_eq!(client.recv(), told(change("subscribe", &a, 1)));
        assert_eq!(client.recv(), told(change("subscribe", &b, 2)));
        assert_eq!(client.recv(), told(change("psubscribe", &a, 3)));
        assert_eq!(client.cmd(&["SUNSUBSCRIBE", &a]), told(change("sunsubscribe", &a, 0)));
        assert_eq!(client.cmd(&["UNSUBSCRIBE", "other"]), told(change("unsubscribe", "other", 3)));
        client.send(&["UNSUBSCRIBE"]);
        let mut names = Vec::new();
        for count in [2, 1] {
            let reply = client.recv();
            assert_eq!(reply.items()[2], Value::Int(count));
            names.push(reply.items()[1].text());
        }
        names.sort();
        assert_eq!(names, [a.clone(), b.clone()]);
        assert_eq!(client.cmd(&["UNSUBSCRIBE"]), nothing("unsubscribe", 1));
        assert_eq!(client.cmd(&["PUNSUBSCRIBE"]), told(change("punsubscribe", &a, 0)));
        assert_eq!(client.cmd(&["GET", &a]), Value::Nil, "it is an ordinary client again");
    }
}

#[test]
fn a_subscriber_in_the_old_dialect_may_do_little_else() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack);
    let p = stack.key_prefix();
    let channel = format!("{p}c");
    let mut client = proxy.connect();
    assert_eq!(client.cmd(&["PING"]), Value::Simple("PONG".into()));
    // As redis-py and others do: everything in one write.
    client.send_raw(
        format!("SUBSCRIBE {channel}\r\nGET x\r\nPING\r\nPING hi\r\nCONFIG GET save\r\n").as_bytes(),
    );
    assert_eq!(client.recv(), Value::Array(change("subscribe", &channel, 1)));
    let refusal = |name: &str| {
        Value::Error(format!(
            "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        ))
    };
    assert_eq!(client.recv(), refusal("get"));
    assert_eq!(client.recv(), Value::Array(vec!["pong".into(), "".into()]));
    assert_eq!(client.recv(), Value::Array(vec!["pong".into(), "hi".into()]));
    assert_eq!(client.recv(), refusal("config|get"));
    assert_eq!(client.cmd(&["HELLO", "3"]), refusal("hello"));
    assert_eq!(client.cmd(&["RESET"]), Value::Simple("RESET".into()));
    assert_eq!(client.cmd(&["GET", &channel]), Value::Nil);
    assert_eq!(proxy.connect().cmd(&["PUBLISH", &channel, "x"]), Value::Int(0));
    assert!(client.stays_silent(MOMENT));
    assert_eq!(client.cmd(&["SUBSCRIBE", &channel]), Value::Array(change("subscribe", &channel, 1)));
    assert_eq!(client.cmd(&["QUIT"]), Value::Simple("OK".into()));
    client.recv_to_end();

    // RESP3 has no such mode; going back to RESP2 enters it.
    let mut client = three(&proxy);
    client.cmd(&["SUBSCRIBE", &channel]);
    assert_eq!(client.cmd(&["PING"]), Value::Simple("PONG".into()));
    client.cmd(&["HELLO", "2"]);
    assert_eq!(client.cmd(&["GET", "x"]), refusal("get"));
    assert_eq!(proxy.connect().cmd(&["PUBLISH", &channel, "y"]), Value::Int(1));
    assert_eq!(client.recv(), Value::Array(message(&channel, "y")));
}

#[test]
fn what_follows_a_subscription_happens_after_it() {
    let stack = SharedStack::get();
    let proxy = proxy(&stack);
    let p = stack.key_prefix();
    let mut client = three(&proxy);
    for round in 0..50 {
        let channel = format!("{p}c{round}");
        let key = format!("{p}k");
        for args in [
            vec!["SET", &key, "1"],
            vec!["SUBSCRIBE", &channel],
            vec!["PUBLISH", &channel, "hi"],
            vec!["GET", &key],
        ] {
            client.send(&args);
        }
        let heard: Vec<Value> = (0..5).map(|_| client.recv()).collect();
        assert_eq!(heard[0], Value::Simple("OK".into()));
        assert_eq!(heard[1], Value::Push(change("subscribe", &channel, round + 1)));
        let rest: Vec<&Value> = heard[2..].iter().filter(|value| !matches!(value, Value::Push(_))).collect();
        assert_eq!(rest, [&Value::Int(1), &Value::from("1")]);
        assert!(heard[2..].contains(&Value::Push(message(&channel, "hi"))), "{heard:?}");
    }
}

#[test]
fn thousands_of_subscribers_cost_one_upstream_subscription_per_worker() {
    const CLIENTS: usize = 2000;
    const MESSAGES: usize = 50;
    let stack = SharedStack::get();
    let proxy = proxy(&stack);
    let channel = format!("{}c", stack.key_prefix());
    let mut clients: Vec<Resp> = (0..CLIENTS).map(|_| proxy.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&["SUBSCRIBE", &channel]));
    for client in &mut clients {
        assert_eq!(client.recv(), Value::Array(change("subscribe", &channel, 1)));
    }
    let upstream = upstream_subscribers(stack.redis_nodes(), "NUMSUB", &channel);
    assert!((1..=WORKERS as i64).contains(&upstream), "{upstream} upstream subscriptions");

    let mut publisher = proxy.connect();
    for number in 0..MESSAGES {
        publisher.send(&["PUBLISH", &channel, &number.to_string()]);
    }
    for _ in 0..MESSAGES {
        assert_eq!(publisher.recv(), Value::Int(CLIENTS as i64));
    }
    for client in &mut clients {
        for number in 0..MESSAGES {
            assert_eq!(client.recv(), Value::Array(message(&channel, &number.to_string())));
        }
    }
    let count = |publisher: &mut Resp| publisher.cmd(&["PUBSUB", "NUMSUB", &channel]).items()[1].int();
    assert_eq!(count(&mut publisher), CLIENTS as i64);
    // One that subscribes directly counts, too.
    let mut direct: Vec<Resp> = stack.redis_nodes().iter().map(Resp::connect).collect();
    direct.iter_mut().for_each(|node| _ = node.cmd(&["SUBSCRIBE", &channel]));
    assert_eq!(count(&mut publisher), CLIENTS as i64 + direct.len() as i64);
    assert_eq!(publisher.cmd(&["PUBLISH", &channel, "x"]), Value::Int(CLIENTS as i64 + 1));
    drop(clients);
    drop(direct);
    eventually(SOON, "nobody is subscribed", || {
        upstream_subscribers(stack.redis_nodes(), "NUMSUB", &channel) == 0 && count(&mut publisher) == 0
    });
}

#[test]
fn questions_are_answered_for_the_whole_cluster() {
    let stack = PrivateStack::start(KeeperOptions { with_postgres: false, ..KeeperOptions::default() });
    let nodes = stack.redis_nodes();
    let proxy = Proxy::start(&config(&nodes, ""));
    let mut asker = three(&proxy);
    let mut clients: Vec<Resp> = (0..6).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.cmd(&["SUBSCRIBE", "a1"]);
        client.cmd(&["PSUBSCRIBE", "p*"]);
        client.cmd(&["SSUBSCRIBE", "s1"]);
    }
    clients[0].cmd(&["SUBSCRIBE", "a2"]);
    clients[0].cmd(&["PSUBSCRIBE", "*"]);
    let mut direct = Resp::connect(&nodes[1]);
    direct.cmd(&["SUBSCRIBE", "a3"]);
    direct.cmd(&["PSUBSCRIBE", "q*"]);
    let names = |asker: &mut Resp, args: &[&str]| -> Vec<String> {
        asker.cmd(args).items().iter().map(Value::text).collect()
    };
    assert_eq!(names(&mut asker, &["PUBSUB", "CHANNELS"]), ["a1", "a2", "a3"]);
    assert_eq!(names(&mut asker, &["PUBSUB", "CHANNELS", "a[13]"]), ["a1", "a3"]);
    assert_eq!(names(&mut asker, &["PUBSUB", "SHARDCHANNELS"]), ["s1"]);
    let numbers = vec!["a1".into(), Value::Int(6), "a3".into(), Value::Int(1), "no".into(), Value::Int(0)];
    assert_eq!(asker.cmd(&["PUBSUB", "NUMSUB", "a1", "a3", "no"]), Value::Array(numbers));
    assert_eq!(asker.cmd(&["PUBSUB", "NUMSUB"]), Value::Array(vec![]));
    let numbers = vec!["s1".into(), Value::Int(6), "a1".into(), Value::Int(0)];
    assert_eq!(asker.cmd(&["PUBSUB", "SHARDNUMSUB", "s1", "a1"]), Value::Array(numbers));
    assert_eq!(asker.cmd(&["PUBSUB", "NUMPAT"]), Value::Int(3));
    // `*` is subscribed at every node, and still hears each message once.
    assert_eq!(asker.cmd(&["PUBLISH", "a2", "x"]), Value::Int(2));
    let heard = [clients[0].recv(), clients[0].recv()];
    assert!(heard.contains(&Value::Array(message("a2", "x"))), "{heard:?}");
    assert!(clients[0].stays_silent(MOMENT));
    drop(clients);
    eventually(SOON, "only the direct one is left", || {
        names(&mut asker, &["PUBSUB", "CHANNELS"]) == ["a3"]
            && asker.cmd(&["PUBSUB", "NUMPAT"]) == Value::Int(1)
            && names(&mut asker, &["PUBSUB", "SHARDCHANNELS"]).is_empty()
    });
}

#[test]
fn keyspace_notifications_come_from_every_node() {
    let stack = PrivateStack::start(KeeperOptions { with_postgres: false, ..KeeperOptions::default() });
    let nodes = stack.redis_nodes();
    for node in &nodes {
        Resp::connect(node).cmd(&["CONFIG", "SET", "notify-keyspace-events", "KEA"]);
    }
    let proxy = Proxy::start(&config(&nodes, ""));
    let mut by_pattern = proxy.connect();
    by_pattern.cmd(&["PSUBSCRIBE", "__keyspace@0__:*"]);
    let mut by_event = three(&proxy);
    by_event.cmd(&["SUBSCRIBE", "__keyevent@0__:set"]);
    let mut writer = proxy.connect();
    for number in 0..60 {
        writer.cmd(&["SET", &format!("k{number}"), "v"]);
    }
    let mut by_key: Vec<String> = (0..60).map(|_| by_pattern.recv().items()[2].text()).collect();
    let mut keys: Vec<String> = (0..60).map(|_| by_event.recv().items()[2].text()).collect();
    by_key.sort();
    keys.sort();
    let mut expected: Vec<String> = (0..60).map(|number| format!("k{number}")).collect();
    expected.sort();
    assert_eq!(keys, expected);
    assert_eq!(by_key, expected.iter().map(|key| format!("__keyspace@0__:{key}")).collect::<Vec<_>>());
    assert!(by_pattern.stays_silent(MOMENT) && by_event.stays_silent(MOMENT));
}

/// Publishes until a message arrives; how many times the subscriber was told something else meanwhile is none.
#[track_caller]
fn hears_again(publisher: &mut Resp, subscriber: &mut Resp, verb: &str, kind: &str, channel: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    subscriber.set_patience(Duration::from_millis(100));
    for number in 0.. {
        let _ = publisher.cmd(&[verb, channel, &format!("again{number}")]);
        if let Ok(heard) = subscriber.try_recv() {
            assert_eq!(heard.items()[0].text(), kind, "{heard:?}");
            break;
        }
        assert!(Instant::now() < end, "no message on {channel}");
    }
    while subscriber.try_recv().is_ok() {}
    subscriber.set_patience(SOON);
}

#[test]
fn subscriptions_survive_the_loss_of_their_node() {
    let stack = PrivateStack::start(KeeperOptions {
        with_postgres: false,
        replicas: 1,
        node_timeout_ms: 1000,
        ..KeeperOptions::default()
    });
    let nodes = stack.redis_nodes();
    let proxy = Proxy::start(&config(&nodes, ""));
    let mut publisher = proxy.connect();
    let mut subscribers: Vec<(String, Resp)> = Vec::new();
    for number in 0..12 {
        let channel = format!("c{number}");
        let mut client = if number % 2 == 0 { proxy.connect() } else { three(&proxy) };
        client.cmd(&["SUBSCRIBE", &channel]);
        client.cmd(&["SSUBSCRIBE", &channel]);
        subscribers.push((channel, client));
    }
    // The first node that holds a subscription, so that something is lost for certain.
    let victim = (0..3)
        .find(|node| {
            let channels = Resp::connect(&nodes[*node]).cmd(&["PUBSUB", "CHANNELS", "c*"]);
            !channels.items().is_empty()
        })
        .unwrap();
    stack.kill(&format!("redis-{victim}"));
    for (channel, client) in &mut subscribers {
        hears_again(&mut publisher, client, "PUBLISH", "message", channel);
    }
    for (channel, client) in &mut subscribers {
        hears_again(&mut publisher, client, "SPUBLISH", "smessage", channel);
        assert!(client.stays_silent(Duration::from_millis(20)), "nothing is confirmed twice");
    }
}

#[test]
fn a_sharded_channel_is_followed_when_its_slot_moves() {
    let stack = PrivateStack::start(KeeperOptions { with_postgres: false, ..KeeperOptions::default() });
    let nodes = stack.redis_nodes();
    let proxy = Proxy::start(&config(&nodes, ""));
    let (mut publisher, mut subscriber) = (proxy.connect(), proxy.connect());
    let channel = "moving";
    subscriber.cmd(&["SSUBSCRIBE", channel]);
    let slot = Resp::connect(&nodes[0]).cmd(&["CLUSTER", "KEYSLOT", channel]).int().to_string();
    let mut direct: Vec<Resp> = nodes.iter().map(Resp::connect).collect();
    let holds = |node: &mut Resp| !node.cmd(&["PUBSUB", "SHARDCHANNELS"]).items().is_empty();
    let from = (0..3).find(|node| holds(&mut direct[*node])).unwrap();
    let to = (from + 1) % 3;
    let ids: Vec<String> = direct.iter_mut().map(|node| node.cmd(&["CLUSTER", "MYID"]).text()).collect();
    for node in [to, from, 3 - to - from] {
        let reply = direct[node].cmd(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]);
        assert_eq!(reply, Value::Simple("OK".into()));
    }
    hears_again(&mut publisher, &mut subscriber, "SPUBLISH", "smessage", channel);
    assert_eq!(publisher.cmd(&["SPUBLISH", channel, "x"]), Value::Int(1));
    assert!(holds(&mut direct[to]) && !holds(&mut direct[from]));
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_and_others_hear_on() {
    let stack = SharedStack::get();
    let more = "[limits]\nclient_output_max = \"4MB\"\nclient_output_pause = \"1MB\"\n";
    let proxy = Proxy::start(&config(stack.redis_nodes(), more));
    let channel = format!("{}c", stack.key_prefix());
    let mut slow = proxy.connect();
    slow.cmd(&["SUBSCRIBE", &channel]);
    let mut quick = proxy.connect();
    quick.cmd(&["SUBSCRIBE", &channel]);
    let mut publisher = proxy.connect();
    let text = "x".repeat(100_000);
    let mut count = 0;
    eventually(Duration::from_secs(30), "the slow one is closed", || {
        let receivers = publisher.cmd(&["PUBLISH", &channel, &text]).int();
        assert_eq!(quick.recv(), Value::Array(message(&channel, &text)));
        count += 1;
        receivers == 1
    });
    assert!(count > 10, "closed after {count} messages");
    assert_eq!(proxy.metric("dsproxy_slow_clients_closed_total"), 1.0);
    let mut chunk = [0; 1 << 16];
    use std::io::Read;
    slow.stream().set_read_timeout(Some(SOON)).unwrap();
    while slow.stream().read(&mut chunk).is_ok_and(|read| read > 0) {}
}
