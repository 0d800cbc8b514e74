//! A proxy that runs twice: its journal was copied, and another process goes on with the copy.

use std::path::Path;
use std::time::Duration;

use dsproxy::failpoint::Safeguard;

use crate::check::Store;
use crate::support::{Resp, SharedStack, Value, eventually};
use crate::victim::{Setup, Victim};

/// Appended through the old one after the new one has begun, and by turns through the new one.
const EACH: usize = 200;

struct Twins {
    old: Victim,
    new: Victim,
    store: Store,
    key: String,
    _copy: tempfile::TempDir,
    _stack: SharedStack,
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let file = entry.unwrap().path();
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

impl Twins {
    fn start(env: &[(&str, &str)]) -> Self {
        let stack = SharedStack::get();
        let store = Store::postgres(stack.fresh_database());
        let setup = || Setup::new(stack.redis_nodes(), &store.url()).prefix(stack.key_prefix()).env(env);
        let mut old = Victim::new(setup());
        old.start(None);
        let key = format!("{}log:1", stack.key_prefix());
        append(&mut Resp::connect(("127.0.0.1", old.port())), &key, "before").unwrap();
        old.wait_flushed(Duration::from_secs(20));
        let copied = tempfile::tempdir().unwrap();
        copy(old.data(), copied.path());
        let mut new = Victim::new(setup().data(copied.path()));
        new.start(None);
        Self { old, new, store, key, _copy: copied, _stack: stack }
    }

    /// How many of the writes that the new one has acknowledged are missing, and how many are there twice.
    fn missing_and_doubled(&self) -> (usize, usize) {
        let rows: Vec<String> = self.store.rows("select value from log").into_iter().flatten().collect();
        let times = |n: usize| rows.iter().filter(|row| **row == format!("new {n}")).count();
        let count = |wanted: fn(usize) -> bool| (0..EACH).filter(|n| wanted(times(*n))).count();
        (count(|times| times == 0), count(|times| times > 1))
    }
}

fn append(proxy: &mut Resp, key: &str, value: &str) -> Result<(), String> {
    match proxy.cmd(&["SET", key, value]) {
        Value::Simple(_) => Ok(()),
        other => Err(other.error().to_owned()),
    }
}

/// Both append, by turns; why the old one was refused in the end.
fn race(twins: &Twins) -> Option<String> {
    let [mut old, mut new] = [&twins.old, &twins.new].map(|proxy| Resp::connect(("127.0.0.1", proxy.port())));
    let mut refused = None;
    for n in 0..EACH {
        refused = append(&mut old, &twins.key, &format!("old {n}")).err().or(refused);
        append(&mut new, &twins.key, &format!("new {n}")).unwrap();
    }
    twins.new.wait_flushed(Duration::from_secs(20));
    refused
}

#[test]
fn the_one_that_was_taken_over_writes_nothing_and_says_so() {
    let twins = Twins::start(&[]);
    race(&twins);
    assert_eq!(twins.missing_and_doubled(), (0, 0));
    let rows: Vec<String> = twins.store.rows("select value from log").into_iter().flatten().collect();
    assert!(!rows.iter().any(|row| row.starts_with("old")), "{rows:?}");
    let mut old = Resp::connect(("127.0.0.1", twins.old.port()));
    eventually(Duration::from_secs(20), "the old one refuses writes", || {
        append(&mut old, &twins.key, "late")
            .is_err_and(|error| error.starts_with("BUSY ") && error.contains("epoch"))
    });
    assert_eq!(old.cmd(&["GET", "plain"]), Value::Nil, "reads go on");
}

#[test]
fn without_the_fence_the_new_one_loses_writes() {
    let (_, name) = Safeguard::ALL.into_iter().find(|(known, _)| *known == Safeguard::Fence).unwrap();
    let twins = Twins::start(&[("DSPROXY_LEAVE_OUT", name)]);
    race(&twins);
    let (missing, doubled) = twins.missing_and_doubled();
    assert!(missing + doubled > 0, "nobody has noticed that the fence is missing");
}
