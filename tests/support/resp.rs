//! A small blocking RESP client that shows what is on the wire.

use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Every wait of a test ends after this.
const PATIENCE: Duration = Duration::from_secs(10);

/// A reply. RESP2 and RESP3 spellings of the same thing are kept apart where a test may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+`
    Simple(String),
    /// `-`, without the mark.
    Error(String),
    /// `:`
    Int(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` and `_`.
    Nil,
    /// `*`
    Array(Vec<Value>),
    /// `%`
    Map(Vec<(Value, Value)>),
    /// `~`
    Set(Vec<Value>),
    /// `>`
    Push(Vec<Value>),
    /// `,`
    Double(f64),
    /// `#`
    Bool(bool),
    /// `=`, with its three-letter prefix.
    Verbatim(Vec<u8>),
    /// `(`
    BigNumber(String),
}

impl Value {
    /// A bulk or simple string as text; panics for anything else.
    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Self::Bulk(bytes) | Self::Verbatim(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Simple(text) => text.clone(),
            other => panic!("not a string: {other:?}"),
        }
    }

    /// An error's text; panics for anything else.
    #[track_caller]
    pub fn error(&self) -> &str {
        match self {
            Self::Error(text) => text,
            other => panic!("not an error: {other:?}"),
        }
    }

    /// An integer; panics for anything else.
    #[track_caller]
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            other => panic!("not an integer: {other:?}"),
        }
    }

    /// The elements of an array, a set or a push; panics for anything else.
    #[track_caller]
    pub fn items(&self) -> &[Value] {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => items,
            other => panic!("not an array: {other:?}"),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bulk(text.as_bytes().to_vec())
    }
}

/// Why a reply did not come.
#[derive(Debug)]
pub enum Lost {
    /// The other side closed the connection.
    Closed,
    /// Nothing came in time; these bytes did.
    Late(Vec<u8>),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "the connection was closed"),
            Self::Late(seen) => write!(f, "no whole reply in time, only {:?}", String::from_utf8_lossy(seen)),
        }
    }
}

/// A connection.
pub struct Resp {
    stream: TcpStream,
    buffer: Vec<u8>,
    patience: Duration,
}

impl Resp {
    /// Connects; panics when that fails.
    #[track_caller]
    pub fn connect(addr: impl ToSocketAddrs) -> Self {
        Self::try_connect(addr).unwrap()
    }

    /// Connects.
    pub fn try_connect(addr: impl ToSocketAddrs) -> std::io::Result<Self> {
        let addr = addr.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new(), patience: PATIENCE })
    }

    /// How long [`Resp::recv`] waits from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sends one command and waits for its reply.
    #[track_caller]
    pub fn cmd<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        self.send(args);
        self.recv()
    }

    /// Sends one command and waits for the bytes of its reply.
    #[track_caller]
    pub fn cmd_raw<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        self.send(args);
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some((_, used)) = parse(&self.buffer) {
                return self.buffer.drain(..used).collect();
            }
            if let Err(lost) = self.fill(deadline) {
                panic!("{lost}");
            }
        }
    }

    /// Sends one command and waits for its reply; `None` when the connection is gone.
    pub fn try_cmd<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Option<Value> {
        let mut request = Vec::new();
        dsproxy::resp::push_command(&mut request, args.iter().map(AsRef::as_ref));
        self.stream.write_all(&request).ok()?;
        self.try_recv().ok()
    }

    /// Sends one command.
    #[track_caller]
    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        let mut request = Vec::new();
        dsproxy::resp::push_command(&mut request, args.iter().map(AsRef::as_ref));
        self.send_raw(&request);
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends many commands at once and waits for all replies.
    #[track_caller]
    pub fn pipeline<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> Vec<Value> {
        let mut request = Vec::new();
        for args in commands {
            dsproxy::resp::push_command(&mut request, args.iter().map(AsRef::as_ref));
        }
        self.send_raw(&request);
        commands.iter().map(|_| self.recv()).collect()
    }

    /// Waits for one reply; panics when none comes.
    #[track_caller]
    pub fn recv(&mut self) -> Value {
        match self.try_recv() {
            Ok(value) => value,
            Err(lost) => panic!("{lost}"),
        }
    }

    /// Waits for one reply.
    pub fn try_recv(&mut self) -> Result<Value, Lost> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some((value, used)) = parse(&self.buffer) {
                self.buffer.drain(..used);
                return Ok(value);
            }
            self.fill(deadline)?;
        }
    }

    /// Waits for exactly `count` bytes; panics when they do not come.
    #[track_caller]
    pub fn recv_raw(&mut self, count: usize) -> Vec<u8> {
        let deadline = Instant::now() + self.patience;
        while self.buffer.len() < count {
            if let Err(lost) = self.fill(deadline) {
                panic!("{lost}");
            }
        }
        self.buffer.drain(..count).collect()
    }

    /// Waits for the other side to close; the bytes that came before. Panics when it does not close.
    #[track_caller]
    pub fn recv_to_end(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.fill(deadline) {
                Ok(()) => {}
                Err(Lost::Closed) => return std::mem::take(&mut self.buffer),
                Err(lost) => panic!("not closed: {lost}"),
            }
        }
    }

    /// True when nothing arrives for `time`.
    pub fn stays_silent(&mut self, time: Duration) -> bool {
        self.buffer.is_empty() && matches!(self.fill(Instant::now() + time), Err(Lost::Late(_)))
    }

    /// Closes our sending half.
    pub fn shutdown_write(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The socket, for tests of its edges.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn fill(&mut self, deadline: Instant) -> Result<(), Lost> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).unwrap();
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Lost::Closed),
            Ok(read) => {
                self.buffer.extend_from_slice(&chunk[..read]);
                Ok(())
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                Err(Lost::Late(self.buffer.clone()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(Lost::Closed),
        }
    }
}

/// One value at the start of `buf` with its length, if it is all there. A codec apart from the proxy's own, so that a
/// mistake there does not hide itself.
pub fn parse(buf: &[u8]) -> Option<(Value, usize)> {
    let newline = buf.windows(2).position(|pair| pair == b"\r\n")?;
    let line = String::from_utf8_lossy(&buf[1..newline]).into_owned();
    let body = newline + 2;
    let length =
        || line.parse::<i64>().unwrap_or_else(|_| panic!("no RESP: {:?}", String::from_utf8_lossy(buf)));
    let value = match buf[0] {
        b'+' => Value::Simple(line),
        b'-' => Value::Error(line),
        b':' => Value::Int(length()),
        b'_' => Value::Nil,
        b',' => Value::Double(line.parse().unwrap()),
        b'#' => Value::Bool(line == "t"),
        b'(' => Value::BigNumber(line),
        b'$' | b'=' | b'!' => {
            let Ok(count) = usize::try_from(length()) else { return Some((Value::Nil, body)) };
            let bytes = buf.get(body..body + count + 2)?[..count].to_vec();
            let value = match buf[0] {
                b'$' => Value::Bulk(bytes),
                b'=' => Value::Verbatim(bytes),
                _ => Value::Error(String::from_utf8_lossy(&bytes).into_owned()),
            };
            return Some((value, body + count + 2));
        }
        kind @ (b'*' | b'~' | b'>' | b'%') => {
            let Ok(count) = usize::try_from(length()) else { return Some((Value::Nil, body)) };
            let count = if kind == b'%' { 2 * count } else { count };
            let (mut items, mut at) = (Vec::new(), body);
            for _ in 0..count {
                let (item, used) = parse(&buf[at..])?;
                items.push(item);
                at += used;
            }
            let value = match kind {
                b'*' => Value::Array(items),
                b'~' => Value::Set(items),
                b'>' => Value::Push(items),
                _ => Value::Map(items.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()),
            };
            return Some((value, at));
        }
        _ => panic!("no RESP: {:?}", String::from_utf8_lossy(buf)),
    };
    Some((value, body))
}
