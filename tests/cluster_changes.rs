//! The cluster changes under load: slots move, nodes fail, freeze and come back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dsproxy::embedded::keeper::KeeperOptions;
use dsproxy::slot::slot;
use support::{PrivateStack, Proxy, Resp, Value, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

fn stack(replicas: usize, node_timeout_ms: u64) -> PrivateStack {
    let options = KeeperOptions { replicas, with_postgres: false, node_timeout_ms, ..Default::default() };
    let stack = PrivateStack::start(options);
    for node in stack.redis_nodes() {
        // Otherwise the other nodes refuse to serve, too, while one is down.
        Resp::connect(node.as_str()).cmd(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    stack
}

/// Before this cluster, with more keys for `[upstream]`.
fn proxy(stack: &PrivateStack, upstream: &str) -> Proxy {
    let nodes = stack.redis_nodes();
    Proxy::start(&format!(
        "[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 2\n[upstream]\nnodes = {nodes:?}\n{upstream}\n"
    ))
}

/// Hash tags whose slots belong to the primary `shard` of three.
fn tags(shard: usize, count: usize) -> Vec<String> {
    let range = 16384 * shard / 3..16384 * (shard + 1) / 3;
    let all = (0..).map(|n| format!("{{t{n}}}"));
    all.filter(|tag| range.contains(&usize::from(slot(&tag.as_bytes()[1..tag.len() - 1]))))
        .take(count)
        .collect()
}

/// A client on a thread of its own: pipelines of writes and reads on keys of its own, each checked against what the
/// client wrote before.
struct Load {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: JoinHandle<Outcome>,
}

/// What one client saw.
#[derive(Default)]
struct Outcome {
    errors: Vec<(Instant, String)>,
    successes: Vec<Instant>,
    longest: Duration,
}

impl Load {
    fn start(proxy: &Proxy, name: &str, tags: Vec<String>) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (mut client, name) = (proxy.connect(), name.to_owned());
        let (stopped, count) = (stop.clone(), rounds.clone());
        let thread = std::thread::spawn(move || {
            let mut outcome = Outcome::default();
            let mut known: Vec<Option<usize>> = vec![None; tags.len()];
            for round in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                one_round(&mut client, &name, &tags, round, &mut known, &mut outcome);
                count.fetch_add(1, Ordering::Relaxed);
            }
            outcome
        });
        Self { stop, rounds, thread }
    }

    fn rounds(&self) -> usize {
        self.rounds.load(Ordering::Relaxed)
    }

    fn finish(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// One pipeline over all tags: SET, then reads that must see it, in several shapes.
fn one_round(
    client: &mut Resp,
    name: &str,
    tags: &[String],
    round: usize,
    known: &mut [Option<usize>],
    outcome: &mut Outcome,
) {
    let (begin, value) = (Instant::now(), round.to_string());
    let mut commands: Vec<Vec<String>> = Vec::new();
    for tag in tags {
        let (a, b) = (format!("{tag}:{name}:a"), format!("{tag}:{name}:b"));
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        // What is there, the write, and the write as seen.
        commands.push(words(&["GET", &a]));
        commands.push(words(&["SET", &a, &value]));
        commands.push(words(&["GET", &a]));
        commands.push(words(&["SET", &b, &value]));
        commands.push(words(&["MGET", &a, &b]));
    }
    let answers = client.pipeline(&commands);
    outcome.longest = outcome.longest.max(begin.elapsed());
    let now = Value::from(value.as_str());
    for (at, five) in answers.chunks(5).enumerate() {
        let errors: Vec<String> = five
            .iter()
            .filter_map(|answer| if let Value::Error(text) = answer { Some(text.clone()) } else { None })
            .collect();
        if errors.is_empty() {
            outcome.successes.push(Instant::now());
            if let Some(before) = known[at] {
                assert_eq!(five[0], Value::from(before.to_string().as_str()), "{}: lost or old", tags[at]);
            }
            assert_eq!(five[1], Value::Simple("OK".into()));
            assert_eq!(five[2], now, "{}: a client does not see its own write", tags[at]);
            assert_eq!(five[4], Value::Array(vec![now.clone(), now.clone()]), "{}", tags[at]);
            known[at] = Some(round);
        } else {
            // The shape stays right, whatever else happens: no reply of another command in this place.
            assert!(matches!(five[0], Value::Bulk(_) | Value::Nil | Value::Error(_)), "{five:?}");
            assert!(
                matches!(&five[1], Value::Simple(text) if text == "OK") || matches!(five[1], Value::Error(_))
            );
            assert!(five[2] == now || matches!(five[2], Value::Bulk(_) | Value::Nil | Value::Error(_)));
            assert!(matches!(five[4], Value::Array(_) | Value::Error(_)), "{five:?}");
            outcome.errors.extend(errors.into_iter().map(|text| (Instant::now(), text)));
            known[at] = None;
        }
    }
}

/// Moves a slot as `redis-cli --cluster` does, key by key, and calls `meanwhile` between the steps
fn move_slot(
    nodes: &mut [Resp],
    ids: &[String],
    addrs: &[String],
    slot: u16,
    from: usize,
    to: usize,
    meanwhile: &dyn Fn(),
) {
    let slot = slot.to_string();
    let ok = Value::Simple("OK".into());
    assert_eq!(nodes[to].cmd(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]]), ok);
    assert_eq!(nodes[from].cmd(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]), ok);
    meanwhile();
    let keys = nodes[from].cmd(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
    let mut keys: Vec<String> = keys.items().iter().map(Value::text).collect();
    // A client's pair of keys goes one after the other: between the two its MGET meets TRYAGAIN.
    keys.sort();
    for (n, key) in keys.iter().enumerate() {
        let (host, port) = addrs[to].rsplit_once(':').unwrap();
        let done = nodes[from].cmd(&["MIGRATE", host, port, key, "0", "5000"]);
        assert_eq!(done, ok, "{key}");
        if n % 2 == 1 {
            meanwhile();
        }
    }
    for node in [to, from, 3 - to - from] {
        assert_eq!(nodes[node].cmd(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]), ok);
    }
}

/// What each node knows of the epochs and slots of all.
fn epochs(nodes: &mut [Resp]) -> Vec<Vec<String>> {
    let view = |node: &mut Resp| {
        let text = node.cmd(&["CLUSTER", "NODES"]).text();
        let mut known: Vec<String> = text
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                format!("{} {} {:?}", words[0], words[6], &words[8..])
            })
            .collect();
        known.sort();
        known
    };
    nodes.iter_mut().map(view).collect()
}

/// Moves slots from node to node, `hops` times in a row each; what is asked for meanwhile has no error and nothing is lost.
/// With `waits`, clients make progress between the steps of a move.
fn move_under_load(rounds: usize, hops: usize, waits: bool) {
    let stack = stack(0, 1_000);
    // The layout is learned by redirects alone.
    let proxy = proxy(&stack, "refresh_interval = \"1h\"");
    let addrs = stack.redis_nodes();
    let mut nodes: Vec<Resp> = addrs.iter().map(|addr| Resp::connect(addr.as_str())).collect();
    let ids: Vec<String> = nodes.iter_mut().map(|node| node.cmd(&["CLUSTER", "MYID"]).text()).collect();
    let moving = tags(0, 4);
    let mixed: Vec<String> = moving.iter().cloned().chain(tags(1, 2)).chain(tags(2, 2)).collect();
    let loads: Vec<Load> = (0..4).map(|n| Load::start(&proxy, &format!("c{n}"), mixed.clone())).collect();
    let progress = || {
        let before: Vec<usize> = loads.iter().map(Load::rounds).collect();
        eventually(PATIENCE, "all clients make progress", || {
            loads.iter().zip(&before).all(|(load, before)| load.rounds() > before + 1)
        });
    };
    let between = || {
        if waits {
            progress()
        }
    };
    progress();
    let mut owners = vec![0; moving.len()];
    for _ in 0..rounds {
        for (owner, tag) in owners.iter_mut().zip(&moving) {
            let slot = slot(&tag.as_bytes()[1..tag.len() - 1]);
            for _ in 0..hops {
                let (from, to) = (*owner, (*owner + 1) % 3);
                move_slot(&mut nodes, &ids, &addrs, slot, from, to, &between);
                *owner = to;
                // A node that has not heard of the last move's epoch would claim the next with the same, and the nodes would
                // never agree. The proxy has heard of neither.
                eventually(PATIENCE, "the nodes agree", || {
                    epochs(&mut nodes).windows(2).all(|two| two[0] == two[1])
                });
            }
            progress();
        }
    }
    for load in loads {
        let outcome = load.finish();
        assert!(outcome.errors.is_empty(), "{:?}", &outcome.errors[..outcome.errors.len().min(3)]);
    }
    assert!(proxy.metric("dsproxy_redirects_total") > 0.0);
}

#[test]
fn slots_move_under_load_and_no_client_notices() {
    move_under_load(3, 1, true);
}

/// Redirected to a node, a request finds that the slot has gone on: back to where it came from, too.
#[test]
fn slots_that_move_on_at_once_are_followed() {
    move_under_load(4, 2, false);
    move_under_load(2, 4, false);
}

/// What the documentation says a client may see while a node is away.
fn is_documented(error: &str) -> bool {
    error.starts_with("ERR dsproxy: ") || error.starts_with("CLUSTERDOWN ")
}

/// Takes the first primary away with `fail` and watches three clients, each on a shard of its own.
/// The shard must serve again within `within` of the election.
fn fail_over(node_timeout_ms: u64, upstream: &str, within: Duration, fail: impl Fn(&PrivateStack)) {
    let stack = stack(1, node_timeout_ms);
    let proxy = proxy(&stack, upstream);
    let shards: Vec<Load> =
        (0..3).map(|shard| Load::start(&proxy, &format!("c{shard}"), tags(shard, 3))).collect();
    eventually(PATIENCE, "the load runs", || shards.iter().all(|load| load.rounds() > 20));
    let mut witness = Resp::connect(stack.redis_nodes()[1].as_str());
    let failed = Instant::now();
    fail(&stack);
    let owner = stack.redis_nodes()[3].clone();
    eventually(PATIENCE, "the replica is elected", || {
        let nodes = witness.cmd(&["CLUSTER", "NODES"]).text();
        let elected = |line: &str| line.contains(&format!(" {owner}@")) && line.contains(" master ");
        nodes.lines().any(elected)
    });
    let elected = Instant::now();
    let before = shards[0].rounds();
    eventually(PATIENCE, "the shard serves again", || shards[0].rounds() > before + 20);
    for (shard, load) in shards.into_iter().enumerate() {
        let outcome = load.finish();
        if shard > 0 {
            assert!(outcome.errors.is_empty(), "shard {shard}: {:?}", outcome.errors.first());
            assert!(outcome.longest < Duration::from_secs(1), "shard {shard}: {:?}", outcome.longest);
            continue;
        }
        let odd: Vec<_> = outcome.errors.iter().filter(|(_, text)| !is_documented(text)).collect();
        assert!(odd.is_empty(), "{odd:?}");
        let back = outcome.successes.iter().find(|at| **at > elected).unwrap();
        let last_error = outcome.errors.iter().map(|(at, _)| *at).max().unwrap_or(elected);
        eprintln!(
            "elected {:?} after the failure, the first success {:?} after that, {} errors, the last {:?} after it",
            elected - failed,
            *back - elected,
            outcome.errors.len(),
            last_error.saturating_duration_since(elected),
        );
        assert!(*back - elected < within, "{:?}", *back - elected);
        assert!(last_error.saturating_duration_since(elected) < within);
    }
}

#[test]
fn a_replica_takes_over_from_a_killed_primary() {
    fail_over(1_000, "", Duration::from_secs(1), |stack| stack.kill("redis-0"));
}

/// Nothing but the proxy's own attention tells it of the election: attempts to reconnect are far between.
#[test]
fn a_replica_takes_over_while_nothing_asks() {
    let upstream = "reconnect_backoff_min = \"30s\"\nreconnect_backoff_max = \"30s\"";
    fail_over(1_000, upstream, Duration::from_secs(1), |stack| stack.kill("redis-0"));
}

#[test]
fn a_replica_takes_over_from_a_frozen_primary() {
    // What was sent to it before is waited for until its timeout.
    fail_over(1_000, "command_timeout = \"1s\"", Duration::from_secs(2), |stack| stack.pause("redis-0"));
}

#[test]
fn a_frozen_node_fails_its_own_commands_in_time_and_nothing_else() {
    let stack = stack(0, 1_000);
    let proxy = proxy(&stack, "command_timeout = \"700ms\"");
    let (frozen, others) = (tags(0, 2), [tags(1, 2), tags(2, 2)].concat());
    let mut client = proxy.connect();
    client.cmd(&["SET", &frozen[0], "before"]);
    let load = Load::start(&proxy, "c", others.clone());
    eventually(PATIENCE, "the load runs", || load.rounds() > 20);
    stack.pause("redis-0");
    for round in 0..3 {
        let begin = Instant::now();
        client.send(&["GET", &frozen[0]]);
        client.send(&["SET", &frozen[1], &format!("{round}")]);
        client.send(&["MGET", &frozen[0], &others[0]]);
        client.send(&["ECHO", "in turn"]);
        for _ in 0..3 {
            assert!(client.recv().error().starts_with("ERR dsproxy: "));
        }
        assert_eq!(client.recv(), Value::from("in turn"));
        assert!(begin.elapsed() < Duration::from_millis(1400), "{:?}", begin.elapsed());
    }
    stack.cont("redis-0");
    eventually(PATIENCE, "the node serves again", || {
        // Never a reply that belongs to an earlier question.
        let answers =
            client.pipeline(&[vec!["GET", &frozen[0]], vec!["ECHO", "x"], vec!["STRLEN", &frozen[0]]]);
        assert_eq!(answers[1], Value::from("x"));
        assert!(answers[0] == Value::from("before") || is_documented(answers[0].error()), "{answers:?}");
        assert!(answers[2] == Value::Int(6) || is_documented(answers[2].error()), "{answers:?}");
        answers[0] == Value::from("before") && answers[2] == Value::Int(6)
    });
    let outcome = load.finish();
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors.first());
    assert!(outcome.longest < Duration::from_millis(500), "{:?}", outcome.longest);
}
