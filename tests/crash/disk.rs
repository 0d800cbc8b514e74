//! A proxy whose journal's disk is full, or fails. A limit of the size of files does that without any rights.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::check::Store;
use crate::support::{Resp, SharedStack, Value, eventually};
use crate::victim::{Setup, Victim};

const PATIENCE: Duration = Duration::from_secs(20);

struct Bed {
    proxy: Victim,
    client: Resp,
    store: Store,
    prefix: String,
    _stack: SharedStack,
}

impl Bed {
    fn start() -> Self {
        let stack = SharedStack::get();
        let store = Store::postgres(stack.fresh_database());
        let prefix = stack.key_prefix().to_owned();
        let setup = Setup::new(stack.redis_nodes(), &store.url()).prefix(&prefix).without_power_cuts();
        let mut proxy = Victim::new(setup);
        proxy.start(None);
        let client = Resp::connect(("127.0.0.1", proxy.port()));
        Self { proxy, client, store, prefix, _stack: stack }
    }

    /// Files of the proxy may not become longer than this; `None`: as long as they like.
    fn limit(&self, bytes: Option<u64>) {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Pid::from_raw(self.proxy.pid() as i32), Resource::Fsize, limit).unwrap();
    }

    /// Size of the segment that is there.
    fn segment(&self) -> u64 {
        let files = std::fs::read_dir(self.proxy.data()).unwrap().map(|file| file.unwrap());
        let segments = files.filter(|file| file.path().extension().is_some_and(|end| end == "journal"));
        segments.map(|segment| segment.metadata().unwrap().len()).max().unwrap()
    }

    fn append(&mut self, value: &str) -> Value {
        let key = format!("{}log:1", self.prefix);
        self.client.cmd(&["SET", &key, value])
    }

    /// Appends until it is refused: how many were taken, and why not the next one.
    fn fill(&mut self) -> (usize, String) {
        for n in 0..10_000 {
            match self.append(&format!("{n:0200}")) {
                Value::Simple(_) => {}
                refused => return (n, refused.error().to_owned()),
            }
        }
        panic!("never refused");
    }

    fn condition(&self) -> String {
        self.proxy.http("/health/ready").body
    }

    fn rows(&self) -> usize {
        self.store.rows("select value from log").len()
    }

    /// Reads and plain keys go on.
    fn works_but_for_writes(&mut self) {
        let (kv, plain) = (format!("{}kv:1", self.prefix), format!("{}plain", self.prefix));
        assert!(self.client.cmd(&["GET", &kv]).text().contains('7'));
        assert_eq!(self.client.cmd(&["SET", &plain, "x"]).text(), "OK");
        self.client.cmd(&["DEL", &plain]);
    }

    fn write_one(&mut self) {
        let kv = format!("{}kv:1", self.prefix);
        assert_eq!(self.client.cmd(&["SET", &kv, r#"{"writer":1,"seq":7}"#]).text(), "OK");
        self.proxy.wait_flushed(PATIENCE);
    }
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let mut bed = Bed::start();
    bed.write_one();
    // The segment that is there can be filled; no other one of its size can be made.
    bed.limit(Some(bed.segment() - 1));
    let (taken, reason) = bed.fill();
    assert!(taken > 20, "{taken}");
    assert!(
        reason.starts_with("BUSY the journal's disk is full: ") && reason.ends_with("make room on it"),
        "{reason}"
    );
    bed.works_but_for_writes();
    eventually(PATIENCE, "health says so", || bed.condition().contains("disk is full"));
    bed.limit(None);
    // Nobody writes meanwhile: the journal looks for room by itself.
    eventually(PATIENCE, "ready again", || bed.proxy.http("/health/ready").status == 200);
    assert_eq!(bed.append("at last").text(), "OK");
    bed.proxy.wait_flushed(PATIENCE);
    assert_eq!(bed.rows(), taken + 1, "what was refused is not there");
}

#[test]
fn a_failed_write_poisons_the_journal_until_a_restart() {
    let mut bed = Bed::start();
    bed.write_one();
    // In the middle of the segment that is there.
    bed.limit(Some(16 << 10));
    let (taken, reason) = bed.fill();
    assert!(taken > 20, "{taken}");
    assert!(reason.starts_with("BUSY the journal cannot be written any more: cannot write "), "{reason}");
    bed.limit(None);
    assert!(bed.append("more").error().contains("restart the proxy"), "it is never tried again");
    bed.works_but_for_writes();
    eventually(PATIENCE, "health says so", || bed.condition().contains("cannot be written any more"));
    let page = bed.proxy.http("/metrics").body;
    assert!(page.contains("dsproxy_journal_poisoned 1"), "{page}");
    bed.proxy.wait_flushed(PATIENCE);
    bed.proxy.kill();
    bed.proxy.start(None);
    bed.client = Resp::connect(("127.0.0.1", bed.proxy.port()));
    assert_eq!(bed.append("at last").text(), "OK");
    bed.proxy.wait_flushed(PATIENCE);
    // The one whose write failed was answered with that error: it may be there, or not.
    assert!((taken + 1..=taken + 2).contains(&bed.rows()), "{} of {taken}", bed.rows());
}

#[test]
fn a_directory_that_cannot_be_written_is_named_at_the_start() {
    let stack = SharedStack::get();
    let store = Store::postgres(stack.fresh_database());
    // Nobody can make a file there, root neither.
    let setup = Setup::new(stack.redis_nodes(), &store.url()).data("/proc/dsproxy".as_ref());
    let mut proxy = Victim::new(setup);
    proxy.spawn(None);
    let text = proxy.wait_end();
    assert!(text.contains("cannot create /proc/dsproxy") && text.contains("data_dir"), "{text}");
}
