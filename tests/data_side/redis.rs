//! A cache of one test on the shared cluster, whose fills the test can hold.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dsproxy::cache::{BoxFuture, Store};
use dsproxy::resp::{Args, ReplyScanner, RequestLimits, RequestScanner, Scan, push_command};
use dsproxy::sidecar::scripts;
use tokio::sync::Semaphore;

use crate::support::{Resp, SharedStack, Value};

/// All keys of a test get a prefix that puts them, and their sidecars, on one node.
pub struct Cache {
    node: Mutex<TcpStream>,
    plain: Mutex<Resp>,
    prefix: String,
    /// Keys of invalidations.
    pub evicted: Mutex<Vec<Bytes>>,
    pub filling: AtomicUsize,
    /// A request with fills waits for a permit.
    pub gate: Semaphore,
    _stack: SharedStack,
}

/// The node of this number runs these scripts: by their place in the list of all.
const FILL: usize = 1;
const INVALIDATE: usize = 6;

impl Cache {
    #[track_caller]
    pub fn new() -> Arc<Self> {
        let stack = SharedStack::get();
        let prefix = format!("{{{}}}", stack.key_prefix());
        let mut addr = stack.redis_nodes()[0].clone();
        if let Value::Error(moved) = Resp::connect(&*addr).cmd(&["GET", &prefix]) {
            addr = moved.split(' ').nth(2).unwrap().to_owned();
        }
        let mut plain = Resp::connect(&*addr);
        scripts().iter().for_each(|script| drop(plain.cmd(&["SCRIPT", "LOAD", script.body])));
        let node = TcpStream::connect(&addr).unwrap();
        node.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Arc::new(Self {
            node: Mutex::new(node),
            plain: Mutex::new(plain),
            prefix,
            evicted: Mutex::default(),
            filling: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            _stack: stack,
        })
    }

    /// Runs a plain command on a key.
    pub fn run(&self, name: &str, key: &str) -> Value {
        self.plain.lock().unwrap().cmd(&[name, &format!("{}{key}", self.prefix)])
    }

    pub fn get(&self, key: &str) -> Option<Bytes> {
        match self.run("GET", key) {
            Value::Bulk(value) => Some(value.into()),
            _ => None,
        }
    }

    /// Entries (of the given keys) that there are, with their time to live in milliseconds.
    pub fn lives<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> HashMap<String, i64> {
        let life =
            |key: &str| Some((key.to_owned(), self.run("PTTL", key).int())).filter(|(_, life)| *life != -2);
        keys.into_iter().filter_map(life).collect()
    }

    /// The request with the test's prefix on its keys; notes what it is.
    fn own(&self, request: &[u8]) -> Vec<u8> {
        let mut scanner = RequestScanner::default();
        scanner.scan(request, &RequestLimits::default()).unwrap();
        let args = Args::new(request, scanner.spans());
        let mut words: Vec<Vec<u8>> = (0..args.len()).map(|at| args.get(at).unwrap().to_vec()).collect();
        if words[1] == scripts()[INVALIDATE].sha.as_bytes() {
            self.evicted.lock().unwrap().push(words[3].clone().into());
        }
        let keys = if words[0] == b"EVALSHA" { 3..5 } else { 1..2 };
        for word in &mut words[keys] {
            *word = [self.prefix.as_bytes(), word].concat();
        }
        let mut own = Vec::new();
        push_command(&mut own, words.iter().map(Vec::as_slice));
        own
    }

    fn exchange(&self, requests: &[Vec<u8>]) -> Vec<Option<Bytes>> {
        let mut node = self.node.lock().unwrap();
        node.write_all(&requests.concat()).unwrap();
        let (mut replies, mut bytes, mut buffer) = (Vec::new(), Vec::new(), vec![0; 1 << 16]);
        while replies.len() < requests.len() {
            match ReplyScanner::default().scan(&bytes).unwrap() {
                Scan::Complete(end) => replies.push(Some(bytes.drain(..end).collect::<Vec<u8>>().into())),
                Scan::Incomplete(_) => {
                    let read = node.read(&mut buffer).unwrap();
                    assert!(read > 0, "the node hung up");
                    bytes.extend_from_slice(&buffer[..read]);
                }
            }
        }
        replies
    }
}

/// What a read-through is handed.
pub struct Handed(pub Arc<Cache>);

impl Store for Handed {
    fn run(&self, requests: Vec<Vec<u8>>) -> BoxFuture<Vec<Option<Bytes>>> {
        let cache = self.0.clone();
        Box::pin(async move {
            let fill = scripts()[FILL].sha.as_bytes();
            let fills = requests.iter().any(|request| request.windows(fill.len()).any(|part| part == fill));
            if fills {
                cache.filling.fetch_add(1, Ordering::SeqCst);
                cache.gate.acquire().await.unwrap().forget();
                cache.gate.add_permits(1);
            }
            let own: Vec<_> = requests.iter().map(|request| cache.own(request)).collect();
            tokio::task::spawn_blocking(move || cache.exchange(&own)).await.unwrap()
        })
    }
}
