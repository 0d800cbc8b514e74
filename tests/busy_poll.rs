//! `server.busy_poll`: a worker with traffic stays awake for that long, and sleeps otherwise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

mod support;

use std::time::{Duration, Instant};

use support::{Proxy, SharedStack, eventually};

const WINDOW: Duration = Duration::from_millis(100);

const TRIES: usize = 5;

/// CPU time of all threads of a process so far.
fn cpu(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("schedstat")).ok();
    let nanos = |text: String| text.split(' ').next().unwrap().parse::<u64>().unwrap();
    Duration::from_nanos(tasks.filter_map(|task| of(task.unwrap())).map(nanos).sum())
}

/// CPU time from one request until the process is quiet for a whole window.
fn cost_of_a_request(proxy: &Proxy) -> Duration {
    let mut client = proxy.connect();
    client.cmd(&["GET", "busy-poll"]);
    let settled = || {
        let (before, begun) = (cpu(proxy.pid()), Instant::now());
        eventually(2 * WINDOW, "a window to pass", || begun.elapsed() >= WINDOW);
        cpu(proxy.pid()) - before < WINDOW / 10
    };
    eventually(Duration::from_secs(10), "the proxy sleeps again", settled);
    let before = cpu(proxy.pid());
    client.cmd(&["GET", "busy-poll"]);
    eventually(Duration::from_secs(10), "the proxy sleeps again", settled);
    cpu(proxy.pid()) - before
}

#[test]
fn a_worker_polls_for_the_window_and_then_sleeps() {
    let stack = SharedStack::get();
    let proxy = |busy_poll: &str| {
        let server =
            format!("[server]\nlisten = \"127.0.0.1:$PORT\"\nworkers = 1\nbusy_poll = \"{busy_poll}\"\n");
        Proxy::for_nodes(stack.redis_nodes(), None, &server)
    };
    // Other work on the machine takes CPU time away from the one, and adds to the other: the best of some tries counts.
    let polling = proxy("100ms");
    let costs: Vec<Duration> = (0..TRIES).map(|_| cost_of_a_request(&polling)).collect();
    assert!(costs.iter().max().unwrap() > &(WINDOW / 2), "it slept: {costs:?}");
    let sleeping = proxy("0");
    let costs: Vec<Duration> = (0..TRIES).map(|_| cost_of_a_request(&sleeping)).collect();
    assert!(costs.iter().min().unwrap() < &(WINDOW / 4), "it did not sleep: {costs:?}");
}
