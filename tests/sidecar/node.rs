//! The node that owns a key, as the proxy would ask it.

use bytes::Bytes;
use dsproxy::resp::{ReplyScanner, Scan, push_command};
use dsproxy::sidecar::{Value, scripts, sidecar_key};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{Resp, SharedStack, Value as Reply};

pub const LONG: Duration = Duration::from_secs(30);

/// One key of a test's own, and a connection to its node.
pub struct Node {
    stream: TcpStream,
    plain: Resp,
    pub key: String,
    _stack: Option<SharedStack>,
}

impl Node {
    #[track_caller]
    pub fn new() -> Self {
        let stack = SharedStack::get();
        let key = format!("{}k", stack.key_prefix());
        let node = Self::at(stack.redis_nodes()[0].clone(), key);
        Self { _stack: Some(stack), ..node }
    }

    /// The owner of `key` in the cluster that this node is of.
    #[track_caller]
    pub fn at(mut addr: String, key: String) -> Self {
        if let Reply::Error(moved) = Resp::connect(&*addr).cmd(&["GET", &key]) {
            addr = moved.split(' ').nth(2).unwrap().to_owned();
        }
        let mut plain = Resp::connect(&*addr);
        for script in scripts() {
            assert_eq!(plain.cmd(&["SCRIPT", "LOAD", script.body]).text(), script.sha);
        }
        let stream = TcpStream::connect(&addr).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self { stream, plain, key, _stack: None }
    }

    pub fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }

    /// Runs a request; the raw reply.
    #[track_caller]
    pub fn run(&mut self, request: Vec<u8>) -> Vec<u8> {
        self.stream.write_all(&request).unwrap();
        let (mut reply, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            let read = self.stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the node hung up");
            reply.extend_from_slice(&buffer[..read]);
            if let Scan::Complete(_) = ReplyScanner::default().scan(&reply).unwrap() {
                return reply;
            }
        }
    }

    #[track_caller]
    pub fn raw(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let mut request = Vec::new();
        push_command(&mut request, args.iter().copied());
        self.run(request)
    }

    /// Runs a plain command on the key: `GET` stands for `GET key`.
    #[track_caller]
    pub fn on_key(&mut self, name: &str, args: &[&str]) -> Reply {
        let mut words = vec![name, self.key.as_str()];
        words.extend(args);
        self.plain.cmd(&words)
    }

    /// The same on its sidecar.
    #[track_caller]
    pub fn on_side(&mut self, name: &str, args: &[&str]) -> Reply {
        let side = String::from_utf8(sidecar_key(self.key())).unwrap();
        let mut words = vec![name, &side];
        words.extend(args);
        self.plain.cmd(&words)
    }

    /// A node of the cluster, for its settings.
    pub fn plain(&mut self) -> &mut Resp {
        &mut self.plain
    }

    #[track_caller]
    pub fn get(&mut self) -> Option<String> {
        match self.on_key("GET", &[]) {
            Reply::Nil => None,
            value => Some(value.text()),
        }
    }

    #[track_caller]
    pub fn field(&mut self, name: &str) -> Option<String> {
        match self.on_side("HGET", &[name]) {
            Reply::Nil => None,
            value => Some(value.text()),
        }
    }

    /// The lives of entry and sidecar in milliseconds, as PTTL has them.
    #[track_caller]
    pub fn lives(&mut self) -> (i64, i64) {
        (self.on_key("PTTL", &[]).int(), self.on_side("PTTL", &[]).int())
    }
}

pub fn text(text: &str) -> Value {
    Value::Text(Bytes::copy_from_slice(text.as_bytes()))
}

pub fn hash(fields: &[(&str, &str)]) -> Value {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Value::Hash(fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect())
}
