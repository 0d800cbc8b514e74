//! One connection from its beginning to its end.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Run;
use crate::model::Model;
use crate::requests::{Batch, Speaker};
use crate::rng::Rng;
use crate::support::{Resp, Value, parse};

/// No reply may take longer; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(25);

pub struct Client<'a> {
    run: &'a Run,
    rng: &'a mut Rng,
    who: Speaker,
    model: Model,
    buffer: Vec<u8>,
    /// The last message of each publisher.
    heard: HashMap<(String, String), u64>,
    /// Lines of the last batch, for the report of a failure.
    asked: Vec<String>,
}

impl<'a> Client<'a> {
    pub fn new(run: &'a Run, rng: &'a mut Rng) -> Self {
        let id = run.next_client.fetch_add(1, Ordering::Relaxed);
        Self {
            who: Speaker::new(&run.prefix, id),
            run,
            rng,
            model: Model::new(run.lossy),
            buffer: Vec::new(),
            heard: HashMap::new(),
            asked: Vec::new(),
        }
    }

    /// Connects, asks, checks, goes.
    pub async fn live(mut self) {
        let mut stream = TcpStream::connect(self.run.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        self.run.tally.connections.fetch_add(1, Ordering::Relaxed);
        // One that leaves at once leaves behind what the next one at its place could be given by mistake.
        let rounds = if self.rng.per_mille(400) { 0 } else { self.rng.within(1, 6) };
        for _ in 0..rounds {
            let most = if self.rng.per_mille(50) { 200 } else { 16 };
            let batch = self.batch(most, true);
            self.write(&mut stream, &batch.bytes).await;
            self.check_all(&mut stream, &batch).await;
        }
        self.leave(stream).await;
    }

    fn batch(&mut self, most: usize, may_block: bool) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..self.rng.within(1, most) {
            batch.add(&mut self.who, self.rng, may_block);
        }
        self.asked = batch.expects.iter().map(|(_, line)| line.clone()).collect();
        batch
    }

    /// In pieces, at times, so that requests arrive torn.
    async fn write(&mut self, stream: &mut TcpStream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let length = if self.rng.per_mille(300) { self.rng.within(1, bytes.len()) } else { bytes.len() };
            let (piece, rest) = bytes.split_at(length);
            // Replies are not read meanwhile: what is asked for at once is far below the limits.
            stream.write_all(piece).await.unwrap();
            bytes = rest;
            if self.rng.per_mille(300) {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn check_all(&mut self, stream: &mut TcpStream, batch: &Batch) {
        for (expect, line) in &batch.expects {
            let reply = loop {
                let Some(value) = self.read(stream, line).await else {
                    self.fail(line, "the connection was closed")
                };
                match self.take_message(&value) {
                    true => self.run.tally.messages.fetch_add(1, Ordering::Relaxed),
                    false => break value,
                };
            };
            match self.model.check(expect, &reply, self.run.troubled) {
                Ok(excused) => {
                    self.run.tally.replies.fetch_add(1, Ordering::Relaxed);
                    self.run.tally.excused.fetch_add(u64::from(excused), Ordering::Relaxed);
                }
                Err(why) => self.fail(line, &format!("{why}, got {}", short(&reply))),
            }
        }
    }

    fn fail(&self, line: &str, why: &str) -> ! {
        let knows: String = self.model.knows().chars().take(2000).collect();
        panic!(
            "client {} (RESP{}): {line}: {why}\nasked together: {:#?}\nknew: {knows}",
            self.who.id, self.who.protocol, self.asked
        )
    }

    /// One value; `None` at the end.
    async fn read(&mut self, stream: &mut TcpStream, waits_for: &str) -> Option<Value> {
        loop {
            if let Some((value, used)) = parse(&self.buffer) {
                self.buffer.drain(..used);
                return Some(value);
            }
            match tokio::time::timeout(PATIENCE, stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(0) | Err(_)) => return None,
                Ok(Ok(_)) => {}
                Err(_) => self.give_up(stream, waits_for),
            }
        }
    }

    /// Nothing came: says what the proxy says of this connection.
    fn give_up(&self, stream: &TcpStream, waits_for: &str) -> ! {
        let mine = format!(" addr={} ", stream.local_addr().unwrap());
        let list = Resp::connect(self.run.addr).cmd(&["CLIENT", "LIST"]).text();
        let line = list.lines().find(|line| line.contains(&mine)).unwrap_or("the proxy does not know it");
        panic!(
            "client {} (RESP{}): no reply to {waits_for}; got {:?}; {line}; asked {:#?}",
            self.who.id,
            self.who.protocol,
            String::from_utf8_lossy(&self.buffer),
            self.asked
        )
    }

    /// True for a message: of the channel it says, and after the publisher's earlier ones.
    fn take_message(&mut self, value: &Value) -> bool {
        let (Value::Array(items) | Value::Push(items)) = value else { return false };
        if items.len() != 3 || items[0] != "message".into() {
            return false;
        }
        let (channel, text) = (items[1].text(), items[2].text());
        let (said, token) = text.split_once(' ').unwrap();
        assert_eq!(said, channel, "a message of another channel");
        let mut parts = token.split('-');
        let (publisher, number) = (parts.next().unwrap(), parts.next().unwrap().parse().unwrap());
        let last = self.heard.insert((channel, publisher.to_owned()), number);
        assert!(self.run.troubled || last < Some(number), "{publisher}: {last:?}, then {number}");
        true
    }

    /// In one of the ways in which clients leave.
    async fn leave(mut self, mut stream: TcpStream) {
        match self.rng.below(5) {
            0 => {
                let mut batch = Batch::default();
                if self.who.channel.is_none() || self.who.protocol == 3 {
                    batch = self.batch(8, false);
                }
                dsproxy::resp::push_command(&mut batch.bytes, [&b"QUIT"[..]]);
                self.write(&mut stream, &batch.bytes).await;
                self.check_all(&mut stream, &batch).await;
                while let Some(value) = self.read(&mut stream, "the end").await {
                    assert!(self.take_message(&value) || value == Value::Simple("OK".into()), "{value:?}");
                }
            }
            // A half-closed pipeline is answered to its end.
            1 => {
                let batch = self.batch(30, false);
                self.write(&mut stream, &batch.bytes).await;
                stream.shutdown().await.unwrap();
                self.check_all(&mut stream, &batch).await;
                while let Some(value) = self.read(&mut stream, "the end").await {
                    assert!(self.take_message(&value), "after the last reply: {value:?}");
                }
            }
            // What it asked for is answered into the void.
            2 => {
                let batch = self.batch(30, true);
                self.write(&mut stream, &batch.bytes).await;
            }
            // In the middle of a request.
            3 => {
                let batch = self.batch(10, true);
                let cut = self.rng.below(batch.bytes.len().max(1));
                self.write(&mut stream, &batch.bytes[..cut]).await;
            }
            // While it blocks.
            _ => {
                let mut bytes = Vec::new();
                let key = format!("{}nothing:{}", self.run.prefix, self.who.id);
                dsproxy::resp::push_command(&mut bytes, [&b"BLPOP"[..], key.as_bytes(), b"0"]);
                self.write(&mut stream, &bytes).await;
                tokio::task::yield_now().await;
            }
        }
    }
}

fn short(value: &Value) -> String {
    format!("{value:?}").chars().take(400).collect()
}
